"""Show one model."""

from __future__ import annotations

from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.typed import typed_models
from ostore.formats.errors import DamagedStoreError, UsageError
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
    return show_model(*chosen_model(name, models))


def show_part(name: str, part: Part, *, models: Path | None = None) -> bytes:
    """
    Return one part of a model byte for byte: its template, system, license, manifest or config.

    A part that it does not have is empty. Several licences are joined by line breaks. `name` may be a glob that matches
    one model. Raises what `show` raises, except FormatError.
    """
    return read_part(*chosen_model(name, models), part)


def chosen_model(name: str, models: Path | None) -> tuple[LocalStore, StoredModel]:
    """Return the one model that a name or glob means, and its store. Raises what `show` raises for it."""
    store = chosen_store(models).require()
    scan = store.scan(typed_models([name], store))
    for entry in scan.unreadable:
        raise DamagedStoreError(f"{entry.path}: {entry.reason}")
    if len(scan.models) > 1:
        raise UsageError(f"{name!r}: expected one model, got {len(scan.models)}")
    return store, scan.models[0]
