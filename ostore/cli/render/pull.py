"""The output of `ostore pull`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.render.export import room_text
from ostore.cli.render.import_ import counts_beside
from ostore.cli.text import human_bytes, human_seconds, one_line, plural

if TYPE_CHECKING:
    from ostore.api.pull import PullReport


def outlook(report: PullReport) -> str:
    """What is about to be fetched, and the room for it."""
    what = f"{plural(len(report.models), 'model')}, {human_bytes(report.size_written)} to fetch"
    return one_line(f"to pull: {what} -> {report.destination}{room_text(report.destination)}")


def text(report: PullReport, seconds: float) -> str:
    lines = [f"  {model.name}: {model.outcome}" for model in report.models]
    return "\n".join([*lines, summary(report, seconds)])


def summary(report: PullReport, seconds: float) -> str:
    verb = "would pull" if report.dry_run else "pulled"
    done = "to fetch" if report.dry_run else "fetched"
    counts = [f"{plural(report.blobs_written, 'blob')} {done} ({human_bytes(report.size_written)})"]
    counts += counts_beside(report)
    took = "" if report.dry_run else f" in {human_seconds(seconds)}"
    size = "" if report.bundle_size is None else f" ({human_bytes(report.bundle_size)})"
    what = f"{verb} {plural(len(report.models), 'model')}: {', '.join(counts)}{took}"
    return one_line(f"{what} -> {report.destination}{size}")
