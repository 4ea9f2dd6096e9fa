"""The tar stream of an uncompressed bundle, with the same methods as a stream of frames."""

from __future__ import annotations

from collections.abc import Iterator

from ostore.formats.errors import InvalidBundleError, TruncatedError
from ostore.formats.zstd_frame import FrameSpan
from ostore.streams.bytes_at import BytesAt, Forward, Output
from ostore.streams.chunks import CHUNK_BYTES, Chunk, read_until_full

# `tar` fills up the last record with zeros, 10 KiB or what --blocking-factor says, and `dd conv=sync` the last block.
MAX_PADDING_BYTES = 1024 * 1024


class PlainWriter:
    """Writes data as it is. There are no frames to cut or finish. `offset` bytes are written."""

    def __init__(self, output: Output, offset: int = 0) -> None:
        self._output = output
        self.offset = offset

    def frames_to(self, _offset: int, /) -> tuple[FrameSpan, ...]:
        """Return no frames: the stream can be cut anywhere."""
        return ()

    def write(self, data: Chunk) -> None:
        self.offset += self._output.write((data,))

    def cut(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def sync(self) -> None:
        """Flush what is written to the disk. Raises OSError."""
        self._output.sync()

    def close(self) -> None:
        pass


class SeekablePlainStream:
    """Reads a file forward. Does not read what is skipped."""

    def __init__(self, source: BytesAt) -> None:
        self._source = source
        self.position = 0

    def take(self, size: int) -> Iterator[Chunk]:
        """Yield exactly `size` bytes. Raises TruncatedError, OSError."""
        while size:
            piece = self._source.read_at(min(size, CHUNK_BYTES), self.position)
            if not piece:
                raise _truncated(self.position)
            size -= len(piece)
            self.position += len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Move forward without reading. Raises TruncatedError past the end that the file had at opening."""
        if self.position + size > self._source.size:
            raise _truncated(self._source.size)
        self.position += size

    def will_read(self, end: int) -> None:
        """Ignore the hint: reading ahead gains nothing here."""

    def finish(self) -> None:
        """Raises InvalidBundleError unless the file ends here, or after the padding of a tar. Raises OSError."""
        if self._source.read_at(1, self.position):
            _refuse_rest(self._source.read_at(MAX_PADDING_BYTES + 1, self.position))


class PipedPlainStream:
    """Reads a pipe forward. `start` holds the bytes already read from it."""

    def __init__(self, source: Forward, start: bytes) -> None:
        self._source = source
        self._start = memoryview(start)
        self.position = 0

    def take(self, size: int) -> Iterator[Chunk]:
        """Yield exactly `size` bytes. Raises TruncatedError, OSError."""
        while size:
            piece = self._next(min(size, CHUNK_BYTES))
            if not piece:
                raise _truncated(self.position)
            size -= len(piece)
            self.position += len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Read `size` bytes and drop them. Raises TruncatedError, OSError."""
        for _ in self.take(size):
            pass

    def will_read(self, end: int) -> None:
        """Ignore the hint: this stream reads everything anyway."""

    def finish(self) -> None:
        """Raises InvalidBundleError unless the pipe ends here, or after the padding of a tar. Raises OSError."""
        _refuse_rest(bytes(self._start) + read_until_full(self._source.read, MAX_PADDING_BYTES + 1))

    def _next(self, size: int) -> Chunk:
        if len(self._start):
            piece, self._start = self._start[:size], self._start[size:]
            return piece
        return read_until_full(self._source.read, size)


def _truncated(position: int) -> TruncatedError:
    return TruncatedError(f"bundle: truncated at byte {position}")


def _refuse_rest(rest: Chunk) -> None:
    if len(rest) > MAX_PADDING_BYTES or any(rest):
        raise InvalidBundleError("bytes after the end of the bundle")
