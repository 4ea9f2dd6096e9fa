"""What `doctor` answers; apart from the other reports, because the others need not import all that it is of."""

from __future__ import annotations

from dataclasses import dataclass

from ostore.operations.doctor.finding import Finding
from ostore.operations.verify import Verdict
from ostore.places.store.fixing import Fix


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """
    What was looked at, and every finding, the most severe first; `size` is the bytes of the blobs that are there.

    `server` is the user that Ollama is taken to run as. `fixes` are the steps that `--fix` would take, or has taken.
    """

    store: str
    server: str
    models: int
    blobs: int
    size: int
    findings: tuple[Finding, ...]
    fixes: tuple[Fix, ...]
    verdict: Verdict
