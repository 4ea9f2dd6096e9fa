"""The one digest type: a path is built from it and from nothing else (CVE-2024-37032 is what happens otherwise)."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from ostore.formats.errors import InvalidDigestError

_CANONICAL = re.compile(r"sha256:([0-9a-f]{64})")
_FILE_NAME = re.compile(r"sha256-([0-9a-f]{64})")
# ollama manifest/paths.go at fb30760 accepts both separators and both cases; only the canonical form survives
# its start-up prune, which compares text.
_TOLERATED = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


class Digest(NamedTuple):
    """
    A SHA-256, as 64 lower-case hexadecimal digits; `str()` gives `sha256:…`.

    A tuple, because commands look up every blob of a store in several tables: a dataclass would hash and compare in
    Python.
    """

    hex: str

    @classmethod
    def of_text(cls, text: object) -> Digest | None:
        """The digest that a text in the canonical form says, or None for every other text or type."""
        match = _CANONICAL.fullmatch(text) if isinstance(text, str) else None
        return cls(match[1]) if match else None

    @classmethod
    def parse(cls, text: object) -> Digest:
        """Read the canonical form. Raises InvalidDigestError for every other text or type."""
        digest = cls.of_text(text)
        if digest is None:
            raise InvalidDigestError(f"digest: expected 'sha256:' and 64 lower-case hex digits, got {text!r:.90}")
        return digest

    @classmethod
    def tolerate(cls, text: object) -> Digest:
        """Read any form that Ollama itself resolves (dash, upper case). Raises InvalidDigestError."""
        match = _TOLERATED.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidDigestError(f"digest: expected 'sha256:' and 64 hex digits, got {text!r:.90}")
        return cls(match[1].lower())

    @classmethod
    def of_filename(cls, filename: str) -> Digest | None:
        """The digest that a file in `blobs/` is named by, or None: temp files and partial downloads have none."""
        match = _FILE_NAME.fullmatch(filename)
        # As cls(match[1]), in half the time.
        return tuple.__new__(cls, (match[1],)) if match else None

    @classmethod
    def of(cls, data: bytes | memoryview) -> Digest:
        """The digest of bytes in memory."""
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def filename(self) -> str:
        """The name in `blobs/`; the dash form since Ollama 0.1.30 (server/fixblobs.go)."""
        return f"sha256-{self.hex}"

    @property
    def short(self) -> str:
        """Twelve digits, as `ollama list` and its progress bars show them."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


def blob_digest(filename: str) -> Digest | None:
    """The digest that a file in `blobs/` is named by, in any form that Ollama has written or resolves; else None."""
    try:
        return Digest.tolerate(filename)
    except InvalidDigestError:
        return None


def blob_filenames(digest: Digest) -> tuple[str, str, str]:
    """
    Where a blob may lie: as every Ollama since 0.1.30 writes it, as older ones did, and in upper case.

    ollama server/fixblobs.go and manifest/paths.go at fb30760.
    """
    return digest.filename, str(digest), f"sha256-{digest.hex.upper()}"
