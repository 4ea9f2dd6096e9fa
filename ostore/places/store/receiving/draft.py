"""Take files in whose digests are not known before they are read: what `create` makes a model of."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError, UsageError
from ostore.formats.manifest import Descriptor
from ostore.formats.selection import Selection
from ostore.formats.store_layout import PART
from ostore.places.store.receiving.inbox import StoreInbox
from ostore.places.store.receiving.linking import linked
from ostore.places.store.receiving.pinning import is_sound
from ostore.places.store.workspace import Workspace
from ostore.streams.chunks import Chunk, read_chunks
from ostore.streams.durable import Directory, naming, sync_file
from ostore.streams.extents import clone_file
from ostore.streams.links import open_to_read
from ostore.streams.progress import Progress, watched, watching
from ostore.streams.same_file import stamp_of
from ostore.streams.space import refuse_lack_of_space
from ostore.streams.verified import digest_file, hashed_beside
from ostore.streams.writing import finish_file, write_unfinished

# Opens an inbox in the same transaction. The staged blobs are not missing in it; `trusted` ones are not hashed.
Receive = Callable[[Selection, tuple[Descriptor, ...], frozenset[Digest]], AbstractContextManager[StoreInbox]]


class StoreDraft:
    """A transaction that takes files in and learns their digests, and then the model that is made of them."""

    def __init__(
        self, blobs: Path, workspace: Workspace, transaction: Directory, receive: Receive, progress: Progress
    ) -> None:
        """`blobs` is the folder of the store's blobs, which need not exist."""
        self._blobs = blobs
        self._workspace = workspace
        self._transaction = transaction
        self._receive = receive
        self._progress = progress
        self._staged: dict[Digest, Descriptor] = {}
        self._sound: set[Digest] = set()
        self._taken = 0
        self.copied_bytes = self.linked_bytes = 0

    def stage(self, path: Path, *, stamp: tuple[int, ...], link: bool = False) -> Descriptor:
        """
        Take a regular file in: with `link` by a second name, else as a clone where the disk can, else as a copy.

        What the store has in a sound blob is not copied. The file is hashed, and on the disk when this returns. A link
        is followed. Raises UsageError if it cannot be linked, IntegrityError if it is not as its stamp says or changes
        meanwhile, NoSpaceError, OSError.
        """
        part = self._new_name()
        with contextlib.ExitStack() as opened:
            fd = open_to_read(path)
            opened.callback(os.close, fd)
            with naming(path):
                before = os.fstat(fd)
                if stamp_of(before) != stamp:
                    raise _changed(path)
                if link:
                    digest = self._linked(path, part, before)
                else:
                    digest = (
                        self._cloned(fd, path, part, before.st_size)
                        or self._found(fd, path, before.st_size)
                        or self._copied(fd, path, part, before)
                    )
                after = os.fstat(fd)
            if stamp_of(after) != stamp:
                raise _changed(path)
        blob = Descriptor(digest, before.st_size)
        return blob if digest in self._sound else self._keep(part, blob)

    def write(self, chunks: Iterable[Chunk], size: int, item: str) -> Descriptor:
        """Take in a blob that is put together from `chunks`, `size` bytes in all. `item` names it in progress."""
        part = self._new_name()
        refuse_lack_of_space(self._transaction, [size], self._blobs.parent)
        hasher = hashlib.sha256()
        passing = watched(hashed_beside(chunks, hasher), item, size, self._progress)
        fd = write_unfinished(self._transaction, part, passing)
        finish_file(fd, self._transaction.path / part, self._workspace.ownership)
        self.copied_bytes += size
        return self._keep(part, Descriptor(Digest(hasher.hexdigest()), size))

    def receive(self, selection: Selection, trusted: frozenset[Digest]) -> AbstractContextManager[StoreInbox]:
        """
        Open the inbox of a model. What is staged is not missing; blobs of the store in `trusted` go by their size.

        Leaving the block publishes the model; an exception publishes nothing.
        """
        return self._receive(selection, tuple(self._staged.values()), trusted | self._sound)

    def _new_name(self) -> str:
        self._taken += 1
        return f"{self._taken:06}{PART}"

    def _keep(self, part: str, blob: Descriptor) -> Descriptor:
        if blob.digest in self._staged:
            # A rename would do nothing if both are names of one file.
            self._transaction.unlink(part)
        else:
            self._transaction.rename(part, self._transaction, blob.digest.filename)
            self._staged[blob.digest] = blob
        return blob

    def _linked(self, path: Path, part: str, status: os.stat_result) -> Digest:
        real = path.resolve()
        with Directory.open(real.parent) as folder:
            if status.st_mode & stat.S_IWOTH and os.name != "nt":
                raise self._unlinkable(path, "everybody may write to it, and so to the blob")
            # Giving the file to the owner of the store would take it from its present one.
            if not self._workspace.ownership.has(status):
                raise self._unlinkable(path, "it has another owner than the store")
            if not linked(folder, real.name, self._transaction, part):
                raise self._unlinkable(path, "it is on another disk than the store, or the disk forbids a second name")
        staged = self._transaction.lstat(part)
        if staged is None or not os.path.samestat(staged, status):
            raise _changed(path)
        digest = self._hashed(part, path, status.st_size)
        # Whoever wrote the file may not have synced it.
        self._transaction.sync_entry(part)
        self.linked_bytes += status.st_size
        return digest

    def _cloned(self, source: int, path: Path, part: str, size: int) -> Digest | None:
        """Return the digest of a clone, or None if the disk cannot clone."""
        target = self._transaction.create(part)
        try:
            with naming(self._transaction.path / part):
                if not clone_file(source, target):
                    return None
                self._workspace.ownership.give_file(target)
                sync_file(target)
        finally:
            os.close(target)

        return self._hashed(part, path, size)

    def _found(self, fd: int, path: Path, size: int) -> Digest | None:
        """Return the digest of a file whose bytes are in a blob. It is hashed only if a blob has its size."""
        with contextlib.suppress(FileNotFoundError), Directory.open(self._blobs) as blobs:
            names = (name for name in blobs.names() if Digest.of_filename(name))
            if not any((status := blobs.lstat(name)) and status.st_size == size for name in names):
                return None
            with watching(path.name, size, self._progress) as advance:
                digest = digest_file(fd, advance)
            os.lseek(fd, 0, os.SEEK_SET)
            if digest in self._staged:
                return digest
            blob = Descriptor(digest, size)
            # Staged like a copy, if the disk has hard links: then it stays even if somebody removes it meanwhile.
            is_kept = blobs.link(digest.filename, self._transaction, digest.filename)
            self._progress.phase("verifying sha256 digest", size)
            if is_sound(self._transaction if is_kept else blobs, digest.filename, blob, self._progress):
                self._sound.add(digest)
                if is_kept:
                    self._staged[digest] = blob
                return digest
            self._transaction.unlink(digest.filename)
        return None

    def _copied(self, fd: int, path: Path, part: str, status: os.stat_result) -> Digest:
        self._transaction.unlink(part)
        refuse_lack_of_space(self._transaction, [status.st_size], self._blobs.parent)
        hasher = hashlib.sha256()
        # One byte more than is asked for comes, if there is one.
        chunks = watched(read_chunks(fd, status.st_size - 1), path.name, status.st_size, self._progress)
        target = write_unfinished(self._transaction, part, hashed_beside(chunks, hasher))
        finish_file(target, self._transaction.path / part, self._workspace.ownership)
        self.copied_bytes += status.st_size
        return Digest(hasher.hexdigest())

    def _hashed(self, part: str, path: Path, size: int) -> Digest:
        fd = self._transaction.open_file(part)
        try:
            with watching(path.name, size, self._progress) as advance:
                return digest_file(fd, advance)
        finally:
            os.close(fd)

    def _unlinkable(self, path: Path, why: str) -> UsageError:
        return UsageError(f"{path}: cannot be linked: {why}", hint="without --link, it is cloned or copied")


def _changed(path: Path) -> IntegrityError:
    return IntegrityError(f"{path}: changed while it was read")
