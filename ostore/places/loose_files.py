"""
A folder whose files may be blobs under other names: a Hugging Face cache, or wherever somebody keeps GGUF files.

Read only. What a file is called is a hint; whoever takes it hashes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.selection import Selection
from ostore.streams.chunks import Chunk, read_chunks
from ostore.streams.durable import naming
from ostore.streams.progress import SILENT, Progress, watched

# huggingface_hub file_download.py at v0.34: a large file lies in `models--*/blobs/` and is called by its SHA-256 alone;
# Ollama puts `sha256-` before it.
_DIGEST_NAME = re.compile(r"(?:sha256[-:])?([0-9a-f]{64})")
# What an ostore has staged or set aside there is no copy that somebody keeps.
_SKIPPED = ".ostore"
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class LooseFile:
    """A regular file, or a link to one: its path and its size in bytes."""

    path: str
    size: int

    @property
    def digest(self) -> Digest | None:
        """What its name says it is."""
        match = _DIGEST_NAME.fullmatch(Path(self.path).name)
        return Digest(match[1]) if match else None


class LooseFolder:
    """A folder that is walked once, when somebody first asks what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def files(self) -> tuple[LooseFile, ...]:
        """Every file below it, by path. Links to folders are not followed; a folder that may not be read is empty."""
        found: list[LooseFile] = []
        pending = [str(self.path)]
        while pending:
            with contextlib.suppress(OSError), os.scandir(pending.pop()) as listing:
                for entry in listing:
                    if entry.is_dir(follow_symlinks=False):
                        pending += [entry.path] if entry.name != _SKIPPED else []
                    else:
                        found += _regular(entry)
        return tuple(sorted(found, key=lambda file: file.path))


class NamedFiles:
    """Copies among the files of a folder whose names are digests."""

    def __init__(self, folder: LooseFolder, label: str) -> None:
        self.label = label
        self._folder = folder

    @cached_property
    def _files(self) -> dict[Digest, list[LooseFile]]:
        files: dict[Digest, list[LooseFile]] = {}
        for file in self._folder.files:
            if file.digest:
                files.setdefault(file.digest, []).append(file)
        return files

    def find_models(self, names: Collection[str]) -> tuple[Selection, ...]:  # noqa: ARG002 - no manifests here
        """None: what makes files a model is not written down here."""
        return ()

    def find_blobs(self, wanted: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Those after which a file of the right size is named."""
        found = [(digest, file) for digest in wanted for file in self._files.get(digest, ())]
        distinct = {digest: file.size for digest, file in found if wanted[digest] in {None, file.size}}
        return tuple(Descriptor(digest, size) for digest, size in distinct.items())

    def read_blobs(self, wanted: Collection[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[Chunk]]]:
        """Yield every file that may be a wanted blob, several for one if there are; its stream says if it fails."""
        for blob in wanted:
            for file in self._files.get(blob.digest, ()):
                if file.size == blob.size:
                    yield blob, _chunks(file)

    def read_manifests(self, names: Collection[ModelName]) -> Iterator[tuple[ModelName, bytes]]:  # noqa: ARG002
        """Nothing."""
        yield from ()


class SizedFiles(NamedFiles):
    """Copies among the other files of a folder: each that has the size of a wanted blob is hashed to find out."""

    def __init__(self, folder: LooseFolder, label: str, progress: Progress = SILENT) -> None:
        super().__init__(folder, label)
        self._progress = progress

    def find_blobs(self, wanted: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Those of whose size a file is there."""
        sizes = {file.size for file in self._folder.files if not file.digest}
        return tuple(Descriptor(digest, size) for digest, size in wanted.items() if size is not None and size in sizes)

    def read_blobs(self, wanted: Collection[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[Chunk]]]:
        """Yield each wanted blob that a file was found to be. What cannot be read is none of them."""
        lacking = {blob.digest: blob for blob in wanted}
        sizes = {blob.size for blob in wanted}
        for file in self._folder.files:
            if file.size in sizes and not file.digest and lacking:
                digest = self._digest_of(file)
                if digest in lacking:
                    self._progress.phase("repairing", file.size)
                    yield lacking.pop(digest), _chunks(file)

    def _digest_of(self, file: LooseFile) -> Digest | None:
        hasher = hashlib.sha256()
        self._progress.phase("verifying sha256 digest", file.size)
        with contextlib.suppress(OSError):
            # Not called by its name, which is whatever somebody made it.
            for chunk in watched(_chunks(file), "a file of its size", file.size, self._progress):
                hasher.update(chunk)
            return Digest(hasher.hexdigest())
        return None


def _regular(entry: os.DirEntry[str]) -> Iterator[LooseFile]:
    # A link that leads nowhere, for example.
    with contextlib.suppress(OSError):
        status = entry.stat()
        if stat.S_ISREG(status.st_mode):
            yield LooseFile(entry.path, status.st_size)


def _chunks(file: LooseFile) -> Iterator[Chunk]:
    """What a file holds. Raises OSError, also if it is no file any more."""
    # Without O_NONBLOCK the open of a FIFO that nobody writes would never return.
    fd = os.open(file.path, os.O_RDONLY | _NONBLOCK | _BINARY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", file.path)
        with naming(Path(file.path)):
            yield from read_chunks(fd, file.size)
    finally:
        os.close(fd)
