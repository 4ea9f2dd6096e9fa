"""Find what the user that a server runs as cannot read, write or own in a store, though a server must."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ostore.formats.store_layout import MANIFESTS
from ostore.host.accounts import Account, Misfit, RightsProblem
from ostore.places.store.survey.census import DiskFacts, EntryKind, StoredBlob, by_filename
from ostore.places.store.survey.manifest_tree import ManifestEntry
from ostore.places.store.survey.scan import ManifestScan

_READ, _WRITE, _ENTER = 4, 2, 1
_PLAIN = stat.S_IFREG | stat.S_IRUSR
_TELLING = 0o170000 | stat.S_IRUSR | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID
# acl(5): with such a list, the nine mode bits do not say everything.
_ACCESS_LIST = "system.posix_acl_access"


def is_plain_file_of(account: Account | None, status: os.stat_result) -> bool:
    """Return whether this is a regular file that the user owns and may read, without mode bits that are reported."""
    if account is None:
        return stat.S_ISREG(status.st_mode)
    return status.st_uid == account.uid and status.st_mode & _TELLING == _PLAIN


def closed_parents(root: Path, account: Account) -> tuple[Path, ...]:
    """Return the folders above a store, and above the targets of its links, that a user may not pass through."""
    places = (root, *(root / name for name in ("blobs", MANIFESTS)))
    found: dict[Path, None] = {}
    for place in places:
        for path in (place, Path(os.path.realpath(place))):
            found |= dict.fromkeys(reversed(path.parents))
    inside = {root, Path(os.path.realpath(root))}
    return tuple(path for path in found if path not in inside and not _may_enter(path, account))


def find_misfits(root: Path, account: Account, blobs: Iterable[StoredBlob], scan: ManifestScan) -> Iterator[Misfit]:
    """Yield what a server's user cannot use as a server must, what all may write to, and blobs with set-ID bits."""
    for relative in ("", "blobs", MANIFESTS, *_folders(scan.tree.entries)):
        # Text, not Path: to make ten thousand of those takes a tenth of a second.
        path = f"{root}/{relative}"
        if status := _status(path):
            yield from _of_folder(path, relative, status, account)
    for blob in sorted(blobs, key=by_filename):
        yield from _of_blob(root, blob, account)
    read = {model.relative: model.status for model in scan.models}
    for entry in scan.tree.entries:
        if status := read.get(entry.relative) or _status(entry.path):
            yield from _of_manifest(entry, status, account)


def _folders(entries: Iterable[ManifestEntry]) -> list[str]:
    """Return every folder between `manifests/` and a manifest. A server does not need others, such as `lost+found`."""
    found: set[str] = set()
    level = {entry.relative.rpartition("/")[0] for entry in entries}
    while level := {path for path in level if "/" in path}:
        found |= level
        level = {path.rpartition("/")[0] for path in level}
    return sorted(found)


def _of_folder(path: str, relative: str, status: os.stat_result, account: Account) -> Iterator[Misfit]:
    # The status is that of a link's target, because a link has no mode of its own.
    if not stat.S_ISDIR(status.st_mode):
        return
    wanted = _READ | _ENTER
    if not _may(path, status, account, wanted):
        yield _misfit(relative, "read", status)
    elif relative and not _may(path, status, account, wanted | _WRITE):
        yield _misfit(relative, "write", status)
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        yield _misfit(relative, "everybody-writes", status)


def _of_blob(root: Path, blob: StoredBlob, account: Account) -> Iterator[Misfit]:
    facts, path = blob.facts, f"blobs/{blob.filename}"
    if facts.kind is not EntryKind.FILE:
        return
    if not account.may(facts.uid, facts.gid, facts.mode, _READ) and not _has_access_list(root / path):
        yield _blob_misfit(path, "read", facts)
    elif account.uid not in {0, facts.uid}:
        yield _blob_misfit(path, "own", facts)
    if facts.mode & stat.S_IWOTH:
        yield _blob_misfit(path, "everybody-writes", facts)
    if facts.mode & (stat.S_ISUID | stat.S_ISGID):
        yield _blob_misfit(path, "privileged", facts)


def _of_manifest(entry: ManifestEntry, status: os.stat_result, account: Account) -> Iterator[Misfit]:
    if not stat.S_ISREG(status.st_mode):
        return
    if not _may(entry.path, status, account, _READ):
        yield _misfit(entry.relative, "read", status)
    elif not _may(entry.path, status, account, _READ | _WRITE):
        yield _misfit(entry.relative, "write", status)
    if status.st_mode & stat.S_IWOTH:
        yield _misfit(entry.relative, "everybody-writes", status)


def _misfit(path: str, lack: RightsProblem, status: os.stat_result) -> Misfit:
    is_folder = stat.S_ISDIR(status.st_mode)
    return Misfit(path, lack, is_folder, status.st_uid, status.st_gid, status.st_mode, status.st_nlink)


def _blob_misfit(path: str, lack: RightsProblem, facts: DiskFacts) -> Misfit:
    return Misfit(path, lack, facts.kind is EntryKind.FOLDER, facts.uid, facts.gid, facts.mode, facts.links)


def _may(path: Path | str, status: os.stat_result, account: Account, wanted: int) -> bool:
    return account.may(status.st_uid, status.st_gid, status.st_mode, wanted) or _has_access_list(path)


def _may_enter(path: Path, account: Account) -> bool:
    status = _status(path)
    return status is None or _may(path, status, account, _ENTER)


def _has_access_list(path: Path | str) -> bool:
    if not hasattr(os, "getxattr"):
        return False
    try:
        return bool(os.getxattr(path, _ACCESS_LIST))
    except OSError:
        return False


def _status(path: Path | str) -> os.stat_result | None:
    """Return the status of what a path leads to. None if it is absent or closed to us: other checks report that."""
    with contextlib.suppress(OSError):
        return os.stat(path)  # noqa: PTH116 - a plain string is faster, and there are ten thousand
    return None
