"""What a store may lose because its successor has it: the rules of a move, in which two stores may share files."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import ManifestEntry


@dataclass(frozen=True, slots=True)
class Succession:
    """A store, `source`, and the store that takes over its models, `target`. The caller holds the locks of both."""

    source: LocalStore
    target: LocalStore

    def held_by_target(self, sizes: Mapping[Digest, int]) -> set[Digest]:
        """Return the blobs of these sizes that the target has in files of its own, or under names of its own."""
        return {digest for digest, size in sizes.items() if self._is_held(digest, size)}

    def may_leave(self, entry: ManifestEntry, raw: bytes | None) -> bool:
        """Return whether the source and the target both have a manifest of these bytes, each under its own name."""
        if entry.name is None or entry.tree != MANIFESTS:
            return False
        with contextlib.suppress(OSError):
            here, _ = self.source.read_manifest(entry.name)
            there, status = self.target.read_manifest(entry.name)
            ours, theirs = Path(entry.path), self.target.manifest_path(entry.name)
            return (not is_same_file(ours, theirs) or status.st_nlink > 1) and here == there == raw
        return False

    def _is_held(self, digest: Digest, size: int) -> bool:
        if self.target.size_of(digest) != size:
            return False
        ours, theirs = (store.root / BLOBS / digest.filename for store in (self.source, self.target))
        return not is_same_file(ours, theirs) or theirs.lstat().st_nlink > 1


def is_same_file(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file. False if one of them leads nowhere."""
    try:
        return one.samefile(other)
    except OSError:
        return False
