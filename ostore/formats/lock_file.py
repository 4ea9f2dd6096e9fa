"""
A lock file: names pinned to the digests of their manifests, one a line, for people to read, review and keep in git.

    # What the lab has agreed on.
    sha256:<64 digits>  registry.ollama.ai/library/llama3:latest

A manifest names every blob by its digest, so one line fixes all bytes of a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from ostore.formats.bundle_index import MAX_MEMBERS
from ostore.formats.digest import Digest
from ostore.formats.errors import FormatError, LimitError, OstoreError, UnsafeError
from ostore.formats.name import ModelName

MAX_LOCK_BYTES = 16 * 1024 * 1024
_LINE = re.compile(r"(\S+)[ \t]+(\S+)")


class LockedModel(NamedTuple):
    """A name and the digest of the manifest that it must have."""

    name: ModelName
    digest: Digest

    @property
    def line(self) -> str:
        """The line in a lock file."""
        return f"{self.digest}  {self.name.full}"


class LockChange(NamedTuple):
    """What becomes of one name: `old` is None for one that is added, `new` for one that is removed."""

    name: ModelName
    old: Digest | None
    new: Digest | None


@dataclass(frozen=True)
class LockFile:
    """
    Models sorted by full name, and what people wrote between them.

    `head` are the lines before the first model, `remarks` those right above another one, `tail` those after the last.
    `line_end` ends each line that is written; it says nothing, so locks that differ only by it are equal.
    """

    models: tuple[LockedModel, ...]
    head: tuple[str, ...] = ()
    remarks: tuple[tuple[ModelName, tuple[str, ...]], ...] = ()
    tail: tuple[str, ...] = ()
    line_end: str = field(default="\n", compare=False)

    @classmethod
    def of(cls, models: Iterable[tuple[ModelName, Digest]]) -> LockFile:
        """Make a lock file of names and digests in any order."""
        return cls(_sorted(LockedModel(name, digest) for name, digest in models))

    @classmethod
    def parse(cls, raw: bytes) -> LockFile:
        """
        Read a lock file. Lines may be in any order and end as on Windows.

        Errors have the number of the line. Raises FormatError for what is no lock file, UnsafeError for a name that is
        there twice, InvalidNameError, InvalidDigestError, LimitError.
        """
        if len(raw) > MAX_LOCK_BYTES:
            raise LimitError(f"lock: expected at most {MAX_LOCK_BYTES} bytes, got {len(raw)}")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"lock: line {raw.count(10, 0, error.start) + 1}: not UTF-8") from None
        return _Reading().read(text)

    def write(self) -> bytes:
        """Return the lines, sorted by name. Equal lock files give equal bytes, but for their line ends."""
        remarks = dict(self.remarks)
        lines = [*self.head]
        for model in self.models:
            lines += (*remarks.get(model.name, ()), model.line)
        return "".join(f"{line}{self.line_end}" for line in (*lines, *self.tail)).encode()

    @cached_property
    def digests(self) -> Mapping[str, LockedModel]:
        """Each model by its folded name: to Ollama, names that differ only by case are the same."""
        return {model.name.folded: model for model in self.models}

    def restricted(self, names: Iterable[ModelName]) -> LockFile:
        """Return only the lines of these names."""
        wanted = {name.folded for name in names}
        return replace(self, models=tuple(model for model in self.models if model.name.folded in wanted))

    def updated(self, models: Iterable[LockedModel], *, is_whole: bool) -> LockFile:
        """
        Return the lock with these models as they are now, and every remark of a model that stays.

        If `is_whole`, these are all models: the others go. Otherwise the others stay as they are.
        """
        new = {model.name.folded: model for model in models}
        kept = () if is_whole else tuple(model for model in self.models if model.name.folded not in new)
        chosen = _sorted((*kept, *new.values()))
        names = {model.name for model in chosen}
        return replace(
            self, models=chosen, remarks=tuple((name, lines) for name, lines in self.remarks if name in names)
        )

    def changes_to(self, other: LockFile) -> tuple[LockChange, ...]:
        """Return what becomes of each name that is not in both with the same digest, sorted by name."""
        old, new = ({model.name: model.digest for model in lock.models} for lock in (self, other))
        names = sorted(old.keys() | new.keys(), key=lambda name: name.full)
        return tuple(LockChange(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name))


class _Reading:
    """Reads a lock line by line."""

    def __init__(self) -> None:
        self._numbers: dict[str, tuple[int, ModelName]] = {}
        self._models: list[LockedModel] = []
        self._waiting: list[str] = []
        self._head: tuple[str, ...] = ()
        self._remarks: list[tuple[ModelName, tuple[str, ...]]] = []

    def read(self, text: str) -> LockFile:
        for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
            try:
                self._take(number, line.rstrip("\r"))
            except OstoreError as error:
                error.args = (f"lock: line {number}: {error}",)
                raise
        if not self._models:
            self._head, self._waiting = tuple(self._waiting), []
        line_end = "\r\n" if "\r\n" in text else "\n"
        return LockFile(_sorted(self._models), self._head, tuple(self._remarks), tuple(self._waiting), line_end)

    def _take(self, number: int, line: str) -> None:
        if not line.strip() or line.lstrip().startswith("#"):
            self._waiting.append(line)
            return
        found = _LINE.fullmatch(line.strip(" \t"))
        if found is None:
            raise FormatError(f"expected 'sha256:<digest>  <full name>', got {line!r:.90}")
        model = LockedModel(ModelName.parse_full(found[2]), Digest.parse(found[1]))
        before, name = self._numbers.setdefault(model.name.folded, (number, model.name))
        if before != number:
            what = "the same name" if name == model.name else f"{name.full!r}, which differs only by case,"
            raise UnsafeError(f"{model.name.full!r}: {what} is in line {before}")
        if len(self._models) == MAX_MEMBERS:
            raise LimitError(f"expected at most {MAX_MEMBERS} models")
        self._place_remarks(model.name)
        self._models.append(model)

    def _place_remarks(self, name: ModelName) -> None:
        if not self._models:
            self._head = tuple(self._waiting)
        elif self._waiting:
            self._remarks.append((name, tuple(self._waiting)))
        self._waiting = []


def _sorted(models: Iterable[LockedModel]) -> tuple[LockedModel, ...]:
    return tuple(sorted(models, key=lambda model: model.name.full))
