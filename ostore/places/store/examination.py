"""
All that a store says of its own condition, read once: what is there, what is needed, what is odd.

Read only, and for anybody: what may not be read is named among `closed`, and the rest is looked at all the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.name import ModelName
from ostore.places.store import workspace
from ostore.places.store.access import Account, Misfit, closed_parents, find_misfits
from ostore.places.store.census import Census, EntryKind, FoundTree, read_tree, take_census
from ostore.places.store.references import References, find_references
from ostore.places.store.manifest_tree import LEGACY_TREE, Unreadable, find_manifests


@dataclass(frozen=True, slots=True)
class OddEntry:
    """
    Something at manifest depth that is no manifest: what it is itself, why it is none, and of which model.

    `is_dangling` is true of a link that leads nowhere, `is_closed` of a file that we may not read.
    """

    path: str
    reason: str
    name: ModelName | None
    kind: EntryKind
    size: int
    mtime: float
    is_dangling: bool
    is_closed: bool


@dataclass(frozen=True, slots=True)
class LinkedBlob:
    """A link in `blobs/`: where it leads, and the size of the file there, None if there is none."""

    filename: str
    target: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Examination:
    """
    What a store is like. `census` is None if `blobs/` may not be read; `closed` is what could not be looked at.

    `lost` are links where folders should be. `misfits` and `closed_parents` are about `account`. `empty_folders` are
    those below `manifests/`, looked for only if that was asked. `blobs_folder` is what is told of `blobs/` itself.
    """

    root: Path
    account: Account
    references: References
    odd: tuple[OddEntry, ...]
    census: Census | None
    linked: tuple[LinkedBlob, ...]
    closed: tuple[Unreadable, ...]
    lost: tuple[Unreadable, ...]
    misfits: tuple[Misfit, ...]
    closed_parents: tuple[Path, ...]
    empty_folders: tuple[str, ...]
    blobs_folder: os.stat_result | None


def examine(root: Path, account: Account, *, with_empty_folders: bool) -> Examination:
    """Look at all of a store, as one that a server running as `account` uses."""
    closed: list[Unreadable] = []
    census = _census(root, closed)
    entries, strays = find_manifests(root, closed)
    references = find_references(root, (entries, strays))
    blobs = census.blobs if census else ()
    closed += _closed_trees(root, census)
    return Examination(
        root=root,
        account=account,
        references=references,
        odd=tuple(odd for entry in references.scan.unreadable if (odd := _odd(root, entry))),
        census=census,
        linked=tuple(_linked(root, blob.filename) for blob in blobs if blob.facts.kind is EntryKind.LINK),
        closed=tuple(closed),
        lost=tuple(_lost(root, references)),
        misfits=tuple(find_misfits(root, account, blobs, entries)),
        closed_parents=closed_parents(root, account),
        empty_folders=_empty_folders(root) if with_empty_folders else (),
        blobs_folder=_status_of_folder(root / "blobs"),
    )


def _census(root: Path, closed: list[Unreadable]) -> Census | None:
    try:
        return take_census(root)
    except OSError as error:
        closed.append(Unreadable("blobs", error.strerror or str(error), None))
        return None


def _closed_trees(root: Path, census: Census | None) -> list[Unreadable]:
    trees: Iterable[FoundTree] = (census.workspace, census.staging, *census.working_folders) if census else ()
    return [
        Unreadable(_relative(root, tree.path / found.path), found.reason, None)
        for tree in trees
        for found in tree.unreadable
    ]


def _odd(root: Path, entry: Unreadable) -> OddEntry | None:
    """None for what has gone meanwhile."""
    path = root / entry.path
    try:
        status = path.lstat()
    except OSError:
        return None
    kind = _kind(status.st_mode)
    return OddEntry(
        path=entry.path,
        reason=entry.reason,
        name=entry.name,
        kind=kind,
        size=status.st_size,
        mtime=status.st_mtime,
        is_dangling=kind is EntryKind.LINK and not os.path.exists(path),  # noqa: PTH110 - never raises
        is_closed=kind is EntryKind.FILE and not os.access(path, os.R_OK),
    )


def _kind(mode: int) -> EntryKind:
    if stat.S_ISREG(mode):
        return EntryKind.FILE
    if stat.S_ISLNK(mode):
        return EntryKind.LINK
    return EntryKind.FOLDER if stat.S_ISDIR(mode) else EntryKind.OTHER


def _linked(root: Path, filename: str) -> LinkedBlob:
    path = root / "blobs" / filename
    try:
        target = str(path.readlink())
        status = path.stat()
    except OSError:
        return LinkedBlob(filename, _target(path), None)
    return LinkedBlob(filename, target, status.st_size if stat.S_ISREG(status.st_mode) else None)


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _lost(root: Path, references: References) -> Iterable[Unreadable]:
    blobs = root / "blobs"
    if blobs.is_symlink() and not blobs.is_dir():
        yield Unreadable("blobs", "a link that leads to no folder", None)
    at_depth = {entry.path for entry in references.scan.unreadable}
    # The other doubts are about manifests that lists name.
    yield from (doubt for doubt in references.doubts if doubt.name is None and doubt.path not in at_depth)


def _empty_folders(root: Path) -> tuple[str, ...]:
    """Folders with nothing below them but folders, the outermost of each."""
    tree = read_tree(Path(os.path.realpath(root / LEGACY_TREE)))
    filled = {str(parent) for file in tree.files for parent in Path(file.path).parents}
    empty = [folder.path for folder in tree.folders if folder.path not in filled]
    return tuple(f"{LEGACY_TREE}/{path}" for path in empty if str(Path(path).parent) not in set(empty))


def _status_of_folder(folder: Path) -> os.stat_result | None:
    try:
        return folder.stat()
    except OSError:
        return None


def _relative(root: Path, path: Path) -> str:
    place = workspace.location(root).parent
    for base in (root, place):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return str(path)
