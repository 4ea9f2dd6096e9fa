"""The output of `ostore export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, human_seconds, one_line, plural
from ostore.streams.space import room_at

if TYPE_CHECKING:
    from ostore.api.export import ExportReport


def outlook(report: ExportReport) -> str:
    """What is about to be written, and the room for it."""
    what = f"{plural(len(report.models), 'model')}, {human_bytes(report.size)}"
    return one_line(f"to export: {what} -> {report.destination}{room_text(report.destination)}")


def room_text(place: str) -> str:
    """How much is free where something is to be written."""
    room = None if place == "-" else room_at(Path(place))
    return "" if room is None else f" ({human_bytes(room)} free)"


def text(report: ExportReport, seconds: float) -> str:
    verb = "would export" if report.dry_run else "exported"
    shared = f" ({human_bytes(report.shared_size)} shared once)" if report.shared_size else ""
    lines = [f"  {name}" for name in report.models] if report.dry_run else []
    what = f"{plural(len(report.models), 'model')}, {plural(report.blobs, 'blob')}, {human_bytes(report.size)}{shared}"
    took = "" if report.dry_run else f" in {human_seconds(seconds)}"
    size = "" if report.bundle_size is None else f" ({human_bytes(report.bundle_size)})"
    return "\n".join([*lines, f"{verb} {what}{took} -> {report.destination}{size}"])
