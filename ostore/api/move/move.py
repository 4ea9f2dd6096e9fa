"""Move a store or some models. The other store has everything, and proves it, before this store loses anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.move.cargo import Cargo, load_cargo
from ostore.api.move.check import absolute, servers_of
from ostore.api.move.removal import remove_moved
from ostore.api.move.report import MoveReport, foreseen, report_of, sum_of
from ostore.api.typed import typed_models
from ostore.formats.errors import BlobError, BusyError, UsageError
from ostore.formats.name import ModelName
from ostore.formats.outcome import Received
from ostore.formats.remedy import ostore
from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.operations.transfer import copy
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.places.store.succession import is_same_file
from ostore.places.store.survey.census import allocated_bytes, take_census
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.settings import refuse_globs, threads
from ostore.streams.progress import SILENT, Progress
from ostore.streams.space import refuse_full
from ostore.streams.writing import refuse_missing_folder

_RENAMING = ostore("cp", "MODEL", "NAME", before="nothing is moved; give one of the two another name").then(
    ostore("rm", "MODEL")
)


def move(
    destination: str | Path,
    names: Sequence[str] = (),
    *,
    ready: Callable[[], None] | None = None,
    approve: Callable[[MoveReport], bool] | None = None,
    trust_existing: bool = False,
    dry_run: bool = False,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> MoveReport:
    """
    Move the whole store, or the models that `names` or globs match, to the store at `destination`.

    Everything is first copied there and read back, or linked on the same disk; only then it is removed here. `ready`
    is called before the copying, once `destination` is known to suit and to have room; what it raises ends the move.
    `approve` gets the report before anything is removed; if it returns False, both stores keep everything.
    `trust_existing` does not hash blobs that `destination` has. With `dry_run`, nothing is written.

    If a move is interrupted, each model is whole in one of the two stores, and the same call goes on. No model at
    `destination` is overwritten. What cannot go along stays, and the report says so.

    Raises NotFoundError; UsageError, also if `destination` has a different model of a name; IntegrityError for a
    damaged blob; DamagedStoreError if something cannot be read (nothing moves then); BusyError, also for a whole store
    that a server uses; NoSpaceError, UnsafeError, FormatError, LimitError, OSError.
    """
    source, target = _stores(destination, models)
    # An interrupted move may have brought a model there already.
    names = typed_models(names, source, may_be_elsewhere=True)
    if not names:
        _refuse_server(source)
    cargo = load_cargo(source, target, names, progress, hashed=False)
    with _told_for_a_move():
        planned = foreseen(cargo, _sink(cargo, jobs=jobs).compare(cargo.selection))
    if dry_run:
        return planned
    _refuse_small_disk(target, planned)
    if ready:
        ready()
    _refuse_unremovable(source)
    cargo = load_cargo(source, target, names, progress, hashed=True)
    report = _bring(cargo, trust_existing=trust_existing, jobs=jobs, progress=progress)
    return _finished(cargo, report, approve, progress)


def _stores(destination: str | Path, models: Path | None) -> tuple[LocalStore, LocalStore]:
    """Return the store that moves, and the store where it goes, which need not exist yet."""
    source, target = chosen_store(models).require_whole(), LocalStore(absolute(destination))
    refuse_globs(target.root)
    _refuse_one_store(source.root, target.root)
    refuse_missing_folder(target.root.parent)
    return source, target


def _finished(
    cargo: Cargo, report: MoveReport, approve: Callable[[MoveReport], bool] | None, progress: Progress
) -> MoveReport:
    """Remove here what has been brought there, if `approve` agrees. Return the final report."""
    if not cargo.target.exists:
        # There was nothing to move, so there is no store for Ollama to use.
        return replace(report, settings=(), warnings=cargo.selection.notes)
    if cargo.selection.blobs + cargo.selection.models and approve is not None and not approve(report):
        return report
    return remove_moved(cargo, report, progress)


def _refuse_one_store(source: Path, target: Path) -> None:
    parts = ("", "blobs", MANIFESTS)
    if any(is_same_file(source / part, target / other) for part in parts for other in parts):
        raise UsageError(f"{target}: is the store itself", hint=ostore("where", after="shows which store is used"))
    ours, theirs = ([path.resolve() for path in (root, root / BLOBS, root / MANIFESTS)] for root in (source, target))
    if any(one.is_relative_to(other) or other.is_relative_to(one) for one in ours for other in theirs):
        raise UsageError(f"{source} and {target}: one is inside the other")


def _refuse_server(source: LocalStore) -> None:
    """Raises BusyError if a server uses the store: it would list nothing afterwards, and write to the old folder."""
    for server in servers_of(source):
        if server.store is not None:
            raise BusyError(
                f"{source.root}: an ollama server uses this store (process {server.pid}); nothing was moved",
                hint="stop it (sudo systemctl stop ollama, or close the app), move, then start it with the new store",
            )


def _refuse_unremovable(source: LocalStore) -> None:
    """
    Raises the errors of `LocalStore.sweeping` now, so that nobody copies for hours before learning of them.

    Blobs in the trash that a model needs again are put back.
    """
    with source.sweeping() as sweep:
        sweep.return_needed()


def _refuse_small_disk(target: LocalStore, planned: MoveReport) -> None:
    """
    Raises NoSpaceError if the sizes show that there cannot be room. The copy itself asks again, exactly.

    What an interrupted move has staged there needs no more room: it is used, or deleted.
    """
    folder = target.root
    while not folder.exists():
        folder = folder.parent
    staged = allocated_bytes(file.facts for file in take_census(target.root).workspace.files)
    refuse_full(folder, planned.size_written - staged)


def _bring(
    cargo: Cargo,
    *,
    trust_existing: bool,
    jobs: int | None,
    progress: Progress,
) -> MoveReport:
    """Take everything into the other store. Nothing is removed."""
    sink = _sink(cargo, trust_existing=trust_existing, jobs=jobs, progress=progress)
    received = Received({})
    if cargo.selection.models or cargo.selection.blobs:
        received = _copied(cargo, sink, progress)
    return replace(
        report_of(cargo, received.outcomes),
        blobs_written=len(received.written),
        size_written=sum_of(received.written),
        blobs_linked=len(received.linked),
        size_linked=sum_of(received.linked),
        blobs_resumed=len(received.resumed),
        blobs_present=len(received.present),
    )


def _copied(cargo: Cargo, sink: StoreSink, progress: Progress) -> Received:
    try:
        with _told_for_a_move():
            return copy(cargo.source, sink, cargo.selection, phase="copying", progress=progress)
    except BlobError as error:
        if name := _gone_from(cargo):
            raise BusyError(
                f"{name}: another command has just moved or removed it",
                hint=ostore("list", after="shows what is still here"),
            ) from error
        # This imports the code that writes bundles, which a move needs only here.
        from ostore.api.export import with_users

        raise with_users(error, cargo.source) from None


def _sink(
    cargo: Cargo,
    *,
    trust_existing: bool = False,
    jobs: int | None,
    progress: Progress = SILENT,
) -> StoreSink:
    return StoreSink(
        cargo.target,
        trust_existing=trust_existing,
        jobs=threads(jobs),
        progress=progress,
        predecessor=cargo.source,
        modified=cargo.modified,
    )


@contextlib.contextmanager
def _told_for_a_move() -> Iterator[None]:
    """Change the hint of a UsageError: `move` has no --replace, so a person has to rename one of two models."""
    try:
        yield
    except UsageError as error:
        if error.hint and "replace=True" in str(error.hint):
            error.hint = _RENAMING
        raise


def _gone_from(cargo: Cargo) -> ModelName | None:
    """Return a model that was to move and is no longer in the old store, or None."""
    here = {entry.name for entry in find_manifests(cargo.source.root).entries}
    return next((model.name for model in cargo.selection.models if model.name not in here), None)
