"""Make what a re-release makes of a GGUF file: another template, other names or order of tensors, other alignment."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ostore.formats.gguf import STRING, UINT32, Gguf, GgufTensor, read_gguf

_TEMPLATE = "tokenizer.chat_template"
_COPY_BYTES = 8 * 1024 * 1024


class _Placed(NamedTuple):
    """A tensor, the name that it gets, and where it is in the new file, from the start of the data."""

    name: str
    tensor: GgufTensor
    offset: int


def write_variant(
    old: Path,
    new: Path,
    *,
    template: Callable[[str], str] | None = None,
    added: Sequence[tuple[str, str]] = (),
    rename: Callable[[str], str] = lambda name: name,
    order: Callable[[Sequence[GgufTensor]], Sequence[GgufTensor]] = lambda tensors: tensors,
    alignment: int | None = None,
) -> None:
    """Write `new`, which has the tensors of `old` behind another header."""
    with old.open("rb") as file:

        def read_at(size: int, offset: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        gguf = read_gguf(read_at, old.stat().st_size, str(old))
        step = alignment or gguf.alignment
        placed, position = [], 0
        for tensor in order(gguf.tensors):
            placed.append(_Placed(rename(tensor.name), tensor, position))
            position += (tensor.size or 0) + -(tensor.size or 0) % step
        fields = [_field(gguf, key, read_at, template) for key in gguf.fields if key != "general.alignment"]
        fields += [_text_field(key, text) for key, text in added]
        if alignment:
            fields.append(_text("general.alignment") + struct.pack("<II", UINT32, alignment))
        head = b"GGUF" + struct.pack("<IQQ", 3, len(placed), len(fields)) + b"".join([*fields, *map(_info, placed)])
        with new.open("wb") as output:
            output.write(head + bytes(-len(head) % step))
            for _, tensor, _ in placed:
                size, start = tensor.size or 0, gguf.data_offset + tensor.offset
                for offset in range(0, size, _COPY_BYTES):
                    output.write(read_at(min(_COPY_BYTES, size - offset), start + offset))
                output.write(bytes(-size % step))


def _field(gguf: Gguf, key: str, read_at: Callable[[int, int], bytes], template: Callable[[str], str] | None) -> bytes:
    field = gguf.fields[key]
    if key == _TEMPLATE and template and isinstance(field.value, str):
        return _text_field(key, template(field.value))
    return read_at(field.size, field.offset)


def _info(placed: _Placed) -> bytes:
    name, tensor, offset = placed
    shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
    return _text(name) + shape + struct.pack("<IQ", tensor.kind, offset)


def _text_field(key: str, text: str) -> bytes:
    return _text(key) + struct.pack("<I", STRING) + _text(text)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
