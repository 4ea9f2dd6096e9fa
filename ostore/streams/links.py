"""
What is a link: a symbolic link, and on Windows also a junction, which Python calls a folder. Anybody may make one.

Also how a path becomes one that Windows takes at any length, and how a file is opened so that others can remove it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from operator import attrgetter
from pathlib import Path

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)

# No entry can have such a path. Windows says so of names with a colon.
_NO_PATH = frozenset({errno.ENAMETOOLONG, errno.EINVAL})

if sys.platform == "win32":  # pragma: no cover - Windows
    from ostore.formats.errors import UnsafeError
    from ostore.formats.name import windows_problem
    from ostore.streams import windows

    def mode_of(status: os.stat_result) -> int:
        """Return type and permissions of an entry, as lstat found it. A junction is a link."""
        is_junction = status.st_reparse_tag == stat.IO_REPARSE_TAG_MOUNT_POINT
        return stat.S_IFLNK | stat.S_IMODE(status.st_mode) if is_junction else status.st_mode

    def ctime_of(status: os.stat_result) -> float:
        """Return when an entry was created. Since 3.12, fstat gives the last change here, and lstat does not."""
        return float(getattr(status, "st_birthtime", status.st_ctime))

    def is_link(path: Path) -> bool:
        """Whether a path is a link, wherever it leads. False if it is absent. Raises OSError."""
        try:
            return stat.S_ISLNK(mode_of(path.lstat()))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def is_link_entry(entry: os.DirEntry[str]) -> bool:
        """Whether an entry of a listing is a link. Raises OSError."""
        return stat.S_ISLNK(mode_of(entry.stat(follow_symlinks=False)))

    def on_any_length(path: Path) -> Path:
        """Return the absolute path, which may have more than 260 characters. Raises UnsafeError for a device."""
        typed = Path(windows.plain(os.fspath(path)))
        for part in typed.parts[bool(typed.anchor) :]:
            if part != ".." and (problem := windows_problem(part)):
                raise UnsafeError(f"{typed}: {problem}")
        return windows.LongPath(os.path.abspath(typed))  # noqa: PTH100 - resolves no link

    def open_to_read(path: Path | str) -> int:
        """Open a file for reading, links followed. It does not wait for a FIFO. Raises OSError."""
        return windows.open_file(os.fspath(path), os.O_RDONLY, follow=True)

else:
    mode_of = attrgetter("st_mode")
    ctime_of = attrgetter("st_ctime")
    is_link = Path.is_symlink

    def is_link_entry(entry: os.DirEntry[str]) -> bool:
        """Whether an entry of a listing is a link. Raises OSError."""
        return entry.is_symlink()

    def on_any_length(path: Path) -> Path:
        """Return the path. Windows needs another one if it has more than 260 characters."""
        return path

    def open_to_read(path: Path | str) -> int:
        """Open a file for reading, links followed. It does not wait for a FIFO. Raises OSError."""
        # Without O_NONBLOCK, opening a FIFO without a writer would never return.
        return os.open(path, os.O_RDONLY | _NONBLOCK | _CLOEXEC)


def is_there(path: Path) -> bool:
    """
    Return whether something has this path, if only a link. Nothing has a path that no file can have.

    Raises OSError if the disk does not say, where `os.path.lexists` returns False.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        if error.errno in _NO_PATH:
            return False
        raise
    return True
