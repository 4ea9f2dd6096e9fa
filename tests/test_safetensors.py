"""The header of a safetensors file is read, and one that lies is refused."""

from __future__ import annotations

import json
import re
import struct
import tracemalloc
from typing import Any

import pytest

from ostore.formats.errors import FormatError, LimitError, OstoreError, TruncatedError
from ostore.formats.safetensors import SafeTensor, Safetensors, read_safetensors
from tests.test_gguf import reader


def written(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def tensor(dtype: str, shape: list[object], begin: object, end: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def read(data: bytes) -> Safetensors:
    return read_safetensors(reader(data), len(data), "file")


def test_tensors_come_in_the_order_of_their_data() -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": tensor("F32", [2, 3], 4, 28),
        "none": tensor("U8", [0], 4, 4),
        "a": tensor("BF16", [2], 0, 4),
        "one": tensor("I64", [], 28, 36),
        "fours": tensor("F4", [3, 2], 36, 39),
        "new": tensor("X9", [5], 39, 41),
    }
    raw = json.dumps(header).encode() + b"  "
    found = read(written(raw, bytes(41)))
    assert [entry.name for entry in found.tensors] == ["a", "none", "b", "one", "fours", "new"]
    assert found.tensors[2] == SafeTensor("b", "F32", (2, 3), 4, 24)
    assert found.metadata == {"format": "pt"}
    assert found.unpacked == found.tensors
    assert found.data_offset == 8 + len(raw)
    assert read(written({})).tensors == ()


@pytest.mark.parametrize(
    ("metadata", "main", "scale", "shown"),
    [
        ({"quant_type": "nvfp4"}, tensor("U32", [2, 4], 0, 32), tensor("U8", [2, 2], 32, 36), ("NVFP4", (2, 32))),
        ({"quant_type": "mxfp8"}, tensor("U32", [2, 4], 0, 32), tensor("U8", [2, 2], 32, 36), ("MXFP8", (2, 16))),
        ({"quant_type": "new"}, tensor("U32", [2, 4], 0, 32), tensor("U8", [2, 2], 32, 36), ("NEW", (2, 4))),
        ({"quant_type": "int4"}, tensor("U8", [2, 16], 0, 32), tensor("U8", [2, 2], 32, 36), ("INT4", (2, 16))),
        ({"quant_type": "int4"}, tensor("U32", [8], 0, 32), tensor("U8", [4], 32, 36), ("INT4", (8,))),
        ({"quant_type": "int4"}, tensor("U32", [], 0, 4), tensor("U8", [0], 4, 4), ("INT4", ())),
        ({}, tensor("U32", [2, 4], 0, 32), tensor("F16", [2, 1], 32, 36), ("INT4", (2, 32))),
        ({}, tensor("U32", [1, 16], 0, 64), tensor("F16", [1, 1], 64, 66), ("INT8", (1, 64))),
        ({}, tensor("U32", [2, 4], 0, 32), tensor("F16", [1, 2], 32, 36), ("U32", (2, 4))),
        ({}, tensor("U32", [2, 4], 0, 32), tensor("U8", [2, 0], 32, 32), ("U32", (2, 4))),
        ({}, tensor("U32", [2, 4], 0, 32), tensor("U8", [], 32, 33), ("U32", (2, 4))),
        ({}, tensor("U32", [], 0, 4), tensor("U8", [1], 4, 5), ("U32", ())),
    ],
)
def test_a_quantized_tensor_is_shown_as_it_was(
    metadata: object, main: dict[str, Any], scale: dict[str, Any], shown: tuple[str, tuple[int, ...]]
) -> None:
    end = scale["data_offsets"][1]
    header = {"__metadata__": metadata, "w": main, "w.scale": scale, "v.bias": tensor("U8", [1], end, end + 1)}
    packed, alone = read(written(header, bytes(end + 1))).unpacked
    assert (packed.name, packed.dtype, packed.shape) == ("w", *shown)
    assert alone.name == "v.bias"


ONE = tensor("U8", [4], 0, 4)
HOSTILE: dict[str, tuple[bytes, type[OstoreError], str]] = {
    "7 bytes": (bytes(7), FormatError, "not a safetensors file"),
    "length 2^63": (struct.pack("<Q", 2**63), LimitError, "a header of at most 100000000 bytes"),
    "length past the end": (written({}, length=500), TruncatedError, "a header of 500 bytes, got 2"),
    "no JSON": (written(b"{"), FormatError, "not JSON"),
    "not UTF-8": (written(b'{"\xff":1}'), FormatError, "not JSON"),
    "a list": (written([]), FormatError, "expected an object"),
    "many values": (written(b"[" + b"0," * 600_001 + b"0]"), LimitError, "more than 600000 values"),
    "deep": (written(b"[" * 100_000), LimitError, "nested too deeply"),
    "a name twice": (written(b'{"a":1,"a":1}'), FormatError, "a key occurs twice"),
    "an overlap": (written({"a": ONE, "b": tensor("U8", [4], 2, 6)}, bytes(6)), FormatError, "an overlap before"),
    "a hole": (written({"a": ONE, "b": tensor("U8", [4], 5, 9)}, bytes(9)), FormatError, "a hole before tensor 'b'"),
    "a hole first": (written({"a": tensor("U8", [4], 1, 5)}, bytes(5)), FormatError, "a hole before tensor 'a'"),
    "a cut": (written({"a": ONE}, bytes(3)), TruncatedError, "expected 4 bytes of data, got 3"),
    "bytes after": (written({"a": ONE}, bytes(5)), FormatError, "expected 4 bytes of data, got 5"),
    "wrong size": (written({"a": tensor("F32", [4], 0, 4)}, bytes(4)), FormatError, "4 x F32 are not 4 bytes"),
    "backwards": (written({"a": tensor("U8", [0], 4, 0)}, bytes(4)), FormatError, "impossible shape or place"),
    "too many": (written({"a": tensor("U8", [2**32, 2**32], 0, 4)}), FormatError, "impossible shape or place"),
    "dimensions": (written({"a": tensor("U8", [9] * 65, 0, 4)}), FormatError, "impossible shape or place"),
    "negative": (written({"a": tensor("U8", [-4], 0, 4)}), FormatError, "expected dtype, shape and data_offsets"),
    "a fraction": (written({"a": tensor("U8", [4.0], 0, 4)}), FormatError, "expected dtype, shape"),
    "true": (written({"a": tensor("U8", [True], 0, 1)}), FormatError, "expected dtype, shape"),
    "one offset": (written({"a": {**ONE, "data_offsets": [4]}}), FormatError, "expected dtype, shape"),
    "no object": (written({"a": 1}), FormatError, "expected dtype, shape"),
    "no dtype": (written({"a": {**ONE, "dtype": 1}}), FormatError, "expected dtype, shape"),
    "metadata": (written({"__metadata__": {"a": 1}}), FormatError, "__metadata__: expected texts"),
    "metadata that is text": (written({"__metadata__": "a"}), FormatError, "__metadata__: expected texts"),
}


@pytest.mark.parametrize("row", HOSTILE)
def test_a_header_that_lies_is_refused_in_one_line_and_little_memory(row: str) -> None:
    data, kind, says = HOSTILE[row]
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=re.escape(says)) as refused:
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert type(refused.value) is kind
    assert str(refused.value).startswith("file: ")
    assert "\n" not in str(refused.value)
