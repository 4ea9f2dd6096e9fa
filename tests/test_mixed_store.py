"""
A store of 60 odd entries among 20 whole models: every command tells the same story about it.

Through the program, because a person who compares two commands reads what it prints.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import pytest

from tests.odd_stores import (
    ODD_STORES,
    OddStore,
    altered_blob,
    closed_folder,
    manifest,
    no_store,
    number_of,
    only_blobs,
    orphan,
)
from tests.support import Store, full, noise, ostore, sha256

pytestmark = pytest.mark.skipif("os.name == 'nt'", reason="Windows cannot hold half of these entries")

ODD, WHOLE = 60, 20
# They stand for a whole store, or need another user.
ALONE = (closed_folder, only_blobs, no_store)


class Mixed:
    """The store, and what is known about it: the odd models by row, and those that are whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "models")
        self.whole = [full(f"whole{number:02}:latest") for number in range(WHOLE)]
        for number, name in enumerate(self.whole):
            texts = {"template": b"{{ .Prompt }}", "license": b"MIT %d" % (number % 3)}
            self.store.model(name, noise(3000 + number, 500 + number), **texts)
        self.odd = list(islice(cycle(self._kinds()), ODD))
        for number, (_, odd) in enumerate(self.odd):
            odd.make(self.store, self.name(number), self.weights(number))

    @staticmethod
    def _kinds() -> list[tuple[str, OddStore]]:
        return [(row, odd) for row, stores in ODD_STORES.items() for odd in stores if odd.make not in ALONE]

    @staticmethod
    def name(number: int) -> str:
        return f"odd{number:02}"

    @staticmethod
    def weights(number: int) -> bytes:
        return noise(2000 + number, number)

    def numbers(self, *rows: str) -> Iterator[int]:
        """The entries of rows whose names contain one of these words."""
        return (number for number, (row, _) in enumerate(self.odd) if any(word in row for word in rows))

    def run(self, *words: str, code: int, later: str = "") -> dict[str, Any]:
        """The JSON document that a command prints about the store, now or `later`."""
        about = () if words[0] == "import" else ("--models", str(self.store.root))
        clock = ("faketime", "-f", later) if later else ()
        done = ostore(*words, *about, "--json", cwd=self.folder, tracer=clock)
        assert done.returncode == code, done.stderr
        document: dict[str, Any] = json.loads(done.stdout or done.stderr)
        return document


def names_of(rows: list[dict[str, Any]]) -> set[str]:
    return {row["name"] for row in rows}


def left_out(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {left["name"]: (left["error_class"], left["reason"]) for left in report["left_out"]}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    return Mixed(tmp_path_factory.mktemp("mixed"))


def test_what_is_carried_and_what_is_left_out_is_the_same_for_each_command(mixed: Mixed) -> None:
    whole = {name.rpartition("/")[2] for name in mixed.whole}
    exported = mixed.run("export", "--all", "all.tar.zst", code=4)
    folder = mixed.run("export", "--all", "plain/", code=4)
    (imported,) = mixed.run("import", "models", "--models", "./one", code=4)["imports"]
    (unpacked,) = mixed.run("import", "all.tar.zst", "--models", "./two", code=8)["imports"]
    listed = names_of(mixed.run("list", code=0)["models"])
    verified = mixed.run("verify", code=4)["reports"][0]

    # A bundle takes names that Ollama would mix up, and a store does not.
    twins = {f"{mixed.name(number)}/one:latest" for number in mixed.numbers("two spellings of a part")}
    assert len(twins) == 2
    told = left_out(imported)
    assert left_out(exported) == {name: why for name, why in told.items() if name not in twins}
    assert {name: error for name, (error, _) in left_out(folder).items()} == {
        name: error for name, (error, _) in told.items()
    }
    assert {name: error for name, (error, _) in left_out(unpacked).items()} == dict.fromkeys(twins, "unsafe")
    assert set(exported["models"]) - twins == names_of(imported["models"]) == names_of(unpacked["models"])
    assert set(folder["models"]) == names_of(imported["models"])

    # What is listed is carried, left out, or another spelling of what is carried.
    aliases = {name for name in listed if name.startswith("ODD") or name.endswith(":LATEST")}
    assert listed - aliases == names_of(imported["models"]) | (told.keys() & listed)
    assert whole <= names_of(imported["models"])
    assert not whole & told.keys()
    # Whatever cannot be carried because of its bytes or its manifest is a problem to verify, for the same models.
    suffering = set(chain.from_iterable(problem["models"] for problem in verified["problems"]))
    unreadable = {problem["subject"] for problem in verified["problems"] if problem["kind"] == "manifest-damaged"}
    for name, (error, _) in told.items():
        path = f"manifests/{full(name).replace(':', '/')}"
        is_sound = error == "unsafe" and not any(name.startswith(mixed.name(n)) for n in mixed.numbers("a dash or in"))
        assert (name in suffering or path in unreadable) is not (is_sound or error == "format"), name
    assert not whole & suffering

    for target in ("one", "two", "plain"):
        for name in mixed.whole:
            there = mixed.folder / target / mixed.store.manifest_path(name).relative_to(mixed.store.root)
            raw = there.read_bytes()
            assert raw == mixed.store.manifest_path(name).read_bytes()
            for digest in {part["digest"] for part in [json.loads(raw)["config"], *json.loads(raw)["layers"]]}:
                blob = digest.replace(":", "-")
                assert (there.parents[4] / "blobs" / blob).read_bytes() == (
                    mixed.store.root / "blobs" / blob
                ).read_bytes()
        assert ostore("verify", "--models", mixed.folder / target, "-q").returncode == 0


def test_doctor_names_each_odd_entry(mixed: Mixed) -> None:
    """Except for altered bytes, which only hashing finds, and orphans, which are counted."""
    report = mixed.run("doctor", code=4)
    told = json.dumps(report["findings"], ensure_ascii=False).lower()
    for number, (row, odd) in enumerate(mixed.odd):
        name, weights = mixed.name(number), mixed.weights(number)
        words = (name, sha256(weights), sha256(f"still coming {name}".encode()), f"sha256-123456{number_of(name)}-")
        is_named = any(word in told for word in (*words, f"sha256-1234567{number_of(name)}"))
        assert is_named is not (odd.make in {altered_blob, orphan}), (number, row)
    assert not any(f"whole{number:02}" in told for number in range(WHOLE))


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_gc_and_du_agree_on_what_can_be_freed(tmp_path: Path) -> None:
    mixed = Mixed(tmp_path)
    refused = mixed.run("gc", "-n", "--partials", code=10)
    du = mixed.run("du", code=0)
    kinds = {part["kind"]: part for part in du["parts"]}
    broken = list(mixed.numbers("a manifest that is empty, cut"))
    assert {doubt["path"] for doubt in du["doubts"]} == {
        manifest(mixed.store, mixed.name(number)).relative_to(mixed.store.root).as_posix() for number in broken
    }
    assert refused["message"].count("odd") >= 3
    assert kinds["orphans"]["reclaimable"]["allocated"] == kinds["downloads"]["reclaimable"]["allocated"] == 0

    for number in broken:
        manifest(mixed.store, mixed.name(number)).unlink()
    freed = []
    for later in ("+0d", "+8d"):
        gc = mixed.run("gc", "-n", "--partials", code=0, later=later)
        du = mixed.run("du", code=0, later=later)
        kinds = {part["kind"]: part for part in du["parts"]}
        downloads = [*gc["downloads"], *gc["kept_downloads"]]
        freed.append(gc["freed"])
        assert freed[-1] == sum(kinds[kind]["reclaimable"]["allocated"] for kind in ("orphans", "downloads"))
        assert kinds["orphans"]["files"] == len(gc["removed"]) + len(gc["kept"])
        assert kinds["downloads"]["files"] == sum(download["files"] for download in downloads)
        assert kinds["downloads"]["size"]["allocated"] == sum(download["allocated"] for download in downloads)
    assert freed[0] == 0 < freed[1]
