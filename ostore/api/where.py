"""The command that says which store is used, and why."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ostore.host.accounts import owner_of
from ostore.host.discovery import FoundStore, find_store, other_stores
from ostore.settings import surroundings


@dataclass(frozen=True, slots=True)
class WhereReport:
    """Which store is used and why; `free` is bytes, `owner` a user name or number, both None if it is not there."""

    store: str
    exists: bool
    reason: str
    detail: str
    owner: str | None
    free: int | None
    others: tuple[FoundStore, ...]


def where(*, models: Path | None = None) -> WhereReport:
    """Which store is used, why, and which others there are. Raises NotFoundError without a home folder."""
    known = surroundings()
    choice = find_store(known, models)
    exists = choice.path.is_dir()
    return WhereReport(
        store=str(choice.path),
        exists=exists,
        reason=choice.reason,
        detail=choice.detail,
        owner=owner_of(choice.path) if exists else None,
        free=shutil.disk_usage(choice.path).free if exists else None,
        others=other_stores(known, choice),
    )
