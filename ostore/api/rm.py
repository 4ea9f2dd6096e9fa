"""Remove models, and the blobs that only they need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.gc import hinting_at_room
from ostore.api.typed import typed_models
from ostore.formats.digest import Digest
from ostore.formats.name import ModelName, choose
from ostore.operations.removal import DoomedManifest, RemovalPlan, StayingBlob, concerned_blobs, plan_removal
from ostore.places.plain_files.link_folder import links_that_break
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.batches import FoundBatch, find_batches
from ostore.places.store.survey.census import StoredBlob
from ostore.places.store.survey.manifest_tree import ManifestEntry, ManifestTree, find_manifests
from ostore.places.store.survey.scan import StandingManifest, aliases_of, chosen_alias, stand
from ostore.places.store.survey.survey import survey


@dataclass(frozen=True, slots=True)
class RemovedBlob:
    """
    A blob of a removed model that was removed or stayed.

    `size` is its bytes, `allocated` its bytes on the disk. `reason` says why it stayed, or is empty. `models` share it.
    """

    filename: str
    digest: str
    size: int
    allocated: int
    reason: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RmReport:
    """
    The models that were removed, or with `dry_run` would be, and their blobs.

    `freed` is the bytes on the disk that were freed, `linked` those of removed blobs that have another name on the disk
    (a hard link) and are not freed. `doubt` says why no blob was removed, or is None. `in_use` are the paths in the
    store of blobs that stay because, on Windows, another program has them open; the same call takes them later.
    `dangling` are the paths of links that `link` has made and that lead nowhere then.
    """

    store: str
    dry_run: bool
    models: tuple[str, ...]
    removed: tuple[RemovedBlob, ...]
    stayed: tuple[RemovedBlob, ...]
    freed: int
    doubt: str | None
    linked: int
    in_use: tuple[str, ...]
    dangling: tuple[str, ...]


def rm(
    names: Sequence[str],
    *,
    dry_run: bool = False,
    approve: Callable[[RmReport], bool] | None = None,
    models: Path | None = None,
) -> RmReport | None:
    """
    Remove the models that `names` or globs match, and the blobs that only they need.

    A model with a broken manifest can be removed too. While the manifest of another model is broken, no blob goes. With
    `dry_run`, nothing is removed. `approve` gets the report of a dry run; if it returns False, nothing is removed and
    `rm` returns None. Nothing beyond that report is removed.

    Raises NotFoundError if a word matches no model (nothing is removed then), UsageError if the models have changed
    after they were approved of, UnsafeError, DamagedStoreError, BusyError, NoSpaceError, OSError.
    """
    store = chosen_store(models).require()
    # A removal that was interrupted may go on, although nobody lists its models any more.
    removal = Removal(store, typed_models(names, store, may_be_elsewhere=True))
    if not dry_run:
        removal.prepare()
    if dry_run or approve:
        planned = removal.plan()
        if dry_run:
            return planned
        if approve and not approve(planned):
            return None
    return removal.carry_out()


def interrupted_removals(store: LocalStore) -> set[ModelName]:
    """Return the models that removals were to remove which have not ended. Raises OSError."""
    return {name for _, names in _interrupted(find_batches(store.workspace)) for name in names}


class Removal:
    """The removal of the models that names or globs match. `sync` removes models in the same way."""

    def __init__(self, store: LocalStore, words: Sequence[str]) -> None:
        self._store = store
        self.words = words
        self._approved: RemovalPlan | None = None

    def prepare(self) -> None:
        """Put back from the trash what models need. Raises NotFoundError for a word that matches no model, OSError."""
        # The word is found before anything is written.
        _choose(self._store, self.words, find_manifests(self._store.root), find_batches(self._store.workspace))
        with hinting_at_room(self._store):
            self._store.return_needed()

    def plan(self, needed: Mapping[Digest, tuple[str, ...]] | None = None) -> RmReport:
        """
        Return the report of a dry run. `carry_out` removes nothing beyond it. Raises what `rm` raises.

        `needed` are blobs that other models will need by then, with those models.
        """
        plan, _ = _plan_rm(self._store, self.words)
        self._approved = plan.keeping(needed or {})
        return _rm_report(self._store, self._approved, dry_run=True)

    def carry_out(self) -> RmReport:
        """Remove what is planned. Raises UsageError if the models have changed since, and what `rm` raises."""
        plan, doubt = _remove(self._store, self.words, self._approved)
        return _rm_report(self._store, plan, dry_run=False, doubt=doubt)


def _remove(store: LocalStore, words: Sequence[str], approved: RemovalPlan | None) -> tuple[RemovalPlan, str | None]:
    """
    Remove what is planned, but nothing that was not approved of.

    Return the plan of what was removed, and the doubt that has come up meanwhile and kept the blobs, or None.
    """
    with hinting_at_room(store), store.sweeping() as sweep:
        plan, resumed = _plan_rm(store, words)
        plan = plan.within(approved) if approved else plan
        swept = sweep.remove(
            plan.record,
            now=time.time(),
            manifests=[doomed.standing for doomed in plan.manifests],
            blobs=plan.blobs,
        )
        # Do this last. Until now only their records tell what is left of models that nobody lists any more.
        sweep.finish_interrupted(resumed)
        sweep.prune(plan.resumed)
        return replace(plan.without(swept.stayed), in_use=swept.in_use), swept.doubt


@dataclass(frozen=True, slots=True)
class _Chosen:
    """
    What words match: manifests, models whose manifests an interrupted removal has removed, and the interrupted
    removals to finish.
    """

    entries: list[ManifestEntry]
    resumed: set[ModelName]
    interrupted: list[FoundBatch]


def _plan_rm(store: LocalStore, words: Sequence[str]) -> tuple[RemovalPlan, tuple[str, ...]]:
    """Return the plan, and the trash folders of the interrupted removals that it finishes."""
    tree = find_manifests(store.root)
    chosen = _choose(store, words, tree, find_batches(store.workspace))
    # Before the survey reads them: a manifest that changes later is another model, and stays.
    doomed = list(_doomed(tree, chosen.entries))
    found = survey(store.root)
    names = {manifest.name for manifest in doomed}
    concerned = concerned_blobs(names, chosen.interrupted, found.references)
    plan = plan_removal(
        doomed,
        chosen.resumed,
        chosen.interrupted,
        found.census_of(concerned),
        found.references,
        concerned=concerned,
        dead=found.dead,
    )
    return plan, tuple(batch.name for batch in chosen.interrupted)


def _doomed(tree: ManifestTree, chosen: Sequence[ManifestEntry]) -> Iterator[DoomedManifest]:
    """Yield what goes: the manifests, for those behind a link the link, and the links that would lead nowhere."""
    links = {alias.path: alias for entry in chosen if (alias := chosen_alias(tree, entry, chosen))}
    links |= {alias.path: alias for alias in aliases_of(tree, chosen)}
    for entry in chosen:
        if entry.name and not entry.relative.startswith(tuple(f"{path}/" for path in links)):
            yield DoomedManifest(entry.name, stand(entry))
    for alias in links.values():
        yield from (DoomedManifest(name, StandingManifest(alias.path, None)) for name in alias.names)


def _choose(store: LocalStore, words: Sequence[str], tree: ManifestTree, batches: Sequence[FoundBatch]) -> _Chosen:
    """Return what the words match. Raises NotFoundError for a word that matches no model, OSError if it may."""
    chosen, absent = choose({entry.name for entry in tree.entries if entry.name}, words)
    interrupted = _interrupted(batches)
    resumed, unknown = choose({name for _, names in interrupted for name in names}, absent)
    if unknown:
        raise store.no_model(unknown[0], tree)
    resuming = [batch for batch, names in interrupted if not names.isdisjoint({*chosen, *resumed})]
    # A removal that was killed before it wrote its record has taken nothing.
    resuming += [batch for batch in batches if batch.record is None]
    return _Chosen([entry for entry in tree.entries if entry.name in chosen], set(resumed), resuming)


def _interrupted(batches: Sequence[FoundBatch]) -> list[tuple[FoundBatch, set[ModelName]]]:
    """Return the removals that were interrupted, each with the models that it removes."""
    return [
        (batch, {ModelName.parse_full(name) for name in batch.record.models})
        for batch in batches
        if batch.record and not batch.is_finished
    ]


def _rm_report(store: LocalStore, plan: RemovalPlan, *, dry_run: bool, doubt: str | None = None) -> RmReport:
    return RmReport(
        store=str(store.root),
        dry_run=dry_run,
        models=plan.models,
        removed=tuple(_removed(blob) for blob in plan.blobs),
        stayed=tuple(_removed(stay.blob, stay) for stay in plan.stays),
        freed=plan.freed,
        doubt=plan.doubt or doubt,
        linked=plan.linked,
        in_use=plan.in_use,
        dangling=tuple(_dangling(store, {blob.digest for blob in plan.blobs})),
    )


def _dangling(store: LocalStore, going: set[Digest]) -> Iterator[str]:
    """Yield the links that `link` has made and that lead nowhere when these blobs are gone."""
    for folder in store.linked_folders() if going else ():
        yield from links_that_break(Path(folder), store.absolute, going)


def _removed(blob: StoredBlob, stay: StayingBlob | None = None) -> RemovedBlob:
    return RemovedBlob(
        filename=blob.filename,
        digest=str(blob.digest),
        size=blob.facts.size,
        allocated=blob.facts.allocated,
        reason=stay.reason.value if stay else "",
        models=stay.models if stay else (),
    )
