"""Damage stores with a seeded generator: verify finds all of it, and repair repairs what it can and nothing else."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

import ostore
from tests.support import TORTURE, Store, nobody_else_writes, noise, sha256, tree
from tests.torture.damages import (
    DAMAGED,
    DAMAGES,
    INTEGRITY,
    WHOLE,
    BlobHit,
    Damage,
    Foretold,
    Hit,
    Target,
    foretell,
    path_of,
)
from tests.torture.damages import Whole as WholeStore

pytestmark = nobody_else_writes
# `make torture` makes 1,000 stores with one to three damages each; `make test` some, every damage among them.
COUNT = 1000 if TORTURE else 48
CODES = {"integrity": INTEGRITY, "damaged": DAMAGED, "whole": WHOLE}


@dataclass(frozen=True)
class Origin:
    """A whole store, what is in it, and a bundle of it."""

    store: Store
    whole: WholeStore
    bundle: Path


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    """Models that share all, some or none of their blobs; one of somebody else's, one of another host, one orphan."""
    folder = tmp_path_factory.mktemp("damage")
    store, bundle = Store(folder / "models"), folder / "b.tar.zst"
    store.model("tiny:latest", noise(30_000, 1), template=b"{{ .Prompt }}")
    store.model("tiny:q4", noise(30_000, 1), template=b"{{ .Prompt }}", system=b"Say hi!")
    store.model("tiny:q8", noise(30_000, 2), template=b"{{ .Prompt }}")
    store.model("large:latest", noise(300_000, 3), license=b"MIT", projector=noise(5000, 4))
    store.model("registry.ollama.ai/someone/mine:v1", b"text " * 2000, params=b'{"top_k":10}\n')
    store.model("hf.co/someone/other:Q4_K_M", noise(9000, 5), license=b"MIT")
    models = {}
    for name in store.names:
        document = json.loads(store.manifest_path(name).read_bytes())
        described = (document["config"], *document["layers"])
        models[name] = {layer["digest"].removeprefix("sha256:"): layer["size"] for layer in described}
    ostore.export(["*"], bundle, models=store.root)
    store.blob(b"an orphan")
    contents = {path.name.removeprefix("sha256-"): path.read_bytes() for path in (store.root / "blobs").iterdir()}
    # Older than anything that repair does here, so that a time that it changes shows.
    for path in store.root.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return Origin(store, WholeStore(models, contents), bundle)


def damaged(origin: Origin, folder: Path, damages: tuple[Damage, ...], seed: str) -> tuple[Store, list[Hit]]:
    """A copy of the store with these damages, each at another place."""
    root = shutil.copytree(origin.store.root, folder / "models")
    choice = random.Random(seed)
    blobs = choice.sample(origin.whole.needed, 2 * len(damages))
    names = choice.sample(sorted(origin.whole.models), len(damages))
    hits: list[Hit] = []
    for number, (damage, name) in enumerate(zip(damages, names, strict=True)):
        pair = (blobs[2 * number], blobs[2 * number + 1])
        hits += damage(Target(Store(root), origin.whole, folder / "elsewhere", pair, name, choice))
    return Store(root), hits


def found(problems: tuple[ostore.Problem, ...]) -> dict[str, set[str]]:
    subjects: dict[str, set[str]] = {}
    for problem in problems:
        subjects.setdefault(problem.subject, set()).add(problem.kind)
    return subjects


def cases() -> list[tuple[int, tuple[Damage, ...]]]:
    """First each damage alone, then groups."""
    choice = random.Random("groups")
    groups: list[tuple[Damage, ...]] = [(damage,) for damage in DAMAGES]
    while len(groups) < COUNT:
        groups.append(tuple(choice.choices(DAMAGES, k=choice.choice((1, 2, 2, 3)))))
    return list(enumerate(groups))


def label(case: object) -> str | None:
    return " ".join(damage.__name__ for damage in case) if isinstance(case, tuple) else None


@pytest.mark.parametrize(("number", "damages"), cases(), ids=label)
def test_every_damage_is_found_and_what_can_be_is_mended_and_nothing_else_touched(
    origin: Origin, tmp_path: Path, number: int, damages: tuple[Damage, ...]
) -> None:
    store, hits = damaged(origin, tmp_path, damages, f"{number}")
    foretold = foretell(origin.whole, hits)
    before, stats, elsewhere = tree(store.root), statuses(store.root), tree(tmp_path, without=("models",))

    (report,) = ostore.verify(models=store.root)
    assert found(report.problems) == foretold.found
    assert CODES[report.verdict] == Foretold.code(foretold.found)
    assert tree(store.root, without=()) == before

    foreseen = ostore.repair(sources=[origin.bundle], dry_run=True, models=store.root)
    assert tree(store.root, without=()) == before
    done = ostore.repair(sources=[origin.bundle], models=store.root)
    assert tree(store.root) == expected(origin, store, before, hits, foretold)
    assert quarantined(store) == {before[path] for path in replaced(hits, foretold) if is_kept(before[path])}
    assert set(done.quarantine) == {str(path) for path in store.root.glob(".ostore/quarantine/*")}
    assert tree(tmp_path, without=("models",)) == elsewhere
    assert {item.subject for item in foreseen.repaired} == {item.subject for item in done.repaired}
    check_untouched(origin, store, before, stats, foretold)

    (again,) = ostore.verify(models=store.root)
    assert found(again.problems) == foretold.left
    assert CODES[again.verdict] == Foretold.code(foretold.left)
    shutil.rmtree(tmp_path / "models")


def expected(
    origin: Origin, store: Store, before: dict[str, str], hits: list[Hit], foretold: Foretold
) -> dict[str, str]:
    """The tree as it was damaged, with what can be repaired put back."""
    after = {path: what for path, what in before.items() if path not in replaced(hits, foretold)}
    after |= {f"blobs/sha256-{blob}": blob for blob in foretold.blobs}
    return after | {path_of(name): sha256(manifest(origin, name)) for name in foretold.manifests}


def replaced(hits: list[Hit], foretold: Foretold) -> set[str]:
    """The paths of what had the places of what is put back."""
    standing = (hit for hit in hits if isinstance(hit, BlobHit) and hit.stands and hit.blob in foretold.blobs)
    blobs = {f"blobs/{hit.stands}" for hit in standing}
    return blobs | {path_of(name) for name in foretold.manifests}


def is_kept(what: str) -> bool:
    """Whether something that is replaced has bytes that are to be kept; what is empty has none."""
    return not what.startswith("link ") and what != sha256(b"")


def manifest(origin: Origin, name: str) -> bytes:
    return origin.store.manifest_path(name).read_bytes()


def quarantined(store: Store) -> set[str]:
    """What is kept, by the digest of its bytes; nothing else may be left of the work."""
    files = {path for path in (store.root / ".ostore").rglob("*") if path.is_file()}
    kept = {path for path in files if path.parent.name == "quarantine"}
    assert files - kept <= {store.root / ".ostore/lock"}
    return {digest for path in kept if (digest := sha256(path.read_bytes())) != sha256(b"")}


def statuses(root: Path) -> dict[str, os.stat_result]:
    return {str(path.relative_to(root)): path.lstat() for path in root.rglob("*")}


def check_untouched(
    origin: Origin, store: Store, before: dict[str, str], stats: dict[str, os.stat_result], foretold: Foretold
) -> None:
    """What is as it was is the same file with the same owner and mode; times change only where Ollama's would."""
    after = tree(store.root)
    # A model that is put back stands on these; Ollama too dates a blob anew that it uses again.
    reused = {f"blobs/sha256-{blob}" for name in foretold.manifests for blob in origin.whole.models[name]}
    for path, what in after.items():
        now = (store.root / path).lstat()
        if before.get(path) == what:
            was = stats[path]
            assert (now.st_ino, now.st_uid, now.st_gid, now.st_mode) == (
                was.st_ino,
                was.st_uid,
                was.st_gid,
                was.st_mode,
            )
            assert what == "folder" or path in reused or now.st_mtime_ns == was.st_mtime_ns, path
        else:
            assert stat.S_ISREG(now.st_mode)
            assert stat.S_IMODE(now.st_mode) == 0o644
