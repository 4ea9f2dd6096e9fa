"""The folders of a store that everything has left: an empty one would look like a second store to whoever searches."""

from __future__ import annotations

import contextlib

from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.places.store.survey.census import read_tree
from ostore.streams.durable import Directory


def remove_empty_folders(root: Directory) -> None:
    """
    Remove `blobs`, `manifests` and the folders below that, as far as nothing is in them; links stay, as does `.ostore`.

    The caller holds the lock of the store.
    """
    for folder in reversed(read_tree(root.path / MANIFESTS).folders):
        *above, last = folder.path.split("/")
        # What cannot be removed, or is no folder any more, stays.
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            parent = opened.enter_context(root.child(MANIFESTS))
            for part in above:
                parent = opened.enter_context(parent.child(part))
            parent.rmdir(last)
    for name in (MANIFESTS, BLOBS):
        with contextlib.suppress(OSError):
            root.rmdir(name)
