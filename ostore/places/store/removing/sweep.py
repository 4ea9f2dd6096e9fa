"""
Remove from a store, under its lock, in the one order in which a crash does no harm.

1. create a folder in the trash, and in it the record of what is to go; put both on the disk
2. move each manifest there, and sync the folder that it leaves: the model is no longer listed
3. check each blob that may go once more, through its open handle, and move it there
4. read the manifests a second time, because a server without locks may have referred to such a blob just now. Put
   back what is needed, and never over anything else; if one manifest cannot be read, put everything back
5. delete the rest, or keep it until the time in the record; delete the record last

After a crash every listed model is complete, and a folder with a record is left, which the next removal finishes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, OstoreError, UnsafeError, UsageError
from ostore.formats.name import ModelName
from ostore.formats.store_layout import BLOBS, MANIFESTS, STAGED_MANIFESTS, TRANSACTIONS
from ostore.places.store.removing.emptying import remove_empty_folders
from ostore.places.store.removing.trash import IN_USE, Batch, manifest_filename, opened_trash
from ostore.places.store.survey.batches import BatchRecord, find_batches
from ostore.places.store.survey.census import DiskFacts, EntryKind, StoredBlob, UnfinishedDownload
from ostore.places.store.survey.reading import read_manifest_in
from ostore.places.store.survey.references import find_references
from ostore.places.store.survey.scan import StandingManifest, refuse_others
from ostore.places.store.workspace import Workspace, clear_transaction
from ostore.streams.durable import Directory, remove_tree
from ostore.streams.writing import write_file


@dataclass(frozen=True, slots=True)
class Swept:
    """
    What became of the blobs and downloads that were to go, by file name.

    `removed` are gone; `stayed` gives the reason for each of the others. `doubt` says which manifest could not be read
    at the second look, so that everything stayed.
    """

    removed: frozenset[str]
    stayed: dict[str, str]
    doubt: str | None = None

    @property
    def in_use(self) -> tuple[str, ...]:
        """The paths in the store of those that stayed because, on Windows, another program has them open."""
        return tuple(f"{BLOBS}/{name}" for name, reason in self.stayed.items() if reason == IN_USE)


class Sweep:
    """One removal. The caller holds the lock of the store and has made sure that it keeps others out."""

    def __init__(self, root: Directory, workspace: Workspace, trash: Directory, blobs: Directory | None) -> None:
        self._root = root
        self._workspace = workspace
        self._trash = trash
        self._blobs = blobs

    @classmethod
    @contextlib.contextmanager
    def opened(cls, root: Directory, workspace: Workspace) -> Iterator[Sweep]:
        """Open the folders of a store. A link at `blobs` is followed. Raises OSError."""
        with contextlib.ExitStack() as opened:
            blobs = None
            with contextlib.suppress(FileNotFoundError):
                blobs = opened.enter_context(Directory.open(root.path / BLOBS))
            yield cls(root, workspace, opened.enter_context(opened_trash(workspace)), blobs)

    def return_needed(self) -> bool:
        """
        Put back the blobs in the trash that a model needs again. Return False if the manifests leave doubts.

        All blobs of an interrupted removal go back while there are doubts, or if its record cannot be read.
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
        """
        Put back what is needed, then finish interrupted removals: all, or those of the trash folders `names`.

        While the manifests leave doubts, none is finished.
        """
        interrupted = [found for found in find_batches(self._workspace.directory.path) if not found.is_finished]
        chosen = [found for found in interrupted if names is None or found.name in names]
        if not chosen or not self.return_needed():
            return
        self._sync_blobs()
        for found in chosen:
            with contextlib.closing(Batch.reopen(self._trash, found.name)) as batch:
                # Without a record, all blobs went back, except those whose name another file has taken.
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
        Remove manifests, then blobs and unfinished downloads; `now` and the other times are seconds since 1970.

        A blob newer than `latest` stays, and so does a download newer than `latest_download`. Raises UsageError for a
        manifest that has changed, UnsafeError for a link on the way to it, DamagedStoreError for one that is neither
        file nor link, OSError. After an error, the next removal finishes this one.

        A file that another program has open stays. If models go, their record stays too, so that the next removal of
        these models takes it.
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
            names = {blob.filename for blob in blobs} | {file.path for group in downloads for file in group.files}
            swept = Swept(frozenset(names - stayed.keys()), stayed, doubt)
            self._sync_blobs()
            if swept.in_use and record.models:
                batch.empty()
            else:
                batch.finish(keep=record.expires is not None)
        return swept

    def prune(self, names: Iterable[ModelName]) -> None:
        """Remove the folders of these models that an interrupted removal left empty."""
        for name in names:
            for depth in reversed(range(3)):
                with (
                    contextlib.suppress(FileNotFoundError),
                    self._folders(MANIFESTS, name.parts[:depth]) as folders,
                ):
                    folders[-1].rmdir(name.parts[depth])

    def expire(self, now: float) -> None:
        """Delete what the trash need not keep after `now`, seconds since 1970."""
        for found in find_batches(self._workspace.directory.path):
            if found.is_expired(now):
                with contextlib.closing(Batch.reopen(self._trash, found.name)) as batch:
                    batch.remove()

    def clear_leftovers(self) -> None:
        clear_leftovers(self._root, self._workspace)

    def remove_empty_folders(self) -> None:
        """Remove `blobs`, `manifests` and the folders below `manifests`, if they are empty."""
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
                # `manifests` is on another disk.
                write_file(batch.directory, filename, (_read(folder, tag),), self._workspace.ownership)
                folder.unlink(tag)
            else:
                if manifest.digest and Digest.of(_read(batch.directory, filename)) != manifest.digest:
                    # The manifest was rewritten between the two calls.
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
        """Open the folder of a tree, and each folder below it. Raises UnsafeError for a link or file below the tree."""
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
            is_link = blob.facts.kind is EntryKind.LINK
            reason = batch.take(
                self._folder, blob.filename, reason_to_keep(blob.facts.identity, latest), is_link=is_link
            )
            if reason:
                stayed[blob.filename] = reason
        return stayed

    def _take_downloads(
        self, batch: Batch, downloads: Iterable[UnfinishedDownload], latest: float | None
    ) -> dict[str, str]:
        stayed: dict[str, str] = {}
        for download in downloads:
            checks = {file.path: reason_to_keep(file.facts.identity, latest) for file in download.files}
            present = {name: self._folder.lstat(name) for name in checks}
            # A download is one unit: if one part has just grown, all of it is being loaded.
            if any(checks[name](status) for name, status in present.items() if status):
                stayed |= dict.fromkeys(checks, "is being loaded again")
                continue
            taken = {name: batch.take(self._folder, name, check) for name, check in checks.items()}
            stayed |= {name: reason for name, reason in taken.items() if reason}
        return stayed

    def _sync_blobs(self) -> None:
        """
        Put removals from `blobs/` on the disk while the record of them is still in the trash.

        Otherwise a power cut could bring a file back, and no record would say that it was to go.
        """
        if self._blobs:
            self._blobs.sync()

    @property
    def _folder(self) -> Directory:
        if self._blobs is None:
            raise RuntimeError("blobs are planned to go, but their folder is not there")
        return self._blobs

    def _second_mark(self, batch: Batch) -> tuple[str | None, list[str]]:
        """Read the manifests again and put back what is needed. Return the first doubt, if any, and what went back."""
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
    """Remove what interrupted commands have staged, finished or not, in the workspace and beside the manifests."""
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


def reason_to_keep(identity: tuple[int, int], latest: float | None) -> Callable[[os.stat_result], str | None]:
    """Return a last check of a file before it goes. It gives the reason to keep a file that was replaced or used."""

    def check(status: os.stat_result) -> str | None:
        facts = DiskFacts.of(status)
        if facts.identity != identity:
            return "replaced meanwhile"
        if latest is not None and facts.newest > latest:
            return "used meanwhile"
        return None

    return check


def _changed(manifest: StandingManifest) -> UsageError:
    return UsageError(f"{manifest.path}: another program has just changed this manifest")


def _read(folder: Directory, name: str) -> bytes:
    """Return a manifest's bytes, or none for a link, wherever it leads."""
    try:
        return read_manifest_in(folder, name)
    except DamagedStoreError:
        return b""
