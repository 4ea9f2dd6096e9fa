"""Put the models of a bundle into the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ostore.api.addresses import opened_source
from ostore.formats.errors import InvalidNameError
from ostore.formats.outcome import Forecast, Received
from ostore.formats.selection import Selection
from ostore.operations.transfer import copy
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.settings import choose_store, threads
from ostore.streams.progress import SILENT, Progress

# More names would make a hint unreadable.
_MAX_HINTED = 4


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model of the source. `outcome` is added, replaced, repaired (a broken manifest was there) or already there."""

    name: str
    outcome: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """
    What was imported, or with `dry_run` would be. Sizes are bytes.

    Blobs were written now, resumed (an interrupted import had finished them) or present already. Repaired blobs were
    damaged; they also count as written or resumed.
    """

    source: str
    store: str
    dry_run: bool
    models: tuple[ImportedModel, ...]
    blobs_written: int
    size_written: int
    blobs_resumed: int
    blobs_present: int
    blobs_repaired: int
    warnings: tuple[str, ...]


def import_bundle(
    source: str | Path,
    names: Sequence[str] = (),
    *,
    replace: bool = False,
    trust_existing: bool = False,
    dry_run: bool = False,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> ImportReport:
    """
    Put the models of `source` into the store: a bundle file, a folder with a store, or `-` for standard input.

    `names` (or globs) choose some of the models; the default is all. Existing blobs are hashed before a model relies on
    them, unless `trust_existing` is set, and damaged ones are replaced. `replace` allows overwriting a different model
    of the same name. With `dry_run`, nothing is written. Models become visible at the end; after an error, none does. A
    crash leaves whole models, and finished blobs that the next import uses.

    Raises NotFoundError, UsageError, IntegrityError, BusyError, NoSpaceError, UnsafeError, DamagedStoreError,
    FormatError, LimitError, OSError.
    """
    choice = choose_store(models)
    store = LocalStore(choice.path)
    sink = StoreSink(
        store,
        replace=replace,
        trust_existing=trust_existing,
        make_parents=choice.reason not in {"flag", "environment"},
        jobs=threads(jobs),
        progress=progress,
    )
    with opened_source(source, jobs=threads(jobs)) as bundle:
        selection = bundle.select(names)
        with _hinting_at_the_others(selection):
            if dry_run:
                return _foreseen(source, store, sink.compare(selection), selection)
            received = copy(bundle, sink, selection, phase="importing", progress=progress)
    return _report(source, store, received, len(received.present), selection, dry_run=False)


@contextmanager
def _hinting_at_the_others(selection: Selection) -> Iterator[None]:
    """Add to a refusal of a name that the disk cannot hold how to import the models with other names."""
    try:
        yield
    except InvalidNameError as error:
        others = [f"--model {model.name}" for model in selection.models if not model.name.windows_problem()]
        if others:
            chosen = " ".join(others) if len(others) <= _MAX_HINTED else "--model NAME, or a glob, as often as needed,"
            error.hint = f"{chosen} imports the others"
        raise


def _foreseen(source: str | Path, store: LocalStore, forecast: Forecast, selection: Selection) -> ImportReport:
    present = len(selection.blobs) - len(forecast.missing)
    return _report(source, store, Received(forecast.outcomes, forecast.missing), present, selection, dry_run=True)


def _report(
    source: str | Path, store: LocalStore, received: Received, present: int, selection: Selection, *, dry_run: bool
) -> ImportReport:
    """Report what was received, or would be. `present` is the number of blobs that were in the store already."""
    return ImportReport(
        source=str(source),
        store=str(store.root),
        dry_run=dry_run,
        models=tuple(ImportedModel(str(name), outcome.value) for name, outcome in received.outcomes.items()),
        blobs_written=len(received.written),
        size_written=sum(blob.size for blob in received.written),
        blobs_resumed=len(received.resumed),
        blobs_present=present,
        blobs_repaired=len(received.repaired),
        warnings=selection.warnings,
    )
