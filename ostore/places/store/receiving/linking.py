"""Stage blobs without copying: give a file of another store on the same disk a second name."""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from ostore.formats.manifest import Descriptor
from ostore.formats.store_layout import PART
from ostore.places.store.receiving.pinning import is_sound
from ostore.places.store.receiving.terms import ReceivingTerms
from ostore.streams.durable import Directory
from ostore.streams.owners import Ownership
from ostore.streams.pool import Pool
from ostore.streams.progress import Progress, stoppable


def link_files(
    wanted: Iterable[Descriptor],
    file_of: Callable[[Descriptor], Path | None],
    transaction: Directory,
    ownership: Ownership,
    terms: ReceivingTerms,
) -> list[Descriptor]:
    """
    Stage the wanted blobs that have a file to link, and return them.

    A file on another disk, of another owner or with other bytes is not linked. Raises OSError.
    """
    paths = [(blob, path) for blob in wanted if (path := file_of(blob))]
    with contextlib.ExitStack() as opened:
        try:
            parents = {path.parent for _, path in paths}
            folders = {parent: opened.enter_context(Directory.open(parent)) for parent in parents}
        except FileNotFoundError:
            # Another command has just removed the folder. Copying says which blob is missing.
            return []
        link = _Link(transaction, ownership, terms)
        found = (_File(blob, folders[path.parent], path.name) for blob, path in paths)
        files = [file for file in found if link.can_be(file)]
        if files and not terms.trust_existing:
            terms.progress.phase("verifying sha256 digest", sum(file.blob.size for file in files))
        pool = opened.enter_context(Pool(max(1, terms.jobs)))
        told = opened.enter_context(stoppable(terms.progress))
        linked = pool.map(lambda file: link.stage(file, told), files)
        return [file.blob for file, is_staged in zip(files, linked, strict=True) if is_staged]


class _File(NamedTuple):
    blob: Descriptor
    folder: Directory
    name: str


class _Link:
    def __init__(self, transaction: Directory, ownership: Ownership, terms: ReceivingTerms) -> None:
        self._transaction = transaction
        self._device = transaction.status().st_dev
        self._ownership = ownership
        self._trust = terms.trust_existing

    def can_be(self, file: _File) -> bool:
        """Return whether a file may be the blob and may be linked here."""
        status = file.folder.lstat(file.name)
        if status is None or status.st_dev != self._device or status.st_size != file.blob.size:
            return False
        # Giving the file to our owner would take it from its present one.
        return stat.S_ISREG(status.st_mode) and self._ownership.has(status)

    def stage(self, file: _File, progress: Progress) -> bool:
        part = file.blob.digest.filename + PART
        # Hashing the files before this one may have taken hours.
        if not self.can_be(file) or not linked(file.folder, file.name, self._transaction, part):
            return False
        if not self._trust and not is_sound(self._transaction, part, file.blob, progress):
            self._transaction.unlink(part)
            return False
        # Ollama does not sync what it writes.
        self._transaction.sync_entry(part)
        self._transaction.rename(part, self._transaction, file.blob.digest.filename)
        return True


def linked(source: Directory, name: str, target: Directory, target_name: str) -> bool:
    """Give a file a second name. Returns False if that cannot be, or if there is no such file. Raises OSError."""
    try:
        # A second name could not be renamed either, nor removed.
        return source.may_rename(name) and source.link(name, target, target_name)
    except FileNotFoundError:
        return False
    except OSError as error:
        # One disk may still refuse: it has two mounts, or parts that the file system keeps apart.
        if error.errno != errno.EXDEV:
            raise
        return False
