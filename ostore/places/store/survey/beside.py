"""Find what lies in `blobs/` besides the files of needed blobs, for whoever reports it. No file is opened."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from ostore.formats.digest import Digest, blob_digest, is_misspelled
from ostore.formats.manifest import Descriptor
from ostore.formats.store_layout import BLOBS, is_temporary
from ostore.places.store.survey.blob_files import BlobFiles
from ostore.places.store.survey.census import BesideBlobs
from ostore.places.store.survey.scan import find_blobs


def entries_of(files: BlobFiles, digests: Iterable[Digest]) -> BesideBlobs:
    """Return what is odd about the files of these blobs. Raises OSError."""
    found = {digest: file for digest in digests if (file := files.find(digest))}
    return BesideBlobs(
        misspelled=tuple((f"{BLOBS}/{file.filename}", digest) for digest, file in found.items() if file.is_misspelled),
        links=tuple(f"{BLOBS}/{file.filename}" for file in found.values() if file.is_link and file.status),
    )


def unreferenced(root: Path, is_needed: Callable[[Digest], bool]) -> BesideBlobs:
    """Return what lies in `blobs/` besides the files of the blobs that models need. Raises OSError."""
    orphans: dict[Digest, int] = {}
    misspelled: list[tuple[str, Digest]] = []
    foreign: list[str] = []
    links: list[str] = []
    dangling: list[str] = []
    for entry in find_blobs(root):
        digest = blob_digest(entry.name)
        if digest is None:
            foreign += [] if is_temporary(entry.name) else [f"{BLOBS}/{entry.name}"]
            continue
        if is_misspelled(entry.name):
            misspelled.append((f"{BLOBS}/{entry.name}", digest))
        if entry.is_symlink():
            (links if _target(entry) else dangling).append(f"{BLOBS}/{entry.name}")
        if not is_needed(digest) and (status := _target(entry)):
            orphans[digest] = status.st_size
    return BesideBlobs(
        tuple(Descriptor(digest, orphans[digest]) for digest in sorted(orphans)),
        tuple(sorted(misspelled)),
        tuple(sorted(foreign)),
        tuple(sorted(links)),
        tuple(sorted(dangling)),
    )


def _target(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return the status of the regular file that an entry is or leads to. None if there is none, or it has gone."""
    with contextlib.suppress(OSError):
        status = entry.stat()
        return status if stat.S_ISREG(status.st_mode) else None
    return None
