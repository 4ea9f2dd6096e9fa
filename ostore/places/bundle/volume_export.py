"""Fill the volumes of one export, over one folder or several, and give them their names when all are full."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import LimitError, NoSpaceError, OstoreError, UsageError
from ostore.formats.export_state import ExportState
from ostore.formats.parity import ParityPlan, ParityWish, plan_parity
from ostore.formats.selection import Selection
from ostore.formats.volume_set import (
    MAX_VOLUMES,
    instructions_name,
    is_parity,
    least_size,
    parity_name,
    sums_name,
    volume_name,
    write_sums,
)
from ostore.places.bundle.journal import (
    STATE,
    ExportJournal,
    Terms,
    has_state,
)
from ostore.places.bundle.parity_writer import make_parity
from ostore.places.bundle.volume_folders import VolumeFolder
from ostore.places.bundle.volume_instructions import instructions
from ostore.streams.disks import disks_above, refuse_bare
from ostore.streams.durable import Directory
from ostore.streams.owners import Ownership
from ostore.streams.progress import Progress, watching
from ostore.streams.read_back import refuse_other_bytes
from ostore.streams.space import refuse_too_large, room_at
from ostore.streams.volumes import ClosedFile, JoinedBytes, VolumesOutput, WrittenFile
from ostore.streams.writing import refuse_missing_folder, refuse_to_overwrite, write_file

# Headers and padding of a member, and of its frames; the index and what else is in every bundle.
_MEMBER_BYTES, _FRAME_SHARE, _HEAD_BYTES = 2048, 1 / 1000, 1024 * 1024
# Makes room for volumes: called with the number of the one that fits nowhere, the bytes that it needs there, the
# folders and what is wrong with the medium that is there (nothing if it is full), it returns when there is another.
NextMedium = Callable[[int, int, Sequence[Path], str], None]


class RemovedWarning(UserWarning):
    """An old set was removed from a medium before the new one is whole, because there was no room beside it."""


@dataclass(frozen=True, slots=True)
class VolumeTerms:
    """
    How a set of volumes is written.

    `size` is the bytes of each volume but the last, `folders` where they go in turn. `parity` is the wish, if any, and
    with `verify` every volume is read back. Without `next_medium`, all must fit where it goes. If media are changed,
    each gets parity for the volumes on it.
    """

    size: int
    folders: tuple[Path, ...]
    parity: ParityWish | None = None
    verify: bool = False
    next_medium: NextMedium | None = None


@dataclass(frozen=True, slots=True)
class WrittenParity:
    """The parity of all volumes, or of those on one medium: its files, the first one first, and what they mend."""

    files: tuple[Path, ...]
    plan: ParityPlan


@dataclass(frozen=True, slots=True)
class WrittenSet:
    """The volumes of a set in order, with their paths, and its parity."""

    volumes: tuple[tuple[Path, WrittenFile], ...]
    parity: tuple[WrittenParity, ...] = ()


class VolumeExport:
    """One export: its open folders, and the volumes that are written or wait for their names."""

    def __init__(
        self, name: str, terms: VolumeTerms, folders: Sequence[Path], most: int, *, jobs: int, progress: Progress
    ) -> None:
        self._name = name
        self._terms = terms
        self._paths = folders
        self._most = most
        self._jobs = jobs
        self._progress = progress
        self._held = contextlib.ExitStack()
        self._folders: list[VolumeFolder] = []
        self._places: list[Path] = []
        # What has its name. Under the same names, a medium may have an old set: it has none of our lists.
        self._ours: set[str] = set()
        self._lists: set[bytes] = set()
        self._named = 0
        # By folder: the disks that what is written there goes to if the medium is gone.
        self._above: dict[Path, frozenset[int]] = {}
        self._has_asked = False
        self._parity: list[WrittenParity] = []
        self._replace = False
        self._journal: ExportJournal
        self.output = VolumesOutput(terms.size, self._begin)

    def open(self, *, replace: bool) -> None:
        """Hold all folders. Raises UsageError if a file of a set of that name is in one, unless it is replaced."""
        self._replace = replace
        for path in self._paths:
            folder = self._held.enter_context(VolumeFolder.opened(path, self._name))
            self._folders.append(folder)
            self._refuse_old(folder)
            self._above[path] = disks_above(path)

    def _refuse_old(self, folder: VolumeFolder) -> None:
        """Raises UsageError if a file of the name is in a folder that is not of this export, unless it is replaced."""
        refuse_to_overwrite(folder.target.path / self._name, replace=self._replace)
        old = self._old(folder)
        if old and not self._replace:
            raise UsageError(f"{folder.target.path / old[0]}: exists", hint="replace=True overwrites it")

    def _old(self, folder: VolumeFolder) -> list[str]:
        """Return the files of a folder that the new set takes the place of."""
        ours = self._ours if folder.list_of_digests() in self._lists else ()
        whole = [] if folder.target.lstat(self._name) is None else [self._name]
        return [*whole, *(file for file in folder.published() if file not in ours)]

    def close(self) -> None:
        self.output.close()
        self._let_go()

    @contextlib.contextmanager
    def noting(self, terms: Terms) -> Iterator[ExportJournal]:
        """
        Yield a journal, which is in the folder that has one, or in the first. `begin` says whether it goes on.

        After an error from which the same command may go on, what is written stays. Else nothing does.
        """
        folder = (self._having_state() or self._folders)[0]
        journal = ExportJournal(folder.waiting, self._name, terms, self._digests_in)
        self._journal = journal
        try:
            yield journal
        except BaseException as error:
            keeps = journal.keeps(error)
            for folder in self._folders:
                folder.keeps = keeps
            if not keeps:
                journal.clear()
            raise
        journal.clear()

    def begin(self, start: bytes) -> str:
        """
        Find the volumes that wait, and go on behind the last byte that the journal knows of. `start` is as for its
        `find`, and so is what this returns. Otherwise remove them. Raises OSError.
        """
        found = self._found()
        part = JoinedBytes([ClosedFile(folder.waiting.path / file) for folder, file in found])
        having = self._having_state()
        problem, state = self._journal.find(part, start), self._journal.state
        # If there are several states, nobody knows which of the volumes are of which export.
        is_clear = len(having) < 2  # noqa: PLR2004 - one state
        if state is not None and not (is_clear and len(state.volumes) == state.size // self._terms.size):
            problem, state = "the unfinished bundle is damaged", None
        if state is None:
            self._journal.forget()
        kept = found[: -(-state.size // self._terms.size)] if state else []
        for folder in self._folders:
            states = {self._name + STATE} if state and folder in having else set[str]()
            folder.clear({file for other, file in kept if other is folder} | states)
        self._places = [folder.target.path / file for folder, file in kept]
        if state is not None:
            self._resume(state, kept)
        return problem

    def _resume(self, state: ExportState, kept: Sequence[tuple[VolumeFolder, str]]) -> None:
        rest, cut = state.size % self._terms.size, None
        if rest:
            folder, file = kept[-1]
            cut = (folder.reopen(file, rest), self._places[-1], rest)
        self.output.resume([WrittenFile(self._terms.size, digest) for digest in state.volumes], cut)

    def _having_state(self) -> list[VolumeFolder]:
        return [folder for folder in self._folders if has_state(folder.waiting, self._name)]

    def _found(self) -> list[tuple[VolumeFolder, str]]:
        """Return the volumes that wait, with their folders, as far as each is full and the next is there."""
        found: list[tuple[VolumeFolder, str]] = []
        while True:
            file = volume_name(self._name, len(found) + 1)
            having = ((folder, folder.waiting.lstat(file)) for folder in self._folders)
            folder, status = next(((folder, status) for folder, status in having if status), (None, None))
            if folder is None or status is None:
                return found
            found.append((folder, file))
            if status.st_size != self._terms.size:
                return found

    def _digests_in(self, size: int) -> tuple[Digest, ...]:
        return tuple(volume.digest for volume in self.output.volumes[: size // self._terms.size])

    def complete(self, selection: Selection) -> WrittenSet:
        """Make the parity, read everything back and give all files their names."""
        volumes = self.output.volumes
        self._make_parity(self._name if self._named == 0 else volume_name(self._name, self._named + 1))
        firsts = [parity.files[0].name for parity in self._parity]
        for folder in self._folders:
            text = instructions(self._name, len(volumes), selection, firsts)
            _write(folder.waiting, instructions_name(self._name), text)
        self._publish()
        return WrittenSet(tuple(zip(self._places, volumes, strict=True)), tuple(self._parity))

    def _make_parity(self, name: str) -> None:
        """Make parity for the volumes that have no names yet, if it is wished for. Its files are called like `name`."""
        if self._terms.parity is None:
            return
        plan = self._plan_parity(self.output.sizes[self._named :])
        self._progress.phase("making parity", 0)
        make_parity(self._folders, name, self._places[self._named :], plan, self._jobs)
        files = (
            folder.target.path / file
            for folder in self._folders
            for file in folder.waiting_files()
            if is_parity(self._name, file)
        )
        first = parity_name(name)
        self._parity.append(WrittenParity(tuple(sorted(files, key=lambda path: path.name != first)), plan))

    def _plan_parity(self, sizes: Sequence[int]) -> ParityPlan:
        wish = self._terms.parity or ParityWish()
        return plan_parity(wish, sizes, self._terms.size, len(self._paths))

    def _begin(self, number: int) -> tuple[int, Path]:
        if number > MAX_VOLUMES:
            raise too_many(self._name, self._most)
        size = min(self._terms.size, self._left)
        while True:
            folder = self._with_room(number, size)
            try:
                return self._begin_in(folder, number, size)
            except NoSpaceError as error:
                # On the first medium, nothing is lost: the person chooses another size.
                if not self._has_asked:
                    raise
                self._change_media(number, size, str(error))

    @property
    def _left(self) -> int:
        """The bytes that are not in a finished volume yet, or somewhat more."""
        return self._most - sum(self.output.sizes)

    def _begin_in(self, folder: VolumeFolder, number: int, size: int) -> tuple[int, Path]:
        file = volume_name(self._name, number)
        fd, path = folder.begin(file), folder.target.path / file
        with contextlib.ExitStack() as unless_begun:
            unless_begun.callback(folder.waiting.unlink, file)
            unless_begun.callback(os.close, fd)
            refuse_too_large(fd, path, size)
            unless_begun.pop_all()
        self._places.append(path)
        return fd, path

    def _with_room(self, number: int, size: int) -> VolumeFolder:
        """Return the next folder in turn that has room. If none has, ask for another medium, as often as needed."""
        while True:
            count, needed = len(self._folders), size + self._parity_bytes(size)
            turns = [self._folders[(number - 1 + turn) % count] for turn in range(count)]
            for folder in turns:
                if self._has_room(folder, needed):
                    return folder
            if not self._removes_old(turns, needed, number):
                self._change_media(number, needed)

    def _has_room(self, folder: VolumeFolder, needed: int, more: int = 0) -> bool:
        room = room_at(folder.target.path)
        return room is None or room + more >= needed

    def _removes_old(self, folders: Sequence[VolumeFolder], needed: int, number: int) -> bool:
        """Remove the old set from the first folder that has room then, and return whether there is one."""
        found = self._with_room_for_old(folders, needed)
        # A medium that nobody was asked about keeps its old set until something takes its place.
        if found is None or (number == 1 and not self._has_asked):
            return False
        told = f"{found.target.path}: no room for volume {number} beside the old {self._name}, which was removed"
        found.remove(self._old(found))
        warnings.warn(told, RemovedWarning, stacklevel=2)
        return True

    def _with_room_for_old(self, folders: Sequence[VolumeFolder], needed: int) -> VolumeFolder | None:
        """Return the first folder that has room without its old set, which may go; None if none has."""
        if not self._replace or not self._changes_media:
            return None
        sizes = ((folder, folder.size_of(self._old(folder))) for folder in folders)
        return next((folder for folder, size in sizes if size and self._has_room(folder, needed, size)), None)

    @property
    def _changes_media(self) -> bool:
        """Whether media may be changed. To replace whole volumes, parity needs all of them at once."""
        return self._terms.next_medium is not None and not (self._terms.parity and self._terms.parity.volumes)

    def _parity_bytes(self, size: int) -> int:
        """Return the bytes that the parity of a medium needs if there is another volume of that size on it."""
        if not self._changes_media or self._terms.parity is None:
            return 0
        return self._plan_parity([*self.output.sizes[self._named :], size]).size

    def _change_media(self, number: int, needed: int, problem: str = "") -> None:
        if self._terms.next_medium is None or not self._changes_media:
            places = ", ".join(map(str, self._paths))
            raise NoSpaceError(
                f"{places}: no room for volume {number} of {needed} bytes",
                hint="to replace whole volumes, parity needs all of them at once: export to folders with room for all"
                if self._terms.parity and self._terms.parity.volumes
                else "add --to DIR for every medium; on a terminal, they may also be changed one after the other",
            )
        # If there is none on a medium, it stays as it was.
        if len(self.output.sizes) > self._named:
            self._make_parity(volume_name(self._name, self._named + 1))
            self._publish()
        # What is on another medium cannot be gone on with.
        self._journal.end()
        old = self._with_room_for_old(self._folders, needed)
        if old:
            problem = f"{old.target.path}: if this medium stays, the old {self._name} is removed from it first"
        while True:
            self._let_go()
            self._terms.next_medium(number, needed, self._paths, problem)
            self._has_asked = True
            try:
                self._take()
            except (OstoreError, OSError) as error:
                problem = _told(error)
            else:
                break
        # Parity and reading back were phases of their own.
        self._progress.phase("exporting", self._left)

    def _take(self) -> None:
        """Hold the folders again, with what is there now. Raises OstoreError or OSError if a medium will not do."""
        for path in self._paths:
            refuse_missing_folder(path)
            refuse_bare(path, self._above[path])
        self.open(replace=self._replace)
        for folder in self._folders:
            folder.clear()

    def _publish(self) -> None:
        """Give the files that wait their names, when they are what the media give back."""
        volumes = self.output.volumes
        sums = write_sums(self._name, (volume.digest for volume in volumes))
        for folder in self._folders:
            _write(folder.waiting, sums_name(self._name), sums)
        if self._terms.verify:
            self._read_back()
        for folder in self._folders:
            self._refuse_old(folder)
        self._lists.add(sums)
        for folder in self._folders:
            old, waiting = self._old(folder), folder.waiting_files()
            folder.publish(old)
            self._ours.update(waiting)
        self._named = len(volumes)

    def _read_back(self) -> None:
        fresh = range(self._named, len(self.output.volumes))
        self._progress.phase("reading back", sum(self.output.volumes[number].size for number in fresh))
        waiting = {folder.target.path: folder.waiting.path for folder in self._folders}
        for number in fresh:
            path, written = self._places[number], self.output.volumes[number]
            with watching(path.name, written.size, self._progress) as advance:
                refuse_other_bytes(waiting[path.parent] / path.name, written, advance=advance)

    def _let_go(self) -> None:
        self._folders.clear()
        self._held.close()
        self._held = contextlib.ExitStack()


def _told(error: OstoreError | OSError) -> str:
    """Return why a medium will not do."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def _write(directory: Directory, file: str, content: bytes) -> None:
    directory.unlink(file)
    write_file(directory, file, (content,), Ownership.of(directory.status()))


def too_many(name: str, most: int) -> LimitError:
    return LimitError(
        f"{name}: expected at most {MAX_VOLUMES} volumes", hint=f"--split {least_size(most)}M makes larger ones"
    )


def most_bytes(selection: Selection) -> int:
    """Return bytes that the bundle is not larger than."""
    members = len(selection.blobs) + 2 * len(selection.models)
    digests = sum(len(model.blobs) for model in selection.models) + sum(len(made.bases) for made in selection.recipes)
    text = digests * 100
    return int(selection.stored_size * (1 + _FRAME_SHARE)) + members * _MEMBER_BYTES + text + _HEAD_BYTES
