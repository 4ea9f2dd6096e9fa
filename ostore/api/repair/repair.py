"""Replace what is damaged or missing in a store by good copies from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.repair.damage import Damage, find_damage
from ostore.api.repair.plan import plan_from
from ostore.api.repair.report import RepairReport, foreseen, report_of
from ostore.api.repair.respelling import with_spelling
from ostore.api.repair.sources import open_sources, refuse_no_source
from ostore.api.typed import typed_models
from ostore.formats.errors import OstoreError
from ostore.formats.outcome import Received
from ostore.formats.remedy import NOTHING, Remedy, ostore
from ostore.operations.repair import RepairPlan, gather
from ostore.operations.transfer import BlobSource, RepairSink, Source
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.progress import SILENT, Progress

# The source of a blob that an earlier command had fetched and could not publish.
_RESUMED = "an interrupted command"


def repair(
    names: Sequence[str] = (),
    *,
    sources: Sequence[str | Path],
    dry_run: bool = False,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> RepairReport:
    """
    Hash the store, or the models that `names` match, and replace what is damaged or missing by copies from `sources`.

    `sources` are tried in order. A source is a bundle, `-` (a bundle on standard input), a folder with a store, or any
    folder of files; of those, files named by a digest are tried first, then files of the right size. An empty or broken
    manifest is restored from a bundle or store that has the model with all of its blobs, and so is a missing manifest
    that is named. Damaged files are kept in `.ostore/quarantine`. With `dry_run`, nothing is written.

    What cannot be repaired is in the report, not an error. After an error the store is as it was, except that a damaged
    file may also be in quarantine. Raises NotFoundError, UsageError, BusyError, NoSpaceError, UnsafeError,
    DamagedStoreError, OSError, and the error of the first source if none can be opened.
    """
    refuse_no_source(names, sources)
    store = chosen_store(models).require_whole()
    # A source may have a model that the store has lost.
    words = typed_models(names, store, may_be_elsewhere=True)
    with ExitStack() as opened:
        copies, notes = open_sources(sources, store, opened, jobs=threads(jobs), progress=progress)
        damage = find_damage(store, words, copies, jobs=threads(jobs), progress=progress)
        plan = plan_from(damage, copies)
        remedy = _import_instead(damage, plan, copies)
        if dry_run or plan.is_empty:
            report = foreseen(damage, plan, notes, dry_run=dry_run)
        else:
            report = _carry_out(damage, plan, notes, opened, jobs=threads(jobs), progress=progress)
    return replace(with_spelling(damage, report, progress), remedy=remedy)


def _import_instead(damage: Damage, plan: RepairPlan, sources: Sequence[BlobSource]) -> Remedy:
    """Return what takes blobs that are left and that a bundle makes of others of the store: a recipe, as in a delta."""
    left = damage.lack.blobs.keys() - {blob.digest for blob in plan.selection.blobs}
    for source in sources if left else ():
        # A store has no recipes, and standard input cannot be read again.
        if not isinstance(source, Source) or isinstance(source, LocalStore) or source.label == "-":
            continue
        selection = source.select(())
        made = selection.makers.keys() & left
        names = [word for model in selection.models if made & set(model.blobs) for word in ("--model", str(model.name))]
        if names:
            why = "it makes what is left of other blobs of the store, if those are whole"
            return ostore("import", source.label, *names, before=why)
    return NOTHING


def _carry_out(
    damage: Damage, plan: RepairPlan, notes: Iterable[str], opened: ExitStack, *, jobs: int, progress: Progress
) -> RepairReport:
    """
    Stage good copies, then publish them.

    `opened` are the sources. They are closed before anything is published, and an error while closing becomes a note.
    Raises UsageError, UnsafeError, BusyError, NoSpaceError, DamagedStoreError, OSError.
    """
    sink: RepairSink = StoreSink(damage.store, jobs=jobs, progress=progress)
    with sink.repair(plan.selection, plan.damaged) as inbox:
        gathered = gather(plan, inbox, progress)
        more = _closed(opened)
        inbox.forgo()
    received = inbox.received
    fetched = (*received.written, *received.resumed)
    blobs = {blob: gathered.origins.get(blob.digest, _RESUMED) for blob in fetched}
    return report_of(
        damage,
        plan,
        blobs,
        list(received.outcomes),
        notes=(*notes, *plan.notes, *gathered.notes, *more),
        kept=_kept(damage.store, received),
    )


def _closed(opened: ExitStack) -> tuple[str, ...]:
    try:
        opened.close()
    except (OstoreError, OSError) as error:
        return (str(error),)
    return ()


def _kept(store: LocalStore, received: Received) -> tuple[str, ...]:
    return tuple(str(store.quarantine / name) for name in received.set_aside)
