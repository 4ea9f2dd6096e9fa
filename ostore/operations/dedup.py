"""
Find bytes that are kept twice, and let the disk keep them once. No program notices.

The digest in a file's name is believed here, because the kernel compares the bytes before it shares them. So a file is
hashed only if its name has no digest and its size is that of a blob.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ostore.formats.digest import Digest
from ostore.streams.chunks import read_at
from ostore.streams.durable import sync_file
from ostore.streams.extents import Extent, extents_of, share_extents, shared_bytes
from ostore.streams.pool import Pool
from ostore.streams.progress import Progress, stoppable, watching
from ostore.streams.same_file import opened_same
from ostore.streams.verified import digest_file

# A file system shares whole blocks, so a smaller file gains nothing.
MIN_BYTES = 4096
# btrfs and XFS take at most so many bytes per call (ioctl_fideduperange(2)). Between calls Ctrl-C is noticed.
_STRETCH_BYTES = 16 * 1024 * 1024
# The bytes compared at the start, in the middle and at the end before a whole file is hashed.
_SAMPLE_BYTES = 64 * 1024

CopyState = Literal["shareable", "shared", "same-file", "linked", "different", "other-disk", "unsupported", "failed"]
_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES})
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOTTY, errno.ENOSYS})


@dataclass(frozen=True, slots=True)
class KeptFile:
    """
    A file that may have the bytes of a blob. `kind` says which program keeps it.

    `size` and `allocated` are bytes, `identity` is device and inode. `digest` is None if the content is not known.
    """

    path: str
    kind: str
    size: int
    allocated: int
    identity: tuple[int, int]
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class Copy:
    """
    A file that should have the same bytes as the source.

    `state` is shareable; shared (already, on the disk); same-file (a hard link of the source); linked (shared by this
    command); different (the kernel found other bytes); or other-disk, unsupported or failed (cannot be shared, for the
    reason in `detail`). `shared` is the number of bytes that were shared before.
    """

    file: KeptFile
    state: CopyState
    shared: int = 0
    detail: str = ""

    @property
    def gain(self) -> int:
        """The bytes that sharing frees, or has freed. They are never more than the file takes up."""
        return min(self.file.allocated, self.file.size - self.shared) if self.state in {"shareable", "linked"} else 0


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Several files with the same digest: `source` and its `copies`."""

    digest: Digest
    source: KeptFile
    copies: tuple[Copy, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """
    What is in a file of unknown content.

    `digest` is one of the digests that it could have, or None. `hashed` is how many bytes were hashed, `problem` why
    the file could not be read.
    """

    digest: Digest | None
    hashed: int = 0
    problem: str = ""


def named_by_inode(own: Iterable[KeptFile], others: Iterable[KeptFile]) -> list[KeptFile]:
    """Return `others`. A file that is a hard link of one of our `own` gets its digest."""
    known = {file.identity: file.digest for file in own}
    return [replace(file, digest=known[file.identity]) if file.identity in known else file for file in others]


def must_be_hashed(own: Iterable[KeptFile], others: Sequence[KeptFile]) -> dict[str, tuple[KeptFile, list[KeptFile]]]:
    """
    Return the files of unknown content, by path, each with the files that it may equal.

    These are the files without a digest whose size is that of a file with one. Of files with equal digests, only the
    first counts.
    """
    by_size: dict[int, dict[Digest, KeptFile]] = {}
    for file in (*own, *others):
        if file.digest is not None and file.size >= MIN_BYTES:
            by_size.setdefault(file.size, {}).setdefault(file.digest, file)
    undecided = (file for file in others if file.digest is None)
    return {file.path: (file, [*by_size[file.size].values()]) for file in undecided if file.size in by_size}


def find_duplicates(own: Iterable[KeptFile], others: Iterable[KeptFile]) -> list[tuple[Digest, list[KeptFile]]]:
    """
    Return every digest that several files have, and those files, largest first. Nothing is read.

    A blob of `own` comes first, then the others in their order. Files of one digest but different sizes are not
    duplicates, because one of them is incomplete or damaged.
    """
    groups: dict[tuple[Digest, int], list[KeptFile]] = {}
    for file in (*own, *others):
        if file.digest is not None and file.size >= MIN_BYTES:
            groups.setdefault((file.digest, file.size), []).append(file)
    found = [(digest, files) for (digest, _), files in groups.items() if len(files) > 1]
    return sorted(found, key=lambda group: (-group[1][0].size, group[0]))


def decide(
    undecided: Mapping[str, tuple[KeptFile, list[KeptFile]]], *, jobs: int, progress: Progress
) -> dict[str, Decided]:
    """
    Return what is in each undecided file, by path. `jobs` files are read at a time.

    As little as possible is read: nothing if two files share all bytes on the disk, samples of both if those differ,
    else the whole undecided file. A file that cannot be read is reported in `Decided.problem`.
    """
    pairs = list(undecided.values())
    progress.phase("hashing files of the same size as a blob", sum(file.size for file, _ in pairs))
    with Pool(max(1, jobs)) as pool, stoppable(progress) as told:
        # Progress shows numbers, because a file name may hold anything and progress is drawn on a terminal.
        items = (f"file {number} of {len(pairs)}" for number in range(1, len(pairs) + 1))
        answers = pool.map(lambda item, pair: _decide(item, pair[0], pair[1], told), items, pairs)
        return dict(zip(undecided, answers, strict=True))


def examine(groups: Iterable[tuple[Digest, Sequence[KeptFile]]]) -> tuple[Duplicate, ...]:
    """
    Return the duplicates with the state of each copy: shared, shareable, or the reason why not. No bytes are read.

    The first file of a group is its source.
    """
    disks = _Disks()
    return tuple(
        Duplicate(digest, source, tuple(disks.examined(source, copies))) for digest, (source, *copies) in groups
    )


def link(duplicates: Sequence[Duplicate], progress: Progress) -> tuple[Duplicate, ...]:
    """
    Make every shareable copy share its bytes with its source. Return the duplicates with the new states.

    Content, owner, mode, times and names of both files stay. If a copy has other bytes, its equal beginning may be
    shared, which changes nothing in the file.
    """
    copies = [copy for duplicate in duplicates for copy in duplicate.copies if copy.state == "shareable"]
    progress.phase("comparing and sharing", sum(copy.file.size for copy in copies))
    return tuple(_with_linked_copies(duplicate, progress) for duplicate in duplicates)


def _decide(item: str, file: KeptFile, possible: Sequence[KeptFile], progress: Progress) -> Decided:
    try:
        with (
            opened_same(file.path, file.identity, file.size) as fd,
            watching(item, file.size, progress) as advance,
        ):
            likeness = {other.digest: _are_same(fd, other) for other in possible}
            same = [digest for digest, are_same in likeness.items() if are_same]
            if same or all(are_same is False for are_same in likeness.values()):
                advance(file.size)
                return Decided(same[0] if same else None)
            digest = digest_file(fd, advance)
    except OSError as error:
        return Decided(None, problem=error.strerror or str(error))
    return Decided(digest if digest in likeness else None, hashed=file.size)


def _are_same(fd: int, other: KeptFile) -> bool | None:
    """Return whether an open file equals another file of its size, or None if only a hash can tell."""
    try:
        with opened_same(other.path, other.identity, other.size) as other_fd:
            if shared_bytes(extents_of(fd), extents_of(other_fd), other.size) == other.size:
                return True
            for offset in (0, other.size // 2, max(0, other.size - _SAMPLE_BYTES)):
                if read_at(fd, _SAMPLE_BYTES, offset) != read_at(other_fd, _SAMPLE_BYTES, offset):
                    return False
    except OSError:
        # The other file cannot be read, but a hash needs only this one.
        pass
    return None


class _Disks:
    """Ask the kernel once for each pair of disks whether files on them can share."""

    def __init__(self) -> None:
        self._answers: dict[tuple[int, int], tuple[CopyState, str]] = {}

    def examined(self, source: KeptFile, copies: Sequence[KeptFile]) -> Iterator[Copy]:
        try:
            with opened_same(source.path, source.identity, source.size) as fd:
                extents = extents_of(fd)
                for copy in copies:
                    yield self._examined(source, fd, extents, copy)
        except OSError as error:
            for copy in copies:
                yield Copy(copy, "failed", detail=f"{source.path}: {error.strerror or error}")

    def _examined(self, source: KeptFile, fd: int, extents: tuple[Extent, ...], copy: KeptFile) -> Copy:
        if copy.identity == source.identity:
            return Copy(copy, "same-file", copy.size)
        try:
            with opened_same(copy.path, copy.identity, copy.size) as copy_fd:
                shared = shared_bytes(extents, extents_of(copy_fd), copy.size)
                if shared == copy.size:
                    return Copy(copy, "shared", shared)
                disks = (source.identity[0], copy.identity[0])
                if disks not in self._answers:
                    self._answers[disks] = _ask(fd, copy_fd)
        except OSError as error:
            return Copy(copy, "failed", detail=error.strerror or str(error))
        state, detail = self._answers[disks]
        return Copy(copy, state, shared, detail)


def _ask(fd: int, copy_fd: int) -> tuple[CopyState, str]:
    """Return whether the kernel would share bytes of two open files. Nothing is shared yet."""
    try:
        share_extents(fd, copy_fd, 0, 0)
    except OSError as error:
        # The answer counts for the pair of disks, and permission depends on the file.
        return ("shareable", "") if error.errno in _FORBIDDEN else _barred(error)
    return "shareable", ""


def _barred(error: OSError) -> tuple[CopyState, str]:
    if error.errno == errno.EXDEV:
        return "other-disk", "on another disk"
    if error.errno == errno.EINVAL:
        # On btrfs, one file has checksums and the other has none (chattr +C).
        return "unsupported", "the disk does not let these two share"
    if error.errno in _CANNOT:
        return "unsupported", "this disk cannot share; btrfs can, and XFS with reflink=1"
    if error.errno in _FORBIDDEN:
        return "failed", "only its owner or root may"
    return "failed", error.strerror or str(error)


def _with_linked_copies(duplicate: Duplicate, progress: Progress) -> Duplicate:
    copies = (_linked(duplicate, copy, progress) if copy.state == "shareable" else copy for copy in duplicate.copies)
    return replace(duplicate, copies=tuple(copies))


def _linked(duplicate: Duplicate, copy: Copy, progress: Progress) -> Copy:
    source = duplicate.source
    try:
        with (
            opened_same(source.path, source.identity, source.size) as fd,
            opened_same(copy.file.path, copy.file.identity, copy.file.size) as copy_fd,
            watching(duplicate.digest.short, copy.file.size, progress) as advance,
        ):
            is_same = _share(fd, copy_fd, copy.file.size, advance)
            sync_file(copy_fd)
    except OSError as error:
        state, detail = _barred(error)
        return replace(copy, state=state, detail=detail)
    if is_same:
        return replace(copy, state="linked")
    return replace(copy, state="different", detail=f"other bytes than {source.path}; verify says which are right")


def _share(fd: int, copy_fd: int, size: int, advance: Callable[[int], None]) -> bool:
    """Share the bytes of two open files from the start. Return False as soon as they differ. Raises OSError."""
    offset = 0
    while offset < size:
        shared = share_extents(fd, copy_fd, offset, min(_STRETCH_BYTES, size - offset))
        if shared is None:
            return False
        if not shared:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        advance(shared)
        offset += shared
    return True
