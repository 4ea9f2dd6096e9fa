"""Find names that a server would mix up with others of the store, because they differ only by case."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from ostore.formats.errors import UnsafeError
from ostore.formats.name import ModelName
from ostore.formats.remedy import ostore


def clashes(
    names: Iterable[ModelName], stored: Collection[ModelName], root: Path
) -> Iterator[tuple[ModelName, UnsafeError]]:
    """
    Yield each name with a part that differs only by case from one that is stored in `root`, or before it.

    Since 0.5.2 a server takes the spelling of each part from any name that it has (server/routes.go of ollama at
    fb30760), so one of the two models could not be reached.
    """
    spellings: list[dict[str, set[str]]] = [{}, {}, {}, {}]
    for name in stored:
        _learn(spellings, name)
    for name in names:
        parts = [_spelling(known, part) for known, part in zip(spellings, name.parts, strict=True)]
        if name in stored or parts == list(name.parts):
            _learn(spellings, name)
        else:
            yield name, _clash(name, ModelName(*parts), stored, root)


def _clash(name: ModelName, other: ModelName, stored: Collection[ModelName], root: Path) -> UnsafeError:
    """Return the error for a name that the store would spell as `other`, which may be a model there."""
    if other not in stored:
        told = f"{name}: Ollama would mix it up with another spelling in {root}"
        return UnsafeError(told, hint=f"{other} would do")
    told = f"{name} and {other} in {root} differ only by case"
    return UnsafeError(told, hint=ostore("rm", other, models=root, after="gives up the one there"))


def _learn(spellings: list[dict[str, set[str]]], name: ModelName) -> None:
    for known, part in zip(spellings, name.parts, strict=True):
        known.setdefault(part.lower(), set()).add(part)


def _spelling(known: Mapping[str, set[str]], part: str) -> str:
    """Return the part itself if it is known by this spelling or not at all, or else a spelling that is known."""
    spelled = known.get(part.lower(), {part})
    return part if part in spelled else min(spelled)
