"""Plan what `repair` takes from which source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ostore.api.repair.damage import Damage, models_of
from ostore.formats.digest import Digest
from ostore.formats.errors import UnsafeError, UsageError
from ostore.formats.manifest import Descriptor
from ostore.formats.selection import Selection
from ostore.operations.repair import Lack, Offer, RepairPlan, plan_repair
from ostore.operations.transfer import BlobSource
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore


def plan_from(damage: Damage, sources: Sequence[BlobSource]) -> RepairPlan:
    """Ask every source what it may have, and decide what to take. Nothing is hashed. Raises OSError."""
    names = (*damage.lack.manifests, *damage.absent)
    folded = {name.folded for name in names}
    models = [models_of(source, folded) for source in sources]
    needed = {blob.digest: blob for group in models for selection in group for blob in _all_blobs(selection)}
    wanted = _without_false_promises(damage, needed)
    lacking: dict[Digest, int | None] = {**wanted, **{blob.digest: blob.size for blob in needed.values()}}
    lacking |= {digest: size for digest, size in wanted.items() if size is not None}
    notes: list[str] = []
    offers = [
        Offer(source, _placeable(damage.store, source.label, group, notes), source.find_blobs(lacking))
        for source, group in zip(sources, models, strict=True)
    ]
    standing = {digest for digest, blob in needed.items() if damage.store.holds(blob)}
    planned = plan_repair(
        Lack(wanted, names, damage.lack.left),
        offers,
        standing=standing - wanted.keys(),
        obstacles={*damage.obstacles, *StoreSink(damage.store).obstacles(needed)},
    )
    return replace(planned, notes=(*notes, *planned.notes))


def _without_false_promises(damage: Damage, needed: Mapping[Digest, Descriptor]) -> dict[Digest, int | None]:
    """
    Return the lacking blobs, without those whose file has the size that a source says.

    There the store's own model promises a wrong size. The file counts as standing, and is hashed before a restored
    model relies on it.
    """
    misfits = {problem.subject for problem in damage.verified.problems if problem.kind == "blob-size"}
    return {
        digest: size
        for digest, size in damage.lack.blobs.items()
        if str(digest) not in misfits or digest not in needed or not damage.store.holds(needed[digest])
    }


def _placeable(store: LocalStore, label: str, models: Sequence[Selection], notes: list[str]) -> Sequence[Selection]:
    """Return the models whose names the store can take. Add a note for each other model."""
    sink = StoreSink(store)
    try:
        # Ask about all models at once first, because each question walks over every name in the store.
        sink.compare(Selection(tuple(selection.models[0] for selection in models), ()))
    except (UsageError, UnsafeError) as error:
        if len(models) > 1:
            return tuple(model for group in models for model in _placeable(store, label, (group,), notes))
        notes.append(f"{label}: {error}")
        return ()
    return models


def _all_blobs(selection: Selection) -> tuple[Descriptor, ...]:
    return (*selection.blobs, *selection.requires)
