"""Say which models of the store are another version elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.basis import opened_basis
from ostore.api.chosen_store import chosen_store
from ostore.api.typed import typed_models
from ostore.formats.name import ModelName
from ostore.formats.store_layout import MANIFESTS
from ostore.operations.inventory import clear_models
from ostore.settings import threads


@dataclass(frozen=True, slots=True)
class OutdatedModel:
    """A model whose tag means another manifest elsewhere: the digests of both."""

    name: str
    here: str
    there: str


@dataclass(frozen=True, slots=True)
class OutdatedReport:
    """The models that differ, the number of those that are the same, and the names that the other place lacks."""

    store: str
    against: str
    models: tuple[OutdatedModel, ...]
    current: int
    unknown: tuple[str, ...]
    warnings: tuple[str, ...]


def outdated(
    names: Sequence[str] = (), *, against: str | Path, jobs: int | None = None, models: Path | None = None
) -> OutdatedReport:
    """
    Compare the tags of the store with those of `against`: an inventory, a bundle, a lock or a folder with a store.

    `names` (or globs) choose some models; the default is all. Only manifests are compared. Raises NotFoundError,
    UsageError, FormatError, IntegrityError, UnsafeError, LimitError, OSError.
    """
    store = chosen_store(models).require_whole()
    scan = store.scan(typed_models(names, store))
    chosen, notes = clear_models(model for model in scan.models if model.tree == MANIFESTS)
    with opened_basis(against, near=store, jobs=threads(jobs)) as basis:
        there = {model.name.folded: model.manifest.digest for model in basis.inventory.models}
    found: list[OutdatedModel] = []
    unknown: list[ModelName] = []
    for model in sorted(chosen, key=lambda model: model.name.full):
        digest = there.get(model.name.folded)
        if digest is None:
            unknown.append(model.name)
        elif digest != model.manifest.digest:
            found.append(OutdatedModel(str(model.name), str(model.manifest.digest), str(digest)))
    return OutdatedReport(
        store=str(store.root),
        against=str(against),
        models=tuple(found),
        current=len(chosen) - len(found) - len(unknown),
        unknown=tuple(map(str, unknown)),
        warnings=(*notes, *(f"{entry.path}: not compared: {entry.reason}" for entry in scan.unreadable)),
    )
