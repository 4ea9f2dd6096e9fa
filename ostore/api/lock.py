"""Pin the names of a store to the digests of their manifests, in a file for people to review and keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.basis import read_lock
from ostore.api.chosen_store import chosen_store
from ostore.api.typed import refuse_address, typed_models
from ostore.formats.errors import DamagedStoreError, NotFoundError, UsageError
from ostore.formats.lock_file import LockChange, LockedModel, LockFile
from ostore.formats.name import is_all
from ostore.formats.remedy import ostore
from ostore.formats.store_layout import MANIFESTS
from ostore.operations.inventory import clear_models
from ostore.places.store.store import LocalStore
from ostore.streams.links import on_any_length
from ostore.streams.writing import refuse_to_overwrite, write_whole


@dataclass(frozen=True, slots=True)
class ChangedLock:
    """A line that changes, with the full name and two digests: no `old` if it is added, no `new` if it is removed."""

    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class LockReport:
    """
    The lock, and what has changed in the file, or with `dry_run` would. `document` is the lock as it is kept.

    `file` is None if none was to be updated.
    """

    store: str
    file: str | None
    dry_run: bool
    models: int
    changes: tuple[ChangedLock, ...]
    document: bytes
    warnings: tuple[str, ...]


def lock(
    names: Sequence[str] = (),
    *,
    update: str | Path | None = None,
    dry_run: bool = False,
    models: Path | None = None,
) -> LockReport:
    """
    Return the lock of all models of the store, or of those that `names` (or globs) choose.

    `update` is a lock file to be brought up to date, completely or not at all, or made if it is not there. Without
    names it then has exactly the models of the store; with names, its other lines stay as they are. What people wrote
    in it stays. While a manifest cannot be read there is no lock: a line would be missing from it.

    Raises NotFoundError, UsageError, DamagedStoreError, BusyError, FormatError, UnsafeError, LimitError, OSError.
    """
    if update is not None:
        _refuse_no_file(str(update))
    store = chosen_store(models).require_whole()
    words = typed_models(names, store)
    locked, warnings = locked_models(store, words)
    path = None if update is None else on_any_length(Path(update))
    old = LockFile(()) if path is None else _old(path)
    new = old.updated(locked, is_whole=is_all(words))
    changes = old.changes_to(new)
    document = new.write()
    if path is not None and not dry_run and (changes or not path.exists()):
        write_whole(path, document, replace=True)
    return LockReport(
        store=str(store.root),
        file=None if update is None else str(update),
        dry_run=dry_run,
        models=len(new.models),
        changes=tuple(map(_changed, changes)) if path else (),
        document=document,
        warnings=warnings,
    )


def locked_models(store: LocalStore, words: Sequence[str]) -> tuple[list[LockedModel], tuple[str, ...]]:
    """
    Return the models of a store that words choose, with their digests, and why others are left out.

    Raises DamagedStoreError or OSError for a manifest or folder that cannot be read, NotFoundError.
    """
    scan = store.scan(words)
    for entry in scan.unreadable:
        hint = ostore("doctor", models=store.option, after="says what to do; models that are named can be locked now")
        raise entry.error or DamagedStoreError(f"{entry.path}: {entry.reason}", hint=hint)
    if is_all(words):
        scan.tree.refuse_closed()
    chosen, notes = clear_models(model for model in scan.models if model.tree == MANIFESTS)
    return [LockedModel(model.name, model.manifest.digest) for model in chosen], notes


def _refuse_no_file(word: str) -> None:
    refuse_address(word)
    if word == "-":
        raise UsageError("-: expected a file to update", hint=ostore("lock", after="prints the lock"))


def _old(path: Path) -> LockFile:
    refuse_to_overwrite(path, replace=True)
    try:
        return read_lock(path)
    except NotFoundError:
        return LockFile(())


def _changed(change: LockChange) -> ChangedLock:
    return ChangedLock(
        change.name.full, str(change.old) if change.old else None, str(change.new) if change.new else None
    )
