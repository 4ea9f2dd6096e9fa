"""Say what stays in the old store, and why."""

from __future__ import annotations

import time

from ostore.api.move.cargo import Cargo
from ostore.api.move.check import servers_of
from ostore.formats.digest import Digest
from ostore.operations.move import LeftEntry, perhaps_in_use, removable, what_stays
from ostore.places.store.survey.census import Census
from ostore.places.store.survey.references import find_references
from ostore.places.store.survey.survey import survey


def will_stay(cargo: Cargo) -> tuple[LeftEntry, ...]:
    """Return what will stay in the old store after the move. Empty if only some models move."""
    if not cargo.is_whole:
        return ()
    spared = spared_blobs(cargo, cargo.census)
    gone = removable(cargo.census, proved=cargo.selection.sizes, needed=(), spared=spared)
    # Of two files with one digest, the file that the model uses goes, and the other stays.
    names = {blob.filename for blob in gone if blob.digest not in cargo.along}
    return what_stays(cargo.census, cargo.strays, gone=names, needed=(), damaged=cargo.damaged, spared=spared)


def has_stayed(cargo: Cargo) -> tuple[LeftEntry, ...]:
    """Return what is still in the old store after the move. Empty if only some models have moved."""
    if not cargo.is_whole:
        return ()
    found = survey(cargo.source.root)
    census = found.census()
    return what_stays(
        census,
        [stray.path for stray in found.references.scan.strays] + list(found.references.scan.side_files),
        gone=(),
        needed=found.references.users,
        damaged=cargo.damaged,
        spared=spared_blobs(cargo, census),
    )


def spared_blobs(cargo: Cargo, census: Census) -> frozenset[Digest]:
    """Return the young blobs that stay, because a download is unfinished or an Ollama may use the old store."""
    if not census.downloads and not servers_of(cargo.source):
        return frozenset()
    moved = {digest for model in cargo.selection.models for digest in model.blobs}
    return perhaps_in_use(
        census,
        used_there=moved | find_references(cargo.target.root).users.keys(),
        now=time.time(),
    )
