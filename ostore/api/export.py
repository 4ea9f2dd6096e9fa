"""Write models to a bundle, a pipe or a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ostore.api.addresses import SinkTerms, sink_of
from ostore.api.basis import Basis, opened_bases
from ostore.api.chosen_store import chosen_store, refuse_nothing
from ostore.api.locked import Lock
from ostore.api.typed import BUNDLE_SUFFIXES, typed_models
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, UsageError
from ostore.formats.name import is_glob
from ostore.formats.remedy import ostore
from ostore.formats.selection import OmittedModel, Selection
from ostore.operations.delta.planning import WithRecipes, basis_blobs, with_recipes
from ostore.operations.transfer import Sink, Source, copy, copy_sound
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.progress import SILENT, Progress

_PHASE = "exporting"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """
    What was written, or with `dry_run` would be.

    `size` is the bytes of the distinct blobs. `shared_size` is the bytes saved because models share blobs.
    `required` blobs, `required_size` bytes, must be on the target: a delta leaves them out or builds on them. `recipes`
    of the blobs travel as recipes, which have `recipe_size` bytes in place of the bytes of those blobs; a dry run does
    not look for them. `bundle_size` is the bytes of the bundle file, or None if none was written. A glob matched the
    models in `left_out`, but they could not be written.
    """

    destination: str
    dry_run: bool
    models: tuple[str, ...]
    blobs: int
    size: int
    shared_size: int
    required: int
    required_size: int
    recipes: int
    recipe_size: int
    bundle_size: int | None
    left_out: tuple[OmittedModel, ...]
    warnings: tuple[str, ...]


def export(
    names: Sequence[str],
    destination: str | Path,
    *,
    have: Sequence[str | Path] = (),
    lock: str | Path | None = None,
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
    bundle on standard output. `have` says what the target has: inventories, bundles, stores or locks. Their blobs are
    left out, and the bundle is a delta that requires them; a blob that shares tensors with them travels as a recipe.
    With `share_tensors`, recipes also build on other blobs of the bundle. `tar` alone cannot restore a bundle with
    recipes. `lock` is a lock file: exactly its manifests are written, and without names all of them.

    `level` is 1 to 19; None stores what does not shrink and compresses the rest at level 1.
    `replace` allows overwriting a file, or different models of a plain store. A model that a glob matches and that
    cannot be written is left out, unless `strict` is set or the destination is standard output. With `dry_run`, nothing
    is written or hashed. `before` gets the report of a dry run before anything is written. After an error, no new
    bundle is left, and no new model is in a plain store.

    Raises NotFoundError, UsageError, IntegrityError for a damaged blob (the message names every model that uses it) or
    a manifest that is not that of the lock, DamagedStoreError, AmbiguousManifestError, FormatError, LimitError,
    UnsafeError, NoSpaceError, BusyError, OSError.
    """
    sink = sink_of(destination, SinkTerms(level, replace, threads(jobs), progress))
    if (have or share_tensors) and str(destination).endswith("/"):
        raise UsageError(
            f"{destination}: a folder has to hold every blob", hint="a delta is FILE.tar.zst, FILE.tar or -"
        )
    store = chosen_store(models).require()
    locked = None if lock is None else Lock.read(lock)
    words = _words(names, store, locked)
    try:
        selection, is_lenient = _selected(store, sink, words, strict=strict, is_pipe=str(destination) == "-")
        with opened_bases(have, near=store, jobs=threads(jobs)) as bases:
            selection = selection.without_blobs(lambda blob: any(basis.inventory.has(blob) for basis in bases))
            if dry_run or before:
                sink.compare(selection)
            if dry_run:
                return _report(destination, selection, dry_run=True)
            if before:
                before(_report(destination, selection, dry_run=True))
            with closing(OpenBlobs(store.opened_blob)) as blobs:
                planner = _Planner(store, blobs, bases, progress, shares=share_tensors)
                selection = planner.copied(sink, selection, is_lenient=is_lenient)
    except BlobError as error:
        raise with_users(error, store) from None
    return _report(destination, selection, dry_run=False)


def _selected(
    store: LocalStore, sink: Sink, words: Sequence[str], *, strict: bool, is_pipe: bool
) -> tuple[Selection, bool]:
    """Return the models to write, and whether those that turn out to be damaged are left out."""
    selection = store.select(words)
    # What went to a pipe cannot be taken back, so there it is all or nothing.
    is_lenient = not strict and not is_pipe and any(map(is_glob, words))
    if is_lenient:
        selection = sink.without_clashes(selection)
    refuse_nothing(selection, store, store.root, strict=strict)
    return selection, is_lenient


def _words(names: Sequence[str], store: LocalStore, lock: Lock | None) -> list[str]:
    """Return the words that mean the models to write. Raises IntegrityError or NotFoundError if the lock forbids it."""
    words = typed_models(names, store)
    if lock is not None:
        if words:
            lock = lock.restricted(model.name for model in store.scan(words).models)
        lock.refuse_others(lock.find_in(store), str(store.root))
        words = words or lock.names
    if not words:
        raise UsageError("names: expected at least one model, got none", hint='["*"] means all models')
    return words


@dataclass(frozen=True, slots=True)
class _Planner:
    """What recipes may build on: what the target has, and with `shares` the other blobs of the bundle."""

    store: LocalStore
    blobs: OpenBlobs
    bases: Sequence[Basis]
    progress: Progress
    shares: bool

    def copied(self, sink: Sink, selection: Selection, *, is_lenient: bool) -> Selection:
        """Write a selection, and return what was written of it."""
        if is_lenient:
            _, planned = copy_sound(
                self.store, sink, selection, phase=_PHASE, progress=self.progress, planned=self._planned
            )
        else:
            source, planned = self._planned(selection)
            copy(source, sink, planned, phase=_PHASE, progress=self.progress)
        return planned

    def _planned(self, selection: Selection) -> tuple[Source, Selection]:
        if not self.shares and not self.bases:
            return self.store, selection
        known = [basis for one in self.bases for basis in basis_blobs(one.inventory, one.bytes_of)]
        made, recipes = with_recipes(selection, self.blobs, known, shares=self.shares, progress=self.progress)
        return WithRecipes(self.store, recipes, self.blobs), made


def _report(destination: str | Path, selection: Selection, *, dry_run: bool) -> ExportReport:
    is_file = str(destination).endswith(BUNDLE_SUFFIXES) and not dry_run
    return ExportReport(
        destination=str(destination),
        dry_run=dry_run,
        models=tuple(str(model.name) for model in selection.models),
        blobs=len(selection.blobs),
        size=selection.size,
        shared_size=selection.shared_size,
        required=len(selection.requires),
        required_size=sum(blob.size for blob in selection.requires),
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
