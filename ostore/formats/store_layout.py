"""
The names of files and folders in a store. This module imports nothing of ostore, so it loads fast.

    blobs/sha256-HEX                                a blob
    manifests/HOST/NAMESPACE/MODEL/TAG              a manifest
    manifests/.ostore-tmp/COMMAND/                  staged manifests, if `manifests/` is on a disk of its own
    .ostore/lock                                    held while a command publishes or removes
    .ostore/tx/COMMAND/                             what a running command has staged
    .ostore/trash/BATCH/                            what was removed
    .ostore/links                                   the folders elsewhere that hold links to blobs of this store
    .ostore/quarantine/                             damaged or odd files that are kept
"""

from __future__ import annotations

import re

# The path of a store must have none of these: ollama manifest/manifest.go at fb30760 puts the raw path into a glob.
PATH_GLOBS = frozenset("*?[")

BLOBS = "blobs"
MANIFESTS = "manifests"
# Branches pdevine/addressable-manifest and pdevine/manifest-list of ollama (April 2026), not in any release.
COMING_MANIFESTS = "manifests-v2"
# Ollama looks for no manifest at this depth.
STAGED_MANIFESTS = ".ostore-tmp"

WORKSPACE = ".ostore"
TRANSACTIONS = "tx"
TRASH = "trash"
QUARANTINE = "quarantine"
# In the folder of a transaction: the folder of manifests, the file whose lock shows that the command lives, and the
# suffixes of a blob that is being written, of the first bytes of one whose source can go on from there, and of a pin (a
# second name for a blob of the store).
TRANSACTION_MANIFESTS = "m"
ALIVE = "alive"
PART = ".part"
BEGUN = ".begun"
PIN = ".pin"

# Partial downloads and their parts, tensors, uploads, and output of llama-quantize. Source: ollama server/download.go,
# x/transfer/download.go, server/upload.go, server/quantization.go and server/create.go at fb30760. Ollama 0.1.34 leaves
# sha256-<digits>-partial as well.
_TEMPORARY = re.compile(
    r"sha256-[0-9a-f]{64}(-partial(-[0-9]+)?|\.tmp)|sha256-[0-9]+(-partial)?|(COPY|I?Q[0-9]\w*|B?F(16|32)|TQ\w+|MXFP4\w*)[0-9]+"
    r"|(split-copy|projector-metadata|compat-tensors)[0-9]+|split-gguf-.*"
)
# A partial download, the records of its parts, and a tensor while Ollama downloads it. Source: ollama
# server/download.go and x/transfer/download.go at fb30760.
_DOWNLOAD = re.compile(r"sha256-([0-9a-f]{64})(?:-partial(?:-[0-9]+)?|\.tmp)")
# An interrupted conversion leaves a folder of links beside blobs/ (first prefix). Splitting a file leaves a folder of
# hard links in blobs/ (second prefix). Ollama never removes them. Source: ollama server/create.go at fb30760.
CONVERSION_PREFIX = "ollama-safetensors"
SPLITTING_PREFIX = "split-gguf-"


def is_temporary(filename: str) -> bool:
    """Whether Ollama gives this name to an unfinished file or a working folder."""
    return _TEMPORARY.fullmatch(filename) is not None


def downloaded_digits(filename: str) -> str | None:
    """Return the 64 digits of a blob from the name of its unfinished download in `blobs/`, or None."""
    match = _DOWNLOAD.fullmatch(filename)
    return match[1] if match else None


def command_of(path: str) -> str:
    """The folder of the command that a path `tx/COMMAND/...` of the workspace belongs to."""
    return path.split("/")[1]
