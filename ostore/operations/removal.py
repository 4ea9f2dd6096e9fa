"""
Decide which blobs go when models are removed, and which stay. Nothing is removed here.

A blob goes with the last model that refers to it. While the manifest of another model cannot be read, no blob goes,
because that model may need it. `ostore gc` takes those blobs once the store is in order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ostore.formats.digest import Digest, blob_digest
from ostore.formats.errors import UsageError
from ostore.formats.name import ModelName
from ostore.formats.store_layout import TRANSACTIONS, TRASH, command_of
from ostore.places.store.survey.batches import BatchRecord, FoundBatch
from ostore.places.store.survey.census import (
    Census,
    FoundEntry,
    StoredBlob,
    allocated_bytes,
    by_filename,
    freed_bytes,
)
from ostore.places.store.survey.references import References
from ostore.places.store.survey.scan import StandingManifest


class StayReason(StrEnum):
    """Why a blob of a removed model stays."""

    SHARED = "shared"
    DOUBT = "doubt"
    HELD = "held"
    MEANWHILE = "meanwhile"


@dataclass(frozen=True, slots=True)
class DoomedManifest:
    """A manifest that goes: the name of its model, and its file."""

    name: ModelName
    standing: StandingManifest


@dataclass(frozen=True, slots=True)
class StayingBlob:
    """A blob of a removed model that stays, the reason, and the models that share it."""

    blob: StoredBlob
    reason: StayReason
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """
    What goes, and what stays.

    `resumed` are models whose manifests an interrupted removal has removed; their blobs go now. `taken` are the blobs
    that such a removal has already put in the trash. `doubt` says why no blob goes, or is None. `in_use` are the paths
    in the store of what was to go and stays because another program has it open.
    """

    manifests: tuple[DoomedManifest, ...]
    resumed: tuple[ModelName, ...]
    taken: tuple[FoundEntry, ...]
    blobs: tuple[StoredBlob, ...]
    stays: tuple[StayingBlob, ...]
    doubt: str | None
    in_use: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """The short names of the models that go, each once."""
        return tuple(str(name) for name in self._names)

    @property
    def _names(self) -> tuple[ModelName, ...]:
        return tuple(dict.fromkeys([*(doomed.name for doomed in self.manifests), *self.resumed]))

    @property
    def freed(self) -> int:
        """
        The bytes on the disk that the plan frees. A file with a name elsewhere frees nothing.

        Manifests, one block each, are not counted, as in `ostore du`.
        """
        return freed_bytes([*(blob.facts for blob in self.blobs), *(file.facts for file in self.taken)])

    @property
    def linked(self) -> int:
        """The bytes on the disk of blobs that go, but whose files have a name elsewhere: they are not freed."""
        facts = [blob.facts for blob in self.blobs]
        return allocated_bytes(facts) - freed_bytes(facts)

    @property
    def record(self) -> BatchRecord:
        """The record from which a later command can finish this removal."""
        return BatchRecord(
            tuple(name.full for name in self._names), tuple(dict.fromkeys(blob.digest for blob in self.blobs))
        )

    def without(self, stayed: Collection[str]) -> RemovalPlan:
        """Return the plan with these blobs, by file name, moved to those that stay."""
        gone = tuple(blob for blob in self.blobs if blob.filename not in stayed)
        stays = tuple(StayingBlob(blob, StayReason.MEANWHILE) for blob in self.blobs if blob.filename in stayed)
        return replace(self, blobs=gone, stays=(*self.stays, *stays))

    def keeping(self, needed: Mapping[Digest, tuple[str, ...]]) -> RemovalPlan:
        """Return the plan with these blobs moved to those that stay, shared with the models that will need them."""
        gone = tuple(blob for blob in self.blobs if blob.digest not in needed)
        stays = tuple(
            StayingBlob(blob, StayReason.SHARED, needed[blob.digest]) for blob in self.blobs if blob.digest in needed
        )
        return replace(self, blobs=gone, stays=(*self.stays, *stays))

    def within(self, approved: RemovalPlan) -> RemovalPlan:
        """
        Return the plan with only the blobs that the `approved` plan has too. The others stay.

        Raises UsageError if the manifests that go have changed since.
        """
        if self.manifests != approved.manifests:
            raise UsageError("the models have changed since the plan was shown; nothing was removed")
        return self.without({blob.filename for blob in self.blobs} - {blob.filename for blob in approved.blobs})


def plan_removal(
    doomed: Sequence[DoomedManifest],
    resumed: Collection[ModelName],
    interrupted: Sequence[FoundBatch],
    census: Census,
    references: References,
    *,
    concerned: Collection[Digest],
    dead: Collection[str],
) -> RemovalPlan:
    """
    Decide which blobs go with these manifests.

    The plan also finishes the removals in `interrupted`, which have removed the manifests of `resumed`. `concerned`
    are the blobs that `concerned_blobs` returns. `dead` are the folders of commands that have ended; the files of
    other commands hold their blobs.
    """
    names = {manifest.name for manifest in doomed}
    paths = {manifest.standing.path for manifest in doomed}
    doubts = [doubt for doubt in references.doubts if doubt.path not in paths]
    users = references.users
    held = {file.facts.identity for file in census.workspace.below(TRANSACTIONS) if command_of(file.path) not in dead}
    blobs, stays = [], []
    for blob in census.blobs:
        if blob.digest not in concerned:
            continue
        sharers = tuple(str(name) for name in users.get(blob.digest, ()) if name not in names)
        if reason := _stay_reason(blob, held, is_shared=bool(sharers), is_doubtful=bool(doubts)):
            stays.append(StayingBlob(blob, reason, sharers))
        else:
            blobs.append(blob)
    return RemovalPlan(
        manifests=tuple(doomed),
        resumed=tuple(sorted(resumed)),
        taken=tuple(_taken(interrupted, census, references)),
        blobs=tuple(sorted(blobs, key=by_filename)),
        stays=tuple(sorted(stays, key=lambda staying: staying.blob.filename)),
        doubt=f"{doubts[0].path}: {doubts[0].reason}" if doubts else None,
    )


def concerned_blobs(
    names: Collection[ModelName], interrupted: Iterable[FoundBatch], references: References
) -> set[Digest]:
    """Return the blobs that these models refer to or that `interrupted` removals list. A plan names no others."""
    models = set(names)
    concerned = {digest for digest, keepers in references.users.items() if not models.isdisjoint(keepers)}
    records = [batch.record for batch in interrupted if batch.record]
    return concerned | {digest for record in records for digest in record.blobs}


def _taken(interrupted: Iterable[FoundBatch], census: Census, references: References) -> Iterator[FoundEntry]:
    """Yield the blobs that interrupted removals have put in the trash and that no model needs again."""
    for batch in interrupted:
        for file in () if batch.record is None else census.workspace.below(f"{TRASH}/{batch.name}"):
            digest = blob_digest(file.path.rsplit("/", 1)[1])
            if digest and digest not in references.users:
                yield file


def _stay_reason(
    blob: StoredBlob, held: Collection[tuple[int, int]], *, is_shared: bool, is_doubtful: bool
) -> StayReason | None:
    if is_shared:
        return StayReason.SHARED
    if is_doubtful:
        return StayReason.DOUBT
    return StayReason.HELD if blob.facts.identity in held else None
