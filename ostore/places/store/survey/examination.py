"""
Examine the condition of a store in one pass: what is there, what is needed, what is odd.

Any user may do this, because it only reads. What may not be read is listed in `closed`, and the rest is still examined.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.name import ModelName
from ostore.formats.store_layout import BLOBS, COMING_MANIFESTS, MANIFESTS
from ostore.formats.unreadable import Unreadable, UnreadableManifest
from ostore.host.accounts import Account, Misfit
from ostore.places.store.nearby import store_instead
from ostore.places.store.survey.access import closed_parents, find_misfits
from ostore.places.store.survey.census import (
    Census,
    EntryKind,
    FoundTree,
    StoredBlob,
    by_filename,
    read_tree,
    take_census,
)
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.places.store.survey.references import References, references_of
from ostore.places.store.survey.scan import ManifestScan, scan_manifests
from ostore.places.store.survey.settled import SettledBlobs
from ostore.places.store.workspace import workspace_path
from ostore.streams.links import is_link, mode_of

_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


@dataclass(frozen=True, slots=True)
class OddEntry:
    """
    An entry at manifest depth that is no manifest: what it is, the reason, and the model whose name its path spells.

    `mtime` is seconds since 1970. `target` is where a link leads. `is_dangling` is true of a link that leads nowhere,
    `is_closed` of a file that cannot be read, because we may not or the disk does not answer.
    """

    path: str
    reason: str
    name: ModelName | None
    kind: EntryKind
    size: int
    mtime: float
    target: str
    is_dangling: bool
    is_closed: bool


@dataclass(frozen=True, slots=True)
class LinkedBlob:
    """
    A link in `blobs/`: its target, and the size of the file there, or None if there is no file.

    `is_closed` is true if we cannot look there, because we may not or the disk does not answer.
    """

    filename: str
    target: str
    size: int | None
    is_closed: bool


@dataclass(frozen=True, slots=True)
class Examination:
    """
    The condition of a store. `census` is None if `blobs/` may not be read. `closed` is what could not be looked at.
    Blobs that are as they should be are in `settled` and not in the census.

    `orphans` are empty, because they are unknown, while the `references` leave doubts or something is closed.

    `is_half` is true if there are blobs, but no folder of manifests. `lost` are links and files where folders should
    be. `misfits` and `closed_parents` are about `account`, which is None where files have no owners.
    `empty_folders` are those below `manifests/`, on request only. `blobs_folder` is the status of `blobs/`.
    `store_instead` is a store with models near this one if it has none.
    """

    root: Path
    account: Account | None
    scan: ManifestScan
    references: References
    orphans: tuple[StoredBlob, ...]
    odd: tuple[OddEntry, ...]
    census: Census | None
    settled: SettledBlobs
    linked: tuple[LinkedBlob, ...]
    closed: tuple[Unreadable, ...]
    is_half: bool
    lost: tuple[Unreadable, ...]
    misfits: tuple[Misfit, ...]
    closed_parents: tuple[Path, ...]
    empty_folders: tuple[str, ...]
    blobs_folder: os.stat_result | None
    store_instead: Path | None


def examine(root: Path, account: Account | None, *, with_empty_folders: bool, now: float) -> Examination:
    """Examine a store that a server running as `account` uses. `now` is seconds since 1970."""
    closed: list[Unreadable] = []
    scan = scan_manifests(find_manifests(root))
    closed += scan.tree.closed
    settled = SettledBlobs(scan, account, now)
    census = _census(root, settled, closed)
    blobs = census.blobs if census else ()
    references = references_of(root, scan)
    closed += _closed_trees(root, census)
    closed += _unanswered(root, scan.tree.strays)
    lost = tuple(_lost(root, scan, references.doubts))
    return Examination(
        root=root,
        account=account,
        scan=scan,
        references=references,
        orphans=() if closed or references.doubts else tuple(references.orphans(blobs)),
        odd=tuple(odd for entry in scan.unreadable if (odd := _odd(root, entry))),
        census=census,
        settled=settled,
        linked=tuple(_linked(root, blob.filename) for blob in sorted(filter(_is_linked, blobs), key=by_filename)),
        closed=tuple(found for found in closed if found.path not in {gone.path for gone in lost}),
        is_half=bool(blobs or settled.count) and _lacks_manifests(root),
        lost=lost,
        misfits=tuple(find_misfits(root, account, blobs, scan)) if account else (),
        closed_parents=closed_parents(root, account) if account else (),
        empty_folders=_empty_folders(root) if with_empty_folders else (),
        blobs_folder=_status(root / BLOBS),
        store_instead=store_instead(scan.tree),
    )


def leads_nowhere(path: Path) -> bool:
    """Return whether nothing is there, links followed. False if we may not look or the disk does not answer."""
    try:
        path.stat()
    except OSError as error:
        return error.errno in _NOWHERE
    return False


def _is_closed(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno not in _NOWHERE
    return not os.access(path, os.R_OK)


def _census(root: Path, settled: SettledBlobs, closed: list[Unreadable]) -> Census | None:
    try:
        return take_census(root, is_counted=settled.settles)
    except OSError as error:
        closed.append(Unreadable("blobs", error.strerror or str(error)))
        return None


def _closed_trees(root: Path, census: Census | None) -> list[Unreadable]:
    trees: Iterable[FoundTree] = (census.workspace, census.staging, *census.working_folders) if census else ()
    return [
        Unreadable(_relative(root, tree.path / found.path), found.reason) for tree in trees for found in tree.unreadable
    ]


def _odd(root: Path, entry: UnreadableManifest) -> OddEntry | None:
    """Describe an odd entry. None if it has gone meanwhile."""
    path = root / entry.path
    try:
        status = path.lstat()
    except OSError:
        return None
    kind = _kind(mode_of(status))
    return OddEntry(
        path=entry.path,
        reason=entry.reason,
        name=entry.name,
        kind=kind,
        size=status.st_size,
        mtime=status.st_mtime,
        target=_target(path) if kind is EntryKind.LINK else "",
        is_dangling=kind is EntryKind.LINK and leads_nowhere(path),
        is_closed=_is_closed(path),
    )


def _kind(mode: int) -> EntryKind:
    if stat.S_ISREG(mode):
        return EntryKind.FILE
    if stat.S_ISLNK(mode):
        return EntryKind.LINK
    return EntryKind.FOLDER if stat.S_ISDIR(mode) else EntryKind.OTHER


def _is_linked(blob: StoredBlob) -> bool:
    return stat.S_ISLNK(blob.facts.mode)


def _linked(root: Path, filename: str) -> LinkedBlob:
    path = root / BLOBS / filename
    try:
        status = path.stat()
    except OSError as error:
        return LinkedBlob(filename, _target(path), None, error.errno not in _NOWHERE)
    size = status.st_size if stat.S_ISREG(status.st_mode) else None
    return LinkedBlob(filename, _target(path), size, is_closed=False)


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _lost(root: Path, scan: ManifestScan, doubts: Iterable[UnreadableManifest]) -> Iterable[Unreadable]:
    """Yield links and files where folders should be, without links that we may not follow."""
    if _is_link(root / BLOBS) and leads_nowhere(root / BLOBS):
        yield Unreadable("blobs", "a link that leads to no folder")
    for name in ("blobs", MANIFESTS):
        if (status := _status(root / name)) and not stat.S_ISDIR(status.st_mode):
            yield Unreadable(name, "no folder")
    at_depth = {entry.path for entry in scan.unreadable}
    for doubt in doubts:
        # A doubt with a model's name is about a manifest that a list names.
        is_told = doubt.name is not None or doubt.path in at_depth or _status(root / doubt.path) is not None
        if not is_told and _is_link(root / doubt.path) and leads_nowhere(root / doubt.path):
            yield doubt


def _unanswered(root: Path, strays: Iterable[str]) -> Iterable[Unreadable]:
    """Yield links that may lead to folders of models, but that we cannot follow."""
    for stray in strays:
        try:
            (root / stray).stat()
        except OSError as error:
            if error.errno not in _NOWHERE:
                yield Unreadable(stray, error.strerror or str(error))


def _lacks_manifests(root: Path) -> bool:
    """Return whether no folder of manifests is there. False if we may not look."""
    places = (root / MANIFESTS, root / COMING_MANIFESTS)
    return all(leads_nowhere(place) and not _is_link(place) for place in places)


def _is_link(path: Path) -> bool:
    try:
        return is_link(path)
    except OSError:
        return False


def _empty_folders(root: Path) -> tuple[str, ...]:
    """Return the outermost folders that have only folders below them."""
    tree = read_tree(Path(os.path.realpath(root / MANIFESTS)))
    filled = {str(parent) for file in tree.files for parent in Path(file.path).parents}
    empty = [folder.path for folder in tree.folders if folder.path not in filled]
    return tuple(f"{MANIFESTS}/{path}" for path in empty if str(Path(path).parent) not in set(empty))


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _relative(root: Path, path: Path) -> str:
    for base in (root, workspace_path(root).parent):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return str(path)
