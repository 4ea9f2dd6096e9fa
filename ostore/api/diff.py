"""Compare what two places hold: stores, bundles, inventories and locks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ostore.api.basis import Basis, opened_basis
from ostore.api.chosen_store import chosen_store
from ostore.operations.comparison import Difference, compare
from ostore.settings import threads


@dataclass(frozen=True, slots=True)
class DifferingModel:
    """
    A model that A and B do not both hold as it is.

    `difference` is missing (from B), different (another manifest), incomplete (B lacks blobs of it) or extra (only B
    has it). `digest_a` and `digest_b` are of the manifests, None where there is none. `blobs` and `size` are what B
    lacks of it; None if nothing tells, as of a lock whose manifests the store does not have. `unknown` of those blobs
    are not in A either, and not in `size`.
    """

    name: str
    difference: Difference
    digest_a: str | None
    digest_b: str | None
    blobs: int | None
    size: int | None
    unknown: int


@dataclass(frozen=True, slots=True)
class LackingBlob:
    """A blob that A has and B lacks. `size` is in bytes."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class DiffReport:
    """
    What B lacks of A. `same` models are alike. `lacking` are the blobs to carry, each once, and `size` is their bytes.
    """

    a: str
    b: str
    models: tuple[DifferingModel, ...]
    same: int
    lacking: tuple[LackingBlob, ...]
    size: int
    warnings: tuple[str, ...]


def diff(a: str | Path | None, b: str | Path, *, jobs: int | None = None, models: Path | None = None) -> DiffReport:
    """
    Say what B lacks of A, and what differs, by names and by bytes to carry.

    Each is a folder with a store, a bundle, an inventory or a lock; `-` is an inventory or a lock on standard input.
    None for A is the store at `models`, which also resolves locks. Nothing is hashed. Raises NotFoundError, UsageError,
    FormatError, IntegrityError, UnsafeError, LimitError, OSError.
    """
    near = chosen_store(models)
    first_place = near.require_whole().root if a is None else a
    with (
        opened_basis(first_place, near=near, jobs=threads(jobs)) as first,
        opened_basis(b, near=near, jobs=threads(jobs)) as second,
    ):
        found = compare(first.inventory, second.inventory)
        warnings = (*_unresolved(first), *_unresolved(second))
    return DiffReport(
        a=str(first_place),
        b=str(b),
        models=tuple(
            DifferingModel(
                str(model.name),
                model.difference,
                str(model.digest_a) if model.digest_a else None,
                str(model.digest_b) if model.digest_b else None,
                model.blobs,
                model.size,
                model.unknown,
            )
            for model in found.models
        ),
        same=found.same,
        lacking=tuple(LackingBlob(str(blob.digest), blob.size) for blob in found.lacking),
        size=found.size,
        warnings=warnings,
    )


def _unresolved(basis: Basis) -> tuple[str, ...]:
    if not basis.unresolved:
        return ()
    count = len(basis.unresolved)
    return (f"{basis.label}: the store lacks {count:,} of its manifests, so nothing tells which blobs they name",)
