"""The end of a frame is found without decoding, where zstd finds it, and only for frames that a bundle may have."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats.errors import IntegrityError, InvalidBundleError, LimitError, OstoreError
from ostore.formats.seek_table import (
    FOOTER_BYTES,
    FOOTER_MAGIC,
    HEADER_BYTES,
    MAX_FRAMES,
    SKIPPABLE_MAGIC,
    read_table,
    table_size,
    write_table,
)
from ostore.formats.zstd_frame import (
    MAGIC,
    MAX_FRAME_BYTES,
    MAX_FRAME_CONTENT,
    FrameSpan,
    measure_frame,
    raw_frame,
)
from tests.support import noise

QUICK = settings(max_examples=60, deadline=None, database=None)

needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd program here")

KIB = 1024
SIZES = {
    "1 byte": 1,
    "255 bytes": 255,
    "256 bytes": 256,
    "a block less a byte": 128 * KIB - 1,
    "a block": 128 * KIB,
    "a block and a byte": 128 * KIB + 1,
    "a frame less a byte": MAX_FRAME_CONTENT - 1,
    "a frame": MAX_FRAME_CONTENT,
}


def raw(content: bytes) -> bytes:
    return b"".join(raw_frame(memoryview(content)))


def compressed(content: bytes, level: int = 1, *, checksum: bool = False, content_size: bool = True) -> bytes:
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=content_size)
    return compressor.compress(content)


def half_noise(size: int) -> bytes:
    """Bytes that shrink, but not to nothing."""
    return random.Random(size).randbytes(size // 2) + b"words and words " * (size // 32)


@needs_zstd
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_a_raw_frame_is_decoded_by_zstd(size: int) -> None:
    content = noise(size)
    frame = raw(content)
    assert subprocess.run(["zstd", "-dc"], input=frame, capture_output=True, check=True).stdout == content
    assert len(frame) == len(MAGIC) + 5 + 3 * -(-size // (128 * KIB)) + size <= MAX_FRAME_BYTES


def test_a_raw_frame_holds_no_copy_of_its_content() -> None:
    content = bytearray(noise(300 * KIB))
    pieces = raw_frame(memoryview(content))
    content[0] ^= 1
    assert b"".join(pieces) == raw(bytes(content))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("level", [0, 1, 3, 19], ids=["raw", "level 1", "level 3", "level 19"])
def test_the_length_of_a_frame_is_the_one_that_zstd_finds(size: int, level: int) -> None:
    if level == 19 and size > 256 * KIB:
        size = 256 * KIB
    content = half_noise(size) if size > 64 else noise(size)
    frame = compressed(content, level) if level else raw(content)
    assert measure_frame(frame) == FrameSpan(len(frame), len(content))
    assert measure_frame(frame + b"what follows") == FrameSpan(len(frame), len(content))
    assert zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False) == content


def test_a_block_of_one_repeated_byte_takes_four() -> None:
    frame = header(0xA0, (10_000).to_bytes(4, "little"), (10_000 << 3 | 0b011).to_bytes(3, "little"), b"r")
    assert zstandard.ZstdDecompressor().decompress(frame) == b"r" * 10_000
    assert measure_frame(frame + b"what follows") == FrameSpan(len(frame), 10_000)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_measured(kind: type[bytes | bytearray | memoryview]) -> None:
    frame = compressed(b"words " * 100)
    assert measure_frame(kind(frame)) == FrameSpan(len(frame), 600)


@pytest.mark.parametrize(
    "frame", [raw(noise(300)), compressed(half_noise(300 * KIB)), compressed(bytes(10_000))], ids=["raw", "half", "RLE"]
)
def test_a_part_of_a_frame_is_never_taken_for_the_whole(frame: bytes) -> None:
    for length in [*range(min(len(frame), 400)), len(frame) - 1]:
        span = measure_frame(frame[:length])
        assert span is None or span.size > length


def header(descriptor: int, *fields: bytes) -> bytes:
    return MAGIC + bytes([descriptor]) + b"".join(fields)


LAST_EMPTY_BLOCK = b"\1\0\0"
LARGEST_BLOCK = (128 * KIB << 3).to_bytes(3, "little") + bytes(128 * KIB)


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b"\x1f\x8b\x08\x00\0\0\0\0", InvalidBundleError),
        (b"\xfd7zXZ\0\0", InvalidBundleError),
        (b"ostore/bundle.json", InvalidBundleError),
        (b"\x27" + raw(b"x")[1:], InvalidBundleError),
        (SKIPPABLE_MAGIC + bytes(4), LimitError),
        (b"\x50\x2a\x4d\x18" + b"\xff" * 4, LimitError),
        (compressed(b"x", checksum=True), InvalidBundleError),
        (compressed(b"x" * 1000, content_size=False), InvalidBundleError),
        (header(0x21, b"\1", b"\1", LAST_EMPTY_BLOCK), InvalidBundleError),
        (header(0x23, b"\0\0\0\0", b"\1", LAST_EMPTY_BLOCK), InvalidBundleError),
        (header(0x28, b"\1", LAST_EMPTY_BLOCK), InvalidBundleError),
        (header(0x20, b"\0", LAST_EMPTY_BLOCK), LimitError),
        (header(0xA0, (MAX_FRAME_CONTENT + 1).to_bytes(4, "little"), LAST_EMPTY_BLOCK), LimitError),
        (header(0xE0, (100 * 10**12).to_bytes(8, "little"), LAST_EMPTY_BLOCK), LimitError),
        (header(0x80, bytes([21 << 3]), b"\1\0\0\0", LAST_EMPTY_BLOCK), LimitError),
        (header(0x80, bytes([13 << 3 | 1]), b"\1\0\0\0", LAST_EMPTY_BLOCK), LimitError),
        (header(0x20, b"\1", b"\7\0\0"), IntegrityError),
        (header(0x20, b"\1", b"\0\0\0" * 20_000), LimitError),
        (header(0xA0, b"\1\0\0\0", LARGEST_BLOCK * 65), LimitError),
    ],
    ids=[
        "gzip",
        "xz",
        "tar",
        "one bit of the magic",
        "seek table",
        "skippable frame",
        "checksum",
        "no content size",
        "dictionary",
        "dictionary of four bytes",
        "reserved bit",
        "no content",
        "more than 8 MiB",
        "100 TB",
        "window of 2 GiB",
        "window past 8 MiB",
        "reserved block",
        "too many blocks",
        "more blocks than content",
    ],
)
def test_a_frame_that_a_bundle_cannot_have_is_refused(frame: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error, match=r"^zstd: "):
        measure_frame(frame)


def test_a_window_of_8_mib_is_the_largest() -> None:
    frame = header(0x80, bytes([13 << 3]), b"\1\0\0\0", LAST_EMPTY_BLOCK)
    assert measure_frame(frame) == FrameSpan(len(frame), 1)


@QUICK
@given(st.binary(max_size=40), st.sampled_from([b"", MAGIC, MAGIC + b"\x20", MAGIC + b"\xa0"]))
def test_bytes_are_a_frame_or_too_few_or_refused_and_never_anything_else(data: bytes, start: bytes) -> None:
    try:
        span = measure_frame(start + data)
    except OstoreError:
        return
    assert span is None or (0 < span.content_size <= MAX_FRAME_CONTENT and span.size <= MAX_FRAME_BYTES)


@QUICK
@given(st.binary(min_size=1, max_size=2000), st.integers(1, 19), st.binary(max_size=20))
def test_every_frame_of_zstd_is_measured_right(content: bytes, level: int, after: bytes) -> None:
    frame = compressed(content, level)
    assert measure_frame(frame + after) == FrameSpan(len(frame), len(content))


SPANS = (FrameSpan(100, 300), FrameSpan(MAX_FRAME_BYTES, MAX_FRAME_CONTENT), FrameSpan(1, 1))
TABLE = write_table(SPANS)


def test_a_seek_table_is_read_as_written() -> None:
    assert read_table(TABLE) == SPANS
    assert table_size(TABLE[-FOOTER_BYTES:]) == len(TABLE) == HEADER_BYTES + 8 * len(SPANS) + FOOTER_BYTES
    assert read_table(write_table(())) == ()


@needs_zstd
def test_a_seek_table_means_nothing_to_zstd(tmp_path: Path) -> None:
    bundle = tmp_path / "x.zst"
    bundle.write_bytes(raw(b"one, ") + compressed(b"two") + TABLE)
    assert subprocess.run(["zstd", "-dc", bundle], capture_output=True, check=True).stdout == b"one, two"


@pytest.mark.parametrize(
    "footer",
    [
        b"",
        TABLE[-FOOTER_BYTES + 1 :],
        TABLE[-FOOTER_BYTES:-1] + b"\0",
        (1).to_bytes(4, "little") + b"\x80" + FOOTER_MAGIC,
        (MAX_FRAMES + 1).to_bytes(4, "little") + b"\0" + FOOTER_MAGIC,
        b"\xff" * 4 + b"\0" + FOOTER_MAGIC,
    ],
    ids=["empty", "short", "another magic", "with checksums", "too many frames", "far too many frames"],
)
def test_a_footer_that_a_bundle_cannot_have_is_none(footer: bytes) -> None:
    assert table_size(footer) is None


@pytest.mark.parametrize(
    ("table", "error"),
    [
        (b"", InvalidBundleError),
        (TABLE[1:], InvalidBundleError),
        (TABLE[:-1], InvalidBundleError),
        (b"\x5d" + TABLE[1:], InvalidBundleError),
        (TABLE[:4] + b"\xff" + TABLE[5:], InvalidBundleError),
        (TABLE[:8] + TABLE[16:], InvalidBundleError),
        (write_table([FrameSpan(1, 0)]), LimitError),
        (write_table([FrameSpan(1, MAX_FRAME_CONTENT + 1)]), LimitError),
        (write_table([FrameSpan(MAX_FRAME_BYTES + 1, 1)]), LimitError),
    ],
    ids=[
        "empty",
        "first byte missing",
        "last byte missing",
        "another magic",
        "another length",
        "entry missing",
        "no content",
        "too much content",
        "frame too long",
    ],
)
def test_a_damaged_seek_table_is_refused(table: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error, match=r"^seek table: "):
        read_table(table)


@QUICK
@given(st.lists(st.builds(FrameSpan, st.integers(0, MAX_FRAME_BYTES), st.integers(1, MAX_FRAME_CONTENT)), max_size=9))
def test_every_seek_table_survives_its_bytes(spans: list[FrameSpan]) -> None:
    assert read_table(write_table(spans)) == tuple(spans)
