"""What a move takes along: models with their blobs, and the blobs that lie beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, IntegrityError, NotFoundError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName, choose
from ostore.formats.selection import Selection
from ostore.operations.moving import refuse_doubts, refuse_what_cannot_move, stray_blobs
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.census import Census, take_census
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.places.store.survey.references import find_references
from ostore.places.store.survey.scan import find_blobs
from ostore.streams.progress import Progress, watching
from ostore.streams.verified import hash_file


@dataclass(frozen=True, slots=True)
class Cargo:
    """
    What goes along: models, and blobs beside theirs. `damaged` blobs stay, as nobody needs them.

    It goes from `source` to `target`. `manifests` are the bytes of the models' manifests as they were read; `modified`
    their times. `along` are the names of the files that are the models' blobs, `census` is what else was there, and
    `strays` lies among the manifests without being one.
    """

    source: LocalStore
    target: LocalStore
    along: frozenset[str]
    census: Census
    strays: tuple[str, ...]
    is_whole: bool
    selection: Selection
    manifests: Mapping[ModelName, bytes]
    modified: Mapping[ModelName, int]
    damaged: frozenset[Digest]


def load_cargo(
    source: LocalStore, target: LocalStore, patterns: Sequence[str], progress: Progress, *, hashed: bool
) -> Cargo:
    """
    The models that `patterns` stand for, or the whole store; without `hashed`, every blob counts as sound.

    Raises DamagedStoreError for a store that nobody can understand whole, and as `LocalStore.select`.
    """
    # What is finished between the two can then only add to what is needed.
    files, references = _files(source), find_references(source.root)
    refuse_doubts(references)
    if patterns:
        here, there = _named(source, target, patterns)
        selection = source.select([name.full for name in here]) if here else Selection((), ())
        along = frozenset[str]()
        census = take_census(source.root, sorted({blob.digest.filename for blob in there} & files.keys()))
        # A move that was interrupted has proved them there, and left them here.
        strays = [blob for blob in stray_blobs(census, references.users) if target.size_of(blob.digest) == blob.size]
    else:
        refuse_what_cannot_move(references.scan)
        selection = source.select_scanned(references.scan)
        # They need not be asked for anything: there are sixty thousand.
        along = frozenset(name for digest in selection.sizes if files.get(name := digest.filename))
        census = take_census(source.root, [name for name in files if name not in along])
        strays = stray_blobs(census, selection.sizes)
    damaged = _damaged(source, target, strays, progress) if hashed else frozenset()
    kept = tuple(blob for blob in strays if blob.digest not in damaged)
    return Cargo(
        source,
        target,
        along,
        census,
        references.scan.strays,
        not patterns,
        Selection(selection.models, (*selection.blobs, *kept)),
        {model.name: model.manifest.raw for model in source.selected},
        {model.name: model.status.st_mtime_ns for model in source.selected},
        damaged,
    )


def _files(store: LocalStore) -> dict[str, bool]:
    """The names in `blobs/`, and whether each is a file, not a link to one; the disk need not be asked for that."""
    return {entry.name: entry.is_file(follow_symlinks=False) for entry in find_blobs(store.root)}


def _named(source: LocalStore, target: LocalStore, patterns: Sequence[str]) -> tuple[list[ModelName], list[Descriptor]]:
    """The models here that words stand for, and the blobs of those that are only there: moved before, perhaps."""
    names = {store: _names(store) for store in (source, target)}
    here, _ = choose(names[source], patterns)
    there, _ = choose(names[target], patterns)
    _, unknown = choose((*names[source], *names[target]), patterns)
    if unknown:
        raise NotFoundError(f"no model {unknown[0]!r} in {source.root}", hint="ostore list shows what is there")
    before = [name.full for name in there if name not in here]
    if not before:
        return here, []
    return here, [blob for model in target.scan(before).models for blob in model.manifest.blobs]


def _names(store: LocalStore) -> list[ModelName]:
    return [entry.name for entry in find_manifests(store.root).entries if entry.name]


def _damaged(
    source: LocalStore, target: LocalStore, strays: Iterable[Descriptor], progress: Progress
) -> frozenset[Digest]:
    """Blobs without a model are hashed before they go along: a damaged one must not keep the models from moving."""
    unknown = [blob for blob in strays if target.size_of(blob.digest) != blob.size]
    damaged = set()
    if unknown:
        progress.phase("verifying sha256 digest", sum(blob.size for blob in unknown))
    for blob in unknown:
        try:
            told = watching(blob.digest.short, blob.size, progress)
            with source.opened_blob(blob.digest) as fd, told as advance:
                hash_file(fd, blob, advance)
        except (IntegrityError, DamagedStoreError):
            damaged.add(blob.digest)
    return frozenset(damaged)
