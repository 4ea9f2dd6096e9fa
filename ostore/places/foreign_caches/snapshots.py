"""The names of files in the cache of Hugging Face, which keeps bytes under digests: links in `snapshots/` have them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def names_of_blobs(blobs: Iterable[str]) -> dict[str, str]:
    """
    Return for each blob of a repository (`…/blobs/DIGEST`) the path of a link to it, if there is one.

    A folder that cannot be read has no links.
    """
    wanted = set(blobs)
    found: dict[str, str] = {}
    for repository in sorted({os.path.dirname(os.path.dirname(blob)) for blob in wanted}):  # noqa: PTH120 - text
        start = os.path.join(repository, "snapshots")  # noqa: PTH118
        for folder, folders, files in os.walk(start):
            folders.sort()
            for name in sorted(files):
                path = Path(folder) / name
                target = os.path.realpath(path)
                if target in wanted:
                    found.setdefault(target, str(path))
    return found
