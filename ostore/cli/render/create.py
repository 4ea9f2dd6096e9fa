"""The output of `ostore create`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, one_line, plural

if TYPE_CHECKING:
    from ostore.api.create import CreateReport


def text(report: CreateReport) -> str:
    if report.outcome == "already there":
        return one_line(f"{report.model} is already there, and the same")
    size = human_bytes(sum(layer.size for layer in report.layers))
    copied = f"{human_bytes(report.size_copied)} copied" if report.size_copied else "nothing copied"
    linked = f", {human_bytes(report.size_linked)} linked (file and blob are one file)" if report.size_linked else ""
    how = "" if report.outcome == "added" else f" ({report.outcome})"
    return one_line(f"created {report.model}{how}: {plural(len(report.layers), 'layer')}, {size}, {copied}{linked}")
