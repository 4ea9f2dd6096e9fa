"""The one movement: models from a source to a sink. Export and import differ only in what the two are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.selection import Selection
from ostore.streams.chunks import Chunk
from ostore.streams.progress import Progress, watched


class ModelSource(Protocol):
    """Where models come from; what is read is what was selected before."""

    def read_blobs(self, wanted: Collection[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[Chunk]]]:
        """Yield wanted blobs in the source's own order, unverified; a stream is valid until the next is asked for."""

    def read_manifests(self) -> Iterator[tuple[ModelName, bytes]]:
        """Yield the raw bytes of every selected model's manifest, once `read_blobs` is exhausted."""


class Inbox(Protocol):
    """One transaction of a sink."""

    @property
    def missing(self) -> tuple[Descriptor, ...]:
        """The blobs that have to be written."""

    def write_blob(self, descriptor: Descriptor, chunks: Iterable[Chunk]) -> None:
        """Take one blob through `verified`. Raises BlobError."""

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        """Take one manifest. Raises IntegrityError unless it is what the selection says."""


class ModelSink(Protocol):
    """Where models go."""

    def receive(self, selection: Selection) -> AbstractContextManager[Inbox]:
        """Open a transaction; leaving it publishes, an exception in it publishes nothing."""


def copy(source: ModelSource, sink: ModelSink, selection: Selection, *, phase: str, progress: Progress) -> None:
    """
    Move a selection: every blob that the sink misses, then every manifest.

    `phase` is what it is called while it lasts. Raises what the two places raise.
    """
    with sink.receive(selection) as inbox:
        missing = inbox.missing
        progress.phase(phase, sum(blob.size for blob in missing))
        for blob, chunks in source.read_blobs(missing):
            inbox.write_blob(blob, watched(chunks, blob.digest.short, blob.size, progress))
        for name, raw in source.read_manifests():
            inbox.write_manifest(name, raw)
