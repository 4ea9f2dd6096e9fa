"""Make the folder that a person names for files, if the folder above it is there."""

from __future__ import annotations

from pathlib import Path

from ostore.formats.errors import UsageError
from ostore.streams.durable import Directory
from ostore.streams.owners import Ownership
from ostore.streams.writing import refuse_missing_folder

_MODE = 0o755


def make_folder(path: Path) -> bool:
    """
    Make a folder, owned as the one above it, if nothing is there. Returns whether it is new.

    Raises NotFoundError without a folder above it, UsageError if something else is there, OSError.
    """
    if path.is_dir():
        return False
    refuse_missing_folder(path.parent)
    with Directory.open(path.parent) as parent:
        if parent.lstat(path.name) is not None:
            raise UsageError(f"{path}: expected a folder")
        owner = parent.ownership
        parent.make_child(path.name, Ownership(owner.uid, owner.gid, _MODE)).close()
    return True
