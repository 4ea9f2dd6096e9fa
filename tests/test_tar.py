"""A tar stream is read member by member, however its bytes arrive, and only if a bundle may have this form."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats.errors import (
    IntegrityError,
    InvalidBundleError,
    LimitError,
    OstoreError,
    TruncatedError,
    UnsafeError,
)
from ostore.formats.tar_header import BLOCK, END_OF_ARCHIVE, REGULAR, TarHeader, member_header, padding
from ostore.streams.bytes_at import FileBytes, PipeBytes
from ostore.streams.plain import PipedPlainStream, PlainWriter, SeekablePlainStream
from ostore.streams.tar import ForwardStream, TarReader
from ostore.streams.writing import GrowingFile
from tests.in_memory import Gathered, PassingBytes, StayingBytes
from tests.support import noise

QUICK = settings(max_examples=40, deadline=None, database=None)

LONG = f"manifests/hf.co/{'n' * 40}/{'m' * 60}/Q4_K_M"
MEMBERS = [("ostore/bundle.json", b"{}\n"), ("blobs/x", noise(1500)), ("blobs/empty", b""), (LONG, b"manifest" * 64)]


def member(name: str, data: bytes) -> bytes:
    return member_header(name, len(data)) + data + bytes(padding(len(data)))


def special(name: str, kind: bytes, data: bytes = b"", link: str = "", *, is_ustar: bool = False) -> bytes:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, len(data), link
    header = made.tobuf(tarfile.USTAR_FORMAT if is_ustar else tarfile.GNU_FORMAT)
    return header + data + bytes(padding(len(data)))


ARCHIVE = b"".join(member(*entry) for entry in MEMBERS) + END_OF_ARCHIVE


@contextmanager
def piped(data: bytes, step: int, start: int = 0) -> Iterator[ForwardStream]:
    read_end, write_end = os.pipe()

    def fill() -> None:
        for place in range(start, len(data), step):
            os.write(write_end, data[place : min(place + step, len(data))])
        os.close(write_end)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield PipedPlainStream(PipeBytes(read_end), data[:start])
    finally:
        while os.read(read_end, 65_536):
            pass
        thread.join()
        os.close(read_end)


@contextmanager
def in_file(path: Path, data: bytes) -> Iterator[ForwardStream]:
    path.write_bytes(data)
    with path.open("rb", buffering=0) as file:
        yield SeekablePlainStream(FileBytes(file.fileno(), path))


def members_of(stream: ForwardStream) -> list[tuple[str, bytes]]:
    reader = TarReader(stream)
    found = []
    while header := reader.next_member():
        found.append((header.name, reader.read(header.size)))
    return found


@pytest.mark.parametrize("step", [1, 511, 512, 10_000], ids=["one byte at a time", "511", "512", "whole"])
@pytest.mark.parametrize("start", [0, 100, 512, 600])
def test_members_are_read_as_written_however_they_arrive(step: int, start: int) -> None:
    with piped(ARCHIVE, step, start) as stream:
        assert members_of(stream) == MEMBERS
        assert stream.position == len(ARCHIVE)


@pytest.mark.parametrize("start", [None, 0, 512, 2000], ids=["file", "pipe", "pipe from 512", "pipe from 2000"])
def test_members_that_nobody_wants_are_skipped(tmp_path: Path, start: int | None) -> None:
    opened = in_file(tmp_path / "a.tar", ARCHIVE) if start is None else piped(ARCHIVE, 100, start)
    with opened as stream:
        reader, names = TarReader(stream), []
        while header := reader.next_member():
            names.append(header.name)
            reader.skip(header.size)
        assert names == [name for name, _ in MEMBERS]
        assert stream.position == len(ARCHIVE)


def test_every_cut_is_noticed() -> None:
    for length in range(0, len(ARCHIVE), 97):
        with (
            piped(ARCHIVE[:length], 10_000) as stream,
            pytest.raises(TruncatedError, match=r"^bundle: truncated at byte"),
        ):
            members_of(stream)


def test_a_file_that_is_cut_within_a_skipped_member_is_truncated(tmp_path: Path) -> None:
    with in_file(tmp_path / "a.tar", ARCHIVE[: 1024 + 512 + 100]) as stream:
        reader = TarReader(stream)
        reader.skip(getattr(reader.next_member(), "size", 0))
        assert reader.next_member() == TarHeader("blobs/x", 1500, REGULAR)
        with pytest.raises(TruncatedError, match=r"^bundle: truncated at byte 1636"):
            reader.skip(1500)


FIRST = member("ostore/bundle.json", b"{}\n")
DAMAGE: dict[str, tuple[bytes, type[OstoreError]]] = {
    "byte in the padding": (FIRST[:-1] + b"x" + END_OF_ARCHIVE, InvalidBundleError),
    "one zero block": (FIRST + bytes(BLOCK) + FIRST, InvalidBundleError),
    "byte after the end": (ARCHIVE + b"\1", InvalidBundleError),
    "another archive after the end": (ARCHIVE + ARCHIVE, InvalidBundleError),
    "byte behind the padding of tar": (ARCHIVE.ljust(10_240, b"\0") + b"\1", InvalidBundleError),
    "more zeros than tar pads with": (ARCHIVE + bytes(1024 * 1024 + 1), InvalidBundleError),
    "symbolic link": (special("a", tarfile.SYMTYPE, link="/etc/passwd"), UnsafeError),
    "hard link": (special("a", tarfile.LNKTYPE, link="../x"), UnsafeError),
    "directory": (special("a", tarfile.DIRTYPE), UnsafeError),
    "FIFO": (special("a", tarfile.FIFOTYPE), UnsafeError),
    "old regular file": (special("a", b"\0"), UnsafeError),
    "long link": (special("././@LongLink", b"K", b"target\0"), UnsafeError),
    "pax header": (special("a", tarfile.XHDTYPE, b"11 path=xx\n") + FIRST, UnsafeError),
    "pax header of ustar": (special("a", tarfile.XHDTYPE, b"11 path=xx\n", is_ustar=True), UnsafeError),
    "pax headers in a chain": (special("a", tarfile.XHDTYPE, b"11 path=xx\n") * 2, LimitError),
    "pax header of 2 MiB": (special("a", tarfile.XHDTYPE, bytes(2 * 1024 * 1024)), LimitError),
    "long name for no member": (member_header(LONG, 0)[: 2 * BLOCK] + END_OF_ARCHIVE, IntegrityError),
    "long name for another member": (member_header(LONG, 0)[: 2 * BLOCK] + FIRST, UnsafeError),
    "long name twice": (member_header(LONG, 0)[: 2 * BLOCK] * 2 + FIRST, UnsafeError),
    "long name of a short one": (special("././@LongLink", b"L", b"blobs/x\0") + member("blobs/x", b""), UnsafeError),
    "long name of 2 KiB": (special("././@LongLink", b"L", b"n" * 2048), LimitError),
}


@pytest.mark.parametrize("is_file", [True, False], ids=["file", "pipe"])
@pytest.mark.parametrize(("data", "error"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_a_bundle_cannot_hold_is_refused(
    tmp_path: Path, data: bytes, error: type[OstoreError], is_file: bool
) -> None:
    opened = in_file(tmp_path / "a.tar", data) if is_file else piped(data, 10_000)
    with opened as stream, pytest.raises(error):
        members_of(stream)


@pytest.mark.parametrize("step", [1, 512, 10**9])
@pytest.mark.parametrize("start", [0, 600])
def test_members_may_come_from_what_is_no_pipe(step: int, start: int) -> None:
    stream = PipedPlainStream(PassingBytes(ARCHIVE[start:], step), ARCHIVE[:start])
    assert members_of(stream) == MEMBERS
    assert stream.position == len(ARCHIVE)


def test_members_may_come_from_what_is_no_file_and_only_what_is_wanted_is_read() -> None:
    source = StayingBytes(ARCHIVE)
    reader = TarReader(SeekablePlainStream(source))
    while header := reader.next_member():
        reader.skip(header.size)
    read = {byte for size, offset in source.asked for byte in range(offset, offset + size)}
    for _, data in MEMBERS:
        start = ARCHIVE.index(data)
        assert read.isdisjoint(range(start, start + len(data)))
    # And whether anything follows the end.
    assert max(read) == len(ARCHIVE)


def test_an_error_of_what_gives_the_members_reaches_the_reader() -> None:
    failure = ConnectionResetError(104, "Connection reset by peer")
    for length in range(0, len(ARCHIVE) + 1, 97):
        with pytest.raises(ConnectionResetError) as raised:
            members_of(PipedPlainStream(PassingBytes(ARCHIVE[:length], 300, failure), b""))
        assert raised.value is failure


def test_every_cut_of_a_file_is_noticed() -> None:
    for length in range(0, len(ARCHIVE), 97):
        with pytest.raises(TruncatedError, match=rf"^bundle: truncated at byte {length}$"):
            members_of(SeekablePlainStream(StayingBytes(ARCHIVE[:length])))


@pytest.mark.parametrize(
    "write", [lambda writer, data: writer.write(data), lambda writer, data: writer.write(memoryview(data))]
)
def test_a_plain_bundle_is_what_was_written(tmp_path: Path, write: Callable[[PlainWriter, bytes], object]) -> None:
    with (tmp_path / "a.tar").open("wb") as file:
        writer = PlainWriter(GrowingFile(file.fileno()))
        for name, data in MEMBERS:
            write(writer, member(name, data))
            writer.cut()
        write(writer, END_OF_ARCHIVE)
        writer.finish()
        writer.close()
    assert (tmp_path / "a.tar").read_bytes() == ARCHIVE


def test_a_plain_bundle_may_go_to_what_is_no_file() -> None:
    output = Gathered()
    writer = PlainWriter(output)
    writer.write(ARCHIVE[:700])
    writer.write(memoryview(ARCHIVE)[700:])
    writer.finish()
    writer.close()
    assert output.data == ARCHIVE
    # Whoever owns the output syncs it.
    assert output.syncs == 0


@QUICK
@given(
    st.lists(st.tuples(st.text("abc/", min_size=1, max_size=130), st.binary(max_size=1200)), max_size=4),
    st.integers(1, 3000),
    st.integers(0, 1500),
)
def test_every_archive_is_read_as_written(members: list[tuple[str, bytes]], step: int, start: int) -> None:
    data = b"".join(member(*entry) for entry in members) + END_OF_ARCHIVE
    with piped(data, step, min(start, len(data))) as stream:
        assert members_of(stream) == members
