"""
What an export notes of itself, so that the same command goes on where it was stopped.

Every 256 MiB of the archive, what is written is synced. Then the state file says how much that is
(`formats/export_state.py`): it is written beside, synced and renamed, so it never says more than is on the disk. A blob
that was cut is read and hashed from its start, because its digest has to be proved. The digest of its first bytes is in
the state: if they are others now, what is on the disk is not of this blob.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, IntegrityError, OstoreError, UsageError
from ostore.formats.export_state import MAX_DAMAGED, MAX_STATE_BYTES, CutBlob, ExportState
from ostore.formats.manifest import Descriptor
from ostore.formats.selection import Selection
from ostore.formats.tar_header import BLOCK, member_length
from ostore.formats.zstd_frame import MAX_FRAME_CONTENT, FrameSpan, measure_frame
from ostore.streams.bytes_at import BytesAt
from ostore.streams.chunks import read_full
from ostore.streams.durable import FULL, Directory
from ostore.streams.owners import Ownership, is_ours
from ostore.streams.source_failure import SourceFailureError
from ostore.streams.verified import Steps
from ostore.streams.writing import write_file

STATE = ".state"
# A sync costs a second on a slow disk, and so does writing this much once more.
EVERY_BYTES = 256 * 1024 * 1024
_UNFINISHED = ".part"


def _none(_size: int) -> tuple[Digest, ...]:
    return ()


def state_files(name: str) -> tuple[str, str]:
    """Return what the state of the unfinished bundle `name` is called, and the file that becomes it."""
    return name + STATE, name + STATE + _UNFINISHED


def has_state(directory: Directory, name: str) -> bool:
    """Return whether an export has left the state of the unfinished bundle `name` in a folder. Raises OSError."""
    try:
        return directory.lstat(name + STATE) is not None
    except OSError as error:
        # The name of the bundle is as long as a name can be.
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


class Archive(Protocol):
    """The tar stream that is being written. `offset` bytes of it are in the file, which `sync` puts on the disk."""

    @property
    def offset(self) -> int: ...
    def frames_to(self, offset: int, /) -> tuple[FrameSpan, ...]: ...
    def sync(self) -> None: ...


class Begun(NamedTuple):
    """Where an export goes on: the number of members that are finished, and what is there of the next one."""

    members: int
    cut: CutBlob | None


class _Mark(NamedTuple):
    """A place in the archive where an export can go on. Before it all is verified, but for a blob that is cut there."""

    offset: int
    cut: CutBlob | None


class Terms(NamedTuple):
    """
    What decides the bytes of a bundle. `head` is the archive before the first blob.

    `made_by` says what else does: the program that makes the frames. A plain bundle has none. `damaged` are the blobs
    because of which models are not in the selection.
    """

    head: bytes
    members: Sequence[tuple[Descriptor, str]]
    made_by: str
    is_plain: bool
    damaged: tuple[Digest, ...] = ()


def damaged_in(selection: Selection) -> tuple[Digest, ...]:
    """Return the first blobs that could not be read, so that the models with them are left out of a selection."""
    return tuple(dict.fromkeys(one.blob for one in selection.left if one.blob))[:MAX_DAMAGED]


def damaged_before(folder: Path, name: str) -> tuple[Digest, ...]:
    """
    Return the blobs that the interrupted export of the unfinished bundle `name` in a folder could not read.

    Nobody holds the state here, so this is only a hint. There is no blob in it if it cannot be read.
    """
    try:
        with Directory.open(folder) as directory:
            state = read_state(directory, name)
    except (OstoreError, OSError):
        return ()
    return state.damaged if state else ()


def read_state(directory: Directory, name: str) -> ExportState | None:
    """
    Return the state of the unfinished bundle `name`, or None if there is none of ours.

    Raises FormatError, LimitError, OSError.
    """
    if not has_state(directory, name):
        return None
    fd = directory.open_file(name + STATE)
    try:
        return ExportState.parse(read_full(fd, MAX_STATE_BYTES + 1)) if is_ours(os.fstat(fd)) else None
    finally:
        os.close(fd)


def _may_go_on(error: BaseException) -> bool:
    """Return whether the same command may end well after an error."""
    if isinstance(error, SourceFailureError):
        error = error.error
    if isinstance(error, OSError):
        # The room of a full disk is needed by whoever clears it.
        return error.errno not in FULL and error.errno != errno.EFBIG
    # After the first byte, a usage error says that the name is taken by now, or that there is no such parity.
    return isinstance(error, (BlobError, UsageError)) or not isinstance(error, Exception)


class ExportJournal:
    """The state file of one export. `directory` has the file, `name` is that of the unfinished bundle."""

    def __init__(
        self, directory: Directory, name: str, terms: Terms, volumes_in: Callable[[int], tuple[Digest, ...]] = _none
    ) -> None:
        """`volumes_in` returns the digests of the volumes that are full with so many bytes of the file."""
        self._directory = directory
        self._bundle = name
        self._name, self._unfinished = state_files(name)
        self._terms = terms
        self._volumes_in = volumes_in
        self._head = Digest.of(terms.head)
        self._state: ExportState | None = None
        self._noted = 0
        self._is_kept = False
        self._is_over = False
        self._has_changed = False
        self._marks: deque[_Mark] = deque()

    @property
    def state(self) -> ExportState | None:
        """What an interrupted export has left that this one goes on with; None if it starts from the beginning."""
        return self._state

    def keeps(self, error: BaseException) -> bool:
        """Return whether what is written is of use to the same command after an error."""
        return self._is_kept and (self._has_changed or _may_go_on(error))

    @property
    def begun(self) -> Begun:
        """Where this export begins."""
        return (self._state and self._place(self._state)) or Begun(0, None)

    def find(self, part: BytesAt, start: bytes) -> str:
        """
        Look for what an interrupted export has left. A `part` of the same export begins with `start`.

        Return why it cannot be gone on with, or no text if it can or there is none. Raises OSError for `part`.
        """
        try:
            state = read_state(self._directory, self._bundle)
        except (OstoreError, OSError):
            return "the unfinished bundle is damaged"
        if state is None or not part.size:
            return ""
        if state.head != self._head:
            return "the models differ"
        if state.made_by != self._terms.made_by:
            return "the level or the program differs"
        is_plain = not state.spans
        if is_plain != self._terms.is_plain or self._place(state) is None or not _holds(part, state, start):
            return "the unfinished bundle is damaged"
        self._state, self._noted, self._is_kept = state, state.offset, True
        return ""

    def forget(self) -> None:
        """Remove the state, for certain: from now on the unfinished bundle may have other bytes. Raises OSError."""
        self._state, self._noted, self._is_kept = None, 0, False
        if not self._is_over and has_state(self._directory, self._bundle):
            self._directory.unlink(self._name)
            self._directory.sync()

    def end(self) -> None:
        """Note nothing from now on: no command can go on. Raises OSError if the state stays."""
        self.forget()
        self._is_over = True

    def clear(self) -> None:
        """Remove the state of a bundle that is finished or dropped. Ignores OSError."""
        for name in () if self._is_over else (self._name, self._unfinished):
            with contextlib.suppress(OSError):
                self._directory.unlink(name)

    def steps(self, blob: Descriptor, start: int, cut: CutBlob | None) -> Steps:
        """
        Return the steps of a blob whose bytes begin at byte `start` of the archive.

        Verifying it raises IntegrityError if its first bytes are not those of `cut`.
        """

        def told(size: int, digest: Digest) -> None:
            if cut and size == cut.size and digest != cut.digest:
                self._has_changed = True
                raise IntegrityError(
                    f"blob {blob.digest}: its first {size} bytes are not those that the interrupted export has read",
                    hint="these are dropped: the same command goes on before them",
                )
            self._marks.append(_Mark(start + size, CutBlob(size, digest)))

        # Where frames end: a header is before the first.
        return Steps(MAX_FRAME_CONTENT - BLOCK, MAX_FRAME_CONTENT, told)

    def verified(self, offset: int) -> None:
        """All of the archive before `offset` is verified."""
        self._marks.append(_Mark(offset, None))

    def note(self, archive: Archive) -> None:
        """Once enough was written, sync the archive and write the state. Raises OSError if it cannot be synced."""
        while len(self._marks) > 1 and self._marks[1].offset <= archive.offset:
            self._marks.popleft()
        if not self._is_over and self._marks and self._noted + EVERY_BYTES <= self._marks[0].offset <= archive.offset:
            archive.sync()
            self._write(archive, self._marks[0])

    def go_back(self, archive: Archive, offset: int) -> None:
        """
        Let the next command write again what is written of the blob that begins at `offset`: it may be wrong.

        Raises OSError.
        """
        self._marks.clear()
        if offset <= len(self._terms.head):
            self.forget()
        elif self._noted > offset:
            self.forget()
            self._write(archive, _Mark(offset, None))

    def _write(self, archive: Archive, mark: _Mark) -> None:
        """Write the state of an archive that is synced. If the disk does not take it, the one before stays true."""
        self._noted = mark.offset
        spans = archive.frames_to(mark.offset)
        state = ExportState(self._head, self._terms.made_by, mark.offset, spans, mark.cut)
        raw = replace(state, volumes=self._volumes_in(state.size), damaged=self._terms.damaged).write()
        with contextlib.suppress(OSError):
            self._directory.unlink(self._unfinished)
            write_file(self._directory, self._unfinished, (raw,), Ownership.private())
            self._directory.rename(self._unfinished, self._directory, self._name)
            self._directory.sync()
            self._is_kept = True

    def _place(self, state: ExportState) -> Begun | None:
        """Return where in the selection an export has stopped, or None if none stops there."""
        start = len(self._terms.head)
        for number, (blob, path) in enumerate(self._terms.members):
            if state.offset == start:
                return None if state.cut else Begun(number, None)
            end = start + member_length(path, blob.size)
            if state.offset < end or (state.cut and state.offset == end):
                written = state.offset - start
                # Only where a frame ends are the first bytes compared.
                ends_a_frame = written % MAX_FRAME_CONTENT == 0 and written <= BLOCK + blob.size
                is_there = state.cut and ends_a_frame and written == BLOCK + state.cut.size
                return Begun(number, state.cut) if is_there else None
            start = end
        return Begun(len(self._terms.members), None) if state.offset == start and not state.cut else None


def _holds(part: BytesAt, state: ExportState, start: bytes) -> bool:
    """Return whether an unfinished bundle has the size, the start and the last frame that its state says."""
    if part.size < state.size or part.read_at(len(start), 0) != start:
        return False
    if not state.spans:
        return True
    last = state.spans[-1]
    try:
        return measure_frame(part.read_at(last.size, state.size - last.size)) == last
    except OstoreError:
        return False
