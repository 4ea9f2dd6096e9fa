"""Names for the files of models: as programs expect them, never two alike, and kept once they are given."""

from __future__ import annotations

import itertools
import re

import pytest

from ostore.formats.digest import Digest
from ostore.formats.link_layout import Layout
from ostore.formats.manifest import Descriptor
from ostore.formats.model_files import found_models
from ostore.formats.name import ModelName, windows_problem
from ostore.formats.parts import Parts
from ostore.formats.plain_names import PlainNames, plain_names

NONE = (0, 0, 0)
AWKWARD = [
    "llama3", "llama3:8b", "llama3-8b", "me/llama3:8b", "me-llama3:8b", "library-llama3-8b", "LLAMA3",
    "hf.co/me/llama3:8b", "localhost:5000/me/llama3", "mmproj-llama3", "mmproj", "adapter-llama3", "draft-llama3",
    "con", "nul.x", "aux:8b", "x.gguf", "x", "x.modelfile", "con/x", "mmproj/x", "mmproj.com/a/b", "x:00001-of-00002",
    "library", f"{'m' * 80}:{'t' * 80}", f"{'h' * 250}/{'n' * 80}/{'m' * 80}:{'t' * 80}",
]  # fmt: skip


def names(text: str, layout: Layout = Layout.FILES, counts: tuple[int, int, int] = NONE, **more: str) -> PlainNames:
    return plain_names(ModelName.parse(text), layout, counts, (), **more)


@pytest.mark.parametrize(
    ("name", "layout", "weights"),
    [
        ("llama3", Layout.FILES, "llama3.gguf"),
        ("llama3:8b", Layout.FILES, "llama3-8b.gguf"),
        ("me/llama3", Layout.FILES, "me-llama3.gguf"),
        ("hf.co/me/llama3:Q4", Layout.FILES, "hf.co-me-llama3-Q4.gguf"),
        ("localhost:5000/me/x", Layout.FILES, "localhost-5000-me-x.gguf"),
        ("llama3", Layout.LM_STUDIO, "library/llama3/llama3.gguf"),
        ("me/llama3:8b", Layout.LM_STUDIO, "me/llama3-8b/llama3-8b.gguf"),
        ("hf.co/me/x", Layout.LM_STUDIO, "hf.co-me/x/x.gguf"),
        ("llama3:8b", Layout.LLAMA_CPP, "llama3-8b.gguf"),
        # A device of Windows, and what programs take for a projector.
        ("con", Layout.FILES, "library-con-latest.gguf"),
        ("mmproj-x", Layout.FILES, "model-HASH.gguf"),
    ],
)
def test_a_name_is_as_short_as_it_can_be(name: str, layout: Layout, weights: str) -> None:
    assert re.sub("[0-9a-f]{12}", "HASH", names(name, layout).weights) == weights


def test_what_belongs_to_a_model_lies_where_its_program_looks() -> None:
    assert names("a", counts=(2, 1, 1)) == PlainNames(
        "a.gguf", ("mmproj-a.gguf", "mmproj2-a.gguf"), ("adapter-a.gguf",), ("draft-a.gguf",), "a.Modelfile"
    )
    # Both take the last .gguf of a folder for the model, unless it is called a projector.
    assert names("a", Layout.LLAMA_CPP, (1, 1, 1)) == PlainNames(
        "a/a.gguf", ("a/mmproj-a.gguf",), (), (), "a/Modelfile"
    )
    assert names("a", Layout.LM_STUDIO, (1, 1, 1)).projectors == ("library/a/mmproj-a.gguf",)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("counts", [NONE, (1, 0, 0), (1, 1, 1)])
def test_no_two_models_share_a_name(layout: Layout, counts: tuple[int, int, int]) -> None:
    taken: set[str] = set()
    for text in AWKWARD:
        found = plain_names(ModelName.parse(text), layout, counts, taken)
        assert found.claims.isdisjoint(taken), text
        taken |= found.claims
        assert "mmproj" not in found.weights.lower(), text
        for path in (found.weights, *found.projectors, found.modelfile):
            parts = path.split("/")
            assert [part for part in parts if windows_problem(part) or len(part) > 255] == [], text


def test_one_name_of_two_stores_is_two_files() -> None:
    first = names("a")
    second, third = (plain_names(ModelName.parse("a"), Layout.FILES, NONE, taken, salt=store) for store, taken in (
        ("/one", {*first.claims, "library-a-latest", "registry.ollama.ai-library-a-latest"}),
        ("/two", {*first.claims, "library-a-latest", "registry.ollama.ai-library-a-latest"}),
    ))  # fmt: skip
    assert second.claims.isdisjoint(third.claims)


def test_a_name_that_was_given_is_kept() -> None:
    name = ModelName.parse("llama3:8b")
    longer = plain_names(name, Layout.FILES, NONE, {"llama3-8b"})
    assert longer.weights == "library-llama3-8b.gguf"
    assert plain_names(name, Layout.FILES, NONE, (), present=["library-llama3-8b.gguf"]) == longer
    # A projector that came later moves the file into a folder of the same name.
    moved = plain_names(name, Layout.LLAMA_CPP, (1, 0, 0), (), present=["library-llama3-8b.gguf"])
    assert moved.weights == "library-llama3-8b/library-llama3-8b.gguf"


def test_each_part_gets_a_path_or_is_named() -> None:
    one, two, three = (Descriptor(Digest(letter * 64), 1) for letter in "abc")
    parts = Parts(one, (two,), (three,), ())
    assert names("a", counts=(1, 1, 0)).paths_of(parts) == {
        one: "a.gguf",
        two: "mmproj-a.gguf",
        three: "adapter-a.gguf",
    }
    in_folder = names("a", Layout.LLAMA_CPP, (1, 1, 0))
    assert in_folder.paths_of(parts) == {one: "a/a.gguf", two: "a/mmproj-a.gguf"}
    assert in_folder.without_place(parts) == ("adapter",)


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["/m/Llama-3.2-1B-Q4_K_M.gguf"], [("llama-3.2-1b:q4_k_m", 1)]),
        (["/m/model.GGUF"], [("model", 1)]),
        (["/m/x-UD-IQ2_M.gguf"], [("x:ud-iq2_m", 1)]),
        (["/m/x-BF16.gguf", "/m/mmproj-x.gguf"], [("x:bf16", 2)]),
        # Nobody knows which of two projectors belongs to it.
        (["/m/x.gguf", "/m/mmproj-a.gguf", "/m/mmproj-b.gguf"], [("x", 1)]),
        (["/m/mmproj-x.gguf"], []),
        (["/m/x-00002-of-00002.gguf", "/m/x-00001-of-00002.gguf"], [("x", 2)]),
        (["/m/x-00001-of-00002.gguf"], []),
        (["/m/x.gguf", "/n/x.gguf"], [("x", 1), ("x-2", 1)]),
        (["/m/taken.gguf"], [("taken-2", 1)]),
        (["C:\\m\\x y!.gguf"], [("x-y", 1)]),
        (["/m/\u00e9.gguf"], [("model", 1)]),
        ([f"/m/{'x' * 200}.gguf"], [("x" * 76, 1)]),
    ],
)
def test_files_of_other_programs_become_models_with_valid_names(paths: list[str], found: list[tuple[str, int]]) -> None:
    models = found_models(paths, ["taken:latest"])
    assert [(model.name, len(model.files)) for model in models] == found
    assert all(ModelName.parse(model.name) for model in models)
    assert all("mmproj" not in model.files[0] for model in models)


def test_parts_come_in_their_order() -> None:
    for paths in itertools.permutations([f"/m/x-0000{number}-of-00003.gguf" for number in (1, 2, 3)]):
        (model,) = found_models(paths, ())
        assert list(model.files) == sorted(paths)
