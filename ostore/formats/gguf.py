"""
The header of a GGUF file: its keys, and where its tensors are. No weights are read, and no array of the header is kept.

Format: ggml docs/gguf.md, and fs/ggml/gguf.go of ollama at fb30760, whose limits these are. A header is not trusted:
no count or length in it makes ostore ask for more memory than the file has bytes, nor than the limits here allow.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from ostore.formats.errors import FormatError, LimitError, TruncatedError
from ostore.formats.tensor_kinds import TENSOR_KINDS

# Returns `size` bytes from byte `offset` of a file: (size, offset) -> bytes, fewer only at its end.
ReadAt = Callable[[int, int], bytes]

MAX_STRING_BYTES = 16 * 1024 * 1024
MAX_ARRAY_ITEMS = 64 * 1024 * 1024
MAX_DIMENSIONS = 4
# Ollama has no limits for these. The largest models have some 100 keys, 2,000 tensors and a header of 30 MB.
MAX_KEYS = 65_536
MAX_TENSORS = 131_072
MAX_TEXT_BYTES = 32 * 1024 * 1024
MAX_HEADER_BYTES = 256 * 1024 * 1024
# What `read_array` gives at once.
MAX_READ_ITEMS = 65_536

UINT32, STRING, ARRAY = 4, 8, 9
# Letters of the module struct.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
KIND_NAMES = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64")

_MAGIC = b"GGUF"
# Ollama takes only this one for a big-endian file. llama.cpp writes the other in front of both kinds.
_SWAPPED_MAGIC = b"FUGG"
_VERSIONS = (1, 2, 3)
_DEFAULT_ALIGNMENT = 32
_WINDOW_BYTES = 1024 * 1024
_MAX_ELEMENTS = 2**63 - 1
_LENGTHS = {"<": struct.Struct("<Q"), ">": struct.Struct(">Q")}
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array of a header: the type and number of its items, and the bytes of the file that they take."""

    kind: int
    count: int
    offset: int
    size: int


GgufValue = int | float | bool | str | GgufArray


@dataclass(frozen=True, slots=True)
class GgufField:
    """One value, its type, and the bytes of the file that it takes with its key and its type."""

    value: GgufValue
    kind: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """
    One tensor. `offset` counts from the start of the data.

    `size` is in bytes, and None for a type that this ostore does not know: nothing says then whether the file has all
    of the tensor. `info_offset` and `info_size` are the bytes of the header that describe it.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int | None
    info_offset: int
    info_size: int

    @property
    def elements(self) -> int:
        """The number of its parameters."""
        return math.prod(self.shape)

    @property
    def type_name(self) -> str:
        """The type as ggml calls it, such as `Q4_K`."""
        return TENSOR_KINDS[self.kind][0] if self.kind in TENSOR_KINDS else f"type {self.kind}"


@dataclass(frozen=True, slots=True)
class Gguf:
    """A header. `size` is that of the file, `data_offset` where its tensors begin, both in bytes."""

    version: int
    is_big_endian: bool
    fields: Mapping[str, GgufField]
    tensors: tuple[GgufTensor, ...]
    alignment: int
    data_offset: int
    size: int

    @property
    def metadata(self) -> dict[str, GgufValue]:
        """Every key with its value, in the order of the file."""
        return {key: field.value for key, field in self.fields.items()}

    @property
    def architecture(self) -> str:
        """What Ollama calls the family of a model."""
        return self._text("general.architecture") or "unknown"

    def number(self, key: str) -> int:
        """
        Return what Ollama finds under a key: 0 if the key is absent or its value is of another type than u32.

        A key that begins neither with `general.` nor with `tokenizer.` belongs to the architecture.
        """
        field = self.fields.get(self._full(key))
        return field.value if field and field.kind == UINT32 and isinstance(field.value, int) else 0

    def text(self, key: str) -> str:
        """Return the text under a key, as `number` does."""
        return self._text(self._full(key))

    def is_true(self, key: str) -> bool:
        """Return whether a key, as of `number`, has the value true."""
        field = self.fields.get(self._full(key))
        return field is not None and field.value is True

    def has(self, key: str) -> bool:
        """Return whether the header has exactly this key."""
        return key in self.fields

    def array(self, key: str, kind: int) -> GgufArray | None:
        """Return the array with items of a type that is under exactly this key."""
        value = self.fields[key].value if key in self.fields else None
        return value if isinstance(value, GgufArray) and value.kind == kind else None

    def has_tensor(self, *prefixes: str) -> bool:
        """Return whether the name of a tensor begins with one of these."""
        return any(tensor.name.startswith(prefixes) for tensor in self.tensors)

    def _full(self, key: str) -> str:
        return key if key.startswith(("general.", "tokenizer.")) else f"{self.architecture}.{key}"

    def _text(self, key: str) -> str:
        field = self.fields.get(key)
        return field.value if field and isinstance(field.value, str) else ""


def is_gguf(head: bytes) -> bool:
    """Return whether a file with these first 4 bytes is a GGUF."""
    return head[:4] in (_MAGIC, _SWAPPED_MAGIC)


def read_gguf(read_at: ReadAt, size: int, subject: str) -> Gguf:
    """
    Read the header of a file of `size` bytes. `subject` begins every message.

    A tensor of a type that this ostore does not know is taken as it is (see `GgufTensor.size`). Raises FormatError for
    bytes that are no GGUF, with a key or tensor twice, TruncatedError if the file ends before the header or a tensor
    does, LimitError, and what `read_at` raises.
    """
    head = read_at(8, 0)
    if not is_gguf(head):
        raise FormatError(f"{subject}: not a GGUF file: it begins with {head[:4]!r}")
    if len(head) < 8:  # noqa: PLR2004
        raise TruncatedError(f"{subject}: the file ends after {len(head)} bytes, within the header")
    # A number that is small in one order of bytes is large in the other.
    order = ">" if head.startswith(_SWAPPED_MAGIC) or head[4:6] == b"\0\0" else "<"
    [version] = struct.unpack_from(f"{order}I", head, 4)
    if version not in _VERSIONS:
        raise FormatError(f"{subject}: GGUF version {version}, and this ostore knows 1 to 3")
    return _Header(read_at, size, subject, order, version).read()


def read_array(
    read_at: ReadAt, gguf: Gguf, array: GgufArray, *, start: int = 0, count: int | None = None
) -> list[object]:
    """
    Read `count` items of an array from item `start` on, or all of them. Fewer come back if the array has fewer.

    Raises LimitError for more than 65,536 items or 32 MiB of text, TruncatedError, and what `read_at` raises.
    """
    stop = array.count if count is None else min(array.count, start + count)
    if stop - start > MAX_READ_ITEMS:
        raise LimitError(f"array: expected at most {MAX_READ_ITEMS} items to read, got {stop - start}")
    order = ">" if gguf.is_big_endian else "<"
    header = _Header(read_at, gguf.size, "array", order, gguf.version, start=array.offset)
    header.skip_items(array.kind, min(start, stop))
    return [header.item(array.kind) for _ in range(start, stop)]


class _Header:
    """Reads a header from its begin to its end, with a window of it in memory."""

    def __init__(self, read_at: ReadAt, size: int, subject: str, order: str, version: int, *, start: int = 8) -> None:
        self._read_at, self._size, self._subject = read_at, size, subject
        self._order, self._version = order, version
        self._window, self._begin, self._at = b"", start, 0
        self._text_bytes = self._array_items = 0

    def read(self) -> Gguf:
        letter = "I" if self._version == 1 else "Q"
        tensors, keys = self._scalar(letter), self._scalar(letter)
        self._refuse_more("tensors", tensors, MAX_TENSORS)
        self._refuse_more("keys", keys, MAX_KEYS)
        fields = self._fields(keys)
        alignment = self._alignment(fields.get("general.alignment"))
        infos = self._tensors(tensors)
        data_offset = self._position + -self._position % alignment
        for tensor in infos:
            # One of unknown length cannot begin after the end either.
            if data_offset + tensor.offset + (tensor.size or 0) > self._size:
                end = data_offset + tensor.offset + (tensor.size or 0)
                raise self._cut(f"tensor {tensor.name!r:.120} ends at byte {end}")
        return Gguf(self._version, self._order == ">", fields, infos, alignment, data_offset, self._size)

    def item(self, kind: int) -> int | float | bool | str:
        return self._text() if kind == STRING else self._scalar(_SCALARS[kind])

    def skip_items(self, kind: int, count: int) -> None:
        if kind == STRING:
            self._skip_texts(count)
        else:
            self._skip(count * struct.calcsize(_SCALARS[kind]))

    @property
    def _position(self) -> int:
        return self._begin + self._at

    def _fields(self, count: int) -> dict[str, GgufField]:
        fields: dict[str, GgufField] = {}
        for _ in range(count):
            start, key, kind = self._position, self._text(), self._scalar("I")
            if key in fields:
                raise FormatError(f"{self._subject}: key {key!r:.120} occurs twice")
            value = self._array(key) if kind == ARRAY else self.item(self._known(kind, key))
            fields[key] = GgufField(value, kind, start, self._position - start)
        return fields

    def _known(self, kind: int, key: str) -> int:
        if kind != STRING and kind not in _SCALARS:
            raise FormatError(f"{self._subject}: key {key!r:.120} has a value of unknown type {kind}")
        return kind

    def _array(self, key: str) -> GgufArray:
        kind, count = self._scalar("I"), self._scalar("Q")
        if kind == ARRAY:
            raise LimitError(f"{self._subject}: key {key!r:.120} is an array of arrays")
        self._known(kind, key)
        self._array_items += count
        self._refuse_more("items in arrays", self._array_items, MAX_ARRAY_ITEMS)
        start = self._position
        self.skip_items(kind, count)
        return GgufArray(kind, count, start, self._position - start)

    def _alignment(self, field: GgufField | None) -> int:
        if field is None:
            return _DEFAULT_ALIGNMENT
        value = field.value if field.kind == UINT32 else None
        if not isinstance(value, int) or value < 1 or value & (value - 1):
            raise FormatError(
                f"{self._subject}: general.alignment: expected a power of two as u32, got {field.value!r:.40}"
            )
        return value

    def _tensors(self, count: int) -> tuple[GgufTensor, ...]:
        tensors: dict[str, GgufTensor] = {}
        for _ in range(count):
            tensor = self._tensor()
            if tensor.name in tensors:
                raise FormatError(f"{self._subject}: tensor {tensor.name!r:.120} occurs twice")
            tensors[tensor.name] = tensor
        return tuple(tensors.values())

    def _tensor(self) -> GgufTensor:
        start, name, dimensions = self._position, self._text(), self._scalar("I")
        self._refuse_more(f"dimensions of tensor {name!r:.120}", dimensions, MAX_DIMENSIONS)
        shape = tuple(self._scalar("Q") for _ in range(dimensions))
        kind, offset = self._scalar("I"), self._scalar("Q")
        size = self._tensor_size(name, shape, kind)
        return GgufTensor(name, shape, kind, offset, size, start, self._position - start)

    def _tensor_size(self, name: str, shape: tuple[int, ...], kind: int) -> int | None:
        elements = math.prod(shape)
        if not 1 <= elements <= _MAX_ELEMENTS:
            raise FormatError(f"{self._subject}: tensor {name!r:.120} has an impossible shape {shape}")
        if kind not in TENSOR_KINDS:
            return None
        type_name, block, block_bytes = TENSOR_KINDS[kind]
        if (shape or (1,))[0] % block:
            raise FormatError(f"{self._subject}: tensor {name!r:.120}: rows of {shape} are no blocks of {type_name}")
        return elements // block * block_bytes

    def _scalar(self, letter: str) -> int:
        layout = f"{self._order}{letter}"
        size = struct.calcsize(layout)
        self._fill(size)
        [value] = struct.unpack_from(layout, self._window, self._at)
        self._at += size
        return value  # type: ignore[no-any-return]

    def _text(self) -> str:
        length = self._scalar("Q")
        self._refuse_more("bytes in a string", length, MAX_STRING_BYTES)
        self._text_bytes += length
        self._refuse_more("bytes of text", self._text_bytes, MAX_TEXT_BYTES)
        self._fill(length)
        raw = self._window[self._at : self._at + length]
        self._at += length
        # Version 1 counts a NUL at the end.
        return (raw[:-1] if self._version == 1 else raw).decode("utf-8", "replace")

    def _skip_texts(self, count: int) -> None:
        """A vocabulary has 262,144 texts, so the inner loop does nothing but find the next one."""
        unpack, length = _LENGTHS[self._order].unpack_from, 0
        while count:
            self._fill(_LENGTH_BYTES)
            window, at, left = self._window, self._at, 0
            try:
                for left in range(count, 0, -1):  # noqa: B007 - how many are left when the window ends
                    [length] = unpack(window, at)
                    at += 8 + length
                count = 0
            except (struct.error, OverflowError):
                count = left
            self._refuse_more("bytes in a string", length, MAX_STRING_BYTES)
            self._skip(at - self._at)

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._window):
            self._begin, self._at, self._window = self._position, 0, b""
            self._refuse_more("bytes in the header", self._begin, MAX_HEADER_BYTES)
            if self._begin > self._size:
                raise self._cut("the header goes on")

    def _fill(self, count: int) -> None:
        """Have the next `count` bytes in the window."""
        if len(self._window) - self._at < count:
            self._begin, self._at = self._position, 0
            self._refuse_more("bytes in the header", self._begin, MAX_HEADER_BYTES)
            self._window = b""
            self._window = self._read_at(max(count, _WINDOW_BYTES), self._begin)
            if len(self._window) < count:
                raise self._cut("the header goes on")

    def _refuse_more(self, what: str, count: int, limit: int) -> None:
        if count > limit:
            raise LimitError(f"{self._subject}: expected at most {limit} {what}, got {count}")

    def _cut(self, announced: str) -> NoReturn:
        raise TruncatedError(f"{self._subject}: the file ends at byte {self._size}, but {announced}")
