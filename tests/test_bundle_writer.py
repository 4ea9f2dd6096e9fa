"""A bundle gets its name only when it is what its index promises. One export at a time writes it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ostore
from ostore.formats.errors import BlobError, BusyError, IntegrityError, LimitError, UsageError
from ostore.formats.manifest import Manifest
from ostore.formats.name import ModelName
from ostore.formats.selection import Selection
from ostore.places.bundle import inbox as members
from ostore.places.bundle import writer
from ostore.places.bundle.inbox import BundleInbox
from ostore.places.bundle.writer import BundleFile, BundlePipe
from ostore.places.store.store import LocalStore
from ostore.streams.file_lock import try_lock
from tests.support import Store, full, sha256

NAMES = (full("tiny:latest"), full("tiny:q4"))


@pytest.fixture
def selection(store: Store) -> Selection:
    parse = ModelName.parse
    return Selection.of(
        [(parse(name), Manifest.parse(store.manifest_path(name).read_bytes())) for name in NAMES],
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "b.tar.zst"


def bundle(path: Path, *, replace: bool = False) -> BundleFile:
    return BundleFile(path, level=None, jobs=1, replace=replace)


def deliver(inbox: BundleInbox, store: Store, *, without: int = 0) -> None:
    blobs = inbox.missing[: len(inbox.missing) - without]
    for blob, chunks in LocalStore(store.root).read_blobs(blobs, inbox.held):
        inbox.write_blob(blob, chunks)
    for name in NAMES:
        inbox.write_manifest(ModelName.parse(name), store.manifest_path(name).read_bytes())


def is_whole(path: Path) -> bool:
    (report,) = ostore.verify([path])
    return report.verdict == "whole"


def test_a_bundle_is_its_part_file_until_it_is_whole(store: Store, selection: Selection, target: Path) -> None:
    with bundle(target).receive(selection) as inbox:
        deliver(inbox, store)
        assert [path.name for path in target.parent.iterdir()] == ["b.tar.zst.part"]
    assert [path.name for path in target.parent.iterdir()] == ["b.tar.zst"]
    assert is_whole(target)


@contextlib.contextmanager
def refused(target: Path, selection: Selection, error: type[Exception]) -> Iterator[BundleInbox]:
    with pytest.raises(error), bundle(target).receive(selection) as inbox:
        yield inbox
    assert list(target.parent.iterdir()) == []


def test_what_was_not_delivered_is_not_sealed(store: Store, selection: Selection, target: Path) -> None:
    with refused(target, selection, RuntimeError) as inbox:
        deliver(inbox, store, without=1)
    with refused(target, selection, RuntimeError) as inbox:
        for blob, chunks in LocalStore(store.root).read_blobs(inbox.missing, inbox.held):
            inbox.write_blob(blob, chunks)
    with refused(target, selection, RuntimeError) as inbox:
        inbox.write_blob(inbox.missing[1], [b""])


def test_other_bytes_than_promised_are_refused(store: Store, selection: Selection, target: Path) -> None:
    with refused(target, selection, IntegrityError) as inbox:
        inbox.write_manifest(ModelName.parse(NAMES[0]), store.manifest_path(NAMES[1]).read_bytes())
    with refused(target, selection, IntegrityError) as inbox:
        inbox.write_manifest(ModelName.parse("another"), store.manifest_path(NAMES[1]).read_bytes())
    with refused(target, selection, BlobError) as inbox:
        inbox.write_blob(inbox.missing[0], [bytes(inbox.missing[0].size)])


@pytest.mark.parametrize("limit", ["MAX_MEMBERS", "MAX_INDEX_BYTES"])
def test_more_than_a_reader_takes_is_not_written(
    selection: Selection, target: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(members, limit, 2)
    with pytest.raises(LimitError, match="members and an index of"), bundle(target).receive(selection):
        pass
    assert list(target.parent.iterdir()) == []


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(store: Store, selection: Selection, target: Path) -> None:
    def overtaken() -> None:
        with bundle(target).receive(selection) as inbox:
            deliver(inbox, store)
            target.write_bytes(b"of somebody else")

    with pytest.raises(UsageError, match="exists"):
        overtaken()
    assert target.read_bytes() == b"of somebody else"
    assert [path.name for path in target.parent.iterdir()] == ["b.tar.zst"]


def test_an_export_that_finishes_while_another_waits_for_its_file_makes_that_busy(
    selection: Selection, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finishing(fd: int) -> bool:
        target.with_name("b.tar.zst.part").rename(target)
        return try_lock(fd)

    monkeypatch.setattr(writer, "try_lock", finishing)
    with pytest.raises(BusyError, match="just finished"), bundle(target, replace=True).receive(selection):
        pass
    assert [path.name for path in target.parent.iterdir()] == ["b.tar.zst"]


def test_a_bundle_into_an_open_file_is_whole_and_so_is_one_into_a_pipe(
    store: Store, selection: Selection, target: Path
) -> None:
    with target.open("wb") as file, BundlePipe(file.fileno(), level=None, jobs=1).receive(selection) as inbox:
        deliver(inbox, store)
    assert is_whole(target)
    reading, writing = os.pipe()
    # A pipe of Windows holds less than a bundle.
    with os.fdopen(reading, "rb") as pipe, ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read)
        with BundlePipe(writing, level=None, jobs=1).receive(selection) as inbox:
            deliver(inbox, store)
        os.close(writing)
        assert sha256(read.result()) == sha256(target.read_bytes())
