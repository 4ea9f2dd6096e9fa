"""What `gc`, `restore`, `rm` and `cp` answer; apart from the other reports, because `list` need not import them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class JudgedBlob(NamedTuple):
    """
    A file in `blobs/` and why it goes or stays; `size` is its bytes, `allocated` those on the disk, `age` seconds since
    it was written, linked or renamed. `models` are those that need it.
    """

    filename: str
    digest: str
    size: int
    allocated: int
    age: int
    reason: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemovedDownload:
    """An abandoned download that went: `files` of Ollama's, and the bytes that they took up."""

    digest: str
    files: int
    allocated: int


@dataclass(frozen=True, slots=True)
class GcReport:
    """
    What was removed, or with `dry_run` would be. `kept` are the blobs that no model needs and that stay, or all that
    stay if every blob was asked for; `needed` is how many are needed.

    `leftovers` are files of interrupted commands, `expired` those of the trash whose time was over. `freed` is the
    bytes that are free now, `trashed` those that wait in the trash until `kept_until`. `download_since` is when the
    oldest download that seems to be under way began.
    """

    store: str
    dry_run: bool
    grace: float
    removed: tuple[JudgedBlob, ...]
    kept: tuple[JudgedBlob, ...]
    needed: int
    downloads: tuple[RemovedDownload, ...]
    leftovers: int
    expired: int
    freed: int
    trashed: int
    kept_until: float | None
    download_since: float | None
    sees_ollama: bool


@dataclass(frozen=True, slots=True)
class RestoredBlob:
    """`outcome`: restored, already there (something has its name, which stays) or damaged (it stays in the trash)."""

    filename: str
    digest: str
    size: int
    outcome: str


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What came back from the trash; `size` is the bytes of the blobs that did, or with `dry_run` would if whole."""

    store: str
    dry_run: bool
    blobs: tuple[RestoredBlob, ...]
    size: int


@dataclass(frozen=True, slots=True)
class RemovedBlob:
    """A blob that went with a model, or stayed: `reason` is empty, or why; `models` are those that share it."""

    filename: str
    digest: str
    size: int
    allocated: int
    reason: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RmReport:
    """
    Models that were removed, or with `dry_run` would be, their blobs that went and those that stayed, and the bytes
    that are free now. `doubt` is why no blob went, or None.
    """

    store: str
    dry_run: bool
    models: tuple[str, ...]
    removed: tuple[RemovedBlob, ...]
    stayed: tuple[RemovedBlob, ...]
    freed: int
    doubt: str | None


@dataclass(frozen=True, slots=True)
class CpReport:
    """What became of the new name: `outcome` is added, replaced, repaired or already there."""

    store: str
    dry_run: bool
    source: str
    destination: str
    outcome: str
    warnings: tuple[str, ...]
