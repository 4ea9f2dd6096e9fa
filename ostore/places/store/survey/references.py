"""
Find the blobs that are needed, so that the others may be deleted. This may keep too many blobs, never too few.

A list of models needs what a manifest says to Ollama; deletion needs what it might say to any reader. So a digest is
needed if a manifest refers to it as Ollama reads it, if it occurs anywhere in the manifest's bytes, or if it is the
manifest's own. A manifest that cannot be read leaves a doubt, and nothing is deleted while there is a doubt.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats.digest import Digest, blob_digest, blob_filenames
from ostore.formats.errors import LimitError, OstoreError
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Manifest, digest_shaped, mentioned_by
from ostore.formats.name import ModelName
from ostore.formats.store_layout import BLOBS, COMING_MANIFESTS, MANIFESTS
from ostore.formats.unreadable import UnreadableManifest
from ostore.places.store.survey.manifest_tree import ManifestEntry, find_manifests
from ostore.places.store.survey.scan import ManifestScan, read_small_file, scan_manifests
from ostore.streams.links import is_link

if TYPE_CHECKING:
    from ostore.places.store.survey.census import StoredBlob

# Levels of manifest lists that name other lists. No Ollama writes even one such level (branch pdevine/manifest-list).
MAX_LIST_DEPTH = 4


@dataclass(frozen=True)
class References:
    """
    The blobs that the manifests of a store need.

    `named` maps every digest that a manifest names or mentions, whether or not the blob exists, to the models that do
    so; to no model if only an entry without a model's name mentions it. `doubts` are the entries that cannot be read,
    parsed or named, by path relative to the store; while there is one, nothing may be deleted. `scan` is what was read.
    """

    named: dict[Digest, tuple[ModelName, ...]]
    doubts: tuple[UnreadableManifest, ...]
    scan: ManifestScan

    @cached_property
    def documents(self) -> dict[Digest, tuple[ModelName, ...]]:
        """The manifests' own digests, because a coming Ollama stores manifests as blobs. Hashed on first use."""
        return _users((model.name, (model.manifest.digest,)) for model in self.scan.models)

    @cached_property
    def users(self) -> dict[Digest, tuple[ModelName, ...]]:
        """Every digest that is needed, as a named blob or as a manifest, and the models that need it."""
        both = self.named.keys() & self.documents.keys()
        merged = {digest: tuple(dict.fromkeys((*self.named[digest], *self.documents[digest]))) for digest in both}
        return self.named | self.documents | merged

    def orphans(self, blobs: Iterable[StoredBlob]) -> list[StoredBlob]:
        """Return the blobs that nothing needs, sorted by file name."""
        unnamed = [blob for blob in blobs if blob.digest not in self.named]
        return sorted((blob for blob in unnamed if blob.digest not in self.documents), key=attrgetter("filename"))


def find_references(root: Path) -> References:
    """Read every manifest of a store, also those that manifest lists name. Raises OSError for an unreadable folder."""
    return references_of(root, scan_manifests(find_manifests(root)))


def references_of(root: Path, scan: ManifestScan) -> References:
    """Like `find_references`, from manifests that have been read."""
    lists = _Lists(root)
    mentions = chain(_of_links(scan.tree.entries), _of_unreadable(root, scan.unreadable))
    named = _users(chain(_of_models(scan, lists), mentions))
    return References(named, (*scan.unreadable, *_lost_folders(root, scan.strays), *lists.doubts), scan)


def _users(mentions: Iterable[tuple[ModelName | None, Iterable[Digest]]]) -> dict[Digest, tuple[ModelName, ...]]:
    """Map each digest to the models that mention it."""
    users: dict[Digest, tuple[ModelName, ...]] = {}
    # Most digests have one user, perhaps mentioned several times. These share one tuple, to save memory.
    several: dict[Digest, dict[ModelName, None]] = {}
    for name, digests in mentions:
        own = () if name is None else (name,)
        for digest in digests:
            first = users.setdefault(digest, own)
            if first is not own and first != own:
                several.setdefault(digest, dict.fromkeys(first)).update(dict.fromkeys(own))
    users.update((digest, tuple(names)) for digest, names in several.items())
    return users


def _of_models(scan: ManifestScan, lists: _Lists) -> Iterator[tuple[ModelName | None, Iterable[Digest]]]:
    for model in scan.models:
        yield model.name, model.manifest.mentioned
        if model.manifest.children:
            yield model.name, lists.kept_below(model.name, model.manifest)


def _of_links(entries: Iterable[ManifestEntry]) -> Iterator[tuple[ModelName | None, Iterable[Digest]]]:
    """Yield the blobs that manifests are links to (branch pdevine/addressable-manifest), whatever their bytes are."""
    for entry in entries:
        if not entry.is_link:
            continue
        try:
            target = os.readlink(entry.path)  # noqa: PTH115 - as text
        except OSError:
            # The link has gone meanwhile, or is no link any more.
            continue
        targets = (os.path.basename(target), os.path.basename(os.path.realpath(entry.path)))  # noqa: PTH119
        yield entry.name, [digest for digest in map(blob_digest, targets) if digest]


def _of_unreadable(
    root: Path, unreadable: Iterable[UnreadableManifest]
) -> Iterator[tuple[ModelName | None, Iterable[Digest]]]:
    """Yield the digests in the bytes of manifests that do not parse, so that a report about the store is less wrong."""
    for entry in unreadable:
        # Read them again one at a time, because there may be many, and a broken one may be large.
        with contextlib.suppress(OSError, LimitError):
            raw, _ = read_small_file(root / entry.path, MAX_MANIFEST_BYTES)
            yield entry.name, digest_shaped(raw)
            yield entry.name, mentioned_by(raw)


def _lost_folders(root: Path, strays: Iterable[str]) -> Iterator[UnreadableManifest]:
    """Yield links that should lead to folders but do not, for example to an unmounted disk with models on it."""
    # The walk did not count these links as folders. Only a link to a file certainly hides no models.
    lost = [tree for tree in (MANIFESTS, COMING_MANIFESTS) if _is_lost(root / tree, stat.S_ISDIR)]
    for path in (*lost, *(stray for stray in strays if _is_lost(root / stray, stat.S_ISREG))):
        yield UnreadableManifest(path, "a link that leads to no folder")


def _is_lost(path: Path, is_harmless: Callable[[int], bool]) -> bool:
    try:
        return is_link(path) and not is_harmless(path.stat().st_mode)
    except OSError:
        return True


@dataclass(frozen=True, slots=True)
class _Child:
    """A manifest that a list names, read from `blobs/`. `problem` says why it cannot be read or is not sound."""

    kept: frozenset[Digest] = frozenset()
    children: tuple[Digest, ...] = ()
    problem: str | None = None


class _Lists:
    """The manifests in `blobs/` that manifest lists name. Each is read once."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / BLOBS
        self._read: dict[Digest, _Child] = {}
        self.doubts: list[UnreadableManifest] = []

    def kept_below(self, name: ModelName, manifest: Manifest) -> frozenset[Digest]:
        """Return the digests that the children of a list need, and those that their children need."""
        kept: set[Digest] = set()
        seen: set[Digest] = set()
        pending = set(manifest.children)
        for _ in range(MAX_LIST_DEPTH):
            seen |= pending
            children = [self._child(digest, name) for digest in sorted(pending)]
            kept.update(*(child.kept for child in children))
            pending = {digest for child in children for digest in child.children} - seen
        for digest in sorted(pending):
            self._doubt(digest, f"manifest lists within lists: expected at most {MAX_LIST_DEPTH}", name)
        return frozenset(kept)

    def _child(self, digest: Digest, name: ModelName) -> _Child:
        if digest not in self._read:
            child = self._read[digest] = self._read_child(digest)
            if child.problem:
                self._doubt(digest, child.problem, name)
        return self._read[digest]

    def _read_child(self, digest: Digest) -> _Child:
        try:
            raw = self._bytes_of(digest)
            manifest = Manifest.parse(raw)
        except OSError as error:
            return _Child(problem=error.strerror or str(error))
        except OstoreError as error:
            return _Child(problem=str(error))
        problem = None if manifest.digest == digest else "not what its digest promises"
        return _Child(frozenset(manifest.mentioned | {manifest.digest}), manifest.children, problem)

    def _bytes_of(self, digest: Digest) -> bytes:
        *others, last = blob_filenames(digest)
        for filename in others:
            with contextlib.suppress(FileNotFoundError):
                return read_small_file(self._blobs / filename, MAX_MANIFEST_BYTES)[0]
        return read_small_file(self._blobs / last, MAX_MANIFEST_BYTES)[0]

    def _doubt(self, digest: Digest, reason: str, name: ModelName) -> None:
        self.doubts.append(UnreadableManifest(f"blobs/{digest.filename}", reason, name))
