"""
The trash, where removed things go first: `.ostore/trash/<time>-<random>/`, one folder for each removal.

    plan.json       the record of what is to go; on the disk before anything moves, until the removal is finished
    kept.json       the same record afterwards, if the blobs are kept for a while
    sha256-HEX      blobs, under the names that they had
    manifest-NNN    manifests

The trash returns a blob that turns out to be needed, and never over an entry that has its name by then.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from ostore.formats.digest import Digest, blob_digest
from ostore.formats.errors import DamagedStoreError, InUseError
from ostore.formats.store_layout import TRASH
from ostore.places.store.survey.batches import KEPT_RECORD, UNFINISHED_RECORD, BatchRecord
from ostore.places.store.workspace import Workspace
from ostore.streams.durable import Directory, remove_tree
from ostore.streams.links import mode_of
from ostore.streams.writing import write_file

# Why a file stays that Windows lets nobody rename or open now.
IN_USE = "another program has it open"
_MANIFEST = "manifest-"


@contextlib.contextmanager
def opened_trash(workspace: Workspace) -> Iterator[Directory]:
    """Open the trash of a workspace. It is created if absent, and removed at the end if it is empty. Raises OSError."""
    try:
        with workspace.directory.make_child(TRASH, workspace.ownership) as trash:
            yield trash
    finally:
        with contextlib.suppress(OSError):
            workspace.directory.rmdir(TRASH)


class Batch:
    """One folder of the trash, open. Close it."""

    def __init__(self, trash: Directory, name: str, directory: Directory) -> None:
        self.name = name
        self.directory = directory
        self._trash = trash

    @classmethod
    def begin(cls, trash: Directory, workspace: Workspace, record: BatchRecord, now: float) -> Batch:
        """
        Create a folder with its record, on the disk; `now` is seconds since 1970. Raises OSError.

        The caller holds the lock of the store.
        """
        name = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{os.urandom(4).hex()}"
        directory = trash.make_child(name, workspace.ownership)
        try:
            write_file(directory, UNFINISHED_RECORD, (record.write(),), workspace.ownership)
            directory.sync()
        except BaseException:
            directory.close()
            # A full disk may have room for the folder but not for the record. Nothing has moved, so leave nothing.
            with contextlib.suppress(OSError):
                remove_tree(trash, name)
            raise
        return cls(trash, name, directory)

    @classmethod
    def reopen(cls, trash: Directory, name: str) -> Batch:
        return cls(trash, name, trash.child(name))

    def close(self) -> None:
        self.directory.close()

    def blobs(self) -> list[str]:
        """Return the file names of the blobs in the folder."""
        return [name for name in self.directory.names() if blob_digest(name)]

    def take(
        self,
        folder: Directory,
        filename: str,
        check: Callable[[os.stat_result], str | None],
        *,
        is_link: bool = False,
    ) -> str | None:
        """
        Move a file of `blobs/` here, or return the reason why it stays. Raises OSError.

        With `is_link`, a link is expected, and else a file. `check` checks it right before it moves, and returns None
        if it may go, else the reason.
        """
        if is_link:
            return self._take_link(folder, filename, check)
        try:
            fd = folder.open_file(filename)
        except FileNotFoundError:
            return "gone meanwhile"
        except InUseError:
            return IN_USE
        except (DamagedStoreError, PermissionError) as error:
            return f"cannot be opened: {error.strerror if isinstance(error, OSError) else 'not a file'}"
        try:
            status = os.fstat(fd)
            return check(status) or self._move_here(folder, filename, status)
        finally:
            os.close(fd)

    def _take_link(self, folder: Directory, filename: str, check: Callable[[os.stat_result], str | None]) -> str | None:
        """Move a link here. What it leads to is not touched."""
        status = folder.lstat(filename)
        if status is None or not stat.S_ISLNK(mode_of(status)):
            return "replaced meanwhile"
        return check(status) or self._move_here(folder, filename, status)

    def _move_here(self, folder: Directory, filename: str, status: os.stat_result) -> str | None:
        """Move the entry that has this status here, or return the reason why it stays. Raises OSError."""
        try:
            folder.rename(filename, self.directory, filename)
        except FileNotFoundError:
            return "gone meanwhile"
        except InUseError:
            return IN_USE
        moved = self.directory.lstat(filename)
        if moved is None or not os.path.samestat(moved, status):
            # Another entry took the name between the two calls.
            self.return_blobs(folder, [filename])
            return "replaced meanwhile"
        return None

    def return_blobs(self, blobs: Directory, filenames: Iterable[str]) -> list[str]:
        """
        Give blobs their names in `blobs/` again, and return the names of those that are back, on the disk.

        If another file has the name by now, that file stays, and the blob stays here. Raises OSError.
        """
        back = [name for name in filenames if self._link_back(blobs, name)]
        if back:
            # Folders reach the disk in any order. Until `blobs/` has, the names here are the only safe ones.
            blobs.sync()
        for name in back:
            self.directory.unlink(name)
        return back

    def return_needed(self, blobs: Directory, is_needed: Callable[[Digest], bool]) -> list[str]:
        """Put back the blobs that are needed, and return the names of those that are back."""
        return self.return_blobs(
            blobs, [name for name in self.blobs() if (digest := blob_digest(name)) and is_needed(digest)]
        )

    def _link_back(self, blobs: Directory, filename: str) -> bool:
        try:
            if self.directory.link(filename, blobs, filename):
                return True
        except FileNotFoundError:
            return False
        except FileExistsError:
            # The blob may be back already, if the power failed before it lost its name here.
            standing, kept = blobs.lstat(filename), self.directory.lstat(filename)
            return standing is not None and kept is not None and os.path.samestat(standing, kept)
        if blobs.lstat(filename) is not None:
            return False
        self.directory.rename(filename, blobs, filename)
        return True

    def empty(self) -> None:
        """Delete everything but the record, so that a later removal goes on with what the record names."""
        remove_tree(self._trash, self.name, when=_is_no_record)
        self.directory.sync()

    def finish(self, *, keep: bool) -> None:
        """End a removal: delete its blobs, or keep them until the time in its record."""
        kept = self.blobs() if keep else []
        if not kept:
            self.remove()
            return
        for name in self.directory.names():
            if name != UNFINISHED_RECORD and name not in kept:
                self.directory.unlink(name)
        self.directory.rename(UNFINISHED_RECORD, self.directory, KEPT_RECORD)
        self.directory.sync()

    def remove(self) -> None:
        """Delete the folder and everything in it."""
        # The record goes last, on the disk too: without it nothing says that the rest was to go.
        if not remove_tree(self._trash, self.name, when=_is_no_record):
            self.directory.sync()
            remove_tree(self._trash, self.name)
        self._trash.sync()


def _is_no_record(filename: str) -> bool:
    return filename not in {UNFINISHED_RECORD, KEPT_RECORD}


def manifest_filename(number: int) -> str:
    """Return the file name of the n-th manifest of a removal."""
    return f"{_MANIFEST}{number:06}"
