"""
A recipe: how the bytes of one blob are made of ranges of other blobs, its bases, and of new bytes.

A recipe as it is stored is its head, one line of JSON, and then the new bytes. docs/bundle.md has the format. Nothing
in a recipe is trusted: a wrong one can cost time, but what it makes is hashed like every blob.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ostore.formats.digest import Digest
from ostore.formats.errors import InvalidBundleError, LimitError, UnsafeError
from ostore.formats.json_reading import read_strict_json, write_canonical_json
from ostore.formats.manifest import Descriptor

MAX_BASES = 64
MAX_STEPS = 100_000
MAX_HEAD_BYTES = 4 * 1024 * 1024
# A recipe that builds on stored blobs only has depth 1.
MAX_DEPTH = 8
_COPY, _NEW = "copy", "new"


class Step(NamedTuple):
    """The next `length` bytes of a blob: from byte `offset` of a base, or new bytes if `base` is None."""

    length: int
    base: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """The steps that make a blob, in order. `Step.base` counts in the bases of the `MadeBlob`."""

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, head: bytes, made: MadeBlob, sizes: Sequence[int]) -> Recipe:
        """
        Read the head of a recipe, with its newline. `sizes` has the size in bytes of each base.

        Raises FormatError or InvalidBundleError for what is no recipe, or not one for this blob, UnsafeError for a
        range outside its base, LimitError.
        """
        if len(head) > MAX_HEAD_BYTES:
            raise LimitError(f"expected a head of at most {MAX_HEAD_BYTES} bytes")
        document = read_strict_json(head, is_folded=True)
        entries = document.get("steps") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise InvalidBundleError("expected a list of steps")
        if len(entries) > MAX_STEPS:
            raise LimitError(f"expected at most {MAX_STEPS} steps, got {len(entries)}")
        recipe = cls(tuple(_step(entry, sizes) for entry in entries))
        for what, expected, got in (
            ("new bytes", made.stored.size - len(head), recipe.new_bytes),
            ("bytes in all", made.blob.size, recipe.size),
        ):
            if expected != got:
                raise InvalidBundleError(f"expected {expected} {what}, got {got}")
        return recipe

    @property
    def size(self) -> int:
        """The number of bytes that it makes."""
        return sum(step.length for step in self.steps)

    @property
    def new_bytes(self) -> int:
        """The number of new bytes that follow its head."""
        return sum(step.length for step in self.steps if step.base is None)

    def write(self) -> bytes:
        """Return the head: canonical JSON and its newline."""
        steps = [
            [_NEW, step.length] if step.base is None else [_COPY, step.base, step.offset, step.length]
            for step in self.steps
        ]
        return write_canonical_json({"steps": steps})


@dataclass(frozen=True, slots=True)
class MadeBlob:
    """
    A blob that a bundle holds as a recipe. `stored` is the digest and size of the recipe with its new bytes.

    The target has the bases, or the bundle holds them, whole or as an earlier recipe.
    """

    blob: Descriptor
    bases: tuple[Digest, ...]
    stored: Descriptor


def check_order(recipes: Iterable[MadeBlob], others: Collection[Digest]) -> None:
    """
    Check that each recipe can be followed when its turn comes. `others` are the digests of all other blobs.

    So there is no cycle. Raises InvalidBundleError for a base that is neither in `others` nor made before, UnsafeError
    for a base that is listed twice, LimitError for too many bases or too many recipes on top of each other.
    """
    depths: dict[Digest, int] = {}
    for made in recipes:
        if not 1 <= len(made.bases) <= MAX_BASES:
            raise LimitError(f"recipe for {made.blob.digest}: expected 1 to {MAX_BASES} bases, got {len(made.bases)}")
        if len(set(made.bases)) < len(made.bases):
            raise UnsafeError(f"recipe for {made.blob.digest}: a base is listed twice")
        for base in made.bases:
            if base not in others and base not in depths:
                raise InvalidBundleError(f"recipe for {made.blob.digest}: base {base} is not listed before it")
        depth = 1 + max(depths.get(base, 0) for base in made.bases)
        if depth > MAX_DEPTH:
            raise LimitError(f"recipe for {made.blob.digest}: expected at most {MAX_DEPTH} on top of each other")
        depths[made.blob.digest] = depth


def joined(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Return the same steps, with each one that continues the one before joined to it. Empty ones go."""
    whole: list[Step] = []
    for step in steps:
        last = whole[-1] if whole else None
        if last and last.base == step.base and (step.base is None or last.offset + last.length == step.offset):
            whole[-1] = Step(last.length + step.length, last.base, last.offset)
        elif step.length:
            whole.append(step)
    return tuple(whole)


def _step(entry: object, sizes: Sequence[int]) -> Step:
    kind, *numbers = entry if isinstance(entry, list) and entry else (None,)
    # A bool is an int to Python, and 1.0 equals 1.
    if all(type(number) is int for number in numbers):
        if kind == _NEW and len(numbers) == 1 and numbers[0] > 0:
            return Step(numbers[0])
        if kind == _COPY and len(numbers) == 3 and numbers[2] > 0:  # noqa: PLR2004
            base, offset, length = numbers
            if not 0 <= base < len(sizes) or offset < 0 or offset + length > sizes[base]:
                raise UnsafeError(f"step {entry!r:.80} is outside its base")
            return Step(length, base, offset)
    raise InvalidBundleError(f"expected a step, got {entry!r:.80}")
