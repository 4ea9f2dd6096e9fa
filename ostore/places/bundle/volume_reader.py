"""
Find the volumes of a bundle in several places, read them as one, and say exactly which one is wrong.

What the bundle's own digests say decides. The list of digests and the parity only help to name and to repair.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import (
    FormatError,
    IntegrityError,
    LimitError,
    NotFoundError,
    TruncatedError,
    UnsafeError,
    VolumesError,
)
from ostore.formats.remedy import OTHER_MEDIA, ostore
from ostore.formats.volume_set import (
    MAX_SUMS_BYTES,
    MAX_VOLUMES,
    is_parity,
    number_of,
    read_sums,
    sums_name,
    volume_name,
)
from ostore.places.bundle.reader import BundleReader, is_whole, reading
from ostore.streams.links import is_there, on_any_length, open_to_read
from ostore.streams.verified import digest_file
from ostore.streams.volumes import ClosedFile, JoinedBytes

# In a message.
_SHOWN = 5
# What reading a damaged volume may raise.
_DAMAGE = (IntegrityError, FormatError, LimitError, UnsafeError)
Advance = Callable[[int], None]


def _ignore(_size: int) -> None:
    """For whoever shows no progress."""


@dataclass(frozen=True, slots=True)
class VolumeSet:
    """
    The files that were found of a set: of each volume its copies, how many there should be as far as that is known,
    their digests if there is a list, the lists of other sets with their folders, and the parity.
    """

    name: str
    places: tuple[Path, ...]
    copies: Mapping[int, tuple[Path, ...]]
    count: int
    sums: tuple[Digest, ...] = ()
    other_sums: tuple[tuple[Path, tuple[Digest, ...]], ...] = ()
    parity: tuple[Path, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the folders."""
        odd = f"{sums_name(self.name)} there is that of another set with the same name"
        return tuple(f"{place}: {odd}" for place, _ in self.other_sums)


def find_volumes(name: str, places: Sequence[Path]) -> VolumeSet:
    """
    Look for the files of the set `name` in folders. Raises NotFoundError if there is no volume, OSError.

    The list of digests in the first folder says which set is meant. If there is none, the longest does. A medium that
    was written before others lists those before it, so the longest list that continues this one counts. If there are
    several copies of a volume, one that is whole comes first.
    """
    copies: dict[int, list[Path]] = {}
    parity: list[Path] = []
    sums: list[tuple[Path, tuple[Digest, ...]]] = []
    for place in dict.fromkeys(map(on_any_length, places)):
        for file in sorted(os.listdir(place)):  # noqa: PTH208 - names alone
            path = place / file
            if (number := number_of(name, file)) and path.is_file():
                copies.setdefault(number, []).append(path)
            elif is_parity(name, file) and path.is_file():
                parity.append(path)
        if digests := _sums_in(place, name):
            sums.append((place, digests))
    if not copies and not parity and not sums:
        raise NotFoundError(f"{name}: no such bundle, and no volume of it in {_texts(places)}")
    best = _chosen_list(next(map(on_any_length, places), None), sums)
    others = {place: digests for place, digests in sums if digests != best[: len(digests)]}
    found = VolumeSet(
        name,
        tuple(places),
        {number: _whole_first(copies[number], best[number - 1 : number]) for number in sorted(copies)},
        len(best) or max(copies, default=0),
        best,
        tuple(others.items()),
        # No digest would tell that it is of this set.
        tuple(path for path in parity if path.parent not in others),
    )
    return _with_those_behind_the_list(found)


@contextlib.contextmanager
def open_volumes(volumes: VolumeSet, *, jobs: int, label: str) -> Iterator[BundleReader]:
    """
    Read a bundle in volumes, as `open_bundle` reads a file.

    Raises VolumesError if a volume is missing, and instead of any error that a damaged one is the reason of.
    """
    files = [ClosedFile(path) for path in chosen_volumes(volumes)]
    _refuse_sizes(volumes, files)
    try:
        with reading(JoinedBytes(files), Path(label), jobs=jobs, label=label) as reader:
            yield reader
    except _DAMAGE as error:
        if problems := problems_of(volumes):
            raise _refusal(volumes, list(problems.values())) from None
        if isinstance(error, TruncatedError) and volumes.sums and len(volumes.copies) < MAX_VOLUMES:
            raise _without_the_end(volumes) from None
        if len(volumes.sums) < volumes.count and volumes.parity:
            raise _refusal(volumes, [f"a volume is damaged: {error}"]) from None
        if not volumes.sums:
            error.hint = error.hint or f"without {sums_name(volumes.name)} nobody knows which volume is damaged"
        raise


def chosen_volumes(volumes: VolumeSet) -> list[Path]:
    """Return one file for each volume, in order. Raises VolumesError that names the missing ones."""
    missing = [number for number in range(1, volumes.count + 1) if number not in volumes.copies]
    if missing:
        raise _refusal(volumes, [_missing(volumes, number) for number in missing], is_missing=True)
    return [volumes.copies[number][0] for number in range(1, volumes.count + 1)]


def problems_of(volumes: VolumeSet, *, advance: Advance = _ignore) -> dict[int, str]:
    """Hash every volume that is listed, and return by number what is wrong with each. Raises OSError."""
    problems = {}
    for number, digest in enumerate(volumes.sums, 1):
        path = next(iter(volumes.copies.get(number, ())), None)
        if path is None:
            problems[number] = _missing(volumes, number)
        elif (got := _digest_of(path, advance)) != digest:
            problems[number] = _what_is_wrong(volumes, number, path, got)
    return problems


def check_volume(volumes: VolumeSet, number: int, *, advance: Advance = _ignore) -> tuple[int, str]:
    """
    Hash one volume alone. Return its size, and what is wrong with it or an empty text.

    Raises VolumesError if it is missing, NotFoundError if no list says what it should be, OSError.
    """
    if number not in volumes.copies:
        raise _refusal(volumes, [_missing(volumes, number)], is_missing=True)
    path = volumes.copies[number][0]
    if number > len(volumes.sums):
        raise _not_listed(volumes, path)
    digest = _digest_of(path, advance)
    problem = "" if digest == volumes.sums[number - 1] else _what_is_wrong(volumes, number, path, digest)
    return path.stat().st_size, problem


def with_files(volumes: VolumeSet, folder: Path, count: int) -> VolumeSet:
    """Return the set with the `count` volumes of a folder in place of others."""
    copies = {number: (folder / volume_name(volumes.name, number),) for number in range(1, count + 1)}
    return replace(volumes, copies=copies, count=count, parity=())


def _chosen_list(first: Path | None, sums: Sequence[tuple[Path, tuple[Digest, ...]]]) -> tuple[Digest, ...]:
    """Return the list that counts, or an empty one: of those that begin as that in the first folder, the longest."""
    named = next((digests for place, digests in sums if place == first), ())
    of_one_set = (digests for _, digests in sums if all(map(eq, named, digests)))
    return max(of_one_set, key=len, default=())


def _with_those_behind_the_list(volumes: VolumeSet) -> VolumeSet:
    """
    Return the set with the volumes that its list does not know, if the bundle is whole with them only.

    The list of a medium before the last one may be copied over that of the last. Else they are of an older set.
    """
    further = replace(volumes, count=max(volumes.copies, default=0))
    return further if further.count > volumes.count and not _is_whole(volumes) and _is_whole(further) else volumes


def _is_whole(volumes: VolumeSet) -> bool:
    try:
        return is_whole(JoinedBytes([ClosedFile(path) for path in chosen_volumes(volumes)]), jobs=1)
    except VolumesError:
        return False


def _refuse_sizes(volumes: VolumeSet, files: Sequence[ClosedFile]) -> None:
    """Raises VolumesError for a volume that cannot be whole: all have one size, and the last may be smaller."""
    if len(files) < 2:  # noqa: PLR2004 - one volume may have any size
        return
    expected, _ = Counter(file.size for file in files[:-1]).most_common(1)[0]
    problems = [
        f"{file.path} is damaged: expected {expected} bytes, got {file.size}"
        for file in files[:-1]
        if file.size != expected
    ]
    if files[-1].size > expected:
        problems.append(f"{files[-1].path} is damaged: expected at most {expected} bytes, got {files[-1].size}")
    if problems:
        # The digests say more: whether it is one of another set.
        raise _refusal(volumes, list(problems_of(volumes).values()) or problems)


def _without_the_end(volumes: VolumeSet) -> VolumesError:
    """Return the error for a set whose list is that of a medium before the last one: all in it is whole."""
    number = next(number for number in range(1, MAX_VOLUMES + 1) if number not in volumes.copies)
    told = f"{volume_name(volumes.name, number)} or later is missing: it is not in {_texts(volumes.places)}"
    if number > volumes.count + 1:
        path = volumes.copies[volumes.count + 1][0]
        odd = f"{sums_name(volumes.name)} says nothing of {path}: it or a later one is damaged or of another set"
        told = f"{odd}, or {told}"
    return _refusal(volumes, [told], is_missing=True)


def _not_listed(volumes: VolumeSet, path: Path) -> NotFoundError:
    """Return the error for a volume of which nobody knows what it should be."""
    listed = sums_name(volumes.name)
    if volumes.sums:
        together = ostore("verify", path.with_name(volumes.name), after="verifies all volumes together")
        return NotFoundError(f"{path}: {listed} says nothing of it", hint=together)
    what = "can be read" if is_there(path.with_name(listed)) else "is"
    return NotFoundError(
        f"{path}: no {listed} {what} beside it, so nobody knows what it should be", hint=f"copy {listed} along"
    )


def _refusal(volumes: VolumeSet, problems: Sequence[str], *, is_missing: bool = False) -> VolumesError:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    hints = ["an import repairs it, if the parity suffices"] if volumes.parity else []
    if is_missing:
        hints.append(OTHER_MEDIA)
    return VolumesError(f"{'; '.join(problems[:_SHOWN])}{more}", hint="; or ".join(hints) or None)


def _whole_first(copies: Sequence[Path], digest: Sequence[Digest]) -> tuple[Path, ...]:
    """Return the copies of a volume. Only if there are several, they are hashed."""
    if len(copies) > 1 and digest:
        return tuple(sorted(copies, key=lambda path: _digest_of(path, _ignore) != digest[0]))
    return tuple(copies)


def _missing(volumes: VolumeSet, number: int) -> str:
    return f"{volume_name(volumes.name, number)} is missing: it is not in {_texts(volumes.places)}"


def _what_is_wrong(volumes: VolumeSet, number: int, path: Path, digest: Digest) -> str:
    if digest in volumes.sums:
        other = volume_name(volumes.name, volumes.sums.index(digest) + 1)
        return f"{path} is {other} under another name"
    for _, digests in volumes.other_sums:
        if digest in digests:
            return f"{path} is of another set with the same name"
    return f"{path} is damaged: expected {volumes.sums[number - 1]}, got {digest}"


def _sums_in(place: Path, name: str) -> tuple[Digest, ...]:
    """Return what the list of digests in a folder says. One that cannot be understood says nothing."""
    try:
        file = ClosedFile(place / sums_name(name))
        return read_sums(name, file.read_at(MAX_SUMS_BYTES + 1, 0))
    except (OSError, LimitError, FormatError):
        return ()


def _digest_of(path: Path, advance: Advance) -> Digest:
    fd = open_to_read(path)
    try:
        return digest_file(fd, advance)
    finally:
        os.close(fd)


def _texts(places: Sequence[Path]) -> str:
    return ", ".join(map(str, places))
