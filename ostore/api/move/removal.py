"""The last step of a move: what the new store has goes from the old one."""

from __future__ import annotations

import time
from dataclasses import replace

from ostore.api.move.cargo import Cargo
from ostore.api.move.check import settings_for
from ostore.api.move.left_behind import has_stayed, spared_blobs
from ostore.api.move.report import MoveReport
from ostore.operations.move import needed_without, refuse_doubts, removable
from ostore.places.store.succession import Succession
from ostore.places.store.survey.batches import BatchRecord
from ostore.places.store.survey.scan import stand
from ostore.places.store.survey.survey import survey
from ostore.streams.progress import Progress


def remove_moved(cargo: Cargo, report: MoveReport, progress: Progress) -> MoveReport:
    """Remove here what is there: manifests first, then the blobs that nothing here refers to any more."""
    progress.phase("removing", 0)
    succession = Succession(cargo.source, cargo.target)
    with cargo.source.sweeping(cargo.target) as sweep:
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
        names = {entry.name for entry in leaving if entry.name}
        census = found.census()
        needed = needed_without(found.references, names)
        blobs = removable(census, proved=held, needed=needed, spared=spared_blobs(cargo, census))
        swept = sweep.remove(
            BatchRecord(tuple(sorted(name.full for name in names)), tuple(blob.digest for blob in blobs)),
            now=time.time(),
            manifests=[stand(entry) for entry in leaving],
            blobs=blobs,
        )
        if cargo.is_whole:
            sweep.remove_empty_folders()
    gone = {str(name) for name in names}
    removed = [blob for blob in blobs if blob.filename in swept.removed]
    return replace(
        report,
        removed=True,
        models=tuple(replace(model, removed=model.name in gone) for model in report.models),
        blobs_removed=len(removed),
        size_removed=sum(blob.facts.size for blob in removed),
        left=has_stayed(cargo),
        settings=settings_for(cargo.target) if cargo.is_whole else (),
    )
