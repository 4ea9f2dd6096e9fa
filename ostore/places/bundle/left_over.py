"""
Remove what an interrupted export of the other kind has left: a bundle in one file is no use to one in volumes.

The new bundle is there already, so what cannot be removed stays, and nobody is told.
"""

from __future__ import annotations

import contextlib
import os
import stat

from ostore.formats.errors import OstoreError
from ostore.places.bundle.journal import state_files
from ostore.places.bundle.volume_folders import VolumeFolder, parts_name
from ostore.streams.durable import Directory
from ostore.streams.file_lock import try_lock
from ostore.streams.owners import is_ours

PART = ".part"


def remove_unfinished_file(directory: Directory, name: str) -> None:
    """Remove the unfinished file of a bundle and its state, if they are ours and no export holds them."""
    part = name + PART
    files = (part, *state_files(part))
    with contextlib.suppress(OSError, OstoreError):
        if not any(file in directory.names() for file in files):
            return
        fd, _ = directory.open_or_create(part, 0o600, writable=True)
        try:
            entry, status = directory.lstat(part), os.fstat(fd)
            is_same = entry is not None and os.path.samestat(entry, status)
            if try_lock(fd) and is_same and is_ours(status) and status.st_nlink == 1:
                for file in reversed(files):
                    directory.unlink(file)
        finally:
            os.close(fd)


def remove_unfinished_volumes(directory: Directory, name: str) -> None:
    """Remove the unfinished volumes of a bundle and their state, if they are ours and no export holds them."""
    with contextlib.suppress(OSError, OstoreError):
        status = directory.lstat(parts_name(name))
        if status is not None and stat.S_ISDIR(status.st_mode) and is_ours(status):
            with directory.child(parts_name(name)) as waiting, VolumeFolder(directory, waiting, name).held():
                pass
