"""
Repairing a store: what was found damaged is replaced by good copies from elsewhere, and nothing else is touched.

`find_lack` and `plan_repair` decide and touch no disk; `gather` walks over the sources in the order given, until
nothing is wanted any more.
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
    What a store lacks: blobs, with the size that its models promise (None if none does), and the names of manifests.

    `left` are the problems that no copy repairs, with what a person can do about them.
    """

    blobs: dict[Digest, int | None]
    manifests: tuple[ModelName, ...]
    left: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """What one source may have of it."""

    source: BlobSource
    models: Sequence[Selection]
    blobs: Sequence[Descriptor]


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """
    What is going to be taken in: `damaged` blobs, and models with all that they need.

    `manifests_from` says from which offer a model's manifest is to come; `notes` why some model is not among them.
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
        """The first source that may have each blob."""
        return {blob.digest: offer.source.label for offer in reversed(self.offers) for blob in offer.blobs}


@dataclass(frozen=True, slots=True)
class Gathered:
    """Which blobs were taken, and from where (labels); `notes` is what a source turned out not to have."""

    origins: dict[Digest, str]
    notes: tuple[str, ...]


def find_lack(
    problems: Iterable[Problem],
    models: Iterable[_Model],
    unreadable: Iterable[_Entry],
    obstacles: Mapping[Digest, str],
) -> Lack:
    """Sort problems into what a copy repairs and what not. `obstacles` says which blobs cannot be replaced, and why."""
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
    Decide what to take from where; no I/O.

    A model is taken from the first source that has it, if every blob of it is `standing` (a file of its size is there,
    and not known to be wrong) or offered by some source, and none has `obstacles`.
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
    Take what is planned from each source in turn, until nothing is missing; then write the manifests.

    A copy that is not what it should be, or cannot be read, is noted, and the next source asked. Raises OSError for the
    store's own disk.
    """
    origins: dict[Digest, str] = {}
    manifests: dict[ModelName, bytes] = {}
    notes: list[str] = []
    for number, offer in enumerate(plan.offers):
        offered = {blob.digest: blob.size for blob in offer.blobs}
        lacking = [Wanted(one.blob) for one in inbox.missing if offered.get(one.blob.digest) == one.blob.size]
        models = [model for model in plan.selection.models if plan.manifests_from[model.name] == number]
        if lacking or models:
            progress.phase("repairing", sum(wanted.size for wanted in lacking))
        try:
            for digest, problem in _take_blobs(offer.source, lacking, inbox, progress):
                if problem is None:
                    origins[digest] = offer.source.label
                else:
                    notes.append(_note(offer.source, problem))
            # A source is not read to its end for nothing.
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
    """Write what a source delivers; yields each blob with None, or with the reason why a copy of it was not taken."""
    taken: set[Digest] = set()
    for wanted, chunks in marked(source.read_blobs(lacking, inbox.held)) if lacking else ():
        blob = wanted.blob
        # Of some blobs a folder has two copies.
        if blob.digest in taken:
            continue
        try:
            inbox.write_blob(wanted, marked(watched(chunks, blob.digest.short, blob.size, progress)))
        except (BlobError, SourceFailureError) as error:
            yield blob.digest, error
        else:
            taken.add(blob.digest)
            yield blob.digest, None


def _note(source: BlobSource, problem: Exception) -> str:
    # A bundle's own errors name it by its path, which is its label already.
    return f"{source.label}: {str(problem).removeprefix(f'{source.label}: ')}"


def _promises(models: Iterable[_Model]) -> dict[Digest, set[int]]:
    sizes: dict[Digest, set[int]] = {}
    for model in models:
        for blob in model.manifest.descriptors:
            sizes.setdefault(blob.digest, set()).add(blob.size)
    return sizes


def _by_name(offers: Sequence[Offer]) -> dict[str, list[tuple[int, Selection]]]:
    """Which offers have a model of each name (folded), in their order."""
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
    """Why a model cannot be taken, or None."""
    for blob in (*selection.blobs, *selection.requires):
        if blob.digest in obstacles:
            return f"blob {blob.digest}: something is in its place"
        if blob.digest in chosen and chosen[blob.digest].size != blob.size:
            return f"blob {blob.digest}: another size than the store's own models promise"
        if blob.digest not in standing and blob.digest not in offered:
            return f"blob {blob.digest}: in no source named"
    return None
