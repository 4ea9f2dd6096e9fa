"""
zstd frames as a bundle may have them, read by their headers alone, and the frame that stores bytes as they are.

Facts: RFC 8878, sections 3.1.1 (frames and blocks) and 3.1.2 (skippable frames).
"""

from __future__ import annotations

from dataclasses import dataclass

from ostore.formats.errors import IntegrityError, InvalidBundleError, LimitError

MAGIC = b"\x28\xb5\x2f\xfd"
# Bundles are cut every 8 MiB of tar stream; the bound is what a reader's memory stands on.
MAX_FRAME_CONTENT = 8 * 1024 * 1024
MAX_WINDOW = 1 << 23
# A frame of raw blocks has 3 bytes for each 128 KiB block; zstd itself never expands more than 1/256.
MAX_FRAME_BYTES = MAX_FRAME_CONTENT + 64 * 1024
# zstd splits blocks to no less than about 1 KiB of input each; many more are made to cost time, not to carry data.
_MAX_BLOCKS = 16 * 1024
_BLOCK_MAXIMUM = 128 * 1024
_RAW, _RLE, _RESERVED = 0, 1, 3
_HEADER_MAXIMUM = 18
# Magic numbers 0x184D2A50 to 0x184D2A5F, little endian.
_SKIPPABLE_HEAD, _SKIPPABLE_TAIL = 0x50, b"\x2a\x4d\x18"


@dataclass(frozen=True, slots=True)
class FrameSpan:
    """How long a frame is in the file (`size`) and decoded (`content_size`), both in bytes."""

    size: int
    content_size: int


def measure_frame(data: bytes | bytearray | memoryview) -> FrameSpan | None:
    """
    Find where the frame that `data` begins with ends, without decoding it; None if `data` is too short to say.

    Raises:
        InvalidBundleError: not a zstd frame, or one with a dictionary, a checksum or no content size.
        LimitError: a frame of more content, window or blocks than a bundle may have, or of none.
        IntegrityError: a reserved block type.
    """
    if data[1:4] == _SKIPPABLE_TAIL and data[0] & 0xF0 == _SKIPPABLE_HEAD:
        raise LimitError("zstd: a skippable frame where data is expected")
    if len(data) >= len(MAGIC) and data[:4] != MAGIC:
        raise InvalidBundleError(f"zstd: expected a frame, got {bytes(data[:4])!r}")
    header = _read_header(data[:_HEADER_MAXIMUM])
    if header is None:
        return None
    position, content_size = header
    for _ in range(_MAX_BLOCKS):
        if position + 3 > len(data):
            return None
        block = int.from_bytes(data[position : position + 3], "little")
        kind, size = block >> 1 & 3, block >> 3
        if kind == _RESERVED:
            raise IntegrityError("zstd: a block of a reserved type")
        position += 3 + (1 if kind == _RLE else size)
        if position > MAX_FRAME_BYTES:
            raise LimitError(f"zstd: a frame of more than {MAX_FRAME_BYTES} bytes")
        if block & 1:
            return FrameSpan(position, content_size)
    raise LimitError(f"zstd: a frame of more than {_MAX_BLOCKS} blocks")


def raw_frame(content: memoryview) -> list[bytes | memoryview]:
    """A frame that stores `content` (1 byte to 8 MiB) uncompressed, as buffers to write one after the other."""
    # Descriptor 0xA0: content size in 4 bytes, single segment, so that the window is the content itself.
    pieces: list[bytes | memoryview] = [MAGIC + b"\xa0" + len(content).to_bytes(4, "little")]
    for start in range(0, len(content), _BLOCK_MAXIMUM):
        block = content[start : start + _BLOCK_MAXIMUM]
        is_last = start + len(block) == len(content)
        pieces += ((len(block) << 3 | _RAW << 1 | is_last).to_bytes(3, "little"), block)
    return pieces


def _read_header(data: bytes | bytearray | memoryview) -> tuple[int, int] | None:
    """Where the first block header stands, and the content size; None if `data` is too short."""
    if len(data) < 5:  # noqa: PLR2004 - magic and descriptor
        return None
    descriptor = data[4]
    size_flag, single_segment = descriptor >> 6, descriptor >> 5 & 1
    if descriptor & 0b11:
        raise InvalidBundleError("zstd: a frame that needs a dictionary")
    if descriptor & 0b100:
        raise InvalidBundleError("zstd: a frame with a checksum of its own")
    if descriptor & 0b1000:
        raise InvalidBundleError("zstd: a reserved bit in a frame header")
    size_bytes = (1 if single_segment else 0, 2, 4, 8)[size_flag]
    if not size_bytes:
        raise InvalidBundleError("zstd: a frame without its content size")
    end = 5 + (1 - single_segment) + size_bytes
    if len(data) < end:
        return None
    content_size = int.from_bytes(data[end - size_bytes : end], "little") + (256 if size_flag == 1 else 0)
    window = content_size if single_segment else _window(data[5])
    if window > MAX_WINDOW:
        raise LimitError(f"zstd: expected a window of at most {MAX_WINDOW} bytes, got {window}")
    if not 0 < content_size <= MAX_FRAME_CONTENT:
        raise LimitError(f"zstd: expected a frame of 1 to {MAX_FRAME_CONTENT} bytes, got {content_size}")
    return end, content_size


def _window(descriptor: int) -> int:
    base = 1 << (10 + (descriptor >> 3))
    return base + (base >> 3) * (descriptor & 7)
