"""
The seek table at the end of a bundle. It says where each frame lies; a reader checks it against the frames.

Format: zstd seekable format 0.1.0 (contrib/seekable_format of the zstd sources). A skippable frame holds the entries
(compressed size and content size, both u32 little endian), then a footer of 9 bytes.
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
# Enough for 2 TiB in frames of 8 MiB, and for two frames for every member that a bundle may have.
MAX_FRAMES = 262_144
_ENTRY = struct.Struct("<II")
MAX_TABLE_BYTES = HEADER_BYTES + MAX_FRAMES * _ENTRY.size + FOOTER_BYTES


def write_table(spans: Sequence[FrameSpan]) -> bytes:
    """Return the whole skippable frame. `spans` are the frames of the file in order, from its start, without gaps."""
    body = b"".join(_ENTRY.pack(span.size, span.content_size) for span in spans)
    footer = len(spans).to_bytes(4, "little") + b"\0" + FOOTER_MAGIC
    return SKIPPABLE_MAGIC + (len(body) + len(footer)).to_bytes(4, "little") + body + footer


def table_size(footer: bytes) -> int | None:
    """Return the size in bytes of the whole table that ends with this footer (9 bytes), or None if it is no footer."""
    if len(footer) != FOOTER_BYTES or not footer.endswith(FOOTER_MAGIC) or footer[4]:
        return None
    count = int.from_bytes(footer[:4], "little")
    return HEADER_BYTES + count * _ENTRY.size + FOOTER_BYTES if count <= MAX_FRAMES else None


def read_table(table: bytes) -> tuple[FrameSpan, ...]:
    """Read a whole table. Raises InvalidBundleError if it is damaged, LimitError if a frame is empty or too large."""
    if table_size(table[-FOOTER_BYTES:]) != len(table) or table[:4] != SKIPPABLE_MAGIC:
        raise InvalidBundleError("seek table: damaged or incomplete")
    if int.from_bytes(table[4:8], "little") != len(table) - HEADER_BYTES:
        raise InvalidBundleError("seek table: its length disagrees with its footer")
    spans = tuple(FrameSpan(*entry) for entry in _ENTRY.iter_unpack(table[HEADER_BYTES:-FOOTER_BYTES]))
    if any(not 0 < span.content_size <= MAX_FRAME_CONTENT or span.size > MAX_FRAME_BYTES for span in spans):
        raise LimitError("seek table: a frame is empty or too large")
    return spans
