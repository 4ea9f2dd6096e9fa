"""Write a bundle: deterministic bytes, every blob once, the final name only when it is complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol

from ostore.formats.bundle_index import (
    INDEX_PATH,
    MAX_INDEX_BYTES,
    MAX_MEMBERS,
    BundleIndex,
    IndexedFile,
    blob_path,
    manifest_path,
)
from ostore.formats.digest import Digest
from ostore.formats.errors import BusyError, IntegrityError, LimitError, NoSpaceError, UsageError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.outcome import Forecast, Outcome, Received
from ostore.formats.selection import Selection, Wanted
from ostore.formats.tar_header import END_OF_ARCHIVE, member_header, padding
from ostore.formats.version import VERSION
from ostore.streams.bytes_at import Output
from ostore.streams.chunks import Chunk
from ostore.streams.durable import Directory, naming
from ostore.streams.file_lock import try_lock
from ostore.streams.frames import FrameWriter
from ostore.streams.links import on_any_length
from ostore.streams.owners import is_ours
from ostore.streams.plain import PlainWriter
from ostore.streams.space import refuse_full, refuse_too_large
from ostore.streams.verified import verified
from ostore.streams.writing import GrowingFile, refuse_to_overwrite

# zstd takes some 20 % off weights in 16 bits, and less off quantised ones.
_LEAST_SHARE = 0.7
SUMS_PATH = "ostore/SHA256SUMS"


class _Writer(Protocol):
    def write(self, data: Chunk) -> None: ...
    def cut(self) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class BundleFile:
    """
    A bundle to be written to `path`: framed zstd, or a plain tar stream if the name ends in `.tar`.

    Until it is complete it is called `NAME.part` and is locked. An export takes over the part file of a dead one.
    """

    def __init__(self, path: Path, *, level: int | None, jobs: int, replace: bool) -> None:
        self.path = on_any_length(path)
        self._level = level
        self._jobs = jobs
        self._replace = replace

    def compare(self, selection: Selection) -> Forecast:
        """
        Forecast that everything is written. Raises UsageError if the file exists and is not to be replaced,
        NotFoundError if its folder does not, NoSpaceError if the disk cannot have room for it.
        """
        self._refuse_existing()
        self._refuse_full_disk(selection)
        return _all_of(selection)

    def without_clashes(self, selection: Selection) -> Selection:
        """Return the selection: a bundle takes any names."""
        return selection

    @contextlib.contextmanager
    def receive(self, selection: Selection) -> Iterator[BundleInbox]:
        """
        Yield an inbox. Leaving the block seals the bundle, syncs it and gives it its name.

        Raises UsageError if the file exists, NotFoundError if its folder does not, NoSpaceError if the disk cannot have
        room for it, BusyError if another export writes it, LimitError if the selection is too large for one bundle,
        OSError.
        """
        self._refuse_existing()
        self._refuse_full_disk(selection)
        with Directory.open(self.path.parent) as directory, self._part(directory, self._least(selection)) as output:
            with contextlib.closing(self._writer(output)) as writer:
                inbox = BundleInbox(writer, selection)
                yield inbox
                inbox.seal()
            output.sync()
            self._give_name(directory)

    def _writer(self, output: Output) -> _Writer:
        return PlainWriter(output) if self.path.name.endswith(".tar") else FrameWriter(output, self._level, self._jobs)

    def _give_name(self, directory: Directory) -> None:
        self._refuse_existing()
        directory.rename(self._part_name, directory, self.path.name)
        directory.sync()

    @property
    def _part_name(self) -> str:
        return f"{self.path.name}.part"

    @contextlib.contextmanager
    def _part(self, directory: Directory, size: int) -> Iterator[Output]:
        fd = self._open_part(directory)
        try:
            with naming(self.path):
                refuse_too_large(fd, self.path, size)
                yield GrowingFile(fd)
        except BaseException:
            # An error while cleaning up must not hide the first one.
            with contextlib.suppress(OSError):
                directory.unlink(self._part_name)
            raise
        finally:
            os.close(fd)

    def _open_part(self, directory: Directory) -> int:
        """Return the part file, open, locked and empty. One of another user or with a second name is removed first."""
        while True:
            fd, is_new = directory.open_or_create(self._part_name, 0o666, writable=True)
            with contextlib.ExitStack() as unless_taken:
                unless_taken.callback(os.close, fd)
                if self._may_take(directory, fd) or is_new:
                    os.ftruncate(fd, 0)
                    unless_taken.pop_all()
                    return fd
                directory.unlink(self._part_name)

    def _may_take(self, directory: Directory, fd: int) -> bool:
        if not try_lock(fd):
            raise BusyError(f"{self.path}: another export is writing it")
        entry, status = directory.lstat(self._part_name), os.fstat(fd)
        if entry is None or entry.st_ino != status.st_ino:
            raise BusyError(f"{self.path}: another export has just finished it")
        return is_ours(status) and status.st_nlink == 1

    def _least(self, selection: Selection) -> int:
        """Return the bytes that the bundle will hardly be smaller than."""
        return selection.size if self.path.name.endswith(".tar") else int(selection.size * _LEAST_SHARE)

    def _refuse_full_disk(self, selection: Selection) -> None:
        try:
            # What a dead export has left is taken over, so its room is free.
            left = self.path.with_name(self._part_name).lstat().st_size
        except OSError:
            left = 0
        try:
            refuse_full(self.path.parent, self._least(selection) - left)
        except NoSpaceError as error:
            error.hint = "export fewer models, or to another disk; a bundle that is written to a pipe is not estimated"
            raise

    def _refuse_existing(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            raise UsageError(f"{self.path}: is a directory", hint="end it with '/' to export into a directory")
        refuse_to_overwrite(self.path, replace=self._replace)


class BundlePipe:
    """A bundle written to an open file, for example standard output. A seek table at the end shows that it is whole."""

    def __init__(self, fd: int, *, level: int | None, jobs: int) -> None:
        self._fd = fd
        self._level = level
        self._jobs = jobs

    def compare(self, selection: Selection) -> Forecast:
        """Forecast that everything is written."""
        return _all_of(selection)

    def without_clashes(self, selection: Selection) -> Selection:
        """Return the selection: a bundle takes any names."""
        return selection

    @contextlib.contextmanager
    def receive(self, selection: Selection) -> Iterator[BundleInbox]:
        """Yield an inbox. Leaving the block seals the bundle, and syncs it if the output is a file."""
        output = GrowingFile(self._fd)
        with contextlib.closing(FrameWriter(output, self._level, self._jobs)) as writer:
            inbox = BundleInbox(writer, selection)
            yield inbox
            inbox.seal()
        output.sync()


class BundleInbox:
    """Takes blobs in the order of the selection, then every manifest, and writes them as members."""

    def __init__(self, writer: _Writer, selection: Selection) -> None:
        self._writer = writer
        self._selection = selection
        self._awaited = iter(selection.blobs)
        self._promised = {model.name: model.manifest_digest for model in selection.models}
        self._manifests: dict[ModelName, bytes] = {}
        self._is_sealed = False
        self._write_head()

    @property
    def missing(self) -> tuple[Wanted, ...]:
        """Every blob of the selection, from its start: a bundle holds all its blobs itself."""
        return tuple(Wanted(blob) for blob in self._selection.blobs)

    @property
    def received(self) -> Received:
        """The whole selection. Raises RuntimeError before the bundle is sealed."""
        if not self._is_sealed:
            raise RuntimeError("a bundle has no result before it is sealed")
        outcomes = dict.fromkeys((model.name for model in self._selection.models), Outcome.ADDED)
        return Received(outcomes, written=self._selection.blobs)

    def held(self, _digest: Digest, /) -> None:
        """Return None: what is written here cannot be read back."""

    def take_files(self, file_of: Callable[[Descriptor], Path | None]) -> None:
        """Take no file, because a blob becomes a part of the bundle's file."""

    def write_blob(self, wanted: Wanted, chunks: Iterable[Chunk]) -> None:
        """
        Write one blob as a member.

        Raises BlobError if the bytes are not the blob, RuntimeError if it is not the next one or not from its start.
        """
        descriptor = wanted.blob
        if wanted.start or descriptor != next(self._awaited, None):
            raise RuntimeError(f"not the next blob of the selection: {descriptor.digest}")
        self._writer.cut()
        self._writer.write(member_header(blob_path(descriptor.digest), descriptor.size))
        for chunk in verified(chunks, descriptor):
            self._writer.write(chunk)
        self._writer.write(bytes(padding(descriptor.size)))

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        """Keep a manifest until the end. Raises IntegrityError unless its digest is the one in the index."""
        if self._promised.get(name) != Digest.of(raw):
            raise IntegrityError(f"manifest of {name}: changed while it was exported")
        self._manifests[name] = raw

    def seal(self) -> None:
        """Write the manifests and the end. Raises RuntimeError if a blob or manifest was not delivered."""
        if next(self._awaited, None) or len(self._manifests) != len(self._selection.models):
            raise RuntimeError("a blob or a manifest of the selection was not delivered")
        self._writer.cut()
        for model in self._selection.models:
            self._write_member(manifest_path(model.name), self._manifests[model.name])
        self._writer.write(END_OF_ARCHIVE)
        self._writer.finish()
        self._is_sealed = True

    def _write_head(self) -> None:
        files = bundle_files(self._selection)
        indexed = tuple(IndexedFile(path, Digest.of(data), len(data)) for path, data in files)
        index = BundleIndex(f"ostore/{VERSION}", self._selection, indexed).write()
        members = len(files) + len(self._selection.blobs) + len(self._selection.models)
        if len(index) > MAX_INDEX_BYTES or members > MAX_MEMBERS:
            raise LimitError(
                f"{members} members and an index of {len(index)} bytes: expected at most {MAX_MEMBERS} and "
                f"{MAX_INDEX_BYTES}",
                hint="export fewer models into each bundle",
            )
        self._write_member(INDEX_PATH, index)
        for path, data in files:
            self._write_member(path, data)

    def _write_member(self, path: str, data: bytes) -> None:
        self._writer.write(member_header(path, len(data)) + data + bytes(padding(len(data))))


def _all_of(selection: Selection) -> Forecast:
    return Forecast(dict.fromkeys((model.name for model in selection.models), Outcome.ADDED), selection.blobs)


def bundle_files(selection: Selection) -> Sequence[tuple[str, bytes]]:
    """Return the members for people and stock tools, by path: checksums, instructions, an importer for bare Python."""
    data = resources.files("ostore.places.bundle")
    return (
        (SUMS_PATH, _checksums(selection)),
        ("ostore/RESTORE.txt", data.joinpath("RESTORE.txt").read_bytes()),
        ("ostore/restore.py", data.joinpath("restore.py").read_bytes()),
    )


def _checksums(selection: Selection) -> bytes:
    """Return one line for each blob and manifest, as `sha256sum -c` reads them in the root of a store."""
    lines = [(blob.digest, blob_path(blob.digest)) for blob in selection.blobs]
    lines += [(model.manifest_digest, manifest_path(model.name)) for model in selection.models]
    return "".join(f"{digest.hex}  {path}\n" for digest, path in lines).encode("ascii")
