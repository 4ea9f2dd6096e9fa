"""Write a bundle in volumes, to one folder or several, with parity if that is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import NoSpaceError, UsageError
from ostore.formats.outcome import Forecast
from ostore.formats.parity import least_parity, refuse_unfit
from ostore.formats.selection import Selection
from ostore.formats.volume_set import MAX_VOLUMES
from ostore.places.bundle.encoding import Encoding, all_added
from ostore.places.bundle.inbox import BundleInbox, bundle_head, stored_members
from ostore.places.bundle.journal import ExportJournal, Terms, damaged_before, damaged_in
from ostore.places.bundle.left_over import remove_unfinished_file
from ostore.places.bundle.par2 import refuse_without_par2
from ostore.places.bundle.volume_export import VolumeExport, VolumeTerms, WrittenSet, most_bytes, too_many
from ostore.places.bundle.volume_folders import parts_name, waiting_size
from ostore.streams.disks import room_together
from ostore.streams.durable import Directory
from ostore.streams.links import on_any_length
from ostore.streams.progress import Progress
from ostore.streams.writing import refuse_missing_folder, refuse_to_overwrite


class BundleVolumes:
    """A bundle to be written as the volumes of the set `name`. `written` is what was written, after the block."""

    def __init__(
        self, name: str, terms: VolumeTerms, *, level: int | None, jobs: int, replace: bool, progress: Progress
    ) -> None:
        self._name = name
        self._terms = terms
        self._folders = [on_any_length(folder) for folder in terms.folders]
        self._encoding = Encoding(name.endswith(".tar"), level, jobs)
        self._replace = replace
        self._progress = progress
        self._has_begun = False
        self.written: WrittenSet | None = None

    def compare(self, selection: Selection) -> Forecast:
        """
        Forecast that everything is written. Raises UsageError if a set of that name exists and is not to be replaced,
        NotFoundError if a folder does not, LimitError if there would be too many volumes, NoSpaceError.
        """
        self._refuse(selection)
        return all_added(selection)

    def without_clashes(self, selection: Selection) -> Selection:
        """Return the selection: a bundle takes any names."""
        return selection

    def damaged_before(self) -> tuple[Digest, ...]:
        """Return the blobs that an interrupted export of this set could not read."""
        folders = (folder / parts_name(self._name) for folder in self._folders)
        return tuple(digest for folder in folders for digest in damaged_before(folder, self._name))

    @contextlib.contextmanager
    def receive(self, selection: Selection) -> Iterator[BundleInbox]:
        """
        Yield an inbox. Leaving the block gives every volume its name, when all are full and on the disk.

        What was there of a set of this name goes then. Volumes get their names earlier only if the next medium is asked
        for. What is written stays for the same command after an interruption, a failed disk or a damaged blob, or if
        somebody else has taken the name. Raises what `compare` raises, BusyError, OSError.
        """
        self._refuse(selection)
        head = bundle_head(selection)
        encoding = self._encoding
        volumes = f"{encoding.made_by}, volumes of {self._terms.size} bytes"
        terms = Terms(head, stored_members(selection), volumes, encoding.is_plain, damaged_in(selection))
        with contextlib.ExitStack() as resources:
            export = VolumeExport(
                self._name,
                self._terms,
                self._folders,
                most_bytes(selection),
                jobs=encoding.jobs,
                progress=self._progress,
            )
            resources.callback(export.close)
            export.open(replace=self._replace)
            with export.noting(terms) as journal:
                self._begin(export, journal, head)
                with contextlib.closing(encoding.writer(export.output, journal.state)) as writer:
                    inbox = BundleInbox(writer, selection, head, journal)
                    yield inbox
                    inbox.seal()
                export.output.end()
                self.written = export.complete(selection)
        self._remove_others()

    def _begin(self, export: VolumeExport, journal: ExportJournal, head: bytes) -> None:
        """Go on with what an interrupted export has left, if it is of use, and say what becomes of it."""
        problem = export.begin(self._encoding.start_of(head))
        if journal.state:
            self._progress.phase("written before", journal.state.size)
        elif problem and not self._has_begun:
            self._progress.phase(f"starting from the beginning because {problem}", 0)
        self._has_begun = True

    def _refuse(self, selection: Selection) -> None:
        for folder in self._folders:
            refuse_missing_folder(folder)
            refuse_to_overwrite(folder / self._name, replace=self._replace)
        _refuse_twice(self._folders)
        least = self._encoding.least_size(selection)
        if least > self._terms.size * MAX_VOLUMES:
            raise too_many(self._name, most_bytes(selection))
        parity = self._terms.parity
        if parity:
            refuse_unfit(self._name)
            refuse_without_par2()
        if self._terms.next_medium is None or (parity and parity.volumes):
            if parity:
                least += least_parity(parity, least, self._terms.size, len(self._folders))
            _refuse_full(self._folders, least - sum(waiting_size(folder, self._name) for folder in self._folders))

    def _remove_others(self) -> None:
        """Remove an unfinished bundle of this name in one file: it is of no use to one in volumes."""
        for folder in self._folders:
            with Directory.open(folder) as directory:
                remove_unfinished_file(directory, self._name)


def _refuse_twice(folders: Sequence[Path]) -> None:
    """Raises UsageError if two of these folders are one, by a link or another spelling. Raises OSError."""
    seen: dict[tuple[int, int], Path] = {}
    for folder in folders:
        status = folder.stat()
        key = (status.st_dev, status.st_ino)
        if key in seen:
            raise UsageError(f"{folder}: the same folder as {seen[key]}", hint="name each folder once")
        seen[key] = folder


def _refuse_full(folders: Sequence[Path], needed: int) -> None:
    """Raises NoSpaceError unless the disks of these folders together have room. Some do not tell."""
    room = room_together(folders)
    if room is not None and room < needed:
        raise NoSpaceError(
            f"{', '.join(map(str, folders))}: expected {needed} bytes of free space, got {room}",
            hint="export fewer models, or add --to DIR for another disk",
        )
