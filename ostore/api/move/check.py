"""The command that says whether Ollama uses a store: who has a say in that, and what is in the way."""

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
from ostore.settings import surroundings


@dataclass(frozen=True, slots=True)
class StoreSetting:
    """Who has a say in which store Ollama uses, what that is, where it is said, and whether it is the one meant."""

    who: str
    store: str
    detail: str
    agrees: bool


@dataclass(frozen=True, slots=True)
class MoveCheckReport:
    """Whether everything that has a say in which store Ollama uses names this one."""

    destination: str
    agrees: bool
    settings: tuple[StoreSetting, ...]


def check_move(destination: str | Path) -> MoveCheckReport:
    """Whether the service, the environment, the app and the servers that run use the store at `destination`."""
    target = LocalStore(absolute(destination))
    settings = settings_for(target)
    return MoveCheckReport(str(target.root), all(setting.agrees for setting in settings), settings)


def absolute(destination: str | Path) -> Path:
    if not str(destination):
        raise UsageError("DEST: expected a folder, got nothing", hint="ostore move /data/models")
    return Path(os.path.normpath(Path.cwd() / destination))


def is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def servers_of(store: LocalStore) -> tuple[OllamaProcess, ...]:
    """Those that use this store, or one that we may not know."""
    return tuple(process for process in ollama_processes() if process.store is None or process.uses(store.root))


def settings_for(target: LocalStore) -> tuple[StoreSetting, ...]:
    said: list[tuple[str, Path | None, str]] = [
        (choice.reason, choice.path, choice.detail) for choice in settings_of(surroundings())
    ]
    said += (("process", server.store, f"{server.pid}") for server in ollama_processes() if not server.is_contained)
    return tuple(
        StoreSetting(who, str(store), detail, agrees=store == target.root or is_same(store, target.root))
        for who, store, detail in said
        if store
    )


def warnings_of(source: LocalStore, target: LocalStore) -> Iterator[str]:
    for server in servers_of(source):
        yield (
            f"an ollama is running (process {server.pid}): what it writes now, it writes to the old store; "
            "stop it first, and start it with the new one"
        )
    if problem := _closed_to_owner(source, target):
        yield problem


def _closed_to_owner(source: LocalStore, target: LocalStore) -> str | None:
    """A folder above the new store that whoever owns the store may not pass: the reason why a server finds nothing."""
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
