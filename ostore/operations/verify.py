"""Hash everything, and report every problem, not only the first."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby, starmap
from operator import attrgetter, itemgetter
from typing import Literal, Protocol

from ostore.formats.digest import Digest
from ostore.formats.errors import (
    BlobMissingError,
    DamagedStoreError,
    IntegrityError,
    SizeMismatchError,
)
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.plain_manifest import LARGE_BYTES
from ostore.formats.remedy import NOTHING, Remedy, ostore, person
from ostore.formats.unreadable import UnreadableManifest
from ostore.formats.wording import listed
from ostore.operations.loading import IN_PARTS, loading_of
from ostore.places.store.survey.census import BesideBlobs
from ostore.places.store.survey.manifest_tree import ManifestTree
from ostore.streams.chunks import Chunk
from ostore.streams.pool import Pool
from ostore.streams.progress import Progress, stoppable, watching
from ostore.streams.verified import hash_file

ProblemKind = Literal[
    "blob-missing",
    "blob-size",
    "blob-altered",
    "blob-unreadable",
    "blob-not-regular",
    "blob-misnamed",
    "manifest-damaged",
    "manifest-unreadable",
    "manifest-misplaced",
    "manifest-ambiguous",
    "manifest-unfit",
    "digest-spelling",
    "folder-unreadable",
    "lock-missing",
    "lock-different",
    "volume-damaged",
]
# `whole`, or the class of error that the problems of a report amount to.
Verdict = Literal["whole", "integrity", "io", "damaged", "not-found"]
# The first of these sets that has a problem of the report decides the verdict, else it is `damaged`
# (docs/exit-codes.md).
_BYTES: frozenset[ProblemKind] = frozenset({"blob-missing", "blob-size", "blob-altered", "volume-damaged"})
_NOT_THAT: frozenset[ProblemKind] = frozenset({"lock-different"})
_NOT_THERE: frozenset[ProblemKind] = frozenset({"lock-missing"})
_MEDIUM: frozenset[ProblemKind] = frozenset({"blob-unreadable", "manifest-unreadable", "folder-unreadable"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `subject` is a digest, a path or a name, `detail` a sentence, `models` those that suffer from it."""

    kind: ProblemKind
    subject: str
    detail: str
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """
    What was hashed, and every problem, sorted by subject.

    `subject` is the store or bundle. `models` and `blobs` are counts, `size` is bytes. `warnings` are about entries
    that do no harm. `remedy` is what to do about the worst problem. `volumes` is how many files were compared with the
    list of digests of their set; of one volume alone, `size` is its bytes, and nothing is known of models.
    `unchecked` counts blobs of a bundle that could not be hashed: what they are made of is elsewhere or damaged there.
    """

    subject: str
    models: int
    blobs: int
    size: int
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    verdict: Verdict
    remedy: Remedy = NOTHING
    volumes: int = 0
    unchecked: int = 0

    @classmethod
    def of(
        cls,
        subject: str,
        models: int,
        sizes: Sequence[int],
        problems: Iterable[Problem],
        *,
        warnings: Iterable[str] = (),
        remedy: Remedy = NOTHING,
    ) -> VerifyReport:
        """Make a report. `sizes` has one size in bytes for each distinct blob."""
        ordered = tuple(sorted(problems, key=lambda problem: (problem.subject, problem.kind)))
        return cls(subject, models, len(sizes), sum(sizes), ordered, tuple(warnings), _verdict(ordered), remedy)

    def adding(self, problems: Iterable[Problem]) -> VerifyReport:
        """Return the report with more problems, and the verdict of all of them."""
        ordered = tuple(sorted((*self.problems, *problems), key=lambda problem: (problem.subject, problem.kind)))
        return replace(self, problems=ordered, verdict=_verdict(ordered))


class _Model(Protocol):
    @property
    def name(self) -> ModelName: ...
    @property
    def manifest(self) -> Manifest: ...


class _Stray(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def is_misplaced(self) -> bool: ...


class StoreFindings(Protocol):
    """What a scan of manifests found. `unreadable` may be complete only after `models` is exhausted."""

    @property
    def models(self) -> Iterable[_Model]: ...
    @property
    def unreadable(self) -> Sequence[UnreadableManifest]: ...
    @property
    def strays(self) -> Sequence[_Stray]: ...
    @property
    def tree(self) -> ManifestTree: ...


class StoredBlobs(Protocol):
    """A store whose blobs can be opened by digest. `option` is what `--models` says in hints, or None."""

    @property
    def option(self) -> str | None: ...
    def opened_blob(self, digest: Digest) -> AbstractContextManager[int]: ...


class Promises:
    """
    What manifests promise of blobs, which models promise it, and the problems of the manifests themselves.

    A promise is 32 bytes of digest and 8 of size. A model is its index in `names`. Objects for the blobs of a hundred
    thousand models would need a gigabyte.
    """

    def __init__(self, findings: StoreFindings) -> None:
        self.names: list[ModelName] = []
        # Maps a promise to the index of its only model, the usual case, or to a list of indices.
        self._users: dict[bytes, int | list[int]] = {}
        unclear: list[tuple[ModelName, Problem]] = []
        for model in findings.models:
            self._add(model)
            unclear += ((model.name, problem) for problem in _manifest_problems(model))
        unclear.sort(key=lambda pair: pair[0].full)
        self._sorted = sorted(self._users)
        self.problems = (*(problem for _, problem in unclear), *_entry_problems(findings))
        self.warnings = tuple(_twins(self.names))

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the distinct promises. A blob has two if manifests disagree about its size."""
        return iter(self._users)

    def needs(self, digest: Digest) -> bool:
        """Return whether any manifest promises a blob."""
        return self._promise_of(digest) is not None

    def users_of_blob(self, digest: Digest) -> tuple[str, ...]:
        """Return the sorted names of models that need a blob. If manifests disagree about its size, of one size."""
        promise = self._promise_of(digest)
        return self.users_of(promise) if promise else ()

    def users_of(self, promise: bytes) -> tuple[str, ...]:
        """Return the sorted names of the models that make a promise. An unknown promise has none."""
        numbers = self._users.get(promise, ())
        names = [self.names[number] for number in ((numbers,) if isinstance(numbers, int) else numbers)]
        return texts(sorted(names, key=attrgetter("full")))

    @property
    def digests(self) -> set[Digest]:
        """The blobs that are promised."""
        return set(map(_digest_of, self._users))

    def _promise_of(self, digest: Digest) -> bytes | None:
        wanted = bytes.fromhex(digest.hex)
        place = bisect_left(self._sorted, wanted)
        return next((promise for promise in self._sorted[place : place + 1] if promise.startswith(wanted)), None)

    def _add(self, model: _Model) -> None:
        number = len(self.names)
        self.names.append(model.name)
        for promise in dict.fromkeys(starmap(_packed, model.manifest.sizes)):
            users = self._users.setdefault(promise, number)
            if isinstance(users, list):
                users.append(number)
            elif users != number:
                self._users[promise] = [users, number]


def verify_store(
    subject: str,
    store: StoredBlobs,
    promised: Promises,
    *,
    beside: BesideBlobs,
    notes: Iterable[str],
    jobs: int,
    progress: Progress,
) -> VerifyReport:
    """
    Hash every promised blob, and every orphan in `beside`, `jobs` at a time.

    A blob that cannot be read is a problem in the report too, not an error. `notes` become warnings of the report.
    """
    promises = [*promised, *(_packed(orphan.digest.hex, orphan.size) for orphan in beside.orphans)]
    # Hash the largest first. If it began last, one thread would work on it after all others are done.
    promises.sort(key=_size_of, reverse=True)
    progress.phase("verifying sha256 digest", sum(map(_size_of, promises)))
    problems = [*_hash_all(store, promises, jobs, progress, promised.users_of), *promised.problems]
    problems += (
        Problem("blob-misnamed", path, "not a name under which Ollama finds a blob", promised.users_of_blob(digest))
        for path, digest in beside.misspelled
    )
    warnings = (*notes, *promised.warnings, *_in_parts(store, promises, promised.users_of), *_told(beside))
    remedy = _remedy(problems, store.option)
    sizes = _sizes_of_blobs(promises)
    return VerifyReport.of(subject, len(promised.names), sizes, problems, warnings=warnings, remedy=remedy)


def _remedy(problems: Collection[Problem], models: str | None) -> Remedy:
    # `doctor` names a way for each of the others.
    if any(problem.kind in _BYTES for problem in problems):
        return ostore("repair", "--from", "BUNDLE", models=models, before="if you have good copies")
    return ostore("doctor", models=models, after="says what to do") if problems else NOTHING


def _in_parts(
    store: StoredBlobs, promises: Iterable[bytes], users_of: Callable[[bytes], tuple[str, ...]]
) -> Iterator[str]:
    """Yield the models that are whole and that no Ollama loads all the same."""
    large = (promise for promise in promises if _size_of(promise) >= LARGE_BYTES)
    parts = (promise for promise in large if (header := loading_of(store, _digest_of(promise))) and header.split)
    for name in dict.fromkeys(name for promise in parts for name in users_of(promise)):
        yield f"{name}: {IN_PARTS}"


def _told(beside: BesideBlobs) -> Iterator[str]:
    if beside.links:
        yield f"{listed(beside.links)}: a link, and the file that it leads to was hashed"
    if beside.foreign:
        yield f"{listed(beside.foreign)}: not a file of Ollama, whose next start deletes it"


def verified_volumes(report: VerifyReport, problems: Mapping[str, str], volumes: int) -> VerifyReport:
    """Return the report with what is wrong with volumes, by path. A copy of those is what helps, not of the bundle."""
    found = (*report.problems, *(Problem("volume-damaged", path, told) for path, told in problems.items()))
    remedy = (
        person("copy these volumes again; with parity, `ostore import` repairs them") if problems else report.remedy
    )
    return replace(report, problems=found, verdict=_verdict(found), remedy=remedy, volumes=volumes)


def _packed(digits: str, size: int) -> bytes:
    return bytes.fromhex(f"{digits}{size:016x}")


def _digest_of(promise: bytes) -> Digest:
    return Digest(promise[:32].hex())


def _size_of(promise: bytes) -> int:
    return int.from_bytes(promise[32:], "big")


def _sizes_of_blobs(promises: Iterable[bytes]) -> list[int]:
    """Return one size for each blob: the smallest, if there are several promises about it."""
    return [_size_of(next(same)) for _, same in groupby(sorted(promises), key=lambda promise: promise[:32])]


def _hash_all(
    store: StoredBlobs,
    promises: Iterable[bytes],
    jobs: int,
    progress: Progress,
    users_of: Callable[[bytes], tuple[str, ...]],
) -> list[Problem]:
    """Hash blobs in the order given, `jobs` at a time. Return their problems, for one blob the largest size first."""
    # Threads take the next promise from a queue. A million futures would need more memory than everything else.
    waiting = deque(promises)

    def check_some() -> list[tuple[bytes, Problem]]:
        checked = ((promise, _check_blob(store, promise, users_of, told)) for promise in _taken(waiting))
        return [(promise, problem) for promise, problem in checked if problem]

    with Pool(max(1, jobs)) as pool, stoppable(progress) as told:
        working = [pool.submit(check_some) for _ in range(min(max(1, jobs), len(waiting)))]
        try:
            found = [problem for future in as_completed(working) for problem in future.result()]
        finally:
            # If one thread has failed, the others stop after their current blob.
            waiting.clear()
    return [problem for _, problem in sorted(found, key=itemgetter(0), reverse=True)]


def _taken(waiting: deque[bytes]) -> Iterator[bytes]:
    """Yield from a queue that threads share until it is empty."""
    while True:
        try:
            promise = waiting.popleft()
        except IndexError:
            return
        yield promise


def _check_blob(
    store: StoredBlobs, promise: bytes, users_of: Callable[[bytes], tuple[str, ...]], progress: Progress
) -> Problem | None:
    blob = Descriptor(_digest_of(promise), _size_of(promise))
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
    return Problem(kind, str(blob.digest), detail, users_of(promise))


def _verdict(problems: Iterable[Problem]) -> Verdict:
    kinds = {problem.kind for problem in problems}
    if kinds & (_BYTES | _NOT_THAT):
        return "integrity"
    if kinds & _MEDIUM:
        return "io"
    if kinds and kinds <= _NOT_THERE:
        return "not-found"
    return "damaged" if kinds else "whole"


def _manifest_problems(model: _Model) -> Iterator[Problem]:
    manifest = model.manifest
    if manifest.is_misspelled:
        yield Problem("digest-spelling", str(model.name), manifest.ambiguity or "", (str(model.name),))
    elif manifest.ambiguity:
        yield Problem("manifest-ambiguous", str(model.name), manifest.ambiguity, (str(model.name),))
    if manifest.unfit:
        yield Problem("manifest-unfit", str(model.name), manifest.unfit, (str(model.name),))


def _entry_problems(findings: StoreFindings) -> Iterator[Problem]:
    for entry in findings.unreadable:
        yield Problem("manifest-unreadable" if entry.error else "manifest-damaged", entry.path, entry.reason)
    for folder in () if findings.tree.is_part else findings.tree.closed:
        yield Problem("folder-unreadable", folder.path, folder.reason)
    for stray in findings.strays:
        if stray.is_misplaced:
            yield Problem("manifest-misplaced", stray.path, "a manifest where Ollama does not look")


def _twins(names: Iterable[ModelName]) -> Iterator[str]:
    """Yield the names that differ only by case."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(name.folded, set()).add(str(name))
    for twins in groups.values():
        if len(twins) > 1:
            yield f"{', '.join(sorted(twins))}: differ only by case, and Ollama takes one of them at random"


def drain(chunks: Iterator[Chunk]) -> None:
    """Read all of it, for what that raises."""
    for _ in chunks:
        pass


def texts(names: Iterable[ModelName]) -> tuple[str, ...]:
    """Return the short names of models."""
    return tuple(str(name) for name in names)
