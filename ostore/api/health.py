"""Commands that keep a store sound: repair."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.api.opening import chosen_store
from ostore.settings import threads
from ostore.streams.progress import SILENT, Progress

# Hashing and publishing are imported by the functions that need them.
if TYPE_CHECKING:
    from ostore.operations.repair import RepairReport


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
    from ostore.api import mending

    store = chosen_store(models).require()
    with contextlib.ExitStack() as opened:
        opened_sources, notes = mending.open_sources(sources, store, opened, jobs=threads(jobs), progress=progress)
        found = mending.look(store, names, opened_sources, jobs=threads(jobs), progress=progress)
        plan = mending.plan(found, opened_sources)
        if dry_run or plan.is_empty:
            return mending.foreseen(found, plan, notes, dry_run=dry_run)
        return mending.carry_out(found, plan, notes, opened, jobs=threads(jobs), progress=progress)
