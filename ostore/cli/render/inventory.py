"""The summary of `ostore inventory`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, one_line, plural

if TYPE_CHECKING:
    from ostore.api.inventory import InventoryReport


def text(report: InventoryReport) -> str:
    staged = f" ({report.staged:,} of an interrupted import)" if report.staged else ""
    what = f"{plural(report.models, 'model')}, {plural(report.blobs, 'blob')}{staged}, {human_bytes(report.size)}"
    return one_line(f"listed {what} in {report.store}")
