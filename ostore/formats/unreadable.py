"""The type in which every scan reports what it could not read, and why."""

from __future__ import annotations

from dataclasses import dataclass, field

from ostore.formats.name import ModelName


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The path of a file or folder that cannot be read or is not what it should be, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ClosedFolder(Unreadable):
    """A folder that we may not read, or that the disk does not give. `error` is what the system said."""

    error: OSError = field(compare=False)


@dataclass(frozen=True, slots=True)
class UnreadableManifest(Unreadable):
    """
    A manifest that cannot be read. `name` is the name of the model, or None if the path spells no name.

    `error` is what the system said about a file that we may not read or that the disk does not give, else None.
    """

    name: ModelName | None = None
    error: OSError | None = field(default=None, compare=False)
