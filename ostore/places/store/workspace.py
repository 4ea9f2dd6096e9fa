"""
The workspace: the folder `.ostore` beside `blobs/`, where everything is staged, and where blobs that an interrupted
command has finished wait for the next one. Ollama looks only at `blobs/` and `manifests/`.

    .ostore/lock               locked while a command changes the store; never deleted, or two could hold it
    .ostore/tx/<pid>-<random>/ one for each running command, 0700
        alive                  locked by the command: the lock shows that it lives. Goes last
        sha256-HEX.part        a blob being written
        sha256-HEX.begun       the first bytes of a blob, for a source that can go on from there
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
from ostore.formats.errors import BusyError, OstoreError, UnsafeError
from ostore.formats.store_layout import ALIVE, BEGUN, BLOBS, TRANSACTION_MANIFESTS, TRANSACTIONS, WORKSPACE
from ostore.streams.durable import Directory, remove_tree
from ostore.streams.file_lock import try_lock, wait_lock
from ostore.streams.links import mode_of
from ostore.streams.owners import FILE_MODE, Ownership, current_user, is_ours, is_root

# So often is a new folder made, if others take it away.
_ATTEMPTS = 100
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
        fd, _ = self.directory.open_or_create("lock", FILE_MODE, writable=False)
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
        fd, _ = self.directory.open_or_create("lock", FILE_MODE, writable=False)
        try:
            if try_lock(fd):
                path = str(self.directory.path / "lock")
                raise OSError(errno.ENOLCK, "locks do not keep others out on this disk, so nothing is removed", path)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Directory]:
        """Yield a new folder for one command, held by it. What the caller leaves in it stays for the next command."""
        with self.directory.make_child(TRANSACTIONS, self.ownership) as transactions:
            name, directory, alive = _new_transaction(transactions)
            self._running = name
            with directory:
                try:
                    yield directory
                finally:
                    _let_go(transactions, directory, alive)

    def abandoned(self) -> Iterator[Directory]:
        """Yield the folders of dead commands of this user, or of any user for root. Each is held meanwhile."""
        with self.directory.make_child(TRANSACTIONS, self.ownership) as transactions:
            for name in transactions.names() if self._locks_exclude(transactions) else ():
                # A folder that cannot be cleared now must not stop this command.
                with contextlib.suppress(OSError, OstoreError), transactions.child(name) as directory:
                    alive = _hold(directory) if _may_clear(directory) else None
                    if alive is None:
                        continue
                    try:
                        yield directory
                        clear_transaction(directory, keep_finished=True)
                    finally:
                        _let_go(transactions, directory, alive)

    def clear_abandoned(self) -> None:
        """Remove what dead commands have left, but for finished and begun blobs. Those wait for a command in need."""
        for _ in self.abandoned():
            pass

    def _locks_exclude(self, transactions: Directory) -> bool:
        """Return whether locks show here which commands live: to lock our own file once more must fail."""
        if self._running is None:
            return True
        with transactions.child(self._running) as running:
            return not _is_dead(running)


def workspace_path(root: Path) -> Path:
    """Return where `.ostore` is or would be: beside the target of `blobs/`, which may be a link."""
    blobs = root / BLOBS
    return (blobs.resolve().parent if blobs.exists() else root) / WORKSPACE


def _new_transaction(transactions: Directory) -> tuple[str, Directory, int]:
    """Create a folder and hold it. Return its name, the open folder and its open lock."""
    for _ in range(_ATTEMPTS):
        name = f"{os.getpid()}-{os.urandom(4).hex()}"
        # Before the folder is held, another command may take it for a dead one's and remove it.
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as unless_held:
            directory = unless_held.enter_context(transactions.make_child(name, Ownership.private()))
            if (alive := _hold(directory)) is not None:
                unless_held.pop_all()
                return name, directory, alive
    raise BusyError(f"{transactions.path}: other commands take away each new folder")


def _hold(transaction: Directory) -> int | None:
    """
    Lock the file that shows that a command lives in this folder. It is created if absent.

    Returns its descriptor, or None if another command holds the folder or has just let it go. Raises UnsafeError or
    DamagedStoreError if the entry is no file, OSError.
    """
    fd, _ = transaction.open_or_create(ALIVE, 0o600, writable=True)
    with contextlib.ExitStack() as unless_held:
        unless_held.callback(os.close, fd)
        entry = transaction.lstat(ALIVE) if try_lock(fd) else None
        # The lock of a file that has lost its name keeps nobody out: the next command creates another file.
        if entry is None or not os.path.samestat(entry, os.fstat(fd)):
            return None
        unless_held.pop_all()
    return fd


def _let_go(transactions: Directory, transaction: Directory, alive: int) -> None:
    """Remove a folder that we hold, if nothing is left in it. Otherwise it stays for the next command."""
    # A folder that cannot be removed is no failure of this command.
    try:
        with contextlib.suppress(OSError):
            if transaction.names() == [ALIVE]:
                transaction.unlink(ALIVE)
    finally:
        os.close(alive)
    with contextlib.suppress(OSError):
        transactions.rmdir(transaction.path.name)


def _may_clear(transaction: Directory) -> bool:
    return is_root() or is_ours(transaction.status())


def _is_dead(transaction: Directory) -> bool:
    """Return whether no command lives in this folder. Nothing is created. Raises OSError, DamagedStoreError."""
    try:
        fd = transaction.open_file(ALIVE)
    except FileNotFoundError:
        # The command ended before it could create the file, or a power cut took the file.
        return True
    try:
        return try_lock(fd)
    finally:
        os.close(fd)


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
            with contextlib.suppress(OSError, OstoreError), transactions.child(name) as directory:
                if _may_clear(directory) and _is_dead(directory):
                    dead.add(name)
    return frozenset(dead)


def staged_blobs(workspace: Path) -> dict[Digest, int]:
    """Return the blobs that dead commands have finished and the next import can take over, with their sizes."""
    found: dict[Digest, int] = {}
    for name in sorted(dead_transactions(workspace)):
        # The next command may be taking it over now.
        with (
            contextlib.suppress(OSError, OstoreError),
            Directory.open(workspace / TRANSACTIONS) as transactions,
            transactions.child(name) as folder,
        ):
            for filename in folder.names():
                digest, status = Digest.of_filename(filename), folder.lstat(filename)
                if digest and status and stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    found[digest] = status.st_size
    return found


def clear_transaction(transaction: Directory, *, keep_finished: bool) -> None:
    """Clear a transaction that we hold. With `keep_finished`, finished and begun blobs stay for the next command."""
    for name in transaction.names():
        if name == TRANSACTION_MANIFESTS:
            remove_tree(transaction, name)
        elif name != ALIVE and not (keep_finished and Digest.of_filename(name.removesuffix(BEGUN))):
            transaction.unlink(name)


def is_published(transaction: Directory, name: str) -> bool:
    """Return whether a staged blob has another name, here or in another store, so that the staged name is useless."""
    status = transaction.lstat(name)
    return Digest.of_filename(name) is not None and status is not None and status.st_nlink > 1


def _refuse_foreign(path: Path, status: os.stat_result, blobs: os.stat_result) -> None:
    if not stat.S_ISDIR(mode_of(status)):
        raise UnsafeError(f"{path}: expected a folder, got something else")
    user = current_user()
    if user is None:  # pragma: no cover - Windows
        return
    if status.st_mode & _WORLD_WRITABLE and not blobs.st_mode & _WORLD_WRITABLE:
        raise UnsafeError(f"{path}: everybody may write there")
    if status.st_uid not in {0, user.uid, blobs.st_uid} and status.st_gid != blobs.st_gid:
        raise UnsafeError(f"{path}: belongs to user {status.st_uid}, who does not own the store")
