"""The path of a model's weights, for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.plain_models import choose_models, telling_permissions, weights_warning
from ostore.formats.dialect import runs_in
from ostore.formats.errors import DamagedStoreError, UsageError
from ostore.operations.weights import read_weights


@dataclass(frozen=True, slots=True)
class PathPart:
    """One file of a model: its media type in the manifest, its digest, size in bytes, and absolute path."""

    media_type: str
    digest: str
    size: int
    path: str


@dataclass(frozen=True, slots=True)
class PathReport:
    """
    The files of one model. `path` is that of the weights, `parts` are all files, the weights first.

    `runs_in` says which programs load the weights, or is empty if the header cannot be read. `dialect` is the
    architecture of weights that only Ollama loads, or None.
    """

    store: str
    name: str
    path: str
    parts: tuple[PathPart, ...]
    runs_in: str
    dialect: str | None
    warnings: tuple[str, ...]


def path(name: str, *, strict: bool = False, models: Path | None = None) -> PathReport:
    """
    Return the paths of a model's files. Only the header of the weights is read, and nothing is hashed.

    `name` may be a glob that matches one model. With `strict`, weights that other programs do not load, or whose header
    cannot be read, are an error.

    Raises NotFoundError, also for a cloud model; UsageError for a glob that matches several models; FormatError for a
    model of tensors or in several files; IntegrityError for a missing or incomplete blob; DamagedStoreError; OSError.
    """
    with telling_permissions():
        store = chosen_store(models).require()
        found, left = choose_models([name], store)
        if len(found) + len(left) > 1:
            raise UsageError(f"{name!r}: expected one model, got {len(found) + len(left)}")
        for one in left:
            raise one.error
        (model,) = found
        weights, _ = read_weights(store, model.parts.weights)
        warning = weights_warning(model.name, weights)
        if warning and strict:
            # Only this class has exit code 10, which scripts know.
            raise DamagedStoreError(warning)
        parts = tuple(
            PathPart(part.media_type, str(part.digest), part.size, str(store.files.path_of(part)))
            for part in model.parts.all
        )
    return PathReport(
        store=str(store.root),
        name=model.name,
        path=parts[0].path,
        parts=parts,
        runs_in="" if weights.unknown else runs_in(weights.dialect),
        dialect=weights.dialect or None,
        warnings=(warning,) if warning else (),
    )
