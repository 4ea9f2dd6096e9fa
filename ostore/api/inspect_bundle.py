"""
Say what a bundle holds, from its index alone, or a folder with a store, or an OCI image layout. Python itself has a
module `inspect`, so this has another name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostore.api.addresses import opened_source
from ostore.api.volumes import Word, volumes_of
from ostore.formats.digest import Digest
from ostore.formats.selection import SelectedModel
from ostore.places.bundle.reader import BundleReader
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
    What the index of a bundle, or the manifests of a store or layout, say. Nothing of it is verified.

    `bundle_size` is the bytes of the file or of all volumes, or None for standard input and for a folder. `creator` is
    empty for a folder. `blobs` counts the distinct blobs and `size` is their bytes. `requires` counts the blobs that
    the bundle leaves out and the target must have. `recipes` of the blobs are made of parts of others.
    """

    bundle: str
    bundle_size: int | None
    creator: str
    models: tuple[BundledModel, ...]
    blobs: int
    size: int
    requires: int
    recipes: int
    warnings: tuple[str, ...]


def inspect(bundle: Word, *, jobs: int | None = None) -> InspectReport:
    """
    Return what a bundle holds, from its index alone. `bundle` is a file, `-` for standard input, a folder with a store,
    as `export` makes it for `DIR/`, or `oci:DIR` for an OCI image layout.

    Raises NotFoundError, UsageError if it is neither a regular file nor a store, FormatError, IntegrityError,
    DamagedStoreError, LimitError or UnsafeError if it cannot be read, OSError.
    """
    volumes = volumes_of(bundle)
    found = volumes.looked_for() if volumes else None
    with opened_source(found or bundle, jobs=threads(jobs)) as source:
        selection = source.select(())
        creator = source.index.creator if isinstance(source, BundleReader) else ""
        size = source.bundle_size if isinstance(source, BundleReader) else None
    sizes = selection.sizes
    return InspectReport(
        bundle=str(bundle),
        bundle_size=size,
        creator=creator,
        models=tuple(_bundled(model, sizes) for model in selection.models),
        blobs=len(selection.blobs),
        size=selection.size,
        requires=len(selection.requires),
        recipes=len(selection.recipes),
        warnings=(
            *(found.find().warnings if found else ()),
            *(f"{left.name}: {left.reason}" for left in (one.told for one in selection.left)),
            *selection.warnings,
        ),
    )


def _bundled(model: SelectedModel, sizes: Mapping[Digest, int]) -> BundledModel:
    return BundledModel(
        name=str(model.name),
        manifest_digest=str(model.manifest_digest),
        size=sum(sizes[digest] for digest in model.blobs),
        blobs=len(model.blobs),
    )
