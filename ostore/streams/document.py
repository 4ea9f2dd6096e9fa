"""
Read a small document that was carried here: an inventory or a lock, as it was written or as other programs leave it.

It may be one zstd frame. PowerShell's `>` writes UTF-16, and editors put a mark in front of UTF-8. All of it is
hostile, so nothing is decoded beyond a limit.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator

import zstandard

from ostore.formats.errors import FormatError, LimitError, TruncatedError
from ostore.formats.zstd_frame import MAGIC
from ostore.streams.chunks import read_until_full

# So many first bytes tell what a file is: a zstd frame shows nothing before its first block, of 128 KiB, is complete.
PEEK_BYTES = 256 * 1024
# The zstd program takes the size of a small file for its window.
_MAX_WINDOW = 32 * 1024 * 1024
# A block of 4 bytes can stand for 128 KiB, so these stand for at most 8 MiB.
_STEP_BYTES = 256
# The last bits of the byte behind the magic number: there is a checksum, and no dictionary.
_LAST_BITS, _HAS_CHECKSUM = 0b1111, 0b100
_SIXTEEN = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# An inventory begins with a brace, a lock with a remark or a digest.
_BEGINNINGS = (b"{", b"#", b"sha256:")


def is_document(start: bytes) -> bool:
    """Return whether a file with these first bytes, up to PEEK_BYTES, may be an inventory or a lock."""
    try:
        content = next(filter(None, _unpacked(start)), b"") if start.startswith(MAGIC) else start
        # Half a character at the end says nothing.
        whole = len(content) & ~1 if content[:2] in _SIXTEEN else len(content)
        return _as_utf8(content[:whole]).lstrip().startswith(_BEGINNINGS)
    except TruncatedError:
        # Nothing can be read of it. The zstd program writes a checksum behind a frame, and a bundle has none.
        return len(start) > len(MAGIC) and start[len(MAGIC)] & _LAST_BITS == _HAS_CHECKSUM
    except FormatError:
        return False


def read_document(read: Callable[[int], bytes], limit: int, start: bytes = b"") -> bytes:
    """
    Return the rest of an input as UTF-8, behind the bytes `start` that were read before.

    Raises LimitError above `limit` bytes, FormatError, TruncatedError for a frame that is cut off, and what `read`
    raises.
    """
    raw = start + read_until_full(read, max(0, limit + 1 - len(start)))
    _refuse_more(len(raw), limit)
    if raw.startswith(MAGIC):
        pieces, size = [], 0
        for piece in _unpacked(raw):
            pieces.append(piece)
            size += len(piece)
            _refuse_more(size, limit)
        raw = b"".join(pieces)
    text = _as_utf8(raw)
    _refuse_more(len(text), limit)
    return text


def _unpacked(raw: bytes) -> Iterator[bytes]:
    """Yield what one zstd frame holds, a little at a time. Raises FormatError, TruncatedError."""
    frame = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
    for start in range(0, len(raw), _STEP_BYTES):
        try:
            yield frame.decompress(raw[start : start + _STEP_BYTES])
        except zstandard.ZstdError as error:
            raise FormatError(f"zstd: {error}") from None
        if frame.eof:
            if frame.unused_data or start + _STEP_BYTES < len(raw):
                raise FormatError("zstd: bytes after the frame")
            return
    raise TruncatedError("zstd: the frame is cut off")


def _as_utf8(raw: bytes) -> bytes:
    encoding = _SIXTEEN.get(raw[:2])
    if encoding is None:
        return raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw[2:].decode(encoding).encode()
    except UnicodeError:
        raise FormatError(f"not {encoding}, as its first bytes say") from None


def _refuse_more(size: int, limit: int) -> None:
    if size > limit:
        raise LimitError(f"expected at most {limit} bytes, got more")
