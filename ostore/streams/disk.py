"""What kind of disk a folder is on and how full it is. The kernel answers this, so nothing is written to find out."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

if sys.platform == "win32":  # pragma: no cover - Windows
    from ostore.streams import windows

# proc(5): the mounts that this process sees, oldest first.
_MOUNTS = Path("/proc/self/mounts")
# getmntent(3): white space and backslashes in a path are octal numbers.
_OCTAL = re.compile(r"\\([0-7]{3})")
# What Linux calls the file systems that lack something on Windows too. NTFS lacks nothing there.
_OF_WINDOWS = {"FAT": "vfat", "FAT32": "vfat", "exFAT": "exfat"}


@dataclass(frozen=True, slots=True)
class DiskState:
    """
    The file system that a folder is on.

    `filesystem` is the kernel's name for it (`ext4`, `exfat`, on Windows `NTFS`), or empty if unknown. `free` is the
    number of bytes that an ordinary user can still write, `size` the number of all bytes. `inodes_free` and `inodes`
    are the same for files; both are 0 on a file system without such a limit.
    """

    filesystem: str
    is_read_only: bool
    free: int
    size: int
    inodes_free: int
    inodes: int


def read_disk(folder: Path, mounts: Path = _MOUNTS) -> DiskState:
    """Return the state of the disk that a folder is on. Raises OSError."""
    usage = shutil.disk_usage(folder)
    if sys.platform == "win32":  # pragma: no cover - Windows
        name, is_read_only = windows.volume_of(os.fspath(folder))
        kind = _OF_WINDOWS.get(name, name)
        return DiskState(kind, is_read_only, free=usage.free, size=usage.total, inodes_free=0, inodes=0)
    state = os.statvfs(folder)
    return DiskState(
        filesystem=_filesystem(folder, mounts),
        is_read_only=bool(state.f_flag & os.ST_RDONLY),
        free=usage.free,
        size=usage.total,
        inodes_free=state.f_favail,
        inodes=state.f_files,
    )


def _filesystem(folder: Path, mounts: Path) -> str:
    """Return the type of the newest mount at the deepest mount point above the folder, or an empty text."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    real = folder.resolve()
    above = {str(path): len(path.parts) for path in (real, *real.parents)}
    best, found = 0, ""
    for line in lines:
        _, place, kind, *_ = [*line.split(" "), "", "", ""]
        depth = above.get(_OCTAL.sub(lambda match: chr(int(match[1], 8)), place), 0)
        if depth and depth >= best:
            best, found = depth, kind
    return found
