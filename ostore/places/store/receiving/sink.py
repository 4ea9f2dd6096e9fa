"""A store as the place where models go: what would become of each, and the transaction that takes them in."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

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
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Manifest
from ostore.formats.name import ModelName
from ostore.formats.outcome import Outcome, Received
from ostore.formats.selection import SelectedModel, Selection, refuse_twins
from ostore.formats.store_layout import BLOBS, MANIFESTS, TRANSACTIONS, WORKSPACE
from ostore.places.store.receiving.inbox import StoreInbox
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.places.store.survey.scan import read_small_file
from ostore.places.store.workspace import Workspace, clear_transaction
from ostore.streams.durable import Directory, Ownership, current_user
from ostore.streams.progress import SILENT, Progress
from ostore.streams.space import refuse_short_space, refuse_unholdable

# A folder, or a file where a folder has to be; EINVAL: `read_small_file` of a FIFO or a device.
_IN_THE_WAY = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.ENXIO, errno.ELOOP})
# mke2fs makes the one in every file system.
_OF_NOBODY = frozenset({"lost+found", "blobs", WORKSPACE})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Predecessor:
    """
    The store whose place this one takes: what is created looks as there, its files are linked where that can be, and
    its manifests keep their times (`modified`, nanoseconds since 1970).
    """

    root: Path
    modified: Mapping[ModelName, int]


class StoreSink:
    """
    A store as the place where models go; it is created if it is not there.

    `make_parents` allows that for a path nobody typed; a typed one must have its parent, because a typo or an
    unmounted disk looks just like it.
    """

    def __init__(
        self,
        store: LocalStore,
        *,
        replace: bool,
        trust_existing: bool,
        make_parents: bool,
        jobs: int,
        progress: Progress = SILENT,
        predecessor: Predecessor | None = None,
    ) -> None:
        self._store = store
        self._predecessor = predecessor
        self._replace = replace
        self._trust_existing = trust_existing
        self._make_parents = make_parents
        self._jobs = jobs
        self._progress = progress
        self.received: Received | None = None

    def compare(self, selection: Selection) -> dict[ModelName, Outcome]:
        """
        What would become of each model; nothing is written.

        Raises UsageError for a different tag without `replace`, UnsafeError for one that differs only by case.
        """
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

    @contextlib.contextmanager
    def receive(self, selection: Selection, damaged: Collection[Digest] | None = None) -> Iterator[StoreInbox]:
        """
        Yield an inbox; leaving the block publishes every model. An exception publishes none.

        `damaged`, even if empty, makes it a repair: see `StoreInbox`.

        Raises as `compare`, NoSpaceError, BusyError, DamagedStoreError, OSError. What was finished before an
        interruption waits for the next import; after a refusal nothing is left.
        """
        outcomes = self.compare(selection)
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(self._opened_root())
            workspace = stack.enter_context(contextlib.closing(Workspace.open(root)))
            transaction = stack.enter_context(workspace.transaction())
            inbox = stack.enter_context(
                contextlib.closing(StoreInbox(root, workspace, transaction, selection, damaged))
            )
            try:
                inbox.find_present(trust=self._trust_existing, jobs=self._jobs, progress=self._progress)
                inbox.adopt(self._progress)
                self._succeed(inbox)
                refuse_unholdable(transaction, outcomes)
                refuse_short_space(transaction, [blob.size for blob in inbox.missing])
                yield inbox
                inbox.finish_blobs()
                if self._predecessor:
                    # What is written here is about to be the only one.
                    inbox.read_back(jobs=self._jobs, progress=self._progress)
                self._progress.phase("publishing", 0)
                with workspace.locked():
                    outcomes = self.compare(inbox.selection)
                    inbox.publish(outcomes)
            except BaseException as error:
                with contextlib.suppress(OSError):
                    inbox.finish_blobs()
                with contextlib.suppress(OSError):
                    clear_transaction(transaction, keep_finished=not _leaves_nothing(error))
                raise
            with contextlib.suppress(OSError):
                clear_transaction(transaction, keep_finished=False)
            self.received = inbox.received(outcomes)

    def _outcome(self, model: SelectedModel) -> Outcome:
        path = self._store.root.joinpath(MANIFESTS, *model.name.parts)
        try:
            raw, _ = read_small_file(path, MAX_MANIFEST_BYTES)
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

    def _succeed(self, inbox: StoreInbox) -> None:
        """Take from the predecessor what need not be copied."""
        if self._predecessor is None:
            return
        inbox.date_manifests(self._predecessor.modified)
        with contextlib.suppress(FileNotFoundError), Directory.open(self._predecessor.root / BLOBS) as neighbour:
            inbox.link(neighbour, trust=self._trust_existing, jobs=self._jobs, progress=self._progress)

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
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, (UnsafeError, FormatError, LimitError, NoSpaceError, UsageError))
