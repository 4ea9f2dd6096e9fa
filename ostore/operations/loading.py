"""
Which models not every program loads: of a dialect, of tensors, and of parts of a split set, which nothing loads.

The headers of the weights say so. One that cannot be read says nothing here: `verify` tells what is damaged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ostore.formats import media_types
from ostore.formats.dialect import dialect_of
from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.formats.gguf_facts import Split, split_of
from ostore.formats.manifest import Manifest
from ostore.formats.name import ModelName
from ostore.operations.weights import OpenedBlobs, opened_gguf

IN_PARTS = "its weights are parts of a split set, which no version of Ollama loads"


class _Model(Protocol):
    @property
    def name(self) -> ModelName: ...
    @property
    def manifest(self) -> Manifest: ...


@dataclass(frozen=True, slots=True)
class Loading:
    """What the header of a blob with weights says of who loads it."""

    dialect: str | None
    split: Split | None


@dataclass(frozen=True, slots=True)
class ModelInParts:
    """
    A model whose weights are `found` parts of a split set of `count`.

    `parts` are their blobs in order, or empty if they are not the whole set. `has_texts` says that the model has more
    than weights.
    """

    name: ModelName
    found: int
    count: int
    parts: tuple[Digest, ...]
    has_texts: bool


@dataclass(frozen=True, slots=True)
class Unloadable:
    """The models that run in Ollama only, and those that run nowhere."""

    in_ollama_only: tuple[ModelName, ...] = ()
    in_parts: tuple[ModelInParts, ...] = ()


def loading_of(store: OpenedBlobs, digest: Digest) -> Loading | None:
    """Return what the header of a blob says, None if it cannot be read or is not that of a GGUF."""
    try:
        with opened_gguf(store, digest) as (gguf, read_at):
            return Loading(dialect_of(gguf, read_at), split_of(gguf))
    except (OstoreError, OSError):
        return None


def find_unloadable(store: OpenedBlobs, models: Iterable[_Model]) -> Unloadable:
    """Find the models that not every program loads. The header of each large blob of weights is read once."""
    headers: dict[Digest, Loading | None] = {}
    in_ollama_only, in_parts = [], []
    for model in models:
        if b".tensor" in model.manifest.raw and media_types.TENSOR in model.manifest.layer_types:
            in_ollama_only.append(model.name)
            continue
        # A store of ten thousand tiny models need not wait for as many files to be opened.
        if not model.manifest.has_large_blob:
            continue
        blobs = [layer.digest for layer in model.manifest.layers if layer.media_type in media_types.WEIGHTS]
        for digest in blobs:
            if digest not in headers:
                headers[digest] = loading_of(store, digest)
        known = {digest: header for digest in blobs if (header := headers[digest])}
        splits = {digest: header.split for digest, header in known.items() if header.split}
        if splits:
            in_parts.append(_in_parts(model, splits))
        elif any(header.dialect for header in known.values()):
            in_ollama_only.append(model.name)
    return Unloadable(tuple(in_ollama_only), tuple(in_parts))


def _in_parts(model: _Model, splits: dict[Digest, Split]) -> ModelInParts:
    by_number = {split.number: digest for digest, split in splits.items()}
    count = next(iter(splits.values())).count
    is_whole = len(splits) == count and set(by_number) == set(range(count))
    parts = tuple(by_number[number] for number in range(count)) if is_whole else ()
    has_texts = not media_types.WEIGHTS.issuperset(model.manifest.layer_types)
    return ModelInParts(model.name, len(splits), count, parts, has_texts)
