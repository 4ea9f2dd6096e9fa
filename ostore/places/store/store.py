"""A store: a source of models, and what else can be asked of it. What takes models in is `receiving.sink`."""

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
    IntegrityError,
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

# What locks and removes is imported when somebody does: `list` starts in less time.
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ostore.places.store.removing.full_disk import FullDisk
    from ostore.places.store.removing.sweep import Sweep
    from ostore.places.store.removing.untrash import KeptBlob, UntrashOutcome
    from ostore.streams.progress import Progress


class LocalStore:
    """
    The store at `root`, whatever of it exists; no server needs to run. A source of models; `label` is its folder.

    Reading takes no lock and creates nothing, so it works on a read-only disk.
    """

    # What tears here is a medium that fails: to begin in the middle of it again would not help.
    can_resume = False

    def __init__(self, root: Path, label: str | None = None) -> None:
        self.root = root
        self.label = str(root) if label is None else label

    @property
    def exists(self) -> bool:
        return self.root.is_dir()

    @property
    def workspace(self) -> Path:
        """Where everything is staged, there or not."""
        return workspace_path(self.root)

    @property
    def quarantine(self) -> Path:
        """Where damaged and odd files are kept."""
        return self.workspace / QUARANTINE

    def require(self) -> LocalStore:
        """Itself. Raises NotFoundError if there is no such folder, UsageError if it is no folder."""
        if self.exists:
            return self
        if self.root.exists():
            raise UsageError(f"{self.root}: not a folder")
        raise NotFoundError(
            f"{self.root}: no such store", hint="ostore where shows which store is used; --models DIR names another"
        )

    def scan(self, patterns: Sequence[str] = ()) -> ManifestScan:
        """
        Read the manifests of all models, or of those that names and globs stand for.

        Raises NotFoundError for a word that stands for no model, InvalidNameError, OSError.
        """
        return scan_manifests(self._tree(patterns))

    def passing_scan(self, patterns: Sequence[str] = ()) -> PassingScan:
        """The same, with no manifest read yet. Raises as `scan`."""
        return PassingScan(self._tree(patterns))

    def no_model(self, word: str) -> NotFoundError:
        """The error for a word that stands for no model here."""
        return NotFoundError(f"no model {word!r} in {self.root}", hint="ostore list shows what is there")

    def select(self, patterns: Sequence[str]) -> Selection:
        """
        The models that names and globs stand for, or all if there are none, ready to be read.

        Raises NotFoundError, DamagedStoreError for a manifest that cannot be read, AmbiguousManifestError or
        FormatError for one that must not travel, UnsafeError for names or sizes that contradict each other.
        """
        return select_scanned(self.scan(patterns))

    def find_models(self, folded: Collection[str]) -> tuple[Selection, ...]:
        """A selection for each model with one of these names (folded) that may enter another store."""
        entries = find_manifests(self.root).entries if folded else []
        chosen = [entry for entry in entries if entry.tree == MANIFESTS and entry.name and entry.name.folded in folded]
        found = []
        for model in scan_manifests(ManifestTree(chosen)).models:
            with contextlib.suppress(OstoreError):
                model.manifest.refuse_unclear()
                found.append(Selection.of([(model.name, model.manifest)]))
        return tuple(found)

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Those of which a file of the right size is there; None is any size."""
        sizes = {digest: self.size_of(digest) for digest in lacking}
        return tuple(
            Descriptor(digest, size)
            for digest, size in sizes.items()
            if size is not None and lacking[digest] in {None, size}
        )

    def file_of(self, blob: Descriptor) -> Path | None:
        """The file of a blob, if it is a regular one of the right size."""
        return self.root / BLOBS / blob.digest.filename if self.size_of(blob.digest) == blob.size else None

    def read_blobs(self, wanted: Sequence[Wanted], _held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """
        Yield each wanted blob in the order given, unverified; a stream is valid until the next is asked for.

        A stream raises BlobMissingError, DamagedStoreError for a blob that is not a regular file, OSError.
        """
        for blob in wanted:
            yield blob, self._chunks(blob)

    def read_manifests(self, models: Sequence[SelectedModel]) -> Iterator[tuple[ModelName, bytes]]:
        """
        Yield the raw manifests of selected models, as they were when they were selected.

        Raises IntegrityError for one that is another by now, where the selection has not kept its bytes, and OSError.
        """
        for model in models:
            raw = self.read_manifest(model.name)[0] if model.raw is None else model.raw
            if model.raw is None and Digest.of(raw) != model.manifest_digest:
                raise IntegrityError(f"manifest of {model.name}: changed since it was selected")
            yield model.name, raw

    def read_small_blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """A whole small blob, at most `limit` bytes of it, unverified. Raises as the streams of `read_blobs`."""
        with self.opened_blob(descriptor.digest) as fd:
            return read_full(fd, limit)

    @contextlib.contextmanager
    def opened_blob(self, digest: Digest) -> Iterator[int]:
        """A blob open for reading. Raises BlobMissingError, DamagedStoreError, OSError."""
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
        """Bytes of a blob that is there as a regular file, else None."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            # Text, not Path: sixty thousand of those take half a second.
            status = os.lstat(f"{self.root}/{BLOBS}/{digest.filename}")
            return status.st_size if stat.S_ISREG(status.st_mode) else None
        return None

    def missing_of(self, blobs: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
        """Those of which no file of the right size is there."""
        # A new store has none, and need not be asked sixty thousand times.
        if not (self.root / BLOBS).is_dir():
            return tuple(blobs)
        return tuple(blob for blob in blobs if self.size_of(blob.digest) != blob.size)

    def manifest_path(self, name: ModelName) -> Path:
        """Where a released Ollama has the manifest of a name, there or not."""
        return self.root.joinpath(MANIFESTS, *name.parts)

    def read_manifest(self, name: ModelName) -> tuple[bytes, os.stat_result]:
        """A manifest's bytes, at most one more than the largest has, and its status, links followed. Raises OSError."""
        return read_small_file(self.manifest_path(name), MAX_MANIFEST_BYTES)

    def unreferenced(self, is_needed: Callable[[Digest], bool]) -> tuple[tuple[Descriptor, ...], tuple[str, ...]]:
        """
        What lies in `blobs/` beside the blobs that models need: orphans, and paths of strays.

        Unfinished files of Ollama are neither. A blob named in capitals is a stray, whether or not it is an orphan:
        nobody looks for it there but us.
        """
        orphans, strays = [], []
        for entry in find_blobs(self.root):
            digest = blob_digest(entry.name)
            if digest is None:
                strays += [] if is_temporary(entry.name) else [f"{BLOBS}/{entry.name}"]
                continue
            # ollama manifest/paths.go at fb30760 opens what the manifest spells, and none that may travel has capitals.
            if entry.name not in {digest.filename, str(digest)}:
                strays.append(f"{BLOBS}/{entry.name}")
            if not is_needed(digest):
                # A server may prune it just now.
                with contextlib.suppress(FileNotFoundError):
                    orphans.append(Descriptor(digest, entry.stat(follow_symlinks=False).st_size))
        return tuple(sorted(orphans, key=lambda orphan: orphan.digest)), tuple(sorted(strays))

    @contextlib.contextmanager
    def sweeping(self, *others: LocalStore) -> Iterator[Sweep]:
        """
        Hold the lock of this store, known to keep others out, and those of `others`, to remove something here.

        Raises BusyError, UnsafeError, NoSpaceError on a disk without room for the record of what is removed, OSError.
        """
        from ostore.places.store.removing.sweep import Sweep

        try:
            with contextlib.ExitStack() as held:
                # In one order whoever asks: two moves in opposite directions must not wait for each other.
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
        Put back what lies in the trash and a model needs again, if anything lies there.

        Whoever removes does this before anything else is looked at, and before anybody is asked: no model may wait for
        what is in the trash. Raises as `sweeping`.
        """
        if find_batches(self.workspace):
            with self.sweeping() as sweep:
                sweep.return_needed()

    def full_disk(self) -> AbstractContextManager[FullDisk]:
        """This store where there is no room even for that record. Raises BusyError, UnsafeError, OSError."""
        from ostore.places.store.removing.full_disk import FullDisk

        return FullDisk.opened(self.root)

    def return_kept(self, progress: Progress, *, dry_run: bool) -> Mapping[KeptBlob, UntrashOutcome]:
        """
        Give the blobs that the trash keeps their names again, once they are hashed; what became of each.

        Raises BusyError, UnsafeError, OSError.
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
    """The models of a scan of a store, ready to be read. Raises as `LocalStore.select`, but for NotFoundError."""
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
