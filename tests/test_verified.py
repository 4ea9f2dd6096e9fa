"""Bytes become a blob only if they are exactly the promised bytes, however they arrive."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, DigestMismatchError, IntegrityError, SizeMismatchError
from ostore.formats.manifest import Descriptor
from ostore.streams.chunks import Chunk, read_at, read_chunks, read_full
from ostore.streams.verified import Steps, _SteppingHasher, verified
from tests.support import noise

QUICK = settings(max_examples=60, deadline=None, database=None)

SMALL = noise(5000)
# Above 1 MiB the hash is taken in another thread.
LARGE = noise(3_000_000)


def promise(data: bytes) -> Descriptor:
    return Descriptor(Digest.of(data), len(data))


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize(
    ("data", "size"),
    [(b"", 1), (b"x", 1), (SMALL, 1), (SMALL, 7), (SMALL, 5000), (LARGE, 65_536), (LARGE, 1000), (LARGE, 10**9)],
    ids=[
        "empty",
        "one byte",
        "one byte at a time",
        "seven at a time",
        "whole",
        "large",
        "large in small chunks",
        "large and whole",
    ],
)
def test_a_blob_passes_unchanged(data: bytes, size: int) -> None:
    passed = list(verified(chunks(data, size), promise(data)))
    assert b"".join(passed) == data
    assert passed == list(chunks(data, size))


def test_views_pass_without_a_copy() -> None:
    view = memoryview(LARGE)
    passed = list(verified([view[:1_000_000], view[1_000_000:]], promise(LARGE)))
    assert all(isinstance(chunk, memoryview) and chunk.obj is LARGE for chunk in passed)


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], type[BlobError]]] = {
    "one byte short": (lambda data: data[:-1], SizeMismatchError),
    "first byte missing": (lambda data: data[1:], SizeMismatchError),
    "nothing": (lambda _: b"", SizeMismatchError),
    "one byte more": (lambda data: data + b"x", SizeMismatchError),
    "NUL more": (lambda data: data + b"\0", SizeMismatchError),
    "twice": (lambda data: data + data, SizeMismatchError),
    "first byte changed": (lambda data: bytes([data[0] ^ 1]) + data[1:], DigestMismatchError),
    "last bit changed": (lambda data: data[:-1] + bytes([data[-1] ^ 1]), DigestMismatchError),
    "two bytes exchanged": (lambda data: data[:1000] + data[1001:999:-1] + data[1002:], DigestMismatchError),
    "zeros": (lambda data: bytes(len(data)), DigestMismatchError),
    "zeros at the end": (lambda data: data[:-512] + bytes(512), DigestMismatchError),
}


@pytest.mark.parametrize(("damage", "error"), DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("size", [997, 10**9], ids=["in chunks", "whole"])
def test_a_changed_blob_is_refused(
    data: bytes, size: int, damage: Callable[[bytes], bytes], error: type[BlobError]
) -> None:
    descriptor = promise(data)
    changed = damage(data)
    assert changed != data
    with pytest.raises(error) as caught:
        list(verified(chunks(changed, size), descriptor))
    assert caught.value.digest == str(descriptor.digest)
    assert str(descriptor.digest) in str(caught.value)


@pytest.mark.parametrize("damage", [bytes, lambda _: b"x"], ids=["nothing", "another byte"])
def test_a_blob_that_cannot_have_its_digest_is_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BlobError):
        list(verified([damage(b"")], Descriptor(Digest.of(b"y"), 1)))


def test_the_messages_say_what_was_expected_and_what_came() -> None:
    descriptor = Descriptor(Digest.of(b"abc"), 3)
    with pytest.raises(SizeMismatchError, match=f"^blob {descriptor.digest}: expected 3 bytes, got 2$"):
        list(verified([b"ab"], descriptor))
    with pytest.raises(SizeMismatchError, match=f"^blob {descriptor.digest}: expected 3 bytes, got more$"):
        list(verified([b"abcd"], descriptor))
    with pytest.raises(DigestMismatchError, match=f"its bytes have another digest, {Digest.of(b'abd')}$"):
        list(verified([b"abd"], descriptor))


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_stream_without_end_is_stopped_at_the_first_byte_too_many(data: bytes) -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        for asked in range(1, 100):  # noqa: B007 - counted from outside
            yield data
        pytest.fail("nobody stops it")

    passed: list[Chunk] = []
    with pytest.raises(SizeMismatchError):
        passed.extend(verified(endless(), promise(data)))
    assert asked == 2


@pytest.mark.parametrize("size", [1, 997, 5001], ids=["byte by byte", "in chunks", "whole"])
def test_not_one_byte_too_many_is_handed_out(size: int) -> None:
    passed: list[Chunk] = []
    with pytest.raises(SizeMismatchError):
        passed.extend(verified(chunks(SMALL + b"x", size), promise(SMALL)))
    assert SMALL.startswith(b"".join(passed))


def test_an_error_of_the_source_passes_as_it_is() -> None:
    def failing() -> Iterator[bytes]:
        yield LARGE[:1_000_000]
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        list(verified(failing(), promise(LARGE)))


def test_no_thread_is_left_when_a_reader_gives_up() -> None:
    before = threading.active_count()
    stream = verified(chunks(LARGE, 100_000), promise(LARGE))
    next(stream)
    next(stream)
    assert threading.active_count() == before + 1
    del stream
    assert threading.active_count() == before


@QUICK
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8), st.booleans())
def test_any_split_of_the_right_bytes_passes_and_of_others_does_not(data: bytes, cuts: list[int], alter: bool) -> None:
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    parts: list[Chunk] = [memoryview(data)[start:end] for start, end in itertools.pairwise(places)]
    parts.insert(len(parts) // 2, b"")
    if not alter:
        assert b"".join(verified(parts, promise(data))) == data
        return
    with pytest.raises(BlobError):
        list(verified([*parts, b"x"], promise(data)))
    with pytest.raises(BlobError):
        list(verified(parts, Descriptor(Digest.of(data + b"x"), len(data))))


def test_reading_a_pipe_fills_each_request_and_is_short_only_at_the_end() -> None:
    read_end, write_end = os.pipe()

    def trickle() -> None:
        for byte in SMALL[:2000]:
            os.write(write_end, bytes([byte]))
        os.close(write_end)

    thread = threading.Thread(target=trickle)
    thread.start()
    assert read_full(read_end, 1500) == SMALL[:1500]
    assert read_full(read_end, 1500) == SMALL[1500:2000]
    assert read_full(read_end, 1) == b""
    thread.join()
    os.close(read_end)


@pytest.mark.parametrize(
    ("limit", "lead", "sizes"),
    [
        (5000, 0, [2000, 2000, 1000]),
        (4999, 0, [2000, 2000, 1000]),
        (3000, 0, [2000, 1001]),
        (0, 0, [1]),
        (9999, 0, [2000, 2000, 1000]),
        (9999, 512, [1488, 2000, 1512]),
        (100, 512, [101]),
    ],
)
def test_a_file_is_read_to_its_promised_length_and_one_byte_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, lead: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("ostore.streams.chunks.CHUNK_BYTES", 2000)
    with (tmp_path / "blob").open("wb+", buffering=0) as file:
        file.write(SMALL)
        file.seek(0)
        parts = list(read_chunks(file.fileno(), limit, lead))
        assert read_at(file.fileno(), 10, 100) == SMALL[100:110]
    assert list(map(len, parts)) == sizes
    assert b"".join(parts) == SMALL[: sum(sizes)]


def test_steps_end_with_the_first_that_is_refused() -> None:
    """Chunks that were handed to the thread by then make no step: bytes before them are lost."""
    told: list[int] = []

    def refuse(size: int, _digest: Digest) -> None:
        told.append(size)
        if size == 1_500_000:
            raise IntegrityError("refused")

    with pytest.raises(IntegrityError, match="refused"):
        list(verified(chunks(LARGE, 100_000), promise(LARGE), Steps(500_000, 50_000, refuse)))
    assert told[-1] == 1_500_000
    hasher = _SteppingHasher(hashlib.sha256(), Steps(10, 10, lambda size, _digest: refuse(size + 1_499_990, _digest)))
    with pytest.raises(IntegrityError, match="refused"):
        hasher.update(b"x" * 15)
    hasher.update(b"x" * 50)
    assert told[-1] == 1_500_000
