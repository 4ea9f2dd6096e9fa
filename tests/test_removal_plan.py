"""Plans of what goes with a model and what stays, from literals: no disk."""

from __future__ import annotations

import pytest

from ostore.formats.digest import Digest
from ostore.formats.errors import UsageError
from ostore.formats.name import ModelName
from ostore.formats.unreadable import UnreadableManifest
from ostore.operations.removal import DoomedManifest, RemovalPlan, StayReason, concerned_blobs, plan_removal
from ostore.places.store.survey.batches import BatchRecord, FoundBatch
from ostore.places.store.survey.census import Census, StoredBlob
from ostore.places.store.survey.manifest_tree import ManifestTree
from ostore.places.store.survey.references import References
from ostore.places.store.survey.scan import ManifestScan, StandingManifest
from tests.test_gc_plan import blob, census, entry, tree

A, B, C, D = (Digest(letter * 64) for letter in "abcd")
TINY, Q4, OTHER = (ModelName.parse(text) for text in ("tiny", "tiny:q4", "other"))


def doomed(name: ModelName) -> DoomedManifest:
    return DoomedManifest(name, StandingManifest("/".join(("manifests", *name.parts)), D))


def references(users: dict[Digest, tuple[ModelName, ...]], *doubts: str) -> References:
    unreadable = tuple(UnreadableManifest(path, "not JSON") for path in doubts)
    return References(users, unreadable, ManifestScan((), unreadable, ManifestTree()))


def plan(
    found: Census,
    needed: References,
    *names: ModelName,
    resumed: tuple[ModelName, ...] = (),
    interrupted: tuple[FoundBatch, ...] = (),
    dead: tuple[str, ...] = (),
) -> RemovalPlan:
    manifests, concerned = [doomed(name) for name in names], concerned_blobs(names, interrupted, needed)
    return plan_removal(manifests, resumed, interrupted, found, needed, concerned=concerned, dead=dead)


def test_a_blob_goes_with_the_last_model_that_needs_it() -> None:
    needed = references({A: (TINY, Q4), B: (Q4,), C: (Q4, OTHER), D: (OTHER,)})
    found = census(blob(A, 11), blob(B, 12), blob(C, 13), blob(D, 14))
    one = plan(found, needed, Q4)
    assert ([gone.digest for gone in one.blobs], one.freed) == ([B], 4096)
    assert [(stay.blob.digest, stay.reason, stay.models) for stay in one.stays] == [
        (A, StayReason.SHARED, ("tiny:latest",)),
        (C, StayReason.SHARED, ("other:latest",)),
    ]
    both = plan(found, needed, TINY, Q4)
    assert ([gone.digest for gone in both.blobs], both.models) == ([A, B], ("tiny:latest", "tiny:q4"))


def test_a_model_that_shares_everything_frees_nothing() -> None:
    made = plan(census(blob(A, 11)), references({A: (TINY, Q4)}), Q4)
    assert (made.freed, made.blobs) == (0, ())


def test_orphans_are_left_to_gc() -> None:
    assert plan(census(blob(A, 11), blob(B, 12)), references({A: (TINY,)}), TINY).blobs == (blob(A, 11),)


def test_every_spelling_of_a_blob_goes_and_a_file_with_a_name_elsewhere_frees_nothing() -> None:
    colon = StoredBlob(A, f"sha256:{A.hex}", blob(A, 11, links=2).facts)
    twins = census(colon, blob(A, 11, links=2))
    assert plan(twins, references({A: (TINY,)}), TINY).freed == 4096
    assert plan(census(blob(A, 11, links=2)), references({A: (TINY,)}), TINY).freed == 0


def test_while_another_manifest_cannot_be_read_no_blob_goes() -> None:
    needed = references({A: (TINY,)}, "manifests/h/n/broken/latest")
    made = plan(census(blob(A, 11)), needed, TINY)
    assert (made.blobs, made.freed) == ((), 0)
    assert [stay.reason for stay in made.stays] == [StayReason.DOUBT]
    assert made.doubt == "manifests/h/n/broken/latest: not JSON"
    assert made.models == ("tiny:latest",)


def test_a_broken_manifest_that_goes_itself_is_no_doubt() -> None:
    needed = references({A: (TINY,)}, doomed(TINY).standing.path)
    assert plan(census(blob(A, 11)), needed, TINY).doubt is None


def test_a_link_goes_like_a_file_and_what_a_living_command_holds_stays() -> None:
    place = tree(".ostore", entry("tx/7-x/a.pin", 11, links=2))
    found = census(blob(A, 11, links=2), blob(B, 12, mode=0o120777), workspace=place)
    needed = references({A: (TINY,), B: (TINY,)})
    assert [stay.reason for stay in plan(found, needed, TINY).stays] == [StayReason.HELD]
    assert plan(found, needed, TINY, dead=("7-x",)).stays == ()


def test_an_interrupted_removing_is_gone_on_with() -> None:
    batch = FoundBatch("cut", BatchRecord((TINY.full,), (A, B, C)), is_finished=False)
    place = tree(
        ".ostore", *(entry(f"trash/cut/{name}", n) for n, name in enumerate([A.filename, C.filename, "plan.json"], 20))
    )
    found = census(blob(B, 12), blob(C, 13), workspace=place)
    made = plan(found, references({C: (OTHER,)}), resumed=(TINY,), interrupted=(batch,))
    assert (made.models, [gone.digest for gone in made.blobs], made.freed) == (("tiny:latest",), [B], 2 * 4096)
    assert made.record == BatchRecord((TINY.full,), (B,)), "so that it can be gone on with once more"


def test_nothing_goes_that_was_not_approved_and_another_model_of_the_name_does_not() -> None:
    needed = references({A: (TINY,), B: (TINY,)})
    shown = plan(census(blob(A, 11)), needed, TINY)
    now = plan(census(blob(A, 11), blob(B, 12)), needed, TINY)
    assert now.within(shown).blobs == shown.blobs
    with pytest.raises(UsageError, match="have changed since"):
        plan(census(), needed, Q4).within(shown)
