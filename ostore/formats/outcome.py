"""The answers of a sink: what happened to the models and blobs that it received."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName


class Outcome(StrEnum):
    """What happened, or would happen, to one model."""

    ADDED = "added"
    REPLACED = "replaced"
    REPAIRED = "repaired"
    ALREADY_THERE = "already there"


@dataclass(frozen=True, slots=True)
class Forecast:
    """
    What a sink would do with a selection. It compares names and sizes only; it hashes and writes nothing.

    `missing` are the blobs that the sink lacks.
    """

    outcomes: Mapping[ModelName, Outcome]
    missing: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Received:
    """
    What a sink has received. `written` blobs were staged by this command, `resumed` ones were staged whole by an
    interrupted command, and `present` ones were in the store already. `repaired` blobs were in the store, but damaged.
    `linked` blobs are files of another store on the same disk that got one more name. `set_aside` has the names in
    quarantine of files that were replaced and kept.
    """

    outcomes: Mapping[ModelName, Outcome]
    written: tuple[Descriptor, ...] = ()
    resumed: tuple[Descriptor, ...] = ()
    present: tuple[Descriptor, ...] = ()
    repaired: tuple[Descriptor, ...] = ()
    linked: tuple[Descriptor, ...] = ()
    set_aside: tuple[str, ...] = ()
