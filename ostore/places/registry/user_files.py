"""Read the small files in which other programs keep what a person may do: logins and keys."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ostore.formats.errors import FormatError, LimitError
from ostore.streams.chunks import read_full
from ostore.streams.links import open_to_read


def read_user_file(path: Path, limit: int) -> bytes | None:
    """
    Return the bytes of a file, or None if there is none.

    Raises FormatError if it is no regular file, LimitError if it has more than `limit` bytes, OSError if it cannot be
    read.
    """
    try:
        fd = open_to_read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FormatError(f"{path}: not a regular file")
        raw = read_full(fd, limit + 1)
    finally:
        os.close(fd)
    if len(raw) > limit:
        raise LimitError(f"{path}: expected at most {limit} bytes, got more")
    return raw
