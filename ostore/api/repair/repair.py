"""The command that replaces what is damaged or missing by good copies from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.repair.damage import Damage, find_damage
from ostore.api.repair.plan import plan_from
from ostore.api.repair.report import RepairReport, foreseen, report_of
from ostore.api.repair.sources import open_sources
from ostore.formats.errors import OstoreError
from ostore.formats.outcome import Received
from ostore.operations.repair import RepairPlan, gather
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.progress import SILENT, Progress

# Where a blob came from that a command before this one had fetched and could not publish.
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
    Hash the store, or the models named, and replace what is damaged or missing from `sources`, tried in that order.

    A source is a bundle, `-` (a bundle on standard input), a folder that is a store, or any folder of files: of those,
    the ones named by a digest are tried first, then the ones of the right size. Damaged files are kept in
    `.ostore/quarantine`. A manifest that is empty or broken is restored from a bundle or store that has the model, and
    so is one that is not there if it is named, but only with all of its blobs. What cannot be repaired is in the
    report, not an error. After an error the store is as it was, except that a damaged file may be in quarantine too.

    Raises NotFoundError, UsageError, BusyError, NoSpaceError, UnsafeError, DamagedStoreError, OSError.
    """
    store = chosen_store(models).require()
    with ExitStack() as opened:
        copies, notes = open_sources(sources, store, opened, jobs=threads(jobs), progress=progress)
        damage = find_damage(store, names, copies, jobs=threads(jobs), progress=progress)
        plan = plan_from(damage, copies)
        if dry_run or plan.is_empty:
            return foreseen(damage, plan, notes, dry_run=dry_run)
        return _carry_out(damage, plan, notes, opened, jobs=threads(jobs), progress=progress)


def _carry_out(
    damage: Damage, plan: RepairPlan, notes: Iterable[str], opened: ExitStack, *, jobs: int, progress: Progress
) -> RepairReport:
    """
    Do what is planned: stage good copies, then publish them.

    `opened` are the sources, closed before anything is published: what is wrong with one of them by then is no news.
    Raises BusyError, NoSpaceError, DamagedStoreError, OSError.
    """
    sink = StoreSink(damage.store, jobs=jobs, progress=progress)
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
