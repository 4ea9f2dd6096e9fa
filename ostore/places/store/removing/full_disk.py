"""
Removing without a record, on a disk that is so full that not even the record of a removing can be written.

That is when people need gc most, and the protocol of `sweep` needs room for a folder and a file. So one thing that may
go is removed directly, and then the protocol has its room. What the record is for is a server that refers to a blob
while it is being removed; but where we cannot write these few bytes, a server cannot write the manifest that it would
refer with. Root may have a reserve that we have not, and other users another quota: therefore the plan is made anew
immediately before, from the manifests as they are then, and only what has rested for the whole grace is in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ostore.formats.errors import DamagedStoreError
from ostore.formats.store_layout import BLOBS
from ostore.places.store.removing.sweep import clear_leftovers, unchanged
from ostore.places.store.survey.census import FoundEntry
from ostore.places.store.workspace import Workspace
from ostore.streams.durable import FULL, Directory


class FullDisk:
    """A store where there is no room, open, and locked if that can be. `workspace` is None if there is none."""

    def __init__(self, root: Directory, workspace: Workspace | None, blobs: Directory | None) -> None:
        self._root = root
        self._workspace = workspace
        self._blobs = blobs

    @classmethod
    @contextlib.contextmanager
    def opened(cls, root: Path) -> Iterator[FullDisk]:
        """Raises BusyError, UnsafeError, OSError."""
        with contextlib.ExitStack() as opened:
            directory = opened.enter_context(Directory.open(root))
            workspace = None
            with _if_there_is_room():
                workspace = opened.enter_context(contextlib.closing(Workspace.open(directory)))
                # While there is no lock, and none can be made, nobody publishes anything.
                opened.enter_context(workspace.locked())
                workspace.refuse_without_locks()
            blobs = None
            with contextlib.suppress(FileNotFoundError):
                blobs = opened.enter_context(Directory.open(root / BLOBS))
            yield cls(directory, workspace, blobs)

    def clear_leftovers(self) -> None:
        """Remove what dead commands had staged."""
        if self._workspace:
            with _if_there_is_room():
                clear_leftovers(self._root, self._workspace)

    def remove(self, files: Sequence[FoundEntry], *, latest: float) -> bool:
        """
        Remove files of `blobs/` for good, if all are as they were when the plan was made, and not newer than `latest`.

        Raises OSError.
        """
        if self._blobs is None:
            return False
        with contextlib.ExitStack() as opened:
            for file in files:
                if not _is_unchanged(self._blobs, file, latest, opened):
                    return False
            for file in files:
                self._blobs.unlink(file.path)
            self._blobs.sync()
        return True


@contextlib.contextmanager
def _if_there_is_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise


def _is_unchanged(blobs: Directory, file: FoundEntry, latest: float, opened: contextlib.ExitStack) -> bool:
    try:
        fd = blobs.open_file(file.path)
    except (FileNotFoundError, PermissionError, DamagedStoreError):
        return False
    opened.callback(os.close, fd)
    return unchanged(file.facts.identity, latest)(os.fstat(fd)) is None
