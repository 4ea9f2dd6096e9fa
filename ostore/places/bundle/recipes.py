"""The recipes of a bundle: what they make of the blobs that the target has, or that lie in the same file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from ostore.formats.digest import Digest
from ostore.formats.errors import BasisMissingError, OstoreError
from ostore.formats.recipe import MadeBlob, Recipe
from ostore.formats.remedy import exported_again
from ostore.formats.selection import Selection
from ostore.streams.bytes_at import BytesAt, Held, read_chunks_at
from ostore.streams.chunks import Chunk
from ostore.streams.recipe import MadeBytes, Nesting, follow, split_head
from ostore.streams.verified import verified


class BundleRecipes:
    """
    Follows recipes, for one target. A base that the target does not have is read from the bundle, if that is a file.

    If such a base is made by a recipe too, that is read once, however many others build on it.
    """

    def __init__(self, selection: Selection, member: Callable[[Digest], BytesAt | None], held: Held) -> None:
        """`member` returns what the file has of a blob: its bytes, or its recipe as it is stored. Or None."""
        self._selection = selection
        self._sizes = selection.sizes
        self._makers = selection.makers
        self._member = member
        self.held = held
        self._made: dict[Digest, BytesAt | None] = {}
        self._nesting = Nesting()

    def follow(self, made: MadeBlob, stored: Iterator[Chunk]) -> Iterator[Chunk]:
        """
        Yield the bytes that a recipe makes, unverified. `stored` is the recipe as it is stored, which is verified.

        Raises BasisMissingError if a base is not there, once `stored` is verified; IntegrityError, FormatError,
        LimitError or UnsafeError for a bad recipe, and what `stored` raises.
        """
        try:
            head, new = split_head(verified(stored, made.stored))
            recipe, bases = self._parsed(head, made), [self._base(digest) for digest in made.bases]
            there = [base for base in bases if base is not None]
            if len(there) == len(bases):
                yield from follow(recipe, there, new)
                return
            deque(new, maxlen=0)
            raise self._lacking(made, made.bases[bases.index(None)])
        except OstoreError as error:
            # The recipe as it is stored has a digest that nobody knows.
            told = str(error).removeprefix(f"blob {made.stored.digest}: ")
            error.args = (f"recipe for {made.blob.digest}: {told}",)
            raise

    def bytes_of(self, digest: Digest) -> BytesAt | None:
        """
        Return the bytes of a blob in the file, also if a recipe makes it of others in there, or held. Or None.

        Raises as `follow` does for a bad recipe, and LimitError if recipes on top of each other cost too much.
        """
        made = self._makers.get(digest)
        if made is None:
            return self._member(digest)
        if digest not in self._made:
            self._made[digest] = self._made_by(made)
        return self._made[digest]

    def _made_by(self, made: MadeBlob) -> BytesAt | None:
        stored = self._member(made.blob.digest)
        bases = [self._base(digest) for digest in made.bases] if stored else []
        there = [base for base in bases if base is not None]
        if stored is None or len(there) < len(bases):
            return None
        head, _ = split_head(read_chunks_at(stored, stored.size - 1))
        return MadeBytes(self._parsed(head, made), there, stored, len(head), self._nesting)

    def _lacking(self, made: MadeBlob, base: Digest) -> BasisMissingError:
        names = self._selection.users_of(made.blob.digest)
        return BasisMissingError(
            f"its base {base} is not there", digests=(str(base),), hint=exported_again([str(name) for name in names])
        )

    def _parsed(self, head: bytes, made: MadeBlob) -> Recipe:
        return Recipe.parse(head, made, [self._sizes[digest] for digest in made.bases])

    def _base(self, digest: Digest) -> BytesAt | None:
        base = self.held(digest)
        if base is not None and base.size == self._sizes[digest]:
            return base
        return self.bytes_of(digest)
