"""Read the manifests of a store, list its blobs, and report each entry in a manifest's place that is no manifest."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator
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
from ostore.streams.chunks import read_full
from ostore.streams.links import is_link, mode_of, open_to_read

# The server rewrites manifests in place, so a manifest that does not parse may be half written.
_RETRIES, _RETRY_SECONDS = 3, 0.05


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
    """The `models` that parse, the `unreadable` entries at manifest depth, and the `tree` that was read."""

    models: tuple[StoredModel, ...]
    unreadable: tuple[UnreadableManifest, ...]
    tree: ManifestTree

    @property
    def strays(self) -> tuple[str, ...]:
        """Paths at other depths that are not folders."""
        return tuple(self.tree.strays)

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

    `models` can be gone through once and come in no order. `unreadable` is complete when all of them have been read.
    """

    tree: ManifestTree
    unreadable: list[UnreadableManifest] = field(default_factory=list)

    @property
    def strays(self) -> tuple[str, ...]:
        """Paths at other depths that are not folders."""
        return tuple(self.tree.strays)

    @property
    def models(self) -> Iterator[StoredModel]:
        """Read every manifest. A bad one is a finding, not an error."""
        failures: list[tuple[ManifestEntry, UnreadableManifest]] = []
        yield from _read_all(self.tree.entries, failures)
        for _ in range(_RETRIES):
            if not failures:
                break
            time.sleep(_RETRY_SECONDS)
            again, failures = [entry for entry, _ in failures], []
            yield from _read_all(again, failures)
        self.unreadable += (failure for _, failure in failures)


def scan_manifests(tree: ManifestTree) -> ManifestScan:
    """Read the manifests of a tree, and keep all of them, sorted by name."""
    scan = PassingScan(tree)
    models = sorted(scan.models, key=lambda model: model.name.full)
    return ManifestScan(tuple(models), tuple(scan.unreadable), tree)


def read_small_file(path: Path | str, limit: int) -> tuple[bytes, os.stat_result]:
    """
    Return a regular file's bytes and its status, links followed.

    At most `limit` + 1 bytes are read, so that a longer file shows. Raises OSError, also for a FIFO or a device.
    """
    fd = open_to_read(path)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        wanted = min(status.st_size, limit) + 1
        data = os.read(fd, wanted)
        # One byte more than the size was asked for. Any other count means a changing file or a call that was cut short.
        return data if len(data) == status.st_size else data + read_full(fd, wanted - len(data)), status
    finally:
        os.close(fd)


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
    except OstoreError as error:
        reason = str(error)
    return UnreadableManifest(entry.relative, reason, entry.name)


def find_blobs(root: Path) -> Iterator[os.DirEntry[str]]:
    """Yield every entry of `blobs/`, in no order; none if the folder is absent. Raises OSError if it cannot be read."""
    try:
        with os.scandir(root / BLOBS) as listing:
            yield from listing
    except FileNotFoundError:
        return
