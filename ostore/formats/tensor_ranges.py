"""Where the tensors of a GGUF or safetensors file are, as ranges of its bytes, whatever their names and types are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ostore.formats.errors import FormatError, LimitError, TruncatedError
from ostore.formats.gguf import ReadAt, is_gguf, read_gguf
from ostore.formats.safetensors import read_safetensors

_START_BYTES = 9
_OBJECT = b"{"


@dataclass(frozen=True, slots=True)
class TensorRanges:
    """
    The header is the first `header` bytes. `tensors` are pairs of an offset in the file and a length, in bytes.

    They are in the order of their offsets, none is empty, and none overlaps another. Between them is padding.
    """

    header: int
    tensors: tuple[tuple[int, int], ...]


def read_tensor_ranges(read_at: ReadAt, size: int) -> TensorRanges | None:
    """Read the header of a file. None if it has no tensors, or a header that is damaged. Raises what `read_at` does."""
    start = read_at(_START_BYTES, 0)
    try:
        if is_gguf(start):
            gguf = read_gguf(read_at, size, "")
            return _ranges(gguf.data_offset, size, ((tensor.offset, tensor.size) for tensor in gguf.tensors))
        if start[-1:] == _OBJECT:
            file = read_safetensors(read_at, size, "")
            return _ranges(file.data_offset, size, ((tensor.offset, tensor.size) for tensor in file.tensors))
    except (FormatError, LimitError, TruncatedError):
        pass
    return None


def _ranges(data: int, size: int, tensors: Iterable[tuple[int, int | None]]) -> TensorRanges | None:
    """A tensor of unknown type goes on to the next one. One that begins within another is left out."""
    ordered = sorted((data + offset, length) for offset, length in _known(tensors))
    ends = [*(offset for offset, _ in ordered), size][1:]
    found, position = [], data
    for (offset, length), end in zip(ordered, ends, strict=True):
        stop = min(size, end if length < 0 else offset + length)
        if position <= offset < stop:
            found.append((offset, stop - offset))
            position = stop
    return TensorRanges(min(data, size), tuple(found)) if found else None


def _known(tensors: Iterable[tuple[int, int | None]]) -> Iterable[tuple[int, int]]:
    # -1 stands for an unknown length, because None cannot be sorted.
    return ((offset, -1 if length is None else length) for offset, length in tensors)
