"""A store as a source and a sink of models."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ostore.formats.digest import Digest, blob_digest, blob_filenames
from ostore.formats.errors import (
    BlobMissingError,
    DamagedStoreError,
    FormatError,
    LimitError,
    NotFoundError,
    UnsafeError,
    UsageError,
)
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName, choose
from ostore.formats.selection import Selection
from ostore.formats.store_layout import BLOBS, COMING_MANIFESTS, is_temporary
from ostore.formats.tar_header import BLOCK
from ostore.places.store.survey.manifest_tree import ManifestTree, find_manifests
from ostore.places.store.survey.scan import ManifestScan, StoredModel, find_blobs, scan_manifests
from ostore.streams.chunks import Chunk, read_chunks, read_full
from ostore.streams.durable import Directory, naming


class LocalStore:
    """
    The store at `root`, whatever of it exists; no server needs to run.

    Reading takes no lock and creates nothing, so it works on a read-only disk.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._selected: tuple[StoredModel, ...] = ()

    @property
    def exists(self) -> bool:
        return self.root.is_dir()

    @property
    def has_blobs(self) -> bool:
        """Whether there is a folder of blobs at all; it may be empty."""
        return (self.root / BLOBS).is_dir()

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
        tree = find_manifests(self.root)
        if not patterns:
            return scan_manifests(tree)
        names = [entry.name for entry in tree.entries if entry.name is not None]
        chosen, unmatched = choose(names, patterns)
        if unmatched:
            raise NotFoundError(f"no model {unmatched[0]!r} in {self.root}", hint="ostore list shows what is there")
        wanted = set(chosen)
        return scan_manifests(ManifestTree([entry for entry in tree.entries if entry.name in wanted]))

    def select(self, patterns: Sequence[str]) -> Selection:
        """
        The models that names and globs stand for, or all if there are none, ready to be read.

        Raises NotFoundError, DamagedStoreError for a manifest that cannot be read, AmbiguousManifestError or
        FormatError for one that must not travel, UnsafeError for names or sizes that contradict each other.
        """
        return self.select_scanned(self.scan(patterns))

    def select_scanned(self, scan: ManifestScan) -> Selection:
        """The models of a scan of this store, ready to be read. Raises as `select`."""
        for unreadable in scan.unreadable:
            raise DamagedStoreError(
                f"{unreadable.path}: {unreadable.reason}", hint="ostore verify lists everything that is damaged"
            )
        for model in scan.models:
            _refuse_to_carry(model)
        self._selected = scan.models
        return Selection.of((model.name, model.manifest) for model in scan.models)

    def users_of(self, digest: Digest) -> tuple[ModelName, ...]:
        """Every model in the store that needs the blob."""
        return self.scan().users.get(digest, ())

    def read_blobs(self, wanted: Collection[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[Chunk]]]:
        """
        Yield each wanted blob once, in the order given, unverified; a stream is valid until the next is asked for.

        Raises BlobMissingError, DamagedStoreError for a blob that is not a regular file, OSError.
        """
        for blob in wanted:
            with self.opened_blob(blob.digest) as fd:
                yield blob, _named_chunks(fd, blob, self.root / BLOBS / blob.digest.filename)

    def read_manifests(self) -> Iterator[tuple[ModelName, bytes]]:
        """Yield the raw manifest of every selected model, as it was when it was selected."""
        for model in self._selected:
            yield model.name, model.manifest.raw

    def read_small_blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """A whole small blob, at most `limit` bytes of it, unverified. Raises as `read_blobs`."""
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
            status = os.lstat(f"{self.root}/blobs/{digest.filename}")
            return status.st_size if is_regular(status) else None
        return None

    @property
    def selected(self) -> tuple[StoredModel, ...]:
        """The models of the last `select`."""
        return self._selected

    def unreferenced(self, scan: ManifestScan) -> tuple[tuple[Descriptor, ...], tuple[str, ...]]:
        """
        What lies in `blobs/` beside the blobs of the models scanned: orphans, and paths of strays.

        Unfinished files of Ollama are neither. A blob named in capitals is a stray, whether or not it is an orphan:
        nobody looks for it there but us.
        """
        orphans, strays = [], []
        for entry in find_blobs(self.root):
            digest = blob_digest(entry.name)
            if digest is None:
                strays += [] if is_temporary(entry.name) else [f"blobs/{entry.name}"]
                continue
            # ollama manifest/paths.go at fb30760 opens what the manifest spells, and none that may travel has capitals.
            if entry.name not in {digest.filename, str(digest)}:
                strays.append(f"blobs/{entry.name}")
            if digest not in scan.users:
                # A server may prune it just now.
                with contextlib.suppress(FileNotFoundError):
                    orphans.append(Descriptor(digest, entry.stat(follow_symlinks=False).st_size))
        return tuple(sorted(orphans, key=lambda orphan: orphan.digest)), tuple(sorted(strays))

    @contextlib.contextmanager
    def _blobs(self, digest: Digest) -> Iterator[Directory]:
        try:
            blobs = Directory.open(self.root / BLOBS)
        except FileNotFoundError:
            raise _missing(digest) from None
        with blobs:
            yield blobs


def _named_chunks(fd: int, blob: Descriptor, path: Path) -> Iterator[Chunk]:
    with naming(path):
        yield from read_chunks(fd, blob.size, lead=BLOCK)


def is_regular(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


def _missing(digest: Digest) -> BlobMissingError:
    return BlobMissingError(f"blob {digest}: missing", digest=str(digest))


def _refuse_to_carry(model: StoredModel) -> None:
    if model.tree == COMING_MANIFESTS:
        raise FormatError(f"{model.name}: stored under {COMING_MANIFESTS}/, which no released Ollama writes")
    try:
        model.manifest.refuse_unclear()
    except (UnsafeError, FormatError, LimitError) as error:
        raise type(error)(f"{model.name}: {error}") from None
