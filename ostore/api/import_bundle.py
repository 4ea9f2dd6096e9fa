"""Put the models of a bundle into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import partial
from pathlib import Path

from ostore.api.addresses import opened_source
from ostore.api.chosen_store import refuse_nothing
from ostore.api.typed import is_place, means_name, typed_models_of, words_of
from ostore.api.volumes import Word, gathered, repaired, volumes_of
from ostore.formats.errors import InvalidNameError, NotFoundError, VolumesError
from ostore.formats.name import is_glob
from ostore.formats.outcome import Forecast, Received
from ostore.formats.remedy import Remedy, ostore
from ostore.formats.selection import OmittedModel, Selection
from ostore.host.discovery import doubts_of_choice
from ostore.operations.transfer import Source, copy, copy_sound
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.settings import choose_store, surroundings, threads
from ostore.streams.progress import SILENT, Progress

# More names would make a hint unreadable.
_MAX_HINTED = 4


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model of the source. `outcome` is added, replaced, repaired (a broken manifest was there) or already there."""

    name: str
    outcome: str


@dataclass(frozen=True, slots=True)
class UsedParity:
    """The recovery blocks that repaired volumes of the source, and those that were there and not needed."""

    used: int
    spare: int


@dataclass(frozen=True, slots=True)
class ImportReport:
    """
    What was imported, or with `dry_run` would be. Sizes are bytes.

    Blobs were written now, resumed (an interrupted import had finished them) or present already. Repaired blobs were
    damaged; they also count as written or resumed. `left_out` are models that could not be taken. `parity` is None if
    no volume had to be repaired.
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
    left_out: tuple[OmittedModel, ...]
    warnings: tuple[str, ...]
    parity: UsedParity | None = None


def planned_imports(
    sources: Sequence[Word], names: Sequence[str] = (), *, jobs: int | None = None
) -> list[tuple[Word, list[str]]]:
    """
    Look at several sources before anything is imported. Return those that are needed, each with its part of `names`.

    Volumes of one bundle become one source. A folder without a store is where volumes of the others are looked for.
    Each name has to be in one of the sources, not in each. What is on standard input cannot be known before. Raises
    TypeError, NotFoundError, UsageError, and the errors of a bad bundle, OSError.
    """
    wanted = words_of(names)
    sources = gathered(sources)
    if len(sources) < 2:  # noqa: PLR2004 - one source is looked at when it is imported
        return [(source, wanted) for source in sources]
    found: list[tuple[Word, list[str]]] = []
    missing: list[tuple[str, NotFoundError]] = []
    for source in sources:
        if str(source) == "-":
            found.append((source, wanted))
            continue
        try:
            with opened_source(source, jobs=threads(jobs)) as bundle:
                here = [name for name in wanted if _has(bundle, name)]
        except NotFoundError as error:
            missing.append((str(source), error))
        except VolumesError:
            # The import may be able to repair it.
            found.append((source, wanted))
        else:
            found += [(source, here)] if here or not wanted else []
    if missing:
        word, first = missing[0]
        first.hint = _model_in(word, [source for source, _ in found], jobs=threads(jobs)) or first.hint
        raise first
    taken = {name for _, here in found for name in here}
    for name in wanted:
        if name not in taken:
            hint = ostore("inspect", sources[0], after="shows what the first of them holds")
            raise NotFoundError(f"no model {name!r} in any of the {len(sources)} sources", hint=hint)
    return found


def import_bundle(
    source: Word,
    names: Sequence[str] = (),
    *,
    replace: bool = False,
    trust_existing: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    jobs: int | None = None,
    progress: Progress = SILENT,
    before: Callable[[ImportReport], object] | None = None,
    models: Path | None = None,
) -> ImportReport:
    """
    Put the models of `source` into the store: a bundle file, a bundle in volumes, a folder with a store, or `-` for
    standard input. Volumes that are missing or damaged are repaired from their parity, if that suffices, in a folder
    apart.

    `names` (or globs) choose some of the models; the default is all. Existing blobs are hashed before a model relies on
    them, unless `trust_existing` is set, and damaged ones are replaced. `replace` allows overwriting a different model
    of the same name. A model whose name clashes with another spelling in the store, or a damaged model of a folder, is
    left out, unless it is named or `strict` is set; a damaged bundle is refused. With `dry_run`, nothing is written.
    `before` gets the report of a dry run before anything is written. Models become visible at the end; after an error,
    none does. A crash leaves whole models, and finished blobs that the next import uses.

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
    attempt = partial(
        _imported, store, sink, names=names, strict=strict, dry_run=dry_run, jobs=jobs, progress=progress, before=before
    )
    volumes = volumes_of(source)
    try:
        report = attempt(source)
    except VolumesError as error:
        if volumes is None or dry_run or not volumes.find().parity:
            raise
        progress.phase("repairing volumes", 0)
        with repaired(volumes, sink, jobs=threads(jobs)) as (whole, mended):
            report = attempt(whole)
        told = f"{error}; it was repaired: {mended.used} recovery blocks were needed, and {mended.spare} were spare"
        report = replaced(report, parity=UsedParity(mended.used, mended.spare), warnings=(told, *report.warnings))
    return replaced(report, warnings=(*doubts_of_choice(surroundings(), choice), *report.warnings))


def _imported(
    store: LocalStore,
    sink: StoreSink,
    source: Word,
    *,
    names: Sequence[str],
    strict: bool,
    dry_run: bool,
    jobs: int | None,
    progress: Progress,
    before: Callable[[ImportReport], object] | None,
) -> ImportReport:
    with opened_source(source, jobs=threads(jobs)) as bundle:
        words = typed_models_of(names, bundle)
        selection = bundle.select(words)
        is_lenient = not strict and (not words or any(map(is_glob, words)))
        if is_lenient:
            selection = sink.without_clashes(selection)
        refuse_nothing(selection, bundle, source, strict=strict)
        with _hinting_at_the_others(selection):
            if dry_run:
                report = _foreseen(source, store, sink.compare(selection), selection)
            else:
                if before:
                    before(_foreseen(source, store, sink.compare(selection), selection))
                if is_lenient and isinstance(bundle, LocalStore):
                    received, selection = copy_sound(bundle, sink, selection, phase="importing", progress=progress)
                else:
                    received = copy(bundle, sink, selection, phase="importing", progress=progress)
                report = _report(source, store, received, len(received.present), selection, dry_run=False)
    return report


def _has(bundle: Source, name: str) -> bool:
    try:
        bundle.select(typed_models_of([name], bundle))
    except NotFoundError:
        return False
    return True


def _model_in(word: str, others: Sequence[Word], *, jobs: int) -> Remedy | None:
    """Return what to type if the word of a source that is not there is the name of a model in another source."""
    if is_place(word) or not means_name(word):
        return None
    for other in others:
        if str(other) != "-":
            with opened_source(other, jobs=jobs) as bundle:
                if _has(bundle, word):
                    return ostore("import", other, "--model", word, before="for one model")
    return None


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


def _foreseen(source: Word, store: LocalStore, forecast: Forecast, selection: Selection) -> ImportReport:
    present = len(selection.blobs) - len(forecast.missing)
    return _report(source, store, Received(forecast.outcomes, forecast.missing), present, selection, dry_run=True)


def _report(
    source: Word, store: LocalStore, received: Received, present: int, selection: Selection, *, dry_run: bool
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
        left_out=tuple(one.told for one in selection.left),
        warnings=selection.warnings,
    )
