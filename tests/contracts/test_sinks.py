"""Check the contract of sinks in `operations/transfer`, line by line, with every sink."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, IntegrityError, RemoteError
from ostore.formats.outcome import Outcome
from ostore.formats.selection import Selection
from ostore.operations.transfer import Inbox, Sink
from ostore.places.store.store import LocalStore
from ostore.streams.bytes_at import nothing_held
from ostore.streams.chunks import Chunk
from ostore.streams.source_failure import SourceFailureError, marked
from tests.contracts.places import NAMES, SINKS, WEIGHTS, SinkPlace, a_store, contents, everything_of, manifest_of
from tests.support import Store, sha256

TORN = 60_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path / "origin/models")


@pytest.fixture(params=SINKS, ids=lambda place: place.name.replace(" ", "-"))
def place(request: pytest.FixtureRequest) -> SinkPlace:
    made: SinkPlace = request.param
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "target"
    made.mkdir()
    return made


@pytest.fixture
def sink(place: SinkPlace, folder: Path) -> Sink:
    return place.sink(folder)


@pytest.fixture
def selection(store: Store) -> Selection:
    return LocalStore(store.root).select(())


@contextlib.contextmanager
def failing(
    error: type[BaseException] | tuple[type[BaseException], ...],
    sink: Sink,
    selection: Selection,
    message: str | None = None,
) -> Iterator[Inbox]:
    """A transaction that ends with this error."""
    with pytest.raises(error, match=message), sink.receive(selection) as inbox:
        yield inbox


def interrupt() -> None:
    raise KeyError


def deliver_blobs(inbox: Inbox, store: Store) -> None:
    for wanted, chunks in LocalStore(store.root).read_blobs(inbox.missing, inbox.held):
        inbox.write_blob(wanted, chunks)


def deliver_manifests(inbox: Inbox, store: Store, selection: Selection) -> None:
    for name, raw in LocalStore(store.root).read_manifests(selection.models):
        inbox.write_manifest(name, raw)


def is_published(place: SinkPlace, folder: Path) -> bool:
    with place.published(folder) as source:
        return source is not None


def test_what_was_delivered_is_published_and_the_same(
    place: SinkPlace, sink: Sink, folder: Path, store: Store, selection: Selection
) -> None:
    with sink.receive(selection) as inbox:
        inbox.take_files(lambda _blob: None)
        deliver_blobs(inbox, store)
        deliver_manifests(inbox, store, selection)
        with pytest.raises(RuntimeError):
            _ = inbox.received
    assert set(inbox.received.outcomes.values()) == {Outcome.ADDED}
    assert set(inbox.received.written) == set(selection.blobs)
    with place.published(folder) as source:
        assert source is not None
        manifests, blobs = everything_of(source, nothing_held)
    assert blobs == contents(store)
    assert {name.full: raw for name, raw in manifests.items()} == {
        name: store.manifest_path(name).read_bytes() for name in NAMES
    }


def test_comparing_says_what_would_be_and_writes_nothing(
    place: SinkPlace, sink: Sink, folder: Path, selection: Selection
) -> None:
    before = sorted(folder.rglob("*"))
    forecast = sink.compare(selection)
    assert dict(forecast.outcomes) == dict.fromkeys((model.name for model in selection.models), Outcome.ADDED)
    assert set(forecast.missing) == set(selection.blobs)
    assert sink.without_clashes(selection) == selection
    assert sorted(folder.rglob("*")) == before
    assert not is_published(place, folder)


def test_everything_is_missing_from_its_start(sink: Sink, selection: Selection) -> None:
    with failing(RuntimeError, sink, selection) as inbox:
        assert [(wanted.blob, wanted.start) for wanted in inbox.missing] == [(blob, 0) for blob in selection.blobs]


def test_an_exception_publishes_nothing(
    place: SinkPlace, sink: Sink, folder: Path, store: Store, selection: Selection
) -> None:
    with failing(KeyError, sink, selection) as inbox:
        deliver_blobs(inbox, store)
        deliver_manifests(inbox, store, selection)
        interrupt()
    assert not is_published(place, folder)
    with pytest.raises(RuntimeError):
        _ = inbox.received


@pytest.mark.parametrize("what", ["blob", "manifest"])
def test_what_was_not_delivered_is_not_published(
    place: SinkPlace, folder: Path, store: Store, selection: Selection, what: str
) -> None:
    with failing((RuntimeError, IntegrityError), place.sink(folder), selection) as inbox:
        if what == "manifest":
            deliver_blobs(inbox, store)
        else:
            deliver_manifests(inbox, store, selection)
    assert not is_published(place, folder)


@pytest.mark.parametrize("damage", [b"", b"x"], ids=["short", "other"])
def test_a_blob_with_other_bytes_is_refused(
    place: SinkPlace, sink: Sink, folder: Path, selection: Selection, damage: bytes
) -> None:
    with failing(BlobError, sink, selection) as inbox:
        first = inbox.missing[0]
        inbox.write_blob(first, [damage * first.blob.size])
    assert not is_published(place, folder)


def test_a_manifest_that_was_not_announced_is_refused(
    place: SinkPlace, sink: Sink, folder: Path, store: Store, selection: Selection
) -> None:
    raw = manifest_of(store, NAMES[1]).raw
    with failing(IntegrityError, sink, selection) as inbox:
        deliver_blobs(inbox, store)
        inbox.write_manifest(selection.models[-2].name, raw.replace(b'"schemaVersion":2', b'"schemaVersion": 2'))
    assert not is_published(place, folder)


def test_of_what_nobody_asked_for_nothing_is_held(sink: Sink, store: Store, selection: Selection) -> None:
    with failing(RuntimeError, sink, selection) as inbox:
        assert inbox.held(Digest.of(b"absent")) is None
        deliver_blobs(inbox, store)
        for digest, content in contents(store).items():
            for basis in (inbox.held(digest), inbox.held(digest)):
                assert basis is None or basis.read_at(basis.size, 0) == content


def torn() -> Iterator[Chunk]:
    """The weights, as far as a source gives them before it fails."""
    yield WEIGHTS[:TORN]
    raise RemoteError("far.example: connection reset")


def write_torn(inbox: Inbox, *, can_resume: bool) -> None:
    """Everything up to the weights, and a part of those."""
    wanted = next(wanted for wanted in inbox.missing if str(wanted.blob.digest) == f"sha256:{sha256(WEIGHTS)}")
    for one in inbox.missing:
        if one == wanted:
            break
        inbox.write_blob(one, _whole(one.blob.digest))
    inbox.write_blob(wanted, marked(torn(), can_resume=can_resume))


_CONTENTS: dict[Digest, bytes] = {}


def _whole(digest: Digest) -> Iterable[Chunk]:
    return [_CONTENTS[digest]]


@pytest.mark.parametrize("can_resume", [True, False])
def test_what_a_source_fails_with_is_its_own_and_what_had_come_is_kept_if_it_can_go_on(
    place: SinkPlace, folder: Path, store: Store, selection: Selection, can_resume: bool
) -> None:
    _CONTENTS.update(contents(store))
    with failing(SourceFailureError, place.sink(folder), selection, "^far.example: connection reset$") as inbox:
        write_torn(inbox, can_resume=can_resume)
    assert not is_published(place, folder)
    with failing(RuntimeError, place.sink(folder), selection) as inbox:
        starts = {wanted.start for wanted in inbox.missing if wanted.blob.size == len(WEIGHTS)}
        assert starts == {TORN if place.can_resume and can_resume else 0}
        deliver_blobs(inbox, store)
    assert not is_published(place, folder)
