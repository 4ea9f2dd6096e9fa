"""A census finds everything in a store, with its status on the disk."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ostore.formats.digest import Digest
from ostore.formats.unreadable import Unreadable
from ostore.places.store.survey import census
from ostore.places.store.survey.census import (
    Census,
    DiskFacts,
    EntryKind,
    FoundEntry,
    FoundTree,
    allocated_bytes,
    apparent_bytes,
    by_filename,
    read_tree,
    take_census,
)
from ostore.places.store.workspace import Workspace, workspace_path
from ostore.streams.durable import Directory
from tests.support import Store, costs_the_same_per_item, noise, ostore, tree

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with an empty `blobs/`."""
    (tmp_path / "models/blobs").mkdir(parents=True)
    return tmp_path / "models"


def put(path: Path, data: bytes = b"x", *, age: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    when = path.stat().st_mtime - age
    os.utime(path, (when, when))
    return path


def paths(entries: tuple[FoundEntry, ...]) -> list[str]:
    return [entry.path for entry in entries]


needs_du = pytest.mark.skipif(
    shutil.which("du") is None or sys.platform != "linux", reason="needs du of coreutils to compare with"
)


def everything(census: Census) -> list[str]:
    """What is directly in `blobs/`, by name."""
    found = [blob.filename for blob in census.blobs] + paths(census.temporary) + paths(census.foreign)
    found += [file.path for download in census.downloads for file in download.files]
    return sorted(found + [folder.path.name for folder in census.working_folders if folder.path.parent.name == "blobs"])


def test_every_entry_is_counted_once_and_as_what_it_is(root: Path) -> None:
    blobs = root / "blobs"
    names = [
        f"sha256-{A}", f"sha256:{B}", f"sha256-{'C' * 64}",
        f"sha256-{A}-partial", f"sha256-{A}-partial-0", f"sha256-{A}-partial-12", f"sha256-{B}.tmp",
        "sha256-123456", "Q4_K_M77", "COPY1", "split-copy9", "compat-tensors3",
        "README", ".DS_Store", f"sha256-{A}-partial-", f"sha256-{'A' * 64}-partial", f"sha256-{A[:63]}", "sha256-", "ä",
    ]  # fmt: skip
    for name in names:
        put(blobs / name)
    put(blobs / "split-gguf-7/part")
    put(blobs / "lost+found/x")
    put(blobs / f"sha256-{'d' * 64}/x")
    census = take_census(root)
    blobs_found = sorted(census.blobs, key=by_filename)
    assert [(blob.digest.hex, blob.filename, blob.is_canonical) for blob in blobs_found] == [
        (C, f"sha256-{'C' * 64}", False),
        (A, f"sha256-{A}", True),
        (B, f"sha256:{B}", False),
    ]
    assert [(unit.digest.hex, paths(unit.files)) for unit in census.downloads] == [
        (A, [f"sha256-{A}-partial", f"sha256-{A}-partial-0", f"sha256-{A}-partial-12"]),
        (B, [f"sha256-{B}.tmp"]),
    ]
    assert paths(census.temporary) == ["COPY1", "Q4_K_M77", "compat-tensors3", "sha256-123456", "split-copy9"]
    assert paths(census.foreign) == sorted([*names[12:], "lost+found", f"sha256-{'d' * 64}"])
    assert [folder.path for folder in census.working_folders] == [blobs / "split-gguf-7"]
    assert everything(census) == sorted(os.listdir(blobs))  # noqa: PTH208 - names


def test_a_download_is_as_young_as_its_youngest_file_by_either_time(root: Path) -> None:
    old, young = root / f"blobs/sha256-{A}-partial", root / f"blobs/sha256-{A}-partial-3"
    put(old, age=90_000)
    put(young, age=50_000)
    put(root / f"blobs/sha256-{B}-partial", age=90_000)
    first, second = take_census(root).downloads
    # Nobody can set a ctime, so both are as young as this test; the older mtime says nothing.
    assert first.newest == max(old.stat().st_ctime, young.stat().st_ctime)
    assert second.newest > second.files[0].facts.mtime + 80_000
    ahead = time.time() + 1000
    os.utime(old, (ahead, ahead))
    assert take_census(root).downloads[0].newest == pytest.approx(ahead)


def test_facts_are_those_of_the_disk(root: Path) -> None:
    path = put(root / f"blobs/sha256-{A}", noise(10_000), age=1000)
    path.chmod(0o640)
    (root / "other").hardlink_to(path)
    status = path.stat()
    (blob,) = take_census(root).blobs
    assert blob.facts == DiskFacts(
        size=10_000,
        allocated=status.st_blocks * 512,
        device=status.st_dev,
        inode=status.st_ino,
        links=2,
        mtime=status.st_mtime,
        ctime=status.st_ctime,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
    )
    assert blob.facts.kind is EntryKind.FILE
    assert blob.facts.mode & 0o777 == 0o640
    assert blob.facts.newest == status.st_ctime


def test_a_sparse_file_takes_up_less_than_it_has(root: Path) -> None:
    with (root / f"blobs/sha256-{A}-partial").open("wb") as file:
        file.truncate(50_000_000)
    ((file_found,),) = (download.files for download in take_census(root).downloads)
    assert file_found.facts.size == 50_000_000
    assert file_found.facts.allocated < 1_000_000


def test_a_linked_entry_is_a_link_and_what_it_leads_to_does_not_count(root: Path, tmp_path: Path) -> None:
    big = put(tmp_path / "elsewhere/big", noise(1_000_000))
    for name in (f"sha256-{A}", "README", f"sha256-{B}-partial"):
        (root / "blobs" / name).symlink_to(big)
    (root / "blobs/split-gguf-1").symlink_to(big.parent)
    (root / f"blobs/sha256-{C}").symlink_to(tmp_path / "nowhere")
    census = take_census(root)
    entries = [*census.foreign, *census.temporary, *census.downloads[0].files]
    facts = [blob.facts for blob in census.blobs] + [entry.facts for entry in entries]
    assert len(facts) == 5
    assert census.working_folders == ()
    assert {found.kind for found in facts} == {EntryKind.LINK}
    assert apparent_bytes(facts) < 1000


def test_a_linked_blobs_folder_is_followed_and_the_workspace_is_beside_the_real_one(tmp_path: Path) -> None:
    real = Store(tmp_path / "disk/store")
    digest = real.blob(b"weights")
    put(tmp_path / "disk/store/.ostore/trash/1/thing")
    models = tmp_path / "models"
    models.mkdir()
    (models / "blobs").symlink_to(real.root / "blobs")
    put(models / ".ostore/trash/not-this-one")
    census = take_census(models)
    assert [str(blob.digest) for blob in census.blobs] == [digest]
    assert census.workspace.path == real.root / ".ostore"
    assert paths(census.workspace.below("trash")) == ["trash/1/thing"]


def test_the_workspace_is_found_where_an_import_makes_it(tmp_path: Path) -> None:
    for name, blobs in (("absent", None), ("plain", "folder"), ("linked", "link")):
        models = tmp_path / name
        models.mkdir()
        if blobs == "link":
            (tmp_path / "far/blobs").mkdir(parents=True)
            (models / "blobs").symlink_to("../far/blobs")
        elif blobs == "folder":
            (models / "blobs").mkdir()
        with Directory.open(models) as root:
            place = Workspace.open(root)
        place.close()
        assert place.directory.path == workspace_path(models)
        census = take_census(models)
        assert census.workspace.facts is not None
        assert census.workspace.facts.kind is EntryKind.FOLDER


def test_every_part_of_the_workspace_is_counted(root: Path) -> None:
    place = root / ".ostore"
    for path in ("lock", f"tx/12-ab/sha256-{A}.part", "tx/12-ab/m/000.json", f"trash/now/sha256-{B}", "quarantine/q"):
        put(place / path, b"12345")
    (place / "tx/empty").mkdir()
    (place / f"tx/12-ab/sha256-{C}.pin").hardlink_to(put(root / f"blobs/sha256-{C}", b"whole"))
    census = take_census(root)
    assert paths(census.workspace.below("tx")) == [
        "tx/12-ab/m/000.json",
        f"tx/12-ab/sha256-{A}.part",
        f"tx/12-ab/sha256-{C}.pin",
    ]
    assert paths(census.workspace.below("trash")) == [f"trash/now/sha256-{B}"]
    assert paths(census.workspace.below("quarantine")) == ["quarantine/q"]
    assert "lock" in paths(census.workspace.files)
    assert "tx/empty" in paths(census.workspace.folders)
    assert census.workspace.unreadable == ()
    pin = next(file for file in census.workspace.files if file.path.endswith(".pin"))
    assert pin.facts.identity == census.blobs[0].facts.identity


def test_manifests_staged_on_a_disk_of_their_own_are_counted(root: Path) -> None:
    put(root / "manifests/.ostore-tmp/1-a/000.json")
    assert paths(take_census(root).staging.files) == ["1-a/000.json"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
def test_what_belongs_to_somebody_else_is_named_and_the_rest_still_counted(root: Path) -> None:
    for closed in (put(root / ".ostore/tx/1-a/secret").parent, put(root / "ollama-safetensors1/x").parent):
        os.chown(closed, 12345, 12345)
        closed.chmod(0o700)
    put(root / ".ostore/quarantine/q")
    code = (
        "import sys; from pathlib import Path; from ostore.places.store.survey.census import take_census\n"
        "census = take_census(Path(sys.argv[1]))\n"
        "for tree in (census.workspace, *census.working_folders):\n"
        "    print([file.path for file in tree.files], [(found.path, found.reason) for found in tree.unreadable])\n"
    )
    # Root without its rights, and not another user: that one may be unable to reach the interpreter.
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    told = subprocess.run([*powerless, sys.executable, "-c", code, root], capture_output=True, text=True, check=True)
    reason = os.strerror(errno.EACCES)
    assert told.stdout.splitlines() == [f"['quarantine/q'] [('tx/1-a', '{reason}')]", f"[] [('', '{reason}')]"]


@needs_du
def test_sums_are_those_of_du(root: Path, tmp_path: Path) -> None:
    first = put(root / f"blobs/sha256-{A}", noise(100_000))
    with (root / f"blobs/sha256-{B}").open("wb") as sparse:
        sparse.truncate(9_000_000)
        sparse.write(b"x" * 10_000)
    folder = root / "blobs/split-gguf-1"
    folder.mkdir()
    (folder / "one").hardlink_to(first)
    (folder / "two").hardlink_to(first)
    put(folder / "deep/own", noise(5_000))
    census = take_census(root)
    facts = [blob.facts for blob in census.blobs] + [file.facts for file in census.working_folders[0].files]
    files = [path for path in (root / "blobs").rglob("*") if path.is_file()]
    assert len(facts) == len(files) == 5
    everything = tmp_path / "names"
    everything.write_bytes(b"\0".join(os.fsencode(path) for path in files))
    for options, ours in (([], allocated_bytes(facts)), (["--apparent-size"], apparent_bytes(facts))):
        command = ["du", "-c", "-B1", *options, f"--files0-from={everything}"]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(told.stdout.splitlines()[-1].split()[0]) == ours


def test_a_file_with_two_names_counts_once_and_equal_files_twice(root: Path) -> None:
    first = put(root / f"blobs/sha256-{A}", b"same" * 1000)
    (root / f"blobs/sha256-{B}").hardlink_to(first)
    put(root / f"blobs/sha256-{C}", b"same" * 1000)
    facts = [blob.facts for blob in take_census(root).blobs]
    assert apparent_bytes(facts) == 8000
    assert apparent_bytes([*facts, *facts]) == 8000
    assert allocated_bytes(facts) == allocated_bytes(facts[:1]) + allocated_bytes(facts[2:])


def test_working_folders_of_ollama_are_whole_trees(root: Path) -> None:
    put(root / "ollama-safetensors123/sub/model", b"1" * 100)
    (root / "ollama-safetensors123/link").symlink_to(put(root / f"blobs/sha256-{A}", b"1" * 1000))
    put(root / "ollama-safetensors-file")
    (root / "ollama-safetensors-link").symlink_to("blobs")
    (found,) = take_census(root).working_folders
    assert found.path == root / "ollama-safetensors123"
    assert paths(found.files) == ["link", "sub/model"]
    assert paths(found.folders) == ["sub"]
    assert found.newest >= max(entry.facts.newest for entry in found.files)


@pytest.mark.parametrize("there", ["nothing", "root", "dangling blobs"])
def test_folders_that_are_absent_hold_nothing(tmp_path: Path, there: str) -> None:
    models = tmp_path / "models"
    if there != "nothing":
        models.mkdir()
    if there == "dangling blobs":
        (models / "blobs").symlink_to("nowhere")
    census = take_census(models)
    assert census == Census((), (), (), (), (), census.workspace, census.staging)
    assert census.workspace == FoundTree(models / ".ostore", None)
    assert census.workspace.newest == 0
    assert census.staging.facts is None


def test_a_blobs_that_is_no_folder_is_an_error_and_not_an_empty_store(tmp_path: Path) -> None:
    put(tmp_path / "blobs")
    with pytest.raises(NotADirectoryError):
        take_census(tmp_path)


def test_a_workspace_that_is_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/tx/precious")
    (root / ".ostore").symlink_to(tmp_path / "elsewhere")
    found = take_census(root).workspace
    assert found.facts is not None
    assert found.facts.kind is EntryKind.LINK
    assert found.files == ()


def test_special_files_are_named_and_never_opened(root: Path) -> None:
    os.mkfifo(root / f"blobs/sha256-{A}")
    os.mkfifo(root / f"blobs/sha256-{B}-partial")
    census = take_census(root)
    assert [entry.facts.kind for entry in census.foreign] == [EntryKind.OTHER, EntryKind.OTHER]
    assert (census.blobs, census.downloads) == ((), ())


def test_a_census_changes_nothing(kinds: Store) -> None:
    before = tree(kinds.root, without=())
    census = take_census(kinds.root)
    assert tree(kinds.root, without=()) == before
    assert {blob.digest for blob in census.blobs} == {
        Digest.of(path.read_bytes()) for path in (kinds.root / "blobs").iterdir()
    }
    assert (census.downloads, census.temporary, census.foreign, census.working_folders) == ((), (), (), ())


def test_what_an_import_leaves_is_no_working_folder_and_nothing_foreign(kinds: Store, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert ostore("import", kinds.root, "--models", there).returncode == 0
    census = take_census(there)
    assert (census.foreign, census.working_folders, census.workspace.below("tx")) == ((), (), ())
    assert paths(census.workspace.files) == ["lock"]


def test_a_blob_costs_the_same_among_many(tmp_path: Path) -> None:
    def work(count: int) -> Callable[[], object]:
        root = tmp_path / str(count)
        (root / "blobs").mkdir(parents=True)
        for number in range(count):
            (root / f"blobs/sha256-{number:064x}").touch()
        return lambda: take_census(root)

    assert costs_the_same_per_item(work)


def test_a_tree_as_deep_as_paths_allow_is_read_without_recursion(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(400):
        deep /= "d" * 5
    deep.mkdir(parents=True)
    put(deep / "end")
    found = read_tree(tmp_path / ("d" * 5))
    assert [path.count("/") for path in paths(found.files)] == [399]


def test_what_goes_while_a_folder_is_read_is_not_there(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}").touch()
    reading = census._statuses_in(str(tmp_path))
    first, _ = next(reading)
    for path in tmp_path.iterdir():
        path.unlink()
    assert list(reading) == []
    assert first in {"0", "1", "2"}


def test_a_folder_that_goes_while_its_tree_is_read_is_empty(tmp_path: Path) -> None:
    unreadable: list[Unreadable] = []
    assert census._read_folder(tmp_path, "gone", unreadable) == []
    assert unreadable == []
