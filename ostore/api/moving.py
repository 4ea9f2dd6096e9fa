"""Moving a store, or some models of it: everything is in the other store, proved, before anything is removed here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ostore.api.cargo import Cargo, load_cargo
from ostore.api.carrying import with_users
from ostore.api.opening import chosen_store
from ostore.api.resettling import absolute, is_same, servers_of, settings_for, warnings_of
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, BusyError, NotFoundError, UsageError
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Descriptor
from ostore.formats.name import ModelName
from ostore.formats.outcome import Outcome, Received
from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.operations.moving import (
    LeftEntry,
    MovedModel,
    MoveReport,
    needed_without,
    perhaps_in_use,
    refuse_doubts,
    removable,
    what_stays,
)
from ostore.operations.transfer import copy
from ostore.places.store.receiving.sink import Predecessor, StoreSink
from ostore.places.store.removing.emptying import remove_empty_folders
from ostore.places.store.removing.sweep import Sweep, stand
from ostore.places.store.removing.trash import BatchRecord
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.census import Census, allocated_bytes, take_census
from ostore.places.store.survey.manifest_tree import ManifestEntry, find_manifests
from ostore.places.store.survey.references import find_references
from ostore.places.store.survey.scan import read_small_file
from ostore.places.store.workspace import Workspace
from ostore.settings import refuse_globs, threads
from ostore.streams.durable import Directory
from ostore.streams.progress import SILENT, Progress
from ostore.streams.space import refuse_full


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
    Move the whole store, or the models that `names` and globs stand for, to the store at `destination`.

    First everything is taken in there, as by an import, linked where the disk is the same, and read back; only then it
    is removed here. `approve` is asked in between, None says yes; after a no everything is in both. `ready` is called
    before all of that, once it is known that `destination` will do and has room; what it raises ends the move.
    Interrupted at any moment, every model is whole in one of the two, and the same call goes on. What is at
    `destination` is not harmed: another model of a name is a UsageError. What cannot go along stays, and the report
    says so.

    Raises NotFoundError, UsageError, IntegrityError (a damaged blob), BusyError, NoSpaceError, UnsafeError,
    DamagedStoreError (something nobody can read; nothing is moved then), FormatError, OSError.
    """
    source, target = chosen_store(models).require(), LocalStore(absolute(destination))
    refuse_globs(target.root)
    _refuse_one_store(source.root, target.root)
    if not target.root.parent.exists():
        raise NotFoundError(f"{target.root.parent}: no such folder", hint="is the disk mounted? else create it first")
    cargo = load_cargo(source, target, names, progress, hashed=False)
    with _told_for_a_move():
        planned = _plan(cargo, _sink(cargo, jobs=jobs).compare(cargo.selection))
    if dry_run:
        return planned
    _refuse_small_disk(target, planned)
    if ready:
        ready()
    # First whether anything could be removed here: nobody should copy for hours to learn that.
    with _sweeping(source) as sweep:
        sweep.return_needed()
    cargo = load_cargo(source, target, names, progress, hashed=True)
    report = _bring(cargo, trust_existing=trust_existing, jobs=jobs, progress=progress)
    if not target.exists:
        # There was nothing to move, and nothing for Ollama to find there.
        return replace(report, settings=(), warnings=())
    if cargo.selection.blobs + cargo.selection.models and approve is not None and not approve(report):
        return report
    return _clear(cargo, report, progress)


def _refuse_one_store(source: Path, target: Path) -> None:
    parts = ("", "blobs", MANIFESTS)
    if any(is_same(source / part, target / other) for part in parts for other in parts):
        raise UsageError(f"{target}: is the store itself", hint="ostore where shows which store is used")
    ours, theirs = ([path.resolve() for path in (root, root / BLOBS, root / MANIFESTS)] for root in (source, target))
    if any(one.is_relative_to(other) or other.is_relative_to(one) for one in ours for other in theirs):
        raise UsageError(f"{source} and {target}: one is inside the other")


def _sink(
    cargo: Cargo,
    *,
    trust_existing: bool = False,
    jobs: int | None,
    progress: Progress = SILENT,
) -> StoreSink:
    return StoreSink(
        cargo.target,
        replace=False,
        trust_existing=trust_existing,
        make_parents=False,
        jobs=threads(jobs),
        progress=progress,
        predecessor=Predecessor(cargo.source.root, cargo.modified),
    )


def _bring(
    cargo: Cargo,
    *,
    trust_existing: bool,
    jobs: int | None,
    progress: Progress,
) -> MoveReport:
    """Take everything into the other store; nothing is removed."""
    sink = _sink(cargo, trust_existing=trust_existing, jobs=jobs, progress=progress)
    received = Received((), (), (), (), (), (), ())
    if cargo.selection.models or cargo.selection.blobs:
        try:
            with _told_for_a_move():
                copy(cargo.source, sink, cargo.selection, phase="copying", progress=progress)
        except BlobError as error:
            if name := _gone_from(cargo):
                raise BusyError(
                    f"{name}: another command has just moved or removed it", hint="ostore list shows what is still here"
                ) from error
            raise with_users(error, cargo.source) from None
        received = sink.received or received
    return replace(
        _report(cargo, dict(received.outcomes)),
        blobs_written=len(received.written),
        size_written=_sum(received.written),
        blobs_linked=len(received.linked),
        size_linked=_sum(received.linked),
        blobs_resumed=len(received.resumed),
        blobs_present=len(received.present),
    )


@contextlib.contextmanager
def _told_for_a_move() -> Iterator[None]:
    """A move has no --replace: another model of a name is to be given another one by a person."""
    try:
        yield
    except UsageError as error:
        if error.hint and "--replace" in error.hint:
            error.hint = "nothing is moved; ostore cp gives one of the two another name, ostore rm removes it"
        raise


def _gone_from(cargo: Cargo) -> ModelName | None:
    """A model that was to move and that the old store has no more."""
    here = {entry.name for entry in find_manifests(cargo.source.root).entries}
    return next((model.name for model in cargo.selection.models if model.name not in here), None)


def _refuse_small_disk(target: LocalStore, planned: MoveReport) -> None:
    """
    Raises NoSpaceError where there cannot be room, going by sizes; when it begins it is asked again, exactly.

    What an interrupted move has staged there takes its room already, or is given back.
    """
    folder = target.root
    while not folder.exists():
        folder = folder.parent
    staged = allocated_bytes(file.facts for file in take_census(target.root).workspace.files)
    refuse_full(folder, planned.size_written - staged)


def _plan(cargo: Cargo, outcomes: Mapping[ModelName, Outcome]) -> MoveReport:
    """What a move would do, going by the sizes of what is there: nothing is hashed, nothing is written."""
    blobs, target = cargo.selection.blobs, cargo.target
    # A new store has none, and need not be asked sixty thousand times.
    missing = [blob for blob in blobs if target.size_of(blob.digest) != blob.size] if target.has_blobs else [*blobs]
    linked = missing if _disk_of(cargo.source.root / BLOBS) == _disk_of(cargo.target.root / BLOBS) else []
    written = missing if not linked else []
    return replace(
        _report(cargo, outcomes),
        dry_run=True,
        blobs_written=len(written),
        size_written=_sum(written),
        blobs_linked=len(linked),
        size_linked=_sum(linked),
        blobs_present=len(blobs) - len(missing),
    )


def _disk_of(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return path.stat().st_dev


def _report(cargo: Cargo, outcomes: Mapping[ModelName, Outcome]) -> MoveReport:
    return MoveReport(
        source=str(cargo.source.root),
        destination=str(cargo.target.root),
        dry_run=False,
        removed=False,
        models=tuple(MovedModel(str(name), outcome.value, removed=False) for name, outcome in outcomes.items()),
        blobs_written=0,
        size_written=0,
        blobs_linked=0,
        size_linked=0,
        blobs_resumed=0,
        blobs_present=0,
        blobs_removed=0,
        size_removed=0,
        left=_staying(cargo),
        settings=settings_for(cargo.target.root) if cargo.is_whole else (),
        warnings=tuple(warnings_of(cargo.source.root, cargo.target.root)) if cargo.is_whole else (),
    )


def _staying(cargo: Cargo) -> tuple[LeftEntry, ...]:
    """What will stay in the old store when all is done; of some models only, that is not said."""
    if not cargo.is_whole:
        return ()
    spared = _spared(cargo, cargo.census)
    gone = removable(cargo.census, proved=cargo.selection.sizes, needed=(), spared=spared)
    # Of two files with one digest, it is that along which goes.
    names = {blob.filename for blob in gone if blob.digest.filename not in cargo.along}
    return what_stays(cargo.census, cargo.strays, gone=names, needed=(), damaged=cargo.damaged, spared=spared)


def _left(cargo: Cargo) -> tuple[LeftEntry, ...]:
    """What is still in the old store now that all is done."""
    if not cargo.is_whole:
        return ()
    root = cargo.source.root
    census, references = take_census(root), find_references(root)
    return what_stays(
        census,
        references.scan.strays,
        gone=(),
        needed=references.users,
        damaged=cargo.damaged,
        spared=_spared(cargo, census),
    )


def _spared(cargo: Cargo, census: Census) -> frozenset[Digest]:
    if not census.downloads and not servers_of(cargo.source.root):
        return frozenset()
    moved = {digest for model in cargo.selection.models for digest in model.blobs}
    return perhaps_in_use(
        census,
        used_there=moved | find_references(cargo.target.root).users.keys(),
        now=time.time(),
    )


def _clear(cargo: Cargo, report: MoveReport, progress: Progress) -> MoveReport:
    """Remove here what is there: manifests first, then the blobs that nothing here refers to any more."""
    progress.phase("removing", 0)
    root = cargo.source.root
    with _sweeping(cargo.source, cargo.target) as sweep:
        sweep.finish_interrupted()
        census, references = take_census(root), find_references(root)
        refuse_doubts(references)
        held = {digest for digest, size in cargo.selection.sizes.items() if _holds(cargo, digest, size)}
        whole = {model.name for model in cargo.selection.models if held.issuperset(model.blobs)}
        leaving = [entry for entry in find_manifests(root).entries if entry.name in whole and _may_go(cargo, entry)]
        names = {entry.name for entry in leaving if entry.name}
        blobs = removable(census, proved=held, needed=needed_without(references, names), spared=_spared(cargo, census))
        swept = sweep.remove(
            BatchRecord(tuple(sorted(name.full for name in names)), tuple(blob.digest for blob in blobs)),
            now=time.time(),
            manifests=[stand(entry) for entry in leaving],
            blobs=blobs,
        )
        if cargo.is_whole:
            remove_empty_folders(root)
    gone = {str(name) for name in names}
    removed = [blob for blob in blobs if blob.filename in swept.removed]
    return replace(
        report,
        removed=True,
        models=tuple(replace(model, removed=model.name in gone) for model in report.models),
        blobs_removed=len(removed),
        size_removed=sum(blob.facts.size for blob in removed),
        left=_left(cargo),
        settings=settings_for(cargo.target.root) if cargo.is_whole else (),
    )


def _holds(cargo: Cargo, digest: Digest, size: int) -> bool:
    """Whether the other store has a blob that this one may lose: a file of its own, or at least a name of its own."""
    if cargo.target.size_of(digest) != size:
        return False
    ours, theirs = (root / BLOBS / digest.filename for root in (cargo.source.root, cargo.target.root))
    return not is_same(ours, theirs) or theirs.lstat().st_nlink > 1


def _may_go(cargo: Cargo, entry: ManifestEntry) -> bool:
    """Whether a manifest here is still the one that was read, and the other store has a file of its own like it."""
    if entry.name is None or entry.tree != MANIFESTS:
        return False
    theirs = cargo.target.root.joinpath(MANIFESTS, *entry.name.parts)
    with contextlib.suppress(OSError):
        here, _ = read_small_file(entry.path, MAX_MANIFEST_BYTES)
        there, status = read_small_file(theirs, MAX_MANIFEST_BYTES)
        is_apart = not is_same(Path(entry.path), theirs) or status.st_nlink > 1
        return is_apart and here == there == cargo.manifests[entry.name]
    return False


@contextlib.contextmanager
def _sweeping(source: LocalStore, *others: LocalStore) -> Iterator[Sweep]:
    """The lock of the store that models leave, known to keep others out, and those of others."""
    with contextlib.ExitStack() as held:
        swept = None
        # In one order whoever asks: two moves in opposite directions must not wait for each other.
        for root in sorted({source.root, *(other.root for other in others)}):
            directory = held.enter_context(Directory.open(root))
            workspace = held.enter_context(contextlib.closing(Workspace.open(directory)))
            held.enter_context(workspace.locked())
            if root == source.root:
                workspace.refuse_without_locks()
                swept = directory, workspace
        if swept is None:
            raise RuntimeError("a store is among those that are locked")
        yield held.enter_context(Sweep.opened(*swept))


def _sum(blobs: Iterable[Descriptor]) -> int:
    return sum(blob.size for blob in blobs)
