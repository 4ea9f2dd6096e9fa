"""The output of `ostore repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.remedies import line
from ostore.cli.render.verify import problem_line
from ostore.cli.text import human_bytes, human_seconds, one_line, plural

if TYPE_CHECKING:
    from ostore.api.repair.report import Repaired, RepairReport


_KINDS = ("blob", "manifest", "name", "spelling")


def text(report: RepairReport, seconds: float) -> str:
    lines = [_repaired_line(item, dry_run=report.dry_run) for item in report.repaired]
    lines += (problem_line(problem, "left: ") for problem in report.left)
    lines += (one_line(f"  kept: {path}") for path in report.quarantine)
    remedy = [f"  -> {line(report.remedy)}"] if report.remedy else []
    return "\n".join([*lines, summary(report, seconds), *remedy])


def summary(report: RepairReport, seconds: float) -> str:
    if not report.repaired and not report.left:
        checked = f"{plural(report.models, 'model')}, {plural(report.blobs, 'blob')}, {human_bytes(report.size)}"
        return f"nothing to repair: {checked} verified in {human_seconds(seconds)} ({one_line(report.store)})"
    took = "" if report.dry_run or not report.repaired else f" in {human_seconds(seconds)}"
    left = f"; {plural(len(report.left), 'problem')} left" if report.left else ""
    return f"{_counts(report)}{took}{left} ({one_line(report.store)})"


def _counts(report: RepairReport) -> str:
    verb = "would repair" if report.dry_run else "repaired"
    counts = [(kind, sum(item.kind == kind for item in report.repaired)) for kind in _KINDS]
    what = ", ".join(plural(count, kind) for kind, count in counts if count)
    return f"{verb} {what}, {human_bytes(sum(item.size for item in report.repaired))}" if what else f"{verb} nothing"


def _repaired_line(item: Repaired, *, dry_run: bool) -> str:
    if item.kind == "name":
        return one_line(f"  {'would rename' if dry_run else 'renamed'}: {item.subject} -> {item.source}")
    if item.kind == "spelling":
        verb = "would write" if dry_run else "wrote"
        return one_line(f"  {verb} the digests of {item.subject} as Ollama does; its ID changes")
    users = f"; used by {', '.join(item.models)}" if item.models and item.kind == "blob" else ""
    verb = "would repair" if dry_run else "repaired"
    return one_line(f"  {verb}: {item.kind} {item.subject}, {human_bytes(item.size)}, from {item.source}{users}")
