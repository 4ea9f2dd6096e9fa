"""A small document is read as other programs leave it, and never beyond its limit."""

from __future__ import annotations

import io

import pytest
import zstandard

from ostore.formats.errors import FormatError, LimitError, TruncatedError
from ostore.streams.document import is_document, read_document
from tests.support import noise

TEXT = '{"name":"Übung"}\n'
LIMIT = 1000


def read(raw: bytes, limit: int = LIMIT, start: bytes = b"") -> bytes:
    return read_document(io.BytesIO(raw).read, limit, start)


def packed(data: bytes, **options: object) -> bytes:
    """As the program zstd packs a file."""
    return zstandard.ZstdCompressor(write_checksum=True, **options).compress(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "raw",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        b"\xff\xfe" + TEXT.encode("utf-16-le"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        packed(TEXT.encode()),
        packed(b"\xff\xfe" + TEXT.encode("utf-16-le")),
        packed(TEXT.encode(), write_content_size=False),
    ],
    ids=["plain", "UTF-8 with a mark", "PowerShell", "UTF-16, big", "zstd", "zstd of UTF-16", "zstd from a pipe"],
)
def test_a_document_is_read_as_other_programs_leave_it(raw: bytes) -> None:
    assert read(raw) == TEXT.encode()
    assert read(raw[5:], start=raw[:5]) == TEXT.encode()
    assert is_document(raw)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"# a lock", True),
        (b"\r\n  sha256:00", True),
        (b"", False),
        (b"ostore/bundle.json\0", False),
        (b"GGUF", False),
        (packed(b"ostore/bundle.json\0"), False),
        (packed(b"{}"), True),
        (packed(TEXT.encode() * 9)[:20], True),
        (zstandard.compress(TEXT.encode() * 9)[:20], False),
        (packed(noise(100_000))[:20], False),
        (b"\x28\xb5\x2f\xfd", False),
        (b"\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff", False),
        (b"\xff\xfe\x00\xd8", False),
    ],
    ids=[
        "lock",
        "lines",
        "empty",
        "bundle",
        "weights",
        "packed bundle",
        "packed",
        "cut",
        "cut bundle",
        "cut weights",
        "magic",
        "no zstd",
        "no UTF-16",
    ],
)
def test_the_first_bytes_tell_a_document(start: bytes, expected: bool) -> None:
    assert is_document(start) is expected


def test_large_documents_are_read_whole() -> None:
    text = noise(300_000).hex().encode()
    assert read(text, 600_000) == read(packed(text), 600_000) == text


@pytest.mark.parametrize("raw", [b"x" * 1001, packed(b"x" * 1001), packed(noise(2000))], ids=["plain", "bomb", "zstd"])
def test_what_is_larger_than_the_limit_is_refused(raw: bytes) -> None:
    assert len(read(b"x" * 1000)) == 1000
    with pytest.raises(LimitError, match="at most 1000 bytes"):
        read(raw)


def test_text_that_grows_beyond_the_limit_is_refused() -> None:
    with pytest.raises(LimitError):
        read(b"\xff\xfe" + ("\u4e00" * 400).encode("utf-16-le"))


def test_a_frame_of_many_gigabytes_stops_at_the_limit() -> None:
    """Blocks that repeat one byte: 4 bytes in the file for each 128 KiB."""
    block = (0x20000 << 3 | 1 << 1).to_bytes(3, "little") + b"{"
    bomb = b"\x28\xb5\x2f\xfd\x00\x58" + block * 200_000
    with pytest.raises(LimitError):
        read(bomb, 1024 * 1024)


def test_a_window_that_takes_much_memory_is_refused() -> None:
    wide = b"\x28\xb5\x2f\xfd\x00\xf8" + packed(b"{")[6:]
    with pytest.raises(FormatError, match="zstd"):
        read(wide)


@pytest.mark.parametrize("end", [1, 5, 12], ids=str)
def test_a_frame_that_is_cut_off_is_refused(end: int) -> None:
    raw = packed(TEXT.encode())
    with pytest.raises(TruncatedError):
        read(raw[:-end])


@pytest.mark.parametrize("more", [b"x", packed(b"{}"), noise(600)], ids=["a byte", "another frame", "much"])
def test_bytes_after_the_frame_are_refused(more: bytes) -> None:
    with pytest.raises(FormatError, match="after the frame"):
        read(packed(TEXT.encode()) + more)


@pytest.mark.parametrize("raw", [b"\xff\xfea", b"\xff\xfe\x00\xd8", b"\xff\xfe\x00\xd8a\x00"])
def test_text_that_is_not_what_its_mark_says_is_refused(raw: bytes) -> None:
    with pytest.raises(FormatError, match="not utf-16-le"):
        read(raw)
