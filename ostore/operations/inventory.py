"""Make an inventory of what was found in a store, and look inside its blobs: at headers, tensors and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.formats.inventory import HeldBlob, HeldModel, Inventory, TensorAt, TensorMap
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.tensor_ranges import read_tensor_ranges
from ostore.operations.weights import OpenedBlobs
from ostore.streams.bytes_at import BytesAt, FileBytes
from ostore.streams.progress import Progress, watching

_STRETCH_BYTES = 1024 * 1024
_WITH_TENSORS = media_types.WEIGHTS | {media_types.TENSOR}


class _Model(Protocol):
    @property
    def name(self) -> ModelName: ...
    @property
    def manifest(self) -> Manifest: ...


@dataclass(frozen=True, slots=True)
class Insight:
    """What reading a blob has shown: whether it is the blob (None: not asked), and what is in it, if that is known."""

    is_whole: bool | None = None
    tensors: TensorMap | None = None


def clear_models(models: Iterable[_Model]) -> tuple[list[_Model], tuple[str, ...]]:
    """Return the models that an inventory can list, and why it leaves out the others."""
    kept: dict[str, list[_Model]] = {}
    notes = []
    for model in models:
        try:
            model.manifest.refuse_unclear()
        except OstoreError as error:
            notes.append(f"{model.name}: not listed: {error}")
        else:
            kept.setdefault(model.name.folded, []).append(model)
    for twins in kept.values():
        if len(twins) > 1:
            names = ", ".join(sorted(str(model.name) for model in twins))
            notes.append(f"{names}: not listed: they differ only by case")
    return [twins[0] for twins in kept.values() if len(twins) == 1], tuple(notes)


def blobs_there(models: Iterable[_Model], holds: Callable[[Descriptor], bool]) -> dict[Digest, Descriptor]:
    """Return the blobs of these models that are there with the size that a manifest says, each once."""
    named = {(blob.digest, blob.size): blob for model in models for blob in model.manifest.blobs}
    return {digest: blob for (digest, _), blob in named.items() if holds(blob)}


def make_inventory(
    models: Collection[_Model],
    there: Mapping[Digest, Descriptor],
    insights: Mapping[Digest, Insight],
    staged: Mapping[Digest, int],
) -> tuple[Inventory, tuple[str, ...]]:
    """
    Return the inventory of these models, and a line about each one that is not whole.

    `there` are the blobs that have a file, `staged` those that an interrupted import has finished, with their sizes.
    """
    whole = {digest: blob for digest, blob in there.items() if insights.get(digest, Insight()).is_whole is not False}
    blobs = [
        HeldBlob(digest, blob.size, tensors=insights.get(digest, Insight()).tensors) for digest, blob in whole.items()
    ]
    blobs += [HeldBlob(digest, size, is_staged=True) for digest, size in staged.items() if digest not in whole]
    held = [
        HeldModel(
            model.name,
            Descriptor(model.manifest.digest, len(model.manifest.raw)),
            tuple(blob.digest for blob in model.manifest.blobs),
        )
        for model in models
    ]
    inventory = Inventory.of(held, blobs)
    notes = (_lacks(model, sum(digest not in whole for digest in model.blobs)) for model in inventory.models)
    return inventory, tuple(filter(None, notes))


def _lacks(model: HeldModel, count: int) -> str:
    return f"{model.name}: {count:,} of its blobs {'is' if count == 1 else 'are'} missing or damaged" if count else ""


def look_inside(store: OpenedBlobs, blob: Descriptor, progress: Progress, *, tensors: bool, verify: bool) -> Insight:
    """
    Read a blob once, from its begin to its end. Nothing is read if nothing is asked.

    A header that cannot be read gives no tensors, and a blob that has gone or changes is not whole. Raises OSError.
    """
    try:
        return _look_inside(store, blob, progress, tensors=tensors, verify=verify)
    except OstoreError:
        return Insight(is_whole=False)


def _look_inside(store: OpenedBlobs, blob: Descriptor, progress: Progress, *, tensors: bool, verify: bool) -> Insight:
    with store.opened_blob(blob.digest) as fd:
        file = FileBytes(fd, Path(blob.digest.filename))
        ranges = _ranges(file) if tensors and blob.media_type in _WITH_TENSORS else ()
        if not ranges and not verify:
            return Insight()
        whole, hashed = hashlib.sha256(), _Hashed(ranges)
        with watching(blob.digest.short, blob.size, progress) as advance:
            for stretch in _stretches(file):
                advance(len(stretch))
                if verify:
                    whole.update(stretch)
                hashed.update(stretch)
        file.refuse_changes()
    is_whole = whole.hexdigest() == blob.digest.hex if verify else None
    return Insight(is_whole, hashed.tensor_map if ranges and is_whole is not False else None)


class _Hashed:
    """The digests of ranges of a stream. They follow one another; the first is the header."""

    def __init__(self, ranges: tuple[tuple[int, int], ...]) -> None:
        self._ranges = ranges
        self._digests: list[Digest] = []
        self._hasher = hashlib.sha256()
        self._position = 0

    def update(self, stretch: memoryview) -> None:
        """Take the next bytes of the stream."""
        end = self._position + len(stretch)
        while len(self._digests) < len(self._ranges):
            begin, stop = self._ranges[len(self._digests)]
            if begin < end:
                self._hasher.update(stretch[max(0, begin - self._position) : stop - self._position])
            if stop > end:
                break
            self._digests.append(Digest(self._hasher.hexdigest()))
            self._hasher = hashlib.sha256()
        self._position = end

    @property
    def tensor_map(self) -> TensorMap:
        """The ranges with their digests, when the stream has ended."""
        (_, header), *tensors = self._ranges
        first, *others = self._digests
        return TensorMap(
            Descriptor(first, header),
            tuple(TensorAt(begin, stop - begin, digest) for (begin, stop), digest in zip(tensors, others, strict=True)),
        )


def _stretches(file: BytesAt) -> Iterator[memoryview]:
    offset = 0
    while data := file.read_at(_STRETCH_BYTES, offset):
        offset += len(data)
        yield memoryview(data)


def _ranges(file: BytesAt) -> tuple[tuple[int, int], ...]:
    """Return begin and end of the header and of each tensor, or nothing for a file that is of neither kind."""
    found = read_tensor_ranges(file.read_at, file.size)
    return ((0, found.header), *((begin, begin + size) for begin, size in found.tensors)) if found else ()
