"""
Where removed things go first: `.ostore/trash/<time>-<random>/`, one folder for each removing.

    plan.json       what was to go; on the disk before anything moves, and there until the removing is finished
    kept.json       the same, afterwards, if its blobs are kept for a while
    sha256-HEX      blobs, under the names that they had
    manifest-NNN    manifests

A blob that turns out to be needed goes back from here, and never over anything that has its name by then.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ostore.formats.digest import Digest, blob_digest
from ostore.formats.errors import DamagedStoreError, OstoreError
from ostore.formats.json_reading import read_strict_json
from ostore.formats.store_layout import TRASH
from ostore.places.store.survey.scan import read_small_file
from ostore.places.store.workspace import Workspace, workspace_path
from ostore.streams.durable import Directory, remove_tree
from ostore.streams.writing import write_file

_UNFINISHED = "plan.json"
_KEPT = "kept.json"
_MANIFEST = "manifest-"
# Whatever else somebody puts there is left alone.
_NAME = re.compile(r"[0-9]{8,}T[0-9]{6}Z-[0-9a-f]{8}")
# Two hundred thousand blobs; only the record of a removed model lists them.
_MAX_RECORD_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """
    What a removing is about: the full names of the models that go, the digests that only they need, and until when
    (seconds since 1970) its blobs are kept; None if they are not.
    """

    models: tuple[str, ...] = ()
    blobs: tuple[Digest, ...] = ()
    expires: float | None = None

    def write(self) -> bytes:
        document = {"blobs": [str(digest) for digest in self.blobs], "expires": self.expires, "models": self.models}
        return json.dumps(document, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> BatchRecord:
        """Raises OstoreError for anything that we did not write."""
        document = read_strict_json(raw)
        try:
            blobs = tuple(Digest.parse(text) for text in document["blobs"])
            models = tuple(str(name) for name in document["models"])
            expires = document["expires"]
            return cls(models, blobs, None if expires is None else float(expires))
        except (KeyError, TypeError, ValueError):
            raise DamagedStoreError("trash: a record that is not ours") from None


@dataclass(frozen=True, slots=True)
class FoundBatch:
    """A folder of the trash. `record` is None if it has none that we can read: then its blobs go back."""

    name: str
    record: BatchRecord | None
    is_finished: bool

    def is_expired(self, now: float) -> bool:
        """Whether a finished removing need not be kept any longer."""
        expires = self.record.expires if self.record else None
        return self.is_finished and expires is not None and expires <= now


def find_batches(root: Path) -> tuple[FoundBatch, ...]:
    """What lies in the trash of a store, oldest first; nothing is created."""
    trash = workspace_path(root) / TRASH
    try:
        with Directory.open(trash) as directory:
            names = directory.names()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    ours = (trash / name for name in names if _NAME.fullmatch(name))
    return tuple(_found(folder) for folder in ours if folder.is_dir() and not folder.is_symlink())


@contextlib.contextmanager
def opened_trash(workspace: Workspace) -> Iterator[Directory]:
    """The trash of a workspace, made if it is absent and gone again if it is empty in the end."""
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
        """A new folder with its record, on the disk. The caller holds the lock of the store."""
        name = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{os.urandom(4).hex()}"
        directory = trash.make_child(name, workspace.ownership)
        try:
            write_file(directory, _UNFINISHED, (record.write(),), workspace.ownership)
            directory.sync()
        except BaseException:
            directory.close()
            # On a full disk there is room for the folder and none for the record: nothing has moved, nothing is left.
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
        """The names of the blobs in it."""
        return [name for name in self.directory.names() if blob_digest(name)]

    def take(self, folder: Directory, filename: str, still: Callable[[os.stat_result], str | None]) -> str | None:
        """
        Move a file of `blobs/` here, or say why it stays.

        `still` looks at the open file right before it moves: None if it may go, else the reason why not.
        """
        try:
            fd = folder.open_file(filename)
        except FileNotFoundError:
            return "gone meanwhile"
        except (DamagedStoreError, PermissionError) as error:
            return f"cannot be opened: {error.strerror if isinstance(error, OSError) else 'not a file'}"
        try:
            status = os.fstat(fd)
            if reason := still(status):
                return reason
            folder.rename(filename, self.directory, filename)
            moved = self.directory.lstat(filename)
            if moved is None or not os.path.samestat(moved, status):
                # Another file got the name between the two calls.
                self.return_blobs(folder, [filename])
                return "replaced meanwhile"
        finally:
            os.close(fd)
        return None

    def return_blobs(self, blobs: Directory, filenames: Iterable[str]) -> list[str]:
        """
        Give blobs their names in `blobs/` again; gives those that came back, on the disk.

        What has such a name by now stays, and so does the blob here.
        """
        back = [name for name in filenames if self._link_back(blobs, name)]
        if back:
            # Two folders may reach the disk in any order: until this one has, the names here are the only ones.
            blobs.sync()
        for name in back:
            self.directory.unlink(name)
        return back

    def return_needed(self, blobs: Directory, is_needed: Callable[[Digest], bool]) -> list[str]:
        """Put back every blob that is needed; gives their names."""
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
            # It may have come back already, and the power failed before it lost its name here.
            standing, kept = blobs.lstat(filename), self.directory.lstat(filename)
            return standing is not None and kept is not None and os.path.samestat(standing, kept)
        if blobs.lstat(filename) is not None:
            return False
        self.directory.rename(filename, blobs, filename)
        return True

    def finish(self, *, keep: bool) -> None:
        """The end of a removing: its blobs are deleted, or kept until the time in its record."""
        kept = self.blobs() if keep else []
        if not kept:
            self.remove()
            return
        for name in self.directory.names():
            if name != _UNFINISHED and name not in kept:
                self.directory.unlink(name)
        self.directory.rename(_UNFINISHED, self.directory, _KEPT)
        self.directory.sync()

    def remove(self) -> None:
        """Delete all that is in it, and itself."""
        # The record goes last, also on the disk: without it nobody knows that the rest was to go.
        if not remove_tree(self._trash, self.name, when=lambda name: name not in {_UNFINISHED, _KEPT}):
            self.directory.sync()
            remove_tree(self._trash, self.name)
        self._trash.sync()


def manifest_filename(number: int) -> str:
    """What the n-th manifest of a removing is called in its folder."""
    return f"{_MANIFEST}{number:06}"


def _found(folder: Path) -> FoundBatch:
    for filename, is_finished in ((_UNFINISHED, False), (_KEPT, True)):
        try:
            raw, _ = read_small_file(folder / filename, _MAX_RECORD_BYTES)
            return FoundBatch(folder.name, BatchRecord.parse(raw), is_finished)
        except FileNotFoundError:
            continue
        except (OSError, OstoreError):
            break
    return FoundBatch(folder.name, None, is_finished=False)
