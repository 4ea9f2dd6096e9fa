"""The command that shows one model: as facts, and as a Modelfile."""

from __future__ import annotations

from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, UsageError
from ostore.formats.store_layout import BLOBS
from ostore.operations.listing import ShownModel, show_model

# Which instruction of a Modelfile a layer with weights stands for.
_SOURCES = {
    media_types.MODEL: "FROM",
    media_types.PROJECTOR: "FROM",
    media_types.ADAPTER: "ADAPTER",
    media_types.DRAFT: "DRAFT",
}


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
