"""
The table of frames at the end of a bundle: a hint where each frame lies, believed only as far as the frames agree.

Format: zstd seekable format 0.1.0 (contrib/seekable_format of the zstd sources): a skippable frame of entries
(compressed size, content size, both u32 little endian), then a footer of 9 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ostore.formats.errors import InvalidBundleError, LimitError
from ostore.formats.zstd_frame import MAX_FRAME_BYTES, MAX_FRAME_CONTENT, FrameSpan

SKIPPABLE_MAGIC = b"\x5e\x2a\x4d\x18"
FOOTER_MAGIC = b"\xb1\xea\x92\x8f"
FOOTER_BYTES = 9
HEADER_BYTES = 8
# 2 TiB in frames of 8 MiB, or every member that a bundle may have in two frames of its own.
MAX_FRAMES = 262_144
_ENTRY = struct.Struct("<II")
MAX_TABLE_BYTES = HEADER_BYTES + MAX_FRAMES * _ENTRY.size + FOOTER_BYTES


def write_table(spans: Sequence[FrameSpan]) -> bytes:
    """The complete skippable frame for frames that follow each other from the start of the file."""
    body = b"".join(_ENTRY.pack(span.size, span.content_size) for span in spans)
    footer = len(spans).to_bytes(4, "little") + b"\0" + FOOTER_MAGIC
    return SKIPPABLE_MAGIC + (len(body) + len(footer)).to_bytes(4, "little") + body + footer


def table_size(footer: bytes) -> int | None:
    """The length in bytes of the whole table that ends with this footer (9 bytes), or None if it is no footer."""
    if len(footer) != FOOTER_BYTES or not footer.endswith(FOOTER_MAGIC) or footer[4]:
        return None
    count = int.from_bytes(footer[:4], "little")
    return HEADER_BYTES + count * _ENTRY.size + FOOTER_BYTES if count <= MAX_FRAMES else None


def read_table(table: bytes) -> tuple[FrameSpan, ...]:
    """Read a whole table. Raises InvalidBundleError or LimitError."""
    if table_size(table[-FOOTER_BYTES:]) != len(table) or table[:4] != SKIPPABLE_MAGIC:
        raise InvalidBundleError("seek table: not one, or not whole")
    if int.from_bytes(table[4:8], "little") != len(table) - HEADER_BYTES:
        raise InvalidBundleError("seek table: its length disagrees with its footer")
    spans = tuple(FrameSpan(*entry) for entry in _ENTRY.iter_unpack(table[HEADER_BYTES:-FOOTER_BYTES]))
    if any(not 0 < span.content_size <= MAX_FRAME_CONTENT or span.size > MAX_FRAME_BYTES for span in spans):
        raise LimitError("seek table: a frame of a size that a bundle cannot have")
    return spans
