"""
Replace what is damaged in a store by good copies from elsewhere. Nothing else is touched.

`find_lack` and `plan_repair` decide and do no I/O. `gather` reads the sources in the order given, until nothing is
missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, OstoreError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.selection import SelectedModel, Selection, Wanted
from ostore.operations.transfer import BlobSource, Inbox, Source
from ostore.operations.verify import Problem, ProblemKind
from ostore.streams.progress import Progress, watched
from ostore.streams.source_failure import SourceFailureError, marked

_REPLACEABLE: frozenset[ProblemKind] = frozenset(
    {"blob-missing", "blob-size", "blob-altered", "blob-unreadable", "blob-not-regular"}
)


class _Model(Protocol):
    @property
    def manifest(self) -> Manifest: ...


class _Entry(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def name(self) -> ModelName | None: ...


@dataclass(frozen=True, slots=True)
class Lack:
    """
    What a store lacks.

    `blobs` maps digests to the size in bytes that the store's models promise, or to None if no model names the blob.
    `manifests` are the names of damaged manifests. `left` are the problems that no copy repairs, with the reason.
    """

    blobs: dict[Digest, int | None]
    manifests: tuple[ModelName, ...]
    left: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """The models and blobs that one source may have of what is wanted."""

    source: BlobSource
    models: Sequence[Selection]
    blobs: Sequence[Descriptor]


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """
    What a repair takes in: `damaged` blobs, and models with all blobs that they need.

    `manifests_from` maps each model to the index of the offer that has its manifest. `notes` say why a source's model
    is not taken.
    """

    selection: Selection
    damaged: frozenset[Digest]
    offers: tuple[Offer, ...]
    manifests_from: dict[ModelName, int]
    notes: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not self.selection.blobs and not self.selection.models

    @property
    def origins(self) -> dict[Digest, str]:
        """The label of the first source that may have each blob."""
        return {blob.digest: offer.source.label for offer in reversed(self.offers) for blob in offer.blobs}


@dataclass(frozen=True, slots=True)
class Gathered:
    """The label of the source of each blob that was taken. `notes` say what sources failed to deliver."""

    origins: dict[Digest, str]
    notes: tuple[str, ...]


def find_lack(
    problems: Iterable[Problem],
    models: Iterable[_Model],
    unreadable: Iterable[_Entry],
    obstacles: Mapping[Digest, str],
) -> Lack:
    """
    Sort problems into those that a copy repairs and those that none does.

    `models` and `unreadable` are what a scan of the store found. `obstacles` maps blobs that cannot be replaced to the
    reason.
    """
    promises = _promises(models)
    names = {entry.path: entry.name for entry in unreadable if entry.name and entry.path.startswith("manifests/")}
    blobs: dict[Digest, int | None] = {}
    manifests: list[ModelName] = []
    left: list[Problem] = []
    for problem in problems:
        if problem.kind in _REPLACEABLE:
            digest = Digest.parse(problem.subject)
            sizes = promises.get(digest, ())
            reason = obstacles.get(digest) or ("its manifests promise different sizes" if len(sizes) > 1 else None)
            if reason is None:
                blobs[digest] = next(iter(sizes), None)
            else:
                left.append(Problem(problem.kind, problem.subject, reason, problem.models))
        elif problem.kind == "manifest-damaged" and problem.subject in names:
            manifests.append(names[problem.subject])
        else:
            left.append(problem)
    return Lack(blobs, tuple(manifests), tuple(left))


def plan_repair(
    lack: Lack, offers: Sequence[Offer], *, standing: Collection[Digest], obstacles: Collection[Digest]
) -> RepairPlan:
    """
    Decide what to take from which source. No I/O.

    A model comes from the first source that has it, if each of its blobs is `standing` or offered by some source, and
    none is in `obstacles`. A `standing` blob is a file of the right size that is not known to be wrong.
    """
    offered: dict[Digest, Descriptor] = {}
    for offer in offers:
        for blob in offer.blobs:
            offered.setdefault(blob.digest, blob)
    chosen = {digest: offered[digest] for digest in lack.blobs if digest in offered}
    having = _by_name(offers)
    models: list[SelectedModel] = []
    manifests_from: dict[ModelName, int] = {}
    notes: list[str] = []
    for name in lack.manifests:
        for number, selection in having.get(name.folded, ()):
            reason = _why_not(selection, chosen, offered, standing, obstacles)
            if reason:
                notes.append(f"{offers[number].source.label}: {selection.models[0].name}: {reason}")
                continue
            models += selection.models
            manifests_from[selection.models[0].name] = number
            chosen |= {blob.digest: blob for blob in (*selection.blobs, *selection.requires)}
            break
    return RepairPlan(
        Selection(tuple(models), tuple(chosen.values())),
        frozenset(lack.blobs.keys() & chosen.keys()),
        tuple(offers),
        manifests_from,
        tuple(notes),
    )


def gather(plan: RepairPlan, inbox: Inbox, progress: Progress) -> Gathered:
    """
    Take the planned blobs from each source in turn, until nothing is missing, then write the manifests.

    If a copy is wrong or cannot be read, add a note and ask the next source. Raises OSError if the store's own disk
    fails.
    """
    origins: dict[Digest, str] = {}
    manifests: dict[ModelName, bytes] = {}
    notes: list[str] = []
    for number, offer in enumerate(plan.offers):
        missing = {(one.blob.digest, one.blob.size) for one in inbox.missing}
        lacking = [Wanted(blob) for blob in offer.blobs if (blob.digest, blob.size) in missing]
        models = [model for model in plan.selection.models if plan.manifests_from[model.name] == number]
        if lacking or models:
            progress.phase("repairing", sum(wanted.size for wanted in lacking))
        try:
            for digest, problem in _take_blobs(offer.source, lacking, inbox, progress):
                if problem is None:
                    origins[digest] = offer.source.label
                else:
                    notes.append(_note(offer.source, problem))
            # To read manifests can mean to read a whole bundle, so do it only if one is wanted.
            if models and isinstance(offer.source, Source):
                manifests.update(marked(offer.source.read_manifests(models)))
        except SourceFailureError as failure:
            notes.append(_note(offer.source, failure))
    for name, raw in manifests.items():
        try:
            inbox.write_manifest(name, raw)
        except OstoreError as error:
            notes.append(str(error))
    return Gathered(origins, tuple(notes))


def _take_blobs(
    source: BlobSource, lacking: Sequence[Wanted], inbox: Inbox, progress: Progress
) -> Iterator[tuple[Digest, Exception | None]]:
    """Write what a source delivers. Yield each blob with None, or with the error of a copy that was not taken."""
    taken: set[Digest] = set()
    for wanted, chunks in marked(source.read_blobs(lacking, inbox.held)) if lacking else ():
        blob = wanted.blob
        # A folder may have two copies of a blob.
        if blob.digest in taken:
            continue
        try:
            inbox.write_blob(wanted, watched(marked(chunks), blob.digest.short, blob.size, progress))
        except (BlobError, SourceFailureError) as error:
            yield blob.digest, error
        else:
            taken.add(blob.digest)
            yield blob.digest, None


def _note(source: BlobSource, problem: Exception) -> str:
    # The errors of a bundle begin with its path, which is also its label.
    return f"{source.label}: {str(problem).removeprefix(f'{source.label}: ')}"


def _promises(models: Iterable[_Model]) -> dict[Digest, set[int]]:
    sizes: dict[Digest, set[int]] = {}
    for model in models:
        for blob in model.manifest.descriptors:
            sizes.setdefault(blob.digest, set()).add(blob.size)
    return sizes


def _by_name(offers: Sequence[Offer]) -> dict[str, list[tuple[int, Selection]]]:
    """Return the offers (by index, in order) that have a model of each folded name."""
    having: dict[str, list[tuple[int, Selection]]] = {}
    for number, offer in enumerate(offers):
        for selection in offer.models:
            having.setdefault(selection.models[0].name.folded, []).append((number, selection))
    return having


def _why_not(
    selection: Selection,
    chosen: Mapping[Digest, Descriptor],
    offered: Mapping[Digest, Descriptor],
    standing: Collection[Digest],
    obstacles: Collection[Digest],
) -> str | None:
    """Return why a model cannot be taken, or None."""
    for blob in (*selection.blobs, *selection.requires):
        if blob.digest in obstacles:
            return f"blob {blob.digest}: something is in its place"
        if blob.digest in chosen and chosen[blob.digest].size != blob.size:
            return f"blob {blob.digest}: another size than the store's own models promise"
        if blob.digest not in standing and blob.digest not in offered:
            return f"blob {blob.digest}: in no source named"
    return None
