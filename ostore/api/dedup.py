"""Find the same bytes in the folders of other programs, and let the disk keep them once."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.formats.errors import NotFoundError, UsageError
from ostore.formats.model_files import found_models
from ostore.formats.plain_names import GGUF
from ostore.formats.remedy import Remedy, ostore
from ostore.formats.store_layout import BLOBS
from ostore.formats.unreadable import Unreadable
from ostore.operations.dedup import (
    MIN_BYTES,
    Copy,
    CopyState,
    Decided,
    Duplicate,
    KeptFile,
    decide,
    examine,
    find_duplicates,
    link,
    must_be_hashed,
    named_by_inode,
)
from ostore.operations.verify import Verdict
from ostore.places.foreign_caches.candidates import CacheKind, Candidate, ForeignCache
from ostore.places.foreign_caches.snapshots import names_of_blobs
from ostore.places.foreign_caches.usual_folders import usual_caches
from ostore.places.foreign_caches.walk import find_files, recognise
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.census import EntryKind, by_filename, take_census
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.settings import surroundings, threads
from ostore.streams.owners import Ownership
from ostore.streams.progress import SILENT, Progress

# Windows has no such modes; Python reports some.
_WRITABLE_BY_OTHERS = 0 if os.name == "nt" else stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class SearchedFolder:
    """A folder that was searched. `kind` says which program it belongs to."""

    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class DuplicateCopy:
    """
    A file with the same bytes as the blob, judged by its name or its hash.

    `shared_size` is the bytes that it shared on the disk before. `gain` is the bytes that sharing the rest frees, or
    has freed. `detail` says why it cannot be shared, or is empty.
    """

    path: str
    kind: str
    state: CopyState
    shared_size: int
    gain: int
    detail: str


@dataclass(frozen=True, slots=True)
class DuplicateBlob:
    """Bytes that are kept more than once: in `path` (the store's blob, if there is one) and in `copies`."""

    digest: str
    size: int
    path: str
    models: tuple[str, ...]
    copies: tuple[DuplicateCopy, ...]


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """
    A model that another program has and the store has not: its files, the weights first, and their size in bytes.

    `create` makes a model of them.
    """

    kind: str
    paths: tuple[str, ...]
    size: int
    create: Remedy


@dataclass(frozen=True, slots=True)
class DedupReport:
    """
    What is kept twice, largest first.

    Sizes are bytes. `copied_size` is the size of all copies, `shared_size` is what they shared on the disk before,
    `gain` is what sharing would free, and `linked_size` what it has freed. `files` were found, and `hashed` of them had
    to be hashed, `hashed_size` bytes. `verdict` is `integrity` if a copy has other bytes, `io` if one failed. `foreign`
    are the models, told by the names of GGUF files, that only other programs have.
    """

    store: str
    dry_run: bool
    folders: tuple[SearchedFolder, ...]
    unreadable: tuple[Unreadable, ...]
    files: int
    hashed: int
    hashed_size: int
    duplicates: tuple[DuplicateBlob, ...]
    copied_size: int
    shared_size: int
    gain: int
    linked_size: int
    verdict: Verdict
    foreign: tuple[ForeignModel, ...]


def dedup(
    paths: Sequence[str | Path] = (),
    *,
    share: bool = False,
    dry_run: bool = False,
    agree: Callable[[DedupReport], bool] | None = None,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> DedupReport:
    """
    Find the same bytes in the folders of other programs. With `share`, let the disk keep them once.

    `paths` are the folders to search: stores, caches, folders of GGUF files. Without them, every folder where such
    files usually are is searched. A file is hashed only if its name has no digest and its size is that of a blob.

    The file system (btrfs, XFS) shares the bytes and compares them first. Nothing is hard-linked, and each file stays
    what it is to its program. `agree` gets the report of what would be shared; if it returns False, or with `dry_run`,
    nothing is shared and that report is returned.

    Raises NotFoundError if the store or a path does not exist, UsageError if a path is no folder or the disk can share
    none of the copies, OSError.
    """
    store = chosen_store(models).require()
    search = _search(store, tuple(_caches(paths, store)), jobs=threads(jobs), progress=progress)
    plan = search.report(dry_run=True)
    if not share:
        return plan
    _refuse_if_nothing_can_be_shared(plan)
    if dry_run or (plan.gain and agree is not None and not agree(plan)):
        return plan
    done = replace(search, duplicates=link(search.duplicates, progress)) if plan.gain else search
    report = done.report(dry_run=False)
    _refuse_if_nothing_can_be_shared(report)
    return report


@dataclass(frozen=True)
class _Search:
    store: LocalStore
    caches: tuple[ForeignCache, ...]
    files: int
    unreadable: tuple[Unreadable, ...]
    decided: dict[str, Decided]
    duplicates: tuple[Duplicate, ...]
    foreign: tuple[ForeignModel, ...]

    def report(self, *, dry_run: bool) -> DedupReport:
        copies = [copy for duplicate in self.duplicates for copy in duplicate.copies]
        hashed = [decided.hashed for decided in self.decided.values() if decided.hashed]
        return DedupReport(
            store=str(self.store.root),
            dry_run=dry_run,
            folders=tuple(SearchedFolder(str(cache.path), cache.kind.value) for cache in self.caches),
            unreadable=tuple(self._unsearched()),
            files=self.files,
            hashed=len(hashed),
            hashed_size=sum(hashed),
            duplicates=tuple(self._blobs()),
            copied_size=sum(copy.file.size for copy in copies),
            shared_size=sum(copy.shared for copy in copies),
            gain=sum(copy.gain for copy in copies if copy.state == "shareable"),
            linked_size=sum(copy.gain for copy in copies if copy.state == "linked"),
            verdict=_verdict(copies),
            foreign=self.foreign,
        )

    def _unsearched(self) -> Iterator[Unreadable]:
        yield from self.unreadable
        for path, decided in self.decided.items():
            if decided.problem:
                yield Unreadable(path, decided.problem)

    def _blobs(self) -> Iterator[DuplicateBlob]:
        users = self.store.scan().users if self.duplicates else {}
        for duplicate in self.duplicates:
            yield DuplicateBlob(
                digest=str(duplicate.digest),
                size=duplicate.source.size,
                path=duplicate.source.path,
                models=tuple(str(name) for name in users.get(duplicate.digest, ())),
                copies=tuple(
                    DuplicateCopy(copy.file.path, copy.file.kind, copy.state, copy.shared, copy.gain, copy.detail)
                    for copy in duplicate.copies
                ),
            )


def _search(store: LocalStore, caches: tuple[ForeignCache, ...], *, jobs: int, progress: Progress) -> _Search:
    found = find_files(caches)
    own = list(_own_files(store))
    others = named_by_inode(own, _elsewhere(own, found.candidates, store))
    files, unreadable = len(found.candidates), found.unreadable
    # Ten thousand candidates need not be in memory twice.
    del found
    undecided = must_be_hashed(own, others)
    decided = decide(undecided, jobs=jobs, progress=progress) if undecided else {}
    others = [replace(file, digest=decided[file.path].digest) if file.path in decided else file for file in others]
    foreign = tuple(_foreign_models(own, others, store))
    return _Search(store, caches, files, unreadable, decided, examine(find_duplicates(own, others)), foreign)


def _foreign_models(own: Iterable[KeptFile], others: Iterable[KeptFile], store: LocalStore) -> Iterator[ForeignModel]:
    """Yield the models of GGUF files that the store does not have. Another store's are carried, not created."""
    known = {file.digest for file in own}
    foreign = (file for file in others if file.kind != CacheKind.STORE and file.size >= MIN_BYTES)
    absent = {file.path: file for file in foreign if file.digest is None or file.digest not in known}
    spelled = names_of_blobs(path for path, file in absent.items() if file.digest is not None)
    lacking = {spelled.get(path, path): file for path, file in absent.items()}
    lacking = {path: file for path, file in lacking.items() if path.lower().endswith(GGUF)}
    names = [str(entry.name).lower() for entry in find_manifests(store.root).entries if entry.name] if lacking else []
    for model in found_models(lacking, names):
        files = [lacking[path] for path in model.files]
        # Where the disk cannot share bytes, only a second name saves a copy.
        can_link = not model.is_split and _may_have_second_names(model.files, store)
        create = ostore("create", model.name, *model.files, *(["--link"] if can_link else []))
        yield ForeignModel(files[0].kind, model.files, sum(file.size for file in files), create)


def _may_have_second_names(paths: Iterable[str], store: LocalStore) -> bool:
    """Return whether files are on the disk of the store and of its owner, and nobody else may write into them."""
    with contextlib.suppress(OSError):
        place = store.root.stat()
        owner, found = Ownership.of(place), [Path(path).stat() for path in paths]
        return all(
            status.st_dev == place.st_dev and owner.has(status) and not status.st_mode & _WRITABLE_BY_OTHERS
            for status in found
        )
    return False


def _caches(paths: Sequence[str | Path], store: LocalStore) -> Iterator[ForeignCache]:
    if not paths:
        yield from usual_caches(surroundings(), store.root)
    for path in paths:
        folder = surroundings().cwd / path
        if not folder.exists():
            raise NotFoundError(f"{folder}: no such folder")
        if not folder.is_dir():
            raise UsageError(f"{folder}: expected a folder")
        yield recognise(folder)


def _own_files(store: LocalStore) -> Iterator[KeptFile]:
    blobs = str(store.root / BLOBS)
    for blob in sorted(take_census(store.root).blobs, key=by_filename):
        facts = blob.facts
        if facts.kind is EntryKind.FILE:
            path = f"{blobs}{os.sep}{blob.filename}"
            yield KeptFile(path, CacheKind.STORE.value, facts.size, facts.allocated, facts.identity, blob.digest)


def _elsewhere(own: Iterable[KeptFile], candidates: Iterable[Candidate], store: LocalStore) -> Iterator[KeptFile]:
    """Yield the candidates without those that lead to a blob of the store, because a link is no copy."""
    identities = {file.identity for file in own}
    blobs = (store.root / BLOBS).resolve()
    for found in candidates:
        if found.identity not in identities or Path(found.path).resolve().parent != blobs:
            yield KeptFile(found.path, found.kind.value, found.size, found.allocated, found.identity, found.digest)


def _verdict(copies: Iterable[Copy]) -> Verdict:
    states = {copy.state for copy in copies}
    if "different" in states:
        return "integrity"
    return "io" if "failed" in states else "whole"


def _refuse_if_nothing_can_be_shared(report: DedupReport) -> None:
    """Raises UsageError if there are copies and the disk can share none of them."""
    copies = [copy for blob in report.duplicates for copy in blob.copies]
    barred = [copy for copy in copies if copy.state in {"unsupported", "other-disk"}]
    if barred and all(copy in barred or copy.state == "same-file" for copy in copies):
        raise UsageError(
            f"{barred[0].path}: {barred[0].detail}", hint=ostore("dedup", after="shows all that is kept twice")
        )
