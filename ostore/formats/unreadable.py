"""The type in which every scan reports what it could not read, and why."""

from __future__ import annotations

from dataclasses import dataclass

from ostore.formats.name import ModelName


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The path of a file or folder that cannot be read or is not what it should be, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class UnreadableManifest(Unreadable):
    """A manifest that cannot be read. `name` is the name of the model, or None if the path spells no name."""

    name: ModelName | None = None
