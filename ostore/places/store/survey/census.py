"""
A census: what lies in a store beside its manifests, with its status on the disk. gc, rm, du and move rely on it.

A census takes no lock, creates nothing and opens no file, so it works on a read-only disk and for a user who is not
the owner. To delete, list the blobs before you read the manifests, as `survey` does: a pull that ends in between can
then only add to what is needed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from ostore.formats.digest import Digest, blob_digest, blob_filenames
from ostore.formats.manifest import Descriptor
from ostore.formats.store_layout import (
    BLOBS,
    CONVERSION_PREFIX,
    MANIFESTS,
    SPLITTING_PREFIX,
    STAGED_MANIFESTS,
    downloaded_digits,
    is_temporary,
)
from ostore.formats.unreadable import Unreadable
from ostore.places.store.workspace import workspace_path
from ostore.streams.links import ctime_of, is_link_entry, mode_of

_BLOCK = 512
_HAS_BLOCKS = hasattr(os.stat_result, "st_blocks")


class BesideBlobs(NamedTuple):
    """
    What lies in `blobs/` besides the files of needed blobs, sorted.

    `orphans` are blobs that no model needs. `misspelled` are the paths of blobs under names that Ollama does not find,
    needed or not, with their digests. `foreign` are the paths of other files, except unfinished ones of Ollama. `links`
    are the paths of blobs that are links to files, needed or not, and `dangling` those of links to no file.
    """

    orphans: tuple[Descriptor, ...] = ()
    misspelled: tuple[tuple[str, Digest], ...] = ()
    foreign: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    dangling: tuple[str, ...] = ()


class EntryKind(StrEnum):
    """What an entry of a folder is. A link is a link, wherever it leads."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "other"


class DiskFacts(NamedTuple):
    """
    The status of one entry, links not followed. A tuple, because a store has many entries, and a tuple takes a quarter
    of the time of a dataclass to make.

    `size` is the bytes that reading gives, `allocated` the bytes on the disk: fewer in a sparse file. `links` is the
    number of names. `mtime` and `ctime` are seconds since 1970; renaming and linking refresh only `ctime`, which on
    Windows is the time of creation. `mode` is type and permissions.
    """

    size: int
    allocated: int
    device: int
    inode: int
    links: int
    mtime: float
    ctime: float
    mode: int
    uid: int
    gid: int

    @classmethod
    def of(cls, status: os.stat_result) -> DiskFacts:
        """Take the facts from a status. All times and sizes that plans rely on are read here."""
        return tuple.__new__(
            cls,
            (
                status.st_size,
                allocated_by(status),
                status.st_dev,
                status.st_ino,
                status.st_nlink,
                status.st_mtime,
                ctime_of(status),
                mode_of(status),
                status.st_uid,
                status.st_gid,
            ),
        )

    @property
    def kind(self) -> EntryKind:
        if stat.S_ISREG(self.mode):
            return EntryKind.FILE
        if stat.S_ISLNK(self.mode):
            return EntryKind.LINK
        return EntryKind.FOLDER if stat.S_ISDIR(self.mode) else EntryKind.OTHER

    @property
    def identity(self) -> tuple[int, int]:
        """Equal for two names of one file."""
        return self.device, self.inode

    @property
    def newest(self) -> float:
        """The later of the two times, seconds since 1970. Plans treat an entry as that young."""
        return max(self.mtime, self.ctime)


class FoundEntry(NamedTuple):
    """An entry and its path relative to some folder, with '/', as the disk spells it."""

    path: str
    facts: DiskFacts


class StoredBlob(NamedTuple):
    """A file or link in `blobs/` that is named by a digest. The facts of a link are its own."""

    digest: Digest
    filename: str
    facts: DiskFacts

    @property
    def is_canonical(self) -> bool:
        """False for a name with ':', as before Ollama 0.1.30, or with upper-case digits. Ollama writes neither now."""
        return self.filename == self.digest.filename

    @property
    def is_foreign_spelling(self) -> bool:
        """True for a name that no Ollama gives or resolves, so that perhaps the file is not meant to be a blob."""
        return self.filename not in blob_filenames(self.digest)


# The order in which blobs are shown. Their folder has them in no order.
by_filename = attrgetter("filename")


@dataclass(frozen=True, slots=True)
class UnfinishedDownload:
    """All files of one blob that Ollama has begun to load. They are one unit: some may be old while others grow."""

    digest: Digest
    files: tuple[FoundEntry, ...]

    @property
    def newest(self) -> float:
        """The time of its youngest file, seconds since 1970."""
        return max(file.facts.newest for file in self.files)

    def has_rested_since(self, latest: float) -> bool:
        """Return whether all its files are plain files, and none has changed after `latest`, seconds since 1970."""
        return self.newest <= latest and all(file.facts.kind is EntryKind.FILE for file in self.files)


@dataclass(frozen=True, slots=True)
class FoundTree:
    """
    A folder and all that lies below it, links not followed.

    `facts` is None if the folder is absent. `files` is everything but folders. What cannot be read is in `unreadable`,
    so the rest of a folder that belongs to another user still counts.
    """

    path: Path
    facts: DiskFacts | None
    files: tuple[FoundEntry, ...] = ()
    folders: tuple[FoundEntry, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def newest(self) -> float:
        """The time of the youngest entry, the folder included, in seconds since 1970; 0 if the folder is absent."""
        times = [entry.facts.newest for entry in (*self.files, *self.folders)]
        return max([*times, self.facts.newest if self.facts else 0.0])

    def below(self, part: str) -> tuple[FoundEntry, ...]:
        """Return the files below the folder `part`. Their paths still begin with that folder."""
        return tuple(file for file in self.files if file.path.startswith(f"{part}/"))


@dataclass(frozen=True, slots=True)
class Census:
    """
    What lies in a store beside its manifests. Each group but `blobs` is sorted by name.

    `blobs`, `downloads`, `temporary` (other unfinished files of Ollama) and `foreign` (everything else) are directly in
    `blobs/`, so their paths are bare names. `skipped` counts the needed blobs that were left out. `blobs` has no order,
    because to go through sixty thousand in another order than they were found takes twice the time. `working_folders`
    are Ollama's. `workspace` is our `.ostore`, with the folders `tx`, `trash` and `quarantine`. `staging` is its
    counterpart for manifests on another disk.
    """

    blobs: tuple[StoredBlob, ...]
    downloads: tuple[UnfinishedDownload, ...]
    temporary: tuple[FoundEntry, ...]
    foreign: tuple[FoundEntry, ...]
    working_folders: tuple[FoundTree, ...]
    workspace: FoundTree
    staging: FoundTree
    skipped: int = 0


def take_census(
    root: Path,
    names: Sequence[str] | None = None,
    *,
    skipped: int = 0,
    is_counted: Callable[[str, os.stat_result], bool] | None = None,
) -> Census:
    """
    Look at a store once, manifests aside. An absent folder holds nothing. Raises OSError if it cannot be read.

    `names` limits the look at `blobs/` to these names, which `survey` has listed; `skipped` is how many more blobs it
    has listed. An entry of `blobs/` for which `is_counted` is true is left out, so that a mere sum does not hold sixty
    thousand blobs in memory.
    """
    found = _Found()
    blobs = root / BLOBS
    with contextlib.suppress(FileNotFoundError):
        for name, status in _statuses_in(os.fspath(blobs), names):
            if is_counted is not None and is_counted(name, status):
                continue
            # Nearly all entries are blobs, so test for those first.
            if stat.S_ISREG(status.st_mode) and (digest := Digest.of_filename(name)):
                found.blobs.append(StoredBlob(digest, name, DiskFacts.of(status)))
            else:
                found.add(blobs, name, DiskFacts.of(status))
    return Census(
        blobs=tuple(found.blobs),
        downloads=tuple(
            UnfinishedDownload(digest, _by_path(files)) for digest, files in sorted(found.downloads.items())
        ),
        temporary=_by_path(found.temporary),
        foreign=_by_path(found.foreign),
        working_folders=tuple(read_tree(folder) for folder in (*_conversions(root), *sorted(found.splittings))),
        workspace=read_tree(workspace_path(root)),
        staging=read_tree(root / MANIFESTS / STAGED_MANIFESTS),
        skipped=skipped,
    )


def read_tree(folder: Path) -> FoundTree:
    """Return all that lies below a folder. A link or file of that name has only its own facts. Raises OSError."""
    try:
        facts = facts_of(folder)
    except (FileNotFoundError, NotADirectoryError):
        return FoundTree(folder, None)
    files: list[FoundEntry] = []
    folders: list[FoundEntry] = []
    unreadable: list[Unreadable] = []
    pending = [""] if facts.kind is EntryKind.FOLDER else []
    while pending:
        for entry in _read_folder(folder, pending.pop(), unreadable):
            if stat.S_ISDIR(entry.facts.mode):
                folders.append(entry)
                pending.append(entry.path)
            else:
                files.append(entry)
    unreadable.sort(key=lambda found: found.path)
    return FoundTree(folder, facts, _by_path(files), _by_path(folders), tuple(unreadable))


def apparent_bytes(facts: Iterable[DiskFacts]) -> int:
    """Return the bytes of files as `du --apparent-size` adds them up: each file once, however many names it has."""
    return sum({entry.identity: entry.size for entry in facts}.values())


def allocated_bytes(facts: Iterable[DiskFacts]) -> int:
    """Return the bytes of files on the disk as `du` adds them up: each file once, shared extents every time."""
    return sum({entry.identity: entry.allocated for entry in facts}.values())


def freed_bytes(names: Iterable[DiskFacts]) -> int:
    """Return the bytes that removing these names frees on the disk. A file with other names frees none."""
    gone: Counter[tuple[int, int]] = Counter()
    files = {}
    for facts in names:
        gone[facts.identity] += 1
        files[facts.identity] = facts
    return sum(facts.allocated for identity, facts in files.items() if gone[identity] >= facts.links)


@dataclass(slots=True)
class _Found:
    blobs: list[StoredBlob] = field(default_factory=list)
    downloads: dict[Digest, list[FoundEntry]] = field(default_factory=dict)
    temporary: list[FoundEntry] = field(default_factory=list)
    foreign: list[FoundEntry] = field(default_factory=list)
    splittings: list[Path] = field(default_factory=list)

    def add(self, blobs: Path, name: str, facts: DiskFacts) -> None:
        kind = facts.kind
        if kind is EntryKind.FOLDER and name.startswith(SPLITTING_PREFIX):
            self.splittings.append(blobs / name)
        elif kind is not EntryKind.FILE and kind is not EntryKind.LINK:
            self.foreign.append(FoundEntry(name, facts))
        elif digest := blob_digest(name):
            self.blobs.append(StoredBlob(digest, name, facts))
        elif digits := downloaded_digits(name):
            self.downloads.setdefault(Digest(digits), []).append(FoundEntry(name, facts))
        else:
            (self.temporary if is_temporary(name) else self.foreign).append(FoundEntry(name, facts))


def allocated_by(status: os.stat_result) -> int:
    """Return the bytes of an entry on its disk, or its size where the system does not tell."""
    return status.st_blocks * _BLOCK if _HAS_BLOCKS else status.st_size


def facts_of(path: Path | str) -> DiskFacts:
    """Return the facts of one entry, links not followed. Raises OSError."""
    return DiskFacts.of(os.lstat(path))


def _statuses_in(folder: str, names: Iterable[str] | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the entries of a folder, or those with `names`, without any removed meanwhile. Raises OSError."""
    if names is not None or os.scandir not in os.supports_fd:
        # On Windows, the status of a scandir entry lacks device, inode and links.
        for name in os.listdir(folder) if names is None else names:  # noqa: PTH208 - names
            with contextlib.suppress(FileNotFoundError):
                yield name, os.lstat(f"{folder}{os.sep}{name}")
        return
    # From an open folder, the system need not walk the whole path for every entry.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(descriptor) as listing:
            for entry in listing:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield entry.name, status
    finally:
        os.close(descriptor)


def _read_folder(tree: Path, below: str, unreadable: list[Unreadable]) -> list[FoundEntry]:
    """Return the entries directly in one folder of a tree. Add it to `unreadable` if it cannot be read."""
    prefix = f"{below}/" if below else ""
    entries = []
    try:
        for name, status in _statuses_in(os.fspath(tree / below)):
            entries.append(FoundEntry(prefix + name, DiskFacts.of(status)))
    except FileNotFoundError:
        # The folder has gone meanwhile.
        return []
    except OSError as error:
        unreadable.append(Unreadable(below, error.strerror or str(error)))
    return entries


def _conversions(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as listing:
            found = [entry for entry in listing if entry.name.startswith(CONVERSION_PREFIX)]
    except FileNotFoundError:
        return []
    return sorted(Path(entry.path) for entry in found if entry.is_dir() and not is_link_entry(entry))


def _by_path(entries: list[FoundEntry]) -> tuple[FoundEntry, ...]:
    return tuple(sorted(entries, key=attrgetter("path")))
