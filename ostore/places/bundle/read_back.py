"""Read a whole bundle back from its medium, to see that it has what was written, also by a command before this one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ostore.formats.errors import NotFoundError, OstoreError
from ostore.formats.selection import Wanted
from ostore.places.bundle.reader import open_bundle
from ostore.streams.bytes_at import nothing_held
from ostore.streams.chunks import forget_cached
from ostore.streams.links import open_to_read
from ostore.streams.read_back import bad_medium
from ostore.streams.verified import verified


def refuse_other_blobs(path: Path, *, jobs: int) -> None:
    """
    Raises IntegrityError unless every blob and manifest of a bundle that was synced is whole on its medium.

    Raises OSError.
    """
    fd = open_to_read(path)
    try:
        forget_cached(fd)
    finally:
        os.close(fd)
    try:
        with open_bundle(path, jobs=jobs) as bundle:
            selection = bundle.select(())
            for wanted, chunks in bundle.read_blobs([Wanted(blob) for blob in selection.blobs], nothing_held):
                # The base of a recipe is not there: what is stored of it was verified before that is said.
                with contextlib.suppress(NotFoundError):
                    for _ in verified(chunks, wanted.blob):
                        pass
            for _ in bundle.read_manifests(selection.models):
                pass
    except OstoreError as error:
        raise bad_medium(path, str(error)) from None
