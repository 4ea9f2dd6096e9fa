"""Write models to a bundle, a pipe or a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ostore.api.addresses import SinkTerms, sink_of
from ostore.api.chosen_store import chosen_store, refuse_nothing
from ostore.api.typed import BUNDLE_SUFFIXES, typed_models
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, UsageError
from ostore.formats.name import is_glob
from ostore.formats.remedy import ostore
from ostore.formats.selection import OmittedModel, Selection
from ostore.operations.delta.planning import WithRecipes, with_recipes
from ostore.operations.transfer import Sink, Source, copy, copy_sound
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class ExportReport:
    """
    What was written, or with `dry_run` would be.

    `size` is the bytes of the distinct blobs. `shared_size` is the bytes saved because models share blobs. `recipes` of
    the blobs travel as recipes, which have `recipe_size` bytes in place of the bytes of those blobs.
    `bundle_size` is the bytes of the bundle file, or None if none was written. A glob matched the models in `left_out`,
    but they could not be written.
    """

    destination: str
    dry_run: bool
    models: tuple[str, ...]
    blobs: int
    size: int
    shared_size: int
    recipes: int
    recipe_size: int
    bundle_size: int | None
    left_out: tuple[OmittedModel, ...]
    warnings: tuple[str, ...]


def export(
    names: Sequence[str],
    destination: str | Path,
    *,
    level: int | None = None,
    replace: bool = False,
    strict: bool = False,
    share_tensors: bool = False,
    dry_run: bool = False,
    jobs: int | None = None,
    progress: Progress = SILENT,
    before: Callable[[ExportReport], object] | None = None,
    models: Path | None = None,
) -> ExportReport:
    """
    Write models to `destination`. `names` are names or globs; `["*"]` means all models.

    `destination` ends in `.tar.zst`, in `.tar` (not compressed) or in `/` (a plain store in a folder), or is `-` for a
    bundle on standard output. `level` is 1 to 19; None stores what does not shrink and compresses the rest at level 1.
    With `share_tensors`, tensors that several blobs have are in a bundle once, and `tar` alone cannot restore it.
    `replace` allows overwriting a file, or different models of a plain store. A model that a glob matches and that
    cannot be written is left out, unless `strict` is set or the destination is standard output. With `dry_run`, nothing
    is written or hashed. `before` gets the report of a dry run before anything is written. After an error, no new
    bundle is left, and no new model is in a plain store.

    Raises NotFoundError, UsageError, IntegrityError for a damaged blob (the message names every model that uses it),
    DamagedStoreError, AmbiguousManifestError, FormatError, LimitError, UnsafeError, NoSpaceError, BusyError, OSError.
    """
    sink = sink_of(destination, SinkTerms(level, replace, threads(jobs), progress))
    if share_tensors and str(destination).endswith("/"):
        raise UsageError(f"{destination}: a plain store has its blobs whole", hint="a bundle can share tensors")
    store = chosen_store(models).require()
    words = typed_models(names, store)
    if not words:
        raise UsageError("names: expected at least one model, got none", hint='["*"] means all models')
    try:
        selection = store.select(words)
        # What went to a pipe cannot be taken back, so there it is all or nothing.
        is_lenient = not strict and str(destination) != "-" and any(map(is_glob, words))
        if is_lenient:
            selection = sink.without_clashes(selection)
        refuse_nothing(selection, store, store.root, strict=strict)
        if dry_run or before:
            sink.compare(selection)
        if dry_run:
            return _report(destination, selection, dry_run=True)
        if before:
            before(_report(destination, selection, dry_run=True))
        selection = _copy(store, sink, selection, is_lenient=is_lenient, share_tensors=share_tensors, progress=progress)
    except BlobError as error:
        raise with_users(error, store) from None
    return _report(destination, selection, dry_run=False)


def _copy(
    store: LocalStore, sink: Sink, selection: Selection, *, is_lenient: bool, share_tensors: bool, progress: Progress
) -> Selection:
    """Write a selection, and return what was written of it."""
    with closing(OpenBlobs(store.opened_blob)) as blobs:

        def planned(selection: Selection) -> tuple[Source, Selection]:
            if not share_tensors:
                return store, selection
            made, recipes = with_recipes(selection, blobs, (), shares=share_tensors, progress=progress)
            return WithRecipes(store, recipes, blobs), made

        if is_lenient:
            _, written = copy_sound(store, sink, selection, phase="exporting", progress=progress, planned=planned)
        else:
            source, written = planned(selection)
            copy(source, sink, written, phase="exporting", progress=progress)
    return written


def _report(destination: str | Path, selection: Selection, *, dry_run: bool) -> ExportReport:
    is_file = str(destination).endswith(BUNDLE_SUFFIXES) and not dry_run
    return ExportReport(
        destination=str(destination),
        dry_run=dry_run,
        models=tuple(str(model.name) for model in selection.models),
        blobs=len(selection.blobs),
        size=selection.size,
        shared_size=selection.shared_size,
        recipes=len(selection.recipes),
        recipe_size=sum(made.stored.size for made in selection.recipes),
        bundle_size=Path(destination).stat().st_size if is_file else None,
        left_out=tuple(one.told for one in selection.left),
        warnings=selection.notes,
    )


def with_users(error: BlobError, store: LocalStore) -> BlobError:
    """Return the error of a damaged blob, with every model of the store that uses the blob in its message."""
    users = ", ".join(str(name) for name in store.scan().users.get(Digest.parse(error.digest), ()))
    error.args = (f"{error}; used by {users}" if users else str(error),)
    error.hint = error.hint or ostore("verify", models=store.option, after="shows everything that is damaged")
    return error
