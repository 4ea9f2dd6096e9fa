"""
Protocols for reading and writing bytes, and the files and pipes that implement the reading ones.

Frames and plain streams know only the protocols. Nothing here opens or closes a file. `writing.GrowingFile` implements
`Output` for a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError
from ostore.streams.chunks import CHUNK_BYTES, Chunk, read_at
from ostore.streams.durable import naming
from ostore.streams.same_file import stamp_of


class BytesAt(Protocol):
    """Bytes that can be read in any order, by several threads at once."""

    @property
    def size(self) -> int:
        """The number of bytes at opening."""
        ...

    def read_at(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from byte `offset`, or fewer at the end. Raises OSError, which names the file."""
        ...

    def refuse_changes(self) -> None:
        """Raises IntegrityError if the bytes have changed since opening, as far as that can be seen."""
        ...


# Returns the bytes of a blob that the target has, for the next blobs to build on. Returns None for any other digest.
Held = Callable[[Digest], BytesAt | None]


def nothing_held(_digest: Digest, /) -> None:
    """The `Held` of a target without blobs. Returns None."""


class Forward(Protocol):
    """Bytes that can be read once, in order."""

    def read(self, size: int) -> bytes:
        """
        Return the next 1 to `size` bytes, without waiting for more than are there. Empty only at the end.

        Raises OSError.
        """
        ...


class Output(Protocol):
    """A destination to which bytes are appended."""

    def write(self, buffers: Sequence[Chunk]) -> int:
        """Write all bytes of these buffers, in order. Returns their number. Raises OSError."""
        ...

    def sync(self) -> None:
        """Flush all written bytes to the disk, if they go to one. Raises OSError."""
        ...


class FileBytes:
    """
    The bytes of an open regular file. The caller closes the file. `path` is for messages.

    Nothing checks that the file is regular. Reading ignores the position of the file, but moves it on Windows.
    """

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._stamp = self._status()

    @property
    def fd(self) -> int:
        """The descriptor of the open file, for what the system copies from it by itself."""
        return self._fd

    @property
    def size(self) -> int:
        """The size of the file in bytes at opening."""
        return self._stamp[2]

    @property
    def stamp(self) -> tuple[int, ...]:
        """What tells the file as it was at opening: `same_file.stamp_of`."""
        return self._stamp

    def read_at(self, size: int, offset: int) -> bytes:
        """
        Return `size` bytes from byte `offset`, or fewer at the current end of the file.

        Raises OSError, which names the file.
        """
        try:
            data = read_at(self._fd, size, offset)
            while 0 < len(data) < size and (more := read_at(self._fd, size - len(data), offset + len(data))):
                data += more
        except OSError:
            # Not around the calls: in a tar with many small members that takes a fifth of the time.
            with naming(self._path):
                raise
        return data

    def refuse_changes(self) -> None:
        """
        Raises IntegrityError if the file has another size or mtime than at opening. Raises OSError.

        This does not notice a change that keeps the size and restores the mtime.
        """
        if self._status() != self._stamp:
            raise IntegrityError(f"{self._path}: changed while it was read")

    def _status(self) -> tuple[int, ...]:
        with naming(self._path):
            return stamp_of(os.fstat(self._fd))


class RangeOf:
    """A range of other bytes."""

    def __init__(self, source: BytesAt, start: int, size: int) -> None:
        self._source, self._start, self.size = source, start, size

    def read_at(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from byte `offset` of the range, or fewer at its end. Raises what the source raises."""
        return self._source.read_at(max(0, min(size, self.size - offset)), self._start + offset)

    def refuse_changes(self) -> None:
        """Raises IntegrityError if the source has changed."""
        self._source.refuse_changes()


class PipeBytes:
    """The bytes of an open pipe, or of a file from its current position. The caller closes it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes. Empty only at the end. Raises OSError, which names no file."""
        return os.read(self._fd, size)


class ForwardOver:
    """Reads a `BytesAt` once, from the first byte to the last."""

    def __init__(self, source: BytesAt) -> None:
        self._source = source
        self._position = 0

    def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes. Empty only at the end. Raises OSError."""
        data = self._source.read_at(size, self._position)
        self._position += len(data)
        return data


def read_chunks_at(source: BytesAt, limit: int, *, start: int = 0, lead: int = 0) -> Iterator[bytes]:
    """
    Yield the bytes from `start` on in chunks of 8 MiB (the last is shorter), at most `limit` bytes and one more.

    The extra byte tells the reader that the file is longer than promised. The first chunk is `lead` bytes shorter, as
    in `chunks.read_chunks`. Raises OSError.
    """
    end, wanted = start + limit + 1, CHUNK_BYTES - lead
    while start < end and (chunk := source.read_at(min(wanted, end - start), start)):
        start, wanted = start + len(chunk), CHUNK_BYTES
        yield chunk
