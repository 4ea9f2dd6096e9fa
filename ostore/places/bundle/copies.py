"""A bundle as a place where good copies of single blobs and manifests are; only their part of the file is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping

from ostore.formats.digest import Digest
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.selection import Selection
from ostore.places.bundle.reader import BundleReader
from ostore.streams.chunks import Chunk


class BundleCopies:
    """What an open bundle has of blobs and models that somebody lacks. It is read in one pass."""

    def __init__(self, bundle: BundleReader, label: str) -> None:
        self.label = label
        self._bundle = bundle
        self._stored = {blob.digest: blob for blob in bundle.index.selection.blobs}
        self._required = {blob.digest: blob for blob in bundle.index.selection.requires}
        self._reading: Iterator[tuple[Descriptor, Iterator[Chunk]]] | None = None

    def find_models(self, names: Collection[str]) -> tuple[Selection, ...]:
        """A selection for each model with one of these names (folded)."""
        models = [model for model in self._bundle.index.selection.models if model.name.folded in names]
        return tuple(
            Selection(
                (model,),
                tuple(self._stored[digest] for digest in model.blobs if digest in self._stored),
                tuple(self._required[digest] for digest in model.blobs if digest in self._required),
            )
            for model in models
        )

    def find_blobs(self, wanted: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Those that it has, going by its index."""
        held = (self._stored[digest] for digest in wanted if digest in self._stored)
        return tuple(blob for blob in held if wanted[blob.digest] in {None, blob.size})

    def read_blobs(self, wanted: Collection[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[Chunk]]]:
        """Yield wanted blobs, unverified, in the order of the archive. Raises as `BundleReader.read_blobs`."""
        left = len(wanted)
        self._reading = self._bundle.read_blobs(wanted)
        # Not to its end, where it goes on to what lies behind the last blob.
        while left:
            yield next(self._reading)
            left -= 1

    def read_manifests(self, names: Collection[ModelName]) -> Iterator[tuple[ModelName, bytes]]:
        """Yield the raw manifests of these models, after the blobs. Raises as `BundleReader.read_manifests`."""
        if names:
            # On to what lies behind the last blob.
            deque(self._reading or self._bundle.read_blobs(()), maxlen=0)
            yield from ((name, raw) for name, raw in self._bundle.read_manifests() if name in names)
