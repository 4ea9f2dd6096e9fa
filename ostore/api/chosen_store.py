"""Find the store of a command."""

from __future__ import annotations

from pathlib import Path

from ostore.formats.errors import NotFoundError
from ostore.host.discovery import doubts_of_choice
from ostore.places.store.store import LocalStore
from ostore.settings import choose_store, surroundings


def chosen_store(models: Path | None) -> LocalStore:
    """
    Return the store at `models`, or else the store that `where` finds. It need not exist.

    Raises NotFoundError if no store is named and there is no home folder, or if nothing is where OLLAMA_MODELS points
    and that has a spelling that nobody means; UsageError if Ollama cannot use the path.
    """
    choice = choose_store(models)
    if not choice.path.exists():
        for doubt in doubts_of_choice(surroundings(), choice):
            raise NotFoundError(f"{choice.path}: no such store", hint=doubt)
    return LocalStore(choice.path)
