"""
Files of other programs that may hold the same bytes as a blob.

A candidate is known by its name and by its status on the disk; it has not been opened. Its name may be wrong, so code
that relies on the bytes hashes them or lets the kernel compare them.
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
    """The program that keeps models in a folder, as a word for people. Files are found by the same rules in all."""

    STORE = "ollama"
    HUGGING_FACE = "hugging-face"
    LM_STUDIO = "lm-studio"
    LLAMA_CPP = "llama.cpp"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class ForeignCache:
    """A folder to look in, and the program that uses it."""

    kind: CacheKind
    path: Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    One file. `path` may be a link to it; `size` and `allocated` (bytes), `device` and `inode` are those of the file.

    `digest` is the digest that its name promises, or None if the name promises none.
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
    """Each file once, however many names it has, in the order of the folders and then by path."""

    candidates: tuple[Candidate, ...]
    unreadable: tuple[Unreadable, ...]

    def copies_of(self, digest: Digest, size: int) -> Iterator[Candidate]:
        """
        Yield the files that may be this blob, all of `size` bytes.

        First come those whose names promise the digest, then those whose names promise none (`digest` is None).
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
    """Return one candidate for each file: the first whose name promises a digest, or else the first."""
    found: dict[tuple[int, int], Candidate] = {}
    for candidate in candidates:
        known = found.get(candidate.identity)
        if known is None or (known.digest is None and candidate.digest is not None):
            found[candidate.identity] = candidate
    return tuple(found.values())


@contextmanager
def opened(candidate: Candidate) -> Iterator[int]:
    """Open the file for reading. Raises OSError, also if the path leads to another file or the size has changed."""
    with opened_same(candidate.path, candidate.identity, candidate.size) as fd:
        yield fd
