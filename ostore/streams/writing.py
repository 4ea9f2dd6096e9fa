"""Bytes into files: all of them, however few a call takes, and on the disk when they are said to be."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from ostore.streams.chunks import Chunk
from ostore.streams.durable import FILE_MODE, Directory, Ownership, naming, sync_file, unless_unsupported

# Enough for a disk to work at its speed, and little enough that the last sync is short.
_EARLY_BYTES = 32 * 1024 * 1024
_IOV_MAX = 512


def write_all(fd: int, buffers: Sequence[Chunk]) -> int:
    """Write every byte, however few a call takes; returns how many there were."""
    views = [memoryview(buffer) for buffer in buffers if len(buffer)]
    total = sum(len(view) for view in views)
    for start in range(0, len(views), _IOV_MAX):
        _write_views(fd, views[start : start + _IOV_MAX])
    return total


class GrowingFile:
    """
    An open file as an output: its bytes set out for the disk while it grows, so that `sync` has little left to do.

    A pipe is simply written to. Whoever opened it closes it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._can_start = hasattr(os, "posix_fadvise") and self._is_file
        self._started = os.lseek(fd, 0, os.SEEK_CUR) if self._can_start else 0
        self._waiting_bytes = 0

    def write(self, buffers: Sequence[Chunk]) -> int:
        """Write every byte; returns how many. Raises OSError."""
        written = write_all(self._fd, buffers)
        self._waiting_bytes += written
        if self._waiting_bytes >= _EARLY_BYTES:
            self.set_out()
        return written

    def sync(self) -> None:
        """Put a file on the disk, as `sync_file` does; there is nothing to do for a pipe. Raises OSError."""
        if self._is_file:
            sync_file(self._fd)

    def set_out(self) -> None:
        """Let all that was written set out, and wait for nothing."""
        if self._can_start and self._waiting_bytes:
            # Linux starts to write what is dirty there (mm/fadvise.c); fdatasync would wait, and commit the journal
            # each time, which took longer than all the rest.
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fd, self._started, self._waiting_bytes, os.POSIX_FADV_DONTNEED)
            self._started += self._waiting_bytes
            self._waiting_bytes = 0


def write_file(
    directory: Directory,
    name: str,
    chunks: Iterable[Chunk],
    ownership: Ownership,
    *,
    modified_ns: int | None = None,
) -> None:
    """
    A new file with these bytes, that owner and mode 0644, on the disk when this returns.

    `modified_ns` is its time in nanoseconds since 1970; now, unless it is given.
    """
    finish_file(write_unfinished(directory, name, chunks), directory.path / name, ownership, modified_ns=modified_ns)


def write_unfinished(directory: Directory, name: str, chunks: Iterable[Chunk]) -> int:
    """A new file with these bytes, open: it is private and not on the disk before `finish_file`."""
    return _filled(directory.create(name), directory.path / name, chunks)


def append_unfinished(directory: Directory, name: str, chunks: Iterable[Chunk], size: int) -> int:
    """The same of a file that is there: its first `size` bytes stay, and these come behind them."""
    fd, _ = directory.open_or_create(name, FILE_MODE, writable=True)
    with contextlib.ExitStack() as unless_cut:
        unless_cut.callback(os.close, fd)
        os.ftruncate(fd, size)
        os.lseek(fd, size, os.SEEK_SET)
        unless_cut.pop_all()
    return _filled(fd, directory.path / name, chunks)


def finish_file(fd: int, path: Path, ownership: Ownership, *, modified_ns: int | None = None) -> None:
    """Give the file its owner and mode 0644, put it on the disk and close it; `path` is for messages."""
    try:
        with naming(path):
            ownership.give_file(fd)
            if modified_ns is not None:
                _date(fd, path, modified_ns)
            sync_file(fd)
    finally:
        os.close(fd)


def _filled(fd: int, path: Path, chunks: Iterable[Chunk]) -> int:
    try:
        file = GrowingFile(fd)
        for chunk in chunks:
            # Only what the file does is named after it: the chunks may come from anywhere.
            with naming(path):
                file.write((chunk,))
        file.set_out()
    except BaseException:
        os.close(fd)
        raise
    return fd


def _date(fd: int, path: Path, modified_ns: int) -> None:
    with unless_unsupported():
        os.utime(fd if os.utime in os.supports_fd else path, ns=(modified_ns, modified_ns))


def _write_views(fd: int, views: list[memoryview]) -> None:
    while views:
        written = os.writev(fd, views) if hasattr(os, "writev") else os.write(fd, views[0])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
