"""
What takes up a store's room, and what deleting would give back: every byte once, as `du` of coreutils counts.

A file counts once however many names it has, under the first of the kinds below that one of its names belongs to. What
removing frees is exact: a file is gone only when its last name is, and a name may lie outside the store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from ostore.formats.name import ModelName
from ostore.places.store.census import Census, DiskFacts, EntryKind, FoundTree, StoredBlob
from ostore.places.store.references import References
from ostore.places.store.remainder import Remainder
from ostore.places.store.scan import StoredModel

# In the order in which a file with several names is looked for.
UsageKind = Literal[
    "shared",
    "unique",
    "mentioned",
    "manifests",
    "folders",
    "foreign",
    "orphans",
    "downloads",
    "temporary",
    "working-folders",
    "workspace",
]
_Owners = tuple[ModelName, ...]
_Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes on the disk, as `du` has them, and bytes that reading gives: more in sparse files, less in small ones."""

    allocated: int
    apparent: int


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """
    One model: its blobs that are there, those that other models need as well, and those that none does.

    `frees` is what removing this model alone gives back, its manifest not counted; less than `unique` if a file has
    other names. `missing` are the digests of blobs that are not there.
    """

    name: str
    blobs: int
    size: Space
    shared: Space
    unique: Space
    frees: Space
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UsagePart:
    """All of one kind, and what of it deleting everything RECLAIMABLE gives back."""

    kind: UsageKind
    files: int
    size: Space
    reclaimable: Space


@dataclass(frozen=True, slots=True)
class SharedBlobs:
    """Blobs that exactly these models need."""

    models: tuple[str, ...]
    blobs: int
    size: Space


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """
    What was asked for is in `models`, largest first, and `frees` is what removing all of them together gives back. The
    rest is about the whole store: `parts` add up to `total`, `shared_blobs` to the part of that kind.
    """

    models: tuple[ModelUsage, ...]
    frees: Space
    total: Space
    shared: Space
    unique: Space
    reclaimable: Space
    parts: tuple[UsagePart, ...]
    shared_blobs: tuple[SharedBlobs, ...]


def measure_usage(
    census: Census, references: References, remainder: Remainder, models: Sequence[StoredModel]
) -> StoreUsage:
    """Add up a store. `models` are those that are asked for, some or all of `references.scan`."""
    files = list(_needed_files(census, references, remainder))
    leftovers = dict(_leftovers(census, references))
    reclaimed = _Names.of(facts for found in leftovers.values() for facts in found)
    once = _Once()
    parts = [_part(kind, [file.facts for file in files if file.kind == kind], once) for kind in _NEEDED]
    parts += (_part(kind, facts, once) for kind, facts in _bystanders(census, remainder))
    parts += (_part(kind, facts, once, reclaimed) for kind, facts in leftovers.items())
    spaces = {part.kind: part.size for part in parts}
    return StoreUsage(
        models=_model_rows(files, models, _present(census, remainder)),
        frees=_freed_together(files, {model.name for model in models}),
        total=_sum(part.size for part in parts),
        shared=spaces["shared"],
        unique=spaces["unique"],
        reclaimable=_sum(part.reclaimable for part in parts),
        parts=tuple(parts),
        shared_blobs=_shared_blobs(files),
    )


_NEEDED: tuple[UsageKind, ...] = ("shared", "unique", "mentioned")


@dataclass(slots=True)
class _Sum:
    allocated: int = 0
    apparent: int = 0

    def add(self, facts: DiskFacts) -> None:
        self.allocated += facts.allocated
        # A folder's own size means nothing, as coreutils has it since 9.2.
        self.apparent += facts.size if facts.kind in {EntryKind.FILE, EntryKind.LINK} else 0

    @property
    def space(self) -> Space:
        return Space(self.allocated, self.apparent)


def _sum(spaces: Iterable[Space]) -> Space:
    listed = list(spaces)
    return Space(sum(space.allocated for space in listed), sum(space.apparent for space in listed))


@dataclass(frozen=True, slots=True)
class _NeededFile:
    """A file behind one or several blobs: who needs any of them, and whether its last name goes when they all do."""

    facts: DiskFacts
    owners: _Owners
    goes: bool

    @property
    def kind(self) -> UsageKind:
        return "shared" if len(self.owners) > 1 else "unique" if self.owners else "mentioned"


def _needed_files(census: Census, references: References, remainder: Remainder) -> Iterator[_NeededFile]:
    linked: dict[_Identity, list[StoredBlob]] = defaultdict(list)
    for blob in census.blobs:
        owners = references.users.get(blob.digest)
        if owners is not None and _may_have_other_names(blob.facts):
            linked[blob.facts.identity].append(blob)
        elif owners is not None:
            yield _NeededFile(blob.facts, owners, goes=True)
    # A manifest that is a second name of a blob (branch pdevine/addressable-manifest) goes with its model.
    manifests = _Names.of(entry.facts for entry in remainder.manifests) if linked else _Names()
    for identity, blobs in linked.items():
        facts = blobs[0].facts
        names = len(blobs) + manifests.count(identity)
        owners = tuple(sorted(set(chain.from_iterable(references.users[blob.digest] for blob in blobs))))
        yield _NeededFile(facts, owners, goes=names >= facts.links)


def _may_have_other_names(facts: DiskFacts) -> bool:
    return facts.links > 1 and facts.kind is not EntryKind.FOLDER


@dataclass(slots=True)
class _Names:
    """How many names of each file are among some entries; only files that may have several are kept."""

    _counts: dict[_Identity, int] = field(default_factory=lambda: defaultdict(int))

    @classmethod
    def of(cls, facts: Iterable[DiskFacts]) -> _Names:
        names = cls()
        for found in facts:
            if _may_have_other_names(found):
                names._counts[found.identity] += 1
        return names

    def count(self, identity: _Identity) -> int:
        return self._counts.get(identity, 0)

    def are_all_of(self, facts: DiskFacts) -> bool:
        return not _may_have_other_names(facts) or self.count(facts.identity) >= facts.links


@dataclass(slots=True)
class _Once:
    """Which files were counted already; as in `du`, one with a single name needs no remembering."""

    _seen: set[_Identity] = field(default_factory=set)

    def is_new(self, facts: DiskFacts) -> bool:
        if not _may_have_other_names(facts):
            return True
        is_new = facts.identity not in self._seen
        self._seen.add(facts.identity)
        return is_new


def _part(kind: UsageKind, found: Collection[DiskFacts], once: _Once, reclaimed: _Names | None = None) -> UsagePart:
    size, freed = _Sum(), _Sum()
    files = 0
    for facts in found:
        files += facts.kind is not EntryKind.FOLDER
        if once.is_new(facts):
            size.add(facts)
            if reclaimed is not None and reclaimed.are_all_of(facts):
                freed.add(facts)
    return UsagePart(kind, files, size.space, freed.space)


def _bystanders(census: Census, remainder: Remainder) -> Iterator[tuple[UsageKind, list[DiskFacts]]]:
    """What no model needs as a blob and nobody should delete for room: ours to keep, or not ours to judge."""
    yield "manifests", [entry.facts for entry in remainder.manifests]
    places = [tree.facts for tree in (census.workspace, census.staging) if tree.facts]
    rooms = [entry.facts for entry in census.workspace.folders if "/" not in entry.path]
    yield "folders", [*(entry.facts for entry in remainder.folders), *places, *rooms]
    yield "foreign", [entry.facts for entry in (*census.foreign, *remainder.foreign)]


def _leftovers(census: Census, references: References) -> Iterator[tuple[UsageKind, list[DiskFacts]]]:
    """What can be deleted without harm to any model."""
    yield "orphans", [blob.facts for blob in census.blobs if blob.digest not in references.users]
    yield "downloads", [file.facts for download in census.downloads for file in download.files]
    yield "temporary", [entry.facts for entry in census.temporary]
    yield "working-folders", [facts for tree in census.working_folders for facts in _whole(tree)]
    # Its own folder and the first level of it stay for the next command.
    inside = [entry.facts for entry in census.workspace.folders if "/" in entry.path]
    staged = [entry.facts for entry in (*census.staging.files, *census.staging.folders)]
    yield "workspace", [*(entry.facts for entry in census.workspace.files), *inside, *staged]


def _whole(tree: FoundTree) -> list[DiskFacts]:
    own = [tree.facts] if tree.facts else []
    return own + [entry.facts for entry in (*tree.files, *tree.folders)]


def _present(census: Census, remainder: Remainder) -> frozenset[str]:
    return frozenset(blob.digest.hex for blob in census.blobs if blob.digest not in remainder.dangling)


@dataclass(slots=True)
class _Row:
    blobs: int = 0
    shared: _Sum = field(default_factory=_Sum)
    unique: _Sum = field(default_factory=_Sum)
    frees: _Sum = field(default_factory=_Sum)

    def add(self, file: _NeededFile) -> None:
        self.blobs += 1
        if len(file.owners) > 1:
            self.shared.add(file.facts)
            return
        self.unique.add(file.facts)
        if file.goes:
            self.frees.add(file.facts)


def _model_rows(
    files: Iterable[_NeededFile], models: Sequence[StoredModel], present: frozenset[str]
) -> tuple[ModelUsage, ...]:
    rows = {model.name: _Row() for model in models}
    for file in files:
        for owner in file.owners:
            row = rows.get(owner)
            if row is not None:
                row.add(file)
    # A name that is in both trees of manifests is one model.
    usages = [_usage(model, rows[name], present) for name, model in {model.name: model for model in models}.items()]
    return tuple(sorted(usages, key=lambda usage: (-usage.size.allocated, usage.name)))


def _usage(model: StoredModel, row: _Row, present: frozenset[str]) -> ModelUsage:
    return ModelUsage(
        name=str(model.name),
        blobs=row.blobs,
        size=_sum((row.shared.space, row.unique.space)),
        shared=row.shared.space,
        unique=row.unique.space,
        frees=row.frees.space,
        missing=tuple(str(blob.digest) for blob in model.manifest.blobs if blob.digest.hex not in present),
    )


def _freed_together(files: Iterable[_NeededFile], removed: Collection[ModelName]) -> Space:
    freed = _Sum()
    for file in files:
        if file.goes and file.owners and all(owner in removed for owner in file.owners):
            freed.add(file.facts)
    return freed.space


def _shared_blobs(files: Iterable[_NeededFile]) -> tuple[SharedBlobs, ...]:
    groups: dict[_Owners, list[DiskFacts]] = defaultdict(list)
    for file in files:
        if len(file.owners) > 1:
            groups[file.owners].append(file.facts)
    found = [SharedBlobs(tuple(map(str, owners)), len(facts), _space(facts)) for owners, facts in groups.items()]
    return tuple(sorted(found, key=lambda group: (-group.size.allocated, group.models)))


def _space(found: Iterable[DiskFacts]) -> Space:
    total = _Sum()
    for facts in found:
        total.add(facts)
    return total.space
