"""
What takes up room in a store and is in no census: its manifests, its folders, and what lies in folders of strangers.

Read only, as the census. What is not the store's is named and not walked: a store may lie in a folder that has other
uses, and those may be large.
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

_TREES = frozenset((MANIFESTS, COMING_MANIFESTS))


@dataclass(frozen=True, slots=True)
class Remainder:
    """
    The rest of a store; every path is relative to it, with '/'.

    `manifests` are the files at manifest depth, `foreign` files at other depths and whatever lies in folders of
    `blobs/` that are not Ollama's. `folders` are the store itself and those that hold blobs and manifests; a link in
    place of one of them is there beside what it leads to. `others` are the names of what lies in the same folder and
    is not the store's, not looked into. `dangling` are the names of blobs that are links to nothing.
    """

    manifests: tuple[FoundEntry, ...]
    foreign: tuple[FoundEntry, ...]
    folders: tuple[FoundEntry, ...]
    others: tuple[str, ...]
    dangling: frozenset[str]
    unreadable: tuple[Unreadable, ...]


def find_remainder(root: Path, census: Census, scan: ManifestScan) -> Remainder:
    """Look at what a census and a scan leave out. Raises OSError for a store that cannot be read."""
    tree, hidden = scan.tree, dict[str, Unreadable]()
    manifests, misplaced = _at_manifest_depth(root, scan, hidden)
    misplaced_trees = [(entry.path, read_tree(root / entry.path)) for entry in misplaced]
    strangers = [
        (f"blobs/{entry.path}", read_tree(root / BLOBS / entry.path))
        for entry in census.foreign
        if entry.facts.kind is EntryKind.FOLDER
    ]
    return Remainder(
        manifests=manifests,
        foreign=(
            # A file in the place of the staging folder is in the census.
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


def _at_manifest_depth(
    root: Path, scan: ManifestScan, hidden: dict[str, Unreadable]
) -> tuple[tuple[FoundEntry, ...], tuple[FoundEntry, ...]]:
    """The files there, and the folders."""
    links = {entry.relative for entry in scan.tree.entries if entry.is_link}
    # What was read was asked for its facts by the way; those of a link are not its own.
    read = {model.relative: model.status for model in scan.models if model.relative not in links}
    known = [FoundEntry(path, DiskFacts.of(read[path])) for path in _own(read, scan.tree)]
    unread = [entry.relative for entry in scan.tree.entries if entry.relative not in read]
    others = list(_facts_of_all(root, _own(unread, scan.tree), hidden))
    files = [entry for entry in others if entry.facts.kind is not EntryKind.FOLDER]
    return (*known, *files), tuple(entry for entry in others if entry.facts.kind is EntryKind.FOLDER)


def _own(paths: Iterable[str], tree: ManifestTree) -> Iterable[str]:
    """Those that are not behind a link: that leads to where something else keeps it."""
    if not tree.links:
        return paths
    behind = tuple(f"{link}/" for link in tree.links)
    return (path for path in paths if not path.startswith(behind))


def _facts_of_all(root: Path, paths: Iterable[str], hidden: dict[str, Unreadable]) -> Iterator[FoundEntry]:
    """What the disk says of each; nothing of what has gone meanwhile. Folders that hide theirs go to `hidden`."""
    for path in paths:
        try:
            yield FoundEntry(path, facts_of(f"{root}/{path}"))
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
        # People may have put it elsewhere with a link.
        if folder.is_symlink():
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
