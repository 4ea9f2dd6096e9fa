"""Give a model a second name."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.typed import typed_models, typed_name
from ostore.formats.errors import UsageError
from ostore.formats.name import is_glob
from ostore.operations.transfer import copy
from ostore.places.store.receiving.sink import StoreSink
from ostore.settings import threads
from ostore.streams.progress import SILENT


@dataclass(frozen=True, slots=True)
class CpReport:
    """
    What became of the new name.

    `outcome` is added, replaced, repaired (a broken manifest had the name) or already there.
    """

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
    Give the model `source` a second name, `destination`. Its manifest is copied byte for byte.

    No blob is copied, except a blob whose file has an old name (`sha256:`). `replace` allows overwriting a different
    model. With `dry_run`, nothing is written.

    Raises NotFoundError, UsageError for a glob, or for a different model of that name without `replace`; IntegrityError
    if a blob of the model is missing or has another size; UnsafeError for a name that is invalid or differs from
    another only by case; DamagedStoreError, AmbiguousManifestError, FormatError or LimitError for a manifest that must
    not travel; NoSpaceError, BusyError, OSError.
    """
    if is_glob(source) or is_glob(destination):
        raise UsageError("cp: expected one model and one new name, got a glob")
    store = chosen_store(models).require()
    target = typed_name(destination)
    selected = store.select(typed_models([source], store))
    (model,) = selected.models
    selection = changed(selected, models=(changed(model, name=target),))
    sink = StoreSink(store, replace=replace, trust_existing=True, jobs=threads(None))
    outcomes = sink.compare(selection).outcomes
    if not dry_run:
        # A blob with an old name is copied to its present name. A missing blob, or one of another size, fails.
        outcomes = copy(store, sink, selection, phase="copying", progress=SILENT).outcomes
    return CpReport(
        store=str(store.root),
        dry_run=dry_run,
        source=str(model.name),
        destination=str(target),
        outcome=outcomes[target].value,
        warnings=selection.warnings,
    )
