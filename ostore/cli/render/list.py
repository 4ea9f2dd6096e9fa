"""The output of `ostore list`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ostore.cli.text import human_age, human_bytes, table

if TYPE_CHECKING:
    from ostore.api.list_models import ListReport


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
