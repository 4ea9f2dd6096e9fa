"""Read the index of a bundle, and nothing else. Python itself has a module `inspect`, so this has another name."""

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
    """A model in a bundle. `blobs` counts its distinct blobs and `size` is their bytes, as `list_models` adds them."""

    name: str
    manifest_digest: str
    size: int
    blobs: int


@dataclass(frozen=True, slots=True)
class InspectReport:
    """
    What the index of a bundle says. Nothing of it is verified.

    `bundle_size` is the bytes of the file, or None for standard input. `blobs` counts the distinct blobs and `size` is
    their bytes. `requires` counts the blobs that the bundle leaves out and the target must have.
    """

    bundle: str
    bundle_size: int | None
    creator: str
    models: tuple[BundledModel, ...]
    blobs: int
    size: int
    requires: int
    warnings: tuple[str, ...]


def inspect(bundle: str | Path, *, jobs: int | None = None) -> InspectReport:
    """
    Return what a bundle holds, from its index alone. `bundle` is a file, or `-` for standard input.

    Raises NotFoundError, UsageError if it is not a regular file, FormatError, IntegrityError, LimitError or UnsafeError
    for a bad bundle, OSError.
    """
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
        size=sum(sizes[digest] for digest in model.blobs),
        blobs=len(model.blobs),
    )
