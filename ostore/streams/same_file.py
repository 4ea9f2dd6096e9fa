"""Open a file that was found earlier, and check that its path still leads to the same file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ostore.streams.links import open_to_read


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file that is the same, and unchanged as far as that can be seen: disk, inode, size, mtime."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def opened_same(path: str, identity: tuple[int, int], size: int) -> Iterator[int]:
    """
    Open a regular file for reading and yield its descriptor. Follows links. `identity` is its device and inode.

    Raises OSError, with ESTALE if the path now leads to another file or the file has another size.
    """
    fd = open_to_read(path)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != identity:
            raise OSError(errno.ESTALE, "another file by now", path)
        if status.st_size != size:
            raise OSError(errno.ESTALE, "of another size by now", path)
        yield fd
    finally:
        os.close(fd)
