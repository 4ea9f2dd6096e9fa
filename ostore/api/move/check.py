"""Say whether Ollama uses a store: what decides that, and what is in the way."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.errors import UsageError
from ostore.formats.store_layout import BLOBS
from ostore.host.discovery import settings_of
from ostore.host.servers import OllamaProcess, ollama_processes
from ostore.places.store.store import LocalStore
from ostore.places.store.succession import is_same_file
from ostore.settings import surroundings
from ostore.streams.links import on_any_length


@dataclass(frozen=True, slots=True)
class StoreSetting:
    """
    A setting or process that decides which store Ollama uses.

    `who` is its kind, `store` the store that it names, and `detail` its file, variable or process number. `agrees` says
    that this is the store in question.
    """

    who: str
    store: str
    detail: str
    agrees: bool


@dataclass(frozen=True, slots=True)
class MoveCheckReport:
    """Whether all settings that decide which store Ollama uses name `destination`."""

    destination: str
    agrees: bool
    settings: tuple[StoreSetting, ...]


def check_move(destination: str | Path) -> MoveCheckReport:
    """
    Check whether the service, the environment, the app and running servers use the store at `destination`.

    Raises UsageError if `destination` is empty, OSError.
    """
    target = LocalStore(absolute(destination))
    settings = settings_for(target)
    return MoveCheckReport(str(target.root), all(setting.agrees for setting in settings), settings)


def absolute(destination: str | Path) -> Path:
    """Return the absolute path of a destination. Raises UsageError if it is empty."""
    if not str(destination):
        raise UsageError("DEST: expected a folder, got nothing", hint="ostore move /data/models")
    return on_any_length(Path(os.path.normpath(Path.cwd() / destination)))


def servers_of(store: LocalStore) -> tuple[OllamaProcess, ...]:
    """Return the Ollama processes that use this store, or a store that we may not know."""
    return tuple(process for process in ollama_processes() if process.store is None or process.uses(store.root))


def settings_for(target: LocalStore) -> tuple[StoreSetting, ...]:
    """Return every setting and process that names a store, each compared with the target."""
    said: list[tuple[str, Path | None, str]] = [
        (choice.reason, choice.path, choice.detail) for choice in settings_of(surroundings())
    ]
    said += (("process", server.store, f"{server.pid}") for server in ollama_processes() if not server.is_contained)
    return tuple(
        StoreSetting(who, str(store), detail, agrees=store == target.root or is_same_file(store, target.root))
        for who, store, detail in said
        if store
    )


def warnings_of(source: LocalStore, target: LocalStore) -> Iterator[str]:
    """Yield what a person should know before a move."""
    for server in servers_of(source):
        yield (
            f"an ollama is running (process {server.pid}): what it writes now, it writes to the old store; "
            "stop it first, and start it with the new one"
        )
    if problem := _closed_to_owner(source, target):
        yield problem


def _closed_to_owner(source: LocalStore, target: LocalStore) -> str | None:
    """Return a warning if the owner of the store may not pass a folder above the new one, or None."""
    with contextlib.suppress(OSError):
        owner = (source.root / BLOBS).stat()
        for folder in target.root.parents if hasattr(os, "geteuid") and owner.st_uid else ():
            status = folder.stat()
            bit = stat.S_IXOTH
            if status.st_uid == owner.st_uid:
                bit = stat.S_IXUSR
            elif status.st_gid == owner.st_gid:
                bit = stat.S_IXGRP
            if not status.st_mode & bit:
                return f"{folder}: the owner of the store (user {owner.st_uid}) may not pass through this folder"
    return None
