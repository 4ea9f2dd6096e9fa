"""Decide what a move takes along, what it may remove once the other store has it, and what stays behind."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from ostore.formats.digest import Digest, reading_order
from ostore.formats.errors import DamagedStoreError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.remedy import ostore
from ostore.places.store.survey.census import Census, EntryKind, FoundEntry, FoundTree, StoredBlob, by_filename
from ostore.places.store.survey.references import References

# The default grace of `ostore gc`. A younger orphan may be half of a model that is being pulled.
GRACE_SECONDS = 24 * 3600.0
UNTIL_THEN = ostore("doctor", after="says how to fix it; until then nothing is moved")


@dataclass(frozen=True, slots=True)
class LeftEntry:
    """Something that stays in the old store: its path there, its size in bytes, and the reason."""

    path: str
    size: int
    reason: str


def refuse_doubts(references: References) -> None:
    """Raises DamagedStoreError if there is a doubt, because it is then unknown what the store's models need."""
    for doubt in references.doubts:
        raise DamagedStoreError(f"{doubt.path}: {doubt.reason}", hint=UNTIL_THEN)


def blobs_of_no_model(census: Census, selected: Collection[Digest]) -> list[Descriptor]:
    """Return the blobs that are not `selected`, if they are files with the name that Ollama gives them, by digest."""
    return sorted(
        Descriptor(blob.digest, blob.facts.size)
        for blob in census.blobs
        if blob.is_canonical and blob.facts.kind is EntryKind.FILE and blob.digest not in selected
    )


def needed_without(references: References, leaving: Collection[ModelName]) -> frozenset[Digest]:
    """Return the blobs that a store needs once the models in `leaving` are gone, also those that no model names."""
    return frozenset(
        digest
        for digest, keepers in references.users.items()
        if not keepers or any(name not in leaving for name in keepers)
    )


def removable(
    census: Census, *, proved: Collection[Digest], needed: Collection[Digest], spared: Collection[Digest]
) -> list[StoredBlob]:
    """
    Return the files to remove, by name: blobs that the other store is `proved` to have and nothing here needs.

    `needed` and `spared` blobs stay. If a digest has two files, only the file that was read goes, because nobody has
    looked into the other.
    """
    found: dict[Digest, StoredBlob] = {}
    for blob in census.blobs:
        if blob.digest in proved and blob.digest not in needed and blob.digest not in spared:
            rival = found.get(blob.digest, blob)
            found[blob.digest] = min(rival, blob, key=lambda one: reading_order(one.digest, one.filename))
    files = (blob for blob in found.values() if blob.facts.kind is EntryKind.FILE)
    return sorted(files, key=by_filename)


def perhaps_in_use(census: Census, *, used_there: Collection[Digest], now: float) -> frozenset[Digest]:
    """
    Return the young blobs, which may belong to a model that Ollama is about to finish.

    Ask this if Ollama runs or a download is unfinished. Blobs in `used_there`, which models of the other store use,
    were moved with those models and are left out. `now` is seconds since 1970.
    """
    return frozenset(
        blob.digest
        for blob in census.blobs
        if blob.digest not in used_there and blob.facts.newest > now - GRACE_SECONDS
    )


def what_stays(
    census: Census,
    strays: Iterable[str],
    *,
    gone: Collection[str],
    needed: Collection[Digest],
    damaged: Collection[Digest],
    spared: Collection[Digest],
) -> tuple[LeftEntry, ...]:
    """
    Return everything that stays in a store and belongs to no model, sorted by path.

    `strays` are paths of files among the folders of manifests. `gone` are names in `blobs/` that do not stay. `needed`
    are the blobs of models, `damaged` the blobs whose bytes do not match their names, and `spared` the blobs that
    `perhaps_in_use` returns.
    """
    left = [
        LeftEntry(f"blobs/{blob.filename}", blob.facts.size, _why_blob_stays(blob, damaged, spared))
        for blob in census.blobs
        if blob.filename not in gone and blob.digest not in needed
    ]
    for download in census.downloads:
        left += _left("blobs/", download.files, "part of an unfinished download")
    left += _left("blobs/", census.temporary, "an unfinished file of Ollama's")
    left += _left("blobs/", census.foreign, "not a file of Ollama's")
    left += (LeftEntry(path, 0, "not a place where a manifest can be") for path in strays)
    for tree in census.working_folders:
        left.append(LeftEntry(tree.path.name, _size_of(tree), "a working folder of Ollama's"))
    for part, why in (("quarantine", "damaged files that were set aside"), ("trash", "what gc keeps for a while")):
        left += _left(".ostore/", census.workspace.below(part), why)
    return tuple(sorted(left, key=lambda entry: entry.path))


def _why_blob_stays(blob: StoredBlob, damaged: Collection[Digest], spared: Collection[Digest]) -> str:
    if blob.digest in damaged:
        return "damaged: not the bytes that its name promises, and no model needs it"
    if blob.facts.kind is not EntryKind.FILE:
        return "a link"
    if blob.digest in spared:
        return "young: Ollama may be about to need it"
    return "a blob that no model needs" if blob.is_canonical else "a second file of a blob, by an old name"


def _left(above: str, entries: Iterable[FoundEntry], reason: str) -> Iterator[LeftEntry]:
    return (LeftEntry(f"{above}{entry.path}", entry.facts.size, reason) for entry in entries)


def _size_of(tree: FoundTree) -> int:
    return sum(entry.facts.size for entry in tree.files)
