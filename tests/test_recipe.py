"""A recipe has one form; what is not in it is refused; following it gives the bytes, whatever the chunks."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats.digest import Digest
from ostore.formats.errors import (
    DigestMismatchError,
    FormatError,
    InvalidBundleError,
    LimitError,
    OstoreError,
    TruncatedError,
    UnsafeError,
)
from ostore.formats.manifest import Descriptor
from ostore.formats.recipe import (
    MAX_BASES,
    MAX_DEPTH,
    MAX_HEAD_BYTES,
    MAX_STEPS,
    MadeBlob,
    Recipe,
    Step,
    check_order,
    joined,
)
from ostore.places.bundle import restore
from ostore.streams.bytes_at import nothing_held
from ostore.streams.recipe import (
    COPIED_BYTES,
    MAX_NESTED_STEPS,
    MAX_SHORT_READS,
    MadeBytes,
    Nesting,
    follow,
    refuse_damaged_bases,
    split_head,
)
from tests.in_memory import StayingBytes
from tests.support import noise

QUICK = settings(max_examples=100, deadline=None, database=None)
FIRST, SECOND = noise(100, 1), noise(40, 2)
SIZES = (len(FIRST), len(SECOND))
A, B, C = (Digest.of(letter) for letter in (b"a", b"b", b"c"))
STEPS = (Step(10), Step(30, 0, 70), Step(40, 1, 0), Step(5), Step(1, 0, 0))
NEW = noise(15, 3)
BLOB = NEW[:10] + FIRST[70:] + SECOND + NEW[10:] + FIRST[:1]


def made_by(head: bytes, steps: tuple[Step, ...] = STEPS) -> MadeBlob:
    recipe = Recipe(steps)
    return MadeBlob(Descriptor(C, recipe.size), (A, B), Descriptor(C, len(head) + recipe.new_bytes))


def head_of(*steps: object) -> bytes:
    return json.dumps({"steps": steps}, separators=(",", ":")).encode() + b"\n"


def test_a_recipe_is_written_and_read() -> None:
    head = Recipe(STEPS).write()
    assert head == head_of(["new", 10], ["copy", 0, 70, 30], ["copy", 1, 0, 40], ["new", 5], ["copy", 0, 0, 1])
    assert Recipe.parse(head, made_by(head), SIZES) == Recipe(STEPS)
    assert (Recipe(STEPS).size, Recipe(STEPS).new_bytes) == (len(BLOB), len(NEW))


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (["copy", 0, 71, 30], UnsafeError),
        (["copy", 2, 0, 30], UnsafeError),
        (["copy", -1, 0, 30], UnsafeError),
        (["copy", 0, -1, 30], UnsafeError),
        (["copy", 1, 2**63, 30], UnsafeError),
        (["copy", 0, 0, 0], InvalidBundleError),
        (["copy", 0, 0, -30], InvalidBundleError),
        (["copy", 0, 0], InvalidBundleError),
        (["copy", False, 0, 30], InvalidBundleError),
        (["copy", 0, 0.0, 30], InvalidBundleError),
        (["copy", "0", 0, 30], InvalidBundleError),
        (["new", 30, 0], InvalidBundleError),
        (["new", 0], InvalidBundleError),
        (["new"], InvalidBundleError),
        (["fill", 30], InvalidBundleError),
        ([], InvalidBundleError),
        ("copy", InvalidBundleError),
        ({"copy": 30}, InvalidBundleError),
        ([["new"], 30], InvalidBundleError),
    ],
    ids=repr,
)
def test_a_step_that_is_none_is_refused(step: object, error: type[OstoreError]) -> None:
    head = head_of(["new", 10], step, ["copy", 1, 0, 40])
    with pytest.raises(error):
        Recipe.parse(head, made_by(head), SIZES)
    assert theirs(head, made_by(head))


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"\n", FormatError),
        (b"[]\n", InvalidBundleError),
        (b'{"steps":{}}\n', InvalidBundleError),
        (b'{"steps":[]}\n', InvalidBundleError),
        (b'{"steps":[],"Steps":[]}\n', UnsafeError),
        (head_of(["new", 10], ["copy", 0, 0, 75]), InvalidBundleError),
        (head_of(["new", 15], ["copy", 0, 0, 70]), InvalidBundleError),
        (head_of(*[["copy", 0, 0, 1]] * (MAX_STEPS + 1)), LimitError),
        (b" " * MAX_HEAD_BYTES + head_of(), LimitError),
    ],
    ids=["empty", "list", "object", "no steps", "twins", "less new", "less in all", "many steps", "long"],
)
def test_a_head_that_is_none_is_refused(head: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error):
        Recipe.parse(head, made_by(head), SIZES)
    assert len(head) > MAX_HEAD_BYTES or theirs(head, made_by(head))


def theirs(head: bytes, made: MadeBlob) -> bool:
    """Whether the script in bundles refuses a recipe too."""
    blob, stored = (restore.Blob(one.digest.hex, one.size) for one in (made.blob, made.stored))
    with pytest.raises(restore.RestoreError):
        restore.parse_steps(head, restore.Made(blob, [], stored), list(SIZES))
    return True


def test_steps_that_continue_one_another_are_one() -> None:
    steps = (
        Step(0),
        Step(3, 0, 5),
        Step(0, 1, 9),
        Step(4, 0, 8),
        Step(2, 1, 12),
        Step(1),
        Step(2),
        Step(0),
        Step(1, 0, 0),
    )
    assert joined(steps) == (Step(7, 0, 5), Step(2, 1, 12), Step(3), Step(1, 0, 0))


def test_bases_are_there_when_their_turn_comes() -> None:
    first, second = (
        MadeBlob(Descriptor(B, 1), (A,), Descriptor(B, 1)),
        MadeBlob(Descriptor(C, 1), (B,), Descriptor(C, 1)),
    )
    check_order([first, second], {A})
    with pytest.raises(InvalidBundleError, match="not listed before"):
        check_order([second, first], {A})
    with pytest.raises(InvalidBundleError, match="not listed before"):
        check_order([MadeBlob(Descriptor(C, 1), (C,), Descriptor(C, 1))], {A})


def test_bases_are_few_and_different() -> None:
    many = tuple(Digest.of(bytes([number])) for number in range(MAX_BASES + 1))
    for bases in ((), many):
        with pytest.raises(LimitError):
            check_order([MadeBlob(Descriptor(C, 1), bases, Descriptor(C, 1))], set(many))
    with pytest.raises(UnsafeError):
        check_order([MadeBlob(Descriptor(C, 1), (A, A), Descriptor(C, 1))], {A})


def test_recipes_on_top_of_each_other_are_few() -> None:
    digests = [Digest.of(bytes([number])) for number in range(MAX_DEPTH + 2)]
    tower = [MadeBlob(Descriptor(above, 1), (below,), Descriptor(above, 1)) for below, above in pairwise(digests)]
    check_order(tower[:MAX_DEPTH], {digests[0]})
    with pytest.raises(LimitError):
        check_order(tower, {digests[0]})


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_following_gives_the_bytes_whatever_the_chunks(size: int) -> None:
    head = Recipe(STEPS).write()
    found, new = split_head(pieces(head + NEW, size))
    assert found == head
    assert b"".join(follow(Recipe(STEPS), [StayingBytes(FIRST), StayingBytes(SECOND)], new)) == BLOB


def test_long_ranges_come_in_chunks_and_short_ones_are_joined() -> None:
    base = StayingBytes(bytes(2 * COPIED_BYTES + 5))
    steps = (Step(2 * COPIED_BYTES + 5, 0, 0), *[Step(1, 0, number) for number in range(70_000)])
    chunks = list(follow(Recipe(steps), [base], iter(())))
    assert [len(chunk) for chunk in chunks] == [COPIED_BYTES, COPIED_BYTES, 64 * 1024, 70_000 + 5 - 64 * 1024]


@pytest.mark.parametrize("base", [FIRST[:99], b""])
def test_a_base_that_is_shorter_than_it_was_is_an_error(base: bytes) -> None:
    with pytest.raises(TruncatedError):
        list(follow(Recipe(STEPS), [StayingBytes(base), StayingBytes(SECOND)], iter([NEW])))
    with pytest.raises(TruncatedError):
        MadeBytes(Recipe(STEPS), [StayingBytes(base), StayingBytes(SECOND)], StayingBytes(NEW), 0, Nesting()).read_at(
            len(BLOB), 0
        )


def test_new_bytes_that_end_too_early_are_an_error() -> None:
    with pytest.raises(TruncatedError):
        list(follow(Recipe(STEPS), [StayingBytes(FIRST), StayingBytes(SECOND)], iter([NEW[:14]])))


def test_a_head_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidBundleError):
        split_head(iter([b"{", b"}"]))
    with pytest.raises(LimitError):
        split_head(iter([bytes(MAX_HEAD_BYTES // 2)] * 3))
    with pytest.raises(LimitError):
        split_head(iter([bytes(MAX_HEAD_BYTES) + b"\n"]))
    for chunks in ([b"{", b"}"], [bytes(MAX_HEAD_BYTES // 2)] * 3, [bytes(MAX_HEAD_BYTES) + b"\n"]):
        with pytest.raises(restore.RestoreError):
            restore.split_head(iter(chunks), "")


@QUICK
@given(st.data())
def test_what_a_recipe_makes_can_be_read_in_any_order(data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(BLOB) + 2))
    size = data.draw(st.integers(0, len(BLOB) + 2))
    head = Recipe(STEPS).write()
    made = MadeBytes(
        Recipe(STEPS), [StayingBytes(FIRST), StayingBytes(SECOND)], StayingBytes(head + NEW), len(head), Nesting()
    )
    assert (made.size, made.read_at(size, offset)) == (len(BLOB), BLOB[offset : offset + size])
    made.refuse_changes()


def test_a_damaged_base_is_named() -> None:
    made = MadeBlob(Descriptor(C, 1), (Digest.of(FIRST), Digest.of(SECOND)), Descriptor(C, 1))
    bases = [Descriptor(Digest.of(data), len(data)) for data in (FIRST, SECOND)]
    held = {Digest.of(FIRST): StayingBytes(FIRST), Digest.of(SECOND): StayingBytes(bytes(len(SECOND)))}
    refuse_damaged_bases(made, bases[:1], held.get)
    refuse_damaged_bases(made, bases, nothing_held)
    with pytest.raises(DigestMismatchError, match=str(Digest.of(SECOND))):
        refuse_damaged_bases(made, bases, held.get)


def test_recipes_on_top_of_each_other_have_few_steps_together() -> None:
    nesting = Nesting()
    nesting.add_steps(MAX_NESTED_STEPS)
    with pytest.raises(LimitError):
        nesting.add_steps(1)


def test_long_reads_make_up_for_short_ones() -> None:
    nesting = Nesting()
    for size in (64 * 1024 * 1001, *[1] * (MAX_SHORT_READS + 1000)):
        nesting.add_read(size)
    with pytest.raises(LimitError):
        deque(map(nesting.add_read, [1] * 10), maxlen=0)
