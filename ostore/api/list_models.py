"""List the models of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.typed import listed, refuse_folder
from ostore.formats.name import ModelName, is_glob, matches_listing
from ostore.formats.unreadable import Unreadable
from ostore.operations.listing import ListedModel, list_rows


@dataclass(frozen=True, slots=True)
class ListReport:
    """
    The models, newest first, and the entries among their manifests that cannot be read as models.

    `warnings` are about whatever else is odd in the store.
    """

    store: str
    models: tuple[ListedModel, ...]
    unreadable: tuple[Unreadable, ...]
    warnings: tuple[str, ...]


def list_models(patterns: Sequence[str] = (), *, models: Path | None = None) -> ListReport:
    """
    Return the models of a store that match any of `patterns`; the default is all.

    A pattern is a glob, or a prefix of a name as in `ollama list`. Case does not matter. Raises NotFoundError if there
    is no store or a glob matches no model, UsageError if the store is not a folder, OSError.
    """
    wanted = listed(patterns)
    store = chosen_store(models).require()
    scan = store.passing_scan()
    matched: set[str] = set()

    def is_chosen(name: ModelName) -> bool:
        matching = [pattern for pattern in wanted if matches_listing(pattern, name)]
        matched.update(matching)
        return bool(matching) or not wanted

    rows = list_rows(store, scan.models, is_chosen)
    for pattern in wanted:
        if pattern not in matched:
            refuse_folder(pattern)
            if is_glob(pattern):
                raise store.no_model(pattern)
    return ListReport(
        store=str(store.root),
        models=rows,
        unreadable=tuple(Unreadable(entry.path, entry.reason) for entry in (*scan.tree.closed, *scan.unreadable)),
        warnings=(*store.told_half(), *store.told(scan, "counted")),
    )
