"""The one order in which deleting may look at a store, and what a census of a survey leaves out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ostore.formats.digest import Digest
from ostore.places.store.survey import survey as survey_module
from ostore.places.store.survey.survey import survey
from tests.support import Store, sha256

WEIGHTS, ORPHAN, ARRIVING = b"weights", b"nobody needs it", b"the weights of a model that is being pulled"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "models")
    made.model("tiny:latest", WEIGHTS)
    made.blob(ORPHAN)
    return made


def digest(data: bytes) -> Digest:
    return Digest(sha256(data))


def orphans(root: Path) -> list[str]:
    found = survey(root)
    return [blob.filename for blob in found.references.orphans(found.census(found.references.named).blobs)]


@pytest.mark.parametrize("step", ["find_blobs", "find_manifests"])
def test_a_pull_that_ends_between_two_steps_leaves_no_orphan(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    pulled = Store(tmp_path / "pulled")
    pulled.model("arriving:latest", ARRIVING)
    before = orphans(store.root)
    real: Callable[[Path], object] = getattr(survey_module, step)

    def after_the_pull(root: Path) -> object:
        shutil.copytree(pulled.root, store.root, dirs_exist_ok=True)
        return real(root)

    # Only the moment is made up: the pull ends right before this step. If the steps were exchanged, one of the two
    # moments would lie between them, and the blobs of the pull would be listed without the manifest that needs them.
    monkeypatch.setattr(survey_module, step, after_the_pull)
    assert orphans(store.root) == before == [f"sha256-{sha256(ORPHAN)}"]
    assert store.blob_path(ARRIVING).exists()


def test_a_census_leaves_out_blobs_only_under_the_name_that_ollama_gives_them(store: Store) -> None:
    old = store.root / "blobs" / f"sha256:{sha256(WEIGHTS)}"
    shutil.copyfile(store.blob_path(WEIGHTS), old)
    found = survey(store.root)
    census, names = found.census([digest(WEIGHTS)]), {entry.name for entry in found.listed}
    assert {blob.filename for blob in found.census().blobs} == names
    assert {blob.filename for blob in census.blobs} == names - {f"sha256-{sha256(WEIGHTS)}"}
    assert (census.skipped, found.census().skipped) == (1, 0)


def test_a_census_of_some_blobs_knows_every_form_of_their_names(store: Store) -> None:
    names = [f"sha256-{sha256(WEIGHTS)}", f"sha256:{sha256(WEIGHTS)}", f"sha256-{sha256(WEIGHTS).upper()}"]
    for name in names[1:]:
        shutil.copyfile(store.blob_path(WEIGHTS), store.root / "blobs" / name)
    found = survey(store.root).census_of([digest(WEIGHTS)])
    assert sorted(blob.filename for blob in found.blobs) == sorted(names)


def test_what_comes_after_the_listing_is_in_no_census(store: Store) -> None:
    found = survey(store.root)
    store.blob(ARRIVING)
    assert digest(ARRIVING) not in {blob.digest for blob in found.census().blobs}


def test_looking_creates_nothing(tmp_path: Path) -> None:
    found = survey(tmp_path / "models")
    assert (found.listed, found.batches, found.dead, found.census().blobs) == ((), (), frozenset(), ())
    assert list(tmp_path.iterdir()) == []
