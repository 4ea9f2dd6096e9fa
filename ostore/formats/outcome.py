"""What became of the models of a movement, and of their blobs: what a sink answers with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName


class Outcome(StrEnum):
    """What became, or would become, of one model."""

    ADDED = "added"
    REPLACED = "replaced"
    REPAIRED = "repaired"
    ALREADY_THERE = "already there"


@dataclass(frozen=True, slots=True)
class Received:
    """
    What was taken in. Blobs were `written` (staged now), `resumed` (left whole by an interrupted command), or were
    there already (`present`); `repaired` ones are those that stood in the store damaged. `linked` ones are files of
    another store on this disk, which have one more name now. `set_aside` are the names in quarantine of what was
    replaced and kept.
    """

    outcomes: tuple[tuple[ModelName, Outcome], ...]
    written: tuple[Descriptor, ...]
    resumed: tuple[Descriptor, ...]
    present: tuple[Descriptor, ...]
    repaired: tuple[Descriptor, ...]
    linked: tuple[Descriptor, ...]
    set_aside: tuple[str, ...]
