"""
The folder `.ostore` beside `blobs/`: where everything is staged, and where what an interrupted command had finished
waits for the next one. Ollama looks at `blobs/` and `manifests/` only.

    .ostore/lock               held while something is published; never removed, or two could hold it
    .ostore/tx/<pid>-<random>/ one per running command, 0700, itself locked: that is how one sees a command alive
        sha256-HEX.part        being written, or the first part of a blob whose source can go on from there
        sha256-HEX             whole, verified, on the disk
        sha256-HEX.pin         a second name for a blob that was there already and is relied upon
        m/NNN.json             manifests
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import UnsafeError
from ostore.formats.store_layout import BLOBS, PART, TRANSACTION_MANIFESTS, TRANSACTIONS, WORKSPACE
from ostore.streams.durable import FILE_MODE, Directory, Ownership, current_user, remove_tree
from ostore.streams.file_lock import try_lock, wait_lock

_WORLD_WRITABLE = stat.S_IWOTH


class Workspace:
    """The open `.ostore` of one store. Close it."""

    def __init__(self, directory: Directory, ownership: Ownership) -> None:
        """`ownership` is that of the store: everything published, and everything here, is given it."""
        self.directory = directory
        self.ownership = ownership
        self._running: str | None = None

    @classmethod
    def open(cls, root: Directory) -> Workspace:
        """
        Open it beside the real `blobs/` (people put a link there), creating it with that folder's owner and mode.

        Raises UnsafeError for one that somebody else could meddle with, OSError if it cannot be on the same disk.
        """
        blobs, workspace = root.path / BLOBS, workspace_path(root.path)
        with (
            Directory.open(blobs if blobs.exists() else root.path) as model,
            Directory.open(workspace.parent) as parent,
        ):
            if parent.status().st_dev != model.status().st_dev:
                raise OSError(errno.EXDEV, "the folder above blobs is on another disk", str(parent.path))
            status = parent.lstat(WORKSPACE)
            if status is not None:
                _refuse_foreign(workspace, status, model.status())
            return cls(parent.make_child(WORKSPACE, model.ownership), model.ownership)

    def close(self) -> None:
        self.directory.close()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the store; raises BusyError after 60 s."""
        fd, _ = self.directory.open_or_create("lock", FILE_MODE, writable=os.name == "nt")
        try:
            # Always: whoever created it may have been killed before this.
            self.ownership.give_file(fd)
            wait_lock(fd, str(self.directory.path / "lock"))
            yield
        finally:
            os.close(fd)

    def refuse_without_locks(self) -> None:
        """
        Make sure that the lock, held by us now, keeps others out. Raises OSError where everybody gets through.

        Taking models in works without, because it only adds; removing does not.
        """
        fd, _ = self.directory.open_or_create("lock", FILE_MODE, writable=os.name == "nt")
        try:
            if try_lock(fd):
                path = str(self.directory.path / "lock")
                raise OSError(errno.ENOLCK, "locks do not keep others out on this disk, so nothing is removed", path)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Directory]:
        """A fresh, locked folder for one command. What the caller leaves in it stays for the next one."""
        with self.directory.make_child(TRANSACTIONS, self.ownership) as transactions:
            while True:
                name = f"{os.getpid()}-{os.urandom(4).hex()}"
                directory = transactions.make_child(name, Ownership(*current_user(), 0o700))
                # Between the two steps another command may have taken it for a dead one.
                if directory.fd is None or (try_lock(directory.fd) and transactions.lstat(name) is not None):
                    break
                directory.close()
            self._running = name
            try:
                with directory:
                    yield directory
            finally:
                # Stays if something was left in it for the next command; that must not become this one's outcome.
                with contextlib.suppress(OSError):
                    transactions.rmdir(name)

    def abandoned(self) -> Iterator[Directory]:
        """The folders of commands that are dead: mine, or anybody's for root. Each is locked while it is yielded."""
        with self.directory.make_child(TRANSACTIONS, self.ownership) as transactions:
            for name in transactions.names() if self._locks_exclude(transactions) else ():
                # One that cannot be cleared now does not keep this command from its work.
                with contextlib.suppress(OSError):
                    directory = transactions.child(name)
                    with directory:
                        owner = directory.status().st_uid
                        if directory.fd is None or current_user()[0] not in {0, owner} or not try_lock(directory.fd):
                            continue
                        yield directory
                        clear_transaction(directory, keep_finished=True)
                    transactions.rmdir(name)

    def _locks_exclude(self, transactions: Directory) -> bool:
        """Whether locks tell the living from the dead here: ours, asked for once more, must be refused."""
        if self._running is None:
            return True
        with transactions.child(self._running) as running:
            return running.fd is not None and not try_lock(running.fd)


def workspace_path(root: Path) -> Path:
    """Where it is or would be: beside the real `blobs/`, because people put a link there."""
    blobs = root / BLOBS
    return (blobs.resolve().parent if blobs.exists() else root) / WORKSPACE


def dead_transactions(workspace: Path) -> frozenset[str]:
    """
    The folders of commands that are dead and that we may clear, by name; nothing is created, so on any disk.

    Where locks exclude nobody every one of ours seems dead: whoever removes asks `refuse_without_locks` first.
    """
    dead = set()
    try:
        transactions = Directory.open(workspace / TRANSACTIONS)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    with transactions:
        for name in transactions.names():
            # One that we may not open is somebody else's.
            with contextlib.suppress(OSError), transactions.child(name) as directory:
                is_ours = current_user()[0] in {0, directory.status().st_uid}
                if is_ours and directory.fd is not None and try_lock(directory.fd):
                    dead.add(name)
    return frozenset(dead)


def clear_transaction(transaction: Directory, *, keep_finished: bool) -> None:
    """Remove what a command no longer needs; finished blobs, and begun ones, may be kept for the next one."""
    for name in transaction.names():
        if name == TRANSACTION_MANIFESTS:
            remove_tree(transaction, name)
        elif not (keep_finished and Digest.of_filename(name.removesuffix(PART))):
            transaction.unlink(name)


def is_published(transaction: Directory, name: str) -> bool:
    """Whether a staged blob has a second name, in `blobs/`, so that this one is of no more use."""
    status = transaction.lstat(name)
    return Digest.of_filename(name) is not None and status is not None and status.st_nlink > 1


def _refuse_foreign(path: Path, status: os.stat_result, blobs: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeError(f"{path}: expected a folder, got something else")
    if os.name == "nt":  # pragma: no cover - Windows
        return
    if status.st_mode & _WORLD_WRITABLE and not blobs.st_mode & _WORLD_WRITABLE:
        raise UnsafeError(f"{path}: everybody may write there")
    if status.st_uid not in {0, current_user()[0], blobs.st_uid} and status.st_gid != blobs.st_gid:
        raise UnsafeError(f"{path}: belongs to user {status.st_uid}, who does not own the store")
