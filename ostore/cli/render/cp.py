"""The output of `ostore cp`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.text import one_line

if TYPE_CHECKING:
    from ostore.api.cp import CpReport


def text(report: CpReport) -> str:
    if report.outcome == "already there":
        return one_line(f"{report.destination} is already there, and the same as {report.source}")
    verb = "would copy" if report.dry_run else "copied"
    how = "" if report.outcome == "added" else f" ({report.outcome})"
    return one_line(f"{verb} {report.source} to {report.destination}{how}")
