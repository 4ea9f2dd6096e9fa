"""Say what a store holds in a small file, for whoever makes the next bundle for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.typed import typed_models
from ostore.formats.digest import Digest
from ostore.formats.errors import LimitError
from ostore.formats.inventory import Inventory
from ostore.formats.manifest import Descriptor
from ostore.formats.name import is_all
from ostore.formats.store_layout import MANIFESTS
from ostore.operations.inventory import Insight, blobs_there, clear_models, look_inside, make_inventory
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.pool import Pool
from ostore.streams.progress import SILENT, Progress, stoppable


@dataclass(frozen=True, slots=True)
class InventoryReport:
    """
    What a store holds. `document` is the inventory as it is carried: canonical JSON (docs/delta.md).

    `models` and `blobs` are counts, `size` is the bytes of the blobs. `staged` blobs were finished by an interrupted
    import and belong to no model yet.
    """

    store: str
    models: int
    blobs: int
    size: int
    staged: int
    document: bytes
    warnings: tuple[str, ...]


def inventory(
    names: Sequence[str] = (),
    *,
    tensors: bool = False,
    verify: bool = False,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> InventoryReport:
    """
    List the models of a store, their manifests and the blobs that are there, judged by name and size.

    `names` (or globs) choose some models; the default is all, and then the blobs that an interrupted import has
    finished are listed too. `tensors` also lists header and tensors of each GGUF and safetensors file with their
    digests, so that a delta can build on them. `verify` hashes each blob and leaves out the damaged ones. Both read
    all blobs, once.

    Raises NotFoundError, UsageError, DamagedStoreError, LimitError if no reader would take the inventory, OSError.
    """
    store = chosen_store(models).require_whole()
    words = typed_models(names, store)
    listed, warnings = take_inventory(
        store, words, tensors=tensors, verify=verify, jobs=threads(jobs), progress=progress
    )
    try:
        document = listed.write()
    except LimitError as error:
        error.hint = "list fewer models" + (" or leave out tensors" if tensors else "")
        raise
    return InventoryReport(
        store=str(store.root),
        models=len(listed.models),
        blobs=len(listed.blobs),
        size=sum(blob.size for blob in listed.blobs),
        staged=sum(blob.is_staged for blob in listed.blobs),
        document=document,
        warnings=warnings,
    )


def take_inventory(
    store: LocalStore,
    words: Sequence[str] = (),
    *,
    tensors: bool = False,
    verify: bool = False,
    jobs: int = 1,
    progress: Progress = SILENT,
) -> tuple[Inventory, tuple[str, ...]]:
    """Return the inventory of a store, and what a person should know of it. Raises NotFoundError, OSError."""
    scan = store.scan(words)
    models, notes = clear_models(model for model in scan.models if model.tree == MANIFESTS)
    there = blobs_there(models, store.holds)
    insights: Mapping[Digest, Insight] = {}
    if tensors or verify:
        insights = _insights(store, tuple(there.values()), tensors=tensors, verify=verify, jobs=jobs, told=progress)
    listed, lacking = make_inventory(models, there, insights, store.staged() if is_all(words) else {})
    unread = (f"{entry.path}: not listed: {entry.reason}" for entry in scan.unreadable)
    closed = (f"{folder.path}: {folder.reason}" for folder in scan.tree.closed)
    return listed, (*notes, *lacking, *unread, *closed)


def _insights(
    store: LocalStore, blobs: Sequence[Descriptor], *, tensors: bool, verify: bool, jobs: int, told: Progress
) -> dict[Digest, Insight]:
    # The largest first: if one began last, a single thread would be busy when all others are done.
    ordered = sorted(blobs, key=lambda blob: -blob.size)
    told.phase("verifying sha256 digest" if verify else "reading tensors", sum(blob.size for blob in ordered))
    with Pool(max(1, jobs)) as pool, stoppable(told) as progress:
        look = partial(look_inside, store, progress=progress, tensors=tensors, verify=verify)
        return dict(zip((blob.digest for blob in ordered), pool.map(look, ordered), strict=True))
