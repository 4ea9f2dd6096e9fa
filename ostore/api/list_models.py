"""The command that lists the models of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.formats.errors import NotFoundError
from ostore.formats.name import is_glob, matches_listing
from ostore.formats.unreadable import Unreadable
from ostore.operations.listing import ListedModel, list_rows


@dataclass(frozen=True, slots=True)
class ListReport:
    """Rows newest first, and what stands among them without being a model."""

    store: str
    models: tuple[ListedModel, ...]
    unreadable: tuple[Unreadable, ...]


def list_models(patterns: Sequence[str] = (), *, models: Path | None = None) -> ListReport:
    """
    The models of a store. A pattern is a glob, or a prefix of the name as for `ollama list`; case does not matter.

    Raises NotFoundError if there is no store, or a glob stands for nothing.
    """
    store = chosen_store(models).require()
    scan = store.scan()
    chosen = [model for model in scan.models if not patterns]
    for pattern in patterns:
        matching = [model for model in scan.models if matches_listing(pattern, model.name)]
        if not matching and is_glob(pattern):
            raise NotFoundError(f"no model {pattern!r} in {store.root}")
        chosen += (model for model in matching if model not in chosen)
    return ListReport(
        store=str(store.root),
        models=list_rows(store, chosen, scan.models),
        unreadable=tuple(Unreadable(entry.path, entry.reason) for entry in scan.unreadable),
    )
