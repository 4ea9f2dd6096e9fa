"""An index says of each recipe what it makes and of what; one that contradicts itself is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ostore.formats.bundle_index import BundleIndex, manifest_members
from ostore.formats.digest import Digest
from ostore.formats.errors import InvalidBundleError, LimitError, OstoreError, UnsafeError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.recipe import MAX_HEAD_BYTES, MadeBlob
from ostore.formats.selection import SelectedModel, Selection
from ostore.places.bundle import restore

CONFIG, OLD, MADE, NEXT, OTHER = (Descriptor(Digest.of(letter), 1000) for letter in (b"c", b"o", b"m", b"n", b"x"))
OLD_NAME, MADE_NAME, NEXT_NAME = (ModelName.parse(name) for name in ("old", "re:1", "re:2"))


def model(name: ModelName, *blobs: Descriptor) -> SelectedModel:
    return SelectedModel(name, Digest.of(str(name).encode()), 300, tuple(blob.digest for blob in blobs))


def made(blob: Descriptor, *bases: Descriptor) -> MadeBlob:
    return MadeBlob(
        blob, tuple(base.digest for base in bases), Descriptor(Digest.of(bytes(blob.digest.hex, "ascii")), 90)
    )


# The old weights are only a base, and made of what is not here; the next ones are made of those that were made.
SELECTION = Selection(
    models=(model(MADE_NAME, CONFIG, MADE), model(NEXT_NAME, CONFIG, NEXT)),
    blobs=(CONFIG, MADE, NEXT),
    requires=(OLD,),
    recipes=(made(MADE, OLD), made(NEXT, MADE)),
)
INDEX = BundleIndex("ostore/0.1.0", SELECTION, ())


def test_an_index_with_recipes_is_written_and_read() -> None:
    document = json.loads(INDEX.write())
    assert document["needs"] == ["recipes"]
    assert [entry["digest"] for entry in document["blobs"]] == [str(CONFIG.digest)]
    assert BundleIndex.parse(INDEX.write()) == INDEX
    theirs = restore.parse_index(INDEX.write())
    assert [recipe.blob.hex for recipe in theirs.recipes] == [MADE.digest.hex, NEXT.digest.hex]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda index: index.pop("needs"), InvalidBundleError),
        (lambda index: index.update(needs=["recipes", "more"]), InvalidBundleError),
        (lambda index: index["recipes"].reverse(), InvalidBundleError),
        (lambda index: index["recipes"].pop(), InvalidBundleError),
        (lambda index: index["requires"].append({"digest": str(OTHER.digest), "size": 1}), InvalidBundleError),
        (lambda index: index["requires"].clear(), InvalidBundleError),
        (lambda index: index["recipes"].append(index["recipes"][0]), UnsafeError),
        (lambda index: index["recipes"][0]["stored"].update(size=1001 + MAX_HEAD_BYTES), LimitError),
        (lambda index: index["recipes"][0]["stored"].update(size=0), LimitError),
        (lambda index: index["recipes"][0].pop("stored"), InvalidBundleError),
        (lambda index: index["recipes"][0].update(size=2**63 - 1), LimitError),
        (lambda index: index["recipes"][0].update(bases=[]), LimitError),
    ],
    ids=range(12),
)
def test_an_index_that_contradicts_itself_is_refused(
    change: Callable[[dict[str, Any]], object], error: type[OstoreError]
) -> None:
    document = json.loads(INDEX.write())
    change(document)
    raw = json.dumps(document).encode()
    with pytest.raises(error):
        BundleIndex.parse(raw)
    with pytest.raises(restore.RestoreError):
        restore.parse_index(raw)


def test_needs_without_recipes_are_no_fault() -> None:
    document = json.loads(BundleIndex("", Selection((model(OLD_NAME, OLD),), (OLD,)), ()).write())
    raw = json.dumps({**document, "needs": ["recipes"]}).encode()
    assert BundleIndex.parse(raw).selection.recipes == ()
    assert restore.parse_index(raw).recipes == []


def test_a_manifest_that_needs_a_recipe_is_where_tar_shows_it_to_nobody() -> None:
    whole = Selection((model(OLD_NAME, OLD), model(MADE_NAME, MADE)), (OLD, MADE), recipes=(made(MADE, OLD),))
    assert list(manifest_members(whole).values()) == [
        "manifests/registry.ollama.ai/library/old/latest",
        "ostore/manifests/registry.ollama.ai/library/re/1",
    ]


def test_a_part_of_a_selection_has_the_recipes_and_bases_that_it_needs() -> None:
    part = SELECTION.restricted([NEXT_NAME])
    assert (part.blobs, part.requires, part.recipes) == ((CONFIG, NEXT), (OLD,), SELECTION.recipes[1:])
    assert SELECTION.restricted([]).requires == ()
    assert SELECTION.built_on([NEXT.digest]) == {MADE.digest, OLD.digest}
    assert SELECTION.built_on([NEXT.digest], {NEXT.digest}) == set()
    assert SELECTION.required_beside({MADE.digest}) == ()
    assert SELECTION.required_beside({NEXT.digest}) == (OLD,)


def test_the_sizes_of_a_selection_tell_what_is_stored_and_what_is_shared() -> None:
    assert SELECTION.whole == (CONFIG,)
    assert SELECTION.stored_size == 1000 + 2 * 90
    assert SELECTION.shared_size == 1000
    assert SELECTION.needed == {CONFIG.digest, MADE.digest, NEXT.digest}
