"""Plans of gc from literals: no disk, no clock."""

# ruff: noqa: ANN401 - fields of several types, by name
from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError
from ostore.formats.manifest import Manifest
from ostore.formats.name import ModelName
from ostore.formats.unreadable import Unreadable, UnreadableManifest
from ostore.operations.gc import DAY_SECONDS, DOWNLOAD_SECONDS, BlobReason, GcPlan, GcTerms, plan_gc
from ostore.places.store.survey.batches import BatchRecord, FoundBatch
from ostore.places.store.survey.census import Census, DiskFacts, FoundEntry, FoundTree, StoredBlob, UnfinishedDownload
from ostore.places.store.survey.manifest_tree import ManifestTree
from ostore.places.store.survey.references import References
from ostore.places.store.survey.scan import ManifestScan, StoredModel

NOW = 2_000_000_000.0
HOUR = 3600.0
A, B, C = (Digest(letter * 64) for letter in "abc")
TINY = ModelName.parse("tiny")
MANIFEST = "manifests/registry.ollama.ai/library/tiny/latest"


def facts(inode: int, age: float = 2 * DAY_SECONDS, **other: Any) -> DiskFacts:
    plain = DiskFacts(1000, 4096, 1, inode, 1, NOW - age, NOW - age, stat.S_IFREG | 0o644, 0, 0)
    return plain._replace(**other)


def blob(digest: Digest, inode: int, age: float = 2 * DAY_SECONDS, **other: Any) -> StoredBlob:
    return StoredBlob(digest, digest.filename, facts(inode, age, **other))


def entry(path: str, inode: int, age: float = 2 * DAY_SECONDS, **other: Any) -> FoundEntry:
    return FoundEntry(path, facts(inode, age, **other))


def download(digest: Digest, *ages: float) -> UnfinishedDownload:
    files = (entry(f"{digest.filename}-partial-{number}", 100 + number, age) for number, age in enumerate(ages))
    return UnfinishedDownload(digest, tuple(files))


def tree(name: str, *files: FoundEntry, unreadable: tuple[str, ...] = ()) -> FoundTree:
    folders = {"/".join(file.path.split("/")[:depth]) for file in files for depth in range(1, file.path.count("/") + 1)}
    return FoundTree(
        Path(name),
        facts(1),
        files,
        tuple(entry(folder, 2) for folder in sorted(folders)),
        tuple(Unreadable(path, "Permission denied") for path in unreadable),
    )


def census(*blobs: StoredBlob, **other: Any) -> Census:
    nothing = Census(blobs, (), (), (), (), tree(".ostore"), tree(".ostore-tmp"))
    return replace(nothing, **other)


def references(
    *digests: Digest, models: int = 1, mentioned: tuple[Digest, ...] = (), doubts: tuple[str, ...] = ()
) -> References:
    layers = ",".join(f'{{"digest":"{digest}","size":1}}' for digest in digests)
    model = StoredModel(TINY, Manifest.parse(f'{{"layers":[{layers}]}}'.encode()), Path(__file__).stat(), MANIFEST)
    users: dict[Digest, tuple[ModelName, ...]] = {**dict.fromkeys(digests, (TINY,)), **dict.fromkeys(mentioned, ())}
    unreadable = tuple(UnreadableManifest(path, "not JSON") for path in doubts)
    return References(users, unreadable, ManifestScan((model,) * models, unreadable, ManifestTree()))


def plan(
    found: Census,
    needed: References | None = None,
    *,
    dead: tuple[str, ...] = (),
    batches: tuple[FoundBatch, ...] = (),
    **terms: Any,
) -> GcPlan:
    return plan_gc(found, needed or references(), dead=dead, batches=batches, terms=GcTerms(NOW, **terms))


def reason(found: Census, needed: References | None = None, **terms: Any) -> BlobReason:
    (judgement,) = plan(found, needed, every_blob=True, **terms).judgements
    return judgement.reason


def test_what_no_model_needs_goes_and_what_one_needs_stays() -> None:
    found, needed = census(blob(A, 11), blob(B, 12), blob(C, 13)), references(B, mentioned=(C,))
    assert [judgement.blob.digest for judgement in plan(found, needed).judgements] == [A]
    made = plan(found, needed, every_blob=True)
    assert made.needed == 2
    assert [(judgement.reason, judgement.models) for judgement in made.judgements] == [
        (BlobReason.ORPHAN, ()),
        (BlobReason.NEEDED, ("tiny:latest",)),
        (BlobReason.NEEDED, ()),
    ]
    assert (made.blobs, made.freed, made.is_empty) == ((blob(A, 11),), 4096, False)


def test_a_store_in_order_has_nothing_to_go() -> None:
    made = plan(census(blob(A, 11)), references(A))
    assert (made.is_empty, made.freed, made.blobs) == (True, 0, ())


@pytest.mark.parametrize(
    ("times", "goes"),
    [
        ({}, True),
        ({"mtime": NOW - HOUR}, False),
        ({"ctime": NOW - HOUR}, False),
        ({"mtime": NOW - DAY_SECONDS, "ctime": NOW - DAY_SECONDS}, True),
        ({"mtime": NOW - DAY_SECONDS + 1, "ctime": 0.0}, False),
        ({"mtime": NOW + HOUR}, False),
        ({"ctime": NOW + 9 * DAY_SECONDS}, False),
    ],
)
def test_the_later_of_the_two_times_must_be_older_than_the_grace(times: dict[str, float], goes: bool) -> None:
    assert reason(census(blob(A, 11, **times))) is (BlobReason.ORPHAN if goes else BlobReason.YOUNG)


def test_a_shorter_grace_is_obeyed() -> None:
    assert reason(census(blob(A, 11, HOUR)), grace=90.0) is BlobReason.ORPHAN
    assert reason(census(blob(A, 11, 60.0)), grace=90.0) is BlobReason.YOUNG


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(stat.S_IFLNK, BlobReason.ORPHAN), (stat.S_IFIFO, BlobReason.MISNAMED), (stat.S_IFDIR, BlobReason.MISNAMED)],
)
def test_only_files_and_links_go(kind: int, expected: BlobReason) -> None:
    assert reason(census(blob(A, 11, mode=kind | 0o777))) is expected


@pytest.mark.parametrize("filename", [A.hex, f"sha256_{A.hex}", f"sha256\uf03a{A.hex}"])
def test_a_spelling_that_no_ollama_gives_stays(filename: str) -> None:
    assert reason(census(StoredBlob(A, filename, facts(11)))) is BlobReason.MISNAMED


@pytest.mark.parametrize("filename", [f"sha256:{A.hex}", f"sha256-{A.hex.upper()}"])
def test_other_spellings_of_a_needed_digest_stay_and_those_of_an_orphan_go(filename: str) -> None:
    other = StoredBlob(A, filename, facts(11))
    assert reason(census(other), references(A)) is BlobReason.NEEDED
    assert reason(census(other), references(B)) is BlobReason.ORPHAN


def test_a_doubt_about_one_manifest_keeps_everything() -> None:
    with pytest.raises(DamagedStoreError, match=r"manifests/a: not JSON; .*; and 1 more"):
        plan(census(blob(A, 11)), references(doubts=("manifests/a", "manifests/b", "manifests/c", "manifests/d")))


def test_blobs_without_any_model_look_like_a_disk_that_is_not_mounted() -> None:
    with pytest.raises(DamagedStoreError, match="2 blobs, but no model at all"):
        plan(census(blob(A, 11), blob(B, 12, 0.0)), references(models=0))
    assert plan(census(), references(models=0)).is_empty
    assert reason(census(blob(A, 11)), references(models=0), without_models=True) is BlobReason.ORPHAN


@pytest.mark.parametrize("filename", [f"{A.filename}.pin", A.filename, f"{A.filename}.part"])
def test_what_a_living_command_holds_stays_and_what_a_dead_one_held_goes(filename: str) -> None:
    found = census(blob(A, 11, links=2), workspace=tree(".ostore", entry(f"tx/7-x/{filename}", 11, links=2)))
    assert reason(found) is BlobReason.HELD
    made = plan(found, dead=("7-x",))
    # Both names go, so the file does.
    assert (made.blobs, len(made.leftovers), made.freed) == ((blob(A, 11, links=2),), 1, 4096)


@pytest.mark.parametrize("path", ["", "tx", "tx/7-x"])
def test_a_second_name_is_a_hint_where_commands_of_others_cannot_be_seen(path: str) -> None:
    unseen = tree(".ostore", unreadable=(path,))
    assert reason(census(blob(A, 11, links=2), workspace=unseen)) is BlobReason.MAYBE_HELD
    assert reason(census(blob(A, 11), workspace=unseen)) is BlobReason.ORPHAN
    elsewhere = tree(".ostore", unreadable=("quarantine",))
    assert reason(census(blob(A, 11, links=2), workspace=elsewhere)) is BlobReason.ORPHAN


def test_a_file_with_a_name_elsewhere_frees_nothing() -> None:
    made = plan(census(blob(A, 11, links=2)))
    assert (len(made.blobs), made.freed) == (1, 0)


def test_partial_downloads_go_only_when_asked_and_only_as_whole_groups() -> None:
    week = DOWNLOAD_SECONDS + 1
    old, growing = download(A, week, week + HOUR), download(B, week, 6 * DAY_SECONDS)
    found = census(downloads=(old, growing))
    assert plan(found).downloads == ()
    made = plan(found, partials=True)
    assert (made.downloads, made.freed) == ((old,), 2 * 4096)
    assert made.resting == (growing,)
    sooner = plan(found, partials=True, partials_grace=DAY_SECONDS)
    assert (sooner.downloads, sooner.latest_download) == ((old, growing), NOW - DAY_SECONDS)
    linked = UnfinishedDownload(A, (entry(f"{A.filename}-partial", 9, week, mode=stat.S_IFLNK | 0o777),))
    assert plan(census(downloads=(linked,)), partials=True).downloads == ()


def test_while_a_download_is_under_way_the_grace_counts_from_where_it_began() -> None:
    """What the same pull finished before is older than what it is loading."""
    loading = download(C, 60.0, 50 * HOUR)
    for age, expected in ((73 * HOUR, BlobReason.DOWNLOAD), (75 * HOUR, BlobReason.ORPHAN)):
        assert reason(census(blob(A, 11, age), downloads=(loading,))) is expected
    assert reason(census(blob(A, 11, HOUR), downloads=(loading,))) is BlobReason.YOUNG
    assert plan(census(downloads=(loading,))).began == NOW - 50 * HOUR


def test_a_download_that_rests_protects_nothing_unless_a_server_is_seen() -> None:
    resting = download(C, 30 * HOUR)
    found = census(blob(A, 11, 50 * HOUR), downloads=(resting,))
    assert reason(found) is BlobReason.ORPHAN
    assert reason(found, sees_ollama=True) is BlobReason.DOWNLOAD
    given_up = census(blob(A, 11, 9 * DAY_SECONDS), downloads=(download(C, 8 * DAY_SECONDS),))
    assert reason(given_up, sees_ollama=True) is BlobReason.ORPHAN


def test_a_download_that_goes_protects_nothing() -> None:
    resting = download(C, 2 * HOUR)
    found = census(blob(A, 11, 25 * HOUR), downloads=(resting,))
    assert reason(found) is BlobReason.DOWNLOAD
    assert reason(found, partials=True) is BlobReason.DOWNLOAD
    assert reason(found, partials=True, partials_grace=HOUR) is BlobReason.ORPHAN


def test_an_upload_is_a_download_in_this_respect() -> None:
    found = census(blob(A, 11, 30 * HOUR), temporary=(entry("sha256-123456", 7, 10 * HOUR),))
    assert reason(found) is BlobReason.DOWNLOAD


def test_a_download_with_times_in_the_future_is_under_way_and_moves_the_limit_no_later_than_now() -> None:
    ahead = census(blob(A, 11, 25 * HOUR), blob(B, 12, 23 * HOUR), downloads=(download(C, -9 * DAY_SECONDS),))
    assert [judgement.reason for judgement in plan(ahead).judgements] == [BlobReason.ORPHAN, BlobReason.YOUNG]


def test_what_dead_commands_left_goes_whatever_its_age() -> None:
    place = tree(".ostore", entry("tx/7-x/m/000000.json", 21, 0.0), entry("tx/8-y/sha256-1.part", 22, 0.0))
    staging = tree(".ostore-tmp", entry("7-x/000000.json", 23, 0.0), entry("8-y/live", 24), entry("9-z/live", 25))
    made = plan(census(workspace=place, staging=staging), dead=("7-x",))
    assert [file.path for file in made.leftovers] == ["tx/7-x/m/000000.json", "7-x/000000.json", "9-z/live"]
    assert not plan(census(), dead=("7-x",)).is_empty, "an empty folder is one too"


def test_the_trash_goes_when_its_time_is_over_and_an_interrupted_removing_is_finished() -> None:
    names = ("kept", "over", "cut", "cut-kept", "unknown")
    found = census(
        workspace=tree(
            ".ostore",
            *(entry(f"trash/{name}/{A.filename}", 30 + number) for number, name in enumerate(names)),
            entry(f"trash/cut/{B.filename}", 40),
        )
    )
    batches = (
        FoundBatch("kept", BatchRecord(expires=NOW + 1), is_finished=True),
        FoundBatch("over", BatchRecord(expires=NOW), is_finished=True),
        FoundBatch("cut", BatchRecord(), is_finished=False),
        FoundBatch("cut-kept", BatchRecord(expires=NOW + 1), is_finished=False),
        FoundBatch("unknown", None, is_finished=False),
    )
    made = plan(found, references(B), batches=batches)
    assert [file.path for file in made.expired] == [f"trash/over/{A.filename}", f"trash/cut/{A.filename}"]
    assert made.freed == 2 * 4096


def test_what_is_kept_is_not_freed() -> None:
    made = plan(census(blob(A, 11)), keep=HOUR)
    assert (made.freed, made.trashed) == (0, 4096)


def test_nothing_goes_that_was_not_approved() -> None:
    shown = plan(census(blob(A, 11)))
    now = plan(census(blob(A, 11), blob(B, 12), downloads=(download(C, 9 * DAY_SECONDS),)), partials=True)
    cut = now.within(shown)
    assert ([gone.digest for gone in cut.blobs], cut.downloads) == ([A], ())
    assert [stays.digest for stays in cut.resting] == [C]
    assert plan(census(blob(B, 12))).within(shown).blobs == ()


def test_what_did_not_go_is_told_as_that() -> None:
    made = plan(census(blob(A, 11), blob(B, 12))).without({B.filename})
    assert [judgement.reason for judgement in made.judgements] == [BlobReason.ORPHAN, BlobReason.MEANWHILE]
    assert made.freed == 4096
