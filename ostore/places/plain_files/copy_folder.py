"""
A folder with copies of models' files, for a machine without Ollama, and `SHA256SUMS` over all of them.

Every file is written beside its place as `NAME.part`, hashed on the way and flushed. When all are there, they get their
names, `SHA256SUMS` last: a folder without it is not complete. `SHA256SUMS.part` is locked meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import BusyError, UsageError
from ostore.formats.manifest import Descriptor
from ostore.places.plain_files.making import make_folder
from ostore.streams.chunks import Chunk, read_chunks
from ostore.streams.durable import Directory
from ostore.streams.file_lock import try_lock
from ostore.streams.links import on_any_length
from ostore.streams.owners import FILE_MODE
from ostore.streams.progress import Progress, watched
from ostore.streams.space import refuse_lack_of_space
from ostore.streams.verified import verified
from ostore.streams.writing import GrowingFile, refuse_missing_folder, refuse_to_overwrite, write_file

SUMS = "SHA256SUMS"
_PART = ".part"

# Opens a blob for reading.
OpenBlob = Callable[[Digest], contextlib.AbstractContextManager[int]]


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """A file to be written: the bytes of a blob, or `content` if that is not None."""

    name: str
    digest: Digest
    size: int
    content: bytes | None = None


def refuse_existing(folder: Path, files: Iterable[CopiedFile], *, replace: bool) -> None:
    """
    Raises UsageError if a file exists and is not to be replaced, or if the folder is none; NotFoundError if the folder
    above it is not there.
    """
    if not os.path.lexists(folder):
        refuse_missing_folder(folder.parent)
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder")
    for name in (*(file.name for file in files), SUMS):
        refuse_to_overwrite(folder / name, replace=replace)


def write_copies(
    folder: Path, files: Sequence[CopiedFile], opened: OpenBlob, progress: Progress, *, replace: bool
) -> None:
    """
    Write files and their checksums into a folder, which is made if it is not there.

    If a blob is not what it should be, or there is no room, nothing is left. Raises what `refuse_existing` raises,
    BlobError for a blob that is missing or has other bytes, NoSpaceError, BusyError if another command writes there,
    OSError.
    """
    folder = on_any_length(folder)
    refuse_existing(folder, files, replace=replace)
    is_new = make_folder(folder)
    try:
        with Directory.open(folder) as directory, _locked_sums(directory) as sums:
            refuse_lack_of_space(directory, [file.size for file in files])
            with _staged(directory, files, opened, progress):
                sums.write(["".join(f"{file.digest.hex}  {file.name}\n" for file in files).encode()])
                sums.sync()
                refuse_existing(folder, files, replace=replace)
                for file in files:
                    directory.rename(file.name + _PART, directory, file.name)
                directory.sync()
                directory.rename(SUMS + _PART, directory, SUMS)
                directory.sync()
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError), Directory.open(folder.parent) as parent:
                parent.rmdir(folder.name)
        raise


@contextlib.contextmanager
def _locked_sums(directory: Directory) -> Iterator[GrowingFile]:
    """Open the file of checksums, empty, under its unfinished name. An error in the block removes it."""
    name = SUMS + _PART
    fd, _ = directory.open_or_create(name, FILE_MODE, writable=True)
    try:
        entry = directory.lstat(name) if try_lock(fd) else None
        if entry is None or not os.path.samestat(entry, os.fstat(fd)):
            raise BusyError(f"{directory.path}: another export is writing there")
        try:
            os.ftruncate(fd, 0)
            directory.ownership.give_file(fd)
            yield GrowingFile(fd)
        except BaseException:
            # An error while cleaning up must not hide the first one.
            with contextlib.suppress(OSError):
                directory.unlink(name)
            raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def _staged(directory: Directory, files: Sequence[CopiedFile], opened: OpenBlob, progress: Progress) -> Iterator[None]:
    """Write every file under its unfinished name. An error removes all of them."""
    try:
        for file in files:
            # A command that was killed has left it.
            directory.unlink(file.name + _PART)
            with _chunks(file, opened, progress) as chunks:
                write_file(directory, file.name + _PART, chunks, directory.ownership)
        yield
    except BaseException:
        for file in files:
            with contextlib.suppress(OSError):
                directory.unlink(file.name + _PART)
        raise


@contextlib.contextmanager
def _chunks(file: CopiedFile, opened: OpenBlob, progress: Progress) -> Iterator[Iterable[Chunk]]:
    if file.content is not None:
        yield (file.content,)
        return
    with opened(file.digest) as fd:
        chunks = watched(read_chunks(fd, file.size), file.digest.short, file.size, progress)
        yield verified(chunks, Descriptor(file.digest, file.size))
