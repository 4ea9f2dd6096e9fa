"""Commands that remove: gc, what brings back what it kept, and rm; and cp, which gives a model a second name."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.api.opening import chosen_store, import_warnings
from ostore.formats.errors import DamagedStoreError, NoSpaceError, NotFoundError, UsageError
from ostore.formats.name import ModelName, is_glob
from ostore.formats.selection import Selection
from ostore.operations.gc import DEFAULT_GRACE_SECONDS, BlobReason, GcPlan, GcTerms, Verdict, plan_gc
from ostore.operations.removal import DoomedManifest, RemovalPlan, StayingBlob, named, plan_removal
from ostore.places.store.census import StoredBlob, allocated_bytes, list_blobs, take_census
from ostore.places.store.manifest_tree import ManifestEntry, find_manifests
from ostore.places.store.references import find_references
from ostore.places.store.store import LocalStore
from ostore.places.store.sweep import Sweep, stand
from ostore.places.store.trash import BatchRecord, FoundBatch, find_batches
from ostore.places.store.workspace import Workspace, dead_transactions, location
from ostore.reports import (
    CpReport,
    GcReport,
    JudgedBlob,
    RemovedBlob,
    RemovedDownload,
    RestoredBlob,
    RestoreReport,
    RmReport,
)
from ostore.settings import sees_ollama, threads
from ostore.streams.durable import Directory
from ostore.streams.progress import SILENT, Progress

if TYPE_CHECKING:
    from ostore.formats.manifest import Descriptor, Manifest
    from ostore.streams.chunks import Chunk

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def gc(
    *,
    grace: float = DEFAULT_GRACE_SECONDS,
    partials: bool = False,
    keep: float | None = None,
    without_models: bool = False,
    every_blob: bool = False,
    dry_run: bool = False,
    approve: Callable[[GcReport], bool] | None = None,
    models: Path | None = None,
) -> GcReport | None:
    """
    Remove the blobs that no model needs and that are older than `grace` seconds, and what interrupted commands left.

    `partials` also removes downloads that nobody went on with for a week. `keep` is for how many seconds the blobs
    wait in the trash, where `restore` finds them; without it their space is free at once. `every_blob` also reports
    the blobs that are needed. `approve` is shown the plan, as a report of a dry run, and no more than it has is
    removed; if it says no, None comes back.

    Raises DamagedStoreError while it is in doubt what is needed, or if there is no model at all, unless
    `without_models`; NotFoundError, BusyError, OSError, also where locks do not keep others out.
    """
    store = chosen_store(models).require()
    terms = GcTerms(time.time(), grace, partials, keep, sees_ollama(), without_models, every_blob)

    approved = None
    _mend(store.root, dry_run=dry_run)
    # A workspace is not made only to find out that there is nothing to do, or that it is refused.
    if dry_run or approve or not location(store.root).exists():
        approved = _plan_gc(store.root, terms)
        planned = _gc_report(store, approved, terms, dry_run=True)
        if dry_run:
            return planned
        if approved.is_empty:
            return _gc_report(store, approved, terms, dry_run=False)
        if approve and approved.takes_something and not approve(planned):
            return None
    with _sweeping(store.root) as sweep:
        plan = _plan_gc(store.root, terms)
        plan = plan.within(approved) if approved else plan
        sweep.finish_interrupted()
        if plan.blobs or plan.downloads:
            swept = sweep.remove(
                BatchRecord(expires=None if keep is None else terms.now + keep),
                now=terms.now,
                blobs=plan.blobs,
                downloads=plan.downloads,
                latest=plan.latest,
                latest_download=plan.latest_download,
            )
            if swept.doubt:
                raise DamagedStoreError(
                    f"nothing was removed, because it came to be in doubt what is needed: {swept.doubt}"
                )
            plan = plan.without(swept.stayed)
        sweep.expire(terms.now)
        sweep.clear_leftovers()
    return _gc_report(store, plan, terms, dry_run=False)


def rm(
    names: Sequence[str],
    *,
    dry_run: bool = False,
    approve: Callable[[RmReport], bool] | None = None,
    models: Path | None = None,
) -> RmReport | None:
    """
    Remove models (names or globs), and the blobs that only they need.

    A model whose manifest is broken can be removed as well. While the manifest of another one is, no blob goes. With
    `approve` as for `gc`.

    Raises NotFoundError for a word that stands for no model, and then nothing is removed; UnsafeError, UsageError if
    the models changed after they were approved of, BusyError, OSError.
    """
    store = chosen_store(models).require()
    approved = None
    _choose(store.root, names)
    _mend(store.root, dry_run=dry_run)
    if dry_run or approve:
        approved, _ = _plan_rm(store.root, names)
        planned = _rm_report(store, approved, dry_run=True)
        if dry_run:
            return planned
        if approve and not approve(planned):
            return None
    with _sweeping(store.root) as sweep:
        plan, resumed = _plan_rm(store.root, names)
        plan = plan.within(approved) if approved else plan
        sweep.finish_interrupted(resumed)
        sweep.prune(plan.resumed)
        swept = sweep.remove(
            plan.record,
            now=time.time(),
            manifests=[doomed.standing for doomed in plan.manifests],
            blobs=plan.blobs,
        )
        plan = plan.without(swept.stayed)
    return _rm_report(store, plan, dry_run=False, doubt=swept.doubt)


def restore(*, dry_run: bool = False, progress: Progress = SILENT, models: Path | None = None) -> RestoreReport:
    """
    Bring back every blob that is kept in the trash, once it is hashed. Nothing is overwritten.

    A damaged one is told of in the report, and stays where it is. Raises NotFoundError, BusyError, OSError.
    """
    from ostore.places.store.restoring import RestoreOutcome, bring_back, find_kept, find_sound

    store = chosen_store(models).require()
    kept = find_kept(store.root)
    sound, back = list(kept), list(kept)
    if kept and not dry_run:
        sound = find_sound(store.root, kept, progress)
        with _opened_workspace(store.root) as (root, place), place.locked():
            back = bring_back(root, place, sound)
    outcomes = dict.fromkeys(kept, RestoreOutcome.DAMAGED)
    outcomes |= dict.fromkeys(sound, RestoreOutcome.ALREADY_THERE)
    outcomes |= dict.fromkeys(back, RestoreOutcome.RESTORED)
    return RestoreReport(
        store=str(store.root),
        dry_run=dry_run,
        blobs=tuple(RestoredBlob(b.filename, str(b.digest), b.size, outcome.value) for b, outcome in outcomes.items()),
        size=sum(blob.size for blob in back),
    )


def cp(
    source: str, destination: str, *, replace: bool = False, dry_run: bool = False, models: Path | None = None
) -> CpReport:
    """
    Give a model a second name: its manifest is copied, byte for byte, and no blob is.

    A different model of that name is a UsageError without `replace`. Raises NotFoundError, IntegrityError if a blob of
    the model is missing or of another size, UnsafeError for a name that differs from another only by case,
    DamagedStoreError, AmbiguousManifestError, FormatError, BusyError, OSError.
    """
    from ostore.operations.transfer import copy
    from ostore.places.store.sink import StoreSink

    if is_glob(source) or is_glob(destination):
        raise UsageError("cp takes one model and one new name, and no glob")
    store = chosen_store(models).require()
    target = ModelName.parse(destination)
    store.select([source])
    ((name, manifest),) = store.selected
    selection = Selection.of([(target, manifest)])
    sink = StoreSink(store, replace=replace, trust_existing=True, make_parents=False, jobs=threads(None))
    outcomes = sink.compare(selection)
    if not dry_run:
        copy(_Renamed(store, target, manifest), sink, selection, phase="copying", progress=SILENT)
        outcomes = dict(sink.received.outcomes) if sink.received else outcomes
    return CpReport(
        store=str(store.root),
        dry_run=dry_run,
        source=str(name),
        destination=str(target),
        outcome=outcomes[target].value,
        warnings=tuple(import_warnings(selection)),
    )


class _Renamed:
    """A model of a store as a source, under another name."""

    def __init__(self, store: LocalStore, name: ModelName, manifest: Manifest) -> None:
        self._store = store
        self._name = name
        self._manifest = manifest

    def read_blobs(self, wanted: Collection[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[Chunk]]]:
        """Only those that are not where a store keeps them now, or are not whole: that is what a copy fails for."""
        yield from self._store.read_blobs(wanted)

    def read_manifests(self) -> Iterator[tuple[ModelName, bytes]]:
        yield self._name, self._manifest.raw


@contextlib.contextmanager
def _opened_workspace(root: Path) -> Iterator[tuple[Directory, Workspace]]:
    with Directory.open(root) as directory, contextlib.closing(Workspace.open(directory)) as place:
        yield directory, place


@contextlib.contextmanager
def _sweeping(root: Path) -> Iterator[Sweep]:
    """The store's lock, held and known to keep others out. Raises NoSpaceError on a disk that is full to the last."""
    try:
        with _opened_workspace(root) as (directory, place), place.locked():
            place.refuse_without_locks()
            with Sweep.opened(directory, place) as sweep:
                yield sweep
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoSpaceError(
            f"{error.filename}: no room left for the record of what is removed",
            hint="free some 100 KB on that disk by hand first",
        ) from error


def _mend(root: Path, *, dry_run: bool) -> None:
    """Before anything else is looked at, and before anybody is asked: no model may wait for what is in the trash."""
    if not dry_run and find_batches(root):
        with _sweeping(root) as sweep:
            sweep.mend()


def _plan_gc(root: Path, terms: GcTerms) -> GcPlan:
    # In this order: what a pull finishes meanwhile can then only add to what is needed.
    names = list_blobs(root)
    references = find_references(root)
    census = take_census(root, names, needed=() if terms.every_blob else references.named)
    return plan_gc(census, references, dead=dead_transactions(root), batches=find_batches(root), terms=terms)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What words stand for: manifests, models that an interrupted removing has removed already, and such removings."""

    entries: list[ManifestEntry]
    resumed: set[ModelName]
    interrupted: list[FoundBatch]


def _plan_rm(root: Path, words: Sequence[str]) -> tuple[RemovalPlan, tuple[str, ...]]:
    """The plan, and the folders of the interrupted removings that it finishes."""
    census = take_census(root)
    chosen = _choose(root, words)
    doomed = [DoomedManifest(entry.name, stand(entry)) for entry in chosen.entries if entry.name]
    references, dead = find_references(root), dead_transactions(root)
    plan = plan_removal(doomed, chosen.resumed, chosen.interrupted, census, references, dead=dead)
    return plan, tuple(batch.name for batch in chosen.interrupted)


def _choose(root: Path, words: Sequence[str]) -> _Chosen:
    """Raises NotFoundError for a word that stands for nothing."""
    entries, _ = find_manifests(root)
    chosen, absent = named(words, {entry.name for entry in entries if entry.name})
    interrupted = [
        (batch, {ModelName.parse_full(name) for name in batch.record.models})
        for batch in find_batches(root)
        if batch.record and not batch.is_finished
    ]
    resumed, unknown = named(absent, {name for _, names in interrupted for name in names})
    if unknown:
        raise NotFoundError(f"no model {unknown[0]!r} in {root}", hint="ostore list shows what is there")
    batches = [batch for batch, names in interrupted if not names.isdisjoint(chosen | resumed)]
    # Killed before it had written what was to go: it has taken nothing.
    batches += [batch for batch in find_batches(root) if batch.record is None]
    return _Chosen([entry for entry in entries if entry.name in chosen], resumed, batches)


def _gc_report(store: LocalStore, plan: GcPlan, terms: GcTerms, *, dry_run: bool) -> GcReport:
    return GcReport(
        store=str(store.root),
        dry_run=dry_run,
        grace=terms.grace,
        removed=tuple(_judged(verdict) for verdict in plan.verdicts if verdict.reason is BlobReason.ORPHAN),
        kept=tuple(_judged(verdict) for verdict in plan.verdicts if verdict.reason is not BlobReason.ORPHAN),
        needed=plan.needed,
        downloads=tuple(
            RemovedDownload(str(group.digest), len(group.files), allocated_bytes(file.facts for file in group.files))
            for group in plan.downloads
        ),
        leftovers=len(plan.leftovers),
        expired=len(plan.expired),
        freed=plan.freed,
        trashed=plan.trashed,
        kept_until=None if terms.keep is None else terms.now + terms.keep,
        download_since=plan.began,
        sees_ollama=terms.sees_ollama,
    )


def _judged(verdict: Verdict) -> JudgedBlob:
    blob = verdict.blob
    return JudgedBlob(
        filename=blob.filename,
        digest=str(blob.digest),
        size=blob.facts.size,
        allocated=blob.facts.allocated,
        age=int(verdict.age),
        reason=verdict.reason.value,
        models=verdict.models,
    )


def _rm_report(store: LocalStore, plan: RemovalPlan, *, dry_run: bool, doubt: str | None = None) -> RmReport:
    return RmReport(
        store=str(store.root),
        dry_run=dry_run,
        models=plan.models,
        removed=tuple(_removed(blob) for blob in plan.blobs),
        stayed=tuple(_removed(stay.blob, stay) for stay in plan.stays),
        freed=plan.freed,
        doubt=plan.doubt or doubt,
    )


def _removed(blob: StoredBlob, stay: StayingBlob | None = None) -> RemovedBlob:
    return RemovedBlob(
        filename=blob.filename,
        digest=str(blob.digest),
        size=blob.facts.size,
        allocated=blob.facts.allocated,
        reason=stay.reason.value if stay else "",
        models=stay.models if stay else (),
    )
