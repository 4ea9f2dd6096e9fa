"""Make parity for volumes that wait in one folder or several, before they get their names."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from ostore.formats.par2_packets import DESCRIPTION, HEADER_BYTES, MAIN, Packet, whole_packets
from ostore.formats.par2_renaming import BEGINNING_BYTES, DescribedFile, Renaming, aliases
from ostore.formats.parity import ParityPlan
from ostore.formats.volume_set import is_parity, parity_name
from ostore.places.bundle.par2 import create_parity
from ostore.places.bundle.volume_folders import VolumeFolder
from ostore.streams.durable import Directory, scratch_folder
from ostore.streams.owners import Ownership
from ostore.streams.volumes import ClosedFile
from ostore.streams.writing import write_file

# No parity has so many blocks.
_RAW = 1_000_000


class _Raw(NamedTuple):
    """A file of parity as par2 wrote it, its packets, and the name that it gets."""

    name: str
    file: ClosedFile
    packets: list[Packet]

    def bodies(self, kind: bytes) -> list[bytes]:
        """Return the content of every packet of a kind."""
        found = (self.file.read_at(packet.size, packet.offset) for packet in self.packets)
        return [packet[HEADER_BYTES:] for packet in found if packet[:HEADER_BYTES].endswith(kind)]


def make_parity(
    folders: Sequence[VolumeFolder], name: str, volumes: Sequence[Path], plan: ParityPlan, jobs: int
) -> None:
    """
    Make parity for volumes that wait in these folders, and spread it over them. `volumes` are the paths that they get,
    and its files are called like `name`.
    Raises UsageError without the program par2, NoSpaceError, OSError.
    """
    first, parity = folders[0].waiting, Path(parity_name(name))
    if len(folders) == 1:
        create_parity(first.path, [path.name for path in volumes], parity, plan, jobs=jobs)
        for file in _parity_in(folders[0], name):
            first.sync_entry(file)
        return
    waiting = {folder.target.path: folder.waiting.path for folder in folders}
    files = [ClosedFile(waiting[path.parent] / path.name) for path in volumes]
    described = [DescribedFile.of(file.path.name, file.read_at(BEGINNING_BYTES, 0), file.size) for file in files]
    aliased = [f"{alias}/{file.path.name}" for alias, file in zip(aliases(described), files, strict=True)]
    with scratch_folder() as scratch:
        # par2 wants all volumes below one folder, and takes no link to a file.
        for path, volume in zip(aliased, files, strict=True):
            scratch.symlink(volume.path.parent.absolute(), path.partition("/")[0])
        create_parity(scratch.path, aliased, first.path.absolute() / parity, plan, jobs=jobs)
    _spread(folders, name, frozenset(aliased))


def _spread(folders: Sequence[VolumeFolder], name: str, aliased: Collection[str]) -> None:
    """Give the volumes their own names in the parity that is in the first folder, and spread it over all."""
    first = folders[0].waiting
    made = [
        _raw(first, file, f"{name}.vol{_RAW + number}+0.par2", aliased)
        for number, file in enumerate(_parity_in(folders[0], name))
    ]
    (head,) = (raw for raw in made if raw.name == parity_name(name))
    renaming = Renaming(head.bodies(MAIN)[0], head.bodies(DESCRIPTION))
    turns = itertools.cycle(folders)
    for raw in made:
        for folder in folders if raw is head else [next(turns)]:
            written = renaming.rewritten(raw.file.read_at, raw.packets)
            write_file(folder.waiting, raw.name, written, Ownership.of(folder.waiting.status()))
        first.unlink(raw.file.path.name)


def _raw(folder: Directory, file: str, aside: str, aliased: Collection[str]) -> _Raw:
    """Set a file of parity aside, under a name that is of parity too, so that it goes if something fails."""
    folder.rename(file, folder, aside)
    found = ClosedFile(folder.path / aside)
    return _Raw(file, found, list(whole_packets(found.read_at, found.size, names=aliased, subject=file)))


def _parity_in(folder: VolumeFolder, name: str) -> list[str]:
    return [file for file in folder.waiting_files() if is_parity(name, file)]
