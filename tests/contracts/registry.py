"""
A registry in memory: a source and a sink that keeps what it gets, and misbehaves when a test tells it to.

No test can order a real network that tears, lies, or answers differently the second time. The registry has the
protocols of `operations/transfer` by its methods alone, as real places do.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobMissingError, IntegrityError, NotFoundError, RemoteError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName, choose
from ostore.formats.outcome import Forecast, Outcome, Received
from ostore.formats.selection import SelectedModel, Selection, Wanted
from ostore.streams.bytes_at import BytesAt, Held
from ostore.streams.chunks import Chunk
from ostore.streams.verified import verified
from tests.in_memory import StayingBytes

NAME = "registry.example"
CHUNK = 1000


@dataclass
class Registry:
    """
    What the other side has: manifests by full name, blobs by digest.

    `tears_at` is the byte of each blob at which the connection breaks. `lies` sends other bytes of the same length.
    `changes` sends other bytes from the second reading on. `breaks_after` is how many blobs it takes before it answers
    no more. `readings` counts how often each blob was read, `sent` the bytes that went out.
    """

    manifests: dict[ModelName, bytes] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    staged: dict[Digest, bytes] = field(default_factory=dict)
    tears_at: int | None = None
    lies: bool = False
    changes: bool = False
    breaks_after: int | None = None
    sent: int = 0
    readings: Counter[Digest] = field(default_factory=Counter)

    def read(self, digest: Digest, start: int) -> Iterator[bytes]:
        if digest not in self.blobs:
            raise BlobMissingError(f"{NAME}: no blob {digest}", digest=str(digest))
        content = self.blobs[digest]
        self.readings[digest] += 1
        if self.lies or (self.changes and self.readings[digest] > 1):
            content = bytes(byte ^ 1 for byte in content)
        end = len(content) if self.tears_at is None else min(len(content), self.tears_at)
        for offset in range(start, end, CHUNK):
            chunk = content[offset : min(offset + CHUNK, end)]
            self.sent += len(chunk)
            yield chunk
        if end < len(content):
            raise RemoteError(f"{NAME}: connection reset at byte {end} of {digest.short}")


class RegistrySource:
    """The registry as a source."""

    label = NAME
    can_resume = True

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def select(self, patterns: Sequence[str]) -> Selection:
        chosen, unmatched = choose(list(self._registry.manifests), patterns)
        if unmatched:
            raise NotFoundError(f"no model {unmatched[0]!r} at {NAME}")
        return self._selection(chosen if patterns else self._registry.manifests)

    def find_models(self, folded: Collection[str]) -> tuple[Selection, ...]:
        return tuple(self._selection([name]) for name in self._registry.manifests if name.folded in folded)

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        sizes = {digest: len(content) for digest, content in self._registry.blobs.items()}
        return tuple(
            Descriptor(digest, sizes[digest])
            for digest, size in lacking.items()
            if digest in sizes and size in {None, sizes[digest]}
        )

    def file_of(self, _blob: Descriptor, /) -> Path | None:
        return None

    def read_blobs(self, wanted: Sequence[Wanted], _held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        for one in wanted:
            yield one, self._registry.read(one.blob.digest, one.start)

    def read_manifests(self, models: Sequence[SelectedModel]) -> Iterator[tuple[ModelName, bytes]]:
        for model in models:
            yield model.name, self._registry.manifests[model.name] if model.raw is None else model.raw

    def _selection(self, names: Iterable[ModelName]) -> Selection:
        return Selection.of((name, Manifest.parse(self._registry.manifests[name])) for name in names)


class RegistrySink:
    """The registry as a sink: blobs are put one by one, and a model is there once its manifest is."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def compare(self, selection: Selection) -> Forecast:
        outcomes = {
            model.name: Outcome.ALREADY_THERE if model.name in self._registry.manifests else Outcome.ADDED
            for model in selection.models
        }
        return Forecast(outcomes, tuple(blob for blob in selection.blobs if blob.digest not in self._registry.blobs))

    def without_clashes(self, selection: Selection) -> Selection:
        return selection

    @contextlib.contextmanager
    def receive(self, selection: Selection) -> Iterator[RegistryInbox]:
        inbox = RegistryInbox(self._registry, selection, self.compare(selection))
        yield inbox
        inbox.publish()


class RegistryInbox:
    """One push."""

    def __init__(self, registry: Registry, selection: Selection, forecast: Forecast) -> None:
        self._registry = registry
        self._selection = selection
        self._forecast = forecast
        self._manifests: dict[ModelName, bytes] = {}
        self._written: list[Descriptor] = []
        self._received: Received | None = None

    @property
    def missing(self) -> tuple[Wanted, ...]:
        """From the start: what the other side has of an upload cannot be hashed here."""
        return tuple(Wanted(blob) for blob in self._forecast.missing if blob not in self._written)

    @property
    def received(self) -> Received:
        if self._received is None:
            raise RuntimeError("nothing is received before it is published")
        return self._received

    def held(self, digest: Digest, /) -> BytesAt | None:
        return StayingBytes(self._registry.staged[digest]) if digest in self._registry.staged else None

    def take_files(self, file_of: Callable[[Descriptor], Path | None]) -> None:
        pass

    def write_blob(self, wanted: Wanted, chunks: Iterable[Chunk]) -> None:
        content = b"".join(verified(chunks, wanted.blob))
        if len(self._written) == self._registry.breaks_after:
            raise RemoteError(f"{NAME}: no answer")
        self._registry.staged[wanted.blob.digest] = content
        self._written.append(wanted.blob)

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        promised = {model.name: model.manifest_digest for model in self._selection.models}
        if promised.get(name) != Digest.of(raw):
            raise IntegrityError(f"manifest of {name}: not the one that was announced")
        self._manifests[name] = raw

    def publish(self) -> None:
        if self.missing or len(self._manifests) != len(self._selection.models):
            raise RuntimeError("a blob or a manifest of the selection was not delivered")
        self._registry.blobs.update(self._registry.staged)
        self._registry.manifests.update(self._manifests)
        self._received = Received(self._forecast.outcomes, written=tuple(self._written))
