"""Commands that carry models between places, and the one that proves them whole: export, import and verify."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.api.opening import BUNDLE_SUFFIXES, chosen_store, import_warnings, is_bundle, opened_bundle, opened_source
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, UsageError
from ostore.formats.name import ModelName
from ostore.formats.selection import Selection
from ostore.places.store.store import LocalStore
from ostore.settings import choose_store, threads
from ostore.streams.progress import SILENT, Progress

# What only some of these functions need is imported by them: `verify` starts in two thirds of the time.
if TYPE_CHECKING:
    from ostore.formats.outcome import Outcome
    from ostore.operations.transfer import ModelSink
    from ostore.operations.verify import VerifyReport
    from ostore.reports import ExportReport, ImportedModel, ImportReport

# Levels past 19 need windows that other readers refuse.
MAX_LEVEL = 19


def export(
    names: Sequence[str],
    destination: str | Path,
    *,
    level: int | None = None,
    replace: bool = False,
    dry_run: bool = False,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> ExportReport:
    """
    Write models (names or globs; `["*"]` for all) to a bundle, or to standard output if `destination` is `-`.

    `destination` ends in `.tar.zst`, in `.tar` (not compressed; no `level`) or, for a plain store in a folder, in `/`.
    `level` is 1 to 19; None stores what does not shrink and compresses the rest at level 1. A file that exists is
    overwritten only with `replace`. On any error no file is left.

    Raises NotFoundError, UsageError, IntegrityError (a damaged blob; the message names every model that uses it),
    DamagedStoreError, AmbiguousManifestError, FormatError, BusyError, OSError.
    """
    from ostore.operations.transfer import copy
    from ostore.reports import ExportReport

    store = chosen_store(models).require()
    sink = _sink(destination, level=level, replace=replace, jobs=threads(jobs), progress=progress)
    selection = store.select(names)
    if not dry_run:
        try:
            copy(store, sink, selection, phase="exporting", progress=progress)
        except BlobError as error:
            raise with_users(error, store) from None
    is_file = str(destination).endswith(BUNDLE_SUFFIXES) and not dry_run
    return ExportReport(
        destination=str(destination),
        dry_run=dry_run,
        models=tuple(str(model.name) for model in selection.models),
        blobs=len(selection.blobs),
        size=selection.size,
        shared_size=selection.shared_size,
        bundle_size=Path(destination).stat().st_size if is_file else None,
        warnings=tuple(_export_warnings(store)),
    )


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
    Put the models of a bundle (a file, a folder that is a store, or `-` for standard input) into the store.

    `names` takes some of them only. Blobs that are there are hashed before they are relied upon, unless
    `trust_existing`; damaged ones are replaced. A different model of the same name is a UsageError without `replace`.
    Models become visible at the end; after an error none of them does. What a crash leaves is whole models, and
    finished blobs that the next import uses.

    Raises NotFoundError, UsageError, IntegrityError, BusyError, NoSpaceError, UnsafeError, DamagedStoreError,
    FormatError, LimitError, OSError.
    """
    from ostore.operations.transfer import copy
    from ostore.places.store.receiving.sink import StoreSink
    from ostore.reports import ImportReport

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
        warnings = tuple(import_warnings(selection))
        if dry_run:
            return _import_plan(source, store, sink.compare(selection), selection, warnings)
        copy(bundle, sink, selection, phase="importing", progress=progress)
    received = sink.received
    if received is None:
        raise RuntimeError("the import ended without a result")
    return ImportReport(
        source=str(source),
        store=str(store.root),
        dry_run=False,
        models=_imported(received.outcomes),
        blobs_written=len(received.written),
        size_written=sum(blob.size for blob in received.written),
        blobs_resumed=len(received.resumed),
        blobs_present=len(received.present),
        blobs_repaired=len(received.repaired),
        warnings=warnings,
    )


def verify(
    subjects: Sequence[str | Path] = (),
    *,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> tuple[VerifyReport, ...]:
    """
    Hash everything: the whole store, or the models and bundles named; one report for the store, one a bundle.

    A subject is a bundle if it is `-`, is a file, or ends like a bundle. Damaged blobs, manifests and names are
    findings of the report, not errors. Raises NotFoundError, and for a bundle that cannot be read to its end
    IntegrityError, FormatError, UnsafeError or LimitError.
    """
    bundles = [subject for subject in subjects if is_bundle(subject)]
    names = [str(subject) for subject in subjects if not is_bundle(subject)]
    reports = [_verify_bundle(bundle, jobs=threads(jobs), progress=progress) for bundle in bundles]
    if names or not bundles:
        reports.insert(0, _verify_store(chosen_store(models).require(), names, jobs=threads(jobs), progress=progress))
    return tuple(reports)


def _verify_store(store: LocalStore, names: Sequence[str], *, jobs: int, progress: Progress) -> VerifyReport:
    from ostore.operations.verify import verify_store

    findings = store.scan(names)
    orphans, strays = store.unreferenced(findings) if not names else ((), ())
    return verify_store(str(store.root), store, findings, orphans=orphans, strays=strays, jobs=jobs, progress=progress)


def _verify_bundle(bundle: str | Path, *, jobs: int, progress: Progress) -> VerifyReport:
    from ostore.operations.verify import verify_bundle

    with opened_bundle(bundle, jobs=jobs) as reader:
        selection = reader.index.selection
        return verify_bundle(str(bundle), reader, selection.blobs, selection.users_of, progress)


def _sink(destination: str | Path, *, level: int | None, replace: bool, jobs: int, progress: Progress) -> ModelSink:
    from ostore.places.bundle.writer import BundleFile, BundlePipe
    from ostore.places.store.receiving.sink import StoreSink

    text = str(destination)
    if level is not None and not 1 <= level <= MAX_LEVEL:
        raise UsageError(f"level: expected auto or 1 to {MAX_LEVEL}, got {level}")
    if level is not None and text.endswith((".tar", "/")):
        raise UsageError(f"{text}: is not compressed, so it takes no level")
    if text == "-":
        if os.isatty(1):
            raise UsageError("standard output is a terminal", hint="ostore export MODEL - > FILE.tar.zst")
        return BundlePipe(1, level=level, jobs=jobs)
    if text.endswith("/"):
        store = LocalStore(Path(text))
        return StoreSink(store, replace=replace, trust_existing=False, make_parents=False, jobs=jobs, progress=progress)
    if text.endswith(BUNDLE_SUFFIXES):
        return BundleFile(Path(text), level=level, jobs=jobs, replace=replace)
    raise UsageError(
        f"{text!r}: expected a destination as the last argument",
        hint="FILE.tar.zst, FILE.tar (not compressed), DIR/ (a plain store) or - (standard output)",
    )


def with_users(error: BlobError, store: LocalStore) -> BlobError:
    """Add to the message every model in the store that a damaged blob concerns."""
    users = ", ".join(str(name) for name in store.users_of(Digest.parse(error.digest)))
    error.args = (f"{error}; used by {users}" if users else str(error),)
    error.hint = error.hint or "ostore verify shows everything that is damaged"
    return error


def _export_warnings(store: LocalStore) -> Iterator[str]:
    from ostore.operations.listing import is_cloud_stub

    for model in store.selected:
        if is_cloud_stub(store, model.manifest):
            yield f"{model.name}: a cloud stub, of no use without the internet"


def _imported(outcomes: Iterable[tuple[ModelName, Outcome]]) -> tuple[ImportedModel, ...]:
    from ostore.reports import ImportedModel

    return tuple(ImportedModel(str(name), outcome.value) for name, outcome in outcomes)


def _import_plan(
    source: str | Path,
    store: LocalStore,
    outcomes: Mapping[ModelName, Outcome],
    selection: Selection,
    warnings: tuple[str, ...],
) -> ImportReport:
    """What an import would do, going by the sizes of what is there: nothing is hashed, nothing is written."""
    from ostore.reports import ImportReport

    missing = [blob for blob in selection.blobs if store.size_of(blob.digest) != blob.size]
    return ImportReport(
        source=str(source),
        store=str(store.root),
        dry_run=True,
        models=_imported(outcomes.items()),
        blobs_written=len(missing),
        size_written=sum(blob.size for blob in missing),
        blobs_resumed=0,
        blobs_present=len(selection.blobs) - len(missing),
        blobs_repaired=0,
        warnings=warnings,
    )
