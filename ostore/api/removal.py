"""The command that removes models, and the one that gives a model a second name: rm and cp."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.api.opening import chosen_store, import_warnings
from ostore.api.outcomes import CpReport, RemovedBlob, RmReport
from ostore.api.sweeping import return_needed, sweeping
from ostore.formats.digest import Digest
from ostore.formats.errors import NotFoundError, UsageError
from ostore.formats.name import ModelName, is_glob
from ostore.formats.selection import Selection
from ostore.operations.removal import DoomedManifest, RemovalPlan, StayingBlob, concerned_blobs, named, plan_removal
from ostore.places.store.removing.sweep import stand
from ostore.places.store.removing.trash import FoundBatch, find_batches
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.census import StoredBlob, list_blobs, take_census
from ostore.places.store.survey.manifest_tree import ManifestEntry, find_manifests
from ostore.places.store.survey.references import find_references
from ostore.places.store.workspace import dead_transactions
from ostore.settings import threads
from ostore.streams.progress import SILENT

if TYPE_CHECKING:
    from ostore.formats.manifest import Descriptor, Manifest
    from ostore.streams.chunks import Chunk


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
    if not dry_run:
        # A word that stands for nothing is to be found before anything is written.
        _choose(store.root, names)
        return_needed(store.root)
    if dry_run or approve:
        approved, _ = _plan_rm(store.root, names)
        planned = _rm_report(store, approved, dry_run=True)
        if dry_run:
            return planned
        if approve and not approve(planned):
            return None
    with sweeping(store.root) as sweep:
        plan, resumed = _plan_rm(store.root, names)
        plan = plan.within(approved) if approved else plan
        swept = sweep.remove(
            plan.record,
            now=time.time(),
            manifests=[doomed.standing for doomed in plan.manifests],
            blobs=plan.blobs,
        )
        # Not before: until then only their records say what is left of models that nobody lists any more.
        sweep.finish_interrupted(resumed)
        sweep.prune(plan.resumed)
        plan = plan.without(swept.stayed)
    return _rm_report(store, plan, dry_run=False, doubt=swept.doubt)


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
    from ostore.places.store.receiving.sink import StoreSink

    if is_glob(source) or is_glob(destination):
        raise UsageError("cp takes one model and one new name, and no glob")
    store = chosen_store(models).require()
    target = ModelName.parse(destination)
    store.select([source])
    (model,) = store.selected
    selection = Selection.of([(target, model.manifest)])
    sink = StoreSink(store, replace=replace, trust_existing=True, make_parents=False, jobs=threads(None))
    outcomes = sink.compare(selection)
    if not dry_run:
        copy(_Renamed(store, target, model.manifest), sink, selection, phase="copying", progress=SILENT)
        outcomes = dict(sink.received.outcomes) if sink.received else outcomes
    return CpReport(
        store=str(store.root),
        dry_run=dry_run,
        source=str(model.name),
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


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What words stand for: manifests, models that an interrupted removing has removed already, and such removings."""

    entries: list[ManifestEntry]
    resumed: set[ModelName]
    interrupted: list[FoundBatch]


def _plan_rm(root: Path, words: Sequence[str]) -> tuple[RemovalPlan, tuple[str, ...]]:
    """The plan, and the folders of the interrupted removings that it finishes."""
    # In this order: what a pull finishes meanwhile can then only add to what is needed.
    names = list_blobs(root)
    chosen = _choose(root, words)
    doomed = [DoomedManifest(entry.name, stand(entry)) for entry in chosen.entries if entry.name]
    references, dead = find_references(root), dead_transactions(root)
    concerned = concerned_blobs({manifest.name for manifest in doomed}, chosen.interrupted, references)
    census = take_census(root, _named_by_any(concerned, names))
    plan = plan_removal(doomed, chosen.resumed, chosen.interrupted, census, references, concerned=concerned, dead=dead)
    return plan, tuple(batch.name for batch in chosen.interrupted)


def _named_by_any(digests: Collection[Digest], names: Iterable[str]) -> list[str]:
    """The names in `blobs/` that one of these digests has, in any form: the disk need not be asked about others."""
    filenames = {digest.filename for digest in digests}
    return [name for name in names if name.lower().replace(":", "-") in filenames]


def _choose(root: Path, words: Sequence[str]) -> _Chosen:
    """Raises NotFoundError for a word that stands for nothing."""
    entries = find_manifests(root).entries
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
