"""Which disk a folder is on: whether a medium is still mounted there, and how much room several folders have."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path

from ostore.formats.errors import NotFoundError
from ostore.streams.space import room_at


def disks_above(folder: Path) -> frozenset[int]:
    """
    Return the disks that a folder is on once what is mounted there is not any more. Empty if nothing is.

    Raises OSError.
    """
    found = set[int]()
    for parent in folder.resolve().parents:
        # Nobody needs to see every folder above the one that they work in.
        with contextlib.suppress(OSError):
            found.add(parent.stat().st_dev)
    return frozenset(found - {folder.stat().st_dev})


def refuse_bare(folder: Path, above: Collection[int]) -> None:
    """Raises NotFoundError if a folder is on one of the disks `above` the medium that was mounted there, or OSError."""
    if folder.stat().st_dev in above:
        raise NotFoundError(f"{folder}: no medium is mounted there")


def room_together(places: Iterable[Path]) -> int | None:
    """Return the bytes that are free at several places, each disk counted once. None if a disk does not tell."""
    rooms = {_disk(place): room_at(place) for place in places}
    known = [room for room in rooms.values() if room is not None]
    return sum(known) if len(known) == len(rooms) else None


def _disk(place: Path) -> int:
    """Return the disk that a place is on, or is to be made on."""
    return next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists()).stat().st_dev
