"""Where manifests lie in a store: found by listing folders alone, so that nothing else need be imported for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from ostore.formats.errors import OstoreError
from ostore.formats.name import DEFAULT_HOST, ModelName
from ostore.formats.store_layout import COMING_MANIFESTS, MANIFESTS, STAGED_MANIFESTS
from ostore.formats.unreadable import Unreadable

# ollama manifest/manifest.go at fb30760 globs exactly four levels; whatever is there counts as a manifest for it.
_DEPTH = 4
_COMING_DEFAULT_HOST = "ollama.com"


class ManifestEntry(NamedTuple):
    """A place at manifest depth, whatever is there; `name` is None if its path spells no name."""

    path: str
    relative: str
    tree: str
    name: ModelName | None
    is_link: bool


@dataclass(slots=True)
class ManifestTree:
    """
    What lies where manifests do, each in the order of a sorted walk; paths are relative to the store, with '/'.

    `entries` is every place at manifest depth, `strays` what is no folder at other depths, `folders` every folder that
    was read, and `links` those of them that are links. Who reads only some manifests makes a tree of those `entries`.
    """

    entries: list[ManifestEntry] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def find_manifests(root: Path, closed: list[Unreadable] | None = None) -> ManifestTree:
    """
    Look into every folder of manifests; nothing is opened. An absent folder holds nothing.

    Raises OSError for a folder that cannot be read, unless there is a list of those to add it to.
    """
    found = ManifestTree()
    for tree in (MANIFESTS, COMING_MANIFESTS):
        _walk(str(root / tree), (tree,), found, closed)
    return found


def _walk(folder: str, parts: tuple[str, ...], found: ManifestTree, closed: list[Unreadable] | None) -> None:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=attrgetter("name"))
    except FileNotFoundError:
        return
    except OSError as error:
        if closed is None:
            raise
        closed.append(Unreadable("/".join(parts), error.strerror or str(error)))
        return
    prefix = "/".join(parts)
    found.folders.append(prefix)
    if len(parts) == _DEPTH:
        found.entries.extend(
            ManifestEntry(entry.path, f"{prefix}/{entry.name}", parts[0], _name(parts, entry.name), entry.is_symlink())
            for entry in entries
        )
        return
    for entry in entries:
        relative = f"{prefix}/{entry.name}"
        if not _is_directory(entry):
            found.strays.append(relative)
            continue
        if relative == f"{MANIFESTS}/{STAGED_MANIFESTS}":
            continue
        if entry.is_symlink():
            found.links.append(relative)
        _walk(entry.path, (*parts, entry.name), found, closed)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _name(folders: tuple[str, ...], tag: str) -> ModelName | None:
    tree, host, namespace, model = folders
    if tree == COMING_MANIFESTS and host == _COMING_DEFAULT_HOST:
        host = DEFAULT_HOST
    try:
        return ModelName(host, namespace, model, tag)
    except OstoreError:
        return None
