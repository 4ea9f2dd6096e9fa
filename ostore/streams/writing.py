"""Write all bytes to a file, even if one system call takes only some, and flush them to the disk."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ostore.formats.errors import BusyError, NotFoundError, UsageError
from ostore.streams.chunks import Chunk
from ostore.streams.durable import Directory, naming, sync_file
from ostore.streams.file_lock import try_lock
from ostore.streams.owners import FILE_MODE, Ownership, is_ours, unless_unsupported

if sys.platform == "win32":  # pragma: no cover - Windows
    from ostore.streams import windows

# Large enough for a disk to write at full speed, small enough to keep the last sync short.
_EARLY_BYTES = 32 * 1024 * 1024
_IOV_MAX = 512
# The umask applies, as to any file that a person makes.
_PERSONS_MODE = 0o666
_PRIVATE_MODE = 0o700


def write_all(fd: int, buffers: Sequence[Chunk]) -> int:
    """Write all bytes, even if one system call takes only some. Returns their number. Raises OSError."""
    views = [memoryview(buffer) for buffer in buffers if len(buffer)]
    total = sum(len(view) for view in views)
    for start in range(0, len(views), _IOV_MAX):
        _write_views(fd, views[start : start + _IOV_MAX])
    return total


def make_private_folder(path: Path) -> None:
    """Create a folder that nobody else may look into, and what is above it. One that is there stays. Raises OSError."""
    os.makedirs(path, mode=_PRIVATE_MODE, exist_ok=True)  # noqa: PTH103 - Path gives the folders above another mode


def refuse_missing_folder(folder: Path) -> None:
    """
    Raises NotFoundError unless a folder is there in which a person wants something written. It is never created.

    Its path may have a typo, or a disk may not be mounted.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: no such folder", hint="is the disk mounted? If so, create the folder first")


def refuse_to_overwrite(path: Path, *, replace: bool) -> None:
    """
    Raises UsageError if something has the name of a file that a command is to write, NotFoundError without its folder.

    With `replace`, only a regular file may be there. A link, a FIFO or a device is never replaced: root would take
    /dev/full away from the whole machine. The rule of every command that writes a file for a person.
    """
    refuse_missing_folder(path.parent)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path}: expected the name of a file, got a folder")
    if not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else "a pipe or a device"
        raise UsageError(f"{path}: not a regular file but {what}, which is never replaced", hint="choose another name")
    if not replace:
        raise UsageError(f"{path}: exists", hint="replace=True overwrites it")


def write_whole(path: Path, data: bytes, *, replace: bool) -> None:
    """
    Write a small file for a person: to a temporary file beside `path`, flushed to the disk, which then gets its name.

    An error removes the temporary file, and what a killed command has left of one is taken over. Raises UsageError if
    the file exists and `replace` is false, NotFoundError without its folder, BusyError, OSError.
    """
    part = f".{path.name}.part"
    refuse_missing_folder(path.parent)
    with Directory.open(path.parent) as directory, naming(path), opened_part(directory, part, path) as fd:
        try:
            write_all(fd, [data])
            sync_file(fd)
            give_name(directory, part, path, replace=replace)
        except BaseException:
            # An error here must not hide the first one.
            with contextlib.suppress(OSError):
                directory.unlink(part)
            raise


@contextlib.contextmanager
def opened_part(directory: Directory, part: str, path: Path) -> Iterator[int]:
    """
    Yield the temporary file of `path`, open, locked and empty. It stays when the block ends.

    One of another user or with a second name is removed first. Raises BusyError if another command has it, UnsafeError
    for a link, DamagedStoreError for what is no file, OSError.
    """
    while True:
        fd, is_new = directory.open_or_create(part, _PERSONS_MODE, writable=True)
        try:
            if not try_lock(fd):
                raise BusyError(f"{path}: another command is writing it")
            entry, status = directory.lstat(part), os.fstat(fd)
            if entry is None or not os.path.samestat(entry, status):
                raise BusyError(f"{path}: another command has just written it")
            if is_new or (is_ours(status) and status.st_nlink == 1):
                os.ftruncate(fd, 0)
                yield fd
                return
            directory.unlink(part)
        finally:
            os.close(fd)


def give_name(directory: Directory, part: str, path: Path, *, replace: bool) -> None:
    """
    Give a finished file that is on the disk its name, durably. Raises what `refuse_to_overwrite` raises, OSError.

    Nothing has the name `part` then, unless another command has begun to write.
    """
    if not replace:
        # A link fails if another program has created the file meanwhile. A rename would overwrite it.
        try:
            if directory.link(part, directory, path.name):
                directory.unlink(part)
                directory.sync()
                return
        except FileExistsError:
            # The check below tells what is there now.
            pass
    refuse_to_overwrite(path, replace=replace)
    directory.rename(part, directory, path.name)
    directory.sync()


class GrowingFile:
    """
    An open file or pipe as an output. The caller closes it.

    Bytes of a file start their way to the disk while the file grows, so `sync` has little left to do.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._can_start = hasattr(os, "posix_fadvise") and self._is_file
        self._started = os.lseek(fd, 0, os.SEEK_CUR) if self._can_start else 0
        self._waiting_bytes = 0

    def write(self, buffers: Sequence[Chunk]) -> int:
        """Write all bytes. Returns their number. Raises OSError."""
        written = write_all(self._fd, buffers)
        self._waiting_bytes += written
        if self._waiting_bytes >= _EARLY_BYTES:
            self.start_writeback()
        return written

    def sync(self) -> None:
        """Flush a file to the disk, as `sync_file` does. Does nothing for a pipe. Raises OSError."""
        if self._is_file:
            sync_file(self._fd)

    def rewrite(self, data: Chunk, offset: int) -> None:
        """Replace bytes of a file that were written before. What is written next still goes to its end. OSError."""
        end = os.lseek(self._fd, 0, os.SEEK_CUR)
        os.lseek(self._fd, offset, os.SEEK_SET)
        write_all(self._fd, (data,))
        os.lseek(self._fd, end, os.SEEK_SET)

    def start_writeback(self) -> None:
        """Let the system start to write all bytes to the disk, without waiting."""
        if self._can_start and self._waiting_bytes:
            # Linux then starts to write the dirty pages (mm/fadvise.c). fdatasync would wait and commit the journal
            # each time, which took longer than everything else.
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
    Create a file with these bytes, that owner and mode 0644. It is on the disk when this returns.

    `modified_ns` is its mtime in nanoseconds since 1970; without it, the time is now. Raises FileExistsError, OSError
    and what the chunks raise.
    """
    finish_file(write_unfinished(directory, name, chunks), directory.path / name, ownership, modified_ns=modified_ns)


def write_unfinished(directory: Directory, name: str, chunks: Iterable[Chunk]) -> int:
    """Create a file with these bytes and return it open. `finish_file` makes it public and flushes it."""
    return _filled(directory.create(name), directory.path / name, chunks)


def append_unfinished(directory: Directory, name: str, chunks: Iterable[Chunk], size: int) -> int:
    """Keep the first `size` bytes of a file, append these chunks, and return it open, as `write_unfinished` does."""
    fd, _ = directory.open_or_create(name, FILE_MODE, writable=True)
    with contextlib.ExitStack() as unless_cut:
        unless_cut.callback(os.close, fd)
        os.ftruncate(fd, size)
        os.lseek(fd, size, os.SEEK_SET)
        unless_cut.pop_all()
    return _filled(fd, directory.path / name, chunks)


def finish_file(fd: int, path: Path, ownership: Ownership, *, modified_ns: int | None = None) -> None:
    """Set owner and mode 0644, flush the file to the disk and close it. `path` is for messages. Raises OSError."""
    try:
        with naming(path):
            ownership.give_file(fd)
            if modified_ns is not None:
                _date(fd, modified_ns)
            sync_file(fd)
    finally:
        os.close(fd)


def _filled(fd: int, path: Path, chunks: Iterable[Chunk]) -> int:
    try:
        file = GrowingFile(fd)
        for chunk in chunks:
            # Name the file only in its own errors: the chunks may come from another file.
            with naming(path):
                file.write((chunk,))
        file.start_writeback()
    except BaseException:
        os.close(fd)
        raise
    return fd


def _date(fd: int, modified_ns: int) -> None:
    with unless_unsupported():
        if sys.platform == "win32":  # pragma: no cover - Windows
            windows.set_modified(fd, modified_ns)
        else:
            os.utime(fd, ns=(modified_ns, modified_ns))


def _write_views(fd: int, views: list[memoryview]) -> None:
    while views:
        written = os.writev(fd, views) if hasattr(os, "writev") else os.write(fd, views[0])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
