"""Write models to a bundle, a pipe or a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.addresses import SinkTerms, sink_of
from ostore.api.basis import opened_bases
from ostore.api.chosen_store import chosen_store, refuse_nothing
from ostore.api.locked import Lock
from ostore.api.typed import BUNDLE_SUFFIXES, typed_models
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, UsageError
from ostore.formats.name import is_glob
from ostore.formats.remedy import ostore
from ostore.formats.selection import OmittedModel, Selection
from ostore.operations.transfer import copy, copy_sound
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class ExportReport:
    """
    What was written, or with `dry_run` would be.

    `size` is the bytes of the distinct blobs. `shared_size` is the bytes saved because models share blobs.
    `resumed_size` is the bytes of the blobs that an interrupted export of the same had finished.
    `required` blobs, `required_size` bytes, are left out of a delta, because the target has them. `bundle_size` is the
    bytes of the bundle file, or None if none was written. A glob matched the models in `left_out`, but they could not
    be written.
    """

    destination: str
    dry_run: bool
    models: tuple[str, ...]
    blobs: int
    size: int
    shared_size: int
    resumed_size: int
    required: int
    required_size: int
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
    left out, and the bundle is a delta that requires them. `lock` is a lock file: exactly its manifests are written,
    and without names all of them.

    `level` is 1 to 19; None stores what does not shrink and compresses the rest at level 1.
    `replace` allows overwriting a file, or different models of a plain store. A model that a glob matches and that
    cannot be written is left out, unless `strict` is set or the destination is standard output. With `dry_run`, nothing
    is written or hashed. `before` gets the report of a dry run before anything is written. After an error, no new
    bundle is left, and no new model is in a plain store. After an interruption, a failed disk or a damaged blob, what
    is synced of a bundle file stays as `FILE.part` and `FILE.part.state`, and the same call goes on from there.

    Raises NotFoundError, UsageError, IntegrityError for a damaged blob (the message names every model that uses it) or
    a manifest that is not that of the lock, DamagedStoreError, AmbiguousManifestError, FormatError, LimitError,
    UnsafeError, NoSpaceError, BusyError, OSError.
    """
    sink = sink_of(destination, SinkTerms(level, replace, threads(jobs), progress))
    if have and str(destination).endswith("/"):
        raise UsageError(
            f"{destination}: a folder has to hold every blob", hint="a delta is FILE.tar.zst, FILE.tar or -"
        )
    store = chosen_store(models).require()
    locked = None if lock is None else Lock.read(lock)
    words = _words(names, store, locked)
    try:
        selection = store.select(words)
        # What went to a pipe cannot be taken back, so there it is all or nothing.
        is_lenient = not strict and str(destination) != "-" and any(map(is_glob, words))
        if is_lenient:
            selection = sink.without_clashes(selection)
        refuse_nothing(selection, store, store.root, strict=strict)
        if have:
            with opened_bases(have, near=store, jobs=threads(jobs)) as bases:
                selection = selection.without_blobs(lambda blob: any(basis.inventory.has(blob) for basis in bases))
        if dry_run or before:
            sink.compare(selection)
        if dry_run:
            return _report(destination, selection, dry_run=True)
        if before:
            before(_report(destination, selection, dry_run=True))
        if is_lenient:
            received, selection = copy_sound(store, sink, selection, phase="exporting", progress=progress)
        else:
            received = copy(store, sink, selection, phase="exporting", progress=progress)
    except BlobError as error:
        raise with_users(error, store) from None
    return _report(destination, selection, dry_run=False, resumed=sum(blob.size for blob in received.resumed))


def goes_on(destination: str | Path) -> bool:
    """Return whether an interrupted export to this file has left what the same export goes on with."""
    return Path(f"{destination}.part.state").exists()


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


def _report(destination: str | Path, selection: Selection, *, dry_run: bool, resumed: int = 0) -> ExportReport:
    is_file = str(destination).endswith(BUNDLE_SUFFIXES) and not dry_run
    return ExportReport(
        destination=str(destination),
        dry_run=dry_run,
        models=tuple(str(model.name) for model in selection.models),
        blobs=len(selection.blobs),
        size=selection.size,
        shared_size=selection.shared_size,
        resumed_size=resumed,
        required=len(selection.requires),
        required_size=sum(blob.size for blob in selection.requires),
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
