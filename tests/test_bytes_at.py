"""Several readers read a file at any place at once; a changed file is refused. A pipe gives what has come."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats.errors import IntegrityError
from ostore.streams import bytes_at, chunks
from ostore.streams.bytes_at import BytesAt, FileBytes, Forward, ForwardOver, Output, PipeBytes, read_chunks_at
from ostore.streams.chunks import read_at, read_chunks, read_until_full
from ostore.streams.writing import GrowingFile
from tests.in_memory import Gathered, PassingBytes, StayingBytes
from tests.support import noise

QUICK = settings(max_examples=60, deadline=None, database=None)

CONTENT = noise(5000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def source(path: Path) -> Iterator[FileBytes]:
    with path.open("rb", buffering=0) as file:
        yield FileBytes(file.fileno(), path)


def test_each_class_is_what_its_protocol_says(source: FileBytes, tmp_path: Path) -> None:
    """A type checker's test: nothing here can fail at run time but the names."""
    with (tmp_path / "out").open("wb") as file:
        staying: tuple[BytesAt, ...] = (source, StayingBytes(b""))
        passing: tuple[Forward, ...] = (ForwardOver(source), PipeBytes(0), PassingBytes(b"", 1))
        outputs: tuple[Output, ...] = (GrowingFile(file.fileno()), Gathered())
        assert all((staying, passing, outputs))


@pytest.mark.parametrize("has_pread", [True, False], ids=["pread", "seek and read"])
def test_a_file_is_read_at_any_place_and_short_only_at_its_end(
    source: FileBytes, monkeypatch: pytest.MonkeyPatch, has_pread: bool
) -> None:
    if not has_pread:
        monkeypatch.setattr(bytes_at, "read_at", chunks.seek_and_read)
    assert source.size == 5000
    assert source.read_at(5000, 0) == CONTENT
    assert source.read_at(10, 100) == CONTENT[100:110]
    assert source.read_at(10, 4995) == CONTENT[4995:]
    assert source.read_at(10**6, 1) == CONTENT[1:]
    assert source.read_at(1, 5000) == b""
    assert source.read_at(1, 10**12) == b""
    assert source.read_at(0, 7) == b""
    assert b"".join(source.read_at(1, offset) for offset in range(5000)) == CONTENT


@pytest.mark.parametrize("read", [read_at, chunks.seek_and_read], ids=["the system's", "seek and read"])
def test_reading_at_a_place_leaves_the_position_of_the_file(path: Path, read: Callable[[int, int, int], bytes]) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(7)
        assert read(file.fileno(), 10, 100) == CONTENT[100:110]
        assert file.tell() == 7


def test_a_call_that_gives_less_than_it_was_asked_for_is_not_the_end(
    source: FileBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bytes_at, "read_at", lambda fd, size, offset: read_at(fd, min(size, 7), offset))
    assert source.read_at(100, 1) == CONTENT[1:101]
    assert source.read_at(100, 4950) == CONTENT[4950:]


def test_several_threads_read_at_once_and_each_gets_its_own_bytes(source: FileBytes) -> None:
    def read(offset: int) -> bool:
        return source.read_at(50, offset) == CONTENT[offset : offset + 50]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, list(range(5000)) * 4))


def test_reading_neither_uses_nor_moves_the_position(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(3)
        source = FileBytes(file.fileno(), path)
        assert source.read_at(4, 0) == CONTENT[:4]
        if hasattr(os, "pread"):
            assert file.tell() == 3


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def shrink(path: Path) -> None:
    os.truncate(path, 4999)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")
    # Whatever the clock of the file system is.
    os.utime(path, ns=(0, 1))


@pytest.mark.parametrize("change", [grow, shrink, rewrite, lambda path: os.utime(path, ns=(0, 1))])
def test_a_file_that_changes_while_it_is_read_is_refused(
    source: FileBytes, path: Path, change: Callable[[Path], None]
) -> None:
    source.read_at(10, 0)
    source.refuse_changes()
    change(path)
    for _ in range(2):
        with pytest.raises(IntegrityError) as raised:
            source.refuse_changes()
        assert str(raised.value) == f"{path}: changed while it was read"
    # What it was, not what it is; and it is read to where it ends now.
    assert source.size == 5000
    assert len(source.read_at(6000, 0)) == path.stat().st_size


def test_a_file_that_is_replaced_or_removed_is_still_the_one_that_was_opened(source: FileBytes, path: Path) -> None:
    if os.name == "nt":
        pytest.skip("an open file keeps its name on Windows")
    path.with_name("new").write_bytes(b"other")
    path.with_name("new").replace(path)
    source.refuse_changes()
    assert source.read_at(5000, 0) == CONTENT


def test_an_error_names_the_file(source: FileBytes, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(bytes_at, "read_at", fail)
    with pytest.raises(OSError, match="Input/output error") as raised:
        source.read_at(1, 0)
    assert raised.value.filename == str(path)
    with pytest.raises(OSError, match=r"Bad file descriptor|Invalid handle") as raised:
        FileBytes(-1, path)
    assert raised.value.filename == str(path)
    source._fd = -1
    with pytest.raises(OSError, match=r"Bad file descriptor|Invalid handle") as raised:
        source.refuse_changes()
    assert raised.value.filename == str(path)


def test_a_pipe_gives_what_is_there_and_waits_for_no_more() -> None:
    reading, writing = os.pipe()
    source = PipeBytes(reading)
    os.write(writing, b"some")
    assert source.read(1000) == b"some"
    os.write(writing, b"and more")
    assert source.read(3) == b"and"
    assert source.read(1000) == b" more"
    os.close(writing)
    assert [source.read(1), source.read(1)] == [b"", b""]
    os.close(reading)


def test_a_file_as_a_pipe_is_read_from_where_it_stands(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(4000)
        assert read_until_full(PipeBytes(file.fileno()).read, 5000) == CONTENT[4000:]


@pytest.mark.parametrize("step", [1, 7, 5000, 10**6])
def test_bytes_that_stay_are_read_forward_from_the_first_to_the_last(source: FileBytes, step: int) -> None:
    passing = ForwardOver(source)
    pieces = list(iter(lambda: passing.read(step), b""))
    assert b"".join(pieces) == CONTENT
    assert [*map(len, pieces[:-1])] == [step] * (len(pieces) - 1)
    assert passing.read(step) == b""


@pytest.mark.parametrize("step", [1, 7, 999, 10**6])
def test_what_gives_less_than_it_is_asked_for_is_read_until_full(step: int) -> None:
    read = PassingBytes(CONTENT, step).read
    assert read_until_full(read, 1500) == CONTENT[:1500]
    assert read_until_full(read, 1) == CONTENT[1500:1501]
    assert read_until_full(read, 10**6) == CONTENT[1501:]
    assert read_until_full(read, 1) == b""


def test_an_error_between_two_reads_is_no_end() -> None:
    read = PassingBytes(CONTENT, 1000, ConnectionResetError()).read
    with pytest.raises(ConnectionResetError):
        read_until_full(read, 10**6)


@pytest.mark.parametrize(
    ("start", "limit", "lead", "sizes"),
    [
        (0, 5000, 0, [2000, 2000, 1000]),
        (0, 4999, 0, [2000, 2000, 1000]),
        (0, 3000, 0, [2000, 1001]),
        (0, 0, 0, [1]),
        (0, 9999, 512, [1488, 2000, 1512]),
        (0, 100, 512, [101]),
        (1000, 4000, 0, [2000, 2000]),
        (1000, 3000, 0, [2000, 1001]),
        (1000, 3999, 512, [1488, 2000, 512]),
        (4999, 1, 0, [1]),
        (4999, 0, 0, [1]),
        (5000, 0, 0, []),
        (9999, 9999, 0, []),
    ],
)
def test_what_stays_is_read_from_a_place_to_its_promised_length_and_one_byte_more(
    monkeypatch: pytest.MonkeyPatch, start: int, limit: int, lead: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(bytes_at, "CHUNK_BYTES", 2000)
    parts = list(read_chunks_at(StayingBytes(CONTENT), limit, start=start, lead=lead))
    assert list(map(len, parts)) == sizes
    assert b"".join(parts) == CONTENT[start : start + limit + 1]


@QUICK
@given(st.binary(max_size=80), st.integers(0, 90), st.integers(0, 9), st.integers(0, 90))
def test_chunks_at_a_place_are_those_of_an_open_file_that_stands_there(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, limit: int, lead: int, start: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "chunks"
    path.write_bytes(data)
    with path.open("rb", buffering=0) as file, pytest.MonkeyPatch.context() as patch:
        for module in (bytes_at, chunks):
            patch.setattr(module, "CHUNK_BYTES", 10)
        found = list(read_chunks_at(FileBytes(file.fileno(), path), limit, start=start, lead=lead))
        file.seek(start)
        assert found == list(read_chunks(file.fileno(), limit, lead))
