"""
The folders that a set of volumes is written into. In each, a folder NAME.parts holds the files until all are whole.

It is on the same disk, so a file gets there under its own name, as par2 needs it, and a rename publishes it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from ostore.formats.errors import BusyError, UnsafeError, UsageError
from ostore.formats.volume_set import MAX_SUMS_BYTES, set_of, sums_name
from ostore.places.bundle.journal import state_files
from ostore.streams.chunks import read_full
from ostore.streams.durable import Directory
from ostore.streams.file_lock import try_lock
from ostore.streams.links import mode_of
from ostore.streams.owners import Ownership, is_ours

_LOCK = "lock"
# What every file gets that a person exports, less their umask.
_MODE = 0o666


class VolumeFolder:
    """
    One folder of a set, and the folder in it where files wait. `opened` makes one.

    If `keeps` is set, what waits stays there for the next export.
    """

    def __init__(self, target: Directory, waiting: Directory, name: str) -> None:
        self.target = target
        self.waiting = waiting
        self.keeps = False
        self._name = name

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path, name: str) -> Iterator[VolumeFolder]:
        """
        Hold a folder for the set `name` of one export. What is waiting there after the block is removed, unless it is
        to be kept. What an interrupted export has left is there.

        Raises BusyError if another export holds it, UnsafeError if another user could, UsageError if it is no folder,
        OSError.
        """
        parts = parts_name(name)
        with Directory.open(folder) as target:
            status = target.lstat(parts)
            if status is not None and not stat.S_ISDIR(mode_of(status)):
                raise UsageError(
                    f"{target.path / parts}: not a folder, and volumes wait in one of that name until all are whole",
                    hint="move it away, or choose another name",
                )
            if status is not None and not is_ours(status):
                # On FAT, everything belongs to whoever has mounted it, also what we have made. Elsewhere, the owner
                # could exchange what waits here, and we cannot remove it.
                with target.child(parts) as waiting, cls(target, waiting, name).held():
                    pass
                if target.lstat(parts) is not None:
                    raise UnsafeError(f"{target.path / parts}: belongs to another user")
            with target.make_child(parts, Ownership.private()) as waiting:
                opened = cls(target, waiting, name)
                with opened.held():
                    yield opened

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Lock this for one export. What waits here is removed afterwards. Raises BusyError, OSError."""
        lock = _lock(self.waiting)
        try:
            yield
        finally:
            # An error while cleaning up must not hide the first one.
            with contextlib.suppress(OSError):
                if not self.keeps:
                    self.clear()
                self.waiting.unlink(_LOCK)
            os.close(lock)
            with contextlib.suppress(OSError):
                self.target.rmdir(self.waiting.path.name)

    def begin(self, file: str) -> int:
        """Create a file of the set, empty, where it waits. Its name is on the disk. Raises OSError."""
        fd = self.waiting.create(file, _MODE)
        with contextlib.ExitStack() as unless_synced:
            unless_synced.callback(os.close, fd)
            self.waiting.sync()
            unless_synced.pop_all()
        return fd

    def reopen(self, file: str, size: int) -> int:
        """Open a file that waits, cut to `size` bytes, to append to it. Raises OSError."""
        fd, _ = self.waiting.open_or_create(file, _MODE, writable=True)
        with contextlib.ExitStack() as unless_cut:
            unless_cut.callback(os.close, fd)
            os.ftruncate(fd, size)
            os.lseek(fd, size, os.SEEK_SET)
            unless_cut.pop_all()
        return fd

    def waiting_files(self) -> list[str]:
        """Return the files of the set that wait here, sorted."""
        return [file for file in self.waiting.names() if set_of(file) == self._name]

    def published(self) -> list[str]:
        """Return the files that belong to a set of this name, sorted. Raises UsageError if one is no regular file."""
        return files_of_set(self.target, self._name)

    def list_of_digests(self) -> bytes:
        """Return what the list of the digests of the published volumes says, or nothing without one. Raises OSError."""
        name = sums_name(self._name)
        if self.target.lstat(name) is None:
            return b""
        fd = self.target.open_file(name)
        try:
            return read_full(fd, MAX_SUMS_BYTES + 1)
        finally:
            os.close(fd)

    def size_of(self, files: Collection[str]) -> int:
        """Return the bytes of files in the folder. Raises OSError."""
        return sum(status.st_size for status in map(self.target.lstat, files) if status is not None)

    def remove(self, files: Collection[str]) -> None:
        """Remove files of a set from the folder, first what says that it is whole. Raises OSError."""
        self.target.unlink(sums_name(self._name))
        for file in files:
            self.target.unlink(file)
        self.target.sync()

    def publish(self, old: Collection[str] = ()) -> None:
        """
        Give every waiting file its name. The `old` files go, whose place they take.

        The digests of the volumes come last: until then, nothing says that the set is whole. Raises OSError.
        """
        waiting, sums = self.waiting_files(), sums_name(self._name)
        self.remove([file for file in old if file not in waiting])
        for file in sorted(waiting, key=lambda file: file == sums):
            self.waiting.rename(file, self.target, file)
        self.target.sync()

    def clear(self, kept: Collection[str] = ()) -> None:
        """
        Remove what waits here and the state of an export, but for `kept`. A file that is not of the set stays.

        Raises OSError.
        """
        states = state_files(self._name)
        for file in self.waiting.names():
            if file not in kept and (file in states or set_of(file) == self._name):
                self.waiting.unlink(file)


def parts_name(name: str) -> str:
    """Return the name of the folder in which the files of a set wait."""
    return f"{name}.parts"


def waiting_size(folder: Path, name: str) -> int:
    """Return the bytes of what an interrupted export of the set has left in a folder."""
    try:
        return sum(path.lstat().st_size for path in (folder / parts_name(name)).iterdir())
    except OSError:
        return 0


def files_of_set(directory: Directory, name: str) -> list[str]:
    """Return the files in a folder that belong to a set, sorted. Raises UsageError if one is no regular file."""
    found = [file for file in directory.names() if set_of(file) == name]
    for file in found:
        status = directory.lstat(file)
        if status is not None and not stat.S_ISREG(mode_of(status)):
            raise UsageError(
                f"{directory.path / file}: not a regular file, so it is never replaced", hint="choose another name"
            )
    return found


def _lock(waiting: Directory) -> int:
    fd, _ = waiting.open_or_create(_LOCK, 0o600, writable=True)
    with contextlib.ExitStack() as unless_held:
        unless_held.callback(os.close, fd)
        entry = waiting.lstat(_LOCK) if try_lock(fd) else None
        # The lock of a file that has lost its name keeps nobody out.
        if entry is None or not os.path.samestat(entry, os.fstat(fd)):
            raise BusyError(f"{waiting.path}: another export is writing there")
        unless_held.pop_all()
    return fd
