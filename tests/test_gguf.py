"""The header of a GGUF is read as PyPI's `gguf` reads it; what lies about itself is refused and costs nothing."""

from __future__ import annotations

import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from ostore.formats import gguf as reading
from ostore.formats.errors import FormatError, IntegrityError, LimitError, OstoreError, TruncatedError
from ostore.formats.gguf import Gguf, GgufArray, is_gguf, read_array, read_gguf
from tests.gguf import ONE_LAYER, Tensor, Typed, Value, assembled, entry, gguf, info, talking_gguf

KEYS: dict[str, Value] = {
    **ONE_LAYER,
    "a.u8": Typed(0, "B", 200),
    "a.i8": Typed(1, "b", -100),
    "a.u16": Typed(2, "H", 60_000),
    "a.i16": Typed(3, "h", -30_000),
    "a.i32": Typed(5, "i", -2_000_000_000),
    "a.yes": True,
    "a.no": False,
    "a.u64": Typed(10, "Q", 2**64 - 1),
    "a.i64": Typed(11, "q", -(2**63)),
    "a.f64": Typed(12, "d", 0.1),
    "a.text": "h\u00e9llo",
    "a.nothing": "",
    "a.texts": ["one", "", "three"],
    "a.numbers": [1, 2, 3],
    "a.floats": [0.5, 0.25],
}
TENSORS: dict[str, Tensor] = {"token_embd.weight": ((32, 2), [1.0]), "b": ((3,), [0.5]), "c": ((1, 1, 1, 2), [2.0])}


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda size, offset: data[offset : offset + size]


def read(data: bytes) -> Gguf:
    return read_gguf(reader(data), len(data), "file")


@pytest.fixture(params=[(1, "<"), (2, "<"), (3, "<"), (3, ">")], ids=["1", "2", "3", "3 big-endian"])
def written(request: pytest.FixtureRequest) -> bytes:
    version, order = request.param
    return gguf(KEYS, TENSORS, version=version, order=order)


def test_every_type_comes_back_in_every_version_and_byte_order(written: bytes) -> None:
    found = read(written)
    metadata = {key: value for key, value in found.metadata.items() if not isinstance(value, GgufArray)}
    written_values = {key: value.number if isinstance(value, Typed) else value for key, value in KEYS.items()}
    assert metadata == {key: value for key, value in written_values.items() if not isinstance(value, list)}
    assert list(found.fields) == list(KEYS)
    for key, kind in (("a.texts", 8), ("a.numbers", 4), ("a.floats", 6)):
        array = found.array(key, kind)
        assert array
        assert found.array(key, 5) is None
        assert read_array(reader(written), found, array) == KEYS[key]
        assert read_array(reader(written), found, array, start=1, count=1) == KEYS[key][1:2]  # type: ignore[index]
        assert read_array(reader(written), found, array, start=9, count=1) == []
    assert found.array("a.text", 8) is None
    assert [(tensor.name, tensor.shape, tensor.size) for tensor in found.tensors] == [
        ("token_embd.weight", (32, 2), 256),
        ("b", (3,), 12),
        ("c", (1, 1, 1, 2), 8),
    ]
    one = found.tensors[1]
    order = ">" if found.is_big_endian else "<"
    assert struct.unpack_from(f"{order}3f", written, found.data_offset + one.offset) == (0.5, 0.5, 0.5)
    assert (one.type_name, one.elements) == ("F32", 3)
    assert found.data_offset % found.alignment == 0


def test_a_field_and_a_tensor_know_their_bytes(written: bytes) -> None:
    found = read(written)
    version, order = found.version, ">" if found.is_big_endian else "<"
    for key, field in found.fields.items():
        assert written[field.offset : field.offset + field.size] == entry(key, KEYS[key], order, version)
    for tensor in found.tensors:
        raw = written[tensor.info_offset : tensor.info_offset + tensor.info_size]
        assert raw == info(tensor.name, tensor.shape, tensor.kind, tensor.offset, order=order, version=version)


def test_ollamas_mark_of_a_big_endian_file_is_known() -> None:
    data = b"FUGG" + gguf(KEYS, TENSORS, order=">")[4:]
    assert is_gguf(data)
    assert read(data).is_big_endian


def test_lookups_are_as_strict_as_ollamas() -> None:
    keys: dict[str, Value] = {
        "general.architecture": "llama",
        "general.file_type": Typed(10, "Q", 15),
        "llama.block_count": 3,
        "llama.context_length": "many",
        "llama.deep": True,
        "tokenizer.ggml.eos_token_id": 7,
    }
    found = read(gguf(keys, {}))
    assert (found.number("block_count"), found.number("tokenizer.ggml.eos_token_id")) == (3, 7)
    assert [found.number(key) for key in ("general.file_type", "context_length", "absent", "deep")] == [0, 0, 0, 0]
    assert (found.text("context_length"), found.text("block_count")) == ("many", "")
    assert found.is_true("deep")
    assert not found.is_true("block_count")
    assert found.has("llama.deep")
    assert not found.has("deep")
    assert read(gguf({}, {})).architecture == "unknown"
    assert read(gguf({"general.architecture": 5}, {})).architecture == "unknown"


def test_an_unknown_type_of_tensor_is_read_and_its_size_is_not_known() -> None:
    found = read(assembled([], [info("t", (7,), 99)]))
    assert [(tensor.type_name, tensor.size) for tensor in found.tensors] == [("type 99", None)]
    with pytest.raises(TruncatedError, match="tensor 't' ends at byte"):
        read(assembled([], [info("t", (7,), 99, 2**40)]))


def test_text_that_is_not_utf8_is_shown_with_marks() -> None:
    assert read(gguf({"a": "x\udcff"}, {})).metadata == {"a": "x\ufffd"}


def test_a_tensor_of_no_dimensions_is_one_number() -> None:
    assert read(assembled([], [info("t", ())], bytes(4))).tensors[0].size == 4


def test_the_alignment_moves_the_data() -> None:
    keys: dict[str, Value] = {"general.alignment": 4096}
    found = read(gguf(keys, TENSORS, alignment=4096))
    assert (found.alignment, found.data_offset) == (4096, 4096)


def nested(depth: int) -> bytes:
    return struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * depth


LONG = struct.pack("<Q", 2**60)
GOOD = gguf(KEYS, TENSORS)
HOSTILE: dict[str, tuple[bytes, type[OstoreError], str]] = {
    "nothing": (b"", FormatError, "not a GGUF"),
    "3 bytes": (b"GGU", FormatError, "not a GGUF"),
    "magic": (b"GGML" + GOOD[4:], FormatError, "not a GGUF"),
    "swapped": (b"FUGG" + GOOD[4:], FormatError, "version 50331648"),
    "6 bytes": (GOOD[:6], TruncatedError, "within the header"),
    "version 0": (b"GGUF" + bytes(20), FormatError, "version 0"),
    "version 99": (b"GGUF\x63" + bytes(20), FormatError, "version 99"),
    "keys": (assembled([], [], counts=(0, 2**63)), LimitError, "at most 65536 keys"),
    "tensors": (assembled([], [], counts=(2**63, 0)), LimitError, "at most 131072 tensors"),
    "length of a key": (assembled([LONG], []), LimitError, "bytes in a string"),
    "length of a text": (assembled([entry("a", "")[:13] + LONG], []), LimitError, "bytes in a string"),
    "length in an array": (assembled([entry("a", ["x"])[:25] + LONG], []), LimitError, "bytes in a string"),
    "length past 64 bits": (
        assembled([entry("a", ["x", "y"])[:25] + struct.pack("<Q", 2**64 - 1)], []), LimitError, "bytes in a string"
    ),
    "16 MiB and a byte": (
        assembled([entry("a", ["x"])[:25] + struct.pack("<Q", 16 * 2**20 + 1)], []), LimitError, "bytes in a string"
    ),
    "items of an array": (assembled([entry("a", [1])[:17] + LONG], []), LimitError, "items in arrays"),
    "arrays in arrays": (assembled([nested(10_000)], []), LimitError, "array of arrays"),
    "end in an array": (assembled([entry("a", [1])[:17] + struct.pack("<Q", 1000)], []), TruncatedError, "goes on"),
    "end in a text": (assembled([entry("a", "")[:13] + struct.pack("<Q", 500)], []), TruncatedError, "goes on"),
    "end in texts": (assembled([entry("a", ["x"])[:17] + struct.pack("<QQ", 9, 999)], []), TruncatedError, "goes on"),
    "end of a tensor": (assembled([], [info("t", (64,))], bytes(255)), TruncatedError, "tensor 't' ends at"),
    "offset of a tensor": (assembled([], [info("t", (1,), 0, 2**63)], bytes(4)), TruncatedError, "tensor 't' ends at"),
    "alignment 0": (gguf({"general.alignment": 0}, {}), FormatError, "general.alignment"),
    "alignment 48": (gguf({"general.alignment": 48}, {}), FormatError, "general.alignment"),
    "alignment of a type": (gguf({"general.alignment": Typed(10, "Q", 32)}, {}), FormatError, "general.alignment"),
    "no elements": (assembled([], [info("t", (0, 4))]), FormatError, "impossible shape"),
    "too many elements": (assembled([], [info("t", (2**32, 2**32))]), FormatError, "impossible shape"),
    "rows that are no blocks": (assembled([], [info("t", (33,), 2)], bytes(99)), FormatError, "no blocks of Q4_0"),
    "5 dimensions": (assembled([], [info("t", (1,) * 5)], bytes(4)), LimitError, "at most 4 dimensions"),
    "2^32 dimensions": (assembled([], [info("t", ())[:9] + b"\xff" * 16]), LimitError, "at most 4 dimensions"),
    "type of a value": (assembled([entry("a", Typed(13, "I", 1))], []), FormatError, "unknown type 13"),
    "type of items": (assembled([entry("a", [1])[:13] + struct.pack("<IQ", 77, 1)], []), FormatError, "type 77"),
    "a key twice": (assembled([entry("a", 1), entry("a", 2)], []), FormatError, "key 'a' occurs twice"),
    "a tensor twice": (assembled([], [info("t", (1,)), info("t", (1,))], bytes(4)), FormatError, "'t' occurs twice"),
}  # fmt: skip


@pytest.mark.parametrize("row", HOSTILE)
def test_a_header_that_lies_is_refused_in_one_line_and_little_memory(row: str) -> None:
    data, kind, says = HOSTILE[row]
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=re.escape(says)) as refused:
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()
    assert str(refused.value).startswith("file: ")
    assert "\n" not in str(refused.value)


def test_wherever_a_file_is_cut_it_is_refused() -> None:
    for end in range(4, len(GOOD) - 24):
        with pytest.raises(IntegrityError):
            read(GOOD[:end])


def test_a_vocabulary_of_odd_words_is_passed_on_and_breaks_nothing() -> None:
    words = ["<0x-1>", "<0xZZ>", "", "\0", "x" * 100_000]
    data = gguf({"tokenizer.ggml.tokens": words}, {})
    found = read(data)
    array = found.array("tokenizer.ggml.tokens", 8)
    assert array
    assert read_array(reader(data), found, array) == words


@pytest.mark.parametrize(
    ("name", "limit", "value"), [("MAX_TEXT_BYTES", 200, "x" * 60), ("MAX_HEADER_BYTES", 90, ["x" * 60])]
)
def test_all_of_a_header_has_a_limit(monkeypatch: pytest.MonkeyPatch, name: str, limit: int, value: Value) -> None:
    monkeypatch.setattr(reading, name, limit)
    monkeypatch.setattr(reading, "_WINDOW_BYTES", 16)
    with pytest.raises(LimitError):
        read(gguf({f"k{number}": value for number in range(4)}, {}))


def test_a_header_of_many_windows_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [read(GOOD), read(talking_gguf())]
    monkeypatch.setattr(reading, "_WINDOW_BYTES", 16)
    assert whole == [read(GOOD), read(talking_gguf())]


def test_more_items_than_somebody_reads_are_refused() -> None:
    data = gguf({"a": [1, 2]}, {})
    found = read(data)
    array = GgufArray(4, 70_000, 0, 0)
    with pytest.raises(LimitError, match="at most 65536 items"):
        read_array(reader(data), found, array)
    assert len(read_array(reader(data), found, array, count=3)) == 3


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_oracle_reads_the_same(tmp_path: Path, order: str) -> None:
    same_as_oracle(tmp_path, gguf(KEYS, TENSORS, order=order))
    if order == "<":
        same_as_oracle(tmp_path, talking_gguf())


def same_as_oracle(folder: Path, data: bytes) -> None:
    oracle = pytest.importorskip("gguf", reason="no oracle here: pip install gguf")
    path = folder / "x.gguf"
    path.write_bytes(data)
    theirs, ours = oracle.GGUFReader(path), read(data)
    # The oracle has three fields of its own, and gives an array the number of its items.
    fields = {key: field for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert list(fields) == list(ours.fields)
    for key, field in fields.items():
        value = ours.metadata[key]
        assert ours.fields[key].kind == field.types[0]
        if isinstance(value, GgufArray):
            assert (value.kind, value.count) == (field.types[1], len(field.data))
            assert read_array(reader(data), ours, value, count=50) == field.contents()[:50]
        else:
            assert value == field.contents()
    assert theirs.data_offset == ours.data_offset
    for their, tensor in zip(theirs.tensors, ours.tensors, strict=True):
        assert (their.name, tuple(their.shape), their.n_bytes) == (tensor.name, tensor.shape, tensor.size)
        assert (their.tensor_type, their.data_offset) == (tensor.kind, ours.data_offset + tensor.offset)
