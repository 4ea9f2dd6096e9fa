"""Models that share tensors, and bundles that hold them as recipes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.manifest import Descriptor
from ostore.formats.selection import Selection
from ostore.operations.delta.planning import WithRecipes, with_recipes
from ostore.operations.delta.search import Basis
from ostore.operations.transfer import copy
from ostore.places.bundle.writer import BundleFile
from ostore.places.store.store import LocalStore
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.progress import SILENT
from tests.gguf import ONE_LAYER, Tensor, Value, gguf
from tests.support import Store, noise, sha256

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}" * 4


def weights(
    template: str = TEMPLATE, *, prefix: str = "", tensors: int = 6, seed: int = 0, alignment: int = 32
) -> bytes:
    """A GGUF of some 250 kB. Files with one seed have the same tensors."""
    keys: dict[str, Value] = {**ONE_LAYER, "tokenizer.chat_template": template}
    if alignment != 32:
        keys["general.alignment"] = alignment
    named: dict[str, Tensor] = {}
    for number in range(tensors):
        # Numbers that are no NaN, and no two tensors alike.
        numbers = [byte / 7 for byte in noise(10_000 + 8 * number, 100 * seed + number)]
        named[f"{prefix}blk.{number}.weight"] = ((len(numbers),), numbers)
    return gguf(keys, named, alignment=alignment)


OLD = weights()
# The same tensors behind another template: what a re-release is, mostly.
NEW = weights(TEMPLATE.replace("message", "turn", 1))


def two_releases(root: Path) -> Store:
    """A store with a model and its re-release."""
    store = Store(root)
    store.model("tiny:old", OLD, template=b"{{ .Prompt }}")
    store.model("tiny:new", NEW, template=b"{{ .Prompt }}")
    return store


def digest_of(data: bytes) -> Digest:
    return Digest(sha256(data))


def planned(store: Store, names: list[str], basis: bytes) -> tuple[Selection, WithRecipes, OpenBlobs]:
    """The selection of these models, against a target that has one more blob."""
    local = LocalStore(store.root)
    blobs = OpenBlobs(local.opened_blob)
    base = Basis.of(Descriptor(digest_of(basis), len(basis)), blobs.at(digest_of(basis)))
    selection = local.select(names)
    made, recipes = with_recipes(selection, blobs, [base] if base else [], shares=False, progress=SILENT)
    return made, WithRecipes(local, recipes, blobs), blobs


def delta(store: Store, path: Path, names: tuple[str, ...] = ("tiny:new",), basis: bytes = OLD) -> Path:
    """A bundle of these models for a target that has `basis`."""
    made, source, blobs = planned(store, list(names), basis)
    with closing(blobs):
        copy(source, BundleFile(path, level=None, jobs=2, replace=False), made, phase="", progress=SILENT)
    return path
