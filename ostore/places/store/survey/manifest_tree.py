"""Find manifests by listing folders alone, so that names can be listed without importing anything else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from ostore.formats.errors import OstoreError
from ostore.formats.name import DEFAULT_HOST, ModelName
from ostore.formats.store_layout import COMING_MANIFESTS, MANIFESTS, STAGED_MANIFESTS
from ostore.formats.unreadable import ClosedFolder
from ostore.streams.links import is_link_entry

# ollama manifest/manifest.go at fb30760 globs exactly four levels. Any entry there counts as a manifest.
_DEPTH = 4
_COMING_DEFAULT_HOST = "ollama.com"


class ManifestEntry(NamedTuple):
    """Any entry at manifest depth. `name` is None if its path spells no name of a model."""

    path: str
    relative: str
    tree: str
    name: ModelName | None
    is_link: bool


@dataclass(slots=True)
class ManifestTree:
    """
    What lies in the folders of manifests. Each list has the order of a sorted walk.

    `entries` are at manifest depth. `strays` are entries at other depths that are no folders, `folders` are the folders
    that were read, and `links` are the links to folders; these are paths relative to the store, with '/'. `closed` are
    the folders that could not be read. To read only some manifests, make a tree of their `entries` that `is_part`.
    """

    entries: list[ManifestEntry] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    closed: list[ClosedFolder] = field(default_factory=list)
    is_part: bool = False
    root: Path = field(default_factory=Path)

    def closed_around(self, folded: str) -> ClosedFolder | None:
        """Return the folder that cannot be read and that may have the manifest of a folded name, or None."""
        path = f"{MANIFESTS}/{'/'.join(folded.rsplit(':', 1))}/"
        return next((folder for folder in self.closed if path.startswith(f"{folder.path}/".lower())), None)

    def refuse_closed(self) -> None:
        """Raise the OSError of the first folder that could not be read. Who decides about all models calls this."""
        for folder in self.closed:
            raise folder.error


def find_manifests(root: Path) -> ManifestTree:
    """Look into every folder of manifests. No file is opened. An absent folder holds nothing."""
    found = ManifestTree(root=root)
    for tree in (MANIFESTS, COMING_MANIFESTS):
        _walk(os.fspath(root / tree), (tree,), found)
    return found


def _walk(folder: str, parts: tuple[str, ...], found: ManifestTree) -> None:
    prefix = "/".join(parts)
    entries = _listing(folder, prefix, found)
    if entries is None:
        return
    found.folders.append(prefix)
    if len(parts) == _DEPTH:
        found.entries.extend(
            ManifestEntry(
                entry.path, f"{prefix}/{entry.name}", parts[0], _name(parts, entry.name), is_link_entry(entry)
            )
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
        if is_link_entry(entry):
            found.links.append(relative)
        _walk(entry.path, (*parts, entry.name), found)


def _listing(folder: str, relative: str, found: ManifestTree) -> list[os.DirEntry[str]] | None:
    """Return the entries of a folder, sorted by name. None if it is absent or was added to those that are closed."""
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=attrgetter("name"))
    except FileNotFoundError:
        return None
    except OSError as error:
        found.closed.append(ClosedFolder(relative, error.strerror or str(error), error))
        return None


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
