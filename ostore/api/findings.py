"""What `du` and `doctor` answer; apart from the other reports, because `list` need not import all that they are of."""

from __future__ import annotations

from dataclasses import dataclass

from ostore.operations.doctor.finding import Finding, Verdict
from ostore.operations.usage import ModelUsage, SharedBlobs, Space, UsagePart
from ostore.places.store.mending import Mending
from ostore.reports import UnreadableEntry


@dataclass(frozen=True, slots=True)
class UsageReport:
    """
    What takes up a store's room. `models` are those asked for, largest first; `frees` is what removing all of them
    together gives back. `parts` add up to `total`, and what they have that is reclaimable to `reclaimable`.

    `doubts` cannot be read, so `ostore gc` deletes nothing while they are there; `not_counted` is what lies beside the
    store without being its, or may not be looked at.
    """

    store: str
    models: tuple[ModelUsage, ...]
    frees: Space
    total: Space
    shared: Space
    unique: Space
    reclaimable: Space
    parts: tuple[UsagePart, ...]
    shared_blobs: tuple[SharedBlobs, ...]
    doubts: tuple[UnreadableEntry, ...]
    not_counted: tuple[UnreadableEntry, ...]


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """
    What was looked at, and every finding, the most severe first; `size` is the bytes of the blobs that are there.

    `server` is the user that Ollama is taken to run as. `mendings` are the steps that `--fix` would take, or has taken.
    """

    store: str
    server: str
    models: int
    blobs: int
    size: int
    findings: tuple[Finding, ...]
    mendings: tuple[Mending, ...]
    verdict: Verdict
