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
from ostore.api.locked import Lock, digests_of
from ostore.api.typed import typed_models_of
from ostore.api.volumes import Word, repaired, volumes_of
from ostore.formats.errors import (
    FormatError,
    IntegrityError,
    InvalidNameError,
    VolumesError,
)
from ostore.formats.name import is_glob
from ostore.formats.outcome import Forecast, Received
from ostore.formats.selection import OmittedModel, Selection
from ostore.formats.wording import listed
from ostore.host.discovery import doubts_of_choice
from ostore.operations.transfer import copy, copy_sound
from ostore.places.oci_layout.layout import OciLayout
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


@dataclass(frozen=True, slots=True)
class ResentModel:
    """A model that did not come whole: its name in full and the digest of its manifest, as a lock has them."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Resend:
    """What has to be sent again after a stream broke off: the models that are not there, and the blobs they lack."""

    models: tuple[ResentModel, ...]
    blobs: tuple[str, ...]


def import_bundle(
    source: Word,
    names: Sequence[str] = (),
    *,
    lock: str | Path | None = None,
    replace: bool = False,
    trust_existing: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    jobs: int | None = None,
    progress: Progress = SILENT,
    before: Callable[[ImportReport], object] | None = None,
    resend: Callable[[Resend], object] | None = None,
    models: Path | None = None,
) -> ImportReport:
    """
    Put the models of `source` into the store: a bundle file, a bundle in volumes, a folder with a store, `oci:DIR` for
    an OCI image layout, or `-` for standard input. Volumes that are missing or damaged are repaired from their parity,
    if that suffices, in a folder apart.

    `names` (or globs) choose some of the models; the default is all. `lock` is a lock file: only its models are taken,
    and each must have exactly that manifest, in the source or in the store already.

    Existing blobs are hashed before a model relies on them, unless `trust_existing` is set, and damaged ones are
    replaced. What a delta builds on has to be there and whole. `replace` allows overwriting a different model of the
    same name. A model whose name clashes with another spelling in the store, or a damaged model of a folder, is left
    out, unless it is named or `strict` is set; a damaged bundle is refused.

    With `dry_run`, nothing is written. `before` gets the report of a dry run before anything is written. `resend` gets
    what has to be sent again if a stream on standard input breaks off. Models become visible at the end; after an
    error, none does. A crash leaves whole models, and finished blobs that the next import uses.

    Raises NotFoundError (BasisMissingError if a delta builds on what is not there), UsageError, IntegrityError,
    BusyError, NoSpaceError, UnsafeError, DamagedStoreError, FormatError, LimitError, OSError.
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
        _imported,
        store,
        sink,
        names=names,
        lock=None if lock is None else Lock.read(lock),
        strict=strict,
        dry_run=dry_run,
        jobs=jobs,
        progress=progress,
        before=before,
        resend=resend,
    )
    volumes = volumes_of(source)
    volumes = volumes and volumes.looked_for()
    try:
        report = attempt(volumes or source)
    except VolumesError as error:
        if volumes is None or not volumes.find().parity:
            raise
        if dry_run:
            error.hint = str(error.hint).replace("an import", "a dry run repairs nothing; the import")
            raise
        progress.phase("repairing volumes", 0)
        with repaired(volumes, sink, jobs=threads(jobs)) as (whole, mended):
            report = attempt(whole)
        told = f"{error}; it was repaired: {mended.used} recovery blocks were needed, and {mended.spare} were spare"
        report = replaced(report, parity=UsedParity(mended.used, mended.spare), warnings=(told, *report.warnings))
    odd = volumes.find().warnings if volumes else ()
    return replaced(report, warnings=(*doubts_of_choice(surroundings(), choice), *odd, *report.warnings))


def _imported(
    store: LocalStore,
    sink: StoreSink,
    source: Word,
    *,
    names: Sequence[str],
    lock: Lock | None,
    strict: bool,
    dry_run: bool,
    jobs: int | None,
    progress: Progress,
    before: Callable[[ImportReport], object] | None,
    resend: Callable[[Resend], object] | None,
) -> ImportReport:
    with opened_source(source, jobs=threads(jobs)) as bundle:
        words = typed_models_of(names, bundle)
        selection = bundle.select(words)
        if lock is not None:
            selection = _locked(lock, selection, store, str(source), is_chosen=bool(words))
        is_lenient = not strict and (not words or any(map(is_glob, words)))
        if is_lenient:
            selection = sink.without_clashes(selection)
        refuse_nothing(selection, bundle, source, strict=strict)
        with _hinting_at_the_others(selection), _telling_what_to_resend(source, store, selection, resend):
            if dry_run:
                report = _foreseen(source, store, sink.compare(selection), selection)
            else:
                if before:
                    before(_foreseen(source, store, sink.compare(selection), selection))
                if is_lenient and isinstance(bundle, LocalStore | OciLayout):
                    received, selection = copy_sound(bundle, sink, selection, phase="importing", progress=progress)
                else:
                    received = copy(bundle, sink, selection, phase="importing", progress=progress)
                report = _report(source, store, received, len(received.present), selection, dry_run=False)
    return report


def _locked(lock: Lock, selection: Selection, store: LocalStore, source: str, *, is_chosen: bool) -> Selection:
    """Return the models of a lock. Raises IntegrityError or NotFoundError if not all of them are as the lock says."""
    if is_chosen:
        lock = lock.restricted(model.name for model in selection.models)
    lock.refuse_others({**lock.find_in(store), **digests_of(selection.models)}, f"{source} or {store.root}")
    is_locked = {model.name: model.name.folded in lock.file.digests for model in selection.models}
    others = [str(name) for name, is_so in is_locked.items() if not is_so]
    chosen = selection.restricted(name for name, is_so in is_locked.items() if is_so)
    return chosen.noting(notes=[f"{listed(others)}: not taken: no line in {lock.label}"] if others else ())


@contextmanager
def _telling_what_to_resend(
    source: Word, store: LocalStore, selection: Selection, tell: Callable[[Resend], object] | None
) -> Iterator[None]:
    """If the stream breaks off in this block, tell what is not there: on the other side nobody can ask."""
    try:
        yield
    except (IntegrityError, FormatError, OSError):
        if tell and str(source) == "-":
            tell(_to_resend(store, selection))
        raise


def _to_resend(store: LocalStore, selection: Selection) -> Resend:
    wanted = {model.name.folded: model for model in selection.models}
    there = store.manifest_digests(wanted.keys())
    staged = store.staged()
    lacking = {blob.digest for blob in store.missing_of(selection.blobs) if staged.get(blob.digest) != blob.size}
    models = [
        model
        for model in selection.models
        if there.get(model.name.folded) != model.manifest_digest or not lacking.isdisjoint(model.blobs)
    ]
    needed = {digest for model in models for digest in model.blobs}
    return Resend(
        tuple(ResentModel(model.name.full, str(model.manifest_digest)) for model in models),
        tuple(str(blob.digest) for blob in selection.blobs if blob.digest in lacking & needed),
    )


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
    needed = {digest for model in selection.models for digest in model.blobs}
    # What only recipes build on is no blob of these models.
    required = sum(blob.digest in needed for blob in selection.requires)
    present = len(selection.blobs) + required - len(forecast.missing)
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
