"""Hold what a command is about to carry against a lock: exactly these manifests, or an error with both digests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ostore.api.basis import read_lock, refuse_empty
from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError, NotFoundError
from ostore.formats.lock_file import LockedModel, LockFile
from ostore.formats.name import ModelName
from ostore.formats.remedy import ostore
from ostore.formats.selection import SelectedModel
from ostore.formats.wording import listed
from ostore.places.store.store import LocalStore


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file, and what to call it in messages."""

    label: str
    file: LockFile

    @classmethod
    def read(cls, word: str | Path) -> Lock:
        """Read a lock file. Raises what `read_lock` raises, and FormatError for one without a line of a model."""
        return cls(str(word), refuse_empty(str(word), read_lock(word)))

    @property
    def names(self) -> list[str]:
        """The full names of its models, as words of a command."""
        return [model.name.full for model in self.file.models]

    def restricted(self, names: Iterable[ModelName]) -> Lock:
        """Return the lines of these names. Raises NotFoundError for a name that has none."""
        chosen = list(names)
        if absent := [str(name) for name in chosen if name.folded not in self.file.digests]:
            hint = ostore("lock", *absent, "--update", self.label, before="on the side that keeps it")
            raise NotFoundError(f"{self.label}: has no line for {listed(absent)}", hint=hint)
        return Lock(self.label, self.file.restricted(chosen))

    def find_in(self, store: LocalStore) -> dict[str, Digest]:
        """Return the digests that a store has of the models of the lock, by folded name. Raises OSError."""
        return store.manifest_digests(self.file.digests.keys())

    def missing(self, found: Collection[str]) -> list[LockedModel]:
        """Return the models whose folded names are not among those found."""
        return [model for model in self.file.models if model.name.folded not in found]

    def different(self, found: Mapping[str, Digest]) -> list[tuple[LockedModel, Digest]]:
        """Return the models that were found with another digest, and that digest."""
        pairs = ((model, found.get(model.name.folded, model.digest)) for model in self.file.models)
        return [(model, digest) for model, digest in pairs if digest != model.digest]

    def refuse_others(self, found: Mapping[str, Digest], where: str) -> None:
        """
        Raises IntegrityError if a manifest is not that of the lock, NotFoundError if one is missing.

        `found` has digests by folded name, `where` says where they are.
        """
        if different := self.different(found):
            told = [f"{model.name}: expected {model.digest}, got {digest}" for model, digest in different]
            raise IntegrityError(f"{self.label}: not what is in {where}: {listed(told)}")
        if missing := self.missing(found):
            told = [f"{model.name} ({model.digest})" for model in missing]
            raise NotFoundError(f"{self.label}: not in {where}: {listed(told)}")


def digests_of(models: Iterable[SelectedModel]) -> dict[str, Digest]:
    """Return the digests of manifests by folded name."""
    return {model.name.folded: model.manifest_digest for model in models}
