"""Check the contract of sources in `operations/transfer`, line by line, with every source of models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ostore.formats.digest import Digest
from ostore.formats.errors import NotFoundError, OstoreError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.selection import Wanted
from ostore.operations.transfer import BlobSource, Source
from ostore.streams.bytes_at import nothing_held
from tests.contracts.places import NAMES, OTHER, SHARED, SOURCES, WEIGHTS, SourcePlace, a_store, contents, named_files
from tests.support import Store, sha256

DIGEST = {data: Digest(sha256(data)) for data in (WEIGHTS, OTHER, SHARED)}
BLOB = {data: Descriptor(digest, len(data)) for data, digest in DIGEST.items()}
LATEST, Q4, MINE = map(ModelName.parse, NAMES)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path / "origin/models")


@pytest.fixture(params=SOURCES, ids=lambda place: place.name.replace(" ", "-"))
def place(request: pytest.FixtureRequest) -> SourcePlace:
    made: SourcePlace = request.param
    return made


@pytest.fixture
def source(place: SourcePlace, store: Store, tmp_path: Path) -> Iterator[Source]:
    with place.opened(store, tmp_path) as opened:
        yield opened


def wanted(*contents_: bytes) -> list[Wanted]:
    return [Wanted(BLOB[content]) for content in contents_]


def test_it_has_the_methods_of_the_protocol_and_a_label(source: Source) -> None:
    assert isinstance(source, Source)
    assert source.label
    assert source.can_resume in {True, False}


def test_without_patterns_every_model_is_selected(source: Source) -> None:
    selection = source.select(())
    assert [model.name for model in selection.models] == sorted([LATEST, Q4, MINE])
    assert {blob.digest for blob in selection.blobs} >= set(DIGEST.values())


def test_names_and_globs_select(source: Source) -> None:
    assert [model.name for model in source.select(["tiny:q4"]).models] == [Q4]
    assert [model.name for model in source.select(["tiny*"]).models] == [LATEST, Q4]


@pytest.mark.parametrize("word", ["absent", "no-*"])
def test_a_word_that_stands_for_nothing_is_not_found(source: Source, word: str) -> None:
    with pytest.raises(NotFoundError):
        source.select([word])


def test_models_are_found_by_their_folded_names_and_absent_ones_are_no_error(source: Source) -> None:
    found = source.find_models({Q4.folded, "absent"})
    assert [[model.name for model in selection.models] for selection in found] == [[Q4]]
    assert DIGEST[OTHER] in {blob.digest for blob in found[0].blobs}


def test_blobs_are_found_by_digest_and_size(source: Source) -> None:
    absent = Digest.of(b"absent")
    found = source.find_blobs({DIGEST[WEIGHTS]: None, DIGEST[OTHER]: len(OTHER), DIGEST[SHARED]: 5, absent: None})
    assert set(found) == {BLOB[WEIGHTS], BLOB[OTHER]}


def test_blobs_come_in_the_order_asked_each_with_its_bytes(place: SourcePlace, source: Source) -> None:
    order = [SHARED, OTHER, WEIGHTS]
    if place.is_pipe:
        # A pipe has its own, that of its selection.
        order = [data for blob in source.select(()).blobs for data in order if DIGEST[data] == blob.digest]
    got = [
        (one.blob.digest, one.start, b"".join(chunks))
        for one, chunks in source.read_blobs(wanted(*order), nothing_held)
    ]
    assert got == [(DIGEST[data], 0, data) for data in order]


def test_a_stream_begins_where_it_was_asked_or_at_the_start(source: Source) -> None:
    ((one, chunks),) = source.read_blobs([Wanted(BLOB[WEIGHTS], 50_000)], nothing_held)
    assert one.start in {0, 50_000}
    assert one.start == (50_000 if source.can_resume else one.start)
    assert b"".join(chunks) == WEIGHTS[one.start :]


def test_a_stream_that_nobody_reads_does_not_disturb_the_next(source: Source) -> None:
    order = [data for blob in source.select(()).blobs for data in BLOB if DIGEST[data] == blob.digest]
    streams = source.read_blobs(wanted(*order), nothing_held)
    next(streams)
    one, chunks = next(streams)
    assert (one.blob.digest, b"".join(chunks)) == (DIGEST[order[1]], order[1])


def test_two_readers_at_once_do_not_meet(place: SourcePlace, source: Source) -> None:
    if place.is_pipe:
        pytest.skip("a pipe passes once")
    ((_, first),) = source.read_blobs(wanted(WEIGHTS), nothing_held)
    begun = next(first)
    ((_, second),) = source.read_blobs(wanted(OTHER), nothing_held)
    assert b"".join(second) == OTHER
    assert bytes(begun) + b"".join(first) == WEIGHTS


def test_a_blob_that_cannot_be_had_fails_in_its_stream_and_does_not_end_the_rest(store: Store, tmp_path: Path) -> None:
    """Of a bundle, which has all of its blobs, tests/test_bundle_reader.py and tests/hostile say the same."""
    for place in SOURCES:
        if "bundle" in place.name:
            continue
        origin = a_store(tmp_path / place.name / "models")
        if place.name == "layout":
            with place.opened(origin, tmp_path):
                (tmp_path / "oci/blobs/sha256" / DIGEST[WEIGHTS].hex).unlink()
        elif place.name != "registry":
            origin.blob_path(WEIGHTS).unlink()
        with place.opened(origin, tmp_path) as source:
            if place.name == "registry":
                del source._registry.blobs[DIGEST[WEIGHTS]]  # type: ignore[attr-defined] # the double, and no other
            streams = source.read_blobs(wanted(WEIGHTS, OTHER), nothing_held)
            _, first = next(streams)
            with pytest.raises(OstoreError):
                next(first)
            assert b"".join(next(streams)[1]) == OTHER


def test_a_file_that_may_be_linked_has_the_bytes_of_the_blob(source: Source) -> None:
    path = source.file_of(BLOB[WEIGHTS])
    assert path is None or path.read_bytes() == WEIGHTS
    assert source.file_of(Descriptor(Digest.of(b"absent"), 6)) is None


def test_manifests_come_as_they_are_and_those_that_were_asked_for(source: Source, store: Store) -> None:
    selection = source.select(["tiny*"])
    assert dict(source.read_manifests(selection.models)) == {
        name: store.manifest_path(name.full.replace(":", ":")).read_bytes() for name in (LATEST, Q4)
    }


def test_a_selection_is_not_disturbed_by_another_one(place: SourcePlace, source: Source, store: Store) -> None:
    first = source.select(["tiny:latest"])
    source.select(["tiny:q4"])
    assert [name for name, _ in source.read_manifests(first.models)] == [LATEST]


def test_what_a_pull_writes_meanwhile_is_not_what_was_selected(store: Store, tmp_path: Path) -> None:
    (place,) = (place for place in SOURCES if place.name == "store")
    with place.opened(store, tmp_path) as source:
        selection, raw = source.select(["tiny:q4"]), store.manifest_path(NAMES[1]).read_bytes()
        store.model("tiny:q4", b"what has just been pulled")
        assert dict(source.read_manifests(selection.models)) == {Q4: raw}


def test_files_named_by_digests_are_a_source_of_blobs(store: Store, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    folder: BlobSource = named_files(store, tmp_path / "files")
    assert not isinstance(folder, Source)
    assert set(folder.find_blobs(dict.fromkeys(contents(store)))) == {
        Descriptor(digest, len(content)) for digest, content in contents(store).items()
    }
    got = {one.blob.digest: b"".join(chunks) for one, chunks in folder.read_blobs(wanted(OTHER, WEIGHTS), nothing_held)}
    assert got == {DIGEST[OTHER]: OTHER, DIGEST[WEIGHTS]: WEIGHTS}
    assert folder.file_of(BLOB[WEIGHTS]) is None
