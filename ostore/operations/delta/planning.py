"""Let a selection travel with recipes in place of whole blobs, where that saves something."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ostore.formats.digest import Digest
from ostore.formats.inventory import HeldBlob, Inventory
from ostore.formats.manifest import Descriptor
from ostore.formats.recipe import MAX_DEPTH, MadeBlob
from ostore.formats.selection import Selection, Wanted
from ostore.operations.delta.search import Bases, Basis, PlannedRecipe, plan_recipe
from ostore.operations.transfer import Source
from ostore.streams.bytes_at import Held
from ostore.streams.chunks import Chunk
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.progress import Progress, watching
from ostore.streams.source_failure import MarkedBytes, marking


class WithRecipes:
    """A source that gives recipes, as they are stored, beside its blobs. Everything else is as the source has it."""

    def __init__(self, source: Source, recipes: Mapping[Digest, PlannedRecipe], blobs: OpenBlobs) -> None:
        """`recipes` are by their digests as they are stored."""
        self._source, self._recipes, self._blobs = source, recipes, blobs
        self.label = source.label
        self.can_resume = source.can_resume
        self.select = source.select
        self.find_models = source.find_models
        self.find_blobs = source.find_blobs
        self.file_of = source.file_of
        self.read_manifests = source.read_manifests

    def read_blobs(self, wanted: Sequence[Wanted], held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """Yield what is wanted, blobs of the source first. Raises what the source raises."""
        yield from self._source.read_blobs([one for one in wanted if one.blob.digest not in self._recipes], held)
        for one in wanted:
            if planned := self._recipes.get(one.blob.digest):
                yield Wanted(one.blob), self._read(planned)

    def _read(self, planned: PlannedRecipe) -> Iterator[Chunk]:
        yield from planned.read(self._blobs.at(planned.made.blob.digest))


def basis_blobs(inventory: Inventory, bytes_of: Held) -> Iterator[Basis]:
    """
    Yield the blobs of a place that recipes can build on: those at hand, and those whose tensors are listed.

    Raises SourceFailureError, which names the blob, if one at hand cannot be read.
    """
    for blob in inventory.blobs:
        if not blob.is_staged and (basis := _basis(blob, bytes_of)) is not None:
            yield basis


def _basis(blob: HeldBlob, bytes_of: Held) -> Basis | None:
    with marking(blob.digest):
        data = bytes_of(blob.digest)
    if data is None:
        return Basis.of_listed(blob)
    return Basis.of(Descriptor(blob.digest, blob.size), MarkedBytes(data, blob.digest))


def with_recipes(
    selection: Selection, blobs: OpenBlobs, bases: Iterable[Basis], *, shares: bool, progress: Progress
) -> tuple[Selection, dict[Digest, PlannedRecipe]]:
    """
    Return the selection in which blobs are made by recipes, and the recipes by their digests as they are stored.

    `bases` are blobs that the target has. With `shares`, recipes build on other blobs of the selection too. Blobs that
    may be worth a recipe are hashed. Raises BlobError for a damaged one. Raises SourceFailureError, which names the
    blob or base that cannot be read.
    """
    outside = {basis.blob.digest: basis for basis in bases}
    known = Bases(outside.values())
    planned: list[PlannedRecipe] = []
    depths: dict[Digest, int] = {}
    progress.phase("comparing tensors", sum(blob.size for blob in selection.blobs))
    for blob in selection.blobs:
        with marking(blob.digest):
            data = MarkedBytes(blobs.at(blob.digest), blob.digest)
        with watching(blob.digest.short, blob.size, progress) as advance:
            recipe = plan_recipe(blob, data, known, advance)
        if recipe:
            planned.append(recipe)
            depths[blob.digest] = 1 + max(depths.get(base, 0) for base in recipe.made.bases)
        if shares and depths.get(blob.digest, 0) < MAX_DEPTH and (basis := Basis.of(blob, data)):
            known.add(basis)
    return _made(selection, [recipe.made for recipe in planned], outside), {
        recipe.made.stored.digest: recipe for recipe in planned
    }


def _made(selection: Selection, recipes: Sequence[MadeBlob], outside: Mapping[Digest, Basis]) -> Selection:
    """Return the selection with these recipes. Blobs that they build on and that it does not have become required."""
    makers = {made.blob.digest for made in recipes}
    known = selection.sizes
    bases = dict.fromkeys(base for made in recipes for base in made.bases if base not in known)
    return replace(
        selection,
        blobs=(
            *(blob for blob in selection.blobs if blob.digest not in makers),
            *(made.blob for made in recipes),
        ),
        requires=(*selection.requires, *(outside[base].blob for base in bases)),
        recipes=tuple(recipes),
    )
