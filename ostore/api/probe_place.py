"""Which store a running Ollama uses, as far as that can be proven, and where servers of this machine listen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ostore.formats.errors import OstoreError
from ostore.formats.remedy import NOTHING, Remedy, ostore, person
from ostore.formats.store_layout import BLOBS
from ostore.formats.web_address import is_loopback
from ostore.host.discovery import find_store
from ostore.host.ollama_address import HOST_VARIABLE, address_of
from ostore.host.servers import ollama_processes
from ostore.places.store.store import LocalStore
from ostore.settings import surroundings


@dataclass(frozen=True, slots=True)
class Place:
    """
    The folder of a server's store as the server sees it, and whether it is ours: None if that cannot be told.

    `remedy` is what to do about the warning, if there is one.
    """

    folder: str | None
    is_same: bool | None
    warnings: tuple[str, ...] = ()
    remedy: Remedy = NOTHING


def place_of(store: LocalStore, models: Path | None, url: str, opened: str | None, *, differs: bool) -> Place:
    """
    Return which store the server at `url` uses.

    `opened` is the folder of the blobs that it opens; without it, the environment of its process may tell. `differs`
    says that it serves something else than the store holds.
    """
    folder = opened or _folder_of_process(url)
    is_same = _is_same(store, folder) if folder and is_of_this_machine(url) else None
    chosen = find_store(surroundings(), models)
    here = f"{store.root} ({chosen.detail})"
    if folder is None or (is_same and not differs):
        return Place(folder, is_same)
    if is_same:
        # In a container, or behind a forwarded port, the same path is another folder.
        text = f"the server names the same folder, {folder}, but has other files there: is it in a container?"
        return Place(folder, None, (text,), ostore("where", after="shows which store is used, and others"))
    if is_same is None:
        if not differs:
            return Place(folder, None)
        text = f"the server uses {folder}, a folder of its own machine or container; here it is {here}"
        return Place(folder, None, (text,), ostore("where", after="shows which store is used, and others"))
    carry = ostore("import", store.root, models=folder, after="copies the models there")
    use = person(f"set OLLAMA_MODELS={store.root} for the server")
    text = f"the server uses another store, {folder}; here it is {here}"
    return Place(folder, is_same, (text,), carry.otherwise(use))


def is_of_this_machine(url: str) -> bool:
    """Return whether a URL is an address of this machine, by its text alone."""
    return is_loopback(urlsplit(url).hostname or "")


def running_addresses() -> Iterator[str]:
    """Yield where servers of this machine listen, by the environment of their processes and that of the service."""
    from ostore.host.service_unit import service_directives, service_environment

    for process in ollama_processes():
        if process.is_server and process.environ is not None:
            with suppress(OstoreError):
                yield address_of(process.environ)
    known = surroundings()
    if known.platform == "linux":
        variable = service_environment(service_directives(known.root), known.root).get(HOST_VARIABLE)
        if variable is not None:
            with suppress(OstoreError):
                yield address_of({HOST_VARIABLE: variable.text})


def _folder_of_process(url: str) -> str | None:
    """Return the store of the process that listens at `url`, by its environment, if we may see that."""
    if not is_of_this_machine(url):
        return None
    for process in ollama_processes():
        if process.is_server and process.environ is not None and process.store is not None:
            with suppress(OstoreError):
                if urlsplit(address_of(process.environ)).port == urlsplit(url).port:
                    return str(process.store)
    return None


def _is_same(store: LocalStore, folder: str) -> bool | None:
    """Return whether a folder of this machine is that of the store, or None if it is not here at all."""
    try:
        theirs = os.stat(Path(folder) / BLOBS)  # noqa: PTH116 - the errors of stat tell
        ours = os.stat(store.root / BLOBS)  # noqa: PTH116
    except PermissionError:
        # We may enter our own.
        return False
    except (OSError, ValueError):
        return True if folder == str(store.root) else None
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
