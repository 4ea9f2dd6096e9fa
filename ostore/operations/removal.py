"""
What removing models takes with it, and what stays because others need it: decided here, done elsewhere.

A blob goes with the last model that refers to it. While a manifest of another model cannot be read, none goes: that
one may need it. Then `ostore gc` takes them, once the store is in order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ostore.formats.digest import Digest, blob_digest
from ostore.formats.errors import UnsafeError, UsageError
from ostore.formats.name import ModelName, choose, is_glob
from ostore.formats.store_layout import TRANSACTIONS, TRASH, command_of
from ostore.places.store.survey.batches import BatchRecord, FoundBatch
from ostore.places.store.survey.census import Census, EntryKind, FoundEntry, StoredBlob, by_filename, freed_bytes
from ostore.places.store.survey.references import References
from ostore.places.store.survey.scan import StandingManifest


class StayReason(StrEnum):
    """Why a blob of a removed model stays."""

    SHARED = "shared"
    DOUBT = "doubt"
    HELD = "held"
    LINK = "link"
    MEANWHILE = "meanwhile"


@dataclass(frozen=True, slots=True)
class DoomedManifest:
    """A manifest that goes: whose it is, and where it stands."""

    name: ModelName
    standing: StandingManifest


@dataclass(frozen=True, slots=True)
class StayingBlob:
    """A blob of a removed model that stays, why, and the models that share it."""

    blob: StoredBlob
    reason: StayReason
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """
    What goes, and what stays. `resumed` are models that an interrupted removing has removed already, whose blobs go
    now; `taken` are those blobs of theirs that it had taken. `doubt` says why no blob goes, or is None.
    """

    manifests: tuple[DoomedManifest, ...]
    resumed: tuple[ModelName, ...]
    taken: tuple[FoundEntry, ...]
    blobs: tuple[StoredBlob, ...]
    stays: tuple[StayingBlob, ...]
    doubt: str | None

    @property
    def models(self) -> tuple[str, ...]:
        """The short name of every model that goes, each once."""
        return tuple(str(name) for name in self._names)

    @property
    def _names(self) -> tuple[ModelName, ...]:
        return tuple(dict.fromkeys([*(doomed.name for doomed in self.manifests), *self.resumed]))

    @property
    def freed(self) -> int:
        """
        Bytes of blobs that are free afterwards: blocks of files that have no name besides.

        The manifests, a block each, are not counted, as `ostore du` does not.
        """
        return freed_bytes([*(blob.facts for blob in self.blobs), *(file.facts for file in self.taken)])

    @property
    def record(self) -> BatchRecord:
        """What somebody must know who finishes this removing."""
        return BatchRecord(
            tuple(name.full for name in self._names), tuple(dict.fromkeys(blob.digest for blob in self.blobs))
        )

    def without(self, stayed: Collection[str]) -> RemovalPlan:
        """The plan as it came true: blobs that did not go, by file name, stay."""
        gone = tuple(blob for blob in self.blobs if blob.filename not in stayed)
        stays = tuple(StayingBlob(blob, StayReason.MEANWHILE) for blob in self.blobs if blob.filename in stayed)
        return replace(self, blobs=gone, stays=(*self.stays, *stays))

    def within(self, approved: RemovalPlan) -> RemovalPlan:
        """
        The plan cut down to what another one had as well: nobody approved of more.

        Raises UsageError if there is another manifest by now under one of the names.
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
    Decide what goes with these manifests, and with what is left of interrupted removings of such models.

    `resumed` are models whose manifests they have removed already, `concerned` what `concerned_blobs` says.
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
    """Which blobs these models refer to, and interrupted removings were about: of no other a plan says anything."""
    models = set(names)
    concerned = {digest for digest, keepers in references.users.items() if not models.isdisjoint(keepers)}
    records = [batch.record for batch in interrupted if batch.record]
    return concerned | {digest for record in records for digest in record.blobs}


def _taken(interrupted: Iterable[FoundBatch], census: Census, references: References) -> Iterator[FoundEntry]:
    """The blobs that interrupted removings had taken, and that nobody needs again."""
    for batch in interrupted:
        for file in () if batch.record is None else census.workspace.below(f"{TRASH}/{batch.name}"):
            digest = blob_digest(file.path.rsplit("/", 1)[1])
            if digest and digest not in references.users:
                yield file


def named(words: Sequence[str], names: Collection[ModelName]) -> tuple[set[ModelName], list[str]]:
    """
    The names that people's words stand for, and the words that stand for nothing; a word without a glob is one name.

    Of two that differ by case it is the one that is spelled like it; if neither is, Ollama's choice would be left to
    chance, so UnsafeError. Raises InvalidNameError.
    """
    chosen: set[ModelName] = set()
    absent = []
    for word in words:
        found, _ = choose(names, [word])
        if not is_glob(word) and len(set(found)) > 1:
            found = [name for name in found if name == ModelName.parse(word)]
            if not found:
                raise UnsafeError(f"{word!r} is several models that differ only by case; spell it as ostore list does")
        chosen.update(found)
        absent += [] if found else [word]
    return chosen, absent


def _stay_reason(
    blob: StoredBlob, held: Collection[tuple[int, int]], *, is_shared: bool, is_doubtful: bool
) -> StayReason | None:
    if is_shared:
        return StayReason.SHARED
    if is_doubtful:
        return StayReason.DOUBT
    if blob.facts.kind is not EntryKind.FILE:
        return StayReason.LINK
    return StayReason.HELD if blob.facts.identity in held else None
