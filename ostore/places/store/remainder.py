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

from ostore.formats.digest import Digest
from ostore.places.store import workspace
from ostore.places.store.census import Census, EntryKind, FoundEntry, FoundTree, facts_of, read_tree
from ostore.places.store.manifest_tree import COMING_TREE, LEGACY_TREE, STAGING, Unreadable

# host/namespace/model/tag, relative to the tree.
_SLASHES_OF_A_MANIFEST = 3


@dataclass(frozen=True, slots=True)
class Remainder:
    """
    The rest of a store; every path is relative to it, with '/'.

    `manifests` are the files at manifest depth, `foreign` files at other depths and whatever lies in folders of
    `blobs/` that are not Ollama's. `folders` are the store itself and those that hold blobs and manifests; a link in
    place of one of them is there beside what it leads to. `others` are the names of what lies in the same folder and
    is not the store's, not looked into. `dangling` are blobs that are links to nothing.
    """

    manifests: tuple[FoundEntry, ...]
    foreign: tuple[FoundEntry, ...]
    folders: tuple[FoundEntry, ...]
    others: tuple[str, ...]
    dangling: frozenset[Digest]
    unreadable: tuple[Unreadable, ...]


def find_remainder(root: Path, census: Census) -> Remainder:
    """Look at what a census leaves out. Raises OSError for a store that cannot be read."""
    trees = [(name, _followed(root / name)) for name in (LEGACY_TREE, COMING_TREE)]
    strangers = [
        (f"blobs/{entry.path}", read_tree(root / "blobs" / entry.path))
        for entry in census.foreign
        if entry.facts.kind is EntryKind.FOLDER
    ]
    files = [entry for name, tree in trees for entry in _below(name, tree.files) if not _is_staged(entry)]
    folders = [entry for name, tree in trees for entry in _folders(name, tree) if not _is_staged(entry)]
    return Remainder(
        manifests=tuple(entry for entry in files if _is_manifest(entry)),
        foreign=(
            *(entry for entry in files if not _is_manifest(entry)),
            *(entry for name, tree in strangers for entry in _below(name, (*tree.files, *tree.folders))),
        ),
        folders=(*_own_folders(root), *folders),
        others=_others(root, census),
        dangling=frozenset(_dangling(root, census)),
        unreadable=tuple(_unreadable([*trees, *strangers])),
    )


def _followed(folder: Path) -> FoundTree:
    """A tree that people may have put elsewhere with a link."""
    return read_tree(folder.resolve() if folder.is_symlink() else folder)


def _below(name: str, entries: Iterable[FoundEntry]) -> Iterator[FoundEntry]:
    return (FoundEntry(f"{name}/{entry.path}", entry.facts) for entry in entries)


def _folders(name: str, tree: FoundTree) -> Iterator[FoundEntry]:
    if tree.facts is not None:
        yield FoundEntry(name, tree.facts)
    yield from _below(name, tree.folders)


def _is_manifest(entry: FoundEntry) -> bool:
    return entry.path.count("/") == _SLASHES_OF_A_MANIFEST + 1


def _is_staged(entry: FoundEntry) -> bool:
    """Whether it belongs to an import; the census has it then."""
    return f"{entry.path}/".startswith(f"{LEGACY_TREE}/{STAGING}/")


def _own_folders(root: Path) -> Iterator[FoundEntry]:
    yield FoundEntry(".", facts_of(root.resolve()))
    blobs = root / "blobs"
    if blobs.exists():
        yield FoundEntry("blobs", facts_of(blobs.resolve()))
    for name in ("blobs", LEGACY_TREE, COMING_TREE):
        if (root / name).is_symlink():
            yield FoundEntry(name, facts_of(root / name))


def _others(root: Path, census: Census) -> tuple[str, ...]:
    known = {"blobs", LEGACY_TREE, COMING_TREE, *(tree.path.name for tree in census.working_folders)}
    if workspace.location(root).parent == root.resolve():
        known.add(workspace.NAME)
    return tuple(sorted(name for name in os.listdir(root) if name not in known))  # noqa: PTH208 - names


def _dangling(root: Path, census: Census) -> Iterator[Digest]:
    for blob in census.blobs:
        if stat.S_ISLNK(blob.facts.mode) and not (root / "blobs" / blob.filename).exists():
            yield blob.digest


def _unreadable(trees: Iterable[tuple[str, FoundTree]]) -> Iterator[Unreadable]:
    for name, tree in trees:
        for found in tree.unreadable:
            yield Unreadable(f"{name}/{found.path}".rstrip("/"), found.reason, None)
