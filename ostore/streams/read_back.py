"""
Read a file back past the cache of the system, to see that its medium has what was written.

A stick that says it is larger than it is begins again at its start, and all that the system says is that all went well.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError, UsageError
from ostore.streams.bytes_at import FileBytes
from ostore.streams.chunks import forget_cached
from ostore.streams.durable import naming
from ostore.streams.volumes import WrittenFile

_PIECE = 8 * 1024 * 1024
# What O_DIRECT reads is made of whole blocks of the disk, which are not larger on any.
_BLOCK = 4096
# fcntl(2) of Darwin: do not keep what is read or written in memory.
_F_NOCACHE = 48
_HINT = "the medium is bad, or holds less than it says: take another one"


def refuse_without_read_back() -> None:
    """Raises UsageError where the cache of the system cannot be passed by: Python cannot on Windows."""
    if sys.platform == "win32":  # pragma: no cover - Windows
        hint = "take the medium out and put it in again, then verify the bundle"
        raise UsageError("verify-after-write: not available on Windows", hint=hint)


def refuse_other_bytes(path: Path, written: WrittenFile, *, advance: Callable[[int], object] = lambda _: None) -> None:
    """
    Raises IntegrityError unless the medium of a file that was synced gives back what was written. Raises OSError.

    `advance` is called with the number of bytes of each read.
    """
    with naming(path), opened_past_cache(path) as fd:
        hasher, size = hashlib.sha256(), 0
        for piece in _pieces(fd):
            hasher.update(piece)
            size += len(piece)
            advance(len(piece))
    if (size, Digest(hasher.hexdigest())) != written:
        told = f"expected {written.digest} of {written.size} bytes, got sha256:{hasher.hexdigest()} of {size}"
        raise bad_medium(path, told)


def bad_medium(path: Path, told: str) -> IntegrityError:
    """Return the error for a file that the medium does not give back."""
    return IntegrityError(f"{path}: its medium does not give back what was written: {told}", hint=_HINT)


class BytesPastCache(FileBytes):
    """The bytes of a file that `opened_past_cache` has opened. Only one thread reads at a time."""

    def __init__(self, fd: int, path: Path) -> None:
        super().__init__(fd, path)
        self._file = FileIO(fd, closefd=False)
        self._path = path
        self._lock = threading.Lock()

    def read_at(self, size: int, offset: int) -> bytes:
        """
        Return `size` bytes from byte `offset`, or fewer at the end that the file had at opening.

        Raises OSError, which names the file.
        """
        start, end = offset - offset % _BLOCK, min(offset + size, self.size)
        if offset >= end:
            return b""
        room = -(-(end - start) // _BLOCK) * _BLOCK
        with self._lock, naming(self._path), mmap.mmap(-1, room) as buffer, memoryview(buffer) as view:
            self._file.seek(start)
            got = self._file.readinto(view)
            return bytes(view[offset - start : min(got, end - start)])


@contextlib.contextmanager
def opened_past_cache(path: Path) -> Iterator[int]:
    """Open a file so that its bytes come from its medium, as far as the system allows that. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        # Where O_DIRECT is not to be had, this is what makes the next read come from the medium.
        forget_cached(fd)
        if sys.platform == "darwin":
            import fcntl  # noqa: PLC0415 - POSIX only

            fcntl.fcntl(fd, _F_NOCACHE, 1)
        # A tmpfs refuses O_DIRECT, and has no medium.
        with contextlib.suppress(OSError):
            direct = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0) | getattr(os, "O_CLOEXEC", 0))
            os.close(fd)
            fd = direct
        yield fd
    finally:
        os.close(fd)


def _pieces(fd: int) -> Iterator[memoryview]:
    """Yield the bytes of a file. Each piece is valid only until the next. O_DIRECT needs memory on a page boundary."""
    left = os.fstat(fd).st_size
    with mmap.mmap(-1, _PIECE) as buffer, memoryview(buffer) as view, FileIO(fd, closefd=False) as file:
        # The end is known, because O_DIRECT cannot read on from any byte.
        while left and (size := file.readinto(view)):
            left -= size
            with view[:size] as piece:
                yield piece
