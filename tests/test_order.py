"""No output depends on the order in which the disk lists a folder, which differs between folders."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ostore
from tests.support import Store, full, noise

WEIGHTS, OTHER = noise(1_100_000, 1), noise(1_100_000, 2)


@pytest.fixture
def odd(tmp_path: Path) -> Store:
    """Blobs that are there under several names, and some of everything that is told one by one."""
    store = Store(tmp_path / "models")
    store.model("tiny:latest", WEIGHTS, template=b"{{ .Prompt }}")
    store.model("tiny:q4", OTHER, template=b"{{ .Prompt }}", system=b"Say hi!")
    store.model("hf.co/some/gone:Q4", b"gone", license=b"MIT")
    for number in range(5):
        store.blob(b"orphan %d" % number)
    blobs = store.root / "blobs"
    for data in (WEIGHTS, OTHER):
        name = store.blob_path(data).name
        (blobs / name.replace("-", ":", 1)).write_bytes(data)
        (blobs / f"sha256-{name[7:].upper()}").write_bytes(data + b"!")
    store.blob_path(OTHER).unlink()
    (blobs / f"sha256-{'a' * 64}").symlink_to("nowhere")
    (blobs / f"sha256-{'b' * 64}").symlink_to("nowhere either")
    for name in ("README", "notes"):
        (blobs / name).write_bytes(b"foreign")
    for name in ("one:latest", "two:latest"):
        store.write_manifest(full(name), b"{")
    Store(tmp_path / "other").model("same:latest", WEIGHTS)
    return store


class Backwards:
    """What os.scandir gives, the last entry first."""

    def __init__(self, listing: Any) -> None:  # noqa: ANN401 - the type has no public name
        with listing:
            self._entries = list(listing)[::-1]

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return iter(self._entries)

    def __exit__(self, *_: object) -> None:
        pass


def plan_of_gc(root: Path) -> object:
    for path in (root / "manifests").rglob("*"):
        if path.is_file() and path.read_bytes() == b"{":
            path.unlink()
    return ostore.gc(dry_run=True, every_blob=True, grace=0, models=root)


ASKED: dict[str, Callable[[Path], object]] = {
    "list": lambda root: ostore.list_models(models=root),
    "du": lambda root: ostore.du(models=root),
    "doctor": lambda root: ostore.doctor(models=root),
    "verify": lambda root: ostore.verify(models=root),
    "gc": plan_of_gc,
    "rm": lambda root: ostore.rm(["*"], dry_run=True, models=root),
    "dedup": lambda root: ostore.dedup([root.parent / "other"], models=root),
}


@pytest.mark.parametrize("asked", ASKED)
def test_the_answer_is_the_same_in_whatever_order_a_disk_lists_its_folders(
    odd: Store, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ASKED[asked](odd.root)
    scandir, listdir = os.scandir, os.listdir
    monkeypatch.setattr(os, "scandir", lambda *path: Backwards(scandir(*path)))
    monkeypatch.setattr(os, "listdir", lambda *path: listdir(*path)[::-1])
    assert told(ASKED[asked](odd.root)) == told(said)


def told(answer: Any) -> Any:  # noqa: ANN401 - a report, or several
    """The reports of an answer, as dictionaries."""
    reports = answer if isinstance(answer, (list, tuple)) else [answer]
    return [{key: value for key, value in dataclasses.asdict(report).items() if key != "seconds"} for report in reports]
