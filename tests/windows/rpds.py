"""Stands in for the package rpds, on which jsonschema rests: its library asks for a DLL that Wine 8 has not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self


class HashTrieMap(dict[Any, Any]):
    """A dictionary whose changes are copies."""

    @classmethod
    def convert(cls, value: Mapping[Any, Any]) -> Self:
        return cls(value)

    def insert(self, key: object, value: object) -> HashTrieMap:
        return HashTrieMap({**self, key: value})

    def remove(self, key: object) -> HashTrieMap:
        left = HashTrieMap(self)
        del left[key]
        return left

    def update(self, *others: Any, **more: Any) -> HashTrieMap:  # type: ignore[override]  # noqa: ANN401 - as dict has it
        changed = dict(self)
        changed.update(*others, **more)
        return HashTrieMap(changed)


class HashTrieSet(frozenset[Any]):
    """A set whose changes are copies."""

    def insert(self, value: object) -> HashTrieSet:
        return HashTrieSet(self | {value})

    def discard(self, value: object) -> HashTrieSet:
        return HashTrieSet(self - {value})

    def update(self, *others: Iterable[Any]) -> HashTrieSet:
        return HashTrieSet(self.union(*others))


class List(tuple[Any, ...]):
    """A tuple whose changes are copies."""

    __slots__ = ()

    def push_front(self, value: object) -> List:
        return List((value, *self))
