"""Find the store that was probably meant when a folder is none: one level up or down, or where Ollama puts it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.places.store.survey.manifest_tree import ManifestTree, find_manifests

# Below a home, the home of a service, the root of a volume of a container, or a copy of one of these.
_USUAL = ("models", ".ollama/models", "_data/models", "_data/.ollama/models", "_data", "root/.ollama/models")
# A folder with more entries is no store, and to look into all of them takes long.
_MAX_FOLDERS = 200


def nearby_store(folder: Path) -> Path | None:
    """Return a store near a folder, or None. A store there has both of its folders."""
    found = (path for path in _candidates(folder) if _is_store(path))
    return next(found, None)


def store_instead(tree: ManifestTree) -> Path | None:
    """Return a store with models near one that has none, or None. `tree` is what lies in its folders of manifests."""
    near = None if tree.entries or tree.is_part else nearby_store(tree.root)
    return near if near and find_manifests(near).entries else None


def _candidates(folder: Path) -> Iterator[Path]:
    yield from (folder / usual for usual in _USUAL)
    yield from list(folder.absolute().parents)[:2]
    names: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as listing:
        names = sorted(entry.name for entry, _ in zip(listing, range(_MAX_FOLDERS), strict=False) if entry.is_dir())
    yield from (folder / name for name in names)
    yield from (folder / name / usual for name in names for usual in _USUAL)


def _is_store(path: Path) -> bool:
    # Unlike Path.is_dir, this says False of what we may not look at.
    return all(os.path.isdir(path / part) for part in (BLOBS, MANIFESTS))  # noqa: PTH112
