"""
Name the odd entries of a store in one line for each kind, for all commands that go on without them.

Which command mentions which kind is the table in docs/store.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Literal, Protocol

from ostore.formats.name import ModelName
from ostore.formats.wording import listed
from ostore.places.store.nearby import store_instead
from ostore.places.store.survey.manifest_tree import ManifestTree
from ostore.places.store.survey.strays import Stray, StrayKind

_ROLES = ("host", "namespace", "model", "tag")


class Oddity(StrEnum):
    """A kind of odd entry among the manifests."""

    SIDE_FILE = "side-file"
    STRAY = "stray"
    MISPLACED = "misplaced"
    PART_TWINS = "part-twins"
    STORE_INSTEAD = "store-instead"


# `gc` and `move` refuse what cannot be read, and `verify` and `repair` report it as a problem.
Occasion = Literal["carried", "judged", "counted"]
_TOLD: Mapping[Occasion, frozenset[Oddity]] = {
    # All models go elsewhere.
    "carried": frozenset(Oddity),
    # Problems are reported one by one.
    "judged": frozenset({Oddity.SIDE_FILE, Oddity.STRAY, Oddity.STORE_INSTEAD}),
    # The store is listed, counted or cleaned up.
    "counted": frozenset({Oddity.SIDE_FILE, Oddity.STRAY, Oddity.MISPLACED, Oddity.STORE_INSTEAD}),
}


class Findings(Protocol):
    """What a scan of manifests has found."""

    @property
    def tree(self) -> ManifestTree: ...
    @property
    def strays(self) -> Sequence[Stray]: ...
    @property
    def side_files(self) -> Sequence[str]: ...


def told_oddities(found: Findings, occasion: Occasion) -> tuple[str, ...]:
    """Return a line for each kind of odd entry that matters on an occasion. A passing scan must be exhausted."""
    return tuple(line for kind in Oddity if kind in _TOLD[occasion] for line in _lines(kind, found))


def _lines(kind: Oddity, found: Findings) -> Iterator[str]:
    if kind is Oddity.SIDE_FILE:
        sides = (*found.side_files, *_paths(found.strays, StrayKind.SIDE_FILE))
        if sides:
            yield f"{listed(sides)}: side files of an operating system, left out"
    elif kind is Oddity.STRAY:
        if strays := (*_paths(found.strays, StrayKind.FOREIGN), *_paths(found.strays, StrayKind.CLOSED)):
            yield f"{listed(strays)}: not a place where a manifest can be, left out"
    elif kind is Oddity.MISPLACED:
        for path in _paths(found.strays, StrayKind.MISPLACED):
            yield f"{path}: a manifest where Ollama does not look, left out; doctor says where it belongs"
    elif kind is Oddity.STORE_INSTEAD:
        if near := store_instead(found.tree):
            yield f"{found.tree.root}: no models; there are some in {near}"
    else:
        names = [entry.name for entry in found.tree.entries if entry.name]
        yield from (f"{told}: Ollama may take one spelling for the other" for told in part_twins(names))


def part_twins(names: Iterable[ModelName]) -> Iterator[str]:
    """
    Yield the parts of names that differ only by case, and not in whole names.

    Since 0.5.2 Ollama may take the spelling of any part from another name (server/routes.go at fb30760).
    """
    distinct = {name.folded: name for name in names}
    for index, role in enumerate(_ROLES):
        spellings: dict[str, set[str]] = {}
        for name in distinct.values():
            part = name.parts[index]
            spellings.setdefault(part.lower(), set()).add(part)
        for parts in spellings.values():
            if len(parts) > 1:
                yield f"{role} {', '.join(sorted(parts))}"


def _paths(strays: Iterable[Stray], kind: StrayKind) -> tuple[str, ...]:
    return tuple(stray.path for stray in strays if stray.kind is kind)
