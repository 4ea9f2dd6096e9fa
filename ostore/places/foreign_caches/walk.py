"""
Find files of models in the folders of other programs, by name and place and with one listing of each folder; or find
every file, in a folder that a person names because it has good copies.

Only folders are opened. Links to folders are not followed, so there are no loops. A link to a file counts as that file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.unreadable import Unreadable
from ostore.places.foreign_caches.candidates import (
    CacheKind,
    Candidate,
    ForeignCache,
    FoundFiles,
    each_once,
)

# Files that an ostore has staged or set aside do not count as copies.
_OURS = ".ostore"
# A file of a cached repository is five or six folders below the cache, one of LM Studio three.
MAX_DEPTH = 12
# Hub documentation, "Hub Local Cache": blobs of models--ORG--REPO are named by their ETag. For a file in LFS this is
# the SHA-256, for any other file Git's SHA-1. A file that is still being loaded has a suffix.
_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+")
_ETAG = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHA256_DIGITS = 64
# huggingface_hub 2.4, utils/_shared_blobs.py: CACHE/blobs/<two digits>/<Xet hash>, to which the blobs of repositories
# are links. That hash has 64 digits too, but is not a SHA-256.
_SHARED_FOLDER = re.compile(r"[0-9a-f]{2}")
# In a repository: pointers to commits, and names known not to exist. Beside repositories: locks.
_NOT_IN_REPOSITORIES = frozenset({"refs", ".no_exist"})
_NEVER = frozenset({".locks", _OURS, ".git"})
# ollama manifest/paths.go at fb30760: the folders beside blobs/ in a store. They hold thousands of small files.
_BESIDE_BLOBS = frozenset({"manifests", "manifests-v2"})
_WEIGHTS = ".gguf"
# The names that Ollama and others make of a SHA-256. Git LFS does so too, below .git.
_DIGEST_NAME = re.compile(r"(?:sha256[-:])?([0-9a-f]{64})")
_BLOCK = 512


def find_files(caches: Iterable[ForeignCache], *, every_file: bool = False) -> FoundFiles:
    """
    Return every file in these folders that may hold a blob. An absent folder holds nothing.

    These are, in a folder of any kind: blobs of Ollama's stores, blobs and snapshots of Hugging Face's cache, and files
    named `*.gguf`, at most 12 folders deep. With `every_file`, they are all files at any depth.
    """
    found = _Found(every_file)
    for cache in caches:
        found.walk(cache)
    found.unreadable.sort(key=lambda folder: folder.path)
    return FoundFiles(each_once(found.candidates), tuple(dict.fromkeys(found.unreadable)))


def recognise(folder: Path) -> ForeignCache:
    """Return the kind of a folder, judged by the names directly in it. Raises OSError if it cannot be listed."""
    with os.scandir(folder) as listing:
        names = {entry.name for entry in listing}
    if "blobs" in names and names & _BESIDE_BLOBS:
        return ForeignCache(CacheKind.STORE, folder)
    if any(map(_REPOSITORY.fullmatch, names)):
        return ForeignCache(CacheKind.HUGGING_FACE, folder)
    return ForeignCache(CacheKind.FOLDER, folder)


@dataclass(slots=True)
class _Found:
    every_file: bool
    candidates: list[Candidate] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def walk(self, cache: ForeignCache) -> None:
        # The meaning of a file's name depends on the two folders above it, so those above the cache count as well.
        above = cache.path.parts[-2:]
        pending = [(str(cache.path), above)]
        while pending:
            folder, parts = pending.pop()
            if len(parts) - len(above) > MAX_DEPTH and not self.every_file:
                self.unreadable.append(Unreadable(folder, f"more than {MAX_DEPTH} folders deep"))
            else:
                # Reversed, because the last of `pending` is taken first.
                pending += reversed(self._look_into(folder, parts, cache.kind))

    def _look_into(self, folder: str, parts: tuple[str, ...], kind: CacheKind) -> list[tuple[str, tuple[str, ...]]]:
        """Add the files of one folder, and return the folders in it that are to be entered."""
        listing = self._listing(folder)
        names = {entry.name for entry in listing}
        promise_of = _promises_in(parts)
        folders = []
        for entry in listing:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != _OURS if self.every_file else _is_entered(entry.name, names, parts):
                    folders.append((entry.path, (*parts, entry.name)))
            elif promise := promise_of(entry.name) or (_any_file(entry.name) if self.every_file else None):
                self._add(entry.path, kind, promise.digest)
        return folders

    def _listing(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as listing:
                return sorted(listing, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
        except OSError as error:
            self.unreadable.append(Unreadable(folder, error.strerror or str(error)))
            return []

    def _add(self, path: str, kind: CacheKind, digest: Digest | None) -> None:
        try:
            # On Windows, the status of a scandir entry lacks device and inode.
            status = os.stat(path)  # noqa: PTH116 - a Path for each of 60,000 files takes longer than asking
        except FileNotFoundError:
            # The file has gone meanwhile, or the link leads nowhere.
            return
        except OSError as error:
            self.unreadable.append(Unreadable(path, error.strerror or str(error)))
            return
        if stat.S_ISREG(status.st_mode):
            allocated = status.st_blocks * _BLOCK if hasattr(status, "st_blocks") else status.st_size
            self.candidates.append(
                Candidate(path, kind, status.st_size, allocated, status.st_dev, status.st_ino, digest)
            )


@dataclass(frozen=True, slots=True)
class _Promise:
    """What the name of a model's file promises: `digest`, or None if it promises no digest."""

    digest: Digest | None = None


_UNNAMED = _Promise()


def _is_entered(name: str, names: Collection[str], parts: tuple[str, ...]) -> bool:
    if name in _NEVER or (name in _BESIDE_BLOBS and "blobs" in names):
        return False
    return not (name in _NOT_IN_REPOSITORIES and _is_repository(parts[-1:]))


def _promises_in(parts: tuple[str, ...]) -> Callable[[str], _Promise | None]:
    """Return the function that reads file names in a folder. It gives None for a name that is no file of a model."""
    if any(_is_repository(parts[n : n + 1]) and parts[n + 1] == "snapshots" for n in range(len(parts) - 1)):
        # Snapshots hold links to blobs, or the files themselves where the disk has no links.
        return lambda _name: _UNNAMED
    if parts[-1:] == ("blobs",):
        return _blob_of_repository if _is_repository(parts[-2:-1]) else _blob_of_store
    if parts[-2:-1] == ("blobs",) and _SHARED_FOLDER.fullmatch(parts[-1]):
        return _shared_blob
    return _weights


def _is_repository(part: tuple[str, ...]) -> bool:
    return bool(part) and _REPOSITORY.fullmatch(part[0]) is not None


def _blob_of_repository(name: str) -> _Promise | None:
    if not _ETAG.fullmatch(name):
        return None
    return _Promise(Digest(name)) if len(name) == _SHA256_DIGITS else _UNNAMED


def _blob_of_store(name: str) -> _Promise | None:
    digest = Digest.of_filename(name)
    return _Promise(digest) if digest else _weights(name)


def _shared_blob(name: str) -> _Promise | None:
    return _UNNAMED if len(name) == _SHA256_DIGITS and _ETAG.fullmatch(name) else None


def _weights(name: str) -> _Promise | None:
    return _UNNAMED if name.lower().endswith(_WEIGHTS) else None


def _any_file(name: str) -> _Promise:
    match = _DIGEST_NAME.fullmatch(name)
    return _Promise(Digest(match[1])) if match else _UNNAMED
