"""Find the blobs that a store has already. Each sound one gets a second name, a pin, so that no removal takes it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, IntegrityError
from ostore.formats.manifest import Descriptor
from ostore.formats.store_layout import PIN
from ostore.places.store.receiving.terms import ReceivingTerms
from ostore.streams.durable import Directory
from ostore.streams.links import mode_of
from ostore.streams.pool import Pool
from ostore.streams.progress import Progress, stoppable, watching
from ostore.streams.verified import hash_file


class Pinning:
    """Looks into `blobs/`, and pins the sound blobs in the folder of a transaction."""

    def __init__(
        self, blobs: Directory, transaction: Directory, damaged: Collection[Digest] | None, terms: ReceivingTerms
    ) -> None:
        """`damaged` blobs are known to be bad. If given, even empty, a file that the disk cannot read is bad too."""
        self._blobs = blobs
        self._transaction = transaction
        self._is_repair = damaged is not None
        self._damaged = frozenset(damaged or ())
        self._terms = terms

    def pin(self, wanted: Iterable[Descriptor]) -> tuple[list[Descriptor], list[Descriptor]]:
        """
        Return the wanted blobs that are sound, pinned, and those whose file in `blobs/` is not sound.

        With `trust_existing`, a file of the right size is sound. Raises DamagedStoreError for an entry that is neither
        file nor link, OSError.
        """
        there, damaged = self._standing(wanted)
        # The largest first: if one began last, a single thread would be busy when all others are done.
        there.sort(key=lambda blob: -blob.size)
        doubted = [blob for blob in there if not self._terms.trusts(blob.digest)]
        if doubted:
            self._terms.progress.phase("verifying sha256 digest", sum(blob.size for blob in doubted))
        with Pool(max(1, self._terms.jobs)) as pool, stoppable(self._terms.progress) as told:
            pinned = list(pool.map(lambda blob: self._pinned_if_sound(blob, told), there))
        sound = [blob for blob, is_sound in zip(there, pinned, strict=True) if is_sound]
        return sound, damaged + [blob for blob, is_sound in zip(there, pinned, strict=True) if not is_sound]

    def _stands(self, blob: Descriptor) -> bool | None:
        """Return whether the entry with the blob's name may be the blob; None if there is no entry."""
        status = self._blobs.lstat(blob.digest.filename)
        if status is None:
            return None
        if stat.S_ISLNK(mode_of(status)):
            # A link that is no good is replaced, and its target is left alone.
            target = None if self._terms.links else self._blobs.target_of(blob.digest.filename)
            return target is not None and target.st_size == blob.size and blob.digest not in self._damaged
        if stat.S_ISREG(status.st_mode):
            return status.st_size == blob.size and blob.digest not in self._damaged
        # A person has to look at anything else.
        raise DamagedStoreError(f"blobs/{blob.digest.filename}: expected a regular file")

    def _standing(self, wanted: Iterable[Descriptor]) -> tuple[list[Descriptor], list[Descriptor]]:
        """Return the wanted blobs that have a file that may be sound, and those whose entry cannot be."""
        standing = [(blob, stands) for blob in wanted if (stands := self._stands(blob)) is not None]
        return [blob for blob, stands in standing if stands], [blob for blob, stands in standing if not stands]

    def _pinned_if_sound(self, blob: Descriptor, progress: Progress) -> bool:
        filename, pin = blob.digest.filename, blob.digest.filename + PIN
        try:
            # Pin first, then hash the pinned file: the name in `blobs/` may soon belong to another file.
            is_pinned = self._blobs.link(filename, self._transaction, pin)
            where, name = (self._transaction, pin) if is_pinned else (self._blobs, filename)
            is_link = _is_link(self._blobs, filename)
            if is_link:
                # A relative link leads to its file only from `blobs/`. A pin of it still keeps its name from removal.
                where, name = self._blobs, filename
            if not self._terms.trusts(blob.digest) and not is_sound(where, name, blob, progress, follows=is_link):
                self._transaction.unlink(pin)
                return False
            # Ollama does not sync what it writes, and a model of ours will rely on this blob.
            where.sync_entry(name, follows=is_link)
            # Ollama touches a blob that it reuses, because its prune goes by the mtime.
            self._blobs.touch(filename)
        except FileNotFoundError:
            return False
        except OSError as error:
            if not self._is_repair or error.errno != errno.EIO:
                raise
            self._transaction.unlink(pin)
            return False
        return True


def _is_link(directory: Directory, name: str) -> bool:
    status = directory.lstat(name)
    return status is not None and stat.S_ISLNK(mode_of(status))


def is_sound(
    directory: Directory, filename: str, blob: Descriptor, progress: Progress, *, follows: bool = False
) -> bool:
    """
    Hash a file that has a blob's name, and return whether it is the blob. With `follows`, it may be a link to a file.

    Raises OSError, because a failed read does not prove damage, and DamagedStoreError if it is not a regular file.
    """
    try:
        fd = directory.open_file(filename, follows=follows)
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
