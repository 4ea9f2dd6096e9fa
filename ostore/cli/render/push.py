"""The output of `ostore push`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, human_seconds, one_line, plural

if TYPE_CHECKING:
    from ostore.api.push import PushReport


def outlook(report: PushReport) -> str:
    """What is about to be sent."""
    return f"to push: {plural(len(report.models), 'model')}, {human_bytes(report.size_sent)} to send"


def text(report: PushReport, seconds: float) -> str:
    lines = [one_line(f"  {model.name} -> {model.target}: {model.outcome}") for model in report.models]
    return "\n".join([*lines, summary(report, seconds)])


def summary(report: PushReport, seconds: float) -> str:
    verb, what = ("would push", "to send") if report.dry_run else ("pushed", "sent")
    counts = [f"{plural(report.blobs_sent, 'blob')} {what} ({human_bytes(report.size_sent)})"]
    if report.size_resumed:
        counts.append(f"{human_bytes(report.size_resumed)} sent before")
    if report.blobs_mounted:
        counts.append(f"{report.blobs_mounted:,} taken over there")
    if report.blobs_present:
        counts.append(f"{report.blobs_present:,} already there")
    took = "" if report.dry_run else f" in {human_seconds(seconds)}"
    return f"{verb} {plural(len(report.models), 'model')}: {', '.join(counts)}{took}"
