"""What could not be read, and why: one answer of everything that looks around."""

from __future__ import annotations

from dataclasses import dataclass, field

from ostore.formats.name import ModelName


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file or folder that cannot be read, or is not what it should be: its path and the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class UnreadableManifest(Unreadable):
    """
    The same where a manifest should be. `name` is the model's, or None if the path spells none.

    `raw` are the bytes that could be read. They may still mention blobs.
    """

    name: ModelName | None = None
    raw: bytes = field(default=b"", repr=False)
