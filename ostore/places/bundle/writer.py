"""Write a bundle to a file, which gets its name only when it is complete, or to a pipe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import BusyError, NoSpaceError, UsageError
from ostore.formats.outcome import Forecast
from ostore.formats.selection import Selection
from ostore.places.bundle.encoding import Encoding, all_added
from ostore.places.bundle.inbox import BundleInbox, bundle_head, stored_members
from ostore.places.bundle.journal import ExportJournal, Terms, damaged_before, damaged_in
from ostore.places.bundle.left_over import PART, remove_unfinished_volumes
from ostore.places.bundle.read_back import refuse_other_blobs
from ostore.places.bundle.volume_folders import files_of_set
from ostore.streams.bytes_at import FileBytes, Output
from ostore.streams.durable import Directory, naming
from ostore.streams.file_lock import try_lock
from ostore.streams.links import on_any_length
from ostore.streams.owners import is_ours
from ostore.streams.progress import SILENT, Progress
from ostore.streams.read_back import refuse_other_bytes
from ostore.streams.space import refuse_full, refuse_too_large
from ostore.streams.volumes import HashedOutput
from ostore.streams.writing import GrowingFile, refuse_to_overwrite


class BundleFile:
    """
    A bundle to be written to `path`: framed zstd, or a plain tar stream if the name ends in `.tar`.

    Until it is complete it is called `NAME.part` and is locked. An export goes on with the part file of one that was
    stopped, if it writes the same, and takes it over if not. `progress` is told which.
    """

    def __init__(
        self,
        path: Path,
        *,
        level: int | None,
        jobs: int,
        replace: bool,
        verify: bool = False,
        progress: Progress = SILENT,
    ) -> None:
        """With `verify`, the file is read back from its medium before it gets its name."""
        self.path = on_any_length(path)
        self._verify = verify
        self._encoding = Encoding(path.name.endswith(".tar"), level, jobs)
        self._replace = replace
        self._progress = progress
        self._has_begun = False

    def compare(self, selection: Selection) -> Forecast:
        """
        Forecast that everything is written. Raises UsageError if the file exists and is not to be replaced,
        NotFoundError if its folder does not, NoSpaceError if the disk cannot have room for it.
        """
        self._refuse_existing()
        self._refuse_full_disk(selection)
        return all_added(selection)

    def without_clashes(self, selection: Selection) -> Selection:
        """Return the selection: a bundle takes any names."""
        return selection

    def damaged_before(self) -> tuple[Digest, ...]:
        """Return the blobs that an interrupted export to this file could not read."""
        return damaged_before(self.path.parent, self._part_name)

    @contextlib.contextmanager
    def receive(self, selection: Selection) -> Iterator[BundleInbox]:
        """
        Yield an inbox. Leaving the block seals the bundle, syncs it and gives it its name.

        After an interruption, a failed disk or a damaged blob, or if somebody else has taken the name, what is synced
        stays for the same command. After any other error nothing stays.
        Raises UsageError if the file exists, NotFoundError if its folder does not, NoSpaceError if the disk cannot have
        room for it, BusyError if another export writes it, LimitError if the selection is too large for one bundle,
        OSError.
        """
        self._refuse_existing()
        self._refuse_full_disk(selection)
        head = bundle_head(selection)
        with Directory.open(self.path.parent) as directory:
            encoding = self._encoding
            terms = Terms(head, stored_members(selection), encoding.made_by, encoding.is_plain, damaged_in(selection))
            journal = ExportJournal(directory, self._part_name, terms)
            with self._part(directory, journal, head, encoding.least_size(selection)) as output:
                with contextlib.closing(encoding.writer(output, journal.state)) as writer:
                    inbox = BundleInbox(writer, selection, head, journal)
                    yield inbox
                    inbox.seal()
                output.sync()
                if isinstance(output, HashedOutput):
                    start = encoding.start_of(head) if journal.state else None
                    self._read_back(output, start)
                self._give_name(directory)
                remove_unfinished_volumes(directory, self.path.name)
            journal.clear()

    def _give_name(self, directory: Directory) -> None:
        self._refuse_existing()
        volumes = files_of_set(directory, self.path.name)
        directory.rename(self._part_name, directory, self.path.name)
        for file in volumes:
            # What there was of this bundle in volumes is of another export.
            directory.unlink(file)
        directory.sync()

    @property
    def _part_name(self) -> str:
        return self.path.name + PART

    @contextlib.contextmanager
    def _part(self, directory: Directory, journal: ExportJournal, head: bytes, size: int) -> Iterator[Output]:
        fd = self._open_part(directory)
        try:
            with naming(self.path):
                self._begin(fd, journal, head)
                if journal.state is None:
                    refuse_too_large(fd, self.path, size)
                file = GrowingFile(fd)
                if self._verify:
                    with contextlib.closing(HashedOutput(file)) as hashed:
                        yield hashed
                else:
                    yield file
        except BaseException as error:
            if not journal.keeps(error):
                journal.clear()
                # An error while cleaning up must not hide the first one.
                with contextlib.suppress(OSError):
                    directory.unlink(self._part_name)
            raise
        finally:
            os.close(fd)

    def _read_back(self, output: HashedOutput, start: bytes | None) -> None:
        """
        Raises IntegrityError if the medium does not give back what was written. Raises OSError.

        `start` are the first bytes of a bundle that an earlier command has begun, or None.
        """
        path = self.path.with_name(self._part_name)
        self._progress.phase("reading back", path.stat().st_size)
        if start is not None:
            # Nobody has the digest of what an earlier command wrote, but every blob in it has one.
            refuse_other_blobs(path, start, jobs=self._encoding.jobs)
        else:
            refuse_other_bytes(path, output.written)

    def _begin(self, fd: int, journal: ExportJournal, head: bytes) -> None:
        """Cut the file to what an interrupted export has left that is of use, and say what becomes of it."""
        problem = journal.find(FileBytes(fd, self.path), self._encoding.start_of(head))
        if journal.state is None:
            journal.forget()
        size = journal.state.size if journal.state else 0
        os.ftruncate(fd, size)
        os.lseek(fd, size, os.SEEK_SET)
        if size:
            self._progress.phase("written before", size)
        elif problem and not self._has_begun:
            self._progress.phase(f"starting from the beginning because {problem}", 0)
        self._has_begun = True

    def _open_part(self, directory: Directory) -> int:
        """Return the part file, open and locked. One of another user or with a second name is removed first."""
        while True:
            fd, is_new = directory.open_or_create(self._part_name, 0o666, writable=True)
            with contextlib.ExitStack() as unless_taken:
                unless_taken.callback(os.close, fd)
                if self._may_take(directory, fd) or is_new:
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

    def _refuse_full_disk(self, selection: Selection) -> None:
        try:
            # What a dead export has left is taken over, so its room is free.
            left = self.path.with_name(self._part_name).lstat().st_size
        except OSError:
            left = 0
        try:
            refuse_full(self.path.parent, self._encoding.least_size(selection) - left)
        except NoSpaceError as error:
            error.hint = "choose fewer models, or another disk; a bundle that is written to a pipe is not estimated"
            raise

    def _refuse_existing(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            raise UsageError(f"{self.path}: is a directory", hint="end it with '/' to make a store in it")
        refuse_to_overwrite(self.path, replace=self._replace)
        with Directory.open(self.path.parent) as directory:
            if (volumes := files_of_set(directory, self.path.name)) and not self._replace:
                raise UsageError(f"{self.path.parent / volumes[0]}: exists", hint="replace=True overwrites it")


class BundlePipe:
    """A bundle written to an open file, for example standard output. A seek table at the end shows that it is whole."""

    def __init__(self, fd: int, *, level: int | None, jobs: int) -> None:
        self._fd = fd
        self._encoding = Encoding(is_plain=False, level=level, jobs=jobs)

    def compare(self, selection: Selection) -> Forecast:
        """Forecast that everything is written."""
        return all_added(selection)

    def without_clashes(self, selection: Selection) -> Selection:
        """Return the selection: a bundle takes any names."""
        return selection

    @contextlib.contextmanager
    def receive(self, selection: Selection) -> Iterator[BundleInbox]:
        """
        Yield an inbox. Leaving the block seals the bundle, and syncs it if the output is a file.

        Raises OSError, also if nobody reads the output any more.
        """
        output = GrowingFile(self._fd)
        try:
            with contextlib.closing(self._encoding.writer(output)) as writer:
                inbox = BundleInbox(writer, selection, bundle_head(selection))
                yield inbox
                inbox.seal()
            output.sync()
        except BrokenPipeError:
            # Who reads the start of a report has seen enough; who reads the start of a bundle has not got it.
            raise OSError("the program that read the bundle has ended, and has not got all of it") from None
