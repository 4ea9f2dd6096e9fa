"""Repair what is only spelled wrong: names of blobs, and digests in manifests. No source is needed for that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ostore.api.repair.damage import Damage
from ostore.api.repair.report import Repaired, RepairReport
from ostore.formats.digest import blob_digest
from ostore.operations.verify import Problem, VerifyReport
from ostore.places.store.fixing import Fix, fix_store
from ostore.streams.progress import Progress


def with_spelling(damage: Damage, report: RepairReport, progress: Progress) -> RepairReport:
    """
    Rename misnamed blobs, write misspelled digests right, and return the report of all that was repaired.

    With `report.dry_run`, nothing is changed. Raises BusyError, UnsafeError, OSError.
    """
    steps = dict(_steps(damage, report))
    if not steps:
        return report
    if report.dry_run:
        outcomes = {problem: replace(step, outcome="fixed") for problem, step in steps.items()}
    else:
        outcomes = dict(zip(steps, fix_store(damage.store.root, list(steps.values()), progress), strict=True))
    left = [_still(problem, outcomes.get(problem)) for problem in report.left]
    remaining = [problem for problem in left if problem]
    kept = [
        str(damage.store.root / fix.target)
        for fix in outcomes.values()
        if fix.action == "respell" and fix.outcome == "fixed" and not report.dry_run
    ]
    return replace(
        report,
        repaired=(*report.repaired, *(_repaired(problem, fix) for problem, fix in outcomes.items() if _is_done(fix))),
        left=tuple(remaining),
        quarantine=(*report.quarantine, *kept),
        verdict=VerifyReport.of(report.store, 0, (), remaining).verdict,
    )


def _steps(damage: Damage, report: RepairReport) -> Iterator[tuple[Problem, Fix]]:
    paths = {str(model.name): model.relative for model in damage.scan.models}
    for problem in report.left:
        if problem.kind == "blob-misnamed":
            digest = blob_digest(problem.subject.rpartition("/")[2])
            if digest:
                yield problem, Fix("rename", problem.subject, f"blobs/{digest.filename}")
        elif problem.kind == "digest-spelling":
            yield problem, Fix("respell", paths[problem.subject])


def _still(problem: Problem, fix: Fix | None) -> Problem | None:
    if fix is None:
        return problem
    return None if _is_done(fix) else replace(problem, detail=f"{problem.detail}; not repaired: {fix.outcome}")


def _is_done(fix: Fix) -> bool:
    return fix.outcome == "fixed"


def _repaired(problem: Problem, fix: Fix) -> Repaired:
    kind = "name" if fix.action == "rename" else "spelling"
    return Repaired(kind, problem.subject, fix.target, 0, problem.models)
