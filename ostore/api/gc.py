"""The commands that remove the blobs no model needs, and that bring back what was kept of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ostore.api.chosen_store import chosen_store
from ostore.formats.errors import DamagedStoreError, NoSpaceError, OstoreError
from ostore.host.servers import sees_ollama
from ostore.operations.gc import DEFAULT_GRACE_SECONDS, BlobReason, GcPlan, GcTerms, Judgement, plan_gc
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.batches import BatchRecord
from ostore.places.store.survey.census import FoundEntry, allocated_bytes
from ostore.places.store.survey.survey import survey
from ostore.streams.progress import SILENT, Progress


class JudgedBlob(NamedTuple):
    """
    A file in `blobs/` and why it goes or stays; `size` is its bytes, `allocated` those on the disk, `age` seconds since
    it was written, linked or renamed. `models` are those that need it.
    """

    filename: str
    digest: str
    size: int
    allocated: int
    age: int
    reason: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemovedDownload:
    """An abandoned download that went: `files` of Ollama's, and the bytes that they took up."""

    digest: str
    files: int
    allocated: int


@dataclass(frozen=True, slots=True)
class GcReport:
    """
    What was removed, or with `dry_run` would be. `kept` are the blobs that no model needs and that stay, or all that
    stay if every blob was asked for; `needed` is how many are needed.

    `leftovers` are files of interrupted commands, `expired` those of the trash whose time was over. `freed` is the
    bytes that are free now, `trashed` those that wait in the trash until `kept_until`. `download_since` is when the
    oldest download that seems to be under way began.
    """

    store: str
    dry_run: bool
    grace: float
    removed: tuple[JudgedBlob, ...]
    kept: tuple[JudgedBlob, ...]
    needed: int
    downloads: tuple[RemovedDownload, ...]
    leftovers: int
    expired: int
    freed: int
    trashed: int
    kept_until: float | None
    download_since: float | None
    sees_ollama: bool


@dataclass(frozen=True, slots=True)
class RestoredBlob:
    """`outcome`: restored, already there (something has its name, which stays) or damaged (it stays in the trash)."""

    filename: str
    digest: str
    size: int
    outcome: str


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What came back from the trash; `size` is the bytes of the blobs that did, or with `dry_run` would if whole."""

    store: str
    dry_run: bool
    blobs: tuple[RestoredBlob, ...]
    size: int


def gc(
    *,
    grace: float = DEFAULT_GRACE_SECONDS,
    partials: bool = False,
    keep: float | None = None,
    without_models: bool = False,
    every_blob: bool = False,
    dry_run: bool = False,
    approve: Callable[[GcReport], bool] | None = None,
    models: Path | None = None,
) -> GcReport | None:
    """
    Remove the blobs that no model needs and that are older than `grace` seconds, and what interrupted commands left.

    `partials` also removes downloads that nobody went on with for a week. `keep` is for how many seconds the blobs
    wait in the trash, where `restore` finds them; without it their space is free at once. `every_blob` also reports
    the blobs that are needed. `approve` is shown the plan, as a report of a dry run, and no more than it has is
    removed; if it says no, None comes back.

    Raises DamagedStoreError while it is in doubt what is needed, or if there is no model at all, unless
    `without_models`; NotFoundError, BusyError, OSError, also where locks do not keep others out.
    """
    store = chosen_store(models).require()
    terms = GcTerms(time.time(), grace, partials, keep, sees_ollama(), without_models, every_blob)

    if dry_run:
        return _gc_report(store, planned_gc(store, terms), terms, dry_run=True)
    with hinting_at_room(store):
        store.return_needed()
        # A workspace is not made only to find out that there is nothing to do, or that it is refused.
        approved = planned_gc(store, terms) if approve or not store.workspace.exists() else None
        if approve and approved and approved.takes_something:
            planned = _gc_report(store, approved, terms, dry_run=True)
            if not approve(planned):
                return None
        plan = approved if approved and approved.is_empty else _collect(store, terms, approved)
    return _gc_report(store, plan, terms, dry_run=False)


def restore(*, dry_run: bool = False, progress: Progress = SILENT, models: Path | None = None) -> RestoreReport:
    """
    Bring back every blob that is kept in the trash, once it is hashed. Nothing is overwritten.

    A damaged one is told of in the report, and stays where it is. Raises NotFoundError, BusyError, OSError.
    """
    store = chosen_store(models).require()
    outcomes = store.return_kept(progress, dry_run=dry_run)
    return RestoreReport(
        store=str(store.root),
        dry_run=dry_run,
        blobs=tuple(RestoredBlob(b.filename, str(b.digest), b.size, outcome.value) for b, outcome in outcomes.items()),
        size=sum(blob.size for blob, outcome in outcomes.items() if outcome == "restored"),
    )


def planned_gc(store: LocalStore, terms: GcTerms) -> GcPlan:
    """What collecting garbage would remove now. Raises DamagedStoreError, OSError."""
    found = survey(store.root)
    census = found.census(without=() if terms.every_blob else found.references.named)
    return plan_gc(census, found.references, dead=found.dead, batches=found.batches, terms=terms)


@contextlib.contextmanager
def hinting_at_room(store: LocalStore) -> Iterator[None]:
    """Let a NoSpaceError say what to do: gc itself needs no room, if it finds something to begin with."""
    try:
        yield
    except NoSpaceError as error:
        error.hint = _way_out(store)
        raise


def _way_out(store: LocalStore) -> str:
    with contextlib.suppress(OstoreError, OSError):
        if planned_gc(store, GcTerms(time.time(), sees_ollama=sees_ollama())).blobs:
            return "ostore gc, without --keep, makes room first: there are blobs that no model needs"
    return "free some 100 KB on that disk by hand first"


def _collect(store: LocalStore, terms: GcTerms, approved: GcPlan | None) -> GcPlan:
    """Remove what is planned, and of that no more than was approved of; gives the plan as it came true."""
    gone: list[GcPlan] = []
    while True:
        try:
            return _sweep(store, terms, approved).after(gone)
        except NoSpaceError:
            # What is to be kept needs the record, so that somebody finds it.
            if terms.keep is not None:
                raise
            plan, part = _make_room(store, terms, approved, leftovers=not gone)
            if part is None and not gone:
                raise
            if part is None:
                # All has gone that could go, and there is still no room, nor need of it.
                rest = plan.without(plan.filenames)
                return rest.only(judgements=rest.judgements).after(gone)
            gone.append(part)


def _sweep(store: LocalStore, terms: GcTerms, approved: GcPlan | None) -> GcPlan:
    with store.sweeping() as sweep:
        plan = planned_gc(store, terms)
        plan = plan.within(approved) if approved else plan
        sweep.finish_interrupted()
        # Before the rest: on a full disk it may be what makes room for the record.
        sweep.expire(terms.now)
        if plan.blobs or plan.downloads:
            swept = sweep.remove(
                BatchRecord(expires=None if terms.keep is None else terms.now + terms.keep),
                now=terms.now,
                blobs=plan.blobs,
                downloads=plan.downloads,
                latest=plan.latest,
                latest_download=plan.latest_download,
            )
            if swept.doubt:
                raise DamagedStoreError(
                    f"nothing was removed, because it came to be in doubt what is needed: {swept.doubt}"
                )
            plan = plan.without(swept.stayed)
        sweep.clear_leftovers()
    return plan


def _make_room(
    store: LocalStore, terms: GcTerms, approved: GcPlan | None, *, leftovers: bool
) -> tuple[GcPlan, GcPlan | None]:
    """
    Remove without a record one thing of the plan, made once more; gives that plan, and what went of it if anything did.

    That is what dead commands left if `leftovers`, and else the largest blob or download.
    """
    with store.full_disk() as room:
        plan = planned_gc(store, terms)
        plan = plan.within(approved) if approved else plan
        if leftovers and plan.leftovers:
            room.clear_leftovers()
            left = set(planned_gc(store, terms).leftovers)
            if cleared := tuple(file for file in plan.leftovers if file not in left):
                return plan, plan.only(leftovers=cleared)
        for part in plan.largest_first():
            files = [FoundEntry(blob.filename, blob.facts) for blob in part.blobs]
            files += [file for group in part.downloads for file in group.files]
            if room.remove(files, latest=plan.latest if part.blobs else plan.latest_download):
                return plan, part
    return plan, None


def _gc_report(store: LocalStore, plan: GcPlan, terms: GcTerms, *, dry_run: bool) -> GcReport:
    return GcReport(
        store=str(store.root),
        dry_run=dry_run,
        grace=terms.grace,
        removed=tuple(_judged(judgement) for judgement in plan.judgements if judgement.reason is BlobReason.ORPHAN),
        kept=tuple(_judged(judgement) for judgement in plan.judgements if judgement.reason is not BlobReason.ORPHAN),
        needed=plan.needed,
        downloads=tuple(
            RemovedDownload(str(group.digest), len(group.files), allocated_bytes(file.facts for file in group.files))
            for group in plan.downloads
        ),
        leftovers=len(plan.leftovers),
        expired=len(plan.expired),
        freed=plan.freed,
        trashed=plan.trashed,
        kept_until=None if terms.keep is None else terms.now + terms.keep,
        download_since=plan.began,
        sees_ollama=terms.sees_ollama,
    )


def _judged(judgement: Judgement) -> JudgedBlob:
    blob = judgement.blob
    return JudgedBlob(
        filename=blob.filename,
        digest=str(blob.digest),
        size=blob.facts.size,
        allocated=blob.facts.allocated,
        age=int(judgement.age),
        reason=judgement.reason.value,
        models=judgement.models,
    )
