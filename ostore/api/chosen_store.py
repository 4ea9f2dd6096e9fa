"""Which store a command is about."""

from __future__ import annotations

from pathlib import Path

from ostore.places.store.store import LocalStore
from ostore.settings import choose_store


def chosen_store(models: Path | None) -> LocalStore:
    """The store at `models`, else the one that `where` finds, there or not. Raises as `choose_store`."""
    return LocalStore(choose_store(models).path)
