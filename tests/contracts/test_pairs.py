"""Copy from every source into every sink, also over a network that misbehaves: the same arrives, or nothing does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ostore.cli import exit_codes
from ostore.formats.errors import DigestMismatchError, RemoteError, class_of
from ostore.formats.outcome import Received
from ostore.formats.selection import Selection
from ostore.operations.transfer import Sink, Source, copy
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.streams.bytes_at import nothing_held
from ostore.streams.progress import SILENT, Progress, _Silent
from tests.contracts.places import (
    NAMES,
    SINKS,
    SOURCES,
    WEIGHTS,
    SinkPlace,
    SourcePlace,
    a_store,
    contents,
    everything_of,
    registry_of,
)
from tests.contracts.registry import CHUNK, Registry, RegistrySink, RegistrySource
from tests.support import Store, tree


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path / "origin/models")


def carried(source: Source, sink: Sink, selection: Selection | None = None, *, progress: Progress = SILENT) -> Received:
    return copy(source, sink, selection or source.select(()), phase="copying", progress=progress)


@pytest.mark.parametrize("target", SINKS, ids=lambda place: place.name.replace(" ", "-"))
@pytest.mark.parametrize("origin", SOURCES, ids=lambda place: place.name.replace(" ", "-"))
def test_every_source_goes_into_every_sink(
    origin: SourcePlace, target: SinkPlace, store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "target"
    folder.mkdir()
    with origin.opened(store, tmp_path) as source:
        # Nobody writes a bundle of a bundle. Of recipes it would take what they make.
        carried(source, target.sink(folder), replace(source.select(()), recipes=()))
    with target.published(folder) as published:
        assert published is not None
        manifests, blobs = everything_of(published, nothing_held)
    assert blobs == contents(store)
    assert {name.full: raw for name, raw in manifests.items()} == {
        name: store.manifest_path(name).read_bytes() for name in NAMES
    }


def test_after_a_connection_that_broke_at_nine_tenths_only_the_rest_is_sent(store: Store, tmp_path: Path) -> None:
    registry = registry_of(store)
    registry.tears_at = len(WEIGHTS) * 9 // 10
    new = LocalStore(tmp_path / "new")
    with pytest.raises(RemoteError, match="connection reset"):
        carried(RegistrySource(registry), StoreSink(new))
    assert not (new.root / "manifests").exists()
    assert list(new.root.glob(".ostore/tx/*/*.begun"))
    registry.tears_at, registry.sent = None, 0
    received = carried(RegistrySource(registry), StoreSink(new))
    whole = sum(len(content) for content in registry.blobs.values())
    resumed = sum(blob.size for blob in received.resumed)
    assert registry.sent == whole - resumed - len(WEIGHTS) * 9 // 10
    assert tree(new.root) == tree(store.root)
    assert not list(new.root.glob(".ostore/tx/*"))


class Counting(_Silent):
    """The bytes that the last phase was to have, and those that it had."""

    total = done = 0

    def phase(self, label: str, total_bytes: int) -> None:
        self.total, self.done = total_bytes, 0

    def advance(self, item: str, size: int) -> None:
        self.done += size


class Interrupting(_Silent):
    """Ctrl-C, when so many bytes have come."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, item: str, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise KeyboardInterrupt


def test_what_comes_before_a_second_interruption_is_kept_too(store: Store, tmp_path: Path) -> None:
    """The second try began in the middle, so its source can do that again, whatever stops it."""
    registry, new = registry_of(store), LocalStore(tmp_path / "new")
    registry.tears_at = len(WEIGHTS) // 2
    with pytest.raises(RemoteError):
        carried(RegistrySource(registry), StoreSink(new))
    registry.tears_at = None
    with pytest.raises(KeyboardInterrupt):
        carried(RegistrySource(registry), StoreSink(new), progress=Interrupting(after=20 * CHUNK))
    (begun,) = new.root.glob(".ostore/tx/*/*.begun")
    assert len(WEIGHTS) // 2 < begun.stat().st_size < len(WEIGHTS)
    kept = begun.read_bytes()
    assert kept == WEIGHTS[: len(kept)]
    registry.sent = 0
    received = carried(RegistrySource(registry), StoreSink(new))
    assert registry.sent == sum(blob.size for blob in received.written) - len(kept)
    assert tree(new.root) == tree(store.root)


def test_a_source_that_gives_a_blob_whole_takes_the_room_of_what_another_gave(store: Store, tmp_path: Path) -> None:
    registry, new = registry_of(store), LocalStore(tmp_path / "new")
    registry.tears_at = len(WEIGHTS) * 9 // 10
    with pytest.raises(RemoteError):
        carried(RegistrySource(registry), StoreSink(new))
    progress = Counting()
    carried(LocalStore(store.root), StoreSink(new), progress=progress)
    assert progress.done == progress.total >= len(WEIGHTS)
    assert tree(new.root) == tree(store.root)
    assert not list(new.root.glob(".ostore/tx/*"))


def test_what_was_kept_of_another_blob_is_no_harm(store: Store, tmp_path: Path) -> None:
    """The first part of a blob is wrong, as after a power cut: the digest says so, and all of it is fetched."""
    registry = registry_of(store)
    registry.tears_at = len(WEIGHTS) // 2
    new = LocalStore(tmp_path / "new")
    with pytest.raises(RemoteError):
        carried(RegistrySource(registry), StoreSink(new))
    (part,) = new.root.glob(".ostore/tx/*/*.begun")
    part.write_bytes(bytes(part.stat().st_size))
    registry.tears_at = None
    carried(RegistrySource(registry), StoreSink(new))
    assert tree(new.root) == tree(store.root)
    assert not list(new.root.glob(".ostore/tx/*"))


def test_a_failure_of_the_other_side_has_its_own_name_and_exit_code(store: Store, tmp_path: Path) -> None:
    registry = registry_of(store)
    registry.tears_at = 10
    with pytest.raises(RemoteError) as caught:
        carried(RegistrySource(registry), StoreSink(LocalStore(tmp_path / "new")))
    assert str(caught.value).startswith("registry.example: connection reset")
    assert ".part" not in str(caught.value)
    assert exit_codes.CODES[class_of(caught.value)] == 11


@pytest.mark.parametrize("target", SINKS, ids=lambda place: place.name.replace(" ", "-"))
def test_a_registry_that_lies_is_believed_by_nobody(target: SinkPlace, store: Store, tmp_path: Path) -> None:
    registry = registry_of(store)
    registry.lies = True
    with pytest.raises(DigestMismatchError):
        carried(RegistrySource(registry), target.sink(tmp_path))
    with target.published(tmp_path) as published:
        assert published is None


def test_other_bytes_the_second_time_are_noticed(store: Store, tmp_path: Path) -> None:
    registry, new = registry_of(store), LocalStore(tmp_path / "new")
    registry.changes, registry.tears_at = True, len(WEIGHTS) // 2
    with pytest.raises(RemoteError):
        carried(RegistrySource(registry), StoreSink(new))
    registry.tears_at = None
    with pytest.raises(DigestMismatchError):
        carried(RegistrySource(registry), StoreSink(new))
    assert not (new.root / "manifests").exists()


@pytest.mark.parametrize("blobs", [0, 1, 3])
def test_a_registry_that_breaks_while_it_receives_publishes_nothing(store: Store, blobs: int) -> None:
    registry = Registry(breaks_after=blobs)
    with pytest.raises(RemoteError, match="no answer") as caught:
        carried(LocalStore(store.root), RegistrySink(registry))
    assert (registry.manifests, registry.blobs) == ({}, {})
    assert class_of(caught.value) == "remote"


def test_a_registry_copies_to_itself_and_finds_everything_there(store: Store) -> None:
    registry = registry_of(store)
    before = (dict(registry.manifests), dict(registry.blobs))
    carried(RegistrySource(registry), RegistrySink(registry))
    assert (registry.manifests, registry.blobs) == before
    assert registry.sent == 0
