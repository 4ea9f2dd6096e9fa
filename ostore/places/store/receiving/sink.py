"""A store as the place where models go: what would become of each, and the transaction that takes them in."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType

from ostore.formats.digest import Digest
from ostore.formats.errors import (
    FormatError,
    LimitError,
    NoSpaceError,
    NotFoundError,
    OstoreError,
    UnsafeError,
    UsageError,
)
from ostore.formats.manifest import Manifest
from ostore.formats.name import ModelName
from ostore.formats.outcome import Forecast, Outcome
from ostore.formats.selection import SelectedModel, Selection, refuse_twins
from ostore.formats.store_layout import BLOBS, MANIFESTS, TRANSACTIONS, WORKSPACE
from ostore.places.store.receiving.inbox import StoreInbox
from ostore.places.store.receiving.terms import ReceivingTerms
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.places.store.survey.obstacles import find_obstacles
from ostore.places.store.workspace import Workspace, clear_transaction
from ostore.streams.durable import Directory, Ownership, current_user
from ostore.streams.progress import SILENT, Progress
from ostore.streams.source_failure import SourceFailureError
from ostore.streams.space import refuse_unholdable

# A folder, or a file where a folder has to be; EINVAL: `read_small_file` of a FIFO or a device.
_IN_THE_WAY = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.ENXIO, errno.ELOOP})
# mke2fs makes the one in every file system.
_OF_NOBODY = frozenset({"lost+found", "blobs", WORKSPACE})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NEVER: Mapping[ModelName, int] = MappingProxyType({})


class StoreSink:
    """
    A store as the place where models go; it is created if it is not there.

    `make_parents` allows that for a path nobody typed. A typed one must have its parent, because a typo or an unmounted
    disk looks just like it.
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
        `predecessor` is a store whose place this one takes: what is created has the owners and modes of there, files
        are linked where that can be, and what is written is read back. Manifests keep the times in `modified`,
        nanoseconds since 1970.
        """
        self._store = store
        self._replace = replace
        self._make_parents = make_parents
        self._predecessor = predecessor
        self._progress = progress
        self._terms = ReceivingTerms(trust_existing, predecessor is not None, jobs, progress, modified)

    def compare(self, selection: Selection) -> Forecast:
        """
        What would become of each model, and which blobs are missing, by their sizes; nothing is written.

        Raises UsageError for a different tag without `replace`, UnsafeError for one that differs only by case.
        """
        return Forecast(self._outcomes(selection), self._store.missing_of(selection.blobs))

    def receive(self, selection: Selection) -> AbstractContextManager[StoreInbox]:
        """
        Yield an inbox; leaving the block publishes every model. An exception publishes none.

        Raises as `compare`, NoSpaceError, BusyError, DamagedStoreError, OSError. What was finished before an
        interruption waits for the next import; after a refusal nothing is left.
        """
        return self._receiving(selection, None)

    def repair(self, selection: Selection, damaged: Collection[Digest]) -> AbstractContextManager[StoreInbox]:
        """The same, and `damaged` blobs are replaced; what they replace is kept in quarantine. Raises as `receive`."""
        return self._receiving(selection, damaged)

    def obstacles(self, digests: Collection[Digest]) -> Mapping[Digest, str]:
        """For which blobs a person has to do something before they can be replaced, and what. Raises OSError."""
        return find_obstacles(self._store.root, digests)

    @contextlib.contextmanager
    def _receiving(self, selection: Selection, damaged: Collection[Digest] | None) -> Iterator[StoreInbox]:
        outcomes = self._outcomes(selection)
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(self._opened_root())
            workspace = stack.enter_context(contextlib.closing(Workspace.open(root)))
            transaction = stack.enter_context(workspace.transaction())
            inbox = StoreInbox(root, workspace, transaction, selection, damaged, terms=self._terms)
            stack.enter_context(contextlib.closing(inbox))
            try:
                inbox.find_present()
                inbox.adopt()
                refuse_unholdable(transaction, outcomes)
                if not self._terms.links:
                    # Else once it is known what need not be copied.
                    inbox.refuse_short_space()
                yield inbox
                inbox.finish_blobs()
                if self._predecessor:
                    # What is written here is about to be the only one.
                    inbox.read_back()
                self._progress.phase("publishing", 0)
                with workspace.locked():
                    inbox.publish(self._outcomes(inbox.selection))
            except BaseException as error:
                with contextlib.suppress(OSError):
                    inbox.finish_blobs()
                with contextlib.suppress(OSError):
                    clear_transaction(transaction, keep_finished=not _leaves_nothing(error))
                raise
            with contextlib.suppress(OSError):
                clear_transaction(transaction, keep_finished=False)

    def _outcomes(self, selection: Selection) -> dict[ModelName, Outcome]:
        if self._store.root.exists():
            self._store.require()
        tree = find_manifests(self._store.root)
        stored = {entry.name for entry in tree.entries if entry.name}
        folded = {model.name.folded for model in selection.models}
        refuse_twins([name for name in stored if name.folded in folded] + [model.name for model in selection.models])
        if not tree.folders:
            # A new store need not be asked about every model.
            return dict.fromkeys((model.name for model in selection.models), Outcome.ADDED)
        return {model.name: self._outcome(model) for model in selection.models}

    def _outcome(self, model: SelectedModel) -> Outcome:
        path = self._store.manifest_path(model.name)
        try:
            raw, _ = self._store.read_manifest(model.name)
        except FileNotFoundError:
            return Outcome.REPAIRED if path.is_symlink() else Outcome.ADDED
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            raise UnsafeError(f"{model.name}: something that is no manifest is in the way: {path}") from None
        if Digest.of(raw) == model.manifest_digest:
            return Outcome.ALREADY_THERE
        try:
            Manifest.parse(raw)
        except LimitError:
            # Too much for us, but Ollama may well read it.
            pass
        except OstoreError:
            return Outcome.REPAIRED
        if not self._replace:
            raise UsageError(f"{model.name}: another model of that name is there", hint="--replace overwrites it")
        return Outcome.REPLACED

    @contextlib.contextmanager
    def _opened_root(self) -> Iterator[Directory]:
        """The store's folder, created if absent and gone again if nothing came of it."""
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
        """Give a folder that is no store yet the owners and modes of the predecessor; the folders that were made."""
        if self._predecessor is None:
            return []
        former = self._predecessor.root
        with Directory.open(former) as above, Directory.open(root) as here:
            # One that a killed command has made, but not given away, is empty.
            is_new = here.lstat("blobs") is None
            if here.lstat(MANIFESTS) or not (is_new or _is_empty_folder(here, "blobs")):
                return []
            blobs = former / BLOBS
            with Directory.open(blobs if blobs.exists() else former) as model:
                ownership = model.ownership
            # Nobody else's files are in it: whoever runs as root means the service that the old store belongs to.
            if here.fd is not None and current_user()[0] == 0 and not set(here.names()) - _OF_NOBODY:
                above.ownership.give_directory(here.fd)
            here.make_child("blobs", ownership).close()
        return [root / BLOBS] if is_new else []

    def _create_root(self, root: Path) -> list[Path]:
        if root.exists() or root.is_symlink():
            self._store.require()
        absent = [root]
        while not absent[0].parent.exists():
            absent.insert(0, absent[0].parent)
        if len(absent) > 1 and not self._make_parents:
            raise NotFoundError(f"{root.parent}: no such folder", hint="is the disk mounted? else create it first")
        for path in absent:
            with Directory.open(path.parent) as parent:
                owner = parent.ownership
                parent.make_child(path.name, Ownership(owner.uid, owner.gid, 0o755)).close()
        return absent


def _is_empty_folder(parent: Directory, name: str) -> bool:
    try:
        with parent.child(name) as folder:
            return not folder.names()
    except NotADirectoryError:
        return False


def _leaves_nothing(error: BaseException) -> bool:
    """Whether what was staged is of no use: the bundle was refused, or the disk is full."""
    if isinstance(error, SourceFailureError):
        error = error.error
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, (UnsafeError, FormatError, LimitError, NoSpaceError, UsageError))
