"""Remove the blobs that no model needs, and restore those that the trash keeps."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ostore.api.chosen_store import chosen_store
from ostore.formats.errors import DamagedStoreError, NoSpaceError, OstoreError
from ostore.formats.remedy import Remedy, ostore
from ostore.formats.store_layout import BLOBS
from ostore.formats.wording import listed
from ostore.host.servers import sees_ollama
from ostore.operations.gc import (
    DEFAULT_GRACE_SECONDS,
    DOWNLOAD_SECONDS,
    BlobReason,
    GcPlan,
    GcTerms,
    Judgement,
    plan_gc,
)
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.batches import BatchRecord
from ostore.places.store.survey.census import Census, UnfinishedDownload, allocated_bytes
from ostore.places.store.survey.scan import ManifestScan
from ostore.places.store.survey.survey import survey
from ostore.streams.progress import SILENT, Progress


class JudgedBlob(NamedTuple):
    """
    A file in `blobs/`, and why it goes or stays.

    `size` is its bytes, `allocated` its bytes on the disk, and `age` the seconds since it was last written, linked or
    renamed. `models` need it.
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
    """An abandoned download that was removed: the number of its files, and their bytes on the disk."""

    digest: str
    files: int
    allocated: int


@dataclass(frozen=True, slots=True)
class KeptDownload:
    """
    A download that stays: the number of its files, and their bytes on the disk.

    `goes_after` is when `partials` takes it, in seconds since 1970, if nobody goes on with it. It is None if a file of
    it is no plain file; such a download always stays.
    """

    digest: str
    files: int
    allocated: int
    goes_after: float | None


@dataclass(frozen=True, slots=True)
class GcReport:
    """
    What was removed, or with `dry_run` would be. Times are seconds since 1970.

    `kept` are the blobs that no model needs and that stay, or all that stay if every blob was asked for. `needed` is
    the number of needed blobs. `downloads` were removed, `kept_downloads` stay. `leftovers` counts the files of
    interrupted commands, `expired` the files of the trash whose time was over. `freed` is the bytes that were freed.
    `trashed` is the bytes that wait in the trash until `kept_until`. `download_since` is when the oldest download that
    seems to be under way began, or None. `partials` and `partials_grace` are those of the call, `warnings` are about
    what stays. `in_use` are the paths in the store of what stays because, on Windows, another program has it open.
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
    partials: bool
    partials_grace: float
    kept_downloads: tuple[KeptDownload, ...]
    warnings: tuple[str, ...]
    in_use: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestoredBlob:
    """
    A blob of the trash.

    `outcome` is restored, already there (an entry has its name, and stays) or damaged (the blob stays in the trash).
    """

    filename: str
    digest: str
    size: int
    outcome: str


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What came back from the trash, or with `dry_run` would if whole. `size` is the bytes of the restored blobs."""

    store: str
    dry_run: bool
    blobs: tuple[RestoredBlob, ...]
    size: int


def gc(
    *,
    grace: float = DEFAULT_GRACE_SECONDS,
    partials: bool = False,
    partials_grace: float = DOWNLOAD_SECONDS,
    keep: float | None = None,
    without_models: bool = False,
    every_blob: bool = False,
    dry_run: bool = False,
    approve: Callable[[GcReport], bool] | None = None,
    models: Path | None = None,
) -> GcReport | None:
    """
    Remove the blobs that no model needs and that are older than `grace` seconds, and what interrupted commands left.

    `partials` also removes downloads that have rested for `partials_grace` seconds, by default a week. `keep` is how
    many seconds the blobs wait in the trash, where `restore` finds them; None frees their space at once.
    `without_models` allows a store without any model. `every_blob` also reports needed blobs. With `dry_run`, nothing
    is removed. `approve` gets the report of a dry run; if it returns False, `gc` removes nothing and returns None.
    Nothing beyond that report is removed.

    Raises DamagedStoreError while a doubt leaves open which blobs are needed, or if there is no model and
    `without_models` is not set; NotFoundError, UsageError, BusyError, UnsafeError, NoSpaceError, OSError, also on a
    disk where locks keep nobody out.
    """
    store = chosen_store(models).require()
    terms = GcTerms(
        time.time(), grace, partials, keep, sees_ollama(), without_models, every_blob, partials_grace=partials_grace
    )
    with hinting_at_room(store):
        if not dry_run:
            store.return_needed()
        # Plan first if there is no workspace, so that none is created when there is nothing to do or gc refuses.
        plan = planned_gc(store, terms) if dry_run or approve or not store.workspace.exists() else None
        if plan and (dry_run or plan.is_empty):
            return _gc_report(store, plan, terms, dry_run=dry_run)
        if plan and approve and plan.takes_something and not approve(_gc_report(store, plan, terms, dry_run=True)):
            return None
        removed = _collect(store, terms, plan)
    return _gc_report(store, removed, terms, dry_run=False)


def restore(*, dry_run: bool = False, progress: Progress = SILENT, models: Path | None = None) -> RestoreReport:
    """
    Hash every blob that the trash keeps, and bring it back. Nothing is overwritten.

    A damaged blob stays in the trash, and the report says so. With `dry_run`, nothing is hashed or changed. Raises
    NotFoundError, UsageError, BusyError, UnsafeError, OSError.
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
    """Return what `gc` would remove now. Raises DamagedStoreError while a doubt leaves open what is needed, OSError."""
    found = survey(store.root)
    found.references.scan.tree.refuse_closed()
    census = found.census(without=() if terms.every_blob else found.references.named)
    plan = plan_gc(census, found.references, dead=found.dead, batches=found.batches, terms=terms)
    return replace(plan, warnings=tuple(_warnings(store, census, found.references.scan)))


def _warnings(store: LocalStore, census: Census, scan: ManifestScan) -> Iterator[str]:
    yield from store.told(scan, "counted")
    if foreign := [f"{BLOBS}/{entry.path}" for entry in census.foreign]:
        yield f"{listed(foreign)}: not a file of Ollama, stays"
    if partial := [f"{BLOBS}/{entry.path}" for entry in census.temporary if entry.path.endswith("-partial")]:
        yield f"{listed(partial)}: a partial download of an old Ollama, stays; a start of Ollama deletes it"


@contextlib.contextmanager
def hinting_at_room(store: LocalStore) -> Iterator[None]:
    """Add to a NoSpaceError how to make room. `gc` itself needs none, if it finds a blob to remove first."""
    try:
        yield
    except NoSpaceError as error:
        error.hint = _way_out(store)
        raise


def _way_out(store: LocalStore) -> Remedy | str:
    with contextlib.suppress(OstoreError, OSError):
        if planned_gc(store, GcTerms(time.time(), sees_ollama=sees_ollama())).blobs:
            return ostore("gc", after="makes room first: there are blobs that no model needs")
    return "free some 100 KB on that disk by hand first"


def _collect(store: LocalStore, terms: GcTerms, approved: GcPlan | None) -> GcPlan:
    """Remove what is planned, but nothing that was not approved of. Return the plan of what was removed."""
    gone: list[GcPlan] = []
    while True:
        try:
            return _sweep(store, terms, approved).after(gone)
        except NoSpaceError:
            # Blobs that are to be kept need the record, or nobody would find them.
            if terms.keep is not None:
                raise
            plan, part = _make_room(store, terms, approved, leftovers=not gone)
            if part is None and not gone:
                raise
            if part is None:
                # Everything that could go is gone. There is still no room for the record, but nothing needs it.
                return plan.emptied().after(gone)
            gone.append(part)


def _sweep(store: LocalStore, terms: GcTerms, approved: GcPlan | None) -> GcPlan:
    with store.sweeping() as sweep:
        plan = planned_gc(store, terms)
        plan = plan.within(approved) if approved else plan
        sweep.finish_interrupted()
        # Do this first, because on a full disk it may make room for the record.
        sweep.expire(terms.now)
        if plan.blobs or plan.downloads:
            swept = sweep.remove(
                BatchRecord(expires=terms.expires),
                now=terms.now,
                blobs=plan.blobs,
                downloads=plan.downloads,
                latest=plan.latest,
                latest_download=plan.latest_download,
            )
            if swept.doubt:
                raise DamagedStoreError(
                    f"nothing was removed, because it is no longer known which blobs are needed: {swept.doubt}"
                )
            plan = replace(plan.without(swept.stayed), in_use=swept.in_use)
        sweep.clear_leftovers()
    return plan


def _make_room(
    store: LocalStore, terms: GcTerms, approved: GcPlan | None, *, leftovers: bool
) -> tuple[GcPlan, GcPlan | None]:
    """
    Plan again, and remove one part of the plan without a record. Return the plan, and the part or None.

    With `leftovers`, the part is what dead commands left, if there is any. Else it is the blob or download that frees
    the most.
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
            if room.remove(part.entries, latest=plan.latest if part.blobs else plan.latest_download):
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
            RemovedDownload(str(group.digest), len(group.files), _allocated(group)) for group in plan.downloads
        ),
        leftovers=len(plan.leftovers),
        expired=len(plan.expired),
        freed=plan.freed,
        trashed=plan.trashed,
        kept_until=terms.expires,
        download_since=plan.began,
        sees_ollama=terms.sees_ollama,
        partials=terms.partials,
        partials_grace=terms.partials_grace,
        kept_downloads=tuple(
            KeptDownload(
                digest=str(group.digest),
                files=len(group.files),
                allocated=_allocated(group),
                goes_after=group.newest + terms.partials_grace if group.has_rested_since(math.inf) else None,
            )
            for group in plan.resting
        ),
        warnings=plan.warnings,
        in_use=plan.in_use,
    )


def _allocated(group: UnfinishedDownload) -> int:
    return allocated_bytes(file.facts for file in group.files)


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
