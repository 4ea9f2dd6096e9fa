"""What a disk is and how full it is, from what the kernel says of it: nothing is tried, so nothing is written."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

# proc(5): the mounts that this process sees, in the order in which they were made.
_MOUNTS = Path("/proc/self/mounts")
# getmntent(3): white space and backslashes in a path are written as octal numbers.
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class DiskState:
    """
    The file system that a folder is on.

    `filesystem` is what the kernel calls it (`ext4`, `exfat`), empty where nobody says. `free` and `size` are bytes for
    an ordinary user; `inodes_free` and `inodes` count files that could still be made and that could be at all, both 0
    for a file system without such a limit.
    """

    filesystem: str
    is_read_only: bool
    free: int
    size: int
    inodes_free: int
    inodes: int


def read_disk(folder: Path, mounts: Path = _MOUNTS) -> DiskState:
    """What the disk of a folder is. Raises OSError if the folder cannot be asked about."""
    usage = shutil.disk_usage(folder)
    if not hasattr(os, "statvfs"):
        return DiskState("", is_read_only=False, free=usage.free, size=usage.total, inodes_free=0, inodes=0)
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
    """The type of the last mount at the longest path that the folder is under."""
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
