"""Which blobs stand in a store already: each sound one is held by a second name, so that nobody's removal takes it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, IntegrityError
from ostore.formats.manifest import Descriptor
from ostore.formats.store_layout import PIN
from ostore.places.store.receiving.terms import ReceivingTerms
from ostore.streams.durable import Directory
from ostore.streams.progress import Progress, stoppable, watching
from ostore.streams.verified import hash_file


class Pinning:
    """Looks into `blobs/`, and pins in the folder of a transaction what it finds sound."""

    def __init__(
        self, blobs: Directory, transaction: Directory, damaged: Collection[Digest] | None, terms: ReceivingTerms
    ) -> None:
        """`damaged` blobs are known to be wrong. Given, even if empty, what the disk cannot read is damaged as well."""
        self._blobs = blobs
        self._transaction = transaction
        self._is_repair = damaged is not None
        self._damaged = frozenset(damaged or ())
        self._terms = terms

    def pin(self, wanted: Iterable[Descriptor]) -> tuple[list[Descriptor], list[Descriptor]]:
        """
        The blobs that stand and are sound, and those that something stands for that is not.

        Raises DamagedStoreError for what is neither a file nor a link, OSError.
        """
        there: list[Descriptor] = []
        damaged: list[Descriptor] = []
        for blob in wanted:
            stands = self._stands(blob)
            if stands is not None:
                (there if stands else damaged).append(blob)
        # The largest first: one that began last would keep a single thread busy when all others are done.
        there.sort(key=lambda blob: -blob.size)
        if there and not self._terms.trust_existing:
            self._terms.progress.phase("verifying sha256 digest", sum(blob.size for blob in there))
        with ThreadPoolExecutor(max(1, self._terms.jobs)) as pool, stoppable(self._terms.progress) as told:
            pinned = list(pool.map(lambda blob: self._pinned_if_sound(blob, told), there))
        sound = [blob for blob, is_sound in zip(there, pinned, strict=True) if is_sound]
        return sound, damaged + [blob for blob, is_sound in zip(there, pinned, strict=True) if not is_sound]

    def _stands(self, blob: Descriptor) -> bool | None:
        """Whether what has the blob's name may be the blob; None if nothing has it."""
        status = self._blobs.lstat(blob.digest.filename)
        if status is None:
            return None
        if stat.S_ISREG(status.st_mode):
            return status.st_size == blob.size and blob.digest not in self._damaged
        if not stat.S_ISLNK(status.st_mode):
            # A link is replaced, and what it leads to left alone; anything else somebody has to look at.
            raise DamagedStoreError(f"blobs/{blob.digest.filename}: expected a regular file")
        return False

    def _pinned_if_sound(self, blob: Descriptor, progress: Progress) -> bool:
        filename, pin = blob.digest.filename, blob.digest.filename + PIN
        try:
            # First the pin, then the hash of what is pinned: under its name in `blobs/` may soon be another file.
            is_pinned = self._blobs.link(filename, self._transaction, pin)
            where, name = (self._transaction, pin) if is_pinned else (self._blobs, filename)
            if not self._terms.trust_existing and not is_sound(where, name, blob, progress):
                self._transaction.unlink(pin)
                return False
            # Ollama syncs nothing that it writes, and a model of ours will stand on this.
            where.sync_entry(name)
            # As Ollama does with a blob that it reuses: its prune goes by the mtime.
            self._blobs.touch(filename)
        except FileNotFoundError:
            return False
        except OSError as error:
            if not self._is_repair or error.errno != errno.EIO:
                raise
            self._transaction.unlink(pin)
            return False
        return True


def is_sound(directory: Directory, filename: str, blob: Descriptor, progress: Progress) -> bool:
    """Hash a file that has a blob's name. OSError passes: a disk that cannot read is no proof of damage."""
    try:
        fd = directory.open_file(filename)
    except FileNotFoundError:
        return False
    try:
        with watching(blob.digest.short, blob.size, progress) as advance:
            hash_file(fd, blob, advance)
    except IntegrityError:
        return False
    finally:
        os.close(fd)
    return True
