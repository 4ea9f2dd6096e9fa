"""Who owns new entries, and with which mode. Windows has neither: there, everything is ours and nobody is root."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

# The answers of a file system that does not support an operation. FAT and FUSE answer differently.
NOT_SUPPORTED = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK})
FILE_MODE = 0o644
_PRIVATE = 0o700


class User(NamedTuple):
    """A user and its group, by number."""

    uid: int
    gid: int


def current_user() -> User | None:
    """Return the effective user and group, or None on Windows, where files have no such owners."""
    return User(os.geteuid(), os.getegid()) if hasattr(os, "geteuid") else None


def is_root() -> bool:
    """Whether we may give files to other users. Nobody may on Windows."""
    user = current_user()
    return user is not None and user.uid == 0


def is_ours(status: os.stat_result) -> bool:
    """Whether an entry belongs to the effective user. Always true on Windows."""
    user = current_user()
    return user is None or status.st_uid == user.uid


@dataclass(frozen=True, slots=True)
class Ownership:
    """The owner, group and mode of new entries. A store's new files look like its old ones."""

    uid: int
    gid: int
    directory_mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Ownership:
        return cls(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))

    @classmethod
    def private(cls) -> Ownership:
        """Return the ownership of what only the effective user may look into."""
        return cls(*(current_user() or User(0, 0)), _PRIVATE)

    def has(self, status: os.stat_result) -> bool:
        """Whether an entry has the same user and group. Always true on Windows, where both are 0."""
        return (status.st_uid, status.st_gid) == (self.uid, self.gid)

    def give_directory(self, fd: int) -> None:
        self._give(fd, self.directory_mode)

    def give_file(self, fd: int, mode: int = FILE_MODE) -> None:
        self._give(fd, mode)

    def _give(self, fd: int, mode: int) -> None:
        if not hasattr(os, "fchown"):  # pragma: no cover - Windows
            return
        if not self.has(os.fstat(fd)):
            # Only root can change the owner. A member of the group can set the group.
            with unless_unsupported():
                os.fchown(fd, self.uid if is_root() else -1, self.gid)
        # Override the umask and the mode 0600 of a staged file: the server runs as another user and has to read it.
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
            with unless_unsupported():
                os.fchmod(fd, mode)


@contextlib.contextmanager
def unless_unsupported() -> Iterator[None]:
    """Ignore the OSError of a file system without owners or modes, or of an entry that we may not change."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_SUPPORTED | {errno.EACCES}:
            raise
