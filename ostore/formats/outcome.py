"""What became of the models of a movement, and of their blobs: what a sink answers with."""

from __future__ import annotations

from collections.abc import Mapping
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
class Forecast:
    """
    What a sink would do with a selection, going by names and sizes: nothing is hashed, nothing is written.

    `missing` are the blobs that it would have to be given.
    """

    outcomes: Mapping[ModelName, Outcome]
    missing: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Received:
    """
    What a sink has taken in. Blobs were `written` (staged now), `resumed` (left whole by an interrupted command), or
    there already (`present`). `repaired` ones were there damaged. `linked` ones are files of another store on this
    disk, which have one more name now. `set_aside` are the names in quarantine of what was replaced and kept.
    """

    outcomes: Mapping[ModelName, Outcome]
    written: tuple[Descriptor, ...] = ()
    resumed: tuple[Descriptor, ...] = ()
    present: tuple[Descriptor, ...] = ()
    repaired: tuple[Descriptor, ...] = ()
    linked: tuple[Descriptor, ...] = ()
    set_aside: tuple[str, ...] = ()
