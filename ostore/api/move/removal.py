"""The last step of a move: remove from the old store what the new one has."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from ostore.api.gc import hinting_at_room
from ostore.api.move.cargo import Cargo
from ostore.api.move.check import settings_for
from ostore.api.move.left_behind import has_stayed, spared_blobs
from ostore.api.move.report import MoveReport
from ostore.formats.digest import Digest
from ostore.formats.name import ModelName
from ostore.operations.move import needed_without, refuse_doubts, removable
from ostore.places.store.succession import Succession
from ostore.places.store.survey.batches import BatchRecord
from ostore.places.store.survey.census import StoredBlob
from ostore.places.store.survey.manifest_tree import ManifestEntry
from ostore.places.store.survey.scan import StandingManifest, aliases_of
from ostore.places.store.survey.survey import survey
from ostore.streams.progress import Progress


def remove_moved(cargo: Cargo, report: MoveReport, progress: Progress) -> MoveReport:
    """
    Remove what the target has: manifests first, then the blobs that nothing refers to any more.

    Return the final report. Raises DamagedStoreError for a doubt, UsageError if a manifest has changed, BusyError,
    UnsafeError, NoSpaceError, OSError.
    """
    progress.phase("removing", 0)
    succession = Succession(cargo.source, cargo.target)
    with hinting_at_room(cargo.source), cargo.source.sweeping(cargo.target) as sweep:
        sweep.finish_interrupted()
        found = survey(cargo.source.root)
        refuse_doubts(found.references)
        held = succession.held_by_target(cargo.selection.sizes)
        whole = {model.name: model.raw for model in cargo.selection.models if held.issuperset(model.blobs)}
        leaving = [
            entry
            for entry in found.references.scan.tree.entries
            if entry.name in whole and succession.may_leave(entry, whole[entry.name])
        ]
        aliases = list(aliases_of(found.references.scan.tree, leaving))
        names = {entry.name for entry in leaving if entry.name}.union(*(alias.names for alias in aliases))
        census = found.census()
        needed = needed_without(found.references, names)
        blobs = removable(census, proved=held, needed=needed, spared=spared_blobs(cargo, census))
        swept = sweep.remove(
            BatchRecord(tuple(sorted(name.full for name in names)), tuple(blob.digest for blob in blobs)),
            now=time.time(),
            manifests=[
                *(_as_compared(entry, whole[entry.name]) for entry in leaving if entry.name),
                *(StandingManifest(alias.path, None) for alias in aliases),
            ],
            blobs=blobs,
        )
        # Without `manifests/`, nobody would take the rest for a store.
        if cargo.is_whole and not swept.in_use:
            sweep.remove_empty_folders()
    removed = [blob for blob in blobs if blob.filename in swept.removed]
    return _final(cargo, replace(report, in_use=swept.in_use), names, removed)


def _as_compared(entry: ManifestEntry, raw: bytes | None) -> StandingManifest:
    """Return the manifest that is to go: the one that was compared, and no other that comes under its name."""
    return StandingManifest(entry.relative, None if entry.is_link or raw is None else Digest.of(raw))


def _final(cargo: Cargo, report: MoveReport, names: Collection[ModelName], removed: Sequence[StoredBlob]) -> MoveReport:
    gone = {str(name) for name in names}
    return replace(
        report,
        removed=True,
        models=tuple(replace(model, removed=model.name in gone) for model in report.models),
        blobs_removed=len(removed),
        size_removed=sum(blob.facts.size for blob in removed),
        left=has_stayed(cargo),
        settings=settings_for(cargo.target) if cargo.is_whole else (),
    )
