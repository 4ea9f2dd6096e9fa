"""Hashing everything that is there and reporting everything that is wrong, not the first of it."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby, starmap
from operator import attrgetter, itemgetter
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
    def of(cls, subject: str, models: int, sizes: Sequence[int], problems: Iterable[Problem]) -> VerifyReport:
        """The report on blobs of these sizes, each there once however many models promise it."""
        ordered = tuple(sorted(problems, key=lambda problem: (problem.subject, problem.kind)))
        return cls(subject, models, len(sizes), sum(sizes), ordered, _verdict(ordered))


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
    """What a scan of manifests found; the rest of it may be complete only when its `models` have been gone through."""

    @property
    def models(self) -> Iterable[_Model]: ...
    @property
    def unreadable(self) -> Sequence[_Entry]: ...
    @property
    def strays(self) -> Sequence[str]: ...


class StoredBlobs(Protocol):
    """A store: its blobs can be opened by digest."""

    def opened_blob(self, digest: Digest) -> AbstractContextManager[int]: ...


class Promises:
    """
    What manifests promise of blobs, who does, and what is wrong with the manifests themselves.

    A promise is packed into the bytes of its digest and eight of its size, and a model is its number among `names`:
    objects for the blobs of a hundred thousand models would need a gigabyte.
    """

    def __init__(self, findings: StoreFindings) -> None:
        self.names: list[ModelName] = []
        # The number of its only model, as nearly always, or those of several.
        self._users: dict[bytes, int | list[int]] = {}
        unclear: list[tuple[ModelName, Problem]] = []
        for model in findings.models:
            self._add(model)
            unclear += ((model.name, problem) for problem in _manifest_problems(model))
        unclear.sort(key=lambda pair: pair[0].full)
        self._sorted = sorted(self._users)
        self.problems = (*(problem for _, problem in unclear), *_entry_problems(findings))

    def __iter__(self) -> Iterator[bytes]:
        """Every promise once; two of one blob, if manifests disagree about its size."""
        return iter(self._users)

    def needs(self, digest: Digest) -> bool:
        """Whether there is a promise about a blob."""
        wanted = bytes.fromhex(digest.hex)
        place = bisect_left(self._sorted, wanted)
        return place < len(self._sorted) and self._sorted[place].startswith(wanted)

    def users_of(self, promise: bytes) -> tuple[str, ...]:
        """The models that make a promise, sorted; none for one that is not here."""
        numbers = self._users.get(promise, ())
        names = [self.names[number] for number in ((numbers,) if isinstance(numbers, int) else numbers)]
        return _texts(sorted(names, key=attrgetter("full")))

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
    orphans: Iterable[Descriptor],
    strays: Iterable[str],
    jobs: int,
    progress: Progress,
) -> VerifyReport:
    """
    Hash every blob that is promised, and `orphans`; several at a time.

    `strays` are names in `blobs/` that neither ostore nor Ollama gives. Raises nothing of what it looks for.
    """
    promises = [*promised, *(_packed(orphan.digest.hex, orphan.size) for orphan in orphans)]
    # The largest first: one that began last would keep a single thread busy when all others are done.
    promises.sort(key=_size_of, reverse=True)
    progress.phase("verifying sha256 digest", sum(map(_size_of, promises)))
    problems = [*_hash_all(store, promises, jobs, progress, promised.users_of), *promised.problems]
    problems += (Problem("stray-name", path, "not a name that Ollama gives") for path in strays)
    return VerifyReport.of(subject, len(promised.names), _sizes_of_blobs(promises), problems)


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
    return VerifyReport.of(subject, models, [blob.size for blob in blobs], problems)


def _packed(digits: str, size: int) -> bytes:
    return bytes.fromhex(f"{digits}{size:016x}")


def _size_of(promise: bytes) -> int:
    return int.from_bytes(promise[32:], "big")


def _sizes_of_blobs(promises: Iterable[bytes]) -> list[int]:
    """A size for each blob: the smallest, if there are several promises about one."""
    return [_size_of(next(same)) for _, same in groupby(sorted(promises), key=lambda promise: promise[:32])]


def _hash_all(
    store: StoredBlobs,
    promises: Iterable[bytes],
    jobs: int,
    progress: Progress,
    users_of: Callable[[bytes], tuple[str, ...]],
) -> list[Problem]:
    """Hash blobs in the order of the promises, `jobs` at a time. Problems with one blob: the largest size first."""
    # Threads take from it what is next: a future for each of a million blobs would need more memory than all the rest.
    waiting = deque(promises)

    def check_some() -> list[tuple[bytes, Problem]]:
        checked = ((promise, _check_blob(store, promise, users_of, told)) for promise in _taken(waiting))
        return [(promise, problem) for promise, problem in checked if problem]

    with ThreadPoolExecutor(max(1, jobs)) as pool, stoppable(progress) as told:
        working = [pool.submit(check_some) for _ in range(min(max(1, jobs), len(waiting)))]
        try:
            found = [problem for future in as_completed(working) for problem in future.result()]
        finally:
            # When one has failed, the others end with the blob at which they are.
            waiting.clear()
    return [problem for _, problem in sorted(found, key=itemgetter(0), reverse=True)]


def _taken(waiting: deque[bytes]) -> Iterator[bytes]:
    """What several threads take from one queue, each what is next, until it is empty."""
    while True:
        try:
            promise = waiting.popleft()
        except IndexError:
            return
        yield promise


def _check_blob(
    store: StoredBlobs, promise: bytes, users_of: Callable[[bytes], tuple[str, ...]], progress: Progress
) -> Problem | None:
    blob = Descriptor(Digest(promise[:32].hex()), _size_of(promise))
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
    if kinds & _BYTES:
        return "integrity"
    if kinds & _MEDIUM:
        return "io"
    return "damaged" if kinds else "whole"


def _manifest_problems(model: _Model) -> Iterator[Problem]:
    manifest = model.manifest
    if manifest.ambiguity:
        yield Problem("manifest-ambiguous", str(model.name), manifest.ambiguity, (str(model.name),))
    if manifest.unfit:
        yield Problem("manifest-unfit", str(model.name), manifest.unfit, (str(model.name),))


def _entry_problems(findings: StoreFindings) -> Iterator[Problem]:
    for entry in findings.unreadable:
        yield Problem("manifest-damaged", entry.path, entry.reason)
    for path in findings.strays:
        yield Problem("stray-name", path, "not a place where a manifest can be")


def _drain(chunks: Iterator[Chunk]) -> None:
    for _ in chunks:
        pass


def _texts(names: Iterable[ModelName]) -> tuple[str, ...]:
    return tuple(str(name) for name in names)
