"""
The first half of taking models in: stage everything, check it and put it on the disk before anything is visible.

The second half is in `publication`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, DamagedStoreError, IntegrityError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.outcome import Outcome, Received
from ostore.formats.selection import Selection, Wanted
from ostore.formats.store_layout import BEGUN, PART, PIN
from ostore.places.store.receiving.basis import refuse_lacking
from ostore.places.store.receiving.linking import link_files
from ostore.places.store.receiving.pinning import Pinning, is_sound
from ostore.places.store.receiving.publication import Publication, StagedManifest
from ostore.places.store.receiving.staging import open_staging, opened_if_there, quietly
from ostore.places.store.receiving.terms import ReceivingTerms
from ostore.places.store.workspace import Workspace, is_published
from ostore.streams.bytes_at import BytesAt, FileBytes, read_chunks_at
from ostore.streams.chunks import Chunk, forget_cached
from ostore.streams.durable import Directory
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.owners import is_ours
from ostore.streams.pool import Pool
from ostore.streams.progress import Progress, stoppable, watching
from ostore.streams.recipe import refuse_damaged_bases
from ostore.streams.source_failure import SourceFailureError
from ostore.streams.space import refuse_lack_of_space
from ostore.streams.verified import hash_file, verified
from ostore.streams.writing import append_unfinished, finish_file, write_file, write_unfinished

# How many blobs may be written but not yet synced. A kill loses at most these, and the next import writes them again.
_MAX_UNFINISHED, _MAX_UNFINISHED_BYTES = 8, 64 * 1024 * 1024


class StoreInbox:
    """One transaction. The blobs in `missing` have to be written before the manifests. Close it."""

    def __init__(
        self,
        root: Directory,
        workspace: Workspace,
        transaction: Directory,
        selection: Selection,
        damaged: Collection[Digest] | None = None,
        *,
        terms: ReceivingTerms,
    ) -> None:
        """
        `damaged` are blobs to be replaced, whether or not a model needs them, because their files are known to be bad.

        If it is given, even empty, this is a repair: replaced files are kept in quarantine, and a file that the disk
        cannot read counts as damaged.
        """
        self._terms = terms
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
        self._only_bases = frozenset(blob.digest for blob in selection.requires) - selection.needed
        self._staged: dict[ModelName, str] = {}
        self._unfinished: dict[Digest, tuple[Descriptor, int, str]] = {}
        self._present: dict[Digest, Descriptor] = {}
        self._resumed: dict[Digest, Descriptor] = {}
        self._written: dict[Digest, Descriptor] = {}
        self._repaired: dict[Digest, Descriptor] = {}
        self._linked: dict[Digest, Descriptor] = {}
        self._begun: dict[Digest, int] = {}
        self._bases = OpenBlobs(self._opened_base)
        self._received: Received | None = None

    @property
    def selection(self) -> Selection:
        """The models and blobs that will be published."""
        return self._selection

    @property
    def missing(self) -> tuple[Wanted, ...]:
        """
        The blobs that are neither in the store nor staged, in the order of the selection.

        `start` is the number of bytes that are staged already. `write_blob` hashes those bytes again with the rest.
        """
        lacking = (blob for blob in self._selection.blobs if not self._holds(blob))
        return tuple(Wanted(blob, self._begun.get(blob.digest, 0)) for blob in lacking)

    @property
    def received(self) -> Received:
        """What was taken in. Raises RuntimeError before `publish` has succeeded."""
        if self._received is None:
            raise RuntimeError("a transaction has no result before it has published")
        return self._received

    def close(self) -> None:
        for _, fd, _ in self._unfinished.values():
            os.close(fd)
        self._unfinished.clear()
        self._bases.close()
        self._resources.close()

    def find_present(self) -> None:
        """
        Find the blobs that the store has and that are sound, and pin them so that no removal takes them away.

        A blob that only recipes build on is sound if it has the right size: the digests of what they make decide.
        Raises DamagedStoreError if something other than a file or link has a blob's name, OSError.
        """
        if self._blobs is not None:
            damaged = self._damaged if self._is_repair else None
            terms = replace(self._terms, trusted=self._terms.trusted | self._only_bases)
            pinning = Pinning(self._blobs, self._transaction, damaged, terms)
            sound, unsound = pinning.pin((*self._selection.blobs, *self._selection.requires))
            self._present = {blob.digest: blob for blob in sound}
            self._repaired = {blob.digest: blob for blob in unsound}

    def refuse_lacking(self) -> None:
        """Raises BasisMissingError if a blob that a delta leaves out is neither in the store, sound, nor staged."""
        present = {blob.digest for blob in self._selection.blobs if self._holds(blob)}
        required = self._selection.required_beside(present)
        refuse_lacking(self._selection, [blob for blob in required if not self._holds(blob)])

    def rely_on_staged(self, staged: Iterable[Descriptor]) -> None:
        """Count blobs that this transaction has staged already as written. Those that the store has are dropped."""
        for blob in staged:
            if self._holds(blob):
                # Of two files, publication takes the staged one for the blob, and would replace that of the store.
                self._transaction.unlink(blob.digest.filename)
            else:
                self._written[blob.digest] = blob

    def adopt(self) -> None:
        """
        Take over wanted blobs from interrupted commands. Finished blobs are hashed now, begun ones with their rest.

        What else those commands have left is removed, unless a later command can use it.
        """
        wanted = {blob.digest.filename: blob for blob in (*self._selection.blobs, *self._selection.requires)}
        for abandoned in self._workspace.abandoned():
            names = abandoned.names()
            if finished := [blob for name in names if (blob := wanted.get(name)) and not self._holds(blob)]:
                self._terms.progress.phase("verifying sha256 digest", sum(blob.size for blob in finished))
            for name in names:
                blob = wanted.get(name)
                # A file that cannot be read or removed is no loss, because the source has the blob.
                with contextlib.suppress(OSError, DamagedStoreError):
                    if name.endswith((BEGUN, PART)):
                        self._adopt_begun(abandoned, name, wanted.get(name.removesuffix(BEGUN).removesuffix(PART)))
                    elif is_published(abandoned, name):
                        # Or a killed `create --link` left a second name of somebody's file, who may write to it.
                        abandoned.unlink(name)
                    elif blob and not self._holds(blob) and is_sound(abandoned, name, blob, self._terms.progress):
                        abandoned.rename(name, self._transaction, name)
                        self._resumed[blob.digest] = blob
                    elif blob:
                        abandoned.unlink(name)

    def take_files(self, file_of: Callable[[Descriptor], Path | None]) -> None:
        """
        Stage the missing blobs that have a file on this disk, by giving the file a second name, and hash them.

        A blob stays missing if its file is on another disk, has another owner or has other bytes. Raises NoSpaceError
        if the disk cannot hold the rest, OSError.
        """
        if not self._terms.links:
            return
        missing = [wanted.blob for wanted in self.missing]
        linked = link_files(missing, file_of, self._transaction, self._workspace.ownership, self._terms)
        self._linked = {blob.digest: blob for blob in linked}
        self.refuse_lack_of_space()

    def refuse_lack_of_space(self) -> None:
        """Raises NoSpaceError unless the disk can hold what is missing."""
        refuse_lack_of_space(self._transaction, [wanted.size for wanted in self.missing], self._root.path)

    def held(self, digest: Digest) -> BytesAt | None:
        """Open a blob that is staged or was found in the store, for another one to build on; None for any other."""
        if digest in self._unfinished:
            self.finish_blobs()
        return self._bases.at(digest) if self._place_of(digest) else None

    def write_blob(self, wanted: Wanted, chunks: Iterable[Chunk]) -> None:
        """
        Stage one blob. `chunks` are its bytes from `wanted.start` on.

        Raises BlobError if the bytes are not the blob, OSError, SourceFailureError. The caller may then try another
        copy from its start. The bytes that came are kept if the source can go on from there, and are dropped otherwise.
        Raises RuntimeError if `wanted.start` is neither 0 nor the number of staged bytes.
        """
        blob, start = wanted.blob, wanted.start
        begun = self._begun.pop(blob.digest, 0)
        if start not in {0, begun}:
            raise RuntimeError(f"{blob.digest}: {begun} bytes are staged, but the source begins at {start}")
        name = blob.digest.filename + (BEGUN if start else PART)
        try:
            fd = self._write(blob, name, start, chunks)
        except BaseException as error:
            made = self._selection.makers.get(blob.digest)
            # Else the recipe itself is wrong, whatever it builds on.
            if made and isinstance(error, BlobError) and error.digest == str(blob.digest):
                refuse_damaged_bases(
                    made, [self._present[base] for base in made.bases if base in self._present], self.held
                )
            if _can_go_on(error, start):
                quietly(self._keep_begun, blob.digest, name)
            else:
                quietly(self._transaction.unlink, name)
            raise
        self._unfinished[blob.digest] = (blob, fd, name)
        # The system writes it to the disk while the next ones are written, and small blobs get there together.
        while len(self._unfinished) > _MAX_UNFINISHED or self._unfinished_bytes > _MAX_UNFINISHED_BYTES:
            self._finish_oldest()

    def finish_blobs(self) -> None:
        """Put every written blob on the disk. Raises OSError."""
        while self._unfinished:
            self._finish_oldest()

    def read_back(self) -> None:
        """Read what was written from the disk and hash it. Raises BlobError if the disk gives other bytes, OSError."""
        written = tuple(self._written.values())
        if written:
            self._terms.progress.phase("reading back", sum(blob.size for blob in written))
        with Pool(max(1, self._terms.jobs)) as pool, stoppable(self._terms.progress) as told:
            for _ in pool.map(lambda blob: self._read_back(blob, told), written):
                pass

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        """
        Stage one manifest, with the time that it has in its source, if that is known.

        Raises IntegrityError unless the selection promises these bytes and every blob of the manifest is verified and
        has the promised size; AmbiguousManifestError, FormatError or LimitError if it must not enter a store; OSError.
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
        write_file(
            self._staging, filename, (raw,), self._workspace.ownership, modified_ns=self._terms.modified.get(name)
        )
        self._staged[name] = filename

    def forgo(self) -> None:
        """Drop the blobs that no source delivered, the models that need them, and blobs only needed by those models."""
        self.finish_blobs()
        lacking = {wanted.blob.digest for wanted in self.missing}
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
        Make every model visible that is not there already. The caller holds the lock.

        Raises RuntimeError if a blob or manifest was not delivered and finished, and the errors of
        `Publication.publish`.
        """
        if self._unfinished or self.missing or self._promised.keys() != self._staged.keys():
            raise RuntimeError("a blob or a manifest of the selection was not delivered")
        publication = Publication(
            self._root, self._workspace, self._transaction, self._staging, keeps_replaced=self._is_repair
        )
        publication.publish(
            staged=(*self._written, *self._resumed, *self._linked),
            relied_upon=tuple(digest for digest in self._present if digest not in self._only_bases),
            manifests=self._manifests_to_place(outcomes),
            unchanged=[name for name, outcome in outcomes.items() if outcome is Outcome.ALREADY_THERE],
        )
        self._received = Received(
            outcomes=outcomes,
            written=tuple(self._written.values()),
            resumed=tuple(self._resumed.values()),
            present=tuple(blob for digest, blob in self._present.items() if digest not in self._only_bases),
            repaired=tuple(self._repaired.values()),
            linked=tuple(self._linked.values()),
            set_aside=tuple(publication.set_aside),
        )

    def _place_of(self, digest: Digest) -> tuple[Directory, str] | None:
        """Return the folder and the name of the file of a blob that others may build on."""
        for name in (digest.filename, digest.filename + PIN):
            if self._transaction.lstat(name):
                return self._transaction, name
        # Without a pin, on a disk that has no second names.
        return (self._blobs, digest.filename) if self._blobs and digest in self._present else None

    @contextlib.contextmanager
    def _opened_base(self, digest: Digest) -> Iterator[int]:
        folder, name = self._place_of(digest) or (self._transaction, digest.filename)
        fd = folder.open_file(name)
        try:
            yield fd
        finally:
            os.close(fd)

    def _manifests_to_place(self, outcomes: Mapping[ModelName, Outcome]) -> list[StagedManifest]:
        """Return the staged manifests that the store does not have already."""
        return [
            StagedManifest(
                name,
                filename,
                is_new=outcomes[name] is Outcome.ADDED,
                is_broken=outcomes[name] is Outcome.REPAIRED,
            )
            for name, filename in self._staged.items()
            if outcomes[name] is not Outcome.ALREADY_THERE
        ]

    def _adopt_begun(self, abandoned: Directory, name: str, blob: Descriptor | None) -> None:
        """Take over the first bytes of a wanted blob, or drop them if they are of no use here. Others stay."""
        status = abandoned.lstat(name)
        if blob is None or status is None or not _is_ours_alone(status):
            return
        if self._holds(blob) or not self._begun.get(blob.digest, 0) < status.st_size < blob.size:
            abandoned.unlink(name)
            return
        begun = blob.digest.filename + BEGUN
        abandoned.rename(name, self._transaction, begun)
        # The other folder may be another user's, so look again where nobody else can change what the name means.
        status = self._transaction.lstat(begun)
        if status and _is_ours_alone(status):
            self._begun[blob.digest] = status.st_size
        else:
            self._transaction.unlink(begun)

    def _keep_begun(self, digest: Digest, name: str) -> None:
        """Keep the bytes that came of a blob, so that this or another command can go on from there."""
        begun = digest.filename + BEGUN
        if name != begun:
            self._transaction.rename(name, self._transaction, begun)
        status = self._transaction.lstat(begun)
        self._begun[digest] = status.st_size if status else 0

    def _write(self, blob: Descriptor, name: str, start: int, chunks: Iterable[Chunk]) -> int:
        """Write and verify a blob, and return its open file. Its first `start` bytes are there already."""
        if not start:
            # A source that gives all of the blob needs the room of what another one gave.
            for unfinished in (name, blob.digest.filename + BEGUN):
                self._transaction.unlink(unfinished)
            return write_unfinished(self._transaction, name, verified(chunks, blob))
        with contextlib.ExitStack() as opened:
            fd = self._transaction.open_file(name)
            opened.callback(os.close, fd)
            begun = read_chunks_at(FileBytes(fd, self._transaction.path / name), start - 1)
            whole = verified(chain(begun, chunks), blob)
            return append_unfinished(self._transaction, name, _from(whole, start), start)

    @property
    def _unfinished_bytes(self) -> int:
        return sum(blob.size for blob, *_ in self._unfinished.values())

    def _finish_oldest(self) -> None:
        blob, fd, name = self._unfinished.pop(next(iter(self._unfinished)))
        filename = blob.digest.filename
        finish_file(fd, self._transaction.path / filename, self._workspace.ownership)
        self._transaction.rename(name, self._transaction, filename)
        self._written[blob.digest] = blob

    def _holds(self, blob: Descriptor) -> bool:
        for held in (self._present, self._resumed, self._written, self._linked):
            if blob.digest in held:
                return held[blob.digest].size == blob.size
        return blob.digest in self._unfinished and self._unfinished[blob.digest][0].size == blob.size

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


def _can_go_on(error: BaseException, start: int) -> bool:
    """Return whether the first bytes of a blob may be of use. If the source began at `start`, it can begin anywhere."""
    if isinstance(error, SourceFailureError):
        return start > 0 or error.can_resume
    # An interruption, after which the source may be another one. Else wrong bytes, or a failure of our disk.
    return not isinstance(error, Exception)


def _is_ours_alone(status: os.stat_result) -> bool:
    """Return whether a file is ours and has no other name. To write to another one could change somebody's file."""
    return stat.S_ISREG(status.st_mode) and is_ours(status) and status.st_nlink == 1


def _from(chunks: Iterable[Chunk], start: int) -> Iterator[Chunk]:
    """Yield the chunks that begin at byte `start` or later. One of them begins there."""
    position = 0
    for chunk in chunks:
        if position >= start:
            yield chunk
        position += len(chunk)
