"""What to do when the system denies something: who may do it, and what that user types."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ostore.cli.remedies import is_root, models_of
from ostore.formats.errors import OstoreError
from ostore.formats.remedy import Remedy, command, person
from ostore.host.accounts import owner_of
from ostore.host.discovery import find_store
from ostore.settings import surroundings

# Commands about no store.
_WITHOUT_STORE = frozenset({"inspect", "completion"})


def way_out(error: PermissionError, typed: Sequence[str]) -> Remedy:
    """Return what to do after an error of the system that denies a command with the arguments `typed` something."""
    store = _store(typed)
    place = _denied(Path(os.fsdecode(error.filename)) if error.filename else None, store, typed)
    if is_root() or place is None:
        return person("not even root may do that: is it immutable (lsattr), or on a drive that does not trust root?")
    if not hasattr(os, "geteuid"):
        return command("icacls", place, after="shows who may use it")
    if place.stat().st_uid == os.geteuid():
        return command("chmod", "u+rwX", place)
    owner = _user(place)
    if store is None or not _is_within(place, store):
        return person(f"{place} belongs to {owner}, and this command runs as {_me()}")
    first, *others = typed
    # Another user may have another store.
    about = () if models_of(typed) or first in _WITHOUT_STORE else ("--models", store)
    return command("ostore", first, *about, *others, user=owner)


def _store(typed: Sequence[str]) -> Path | None:
    models = models_of(typed)
    try:
        return find_store(surroundings(), Path(models) if models else None).path
    except OstoreError:
        return None


def _denied(path: Path | None, store: Path | None, typed: Sequence[str]) -> Path | None:
    """Return the nearest entry that is there and whose owner may allow what was denied."""
    if path is None or not path.is_absolute():
        # In a closed folder we do not see what was typed. Other relative paths are those of a store.
        is_here = path is not None and (os.path.lexists(path) or path in map(Path, typed))
        path = Path.cwd() / path if path is not None and is_here else store
    if path is None:
        return None
    # A link may lead into a folder that is closed.
    path = Path(os.path.realpath(path))
    for folder in reversed(path.parents):
        if folder.exists() and not os.access(folder, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return folder
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _is_within(place: Path, store: Path) -> bool:
    return place.is_relative_to(store) or store.is_relative_to(place)


def _user(place: Path) -> str:
    # None is Windows, where nobody types sudo.
    owner = owner_of(place) or ""
    return f"#{owner}" if owner.isdecimal() else owner


def _me() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.geteuid()}"
