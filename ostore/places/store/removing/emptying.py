"""Remove the empty folders of a store that has been moved. Left in place, they would look like a second store."""

from __future__ import annotations

import contextlib

from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.places.store.survey.census import read_tree
from ostore.streams.durable import Directory


def remove_empty_folders(root: Directory) -> None:
    """
    Remove `blobs`, `manifests` and the folders below `manifests`, if they are empty. Links and `.ostore` stay.

    The caller holds the lock of the store.
    """
    for folder in reversed(read_tree(root.path / MANIFESTS).folders):
        _remove_if_empty(root, MANIFESTS, *folder.path.split("/"))
    for name in (MANIFESTS, BLOBS):
        _remove_if_empty(root, name)


def _remove_if_empty(root: Directory, *path: str) -> None:
    # A folder that cannot be removed stays, and so does an entry that is no folder any more.
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        parent = root
        for part in path[:-1]:
            parent = opened.enter_context(parent.child(part))
        parent.rmdir(path[-1])
