"""After a denial, people are told who may do it and what that user types."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ostore.cli.denial import way_out
from ostore.formats.errors import NotFoundError
from ostore.formats.remedy import Remedy
from ostore.formats.unreadable import ClosedFolder
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import find_manifests
from tests.support import Store
from tests.test_doctor import as_root, give

OWNER, OTHER = 12345, 23456


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store of one user, in a folder that others may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        store = Store(Path(name) / "models")
        store.model("tiny:latest", b"weights")
        give(store.root, OWNER, OWNER)
        monkeypatch.chdir(name)
        yield store


def told(uid: int, work: Callable[[], Remedy]) -> str:
    """What a user is told. This process is that user for so long; the interpreter may lie where no other may enter."""
    os.seteuid(uid)
    try:
        return str(work())
    finally:
        os.seteuid(0)


def denied(path: Path, *typed: str) -> Callable[[], Remedy]:
    return lambda: way_out(PermissionError(13, "Permission denied", str(path)), typed)


@as_root
def test_in_a_store_its_owner_types_the_same_command_about_the_same_store(
    owned: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = owned.root
    named = ("rm", "tiny", "--models", str(root))
    assert told(OTHER, denied(root / ".ostore", *named)) == f"sudo -u '#{OWNER}' ostore {' '.join(named)}"
    # What the environment says is not said to the other user.
    monkeypatch.setenv("OLLAMA_MODELS", str(root))
    expected = f"sudo -u '#{OWNER}' ostore cp --models {root} tiny 'a b'"
    assert told(OTHER, denied(root / "manifests/x", "cp", "tiny", "a b")) == expected


@as_root
def test_the_nearest_closed_folder_decides_who_may_open_it(owned: Store) -> None:
    root = owned.root
    os.chown(root.parent, 0, 0)
    root.parent.chmod(0o700)
    assert told(OTHER, denied(root, "list", "--models", str(root))) == f"sudo ostore list --models {root}"
    root.parent.chmod(0o755)
    (root / "manifests").chmod(0o300)
    assert told(OWNER, denied(root / "manifests", "list", "--models", str(root))) == f"chmod u+rwX {root}/manifests"


@as_root
def test_outside_of_the_store_nobody_is_told_to_become_its_owner(owned: Store) -> None:
    place = owned.root.parent / "place"
    place.mkdir()
    os.chown(place, OWNER, OWNER)
    said = told(OTHER, denied(place / "x.tar", "export", "tiny", str(place / "x.tar"), "--models", str(owned.root)))
    assert said == f"{place} belongs to #{OWNER}, and this command runs as {getpass.getuser()}"


@as_root
def test_root_is_not_told_to_become_root(owned: Store) -> None:
    assert "not even root may do that" in told(0, denied(owned.root, "list"))


@as_root
def test_a_bundle_in_a_closed_folder_is_not_taken_for_the_store(owned: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    home = owned.root.parent / "home"
    home.mkdir(mode=0o700)
    os.chown(home, OTHER, OTHER)
    monkeypatch.chdir(home)
    said = told(OWNER, denied(Path("x.tar"), "import", "x.tar", "--models", str(owned.root)))
    assert said.startswith(f"{home} belongs to #{OTHER}, and this command runs as ")


def test_a_folder_that_cannot_have_the_model_is_not_why_it_is_absent(store: Store) -> None:
    (store.root / "manifests/hf.co").mkdir()
    tree = find_manifests(store.root)
    closed = PermissionError(13, "Permission denied", "hf.co")
    tree.closed.append(ClosedFolder("manifests/hf.co", "Permission denied", closed))
    assert isinstance(LocalStore(store.root).no_model("nobody", tree), NotFoundError)
    assert LocalStore(store.root).no_model("hf.co/x/y:z", tree) is closed
