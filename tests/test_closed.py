"""
What may not be read is never taken for what is not there.

These tests lay down the powers of root in their own process. Another user may not be able to run the interpreter.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ostore
from ostore.formats.digest import Digest
from ostore.formats.outcome import Outcome
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.blob_files import BlobFiles
from ostore.places.store.survey.obstacles import find_obstacles
from ostore.places.store.survey.references import find_references
from tests.gguf import ONE_LAYER, gguf
from tests.support import Store, sha256

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="changes to another user")
WEIGHTS = b"the weights"
DIGEST = Digest(sha256(WEIGHTS))


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_blob_in_a_folder_that_may_not_be_entered_is_not_absent(public: Store) -> None:
    (public.root / "blobs").chmod(0o600)
    with another_user(), pytest.raises(PermissionError):
        BlobFiles(public.root).find(DIGEST)


def test_a_blob_that_may_not_be_looked_at_is_not_missing(public: Store) -> None:
    """A delta would ask for it."""
    selection = LocalStore(public.root).select(["tiny"])
    (public.root / "blobs").chmod(0o600)
    with another_user(), pytest.raises(PermissionError):
        StoreSink(LocalStore(public.root)).compare(selection)


def test_a_blob_that_may_not_be_read_is_an_obstacle(public: Store) -> None:
    public.blob_path(WEIGHTS).chmod(0o600)
    with another_user():
        told = find_obstacles(public.root, [DIGEST])
    assert told[DIGEST].endswith("may not be read, so nobody knows what it is; repair as the owner of the store")


def test_a_stray_file_that_may_not_be_read_is_a_doubt(public: Store) -> None:
    stray = public.root / "manifests" / "stray"
    stray.touch(0o600)
    with another_user():
        doubts = find_references(public.root).doubts
    assert [(doubt.path, doubt.reason) for doubt in doubts] == [
        ("manifests/stray", "cannot be read, so nobody knows which blobs it mentions")
    ]


def test_models_in_a_folder_that_may_not_be_entered_are_not_absent(public: Store) -> None:
    (public.root / "manifests").chmod(0o600)
    with another_user(), pytest.raises(PermissionError):
        LocalStore(public.root).scan()


def test_a_model_in_a_folder_that_may_not_be_entered_is_not_new(public: Store) -> None:
    selection = LocalStore(public.root).select(["tiny"])
    sink = StoreSink(LocalStore(public.root), replace=True)
    assert sink.compare(selection).outcomes[selection.models[0].name] is Outcome.ALREADY_THERE
    (public.root / "manifests").chmod(0o600)
    with another_user(), pytest.raises(PermissionError):
        sink.compare(selection)


def test_a_folder_that_may_not_be_entered_can_be_a_store(public: Store) -> None:
    public.root.chmod(0o600)
    with another_user():
        assert LocalStore(public.root).require().root == public.root


@pytest.mark.parametrize("closed", ["registry.ollama.ai/library/tiny", "registry.ollama.ai"])
def test_a_model_of_a_lock_that_may_not_be_read_is_not_absent(public: Store, closed: str) -> None:
    lock = public.root.parent / "models.lock"
    lock.write_bytes(ostore.lock(models=public.root).document)

    def export() -> object:
        return ostore.export((), public.root.parent / "b.tar", lock=lock, dry_run=True, models=public.root)

    # This loads modules that the other user may not read.
    export()
    (public.root / "manifests" / closed).chmod(0o600)
    with another_user(), pytest.raises(PermissionError):
        export()


@pytest.mark.parametrize("program", ["link", "export"])
@pytest.mark.parametrize(
    ("closed", "is_left_out"), [("registry.ollama.ai/library/tiny", True), ("registry.ollama.ai", False)]
)
def test_models_that_may_not_be_read_are_not_absent_for_other_programs(
    public: Store, program: str, closed: str, is_left_out: bool
) -> None:
    (public.root / "manifests" / closed).chmod(0o600)
    place = public.root.parent / "place"
    place.mkdir()
    place.chmod(0o777)
    # These load modules that the other user may not read.
    place.group()
    programs: dict[str, Callable[..., Any]] = {"link": ostore.link, "export": ostore.export_gguf}

    def left_out() -> list[str]:
        return [one.name for one in programs[program](["*"], f"{place}/", models=public.root).left_out]

    with another_user():
        if is_left_out:
            assert left_out() == [f"manifests/{closed}"]
        else:
            with pytest.raises(PermissionError):
                left_out()


@pytest.mark.parametrize("modelfile", ["FROM closed/m.gguf", "FROM m.gguf\nADAPTER closed/m.gguf"])
def test_weights_that_may_not_be_read_are_not_absent(public: Store, modelfile: str) -> None:
    """A model would be made without them."""
    folder = public.root.parent
    (folder / "closed").mkdir(0o600)
    for name, content in (("Modelfile", modelfile.encode()), ("m.gguf", gguf(ONE_LAYER, {}))):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o644)
    with another_user(), pytest.raises(PermissionError):
        ostore.create("made", modelfile=folder / "Modelfile", models=public.root)
    assert not public.manifest_path("registry.ollama.ai/library/made:latest").exists()
