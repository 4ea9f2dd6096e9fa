"""
Find blobs among the files of a folder: a Hugging Face cache, or any other folder with copies.

The name of a file is only a hint, so the bytes are hashed before they are used.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.manifest import Descriptor
from ostore.formats.selection import Wanted
from ostore.places.foreign_caches.candidates import Candidate, ForeignCache, FoundFiles, opened
from ostore.places.foreign_caches.walk import find_files
from ostore.streams.bytes_at import Held
from ostore.streams.chunks import Chunk, read_chunks
from ostore.streams.durable import naming
from ostore.streams.progress import SILENT, Progress, watched


class CopiesFolder:
    """A folder that is walked once, on first use. A folder that may not be read counts as empty."""

    def __init__(self, cache: ForeignCache) -> None:
        self._cache = cache

    @cached_property
    def found(self) -> FoundFiles:
        """Every file below the folder. Links to folders are not followed."""
        return find_files([self._cache], every_file=True)


class NamedCopies:
    """The files of a folder whose names are digests, as a source of blobs."""

    can_resume = False

    def __init__(self, folder: CopiesFolder, label: str) -> None:
        self.label = label
        self._folder = folder

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Return the lacking blobs whose digest is the name of a file of the right size."""
        named = [file for file in self._folder.found.candidates if file.digest in lacking]
        distinct = {
            file.digest: file.size for file in named if file.digest and lacking[file.digest] in {None, file.size}
        }
        return tuple(Descriptor(digest, size) for digest, size in distinct.items())

    def file_of(self, _blob: Descriptor, /) -> Path | None:
        """Return None: these files belong to other programs, which may write to them."""
        return None

    def read_blobs(self, wanted: Sequence[Wanted], _held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """Yield every file that is named by a wanted digest, so a blob may come twice. Its stream raises OSError."""
        for blob in wanted:
            for file in self._folder.found.copies_of(blob.blob.digest, blob.blob.size):
                if file.digest:
                    yield Wanted(blob.blob), _chunks(file)


class SizedCopies(NamedCopies):
    """The other files of a folder, as a source of blobs: each file of a wanted size is hashed."""

    def __init__(self, folder: CopiesFolder, label: str, progress: Progress = SILENT) -> None:
        super().__init__(folder, label)
        self._progress = progress

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Return the lacking blobs that have the size of some file."""
        sizes = {file.size for file in self._folder.found.candidates if not file.digest}
        return tuple(Descriptor(digest, size) for digest, size in lacking.items() if size is not None and size in sizes)

    def read_blobs(self, wanted: Sequence[Wanted], _held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """Yield each wanted blob whose digest a file has. A file that cannot be read is passed over."""
        lacking = {one.blob.digest: one.blob for one in wanted}
        sizes = {one.blob.size for one in wanted}
        for file in self._folder.found.candidates:
            if file.size in sizes and not file.digest and lacking:
                digest = self._digest_of(file)
                if digest in lacking:
                    self._progress.phase("repairing", file.size)
                    yield Wanted(lacking.pop(digest)), _chunks(file)

    def _digest_of(self, file: Candidate) -> Digest | None:
        hasher = hashlib.sha256()
        self._progress.phase("verifying sha256 digest", file.size)
        with contextlib.suppress(OSError):
            # The name of the file is not shown: it may be any text.
            for chunk in watched(_chunks(file), "a file of its size", file.size, self._progress):
                hasher.update(chunk)
            return Digest(hasher.hexdigest())
        return None


def _chunks(file: Candidate) -> Iterator[Chunk]:
    """Yield the bytes of a file. Raises OSError, also if the path leads to another file by now."""
    with opened(file) as fd, naming(Path(file.path)):
        yield from read_chunks(fd, file.size)
