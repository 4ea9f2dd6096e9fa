"""A store as a place where good copies of single blobs and manifests are, for the repair of another one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.selection import Selection
from ostore.formats.store_layout import MANIFESTS
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import ManifestTree, find_manifests
from ostore.places.store.survey.scan import scan_manifests
from ostore.streams.chunks import Chunk


class StoreCopies:
    """What a store has of blobs and models that another one lacks."""

    def __init__(self, store: LocalStore, label: str) -> None:
        self.label = label
        self._store = store
        self._manifests: dict[ModelName, Manifest] = {}

    def find_models(self, names: Collection[str]) -> tuple[Selection, ...]:
        """A selection for each model with one of these names (folded) whose manifest may enter another store."""
        entries = find_manifests(self._store.root).entries if names else []
        chosen = [entry for entry in entries if entry.tree == MANIFESTS and entry.name and entry.name.folded in names]
        found = []
        for model in scan_manifests(ManifestTree(chosen)).models:
            try:
                model.manifest.refuse_unclear()
                found.append(Selection.of([(model.name, model.manifest)]))
            except OstoreError:
                continue
            self._manifests[model.name] = model.manifest
        return tuple(found)

    def find_blobs(self, wanted: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Those of which a file of the right size is there."""
        sizes = {digest: self._store.size_of(digest) for digest in wanted}
        return tuple(
            Descriptor(digest, size)
            for digest, size in sizes.items()
            if size is not None and wanted[digest] in {None, size}
        )

    def read_blobs(self, wanted: Collection[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[Chunk]]]:
        """Yield each wanted blob, unverified; what is wrong with its file is raised by its stream."""
        for blob in wanted:
            yield blob, self._chunks(blob)

    def read_manifests(self, names: Collection[ModelName]) -> Iterator[tuple[ModelName, bytes]]:
        """Yield the raw manifests of these models, as they were when they were found."""
        for name in names:
            yield name, self._manifests[name].raw

    def _chunks(self, blob: Descriptor) -> Iterator[Chunk]:
        for _, chunks in self._store.read_blobs((blob,)):
            yield from chunks
