"""
Merge the parts of a split GGUF into one file. Ollama loads no model of several files of weights.

`llama-gguf-split` gives the first part all keys, and every part `split.no`, `split.count` and `split.tensors.count`.
The plan here is the header of the whole, and which bytes of which part follow it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ostore.formats.errors import FormatError, TruncatedError, UsageError
from ostore.formats.gguf import Gguf, ReadAt
from ostore.formats.gguf_facts import Split, split_of

_PART = re.compile(r"(?P<prefix>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?i:\.gguf)", re.DOTALL)
_SPLIT_KEYS = "split."
_OFFSET_BYTES = 8


class SplitName(NamedTuple):
    """`model-00001-of-00003.gguf`: the name before the numbers, the number counted from 1, and how many there are."""

    prefix: str
    number: int
    parts: int


class SplitPart(NamedTuple):
    """One file of a set: its name for messages, its header, and its bytes."""

    name: str
    gguf: Gguf
    read_at: ReadAt


class MergePiece(NamedTuple):
    """The bytes of one tensor: in which part they are (counted from 0), and how many zeros follow them in the whole."""

    part: int
    offset: int
    size: int
    padding: int


@dataclass(frozen=True, slots=True)
class MergePlan:
    """The whole file: its header, with the zeros after it, then the pieces. `order` has the names of the parts."""

    header: bytes
    pieces: tuple[MergePiece, ...]
    order: tuple[str, ...]

    @property
    def size(self) -> int:
        """The size of the whole in bytes."""
        return len(self.header) + sum(piece.size + piece.padding for piece in self.pieces)


def split_name(name: str) -> SplitName | None:
    """Return what the name of a file says of a split set, None for any other name."""
    found = _PART.fullmatch(name)
    return SplitName(found["prefix"], int(found["number"]), int(found["count"])) if found else None


def merged(parts: Sequence[SplitPart]) -> MergePlan:
    """
    Return how the parts of one set, given in any order, become one file.

    Raises UsageError for a part that is missing, there twice, or of another set, FormatError for parts that do not fit
    together, TruncatedError, and what reading a part raises.
    """
    ordered = _in_order(parts)
    first = ordered[0].gguf
    tensors = [(index, tensor) for index, part in enumerate(ordered) for tensor in part.gguf.tensors]
    order, count = (">" if first.is_big_endian else "<"), ("I" if first.version == 1 else "Q")
    keys = [field for key, field in first.fields.items() if not key.startswith(_SPLIT_KEYS)]
    # The first 8 bytes are the magic and the version.
    header = [_bytes(ordered[0], 8, 0), struct.pack(f"{order}2{count}", len(tensors), len(keys))]
    header += [_bytes(ordered[0], field.size, field.offset) for field in keys]
    pieces, names, offset = [], set[str](), 0
    for index, tensor in tensors:
        part = ordered[index]
        if tensor.name in names:
            raise FormatError(f"{part.name}: tensor {tensor.name!r:.120} is in another part too")
        if tensor.size is None:
            raise FormatError(f"{part.name}: tensor {tensor.name!r:.120} is of an unknown type, {tensor.type_name}")
        names.add(tensor.name)
        header += [_bytes(part, tensor.info_size - _OFFSET_BYTES, tensor.info_offset), struct.pack(f"{order}Q", offset)]
        padding = -tensor.size % first.alignment
        pieces.append(MergePiece(index, part.gguf.data_offset + tensor.offset, tensor.size, padding))
        offset += tensor.size + padding
    raw = b"".join(header)
    return MergePlan(raw + bytes(-len(raw) % first.alignment), tuple(pieces), tuple(part.name for part in ordered))


def _in_order(parts: Sequence[SplitPart]) -> list[SplitPart]:
    lowest, of = parts[0], _split_of(parts[0])
    numbered: dict[int, SplitPart] = {}
    for part in parts:
        split = _split_of(part)
        if (split.count, split.tensors) != (of.count, of.tensors) or _prefix(part) != _prefix(lowest):
            raise UsageError(f"{part.name}: belongs to another split set than {lowest.name}")
        if not 0 <= split.number < split.count:
            raise FormatError(f"{part.name}: part {split.number + 1} of {split.count}")
        if other := numbered.get(split.number):
            raise UsageError(f"{part.name}: is part {split.number + 1} of {split.count}, and so is {other.name}")
        numbered[split.number] = part
    for number in range(of.count):
        if number not in numbered:
            raise UsageError(f"{lowest.name}: part {number + 1} of {of.count} is missing")
    ordered = [numbered[number] for number in range(of.count)]
    for part in ordered[1:]:
        if (part.gguf.version, part.gguf.is_big_endian) != (ordered[0].gguf.version, ordered[0].gguf.is_big_endian):
            raise FormatError(f"{part.name}: is of another version or byte order than {ordered[0].name}")
    found = sum(len(part.gguf.tensors) for part in ordered)
    if found != of.tensors:
        raise FormatError(f"{ordered[0].name}: expected {of.tensors} tensors in all parts, got {found}")
    return ordered


def _split_of(part: SplitPart) -> Split:
    if split := split_of(part.gguf):
        return split
    raise UsageError(f"{part.name}: is not one of several parts")


def _prefix(part: SplitPart) -> str | None:
    named = split_name(part.name)
    return named.prefix if named else None


def _bytes(part: SplitPart, size: int, offset: int) -> bytes:
    data = part.read_at(size, offset)
    if len(data) < size:
        raise TruncatedError(f"{part.name}: became shorter while it was read")
    return data
