"""Write models to a bundle, a pipe or a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ostore.api.addresses import SinkTerms, sink_of
from ostore.api.basis import Basis, opened_bases
from ostore.api.chosen_store import chosen_store, refuse_nothing
from ostore.api.locked import Lock
from ostore.api.typed import BUNDLE_SUFFIXES, OCI, refuse_empty_word, typed_models
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, OstoreError, UsageError
from ostore.formats.name import is_glob
from ostore.formats.outcome import Received
from ostore.formats.parity import parse_parity
from ostore.formats.remedy import ostore
from ostore.formats.selection import OmittedModel, Selection
from ostore.formats.volume_set import parse_size
from ostore.operations.delta.planning import WithRecipes
from ostore.operations.delta.proven import ProvenBases
from ostore.operations.transfer import Sink, Source, copy, copy_sound
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.progress import SILENT, Progress
from ostore.streams.source_failure import SourceFailureError

# The code for bundles takes time to import.
if TYPE_CHECKING:
    from ostore.places.bundle.volume_export import NextMedium, WrittenParity


@dataclass(frozen=True, slots=True)
class ExportedVolume:
    """A volume of a bundle: its file, its bytes and their digest."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class ExportedParity:
    """
    The parity of all volumes, or of those on one medium: its files. They mend any `recovery_blocks` of the `blocks` of
    `block_size` bytes.
    """

    files: tuple[str, ...]
    block_size: int
    blocks: int
    recovery_blocks: int


_PHASE = "exporting"
_SHOWS = "shows everything that is damaged"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """
    What was written, or with `dry_run` would be.

    `size` is the bytes of the distinct blobs. `shared_size` is the bytes saved because models share blobs.
    `resumed_size` is the bytes of the blobs that an interrupted export of the same had finished.
    `required` blobs, `required_size` bytes, must be on the target: a delta leaves them out or builds on them. `recipes`
    of the blobs travel as recipes, which have `recipe_size` bytes in place of the bytes of those blobs; a dry run does
    not look for them. `bundle_size` is the bytes of the bundle file or its volumes, or None if none was written. A glob
    matched the models in `left_out`, but they could not be written. `volumes` are in order. `read_back` tells whether
    the media were read.
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
    recipes: int
    recipe_size: int
    bundle_size: int | None
    left_out: tuple[OmittedModel, ...]
    warnings: tuple[str, ...]
    volumes: tuple[ExportedVolume, ...] = ()
    parity: tuple[ExportedParity, ...] = ()
    read_back: bool = False


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
    split: int | str | None = None,
    to: Sequence[str | Path] = (),
    parity: str | None = None,
    verify_after_write: bool = False,
    next_medium: NextMedium | None = None,
) -> ExportReport:
    """
    Write models to `destination`. `names` are names or globs; `["*"]` means all models.

    `destination` ends in `.tar.zst`, in `.tar` (not compressed) or in `/` (a plain store in a folder), is `-` for a
    bundle on standard output, or `oci:DIR` for an OCI image layout. `have` says what the target has: inventories,
    bundles, stores or locks. Their blobs are left out, and the bundle is a delta that requires them; a blob that shares
    tensors with them travels as a recipe. With `share_tensors`, recipes also build on other blobs of the bundle.
    Nothing builds on a blob that turns out to be damaged here; a warning names it. `tar` alone cannot restore a bundle
    with recipes. `lock` is a lock file: exactly its manifests are written, and without names all of them.

    `level` is 1 to 19; None stores what does not shrink and compresses the rest at level 1. `replace` allows
    overwriting a file, or different models of a plain store or a layout. A model that a glob matches and that cannot be
    written is left out, unless `strict` is set or the destination is standard output. With `dry_run`, nothing is
    written or hashed. `before` gets the report of a dry run before anything is written. After an error, no new bundle
    is left, and no new model is in a plain store. After an interruption, a failed disk or a damaged blob, what is
    synced of a bundle file stays as `FILE.part` and `FILE.part.state`, and the same call goes on from there.

    `split` cuts a bundle file into volumes: bytes, a text such as `4095M`, or `fat32`, `dvd` or `bd25`. They go to the
    folder of `destination`, or to the folders `to` in turn; `destination` is then a name alone. `parity` adds PAR2
    files: `5%` of the blocks, or `1volume`, `2volumes` and so on. `next_medium` is called with the number of a volume
    that fits nowhere, the bytes that it needs there, the folders and what is wrong with the medium that is there
    (nothing if it is full). The volumes until then have their names, and with `parity` their own. It returns when there
    is another medium, and is called again if that will not do; what it raises ends the export, and the same call starts
    from the beginning. With `replace`, an old set is removed from a medium first if there is no room beside it; if the
    first volume has none, not before `next_medium` was called.
    `verify_after_write` reads what was written back from its medium, past the cache of the system.

    Raises NotFoundError, UsageError, IntegrityError for a damaged blob (the message names every model that uses it) or
    a manifest that is not that of the lock, DamagedStoreError, AmbiguousManifestError, FormatError, LimitError,
    UnsafeError, NoSpaceError, BusyError, OSError.
    """
    for folder in to:
        refuse_empty_word(str(folder), "a folder")
    terms = SinkTerms(
        level,
        replace,
        threads(jobs),
        progress,
        split=parse_size(str(split)) if split is not None else None,
        to=tuple(map(Path, to)),
        parity=parse_parity(parity) if parity is not None else None,
        verify=verify_after_write,
        next_medium=next_medium,
    )
    sink = _sink(destination, terms, is_delta=bool(have or share_tensors))
    store = chosen_store(models).require()
    locked = None if lock is None else Lock.read(lock)
    words = _words(names, store, locked)
    try:
        selection, is_lenient = select_models(store, sink, words, strict=strict, is_pipe=str(destination) == "-")
        with opened_bases(have, near=store, jobs=threads(jobs)) as bases:
            selection = selection.without_blobs(lambda blob: any(basis.inventory.has(blob) for basis in bases))
            if dry_run or before:
                # How much of the blobs travels shows when tensors are compared.
                sink.compare(replaced(selection, blobs=()) if bases or share_tensors else selection)
            if dry_run:
                return _report(destination, selection, dry_run=True)
            if before:
                before(_report(destination, selection, dry_run=True))
            with closing(OpenBlobs(store.opened_blob)) as blobs:
                planner = _Planner.of(store, blobs, bases, progress, shares=share_tensors)
                received, selection = planner.copied(sink, selection, is_lenient=is_lenient)
    except BlobError as error:
        raise with_users(error, store) from None
    resumed = sum(blob.size for blob in received.resumed)
    report = replaced(
        _report(destination, selection, dry_run=False), resumed_size=resumed, read_back=verify_after_write
    )
    return report if split is None else _with_volumes(report, sink)


def _sink(destination: str | Path, terms: SinkTerms, *, is_delta: bool) -> Sink:
    if terms.verify:
        from ostore.streams.read_back import refuse_without_read_back

        refuse_without_read_back()
    if is_delta and (str(destination).endswith("/") or str(destination).startswith(OCI)):
        raise UsageError(
            f"{destination}: a folder has to hold every blob", hint="a delta is FILE.tar.zst, FILE.tar or -"
        )
    return sink_of(destination, terms)


def _with_volumes(report: ExportReport, sink: Sink) -> ExportReport:
    from ostore.places.bundle.volume_writer import BundleVolumes

    written = sink.written if isinstance(sink, BundleVolumes) else None
    if written is None:
        raise RuntimeError("no volumes were written")
    volumes = tuple(ExportedVolume(str(path), file.size, str(file.digest)) for path, file in written.volumes)
    return replaced(
        report,
        bundle_size=sum(volume.size for volume in volumes),
        volumes=volumes,
        parity=tuple(_parity(made) for made in written.parity),
    )


def _parity(made: WrittenParity) -> ExportedParity:
    plan = made.plan
    # Of folders that are lost, the share of the recovery blocks is lost too. So there may be more of them than blocks.
    mended = min(plan.recovery_blocks, plan.blocks)
    return ExportedParity(tuple(map(str, made.files)), plan.block_size, plan.blocks, mended)


def goes_on(destination: str | Path, folders: Sequence[str | Path] = ()) -> bool:
    """
    Return whether an interrupted export to this file has left what the same goes on with.

    `folders` are those of its volumes, if there are any.
    """
    if not folders:
        return Path(f"{destination}.part.state").exists()
    name = Path(destination).name
    return any(Path(folder, f"{name}.parts", f"{name}.state").exists() for folder in folders)


def select_models(
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
    bases: ProvenBases | None
    progress: Progress
    shares: bool

    @classmethod
    def of(
        cls, store: LocalStore, blobs: OpenBlobs, have: Sequence[Basis], progress: Progress, *, shares: bool
    ) -> Self:
        bases = ProvenBases([(one.inventory, one.bytes_of) for one in have], progress) if have or shares else None
        return cls(store, blobs, bases, progress, shares)

    def copied(self, sink: Sink, selection: Selection, *, is_lenient: bool) -> tuple[Received, Selection]:
        """Write a selection. Return what the sink received, and what was written of the selection."""
        if is_lenient:
            return copy_sound(self.store, sink, selection, phase=_PHASE, progress=self.progress, planned=self._planned)
        try:
            source, planned = self._planned(selection)
        except SourceFailureError as failure:
            raise failure.error from None
        return copy(source, sink, planned, phase=_PHASE, progress=self.progress), planned

    def _planned(self, selection: Selection) -> tuple[Source, Selection]:
        if self.bases is None:
            return self.store, selection
        made, recipes = self.bases.plan(selection, self.blobs, shares=self.shares)
        notes = [self._told(digest, error) for digest, error in self.bases.refused.items()]
        return WithRecipes(self.store, recipes, self.blobs), made.noting(notes=notes)

    def _told(self, digest: Digest, error: OSError | OstoreError) -> str:
        """Say why nothing builds on a blob that the other side has."""
        problem = f"nothing builds on blob {digest}: {error}".replace(f": blob {digest}", "")
        is_here = self.blobs.held(digest) is not None
        return f"{problem}; {ostore('verify', models=self.store.root, after=_SHOWS)}" if is_here else problem


def _report(destination: str | Path, selection: Selection, *, dry_run: bool) -> ExportReport:
    path = Path(destination)
    has_file = str(destination).endswith(BUNDLE_SUFFIXES) and not dry_run and path.is_file()
    return ExportReport(
        destination=str(destination),
        dry_run=dry_run,
        models=tuple(str(model.name) for model in selection.models),
        blobs=len(selection.blobs),
        size=selection.size,
        shared_size=selection.shared_size,
        resumed_size=0,
        required=len(selection.requires),
        required_size=sum(blob.size for blob in selection.requires),
        recipes=len(selection.recipes),
        recipe_size=sum(made.stored.size for made in selection.recipes),
        bundle_size=path.stat().st_size if has_file else None,
        left_out=tuple(one.told for one in selection.left),
        warnings=selection.notes,
    )


def with_users(error: BlobError, store: LocalStore) -> BlobError:
    """Return the error of a damaged blob, with every model of the store that uses the blob in its message."""
    users = ", ".join(str(name) for name in store.scan().users.get(Digest.parse(error.digest), ()))
    error.args = (f"{error}; used by {users}" if users else str(error),)
    error.hint = error.hint or ostore("verify", models=store.option, after=_SHOWS)
    return error
