"""
Independent zstd frames. Several threads encode and decode them; they are written and read in order.

In an export, the caller's thread reads the disk, cuts the tar stream into frames and writes finished frames. A pool of
threads compresses, and `verified` hashes in a thread of its own. An import does the reverse. At most four frames are
between the two ends, which bounds memory.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from typing import TypeVar

import zstandard

from ostore.formats import seek_table
from ostore.formats.errors import IntegrityError, InvalidBundleError, LimitError, OstoreError, TruncatedError
from ostore.formats.zstd_frame import MAX_FRAME_CONTENT, FrameSpan, measure_frame, raw_frame
from ostore.streams.bytes_at import BytesAt, Forward, Output
from ostore.streams.chunks import Chunk
from ostore.streams.pool import Pool

# One SHA-256 (about 1.5 GB/s) limits one stream. Four workers are faster than that; more only take memory.
MAX_WORKERS = 4
AUTO_LEVEL = 1
# A frame that level 1 shrinks by less than 2 % is stored uncompressed. Quantised weights hardly shrink, and reading
# them back then costs nothing.
_WORTH_IT = 0.98
# The probe compresses slices spread over the frame, to estimate what level 1 does to all of it.
_PROBE_SLICES = 16
_PROBE_BYTES = 8 * 1024
_READ_BYTES = 1024 * 1024

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_codecs = threading.local()


def ordered_map(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], in_flight: int
) -> Iterator[_Result]:
    """
    Apply a function in threads to at most `in_flight` items at a time. Yields the results in order of the items.

    If the items end with an error, the results of those before it come first: of a stream that is cut off, a reader
    keeps what came whole.
    """
    pending: deque[Future[_Result]] = deque()
    failure: list[OstoreError | OSError] = []
    for item in _until_failure(items, failure):
        pending.append(pool.submit(function, item))
        if len(pending) >= in_flight:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
    for error in failure:
        raise error


def _until_failure(items: Iterable[_Item], failure: list[OstoreError | OSError]) -> Iterator[_Item]:
    """Yield items up to an error, which goes into `failure`."""
    try:
        yield from items
    except (OstoreError, OSError) as error:
        failure.append(error)


def workers(jobs: int) -> int:
    """Return how many threads compress or decode one stream if `jobs` threads may run."""
    return max(1, min(jobs, MAX_WORKERS))


def in_flight(jobs: int) -> int:
    """Return how many frames may be between reading and writing if `jobs` threads may run."""
    return min(workers(jobs) + 1, MAX_WORKERS)


class FrameWriter:
    """
    Cuts data into frames of at most 8 MiB, compresses them and writes them to an output.

    `level` is 1 to 19. None means level 1 for a frame that it shrinks, and raw storage for others. The output depends
    only on the data and the calls of `cut`, never on timing. The caller closes the writer, and syncs the output.

    `offset` is the number of bytes of data whose frames are written. `spans` are frames that the output has already.
    """

    def __init__(self, output: Output, level: int | None, jobs: int, spans: Sequence[FrameSpan] = ()) -> None:
        self._output = output
        self._level = level
        self._pool = Pool(workers(jobs))
        self._in_flight = in_flight(jobs)
        self._pending: deque[tuple[int, Future[list[Chunk]]]] = deque()
        self._pieces: list[Chunk] = []
        self._filled = 0
        self._spans: list[FrameSpan] = list(spans)
        self.offset = sum(span.content_size for span in spans)

    def frames_to(self, offset: int) -> tuple[FrameSpan, ...]:
        """Return the written frames that hold the first `offset` bytes of data. A frame must end there."""
        count, end = len(self._spans), self.offset
        while end > offset:
            count -= 1
            end -= self._spans[count].content_size
        return tuple(self._spans[:count])

    def write(self, data: Chunk) -> None:
        view = memoryview(data)
        while view:
            piece = view[: MAX_FRAME_CONTENT - self._filled]
            self._pieces.append(piece)
            self._filled += len(piece)
            view = view[len(piece) :]
            if self._filled == MAX_FRAME_CONTENT:
                self.cut()

    def cut(self) -> None:
        """End the current frame unless it is empty. Raises LimitError when a reader would refuse so many frames."""
        if self._filled:
            if len(self._spans) + len(self._pending) >= seek_table.MAX_FRAMES:
                raise LimitError(
                    f"zstd: expected at most {seek_table.MAX_FRAMES} frames",
                    hint="choose fewer models for each bundle",
                )
            future = self._pool.submit(encode_frame, self._pieces, self._level)
            self._pending.append((self._filled, future))
            self._pieces, self._filled = [], 0
        while len(self._pending) >= self._in_flight:
            self._write_oldest()

    def finish(self) -> None:
        """Write the remaining frames and the seek table."""
        self.cut()
        while self._pending:
            self._write_oldest()
        self._output.write((seek_table.write_table(self._spans),))

    def sync(self) -> None:
        """Flush the frames that are written to the disk. Raises OSError."""
        self._output.sync()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _write_oldest(self) -> None:
        content_size, future = self._pending.popleft()
        size = self._output.write(future.result())
        self._spans.append(FrameSpan(size, content_size))
        self.offset += content_size


def encode_frame(pieces: Sequence[Chunk], level: int | None) -> list[Chunk]:
    """Return one frame of these pieces (1 byte to 8 MiB in all), as buffers to write in order."""
    content = memoryview(pieces[0]) if len(pieces) == 1 else memoryview(b"".join(pieces))
    if level is not None:
        return [_compressor(level).compress(content)]
    if _looks_incompressible(content):
        return raw_frame(content)
    compressed = _compressor(AUTO_LEVEL).compress(content)
    return [compressed] if len(compressed) <= len(content) * _WORTH_IT else raw_frame(content)


def decode_listed(source: BytesAt, number: int, span: FrameSpan, offset: int) -> memoryview:
    """
    Read and decode a frame that a seek table lists. `number` is for the message.

    Raises IntegrityError if it is not as the table says, and what `decode_frame` raises, OSError.
    """
    data = source.read_at(span.size, offset)
    if measure_frame(data) != span:
        raise IntegrityError(f"bundle: frame {number} is not as the seek table says")
    return decode_frame(data)


def decode_frame(frame: bytes | memoryview) -> memoryview:
    """Decode one whole frame that `measure_frame` has accepted. Raises IntegrityError if it is damaged."""
    if not hasattr(_codecs, "decompressor"):
        # Each thread needs its own: a context shared by two threads gave wrong bytes without an error.
        _codecs.decompressor = zstandard.ZstdDecompressor()
    try:
        return memoryview(_codecs.decompressor.decompress(frame, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise IntegrityError(f"zstd: damaged frame: {error}") from None


def _compressor(level: int) -> zstandard.ZstdCompressor:
    compressors: dict[int, zstandard.ZstdCompressor] = _codecs.__dict__.setdefault("compressors", {})
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
    return compressors[level]


def _looks_incompressible(content: memoryview) -> bool:
    if len(content) <= 2 * _PROBE_SLICES * _PROBE_BYTES:
        return False
    step = len(content) // _PROBE_SLICES
    sample = b"".join(content[start : start + _PROBE_BYTES] for start in range(0, step * _PROBE_SLICES, step))
    return len(_compressor(AUTO_LEVEL).compress(sample)) > len(sample) * _WORTH_IT


class PipedFrames:
    """Yields the frames of a bundle that can only be read forward, then checks the seek table and the end."""

    def __init__(self, source: Forward, start: bytes) -> None:
        """`start` holds the bytes already read from the source."""
        self._source = source
        self._buffer = bytearray(start)
        self._spans: list[FrameSpan] = []
        self._offset = 0

    def __iter__(self) -> Iterator[bytes]:
        # One frame, and the end, is what another program makes of a bundle. Whoever opens the stream has to see that.
        frames = [self._next()]
        frames += [self._next()] if frames[0] else []
        yield from filter(None, frames)
        while frames[-1] and (frame := self._next()):
            yield frame
        self._check_end()

    def _next(self) -> bytes | None:
        self._fill(len(seek_table.SKIPPABLE_MAGIC))
        if self._buffer[:4] == seek_table.SKIPPABLE_MAGIC:
            return None
        while (span := measure_frame(self._buffer)) is None or span.size > len(self._buffer):
            self._fill(max(len(self._buffer) + 1, span.size if span else 0))
        if len(self._spans) >= seek_table.MAX_FRAMES:
            raise LimitError(f"zstd: expected at most {seek_table.MAX_FRAMES} frames")
        self._spans.append(span)
        frame = bytes(memoryview(self._buffer)[: span.size])
        del self._buffer[: span.size]
        self._offset += span.size
        return frame

    def _check_end(self) -> None:
        expected = seek_table.write_table(self._spans)
        self._fill(seek_table.HEADER_BYTES)
        declared = seek_table.HEADER_BYTES + int.from_bytes(self._buffer[4:8], "little")
        if declared > seek_table.MAX_TABLE_BYTES:
            raise LimitError(f"zstd: a skippable frame of {declared} bytes, expected a seek table of {len(expected)}")
        if declared == len(expected):
            self._fill(declared)
        if self._buffer[: len(expected)] != expected:
            raise IntegrityError("seek table: disagrees with the frames before it")
        if len(self._buffer) > len(expected) or self._source.read(1):
            raise InvalidBundleError("bytes after the end of the bundle")

    def _fill(self, size: int) -> None:
        """Read until the buffer has at least `size` bytes. Raises TruncatedError at the end of the source."""
        while len(self._buffer) < size:
            data = self._source.read(max(_READ_BYTES, size - len(self._buffer)))
            if not data:
                raise TruncatedError(f"bundle: truncated at byte {self._offset + len(self._buffer)}")
            self._buffer += data


class PipedStream:
    """The tar stream inside frames that can only be read forward."""

    def __init__(self, frames: PipedFrames, pool: ThreadPoolExecutor, in_flight: int) -> None:
        self._contents = ordered_map(pool, decode_frame, frames, in_flight)
        self._current = memoryview(b"")
        self.position = 0

    def take(self, size: int) -> Iterator[Chunk]:
        """Yield exactly `size` bytes. Raises TruncatedError, or what the frames raise."""
        while size:
            if not len(self._current):
                self._current = self._next()
            piece, self._current = self._current[:size], self._current[size:]
            size -= len(piece)
            self.position += len(piece)
            yield piece

    def skip(self, size: int) -> None:
        for _ in self.take(size):
            pass

    def will_read(self, end: int) -> None:
        """Ignore the hint: this stream reads everything anyway."""

    def finish(self) -> None:
        """Raises FormatError, IntegrityError or LimitError unless the stream and the bundle end here."""
        if len(self._current) or next(self._contents, None) is not None:
            raise InvalidBundleError("data after the end of the archive")

    def _next(self) -> memoryview:
        content = next(self._contents, None)
        if content is None:
            raise TruncatedError(f"bundle: the archive ends at byte {self.position}, before everything it lists")
        return content


class SeekableStream:
    """The tar stream inside the frames of a file. It uses the seek table to read only the frames that are needed."""

    def __init__(self, source: BytesAt, spans: Sequence[FrameSpan], pool: ThreadPoolExecutor, in_flight: int) -> None:
        self._source = source
        self._spans = spans
        self._offsets = list(accumulate((span.size for span in spans), initial=0))
        self._starts = list(accumulate((span.content_size for span in spans), initial=0))
        self._pool = pool
        self._in_flight = in_flight
        self._contents: Iterator[memoryview] = iter(())
        self._next_frame = 0
        self._planned_end = 0
        self._current = memoryview(b"")
        self.position = 0

    def take(self, size: int) -> Iterator[Chunk]:
        """Yield exactly `size` bytes. Raises TruncatedError, or what the frames raise."""
        if self.position + size > self._starts[-1]:
            raise TruncatedError(f"bundle: the archive ends at byte {self._starts[-1]}, before everything it lists")
        self.will_read(self.position + size)
        while size:
            if not len(self._current):
                self._current = self._next()
            piece, self._current = self._current[:size], self._current[size:]
            size -= len(piece)
            self.position += len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Move forward. Does not read or decode frames that are skipped completely."""
        self.position += size
        if size < len(self._current):
            self._current = self._current[size:]
            return
        self._current = memoryview(b"")
        frame = bisect_right(self._starts, self.position) - 1
        if frame != self._next_frame:
            self._next_frame, self._contents = frame, iter(())
        if frame < len(self._spans) and self.position > self._starts[frame]:
            self._planned_end = max(self._planned_end, self.position + 1)
            self._current = self._next()[self.position - self._starts[frame] :]

    def will_read(self, end: int) -> None:
        """Announce that the caller reads up to byte `end` of the tar stream. Frames up to there are decoded ahead."""
        self._planned_end = max(self._planned_end, end)

    def finish(self) -> None:
        """Raises FormatError unless the stream ends here. The end of the file was checked with the seek table."""
        if self.position != self._starts[-1]:
            raise InvalidBundleError("data after the end of the archive")

    def _next(self) -> memoryview:
        content = next(self._contents, None)
        if content is None:
            self._contents = ordered_map(self._pool, self._decode, self._planned(self._next_frame), self._in_flight)
            content = next(self._contents)
        self._next_frame += 1
        return content

    def _planned(self, frame: int) -> Iterator[int]:
        while frame < len(self._spans) and self._starts[frame] < self._planned_end:
            yield frame
            frame += 1

    def _decode(self, frame: int) -> memoryview:
        return decode_listed(self._source, frame, self._spans[frame], self._offsets[frame])
