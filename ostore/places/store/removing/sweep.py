"""
Removing from a store, under its lock, in the one order that a crash cannot harm.

1. a folder in the trash is made, and in it the record of what is to go; both are put on the disk
2. each manifest moves there, and the folder that it leaves is synced: nobody lists the model any more
3. each blob that may go is looked at once more, by its handle, and moves there
4. the manifests are read a second time: a server without locks may have referred to such a blob just now. What is
   needed goes back, and never over anything else; if one manifest cannot be read, everything goes back
5. what is left is deleted, or kept with the time until when; the record goes last

A crash leaves every listed model complete, and a folder with a record, which the next removing finishes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, OstoreError, UnsafeError, UsageError
from ostore.formats.manifest import MAX_MANIFEST_BYTES
from ostore.formats.name import ModelName
from ostore.formats.store_layout import BLOBS, MANIFESTS, STAGED_MANIFESTS, TRANSACTIONS
from ostore.places.store.removing.emptying import remove_empty_folders
from ostore.places.store.removing.trash import Batch, manifest_filename, opened_trash
from ostore.places.store.survey.batches import BatchRecord, find_batches
from ostore.places.store.survey.census import DiskFacts, StoredBlob, UnfinishedDownload
from ostore.places.store.survey.references import find_references
from ostore.places.store.survey.scan import StandingManifest, refuse_others
from ostore.places.store.workspace import Workspace, clear_transaction
from ostore.streams.chunks import read_full
from ostore.streams.durable import Directory, remove_tree
from ostore.streams.writing import write_file


@dataclass(frozen=True, slots=True)
class Swept:
    """
    What became of the blobs and downloads that were to go, by file name: `removed`, or why each of the others stayed.

    `doubt` says what could not be read at the second look, so that everything stayed.
    """

    removed: frozenset[str]
    stayed: dict[str, str]
    doubt: str | None = None


class Sweep:
    """One removing. The caller holds the lock of the store, and knows that it keeps others out."""

    def __init__(self, root: Directory, workspace: Workspace, trash: Directory, blobs: Directory | None) -> None:
        self._root = root
        self._workspace = workspace
        self._trash = trash
        self._blobs = blobs

    @classmethod
    @contextlib.contextmanager
    def opened(cls, root: Directory, workspace: Workspace) -> Iterator[Sweep]:
        """The store's folders, open; links to `blobs` are followed."""
        with contextlib.ExitStack() as opened:
            blobs = None
            with contextlib.suppress(FileNotFoundError):
                blobs = opened.enter_context(Directory.open(root.path / BLOBS))
            yield cls(root, workspace, opened.enter_context(opened_trash(workspace)), blobs)

    def return_needed(self) -> bool:
        """
        Put back what lies in the trash and a model needs again; False if there are doubts about that.

        While there are, everything that an interrupted removing has taken goes back, and so it does where nobody
        knows any more what was to go.
        """
        found_batches = find_batches(self._workspace.directory.path)
        if not found_batches:
            return True
        references = find_references(self._root.path)
        for found in found_batches:
            is_unclear = not found.is_finished and bool(references.doubts or found.record is None)
            with contextlib.closing(Batch.reopen(self._trash, found.name)) as batch:
                self._return_blobs(batch, _always if is_unclear else references.users.__contains__)
        return not references.doubts

    def finish_interrupted(self, names: Collection[str] | None = None) -> None:
        """End interrupted removings as they were to end, or those of these folders, once what is needed is back."""
        interrupted = [found for found in find_batches(self._workspace.directory.path) if not found.is_finished]
        chosen = [found for found in interrupted if names is None or found.name in names]
        if not chosen or not self.return_needed():
            return
        self._sync_blobs()
        for found in chosen:
            with contextlib.closing(Batch.reopen(self._trash, found.name)) as batch:
                # Of one without a record only what has another file of its name in `blobs/` is left.
                batch.finish(keep=found.record is not None and found.record.expires is not None)

    def remove(
        self,
        record: BatchRecord,
        *,
        now: float,
        manifests: Sequence[StandingManifest] = (),
        blobs: Sequence[StoredBlob] = (),
        downloads: Sequence[UnfinishedDownload] = (),
        latest: float | None = None,
        latest_download: float | None = None,
    ) -> Swept:
        """
        Remove manifests, then blobs and unfinished downloads.

        `latest` is the newest time that a blob may have to go, `latest_download` the same for whole downloads. Raises
        UsageError for a manifest that is another one by now, UnsafeError for a link on the way to it, OSError. What
        has moved by then is finished by the next removing.
        """
        with contextlib.closing(Batch.begin(self._trash, self._workspace, record, now)) as batch:
            try:
                for number, manifest in enumerate(manifests):
                    self._take_manifest(batch, manifest_filename(number), manifest)
                stayed = self._take_blobs(batch, blobs, latest) | self._take_downloads(
                    batch, downloads, latest_download
                )
            except BaseException:
                with contextlib.suppress(OSError, OstoreError):
                    self._second_mark(batch)
                raise
            doubt, back = self._second_mark(batch)
            stayed |= dict.fromkeys(back, doubt or "a model has just come that needs it")
            self._sync_blobs()
            batch.finish(keep=record.expires is not None)
        names = {blob.filename for blob in blobs} | {file.path for group in downloads for file in group.files}
        return Swept(frozenset(names - stayed.keys()), stayed, doubt)

    def prune(self, names: Iterable[ModelName]) -> None:
        """Remove the folders that an interrupted removing of these models left empty."""
        for name in names:
            for depth in reversed(range(3)):
                with (
                    contextlib.suppress(FileNotFoundError),
                    self._folders(MANIFESTS, name.parts[:depth]) as folders,
                ):
                    folders[-1].rmdir(name.parts[depth])

    def expire(self, now: float) -> None:
        """Delete what the trash need not keep any longer."""
        for found in find_batches(self._workspace.directory.path):
            if found.is_expired(now):
                with contextlib.closing(Batch.reopen(self._trash, found.name)) as batch:
                    batch.remove()

    def clear_leftovers(self) -> None:
        clear_leftovers(self._root, self._workspace)

    def remove_empty_folders(self) -> None:
        """Remove `blobs`, `manifests` and the folders below that, as far as nothing is in them."""
        remove_empty_folders(self._root)

    def _take_manifest(self, batch: Batch, filename: str, manifest: StandingManifest) -> None:
        tree, *parts, tag = manifest.path.split("/")
        with self._folders(tree, parts) as folders:
            folder = folders[-1]
            status = folder.lstat(tag)
            if status is None:
                return
            refuse_others(manifest.path, status.st_mode)
            if manifest.digest and Digest.of(_read(folder, tag)) != manifest.digest:
                raise _changed(manifest)
            try:
                folder.rename(tag, batch.directory, filename)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # `manifests` is on a disk of its own.
                write_file(batch.directory, filename, (_read(folder, tag),), self._workspace.ownership)
                folder.unlink(tag)
            else:
                if manifest.digest and Digest.of(_read(batch.directory, filename)) != manifest.digest:
                    # It was rewritten between the two calls.
                    with contextlib.suppress(FileExistsError):
                        if not batch.directory.link(filename, folder, tag) and folder.lstat(tag) is None:
                            batch.directory.rename(filename, folder, tag)
                    raise _changed(manifest)
            batch.directory.sync()
            folder.sync()
            for parent, part in reversed(list(zip(folders, parts, strict=False))):
                if not parent.rmdir(part):
                    break

    @contextlib.contextmanager
    def _folders(self, tree: str, parts: Sequence[str]) -> Iterator[list[Directory]]:
        """The folder of a tree, and each below it on the way to a tag; no link is followed below the tree."""
        with contextlib.ExitStack() as opened:
            folders = [opened.enter_context(Directory.open(self._root.path / tree))]
            for part in parts:
                try:
                    folders.append(opened.enter_context(folders[-1].child(part)))
                except NotADirectoryError:
                    raise UnsafeError(f"{folders[-1].path / part}: a file or link is in the way") from None
            yield folders

    def _take_blobs(self, batch: Batch, blobs: Iterable[StoredBlob], latest: float | None) -> dict[str, str]:
        stayed: dict[str, str] = {}
        for blob in blobs:
            reason = batch.take(self._folder, blob.filename, unchanged(blob.facts.identity, latest))
            if reason:
                stayed[blob.filename] = reason
        return stayed

    def _take_downloads(
        self, batch: Batch, downloads: Iterable[UnfinishedDownload], latest: float | None
    ) -> dict[str, str]:
        stayed: dict[str, str] = {}
        for download in downloads:
            checks = {file.path: unchanged(file.facts.identity, latest) for file in download.files}
            present = {name: self._folder.lstat(name) for name in checks}
            # One unit: if one part has just grown, all of it is being loaded.
            if any(checks[name](status) for name, status in present.items() if status):
                stayed |= dict.fromkeys(checks, "is being loaded again")
                continue
            taken = {name: batch.take(self._folder, name, check) for name, check in checks.items()}
            stayed |= {name: reason for name, reason in taken.items() if reason}
        return stayed

    def _sync_blobs(self) -> None:
        """
        See that what has left `blobs/` has left it on the disk too, while the trash still knows that it was to go.

        Else a power cut could bring it back, and nobody would know any more why it is there.
        """
        if self._blobs:
            self._blobs.sync()

    @property
    def _folder(self) -> Directory:
        if self._blobs is None:
            raise RuntimeError("what is planned to go cannot be in a folder that is not there")
        return self._blobs

    def _second_mark(self, batch: Batch) -> tuple[str | None, list[str]]:
        """Read the manifests again and put back what is needed; a doubt, if there is one, and what went back."""
        if not batch.blobs():
            return None, []
        try:
            references = find_references(self._root.path)
        except BaseException:
            self._return_blobs(batch, _always)
            raise
        if references.doubts:
            first = references.doubts[0]
            return f"{first.path}: {first.reason}", self._return_blobs(batch, _always)
        return None, self._return_blobs(batch, references.users.__contains__)

    def _return_blobs(self, batch: Batch, is_needed: Callable[[Digest], bool]) -> list[str]:
        return batch.return_needed(self._blobs, is_needed) if self._blobs else []


def clear_leftovers(root: Directory, workspace: Workspace) -> None:
    """Remove what interrupted commands had staged, finished or not, in the workspace and beside the manifests."""
    for abandoned in workspace.abandoned():
        clear_transaction(abandoned, keep_finished=False)
    with workspace.directory.make_child(TRANSACTIONS, workspace.ownership) as transactions:
        running = transactions.names()
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        Directory.open(root.path / MANIFESTS) as manifests,
        manifests.child(STAGED_MANIFESTS) as staging,
    ):
        for name in staging.names():
            if name not in running:
                remove_tree(staging, name)
        manifests.rmdir(STAGED_MANIFESTS)


def _always(_: Digest) -> bool:
    return True


def unchanged(identity: tuple[int, int], latest: float | None) -> Callable[[os.stat_result], str | None]:
    """A last look at a file before it goes: still the one that was planned, and not used meanwhile."""

    def still(status: os.stat_result) -> str | None:
        facts = DiskFacts.of(status)
        if facts.identity != identity:
            return "replaced meanwhile"
        if latest is not None and facts.newest > latest:
            return "used meanwhile"
        return None

    return still


def _changed(manifest: StandingManifest) -> UsageError:
    return UsageError(f"{manifest.path}: another model has just come under that name")


def _read(folder: Directory, name: str) -> bytes:
    """A manifest's bytes; for a link, no matter where it leads, none."""
    try:
        fd = folder.open_file(name)
    except DamagedStoreError:
        return b""
    try:
        return read_full(fd, MAX_MANIFEST_BYTES + 1)
    finally:
        os.close(fd)
