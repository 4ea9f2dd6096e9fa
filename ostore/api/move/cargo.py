"""Find the cargo of a move: models with their blobs, and blobs that no model needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, IntegrityError, OstoreError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName, choose
from ostore.formats.selection import Selection
from ostore.operations.move import UNTIL_THEN, blobs_of_no_model, refuse_doubts
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.census import Census
from ostore.places.store.survey.manifest_tree import ManifestTree, find_manifests
from ostore.places.store.survey.scan import ManifestScan
from ostore.places.store.survey.survey import Survey, survey
from ostore.streams.progress import Progress, watching
from ostore.streams.verified import hash_file


@dataclass(frozen=True, slots=True)
class Cargo:
    """
    What goes from `source` to `target`: models with their blobs, and blobs of no model.

    If the whole store moves (`is_whole`), `along` are its models' blobs that are files, and `census` what else was in
    `blobs/`; else `along` is empty. `strays` are entries among the manifests that are no manifests. `modified` are the
    times of the models' manifests, nanoseconds since 1970. `damaged` blobs stay, because no model needs them.
    """

    source: LocalStore
    target: LocalStore
    along: frozenset[Digest]
    census: Census
    strays: tuple[str, ...]
    is_whole: bool
    selection: Selection
    modified: Mapping[ModelName, int]
    damaged: frozenset[Digest]


def load_cargo(
    source: LocalStore, target: LocalStore, patterns: Sequence[str], progress: Progress, *, hashed: bool
) -> Cargo:
    """
    Return the cargo: the models that `patterns` match, or the whole store. With `hashed`, blobs of no model are hashed.

    Raises DamagedStoreError if a manifest or folder of the store cannot be read or a model may not move; NotFoundError,
    InvalidNameError; AmbiguousManifestError, FormatError or LimitError for a manifest that must not travel;
    UnsafeError, OSError.
    """
    found = survey(source.root)
    found.references.scan.tree.refuse_closed()
    refuse_doubts(found.references)
    scan, census, along, strays = _some(source, target, patterns, found) if patterns else _everything(found)
    selection = source.select_scanned(scan, patterns)
    try:
        # A store moves as a whole, or not at all.
        selection.refuse_left(strict=True)
    except OstoreError as error:
        error.hint = error.hint or UNTIL_THEN
        raise
    damaged = _damaged(source, target, strays, progress) if hashed else frozenset()
    kept = tuple(blob for blob in strays if blob.digest not in damaged)
    return Cargo(
        source,
        target,
        along,
        census,
        tuple(stray.path for stray in found.references.scan.strays) + found.references.scan.side_files,
        not patterns,
        replace(selection, blobs=(*selection.blobs, *kept)),
        {model.name: model.status.st_mtime_ns for model in scan.models},
        damaged,
    )


_Load = tuple[ManifestScan, Census, frozenset[Digest], list[Descriptor]]


def _some(source: LocalStore, target: LocalStore, patterns: Sequence[str], found: Survey) -> _Load:
    here, there = _named(source, target, patterns)
    scan = source.scan([name.full for name in here]) if here else ManifestScan((), (), ManifestTree())
    census = found.census_of({blob.digest for blob in there})
    # An interrupted move may have brought these blobs to the target and left them here. They go now.
    strays = blobs_of_no_model(census, found.references.users)
    return scan, census, frozenset(), [blob for blob in strays if target.size_of(blob.digest) == blob.size]


def _everything(found: Survey) -> _Load:
    scan = found.references.scan
    named = {digest for model in scan.models for digest, _ in model.manifest.sizes}
    # The disk need not be asked about the blobs of models, of which there may be sixty thousand.
    files = {entry.name for entry in found.listed if entry.is_file(follow_symlinks=False)}
    along = frozenset(Digest(digits) for digits in named if f"sha256-{digits}" in files)
    census = found.census(without=along)
    return scan, census, along, blobs_of_no_model(census, {Digest(digits) for digits in named})


def _named(source: LocalStore, target: LocalStore, patterns: Sequence[str]) -> tuple[list[ModelName], list[Descriptor]]:
    """
    Return the models of the source that match, and the blobs of matching models that only the target has.

    Those may have been moved before. Raises NotFoundError for a pattern that matches no model of either store.
    """
    trees = {store: find_manifests(store.root) for store in (source, target)}
    names = {store: [entry.name for entry in tree.entries if entry.name] for store, tree in trees.items()}
    here, _ = choose(names[source], patterns)
    there, _ = choose(names[target], patterns)
    _, unknown = choose((*names[source], *names[target]), patterns)
    if unknown:
        raise source.no_model(unknown[0], trees[source])
    before = [name.full for name in there if name not in here]
    if not before:
        return here, []
    return here, [blob for model in target.scan(before).models for blob in model.manifest.blobs]


def _damaged(
    source: LocalStore, target: LocalStore, strays: Iterable[Descriptor], progress: Progress
) -> frozenset[Digest]:
    """Hash the blobs of no model, and return the damaged ones. Such a blob must not keep the models from moving."""
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
