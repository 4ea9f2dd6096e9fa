"""Other programs work in a store between two looks at it. A file that is gone by then is not an error."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from ostore.formats.digest import Digest
from ostore.formats.errors import BusyError
from ostore.places.store import workspace
from ostore.places.store.removing.full_disk import FullDisk
from ostore.places.store.survey.census import take_census
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.places.store.survey.obstacles import find_obstacles
from ostore.places.store.survey.remainder import find_remainder
from ostore.places.store.survey.scan import scan_manifests
from ostore.places.store.workspace import Workspace, dead_transactions
from ostore.streams.durable import Directory
from ostore.streams.file_lock import try_lock
from ostore.streams.owners import Ownership
from tests.support import Store, full, sha256, tree

LIBRARY = "manifests/registry.ollama.ai/library"
loses_names = pytest.mark.skipif(os.name == "nt", reason="on Windows an open file may keep its name until it is closed")


def test_a_manifest_that_goes_after_it_was_found_is_no_model_and_no_failure(store: Store) -> None:
    found = find_manifests(store.root)
    store.manifest_path(full("tiny:q4")).unlink()
    scan = scan_manifests(found)
    assert [model.name.full for model in scan.models] == [full("tiny:latest")]
    assert scan.unreadable == ()


def test_a_link_in_the_place_of_a_folder_that_leads_to_itself_is_no_folder(store: Store) -> None:
    (store.root / "manifests/round").symlink_to("round")
    found = find_manifests(store.root)
    assert found.strays == ["manifests/round"]
    assert len(found.entries) == 2


def test_what_else_there_was_under_manifests_is_counted_only_while_it_is_there(store: Store) -> None:
    for place in ("notes", "closed/notes"):
        (store.root / "manifests" / place).parent.mkdir(exist_ok=True)
        (store.root / "manifests" / place).write_bytes(b"notes")
    (store.root / LIBRARY / "notes").write_bytes(b"notes")
    scan, census = scan_manifests(find_manifests(store.root)), take_census(store.root)
    (store.root / "manifests/notes").unlink()
    shutil.rmtree(store.root / "manifests/closed")
    # One that cannot be entered, by whoever runs the test.
    (store.root / "manifests/closed").symlink_to("closed")
    remainder = find_remainder(store.root, census, scan)
    assert [entry.path for entry in remainder.foreign] == [f"{LIBRARY}/notes"]
    assert [(found.path, found.reason) for found in remainder.unreadable] == [
        ("manifests/closed", "Too many levels of symbolic links")
    ]


def test_without_blobs_nothing_is_in_the_way_of_one(tmp_path: Path) -> None:
    assert find_obstacles(tmp_path, [Digest.parse(f"sha256:{sha256(b'x')}")]) == {}


def test_a_blob_that_a_failing_disk_does_not_open_is_not_in_the_way_of_a_good_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_folder: Directory, _name: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    # A disk that fails at one file of many: a double, because the disks that tests can make fail do so altogether.
    monkeypatch.setattr(Directory, "open_file", failing)
    assert find_obstacles(store.root, [Digest.parse(f"sha256:{sha256(b'{{ .Prompt }}')}")]) == {}


def test_where_there_is_no_room_for_a_workspace_nothing_is_left_in_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_up(_root: Directory) -> Workspace:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = tree(store.root)
    # A double of a disk that is full to the last byte; tests/test_full_disk.py has real ones, which need root.
    monkeypatch.setattr(Workspace, "open", full_up)
    with FullDisk.opened(store.root) as room:
        room.clear_leftovers()
    assert tree(store.root) == before


@loses_names
def test_a_folder_that_another_command_takes_for_a_dead_ones_is_made_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def overtaken(fd: int) -> bool:
        if not taken:
            taken.append(fd)
            (folder,) = (store.root / ".ostore/tx").iterdir()
            shutil.rmtree(folder)
        return try_lock(fd)

    monkeypatch.setattr(workspace, "try_lock", overtaken)
    with Directory.open(store.root) as root, Workspace.open(root).transaction() as running:
        assert running.path.is_dir()
        assert len(list((store.root / ".ostore/tx").iterdir())) == 1
    assert len(taken) == 1
    assert list((store.root / ".ostore/tx").iterdir()) == []


def test_a_folder_that_goes_before_its_command_can_hold_it_is_made_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Directory.open_or_create
    gone: list[Path] = []

    def late(self: Directory, name: str, mode: int, *, writable: bool) -> tuple[int, bool]:
        if name == "alive" and not gone:
            gone.append(self.path)
            self.path.rmdir()
        return opened(self, name, mode, writable=writable)

    monkeypatch.setattr(Directory, "open_or_create", late)
    with Directory.open(store.root) as root, Workspace.open(root).transaction() as running:
        assert running.names() == ["alive"]
        assert list((store.root / ".ostore/tx").iterdir()) == [running.path] != gone
    assert len(gone) == 1


@loses_names
def test_the_lock_of_a_file_that_has_lost_its_name_holds_no_folder(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command has just ended, and a third one may have created another file of that name."""
    dead = store.root / ".ostore/tx/1-dead"
    dead.mkdir(parents=True)
    (dead / "alive").touch()

    def replaced(fd: int) -> bool:
        (dead / "alive").unlink()
        (dead / "alive").touch()
        return try_lock(fd)

    monkeypatch.setattr(workspace, "try_lock", replaced)
    with Directory.open(store.root) as root:
        assert list(Workspace.open(root).abandoned()) == []
    assert (dead / "alive").exists()


def test_a_command_that_lives_keeps_its_folder_and_a_dead_ones_file_goes_last(store: Store) -> None:
    with Directory.open(store.root) as root:
        place, other = Workspace.open(root), Workspace.open(root)
        with place.transaction() as running:
            os.close(running.create("staged"))
            assert list(other.abandoned()) == []
            assert dead_transactions(store.root / ".ostore") == frozenset()
        assert running.path.is_dir()
        assert dead_transactions(store.root / ".ostore") == {running.path.name}
        (taken,) = [folder.path for folder in other.abandoned()]
    assert taken == running.path
    assert not taken.exists()


@pytest.mark.parametrize("moment", ["made", "opened"])
def test_a_new_folder_that_another_command_takes_away_is_made_once_more(
    store: Store, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Until it is held, it looks like one of a dead command."""
    taken: list[Path] = []
    child, give = Directory.child, Directory.give

    def take(directory: Directory, name: str) -> None:
        if not taken and directory.path.name == "tx":
            (directory.path / name).rmdir()
            taken.append(directory.path / name)

    def opened(directory: Directory, name: str) -> Directory:
        take(directory, name)
        return child(directory, name)

    def given(directory: Directory, ownership: Ownership) -> None:
        give(directory, ownership)
        if directory.path.parent.name == "tx" and not taken:
            directory.path.rmdir()
            taken.append(directory.path)

    if moment == "made":
        monkeypatch.setattr(Directory, "child", opened)
    else:
        monkeypatch.setattr(Directory, "give", given)
    with Directory.open(store.root) as root, Workspace.open(root).transaction() as running:
        assert running.path.is_dir()
        assert running.path not in taken
        assert len(taken) == 1


def test_where_every_new_folder_is_taken_away_the_command_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    give = Directory.give

    def given(directory: Directory, ownership: Ownership) -> None:
        give(directory, ownership)
        if directory.path.parent.name == "tx":
            directory.path.rmdir()

    monkeypatch.setattr(Directory, "give", given)
    with Directory.open(store.root) as root, pytest.raises(BusyError), Workspace.open(root).transaction():
        pass


@pytest.mark.parametrize(
    "kind", [pytest.param("link", marks=pytest.mark.skipif(os.name == "nt", reason="needs a right there")), "folder"]
)
def test_where_alive_is_no_file_the_folder_is_left_alone(store: Store, kind: str) -> None:
    dead = store.root / ".ostore/tx/1-dead"
    dead.mkdir(parents=True)
    target = store.root / "precious"
    target.write_bytes(b"kept")
    if kind == "link":
        (dead / "alive").symlink_to(target)
    else:
        (dead / "alive").mkdir()
    assert dead_transactions(store.root / ".ostore") == frozenset()
    with Directory.open(store.root) as root:
        assert list(Workspace.open(root).abandoned()) == []
    assert (target.read_bytes(), dead.exists()) == (b"kept", True)
