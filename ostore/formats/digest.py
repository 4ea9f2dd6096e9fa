"""The digest type. The path of a blob is built from a `Digest` and nothing else, which rules out CVE-2024-37032."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from ostore.formats.errors import InvalidDigestError

_CANONICAL = re.compile(r"sha256:([0-9a-f]{64})")
_FILE_NAME = re.compile(r"sha256-([0-9a-f]{64})")
# ollama manifest/paths.go at fb30760 accepts both separators and both cases. Its start-up prune compares text, so only
# the canonical form survives it.
_TOLERATED = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
# What else the file of a blob is called after it went through another program: '_' or U+F03A (of WSL, Samba and
# Cygwin) where a disk cannot hold ':', or the digits alone.
_SPELLED = re.compile(r"(?:[sS][hH][aA]256[-:_\uf03a])?([0-9a-fA-F]{64})")


class Digest(NamedTuple):
    """
    A SHA-256, as 64 lower-case hexadecimal digits. `str()` puts `sha256:` before them.

    It is a tuple because commands look up every blob of a store in several tables. A dataclass would hash and compare
    in Python, which is slower.
    """

    hex: str

    @classmethod
    def of_text(cls, text: object) -> Digest | None:
        """Return the digest that a text spells in the canonical form, or None for any other text or type."""
        match = _CANONICAL.fullmatch(text) if isinstance(text, str) else None
        return cls(match[1]) if match else None

    @classmethod
    def parse(cls, text: object) -> Digest:
        """Read the canonical form. Raises InvalidDigestError for any other text or type."""
        digest = cls.of_text(text)
        if digest is None:
            raise InvalidDigestError(f"digest: expected 'sha256:' and 64 lower-case hex digits, got {text!r:.90}")
        return digest

    @classmethod
    def tolerate(cls, text: object) -> Digest:
        """Read any form that Ollama resolves (dash, upper case). Raises InvalidDigestError for anything else."""
        match = _TOLERATED.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidDigestError(f"digest: expected 'sha256:' and 64 hex digits, got {text!r:.90}")
        return cls(match[1].lower())

    @classmethod
    def of_filename(cls, filename: str) -> Digest | None:
        """Return the digest that names a file in `blobs/`, or None for a temporary file or partial download."""
        match = _FILE_NAME.fullmatch(filename)
        # Same as cls(match[1]), but takes half the time.
        return tuple.__new__(cls, (match[1],)) if match else None

    @classmethod
    def of(cls, data: bytes | memoryview) -> Digest:
        """Hash bytes in memory."""
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def filename(self) -> str:
        """The name in `blobs/`. Ollama uses the dash form since 0.1.30 (server/fixblobs.go)."""
        return f"sha256-{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 digits, as `ollama list` and its progress bars show them."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


def blob_digest(filename: str) -> Digest | None:
    """Return the digest that a file name spells in any form, or None. Ollama finds only some of these forms."""
    match = _SPELLED.fullmatch(filename)
    return Digest(match[1].lower()) if match else None


def is_misspelled(filename: str) -> bool:
    """Return whether no Ollama finds the blob of this file name. Since 0.1.30 a server renames the form with ':'."""
    digest = blob_digest(filename)
    return digest is not None and filename not in {digest.filename, str(digest)}


def blob_filenames(digest: Digest) -> tuple[str, str, str]:
    """
    Return the names that a blob may have: that of Ollama since 0.1.30, that of older releases, and the upper-case one.

    Source: ollama server/fixblobs.go and manifest/paths.go at fb30760.
    """
    return digest.filename, str(digest), f"sha256-{digest.hex.upper()}"


def reading_order(digest: Digest, filename: str) -> tuple[int, str]:
    """Return a key that sorts the names of one blob: those of `blob_filenames` first, in that order."""
    names = blob_filenames(digest)
    return names.index(filename) if filename in names else len(names), filename
