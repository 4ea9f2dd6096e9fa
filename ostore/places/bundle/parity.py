"""
Repair volumes with their parity, in a folder apart: the media stay as they were.

The folder has a symbolic link to each volume and copies of the parity. Only whole packets are copied, and only of files
that are called like the volumes, because par2 creates whatever file a packet describes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ostore.formats.errors import IntegrityError, NoSpaceError
from ostore.formats.par2_packets import Packet, whole_packets
from ostore.formats.remedy import OTHER_MEDIA
from ostore.formats.volume_set import MAX_VOLUMES, parity_name, volume_name
from ostore.places.bundle.par2 import BeyondRepairError, Mended, repair_with_parity
from ostore.places.bundle.volume_reader import VolumeSet, problems_of, with_files
from ostore.streams.durable import Directory
from ostore.streams.owners import Ownership
from ostore.streams.space import room_at
from ostore.streams.volumes import ClosedFile
from ostore.streams.writing import write_file

_PIECE = 8 * 1024 * 1024


@dataclass(slots=True)
class _Parity:
    """What is whole of the parity of some volumes: their lengths by name, and the packets in each of its files."""

    described: dict[str, int] = field(default_factory=dict)
    packets: dict[Path, list[Packet]] = field(default_factory=dict)

    def add(self, path: Path, packet: Packet) -> None:
        self.packets.setdefault(path, []).append(packet)
        if packet.name:
            self.described[packet.name] = packet.length


def repair_volumes(volumes: VolumeSet, work: Directory, *, jobs: int) -> tuple[VolumeSet, Mended]:
    """
    Return the same set with every volume whole, and what that took. `work` is an empty folder, which the caller clears.

    Raises IntegrityError if the parity does not suffice, and says how many blocks are lacking; UnsafeError if it is of
    other files; UsageError without the program par2; NoSpaceError, OSError.
    """
    found = _whole_parity(volumes)
    lengths = {_number(name): length for parity in found for name, length in parity.described.items()}
    # The parity may know of more volumes than the list.
    count = max(volumes.count, *lengths, 1)
    wrong = problems_of(volumes)
    for number in range(1, count + 1):
        if copies := volumes.copies.get(number):
            _place(copies[0], work, volume_name(volumes.name, number))
        else:
            wrong.setdefault(number, f"{volume_name(volumes.name, number)} is missing")
    needed = sum(lengths.get(number, 0) for number in wrong)
    room = room_at(work.path)
    if room is not None and room < needed:
        raise NoSpaceError(f"{work.path}: to repair volumes, expected {needed} bytes of free space, got {room}")
    mended = _mend(volumes, found, wrong, range(len(volumes.sums) + 1, count + 1), work=work, jobs=jobs)
    repaired = with_files(volumes, work.path, count)
    _refuse_other_content(repaired)
    # A list of some of the volumes says nothing of the others.
    return repaired if len(repaired.sums) == count else replace(repaired, sums=()), mended


def _mend(
    volumes: VolumeSet,
    found: Sequence[_Parity],
    wrong: Mapping[int, str],
    unlisted: Collection[int],
    *,
    work: Directory,
    jobs: int,
) -> Mended:
    """
    Make volumes whole, each with the parity that describes it. Return what that took.

    Raises IntegrityError if a volume that is `wrong` stays so. Nobody knows whether the `unlisted` ones are whole.
    """
    doubtful = {*wrong, *unlisted}
    took: list[Mended] = []
    short: list[int | None] = []
    for parity in found:
        numbers = {_number(name) for name in parity.described}
        # What one parity has made whole needs no other one: that may be of an older set.
        if doubtful.isdisjoint(numbers):
            continue
        try:
            took.append(repair_with_parity(work.path, _copy(parity, work, len(took) + len(short)), jobs=jobs))
        except BeyondRepairError as error:
            short.append(error.short)
        else:
            doubtful -= numbers
    told = f"{volumes.name}: {'; '.join(wrong.values()) or 'a volume is damaged'}"
    is_missing = any(number not in volumes.copies for number in wrong)
    other_media = f"{OTHER_MEDIA}; or " if is_missing else ""
    if doubtful and short:
        blocks = "" if None in short else f": {sum(filter(None, short))} recovery blocks short"
        raise IntegrityError(
            f"{told}; the parity does not suffice to repair it{blocks}",
            hint=f"{other_media}find another copy of a volume, or more of the parity files",
        )
    if doubtful and (not took or not doubtful.isdisjoint(wrong)):
        raise IntegrityError(
            f"{told}; no parity that is whole describes it", hint=f"{other_media}find another copy of a volume"
        )
    return Mended(sum(mended.used for mended in took), sum(mended.spare for mended in took))


def _refuse_other_content(repaired: VolumeSet) -> None:
    """Raises IntegrityError if what par2 has written is not what the list says. Links lead to what was there."""
    for number, problem in problems_of(repaired).items():
        if not repaired.copies[number][0].is_symlink():
            raise IntegrityError(
                f"{repaired.name}: the parity makes other volumes than the list of digests says: {problem}"
            )


def _whole_parity(volumes: VolumeSet) -> list[_Parity]:
    """Return what is whole of the parity, one for each set of volumes that it is made for."""
    names = frozenset(volume_name(volumes.name, number) for number in range(1, MAX_VOLUMES + 1))
    found: dict[bytes, _Parity] = {}
    for path in volumes.parity:
        file = ClosedFile(path)
        for packet in whole_packets(file.read_at, file.size, names=names, subject=str(path)):
            found.setdefault(packet.of_set, _Parity()).add(path, packet)
    return [parity for parity in found.values() if parity.described]


def _copy(parity: _Parity, work: Directory, number: int) -> str:
    """Write what is whole of a parity into a folder. Return the name of its first file."""
    # par2 reads the files that begin like the first one.
    names = [parity_name(f"{number}.{more}" if more else str(number)) for more in range(len(parity.packets))]
    for name, (path, packets) in zip(names, parity.packets.items(), strict=True):
        write_file(work, name, _packets(ClosedFile(path), packets), Ownership.private())
    return names[0]


def _number(name: str) -> int:
    return int(name.rpartition(".")[2])


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
        write_file(work, name, _packets(file, [Packet(0, file.size, b"")]), Ownership.private())
