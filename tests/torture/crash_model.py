"""
A file system in memory that promises no more than POSIX: what a recorded command could leave if the power failed.

What `fsync` was called for is on the disk: the bytes of a file, or the names in a folder. Nothing else is certain.
Names and bytes get there in any order, and a file that was not synced may be empty, short or full of zeros. Only a
rename is never torn, because no journal tears it. (Pillai et al., OSDI 2014, tried real file systems this way.)
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.torture.crash_trace import Call

_ROOT = 0
# What may have become of a name (one of the first two), or of the bytes that a file was given since its last sync.
_ALL, _NONE, _ZEROS, _HALF = range(4)
_NAME_FATES, _FILE_FATES = (_ALL, _NONE), (_ALL, _NONE, _ZEROS, _HALF)
_LAST_NUMBER = re.compile(r"(\d+)\D*$")
_LINK = "link to "

# Folders, each with what its names stand for; `None` where a name has gone.
_Folders = Mapping[int, Mapping[str, int]]
_Entries = Mapping[tuple[int, str], int | None]


@dataclass(frozen=True)
class Crash:
    """What is left: every path below the folder, those of folders ending in a slash; files by number, with SHA-256."""

    paths: Mapping[str, int]
    digests: Mapping[int, str]

    @property
    def files(self) -> dict[str, str]:
        return {path: self.digests[file] for path, file in self.paths.items() if not path.endswith("/")}

    @property
    def key(self) -> frozenset[tuple[str, str]]:
        """What tells it from others: two names for one file look like two files."""
        return frozenset((path, self.digests.get(file, "")) for path, file in self.paths.items())

    def write(self, folder: Path, contents: Mapping[str, bytes]) -> None:
        """Make it real in an empty folder, old, with modes as new files have."""
        first: dict[int, Path] = {}
        for name, file in sorted(self.paths.items()):
            path, digest = folder / name, self.digests.get(file, "")
            if name.endswith("/"):
                path.mkdir()
            elif digest.startswith(_LINK):
                path.symlink_to(digest.removeprefix(_LINK))
            elif file in first:
                path.hardlink_to(first[file])
            else:
                path.write_bytes(contents[digest])
                # What is young may be something that Ollama is just writing.
                os.utime(path, (0, 0))
                first[file] = path


@dataclass(frozen=True)
class _Naming:
    """Names that came to stand for other files, or for none, all at once; when, as the number of calls before it."""

    when: int
    entries: _Entries


@dataclass(frozen=True)
class _Writing:
    """Bytes that a file was given; without any, the length that it was cut to."""

    when: int
    offset: int
    data: bytes | None


class Disk:
    """What is on the disk for certain, what perhaps, and what programs see meanwhile, who see all of it."""

    def __init__(self, folder: Path, *, is_synced: bool = True) -> None:
        """`is_synced`: the files that are there are on the disk. Whoever wrote them need not have seen to that."""
        self.contents: dict[str, bytes] = {}
        self._folders: dict[int, dict[str, int]] = {_ROOT: {}}
        self._seen: dict[int, dict[str, int]] = {_ROOT: {}}
        self._bytes: dict[int, bytes] = {}
        self._links: dict[int, str] = {}
        self._namings: list[_Naming] = []
        self._writings: dict[int, list[_Writing]] = {}
        self._digests: dict[tuple[int, int], str] = {}
        self._positions: dict[int, int] = {}
        self._number = _ROOT
        self._doubts = 0
        # Calls count from one: all this was before.
        self._ended = 0
        self._load(folder, _ROOT, {})
        for place in (*self._folders, *self._bytes) if is_synced else ():
            self._sync(place, 0)

    def follow(self, call: Call) -> bool:
        """Do what a command did; whether that put anything in doubt."""
        self._ended += 1
        doubtful = self._doubts
        if call.name == "openat":
            self._open(call)
        elif call.handle is None:
            self._name(call)
        elif call.name in {"fsync", "fdatasync"}:
            self._sync(self._file(call.handle), call.begun)
        else:
            self._use(call, self._file(call.handle))
        return self._doubts > doubtful

    def seen(self) -> Crash:
        """What a program finds there while nothing fails."""
        return self._found(self._seen, dict.fromkeys(self._writings, _ALL))

    def crashes(self, deviations: int) -> Iterator[Crash]:
        """
        What may be found if the power fails now.

        Each state has all that is certain, and of the rest one choice: the first names, for any number of them, with
        one fate for the data of all files; or all of it or none of it, but for at most `deviations` names or files.
        """
        files = list(self._writings)
        for fates in _choices(len(self._namings), len(files), deviations):
            kept = [naming for naming, fate in zip(self._namings, fates, strict=False) if fate == _ALL]
            yield self._found(self._with(kept), dict(zip(files, fates[len(self._namings) :], strict=True)))

    def _load(self, folder: Path, place: int, known: dict[tuple[int, int], int]) -> None:
        for path in sorted(folder.iterdir()):
            status = path.lstat()
            is_known = (status.st_dev, status.st_ino) in known
            file = known.setdefault((status.st_dev, status.st_ino), self._number + 1)
            self._number = max(self._number, file)
            self._rename({(place, path.name): file})
            if path.is_symlink():
                self._links[file] = f"{_LINK}{path.readlink()}"
            elif path.is_dir():
                # Some are older than what is in them.
                self._folders[file], self._seen[file] = {}, {}
                _apply(self._folders, self._namings.pop().entries)
                self._load(path, file, known)
            elif not is_known:
                self._bytes[file] = b""
                self._write(file, 0, path.read_bytes())

    def _open(self, call: Call) -> None:
        self._positions[call.fd] = 0
        (path,) = call.paths
        if path == ".":
            return
        folder, name = self._place(path)
        if name not in self._seen[folder] and "O_CREAT" in call.arguments:
            self._number += 1
            self._bytes[self._number] = b""
            self._rename({(folder, name): self._number})
        # Whatever else is opened has to be known.
        file = self._seen[folder][name]
        if "O_TRUNC" in call.arguments:
            self._write(file, 0, None)

    def _name(self, call: Call) -> None:
        if call.name.startswith("symlink"):
            self._number += 1
            self._links[self._number] = _LINK + os.fsdecode(call.data)
            self._rename({self._place(call.paths[-1]): self._number})
            return
        folder, name = place = self._place(call.paths[0])
        if call.name.startswith("mkdir"):
            self._number += 1
            self._folders[self._number], self._seen[self._number] = {}, {}
            self._rename({place: self._number})
        elif call.name.startswith("link"):
            self._rename({self._place(call.paths[1]): self._seen[folder][name]})
        elif call.name.startswith("rename"):
            self._rename({place: None, self._place(call.paths[1]): self._seen[folder][name]})
        else:
            self._rename({place: None})

    def _use(self, call: Call, file: int) -> None:
        number = _LAST_NUMBER.search(call.arguments)
        last = int(number[1]) if number else 0
        if call.name == "lseek":
            self._positions[call.fd] = call.result
        elif call.name == "ftruncate":
            self._write(file, last, None)
        elif call.name == "pwrite64":
            self._write(file, last, call.data[: call.result])
        else:
            self._write(file, self._positions[call.fd], call.data[: call.result])
            self._positions[call.fd] += call.result

    def _rename(self, entries: _Entries) -> None:
        _apply(self._seen, entries)
        self._doubts += 1
        self._namings.append(_Naming(self._ended, entries))

    def _write(self, file: int, offset: int, data: bytes | None) -> None:
        self._doubts += 1
        self._writings.setdefault(file, []).append(_Writing(self._ended, offset, data))
        self._forget(file)

    def _sync(self, place: int, begun: int) -> None:
        """Make certain what was done with a file, or in a folder, before that call began."""
        if place in self._writings:
            old = [writing for writing in self._writings[place] if writing.when <= begun]
            self._bytes[place] = _written(self._bytes[place], old)
            self._writings[place] = self._writings[place][len(old) :]
            if not self._writings[place]:
                del self._writings[place]
            self._forget(place)
        namings: list[_Naming] = []
        for naming in self._namings:
            if naming.when > begun or all(folder != place for folder, _ in naming.entries):
                namings.append(naming)
                continue
            _apply(self._folders, naming.entries)
            # Of a renaming this is the other folder too: what its name stood for before does not come back.
            namings = [_without(other, naming.entries) for other in namings]
        self._namings = [naming for naming in namings if naming.entries]

    def _place(self, path: str) -> tuple[int, str]:
        """The folder that a path is in, and its name there."""
        *above, name = path.split("/")
        folder = _ROOT
        for part in above:
            folder = self._seen[folder][part]
        return folder, name

    def _file(self, path: str) -> int:
        if path == ".":
            return _ROOT
        folder, name = self._place(path)
        return self._seen[folder][name]

    def _with(self, kept: Sequence[_Naming]) -> dict[int, dict[str, int]]:
        folders = dict(self._folders)
        for folder in {folder for naming in kept for folder, _ in naming.entries}:
            folders[folder] = dict(folders[folder])
        for naming in kept:
            _apply(folders, naming.entries)
        return folders

    def _found(self, folders: _Folders, fates: Mapping[int, int]) -> Crash:
        paths: dict[str, int] = {}
        digests: dict[int, str] = {}
        pending = [(_ROOT, "")]
        while pending:
            folder, above = pending.pop()
            for name, file in folders[folder].items():
                if file in folders:
                    paths[f"{above}{name}/"] = file
                    pending.append((file, f"{above}{name}/"))
                else:
                    paths[above + name] = file
                    digests[file] = self._links.get(file) or self._digest(file, fates.get(file, _NONE))
        return Crash(paths, digests)

    def _digest(self, file: int, fate: int) -> str:
        if (file, fate) not in self._digests:
            data = _written(self._bytes[file], _survivors(self._writings.get(file, []), fate))
            digest = hashlib.sha256(data).hexdigest()
            self._digests[file, fate] = digest
            self.contents[digest] = data
        return self._digests[file, fate]

    def _forget(self, file: int) -> None:
        for fate in _FILE_FATES:
            self._digests.pop((file, fate), None)


def _choices(names: int, files: int, deviations: int) -> Iterator[tuple[int, ...]]:
    """The fates of so many names and then of so many files."""
    for first, fate in itertools.product(range(names + 1), _FILE_FATES):
        yield (_ALL,) * first + (_NONE,) * (names - first) + (fate,) * files
    fates = [_NAME_FATES] * names + [_FILE_FATES] * files
    for usual in (_ALL, _NONE):
        for count in range(1, deviations + 1):
            for odd in itertools.combinations(range(len(fates)), count):
                for others in itertools.product(*([fate for fate in fates[unit] if fate != usual] for unit in odd)):
                    choice = [usual] * len(fates)
                    for unit, fate in zip(odd, others, strict=True):
                        choice[unit] = fate
                    yield tuple(choice)


def _apply(folders: dict[int, dict[str, int]], entries: _Entries) -> None:
    for (folder, name), file in entries.items():
        if file is None:
            folders[folder].pop(name, None)
        else:
            folders[folder][name] = file


def _without(naming: _Naming, entries: _Entries) -> _Naming:
    return _Naming(naming.when, {entry: file for entry, file in naming.entries.items() if entry not in entries})


def _survivors(writings: Sequence[_Writing], fate: int) -> list[_Writing]:
    """What becomes of writings that nothing was promised for."""
    left = sum(len(writing.data or b"") for writing in writings) // (2 if fate == _HALF else 1)
    survivors = []
    for writing in writings if fate != _NONE else ():
        data = writing.data
        if data is not None:
            data = bytes(len(data)) if fate == _ZEROS else data[:left]
            left -= len(data) if fate == _HALF else 0
        survivors.append(_Writing(writing.when, writing.offset, data))
    return survivors


def _written(data: bytes, writings: Sequence[_Writing]) -> bytes:
    for writing in writings:
        before = data[: writing.offset].ljust(writing.offset, b"\0")
        after = data[writing.offset + len(writing.data) :] if writing.data is not None else b""
        data = before + (writing.data or b"") + after
    return data
