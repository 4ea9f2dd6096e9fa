"""The command that reads a bundle's index and nothing else; `inspect.py` would be Python's own name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ostore.api.addresses import opened_bundle
from ostore.formats.digest import Digest
from ostore.formats.selection import SelectedModel
from ostore.settings import threads


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


def inspect(bundle: str | Path, *, jobs: int | None = None) -> InspectReport:
    """What a bundle holds, from its index alone. Raises NotFoundError, UsageError, FormatError, UnsafeError, …"""
    with opened_bundle(bundle, jobs=threads(jobs)) as reader:
        index = reader.index
    sizes = index.selection.sizes
    return InspectReport(
        bundle=str(bundle),
        bundle_size=None if str(bundle) == "-" else Path(bundle).stat().st_size,
        creator=index.creator,
        models=tuple(_bundled(model, sizes) for model in index.selection.models),
        blobs=len(index.selection.blobs),
        size=index.selection.size,
        requires=len(index.selection.requires),
        warnings=index.selection.warnings,
    )


def _bundled(model: SelectedModel, sizes: Mapping[Digest, int]) -> BundledModel:
    return BundledModel(
        name=str(model.name),
        manifest_digest=str(model.manifest_digest),
        size=model.manifest_size + sum(sizes[digest] for digest in model.blobs),
        blobs=len(model.blobs),
    )
