"""Judge what lies among the manifests and is no manifest of a model: side files, misplaced manifests, foreign files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import LimitError
from ostore.formats.manifest import MAX_MANIFEST_BYTES, digest_shaped, mentioned_by
from ostore.formats.name import ModelName, meant_by
from ostore.formats.side_file import is_side_file, may_be_side_file
from ostore.formats.store_layout import MANIFESTS
from ostore.places.store.survey.reading import read_small_file
from ostore.streams.links import is_link


class StrayKind(StrEnum):
    """What a stray is. A misplaced manifest is any file that mentions a digest: somebody may rely on that blob."""

    SIDE_FILE = "side file"
    MISPLACED = "misplaced manifest"
    FOREIGN = "foreign file"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Stray:
    """
    A file among the manifests that is no manifest of a model. `path` is relative to the store.

    `mentioned` are the digests in it. `name` is the model that it would be in its right place, if that can be told.
    """

    path: str
    kind: StrayKind
    mentioned: frozenset[Digest] = frozenset()
    name: ModelName | None = None

    @property
    def is_misplaced(self) -> bool:
        return self.kind is StrayKind.MISPLACED

    @property
    def is_side_file(self) -> bool:
        return self.kind is StrayKind.SIDE_FILE


def judge_strays(root: Path, paths: Iterable[str]) -> tuple[Stray, ...]:
    """Judge files at depths where no manifest can be. What has gone meanwhile is left out."""
    judged = (_judge(root, path) for path in paths)
    return tuple(stray for stray in judged if stray)


def is_side_file_at(path: str) -> bool:
    """Return whether a file is a side file and mentions no digest. One that cannot be read is none."""
    name = os.path.basename(path)  # noqa: PTH119 - text is faster, and there may be many
    if not may_be_side_file(name):
        return False
    try:
        raw, _ = read_small_file(path, MAX_MANIFEST_BYTES)
    except OSError:
        return False
    return is_side_file(name, raw) and not digest_shaped(raw)


def _judge(root: Path, path: str) -> Stray | None:
    full, filename = root / path, path.rpartition("/")[2]
    try:
        raw, _ = read_small_file(full, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        # A link that leads nowhere may have led to a folder of models.
        return Stray(path, StrayKind.FOREIGN) if is_link(full) else None
    except OSError:
        return Stray(path, StrayKind.CLOSED if _is_file(full) else StrayKind.FOREIGN)
    mentioned = _mentioned(raw)
    if not mentioned:
        return Stray(path, StrayKind.SIDE_FILE if is_side_file(filename, raw) else StrayKind.FOREIGN)
    tree, *parts = path.split("/")
    return Stray(path, StrayKind.MISPLACED, mentioned, meant_by(parts) if tree == MANIFESTS else None)


def _mentioned(raw: bytes) -> frozenset[Digest]:
    try:
        named = mentioned_by(raw) - {Digest.of(raw)}
    except LimitError:
        named = digest_shaped(raw)
    return frozenset(named)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - as everywhere in this package
    except OSError:
        return False
