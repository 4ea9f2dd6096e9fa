"""
Bundles in volumes, as a person names them: by the bundle, by any volume, and by folders to look in.

`export` writes them through `addresses`, like any other bundle.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.api.typed import BUNDLE_SUFFIXES, OCI
from ostore.formats.errors import NotFoundError, UsageError
from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.formats.volume_set import number_of, set_of
from ostore.streams.links import is_there

# The code for bundles takes time to import, and `list` does not need it.
if TYPE_CHECKING:
    from ostore.places.bundle.par2 import Mended
    from ostore.places.bundle.reader import BundleReader
    from ostore.places.bundle.volume_reader import VolumeSet
    from ostore.places.store.receiving.sink import StoreSink


@dataclass(frozen=True, slots=True)
class VolumesAt:
    """
    A bundle in volumes: its path without `.001`, and the folders that its volumes are looked for in.

    `found` are the files, if somebody has looked for them already.
    """

    path: Path
    places: tuple[Path, ...]
    found: VolumeSet | None = None

    def __str__(self) -> str:
        return str(self.path)

    def find(self) -> VolumeSet:
        """Return the files of the set. Raises NotFoundError if there is no volume, OSError."""
        from ostore.places.bundle.volume_reader import find_volumes

        return self.found or find_volumes(self.path.name, self.places)

    def looked_for(self) -> VolumesAt:
        """Return the same with the files, so that nobody looks for them again. Raises what `find` raises."""
        return replace(self, found=self.find())


Word = str | Path | VolumesAt


def volumes_of(word: Word) -> VolumesAt | None:
    """
    Return the bundle in volumes that a word means, or None if it means something else.

    It is the name of a file of the set, or that of the bundle if there are files of the set and no such file.
    """
    if isinstance(word, VolumesAt):
        return word
    if str(word).startswith(OCI):
        return None
    path = Path(word)
    if name := set_of(path.name):
        return VolumesAt(path.with_name(name), (path.parent,))
    if not str(word).endswith(BUNDLE_SUFFIXES) or is_there(path):
        return None
    return VolumesAt(path, (path.parent,)) if _has_files(path.parent, path.name) else None


def volume_in(word: Word) -> tuple[VolumesAt, int] | None:
    """Return the set and the number of the one volume that a word names, or None if it names none."""
    volumes = None if isinstance(word, VolumesAt) else volumes_of(word)
    number = number_of(volumes.path.name, Path(str(word)).name) if volumes else None
    return (volumes, number) if volumes and number else None


def volume_in_folder(folder: Path) -> Path | None:
    """Return a file of a set in a folder, or None if there is none, or nobody may look."""
    try:
        return next((folder / file for file in sorted(os.listdir(folder)) if set_of(file)), None)  # noqa: PTH208 - names
    except OSError:
        return None


def gathered(words: Sequence[Word], *, joins: bool = True) -> list[Word]:
    """
    Return the places that words mean together: a folder without a store is where the bundles named are looked for.

    With `joins`, or with such a folder, volumes of one set become one bundle, and each that is named has to be
    somewhere: NotFoundError. Words that mean something else stay.
    """
    if any(isinstance(word, VolumesAt) for word in words):
        return list(words)
    folders = [word for word in words if _is_place(word)]
    others = [word for word in words if word not in folders]
    if not others:
        return list(words)
    joins = joins or bool(folders)
    if joins:
        for word in others:
            _refuse_absent(Path(str(word)), [Path(str(folder)) for folder in folders])
    sets: dict[str, list[Path]] = {}
    result: list[Word] = []
    for word in others:
        name = _name_of_set(word, folders, joins=joins)
        if name is None:
            result.append(word)
            continue
        if name not in sets:
            result.append(VolumesAt(Path(str(word)).with_name(name), ()))
        sets.setdefault(name, []).append(Path(str(word)).parent)
    if folders and not sets:
        # Nobody looks into them, so they are what they are: folders without a store.
        return list(words)
    return [
        replace(word, places=tuple(dict.fromkeys((*sets[word.path.name], *map(Path, map(str, folders))))))
        if isinstance(word, VolumesAt)
        else word
        for word in result
    ]


def spread_over(bundle: Word, folders: Sequence[Word]) -> Word:
    """Return a bundle in volumes that lie in further folders too. Raises NotFoundError, UsageError for other words."""
    words = gathered([bundle, *folders]) if folders else [bundle]
    if len(words) > 1:
        raise UsageError(f"{folders[0]}: expected a folder with more volumes, and a bundle in volumes before it")
    return words[0]


@contextmanager
def opened_volumes(volumes: VolumesAt, *, jobs: int) -> Iterator[BundleReader]:
    """Open a bundle in volumes, as `addresses.opened_bundle` opens a file."""
    from ostore.places.bundle.volume_reader import open_volumes

    with open_volumes(volumes.find(), jobs=jobs, label=str(volumes)) as reader:
        yield reader


@contextmanager
def repaired(volumes: VolumesAt, sink: StoreSink, *, jobs: int) -> Iterator[tuple[VolumesAt, Mended]]:
    """
    Yield the same bundle with volumes that are whole, and what that took. The files that are made are removed then.

    Raises IntegrityError if there is no parity, or not enough of it; UsageError without the program par2.
    """
    from ostore.places.bundle.parity import repair_volumes

    with sink.workroom() as room:
        found, mended = repair_volumes(volumes.find(), room, jobs=jobs)
        yield replace(volumes, found=found), mended


def refuse_options(options: Sequence[tuple[str, object]], destination: str) -> None:
    """Raises UsageError for the first option that is set: only a bundle file can have it."""
    for option, value in options:
        if value:
            raise UsageError(f"{destination} is no file; only FILE.tar.zst and FILE.tar can have it", parameter=option)


def _name_of_set(word: Word, folders: Sequence[Word], *, joins: bool) -> str | None:
    path = Path(str(word))
    if str(word).startswith(OCI):
        return None
    if joins and (name := set_of(path.name)):
        return name
    if not path.name.endswith(BUNDLE_SUFFIXES) or is_there(path):
        return None
    is_set = any(_has_files(place, path.name) for place in (path.parent, *map(Path, map(str, folders))))
    return path.name if is_set else None


def _refuse_absent(path: Path, folders: Sequence[Path]) -> None:
    """Raises NotFoundError if a path is that of a volume that is not there, nor in the folders, and others are."""
    places = [path.parent, *folders]
    name = set_of(path.name)
    if not name or not number_of(name, path.name) or any(is_there(place / path.name) for place in places):
        return
    if any(_has_files(place, name) for place in places):
        raise NotFoundError(f"{path}: no such volume", hint=f"name one that is there, or {path.with_name(name)}")


def _has_files(folder: Path, name: str) -> bool:
    # A folder that is not there, or that we may not list, has none that we could read.
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        return any(set_of(file) == name for file in os.listdir(folder))  # noqa: PTH208 - names alone
    return False


def _is_place(word: Word) -> bool:
    folder = Path(str(word))
    # Who may not look into a folder finds no volumes there.
    with suppress(PermissionError):
        return is_there(folder) and folder.is_dir() and not (is_there(folder / BLOBS) or is_there(folder / MANIFESTS))
    return False
