"""Read the manifests of a store, list its blobs, and report each entry in a manifest's place that is no manifest."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, OstoreError
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Manifest
from ostore.formats.name import ModelName
from ostore.formats.store_layout import BLOBS
from ostore.formats.unreadable import UnreadableManifest
from ostore.places.store.survey.manifest_tree import ManifestEntry, ManifestTree
from ostore.places.store.survey.reading import read_small_file
from ostore.places.store.survey.strays import Stray, is_side_file_at, judge_strays
from ostore.streams.links import is_link, mode_of

# The server rewrites manifests in place, so a manifest that does not parse may be half written.
_RETRIES, _RETRY_SECONDS = 3, 0.05
# The errors for what is no file: a folder, a link in circles, a FIFO or a device (`read_small_file`).
_NO_FILE = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.ENXIO, errno.ELOOP, errno.ENOENT})


class StoredModel(NamedTuple):
    """A manifest where Ollama looks for it. `status` is that of its file when it was read, links followed."""

    name: ModelName
    manifest: Manifest
    status: os.stat_result
    relative: str

    @property
    def modified(self) -> float:
        """The mtime of the manifest, seconds since 1970."""
        return self.status.st_mtime

    @property
    def tree(self) -> str:
        """The folder of the store that it lies in."""
        return self.relative.partition("/")[0]


@dataclass(frozen=True, slots=True)
class StandingManifest:
    """A manifest that is to go: its path in the store, as the disk spells it, and its digest, None if not known."""

    path: str
    digest: Digest | None


@dataclass(frozen=True)
class ManifestScan:
    """
    The `models` that parse, the `unreadable` entries at manifest depth, and the `tree` that was read.

    `side_files` are those of operating systems at manifest depth, by path relative to the store.
    """

    models: tuple[StoredModel, ...]
    unreadable: tuple[UnreadableManifest, ...]
    tree: ManifestTree
    side_files: tuple[str, ...] = ()

    @cached_property
    def strays(self) -> tuple[Stray, ...]:
        """What lies at other depths and is no folder. Each file is read on first use."""
        return judge_strays(self.tree.root, self.tree.strays)

    def path_of(self, name: str) -> str:
        """Return the path in the store of the manifest of a model in `models`, by its short name."""
        return next(model.relative for model in self.models if str(model.name) == name)

    @cached_property
    def users(self) -> dict[Digest, tuple[ModelName, ...]]:
        """The models that need each blob, in the order of `models`."""
        users: dict[Digest, list[ModelName]] = {}
        for model in self.models:
            for blob in model.manifest.blobs:
                users.setdefault(blob.digest, []).append(model.name)
        return {digest: tuple(names) for digest, names in users.items()}


@dataclass
class PassingScan:
    """
    A scan that keeps no manifests, for commands that need little of each: a hundred thousand need much memory.

    `models` can be gone through once and come in no order. `unreadable` and `side_files` are complete when all of them
    have been read.
    """

    tree: ManifestTree
    unreadable: list[UnreadableManifest] = field(default_factory=list)
    side_files: list[str] = field(default_factory=list)

    @cached_property
    def strays(self) -> tuple[Stray, ...]:
        """What lies at other depths and is no folder. Each file is read on first use."""
        return judge_strays(self.tree.root, self.tree.strays)

    @property
    def models(self) -> Iterator[StoredModel]:
        """Read every manifest. A bad one is a finding, not an error."""
        failures: list[tuple[ManifestEntry, UnreadableManifest]] = []
        yield from _read_all(self.tree.entries, failures)
        failures = [(entry, failure) for entry, failure in failures if not self._is_side_file(entry)]
        for _ in range(_RETRIES):
            if not failures:
                break
            time.sleep(_RETRY_SECONDS)
            again, failures = [entry for entry, _ in failures], []
            yield from _read_all(again, failures)
        self.unreadable += (failure for _, failure in failures)

    def _is_side_file(self, entry: ManifestEntry) -> bool:
        if not is_side_file_at(entry.path):
            return False
        self.side_files.append(entry.relative)
        return True


def scan_manifests(tree: ManifestTree) -> ManifestScan:
    """Read the manifests of a tree, and keep all of them, sorted by name."""
    scan = PassingScan(tree)
    models = sorted(scan.models, key=lambda model: model.name.full)
    return ManifestScan(tuple(models), tuple(scan.unreadable), tree, tuple(scan.side_files))


def stand(entry: ManifestEntry) -> StandingManifest:
    """
    Record a manifest that is to go. It stays if its bytes change. A link, or a file that cannot be read, has no digest.

    Raises DamagedStoreError for an entry that is neither file nor link.
    """
    path = Path(entry.path)
    digest = None
    with contextlib.suppress(FileNotFoundError):
        refuse_others(entry.relative, mode_of(path.lstat()))
    if not is_link(path):
        with contextlib.suppress(OSError):
            digest = Digest.of(read_small_file(path, MAX_MANIFEST_BYTES)[0])
    return StandingManifest(entry.relative, digest)


def refuse_others(path: str, mode: int) -> None:
    """
    Refuse anything but a file or link, because a folder with the name of a tag may hold files of other people.

    Raises DamagedStoreError.
    """
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise DamagedStoreError(f"{path}: expected a manifest, got a folder or a device")


class Alias(NamedTuple):
    """A link to a manifest or to a folder of tags: its path in the store, and the models that it names."""

    path: str
    names: tuple[ModelName, ...]


def aliases_of(tree: ManifestTree, leaving: Collection[ManifestEntry]) -> Iterator[Alias]:
    """Yield the links that will lead nowhere once these manifests are gone."""
    # Of an entry that is a link, or lies behind one, only that link goes.
    links = tuple(f"{link}/" for link in tree.links)
    files = (entry for entry in leaving if not entry.is_link and not entry.relative.startswith(links))
    going = {os.path.realpath(entry.path) for entry in files}
    paths = {entry.path for entry in leaving}
    for entry in tree.entries:
        if entry.is_link and entry.path not in paths and entry.name and os.path.realpath(entry.path) in going:
            yield Alias(entry.relative, (entry.name,))
    for link, behind in _links(tree):
        targets = {os.path.realpath(entry.path) for entry in behind}
        if targets and targets <= going and not any(entry.path in paths for entry in behind):
            yield Alias(link, _names(behind))


def chosen_alias(tree: ManifestTree, entry: ManifestEntry, chosen: Collection[ManifestEntry]) -> Alias | None:
    """Return the link to a folder of tags that goes instead of a manifest behind it, if all behind it is chosen."""
    for link, behind in _links(tree):
        if entry in behind:
            return Alias(link, _names(behind)) if all(other in chosen for other in behind) else None
    return None


def _links(tree: ManifestTree) -> Iterator[tuple[str, list[ManifestEntry]]]:
    for link in tree.links:
        yield link, [entry for entry in tree.entries if entry.relative.startswith(f"{link}/")]


def _names(entries: Collection[ManifestEntry]) -> tuple[ModelName, ...]:
    return tuple(entry.name for entry in entries if entry.name)


def _read_all(
    entries: Iterable[ManifestEntry], failures: list[tuple[ManifestEntry, UnreadableManifest]]
) -> Iterator[StoredModel]:
    for entry in entries:
        read = _read(entry)
        if isinstance(read, StoredModel):
            yield read
        elif read is not None:
            failures.append((entry, read))


def _read(entry: ManifestEntry) -> StoredModel | UnreadableManifest | None:
    """Return the model, or the reason why there is none; None if the entry has gone meanwhile."""
    closed: OSError | None = None
    try:
        raw, status = read_small_file(entry.path, MAX_MANIFEST_BYTES)
        if entry.name is not None:
            return StoredModel(entry.name, Manifest.parse(raw), status, entry.relative)
        reason = "its path is not a model name"
    except FileNotFoundError:
        if not is_link(Path(entry.path)):
            return None
        reason = "a link that leads nowhere"
    except OSError as error:
        reason = error.strerror or str(error)
        closed = None if error.errno in _NO_FILE else error
    except OstoreError as error:
        reason = str(error)
    return UnreadableManifest(entry.relative, reason, entry.name, closed)


def find_blobs(root: Path) -> Iterator[os.DirEntry[str]]:
    """Yield every entry of `blobs/`, in no order; none if the folder is absent. Raises OSError if it cannot be read."""
    try:
        with os.scandir(root / BLOBS) as listing:
            yield from listing
    except FileNotFoundError:
        return
