"""Hashing everything that is there and reporting everything that is wrong, not the first of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobMissingError, DamagedStoreError, IntegrityError, SizeMismatchError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.selection import Wanted
from ostore.operations.transfer import Source
from ostore.streams.bytes_at import nothing_held
from ostore.streams.chunks import Chunk
from ostore.streams.progress import Progress, stoppable, watched, watching
from ostore.streams.verified import hash_file, verified

ProblemKind = Literal[
    "blob-missing",
    "blob-size",
    "blob-altered",
    "blob-unreadable",
    "blob-not-regular",
    "manifest-damaged",
    "manifest-ambiguous",
    "manifest-unfit",
    "stray-name",
]
# `whole`, or the class of error that the report amounts to.
Verdict = Literal["whole", "integrity", "io", "damaged"]
# Which class of error a report with problems amounts to; the first that occurs decides (docs/exit-codes.md).
_BYTES: frozenset[ProblemKind] = frozenset({"blob-missing", "blob-size", "blob-altered"})
_MEDIUM: frozenset[ProblemKind] = frozenset({"blob-unreadable"})
_NOBODY: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: what kind, about which blob or path, in words, and the models that suffer from it."""

    kind: ProblemKind
    subject: str
    detail: str
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was hashed (`size` in bytes) and every problem found, sorted by subject."""

    subject: str
    models: int
    blobs: int
    size: int
    problems: tuple[Problem, ...]
    verdict: Verdict

    @classmethod
    def of(cls, subject: str, models: int, blobs: Iterable[Descriptor], problems: Iterable[Problem]) -> VerifyReport:
        """The report on these blobs, each counted once however many models promise it."""
        sizes = {blob.digest: blob.size for blob in blobs}
        ordered = tuple(sorted(problems, key=lambda problem: (problem.subject, problem.kind)))
        return cls(subject, models, len(sizes), sum(sizes.values()), ordered, _verdict(ordered))


class _Model(Protocol):
    @property
    def name(self) -> ModelName: ...
    @property
    def manifest(self) -> Manifest: ...


class _Entry(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def reason(self) -> str: ...


class StoreFindings(Protocol):
    """What a scan of manifests found."""

    @property
    def models(self) -> Sequence[_Model]: ...
    @property
    def unreadable(self) -> Sequence[_Entry]: ...
    @property
    def strays(self) -> Sequence[str]: ...


class StoredBlobs(Protocol):
    """A store: its blobs can be opened by digest."""

    def opened_blob(self, digest: Digest) -> AbstractContextManager[int]: ...


def verify_store(
    subject: str,
    store: StoredBlobs,
    findings: StoreFindings,
    *,
    orphans: Iterable[Descriptor],
    strays: Iterable[str],
    jobs: int,
    progress: Progress,
) -> VerifyReport:
    """
    Hash every blob that the models found need, and `orphans`; several at a time.

    `strays` are names in `blobs/` that neither ostore nor Ollama gives. Raises nothing of what it looks for.
    """
    promises = [*_needed(findings.models), *((orphan, _NOBODY) for orphan in orphans)]
    # The largest first: one that began last would keep a single thread busy when all others are done.
    promises.sort(key=lambda promise: -promise[0].size)
    progress.phase("verifying sha256 digest", sum(blob.size for blob, _ in promises))
    with ThreadPoolExecutor(max(1, jobs)) as pool, stoppable(progress) as told:
        checked = pool.map(lambda promise: _check_blob(store, promise[0], promise[1], told), promises)
        problems = [problem for problem in checked if problem]
    problems += _manifest_problems(findings)
    problems += (Problem("stray-name", path, "not a name that Ollama gives") for path in strays)
    return VerifyReport.of(subject, len(findings.models), (blob for blob, _ in promises), problems)


def verify_bundle(subject: str, bundle: Source, progress: Progress) -> VerifyReport:
    """
    Hash every blob of a bundle and check every manifest.

    A damaged blob is a finding. What makes the rest unreadable is raised: IntegrityError, FormatError, UnsafeError,
    LimitError.
    """
    selection = bundle.select(())
    blobs = selection.blobs
    progress.phase("verifying sha256 digest", sum(blob.size for blob in blobs))
    problems = []
    for wanted, chunks in bundle.read_blobs([Wanted(blob) for blob in blobs], nothing_held):
        blob = wanted.blob
        try:
            _drain(verified(watched(chunks, blob.digest.short, blob.size, progress), blob))
        except IntegrityError as error:
            users = _texts(selection.users_of(blob.digest))
            problems.append(Problem("blob-altered", str(blob.digest), str(error), users))
    models = sum(1 for _ in bundle.read_manifests(selection.models))
    return VerifyReport.of(subject, models, blobs, problems)


def _needed(models: Iterable[_Model]) -> list[tuple[Descriptor, tuple[str, ...]]]:
    """Every promise about a blob (two, if two manifests disagree about its size), and who makes it."""
    users: dict[tuple[Digest, int], list[str]] = {}
    for model in models:
        for digest, size in {(blob.digest, blob.size): None for blob in model.manifest.descriptors}:
            users.setdefault((digest, size), []).append(str(model.name))
    return [(Descriptor(digest, size), tuple(names)) for (digest, size), names in users.items()]


def _check_blob(store: StoredBlobs, blob: Descriptor, users: tuple[str, ...], progress: Progress) -> Problem | None:
    kind: ProblemKind
    try:
        with store.opened_blob(blob.digest) as fd, watching(blob.digest.short, blob.size, progress) as advance:
            hash_file(fd, blob, advance)
    except BlobMissingError as error:
        kind, detail = "blob-missing", str(error)
    except SizeMismatchError as error:
        kind, detail = "blob-size", str(error)
    except IntegrityError as error:
        kind, detail = "blob-altered", str(error)
    except DamagedStoreError as error:
        kind, detail = "blob-not-regular", str(error)
    except OSError as error:
        kind, detail = "blob-unreadable", f"blob {blob.digest}: {error.strerror or error}"
    else:
        return None
    return Problem(kind, str(blob.digest), detail, users)


def _verdict(problems: Iterable[Problem]) -> Verdict:
    kinds = {problem.kind for problem in problems}
    if kinds & _BYTES:
        return "integrity"
    if kinds & _MEDIUM:
        return "io"
    return "damaged" if kinds else "whole"


def _manifest_problems(findings: StoreFindings) -> Iterator[Problem]:
    for entry in findings.unreadable:
        yield Problem("manifest-damaged", entry.path, entry.reason)
    for model in findings.models:
        kinds: tuple[tuple[ProblemKind, str | None], ...] = (
            ("manifest-ambiguous", model.manifest.ambiguity),
            ("manifest-unfit", model.manifest.unfit),
        )
        yield from (Problem(kind, str(model.name), why, (str(model.name),)) for kind, why in kinds if why)
    for path in findings.strays:
        yield Problem("stray-name", path, "not a place where a manifest can be")


def _drain(chunks: Iterator[Chunk]) -> None:
    for _ in chunks:
        pass


def _texts(names: Iterable[ModelName]) -> tuple[str, ...]:
    return tuple(str(name) for name in names)
