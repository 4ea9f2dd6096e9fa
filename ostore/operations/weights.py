"""
Read the headers of the weights of a model in a store: of each GGUF, and of all tensors that are blobs of their own.

Weights that are missing or damaged are told in a value: a model has more to show than them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ostore.formats import media_types
from ostore.formats.dialect import dialect_of
from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.formats.gguf import KIND_NAMES, Gguf, GgufArray, GgufField, ReadAt, read_gguf
from ostore.formats.gguf_facts import parameter_count, parameter_label, quantization_shown
from ostore.formats.manifest import Descriptor
from ostore.formats.safetensors import read_safetensors
from ostore.streams.bytes_at import FileBytes

# A model of tensors has hundreds of blobs, or some thousands with many experts.
MAX_TENSOR_BLOBS = 20_000


class OpenedBlobs(Protocol):
    """A store whose blobs can be opened."""

    def opened_blob(self, digest: Digest) -> AbstractContextManager[int]:
        """Open a blob for reading. Raises OstoreError, OSError."""
        ...


@dataclass(frozen=True, slots=True)
class ShownKey:
    """
    One key of a GGUF header. Of an array, `value` is None, `type` that of its items, and `count` how many there are.

    A number that JSON cannot say (infinity, not a number) is a text.
    """

    key: str
    type: str
    value: int | float | str | bool | None
    count: int | None


@dataclass(frozen=True, slots=True)
class ShownTensor:
    """One tensor of a GGUF header: its type as ggml calls it, and its shape."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShownWeights:
    """
    What the header of one layer with weights says, or the headers of all tensors that are layers of their own.

    `unknown` is why it cannot be read, else empty; all after it is empty or 0 then. `dialect` is the architecture of a
    file that only Ollama can load, else empty. `projection` is how many numbers a projector makes of a picture.
    """

    media_type: str
    digest: str
    unknown: str
    architecture: str = ""
    dialect: str = ""
    parameter_count: int = 0
    quantization: str = ""
    context_length: int = 0
    embedding_length: int = 0
    block_count: int = 0
    projection: int = 0
    metadata: tuple[ShownKey, ...] = ()
    tensors: tuple[ShownTensor, ...] = ()

    @property
    def parameter_size(self) -> str:
        """The number of parameters as Ollama writes it."""
        return parameter_label(self.parameter_count)


@contextmanager
def opened_gguf(store: OpenedBlobs, digest: Digest) -> Iterator[tuple[Gguf, ReadAt]]:
    """Open a blob and yield its header, and what reads its bytes. Raises OstoreError, OSError."""
    with store.opened_blob(digest) as fd:
        file = FileBytes(fd, Path(digest.filename))
        yield read_gguf(file.read_at, file.size, f"blob {digest}"), file.read_at


def read_weights(store: OpenedBlobs, layer: Descriptor) -> tuple[ShownWeights, Gguf | None]:
    """Read the header of one layer, or tell why it cannot be read: the model has more to show than that."""
    try:
        with opened_gguf(store, layer.digest) as (gguf, read_at):
            dialect = dialect_of(gguf, read_at)
    except (OstoreError, OSError) as error:
        return ShownWeights(layer.media_type, str(layer.digest), unknown=_reason(error, layer.digest)), None
    return _shown(layer, gguf, dialect or ""), gguf


def _shown(layer: Descriptor, gguf: Gguf, dialect: str) -> ShownWeights:
    return ShownWeights(
        layer.media_type,
        str(layer.digest),
        unknown="",
        architecture=gguf.architecture,
        dialect=dialect,
        parameter_count=parameter_count(gguf),
        quantization=quantization_shown(gguf),
        context_length=gguf.number("context_length"),
        # A projector has one length for pictures or one for sound.
        embedding_length=_first(gguf, "embedding_length", "vision.embedding_length", "audio.embedding_length"),
        block_count=gguf.number("block_count"),
        projection=_first(gguf, "vision.projection_dim", "audio.projection_dim"),
        metadata=tuple(_key(key, field) for key, field in gguf.fields.items()),
        tensors=tuple(ShownTensor(tensor.name, tensor.type_name, tensor.shape) for tensor in gguf.tensors),
    )


def read_tensors(store: OpenedBlobs, layers: Sequence[Descriptor]) -> tuple[ShownWeights, ...]:
    """
    Read the headers of all tensors of a model, each in a blob of its own or several in one.

    As for Ollama, the first one tells the quantization. The number of parameters is that of the tensors, which Ollama
    guesses from the sizes of the blobs.
    """
    layers = [layer for layer in layers if layer.media_type == media_types.TENSOR]
    if not layers:
        return ()
    told = partial(ShownWeights, media_types.TENSOR, str(layers[0].digest))
    if len(layers) > MAX_TENSOR_BLOBS:
        return (told(unknown=f"expected at most {MAX_TENSOR_BLOBS:,} blobs of tensors to read, got {len(layers):,}"),)
    tensors: list[ShownTensor] = []
    elements, digest = 0, layers[0].digest
    try:
        for layer in layers:
            digest = layer.digest
            with store.opened_blob(layer.digest) as fd:
                source = FileBytes(fd, Path(layer.digest.filename))
                found = read_safetensors(source.read_at, source.size, f"blob {layer.digest}").unpacked
            elements += sum(tensor.elements for tensor in found)
            tensors += (
                ShownTensor(layer.layer_name if len(found) == 1 else tensor.name, tensor.dtype, tensor.shape)
                for tensor in found
            )
    except (OstoreError, OSError) as error:
        return (told(unknown=_reason(error, digest)),)
    quantization = tensors[0].type if tensors else ""
    return (told(unknown="", parameter_count=elements, quantization=quantization, tensors=tuple(tensors)),)


def _first(gguf: Gguf, *keys: str) -> int:
    return next((number for key in keys if (number := gguf.number(key))), 0)


def _key(key: str, field: GgufField) -> ShownKey:
    value = field.value
    if isinstance(value, GgufArray):
        return ShownKey(key, KIND_NAMES[value.kind], None, value.count)
    is_number = not isinstance(value, float) or math.isfinite(value)
    return ShownKey(key, KIND_NAMES[field.kind], value if is_number else str(value), None)


def _reason(error: OstoreError | OSError, digest: Digest) -> str:
    return f"blob {digest}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
