"""
The zstd frames of a bundle: measure a frame by its headers, and write a frame that stores bytes uncompressed.

Source: RFC 8878, sections 3.1.1 (frames and blocks) and 3.1.2 (skippable frames).
"""

from __future__ import annotations

from dataclasses import dataclass

from ostore.formats.errors import IntegrityError, InvalidBundleError, LimitError

MAGIC = b"\x28\xb5\x2f\xfd"
# A writer cuts the tar stream every 8 MiB. This limit bounds the memory of a reader.
MAX_FRAME_CONTENT = 8 * 1024 * 1024
MAX_WINDOW = 1 << 23
# A frame of raw blocks adds 3 bytes to each block of 128 KiB. zstd itself never adds more than 1/256.
MAX_FRAME_BYTES = MAX_FRAME_CONTENT + 64 * 1024
# zstd makes no blocks of less than about 1 KiB of input. A frame with many more blocks only costs time.
_MAX_BLOCKS = 16 * 1024
_BLOCK_MAXIMUM = 128 * 1024
_RAW, _RLE, _RESERVED = 0, 1, 3
_HEADER_MAXIMUM = 18
# Magic numbers 0x184D2A50 to 0x184D2A5F, little endian.
_SKIPPABLE_HEAD, _SKIPPABLE_TAIL = 0x50, b"\x2a\x4d\x18"


@dataclass(frozen=True, slots=True)
class FrameSpan:
    """The size of a frame in the file (`size`) and decoded (`content_size`), both in bytes."""

    size: int
    content_size: int


def measure_frame(data: bytes | bytearray | memoryview) -> FrameSpan | None:
    """
    Measure the frame at the start of `data` without decoding it. Returns None if `data` is too short.

    Raises:
        InvalidBundleError: it is no zstd frame, or has a dictionary, a checksum, a reserved bit or no content size.
        LimitError: it is skippable or empty, or its content, window, size or number of blocks is over the limit.
        IntegrityError: a block has a reserved type.
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
    """Return a frame that stores `content` (1 byte to 8 MiB) uncompressed, as buffers to write in order."""
    # Descriptor 0xA0: the content size has 4 bytes; single segment, so the window is as large as the content.
    pieces: list[bytes | memoryview] = [MAGIC + b"\xa0" + len(content).to_bytes(4, "little")]
    for start in range(0, len(content), _BLOCK_MAXIMUM):
        block = content[start : start + _BLOCK_MAXIMUM]
        is_last = start + len(block) == len(content)
        pieces += ((len(block) << 3 | _RAW << 1 | is_last).to_bytes(3, "little"), block)
    return pieces


def _read_header(data: bytes | bytearray | memoryview) -> tuple[int, int] | None:
    """Return the offset of the first block header and the content size, or None if `data` is too short."""
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
