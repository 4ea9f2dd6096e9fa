"""What `path`, `link` and `export --as gguf` need of a model: its files, where it runs, and what a file alone loses."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.typed import typed_models
from ostore.formats import media_types
from ostore.formats.config import ModelConfig
from ostore.formats.dialect import refusal
from ostore.formats.errors import BlobError, DamagedStoreError, OstoreError
from ostore.formats.manifest import MAX_CONFIG_BYTES, Descriptor
from ostore.formats.name import choose, is_glob
from ostore.formats.parts import Parts, instructions_of, parts_of
from ostore.formats.remedy import ostore
from ostore.formats.selection import LeftOut
from ostore.operations.show import ShownModel
from ostore.operations.weights import ShownWeights
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.scan import StoredModel

_READ, _ENTER = os.R_OK, os.X_OK


@dataclass(frozen=True, slots=True)
class PlainModel:
    """A model of one GGUF, with its files in the store."""

    stored: StoredModel
    parts: Parts

    @property
    def name(self) -> str:
        return str(self.stored.name)


def choose_models(names: Sequence[str], store: LocalStore) -> tuple[list[PlainModel], list[LeftOut]]:
    """
    Return the models that names and globs match. What only a glob matches and has no files is left out, as is a folder
    of models that cannot be read.

    Raises NotFoundError, UsageError, DamagedStoreError, and the error of a model that was named: NotFoundError for a
    cloud model, FormatError for one of tensors or in several files, IntegrityError for a missing config.
    """
    words = typed_models(names, store)
    scan = store.scan(words)
    typed = [word for word in words if not is_glob(word)]
    found = [model.name for model in scan.models] + [entry.name for entry in scan.unreadable if entry.name]
    named = set(choose(found, typed)[0]) if typed else set()
    models, left = [], []
    for entry in scan.unreadable:
        error: OstoreError | OSError = entry.error or DamagedStoreError(f"{entry.path}: {entry.reason}")
        if entry.name in named:
            raise error
        left.append(LeftOut(str(entry.name or entry.path), error))
    for stored in scan.models:
        try:
            model = plain_model(store, stored)
        except OstoreError as error:
            told = _naming(stored, error)
            if stored.name in named:
                raise told from None
            left.append(LeftOut(str(stored.name), told))
        else:
            models.append(model)
    if len(typed) < len(words):
        left += (LeftOut(folder.path, folder.error) for folder in scan.tree.closed)
    return models, left


def plain_model(store: LocalStore, stored: StoredModel) -> PlainModel:
    """
    Return a model with its files, each of which can be opened.

    Raises NotFoundError, FormatError, IntegrityError, DamagedStoreError, OSError.
    """
    parts = parts_of(stored.name, stored.manifest, _config(store, stored.manifest.config))
    for part in parts.all:
        with _naming_file(store.files.path_of(part)), store.opened_blob(part.digest):
            pass
    return PlainModel(stored, parts)


def weights_warning(name: object, weights: ShownWeights) -> str | None:
    """Return what a person should know before another program loads the weights of a model."""
    if weights.unknown:
        return f"{name}: cannot tell where it runs: {weights.unknown}"
    return f"{name}: {refusal(weights.dialect)}" if weights.dialect else None


def weights_of(shown: ShownModel) -> ShownWeights:
    """Return what the header of the weights says. A model of `parts_of` has one file of them."""
    return next(weights for weights in shown.weights if weights.media_type == media_types.MODEL)


def lost(shown: ShownModel) -> tuple[str, ...]:
    """Return the instructions of a Modelfile that a file of weights does not hold."""
    texts = {
        "TEMPLATE": shown.template,
        "SYSTEM": shown.system,
        "PARAMETER": shown.parameters,
        "MESSAGE": shown.messages,
        "RENDERER": shown.config.renderer,
        "PARSER": shown.config.parser,
    }
    return tuple(instruction for instruction, said in texts.items() if said)


def sources(model: PlainModel, paths: Mapping[Descriptor, str]) -> list[tuple[str, str]]:
    """Return the FROM, ADAPTER and DRAFT lines of a Modelfile beside the files, whose paths are given."""
    lines = {layer: word for word, layer in instructions_of(model.stored.manifest) if layer in paths}
    return [(word, f"./{paths[layer].rpartition('/')[2]}") for layer, word in lines.items()]


@contextlib.contextmanager
def telling_permissions() -> Iterator[None]:
    """Say in the error of a folder or file that this user may not use which permission is missing, and where."""
    try:
        yield
    except PermissionError as error:
        if not isinstance(error, OstoreError) and isinstance(error.filename, (str, os.PathLike)):
            _complete(error, Path(error.filename))
        raise


@contextlib.contextmanager
def _naming_file(path: Path) -> Iterator[None]:
    """Put the full path into the error of a file that may not be read: the system was told its name alone."""
    try:
        yield
    except PermissionError as error:
        error.filename = str(path)
        raise


def _complete(error: PermissionError, path: Path) -> None:
    path = path.absolute()
    for place in (*reversed(path.parents), path):
        try:
            status = place.stat()
        except OSError:
            return
        wanted = _ENTER if stat.S_ISDIR(status.st_mode) and place != path else _READ
        if not os.access(place, wanted, effective_ids=os.access in os.supports_effective_ids):
            what = "enter this folder" if wanted == _ENTER else "read this"
            error.filename = str(place)
            error.strerror = f"no permission to {what}{_mode(place, status)}"
            return


def _mode(place: Path, status: os.stat_result) -> str:
    if sys.platform == "win32":  # pragma: no cover - Windows
        return ""
    try:
        owner, group = place.owner(), place.group()
    except KeyError:
        owner, group = str(status.st_uid), str(status.st_gid)
    return f" ({stat.filemode(status.st_mode)} {owner}:{group})"


def _config(store: LocalStore, config: Descriptor | None) -> ModelConfig:
    if config is None:
        return ModelConfig()
    raw = store.read_small_blob(config, min(config.size, MAX_CONFIG_BYTES) + 1)
    try:
        return ModelConfig.parse(raw)
    except OstoreError:
        # It only tells whether the weights are on another host, and `verify` is about the rest.
        return ModelConfig()


def _naming(stored: StoredModel, error: OstoreError) -> OstoreError:
    if not str(error).startswith(f"{stored.name}: "):
        error.args = (f"{stored.name}: {error}",)
    if isinstance(error, BlobError):
        verify = ostore("verify", stored.name, after="shows all that is damaged")
        error.hint = verify.otherwise(ostore("repair", "--from", "BUNDLE", after="brings good copies"))
    return error
