"""Say which store is used, and why."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ostore.host.accounts import owner_of
from ostore.host.discovery import FoundStore, doubts_of_choice, find_store, other_stores
from ostore.settings import surroundings


@dataclass(frozen=True, slots=True)
class WhereReport:
    """
    The store that is used, and why.

    `reason` and `detail` say what decided. `owner` is a user name or number, and None on Windows; `free` is the free
    bytes of the disk. Both are None if the store does not exist. `others` are other stores on this machine. `warnings`
    say what a person probably did not mean by the setting that decided.
    """

    store: str
    exists: bool
    reason: str
    detail: str
    owner: str | None
    free: int | None
    others: tuple[FoundStore, ...]
    warnings: tuple[str, ...]


def where(*, models: Path | None = None) -> WhereReport:
    """
    Return which store is used, why, and which others there are. The store need not exist.

    Raises NotFoundError if nothing names a store and there is no home folder.
    """
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
        warnings=doubts_of_choice(known, choice),
    )
