"""
The workspace: the folder `.ostore` beside `blobs/`, where everything is staged, and where blobs that an interrupted
command has finished wait for the next one. Ollama looks only at `blobs/` and `manifests/`.

    .ostore/lock               locked while a command changes the store; never deleted, or two could hold it
    .ostore/tx/<pid>-<random>/ one for each running command, 0700, itself locked: the lock shows that the command lives
        sha256-HEX.part        a blob being written; of no use to another command
        sha256-HEX.begun       the first bytes of a blob whose source can go on from there
        sha256-HEX             a whole blob, verified, on the disk
        sha256-HEX.pin         a pin: a second name for a blob that the store had already and that is relied upon
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
from ostore.formats.store_layout import BEGUN, BLOBS, TRANSACTION_MANIFESTS, TRANSACTIONS, WORKSPACE
from ostore.streams.durable import FILE_MODE, Directory, Ownership, current_user, remove_tree
from ostore.streams.file_lock import try_lock, wait_lock

_WORLD_WRITABLE = stat.S_IWOTH


class Workspace:
    """The open `.ostore` of one store. Close it."""

    def __init__(self, directory: Directory, ownership: Ownership) -> None:
        """`ownership` is that of the store. Everything published, and everything here, gets it."""
        self.directory = directory
        self.ownership = ownership
        self._running: str | None = None

    @classmethod
    def open(cls, root: Directory) -> Workspace:
        """
        Open `.ostore` beside the target of `blobs/`, which may be a link. Create it with that folder's owner and mode.

        Raises UnsafeError if another user could change what is in it, OSError if it cannot be on the disk of `blobs/`.
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
        """Hold the lock of the store. Raises BusyError after 60 s."""
        fd, _ = self.directory.open_or_create("lock", FILE_MODE, writable=os.name == "nt")
        try:
            # Do this every time: the command that created the file may have been killed before it could.
            self.ownership.give_file(fd)
            wait_lock(fd, str(self.directory.path / "lock"))
            yield
        finally:
            os.close(fd)

    def refuse_without_locks(self) -> None:
        """
        Make sure that the lock, which the caller holds, keeps others out. Raises OSError if it does not.

        Taking models in is safe without locks, because it only adds. Removing is not.
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
        """Yield a new, locked folder for one command. What the caller leaves in it stays for the next command."""
        with self.directory.make_child(TRANSACTIONS, self.ownership) as transactions:
            name, directory = _new_transaction(transactions)
            self._running = name
            try:
                with directory:
                    yield directory
            finally:
                # A folder that is not empty stays for the next command. That is no failure of this one.
                with contextlib.suppress(OSError):
                    transactions.rmdir(name)

    def abandoned(self) -> Iterator[Directory]:
        """Yield the folders of dead commands of this user, or of any user for root. Each is locked meanwhile."""
        with self.directory.make_child(TRANSACTIONS, self.ownership) as transactions:
            for name in transactions.names() if self._locks_exclude(transactions) else ():
                # A folder that cannot be cleared now must not stop this command.
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
        """Return whether locks show here which commands live: to lock our own folder once more must fail."""
        if self._running is None:
            return True
        with transactions.child(self._running) as running:
            return running.fd is not None and not try_lock(running.fd)


def workspace_path(root: Path) -> Path:
    """Return where `.ostore` is or would be: beside the target of `blobs/`, which may be a link."""
    blobs = root / BLOBS
    return (blobs.resolve().parent if blobs.exists() else root) / WORKSPACE


def _new_transaction(transactions: Directory) -> tuple[str, Directory]:
    """Create a folder and lock it. Return its name and the open folder."""
    while True:
        name = f"{os.getpid()}-{os.urandom(4).hex()}"
        directory = transactions.make_child(name, Ownership(*current_user(), 0o700))
        # Before the folder is locked, another command may take it for a dead one's and remove it.
        if directory.fd is None or (try_lock(directory.fd) and transactions.lstat(name) is not None):
            return name, directory
        directory.close()


def dead_transactions(workspace: Path) -> frozenset[str]:
    """
    Return the names of the folders of dead commands that we may clear. Nothing is created, so any disk will do.

    Where locks keep nothing out, even running commands seem dead. So call `refuse_without_locks` before you remove.
    """
    dead = set()
    try:
        transactions = Directory.open(workspace / TRANSACTIONS)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    with transactions:
        for name in transactions.names():
            # A folder that we may not open belongs to another user.
            with contextlib.suppress(OSError), transactions.child(name) as directory:
                is_ours = current_user()[0] in {0, directory.status().st_uid}
                if is_ours and directory.fd is not None and try_lock(directory.fd):
                    dead.add(name)
    return frozenset(dead)


def clear_transaction(transaction: Directory, *, keep_finished: bool) -> None:
    """Clear a transaction. With `keep_finished`, finished blobs and begun ones stay for the next command."""
    for name in transaction.names():
        if name == TRANSACTION_MANIFESTS:
            remove_tree(transaction, name)
        elif not (keep_finished and Digest.of_filename(name.removesuffix(BEGUN))):
            transaction.unlink(name)


def is_published(transaction: Directory, name: str) -> bool:
    """Return whether a staged blob has another name, here or in another store, so that the staged name is useless."""
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
