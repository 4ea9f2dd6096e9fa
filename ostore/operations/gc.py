"""
Decide what `gc` removes, with a reason for every blob that goes or stays. No I/O, no clock.

Ollama has no locks, so only age protects a blob that it has written but no manifest names yet. A pull loads one blob
after the other and writes the manifest last, so the blobs that it has finished are *older* than the blob that it is
loading. Therefore, while a download seems to be under way, the grace counts back from the start of that download, not
from now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from ostore.formats.digest import blob_digest
from ostore.formats.errors import DamagedStoreError
from ostore.formats.name import ModelName
from ostore.formats.remedy import ostore
from ostore.formats.store_layout import ALIVE, TRANSACTIONS, TRASH, command_of
from ostore.formats.wording import plural
from ostore.places.store.survey.batches import FoundBatch
from ostore.places.store.survey.census import (
    Census,
    EntryKind,
    FoundEntry,
    StoredBlob,
    UnfinishedDownload,
    by_filename,
    freed_bytes,
)
from ostore.places.store.survey.references import References

DAY_SECONDS = 86_400.0
# Since 0.21 Ollama spares what is younger than an hour (server/images.go at fb30760). A long pull needs more.
DEFAULT_GRACE_SECONDS = DAY_SECONDS
# Until then `ollama pull` may go on with a download. After that, nobody comes back to it, unless a caller knows better.
DOWNLOAD_SECONDS = 7 * DAY_SECONDS
_MAX_DOUBTS = 3


class BlobReason(StrEnum):
    """Why a blob goes (`orphan`) or stays (all others)."""

    ORPHAN = "orphan"
    NEEDED = "needed"
    YOUNG = "young"
    DOWNLOAD = "download"
    HELD = "held"
    MAYBE_HELD = "maybe-held"
    MISNAMED = "misnamed"
    MEANWHILE = "meanwhile"


@dataclass(frozen=True, slots=True)
class GcTerms:
    """
    The terms of one `gc`. Times are seconds; `now` is seconds since 1970.

    `grace` is the least age of an orphan that goes. `partials` lets downloads go too that have rested for
    `partials_grace`. `keep` is how long blobs stay in the trash, or None if they are not kept. `sees_ollama` says that
    an Ollama process was seen. `without_models` confirms that the store has no model on purpose. `every_blob` also
    judges needed blobs.
    """

    now: float
    grace: float = DEFAULT_GRACE_SECONDS
    partials: bool = False
    keep: float | None = None
    sees_ollama: bool = False
    without_models: bool = False
    every_blob: bool = False
    partials_grace: float = DOWNLOAD_SECONDS

    @property
    def latest_download(self) -> float:
        """When a download must have changed last to go, in seconds since 1970."""
        return self.now - self.partials_grace

    @property
    def expires(self) -> float | None:
        """When the trash need not keep the blobs any longer, in seconds since 1970; None if they are not kept."""
        return None if self.keep is None else self.now + self.keep


class Judgement(NamedTuple):
    """Why one file in `blobs/` goes or stays. `age` is seconds, negative if its time is in the future."""

    blob: StoredBlob
    reason: BlobReason
    age: float
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GcPlan:
    """
    What goes, and what stays. Times are seconds since 1970.

    `judgements` are the blobs that no model needs, or all blobs with `every_blob`. Those judged `orphan` go, unless
    they are newer than `latest` by then. `downloads` go unless they are newer than `latest_download` by then;
    `resting` downloads stay. `needed` counts the needed blobs.

    `leftovers` are the files of dead commands, `expired` the files of the trash that go for good. `has_leftovers` says
    that a dead command or an interrupted removal is to be cleaned up, `keeps` that blobs wait in the trash. `began`
    is the start of the oldest download that seems to be under way, or None. `warnings` are about what stays. `in_use`
    are the paths in the store of what was to go and stays because another program has it open.
    """

    judgements: tuple[Judgement, ...]
    needed: int
    downloads: tuple[UnfinishedDownload, ...]
    resting: tuple[UnfinishedDownload, ...]
    leftovers: tuple[FoundEntry, ...]
    expired: tuple[FoundEntry, ...]
    has_leftovers: bool
    keeps: bool
    latest: float
    latest_download: float
    began: float | None
    warnings: tuple[str, ...] = ()
    in_use: tuple[str, ...] = ()

    @property
    def blobs(self) -> tuple[StoredBlob, ...]:
        return tuple(judgement.blob for judgement in self.judgements if judgement.reason is BlobReason.ORPHAN)

    @property
    def entries(self) -> tuple[FoundEntry, ...]:
        """The entries of `blobs/` that go: blobs, and the files of downloads."""
        blobs = (FoundEntry(blob.filename, blob.facts) for blob in self.blobs)
        return (*blobs, *(file for group in self.downloads for file in group.files))

    @property
    def takes_something(self) -> bool:
        """Whether any file goes, so that a person may want to be asked."""
        return bool(self.blobs or self.downloads or self.leftovers or self.expired)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do, not even empty folders to remove."""
        return not (self.takes_something or self.has_leftovers)

    @property
    def freed(self) -> int:
        """The bytes on the disk that the plan frees. Blobs that go to the trash free none."""
        gone = replace(self, judgements=()) if self.keeps else self
        return freed_bytes(entry.facts for entry in (*gone.entries, *self.leftovers, *self.expired))

    @property
    def trashed(self) -> int:
        """The bytes on the disk that wait in the trash afterwards."""
        return freed_bytes(blob.facts for blob in self.blobs) if self.keeps else 0

    def largest_first(self) -> Iterator[GcPlan]:
        """Yield a plan for each single blob and download that goes, those that free the most first."""
        blobs = (
            self.only(judgements=(judgement,)) for judgement in self.judgements if judgement.reason is BlobReason.ORPHAN
        )
        downloads = (self.only(downloads=(group,)) for group in self.downloads)
        yield from sorted(chain(blobs, downloads), key=attrgetter("freed"), reverse=True)

    def only(
        self,
        *,
        judgements: tuple[Judgement, ...] = (),
        downloads: tuple[UnfinishedDownload, ...] = (),
        leftovers: tuple[FoundEntry, ...] = (),
    ) -> GcPlan:
        """Return the plan with only these parts and without expired files."""
        return replace(self, judgements=judgements, downloads=downloads, leftovers=leftovers, expired=())

    def emptied(self) -> GcPlan:
        """Return the plan without anything that goes; its blobs are judged `meanwhile`."""
        rest = self.without({entry.path for entry in self.entries})
        return rest.only(judgements=rest.judgements)

    def after(self, gone: Sequence[GcPlan]) -> GcPlan:
        """Return this plan together with the parts that have `gone` already."""
        judgements = (*self.judgements, *(judgement for part in gone for judgement in part.judgements))
        return replace(
            self,
            judgements=tuple(sorted(judgements, key=lambda judgement: judgement.blob.filename)),
            downloads=(*self.downloads, *(group for part in gone for group in part.downloads)),
            leftovers=(*self.leftovers, *(file for part in gone for file in part.leftovers)),
        )

    def without(self, stayed: Collection[str]) -> GcPlan:
        """Return the plan without what `stayed`, by name in `blobs/`. Such a blob is judged `meanwhile` instead."""
        judgements = tuple(
            judgement._replace(reason=BlobReason.MEANWHILE)
            if judgement.reason is BlobReason.ORPHAN and judgement.blob.filename in stayed
            else judgement
            for judgement in self.judgements
        )
        stays = [any(file.path in stayed for file in group.files) for group in self.downloads]
        downloads, resting = (
            tuple(group for group, is_one in zip(self.downloads, stays, strict=True) if is_one is wanted)
            for wanted in (False, True)
        )
        return replace(self, judgements=judgements, downloads=downloads, resting=(*self.resting, *resting))

    def within(self, approved: GcPlan) -> GcPlan:
        """Return the plan with only what the `approved` plan has too. The rest stays, as nobody approved of it."""
        blobs = {blob.filename for blob in approved.blobs}
        digests = {group.digest for group in approved.downloads}
        more = {blob.filename for blob in self.blobs} - blobs
        more |= {file.path for group in self.downloads if group.digest not in digests for file in group.files}
        return self.without(more)


def plan_gc(
    census: Census, references: References, *, dead: Collection[str], batches: Sequence[FoundBatch], terms: GcTerms
) -> GcPlan:
    """
    Decide what goes from a store. `dead` are the folders of commands that have ended, `batches` those of the trash.

    Raises DamagedStoreError while a doubt leaves open which blobs are needed, or if the store has blobs but no model
    and `terms.without_models` is not set.
    """
    _refuse_doubts(census, references, terms)
    downloads = tuple(group for group in census.downloads if _goes(group, terms))
    resting = tuple(group for group in census.downloads if group not in downloads)
    began = _began(resting, census, terms)
    latest = min(terms.now, terms.now if began is None else began) - terms.grace
    held = _Held.by_living(census, dead)
    orphans = references.orphans(census.blobs)
    # To find every keeper takes time, and an orphan has none.
    keepers = references.users if terms.every_blob else {}
    return GcPlan(
        judgements=tuple(
            _judge(blob, keepers.get(blob.digest), held, latest, terms)
            for blob in (sorted(census.blobs, key=by_filename) if terms.every_blob else orphans)
        ),
        needed=census.skipped + len(census.blobs) - len(orphans),
        downloads=downloads,
        resting=resting,
        leftovers=tuple(_leftovers(census, dead)),
        expired=tuple(_expired(census, references, batches, terms.now)),
        has_leftovers=bool(dead) or any(not batch.is_finished for batch in batches),
        keeps=terms.keep is not None,
        latest=latest,
        latest_download=terms.latest_download,
        began=began,
    )


def _refuse_doubts(census: Census, references: References, terms: GcTerms) -> None:
    if doubts := references.doubts:
        told = "; ".join(f"{doubt.path}: {doubt.reason}" for doubt in doubts[:_MAX_DOUBTS])
        more = f"; and {len(doubts) - _MAX_DOUBTS} more" if len(doubts) > _MAX_DOUBTS else ""
        raise DamagedStoreError(
            f"nothing was removed, because it is in doubt which blobs are needed: {told}{more}",
            hint=ostore("doctor", after="says what to do about it"),
        )
    if census.blobs and not references.scan.models and not terms.without_models:
        raise DamagedStoreError(
            f"nothing was removed: {plural(len(census.blobs), 'blob')}, but no model at all; is a disk not mounted?",
            hint=ostore("gc", "--without-models", before="if there is none on purpose"),
        )


def _goes(group: UnfinishedDownload, terms: GcTerms) -> bool:
    return terms.partials and group.has_rested_since(terms.latest_download)


def _began(resting: Sequence[UnfinishedDownload], census: Census, terms: GcTerms) -> float | None:
    """
    Return when the oldest download that seems to be under way began, in seconds since 1970, or None.

    Ollama writes the parts of a download when it plans it and when each is done (server/download.go at fb30760), so
    the oldest mtime is the start. A ctime could be that of a later chown. If a server was seen, even a download that
    has rested for days may go on. A download that goes now is not under way.
    """
    patience = DOWNLOAD_SECONDS if terms.sees_ollama else max(terms.grace, DAY_SECONDS)
    groups = [group.files for group in resting] + [(file,) for file in census.temporary]
    alive = [files for files in groups if terms.now - max(file.facts.newest for file in files) < patience]
    return min((file.facts.mtime for files in alive for file in files), default=None)


@dataclass(frozen=True, slots=True)
class _Held:
    """The files (device and inode) that running commands rely on, and whether we may be unable to see some."""

    identities: frozenset[tuple[int, int]]
    has_unseen: bool

    @classmethod
    def by_living(cls, census: Census, dead: Collection[str]) -> _Held:
        place = census.workspace
        living = [file for file in place.below(TRANSACTIONS) if command_of(file.path) not in dead]
        unseen = any(entry.path.split("/")[0] in {"", TRANSACTIONS} for entry in place.unreadable)
        return cls(frozenset(file.facts.identity for file in living), unseen)


def _judge(
    blob: StoredBlob, keepers: tuple[ModelName, ...] | None, held: _Held, latest: float, terms: GcTerms
) -> Judgement:
    age = terms.now - blob.facts.newest
    if keepers is not None:
        return Judgement(blob, BlobReason.NEEDED, age, tuple(str(name) for name in keepers))
    return Judgement(blob, _reason(blob, held, latest, terms), age)


def _reason(blob: StoredBlob, held: _Held, latest: float, terms: GcTerms) -> BlobReason:
    facts = blob.facts
    if blob.is_foreign_spelling or facts.kind not in {EntryKind.FILE, EntryKind.LINK}:
        return BlobReason.MISNAMED
    if facts.identity in held.identities:
        return BlobReason.HELD
    if held.has_unseen and facts.links > 1:
        return BlobReason.MAYBE_HELD
    if facts.newest > terms.now - terms.grace:
        return BlobReason.YOUNG
    return BlobReason.DOWNLOAD if facts.newest > latest else BlobReason.ORPHAN


def _leftovers(census: Census, dead: Collection[str]) -> Iterator[FoundEntry]:
    staged = (file for file in census.workspace.below(TRANSACTIONS) if not file.path.endswith(f"/{ALIVE}"))
    yield from (file for file in staged if command_of(file.path) in dead)
    running = {command_of(folder.path) for folder in census.workspace.folders if folder.path.count("/") == 1}
    yield from (file for file in census.staging.files if file.path.split("/")[0] not in running - set(dead))


def _expired(census: Census, references: References, batches: Iterable[FoundBatch], now: float) -> Iterator[FoundEntry]:
    """Yield the trash files of expired removals, and the files of interrupted ones that no model needs again."""
    for batch in batches:
        files = census.workspace.below(f"{TRASH}/{batch.name}")
        if batch.is_expired(now):
            yield from files
        elif not batch.is_finished and batch.record is not None and batch.record.expires is None:
            yield from (file for file in files if not _is_needed(file, references))


def _is_needed(file: FoundEntry, references: References) -> bool:
    digest = blob_digest(file.path.rsplit("/", 1)[1])
    return digest is not None and digest in references.users
