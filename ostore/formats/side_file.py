"""Recognise side files, which operating systems write into the folders that they show. They are no part of a store."""

from __future__ import annotations

from collections.abc import Mapping

# The first bytes of each kind. AppleDouble: RFC 1740, appendix B. Thumbs.db is a compound file of Microsoft (MS-CFB).
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
_BY_NAME: Mapping[str, bytes] = {
    ".DS_Store": b"\x00\x00\x00\x01Bud1",
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "desktop.ini": b"",
}


def may_be_side_file(name: str) -> bool:
    """Return whether a file has the name of a side file."""
    return name.startswith("._") or name in _BY_NAME


def is_side_file(name: str, content: bytes) -> bool:
    """
    Return whether name and first bytes are those of a side file. An empty file is none.

    `content` is the whole file. A file with a digest in it may be somebody's manifest, so ask `digest_shaped` as well.
    """
    first = _APPLE_DOUBLE if name.startswith("._") else _BY_NAME.get(name)
    return first is not None and bool(content) and content.startswith(first)
