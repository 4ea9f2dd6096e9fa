"""Read manifests and other small files of a store without waiting for what is no file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ostore.formats.manifest import MAX_MANIFEST_BYTES
from ostore.streams.chunks import read_full
from ostore.streams.durable import Directory
from ostore.streams.links import open_to_read


def read_small_file(path: Path | str, limit: int) -> tuple[bytes, os.stat_result]:
    """
    Return a regular file's bytes and its status, links followed.

    At most `limit` + 1 bytes are read, so that a longer file shows. Raises OSError, also for a FIFO or a device.
    """
    fd = open_to_read(path)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        wanted = min(status.st_size, limit) + 1
        data = os.read(fd, wanted)
        # One byte more than the size was asked for. Any other count means a changing file or a call that was cut short.
        return data if len(data) == status.st_size else data + read_full(fd, wanted - len(data)), status
    finally:
        os.close(fd)


def read_manifest_in(folder: Directory, name: str) -> bytes:
    """
    Return a manifest's bytes, at most one past the limit, no link followed.

    Raises DamagedStoreError unless it is a regular file, FileNotFoundError, OSError.
    """
    fd = folder.open_file(name)
    try:
        return read_full(fd, MAX_MANIFEST_BYTES + 1)
    finally:
        os.close(fd)
