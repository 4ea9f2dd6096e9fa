"""
The only module that creates, renames, links, fsyncs and removes files and folders. `writing` changes the content of
files, `extents` makes files share bytes, and `space` and the writer of bundles set the size of a file of their own.

A `Directory` is an open directory. Every name given to it is a single path component, so nobody can redirect an
operation by swapping a folder on the path. This holds on POSIX; Windows has no such handles, so full paths are used,
and what another program has open is tried again a few times (`windows.sharing`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from ostore.formats.errors import DamagedStoreError, InUseError, UnsafeError
from ostore.formats.name import windows_problem
from ostore.streams.links import is_link, mode_of
from ostore.streams.owners import NOT_SUPPORTED, Ownership, current_user, unless_unsupported

if sys.platform == "win32":  # pragma: no cover - Windows
    from ostore.streams import windows

# Windows lacks these. There, `windows.open_file` sees to what they are for.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
HAS_DIRECTORY_HANDLES = os.open in os.supports_dir_fd

# The answers of a file system that has no room, or none for this user.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# fcntl F_FULLFSYNC. On macOS, fsync alone leaves data in the drive's cache (fsync(2) of Darwin).
_F_FULLFSYNC = 51
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
# The mode of a new directory until it gets its owner and its final mode. On Windows, Python lets nobody but us and
# administrators into a folder with this mode, and the server may be another user.
_UNFINISHED = 0o777 if os.name == "nt" else 0o700


class DurabilityWarning(UserWarning):
    """The file system has no fsync, so a power cut may lose what was written."""


class Directory:
    """An open directory. The caller closes it, or uses it as a context manager."""

    def __init__(self, path: Path, fd: int | None) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def open(cls, path: Path) -> Directory:
        """Open a directory by path. Follows links. Raises OSError."""
        if HAS_DIRECTORY_HANDLES:
            return cls(path, os.open(path, os.O_RDONLY | _DIRECTORY | _CLOEXEC))
        if not stat.S_ISDIR(path.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        return cls(path, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def ownership(self) -> Ownership:
        return Ownership.of(self.status())

    def give(self, ownership: Ownership) -> None:
        """Give this directory its owner and mode. Does nothing on Windows, which has neither. Raises OSError."""
        if self._fd is not None:
            ownership.give_directory(self._fd)

    def status(self) -> os.stat_result:
        return self.path.stat() if self._fd is None else os.fstat(self._fd)

    def names(self) -> list[str]:
        """Return the names of all entries, sorted. Raises OSError."""
        return sorted(os.listdir(self.path if self._fd is None else self._fd))  # noqa: PTH208 - by handle

    def lstat(self, name: str) -> os.stat_result | None:
        """Return the status of an entry, or None if it does not exist. Does not follow links. Raises OSError."""
        if os.name == "nt" and ":" in name:  # pragma: no cover - Windows
            return None  # no entry has such a name there; blobs of old Ollamas do elsewhere
        try:
            return os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def target_of(self, name: str) -> os.stat_result | None:
        """Return the status of the regular file that a link leads to, or None if it leads to none. Raises OSError."""
        try:
            status = os.stat(self._at(name), dir_fd=self._fd)
        except PermissionError:
            raise
        except OSError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def child(self, name: str) -> Directory:
        """Open a directory in this one. Does not follow links. Raises OSError."""
        at, path = self._at(name), self.path / name
        if self._fd is None:
            if is_link(path):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), at)
            return Directory.open(path)
        with self._naming(name):
            return Directory(path, os.open(at, os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC, dir_fd=self._fd))

    def make_child(self, name: str, ownership: Ownership) -> Directory:
        """
        Open a directory in this one. If it is absent, create it durably and with that ownership.

        A directory that a crash left empty and without its final owner and mode gets them now. Raises OSError.
        """
        is_new = True
        try:
            with self._naming(name):
                os.mkdir(self._at(name), _UNFINISHED, dir_fd=self._fd)
        except FileExistsError:
            is_new = False
        child = self.child(name)
        if is_new or _is_unfinished(child, ownership):
            child.give(ownership)
            is_new = True
        if is_new:
            self.sync()
        return child

    def create(self, name: str, mode: int = 0o600) -> int:
        """Create a file and open it for writing. Raises FileExistsError if any entry has the name. Raises OSError."""
        with self._naming(name):
            return self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)

    def open_or_create(self, name: str, mode: int, *, writable: bool) -> tuple[int, bool]:
        """
        Open a regular file, or create it empty. Returns its descriptor and whether it is new.

        Raises UnsafeError if the entry is a link, DamagedStoreError if it is not a regular file. Raises OSError.
        """
        access = os.O_RDWR if writable else os.O_RDONLY
        try:
            with self._naming(name):
                return self._open(name, access | _NONBLOCK | os.O_CREAT | os.O_EXCL, mode), True
        except FileExistsError:
            return self._regular(self._open_no_link(name, access | _NONBLOCK), name), False

    def open_file(self, name: str, *, follows: bool = False) -> int:
        """
        Open a regular file for reading. Follows a link only if asked to, and does not wait for a FIFO.

        Raises DamagedStoreError if the entry is not a regular file, FileNotFoundError if it is absent. Raises OSError.
        """
        try:
            fd = self._open(name, os.O_RDONLY | _NONBLOCK, follows=follows)
        except OSError as error:
            # Some BSDs report a link as EMLINK instead of ELOOP. ENXIO means a socket.
            if error.errno in {errno.ELOOP, errno.EMLINK, errno.ENXIO}:
                raise DamagedStoreError(
                    f"{self.path / name}: expected a regular file, got a link or a device"
                ) from None
            raise
        return self._regular(fd, name)

    def _open_no_link(self, name: str, flags: int) -> int:
        try:
            return self._open(name, flags)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EMLINK}:
                raise UnsafeError(f"{self.path / name}: a link; expected a file of ours") from None
            raise

    def _open(self, name: str, flags: int, mode: int = 0o777, *, follows: bool = False) -> int:
        at = self._at(name)
        if sys.platform == "win32":  # pragma: no cover - Windows
            return windows.open_file(at, flags, follow=follows)
        return os.open(at, flags | (0 if follows else _NOFOLLOW) | _CLOEXEC, mode, dir_fd=self._fd)

    def rename(self, name: str, target: Directory, target_name: str) -> None:
        """Rename an entry. Replaces a file that has the target name. Raises InUseError on Windows, OSError."""
        at, target_at = self._at(name), target._at(target_name)
        if sys.platform == "win32":  # pragma: no cover - Windows
            windows.sharing(lambda: windows.rename(at, target_at), at, victim=target_at)
        else:
            os.replace(at, target_at, src_dir_fd=self._fd, dst_dir_fd=target._fd)

    def may_rename(self, name: str) -> bool:
        """Return whether nobody keeps a file from being renamed. On Windows a program can. Raises OSError."""
        if sys.platform == "win32":  # pragma: no cover - Windows
            return windows.may_rename(self._at(name))
        return True

    def link(self, name: str, target: Directory, target_name: str) -> bool:
        """Give a file a second name. Returns False if the file system or its settings forbid it. Raises OSError."""
        at, target_at = self._at(name), target._at(target_name)
        try:
            if sys.platform == "win32":  # pragma: no cover - Windows
                windows.sharing(lambda: os.link(at, target_at), at)
            else:
                os.link(at, target_at, src_dir_fd=self._fd, dst_dir_fd=target._fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in NOT_SUPPORTED:
                return False
            raise
        return True

    def symlink(self, target: Path, name: str) -> None:
        """Create a symbolic link. Raises FileExistsError if any entry has the name. Raises OSError."""
        with self._naming(name):
            os.symlink(target, self._at(name), dir_fd=self._fd)

    def readlink(self, name: str) -> Path | None:
        """Return what a symbolic link says, or None if the entry is none. Raises OSError."""
        try:
            return Path(os.readlink(self._at(name), dir_fd=self._fd))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            # readlink(2) of what is no link.
            if error.errno == errno.EINVAL:
                return None
            raise

    def touch(self, name: str) -> None:
        """Set the times of an entry to now. Does nothing if only the owner may set them. Raises OSError."""
        with unless_unsupported():
            if HAS_DIRECTORY_HANDLES:
                os.utime(self._at(name), dir_fd=self._fd, follow_symlinks=False)
            else:
                os.utime(self._at(name))

    def unlink(self, name: str) -> None:
        """Remove a file or link, if it exists. Raises InUseError on Windows, OSError."""
        at = self._at(name)
        with contextlib.suppress(FileNotFoundError):
            if sys.platform == "win32":  # pragma: no cover - Windows
                windows.sharing(lambda: os.unlink(at), at, victim=at)  # noqa: PTH108 - as text
            else:
                os.unlink(at, dir_fd=self._fd)

    def rmdir(self, name: str) -> bool:
        """
        Remove an empty directory. Returns False if it is not empty or does not exist. Raises OSError.

        Returns False on Windows also if a program uses it, because an empty folder that stays does no harm.
        """
        at = self._at(name)
        try:
            if sys.platform == "win32":  # pragma: no cover - Windows
                windows.remove_folder(at)
            else:
                os.rmdir(at, dir_fd=self._fd)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT} or isinstance(error, InUseError):
                return False
            raise
        return True

    def sync(self) -> None:
        """
        Flush this directory, so that renames, links and new entries survive a power cut. Raises OSError.

        Windows is asked to, and need not do it. There, `rename` has put the new name on the disk.
        """
        if sys.platform == "win32":  # pragma: no cover - Windows
            windows.flush_folder(os.fspath(self.path))
        elif self._fd is not None:
            with naming(self.path):
                sync_file(self._fd)

    def sync_entry(self, name: str, *, follows: bool = False) -> None:
        """
        Flush a file that another program wrote. With `follows`, it may be a link to the file.

        Raises DamagedStoreError if it is no regular file, OSError.
        """
        # Windows flushes only what is open for writing.
        is_windows = os.name == "nt"
        fd = self._regular(self._open(name, os.O_RDWR), name) if is_windows else self.open_file(name, follows=follows)
        try:
            with naming(self.path / name):
                sync_file(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Put the full path into an OSError. The kernel knows only the last component, which does not help a person."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.path / name)
            raise

    def _at(self, name: str) -> str:
        if os.sep in name or (os.altsep or os.sep) in name or name in {"", ".", ".."}:
            raise ValueError(f"not a single path component: {name!r}")
        if os.name == "nt" and (problem := windows_problem(name)):  # pragma: no cover - Windows
            raise UnsafeError(f"{self.path}: {problem}")
        return name if self._fd is not None else os.fspath(self.path / name)

    def _regular(self, fd: int, name: str) -> int:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise DamagedStoreError(f"{self.path / name}: expected a regular file")
        return fd


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in an OSError that names none. "Input/output error" alone does not say which disk has failed."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def sync_file(fd: int) -> None:
    """
    Flush an open file or directory to the disk. Warns with DurabilityWarning if the file system has no fsync.

    Raises OSError. Never retry a failed fsync on the same file: the kernel may have dropped the pages (Rebello et al.,
    USENIX ATC 2020).
    """
    try:
        if sys.platform == "darwin":
            import fcntl  # noqa: PLC0415 - POSIX only

            try:
                fcntl.fcntl(fd, _F_FULLFSYNC)
            except OSError:
                # Network disks and foreign file systems support only the ordinary fsync.
                os.fsync(fd)
        else:
            os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        warnings.warn("durability is not available on this file system", DurabilityWarning, stacklevel=2)


def _is_unfinished(directory: Directory, ownership: Ownership) -> bool:
    status, user = directory.status(), current_user()
    if user is None or stat.S_IMODE(status.st_mode) & 0o777 != _UNFINISHED:
        return False
    return status.st_uid in {user.uid, ownership.uid} and not directory.names()


@contextlib.contextmanager
def scratch_folder() -> Iterator[Directory]:
    """Yield a new folder that only this user may enter, where the system keeps such, and remove it with its files."""
    path = Path(tempfile.mkdtemp(prefix="ostore-"))
    try:
        with Directory.open(path) as directory:
            yield directory
    finally:
        with Directory.open(path.parent) as parent:
            remove_tree(parent, path.name)


def remove_tree(parent: Directory, name: str, *, when: Callable[[str], bool] = lambda _: True) -> bool:
    """
    Remove the files below a directory whose names (last component) pass `when`, then each directory that is empty.

    Returns whether the directory itself was removed. Raises OSError.
    """
    with parent.child(name) as directory:
        for entry in directory.names():
            status = directory.lstat(entry)
            if status is not None and stat.S_ISDIR(mode_of(status)):
                remove_tree(directory, entry, when=when)
            elif when(entry):
                directory.unlink(entry)
    return parent.rmdir(name)
