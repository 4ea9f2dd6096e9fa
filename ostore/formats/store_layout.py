"""
What files and folders of a store are called, and what each name says. It imports nothing of ours, so that whoever needs
only a name loads only this.

    blobs/sha256-HEX                                a blob
    manifests/HOST/NAMESPACE/MODEL/TAG              a manifest
    manifests/.ostore-tmp/COMMAND/                  manifests that wait, where `manifests/` is on a disk of its own
    .ostore/lock                                    held while something is published or removed
    .ostore/tx/COMMAND/                             what a running command has staged
    .ostore/trash/BATCH/                            what was removed
    .ostore/quarantine/                             what was damaged or odd, and is kept
"""

from __future__ import annotations

import re

BLOBS = "blobs"
MANIFESTS = "manifests"
# Branches pdevine/addressable-manifest and pdevine/manifest-list of ollama (April 2026), not in any release.
COMING_MANIFESTS = "manifests-v2"
# At a depth where Ollama looks for no manifest.
STAGED_MANIFESTS = ".ostore-tmp"

WORKSPACE = ".ostore"
TRANSACTIONS = "tx"
TRASH = "trash"
QUARANTINE = "quarantine"
# In the folder of a transaction: manifests, a blob being written, a second name of a blob that was there already.
TRANSACTION_MANIFESTS = "m"
PART = ".part"
PIN = ".pin"

# ollama server/download.go, x/transfer/download.go, server/upload.go, server/quantization.go and server/create.go at
# fb30760: partial downloads and their parts, tensors, uploads, and what llama-quantize is told to write.
_TEMPORARY = re.compile(
    r"sha256-[0-9a-f]{64}(-partial(-[0-9]+)?|\.tmp)|sha256-[0-9]+|(COPY|I?Q[0-9]\w*|B?F(16|32)|TQ\w+|MXFP4\w*)[0-9]+"
    r"|(split-copy|projector-metadata|compat-tensors)[0-9]+|split-gguf-.*"
)
# ollama server/download.go and x/transfer/download.go at fb30760: the blob while it is loaded, the parts of it that are
# still to come, and a tensor while it is loaded.
_DOWNLOAD = re.compile(r"sha256-([0-9a-f]{64})(?:-partial(?:-[0-9]+)?|\.tmp)")
# ollama server/create.go at fb30760: an interrupted conversion leaves the first beside blobs/, full of links, and
# splitting a file leaves the second in blobs/, full of hard links. Ollama never removes them.
CONVERSION_PREFIX = "ollama-safetensors"
SPLITTING_PREFIX = "split-gguf-"


def is_temporary(filename: str) -> bool:
    """Whether Ollama gives this name to an unfinished file or a working folder of its own."""
    return _TEMPORARY.fullmatch(filename) is not None


def downloaded_digits(filename: str) -> str | None:
    """The 64 digits of the blob that a file in `blobs/` is an unfinished download of, or None."""
    match = _DOWNLOAD.fullmatch(filename)
    return match[1] if match else None


def command_of(path: str) -> str:
    """The folder of the command that a path `tx/COMMAND/…` of the workspace belongs to."""
    return path.split("/")[1]
