"""The output of `ostore list`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ostore.cli.text import human_age, human_bytes, one_line, table

if TYPE_CHECKING:
    from ostore.api.list_models import ListReport
    from ostore.operations.listing import ListedModel


def ordered(report: ListReport, order: str) -> ListReport:
    """Return the report with its models sorted by name, size or unique; any other order is that of the report."""
    keys: dict[str, Callable[[ListedModel], tuple[object, ...]]] = {
        "name": lambda row: (row.name,),
        "size": lambda row: (-(row.size or 0), row.name),
        "unique": lambda row: (-row.unique_size, row.name),
    }
    return replace(report, models=tuple(sorted(report.models, key=keys[order]))) if order in keys else report


def nothing(report: ListReport, patterns: Sequence[str]) -> str:
    """What to say instead of rows."""
    if patterns:
        # A password may stand before an '@', and no name has one.
        words = [word.rpartition("@")[2] for word in patterns]
        return one_line(f"no model in {report.store} begins with {' or '.join(words)}")
    found = [f"{store.models:,} {'is' if store.models == 1 else 'are'} in {store.path}" for store in report.elsewhere]
    return one_line("; ".join([f"no models in {report.store}", *found]))


def text(report: ListReport) -> str:
    now = time.time()
    rows = [
        (
            row.name,
            row.id,
            "-" if row.size is None else human_bytes(row.size),
            human_age(now - row.modified),
            human_bytes(row.unique_size),
        )
        for row in report.models
    ]
    return table(("NAME", "ID", "SIZE", "MODIFIED", "UNIQUE"), rows)


def warnings(report: ListReport) -> Iterator[str]:
    """Remarks on models, and what is not a model."""
    yield from (f"{row.name}: {row.note}" for row in report.models if row.note)
    yield from (f"{entry.path}: {entry.reason}" for entry in report.unreadable)
    yield from report.warnings
