"""What the functions of the library answer: facts in plain types, which `--json` prints as they are (docs/json.md)."""

from __future__ import annotations

from dataclasses import dataclass

from ostore.formats.unreadable import Unreadable
from ostore.host.discovery import FoundStore
from ostore.operations.listing import ListedModel


@dataclass(frozen=True, slots=True)
class ListReport:
    """Rows newest first, and what stands among them without being a model."""

    store: str
    models: tuple[ListedModel, ...]
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True, slots=True)
class WhereReport:
    """Which store is used and why; `free` is bytes, `owner` a user name or number, both None if it is not there."""

    store: str
    exists: bool
    reason: str
    detail: str
    owner: str | None
    free: int | None
    others: tuple[FoundStore, ...]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """`size` is the bytes of all distinct blobs, `shared_size` what several models need and is there only once."""

    destination: str
    dry_run: bool
    models: tuple[str, ...]
    blobs: int
    size: int
    shared_size: int
    bundle_size: int | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """`outcome`: added, replaced, repaired (a broken manifest was there) or already there."""

    name: str
    outcome: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """
    Blobs were written now, resumed (left finished by an interrupted import) or present already; repaired ones were
    there, damaged, and are among the written or resumed. With `dry_run`, written is what would be.
    """

    source: str
    store: str
    dry_run: bool
    models: tuple[ImportedModel, ...]
    blobs_written: int
    size_written: int
    blobs_resumed: int
    blobs_present: int
    blobs_repaired: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model in a bundle: `size` is the bytes of its distinct blobs and its manifest."""

    name: str
    manifest_digest: str
    size: int
    blobs: int


@dataclass(frozen=True, slots=True)
class InspectReport:
    """What a bundle's index says; nothing of it is verified."""

    bundle: str
    bundle_size: int | None
    creator: str
    models: tuple[BundledModel, ...]
    blobs: int
    size: int
    requires: int
    warnings: tuple[str, ...]
