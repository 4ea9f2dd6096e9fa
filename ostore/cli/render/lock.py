"""What `ostore lock --update` has changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ostore.cli.text import one_line, plural

if TYPE_CHECKING:
    from ostore.api.lock import ChangedLock, LockReport


def text(report: LockReport) -> str:
    return "\n".join([*(line for change in report.changes for line in _lines(change)), summary(report)])


def summary(report: LockReport) -> str:
    counts = {
        "added": sum(change.old is None for change in report.changes),
        "changed": sum(None not in (change.old, change.new) for change in report.changes),
        "removed": sum(change.new is None for change in report.changes),
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing changed"
    would = "would be " if report.dry_run and report.changes else ""
    return one_line(f"{report.file}: {would}{told}; {plural(report.models, 'model')}")


def _lines(change: ChangedLock) -> Iterator[str]:
    """As a diff of the file shows them."""
    for mark, digest in (("-", change.old), ("+", change.new)):
        if digest:
            yield f"{mark}{digest}  {change.name}"
