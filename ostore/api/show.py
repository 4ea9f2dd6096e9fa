"""Show one model, as a report or as a Modelfile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.typed import typed_models
from ostore.formats.errors import DamagedStoreError, UsageError
from ostore.formats.parts import INSTRUCTIONS
from ostore.formats.store_layout import BLOBS
from ostore.operations.show import Part, ShownModel, read_part, show_model
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.scan import StoredModel


def show(name: str, *, models: Path | None = None) -> ShownModel:
    """
    Return one model: its config, its text layers and its descriptors. `name` may be a glob that matches one model.

    Raises NotFoundError, UsageError for a glob that matches several models, IntegrityError if a small blob is missing
    or damaged, DamagedStoreError if the manifest cannot be read or such a blob is no file, FormatError for a small blob
    that is whole but not JSON, LimitError, UnsafeError for an invalid name, OSError.
    """
    return show_model(*_chosen(name, models))


def show_part(name: str, part: Part, *, models: Path | None = None) -> bytes:
    """
    Return one part of a model byte for byte: its template, system, license, manifest or config.

    A part that it does not have is empty. Several licences are joined by line breaks. `name` may be a glob that matches
    one model. Raises what `show` raises, except FormatError.
    """
    return read_part(*_chosen(name, models), part)


def modelfile(name: str, *, models: Path | None = None) -> str:
    """
    Return the text of a Modelfile that builds a model again from the blobs of this store.

    `name` may be a glob that matches one model. Raises what `show` raises, and FormatError for a value that no
    Modelfile can say.
    """
    store, model = _chosen(name, models)
    shown = show_model(store, model)
    sources = [
        (INSTRUCTIONS[layer.media_type], str(store.root / BLOBS / layer.digest.filename))
        for layer in model.manifest.layers
        if layer.media_type in INSTRUCTIONS
    ]
    # Tensors have no single file to name, and a model on another host has none. Ollama also names the model then.
    return modelfile_of(shown, sources or [("FROM", shown.name)])


def modelfile_of(shown: ShownModel, sources: Sequence[tuple[str, str]]) -> str:
    """Return the text of a Modelfile with these FROM, ADAPTER and DRAFT lines. Raises FormatError as `modelfile`."""
    from ostore.formats.modelfile import render_modelfile

    config = shown.config
    return render_modelfile(
        shown.name,
        sources,
        (
            ("TEMPLATE", shown.template),
            ("SYSTEM", shown.system),
            ("RENDERER", config.renderer),
            ("PARSER", config.parser),
            ("REQUIRES", config.requires),
            *(("LICENSE", text) for text in shown.licenses),
        ),
        ((parameter.key, parameter.value) for parameter in shown.parameters),
        ((message.role, message.content) for message in shown.messages),
    )


def _chosen(name: str, models: Path | None) -> tuple[LocalStore, StoredModel]:
    store = chosen_store(models).require()
    scan = store.scan(typed_models([name], store))
    for entry in scan.unreadable:
        raise DamagedStoreError(f"{entry.path}: {entry.reason}")
    if len(scan.models) > 1:
        raise UsageError(f"{name!r}: expected one model, got {len(scan.models)}")
    return store, scan.models[0]
