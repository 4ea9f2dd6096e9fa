"""A store as a source of models, and what else can be asked of it. `receiving.sink` takes models in."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats.digest import Digest, blob_digest, blob_filenames
from ostore.formats.errors import (
    BlobMissingError,
    DamagedStoreError,
    FormatError,
    LimitError,
    NoSpaceError,
    NotFoundError,
    OstoreError,
    UnsafeError,
    UsageError,
)
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Descriptor
from ostore.formats.name import ModelName, choose
from ostore.formats.selection import SelectedModel, Selection, Wanted
from ostore.formats.store_layout import BLOBS, COMING_MANIFESTS, MANIFESTS, QUARANTINE, is_temporary
from ostore.formats.tar_header import BLOCK
from ostore.places.store.survey.batches import find_batches
from ostore.places.store.survey.manifest_tree import ManifestTree, find_manifests
from ostore.places.store.survey.scan import (
    ManifestScan,
    PassingScan,
    StoredModel,
    find_blobs,
    read_small_file,
    scan_manifests,
)
from ostore.places.store.workspace import Workspace, workspace_path
from ostore.streams.bytes_at import Held
from ostore.streams.chunks import Chunk, read_chunks, read_full
from ostore.streams.durable import FULL, Directory, naming
from ostore.streams.links import on_any_length

# Code that locks and removes is imported on use, so that `list` starts sooner.
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ostore.places.store.removing.full_disk import FullDisk
    from ostore.places.store.removing.sweep import Sweep
    from ostore.places.store.removing.untrash import KeptBlob, UntrashOutcome
    from ostore.streams.progress import Progress


class LocalStore:
    """
    The store at `root`, which need not exist, as a source of models. No server has to run.

    `label` names it for people; the default is its folder. Reading takes no lock and creates nothing, so it works on a
    read-only disk.
    """

    # If a read fails here, the medium is failing, and to go on from the middle would not help.
    can_resume = False

    def __init__(self, root: Path, label: str | None = None) -> None:
        self.root = on_any_length(root)
        self.label = str(root) if label is None else label

    @property
    def exists(self) -> bool:
        return self.root.is_dir()

    @property
    def workspace(self) -> Path:
        """The folder where everything is staged. It need not exist."""
        return workspace_path(self.root)

    @property
    def quarantine(self) -> Path:
        """The folder where damaged and odd files are kept."""
        return self.workspace / QUARANTINE

    def require(self) -> LocalStore:
        """Return the store itself. Raises NotFoundError if it does not exist, UsageError if it is not a folder."""
        if self.exists:
            return self
        if self.root.exists():
            raise UsageError(f"{self.root}: not a folder")
        raise NotFoundError(
            f"{self.root}: no such store", hint="ostore where shows which store is used; --models DIR names another"
        )

    def scan(self, patterns: Sequence[str] = ()) -> ManifestScan:
        """
        Read the manifests of all models, or of those that match these names and globs.

        Raises NotFoundError for a pattern that matches no model, InvalidNameError, OSError.
        """
        return scan_manifests(self._tree(patterns))

    def passing_scan(self, patterns: Sequence[str] = ()) -> PassingScan:
        """Return the same models one at a time, so that few are in memory. Raises what `scan` raises."""
        return PassingScan(self._tree(patterns))

    def no_model(self, word: str) -> NotFoundError:
        """Return the error for a pattern that matches no model here."""
        return NotFoundError(f"no model {word!r} in {self.root}", hint="ostore list shows what is there")

    def select(self, patterns: Sequence[str]) -> Selection:
        """
        Return the models that match names and globs, or all if there are no patterns, ready to be read.

        Raises the errors of `scan`, DamagedStoreError for a manifest that cannot be read, AmbiguousManifestError,
        FormatError or LimitError for one that must not travel, UnsafeError for names or sizes that contradict each
        other.
        """
        return select_scanned(self.scan(patterns))

    def find_models(self, folded: Collection[str]) -> tuple[Selection, ...]:
        """Return one selection for each model that may enter another store and whose folded name is in `folded`."""
        entries = find_manifests(self.root).entries if folded else []
        chosen = [entry for entry in entries if entry.tree == MANIFESTS and entry.name and entry.name.folded in folded]
        found = []
        for model in scan_manifests(ManifestTree(chosen)).models:
            with contextlib.suppress(OstoreError):
                model.manifest.refuse_unclear()
                found.append(Selection.of([(model.name, model.manifest)]))
        return tuple(found)

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Return the lacking blobs that have a file of the right size here. A size of None matches any."""
        sizes = {digest: self.size_of(digest) for digest in lacking}
        return tuple(
            Descriptor(digest, size)
            for digest, size in sizes.items()
            if size is not None and lacking[digest] in {None, size}
        )

    def file_of(self, blob: Descriptor) -> Path | None:
        """Return the file of a blob if it is a regular file of the right size, else None."""
        return self.root / BLOBS / blob.digest.filename if self.size_of(blob.digest) == blob.size else None

    def read_blobs(self, wanted: Sequence[Wanted], _held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """
        Yield each wanted blob in the order given, unverified. A stream is valid until the next one is asked for.

        Reading a stream raises BlobMissingError, DamagedStoreError for a blob that is not a regular file, OSError.
        """
        for blob in wanted:
            yield blob, self._chunks(blob)

    def read_manifests(self, models: Sequence[SelectedModel]) -> Iterator[tuple[ModelName, bytes]]:
        """
        Yield the raw manifests of selected models, as they were selected if the selection has kept them.

        The sink compares them with what was selected. Raises OSError.
        """
        for model in models:
            yield model.name, self.read_manifest(model.name)[0] if model.raw is None else model.raw

    def read_small_blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """Return the first `limit` bytes of a blob, unverified. Raises the errors of `opened_blob`."""
        with self.opened_blob(descriptor.digest) as fd:
            return read_full(fd, limit)

    @contextlib.contextmanager
    def opened_blob(self, digest: Digest) -> Iterator[int]:
        """Open a blob for reading. Raises BlobMissingError, DamagedStoreError if it is not a regular file, OSError."""
        with self._blobs(digest) as blobs:
            filename = next((name for name in blob_filenames(digest) if blobs.lstat(name)), None)
            if filename is None:
                raise _missing(digest)
            fd = blobs.open_file(filename)
        try:
            with naming(self.root / BLOBS / filename):
                yield fd
        finally:
            os.close(fd)

    def size_of(self, digest: Digest) -> int | None:
        """Return the size in bytes of a blob that is a regular file, else None. Raises OSError."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            # Text, not Path: to make sixty thousand of those takes half a second.
            status = os.lstat(f"{os.fspath(self.root)}{os.sep}{BLOBS}{os.sep}{digest.filename}")
            return status.st_size if stat.S_ISREG(status.st_mode) else None
        return None

    def missing_of(self, blobs: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
        """Return the blobs that have no file of the right size here."""
        # A new store has no blobs, so the disk need not be asked sixty thousand times.
        if not (self.root / BLOBS).is_dir():
            return tuple(blobs)
        return tuple(blob for blob in blobs if self.size_of(blob.digest) != blob.size)

    def manifest_path(self, name: ModelName) -> Path:
        """Return where a released Ollama has the manifest of a name, whether or not it exists."""
        return self.root.joinpath(MANIFESTS, *name.parts)

    def read_manifest(self, name: ModelName) -> tuple[bytes, os.stat_result]:
        """Return a manifest's bytes, at most one past the limit, and its status, links followed. Raises OSError."""
        return read_small_file(self.manifest_path(name), MAX_MANIFEST_BYTES)

    def unreferenced(self, is_needed: Callable[[Digest], bool]) -> tuple[tuple[Descriptor, ...], tuple[str, ...]]:
        """
        Return what lies in `blobs/` besides the blobs that models need: the orphans, and the paths of strays.

        Unfinished files of Ollama are neither. A blob whose file name has capitals is a stray, and may be an orphan
        too: Ollama does not look for that name.
        """
        orphans, strays = [], []
        for entry in find_blobs(self.root):
            digest = blob_digest(entry.name)
            if digest is None:
                strays += [] if is_temporary(entry.name) else [f"{BLOBS}/{entry.name}"]
                continue
            # Ollama opens what a manifest spells (manifest/paths.go at fb30760), and no valid manifest spells capitals.
            if entry.name not in {digest.filename, str(digest)}:
                strays.append(f"{BLOBS}/{entry.name}")
            if not is_needed(digest):
                # A server may be pruning it.
                with contextlib.suppress(FileNotFoundError):
                    orphans.append(Descriptor(digest, entry.stat(follow_symlinks=False).st_size))
        return tuple(sorted(orphans, key=lambda orphan: orphan.digest)), tuple(sorted(strays))

    @contextlib.contextmanager
    def sweeping(self, *others: LocalStore) -> Iterator[Sweep]:
        """
        Lock this store and `others`, make sure that its lock keeps others out, and yield a sweep of it.

        Raises BusyError, UnsafeError, NoSpaceError if the disk has no room for the record of what is removed, OSError.
        """
        from ostore.places.store.removing.sweep import Sweep

        try:
            with contextlib.ExitStack() as held:
                # Lock in a fixed order, so that two moves in opposite directions do not wait for each other.
                opened = {root: _locked(root, held) for root in sorted({self.root, *(other.root for other in others)})}
                directory, workspace = opened[self.root]
                workspace.refuse_without_locks()
                yield held.enter_context(Sweep.opened(directory, workspace))
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise NoSpaceError(f"{error.filename}: no room left for the record of what is removed") from error

    def return_needed(self) -> None:
        """
        Put back the blobs in the trash that a model needs again.

        A command that removes does this first, before it looks at anything else or asks anybody: no model may wait for
        a blob in the trash. Raises what `sweeping` raises.
        """
        if find_batches(self.workspace):
            with self.sweeping() as sweep:
                sweep.return_needed()

    def full_disk(self) -> AbstractContextManager[FullDisk]:
        """Open this store on a disk too full for the record of `sweeping`. Raises BusyError, UnsafeError, OSError."""
        from ostore.places.store.removing.full_disk import FullDisk

        return FullDisk.opened(self.root)

    def return_kept(self, progress: Progress, *, dry_run: bool) -> Mapping[KeptBlob, UntrashOutcome]:
        """
        Hash the blobs in the trash, give them their names again, and return the outcome of each.

        With `dry_run`, nothing is changed or hashed. Raises BusyError, UnsafeError, OSError.
        """
        from ostore.places.store.removing.untrash import untrash

        return untrash(self.root, progress, dry_run=dry_run)

    def _tree(self, patterns: Sequence[str]) -> ManifestTree:
        tree = find_manifests(self.root)
        if not patterns:
            return tree
        names = [entry.name for entry in tree.entries if entry.name is not None]
        chosen, unmatched = choose(names, patterns)
        if unmatched:
            raise self.no_model(unmatched[0])
        wanted = set(chosen)
        return ManifestTree([entry for entry in tree.entries if entry.name in wanted])

    def _chunks(self, wanted: Wanted) -> Iterator[Chunk]:
        blob, start = wanted.blob, wanted.start
        with self.opened_blob(blob.digest) as fd:
            os.lseek(fd, start, os.SEEK_SET)
            yield from read_chunks(fd, blob.size - start, lead=0 if start else BLOCK)

    @contextlib.contextmanager
    def _blobs(self, digest: Digest) -> Iterator[Directory]:
        try:
            blobs = Directory.open(self.root / BLOBS)
        except FileNotFoundError:
            raise _missing(digest) from None
        with blobs:
            yield blobs


def select_scanned(scan: ManifestScan) -> Selection:
    """Return the models of a scan, ready to be read. Raises the errors of `LocalStore.select` about manifests."""
    for unreadable in scan.unreadable:
        raise DamagedStoreError(
            f"{unreadable.path}: {unreadable.reason}", hint="ostore verify lists everything that is damaged"
        )
    for model in scan.models:
        _refuse_to_carry(model)
    return Selection.of((model.name, model.manifest) for model in scan.models)


def _locked(root: Path, held: contextlib.ExitStack) -> tuple[Directory, Workspace]:
    directory = held.enter_context(Directory.open(root))
    workspace = held.enter_context(contextlib.closing(Workspace.open(directory)))
    held.enter_context(workspace.locked())
    return directory, workspace


def _missing(digest: Digest) -> BlobMissingError:
    return BlobMissingError(f"blob {digest}: missing", digest=str(digest))


def _refuse_to_carry(model: StoredModel) -> None:
    if model.tree == COMING_MANIFESTS:
        raise FormatError(f"{model.name}: stored under {COMING_MANIFESTS}/, which no released Ollama writes")
    try:
        model.manifest.refuse_unclear()
    except (UnsafeError, FormatError, LimitError) as error:
        raise type(error)(f"{model.name}: {error}") from None
