"""The lock of a store, for the commands that remove; and what they say on a disk that is full to the last."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from ostore.formats.errors import NoSpaceError, OstoreError
from ostore.host.servers import sees_ollama
from ostore.operations.gc import GcPlan, GcTerms, plan_gc
from ostore.places.store.removing.sweep import Sweep
from ostore.places.store.removing.trash import find_batches
from ostore.places.store.survey.census import list_blobs, take_census
from ostore.places.store.survey.references import find_references
from ostore.places.store.workspace import Workspace, dead_transactions
from ostore.streams.durable import FULL, Directory


@contextlib.contextmanager
def opened_workspace(root: Path) -> Iterator[tuple[Directory, Workspace]]:
    """A store's folder and its `.ostore`, open."""
    with Directory.open(root) as directory, contextlib.closing(Workspace.open(directory)) as workspace:
        yield directory, workspace


@contextlib.contextmanager
def sweeping(root: Path) -> Iterator[Sweep]:
    """The store's lock, held and known to keep others out. Raises NoSpaceError on a disk that is full to the last."""
    try:
        with opened_workspace(root) as (directory, workspace), workspace.locked():
            workspace.refuse_without_locks()
            with Sweep.opened(directory, workspace) as sweep:
                yield sweep
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NoSpaceError(
            f"{error.filename}: no room left for the record of what is removed", hint=_way_out(root)
        ) from error


def return_needed(root: Path) -> None:
    """Before anything else is looked at, and before anybody is asked: no model may wait for what is in the trash."""
    if find_batches(root):
        with sweeping(root) as sweep:
            sweep.return_needed()


def planned_gc(root: Path, terms: GcTerms) -> GcPlan:
    """What collecting garbage would remove now. Raises DamagedStoreError, OSError."""
    # In this order: what a pull finishes meanwhile can then only add to what is needed.
    names = list_blobs(root)
    references = find_references(root)
    census = take_census(root, names, needed=() if terms.every_blob else references.named)
    return plan_gc(census, references, dead=dead_transactions(root), batches=find_batches(root), terms=terms)


def _way_out(root: Path) -> str:
    """What to do on such a disk: gc itself needs no room, if it finds something to begin with."""
    with contextlib.suppress(OstoreError, OSError):
        if planned_gc(root, GcTerms(time.time(), sees_ollama=sees_ollama())).blobs:
            return "ostore gc, without --keep, makes room first: there are blobs that no model needs"
    return "free some 100 KB on that disk by hand first"
