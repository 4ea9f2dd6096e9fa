"""The parts of a split set become the file that they were made from, byte for byte; a set that is none is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ostore.formats.errors import FormatError, OstoreError, TruncatedError, UsageError
from ostore.formats.gguf_split import MergePlan, SplitPart, merged, split_name
from tests.gguf import ONE_LAYER, Tensor, Value, assembled, entry, gguf, info, split, split_keys
from tests.test_gguf import KEYS, read, reader

TENSORS: list[dict[str, Tensor]] = [
    {"token_embd.weight": ((32, 3), [1.0])},
    {"blk.0.a": ((5,), [2.0]), "blk.0.b": ((32,), [3.0])},
    {"output.weight": ((1, 1, 1), [4.0])},
]
WHOLE = {name: tensor for part in TENSORS for name, tensor in part.items()}


def parts(files: Sequence[bytes]) -> list[SplitPart]:
    return [
        SplitPart(f"x-{number:05}-of-{len(files):05}.gguf", read(data), reader(data))
        for number, data in enumerate(files, 1)
    ]


def carried_out(plan: MergePlan, files: Sequence[bytes], names: Sequence[str]) -> bytes:
    ordered = [files[names.index(name)] for name in plan.order]
    pieces = (ordered[piece.part][piece.offset :][: piece.size] + bytes(piece.padding) for piece in plan.pieces)
    return plan.header + b"".join(pieces)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("sets", [TENSORS, [{}, WHOLE], [WHOLE, {}]], ids=["3", "none first", "none last"])
@pytest.mark.parametrize("keys", [ONE_LAYER, KEYS], ids=["few keys", "all types"])
def test_a_set_becomes_what_it_was(keys: dict[str, Value], sets: list[dict[str, Tensor]], turned: bool) -> None:
    files = split(keys, *sets)
    made = parts(files)
    names = [part.name for part in made]
    plan = merged(made[::-1] if turned else made)
    assert plan.order == tuple(names)
    assert carried_out(plan, files, names) == gguf(keys, WHOLE)
    assert plan.size == len(gguf(keys, WHOLE))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
def test_older_versions_and_the_other_order_of_bytes_stay(version: int, order: str) -> None:
    if order == ">":
        version = 3
    files = [
        gguf({**(KEYS if not index else {}), **split_keys(index, 3, 4)}, part, version=version, order=order)
        for index, part in enumerate(TENSORS)
    ]
    made = parts(files)
    whole = gguf(KEYS, WHOLE, version=version, order=order)
    assert carried_out(merged(made), files, [part.name for part in made]) == whole


GOOD = parts(split(KEYS, *TENSORS))
LONGER = parts(split(KEYS, *TENSORS, {"more": ((1,), [1.0])}))
OTHER = [part._replace(name=part.name.replace("x-", "y-")) for part in GOOD]
SAME_TENSOR = parts(split(KEYS, TENSORS[0], TENSORS[0]))
BIG = gguf(split_keys(1, 3, 4), TENSORS[1], order=">")
STRANGE = assembled([entry(key, value) for key, value in split_keys(1, 2, 2).items()], [info("t", (1,), 99)])
BEYOND = gguf(split_keys(7, 3, 4), TENSORS[1])


def as_part(data: bytes, name: str = "x-00002-of-00003.gguf") -> SplitPart:
    return SplitPart(name, read(data), reader(data))


def short(part: SplitPart) -> SplitPart:
    return part._replace(read_at=lambda _size, _offset: b"")


REFUSED: dict[str, tuple[list[SplitPart], type[OstoreError], str]] = {
    "one missing": ([GOOD[0], GOOD[2]], UsageError, "part 2 of 3 is missing"),
    "the first missing": (GOOD[1:], UsageError, "part 1 of 3 is missing"),
    "one twice": ([*GOOD, GOOD[1]._replace(name="copy.gguf")], UsageError, "another split set"),
    "one twice, of the same name": ([*GOOD, GOOD[1]], UsageError, "is part 2 of 3, and so is x-00002-of-00003.gguf"),
    "another number of parts": ([*GOOD[:2], LONGER[2]], UsageError, "x-00003-of-00004.gguf: belongs to another split"),
    "another name": ([*GOOD[:2], OTHER[2]], UsageError, "y-00003-of-00003.gguf: belongs to another split set"),
    "no part": ([*GOOD[:2], as_part(gguf(KEYS, WHOLE), "z.gguf")], UsageError, "z.gguf: is not one of several parts"),
    "a number beyond": ([GOOD[0], as_part(BEYOND), GOOD[2]], FormatError, "part 8 of 3"),
    "another order of bytes": ([GOOD[0], as_part(BIG), GOOD[2]], FormatError, "another version or byte order"),
    "one tensor in two": (SAME_TENSOR, FormatError, "tensor 'token_embd.weight' is in another part too"),
    "an unknown type": (
        [SAME_TENSOR[0], as_part(STRANGE, "x-00002-of-00002.gguf")], FormatError, "unknown type, type 99"
    ),
    "too few tensors": (
        parts([gguf(split_keys(index, 2, 9), TENSORS[index]) for index in (0, 1)]), FormatError, "expected 9 tensors"
    ),
    "shorter now": ([short(part) for part in GOOD], TruncatedError, "became shorter"),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_no_set_is_refused_and_named(row: str) -> None:
    given, kind, says = REFUSED[row]
    with pytest.raises(kind) as refused:
        merged(given)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m-00001-of-00003.gguf", ("m", 1, 3)),
        ("a-00001-of-00002-00002-of-00003.gguf", ("a-00001-of-00002", 2, 3)),
        ("m.gguf", None),
        ("m-1-of-3.gguf", None),
        ("-00001-of-00003.gguf", None),
        ("m-00001-of-00003.gguf.part", None),
    ],
)
def test_the_name_of_a_part(name: str, expected: tuple[str, int, int] | None) -> None:
    assert split_name(name) == expected
