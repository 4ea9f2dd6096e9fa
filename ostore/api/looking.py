"""Commands that look at a store or a bundle: they change nothing, and hash nothing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ostore.api.opening import chosen_store, import_warnings, opened_bundle
from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, NotFoundError, UsageError
from ostore.formats.name import is_glob, matches_listing
from ostore.formats.store_layout import BLOBS
from ostore.formats.unreadable import Unreadable
from ostore.host.accounts import owner_of
from ostore.host.discovery import find_store, other_stores
from ostore.operations.listing import ShownModel, list_rows, show_model
from ostore.reports import BundledModel, InspectReport, ListReport, WhereReport
from ostore.settings import surroundings, threads

# Which instruction of a Modelfile a layer with weights stands for.
_SOURCES = {
    media_types.MODEL: "FROM",
    media_types.PROJECTOR: "FROM",
    media_types.ADAPTER: "ADAPTER",
    media_types.DRAFT: "DRAFT",
}


def where(*, models: Path | None = None) -> WhereReport:
    """Which store is used, why, and which others there are. Raises NotFoundError without a home folder."""
    known = surroundings()
    choice = find_store(known, models)
    exists = choice.path.is_dir()
    return WhereReport(
        store=str(choice.path),
        exists=exists,
        reason=choice.reason,
        detail=choice.detail,
        owner=owner_of(choice.path) if exists else None,
        free=shutil.disk_usage(choice.path).free if exists else None,
        others=other_stores(known, choice),
    )


def list_models(patterns: Sequence[str] = (), *, models: Path | None = None) -> ListReport:
    """
    The models of a store. A pattern is a glob, or a prefix of the name as for `ollama list`; case does not matter.

    Raises NotFoundError if there is no store, or a glob stands for nothing.
    """
    store = chosen_store(models).require()
    scan = store.scan()
    chosen = [model for model in scan.models if not patterns]
    for pattern in patterns:
        matching = [model for model in scan.models if matches_listing(pattern, model.name)]
        if not matching and is_glob(pattern):
            raise NotFoundError(f"no model {pattern!r} in {store.root}")
        chosen += (model for model in matching if model not in chosen)
    return ListReport(
        store=str(store.root),
        models=list_rows(store, chosen, scan.models),
        unreadable=tuple(Unreadable(entry.path, entry.reason) for entry in scan.unreadable),
    )


def show(name: str, *, models: Path | None = None) -> ShownModel:
    """One model. Raises NotFoundError, DamagedStoreError, and what reading its small blobs raises."""
    store = chosen_store(models).require()
    scan = store.scan([name])
    for entry in scan.unreadable:
        raise DamagedStoreError(f"{entry.path}: {entry.reason}")
    if len(scan.models) > 1:
        raise UsageError(f"{name!r} stands for {len(scan.models)} models, expected one")
    return show_model(store, scan.models[0])


def modelfile(name: str, *, models: Path | None = None) -> str:
    """The Modelfile that would build a model anew from the blobs of this store. Raises as `show`."""
    from ostore.formats.modelfile import render_modelfile

    store = chosen_store(models).require()
    shown = show(name, models=models)
    sources = [
        (_SOURCES[layer.media_type], str(store.root / BLOBS / Digest.parse(layer.digest).filename))
        for layer in shown.layers
        if layer.media_type in _SOURCES
    ]
    return render_modelfile(
        shown.name,
        # Tensors have no file of their own to name, nor has a model that runs elsewhere; Ollama names the model too.
        sources or [("FROM", shown.name)],
        (("TEMPLATE", shown.template), ("SYSTEM", shown.system), *(("LICENSE", text) for text in shown.licenses)),
        ((parameter.key, parameter.value) for parameter in shown.parameters),
        ((message.role, message.content) for message in shown.messages),
    )


def inspect(bundle: str | Path, *, jobs: int | None = None) -> InspectReport:
    """What a bundle holds, from its index alone. Raises NotFoundError, UsageError, FormatError, UnsafeError, …"""
    with opened_bundle(bundle, jobs=threads(jobs)) as reader:
        index = reader.index
    sizes = index.selection.sizes
    return InspectReport(
        bundle=str(bundle),
        bundle_size=None if str(bundle) == "-" else Path(bundle).stat().st_size,
        creator=index.creator,
        models=tuple(
            BundledModel(
                name=str(model.name),
                manifest_digest=str(model.manifest_digest),
                size=model.manifest_size + sum(sizes[digest] for digest in model.blobs),
                blobs=len(model.blobs),
            )
            for model in index.selection.models
        ),
        blobs=len(index.selection.blobs),
        size=index.selection.size,
        requires=len(index.selection.requires),
        warnings=tuple(import_warnings(index.selection)),
    )
