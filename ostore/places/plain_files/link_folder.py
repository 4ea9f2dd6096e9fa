"""
A folder in which other programs find models under readable names, as links to the blobs of a store.

    .ostore-links.json    the record of all that ostore has made here
    .ostore-links.lock    locked while a command changes the folder
    .ostore-link.part     a link or file that is being made

Files come first and the record last. A command that is killed between the two finds its files again: they are already
what it wants, or symbolic links to blobs of the store. Nothing else in the folder is touched: any other file that is
not in the record, or is not any more what the record says, stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.digest import Digest, blob_digest
from ostore.formats.errors import DamagedStoreError, NotFoundError, OstoreError, UnsafeError, UsageError
from ostore.formats.link_record import MAX_RECORD_BYTES, OWN_PREFIX, RECORD, LinkedFile, LinkKind, LinkRecord
from ostore.formats.remedy import ostore
from ostore.formats.store_layout import BLOBS
from ostore.places.plain_files.making import make_folder
from ostore.streams.chunks import read_full
from ostore.streams.durable import Directory
from ostore.streams.extents import clone_file, extents_of, shared_bytes
from ostore.streams.file_lock import wait_lock
from ostore.streams.links import mode_of, on_any_length, open_to_read
from ostore.streams.owners import FILE_MODE, NOT_SUPPORTED
from ostore.streams.writing import finish_file, write_file

LOCK = f"{OWN_PREFIX}links.lock"
_PART = f"{OWN_PREFIX}link.part"


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file to be made at `path`: a link to the blob's file `source`, or without one a file with these bytes."""

    path: str
    digest: Digest
    size: int
    source: Path | None = None
    content: bytes = b""


class ForeignFileError(Exception):
    """Something that ostore has not made, or that was changed, has the name of a file. It stays as it is."""


class LinkFolder:
    """An open folder of links, locked. `record` is what it had when it was opened, None if ostore made nothing here."""

    def __init__(self, directory: Directory, record: LinkRecord | None, *, are_hard: bool) -> None:
        self.record = record
        self._directory = directory
        self._are_hard = are_hard
        self._no_clones: set[int] = set()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, *, create: bool = False, are_hard: bool = os.name == "nt") -> Iterator[LinkFolder]:
        """
        Open and lock a folder. With `create`, it is made if the folder above it is there.

        `are_hard` makes hard links where the disk has no reflinks: on Windows, LM Studio shows others with no size.

        Raises NotFoundError if it is not there, UsageError if it is no folder, BusyError, FormatError, LimitError or
        UnsafeError for its record, OSError.
        """
        path = on_any_length(path)
        if create:
            make_folder(path)
        elif not path.exists():
            raise NotFoundError(f"{path}: no such folder")
        if not path.is_dir():
            raise UsageError(f"{path}: expected a folder")
        with Directory.open(path) as directory, _locked(directory):
            # A command that was killed has left it.
            directory.unlink(_PART)
            yield cls(directory, _record_in(directory), are_hard=are_hard)

    def put(self, wanted: WantedFile, known: LinkedFile | None, store: str) -> LinkedFile:
        """
        Make a file, and return what the record has to say of it. `known` is what the record says of its path now.

        Nothing happens if it is there already. Raises ForeignFileError if something else has its name, UsageError if
        the disk has no links, OSError.
        """
        with self._parent_of(wanted.path, create=True) as (folder, name):
            status = folder.lstat(name)
            if status is not None:
                if made := self._already(folder, name, status, wanted, known):
                    return made
                blobs = [Path(store) / BLOBS, *([wanted.source.parent] if wanted.source else [])]
                # A command that was killed may have made a link and no record.
                if not (known and _stands(folder, name, known, store)) and _blob_at(folder, name, blobs) is None:
                    raise ForeignFileError(_what_is(status))
            made = self._made(folder, name, wanted, replaces=status is not None)
            folder.sync()
            return made

    def remove(self, file: LinkedFile, store: str) -> bool:
        """
        Remove a file of the record, and folders that are empty then. Returns whether it was there.

        Raises ForeignFileError if it is not any more what ostore has made, OSError.
        """
        try:
            with self._parent_of(file.path) as (folder, name):
                status = folder.lstat(name)
                if status is None:
                    return False
                if not _stands(folder, name, file, store):
                    raise ForeignFileError("changed since ostore made it")
                folder.unlink(name)
                folder.sync()
        except FileNotFoundError:
            return False
        above = file.path.rpartition("/")[0]
        while above:
            with self._parent_of(above) as (folder, name):
                if not folder.rmdir(name):
                    break
                folder.sync()
            above = above.rpartition("/")[0]
        return True

    def save(self, record: LinkRecord) -> None:
        """Write the record; none if nothing was made. Raises LimitError if it has become too long, OSError."""
        raw = record.write()
        # It must be possible to read it again.
        LinkRecord.parse(raw)
        if record != self.record and (record.models or self.record):
            # A link that could not be put into its place has left it.
            self._directory.unlink(_PART)
            write_file(self._directory, _PART, (raw,), self._directory.ownership)
            self._directory.rename(_PART, self._directory, RECORD)
            self._directory.sync()
            self.record = record

    def forget(self) -> None:
        """Remove the record. The lock goes when the folder is closed. Raises OSError."""
        self._directory.unlink(RECORD)
        self._directory.sync()

    def _already(
        self, folder: Directory, name: str, status: os.stat_result, wanted: WantedFile, known: LinkedFile | None
    ) -> LinkedFile | None:
        """Return what the record has to say of a file that is there, if it is what is wanted."""
        kind: LinkKind | None = None
        mark, source = 0, wanted.source
        if source is None:
            text = LinkedFile(wanted.path, "text", wanted.digest, wanted.size)
            return text if _stands(folder, name, text, "") else None
        if stat.S_ISLNK(mode_of(status)):
            kind = "symlink" if folder.readlink(name) == source else None
        elif stat.S_ISREG(status.st_mode) and status.st_size == wanted.size:
            if known and known.digest == wanted.digest and _stands(folder, name, known, ""):
                return known
            if os.path.samestat(status, source.stat()):
                kind, mark = "hardlink", status.st_ino
            elif _share_everything(folder, name, source, wanted.size):
                kind, mark = "reflink", status.st_mtime_ns
        return LinkedFile(wanted.path, kind, wanted.digest, wanted.size, mark) if kind else None

    def _made(self, folder: Directory, name: str, wanted: WantedFile, *, replaces: bool) -> LinkedFile:
        if wanted.source is None:
            write_file(self._directory, _PART, (wanted.content,), self._directory.ownership)
            self._give_name(folder, name, replaces=replaces)
            return LinkedFile(wanted.path, "text", wanted.digest, wanted.size)
        mark = self._cloned(wanted.source)
        if mark is not None:
            self._give_name(folder, name, replaces=replaces)
            return LinkedFile(wanted.path, "reflink", wanted.digest, wanted.size, mark)
        # Made under its name, a link cannot take the place of anything.
        place, placed = (self._directory, _PART) if replaces else (folder, name)
        try:
            mark = self._linked(wanted.source, place, placed)
        except FileExistsError:
            raise ForeignFileError("something was put there just now") from None
        if replaces:
            self._directory.rename(_PART, folder, name)
        return LinkedFile(wanted.path, "hardlink" if self._are_hard else "symlink", wanted.digest, wanted.size, mark)

    def _cloned(self, source: Path) -> int | None:
        """Make a reflink as the part file, and return its mtime in nanoseconds. None if the disk cannot do that."""
        device = self._directory.status().st_dev
        if source.stat().st_dev != device or device in self._no_clones:
            return None
        fd = self._directory.create(_PART)
        with contextlib.ExitStack() as unless_cloned:
            unless_cloned.callback(self._directory.unlink, _PART)
            unless_cloned.callback(os.close, fd)
            source_fd = open_to_read(source)
            unless_cloned.callback(os.close, source_fd)
            if not clone_file(source_fd, fd):
                self._no_clones.add(device)
                return None
            mark = os.fstat(fd).st_mtime_ns
            finish_file(os.dup(fd), self._directory.path / _PART, self._directory.ownership)
            unless_cloned.pop_all()
            os.close(source_fd)
            os.close(fd)
        return mark

    def _linked(self, source: Path, folder: Directory, name: str) -> int:
        """Make a symbolic or a hard link, and return its mark. Raises FileExistsError, UsageError, OSError."""
        if not self._are_hard:
            try:
                folder.symlink(source, name)
            except OSError as error:
                if error.errno in NOT_SUPPORTED:
                    raise UsageError(f"{folder.path}: this disk has no links", hint=_COPY) from None
                raise
            return 0
        with Directory.open(source.parent) as blobs:
            try:
                if not blobs.link(source.name, folder, name):
                    raise UsageError(f"{folder.path}: this disk has no hard links", hint=_COPY)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                raise UsageError(f"{folder.path}: a hard link cannot lead to another disk", hint=_COPY) from None
        status = folder.lstat(name)
        return status.st_ino if status else 0

    def _give_name(self, folder: Directory, name: str, *, replaces: bool) -> None:
        if not replaces:
            try:
                if self._directory.link(_PART, folder, name):
                    self._directory.unlink(_PART)
                    return
            except FileExistsError:
                raise ForeignFileError("something was put there just now") from None
            if folder.lstat(name) is not None:
                raise ForeignFileError("something was put there just now")
        self._directory.rename(_PART, folder, name)

    @contextlib.contextmanager
    def _parent_of(self, path: str, *, create: bool = False) -> Iterator[tuple[Directory, str]]:
        """Open the folder that a path of the record is in. No link is followed."""
        *above, name = path.split("/")
        with contextlib.ExitStack() as opened:
            folder = self._directory
            for part in above:
                try:
                    child = folder.make_child(part, self._directory.ownership) if create else folder.child(part)
                except OSError as error:
                    if error.errno in {errno.ENOTDIR, errno.ELOOP, errno.EMLINK}:
                        raise ForeignFileError(f"{part} is no folder") from None
                    raise
                folder = opened.enter_context(child)
            yield folder, name


_COPY = ostore("export", "MODEL", "DIR/", "--as", "gguf", after="copies instead")


def links_that_break(folder: Path, store: str, digests: Collection[Digest]) -> tuple[str, ...]:
    """
    Return the paths of symbolic links in a folder that lead to blobs of a store which are to go.

    A folder that is not there, or whose record cannot be read, has none.
    """
    try:
        with Directory.open(folder) as directory:
            record = _record_in(directory)
    except (OSError, OstoreError):
        return ()
    return tuple(
        f"{folder}{os.sep}{file.path.replace('/', os.sep)}"
        for model in (record.models if record else ())
        for file in model.files
        if model.store == store and file.kind == "symlink" and _is_broken_by(folder / file.path, store, digests)
    )


def _is_broken_by(link: Path, store: str, digests: Collection[Digest]) -> bool:
    # The link itself tells: the record may be older.
    with contextlib.suppress(OSError):
        target = link.readlink()
        return target.parent == Path(store) / BLOBS and blob_digest(target.name) in digests
    return False


@contextlib.contextmanager
def _locked(directory: Directory) -> Iterator[None]:
    """Hold the lock. It goes if nothing of ostore is in the folder, or if it is new and the block fails."""
    fd, is_new = _lock(directory)
    try:
        yield
        if directory.lstat(RECORD) is None:
            directory.unlink(LOCK)
            directory.sync()
    except BaseException:
        # An error while cleaning up must not hide the first one.
        with contextlib.suppress(OSError):
            if is_new or directory.lstat(RECORD) is None:
                directory.unlink(LOCK)
        raise
    finally:
        os.close(fd)


def _lock(directory: Directory) -> tuple[int, bool]:
    """Return the open lock, and whether it is new. The lock of a file that has lost its name keeps nobody out."""
    while True:
        fd, is_new = directory.open_or_create(LOCK, FILE_MODE, writable=False)
        with contextlib.ExitStack() as unless_held:
            unless_held.callback(os.close, fd)
            wait_lock(fd, str(directory.path / LOCK))
            entry = directory.lstat(LOCK)
            if entry is not None and os.path.samestat(entry, os.fstat(fd)):
                unless_held.pop_all()
                return fd, is_new


def _record_in(directory: Directory) -> LinkRecord | None:
    try:
        raw = _content_of(directory, RECORD, MAX_RECORD_BYTES)
    except FileNotFoundError:
        return None
    except DamagedStoreError:
        raise UnsafeError(f"{directory.path / RECORD}: expected a file of ours, got something else") from None
    return LinkRecord.parse(raw)


def _content_of(directory: Directory, name: str, limit: int) -> bytes:
    fd = directory.open_file(name)
    try:
        return read_full(fd, limit + 1)
    finally:
        os.close(fd)


def _stands(folder: Directory, name: str, file: LinkedFile, store: str) -> bool:
    """Return whether an entry still is what ostore has made."""
    status = folder.lstat(name)
    if status is None:
        return False
    if file.kind == "symlink":
        # A command that was killed may have led it to another blob than the record says.
        return _blob_at(folder, name, [Path(store) / BLOBS]) is not None
    if not stat.S_ISREG(mode_of(status)) or status.st_size != file.size:
        return False
    if file.kind == "text":
        return Digest.of(_content_of(folder, name, file.size)) == file.digest
    return file.mark == (status.st_ino if file.kind == "hardlink" else status.st_mtime_ns)


def _blob_at(folder: Directory, name: str, blobs: Collection[Path]) -> Digest | None:
    """Return the blob in one of these folders that a symbolic link leads to, or None for anything else."""
    status = folder.lstat(name)
    target = folder.readlink(name) if status and stat.S_ISLNK(mode_of(status)) else None
    return blob_digest(target.name) if target and target.parent in blobs else None


def _share_everything(folder: Directory, name: str, source: Path, size: int) -> bool:
    """Return whether a file is a reflink of another: the disk has all its bytes in the same place."""
    with contextlib.ExitStack() as opened:
        fds = (folder.open_file(name), open_to_read(source))
        for fd in fds:
            opened.callback(os.close, fd)
        return size > 0 and shared_bytes(extents_of(fds[0]), extents_of(fds[1]), size) == size


def _what_is(status: os.stat_result) -> str:
    mode = mode_of(status)
    if stat.S_ISLNK(mode):
        return "a link that ostore has not made, or that was changed"
    return "a file that ostore has not made, or that was changed" if stat.S_ISREG(mode) else "no file of ostore"
