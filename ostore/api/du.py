"""Measure the space that a store takes up, and the space that removing would free."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.typed import typed_models
from ostore.formats.errors import DamagedStoreError
from ostore.formats.name import choose
from ostore.formats.unreadable import Unreadable
from ostore.formats.wording import listed
from ostore.host.servers import sees_ollama
from ostore.operations.gc import GcTerms, plan_gc
from ostore.operations.usage import ModelUsage, SharedBlobs, Space, Tally, UsagePart, measure_usage
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.census import Census, FoundEntry, take_census
from ostore.places.store.survey.references import References, find_references
from ostore.places.store.survey.remainder import Remainder, find_remainder
from ostore.places.store.survey.scan import ManifestScan, StoredModel


@dataclass(frozen=True, slots=True)
class UsageReport:
    """
    The space that a store takes up.

    `models` are the models asked for, largest first. `frees` is what removing all of them together frees. The sizes of
    `parts` add up to `total`, and their reclaimable sizes to `reclaimable`. While there are `doubts`, which cannot be
    read, `ostore gc` deletes nothing. `not_counted` is what lies beside the store but is not part of it, or what may
    not be looked at. `warnings` are about whatever else is odd in the store.
    """

    store: str
    models: tuple[ModelUsage, ...]
    frees: Space
    total: Space
    shared: Space
    unique: Space
    reclaimable: Space
    parts: tuple[UsagePart, ...]
    shared_blobs: tuple[SharedBlobs, ...]
    doubts: tuple[Unreadable, ...]
    not_counted: tuple[Unreadable, ...]
    warnings: tuple[str, ...]


def du(names: Sequence[str] = (), *, models: Path | None = None) -> UsageReport:
    """
    Measure a store as `du` of coreutils does. Nothing is hashed. What `gc` with `partials` would leave now is not
    reclaimable.

    `names` (or globs) are the models to report one by one; the default is all. The other sizes are of the whole store.
    Raises NotFoundError, InvalidNameError, OSError for a folder of the store that cannot be read.
    """
    store = chosen_store(models).require()
    words = typed_models(names, store)
    references = find_references(store.root)
    tally = Tally(references)
    census = take_census(store.root, is_counted=tally.count)
    remainder = find_remainder(store.root, census, references.scan)
    chosen = _chosen(store, references.scan, words)
    usage = measure_usage(tally, census, references, remainder, chosen, going=_going(store, census, references))
    return UsageReport(
        store=str(store.root),
        models=usage.models,
        frees=usage.frees,
        total=usage.total,
        shared=usage.shared,
        unique=usage.unique,
        reclaimable=usage.reclaimable,
        parts=usage.parts,
        shared_blobs=usage.shared_blobs,
        doubts=tuple(Unreadable(doubt.path, doubt.reason) for doubt in references.doubts),
        not_counted=tuple(_not_counted(census, remainder)),
        warnings=(*store.told_half(), *store.told(references.scan, "counted"), *_links(store)),
    )


def _going(store: LocalStore, census: Census, references: References) -> tuple[FoundEntry, ...]:
    """Return what `gc` would take now: nothing while it refuses."""
    dead, batches = store.ended()
    terms = GcTerms(time.time(), partials=True, sees_ollama=sees_ollama())
    try:
        plan = plan_gc(census, references, dead=dead, batches=batches, terms=terms)
    except DamagedStoreError:
        return ()
    return (*plan.entries, *plan.leftovers, *plan.expired)


def _links(store: LocalStore) -> Iterator[str]:
    beside = store.unreferenced(lambda _: True)
    if beside.links:
        yield f"{listed(beside.links)}: a link; only the link is counted"
    if beside.dangling:
        yield f"{listed(beside.dangling)}: a link that leads to no file"


def _chosen(store: LocalStore, scan: ManifestScan, patterns: Sequence[str]) -> Sequence[StoredModel]:
    if not patterns:
        return scan.models
    chosen, unmatched = choose([model.name for model in scan.models], patterns)
    if unmatched:
        raise store.no_model(unmatched[0], scan.tree)
    wanted = set(chosen)
    return [model for model in scan.models if model.name in wanted]


def _not_counted(census: Census, remainder: Remainder) -> Iterator[Unreadable]:
    for name in remainder.others:
        yield Unreadable(name, "beside the store, not part of it")
    for tree in (*census.working_folders, census.workspace, census.staging):
        for found in tree.unreadable:
            yield Unreadable(str(tree.path / found.path), found.reason)
    for found in remainder.unreadable:
        yield Unreadable(found.path, found.reason)
