"""
Taking models into a store, first half: everything is staged, checked and on the disk before anything becomes visible.

What the second half does with it is in `publication`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, DamagedStoreError, IntegrityError, NotFoundError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.outcome import Outcome, Received
from ostore.formats.selection import Selection
from ostore.formats.store_layout import PART, PIN
from ostore.places.store.receiving.publication import Publication, StagedManifest
from ostore.places.store.receiving.staging import open_staging, opened_if_there, quietly
from ostore.places.store.store import is_regular
from ostore.places.store.workspace import Workspace, is_published
from ostore.streams.chunks import Chunk, forget_cached
from ostore.streams.durable import Directory
from ostore.streams.progress import Progress, stoppable, watching
from ostore.streams.verified import hash_file, verified
from ostore.streams.writing import finish_file, write_file, write_unfinished

# Blobs written, but still on their way to the disk: a kill may cost as much, and an import that goes on writes it anew.
_MAX_UNFINISHED, _MAX_UNFINISHED_BYTES = 8, 64 * 1024 * 1024
# Digests in one line of an error; `inspect` has them all.
_MAX_LISTED = 5


class StoreInbox:
    """One transaction: `missing` is what has to be written before the manifests can be. Close it."""

    def __init__(
        self,
        root: Directory,
        workspace: Workspace,
        transaction: Directory,
        selection: Selection,
        damaged: Collection[Digest] | None = None,
    ) -> None:
        """
        `damaged` are blobs that are wanted for themselves, because what stands for them is known to be wrong.

        Given, even if empty, it means repairing: what is replaced is kept in quarantine, and what the disk cannot read
        counts as damaged.
        """
        self._is_repair = damaged is not None
        self._damaged = frozenset(damaged or ())
        self._root = root
        self._workspace = workspace
        self._transaction = transaction
        self._selection = selection
        with contextlib.ExitStack() as resources:
            self._resources = resources
            self._blobs = opened_if_there(root, "blobs", resources)
            self._staging = open_staging(root, workspace, transaction, resources)
            self._resources = resources.pop_all()
        self._promised = {model.name: model.manifest_digest for model in selection.models}
        self._staged: dict[ModelName, str] = {}
        self._unfinished: dict[Digest, tuple[Descriptor, int]] = {}
        self._present: dict[Digest, Descriptor] = {}
        self._resumed: dict[Digest, Descriptor] = {}
        self._written: dict[Digest, Descriptor] = {}
        self._repaired: dict[Digest, Descriptor] = {}
        self._linked: dict[Digest, Descriptor] = {}
        self._modified: Mapping[ModelName, int] = {}
        self._set_aside: tuple[str, ...] = ()

    @property
    def selection(self) -> Selection:
        """What is going to be published."""
        return self._selection

    @property
    def missing(self) -> tuple[Descriptor, ...]:
        """Blobs that are neither in the store nor staged, in the order of the selection."""
        return tuple(blob for blob in self._selection.blobs if not self._holds(blob))

    def close(self) -> None:
        for _, fd in self._unfinished.values():
            os.close(fd)
        self._unfinished.clear()
        self._resources.close()

    def received(self, outcomes: Mapping[ModelName, Outcome]) -> Received:
        """What was taken in, once it is published."""
        return Received(
            outcomes=tuple(outcomes.items()),
            written=tuple(self._written.values()),
            resumed=tuple(self._resumed.values()),
            present=tuple(self._present.values()),
            repaired=tuple(self._repaired.values()),
            linked=tuple(self._linked.values()),
            set_aside=self._set_aside,
        )

    def date_manifests(self, modified: Mapping[ModelName, int]) -> None:
        """Let these manifests have these times (nanoseconds since 1970) instead of now."""
        self._modified = modified

    def find_present(self, *, trust: bool, jobs: int, progress: Progress) -> None:
        """
        Find out which blobs are there and sound, and pin those so that nobody's removal can take them away.

        Raises NotFoundError if a blob that the bundle only builds on is not among them.
        """
        if self._blobs is not None:
            self._pin_sound(self._blobs, trust=trust, jobs=jobs, progress=progress)
        lacking = [blob.digest for blob in self._selection.requires if not self._holds(blob)]
        if lacking:
            listed = ", ".join(map(str, lacking[:_MAX_LISTED])) + (", …" if len(lacking) > _MAX_LISTED else "")
            raise NotFoundError(f"the bundle builds on {len(lacking)} blobs that are not in the store: {listed}")

    def adopt(self, progress: Progress) -> None:
        """Take over what interrupted commands had finished, once it is hashed again, and clear up after them."""
        wanted = {blob.digest.filename: blob for blob in self._selection.blobs}
        for abandoned in self._workspace.abandoned():
            names = abandoned.names()
            if finished := [blob for name in names if (blob := wanted.get(name)) and not self._holds(blob)]:
                progress.phase("verifying sha256 digest", sum(blob.size for blob in finished))
            for name in names:
                blob = wanted.get(name)
                # What cannot be read or removed there is no loss: the source has it.
                with contextlib.suppress(OSError, DamagedStoreError):
                    if blob and not self._holds(blob) and _is_sound(abandoned, name, blob, progress):
                        abandoned.rename(name, self._transaction, name)
                        self._resumed[blob.digest] = blob
                    elif blob or is_published(abandoned, name):
                        abandoned.unlink(name)

    def link(self, neighbour: Directory, *, trust: bool, jobs: int, progress: Progress) -> None:
        """
        Stage the missing blobs that a folder on this disk has, by giving its files one more name each.

        What cannot be had that way stays missing: another disk, another owner, other bytes.
        """
        if neighbour.status().st_dev != self._transaction.status().st_dev:
            return
        wanted = self.missing
        if wanted and not trust:
            progress.phase("verifying sha256 digest", sum(blob.size for blob in wanted))
        with ThreadPoolExecutor(max(1, jobs)) as pool, stoppable(progress) as told:
            linked = pool.map(lambda blob: self._linked_if_sound(neighbour, blob, told, trust=trust), wanted)
            self._linked |= {blob.digest: blob for blob, is_ours in zip(wanted, linked, strict=True) if is_ours}

    def write_blob(self, descriptor: Descriptor, chunks: Iterable[Chunk]) -> None:
        """Stage one blob. Raises BlobError if the bytes are not the blob, OSError; another copy may be tried then."""
        part = descriptor.digest.filename + PART
        try:
            fd = write_unfinished(self._transaction, part, verified(chunks, descriptor))
        except Exception:
            quietly(self._transaction.unlink, part)
            raise
        self._unfinished[descriptor.digest] = (descriptor, fd)
        # While the next ones are written it gets to the disk by itself, and small ones get there together.
        while len(self._unfinished) > _MAX_UNFINISHED or self._unfinished_bytes > _MAX_UNFINISHED_BYTES:
            self._finish_oldest()

    def finish_blobs(self) -> None:
        """Put every blob written on the disk. Raises OSError."""
        while self._unfinished:
            self._finish_oldest()

    def read_back(self, *, jobs: int, progress: Progress) -> None:
        """Hash from the disk what was written; raises BlobError if the disk does not give back what it was given."""
        written = tuple(self._written.values())
        if written:
            progress.phase("reading back", sum(blob.size for blob in written))
        with ThreadPoolExecutor(max(1, jobs)) as pool, stoppable(progress) as told:
            for _ in pool.map(lambda blob: self._read_back(blob, told), written):
                pass

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        """
        Stage one manifest, with the time that `date_manifests` gave it.

        Raises IntegrityError unless it is what the selection promised and every blob that it names is verified, with
        the size it names; AmbiguousManifestError or FormatError for one that must not enter a store.
        """
        self.finish_blobs()
        if self._promised.get(name) != Digest.of(raw):
            raise IntegrityError(f"manifest of {name}: not the one that was announced")
        manifest = Manifest.parse(raw)
        manifest.refuse_unclear()
        for blob in manifest.descriptors:
            if not self._holds(blob):
                raise IntegrityError(f"manifest of {name}: {blob.digest}, {blob.size} bytes: not among the blobs")
        filename = f"{len(self._staged):06}.json"
        write_file(self._staging, filename, (raw,), self._workspace.ownership, modified_ns=self._modified.get(name))
        self._staged[name] = filename

    def forgo(self) -> None:
        """Do without the blobs that nobody delivered, the models that need them, and what came only for those."""
        self.finish_blobs()
        lacking = {blob.digest for blob in self.missing}
        models = [
            model for model in self._selection.models if model.name in self._staged and lacking.isdisjoint(model.blobs)
        ]
        needed = self._damaged.union(*(model.blobs for model in models)) - lacking
        self._selection = Selection(
            tuple(models), tuple(blob for blob in self._selection.blobs if blob.digest in needed)
        )
        self._promised = {model.name: model.manifest_digest for model in models}
        self._staged = {name: filename for name, filename in self._staged.items() if name in self._promised}
        for held in (self._present, self._resumed, self._written, self._repaired):
            for digest in held.keys() - needed:
                del held[digest]

    def publish(self, outcomes: Mapping[ModelName, Outcome]) -> None:
        """
        Make every model visible that is not there already; the caller holds the lock.

        Raises RuntimeError if a blob or manifest was not delivered and finished, DamagedStoreError, OSError.
        """
        if self._unfinished or self.missing or self._promised.keys() != self._staged.keys():
            raise RuntimeError("a blob or a manifest of the selection was not delivered")
        publication = Publication(
            self._root, self._workspace, self._transaction, self._staging, keeps_replaced=self._is_repair
        )
        publication.publish(
            staged=(*self._written, *self._resumed, *self._linked),
            relied_upon=tuple(self._present),
            manifests=[
                StagedManifest(
                    name,
                    filename,
                    is_new=outcomes[name] is Outcome.ADDED,
                    is_broken=outcomes[name] is Outcome.REPAIRED,
                )
                for name, filename in self._staged.items()
                if outcomes[name] is not Outcome.ALREADY_THERE
            ],
            unchanged=[name for name, outcome in outcomes.items() if outcome is Outcome.ALREADY_THERE],
        )
        self._set_aside = tuple(publication.set_aside)

    @property
    def _unfinished_bytes(self) -> int:
        return sum(blob.size for blob, _ in self._unfinished.values())

    def _finish_oldest(self) -> None:
        blob, fd = self._unfinished.pop(next(iter(self._unfinished)))
        filename = blob.digest.filename
        finish_file(fd, self._transaction.path / filename, self._workspace.ownership)
        self._transaction.rename(filename + PART, self._transaction, filename)
        self._written[blob.digest] = blob

    def _holds(self, blob: Descriptor) -> bool:
        for held in (self._present, self._resumed, self._written, self._linked):
            if blob.digest in held:
                return held[blob.digest].size == blob.size
        return blob.digest in self._unfinished and self._unfinished[blob.digest][0].size == blob.size

    def _pin_sound(self, blobs: Directory, *, trust: bool, jobs: int, progress: Progress) -> None:
        wanted = (*self._selection.blobs, *self._selection.requires)
        there = [blob for blob in wanted if self._stands(blobs, blob)]
        # The largest first: one that began last would keep a single thread busy when all others are done.
        there.sort(key=lambda blob: -blob.size)
        if there and not trust:
            progress.phase("verifying sha256 digest", sum(blob.size for blob in there))
        with ThreadPoolExecutor(max(1, jobs)) as pool, stoppable(progress) as told:
            sound = pool.map(lambda blob: self._pinned_if_sound(blobs, blob, told, trust=trust), there)
            for blob, is_sound in zip(there, sound, strict=True):
                (self._present if is_sound else self._repaired)[blob.digest] = blob

    def _stands(self, blobs: Directory, blob: Descriptor) -> bool:
        """Whether anything has the blob's name; what is not even a file of its size goes to the damaged at once."""
        status = blobs.lstat(blob.digest.filename)
        if status is None:
            return False
        if is_regular(status) and status.st_size == blob.size and blob.digest not in self._damaged:
            return True
        if not is_regular(status) and not stat.S_ISLNK(status.st_mode):
            # A link is replaced, and what it leads to left alone; anything else somebody has to look at.
            raise DamagedStoreError(f"blobs/{blob.digest.filename}: expected a regular file")
        self._repaired[blob.digest] = blob
        return False

    def _pinned_if_sound(self, blobs: Directory, blob: Descriptor, progress: Progress, *, trust: bool) -> bool:
        filename, pin = blob.digest.filename, blob.digest.filename + PIN
        try:
            # First the pin, then the hash of what is pinned: under its name in `blobs/` may soon be another file.
            is_pinned = blobs.link(filename, self._transaction, pin)
            where, name = (self._transaction, pin) if is_pinned else (blobs, filename)
            if not trust and not _is_sound(where, name, blob, progress):
                self._transaction.unlink(pin)
                return False
            # Ollama syncs nothing that it writes, and a model of ours will stand on this.
            where.sync_entry(name)
            # As Ollama does with a blob that it reuses: its prune goes by the mtime.
            blobs.touch(filename)
        except FileNotFoundError:
            return False
        except OSError as error:
            if not self._is_repair or error.errno != errno.EIO:
                raise
            self._transaction.unlink(pin)
            return False
        return True

    def _read_back(self, blob: Descriptor, progress: Progress) -> None:
        fd = self._transaction.open_file(blob.digest.filename)
        try:
            forget_cached(fd)
            with watching(blob.digest.short, blob.size, progress) as advance:
                hash_file(fd, blob, advance)
        except BlobError as error:
            raise type(error)(f"{error}, read back from {self._root.path}", digest=error.digest) from None
        finally:
            os.close(fd)

    def _linked_if_sound(self, neighbour: Directory, blob: Descriptor, progress: Progress, *, trust: bool) -> bool:
        filename, part = blob.digest.filename, blob.digest.filename + PART
        status = neighbour.lstat(filename)
        if status is None or not is_regular(status) or status.st_size != blob.size:
            return False
        # To give it away would be to take it from whoever has it.
        if not self._workspace.ownership.has(status) or not _linked(neighbour, filename, self._transaction, part):
            return False
        if not trust and not _is_sound(self._transaction, part, blob, progress):
            self._transaction.unlink(part)
            return False
        # Ollama syncs nothing that it writes.
        self._transaction.sync_entry(part)
        self._transaction.rename(part, self._transaction, filename)
        return True


def _linked(source: Directory, name: str, target: Directory, target_name: str) -> bool:
    try:
        return source.link(name, target, target_name)
    except FileNotFoundError:
        return False
    except OSError as error:
        # One disk, and yet not: two mounts of it, or parts of it that the file system keeps apart.
        if error.errno != errno.EXDEV:
            raise
        return False


def _is_sound(directory: Directory, filename: str, blob: Descriptor, progress: Progress) -> bool:
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
