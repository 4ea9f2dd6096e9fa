"""
The remainder: what takes up room in a store but is not in the census: manifests, folders and foreign trees.

It only reads. What is not the store's is named but not walked, because a store may lie in a folder that has other
uses, and these may be large.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.store_layout import BLOBS, COMING_MANIFESTS, MANIFESTS, STAGED_MANIFESTS, WORKSPACE
from ostore.formats.unreadable import Unreadable
from ostore.places.store.survey.census import Census, DiskFacts, EntryKind, FoundEntry, FoundTree, facts_of, read_tree
from ostore.places.store.survey.manifest_tree import ManifestTree
from ostore.places.store.survey.scan import ManifestScan
from ostore.places.store.workspace import workspace_path
from ostore.streams.links import is_link

_TREES = frozenset((MANIFESTS, COMING_MANIFESTS))


@dataclass(frozen=True, slots=True)
class Remainder:
    """
    The remainder of a store. Every path is relative to the store, with '/'.

    `manifests` are the files at manifest depth. `foreign` are files at other depths, and all that lies in folders of
    `blobs/` that are not Ollama's. `folders` are the store and the folders that hold blobs and manifests; where a link
    stands for such a folder, both are there. `others` are the names of entries of the same folder that are not the
    store's. `dangling` are the names of blobs that are links to nothing.
    """

    manifests: tuple[FoundEntry, ...]
    foreign: tuple[FoundEntry, ...]
    folders: tuple[FoundEntry, ...]
    others: tuple[str, ...]
    dangling: frozenset[str]
    unreadable: tuple[Unreadable, ...]


def find_remainder(root: Path, census: Census, scan: ManifestScan) -> Remainder:
    """Look at what a census and a scan leave out. Raises OSError if the store cannot be read."""
    tree, hidden = scan.tree, dict[str, Unreadable]()
    manifests, misplaced = _at_manifest_depth(root, scan, hidden)
    misplaced_trees = [(entry.path, read_tree(root / entry.path)) for entry in misplaced]
    strangers = _foreign_trees(root, census)
    return Remainder(
        manifests=manifests,
        foreign=(
            # The census has a file that is in the place of the staging folder.
            *_facts_of_all(root, _own({*tree.strays, *tree.links} - {f"{MANIFESTS}/{STAGED_MANIFESTS}"}, tree), hidden),
            *(entry for name, found in misplaced_trees for entry in _below(name, found.files)),
            *(entry for name, found in strangers for entry in _below(name, (*found.files, *found.folders))),
        ),
        folders=(
            *_own_folders(root),
            *_facts_of_all(root, _own(set(tree.folders) - set(tree.links) - _TREES, tree), hidden),
            *misplaced,
            *(entry for name, found in misplaced_trees for entry in _below(name, found.folders)),
        ),
        others=_others(root, census),
        dangling=frozenset(_dangling(root, census)),
        unreadable=(*hidden.values(), *_unreadable([*misplaced_trees, *strangers])),
    )


def _foreign_trees(root: Path, census: Census) -> list[tuple[str, FoundTree]]:
    """Return the folders in `blobs/` that are not Ollama's, by path relative to the store."""
    return [
        (f"blobs/{entry.path}", read_tree(root / BLOBS / entry.path))
        for entry in census.foreign
        if entry.facts.kind is EntryKind.FOLDER
    ]


def _at_manifest_depth(
    root: Path, scan: ManifestScan, hidden: dict[str, Unreadable]
) -> tuple[tuple[FoundEntry, ...], tuple[FoundEntry, ...]]:
    """Return the files at manifest depth, and the folders there."""
    links = {entry.relative for entry in scan.tree.entries if entry.is_link}
    # The scan has the status of each manifest that it read. For a link that is the target's status, so ask again.
    read = {model.relative: model.status for model in scan.models if model.relative not in links}
    known = [FoundEntry(path, DiskFacts.of(read[path])) for path in _own(read, scan.tree)]
    unread = [entry.relative for entry in scan.tree.entries if entry.relative not in read]
    others = list(_facts_of_all(root, _own(unread, scan.tree), hidden))
    files = [entry for entry in others if entry.facts.kind is not EntryKind.FOLDER]
    return (*known, *files), tuple(entry for entry in others if entry.facts.kind is EntryKind.FOLDER)


def _own(paths: Iterable[str], tree: ManifestTree) -> Iterable[str]:
    """Return the paths that are not behind a link, because what is behind a link is kept elsewhere."""
    if not tree.links:
        return paths
    behind = tuple(f"{link}/" for link in tree.links)
    return (path for path in paths if not path.startswith(behind))


def _facts_of_all(root: Path, paths: Iterable[str], hidden: dict[str, Unreadable]) -> Iterator[FoundEntry]:
    """Yield the facts of each path that still exists. Folders that may not be read are added to `hidden`."""
    for path in paths:
        try:
            yield FoundEntry(path, facts_of(root / path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            folder = path.rpartition("/")[0]
            hidden[folder] = Unreadable(folder, error.strerror or str(error))


def _below(name: str, entries: Iterable[FoundEntry]) -> Iterator[FoundEntry]:
    return (FoundEntry(f"{name}/{entry.path}", entry.facts) for entry in entries)


def _own_folders(root: Path) -> Iterator[FoundEntry]:
    yield FoundEntry(".", facts_of(root.resolve()))
    for name in ("blobs", *_TREES):
        folder = root / name
        if folder.exists():
            yield FoundEntry(name, facts_of(folder.resolve()))
        # A person may have moved it and put a link here.
        if is_link(folder):
            yield FoundEntry(name, facts_of(folder))


def _others(root: Path, census: Census) -> tuple[str, ...]:
    known = {"blobs", *_TREES, *(tree.path.name for tree in census.working_folders)}
    if workspace_path(root).parent == root.resolve():
        known.add(WORKSPACE)
    return tuple(sorted(name for name in os.listdir(root) if name not in known))  # noqa: PTH208 - names


def _dangling(root: Path, census: Census) -> Iterator[str]:
    links = [blob.filename for blob in census.blobs if stat.S_ISLNK(blob.facts.mode)]
    return (name for name in links if not (root / BLOBS / name).exists())


def _unreadable(trees: Iterable[tuple[str, FoundTree]]) -> Iterator[Unreadable]:
    for name, tree in trees:
        for found in tree.unreadable:
            yield Unreadable(f"{name}/{found.path}".rstrip("/"), found.reason)
