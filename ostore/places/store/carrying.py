"""
Judge which models of a store can be carried elsewhere, and what a person should know about the others.

Every command that takes models out of a store asks here, a dry run as well: only what hashing tells comes later.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ostore.formats.config import is_config, is_stub
from ostore.formats.digest import Digest
from ostore.formats.errors import (
    BlobMissingError,
    DamagedStoreError,
    FormatError,
    LimitError,
    OstoreError,
    SizeMismatchError,
    UnsafeError,
)
from ostore.formats.manifest import MAX_CONFIG_BYTES, Descriptor
from ostore.formats.name import ModelName
from ostore.formats.remedy import ostore
from ostore.formats.selection import LeftOut, Selection
from ostore.formats.store_layout import BLOBS, COMING_MANIFESTS
from ostore.formats.unreadable import UnreadableManifest
from ostore.places.store.survey.blob_files import BlobFiles
from ostore.places.store.survey.scan import ManifestScan, StoredModel


class _Store(Protocol):
    @property
    def root(self) -> Path: ...
    @property
    def files(self) -> BlobFiles: ...
    @property
    def option(self) -> str | None: ...
    def read_small_blob(self, descriptor: Descriptor, limit: int) -> bytes: ...


def carriable(store: _Store, scan: ManifestScan, *, named: Collection[ModelName]) -> Selection:
    """
    Return the models of a scan that can be carried. `left` has the others, each with its error.

    Models in `named` were asked for one by one: the error of such a model is raised.
    """
    left = [_left(entry.name, entry.path, _unreadable_error(entry, store.option), named) for entry in scan.unreadable]
    blobs, models = _Blobs(store), []
    for model in _without_coming(scan.models):
        try:
            _refuse_to_carry(model)
            blobs.refuse(model)
        except (OstoreError, OSError) as error:
            left.append(_left(model.name, model.relative, error, named))
        else:
            models.append(model)
    models, notes = _without_aliases(models, named)
    twins = list(_twins(models))
    left += (_left(name, name.full, error, named) for name, error in twins)
    models = [model for model in models if model.name not in {name for name, _ in twins}]
    selection = Selection.of((model.name, model.manifest) for model in models)
    return selection.noting(left, (*notes, *_remarks(store, selection, models, blobs)))


def _left(name: ModelName | None, path: str, error: OstoreError | OSError, named: Collection[ModelName]) -> LeftOut:
    if name in named:
        raise error
    return LeftOut(str(name) if name else path, error)


def _without_coming(models: Iterable[StoredModel]) -> list[StoredModel]:
    """Leave out what the coming tree has of models that the present tree has too."""
    present = {model.name for model in models if model.tree != COMING_MANIFESTS}
    return [model for model in models if model.tree != COMING_MANIFESTS or model.name not in present]


def _unreadable_error(entry: UnreadableManifest, models: str | None = None) -> DamagedStoreError | OSError:
    """Return the error of a manifest that cannot be read. `models` is the `option` of its store."""
    hint = ostore("verify", models=models, after="lists everything that is damaged")
    return entry.error or DamagedStoreError(f"{entry.path}: {entry.reason}", hint=hint)


def _refuse_to_carry(model: StoredModel) -> None:
    """Raises FormatError, UnsafeError or LimitError for a model whose manifest must not travel."""
    if model.tree == COMING_MANIFESTS:
        raise FormatError(f"{model.name}: stored under {COMING_MANIFESTS}/, which no released Ollama writes")
    try:
        model.manifest.refuse_unclear()
    except (UnsafeError, FormatError, LimitError) as error:
        raise type(error)(f"{model.name}: {error}") from None


class _Blobs:
    """Looks at the file of each blob once, by name and size. `remarks` are about the odd ones that can be carried."""

    def __init__(self, store: _Store) -> None:
        self.remarks: dict[Digest, str] = {}
        self._store = store
        self._errors: dict[tuple[str, int], OstoreError | OSError | None] = {}

    def refuse(self, model: StoredModel) -> None:
        """Raises the error of the first blob of a model that cannot be read, is missing or has another size."""
        errors = self._errors
        for key in model.manifest.sizes:
            if key not in errors:
                errors[key] = self._error_of(Digest(key[0]), key[1])
            if error := errors[key]:
                raise error

    def _error_of(self, digest: Digest, size: int) -> OstoreError | OSError | None:
        try:
            found = self._store.files.find(digest)
        except OSError as error:
            return error
        if found is None:
            return BlobMissingError(f"blob {digest}: missing", digest=str(digest))
        path = f"{BLOBS}/{found.filename}"
        if found.status is None and not found.is_link:
            return DamagedStoreError(f"{path}: expected a regular file")
        if found.status is None:
            detail = f"missing: {path} is a link that leads to no file"
            return BlobMissingError(f"blob {digest}: {detail}", digest=str(digest))
        if found.status.st_size != size:
            detail = f"expected {size} bytes, got {found.status.st_size}"
            return SizeMismatchError(f"blob {digest}: {detail}", digest=str(digest))
        if found.is_link:
            self.remarks[digest] = f"{path}: a link; the bytes of its file are taken"
        elif found.filename != digest.filename and found.is_misspelled:
            self.remarks[digest] = f"{path}: not the name that Ollama gives a blob; its bytes are taken"
        return _closed(f"{self._store.root}/{path}", found.status)


def _closed(path: str, status: os.stat_result) -> PermissionError | None:
    if status.st_mode & stat.S_IROTH or os.access(path, os.R_OK):
        return None
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _without_aliases(models: list[StoredModel], named: Collection[ModelName]) -> tuple[list[StoredModel], list[str]]:
    """Leave out each second name of a model whose spelling differs only by case, and say so."""
    kept: dict[tuple[str, bytes], StoredModel] = {}
    notes = []
    # The spelling that was asked for stays, or else the one that sorts last: lower case.
    for model in sorted(models, key=lambda model: (model.name in named, model.name.full), reverse=True):
        first = kept.setdefault((model.name.folded, model.manifest.raw), model)
        if first is not model:
            notes.append(f"{model.name}: left out, because it is {first.name} under another spelling")
    spared = {id(model) for model in kept.values()}
    return [model for model in models if id(model) in spared], notes


def _twins(models: Iterable[StoredModel]) -> Iterator[tuple[ModelName, UnsafeError]]:
    """Yield the models whose names differ only by case from that of another model."""
    groups: dict[str, list[ModelName]] = {}
    for model in models:
        groups.setdefault(model.name.folded, []).append(model.name)
    for names in groups.values():
        for name in names if len(names) > 1 else ():
            other = next(other for other in names if other != name)
            yield name, UnsafeError(f"{name}: {other} differs from it only by case")


def _remarks(store: _Store, selection: Selection, models: Iterable[StoredModel], blobs: _Blobs) -> Iterator[str]:
    """Say what is odd about what is carried, and does no harm to it."""
    yield from (blobs.remarks[blob.digest] for blob in selection.blobs if blob.digest in blobs.remarks)
    for model in models:
        if remark := _config_remark(store, model):
            yield f"{model.name}: {remark}"


def _config_remark(store: _Store, model: StoredModel) -> str:
    """Say what a config means for whoever gets the model, or nothing."""
    config = model.manifest.config
    if config is None:
        return ""
    try:
        raw = store.read_small_blob(config, MAX_CONFIG_BYTES + 1)
        if not is_config(raw):
            return "its config is not JSON, so no server lists the model"
        if is_stub(raw):
            return "a cloud stub, of no use without the internet"
    except (OstoreError, OSError):
        # Whoever carries the blob finds out what is wrong with it.
        return ""
    return ""
