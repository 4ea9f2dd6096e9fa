"""The command that collects garbage, and the one that brings back what it kept: gc and restore."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ostore.api.opening import chosen_store
from ostore.api.outcomes import GcReport, JudgedBlob, RemovedDownload, RestoredBlob, RestoreReport
from ostore.api.sweeping import opened_workspace, planned_gc, return_needed, sweeping
from ostore.formats.errors import DamagedStoreError, NoSpaceError
from ostore.host.servers import sees_ollama
from ostore.operations.gc import DEFAULT_GRACE_SECONDS, BlobReason, GcPlan, GcTerms, Judgement
from ostore.places.store.removing.full_disk import HeadRoom
from ostore.places.store.removing.trash import BatchRecord
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.census import FoundEntry, allocated_bytes
from ostore.places.store.workspace import workspace_path
from ostore.streams.progress import SILENT, Progress


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

    approved = None
    if not dry_run:
        return_needed(store.root)
    # A workspace is not made only to find out that there is nothing to do, or that it is refused.
    if dry_run or approve or not workspace_path(store.root).exists():
        approved = planned_gc(store.root, terms)
        planned = _gc_report(store, approved, terms, dry_run=True)
        if dry_run:
            return planned
        if approved.is_empty:
            return _gc_report(store, approved, terms, dry_run=False)
        if approve and approved.takes_something and not approve(planned):
            return None
    plan = _collect(store.root, terms, approved)
    return _gc_report(store, plan, terms, dry_run=False)


def restore(*, dry_run: bool = False, progress: Progress = SILENT, models: Path | None = None) -> RestoreReport:
    """
    Bring back every blob that is kept in the trash, once it is hashed. Nothing is overwritten.

    A damaged one is told of in the report, and stays where it is. Raises NotFoundError, BusyError, OSError.
    """
    from ostore.places.store.removing.untrash import RestoreOutcome, bring_back, find_kept, find_sound

    store = chosen_store(models).require()
    kept = find_kept(store.root)
    sound, back = list(kept), list(kept)
    if kept and not dry_run:
        sound = find_sound(store.root, kept, progress)
        with opened_workspace(store.root) as (root, workspace), workspace.locked():
            back = bring_back(root, workspace, sound)
    outcomes = dict.fromkeys(kept, RestoreOutcome.DAMAGED)
    outcomes |= dict.fromkeys(sound, RestoreOutcome.ALREADY_THERE)
    outcomes |= dict.fromkeys(back, RestoreOutcome.RESTORED)
    return RestoreReport(
        store=str(store.root),
        dry_run=dry_run,
        blobs=tuple(RestoredBlob(b.filename, str(b.digest), b.size, outcome.value) for b, outcome in outcomes.items()),
        size=sum(blob.size for blob in back),
    )


def _collect(root: Path, terms: GcTerms, approved: GcPlan | None) -> GcPlan:
    """Remove what is planned, and of that no more than was approved of; gives the plan as it came true."""
    gone: list[GcPlan] = []
    while True:
        try:
            return _sweep(root, terms, approved).after(gone)
        except NoSpaceError:
            # What is to be kept needs the record, so that somebody finds it.
            if terms.keep is not None:
                raise
            plan, part = _make_room(root, terms, approved, leftovers=not gone)
            if part is None and not gone:
                raise
            if part is None:
                # All has gone that could go, and there is still no room, nor need of it.
                rest = plan.without(plan.filenames)
                return rest.only(judgements=rest.judgements).after(gone)
            gone.append(part)


def _sweep(root: Path, terms: GcTerms, approved: GcPlan | None) -> GcPlan:
    with sweeping(root) as sweep:
        plan = planned_gc(root, terms)
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


def _make_room(root: Path, terms: GcTerms, approved: GcPlan | None, *, leftovers: bool) -> tuple[GcPlan, GcPlan | None]:
    """
    Remove without a record one thing of the plan, made once more; gives that plan, and what went of it if anything did.

    That is what dead commands left if `leftovers`, and else the largest blob or download.
    """
    with HeadRoom.opened(root) as room:
        plan = planned_gc(root, terms)
        plan = plan.within(approved) if approved else plan
        if leftovers and plan.leftovers:
            room.clear_leftovers()
            left = set(planned_gc(root, terms).leftovers)
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
