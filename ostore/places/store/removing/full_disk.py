"""
Remove without a record, on a disk too full to write even the record of a removal.

People need gc most on such a disk, but the protocol of `sweep` needs room for a folder and a file. So one thing that
may go is removed directly, and that makes the room. The record protects a blob that a server refers to while it is
being removed. Where we cannot write these few bytes, a server cannot write the manifest that would refer to the blob.
But root may have a reserve, and other users may have another quota. Therefore the plan is made again immediately
before, from the manifests as they are then, and includes only what has been unused for the whole grace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ostore.formats.errors import DamagedStoreError, InUseError
from ostore.formats.store_layout import BLOBS
from ostore.places.store.removing.sweep import clear_leftovers, reason_to_keep
from ostore.places.store.survey.census import EntryKind, FoundEntry
from ostore.places.store.workspace import Workspace
from ostore.streams.durable import FULL, Directory


class FullDisk:
    """A store on a full disk, open, and locked if there is room to lock it. `workspace` is None if it has none."""

    def __init__(self, root: Directory, workspace: Workspace | None, blobs: Directory | None) -> None:
        self._root = root
        self._workspace = workspace
        self._blobs = blobs

    @classmethod
    @contextlib.contextmanager
    def opened(cls, root: Path) -> Iterator[FullDisk]:
        """Open a store. Raises BusyError, UnsafeError, OSError."""
        with contextlib.ExitStack() as opened:
            directory = opened.enter_context(Directory.open(root))
            workspace = None
            with _if_there_is_room():
                workspace = opened.enter_context(contextlib.closing(Workspace.open(directory)))
                # Where the lock file is absent and cannot be created, no ostore can publish.
                opened.enter_context(workspace.locked())
                workspace.refuse_without_locks()
            blobs = None
            with contextlib.suppress(FileNotFoundError):
                blobs = opened.enter_context(Directory.open(root / BLOBS))
            yield cls(directory, workspace, blobs)

    def clear_leftovers(self) -> None:
        """Remove what dead commands have staged, as far as there is room to do so."""
        if self._workspace:
            with _if_there_is_room():
                clear_leftovers(self._root, self._workspace)

    def remove(self, files: Sequence[FoundEntry], *, latest: float) -> bool:
        """
        Remove files of `blobs/` for good, and return whether that was done. Raises OSError.

        Nothing is removed unless all are as planned and none is newer than `latest`, seconds since 1970. On Windows, it
        is not done either if another program has a file open.
        """
        if self._blobs is None:
            return False
        with contextlib.ExitStack() as opened:
            for file in files:
                if not _is_unchanged(self._blobs, file, latest, opened):
                    return False
            try:
                for file in files:
                    self._blobs.unlink(file.path)
            except InUseError:
                # Another program has it open. What is removed of a download by then is not missed.
                return False
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
    if file.facts.kind is EntryKind.LINK:
        status = blobs.lstat(file.path)
        return status is not None and reason_to_keep(file.facts.identity, latest)(status) is None
    try:
        fd = blobs.open_file(file.path)
    except (FileNotFoundError, PermissionError, DamagedStoreError):
        return False
    opened.callback(os.close, fd)
    return reason_to_keep(file.facts.identity, latest)(os.fstat(fd)) is None
