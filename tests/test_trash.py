"""A blob comes back from the trash under its name, and never overwrites an entry of that name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostore.places.store.removing.trash import Batch, opened_trash
from ostore.places.store.survey.batches import BatchRecord
from ostore.places.store.workspace import Workspace
from ostore.streams.durable import Directory
from tests.support import Store, sha256

GOOD = b"the weights " * 1000
NAME = f"sha256-{sha256(GOOD)}"


@contextlib.contextmanager
def taken(store: Store) -> Iterator[tuple[Batch, Directory]]:
    """A batch that has the weights, and `blobs/` without them."""
    with (
        Directory.open(store.root) as root,
        contextlib.closing(Workspace.open(root)) as place,
        place.locked(),
        opened_trash(place) as trash,
        Directory.open(store.root / "blobs") as blobs,
        contextlib.closing(Batch.begin(trash, place, BatchRecord(), 0)) as batch,
    ):
        assert batch.take(blobs, NAME, lambda _status: None) is None
        yield batch, blobs


@pytest.fixture(params=[True, False], ids=["links", "no links"])
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        # As on a disk that has no hard links.
        monkeypatch.setattr(Directory, "link", lambda *_arguments: False)


@pytest.mark.usefixtures("_links")
def test_a_blob_goes_and_comes_back(store: Store) -> None:
    with taken(store) as (batch, blobs):
        assert (batch.blobs(), (store.root / "blobs" / NAME).exists()) == ([NAME], False)
        assert batch.return_blobs(blobs, [NAME]) == [NAME]
        assert (batch.blobs(), (store.root / "blobs" / NAME).read_bytes()) == ([], GOOD)


@pytest.mark.usefixtures("_links")
def test_what_has_the_name_by_then_stays_and_so_does_the_blob(store: Store) -> None:
    with taken(store) as (batch, blobs):
        (store.root / "blobs" / NAME).write_bytes(b"of a pull")
        assert batch.return_blobs(blobs, [NAME]) == []
        assert (batch.blobs(), (store.root / "blobs" / NAME).read_bytes()) == ([NAME], b"of a pull")


def test_a_link_that_somebody_replaced_or_removed_stays_as_it_is(store: Store) -> None:
    with taken(store) as (batch, blobs):
        place = store.root / "blobs" / NAME
        place.write_bytes(b"of a pull")
        assert batch.take(blobs, NAME, lambda _status: None, is_link=True) == "replaced meanwhile"
        place.unlink()
        place.symlink_to("/nowhere")

        def removed(_status: object) -> None:
            place.unlink()

        assert batch.take(blobs, NAME, removed, is_link=True) == "gone meanwhile"


def test_what_somebody_has_taken_out_of_the_trash_is_not_there_to_come_back(store: Store, tmp_path: Path) -> None:
    with taken(store) as (batch, blobs):
        (batch.directory.path / NAME).rename(tmp_path / NAME)
        assert batch.return_blobs(blobs, [NAME]) == []
        assert batch.return_needed(blobs, lambda _digest: True) == []
    assert not (store.root / "blobs" / NAME).exists()


def test_a_blob_that_came_back_before_a_power_cut_loses_its_name_in_the_trash(store: Store) -> None:
    with taken(store) as (batch, blobs):
        assert batch.directory.link(NAME, blobs, NAME)
        assert batch.return_blobs(blobs, [NAME]) == [NAME]
        assert (batch.blobs(), (store.root / "blobs" / NAME).read_bytes()) == ([], GOOD)
