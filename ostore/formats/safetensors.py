"""
The header of a safetensors file: its tensors, their types and where they are. No weights are read.

Format: README of huggingface/safetensors, and what its reader refuses: holes, overlaps, and a file of another length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ostore.formats.errors import FormatError, LimitError, TruncatedError
from ostore.formats.gguf import ReadAt
from ostore.formats.json_reading import read_strict_json

# The limit of safetensors itself.
MAX_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8
_MAX_ELEMENTS = 2**63 - 1
_MAX_DIMENSIONS = 64
_METADATA = "__metadata__"
# How Ollama packs quantized tensors: x/server/show.go at fb30760. It forgets mxfp4, which has four bits too.
_NUMBERS_IN_U32 = {"int4": 8, "mxfp4": 8, "nvfp4": 8, "int8": 4, "mxfp8": 4}
_BY_RATIO = {4: "int4", 16: "int8"}
_COMPANIONS = (".scale", ".bias", ".global_scale")
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


@dataclass(frozen=True, slots=True)
class SafeTensor:
    """One tensor. `offset` counts from the start of the data, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def elements(self) -> int:
        """The number of its parameters."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Safetensors:
    """A header. `data_offset` is where the data begins in the file, in bytes."""

    tensors: tuple[SafeTensor, ...]
    metadata: Mapping[str, str]
    data_offset: int

    @property
    def unpacked(self) -> tuple[SafeTensor, ...]:
        """
        The tensors as Ollama shows them, with what a quantized one was before: its shape, and its quantization as type.

        Scales and biases that belong to another tensor of the file are left out.
        """
        by_name = {tensor.name: tensor for tensor in self.tensors}
        main = (tensor for tensor in self.tensors if _owner(tensor.name) not in by_name)
        return tuple(self._unpacked(tensor, by_name.get(f"{tensor.name}.scale")) for tensor in main)

    def _unpacked(self, tensor: SafeTensor, scale: SafeTensor | None) -> SafeTensor:
        quantization = self.metadata.get("quant_type", "") or _quantization(tensor, scale)
        if not quantization:
            return tensor
        *rows, columns = tensor.shape or (1,)
        factor = _NUMBERS_IN_U32.get(quantization.lower(), 1) if rows and tensor.dtype == "U32" else 1
        return replace(tensor, dtype=quantization.upper(), shape=(*rows, columns * factor) if rows else tensor.shape)


def _owner(name: str) -> str | None:
    """Return the tensor that a scale or bias belongs to, None for any other name."""
    return next((name.removesuffix(end) for end in _COMPANIONS if name.endswith(end)), None)


def _quantization(tensor: SafeTensor, scale: SafeTensor | None) -> str:
    """Return what a file of several tensors does not say: a quantization, from how many numbers share a scale."""
    if scale is None or not tensor.shape or not scale.shape or not scale.shape[-1]:
        return ""
    return _BY_RATIO.get(tensor.shape[-1] // scale.shape[-1], "")


def read_safetensors(read_at: ReadAt, size: int, subject: str) -> Safetensors:
    """
    Read the header of a file of `size` bytes. `subject` begins every message. Tensors come in the order of their data.

    Raises FormatError for bytes that are no safetensors file, for a name twice, a hole or an overlap, TruncatedError
    if the file ends before the header or the data does, LimitError, and what `read_at` raises.
    """
    length = int.from_bytes(head := read_at(_LENGTH_BYTES, 0), "little")
    if len(head) < _LENGTH_BYTES:
        raise FormatError(f"{subject}: not a safetensors file: it has {size} bytes")
    if length > MAX_HEADER_BYTES:
        raise LimitError(f"{subject}: expected a header of at most {MAX_HEADER_BYTES} bytes, got {length}")
    raw = read_at(length, _LENGTH_BYTES)
    if len(raw) < length:
        raise TruncatedError(f"{subject}: expected a header of {length} bytes, got {len(raw)}")
    try:
        return _parsed(raw, size - _LENGTH_BYTES - length)
    except (FormatError, LimitError, TruncatedError) as error:
        raise type(error)(f"{subject}: safetensors header: {error}") from None


def _parsed(raw: bytes, data_bytes: int) -> Safetensors:
    document = read_strict_json(raw)
    if not isinstance(document, dict):
        raise FormatError(f"expected an object, got {document!r:.40}")
    metadata = _metadata(document.pop(_METADATA, {}))
    tensors = sorted((_tensor(*entry) for entry in document.items()), key=lambda tensor: (tensor.offset, tensor.size))
    _refuse_holes(tensors, data_bytes)
    return Safetensors(tuple(tensors), metadata, _LENGTH_BYTES + len(raw))


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FormatError(f"{_METADATA}: expected texts, got {value!r:.40}")
    return value


def _tensor(name: str, value: object) -> SafeTensor:
    said = value if isinstance(value, dict) else {}
    dtype, shape, offsets = said.get("dtype"), _sizes(said.get("shape")), _sizes(said.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:  # noqa: PLR2004
        raise FormatError(f"tensor {name!r:.120}: expected dtype, shape and data_offsets, got {value!r:.120}")
    begin, end = offsets
    # To multiply a million numbers would take minutes.
    elements = math.prod(shape) if len(shape) <= _MAX_DIMENSIONS else math.inf
    if elements > _MAX_ELEMENTS or end < begin:
        raise FormatError(f"tensor {name!r:.120} has an impossible shape or place, {value!r:.120}")
    # A type that this ostore does not know is taken as it is.
    if dtype in _BITS and elements * _BITS[dtype] != 8 * (end - begin):
        raise FormatError(f"tensor {name!r:.120}: {elements} x {dtype} are not {end - begin} bytes")
    return SafeTensor(name, dtype, tuple(shape), begin, end - begin)


def _sizes(value: object) -> list[int] | None:
    is_sizes = isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
    return value if isinstance(value, list) and is_sizes else None


def _refuse_holes(tensors: list[SafeTensor], data_bytes: int) -> None:
    end = 0
    for tensor in tensors:
        if tensor.offset != end:
            kind = "a hole" if tensor.offset > end else "an overlap"
            raise FormatError(f"{kind} before tensor {tensor.name!r:.120}: expected byte {end}, got {tensor.offset}")
        end += tensor.size
    if end > data_bytes:
        raise TruncatedError(f"expected {end} bytes of data, got {data_bytes}")
    if end < data_bytes:
        raise FormatError(f"expected {end} bytes of data, got {data_bytes}")
