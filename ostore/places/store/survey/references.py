"""
Which blobs are needed, for whoever is about to delete the others: it may keep too much, never too little.

Listing a store asks what a manifest says; here it is asked what it might say to anybody. A digest counts as needed if
a manifest refers to it as Ollama reads it, if it stands anywhere in the manifest's bytes, or if it is the manifest's
own. What cannot be read leaves a doubt, and whoever deletes refuses while there is one.
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

if TYPE_CHECKING:
    from ostore.places.store.survey.census import StoredBlob

# A list of manifests that names lists again. No Ollama writes even one such level (branch pdevine/manifest-list).
MAX_LIST_DEPTH = 4


@dataclass(frozen=True)
class References:
    """
    What the manifests of a store keep.

    `named` has every digest that one of them names or mentions, whether or not there is such a blob, and the models
    that do; none for one that only something without a model's name mentions. `doubts` is every entry that cannot be
    read, parsed or named, by its path relative to the store: while there is one, nothing may be deleted. `scan` is
    what was read.
    """

    named: dict[Digest, tuple[ModelName, ...]]
    doubts: tuple[UnreadableManifest, ...]
    scan: ManifestScan

    @cached_property
    def documents(self) -> dict[Digest, tuple[ModelName, ...]]:
        """The manifests' own digests: a coming Ollama stores manifests as blobs. Hashed when somebody asks."""
        return _users((model.name, (model.manifest.digest,)) for model in self.scan.models)

    @cached_property
    def users(self) -> dict[Digest, tuple[ModelName, ...]]:
        """Every digest that is kept, named or as a manifest, and the models that keep it."""
        both = self.named.keys() & self.documents.keys()
        merged = {digest: tuple(dict.fromkeys((*self.named[digest], *self.documents[digest]))) for digest in both}
        return self.named | self.documents | merged

    def orphans(self, blobs: Iterable[StoredBlob]) -> list[StoredBlob]:
        """Those that nothing keeps, sorted."""
        unnamed = [blob for blob in blobs if blob.digest not in self.named]
        return sorted((blob for blob in unnamed if blob.digest not in self.documents), key=attrgetter("filename"))


def find_references(root: Path) -> References:
    """Read every manifest of a store, and those that manifest lists name. Raises OSError for an unreadable folder."""
    return references_of(root, scan_manifests(find_manifests(root)))


def references_of(root: Path, scan: ManifestScan) -> References:
    """The same of manifests that have been read."""
    lists = _Lists(root)
    mentions = (*_of_links(scan.tree.entries), *_of_unreadable(scan.unreadable))
    named = _users(chain(_of_models(scan, lists), mentions))
    return References(named, (*scan.unreadable, *_lost_folders(root, scan.strays), *lists.doubts), scan)


def _users(mentions: Iterable[tuple[ModelName | None, Iterable[Digest]]]) -> dict[Digest, tuple[ModelName, ...]]:
    """Who mentions each digest."""
    users: dict[Digest, tuple[ModelName, ...]] = {}
    # Most digests have one user, or several that are the same one: all that is made for those is a tuple they share.
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
    """A manifest may be a link to a blob (branch pdevine/addressable-manifest): that blob, whatever its bytes are."""
    for entry in entries:
        if not entry.is_link:
            continue
        try:
            target = os.readlink(entry.path)  # noqa: PTH115 - as text
        except OSError:
            # Gone meanwhile, or no link any more.
            continue
        targets = (os.path.basename(target), os.path.basename(os.path.realpath(entry.path)))  # noqa: PTH119
        yield entry.name, [digest for digest in map(blob_digest, targets) if digest]


def _of_unreadable(unreadable: Iterable[UnreadableManifest]) -> Iterator[tuple[ModelName | None, Iterable[Digest]]]:
    """What stands in the bytes of a manifest that does not parse, so that a report about the store is less wrong."""
    for entry in unreadable:
        yield entry.name, digest_shaped(entry.raw)
        with contextlib.suppress(LimitError):
            yield entry.name, mentioned_by(entry.raw)


def _lost_folders(root: Path, strays: Iterable[str]) -> Iterator[UnreadableManifest]:
    """Links where folders should be: to a disk that is not mounted, say, with all the models that are on it."""
    # The walk took them for no folders; only a file is certain to have no models in it.
    lost = [tree for tree in (MANIFESTS, COMING_MANIFESTS) if _is_lost(root / tree, stat.S_ISDIR)]
    for path in (*lost, *(stray for stray in strays if _is_lost(root / stray, stat.S_ISREG))):
        yield UnreadableManifest(path, "a link that leads to no folder")


def _is_lost(path: Path, is_harmless: Callable[[int], bool]) -> bool:
    try:
        return path.is_symlink() and not is_harmless(path.stat().st_mode)
    except OSError:
        return True


@dataclass(frozen=True, slots=True)
class _Child:
    """A manifest that a list names, read from `blobs/`; nothing, and why, if that cannot be done."""

    kept: frozenset[Digest] = frozenset()
    children: tuple[Digest, ...] = ()
    problem: str | None = None


class _Lists:
    """Manifests that lie in `blobs/` because manifest lists name them; each is read once."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / BLOBS
        self._read: dict[Digest, _Child] = {}
        self.doubts: list[UnreadableManifest] = []

    def kept_below(self, name: ModelName, manifest: Manifest) -> frozenset[Digest]:
        """What the children of a list keep, and theirs."""
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
