"""
What may not be read is never taken for what is not there.

These tests lay down the powers of root in their own process. Another user may not be able to run the interpreter.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostore.formats.digest import Digest
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.blob_files import BlobFiles
from ostore.places.store.survey.obstacles import find_obstacles
from ostore.places.store.survey.references import find_references
from tests.support import Store, sha256

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="changes to another user")
WEIGHTS = b"the weights"
DIGEST = Digest(sha256(WEIGHTS))


@pytest.fixture
def closed() -> Iterator[Store]:
    """A store of root in a folder that everybody may enter, as pytest's own may not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        store = Store(Path(name) / "models")
        store.model("tiny:latest", WEIGHTS)
        yield store


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_blob_in_a_folder_that_may_not_be_entered_is_not_absent(closed: Store) -> None:
    (closed.root / "blobs").chmod(0o600)
    with another_user(), pytest.raises(PermissionError):
        BlobFiles(closed.root).find(DIGEST)


def test_a_blob_that_may_not_be_read_is_an_obstacle(closed: Store) -> None:
    closed.blob_path(WEIGHTS).chmod(0o600)
    with another_user():
        told = find_obstacles(closed.root, [DIGEST])
    assert told[DIGEST].endswith("may not be read, so nobody knows what it is; repair as the owner of the store")


def test_a_stray_file_that_may_not_be_read_is_a_doubt(closed: Store) -> None:
    stray = closed.root / "manifests" / "stray"
    stray.touch(0o600)
    with another_user():
        doubts = find_references(closed.root).doubts
    assert [(doubt.path, doubt.reason) for doubt in doubts] == [
        ("manifests/stray", "cannot be read, so nobody knows which blobs it mentions")
    ]


def test_models_in_a_folder_that_may_not_be_entered_are_not_absent(closed: Store) -> None:
    (closed.root / "manifests").chmod(0o600)
    with another_user(), pytest.raises(PermissionError):
        LocalStore(closed.root).scan()


def test_a_folder_that_may_not_be_entered_can_be_a_store(closed: Store) -> None:
    closed.root.chmod(0o600)
    with another_user():
        assert LocalStore(closed.root).require().root == closed.root
