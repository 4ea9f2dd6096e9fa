"""
Repair volumes with their parity, in a folder apart: the media stay as they were.

The folder has a symbolic link to each volume and copies of the parity. Only whole packets are copied, and only of files
that are called like the volumes, because par2 creates whatever file a packet describes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ostore.formats.errors import IntegrityError, NoSpaceError
from ostore.formats.par2_packets import Packet, whole_packets
from ostore.formats.volume_set import MAX_VOLUMES, parity_name, volume_name
from ostore.places.bundle.par2 import BeyondRepairError, Mended, repair_with_parity
from ostore.places.bundle.volume_reader import VolumeSet, problems_of, with_files
from ostore.streams.durable import Directory
from ostore.streams.owners import Ownership
from ostore.streams.space import room_at
from ostore.streams.volumes import ClosedFile
from ostore.streams.writing import write_file

_PIECE = 8 * 1024 * 1024


def repair_volumes(volumes: VolumeSet, work: Directory, *, jobs: int) -> tuple[VolumeSet, Mended]:
    """
    Return the same set with every volume whole, and what that took. `work` is an empty folder, which the caller clears.

    Raises IntegrityError if the parity does not suffice, and says how many blocks are lacking; UnsafeError if it is of
    other files; UsageError without the program par2; NoSpaceError, OSError.
    """
    wrong = problems_of(volumes) or {
        number: "" for number in range(1, volumes.count + 1) if number not in volumes.copies
    }
    described = _copy_parity(volumes, work)
    if not described:
        raise IntegrityError(f"{volumes.name}: {_told(wrong)}; no parity that is whole describes it")
    count = max(volumes.count, *(int(name.rpartition(".")[2]) for name in described), 1)
    for number in range(1, count + 1):
        if copies := volumes.copies.get(number):
            _place(copies[0], work, volume_name(volumes.name, number))
        else:
            # The parity may know of more volumes than the list.
            wrong.setdefault(number, f"{volume_name(volumes.name, number)} is missing")
    needed = sum(described.get(volume_name(volumes.name, number), 0) for number in wrong)
    room = room_at(work.path)
    if room is not None and room < needed:
        raise NoSpaceError(f"{work.path}: to repair volumes, expected {needed} bytes of free space, got {room}")
    try:
        mended = repair_with_parity(work.path, parity_name(volumes.name), jobs=jobs)
    except BeyondRepairError as error:
        short = "" if error.short is None else f": {error.short} recovery blocks short"
        raise IntegrityError(
            f"{volumes.name}: {_told(wrong)}; the parity does not suffice to repair it{short}",
            hint="find another copy of a volume, or more of the parity files",
        ) from None
    repaired = with_files(volumes, work.path, count)
    _refuse_other_content(repaired)
    # A list of some of the volumes says nothing of the others.
    return repaired if len(repaired.sums) == count else replace(repaired, sums=()), mended


def _told(wrong: Mapping[int, str]) -> str:
    return "; ".join(text for text in wrong.values() if text) or "a volume is damaged"


def _refuse_other_content(repaired: VolumeSet) -> None:
    """Raises IntegrityError if what par2 has written is not what the list says. Links lead to what was there."""
    for number, problem in problems_of(repaired).items():
        if not repaired.copies[number][0].is_symlink():
            raise IntegrityError(
                f"{repaired.name}: the parity makes other volumes than the list of digests says: {problem}"
            )


def _copy_parity(volumes: VolumeSet, work: Directory) -> dict[str, int]:
    """Copy what is whole of the parity. Return the lengths of the volumes that it describes, by name."""
    names = frozenset(volume_name(volumes.name, number) for number in range(1, MAX_VOLUMES + 1))
    described: dict[str, int] = {}
    copied = 0
    for path in volumes.parity:
        file = ClosedFile(path)
        packets = list(whole_packets(file.read_at, file.size, names=names, subject=str(path)))
        described |= {packet.name: packet.length for packet in packets if packet.name}
        if packets:
            # par2 reads the files that begin like the first one.
            number = f".{copied}" if copied else ""
            copy = parity_name(f"{volumes.name}{number}")
            write_file(work, copy, _packets(file, packets), Ownership.private())
            copied += 1
    return described


def _packets(file: ClosedFile, packets: Sequence[Packet]) -> Iterator[bytes]:
    for packet in packets:
        at, end = packet.offset, packet.offset + packet.size
        while at < end and (piece := file.read_at(min(_PIECE, end - at), at)):
            yield piece
            at += len(piece)


def _place(path: Path, work: Directory, name: str) -> None:
    """Let par2 find a volume in its folder. Windows lets few users make a symbolic link; then it is copied."""
    try:
        work.symlink(path.absolute(), name)
    except OSError:  # pragma: no cover - Windows
        file = ClosedFile(path)
        write_file(work, name, _packets(file, [Packet(0, file.size)]), Ownership.private())
