"""A selection has every blob once, in an order that depends only on the models."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats.digest import Digest
from ostore.formats.errors import UnsafeError
from ostore.formats.manifest import Manifest
from ostore.formats.name import ModelName
from ostore.formats.selection import Selection, refuse_twins
from tests.support import CONFIG, MODEL

QUICK = settings(max_examples=60, deadline=None, database=None)


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


def manifest(blobs: str, config: str = "", **sizes: int) -> Manifest:
    """A manifest whose layers are the letters of `blobs`; a letter's size is its place in the alphabet."""

    def entry(letter: str, media_type: str) -> dict[str, object]:
        size = sizes.get(letter, ord(letter) - 96)
        return {"mediaType": media_type, "digest": str(digest(letter)), "size": size}

    document = {
        "schemaVersion": 2,
        "config": entry(config, CONFIG) if config else None,
        "layers": [entry(letter, MODEL) for letter in blobs],
    }
    return Manifest.parse(json.dumps(document).encode())


def select(**models: Manifest) -> Selection:
    return Selection.of((ModelName.parse(name), found) for name, found in models.items())


def letters(selection: Selection) -> str:
    known = {digest(letter): letter for letter in "abcdefghij"}
    return "".join(known[blob.digest] for blob in selection.blobs)


def test_blobs_come_by_model_name_then_config_then_layers_each_once() -> None:
    selection = select(two=manifest("bca", "d"), one=manifest("cc", "a"))
    assert [model.name.model for model in selection.models] == ["one", "two"]
    assert letters(selection) == "acdb"
    assert [str(blob) for blob in selection.models[1].blobs] == [str(digest(letter)) for letter in "dbca"]


def test_the_order_in_which_models_are_named_does_not_matter() -> None:
    models = [(ModelName.parse(name), manifest(blobs)) for name, blobs in (("x:1", "ab"), ("x:2", "cb"), ("a/x", "d"))]
    selections = [Selection.of(order) for order in itertools.permutations(models)]
    assert all(selection == selections[0] for selection in selections)


def test_what_models_share_is_counted_once() -> None:
    selection = select(x=manifest("ab"), y=manifest("bc"), z=manifest("b"))
    assert selection.size == 1 + 2 + 3
    assert selection.shared_size == 2 + 2
    assert selection.sizes == {digest("a"): 1, digest("b"): 2, digest("c"): 3}
    assert [name.model for name in selection.users_of(digest("b"))] == ["x", "y", "z"]
    assert selection.users_of(digest("d")) == ()


def test_a_config_that_is_also_a_layer_is_one_blob() -> None:
    assert letters(select(x=manifest("ba", "a"))) == "ab"


def test_a_part_of_a_selection_needs_only_its_own_blobs_in_the_same_order() -> None:
    selection = select(x=manifest("ab"), y=manifest("cb"))
    part = selection.restricted([ModelName.parse("y"), ModelName.parse("absent")])
    assert [model.name.model for model in part.models] == ["y"]
    assert letters(part) == "bc"
    assert selection.restricted([]) == Selection((), ())


@pytest.mark.parametrize(
    "models",
    [
        {"x": manifest("a"), "y": manifest("a", a=2)},
        {"x": manifest("ab", b=9), "y": manifest("", "b")},
    ],
    ids=["layers of two models", "layer and config"],
)
def test_one_digest_with_two_sizes_is_refused(models: dict[str, Manifest]) -> None:
    with pytest.raises(UnsafeError, match="two sizes for one blob"):
        select(**models)


def test_one_digest_with_two_sizes_in_one_manifest_is_refused() -> None:
    raw = manifest("aa").raw.replace(b'"size": 1', b'"size": 2', 1)
    with pytest.raises(UnsafeError, match="two sizes for one blob, 2 and 1"):
        select(x=Manifest.parse(raw))


def test_names_that_differ_only_by_case_are_refused_even_with_the_same_bytes() -> None:
    with pytest.raises(UnsafeError, match="differ only by case"):
        select(x=manifest("a"), X=manifest("a"))


def test_a_name_is_no_twin_of_itself() -> None:
    name = ModelName.parse("x")
    refuse_twins([name, name, ModelName.parse("x:q4")])


@QUICK
@given(st.dictionaries(st.sampled_from("stuvwx"), st.text("abcdef", max_size=5), max_size=5))
def test_every_blob_of_every_model_is_there_exactly_once(models: dict[str, str]) -> None:
    selection = select(**{name: manifest(blobs) for name, blobs in models.items()})
    found = letters(selection)
    assert sorted(found) == sorted(set("".join(models.values())))
    assert selection.size + selection.shared_size == sum(
        ord(letter) - 96 for blobs in models.values() for letter in set(blobs)
    )
    assert found == "".join(dict.fromkeys("".join(blobs for _, blobs in sorted(models.items()))))
