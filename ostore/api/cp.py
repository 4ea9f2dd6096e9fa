"""The command that gives a model a second name."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.formats.errors import UsageError
from ostore.formats.name import ModelName, is_glob
from ostore.operations.transfer import copy
from ostore.places.store.receiving.sink import StoreSink
from ostore.settings import threads
from ostore.streams.progress import SILENT


@dataclass(frozen=True, slots=True)
class CpReport:
    """What became of the new name: `outcome` is added, replaced, repaired or already there."""

    store: str
    dry_run: bool
    source: str
    destination: str
    outcome: str
    warnings: tuple[str, ...]


def cp(
    source: str, destination: str, *, replace: bool = False, dry_run: bool = False, models: Path | None = None
) -> CpReport:
    """
    Give a model a second name: its manifest is copied, byte for byte, and no blob is.

    A different model of that name is a UsageError without `replace`. Raises NotFoundError, IntegrityError if a blob of
    the model is missing or of another size, UnsafeError for a name that differs from another only by case,
    DamagedStoreError, AmbiguousManifestError, FormatError, BusyError, OSError.
    """
    if is_glob(source) or is_glob(destination):
        raise UsageError("cp takes one model and one new name, and no glob")
    store = chosen_store(models).require()
    target = ModelName.parse(destination)
    selected = store.select([source])
    (model,) = selected.models
    selection = changed(selected, models=(changed(model, name=target),))
    sink = StoreSink(store, replace=replace, trust_existing=True, jobs=threads(None))
    outcomes = sink.compare(selection).outcomes
    if not dry_run:
        # Blobs that are not where a store keeps them now, or are not whole, make it fail.
        outcomes = copy(store, sink, selection, phase="copying", progress=SILENT).outcomes
    return CpReport(
        store=str(store.root),
        dry_run=dry_run,
        source=str(model.name),
        destination=str(target),
        outcome=outcomes[target].value,
        warnings=selection.warnings,
    )
