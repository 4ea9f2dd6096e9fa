"""The models that one operation handles, and every blob that they need, each once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError, UnsafeError, class_of, worst
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.recipe import MadeBlob

_SELECTOR = "Ollama takes this tag for a source selector, not for a name"


@dataclass(frozen=True, slots=True)
class SelectedModel:
    """
    A name, the digest and size (bytes) of its manifest, and its distinct blobs: the config, then the layers in order.

    `raw` holds the bytes of the manifest, or None if they are not read yet: in a bundle, manifests come last.
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
    """A blob that is wanted from byte `start` to its end."""

    blob: Descriptor
    start: int = 0

    @property
    def size(self) -> int:
        """The number of bytes from `start` on."""
        return self.blob.size - self.start


@dataclass(frozen=True, slots=True)
class OmittedModel:
    """A model, or a folder of models, that was left out: its name or path, the class of its error, and the reason."""

    name: str
    error_class: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """
    A model, or a folder of models, that is left out: what to call it, and the error that asking for it raises.

    `blob` is the one that turned out to be wrong when it was read, if that is why.
    """

    subject: str
    error: OstoreError | OSError
    blob: Digest | None = None

    @property
    def told(self) -> OmittedModel:
        """The same for a report."""
        error = self.error
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        return OmittedModel(self.subject, class_of(error), text.removeprefix(f"{self.subject}: "))


@dataclass(frozen=True)
class Selection:
    """
    Models sorted by full name, and their distinct blobs in the order in which the models first name them.

    `requires` are blobs that a delta bundle leaves out; the target must have them, for a model or as the basis of a
    recipe. Of `blobs`, those that `recipes` make come last, in that order; all others travel whole. Two selections of
    the same models are equal, so a bundle of the same models has the same bytes. `left` are models that were to be
    selected and cannot be carried, `notes` what a person should know.
    """

    models: tuple[SelectedModel, ...]
    blobs: tuple[Descriptor, ...]
    requires: tuple[Descriptor, ...] = ()
    left: tuple[LeftOut, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    recipes: tuple[MadeBlob, ...] = ()

    @classmethod
    def of(cls, manifests: Iterable[tuple[ModelName, Manifest]]) -> Selection:
        """Make a selection. Raises UnsafeError when one digest has two sizes, or two names differ only by case."""
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
        """The size in bytes of every blob, including those in `requires`."""
        return {blob.digest: blob.size for blob in (*self.blobs, *self.requires)}

    @cached_property
    def needed(self) -> frozenset[Digest]:
        """The digests of all blobs that the models need, wherever they come from."""
        return frozenset(digest for model in self.models for digest in model.blobs)

    @cached_property
    def makers(self) -> dict[Digest, MadeBlob]:
        """The recipe of each blob that is made by one."""
        return {made.blob.digest: made for made in self.recipes}

    @property
    def whole(self) -> tuple[Descriptor, ...]:
        """The blobs that travel whole."""
        return tuple(blob for blob in self.blobs if blob.digest not in self.makers)

    @property
    def size(self) -> int:
        """The size in bytes of all distinct blobs, without those in `requires`."""
        return sum(blob.size for blob in self.blobs)

    @property
    def stored_size(self) -> int:
        """The size in bytes of what a bundle holds of the blobs: each whole, or as a recipe."""
        return sum(blob.size for blob in self.whole) + sum(made.stored.size for made in self.recipes)

    @property
    def shared_size(self) -> int:
        """The bytes that sharing saves: what the models need one by one, less what their distinct blobs have."""
        uses = sum(self.sizes[digest] for model in self.models for digest in model.blobs)
        return uses - sum(self.sizes[digest] for digest in self.needed)

    def users_of(self, digest: Digest) -> tuple[ModelName, ...]:
        """Return the selected models that need a blob."""
        return tuple(model.name for model in self.models if digest in model.blobs)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed in these models, but may cause trouble where they are imported, after the notes."""
        return self.notes + tuple(
            f"{model.name}: {problem}"
            for model in self.models
            for problem in (_SELECTOR if model.name.is_selector else None, model.name.windows_problem())
            if problem
        )

    def noting(self, left: Iterable[LeftOut] = (), notes: Iterable[str] = ()) -> Selection:
        """Return the same selection with more models that are left out, and more notes."""
        return replace(self, left=(*self.left, *left), notes=(*self.notes, *notes))

    def without(self, left: Iterable[LeftOut], names: Collection[ModelName]) -> Selection:
        """Return the selection without these models, which are left out."""
        return self.restricted(model.name for model in self.models if model.name not in names).noting(left)

    def refuse_left(self, *, strict: bool) -> None:
        """Raise the worst error of the models that are left out, if `strict` or if there is no other model."""
        if self.left and (strict or not self.models):
            errors = {class_of(one.error): one.error for one in reversed(self.left)}
            raise errors[worst(errors)]

    def without_blobs(self, has: Callable[[Descriptor], bool]) -> Selection:
        """Return the selection that requires the blobs of which `has` is true: the target has them already."""
        blobs = tuple(blob for blob in self.blobs if not has(blob))
        return replace(self, blobs=blobs, requires=(*self.requires, *(blob for blob in self.blobs if has(blob))))

    def required_beside(self, present: Collection[Digest]) -> tuple[Descriptor, ...]:
        """Return what the target must have if it has these blobs: what models need, and bases of missing blobs."""
        needed = self.needed | self.built_on(self.makers.keys() - present, present)
        return tuple(blob for blob in self.requires if blob.digest in needed)

    def restricted(self, names: Iterable[ModelName]) -> Selection:
        """Return the selection of only these models and the blobs that they need, or that recipes for those need."""
        wanted = set(names)
        models = tuple(model for model in self.models if model.name in wanted)
        needed = {digest for model in models for digest in model.blobs}
        built_on = self.built_on(needed)
        return replace(
            self,
            models=models,
            blobs=tuple(blob for blob in self.blobs if blob.digest in needed),
            requires=tuple(blob for blob in self.requires if blob.digest in needed | built_on),
            recipes=tuple(made for made in self.recipes if made.blob.digest in needed),
        )

    def built_on(self, digests: Iterable[Digest], present: Collection[Digest] = ()) -> frozenset[Digest]:
        """
        Return the bases of the recipes for these blobs, and the bases of their recipes, and so on.

        A blob that is `present` need not be made.
        """
        found: set[Digest] = set()
        pending = list(digests)
        while pending:
            digest = pending.pop()
            made = None if digest in present else self.makers.get(digest)
            fresh = [base for base in made.bases if base not in found] if made else []
            found.update(fresh)
            pending += fresh
        return frozenset(found)


def refuse_twins(names: Iterable[ModelName]) -> None:
    """Raises UnsafeError when two names differ only by case: to Ollama and on many disks they are the same name."""
    seen: dict[str, ModelName] = {}
    for name in names:
        twin = seen.setdefault(name.folded, name)
        if twin != name:
            raise UnsafeError(f"{name.full!r} and {twin.full!r} differ only by case")


def refuse_repeats(what: str, keys: Iterable[object]) -> None:
    """Raises UnsafeError if a document lists something twice. `what` the keys are is for the message."""
    seen = set()
    for key in keys:
        if key in seen:
            raise UnsafeError(f"{what} {str(key)!r} is listed twice")
        seen.add(key)
