"""A store as a source of models, and what else can be asked of it. `receiving.sink` takes models in."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats.digest import Digest, blob_digest
from ostore.formats.errors import DamagedStoreError, NoSpaceError, NotFoundError, OstoreError, UsageError
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Descriptor
from ostore.formats.name import ModelName, choose, is_all, is_glob
from ostore.formats.remedy import ostore, person
from ostore.formats.selection import LeftOut, SelectedModel, Selection, Wanted
from ostore.formats.store_layout import BLOBS, COMING_MANIFESTS, MANIFESTS, QUARANTINE, TRANSACTIONS, WORKSPACE
from ostore.formats.tar_header import BLOCK
from ostore.places.store.absence import COPY_AGAIN, HALF, no_model, no_models, refuse_layout
from ostore.places.store.nearby import nearby_store
from ostore.places.store.survey.batches import FoundBatch, find_batches
from ostore.places.store.survey.blob_files import BlobFiles
from ostore.places.store.survey.manifest_tree import ManifestTree, find_manifests
from ostore.places.store.survey.oddities import Occasion, told_oddities
from ostore.places.store.survey.reading import read_small_file
from ostore.places.store.survey.scan import ManifestScan, PassingScan, find_blobs, scan_manifests
from ostore.places.store.workspace import Workspace, dead_transactions, staged_blobs, workspace_path
from ostore.streams.bytes_at import Held
from ostore.streams.chunks import Chunk, read_chunks
from ostore.streams.durable import FULL, Directory
from ostore.streams.links import on_any_length
from ostore.streams.verified import verified

# What `list` does not need is imported on use, so that it starts sooner.
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ostore.places.store.removing.full_disk import FullDisk
    from ostore.places.store.removing.sweep import Sweep
    from ostore.places.store.removing.untrash import KeptBlob, UntrashOutcome
    from ostore.places.store.survey.census import BesideBlobs
    from ostore.streams.progress import Progress


# A folder with one of these is a store.
_PARTS = (BLOBS, MANIFESTS, COMING_MANIFESTS, f"{WORKSPACE}/{TRANSACTIONS}")

# No file, a file where a folder should be, and links that lead in a circle.
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


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
        # What `--models` says in hints. A store without a label is the one that the command was about anyway.
        self.option = None if label is None else str(root)
        self.files = BlobFiles(self.root)

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

    @property
    def is_half(self) -> bool:
        """Whether there are blobs, but no folder of manifests. A store whose last model was removed has that folder."""
        trees = (MANIFESTS, COMING_MANIFESTS)
        return not any(_is_there(self.root / tree) for tree in trees) and any(
            blob_digest(entry.name) for entry in find_blobs(self.root)
        )

    def told_half(self) -> tuple[str, ...]:
        """Return the warning about blobs without manifests, if there are any."""
        return (f"{self.root}: {HALF}",) if self.is_half else ()

    def require(self) -> LocalStore:
        """
        Return the store itself. A folder with `blobs/` or `manifests/` is a store, and so is one whose first import
        was interrupted: what it has finished waits in `.ostore/tx`.

        Raises NotFoundError if it is none, and names a store nearby; UsageError if it is not a folder, or is a layout.
        """
        self.require_folder()
        if any(_is_there(self.root / part) for part in _PARTS):
            return self
        near = nearby_store(self.root)
        where = ostore("where", before="is the disk mounted? If so", after="shows which store is used")
        if self.option is not None:
            # It was named as a source, so which store is used does not matter.
            where = person("is the disk mounted? A source is a bundle, or a folder with blobs/ and manifests/")
        hint = f"there is a store in {near}" if near else where
        raise NotFoundError(f"{self.root}: no store (neither {BLOBS}/ nor {MANIFESTS}/)", hint=hint)

    def require_whole(self) -> LocalStore:
        """Return the store itself. Raises what `require` raises, and DamagedStoreError for blobs without manifests."""
        self.require()
        if self.is_half:
            raise DamagedStoreError(f"{self.root}: {HALF}", hint=COPY_AGAIN)
        return self

    def require_folder(self) -> None:
        """Raises NotFoundError if nothing is there, UsageError if it is no folder, or that of an OCI image layout."""
        if self.exists:
            refuse_layout(self)
            return
        if self.root.exists():
            raise UsageError(f"{self.root}: not a folder")
        raise NotFoundError(
            f"{self.root}: no such store",
            hint=ostore("where", after="shows which store is used; models=DIR names another"),
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

    def no_model(self, word: str, tree: ManifestTree) -> OstoreError | OSError:
        """
        Return the error for a pattern that matches no model of `tree`, which is what was found here.

        It is the OSError of a folder that may have the model and cannot be read, or else a NotFoundError.
        """
        return no_model(self, word, tree)

    def no_models(self) -> NotFoundError:
        """Return the error for a store where nothing can be chosen, with the place of the models that were meant."""
        return no_models(self, find_manifests(self.root))

    def select(self, patterns: Sequence[str]) -> Selection:
        """
        Return the models that match names and globs, or all if there are no patterns, ready to be read.

        Blobs are judged by name and size. Raises the errors of `scan`, and the error of a model that was named, not
        matched by a glob, and cannot be carried. Others are `left` in the selection.
        """
        return self.select_scanned(self.scan(patterns), patterns)

    def select_scanned(self, scan: ManifestScan, patterns: Sequence[str]) -> Selection:
        """Like `select`, from manifests that have been read."""
        from ostore.places.store.carrying import carriable

        words = [pattern for pattern in patterns if not is_glob(pattern)]
        names = [model.name for model in scan.models] + [entry.name for entry in scan.unreadable if entry.name]
        selection = carriable(self, scan, named=set(choose(names, words)[0]) if words else ())
        closed = scan.tree.closed
        if is_all(patterns):
            selection = selection.noting(notes=told_oddities(scan, "carried"))
        if len(words) < len(patterns) or not patterns:
            return selection.noting(LeftOut(folder.path, folder.error) for folder in closed)
        return selection.noting(notes=(f"{folder.path}: {folder.reason}" for folder in closed))

    def find_models(self, folded: Collection[str]) -> tuple[Selection, ...]:
        """Return one selection for each model that may enter another store and whose folded name is in `folded`."""
        entries = find_manifests(self.root).entries if folded else []
        chosen = [entry for entry in entries if entry.tree == MANIFESTS and entry.name and entry.name.folded in folded]
        found = []
        for model in scan_manifests(ManifestTree(chosen, root=self.root)).models:
            with contextlib.suppress(OstoreError):
                model.manifest.refuse_unclear()
                found.append(Selection.of([(model.name, model.manifest)]))
        return tuple(found)

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Return the lacking blobs that have a file of the right size here. A size of None matches any."""
        sizes = {digest: self.files.size_of(digest) for digest in lacking}
        return tuple(
            Descriptor(digest, size)
            for digest, size in sizes.items()
            if size is not None and lacking[digest] in {None, size}
        )

    def file_of(self, blob: Descriptor) -> Path | None:
        """Return the file of a blob if it is a regular file of the right size, else None. A link is none."""
        found = self.files.find(blob.digest)
        if found is None or found.is_link or found.status is None or found.status.st_size != blob.size:
            return None
        return self.root / BLOBS / found.filename

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
        return self.files.read_small(descriptor.digest, limit)

    def opened_blob(self, digest: Digest) -> AbstractContextManager[int]:
        """
        Open a blob for reading. A link to a regular file is followed.

        Raises BlobMissingError, DamagedStoreError if it is neither file nor link, OSError.
        """
        return self.files.opened(digest)

    def size_of(self, digest: Digest) -> int | None:
        """
        Return the size in bytes of a blob that is a regular file under the name that Ollama gives it, else None.

        Raises OSError.
        """
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.lstat(self._path_of(digest))
            return status.st_size if stat.S_ISREG(status.st_mode) else None
        return None

    def missing_of(self, blobs: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
        """Return the blobs that have no file of the right size here. Raises OSError."""
        # A new store has no blobs, so the disk need not be asked sixty thousand times.
        if not (self.root / BLOBS).is_dir():
            return tuple(blobs)
        return tuple(blob for blob in blobs if not self.holds(blob))

    def holds(self, blob: Descriptor) -> bool:
        """
        Return whether Ollama finds a blob here: a file, or a link to a file, of its name and size.

        Raises OSError if the disk does not say.
        """
        try:
            status = os.stat(self._path_of(blob.digest))  # noqa: PTH116 - as text
        except OSError as error:
            if error.errno in _NOT_THERE:
                return False
            raise
        return stat.S_ISREG(status.st_mode) and status.st_size == blob.size

    def _path_of(self, digest: Digest) -> str:
        # Text, not Path: to make sixty thousand of those takes half a second.
        return f"{os.fspath(self.root)}{os.sep}{BLOBS}{os.sep}{digest.filename}"

    def manifest_path(self, name: ModelName) -> Path:
        """Return where a released Ollama has the manifest of a name, whether or not it exists."""
        return self.root.joinpath(MANIFESTS, *name.parts)

    def read_manifest(self, name: ModelName) -> tuple[bytes, os.stat_result]:
        """Return a manifest's bytes, at most one past the limit, and its status, links followed. Raises OSError."""
        return read_small_file(self.manifest_path(name), MAX_MANIFEST_BYTES)

    def manifest_digests(self, folded: Collection[str]) -> dict[str, Digest]:
        """
        Return the digests of what lies in the places of these folded names, manifest or not.

        Raises OSError, also if one of them could be in a folder that cannot be read.
        """
        found: dict[str, Digest] = {}
        tree = find_manifests(self.root) if folded else None
        for entry in tree.entries if tree else ():
            if entry.tree == MANIFESTS and entry.name and entry.name.folded in folded:
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name.folded] = Digest.of(read_small_file(entry.path, MAX_MANIFEST_BYTES)[0])
        for name in folded:
            if tree and name not in found and (folder := tree.closed_around(name)):
                raise folder.error
        return found

    @staticmethod
    def told(scan: ManifestScan | PassingScan, occasion: Occasion) -> tuple[str, ...]:
        """Return a line for each kind of odd entry among the manifests. A passing scan must be exhausted."""
        return told_oddities(scan, occasion)

    def entries_of(self, digests: Iterable[Digest]) -> BesideBlobs:
        """Return what is odd about the files of these blobs. Raises OSError."""
        from ostore.places.store.survey.beside import entries_of

        return entries_of(self.files, digests)

    def unreferenced(self, is_needed: Callable[[Digest], bool]) -> BesideBlobs:
        """Return what lies in `blobs/` besides the files of the blobs that models need. No file is opened."""
        from ostore.places.store.survey.beside import unreferenced

        return unreferenced(self.root, is_needed)

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

    def ended(self) -> tuple[frozenset[str], Sequence[FoundBatch]]:
        """Return the folders of commands that have ended, and those of the trash, oldest first."""
        return dead_transactions(self.workspace), find_batches(self.workspace)

    def staged(self) -> dict[Digest, int]:
        """Return the blobs, with sizes, that interrupted commands have finished and that the next import takes over."""
        return staged_blobs(self.workspace)

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

    @property
    def absolute(self) -> str:
        """The absolute path of its folder, as others write it down."""
        return str(self.root.absolute())

    def linked_folders(self) -> tuple[str, ...]:
        """Return the folders elsewhere that hold links to blobs of this store, as absolute paths."""
        from ostore.places.store.linked_folders import linked_folders

        return linked_folders(self.root)

    def note_folder(self, folder: str, *, has_links: bool) -> None:
        """Remember that a folder has such links, or has none any more. Raises UnsafeError, BusyError, OSError."""
        from ostore.places.store.linked_folders import note_folder

        note_folder(self.root, folder, has_links=has_links)

    def _tree(self, patterns: Sequence[str]) -> ManifestTree:
        tree = find_manifests(self.root)
        # What cannot be read of the whole tree is no odd neighbour of something.
        for folder in tree.closed:
            if folder.path in {MANIFESTS, COMING_MANIFESTS}:
                raise folder.error
        if is_all(patterns):
            return tree
        names = [entry.name for entry in tree.entries if entry.name is not None]
        chosen, unmatched = choose(names, patterns)
        if unmatched:
            raise self.no_model(unmatched[0], tree)
        wanted = set(chosen)
        entries = [entry for entry in tree.entries if entry.name in wanted]
        return ManifestTree(entries, closed=tree.closed, is_part=True, root=self.root)

    def _chunks(self, wanted: Wanted) -> Iterator[Chunk]:
        blob, start = wanted.blob, wanted.start
        with self.opened_blob(blob.digest) as fd:
            os.lseek(fd, start, os.SEEK_SET)
            chunks = read_chunks(fd, blob.size - start, lead=0 if start else BLOCK)
            found = self.files.find(blob.digest)
            if found is None or not found.is_link or start:
                yield from chunks
                return
            # Hashed here, because the error of whoever hashes it next would tell the digest of the linked file.
            yield from verified(chunks, blob)


def _is_there(path: Path) -> bool:
    """Return whether an entry exists, or might: a folder that we may not enter can be a store."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _locked(root: Path, held: contextlib.ExitStack) -> tuple[Directory, Workspace]:
    directory = held.enter_context(Directory.open(root))
    workspace = held.enter_context(contextlib.closing(Workspace.open(directory)))
    held.enter_context(workspace.locked())
    return directory, workspace
