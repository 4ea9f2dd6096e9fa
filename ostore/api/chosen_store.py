"""Find the store of a command."""

from __future__ import annotations

from pathlib import Path

from ostore.places.store.store import LocalStore
from ostore.settings import choose_store


def chosen_store(models: Path | None) -> LocalStore:
    """
    Return the store at `models`, or else the store that `where` finds. It need not exist.

    Raises NotFoundError if no store is named and there is no home folder, UsageError if Ollama cannot use the path.
    """
    return LocalStore(choose_store(models).path)
