"""
Where bytes are read from and written to: three protocols, and the files and pipes that have them.

Frames and plain streams know the protocols only. Nothing here opens or closes a file; `writing.GrowingFile` is the
output that is one.
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


class BytesAt(Protocol):
    """Bytes that stay where they are and can be read in any order, by several threads at once."""

    @property
    def size(self) -> int:
        """How many bytes there were at opening."""
        ...

    def read_at(self, size: int, offset: int) -> bytes:
        """`size` bytes from byte `offset`; fewer only at the end. Raises OSError, which names the file."""
        ...

    def refuse_changes(self) -> None:
        """Raises IntegrityError if these are not the bytes that were opened, as far as that shows from outside."""
        ...


# What a target has of a blob that the next ones may build on: None for what it has not, or need not show.
Held = Callable[[Digest], BytesAt | None]


def nothing_held(_digest: Digest, /) -> None:
    """What a target without any blobs has."""


class Forward(Protocol):
    """Bytes that pass once."""

    def read(self, size: int) -> bytes:
        """
        The next 1 to `size` bytes, as many as are there: it waits for no more. Empty only at the end.

        Raises OSError.
        """
        ...


class Output(Protocol):
    """Where bytes are appended."""

    def write(self, buffers: Sequence[Chunk]) -> int:
        """Write every byte of these buffers, in order; returns how many they were. Raises OSError."""
        ...

    def sync(self) -> None:
        """Put all that was written on the disk, if it goes to one. Raises OSError."""
        ...


class FileBytes:
    """
    The bytes of an open regular file. Whoever opened it closes it; `path` is for messages.

    That it is a regular file is not checked. Reading does not depend on the position of the file, but on Windows it
    moves it.
    """

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._size, self._modified_ns = self._status()

    @property
    def size(self) -> int:
        """How many bytes the file had at opening."""
        return self._size

    def read_at(self, size: int, offset: int) -> bytes:
        """
        `size` bytes from byte `offset`; fewer only at the end of the file, wherever that is by now.

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
        Raises IntegrityError if the file has another size or mtime than at opening, OSError.

        A change that keeps the size and sets the mtime back is not noticed.
        """
        if self._status() != (self._size, self._modified_ns):
            raise IntegrityError(f"{self._path}: changed while it was read")

    def _status(self) -> tuple[int, int]:
        with naming(self._path):
            status = os.fstat(self._fd)
        return status.st_size, status.st_mtime_ns


class PipeBytes:
    """The bytes of an open pipe, or of a file from where it stands. Whoever opened it closes it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int) -> bytes:
        """The next 1 to `size` bytes; empty only at the end. Raises OSError, which names nothing."""
        return os.read(self._fd, size)


class ForwardOver:
    """Bytes that stay, read from the first to the last."""

    def __init__(self, source: BytesAt) -> None:
        self._source = source
        self._position = 0

    def read(self, size: int) -> bytes:
        """The next 1 to `size` bytes; empty only at the end. Raises OSError."""
        data = self._source.read_at(size, self._position)
        self._position += len(data)
        return data


def read_chunks_at(source: BytesAt, limit: int, *, start: int = 0, lead: int = 0) -> Iterator[bytes]:
    """
    Yield what comes from byte `start` on in chunks of 8 MiB, the last one shorter; at most `limit` bytes and one more.

    The byte too many tells a reader that the file is longer than promised. The first chunk is `lead` bytes shorter, as
    in `chunks.read_chunks`. Raises OSError.
    """
    end, wanted = start + limit + 1, CHUNK_BYTES - lead
    while start < end and (chunk := source.read_at(min(wanted, end - start), start)):
        start, wanted = start + len(chunk), CHUNK_BYTES
        yield chunk
