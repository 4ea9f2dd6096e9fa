"""All situations of a store that the tests know, each as a store in a folder of its own with good copies beside it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ostore
from tests.hostile import documents, surroundings, upkeep
from tests.hostile.rows import OLD_WEIGHTS, Row, World
from tests.odd_stores import ODD_STORES, aged
from tests.support import Store, later, noise, sha256
from tests.test_doctor import CASES
from tests.torture.damages import DAMAGES, Target, Whole

# What a name may have that a shell, a terminal or PowerShell takes for something else.
ODD_WORDS = (
    "a b", "it's", 'the "best"', "$HOME", "`id`", "a;b", "a&b", "-rf", "--", "~", "*", "a\nb", "a\tb", "\x1b[2J", "\\",
    "café", "\u2019", "a'b\nc", "%PATH%", "!x", "#x", "(x)", "\udcff\udcfe",
)  # fmt: skip


class RecordedStore(Store):
    """A store that keeps a good copy of every blob and manifest that a test puts into it, in another one."""

    def __init__(self, root: Path, copies: Path) -> None:
        super().__init__(root)
        self.copies = Store(copies)

    def blob(self, data: bytes) -> str:
        self.copies.blob(data)
        return super().blob(data)

    def write_manifest(self, name: str, raw: bytes) -> Path:
        if _is_good(raw):
            self.copies.write_manifest(name, raw)
        return super().write_manifest(name, raw)


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key.lower() for key, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def _is_good(raw: bytes) -> bool:
    try:
        document = json.loads(raw, object_pairs_hook=_each_key_once)
        digests = [part["digest"] for part in (document["config"], *document["layers"])]
    except (ValueError, KeyError, TypeError):
        return False
    return document["schemaVersion"] == 2 and all(text[:7] == "sha256:" and text.islower() for text in digests)


@dataclass(frozen=True)
class Situation:
    """
    One situation. `make` builds it in a folder and returns the store, which is `models` there or below.

    Good copies of its models are in `BUNDLE` there, which is also the name that remedies give to a source.
    """

    name: str
    make: Callable[[Path, pytest.MonkeyPatch], Path]


def situations() -> list[Situation]:
    """Every situation, each once."""
    found = [*_of_doctor(), *_of_the_table(), *_of_the_corpus(), *_of_damages(), *_of_odd_words()]
    return list({situation.name: situation for situation in found}.values())


def _plain(change: Callable[[Store], object], name: str = "models") -> Callable[[Path, pytest.MonkeyPatch], Path]:
    def make(folder: Path, _patch: pytest.MonkeyPatch) -> Path:
        store = RecordedStore(folder / name, folder / "BUNDLE")
        store.model("tiny:latest", b"the weights " * 1000, template=b"{{ .Prompt }}")
        store.model("tiny:q4", b"the weights " * 1000, system=b"Say hi!")
        change(store)
        _complete(store.root, store.copies)
        return store.root

    return make


def _complete(root: Path, copies: Store) -> None:
    """Put a good model into the copies for each name that the store has and the copies lack."""
    for path in sorted((root / "manifests").glob("*/*/*/*")):
        *_, host, namespace, model, tag = path.parts
        name = f"{host}/{namespace}/{model}:{tag}"
        if tag[:1] not in "._" and name.isascii() and name.isprintable() and not copies.manifest_path(name).exists():
            copies.model(name, noise(900, len(name)), template=b"{{ .Prompt }}")


def _of_doctor() -> Iterator[Situation]:
    for number, (code, _severity, _is_fixable, _subject, change) in enumerate(CASES):
        made = _trashed if code == "trash" else change
        yield Situation(f"doctor: {code} {number}", _plain(made))
        if number % 4 == 0:
            yield Situation(f"doctor, in an odd folder: {code} {number}", _plain(made, 'it\'s a "store" $HOME/models'))


def _trashed(store: Store) -> None:
    aged(store.root / "blobs" / store.blob(b"an orphan").replace(":", "-"))
    with later(2):
        ostore.gc(keep=86_400.0, models=store.root)


def _of_the_table() -> Iterator[Situation]:
    for row, stores in ODD_STORES.items():
        for number, odd in enumerate(stores):
            yield Situation(f"table: {row} {number}", _plain(odd.make))


def _of_the_corpus() -> Iterator[Situation]:
    rows: list[Row] = [
        *surroundings.odd_blob_rows(),
        *surroundings.odd_manifest_rows(),
        *surroundings.workspace_rows(),
        *documents.stored_rows(),
        *upkeep.odd_store_rows(),
        *upkeep.workspace_rows(),
    ]
    # The same store is there once for each command.
    for name, row in {row.name.rpartition(", ")[0] or row.name: row for row in rows}.items():
        if "meanwhile" not in name and "B60" not in name:
            yield Situation(f"corpus: {name}", _met(row))


def _met(row: Row) -> Callable[[Path, pytest.MonkeyPatch], Path]:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Path:
        world = World(folder, patch)
        copies = Store(folder / "BUNDLE")
        copies.model("old:latest", OLD_WEIGHTS)
        world.store = RecordedStore(world.store.root, copies.root)
        row.prepare(world)
        _complete(world.store.root, copies)
        return world.store.root

    return make


def _of_damages() -> Iterator[Situation]:
    for number, damage in enumerate(DAMAGES):
        yield Situation(f"damage: {damage.__name__} {number}", _damaged(damage, number))


def _damaged(damage: Callable[[Target], object], number: int) -> Callable[[Path, pytest.MonkeyPatch], Path]:
    def make(folder: Path, _patch: pytest.MonkeyPatch) -> Path:
        store = RecordedStore(folder / "models", folder / "BUNDLE")
        for seed in (1, 2, 3):
            store.model(f"m{seed}:latest", noise(5000, seed), template=noise(50, 10 + seed))
        models = {name: _blobs_of(store, name) for name in store.names}
        contents = {path.name[7:]: path.read_bytes() for path in (store.root / "blobs").iterdir()}
        blobs = (sha256(noise(5000, 1)), sha256(noise(5000, 2)))
        whole = Whole(models, contents)
        damage(Target(store, whole, folder / "elsewhere", blobs, store.names[0], random.Random(number)))
        _complete(store.root, store.copies)
        return store.root

    return make


def _blobs_of(store: Store, name: str) -> dict[str, int]:
    document = json.loads(store.manifest_path(name).read_bytes())
    return {part["digest"][7:]: part["size"] for part in (document["config"], *document["layers"])}


def _of_odd_words() -> Iterator[Situation]:
    for word in ODD_WORDS:
        yield Situation(f"odd word in blobs/: {word!a}", _plain(_stray(f"blobs/{word}")))
        yield Situation(f"odd word among manifests: {word!a}", _plain(_stray(f"manifests/{word}")))
        if word.isprintable() and not set(word) & set("*/"):
            yield Situation(f"odd word in the path: {word!a}", _plain(_missing, f"{word}/models"))


def _stray(path: str) -> Callable[[Store], object]:
    def put(store: Store) -> None:
        place = store.root / path
        place.write_bytes(b"somebody's own file\n")
        aged(place)

    return put


def _missing(store: Store) -> None:
    store.model("odd:latest", noise(800, 9))
    store.blob_path(noise(800, 9)).unlink()
