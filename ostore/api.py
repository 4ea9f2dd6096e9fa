"""
The library: one function a command, opening places and calling operations. `ostore` re-exports it.

Every function that takes `models` means the store's folder; None finds it as `where` does. Names are Ollama's short
names or quoted globs. Sizes are bytes. Refusals are `OstoreError`; a failing disk is `OSError`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, DamagedStoreError, NotFoundError, UsageError
from ostore.formats.name import ModelName, is_glob, matches_listing
from ostore.formats.selection import Selection
from ostore.operations.listing import ShownModel, is_cloud_stub, list_rows, show_model
from ostore.places.store.discovery import find_store, other_stores
from ostore.places.store.store import LocalStore
from ostore.reports import (
    BundledModel,
    ExportReport,
    ImportedModel,
    ImportReport,
    InspectReport,
    ListReport,
    UnreadableEntry,
    WhereReport,
)
from ostore.settings import choose_store, owner_of, surroundings, threads
from ostore.streams.progress import SILENT, Progress

# Bundles, hashing and publishing are imported by the functions that need them: `list` starts in half the time.
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ostore.operations.transfer import ModelSink
    from ostore.operations.verify import VerifyReport
    from ostore.places.bundle.reader import BundleReader
    from ostore.places.store.inbox import Outcome

BUNDLE_SUFFIXES = (".tar.zst", ".tar")
# Levels past 19 need windows that other readers refuse.
MAX_LEVEL = 19
# Which instruction of a Modelfile a layer with weights stands for.
_SOURCES = {
    media_types.MODEL: "FROM",
    media_types.PROJECTOR: "FROM",
    media_types.ADAPTER: "ADAPTER",
    media_types.DRAFT: "DRAFT",
}


def where(*, models: Path | None = None) -> WhereReport:
    """Which store is used, why, and which others there are. Raises NotFoundError without a home folder."""
    known = surroundings()
    choice = find_store(known, models)
    exists = choice.path.is_dir()
    return WhereReport(
        store=str(choice.path),
        exists=exists,
        reason=choice.reason,
        detail=choice.detail,
        owner=owner_of(choice.path) if exists else None,
        free=shutil.disk_usage(choice.path).free if exists else None,
        others=other_stores(known, choice),
    )


def list_models(patterns: Sequence[str] = (), *, models: Path | None = None) -> ListReport:
    """
    The models of a store. A pattern is a glob, or a prefix of the name as for `ollama list`; case does not matter.

    Raises NotFoundError if there is no store, or a glob stands for nothing.
    """
    store = _store(models).require()
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
        unreadable=tuple(UnreadableEntry(entry.path, entry.reason) for entry in scan.unreadable),
    )


def show(name: str, *, models: Path | None = None) -> ShownModel:
    """One model. Raises NotFoundError, DamagedStoreError, and what reading its small blobs raises."""
    store = _store(models).require()
    scan = store.scan([name])
    for entry in scan.unreadable:
        raise DamagedStoreError(f"{entry.path}: {entry.reason}")
    if len(scan.models) > 1:
        raise UsageError(f"{name!r} stands for {len(scan.models)} models, expected one")
    return show_model(store, scan.models[0])


def modelfile(name: str, *, models: Path | None = None) -> str:
    """The Modelfile that would build a model anew from the blobs of this store. Raises as `show`."""
    from ostore.formats.modelfile import render_modelfile

    store = _store(models).require()
    shown = show(name, models=models)
    sources = [
        (_SOURCES[layer.media_type], str(store.root / "blobs" / Digest.parse(layer.digest).filename))
        for layer in shown.layers
        if layer.media_type in _SOURCES
    ]
    return render_modelfile(
        shown.name,
        # Tensors have no file of their own to name, nor has a model that runs elsewhere; Ollama names the model too.
        sources or [("FROM", shown.name)],
        (("TEMPLATE", shown.template), ("SYSTEM", shown.system), *(("LICENSE", text) for text in shown.licenses)),
        ((parameter.key, parameter.value) for parameter in shown.parameters),
        ((message.role, message.content) for message in shown.messages),
    )


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

    store = _store(models).require()
    sink = _sink(destination, level=level, replace=replace, jobs=threads(jobs), progress=progress)
    selection = store.select(names)
    if not dry_run:
        try:
            copy(store, sink, selection, phase="exporting", progress=progress)
        except BlobError as error:
            raise _with_users(error, store) from None
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
    from ostore.places.store.sink import StoreSink

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
    with _source(source, jobs=threads(jobs)) as bundle:
        selection = bundle.select(names)
        warnings = tuple(_import_warnings(selection))
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
        blobs_healed=len(received.healed),
        warnings=warnings,
    )


def inspect(bundle: str | Path, *, jobs: int | None = None) -> InspectReport:
    """What a bundle holds, from its index alone. Raises NotFoundError, UsageError, FormatError, UnsafeError, …"""
    with _opened_bundle(bundle, jobs=threads(jobs)) as reader:
        index = reader.index
    sizes = index.selection.sizes
    return InspectReport(
        bundle=str(bundle),
        bundle_size=None if str(bundle) == "-" else Path(bundle).stat().st_size,
        creator=index.creator,
        models=tuple(
            BundledModel(
                name=str(model.name),
                manifest_digest=str(model.manifest_digest),
                size=model.manifest_size + sum(sizes[digest] for digest in model.blobs),
                blobs=len(model.blobs),
            )
            for model in index.selection.models
        ),
        blobs=len(index.selection.blobs),
        size=index.selection.size,
        requires=len(index.selection.requires),
        warnings=tuple(_import_warnings(index.selection)),
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
    bundles = [subject for subject in subjects if _is_bundle(subject)]
    names = [str(subject) for subject in subjects if not _is_bundle(subject)]
    reports = [_verify_bundle(bundle, jobs=threads(jobs), progress=progress) for bundle in bundles]
    if names or not bundles:
        reports.insert(0, _verify_store(_store(models).require(), names, jobs=threads(jobs), progress=progress))
    return tuple(reports)


def _verify_store(store: LocalStore, names: Sequence[str], *, jobs: int, progress: Progress) -> VerifyReport:
    from ostore.operations.verify import verify_store

    findings = store.scan(names)
    orphans, strays = store.unreferenced(findings) if not names else ((), ())
    return verify_store(str(store.root), store, findings, orphans=orphans, strays=strays, jobs=jobs, progress=progress)


def _verify_bundle(bundle: str | Path, *, jobs: int, progress: Progress) -> VerifyReport:
    from ostore.operations.verify import verify_bundle

    with _opened_bundle(bundle, jobs=jobs) as reader:
        selection = reader.index.selection
        return verify_bundle(str(bundle), reader, selection.blobs, selection.users_of, progress)


def _store(models: Path | None) -> LocalStore:
    return LocalStore(choose_store(models).path)


def _sink(destination: str | Path, *, level: int | None, replace: bool, jobs: int, progress: Progress) -> ModelSink:
    from ostore.places.bundle.writer import BundleFile, BundlePipe
    from ostore.places.store.sink import StoreSink

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


@contextmanager
def _source(source: str | Path, *, jobs: int) -> Iterator[BundleReader | LocalStore]:
    path = Path(source)
    if str(source) == "-":
        if os.isatty(0):
            raise UsageError("standard input is a terminal", hint="ostore import - < FILE.tar.zst")
        with _opened_bundle("-", jobs=jobs) as reader:
            yield reader
    elif path.is_dir():
        if not any((path / part).is_dir() for part in ("blobs", "manifests")):
            raise UsageError(f"{path}: a folder that is no store; expected blobs/ and manifests/ in it")
        yield LocalStore(path)
    else:
        with _opened_bundle(path, jobs=jobs) as reader:
            yield reader


def _opened_bundle(bundle: str | Path, *, jobs: int) -> AbstractContextManager[BundleReader]:
    from ostore.places.bundle.reader import open_bundle, open_piped_bundle

    return open_piped_bundle(0, jobs=jobs) if str(bundle) == "-" else open_bundle(Path(bundle), jobs=jobs)


def _is_bundle(subject: str | Path) -> bool:
    text = str(subject)
    if text == "-" or text.endswith(BUNDLE_SUFFIXES):
        return True
    try:
        return Path(text).is_file()
    except OSError:
        # Too long for a path, for example; whether it is a name is for others to say.
        return False


def _with_users(error: BlobError, store: LocalStore) -> BlobError:
    """Add to the message every model in the store that a damaged blob concerns."""
    users = ", ".join(str(name) for name in store.users_of(Digest.parse(error.digest)))
    error.args = (f"{error}; used by {users}" if users else str(error),)
    error.hint = error.hint or "ostore verify shows everything that is damaged"
    return error


def _export_warnings(store: LocalStore) -> Iterator[str]:
    for name, manifest in store.selected:
        if is_cloud_stub(store, manifest):
            yield f"{name}: a cloud stub, of no use without the internet"


def _import_warnings(selection: Selection) -> Iterator[str]:
    for model in selection.models:
        if model.name.is_selector:
            yield f"{model.name}: Ollama takes this tag for a source selector, not for a name"
        problem = model.name.windows_problem()
        if problem:
            yield f"{model.name}: {problem}"


def _imported(outcomes: Iterable[tuple[ModelName, Outcome]]) -> tuple[ImportedModel, ...]:
    return tuple(ImportedModel(str(name), outcome.value) for name, outcome in outcomes)


def _import_plan(
    source: str | Path,
    store: LocalStore,
    outcomes: Mapping[ModelName, Outcome],
    selection: Selection,
    warnings: tuple[str, ...],
) -> ImportReport:
    """What an import would do, going by the sizes of what is there: nothing is hashed, nothing is written."""
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
        blobs_healed=0,
        warnings=warnings,
    )
