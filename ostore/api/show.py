"""Show one model, as a report or as a Modelfile."""

from __future__ import annotations

from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.typed import typed_models
from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, UsageError
from ostore.formats.store_layout import BLOBS
from ostore.operations.listing import ShownModel, show_model

# The instruction of a Modelfile for each kind of layer with weights.
_SOURCES = {
    media_types.MODEL: "FROM",
    media_types.PROJECTOR: "FROM",
    media_types.ADAPTER: "ADAPTER",
    media_types.DRAFT: "DRAFT",
}


def show(name: str, *, models: Path | None = None) -> ShownModel:
    """
    Return one model: its config, its text layers and its descriptors. `name` may be a glob that matches one model.

    Raises NotFoundError, UsageError for a glob that matches several models, IntegrityError if a small blob is missing,
    DamagedStoreError if the manifest cannot be read or such a blob is no file, FormatError or LimitError for bad JSON,
    UnsafeError for an invalid name, OSError.
    """
    store = chosen_store(models).require()
    scan = store.scan(typed_models([name], store))
    for entry in scan.unreadable:
        raise DamagedStoreError(f"{entry.path}: {entry.reason}")
    if len(scan.models) > 1:
        raise UsageError(f"{name!r}: expected one model, got {len(scan.models)}")
    return show_model(store, scan.models[0])


def modelfile(name: str, *, models: Path | None = None) -> str:
    """
    Return the text of a Modelfile that builds a model again from the blobs of this store.

    `name` may be a glob that matches one model. Raises NotFoundError, UsageError for a glob that matches several
    models, IntegrityError if a small blob is missing, DamagedStoreError if the manifest cannot be read or such a blob
    is no file, FormatError or LimitError for bad JSON, UnsafeError for an invalid name, OSError.
    """
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
        # Tensors have no single file to name, and a model on another host has none. Ollama also names the model then.
        sources or [("FROM", shown.name)],
        (("TEMPLATE", shown.template), ("SYSTEM", shown.system), *(("LICENSE", text) for text in shown.licenses)),
        ((parameter.key, parameter.value) for parameter in shown.parameters),
        ((message.role, message.content) for message in shown.messages),
    )
