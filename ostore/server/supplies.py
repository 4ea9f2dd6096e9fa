"""
What a place gives to be served: models that are whole, and the bytes of their blobs.

A place of files needs one class as `StoreSupply`: which models it has, and a descriptor of the file of a blob.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, InvalidNameError, OstoreError, UsageError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.oci_layout import BLOBS as LAYOUT_BLOBS
from ostore.formats.oci_layout import INDEX
from ostore.formats.selection import LeftOut
from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.places.bundle.reader import BundleReader
from ostore.places.oci_layout.layout import OciLayout
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import ManifestEntry, ManifestTree, find_manifests
from ostore.places.store.survey.scan import PassingScan
from ostore.server.contents import NO_STAMP, Content, FileContent, FramesContent, FrameShelf, Stamp, stamp_of
from ostore.streams.bytes_at import FileBytes
from ostore.streams.durable import Directory
from ostore.streams.framed_bytes import FramedBytes


class ServedModel(NamedTuple):
    """A model whose blobs are all there, of the sizes that its manifest says."""

    name: ModelName
    raw: bytes
    digest: Digest
    blobs: tuple[Descriptor, ...]

    @classmethod
    def of(cls, name: ModelName, manifest: Manifest) -> ServedModel:
        return cls(name, manifest.raw, manifest.digest, manifest.blobs)


@dataclass(frozen=True, slots=True)
class Offer:
    """
    What a place can give now, and what it has but cannot give.

    `doubts` say why it may have other models too: what could not be looked into. `stamps` are those of the files of all
    blobs of the models.
    """

    models: tuple[ServedModel, ...]
    left: tuple[LeftOut, ...] = ()
    doubts: tuple[str, ...] = ()
    stamps: Mapping[Digest, Stamp] = field(default_factory=dict)

    @property
    def broken(self) -> frozenset[ModelName]:
        """The names among what it cannot give. A folder has none."""
        names = set()
        for one in self.left:
            with contextlib.suppress(InvalidNameError):
                names.add(ModelName.parse(one.subject))
        return frozenset(names)


class Supply(Protocol):
    """A place whose models are served. Its methods are called in threads, `look` by one at a time."""

    @property
    def label(self) -> str:
        """What a person calls it."""
        ...

    def look(self) -> Offer:
        """Return what it can give now. Cheap if nothing has changed. Raises OSError, OstoreError."""
        ...

    def opened(self, blob: Descriptor) -> Content | None:
        """Open a blob; None if it has no file of that size. Nothing is hashed. Raises OSError, OstoreError."""
        ...


class StoreSupply:
    """A store. Models that come and go are seen, and each manifest is read once for each change of its file."""

    def __init__(self, store: LocalStore) -> None:
        self.label = str(store.root)
        self._store = store
        self._blobs = store.root / BLOBS
        self._read: dict[str, tuple[Stamp, ServedModel | LeftOut]] = {}

    def look(self) -> Offer:
        tree = find_manifests(self._store.root)
        named = [entry for entry in tree.entries if entry.name]
        stamps = {entry.path: stamp for entry in named if (stamp := _stamp_at(entry.path))}
        known = {path: self._read[path] for path, stamp in stamps.items() if self._is_read(path, stamp)}
        fresh = [entry for entry in named if entry.path in stamps and entry.path not in known]
        for entry, read in self._read_anew(tree, fresh):
            known[entry.path] = NO_STAMP if _may_pass(read) else stamps[entry.path], read
        self._read = known
        return _offer(
            (one for _, one in known.values()), lambda digest: self._blobs / digest.filename, tuple(_doubts(tree))
        )

    def opened(self, blob: Descriptor) -> Content | None:
        return _opened_file(self._blobs, blob.digest.filename, blob.size)

    def _is_read(self, path: str, stamp: Stamp) -> bool:
        known = self._read.get(path)
        return known is not None and known[0] == stamp

    def _read_anew(
        self, tree: ManifestTree, entries: Sequence[ManifestEntry]
    ) -> list[tuple[ManifestEntry, ServedModel | LeftOut]]:
        """Read these manifests. One that is none is read again when it has changed."""
        if not entries:
            return []
        by_path = {entry.relative: entry for entry in entries}
        scan = PassingScan(ManifestTree(list(entries), is_part=True, root=tree.root))
        read: list[tuple[ManifestEntry, ServedModel | LeftOut]] = [
            (by_path[model.relative], _served(model.name, model.manifest)) for model in scan.models
        ]
        for bad in scan.unreadable:
            error = bad.error or DamagedStoreError(f"manifest of {bad.name}: {bad.reason}")
            read.append((by_path[bad.path], LeftOut(str(bad.name), error)))
        return read


class LayoutSupply:
    """An OCI image layout. Its index is read again when it has changed, and its blobs are looked at each time."""

    def __init__(self, path: Path, label: str) -> None:
        self.label = label
        self._path = path
        self._stamp: Stamp | None = None
        self._read: tuple[ServedModel | LeftOut, ...] = ()

    def look(self) -> Offer:
        stamp = _stamp_at(str(self._path / INDEX))
        if stamp is None or stamp != self._stamp:
            layout = OciLayout(self._path, self.label)
            selection = layout.select(())
            manifests = layout.read_manifests(selection.models)
            models = (ServedModel.of(name, Manifest.parse(raw)) for name, raw in manifests)
            self._read = (*models, *selection.left)
            self._stamp = None if any(map(_may_pass, selection.left)) else stamp
        return _offer(self._read, lambda digest: self._path.joinpath(*LAYOUT_BLOBS, digest.hex))

    def opened(self, blob: Descriptor) -> Content | None:
        return _opened_file(self._path.joinpath(*LAYOUT_BLOBS), blob.digest.hex, blob.size)


class BundleSupply:
    """A bundle file, read through its seek table. Of a delta, models that need blobs from elsewhere stay out."""

    def __init__(self, bundle: BundleReader) -> None:
        """Raises UsageError for a bundle that is no single file, and the errors of a bad bundle."""
        self.label = bundle.label
        self._content = _contents_of(bundle)
        selection = bundle.index.selection
        elsewhere = {blob.digest for blob in selection.requires}.union(selection.makers)
        self._ranges = {digest: at for digest, at in bundle.ranges().items() if digest not in elsewhere}
        models: list[ServedModel] = []
        left: list[LeftOut] = []
        for name, raw in bundle.read_manifests(selection.models):
            model = ServedModel.of(name, Manifest.parse(raw))
            if elsewhere.isdisjoint(blob.digest for blob in model.blobs):
                models.append(model)
            else:
                left.append(LeftOut(str(name), UsageError("a delta has it; import the bundle into a store first")))
        self._offer = Offer(tuple(models), tuple(left))

    def look(self) -> Offer:
        stamp = self._content(0).stamp
        return replace(self._offer, stamps=dict.fromkeys(self._ranges, stamp))

    def opened(self, blob: Descriptor) -> Content | None:
        start, size = self._ranges.get(blob.digest, (0, -1))
        return self._content(start) if size == blob.size else None


def _contents_of(bundle: BundleReader) -> Callable[[int], Content]:
    """Return what opens a blob that begins at a byte of the tar stream."""
    tar = bundle.tar
    if isinstance(tar, FramedBytes) and isinstance(tar.source, FileBytes):
        shelf = FrameShelf(tar.source, tar.spans)
        return lambda start: FramesContent(shelf, start)
    if isinstance(tar, FileBytes):
        fd = tar.fd
        return lambda start: FileContent(fd, start=start, owns=False)
    raise UsageError(
        f"{bundle.label}: only a store or a bundle in one file can be served",
        hint="import it into a store, and serve that",
    )


def _served(name: ModelName, manifest: Manifest) -> ServedModel | LeftOut:
    try:
        manifest.refuse_unclear()
    except OstoreError as error:
        return LeftOut(str(name), error)
    return ServedModel.of(name, manifest)


def _may_pass(read: ServedModel | LeftOut) -> bool:
    """Whether the system gave no answer about a file: it may do so at the next look, though nothing has changed."""
    return isinstance(read, LeftOut) and isinstance(read.error, OSError)


def _stamp_at(path: str) -> Stamp | None:
    """Return the stamp of what a path leads to; None if that cannot be told."""
    try:
        return stamp_of(os.stat(path))  # noqa: PTH116 - as text
    except OSError:
        return None


def _stamp_of_file(path: Path) -> Stamp | None:
    """Return the stamp of a regular file; None if there is none. Raises OSError."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stamp_of(status) if stat.S_ISREG(status.st_mode) else None


def _size_in(stamp: Stamp | None) -> int | None:
    return stamp.size if stamp else None


def _doubts(tree: ManifestTree) -> Iterator[str]:
    """Yield why a store may have models that were not found."""
    yield from (f"{folder.path}: {folder.reason}" for folder in tree.closed)
    for stray in PassingScan(tree).strays:
        if not stray.is_side_file:
            yield f"{stray.path}: not a place where a manifest can be"
    if not tree.folders and not tree.closed:
        yield f"{MANIFESTS}: no such folder"


def _offer(
    known: Iterable[ServedModel | LeftOut], path_of: Callable[[Digest], Path], doubts: tuple[str, ...] = ()
) -> Offer:
    """Return what can be given of models that were read, judged by the sizes of the files of their blobs."""
    models: list[ServedModel] = []
    left: list[LeftOut] = []
    stamps: dict[Digest, Stamp | None] = {}
    for one in known:
        if isinstance(one, LeftOut):
            left.append(one)
            continue
        for blob in one.blobs:
            if blob.digest not in stamps:
                stamps[blob.digest] = _stamp_of_file(path_of(blob.digest))
        lacking = next((blob for blob in one.blobs if _size_in(stamps[blob.digest]) != blob.size), None)
        if lacking is None:
            models.append(one)
        else:
            reason = f"blob {lacking.digest}: missing, a link, or not of {lacking.size} bytes"
            left.append(LeftOut(str(one.name), DamagedStoreError(reason), lacking.digest))
    return Offer(tuple(models), tuple(left), doubts, {digest: stamp for digest, stamp in stamps.items() if stamp})


def _opened_file(folder: Path, name: str, size: int) -> Content | None:
    """Open a regular file of this size; None if there is none. Raises OSError."""
    try:
        with Directory.open(folder) as opened:
            fd = opened.open_file(name)
    except (FileNotFoundError, NotADirectoryError, DamagedStoreError):
        # A link is none: it may lead to what only this process may read.
        return None
    if os.fstat(fd).st_size != size:
        os.close(fd)
        return None
    return FileContent(fd)
