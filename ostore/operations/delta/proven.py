"""
Recipes build on proven bytes only. A blob at hand is called a blob by its name and size; if its bytes are others, the
recipe would be of no use on the other side, where nobody can make a better one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.formats.inventory import Inventory
from ostore.formats.selection import Selection
from ostore.operations.delta.planning import basis_blobs, with_recipes
from ostore.operations.delta.search import Basis, PlannedRecipe
from ostore.streams.bytes_at import BytesAt, Held, read_chunks_at
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.progress import Progress, watched
from ostore.streams.source_failure import SourceFailureError, marking
from ostore.streams.verified import verified

# What a place has, and what gives the bytes of those of its blobs that are at hand.
Place = tuple[Inventory, Held]


class ProvenBases:
    """
    The blobs of some places, for recipes to build on. A base that a recipe uses is hashed once, however often is
    planned. `refused` are those whose bytes are wrong or cannot be read, and why.
    """

    def __init__(self, places: Sequence[Place], progress: Progress) -> None:
        self._places, self._progress = places, progress
        self._proven: set[Digest] = set()
        self.refused: dict[Digest, OSError | OstoreError] = {}

    def plan(
        self, selection: Selection, blobs: OpenBlobs, *, shares: bool
    ) -> tuple[Selection, dict[Digest, PlannedRecipe]]:
        """
        Return what `with_recipes` returns. It is planned again without each base that turns out to be wrong.

        Raises what `with_recipes` raises of blobs of the selection.
        """
        while True:
            try:
                known = {basis.blob.digest: basis for basis in self._bases()}
                planned = with_recipes(selection, blobs, known.values(), shares=shares, progress=self._progress)
                self._prove(known, planned[0])
            except SourceFailureError as failure:
                if failure.digest is None or any(blob.digest == failure.digest for blob in selection.blobs):
                    raise
                self.refused[failure.digest] = failure.error
            else:
                return planned

    def _bases(self) -> Iterator[Basis]:
        for inventory, bytes_of in self._places:
            yield from basis_blobs(inventory, partial(self._held, bytes_of))

    def _held(self, bytes_of: Held, digest: Digest, /) -> BytesAt | None:
        return None if digest in self.refused else bytes_of(digest)

    def _prove(self, known: Mapping[Digest, Basis], selection: Selection) -> None:
        """Hash the bases at hand that recipes use. Raises SourceFailureError, which names the one that is wrong."""
        used = dict.fromkeys(base for made in selection.recipes for base in made.bases if base not in self._proven)
        unproven = [(known[base].blob, data) for base in used if base in known and (data := known[base].data)]
        if unproven:
            self._progress.phase("verifying sha256 digest", sum(blob.size for blob, _ in unproven))
        for blob, data in unproven:
            chunks = watched(read_chunks_at(data, blob.size), blob.digest.short, blob.size, self._progress)
            with marking(blob.digest):
                deque(verified(chunks, blob), maxlen=0)
            self._proven.add(blob.digest)
