"""Read a whole bundle back from its medium, to see that it has what was written, also by a command before this one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ostore.formats.errors import IntegrityError, NotFoundError, OstoreError
from ostore.formats.selection import Wanted
from ostore.places.bundle.reader import BundleReader, reading
from ostore.streams.bytes_at import nothing_held
from ostore.streams.read_back import BytesPastCache, bad_medium, opened_past_cache
from ostore.streams.verified import verified


def refuse_other_blobs(path: Path, start: bytes, *, jobs: int) -> None:
    """
    Raises IntegrityError unless a bundle that was synced begins with `start` on its medium, and every blob and manifest
    is whole there. Raises OSError.
    """
    try:
        with opened_past_cache(path) as fd, _read(BytesPastCache(fd, path), path, start, jobs) as bundle:
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


@contextlib.contextmanager
def _read(file: BytesPastCache, path: Path, start: bytes, jobs: int) -> Iterator[BundleReader]:
    if file.read_at(len(start), 0) != start:
        raise IntegrityError("its first bytes are others")
    with reading(file, path, jobs=jobs, label=str(path)) as bundle:
        yield bundle
