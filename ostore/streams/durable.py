"""
The one module that creates, renames, links, fsyncs and removes. Whatever changes a disk goes through here; what is in
its files through `writing`, and which of them share it through `extents`.

A `Directory` is an open directory, and every name given to it is a single component, so a path that somebody swaps
underneath changes nothing (POSIX; Windows has no such handles and uses full paths).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ostore.formats.errors import DamagedStoreError, UnsafeError

# Windows has neither; there the checks that follow an open have to do.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)
HAS_DIRECTORY_HANDLES = os.open in os.supports_dir_fd

# What a file system answers that has no such operation; FAT and FUSE differ in their choice.
NOT_SUPPORTED = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK})
# What a file system answers that has no room, or none for this user.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# fcntl F_FULLFSYNC: on macOS fsync alone leaves data in the drive's cache (fsync(2) of Darwin).
_F_FULLFSYNC = 51
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_SHARING_RETRIES = 5
FILE_MODE = 0o644
# The mode of a directory between its creation and its being given away.
_UNFINISHED = 0o700


def current_user() -> tuple[int, int]:
    """The effective user and group; zeros on Windows, where nothing is owned that way."""
    return (os.geteuid(), os.getegid()) if hasattr(os, "geteuid") else (0, 0)


class DurabilityWarning(UserWarning):
    """The file system has no fsync: what is written may not survive a power cut."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns what is created, and with which mode: a store's new files look like its old ones."""

    uid: int
    gid: int
    directory_mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Ownership:
        return cls(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))

    def has(self, status: os.stat_result) -> bool:
        """Whether an entry belongs to the same user and group; everything does where nothing is owned that way."""
        return (status.st_uid, status.st_gid) == (self.uid, self.gid)

    def give_directory(self, fd: int) -> None:
        self._give(fd, self.directory_mode)

    def give_file(self, fd: int, mode: int = FILE_MODE) -> None:
        self._give(fd, mode)

    def _give(self, fd: int, mode: int) -> None:
        if not hasattr(os, "fchown"):  # pragma: no cover - Windows
            return
        status = os.fstat(fd)
        if (status.st_uid, status.st_gid) != (self.uid, self.gid):
            # Only root may give a file away; a member of the group may still give it to the group.
            with unless_unsupported():
                os.fchown(fd, self.uid if current_user()[0] == 0 else -1, self.gid)
        # Set explicitly: neither the umask nor 0600 of a staged file may show, the server runs as another user.
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
            with unless_unsupported():
                os.fchmod(fd, mode)


class Directory:
    """An open directory. Close it, or use it as a context manager."""

    def __init__(self, path: Path, fd: int | None) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def open(cls, path: Path) -> Directory:
        """Open a directory by path, links followed. Raises OSError."""
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
    def fd(self) -> int | None:
        """The handle, for locking; None on Windows."""
        return self._fd

    @property
    def ownership(self) -> Ownership:
        return Ownership.of(self.status())

    def status(self) -> os.stat_result:
        return self.path.stat() if self._fd is None else os.fstat(self._fd)

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted(os.listdir(self.path if self._fd is None else self._fd))  # noqa: PTH208 - by handle

    def lstat(self, name: str) -> os.stat_result | None:
        """The entry's own status, links not followed; None if there is no such entry."""
        try:
            return os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def child(self, name: str) -> Directory:
        """Open a directory below this one, links not followed. Raises OSError."""
        at, path = self._at(name), self.path / name
        if self._fd is None:
            if path.is_symlink():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), at)
            return Directory.open(path)
        with self._naming(name):
            return Directory(path, os.open(at, os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC, dir_fd=self._fd))

    def make_child(self, name: str, ownership: Ownership) -> Directory:
        """
        Open a directory below this one; create it first, durably and with that ownership, if it is absent.

        One that a crash left empty, before it was given away, counts as absent.
        """
        is_new = True
        try:
            with self._naming(name):
                os.mkdir(self._at(name), _UNFINISHED, dir_fd=self._fd)
        except FileExistsError:
            is_new = False
        child = self.child(name)
        if child.fd is not None and (is_new or _is_unfinished(child, ownership)):
            ownership.give_directory(child.fd)
            is_new = True
        if is_new:
            self.sync()
        return child

    def create(self, name: str, mode: int = 0o600) -> int:
        """A new file, open for writing. Raises FileExistsError rather than touch anything that is there."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC | _BINARY
        with self._naming(name):
            return os.open(self._at(name), flags, mode, dir_fd=self._fd)

    def open_or_create(self, name: str, mode: int, *, writable: bool) -> tuple[int, bool]:
        """Open a regular file, creating it empty if absent; also says whether it was created. Never through a link."""
        access = os.O_RDWR if writable else os.O_RDONLY
        flags = access | _NOFOLLOW | _NONBLOCK | _CLOEXEC | _BINARY
        try:
            with self._naming(name):
                return os.open(self._at(name), flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=self._fd), True
        except FileExistsError:
            return self._regular(self._open_no_link(name, flags), name), False

    def open_file(self, name: str) -> int:
        """
        A regular file, open for reading; a link is not followed and a FIFO not waited for.

        Raises FileNotFoundError, other OSError, or DamagedStoreError if the entry is anything else.
        """
        try:
            fd = os.open(self._at(name), os.O_RDONLY | _NOFOLLOW | _NONBLOCK | _CLOEXEC | _BINARY, dir_fd=self._fd)
        except OSError as error:
            # EMLINK: how some BSDs say ELOOP; ENXIO: a socket.
            if error.errno in {errno.ELOOP, errno.EMLINK, errno.ENXIO}:
                raise DamagedStoreError(
                    f"{self.path / name}: expected a regular file, got a link or a device"
                ) from None
            raise
        return self._regular(fd, name)

    def _open_no_link(self, name: str, flags: int) -> int:
        try:
            return os.open(self._at(name), flags, dir_fd=self._fd)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EMLINK}:
                raise UnsafeError(f"{self.path / name}: a link; expected a file of ours") from None
            raise

    def rename(self, name: str, target: Directory, target_name: str) -> None:
        """Rename over whatever file is there."""
        for attempt in range(_SHARING_RETRIES):  # pragma: no branch - the last one raises
            try:
                os.replace(
                    self._at(name),
                    target._at(target_name),
                    src_dir_fd=self._fd,
                    dst_dir_fd=target._fd,
                )
            except PermissionError:
                # Windows refuses while another process has the file open; that passes.
                if os.name != "nt" or attempt == _SHARING_RETRIES - 1:
                    raise
                time.sleep(0.05 * 2**attempt)  # pragma: no cover - Windows
            else:
                return

    def link(self, name: str, target: Directory, target_name: str) -> bool:
        """Give a file a second name; False if this file system (or a protection of it) does not allow that."""
        try:
            os.link(
                self._at(name),
                target._at(target_name),
                src_dir_fd=self._fd,
                dst_dir_fd=target._fd,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno in NOT_SUPPORTED:
                return False
            raise
        return True

    def touch(self, name: str) -> None:
        """Set the times of an entry to now; quietly not, where only the owner may."""
        with unless_unsupported():
            if HAS_DIRECTORY_HANDLES:
                os.utime(self._at(name), dir_fd=self._fd, follow_symlinks=False)
            else:
                os.utime(self._at(name))

    def unlink(self, name: str) -> None:
        """Remove a file or link; absent is fine."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._at(name), dir_fd=self._fd)

    def rmdir(self, name: str) -> bool:
        """Remove an empty directory; False if it is not empty or is gone."""
        try:
            os.rmdir(self._at(name), dir_fd=self._fd)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                return False
            raise
        return True

    def sync(self) -> None:
        """Make renames, links and new entries of this directory survive a power cut."""
        if self._fd is not None:
            with naming(self.path):
                sync_file(self._fd)

    def sync_entry(self, name: str) -> None:
        """Put a file on the disk that another program wrote; not on Windows, where only its writer can."""
        if self._fd is not None:
            fd = self.open_file(name)
            try:
                with naming(self.path / name):
                    sync_file(fd)
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Give an OSError the whole path: the kernel was told the last part only, which says nothing to a person."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.path / name)
            raise

    def _at(self, name: str) -> str:
        if os.sep in name or name in {"", ".", ".."}:
            raise ValueError(f"not a single path component: {name!r}")
        return name if self._fd is not None else str(self.path / name)

    def _regular(self, fd: int, name: str) -> int:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise DamagedStoreError(f"{self.path / name}: expected a regular file")
        return fd


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError that names no file this one: "Input/output error" alone does not say which disk it was."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def sync_file(fd: int) -> None:
    """
    Put an open file or directory on the disk.

    Raises OSError. A failed fsync is never tried again on the same file: the kernel may have dropped the pages
    (Rebello et al., USENIX ATC 2020).
    """
    try:
        if sys.platform == "darwin":
            import fcntl  # noqa: PLC0415 - POSIX only

            try:
                fcntl.fcntl(fd, _F_FULLFSYNC)
            except OSError:
                # Network and foreign disks know only the ordinary one.
                os.fsync(fd)
        else:
            os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        warnings.warn("durability is not available on this file system", DurabilityWarning, stacklevel=2)


def _is_unfinished(directory: Directory, ownership: Ownership) -> bool:
    status = directory.status()
    is_private = stat.S_IMODE(status.st_mode) & 0o777 == _UNFINISHED
    return is_private and status.st_uid in {current_user()[0], ownership.uid} and not directory.names()


@contextlib.contextmanager
def unless_unsupported() -> Iterator[None]:
    """Let an operation be refused by a file system without owners or modes, or because we own neither."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_SUPPORTED | {errno.EACCES}:
            raise


def remove_tree(parent: Directory, name: str, *, when: Callable[[str], bool] = lambda _: True) -> bool:
    """Remove the files of a flat directory that `when` names, then the directory if nothing is left."""
    with parent.child(name) as directory:
        for entry in directory.names():
            status = directory.lstat(entry)
            if status is not None and stat.S_ISDIR(status.st_mode):
                remove_tree(directory, entry, when=when)
            elif when(entry):
                directory.unlink(entry)
    return parent.rmdir(name)
