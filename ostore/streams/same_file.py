"""Opening again what was found before: the path may lead to another file by now."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)


@contextmanager
def opened_same(path: str, identity: tuple[int, int], size: int) -> Iterator[int]:
    """
    The regular file of that device and inode open for reading, links followed.

    Raises OSError, also if by now there is another file, or one of another size.
    """
    fd = os.open(path, os.O_RDONLY | _NONBLOCK | _CLOEXEC | _BINARY)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != identity:
            raise OSError(errno.ESTALE, "another file by now", path)
        if status.st_size != size:
            raise OSError(errno.ESTALE, "of another size by now", path)
        yield fd
    finally:
        os.close(fd)
