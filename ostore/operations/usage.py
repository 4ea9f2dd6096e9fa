"""
Measure the space that a store takes up, and the space that deleting would free, as `du` of coreutils does.

A file counts once, however many names it has. Its kind is the first `UsageKind` that one of its names belongs to. The
space that removing frees is exact: a file is gone only when its last name is, and a name may be outside the store.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, NamedTuple

from ostore.formats.digest import Digest
from ostore.formats.name import ModelName
from ostore.places.store.survey.census import Census, DiskFacts, FoundEntry, FoundTree, StoredBlob, allocated_by
from ostore.places.store.survey.references import References
from ostore.places.store.survey.remainder import Remainder
from ostore.places.store.survey.scan import StoredModel

# The order decides the kind of a file with several names.
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


class Space(NamedTuple):
    """
    Bytes on the disk, as `du` counts them, and bytes that reading gives: more in sparse files, fewer in small ones.

    A tuple, because there are ten thousand, and a frozen dataclass takes three times as long to make.
    """

    allocated: int
    apparent: int


_NOTHING = Space(0, 0)


class ModelUsage(NamedTuple):
    """
    One model. `blobs` counts its blobs that exist, `size` is their space.

    `shared` is the space of blobs that other models need too, `unique` that of the others. `frees` is what removing
    this model alone frees, without its manifest. It is less than `unique` if a file has other names. `missing` are the
    digests of blobs that do not exist.
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
    """All files of one kind. `reclaimable` is their share of what deleting everything reclaimable frees now."""

    kind: UsageKind
    files: int
    size: Space
    reclaimable: Space


@dataclass(frozen=True, slots=True)
class SharedBlobs:
    """The blobs that exactly these models need: how many, and their space."""

    models: tuple[str, ...]
    blobs: int
    size: Space


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """
    The space that a store takes up.

    `models` are the models asked for, largest first. `frees` is what removing all of them together frees. The other
    fields are about the whole store: `parts` add up to `total`, and `shared_blobs` to the part of kind `shared`.
    """

    models: tuple[ModelUsage, ...]
    frees: Space
    total: Space
    shared: Space
    unique: Space
    reclaimable: Space
    parts: tuple[UsagePart, ...]
    shared_blobs: tuple[SharedBlobs, ...]


class Tally:
    """
    Add up needed blobs while a census is taken, so that the census need not keep them.

    Four things are left to `measure_usage`, which knows all names of a file: files with several names, entries that
    are no plain file, blobs with odd names, and blobs that are manifests too.
    """

    def __init__(self, references: References) -> None:
        self.groups: dict[_Owners, _Group] = {}
        # By file name, because to make a digest of each name takes longer than to add up its file.
        self._awaited: dict[str, _Group] = {}
        group = _Group(())
        last: _Owners | None = None
        for digest, owners in references.named.items():
            # The blobs of a model share one tuple. To look it up each time would cost more than everything else.
            if owners is not last:
                last, group = owners, self.groups.setdefault(owners, _Group(owners))
            self._awaited[f"sha256-{digest.hex}"] = group
        self._manifests = references.named.keys() & references.documents.keys()
        for digest in self._manifests:
            del self._awaited[digest.filename]

    def count(self, filename: str, status: os.stat_result) -> bool:
        """Add up a file of `blobs/`. Return False if it is left to `measure_usage`."""
        if status.st_nlink > 1 or not stat.S_ISREG(status.st_mode):
            return False
        group = self._awaited.pop(filename, None)
        if group is None:
            return False
        group.files += 1
        group.allocated += allocated_by(status)
        group.apparent += status.st_size
        return True

    @property
    def uncounted(self) -> set[Digest]:
        """The digests that models name and that were not added up. Most of them have no file."""
        return self._manifests.union(filter(None, map(Digest.of_filename, self._awaited)))


def measure_usage(
    tally: Tally,
    census: Census,
    references: References,
    remainder: Remainder,
    models: Sequence[StoredModel],
    *,
    going: Iterable[FoundEntry],
) -> StoreUsage:
    """
    Add up a store: what `tally` counted while the census was taken, and what the census kept.

    `models` are the models asked for, some or all of `references.scan`. `going` is what `gc` with
    `partials` would take now: of the orphans, the downloads and the workspace, nothing else is reclaimable.
    """
    once = _Once()
    groups, orphans, absent = _sort_out(tally, census, references, remainder, once)
    leftovers = list(_leftovers(census, orphans, frozenset(going)))
    reclaimed = _Names.of(chain.from_iterable(leftover.facts for leftover in leftovers if leftover.goes))
    parts = [_needed_part(kind, groups.values()) for kind in _NEEDED]
    parts += (_part(kind, facts, once) for kind, facts in _bystanders(census, remainder))
    parts += (_part(kind, facts, once, reclaimed if goes else None) for kind, facts, goes in leftovers)
    parts = _by_kind(parts)
    spaces = {part.kind: part.size for part in parts}
    return StoreUsage(
        models=_model_rows(groups, models, absent),
        frees=_freed_together(groups, {model.name for model in models}),
        total=_sum(part.size for part in parts),
        shared=spaces["shared"],
        unique=spaces["unique"],
        reclaimable=_sum(part.reclaimable for part in parts),
        parts=tuple(parts),
        shared_blobs=_shared_blobs(groups),
    )


_NEEDED: tuple[UsageKind, ...] = ("shared", "unique", "mentioned")


@dataclass(slots=True)
class _Sum:
    allocated: int = 0
    apparent: int = 0

    def add(self, facts: DiskFacts) -> None:
        self.allocated += facts.allocated
        # The size of a folder means nothing; coreutils has not counted it since 9.2.
        self.apparent += facts.size if stat.S_ISREG(facts.mode) or stat.S_ISLNK(facts.mode) else 0

    @property
    def space(self) -> Space:
        return Space(self.allocated, self.apparent)


def _sum(spaces: Iterable[Space]) -> Space:
    allocated = apparent = 0
    for space in spaces:
        allocated += space.allocated
        apparent += space.apparent
    return Space(allocated, apparent)


@dataclass(slots=True)
class _Group:
    """The files of all blobs that the same models need, and the bytes that stay when those models are removed."""

    owners: _Owners
    files: int = 0
    allocated: int = 0
    apparent: int = 0
    stays_allocated: int = 0
    stays_apparent: int = 0

    def add(self, files: int, allocated: int, apparent: int, *, goes: bool = True) -> None:
        self.files += files
        self.allocated += allocated
        self.apparent += apparent
        if not goes:
            self.stays_allocated += allocated
            self.stays_apparent += apparent

    @property
    def kind(self) -> UsageKind:
        return "shared" if len(self.owners) > 1 else "unique" if self.owners else "mentioned"

    @property
    def space(self) -> Space:
        return Space(self.allocated, self.apparent)

    @property
    def freed(self) -> Space:
        return Space(self.allocated - self.stays_allocated, self.apparent - self.stays_apparent)


def _sort_out(
    tally: Tally, census: Census, references: References, remainder: Remainder, once: _Once
) -> tuple[dict[_Owners, _Group], list[StoredBlob], AbstractSet[Digest]]:
    """
    Return the needed blobs by the models that need them, the orphans, and the digests of missing blobs.

    There are far fewer groups of models than files, so everything after this is quick.
    """
    groups: dict[_Owners, _Group] = {}
    linked: dict[_Identity, list[StoredBlob]] = defaultdict(list)
    orphans: list[StoredBlob] = []
    for blob in census.blobs:
        owners = references.users.get(blob.digest)
        if owners is None:
            orphans.append(blob)
        elif blob.facts.links > 1:
            linked[blob.facts.identity].append(blob)
        else:
            groups.setdefault(owners, _Group(owners)).add(1, blob.facts.allocated, blob.facts.size)
    # A manifest that is a second name of a blob (Ollama's branch pdevine/addressable-manifest) goes with its model.
    manifests = _Names.of(entry.facts for entry in remainder.manifests) if linked else _Names()
    for identity, blobs in linked.items():
        facts = blobs[0].facts
        once.is_new(facts)
        owners = tuple(sorted(set(chain.from_iterable(references.users[blob.digest] for blob in blobs))))
        goes = len(blobs) + manifests.count(identity) >= facts.links
        groups.setdefault(owners, _Group(owners)).add(1, facts.allocated, facts.size, goes=goes)
    present = {blob.digest for blob in census.blobs if blob.filename not in remainder.dangling}
    return _together(tally.groups, groups), orphans, tally.uncounted - present


def _together(counted: Mapping[_Owners, _Group], kept: Mapping[_Owners, _Group]) -> dict[_Owners, _Group]:
    """Return the groups that have files, those of both together. The groups of the tally are not changed."""
    both = {owners: group for owners, group in counted.items() if group.files}
    for owners, group in kept.items():
        if owners in both:
            group.add(both[owners].files, both[owners].allocated, both[owners].apparent)
        both[owners] = group
    return both


def _needed_part(kind: UsageKind, groups: Iterable[_Group]) -> UsagePart:
    chosen = [group for group in groups if group.kind == kind]
    return UsagePart(kind, sum(group.files for group in chosen), _sum(group.space for group in chosen), _NOTHING)


def _may_have_other_names(facts: DiskFacts) -> bool:
    return facts.links > 1 and not stat.S_ISDIR(facts.mode)


@dataclass(slots=True)
class _Names:
    """How many names each file has among some entries. Only files that may have several names are kept."""

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
    """The files that were counted already. As in `du`, a file with a single name is not remembered."""

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
        files += not stat.S_ISDIR(facts.mode)
        if once.is_new(facts):
            size.add(facts)
            if reclaimed is not None and reclaimed.are_all_of(facts):
                freed.add(facts)
    return UsagePart(kind, files, size.space, freed.space)


def _by_kind(parts: Iterable[UsagePart]) -> list[UsagePart]:
    """Return one part for each kind."""
    kinds: dict[UsageKind, UsagePart] = {}
    for part in parts:
        if other := kinds.get(part.kind):
            sizes = _sum((other.size, part.size)), _sum((other.reclaimable, part.reclaimable))
            kinds[part.kind] = UsagePart(part.kind, other.files + part.files, *sizes)
        else:
            kinds[part.kind] = part
    return list(kinds.values())


def _bystanders(census: Census, remainder: Remainder) -> Iterator[tuple[UsageKind, list[DiskFacts]]]:
    """Yield, by kind, what is not a blob and is not deleted to free space: manifests, folders and foreign files."""
    yield "manifests", [entry.facts for entry in remainder.manifests]
    places = [tree.facts for tree in (census.workspace, census.staging) if tree.facts]
    rooms = [entry.facts for entry in census.workspace.folders if "/" not in entry.path]
    yield "folders", [*(entry.facts for entry in remainder.folders), *places, *rooms]
    yield "foreign", [entry.facts for entry in (*census.foreign, *remainder.foreign)]


class _Leftover(NamedTuple):
    kind: UsageKind
    facts: list[DiskFacts]
    goes: bool = True


def _leftovers(census: Census, orphans: list[StoredBlob], going: AbstractSet[FoundEntry]) -> Iterator[_Leftover]:
    """Yield what no model needs, by kind: what can be deleted now, and what `gc` leaves for now."""
    blobs = [FoundEntry(blob.filename, blob.facts) for blob in orphans]
    downloads = [file for group in census.downloads for file in group.files]
    yield from _split("orphans", blobs, going)
    yield from _split("downloads", downloads, going)
    yield _Leftover("temporary", [entry.facts for entry in census.temporary])
    yield _Leftover("working-folders", [facts for tree in census.working_folders for facts in _whole(tree)])
    # The workspace itself and its first level of folders stay for the next command.
    inside = [entry.facts for entry in census.workspace.folders if "/" in entry.path]
    files = (*census.workspace.files, *census.staging.files)
    yield from _split("workspace", files, going)
    yield _Leftover("workspace", [*inside, *(entry.facts for entry in census.staging.folders)], goes=False)


def _split(kind: UsageKind, found: Collection[FoundEntry], going: AbstractSet[FoundEntry]) -> Iterator[_Leftover]:
    yield _Leftover(kind, [entry.facts for entry in found if entry in going])
    yield _Leftover(kind, [entry.facts for entry in found if entry not in going], goes=False)


def _whole(tree: FoundTree) -> list[DiskFacts]:
    own = [tree.facts] if tree.facts else []
    return own + [entry.facts for entry in (*tree.files, *tree.folders)]


def _model_rows(
    groups: Mapping[_Owners, _Group], models: Sequence[StoredModel], absent: AbstractSet[Digest]
) -> tuple[ModelUsage, ...]:
    shared: dict[ModelName, list[_Group]] = defaultdict(list)
    for owners, group in groups.items():
        if len(owners) > 1:
            for owner in owners:
                shared[owner].append(group)
    # A name in both trees of manifests is one model.
    asked = {model.name: model for model in models}.values()
    none = _Group(())
    usages = [_usage(model, groups.get((model.name,), none), shared.get(model.name, ()), absent) for model in asked]
    return tuple(sorted(usages, key=lambda usage: (-usage.size.allocated, usage.name)))


def _usage(model: StoredModel, own: _Group, shared: Collection[_Group], absent: AbstractSet[Digest]) -> ModelUsage:
    together = _sum(group.space for group in shared) if shared else _NOTHING
    # Usually no blob is absent, and then no descriptor need be made.
    named = model.manifest.descriptors if absent and not absent.isdisjoint(model.manifest.digests) else ()
    missing = [blob.digest for blob in named if blob.digest in absent]
    return ModelUsage(
        name=str(model.name),
        blobs=own.files + sum(group.files for group in shared),
        size=Space(own.allocated + together.allocated, own.apparent + together.apparent),
        shared=together,
        unique=own.space,
        frees=own.freed,
        missing=tuple(dict.fromkeys(map(str, missing))) if missing else (),
    )


def _freed_together(groups: Mapping[_Owners, _Group], removed: set[ModelName]) -> Space:
    return _sum(group.freed for owners, group in groups.items() if owners and removed.issuperset(owners))


def _shared_blobs(groups: Mapping[_Owners, _Group]) -> tuple[SharedBlobs, ...]:
    found = [
        SharedBlobs(tuple(map(str, owners)), group.files, group.space)
        for owners, group in groups.items()
        if len(owners) > 1
    ]
    return tuple(sorted(found, key=lambda group: (-group.size.allocated, group.models)))
