"""The files of weights that a model consists of, for programs that read files and no manifests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ostore.formats import media_types
from ostore.formats.config import ModelConfig
from ostore.formats.errors import FormatError, NotFoundError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName

_FILES = (media_types.MODEL, media_types.PROJECTOR)
_KINDS = (*_FILES, media_types.ADAPTER, media_types.DRAFT)


class Parts(NamedTuple):
    """The files of a model of one GGUF: its weights, and what may belong to them, in the order of the manifest."""

    weights: Descriptor
    projectors: tuple[Descriptor, ...]
    adapters: tuple[Descriptor, ...]
    drafts: tuple[Descriptor, ...]

    @property
    def all(self) -> tuple[Descriptor, ...]:
        return (self.weights, *self.projectors, *self.adapters, *self.drafts)


def parts_of(name: ModelName, manifest: Manifest, config: ModelConfig) -> Parts:
    """
    Return the files of a model.

    Raises NotFoundError for a model whose weights are on another host, FormatError for one of tensors, in several files
    or without weights.
    """
    of = {media_type: _distinct(manifest.layers, media_type) for media_type in (*_KINDS, media_types.TENSOR)}
    weights = of[media_types.MODEL]
    if config.is_cloud_stub and not weights:
        raise NotFoundError(f"{name}: a cloud model; its weights are on {config.remote_host} and not in this store")
    if of[media_types.TENSOR]:
        count = len(of[media_types.TENSOR])
        raise FormatError(f"{name}: a model of {count:,} tensors, each a blob; only Ollama reads it")
    if not weights:
        raise FormatError(f"{name}: no weights in its manifest")
    if len(weights) > 1:
        raise FormatError(f"{name}: its weights are in {len(weights)} files, which no version of Ollama loads")
    return Parts(weights[0], of[media_types.PROJECTOR], of[media_types.ADAPTER], of[media_types.DRAFT])


def instructions_of(manifest: Manifest) -> list[tuple[str, Descriptor]]:
    """
    Return the instruction of a Modelfile for each layer of weights, in their order.

    An adapter is what FROM names too, because its header tells what it is. ADAPTER puts one after all others.
    """
    layers = [layer for layer in manifest.layers if layer.media_type in _KINDS]
    last = [layer.media_type for layer in layers if layer.media_type != media_types.DRAFT][-1:]
    words = dict.fromkeys(_FILES, "FROM") | {media_types.DRAFT: "DRAFT"}
    single = sum(layer.media_type == media_types.ADAPTER for layer in layers) == 1
    words[media_types.ADAPTER] = "ADAPTER" if single and last == [media_types.ADAPTER] else "FROM"
    return [(words[layer.media_type], layer) for layer in layers]


def _distinct(layers: Iterable[Descriptor], media_type: str) -> tuple[Descriptor, ...]:
    return tuple({layer.digest: layer for layer in layers if layer.media_type == media_type}.values())
