"""What one place lacks of another, by names and by bytes to carry. Both are inventories: nothing is read here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ostore.formats.digest import Digest
from ostore.formats.inventory import HeldModel, Inventory
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName

# What B has of a model: nothing, another model of that name, or this one without some of its blobs. Or A lacks it.
Difference = Literal["missing", "different", "incomplete", "extra"]


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """
    A model that is not the same in A and B. `digest_a` and `digest_b` are of its manifests, None where it is not.

    B lacks `blobs` of its blobs, `size` bytes. Both are None if nothing tells which blobs it has. `unknown` of them are
    not in A either.
    """

    name: ModelName
    difference: Difference
    digest_a: Digest | None
    digest_b: Digest | None
    blobs: int | None
    size: int | None
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    The models that differ, sorted by name, and the number of those that are the same.

    `lacking` are the blobs of A's models that A has and B lacks, each once: what is to be carried.
    """

    models: tuple[ComparedModel, ...]
    same: int
    lacking: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """The bytes to carry."""
        return sum(blob.size for blob in self.lacking)


def compare(a: Inventory, b: Inventory) -> Comparison:
    """Compare two inventories. A model without any blobs is one of a lock: which blobs it has is not known."""
    others = {model.name.folded: model for model in b.models}
    found = [_compared(model, others.pop(model.name.folded, None), a, b) for model in a.models]
    differing = [model for model in found if model is not None]
    differing += (ComparedModel(model.name, "extra", None, model.manifest.digest, 0, 0) for model in others.values())
    lacking = {digest: None for model in a.models for digest in _lacking(model, a, b)}
    return Comparison(
        tuple(sorted(differing, key=lambda model: model.name.full)),
        len(found) - sum(model is not None for model in found),
        tuple(Descriptor(digest, a.sizes[digest]) for digest in lacking if digest in a.sizes),
    )


def _compared(model: HeldModel, other: HeldModel | None, a: Inventory, b: Inventory) -> ComparedModel | None:
    lacking = list(_lacking(model, a, b))
    difference: Difference = "missing"
    if other is not None and other.manifest.digest == model.manifest.digest:
        if not lacking:
            return None
        difference = "incomplete"
    elif other is not None:
        difference = "different"
    known = [a.sizes[digest] for digest in lacking if digest in a.sizes]
    return ComparedModel(
        model.name,
        difference,
        model.manifest.digest,
        other.manifest.digest if other else None,
        len(lacking) if model.blobs else None,
        sum(known) if model.blobs else None,
        len(lacking) - len(known),
    )


def _lacking(model: HeldModel, a: Inventory, b: Inventory) -> Iterator[Digest]:
    """Yield the blobs of a model of A that B lacks, or has with another size."""
    for digest in model.blobs:
        size = b.sizes.get(digest)
        if size is None or size != a.sizes.get(digest, size):
            yield digest
