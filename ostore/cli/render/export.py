"""The output of `ostore export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, human_seconds, plural

if TYPE_CHECKING:
    from ostore.api.export import ExportReport


def text(report: ExportReport, seconds: float) -> str:
    verb = "would export" if report.dry_run else "exported"
    shared = f" ({human_bytes(report.shared_size)} shared once)" if report.shared_size else ""
    lines = [f"  {name}" for name in report.models] if report.dry_run else []
    what = f"{plural(len(report.models), 'model')}, {plural(report.blobs, 'blob')}, {human_bytes(report.size)}{shared}"
    took = "" if report.dry_run else f" in {human_seconds(seconds)}"
    size = "" if report.bundle_size is None else f" ({human_bytes(report.bundle_size)})"
    return "\n".join([*lines, f"{verb} {what}{took} -> {report.destination}{size}"])
