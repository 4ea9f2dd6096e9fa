"""The tar stream of a bundle that is not compressed, written and read through the same verbs as a framed one."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ostore.formats.errors import InvalidBundleError, TruncatedError
from ostore.streams.chunks import CHUNK_BYTES, Chunk, read_full
from ostore.streams.writing import GrowingFile


class PlainWriter:
    """Writes what it is given; frames mean nothing here."""

    def __init__(self, fd: int) -> None:
        self._file = GrowingFile(fd)

    def write(self, data: Chunk) -> None:
        self._file.write((data,))

    def cut(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


class PlainStream:
    """Reads an open file or pipe forward. `start` is what has been read from it already."""

    def __init__(self, fd: int, start: bytes, *, is_seekable: bool) -> None:
        self._fd = fd
        self._start = memoryview(start)
        self._is_seekable = is_seekable
        self.position = 0

    def take(self, size: int) -> Iterator[Chunk]:
        """Yield exactly so many bytes. Raises TruncatedError."""
        while size:
            piece = self._next(min(size, CHUNK_BYTES))
            if not piece:
                raise TruncatedError(f"bundle: truncated at byte {self.position}")
            size -= len(piece)
            self.position += len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Move forward. Raises TruncatedError."""
        if self._is_seekable and not len(self._start):
            file_size = os.fstat(self._fd).st_size
            if self.position + size > file_size:
                raise TruncatedError(f"bundle: truncated at byte {file_size}")
            os.lseek(self._fd, size, os.SEEK_CUR)
            self.position += size
            return
        for _ in self.take(size):
            pass

    def will_read(self, end: int) -> None:
        """A hint that means nothing here."""

    def finish(self) -> None:
        """Raises InvalidBundleError unless the file ends here."""
        if len(self._start) or read_full(self._fd, 1):
            raise InvalidBundleError("bytes after the end of the bundle")

    def _next(self, size: int) -> Chunk:
        if len(self._start):
            piece, self._start = self._start[:size], self._start[size:]
            return piece
        return read_full(self._fd, size)
