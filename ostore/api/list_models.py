"""List the models of a store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.typed import models_of_ids, refuse_folder, refuse_login, words_of
from ostore.formats.name import ModelName, is_glob, matches_listing
from ostore.formats.unreadable import Unreadable
from ostore.operations.listing import ListedModel, list_rows


@dataclass(frozen=True, slots=True)
class StoreElsewhere:
    """Another store on this machine, and the number of its models."""

    path: str
    models: int


@dataclass(frozen=True, slots=True)
class ListReport:
    """
    The models, newest first, and the entries among their manifests that cannot be read as models.

    `warnings` are about whatever else is odd in the store. If the store has no model, `elsewhere` are the stores on
    this machine that have some.
    """

    store: str
    models: tuple[ListedModel, ...]
    unreadable: tuple[Unreadable, ...]
    warnings: tuple[str, ...]
    elsewhere: tuple[StoreElsewhere, ...]


def list_models(patterns: Sequence[str] = (), *, models: Path | None = None) -> ListReport:
    """
    Return the models of a store that match any of `patterns`; the default is all.

    A pattern is a glob, a prefix of a name as in `ollama list`, or else an ID. Case does not matter. Raises
    NotFoundError if there is no store or a glob matches no model, UsageError if the store is not a folder, OSError.
    """
    wanted = words_of(patterns)
    store = chosen_store(models).require()
    by_id = models_of_ids(wanted, store)
    scan = store.passing_scan()
    matched: set[str] = set()

    def is_chosen(name: ModelName) -> bool:
        matching = [word for word in wanted if matches_listing(word, name) or name in by_id.get(word, ())]
        matched.update(matching)
        return bool(matching) or not wanted

    rows = list_rows(store, scan.models, is_chosen)
    for pattern in wanted:
        if pattern not in matched:
            refuse_folder(pattern)
            if is_glob(pattern):
                refuse_login(pattern)
                raise store.no_model(pattern, scan.tree)
    return ListReport(
        store=str(store.root),
        models=rows,
        unreadable=tuple(Unreadable(entry.path, entry.reason) for entry in (*scan.tree.closed, *scan.unreadable)),
        warnings=(*store.told_half(), *store.told(scan, "counted")),
        elsewhere=() if rows or patterns else tuple(_elsewhere(models)),
    )


def _elsewhere(models: Path | None) -> Iterator[StoreElsewhere]:
    from ostore.host.discovery import find_store, other_stores
    from ostore.places.store.survey.manifest_tree import find_manifests
    from ostore.settings import surroundings

    known = surroundings()
    for store in other_stores(known, find_store(known, models)):
        with contextlib.suppress(OSError):
            count = sum(entry.name is not None for entry in find_manifests(Path(store.path)).entries)
            if count:
                yield StoreElsewhere(str(store.path), count)
