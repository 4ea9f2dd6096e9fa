"""Check what a disk can hold before a command writes to it."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from ostore.formats.errors import InvalidNameError, NoSpaceError
from ostore.formats.name import ModelName
from ostore.formats.remedy import ostore
from ostore.streams.durable import Directory

if sys.platform == "win32":  # pragma: no cover - Windows
    from ostore.streams import windows

_BLOCK = 4096
# Room for directory entries, manifests and metadata of the file system.
_OVERHEAD = 1.01
# FAT32 stores the length of a file in 32 bits.
_FAT32_LIMIT = 2**32 - 1
_TRIAL = "trial.part"
_TOO_LARGE = frozenset({errno.EFBIG, errno.EINVAL, errno.ENOSPC, errno.EDQUOT})
# A disk that fails says nothing about names.
_FAILING = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def refuse_lack_of_space(directory: Directory, sizes: Iterable[int], place: Path | None = None) -> None:
    """
    Raises NoSpaceError unless new files of these sizes (bytes) fit on the disk. May create a file for a moment.

    The message names `place` if the folder is one that a person does not know.
    """
    sizes, place = list(sizes), place or directory.path
    refuse_full(place, int(sum(-(-size // _BLOCK) * _BLOCK for size in sizes) * _OVERHEAD))
    if max(sizes, default=0) > _FAT32_LIMIT:
        _refuse_too_large(directory, max(sizes), place)


def refuse_full(path: Path, needed: int) -> None:
    """Raises NoSpaceError unless the disk of a folder has `needed` bytes free."""
    disk = shutil.disk_usage(path)
    # Some disks (FUSE, a tmpfs without a limit) do not tell their size.
    if disk.total and needed > disk.free:
        raise NoSpaceError(
            f"{path}: expected {needed} bytes of free space, got {disk.free}",
            hint="make room on that disk, or choose another one",
        )


def room_at(path: Path) -> int | None:
    """Return the bytes that are free where a path is, or is to be made. None if the disk does not tell."""
    place = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    try:
        disk = shutil.disk_usage(place)
    except OSError:
        return None
    return disk.free if disk.total else None


def refuse_unholdable(directory: Directory, names: Iterable[ModelName]) -> None:
    """Raises InvalidNameError if a name is impossible on Windows, exFAT or FAT and the disk is one of these."""
    if (error := _unholdable(names)) and not _holds_colons(directory):
        raise error


def refuse_on_windows(names: Iterable[ModelName]) -> None:
    """Raises InvalidNameError if this is Windows and a name is impossible there. No disk is asked."""
    if os.name == "nt" and (error := _unholdable(names)):
        raise error


def refuse_too_large(fd: int, path: Path, size: int) -> None:
    """
    Raises NoSpaceError if the disk of an open, empty file cannot hold a file of `size` bytes, as FAT above 4 GiB.

    For a moment, the file is sparse and that large. `path` is for the message.
    """
    if size <= _FAT32_LIMIT:
        return
    try:
        if sys.platform == "win32":  # pragma: no cover - Windows
            windows.set_size(fd, size)
        else:
            os.ftruncate(fd, size)
    except OSError as error:
        if error.errno not in _TOO_LARGE:
            raise
        raise NoSpaceError(
            f"{path}: this disk cannot hold a file of {size} bytes",
            hint="FAT has no files of 4 GiB and more: use another disk, or exFAT; a bundle can be cut (--split fat32)",
        ) from None
    os.ftruncate(fd, 0)


def _refuse_too_large(directory: Directory, size: int, place: Path) -> None:
    fd = directory.create(_TRIAL)
    try:
        refuse_too_large(fd, place, size)
    finally:
        os.close(fd)
        directory.unlink(_TRIAL)


def _unholdable(names: Iterable[ModelName]) -> InvalidNameError | None:
    for name in names:
        if problem := name.windows_problem():
            hint = ostore("export", name, "FILE.tar", before="leave that model out, or carry it in a bundle")
            return InvalidNameError(f"{name}: {problem}", hint=hint)
    return None


def _holds_colons(directory: Directory) -> bool:
    if os.name == "nt":
        return False
    try:
        os.close(directory.create(f"a:b.{_TRIAL}"))
    except OSError as error:
        if error.errno in _FAILING:
            raise
        return False
    directory.unlink(f"a:b.{_TRIAL}")
    return True
