"""
The same bytes kept twice: who keeps them, and how the disk can keep them once without either program noticing.

What a name promises is believed for as long as nothing depends on it: sharing leaves the last word to the kernel, which
compares the bytes. So weights are read here only where a file says nothing of its own and has the size of a blob.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from ostore.formats.digest import Digest
from ostore.streams.chunks import read_at
from ostore.streams.durable import sync_file
from ostore.streams.extents import Extent, extents_of, share_extents, shared_bytes
from ostore.streams.progress import Progress, stoppable, watching
from ostore.streams.same_file import opened_same
from ostore.streams.verified import digest_file

# A file system shares whole blocks; below one there is nothing to gain.
MIN_BYTES = 4096
# btrfs and XFS take at most so many bytes a call (ioctl_fideduperange(2)), and Ctrl-C comes through in between.
_STRETCH_BYTES = 16 * 1024 * 1024
# How much is compared at the beginning, in the middle and at the end before a whole file is hashed.
_SAMPLE_BYTES = 64 * 1024

CopyState = Literal["shareable", "shared", "same-file", "linked", "different", "other-disk", "unsupported", "failed"]
_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES})
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOTTY, errno.ENOSYS})


@dataclass(frozen=True, slots=True)
class KeptFile:
    """
    A file with bytes of a model: where it is, which program keeps it there, its size, and what is known to be in it.
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
    A file that has the same bytes as another one.

    `state`: shareable; shared (on the disk, by now), same-file (a hard link); linked (made to share just now);
    different (the kernel says so); other-disk, unsupported, failed: cannot be shared, and `detail` says why. `shared`
    is how many bytes share their place on the disk already.
    """

    file: KeptFile
    state: CopyState
    shared: int = 0
    detail: str = ""

    @property
    def gain(self) -> int:
        """Bytes that sharing frees: no more than it takes up now."""
        return min(self.file.allocated, self.file.size - self.shared) if self.state in {"shareable", "linked"} else 0


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Bytes that several files have; `copies` are those beside `source`."""

    digest: Digest
    source: KeptFile
    copies: tuple[Copy, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """What a file turned out to be: a digest if it is one of those it could be. `hashed`: how many bytes that took."""

    digest: Digest | None
    hashed: int = 0
    problem: str = ""


def named_by_inode(own: Iterable[KeptFile], others: Iterable[KeptFile]) -> list[KeptFile]:
    """The others, with the digest of the blob for those that are the very file of a blob."""
    known = {file.identity: file.digest for file in own}
    return [replace(file, digest=known[file.identity]) if file.identity in known else file for file in others]


def must_be_hashed(own: Iterable[KeptFile], others: Sequence[KeptFile]) -> dict[str, tuple[KeptFile, list[KeptFile]]]:
    """Files without a digest that have the size of some with one, by path, and the first of these for each digest."""
    by_size: dict[int, dict[Digest, KeptFile]] = {}
    for file in (*own, *others):
        if file.digest is not None and file.size >= MIN_BYTES:
            by_size.setdefault(file.size, {}).setdefault(file.digest, file)
    undecided = (file for file in others if file.digest is None)
    return {file.path: (file, [*by_size[file.size].values()]) for file in undecided if file.size in by_size}


def find_duplicates(own: Iterable[KeptFile], others: Iterable[KeptFile]) -> list[tuple[Digest, list[KeptFile]]]:
    """
    Every digest that several files have, going by names and what else is known, largest first.

    A blob of `own` comes first among its files, then the others in their order. A file of another size than the first
    is none of them: it is incomplete or damaged.
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
    Find out what is in files that do not say it, by path.

    Reads as little as will do: nothing if two are the same bytes on the disk, samples of both if these differ, and
    else all of the one without a name.
    """
    pairs = list(undecided.values())
    progress.phase("hashing files of the same size as a blob", sum(file.size for file, _ in pairs))
    with ThreadPoolExecutor(max(1, jobs)) as pool, stoppable(progress) as told:
        # By number: a name from outside may hold anything, and progress is drawn on a terminal.
        items = (f"file {number} of {len(pairs)}" for number in range(1, len(pairs) + 1))
        answers = pool.map(lambda item, pair: _decide(item, pair[0], pair[1], told), items, pairs)
        return dict(zip(undecided, answers, strict=True))


def examine(groups: Iterable[tuple[Digest, Sequence[KeptFile]]]) -> tuple[Duplicate, ...]:
    """What the disk says of each copy: whether it is shared, and whether it could be. No byte of a file is read."""
    disks = _Disks()
    return tuple(
        Duplicate(digest, source, tuple(disks.examined(source, copies))) for digest, (source, *copies) in groups
    )


def link(duplicates: Sequence[Duplicate], progress: Progress) -> tuple[Duplicate, ...]:
    """
    Make every shareable copy share its bytes with its source; what became of each is its new state.

    Bytes, owner, mode, times and names of both stay. A copy with other bytes is left as it is, as far as the kernel
    came: stretches that are equal may share, which nobody can tell from the files.
    """
    copies = [copy for duplicate in duplicates for copy in duplicate.copies if copy.state == "shareable"]
    progress.phase("comparing and sharing", sum(copy.file.size for copy in copies))
    return tuple(
        replace(
            duplicate,
            copies=tuple(
                _linked(duplicate, copy, progress) if copy.state == "shareable" else copy for copy in duplicate.copies
            ),
        )
        for duplicate in duplicates
    )


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
    """Whether an open file has the bytes of another one of its size; None if that takes reading all of them."""
    try:
        with opened_same(other.path, other.identity, other.size) as other_fd:
            if shared_bytes(extents_of(fd), extents_of(other_fd), other.size) == other.size:
                return True
            for offset in (0, other.size // 2, max(0, other.size - _SAMPLE_BYTES)):
                if read_at(fd, _SAMPLE_BYTES, offset) != read_at(other_fd, _SAMPLE_BYTES, offset):
                    return False
    except OSError:
        # The other cannot be read: a digest needs only this one.
        pass
    return None


class _Disks:
    """Knows which disks can share, having asked each pair of them once."""

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
    """Whether the kernel would share bytes of two open files; nothing is shared yet."""
    try:
        share_extents(fd, copy_fd, 0, 0)
    except OSError as error:
        # Who may do it depends on the file; whether it can be done does not.
        return ("shareable", "") if error.errno in _FORBIDDEN else _barred(error)
    return "shareable", ""


def _barred(error: OSError) -> tuple[CopyState, str]:
    if error.errno == errno.EXDEV:
        return "other-disk", "on another disk"
    if error.errno == errno.EINVAL:
        # On btrfs, one with checksums and one without (chattr +C).
        return "unsupported", "the disk does not let these two share"
    if error.errno in _CANNOT:
        return "unsupported", "this disk cannot share; btrfs can, and XFS with reflink=1"
    if error.errno in _FORBIDDEN:
        return "failed", "only its owner or root may"
    return "failed", error.strerror or str(error)


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
    return replace(
        copy, state="different", detail=f"other bytes than {source.path}; ostore verify says which are right"
    )


def _share(fd: int, copy_fd: int, size: int, advance: Callable[[int], None]) -> bool:
    """Go through two open files until their end, or until they differ: then it is False."""
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
