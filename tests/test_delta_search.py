"""What of a blob is found in blobs that the target has: tensors by their bytes, and the header by its runs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats import gguf as gguf_format
from ostore.formats.digest import Digest
from ostore.formats.errors import DigestMismatchError
from ostore.formats.inventory import HeldBlob, TensorAt, TensorMap
from ostore.formats.manifest import Descriptor
from ostore.formats.recipe import Recipe, Step
from ostore.formats.tensor_ranges import read_tensor_ranges
from ostore.operations.delta import headers, search
from ostore.operations.delta.headers import header_steps
from ostore.operations.delta.search import Bases, Basis, PlannedRecipe, plan_recipe
from ostore.streams.chunks import CHUNK_BYTES
from ostore.streams.recipe import follow, split_head
from tests.gguf import ONE_LAYER, assembled, gguf, info
from tests.in_memory import StayingBytes
from tests.recipes import NEW, OLD, TEMPLATE, weights
from tests.support import costs_the_same_per_item, noise

QUICK = settings(max_examples=100, deadline=None, database=None)


def described(data: bytes) -> Descriptor:
    return Descriptor(Digest.of(data), len(data))


def at_hand(data: bytes) -> Basis:
    basis = Basis.of(described(data), StayingBytes(data))
    assert basis
    return basis


def listed(data: bytes) -> HeldBlob:
    """What an inventory says of a blob."""
    ranges = read_tensor_ranges(StayingBytes(data).read_at, len(data))
    assert ranges
    tensors = (TensorAt(begin, size, Digest.of(data[begin : begin + size])) for begin, size in ranges.tensors)
    return HeldBlob(*described(data)[:2], tensors=TensorMap(described(data[: ranges.header]), tuple(tensors)))


def planned(new: bytes, *bases: bytes) -> PlannedRecipe | None:
    return plan_recipe(described(new), StayingBytes(new), Bases(map(at_hand, bases)))


def made(plan: PlannedRecipe | None, new: bytes, *bases: bytes) -> tuple[Step, ...]:
    """The steps of a plan, which make the blob."""
    assert plan
    stored = b"".join(plan.read(StayingBytes(new)))
    assert described(stored) == plan.made.stored
    head, rest = split_head(iter([stored]))
    known = {Digest.of(data): data for data in bases}
    used = [StayingBytes(known[digest]) for digest in plan.made.bases]
    recipe = Recipe.parse(head, plan.made, [len(base.data) for base in used])
    assert b"".join(follow(recipe, used, rest)) == new
    return recipe.steps


def test_another_template_is_all_that_is_new() -> None:
    steps = made(planned(NEW, OLD), NEW, OLD)
    assert sum(step.length for step in steps if step.base is None) < 80
    assert len(steps) < 6


@pytest.mark.parametrize("new", [weights(prefix="model."), weights(alignment=64), weights(TEMPLATE * 3)])
def test_names_alignment_and_length_of_the_header_do_not_matter(new: bytes) -> None:
    steps = made(planned(new, OLD), new, OLD)
    assert sum(step.length for step in steps if step.base is None) < 1000


def test_a_tensor_of_one_base_and_a_tensor_of_another() -> None:
    first, second = weights(tensors=3), weights(seed=7, tensors=3)
    both = _joined(first, second)
    assert {step.base for step in made(planned(both, first, second), both, first, second)} >= {0, 1}


def _joined(*files: bytes) -> bytes:
    """One file with the tensors of several."""
    infos, data = [], b""
    for number, file in enumerate(files):
        found = read_tensor_ranges(StayingBytes(file).read_at, len(file))
        assert found
        for place, (begin, size) in enumerate(found.tensors):
            infos.append(info(f"t{number}.{place}", (size // 4,), 0, len(data)))
            data += file[begin : begin + size] + bytes(-size % 32)
    return assembled([], infos, data)


def test_more_bases_than_a_recipe_may_have_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [weights(seed=seed, tensors=1) for seed in range(4)]
    both = _joined(*files)
    monkeypatch.setattr(search, "MAX_BASES", 2)
    steps = made(planned(both, *files), both, *files)
    assert {step.base for step in steps} == {None, 0, 1}


def test_an_inventory_tells_tensors_by_their_digests() -> None:
    basis = Basis.of_listed(listed(OLD))
    assert basis
    plan = plan_recipe(described(NEW), StayingBytes(NEW), Bases([basis]))
    steps = made(plan, NEW, OLD)
    copied = sum(step.length for step in steps if step.base == 0)
    assert copied == sum(size for _, size in basis.ranges.tensors)
    assert Basis.of_listed(HeldBlob(*described(OLD)[:2])) is None


def test_an_inventory_of_other_tensors_of_the_same_lengths_gives_nothing() -> None:
    basis = Basis.of_listed(listed(weights(seed=5)))
    assert basis
    assert plan_recipe(described(NEW), StayingBytes(NEW), Bases([basis])) is None


@pytest.mark.parametrize("chunk", [1000, CHUNK_BYTES])
def test_samples_that_agree_prove_nothing(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(search, "CHUNK_BYTES", chunk)
    changed = bytearray(OLD)
    changed[-5_000] ^= 1
    other = bytes(changed)
    steps = made(planned(other, OLD), other, OLD)
    assert any(step.base is None and step.length > 5_000 for step in steps)
    # The second of two tensors with the same samples is the right one.
    assert len(made(planned(NEW, other, OLD), NEW, other, OLD)) < 12


def test_of_equal_tensors_the_next_in_the_base_is_taken() -> None:
    tensors = {f"t{number}": ((3000,), [0.0]) for number in range(9)}
    old, new = gguf(ONE_LAYER, tensors), gguf({**ONE_LAYER, "general.name": "x"}, tensors)
    assert len([step for step in made(planned(new, old), new, old) if step.length > 3000]) == 1


def test_what_saves_next_to_nothing_is_no_recipe() -> None:
    assert planned(NEW, noise_of(NEW)) is None
    shared_little = _joined(weights(seed=8), gguf(ONE_LAYER, {"x": ((700,), [1.5])}))
    assert planned(shared_little, gguf(ONE_LAYER, {"x": ((700,), [1.5])})) is None
    assert planned(OLD[:-1], OLD) is None


def noise_of(data: bytes) -> bytes:
    return weights(seed=9, tensors=6)[: len(data)]


def test_a_recipe_that_would_be_too_long_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_STEPS", 1)
    assert planned(NEW, OLD) is None
    monkeypatch.undo()
    monkeypatch.setattr(search, "MAX_HEAD_BYTES", 20)
    assert planned(NEW, OLD) is None


def test_a_damaged_blob_is_found_on_the_way() -> None:
    with pytest.raises(DigestMismatchError):
        plan_recipe(described(OLD), StayingBytes(NEW[: len(OLD)]), Bases([at_hand(OLD)]))


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_blob_costs_the_same_among_many_with_tensors_of_its_length(is_listed: bool) -> None:
    files = [
        gguf(ONE_LAYER, {f"{number}": ((100,), [byte / 7 for byte in noise(100, number)])}) for number in range(300)
    ]

    def work(count: int) -> Callable[[], object]:
        def compare() -> None:
            bases = Bases()
            for file in files[:count]:
                assert plan_recipe(described(file), StayingBytes(file), bases) is None
                basis = Basis.of_listed(listed(file)) if is_listed else at_hand(file)
                assert basis
                bases.add(basis)

        return compare

    assert costs_the_same_per_item(work)


def test_a_tensor_of_a_base_is_sampled_once() -> None:
    bytes_of = [StayingBytes(weights(seed=seed)) for seed in range(4)]
    bases = Bases()
    for data in bytes_of:
        basis = Basis.of(described(data.data), data)
        assert basis
        bases.add(basis)
        data.asked.clear()
        assert plan_recipe(described(NEW), StayingBytes(NEW), bases)
    for data in bytes_of[1:]:
        assert len(data.asked) == 3 * 6


def test_of_listed_tensors_with_one_digest_a_basis_that_is_used_already_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "MAX_BASES", 1)
    files = [weights(seed=1, tensors=1), OLD]
    bases = Bases(basis for file in files if (basis := Basis.of_listed(listed(file))))
    plan = plan_recipe(described(both := _joined(OLD, files[0])), StayingBytes(both), bases)
    assert {step.base for step in made(plan, both, OLD)} == {None, 0}


def test_a_file_that_is_no_weights_is_no_basis() -> None:
    for data in (noise(500), b"", b"GGUF", b"GGUF" + bytes(100), bytes(8) + b"{"):
        assert Basis.of(described(data), StayingBytes(data)) is None
    assert Basis.of(described(OLD), StayingBytes(OLD[:-1])) is None


def test_safetensors_have_tensors_too() -> None:
    parts = [noise(3000, 1), noise(2000, 2)]

    def file(note: str) -> bytes:
        header = {"__metadata__": {"note": note}, "a": _tensor(0, 3000), "b": _tensor(3000, 5000)}
        raw = json.dumps(header).encode()
        return len(raw).to_bytes(8, "little") + raw + b"".join(parts)

    steps = made(planned(file("the second one"), file("first")), file("the second one"), file("first"))
    assert sum(step.length for step in steps if step.base is not None) >= 5000


def _tensor(begin: int, end: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


def test_tensors_of_unknown_type_reach_to_the_next_and_one_within_another_is_left_out() -> None:
    file = assembled([], [info("a", (8,), 0, 0), info("b", (8,), 0, 4), info("c", (64,), 4711, 64)], noise(320))
    ranges = read_tensor_ranges(StayingBytes(file).read_at, len(file))
    assert ranges
    assert ranges.tensors == ((ranges.header, 32), (ranges.header + 64, 256))
    nothing = assembled([], [])
    assert read_tensor_ranges(StayingBytes(nothing).read_at, len(nothing)) is None


def test_a_header_that_is_too_long_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_COMPARED_BYTES", 100)
    steps = made(planned(NEW, OLD), NEW, OLD)
    assert steps[0].base is None
    assert gguf_format.MAX_HEADER_BYTES > headers.MAX_COMPARED_BYTES


def test_runs_of_a_header_are_copied_and_short_ones_are_not() -> None:
    old = noise(1000, 1)
    assert header_steps(old, old, 3) == [Step(1000, 3, 0)]
    assert header_steps(b"", old, 3) == []
    assert header_steps(noise(100, 2), old, 3) == [Step(100)]
    assert header_steps(old[:63], old, 3) == [Step(63)]
    assert header_steps(noise(10, 2) + old[100:400], old, 3) == [Step(10), Step(300, 3, 100)]
    # After a change of the same length the same shift goes on, though no block of the base begins there.
    changed = old[:500] + b"x" * 10 + old[510:575] + noise(30, 4)
    assert header_steps(changed, old, 3) == [Step(500, 3, 0), Step(10), Step(65, 3, 510), Step(30)]


def test_a_large_header_has_larger_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "_LARGE_BYTES", 100)
    old = noise(4000, 1)
    assert header_steps(noise(9, 2) + old[1000:3000], old, 0) == [Step(9), Step(2000, 0, 1000)]


@QUICK
@given(st.randoms(use_true_random=False))
def test_steps_make_the_header_whatever_it_is(chance: random.Random) -> None:
    old = chance.randbytes(chance.randrange(2000)) + bytes(chance.randrange(300))
    new = b"".join(_piece(chance, old) for _ in range(chance.randrange(8)))
    steps = header_steps(new, old, 0)
    position = 0
    for step in steps:
        there = new[position : position + step.length]
        assert step.base is None or (old[step.offset : step.offset + step.length] == there and step.length >= 64)
        position += step.length
    assert position == len(new)


def _piece(chance: random.Random, old: bytes) -> bytes:
    if chance.random() < 0.3:
        return chance.randbytes(chance.randrange(100))
    begin = chance.randrange(len(old) + 1)
    return old[begin : begin + chance.randrange(700)]
