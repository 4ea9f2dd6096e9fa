"""The folders of a store that everything has left: an empty one would look like a second store to whoever searches."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ostore.formats.store_layout import MANIFESTS
from ostore.places.store.survey.census import read_tree
from ostore.streams.durable import Directory


def remove_empty_folders(root: Path) -> None:
    """
    Remove `blobs`, `manifests` and the folders below that, as far as nothing is in them; links stay, as does `.ostore`.

    The caller holds the lock of the store.
    """
    with Directory.open(root) as directory:
        for folder in reversed(read_tree(root / MANIFESTS).folders):
            *above, last = folder.path.split("/")
            # What cannot be removed, or is no folder any more, stays.
            with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
                parent = opened.enter_context(directory.child(MANIFESTS))
                for part in above:
                    parent = opened.enter_context(parent.child(part))
                parent.rmdir(last)
        for name in (MANIFESTS, "blobs"):
            with contextlib.suppress(OSError):
                directory.rmdir(name)
