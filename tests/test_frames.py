"""What is written as frames is read back unchanged, however it arrives, and other tools can read it too."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import BinaryIO

import indexed_zstd
import pytest
import pyzstd
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats import seek_table
from ostore.formats.errors import (
    FormatError,
    IntegrityError,
    InvalidBundleError,
    LimitError,
    OstoreError,
    TruncatedError,
)
from ostore.formats.seek_table import FOOTER_BYTES, SKIPPABLE_MAGIC, read_table, table_size, write_table
from ostore.formats.zstd_frame import FrameSpan, measure_frame
from ostore.streams.bytes_at import FileBytes, PipeBytes
from ostore.streams.chunks import Chunk, read_at
from ostore.streams.frames import (
    FrameWriter,
    PipedFrames,
    PipedStream,
    SeekableStream,
    decode_frame,
    encode_frame,
    ordered_map,
    workers,
)
from ostore.streams.tar import ForwardStream
from ostore.streams.writing import GrowingFile
from tests.in_memory import Gathered, PassingBytes, StayingBytes
from tests.support import noise

QUICK = settings(max_examples=40, deadline=None, database=None)

MIB = 1024 * 1024
TEXT = b"".join(b"line %d of a text that shrinks\n" % number for number in range(20_000))
PIECES: tuple[bytes, ...] = (b"index", TEXT, noise(9 * MIB), bytes(3 * MIB), b"x", noise(70_000, 2), b"the end")
CONTENT = b"".join(PIECES)


def encoded(path: Path, pieces: Sequence[bytes], *, level: int | None = None, jobs: int = 2) -> bytes:
    """A frame (or more) for each piece."""
    with path.open("wb") as file, contextlib.closing(FrameWriter(GrowingFile(file.fileno()), level, jobs)) as writer:
        for piece in pieces:
            writer.write(piece)
            writer.cut()
        writer.finish()
    return path.read_bytes()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "all.zst"
    encoded(path, PIECES)
    return path


@cache
def small() -> bytes:
    """Five frames, some of them compressed, in a few hundred bytes."""
    read_end, write_end = os.pipe()
    with contextlib.closing(FrameWriter(GrowingFile(write_end), None, 1)) as writer:
        for piece in (b"one", b"two " * 500, noise(100), b"four", bytes(5000)):
            writer.write(piece)
            writer.cut()
        writer.finish()
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        return file.read()


SMALL_CONTENT = b"one" + b"two " * 500 + noise(100) + b"four" + bytes(5000)


@contextlib.contextmanager
def piped(data: bytes, step: int) -> Iterator[int]:
    """The reading end of a pipe that somebody fills `step` bytes at a time."""
    read_end, write_end = os.pipe()

    def fill() -> None:
        # Windows calls a pipe that nobody reads an invalid argument.
        with (
            contextlib.suppress(BrokenPipeError, *([OSError] if os.name == "nt" else [])),
            os.fdopen(write_end, "wb", buffering=0) as file,
        ):
            for start in range(0, len(data), step):
                file.write(data[start : start + step])

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield read_end
    finally:
        os.close(read_end)
        thread.join()


def read_piped(data: bytes, size: int, *, step: int = 65_536, start: int = 0, jobs: int = 2) -> bytes:
    with piped(data[start:], step) as fd, ThreadPoolExecutor(jobs) as pool:
        stream = PipedStream(PipedFrames(PipeBytes(fd), data[:start]), pool, jobs + 1)
        found = b"".join(stream.take(size))
        stream.finish()
    return found


@contextlib.contextmanager
def seekable(path: Path, *, jobs: int = 2) -> Iterator[SeekableStream]:
    with path.open("rb") as file, ThreadPoolExecutor(jobs) as pool:
        yield SeekableStream(FileBytes(file.fileno(), path), spans_of(path.read_bytes()), pool, jobs + 1)


def spans_of(data: bytes) -> tuple[FrameSpan, ...]:
    size = table_size(data[-FOOTER_BYTES:])
    assert size is not None
    return read_table(data[-size:])


def test_no_frame_has_more_than_8_mib_and_each_piece_begins_one(bundle: Path) -> None:
    sizes = [span.content_size for span in spans_of(bundle.read_bytes())]
    assert sizes == [5, len(TEXT), 8 * MIB, MIB, 3 * MIB, 1, 70_000, 7]


def test_the_seek_table_says_where_the_frames_are(bundle: Path) -> None:
    data = bundle.read_bytes()
    offset = 0
    for span in spans_of(data):
        assert measure_frame(data[offset:]) == span
        offset += span.size
    assert data[offset : offset + 4] == SKIPPABLE_MAGIC


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd program here")
def test_the_zstd_program_decodes_it(bundle: Path) -> None:
    assert subprocess.run(["zstd", "-dc", bundle], capture_output=True, check=True).stdout == CONTENT
    subprocess.run(["zstd", "-tq", bundle], check=True)


@pytest.mark.parametrize(
    "open_", [pyzstd.SeekableZstdFile, indexed_zstd.IndexedZstdFile], ids=["pyzstd", "indexed_zstd"]
)
def test_other_libraries_read_any_part_of_it_through_the_seek_table(
    bundle: Path, open_: Callable[[str], BinaryIO]
) -> None:
    some = random.Random(5)
    with open_(str(bundle)) as file:
        for _ in range(25):
            start = some.randrange(len(CONTENT))
            size = some.choice([1, 512, 100_000])
            file.seek(start)
            assert file.read(size) == CONTENT[start : start + size]


@pytest.mark.parametrize("level", [None, 1, 3], ids=["auto", "level 1", "level 3"])
def test_the_bytes_do_not_depend_on_the_number_of_threads(tmp_path: Path, level: int | None) -> None:
    made = {encoded(tmp_path / "x", PIECES, level=level, jobs=jobs) for jobs in (1, 2, 3, 4, 9)}
    assert len(made) == 1


def test_the_bytes_do_not_depend_on_the_pieces_that_are_written(tmp_path: Path) -> None:
    whole = encoded(tmp_path / "whole", [CONTENT])
    with (
        (tmp_path / "parts").open("wb") as file,
        contextlib.closing(FrameWriter(GrowingFile(file.fileno()), None, 2)) as writer,
    ):
        some = random.Random(6)
        rest = memoryview(CONTENT)
        while rest:
            size = some.choice([1, 1000, 3 * MIB])
            writer.write(rest[:size])
            rest = rest[size:]
        writer.cut()
        writer.cut()
        writer.finish()
    assert (tmp_path / "parts").read_bytes() == whole


def stored_raw(frame: Sequence[Chunk], content: bytes) -> bool:
    return len(b"".join(frame)) > len(content)


@pytest.mark.parametrize(
    ("content", "is_raw"),
    [
        (noise(MIB), True),
        (noise(1000), True),
        (b"x", True),
        (bytes(MIB), False),
        (TEXT, False),
        (noise(MIB // 2) + bytes(MIB // 2), False),
        (noise(900_000) + b" " * 100_000, False),
        (noise(990_000) + b" " * 10_000, True),
    ],
    ids=["noise", "little noise", "one byte", "zeros", "text", "half noise", "10 % to save", "1 % to save"],
)
def test_the_automatic_level_stores_what_hardly_shrinks(content: bytes, is_raw: bool) -> None:
    frame = encode_frame([content], None)
    assert stored_raw(frame, content) is is_raw
    assert decode_frame(b"".join(frame)) == content


def test_a_forced_level_compresses_and_adds_no_checksum() -> None:
    for level in (1, 19):
        frame = b"".join(encode_frame([TEXT[:100_000]], level))
        parameters = zstandard.get_frame_parameters(frame)
        assert (parameters.content_size, parameters.has_checksum, parameters.dict_id) == (100_000, False, 0)
        assert len(frame) < 20_000


@pytest.mark.parametrize("jobs", [1, 2, 4])
@pytest.mark.parametrize(("step", "start"), [(65_536, 0), (1000, 0), (10**9, 0), (65_536, 262), (65_536, 10_000_000)])
def test_a_pipe_gives_what_was_written_however_it_is_filled(bundle: Path, step: int, start: int, jobs: int) -> None:
    assert read_piped(bundle.read_bytes(), len(CONTENT), step=step, start=start, jobs=jobs) == CONTENT


def test_a_pipe_may_give_one_byte_at_a_time() -> None:
    assert read_piped(small(), len(SMALL_CONTENT), step=1) == SMALL_CONTENT


@pytest.mark.parametrize("step", [1, 7, 10**9])
@pytest.mark.parametrize("start", [0, 262])
def test_frames_may_come_from_what_is_no_pipe(step: int, start: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        stream = PipedStream(PipedFrames(PassingBytes(small()[start:], step), small()[:start]), pool, 3)
        assert read_to_the_end(stream) == SMALL_CONTENT


@pytest.mark.parametrize("length", range(0, len(small()) + 1, 50))
def test_an_error_of_what_gives_the_frames_reaches_the_reader(length: int) -> None:
    failure = ConnectionResetError(104, "Connection reset by peer")
    with ThreadPoolExecutor(2) as pool:
        stream = PipedStream(PipedFrames(PassingBytes(small()[:length], 20, failure), b""), pool, 3)
        with pytest.raises(ConnectionResetError) as raised:
            read_to_the_end(stream)
    assert raised.value is failure


def read_to_the_end(stream: ForwardStream) -> bytes:
    found = b"".join(stream.take(len(SMALL_CONTENT)))
    stream.finish()
    return found


def test_an_error_of_what_holds_the_frames_reaches_the_reader() -> None:
    class Broken(StayingBytes):
        def read_at(self, size: int, offset: int) -> bytes:
            raise OSError(5, "Input/output error", "volume 3")

    with ThreadPoolExecutor(2) as pool, pytest.raises(OSError, match="volume 3"):
        list(SeekableStream(Broken(small()), spans_of(small()), pool, 3).take(1))


def test_a_frame_is_given_to_the_output_whole_in_one_call() -> None:
    output = Gathered()
    with contextlib.closing(FrameWriter(output, None, 2)) as writer:
        for piece in PIECES:
            writer.write(piece)
            writer.cut()
        writer.finish()
    # A frame each (two for the piece of 9 MiB) and the table; a raw one has its parts side by side.
    assert [sum(map(len, call)) for call in output.calls[:-1]] == [span.size for span in spans_of(output.data)]
    assert max(map(len, output.calls)) > 1
    # Whoever owns the output syncs it.
    assert output.syncs == 0


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_a_file_gives_what_was_written(bundle: Path, jobs: int) -> None:
    with seekable(bundle, jobs=jobs) as stream:
        assert b"".join(stream.take(len(CONTENT))) == CONTENT
        stream.finish()


@pytest.mark.parametrize(
    "after",
    [b"x", b"\0", b"\n", SKIPPABLE_MAGIC + bytes(4), b"".join(encode_frame([b"more"], None)), small()],
    ids=["a byte", "NUL", "newline", "skippable frame", "another frame", "another bundle"],
)
@pytest.mark.parametrize("step", [1, 65_536])
def test_bytes_after_the_end_are_refused(after: bytes, step: int) -> None:
    with pytest.raises(InvalidBundleError, match="bytes after the end of the bundle"):
        read_piped(small() + after, len(SMALL_CONTENT), step=step)


def test_a_bundle_cut_anywhere_is_truncated() -> None:
    for length in range(len(small())):
        with pytest.raises(TruncatedError, match=r"^bundle: truncated at byte"):
            read_piped(small()[:length], len(SMALL_CONTENT))


def test_one_changed_bit_is_refused_or_leaves_the_length_as_it_was() -> None:
    # What a raw block holds is proved by SHA-256 further up.
    data = small()
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        with contextlib.suppress(OstoreError):
            assert len(read_piped(changed, len(SMALL_CONTENT))) == len(SMALL_CONTENT)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda frames, table: [*frames[1:], table], IntegrityError),
        (lambda frames, table: [frames[1], frames[0], *frames[2:], table], IntegrityError),
        (lambda frames, table: [*frames, frames[0], table], IntegrityError),
        (lambda frames, table: [*frames, write_table([FrameSpan(1, 1)])], IntegrityError),
        (lambda frames, table: [*frames, write_table([FrameSpan(1, 1)] * 900)], IntegrityError),
        (lambda frames, table: [*frames, SKIPPABLE_MAGIC + b"\xff" * 4], LimitError),
        (lambda frames, table: [frames[0], b"\x51\x2a\x4d\x18" + bytes(4), *frames[1:], table], LimitError),
        (lambda frames, table: [table], IntegrityError),
        (lambda frames, table: frames, TruncatedError),
        (lambda frames, table: [b"not zstd", *frames, table], InvalidBundleError),
    ],
    ids=[
        "first frame missing",
        "frames in another order",
        "frame twice",
        "table of another bundle",
        "table too long",
        "skippable frame of 4 GiB",
        "skippable frame between",
        "only the table",
        "no table",
        "bytes in front",
    ],
)
def test_frames_and_table_must_agree(
    damage: Callable[[list[bytes], bytes], list[bytes]], error: type[OstoreError]
) -> None:
    data, parts = small(), []
    offset = 0
    for span in spans_of(data):
        parts.append(data[offset : offset + span.size])
        offset += span.size
    damaged = b"".join(damage(parts, data[offset:]))
    with piped(damaged, 65_536) as fd, pytest.raises(error):
        list(PipedFrames(PipeBytes(fd), b""))


@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: frame[:-1],
        lambda frame: frame + b"\0",
        lambda frame: frame[:5] + bytes([frame[5] ^ 1]) + frame[6:],
        lambda frame: frame + frame,
    ],
    ids=["cut", "a byte more", "another content size", "two frames"],
)
def test_a_damaged_frame_is_not_decoded(damage: Callable[[bytes], bytes]) -> None:
    frame = b"".join(encode_frame([b"words " * 1000], 1))
    with pytest.raises(IntegrityError, match=r"^zstd: damaged frame"):
        decode_frame(damage(frame))


def test_a_stream_that_ends_too_early_is_truncated(bundle: Path) -> None:
    with pytest.raises(TruncatedError, match="before everything it lists"):
        read_piped(bundle.read_bytes(), len(CONTENT) + 1)
    with seekable(bundle) as stream, pytest.raises(TruncatedError, match="before everything it lists"):
        list(stream.take(len(CONTENT) + 1))


@pytest.mark.parametrize("left", [1, 8, 4 * MIB])
def test_data_after_the_archive_is_refused(bundle: Path, left: int) -> None:
    with pytest.raises(FormatError, match="data after the end of the archive"):
        read_piped(bundle.read_bytes(), len(CONTENT) - left)
    with seekable(bundle) as stream:
        list(stream.take(len(CONTENT) - left))
        with pytest.raises(FormatError, match="data after the end of the archive"):
            stream.finish()


def test_a_frame_that_is_not_as_the_table_says_is_refused(bundle: Path) -> None:
    spans = list(spans_of(bundle.read_bytes()))
    spans[1] = FrameSpan(spans[1].size, spans[1].content_size - 1)
    with bundle.open("rb") as file, ThreadPoolExecutor(1) as pool:
        stream = SeekableStream(FileBytes(file.fileno(), bundle), spans, pool, 2)
        with pytest.raises(IntegrityError, match="frame 1 is not as the seek table says"):
            list(stream.take(1000))


def frames_read(path: Path, use: Callable[[SeekableStream], object]) -> list[int]:
    """Which frames of a bundle are read while a stream over it is used."""
    source = StayingBytes(path.read_bytes())
    spans = spans_of(source.data)
    with ThreadPoolExecutor(2) as pool:
        use(SeekableStream(source, spans, pool, 3))
    starts = [sum(span.size for span in spans[:number]) for number in range(len(spans))]
    return sorted(starts.index(offset) for _, offset in source.asked)


TAKE_AND_SKIP: dict[str, tuple[list[tuple[str, int]], list[int]]] = {
    "nothing": ([], []),
    "over everything": ([("skip", len(CONTENT))], []),
    "the first": ([("take", 5)], [0]),
    "the second": ([("skip", 5), ("take", 10)], [1]),
    "a part across two": ([("skip", 4), ("take", 2)], [0, 1]),
    "only the last": ([("skip", len(CONTENT) - 7), ("take", 7)], [7]),
    "the last byte": ([("skip", len(CONTENT) - 1), ("take", 1)], [7]),
    "first and last": ([("take", 5), ("skip", len(CONTENT) - 12), ("take", 7)], [0, 7]),
    "over a large one": ([("take", 5), ("skip", len(TEXT) + 9 * MIB), ("take", 3 * MIB)], [0, 4]),
    "within one": ([("skip", 5), ("take", 1), ("skip", 1), ("take", 1), ("skip", 100), ("take", 1)], [1]),
    "to a border": ([("skip", 5), ("take", 1), ("skip", len(TEXT) - 1), ("skip", 0)], [1]),
    "skips in a row": ([("skip", 2), ("skip", 3), ("skip", len(TEXT)), ("skip", 9 * MIB)], [0]),
}


@pytest.mark.parametrize(("moves", "needed"), TAKE_AND_SKIP.values(), ids=TAKE_AND_SKIP.keys())
def test_only_the_frames_that_are_needed_are_read(
    bundle: Path, moves: list[tuple[str, int]], needed: list[int]
) -> None:
    def use(stream: SeekableStream) -> None:
        for verb, size in moves:
            start = stream.position
            if verb == "skip":
                stream.skip(size)
            else:
                assert b"".join(stream.take(size)) == CONTENT[start : start + size]
            assert stream.position == start + size

    assert frames_read(bundle, use) == needed


def test_frames_that_are_promised_are_read_ahead_and_each_once(bundle: Path) -> None:
    def use(stream: SeekableStream) -> None:
        stream.will_read(len(CONTENT))
        for size in map(len, PIECES):
            taken = sum(map(len, stream.take(max(size - 1, 1))))
            stream.skip(size - taken)
        stream.finish()

    assert frames_read(bundle, use) == list(range(8))


MOVES = st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=12)


@QUICK
@given(MOVES, st.integers(1, 4))
def test_any_mixture_of_taking_and_skipping_stays_in_step(moves: list[tuple[bool, int]], jobs: int) -> None:
    data = small()
    with piped(data, 65_536) as fd, os_file(data) as file, ThreadPoolExecutor(jobs) as pool:
        streams: list[ForwardStream] = [
            PipedStream(PipedFrames(PipeBytes(fd), b""), pool, jobs + 1),
            SeekableStream(FileBytes(file, Path("f")), spans_of(data), pool, jobs + 1),
        ]
        for stream in streams:
            for is_skip, wanted in moves:
                start = stream.position
                size = min(wanted, len(SMALL_CONTENT) - start)
                if is_skip:
                    stream.skip(size)
                else:
                    assert b"".join(stream.take(size)) == SMALL_CONTENT[start : start + size]
            rest = SMALL_CONTENT[stream.position :]
            assert b"".join(stream.take(len(rest))) == rest
            stream.finish()


@contextlib.contextmanager
def os_file(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


PARTS = st.lists(
    st.binary(max_size=300) | st.builds(lambda byte, size: byte * size, st.binary(min_size=1), st.integers(0, 500)),
    max_size=8,
)


@QUICK
@given(PARTS, st.sampled_from([None, 1, 5, 19]), st.integers(1, 4))
def test_whatever_is_encoded_is_decoded_by_us_and_by_zstd(parts: list[bytes], level: int | None, jobs: int) -> None:
    with os_file(b"") as fd:
        with contextlib.closing(FrameWriter(GrowingFile(fd), level, jobs)) as writer:
            for part in parts:
                writer.write(part)
                writer.cut()
            writer.finish()
        data = read_at(fd, 10**6, 0)
    content = b"".join(parts)
    assert read_piped(data, len(content), jobs=jobs) == content
    assert pyzstd.decompress(data) == content if content else True


def test_an_encoder_and_decoder_shared_by_many_threads_never_mix_their_bytes() -> None:
    contents = [b"%d " % number * 5000 for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda content: b"".join(encode_frame([content], None)), contents))
        assert list(pool.map(lambda frame: bytes(decode_frame(frame)), made)) == contents
    assert made == [b"".join(encode_frame([content], None)) for content in contents]


def test_results_come_in_order_and_no_more_than_allowed_are_in_flight() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001 * (number % 3))
        with lock:
            running -= 1
        return number

    with ThreadPoolExecutor(8) as pool:
        assert list(ordered_map(pool, work, range(40), 3)) == list(range(40))
    assert most <= 3


def test_an_error_in_a_thread_reaches_the_reader() -> None:
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        list(ordered_map(pool, lambda number: 1 // number, [1, 0, 1], 2))


def test_what_came_before_an_error_comes_first() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise TruncatedError("cut")

    came: list[int] = []
    with ThreadPoolExecutor(2) as pool, pytest.raises(TruncatedError):
        came.extend(ordered_map(pool, abs, items(), 3))
    assert came == [0, 1, 2]


def test_a_full_disk_while_frames_are_written_reaches_the_writer() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with contextlib.closing(FrameWriter(GrowingFile(fd), None, 2)) as writer:
            writer.write(b"x")
            with pytest.raises(OSError, match="No space left"):
                writer.finish()
    finally:
        os.close(fd)


@pytest.mark.parametrize(("jobs", "threads"), [(-1, 1), (0, 1), (1, 1), (3, 3), (4, 4), (64, 4)])
def test_one_stream_never_takes_more_than_four_threads(jobs: int, threads: int) -> None:
    assert workers(jobs) == threads


def test_more_frames_than_a_reader_takes_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seek_table, "MAX_FRAMES", 2)
    with contextlib.closing(FrameWriter(Gathered(), None, 1)) as writer:
        for _ in range(2):
            writer.write(b"x")
            writer.cut()
        writer.write(b"x")
        with pytest.raises(LimitError, match="at most 2 frames"):
            writer.cut()
