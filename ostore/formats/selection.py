"""What one operation is about: models, and every blob they need exactly once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from ostore.formats.digest import Digest
from ostore.formats.errors import UnsafeError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName


@dataclass(frozen=True, slots=True)
class SelectedModel:
    """
    A name, the digest and size (bytes) of its manifest, and its distinct blobs: config, then layers in order.

    `raw` is the manifest itself where it was read already, else None: a bundle carries its manifests last.
    """

    name: ModelName
    manifest_digest: Digest
    manifest_size: int
    blobs: tuple[Digest, ...]
    raw: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, name: ModelName, manifest: Manifest) -> SelectedModel:
        blobs = tuple(blob.digest for blob in manifest.blobs)
        return cls(name, manifest.digest, len(manifest.raw), blobs, manifest.raw)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A blob from byte `start` to its end."""

    blob: Descriptor
    start: int = 0

    @property
    def size(self) -> int:
        """Bytes from there on."""
        return self.blob.size - self.start


@dataclass(frozen=True)
class Selection:
    """
    Models sorted by full name, and their distinct blobs in the order in which the models first name them.

    `requires` are blobs that a delta bundle leaves out: the target must have them. Two selections of the same models
    are equal, which is what makes a bundle's bytes reproducible.
    """

    models: tuple[SelectedModel, ...]
    blobs: tuple[Descriptor, ...]
    requires: tuple[Descriptor, ...] = ()

    @classmethod
    def of(cls, manifests: Iterable[tuple[ModelName, Manifest]]) -> Selection:
        """Raises UnsafeError when two manifests promise different sizes for one digest, or two names collide."""
        models: list[SelectedModel] = []
        blobs: dict[str, Descriptor] = {}
        for name, manifest in sorted(manifests, key=lambda pair: pair[0].full):
            needed: dict[Digest, None] = {}
            for digits, size in manifest.sizes:
                blob = blobs.get(digits) or blobs.setdefault(digits, Descriptor(Digest(digits), size))
                if blob.size != size:
                    raise UnsafeError(f"{name}: {blob.digest}: two sizes for one blob, {blob.size} and {size}")
                needed[blob.digest] = None
            models.append(SelectedModel(name, manifest.digest, len(manifest.raw), tuple(needed), manifest.raw))
        refuse_twins(model.name for model in models)
        return cls(tuple(models), tuple(blobs.values()))

    @cached_property
    def sizes(self) -> dict[Digest, int]:
        """Bytes of every blob, required ones included."""
        return {blob.digest: blob.size for blob in (*self.blobs, *self.requires)}

    @property
    def size(self) -> int:
        """Bytes of all distinct blobs together."""
        return sum(blob.size for blob in self.blobs)

    @property
    def shared_size(self) -> int:
        """Bytes that more than one selected model needs and that are therefore there only once."""
        uses = sum(self.sizes[digest] for model in self.models for digest in model.blobs)
        return uses - sum(self.sizes.values())

    def users_of(self, digest: Digest) -> tuple[ModelName, ...]:
        """The selected models that need a blob."""
        return tuple(model.name for model in self.models if digest in model.blobs)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is lawful in these models and yet may surprise where they are imported."""
        selectors = (
            f"{model.name}: Ollama takes this tag for a source selector, not for a name"
            for model in self.models
            if model.name.is_selector
        )
        problems = ((model.name, model.name.windows_problem()) for model in self.models)
        return (*selectors, *(f"{name}: {problem}" for name, problem in problems if problem))

    def restricted(self, names: Iterable[ModelName]) -> Selection:
        """The same selection for some of its models."""
        wanted = set(names)
        models = tuple(model for model in self.models if model.name in wanted)
        needed = {digest for model in models for digest in model.blobs}
        blobs, requires = (
            tuple(blob for blob in known if blob.digest in needed) for known in (self.blobs, self.requires)
        )
        return Selection(models, blobs, requires)


def refuse_twins(names: Iterable[ModelName]) -> None:
    """Raises UnsafeError for two names that differ only by case: on many disks, and for Ollama, they are one."""
    seen: dict[str, ModelName] = {}
    for name in names:
        twin = seen.setdefault(name.folded, name)
        if twin != name:
            raise UnsafeError(f"{name.full!r} and {twin.full!r} differ only by case")
