"""One kind of lock: exclusive, on an open file, dropped by the kernel when its process dies."""

from __future__ import annotations

import errno
import os
import sys
import time

from ostore.formats.errors import BusyError

_POLL_SECONDS = 0.05
_TAKEN = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


def try_lock(fd: int) -> bool:
    """
    Lock an open file or directory for this process; False if another holds it.

    flock(2) on POSIX, so two opens of one file exclude each other even within a process; `msvcrt.locking` on Windows.
    A file system that has no locks lets everybody through.
    """
    try:
        if sys.platform == "win32":  # pragma: no cover - Windows
            import msvcrt  # noqa: PLC0415 - Windows only

            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - POSIX only

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno == errno.EBADF:
            # NFS locks only what is open for writing, and a directory never is (flock(2)). A closed one raises again.
            os.fstat(fd)
        elif error.errno not in _NO_LOCKS:
            raise
    return True


def wait_lock(fd: int, what: str, seconds: float = 60.0) -> None:
    """Lock an open file, waiting so many seconds. Raises BusyError."""
    deadline = time.monotonic() + seconds
    while not try_lock(fd):
        if time.monotonic() > deadline:
            raise BusyError(f"{what}: another ostore has held the lock for {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
