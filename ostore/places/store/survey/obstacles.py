"""Find damage that a good copy alone cannot repair, because something else is in its place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from ostore.formats.digest import Digest, blob_filenames
from ostore.formats.errors import DamagedStoreError
from ostore.formats.store_layout import BLOBS
from ostore.streams.durable import Directory
from ostore.streams.links import mode_of

_IN_THE_WAY = "is in its place; move it away, then repair again"


def find_obstacles(root: Path, digests: Iterable[Digest]) -> dict[Digest, str]:
    """
    Return the blobs that cannot be replaced until a person acts, and what has to be done.

    Absent blobs, links, and files that we may read are not among them. Raises OSError if `blobs/` may not be read.
    """
    try:
        blobs = Directory.open(root / BLOBS)
    except FileNotFoundError:
        return {}
    with blobs:
        obstacles = ((digest, _obstacle(blobs, digest)) for digest in digests)
        return {digest: obstacle for digest, obstacle in obstacles if obstacle}


def _obstacle(blobs: Directory, digest: Digest) -> str | None:
    for filename in blob_filenames(digest):
        status = blobs.lstat(filename)
        if status is None:
            continue
        if stat.S_ISREG(status.st_mode):
            return _refusal(blobs, filename)
        if stat.S_ISLNK(mode_of(status)):
            return None
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        return f"blobs/{filename}: {what} {_IN_THE_WAY}"
    return None


def _refusal(blobs: Directory, filename: str) -> str | None:
    """Return what a person has to do about a file that we may not read. It may be whole, so it is not replaced."""
    try:
        os.close(blobs.open_file(filename))
    except PermissionError:
        return f"blobs/{filename}: may not be read, so nobody knows what it is; repair as the owner of the store"
    except (OSError, DamagedStoreError):
        # The medium fails, or the file is a link by now.
        return None
    return None
