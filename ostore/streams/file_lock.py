"""An exclusive lock on an open file. The kernel drops it when the process ends."""

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
    Lock an open file. Returns False if the lock is taken. Raises OSError.

    It uses flock(2) on POSIX and LockFileEx on Windows, so two opens of one file exclude each other even within a
    process. On a file system without locks it always returns True.
    """
    if sys.platform == "win32":  # pragma: no cover - Windows
        from ostore.streams import windows  # noqa: PLC0415 - Windows only

        return windows.lock(fd)
    import fcntl  # noqa: PLC0415 - POSIX only

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno == errno.EBADF:
            # NFS locks only what is open for writing, and a directory never is (flock(2)). A closed fd raises here.
            os.fstat(fd)
        elif error.errno not in _NO_LOCKS:
            raise
    return True


def wait_lock(fd: int, what: str, seconds: float = 60.0) -> None:
    """Lock an open file. Raises BusyError after `seconds` seconds. `what` names the file in the message."""
    deadline = time.monotonic() + seconds
    while not try_lock(fd):
        if time.monotonic() > deadline:
            raise BusyError(f"{what}: another ostore has held the lock for {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
