"""Find what would surprise a person later, and fix what can be fixed without loss."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ostore.formats.store_layout import BLOBS
from ostore.operations.doctor.finding import Facts, Finding
from ostore.operations.verify import Verdict
from ostore.places.store.fixing import Fix
from ostore.places.store.store import LocalStore
from ostore.settings import surroundings
from ostore.streams.disk import DiskState
from ostore.streams.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """
    What was looked at, and every finding, the most severe first.

    `models` and `blobs` are counts, `size` is the bytes of the blobs. `server` is the user that Ollama is taken to run
    as, or None on Windows. `fixes` are the steps that `fix` would take, or has taken.
    """

    store: str
    server: str | None
    models: int
    blobs: int
    size: int
    findings: tuple[Finding, ...]
    fixes: tuple[Fix, ...]
    verdict: Verdict


def doctor(*, models: Path | None = None) -> DoctorReport:
    """
    Look for everything in and around a store that would surprise a person later. Nothing is hashed or written.

    What is wrong is a finding in the report, not an error. The report's `fixes` are the steps that `fix` can take.
    Raises NotFoundError if there is no store, UsageError if it is not a folder, OSError if we may not enter it.
    """
    from ostore.operations.doctor.diagnosis import plan_fixes

    report = _report(_facts(models))
    return _with_fixes(report, plan_fixes(report.findings))


def fix(fixes: Sequence[Fix], *, progress: Progress = SILENT, models: Path | None = None) -> DoctorReport:
    """
    Take the steps in `fixes` that are still due, look at the store again, and return a new report.

    `fixes` comes from the report of `doctor`. Every blob of a model is hashed before the digests in its manifest are
    written right. Nothing is deleted: what is in the way goes to `.ostore/quarantine`. The `fixes` of the new report
    have the outcome of each step. Raises NotFoundError if there is no store, UsageError if it is not a folder,
    BusyError, UnsafeError, OSError if it cannot be written to.
    """
    from ostore.operations.doctor.diagnosis import plan_fixes
    from ostore.places.store.fixing import fix_store

    facts = _facts(models)
    due = set(plan_fixes(_report(facts).findings))
    steps = [step for step in fixes if step in due]
    gone = [replace(step, outcome="no longer due") for step in fixes if step not in due]
    taken = fix_store(facts.root, steps, progress) if steps else ()
    report = _report(_facts(models))
    if report.verdict == "whole" and any(step.outcome != "fixed" for step in taken):
        # What is left may be only a warning, but it was to be fixed, so the command must not succeed.
        report = replace(report, verdict="io")
    return _with_fixes(report, (*taken, *gone))


def _facts(models: Path | None) -> Facts:
    from ostore.host.discovery import find_store
    from ostore.host.machine import read_host
    from ostore.operations.listing import is_cloud_stub, is_unlisted
    from ostore.operations.loading import find_unloadable
    from ostore.places.store.survey.examination import examine

    known, now = surroundings(), time.time()
    # `choose_store` would refuse a path that is a finding here.
    choice = find_store(known, models)
    store = LocalStore(choice.path).require()
    disk = _disk(store)
    host, account = read_host(known, choice, _count_models)
    found = examine(store.root, account, with_empty_folders=disk.is_read_only, now=now)
    return Facts(
        store=found,
        disk=disk,
        host=host,
        stubs=tuple(str(model.name) for model in found.scan.models if is_cloud_stub(store, model.manifest)),
        unlisted=tuple(str(model.name) for model in found.scan.models if is_unlisted(store, model.manifest)),
        unloadable=find_unloadable(store, found.scan.models),
        now=now,
    )


def _count_models(store: Path) -> int:
    from ostore.places.store.survey.manifest_tree import find_manifests

    return len(find_manifests(store).entries)


def _disk(store: LocalStore) -> DiskState:
    """Return the state of the disk with the blobs, which may be a link to another disk, or else of the store's disk."""
    from ostore.streams.disk import read_disk

    try:
        return read_disk(store.root / BLOBS)
    except OSError:
        return read_disk(store.root)


def _report(facts: Facts) -> DoctorReport:
    from ostore.operations.doctor.diagnosis import diagnose
    from ostore.places.store.survey.census import apparent_bytes

    diagnosis = diagnose(facts)
    blobs, settled = facts.store.census.blobs if facts.store.census else (), facts.store.settled
    return DoctorReport(
        store=str(facts.root),
        server=facts.store.account.name if facts.store.account else None,
        models=len(facts.store.scan.models),
        blobs=settled.count + len(blobs),
        size=settled.size + apparent_bytes(blob.facts for blob in blobs),
        findings=diagnosis.findings,
        fixes=(),
        verdict=diagnosis.verdict,
    )


def _with_fixes(report: DoctorReport, fixes: Sequence[Fix]) -> DoctorReport:
    return replace(report, fixes=tuple(fixes))
