"""Hash a bundle: what it holds, and what its recipes make of blobs that the target has. Or an OCI image layout."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from ostore.formats.digest import Digest
from ostore.formats.errors import (
    BlobError,
    BlobMissingError,
    DamagedStoreError,
    IntegrityError,
    NotFoundError,
    OstoreError,
    SizeMismatchError,
    UnsafeError,
)
from ostore.formats.manifest import Descriptor
from ostore.formats.remedy import NOTHING, person
from ostore.formats.selection import LeftOut, Selection, Wanted
from ostore.formats.wording import plural
from ostore.operations.transfer import Source
from ostore.operations.verify import Problem, ProblemKind, VerifyReport, drain, texts
from ostore.streams.bytes_at import Held, nothing_held
from ostore.streams.progress import Progress, watched
from ostore.streams.recipe import refuse_damaged_bases
from ostore.streams.verified import verified


def verify_bundle(subject: str, bundle: Source, progress: Progress, held: Held = nothing_held) -> VerifyReport:
    """
    Hash every blob of a bundle and check every manifest. A damaged blob is a problem in the report.

    What recipes make is hashed if their bases are `held` or in the bundle, and is no problem otherwise.

    Raises IntegrityError, FormatError, UnsafeError or LimitError if the rest of the bundle cannot be read, OSError.
    """
    selection = bundle.select(())
    blobs = selection.blobs
    progress.phase("verifying sha256 digest", sum(blob.size for blob in blobs))
    problems, unchecked = [], set()
    for wanted, chunks in bundle.read_blobs([Wanted(blob) for blob in blobs], held):
        blob = wanted.blob
        try:
            drain(verified(watched(chunks, blob.digest.short, blob.size, progress), blob))
        except IntegrityError as error:
            if _is_misled(selection, blob.digest, error, held):
                unchecked.add(blob.digest)
                continue
            users = texts(selection.users_of(blob.digest))
            problems.append(Problem("blob-altered", str(blob.digest), str(error), users))
        except NotFoundError:
            unchecked.add(blob.digest)
    models = sum(1 for _ in bundle.read_manifests(selection.models))
    remedy = person("copy the bundle again, or export it again") if problems else NOTHING
    sizes = [blob.size for blob in blobs if blob.digest not in unchecked]
    warnings = _elsewhere(subject, selection, unchecked, held)
    report = VerifyReport.of(subject, models, sizes, problems, warnings=warnings, remedy=remedy)
    return replace(report, unchecked=len(unchecked))


def verify_layout(subject: str, layout: Source, selection: Selection, progress: Progress) -> VerifyReport:
    """
    Hash every blob of the models of an OCI image layout. What is damaged or cannot be read is a problem in the report.

    `selection` has the models whose manifests could be read, and leaves out the others.
    """
    blobs = selection.blobs
    progress.phase("verifying sha256 digest", sum(blob.size for blob in blobs))
    problems = [_unread(left) for left in selection.left]
    for wanted, chunks in layout.read_blobs([Wanted(blob) for blob in blobs], nothing_held):
        blob = wanted.blob
        try:
            drain(verified(watched(chunks, blob.digest.short, blob.size, progress), blob))
        except (OstoreError, OSError) as error:
            users = texts(selection.users_of(blob.digest))
            problems.append(Problem(_blob_problem(error), str(blob.digest), _told(error), users))
    remedy = person("copy the layout again, or export to it again: that replaces what is damaged")
    sizes = [blob.size for blob in blobs]
    count = len(selection.models)
    return VerifyReport.of(
        subject, count, sizes, problems, warnings=selection.warnings, remedy=remedy if problems else NOTHING
    )


def _blob_problem(error: OstoreError | OSError) -> ProblemKind:
    kinds: tuple[tuple[type[Exception], ProblemKind], ...] = (
        (BlobMissingError, "blob-missing"),
        (SizeMismatchError, "blob-size"),
        (DamagedStoreError, "blob-not-regular"),
        (OSError, "blob-unreadable"),
    )
    return next((kind for type_, kind in kinds if isinstance(error, type_)), "blob-altered")


def _told(error: OstoreError | OSError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _unread(left: LeftOut) -> Problem:
    """Return the problem of an entry of an index that was meant for a model."""
    kind: ProblemKind = "manifest-damaged"
    if isinstance(left.error, OSError):
        kind = "manifest-unreadable"
    elif isinstance(left.error, BlobMissingError):
        kind = "blob-missing"
    elif isinstance(left.error, UnsafeError):
        kind = "manifest-ambiguous"
    return Problem(kind, left.subject, left.told.reason)


def _is_misled(selection: Selection, digest: Digest, error: IntegrityError, held: Held) -> bool:
    """
    Return whether a blob that a recipe makes is wrong because what the target has is damaged, not the bundle.

    An error about the recipe itself, as it is stored, is one of the bundle.
    """
    made = selection.makers.get(digest)
    if made is None or not isinstance(error, BlobError) or error.digest != str(digest):
        return False
    bases = sorted(selection.built_on([digest]))
    try:
        refuse_damaged_bases(made, (Descriptor(base, selection.sizes[base]) for base in bases), held)
    except BlobError:
        return True
    return False


def _elsewhere(subject: str, selection: Selection, unchecked: Collection[Digest], held: Held) -> Iterator[str]:
    lacking = sum(held(blob.digest) is None for blob in selection.requires)
    if lacking:
        yield f"{subject}: needs {plural(lacking, 'blob')} elsewhere"
    if unchecked:
        what = plural(len(unchecked), "blob")
        yield f"{subject}: {what} not checked, because what they are made of is elsewhere or damaged there"
