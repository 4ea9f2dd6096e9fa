"""
Copy models from a source to a sink. Export, import, move and cp differ only in their source and sink.

The protocols here are all that this floor knows of places. A place implements a protocol by having its methods; it
inherits nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, DigestMismatchError, OstoreError, class_of
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.outcome import Forecast, Received
from ostore.formats.selection import LeftOut, SelectedModel, Selection, Wanted
from ostore.streams.bytes_at import BytesAt, Held, nothing_held
from ostore.streams.chunks import Chunk
from ostore.streams.progress import Progress, watched
from ostore.streams.source_failure import SourceFailureError, marked
from ostore.streams.verified import verified


class StoredManifest(Protocol):
    """
    One model of a store. `modified` is the mtime of its manifest, seconds since 1970, `tree` the folder of the store
    that the manifest lies in.
    """

    @property
    def name(self) -> ModelName: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def modified(self) -> float: ...
    @property
    def tree(self) -> str: ...


class SmallBlobs(Protocol):
    """A store whose small blobs can be read whole."""

    def read_small_blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """Return the first `limit` bytes of a blob, unverified. Raises OstoreError, OSError."""
        ...


class BlobSource(Protocol):
    """
    A place that may have blobs: a store, a bundle, a cache, a folder of files. Its bytes are not trusted.

    A call changes nothing in a source but the position of a pipe, so several callers may use it at once.
    """

    @property
    def label(self) -> str:
        """The name of this source in messages."""
        ...

    @property
    def can_resume(self) -> bool:
        """Whether `read_blobs` can start in the middle of a blob, so that bytes read before a failure are useful."""
        ...

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> Sequence[Descriptor]:
        """
        Return the lacking blobs that this source may have, judged by name and size. Nothing is hashed.

        They come in the order in which the source reads them best. `lacking` maps a digest to a size in bytes, or to
        None if any size will do.
        """
        ...

    def file_of(self, blob: Descriptor, /) -> Path | None:
        """Return a file on this machine that has the blob, so that a sink can link or clone it, or None."""
        ...

    def read_blobs(self, wanted: Sequence[Wanted], held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """
        Yield wanted blobs, unverified, in the order asked. A pipe yields them in the order of its selection.

        A stream begins at `start` of the `Wanted` that is yielded, which is the `start` asked for or 0. Nothing is
        opened before the first chunk of a stream. A stream is valid until the next one is asked for, and a stream that
        fails does not end the others. A folder of files may yield a second copy of a blob; skip it if the first was
        good. `held` returns what the target has already.
        """
        ...


@runtime_checkable
class Source(BlobSource, Protocol):
    """A place that has models."""

    def select(self, patterns: Sequence[str]) -> Selection:
        """
        Return the models that match names and globs, or all models if there are no patterns.

        Raises NotFoundError for a pattern that matches no model, and an OstoreError for a model that must not travel.
        """
        ...

    def find_models(self, folded: Collection[str]) -> Sequence[Selection]:
        """Return one selection for each model whose folded name is given and that may travel. Raises OSError."""
        ...

    def read_manifests(self, models: Sequence[SelectedModel]) -> Iterator[tuple[ModelName, bytes]]:
        """
        Yield the raw manifests of selected models. The sink compares them. Call this after the blobs are read.

        A bundle also checks its end here, so call this even if `models` is empty.
        """
        ...


class Inbox(Protocol):
    """One transaction of a sink."""

    @property
    def missing(self) -> Sequence[Wanted]:
        """The blobs to write. Of a blob with a `start`, the bytes before it are staged already."""
        ...

    @property
    def received(self) -> Received:
        """What was taken in. Raises RuntimeError before the block of `receive` has ended."""
        ...

    def held(self, digest: Digest, /) -> BytesAt | None:
        """Return a blob that the selection requires or that is staged, or None for any other."""
        ...

    def take_files(self, file_of: Callable[[Descriptor], Path | None]) -> None:
        """Link or clone the files of missing blobs, if the sink does that. Blobs without such a file stay missing."""
        ...

    def write_blob(self, wanted: Wanted, chunks: Iterable[Chunk]) -> None:
        """Verify and stage a blob's bytes from `wanted.start` on. Raises BlobError and what `chunks` raises."""
        ...

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        """Stage one manifest. Raises IntegrityError if it is not what the selection promises."""
        ...


class Sink(Protocol):
    """A place that takes models in."""

    def compare(self, selection: Selection) -> Forecast:
        """Return what `receive` would do. Nothing is written or hashed. Raises the refusals of `receive`."""
        ...

    def without_clashes(self, selection: Selection) -> Selection:
        """Return the selection without the models whose names the place does not take beside others. They are left."""
        ...

    def receive(self, selection: Selection) -> AbstractContextManager[Inbox]:
        """Open a transaction. Leaving its block publishes all models; an exception publishes nothing."""
        ...


@runtime_checkable
class ResumedSink(Sink, Protocol):
    """A sink that goes on with what an interrupted command has written, if that was of the same selection."""

    def damaged_before(self) -> Collection[Digest]:
        """Return the blobs that the interrupted command could not read, so that it has left their models out."""
        ...


class Draft(Protocol):
    """One transaction of a sink that takes files in and learns their digests, before it is known what they make."""

    def stage(self, path: Path, *, stamp: tuple[int, ...], link: bool = False) -> Descriptor:
        """
        Take a regular file in, by a second name if `link`.

        Raises IntegrityError if it is not as its stamp says (`same_file.stamp_of`), UsageError, OSError.
        """
        ...

    def write(self, chunks: Iterable[Chunk], size: int, item: str) -> Descriptor:
        """Take in a blob of `size` bytes that is put together from chunks. `item` names it in progress."""
        ...


class RepairInbox(Inbox, Protocol):
    """One transaction of a repair."""

    def forgo(self) -> None:
        """Drop the blobs that no source delivered, and the models that need them."""
        ...


class RepairSink(Sink, Protocol):
    """A store that can be repaired."""

    def obstacles(self, digests: Collection[Digest]) -> Mapping[Digest, str]:
        """Return the blobs that cannot be replaced until a person acts, and what has to be done. Raises OSError."""
        ...

    def repair(self, selection: Selection, damaged: Collection[Digest]) -> AbstractContextManager[RepairInbox]:
        """Open a transaction that also replaces `damaged` blobs. The files that it replaces are kept."""
        ...


@dataclass(slots=True)
class _Reading:
    """
    Which blob is copied at the moment, so that a failure can be put down to it.

    `makes` has the digest of the blob that a recipe makes, by the digest of the recipe as it is stored.
    """

    blob: Digest | None = None
    makes: Mapping[Digest, Digest] = field(default_factory=dict)


# Returns what to copy of a selection, and from where: of some blobs, what they are made of.
Planned = Callable[[Selection], tuple[Source, Selection]]


def copy_sound(
    source: Source,
    sink: Sink,
    selection: Selection,
    *,
    phase: str,
    progress: Progress,
    planned: Planned | None = None,
) -> tuple[Received, Selection]:
    """
    Copy a selection, but leave out the models whose blobs turn out to be wrong or cannot be read.

    Each time one is found, the copying begins again with the other models, so the sink must be able to begin again.
    Each time, what to copy is `planned` anew. Return what was received and the selection that was copied. Raises what
    `copy` raises, if no model is left. Blobs that an interrupted command could not read are tried first, because the
    sink goes on only with the models that it has.
    """
    if isinstance(sink, ResumedSink):
        selection = _without_damaged(source, selection, sink.damaged_before(), progress)
    while True:
        failed = _Reading()
        try:
            origin, plan = planned(selection) if planned else (source, selection)
            return _copied(origin, sink, plan, phase=phase, progress=progress, reading=failed), plan
        except (BlobError, SourceFailureError) as problem:
            error = problem.error if isinstance(problem, SourceFailureError) else problem
            selection = _without_users(selection, failed.blob or _named(problem), error)


def _without_users(selection: Selection, blob: Digest | None, error: OstoreError | OSError) -> Selection:
    """Return a selection without the models that use a blob. Raises the error if it is of another kind, or of all."""
    users = selection.users_of(blob) if blob else ()
    if not users or len(users) == len(selection.models) or class_of(error) not in {"integrity", "io"}:
        raise error from None
    return selection.without((LeftOut(str(name), error, blob) for name in users), users)


def _without_damaged(
    source: Source, selection: Selection, suspects: Collection[Digest], progress: Progress
) -> Selection:
    """Return a selection without the models of those suspects that still are damaged or cannot be read."""
    for digest in suspects:
        for blob in [blob for blob in selection.blobs if blob.digest == digest]:
            progress.phase("verifying what was damaged", blob.size)
            try:
                for _, stream in marked(source.read_blobs([Wanted(blob)], nothing_held)):
                    for _ in verified(watched(marked(stream), digest.short, blob.size, progress), blob):
                        pass
            except (BlobError, SourceFailureError) as problem:
                error = problem.error if isinstance(problem, SourceFailureError) else problem
                selection = _without_users(selection, digest, error)
    return selection


def _named(problem: BlobError | SourceFailureError) -> Digest | None:
    """Return the digest of the blob that a failure names."""
    if isinstance(problem, BlobError):
        return Digest.parse(problem.digest)
    return Digest.parse(problem.error.digest) if isinstance(problem.error, BlobError) else problem.digest


def copy(source: Source, sink: Sink, selection: Selection, *, phase: str, progress: Progress) -> Received:
    """
    Copy a selection: every blob that the sink misses, then every manifest.

    `phase` is the text that progress shows meanwhile. Raises what the source and the sink raise.
    """
    try:
        return _copied(source, sink, selection, phase=phase, progress=progress, reading=_Reading())
    except SourceFailureError as failure:
        # Raise the source's own error. It names its subject and has its own exit code.
        raise failure.error from None


def _copied(
    source: Source, sink: Sink, selection: Selection, *, phase: str, progress: Progress, reading: _Reading
) -> Received:
    """Copy a selection. `reading` tells which blob is copied."""
    reading.makes = {made.stored.digest: made.blob.digest for made in selection.recipes}
    with sink.receive(selection) as inbox:
        inbox.take_files(source.file_of)
        missing = [one if source.can_resume else Wanted(one.blob) for one in inbox.missing]
        progress.phase(phase, sum(wanted.size for wanted in missing))
        _copy_blobs(source, inbox, missing, progress, reading)
        for name, raw in marked(source.read_manifests(selection.models)):
            inbox.write_manifest(name, raw)
    return inbox.received


def _copy_blobs(
    source: BlobSource, inbox: Inbox, missing: Sequence[Wanted], progress: Progress, reading: _Reading
) -> None:
    for wanted, stream in marked(source.read_blobs(missing, inbox.held)):
        digest = wanted.blob.digest
        made = reading.makes.get(digest)
        reading.blob = made or digest
        chunks = marked(stream, can_resume=source.can_resume)
        try:
            inbox.write_blob(wanted, watched(chunks, digest.short, wanted.size, progress))
        except BlobError as error:
            if made and error.digest == str(digest):
                raise DigestMismatchError(f"blob {made}: changed while it was copied", digest=str(made)) from None
            if not wanted.start or not isinstance(error, DigestMismatchError):
                raise
            # The first bytes are of an interrupted command, and a power cut may have spoiled them.
            _copy_blobs(source, inbox, [Wanted(wanted.blob)], progress, reading)
        reading.blob = None
