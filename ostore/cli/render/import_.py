"""The output of `ostore import`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.render.export import room_text
from ostore.cli.text import human_bytes, human_seconds, one_line, plural

if TYPE_CHECKING:
    from ostore.api.import_bundle import ImportReport, Resend
    from ostore.api.pull import PullReport


def outlook(report: ImportReport) -> str:
    """What is about to be written, and the room for it."""
    what = f"{plural(len(report.models), 'model')}, {human_bytes(report.size_written)} to write"
    return one_line(f"to import: {what} -> {report.store}{room_text(report.store)}")


def text(report: ImportReport, seconds: float) -> str:
    lines = [f"  {model.name}: {model.outcome}" for model in report.models]
    return "\n".join([*lines, summary(report, seconds)])


def summary(report: ImportReport, seconds: float) -> str:
    counts = [f"{plural(report.blobs_written, 'blob')} written ({human_bytes(report.size_written)})"]
    counts += counts_beside(report)
    if report.dry_run:
        return f"would import {plural(len(report.models), 'model')}: {', '.join(counts)}"
    done = f"imported {plural(len(report.models), 'model')}: {', '.join(counts)}"
    return f"{done} in {human_seconds(seconds)} -> {report.store}"


def to_resend(lacking: Resend) -> str:
    """What to send again, as a lock file: its lines are those of models, and its remarks the blobs that they lack."""
    models = [f"{model.digest}  {model.name}" for model in lacking.models]
    return "\n".join(["# to resend:", *models, *(f"# lacks {digest}" for digest in lacking.blobs)])


def counts_beside(report: ImportReport | PullReport) -> list[str]:
    """What became of the blobs that were not written now."""
    counts = (
        (report.blobs_resumed, "resumed"),
        (report.blobs_present, "already there"),
        (report.blobs_repaired, "repaired"),
    )
    return [f"{count:,} {what}" for count, what in counts if count]
