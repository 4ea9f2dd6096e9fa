"""
Files that other programs keep and that may hold the same bytes as a blob.

What is known of one comes from its name and from the disk; none of them has been opened. So a candidate that is named
by a digest is as good as its name: whoever relies on the bytes hashes them, or lets the kernel compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.unreadable import Unreadable
from ostore.streams.same_file import opened_same


class CacheKind(StrEnum):
    """Which program keeps models there: a word for people. The rules for finding files are the same everywhere."""

    STORE = "ollama"
    HUGGING_FACE = "hugging-face"
    LM_STUDIO = "lm-studio"
    LLAMA_CPP = "llama.cpp"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class ForeignCache:
    """A folder to look in, and whose it is."""

    kind: CacheKind
    path: Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    One file. `path` may be a link to it; `size`, `allocated` (both bytes), `device` and `inode` are those of the file.

    `digest` is what its name says of its bytes, or None for a name that says nothing.
    """

    path: str
    kind: CacheKind
    size: int
    allocated: int
    device: int
    inode: int
    digest: Digest | None

    @property
    def identity(self) -> tuple[int, int]:
        """Equal for two names of one file."""
        return self.device, self.inode


@dataclass(frozen=True)
class FoundFiles:
    """Each file once, however many names lead to it, in the order of the folders and then by path."""

    candidates: tuple[Candidate, ...]
    unreadable: tuple[Unreadable, ...]

    def copies_of(self, digest: Digest, size: int) -> Iterator[Candidate]:
        """
        The files that may be this blob: those whose names promise it first, then those of the same size.

        The latter have `digest` None. A file whose name promises something else is not among them, nor is one of
        another size.
        """
        yield from self._named.get((digest, size), ())
        yield from self._unnamed.get(size, ())

    @cached_property
    def _named(self) -> dict[tuple[Digest, int], list[Candidate]]:
        found: dict[tuple[Digest, int], list[Candidate]] = {}
        for candidate in self.candidates:
            if candidate.digest is not None:
                found.setdefault((candidate.digest, candidate.size), []).append(candidate)
        return found

    @cached_property
    def _unnamed(self) -> dict[int, list[Candidate]]:
        found: dict[int, list[Candidate]] = {}
        for candidate in self.candidates:
            if candidate.digest is None:
                found.setdefault(candidate.size, []).append(candidate)
        return found


def each_once(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """One candidate a file; of several names the one that says most, and else the first."""
    found: dict[tuple[int, int], Candidate] = {}
    for candidate in candidates:
        known = found.get(candidate.identity)
        if known is None or (known.digest is None and candidate.digest is not None):
            found[candidate.identity] = candidate
    return tuple(found.values())


@contextmanager
def opened(candidate: Candidate) -> Iterator[int]:
    """The file open for reading. Raises OSError, also if by now there is another file, or one of another size."""
    with opened_same(candidate.path, candidate.identity, candidate.size) as fd:
        yield fd
