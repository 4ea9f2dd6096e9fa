"""The output of `ostore sync`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ostore.cli.render import rm
from ostore.cli.render.export import room_text
from ostore.cli.text import human_bytes, human_seconds, one_line, plural

if TYPE_CHECKING:
    from ostore.api.sync.sync import SyncReport


def outlook(report: SyncReport) -> str:
    """What is about to be copied, and the room for it."""
    what = f"{plural(len(report.models), 'model')}, {human_bytes(report.size_written)}"
    room = "" if "://" in report.destination else room_text(report.destination)
    return one_line(f"to copy: {what} -> {report.destination}{room}")


def plan(report: SyncReport) -> str:
    """What would be copied and removed, for the question."""
    return "\n".join([text(report, 0.0), *(f"  {warning}" for warning in warnings(report))])


def text(report: SyncReport, seconds: float) -> str:
    lines = [_line(model.name, model.target, model.outcome) for model in report.models]
    lines.append(_copied(report, seconds))
    if report.removed:
        lines.append(rm.text(report.removed, verbose=False))
    return "\n".join(lines)


def summary(report: SyncReport, seconds: float) -> str:
    return "; ".join([_copied(report, seconds), *([rm.summary(report.removed)] if report.removed else ())])


def warnings(report: SyncReport) -> Iterator[str]:
    """What a removal warns of."""
    if report.removed:
        yield from rm.warnings(report.removed, report.destination)


def _line(name: str, target: str, outcome: str) -> str:
    return one_line(f"  {name}: {outcome}" if name == target else f"  {name} -> {target}: {outcome}")


def _copied(report: SyncReport, seconds: float) -> str:
    verb, what = ("would copy", "to write") if report.dry_run else ("copied", "written")
    same = f"{plural(report.same, 'model')} the same"
    if not report.models:
        return one_line(f"nothing to copy: {same} -> {report.destination}")
    counts = [f"{plural(report.blobs_written, 'blob')} {what} ({human_bytes(report.size_written)})"]
    counts += [f"{report.blobs_resumed:,} resumed"] if report.blobs_resumed else []
    counts += [f"{report.blobs_present:,} already there"] if report.blobs_present else []
    counts += [same] if report.same else []
    took = "" if report.dry_run else f" in {human_seconds(seconds)}"
    return one_line(f"{verb} {plural(len(report.models), 'model')}: {', '.join(counts)}{took} -> {report.destination}")
