"""Bytes that are cut into volumes, files of a fixed size, and volumes that are read as one."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError
from ostore.streams.bytes_at import BytesAt, FileBytes, Output, read_chunks_at
from ostore.streams.chunks import Chunk
from ostore.streams.durable import naming
from ostore.streams.links import open_to_read
from ostore.streams.pool import Pool
from ostore.streams.writing import GrowingFile

_BEHIND = 2
# Full volumes that wait to be synced. Each has a thread.
_MOST_OPEN = 8


class WrittenFile(NamedTuple):
    """What was written to one file, and is on the disk."""

    size: int
    digest: Digest


class HashedOutput:
    """An output that hashes what goes to another one, in a thread of its own. Close it."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._hasher = hashlib.sha256()
        self._pool = Pool(1)
        self._behind: deque[Future[None]] = deque()
        self._size = 0

    def write(self, buffers: Sequence[Chunk]) -> int:
        """Write all bytes of these buffers, in order. Returns their number. Raises OSError."""
        if len(self._behind) == _BEHIND:
            self._behind.popleft().result()
        self._behind.append(self._pool.submit(self._hash, buffers))
        written = self._output.write(buffers)
        self._size += written
        return written

    def sync(self) -> None:
        """Flush all written bytes to the disk, if they go to one. Raises OSError."""
        self._output.sync()

    def count(self, chunks: Iterable[Chunk]) -> None:
        """Take bytes that the output has already for written. Raises what the chunks raise."""
        for chunk in chunks:
            self._hash((chunk,))
            self._size += len(chunk)

    @property
    def written(self) -> WrittenFile:
        """The number of bytes written until now, and their digest."""
        while self._behind:
            self._behind.popleft().result()
        return WrittenFile(self._size, Digest(self._hasher.hexdigest()))

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _hash(self, buffers: Sequence[Chunk]) -> None:
        for buffer in buffers:
            self._hasher.update(buffer)


class VolumesOutput:
    """
    An output that begins a new file whenever one is full. Close it.

    `begin` opens the file of a volume, counted from 1, and returns its descriptor and its path for messages. Several
    volumes are synced together, because each sync makes the next writes wait. `sizes` are those of all that are full.
    """

    def __init__(self, size: int, begin: Callable[[int], tuple[int, Path]]) -> None:
        self._size = size
        self._begin = begin
        self._open: tuple[int, Path, HashedOutput] | None = None
        self._filled = 0
        self._full: deque[tuple[int, Path, HashedOutput]] = deque()
        self._finished: list[WrittenFile] = []
        self.sizes: list[int] = []

    @property
    def volumes(self) -> list[WrittenFile]:
        """The files that are full, once they are on the disk. Raises OSError."""
        self._sync_full()
        return self._finished

    def write(self, buffers: Sequence[Chunk]) -> int:
        """Write all bytes of these buffers, in order. Returns their number. Raises OSError and what `begin` raises."""
        waiting = deque(memoryview(buffer) for buffer in buffers if len(buffer))
        total = sum(map(len, waiting))
        while waiting:
            if self._open is None:
                fd, path = self._begin(len(self.sizes) + 1)
                self._open, self._filled = (fd, path, HashedOutput(GrowingFile(fd))), 0
            _, path, output = self._open
            with naming(path):
                self._filled += output.write(_taken(waiting, self._size - self._filled))
            if self._filled == self._size:
                self.end()
        return total

    def resume(self, volumes: Sequence[WrittenFile], cut: tuple[int, Path, int] | None) -> None:
        """
        Go on behind `volumes`, which are finished, and the first bytes of one that was cut: its open file, its path and
        their number. They are read, for the digest of the volume. Raises OSError.
        """
        self._finished, self.sizes = list(volumes), [volume.size for volume in volumes]
        if cut:
            fd, path, self._filled = cut
            output = HashedOutput(GrowingFile(fd))
            self._open = (fd, path, output)
            output.count(read_chunks_at(FileBytes(fd, path), self._filled - 1))

    def sync(self) -> None:
        """Flush all written bytes to the disk. Raises OSError."""
        self._sync_full()
        if self._open is not None:
            _, path, output = self._open
            with naming(path):
                output.sync()

    def end(self) -> None:
        """End the current volume, even if it is not full. Raises OSError."""
        if self._open is None:
            return
        self._full.append(self._open)
        self._open = None
        self.sizes.append(self._filled)
        if len(self._full) == _MOST_OPEN:
            self._sync_full()

    def close(self) -> None:
        """Close the volumes that are still open, if any. They are not on the disk."""
        opened = [*self._full, *([self._open] if self._open else [])]
        self._full.clear()
        self._open = None
        for volume in opened:
            _close(volume)

    def _sync_full(self) -> None:
        while self._full:
            _, path, output = self._full[0]
            with naming(path):
                output.sync()
            self._finished.append(output.written)
            _close(self._full.popleft())


def _close(volume: tuple[int, Path, HashedOutput]) -> None:
    fd, _, output = volume
    output.close()
    os.close(fd)


class ClosedFile:
    """The bytes of a regular file that is open only while it is read: there may be a thousand of them."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, also if the file is not regular."""
        self.path = path
        with self._opened() as file:
            self._stamp = file.stamp
            self.size = file.size

    def read_at(self, size: int, offset: int) -> bytes:
        """
        Return `size` bytes from byte `offset`, or fewer at the end.

        Raises IntegrityError if it is another file by now, or has changed; OSError, which names the file.
        """
        with self._opened() as file:
            if file.stamp != self._stamp:
                raise IntegrityError(f"{self.path}: changed while it was read")
            return file.read_at(size, offset)

    def refuse_changes(self) -> None:
        """Raises IntegrityError if it is another file by now, or has another size or mtime. Raises OSError."""
        self.read_at(0, 0)

    @contextmanager
    def _opened(self) -> Iterator[FileBytes]:
        fd = open_to_read(self.path)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(self.path))
            yield FileBytes(fd, self.path)
        finally:
            os.close(fd)


class JoinedBytes:
    """Several sources of bytes, read as one."""

    def __init__(self, parts: Sequence[BytesAt]) -> None:
        self._parts = parts
        self._starts = list(accumulate((part.size for part in parts), initial=0))

    @property
    def size(self) -> int:
        """The number of bytes at opening."""
        return self._starts[-1]

    def read_at(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from byte `offset`, or fewer at the end. Raises OSError, which names the file."""
        number = bisect_right(self._starts, offset) - 1
        pieces: list[bytes] = []
        while size and number < len(self._parts):
            wanted = min(size, self._starts[number + 1] - offset)
            piece = self._parts[number].read_at(wanted, offset - self._starts[number])
            pieces.append(piece)
            if len(piece) < wanted:
                break
            size, offset, number = size - wanted, offset + wanted, number + 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def refuse_changes(self) -> None:
        """Raises IntegrityError if a part has changed since opening, as far as that can be seen."""
        for part in self._parts:
            part.refuse_changes()


def _taken(waiting: deque[memoryview], room: int) -> list[memoryview]:
    """Take at most `room` bytes from the first buffers."""
    taken = []
    while waiting and room:
        view = waiting.popleft()
        if len(view) > room:
            waiting.appendleft(view[room:])
            view = view[:room]
        taken.append(view)
        room -= len(view)
    return taken
