"""A store as a sink: what would become of each model, and the transaction that takes them in."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ostore.formats.digest import Digest
from ostore.formats.errors import (
    BasisMissingError,
    FormatError,
    LimitError,
    NoSpaceError,
    OstoreError,
    UnsafeError,
    UsageError,
)
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.outcome import Forecast, Outcome
from ostore.formats.selection import LeftOut, SelectedModel, Selection, refuse_twins
from ostore.formats.store_layout import BLOBS, MANIFESTS, TRANSACTIONS, WORKSPACE
from ostore.places.store.receiving.basis import basis_damaged, refuse_lacking
from ostore.places.store.receiving.clashes import clashes
from ostore.places.store.receiving.draft import StoreDraft
from ostore.places.store.receiving.inbox import StoreInbox
from ostore.places.store.receiving.terms import ReceivingTerms
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import ManifestTree, find_manifests
from ostore.places.store.survey.obstacles import find_obstacles
from ostore.places.store.workspace import Workspace, clear_transaction
from ostore.streams.durable import Directory
from ostore.streams.links import is_link
from ostore.streams.owners import Ownership, is_root
from ostore.streams.progress import SILENT, Progress
from ostore.streams.source_failure import SourceFailureError
from ostore.streams.space import refuse_on_windows, refuse_unholdable
from ostore.streams.writing import refuse_missing_folder

# The errors for a folder, or for a file where a folder has to be. EINVAL: `read_small_file` of a FIFO or a device.
_IN_THE_WAY = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.ENXIO, errno.ELOOP})
# Entries that do not count as files of others. mke2fs creates `lost+found` in every file system.
_NOT_FOREIGN = frozenset({"lost+found", "blobs", WORKSPACE})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NEVER: Mapping[ModelName, int] = MappingProxyType({})


class _Opened(NamedTuple):
    """The open folders of one command."""

    root: Directory
    workspace: Workspace
    transaction: Directory


class StoreSink:
    """
    A store as a sink. It is created if it does not exist.

    With `make_parents`, its parents are created too; this is for a path that no person typed. The parent of a typed
    path must exist: if it is missing, the path may have a typo, or a disk may not be mounted.
    """

    def __init__(
        self,
        store: LocalStore,
        *,
        replace: bool = False,
        trust_existing: bool = False,
        make_parents: bool = False,
        jobs: int = 1,
        progress: Progress = SILENT,
        predecessor: LocalStore | None = None,
        modified: Mapping[ModelName, int] = _NEVER,
    ) -> None:
        """
        `predecessor` is the store that this one replaces. New entries get its owners and modes, files are linked where
        possible, and written files are read back. Manifests get the times in `modified`, nanoseconds since 1970.
        """
        self._store = store
        self._replace = replace
        self._make_parents = make_parents
        self._predecessor = predecessor
        self._progress = progress
        self._terms = ReceivingTerms(trust_existing, predecessor is not None, jobs, progress, modified)

    def compare(self, selection: Selection) -> Forecast:
        """
        Return what would become of each model, and the blobs that are missing, judged by size. Nothing is written.

        Raises UsageError if another model has the name and `replace` is not set, or if the store is not a folder;
        NotFoundError if the folder that it is to be created in is missing, BasisMissingError for a delta that builds on
        blobs that are not there;
        UnsafeError if a name differs from another one only by case, or something that is no manifest is in its place;
        OSError.
        """
        outcomes = self._outcomes(selection)
        self._refuse_lacking(selection)
        if not self._store.exists:
            self._absent_folders()
        return Forecast(outcomes, self._store.missing_of(selection.blobs))

    def without_clashes(self, selection: Selection) -> Selection:
        """Return the selection without the models whose names clash with other spellings. They are left out."""
        names = (model.name for model in selection.models)
        found = dict(clashes(names, _names(find_manifests(self._store.root)), self._store.root))
        return selection.without((LeftOut(str(name), error) for name, error in found.items()), found)

    def receive(self, selection: Selection) -> AbstractContextManager[StoreInbox]:
        """
        Yield an inbox. Leaving the block publishes every model; an exception publishes none.

        Raises the errors of `compare`, NotFoundError, NoSpaceError, BusyError, DamagedStoreError. After an interruption
        the finished blobs wait for the next import. After a refusal, or on a full disk, nothing is left.
        """
        return self._receiving(selection, None)

    def repair(self, selection: Selection, damaged: Collection[Digest]) -> AbstractContextManager[StoreInbox]:
        """Like `receive`, but also replace `damaged` blobs. The files that are replaced are kept in quarantine."""
        return self._receiving(selection, damaged)

    def obstacles(self, digests: Collection[Digest]) -> Mapping[Digest, str]:
        """Return the blobs that cannot be replaced until a person acts, and what has to be done. Raises OSError."""
        return find_obstacles(self._store.root, digests)

    @contextlib.contextmanager
    def draft(self, name: ModelName, sizes: Collection[int]) -> Iterator[StoreDraft]:
        """
        Yield a transaction that takes files of these sizes in before it is known what model of that name they make.

        Leaving the block removes what was staged and not published. Raises the errors of `receive`; those that can be
        told now come before anything is read.
        """
        self._refuse_name(name, sizes)
        with self._transacting(keeps_finished=False) as opened:
            # What dead commands have begun takes room that the files need. An import looks for it once it knows what
            # it wants, but that comes too late here.
            opened.workspace.clear_abandoned()

            def receive(
                selection: Selection, staged: Sequence[Descriptor], trusted: frozenset[Digest]
            ) -> AbstractContextManager[StoreInbox]:
                return self._taking_in(opened, selection, terms=replace(self._terms, trusted=trusted), staged=staged)

            yield StoreDraft(self._store.root / BLOBS, opened.workspace, opened.transaction, receive, self._progress)

    @contextlib.contextmanager
    def workroom(self) -> Iterator[Directory]:
        """
        Yield an empty folder on the disk of the store, for files that an import needs meanwhile. They are removed.

        Raises what `receive` raises before anything is staged, OSError.
        """
        with self._transacting(keeps_finished=False) as opened:
            yield opened.transaction

    def _refuse_name(self, name: ModelName, sizes: Collection[int]) -> None:
        refuse_on_windows([name])
        if self._store.root.exists():
            self._store.require_folder()
        stored = _names(find_manifests(self._store.root))
        for _, error in clashes([name], stored, self._store.root):
            raise error
        if name in stored and not self._replace and not self._may_be_of(name, sizes):
            raise self._taken(name)

    def _may_be_of(self, name: ModelName, sizes: Collection[int]) -> bool:
        """Return whether the model of a name may have blobs of these sizes. One that cannot be read may."""
        try:
            manifest = Manifest.parse(self._store.read_manifest(name)[0])
        except (OstoreError, OSError):
            return True
        return {size for _, size in manifest.sizes}.issuperset(sizes)

    @contextlib.contextmanager
    def _receiving(self, selection: Selection, damaged: Collection[Digest] | None) -> Iterator[StoreInbox]:
        # A refusal comes before anything is created.
        self._outcomes(selection)
        self._refuse_lacking(selection)
        with (
            self._transacting(keeps_finished=True) as opened,
            self._taking_in(opened, selection, damaged, terms=self._terms) as inbox,
        ):
            yield inbox

    @contextlib.contextmanager
    def _transacting(self, *, keeps_finished: bool) -> Iterator[_Opened]:
        """Open the store and a transaction. `keeps_finished` leaves finished blobs to the next command on an error."""
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(self._opened_root())
            workspace = stack.enter_context(contextlib.closing(Workspace.open(root)))
            transaction = stack.enter_context(workspace.transaction())
            try:
                yield _Opened(root, workspace, transaction)
            except BaseException as error:
                with contextlib.suppress(OSError):
                    clear_transaction(transaction, keep_finished=keeps_finished and not _leaves_nothing(error))
                raise
            with contextlib.suppress(OSError):
                clear_transaction(transaction, keep_finished=False)

    @contextlib.contextmanager
    def _taking_in(
        self,
        opened: _Opened,
        selection: Selection,
        damaged: Collection[Digest] | None = None,
        *,
        terms: ReceivingTerms,
        staged: Sequence[Descriptor] = (),
    ) -> Iterator[StoreInbox]:
        root, workspace, transaction = opened
        inbox = StoreInbox(root, workspace, transaction, selection, damaged, terms=terms)
        with contextlib.closing(inbox):
            try:
                self._prepare(inbox, transaction, staged)
                yield inbox
                self._complete(inbox, workspace)
            except BaseException:
                with contextlib.suppress(OSError):
                    inbox.finish_blobs()
                raise

    def _refuse_lacking(self, selection: Selection) -> None:
        """Raises BasisMissingError if what a delta builds on is not there, judged by names and sizes."""
        there = {made.blob.digest for made in selection.recipes if self._store.holds(made.blob)}
        lacking = self._store.missing_of(selection.required_beside(there))
        staged = self._store.staged() if lacking else {}
        refuse_lacking(selection, [blob for blob in lacking if staged.get(blob.digest) != blob.size])

    def _prepare(self, inbox: StoreInbox, transaction: Directory, staged: Sequence[Descriptor]) -> None:
        """Find what need not be written, and refuse what the disk cannot hold."""
        inbox.find_present()
        inbox.rely_on_staged(staged)
        inbox.adopt()
        _refuse_unsound(inbox)
        refuse_unholdable(transaction, (model.name for model in inbox.selection.models))
        if not self._terms.links:
            # With links, `take_files` asks for the space, once it knows what need not be copied.
            inbox.refuse_lack_of_space()

    def _complete(self, inbox: StoreInbox, workspace: Workspace) -> None:
        """Put what was received on the disk, and publish it."""
        inbox.finish_blobs()
        if self._predecessor:
            # This copy is about to be the only one.
            inbox.read_back()
        self._progress.phase("publishing", 0)
        with workspace.locked():
            inbox.publish(self._outcomes(inbox.selection))

    def _outcomes(self, selection: Selection) -> dict[ModelName, Outcome]:
        refuse_on_windows(model.name for model in selection.models)
        if self._store.root.exists():
            self._store.require_folder()
        tree = find_manifests(self._store.root)
        stored = _names(tree)
        folded = {model.name.folded for model in selection.models}
        refuse_twins([name for name in stored if name.folded in folded] + [model.name for model in selection.models])
        # A new store has no manifests, so no model has to be looked up. A folder that cannot be read may have some.
        is_new = not tree.folders and not tree.closed
        outcomes = {model.name: Outcome.ADDED if is_new else self._outcome(model) for model in selection.models}
        # What moves keeps its names.
        if self._predecessor is None:
            for _, error in clashes((model.name for model in selection.models), stored, self._store.root):
                raise error
        return outcomes

    def _outcome(self, model: SelectedModel) -> Outcome:
        path = self._store.manifest_path(model.name)
        try:
            raw, _ = self._store.read_manifest(model.name)
        except FileNotFoundError:
            return Outcome.REPAIRED if is_link(path) else Outcome.ADDED
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            raise UnsafeError(f"{model.name}: an entry that is no manifest is in the way: {path}") from None
        if Digest.of(raw) == model.manifest_digest:
            return Outcome.ALREADY_THERE
        if not _may_be_read(raw):
            return Outcome.REPAIRED
        if not self._replace:
            raise self._taken(model.name)
        return Outcome.REPLACED

    @staticmethod
    def _taken(name: ModelName) -> UsageError:
        return UsageError(f"{name}: another model of that name is there", hint="replace=True overwrites it")

    @contextlib.contextmanager
    def _opened_root(self) -> Iterator[Directory]:
        """Open the store's folder. It is created if absent, and what was created is removed again after an error."""
        root = self._store.root
        created = self._create_root(root) if not self._store.exists else []
        try:
            created += self._furnish(root)
            with Directory.open(root) as directory:
                yield directory
        except BaseException:
            if created:
                for path in (root / WORKSPACE / TRANSACTIONS, root / WORKSPACE, *reversed(created)):
                    with contextlib.suppress(OSError), Directory.open(path.parent) as parent:
                        parent.rmdir(path.name)
            raise

    def _furnish(self, root: Path) -> list[Path]:
        """Give a folder that is no store yet the predecessor's owners and modes. Return the folders that it created."""
        if self._predecessor is None:
            return []
        former = self._predecessor.root
        with Directory.open(former) as above, Directory.open(root) as here:
            # A killed command may have created `blobs` and not given it away. It is then empty.
            is_new = here.lstat("blobs") is None
            if here.lstat(MANIFESTS) or not (is_new or _is_empty_folder(here, "blobs")):
                return []
            blobs = former / BLOBS
            with Directory.open(blobs if blobs.exists() else former) as model:
                ownership = model.ownership
            # There are no other files in it, so root means it for the service that owns the old store.
            if is_root() and not set(here.names()) - _NOT_FOREIGN:
                here.give(above.ownership)
            here.make_child("blobs", ownership).close()
        return [root / BLOBS] if is_new else []

    def _create_root(self, root: Path) -> list[Path]:
        if root.exists() or is_link(root):
            self._store.require_folder()
        absent = self._absent_folders()
        for path in absent:
            with Directory.open(path.parent) as parent:
                owner = parent.ownership
                parent.make_child(path.name, Ownership(owner.uid, owner.gid, 0o755)).close()
        return absent

    def _absent_folders(self) -> list[Path]:
        """Return the folders to create for a store that is not there. Raises NotFoundError for a missing parent."""
        absent = [self._store.root]
        while not absent[0].parent.exists():
            absent.insert(0, absent[0].parent)
        if not self._make_parents:
            refuse_missing_folder(self._store.root.parent)
        return absent


def _refuse_unsound(inbox: StoreInbox) -> None:
    """Raises BasisMissingError for blobs that a delta builds on and that only their sizes seemed to be."""
    try:
        inbox.refuse_lacking()
    except BasisMissingError as error:
        unsound = [blob for blob in inbox.selection.requires if str(blob.digest) in error.digests]
        raise basis_damaged(inbox.selection, unsound) from None


def _names(tree: ManifestTree) -> set[ModelName]:
    return {entry.name for entry in tree.entries if entry.name}


def _is_empty_folder(parent: Directory, name: str) -> bool:
    try:
        with parent.child(name) as folder:
            return not folder.names()
    except NotADirectoryError:
        return False


def _may_be_read(manifest: bytes) -> bool:
    """Return whether Ollama may be able to read a manifest, even if we cannot because it exceeds our limits."""
    try:
        Manifest.parse(manifest)
    except LimitError:
        return True
    except OstoreError:
        return False
    return True


def _leaves_nothing(error: BaseException) -> bool:
    """Return whether staged blobs are of no use, because the bundle was refused or the disk is full."""
    if isinstance(error, SourceFailureError):
        error = error.error
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, (UnsafeError, FormatError, LimitError, NoSpaceError, UsageError))
