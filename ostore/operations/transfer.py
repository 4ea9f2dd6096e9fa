"""
The one movement: models from a source to a sink. Export, import, move and cp differ only in what the two are.

The protocols here are all that this floor knows of places. A place has them by having the methods: nothing is
inherited.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from ostore.formats.digest import Digest
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.outcome import Forecast, Received
from ostore.formats.selection import SelectedModel, Selection, Wanted
from ostore.streams.bytes_at import BytesAt, Held
from ostore.streams.chunks import Chunk
from ostore.streams.progress import Progress, watched
from ostore.streams.source_failure import SourceFailureError, marked


class BlobSource(Protocol):
    """
    Where blobs may be: a store, a bundle, a cache, a folder of files. Nothing of it is believed.

    A source has no memory: no call leaves anything behind but the position of a pipe, so several may use it at once.
    """

    @property
    def label(self) -> str:
        """What a person calls it, in messages about it."""
        ...

    @property
    def can_resume(self) -> bool:
        """Whether `read_blobs` can begin in the middle of a blob, so that what came before a failure is of use."""
        ...

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> Sequence[Descriptor]:
        """Those that it may have, of that size or of any for None. Goes by names and sizes; hashes nothing."""
        ...

    def file_of(self, blob: Descriptor, /) -> Path | None:
        """A file on this machine that has the blob, for a sink that may link or clone it; else None."""
        ...

    def read_blobs(self, wanted: Sequence[Wanted], held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """
        Yield wanted blobs, unverified, in the order asked; a pipe has its own, which is that of its selection.

        What comes begins at `start` of the `Wanted` that is yielded: as asked, or 0. Nothing is opened before the first
        chunk of a stream, a stream is valid until the next one is asked for, and one that fails does not end the rest.
        A further copy of a blob may follow; whoever has it passes over it. `held` is what the target has already.
        """
        ...


@runtime_checkable
class Source(BlobSource, Protocol):
    """Where models come from."""

    def select(self, patterns: Sequence[str]) -> Selection:
        """The models that names and globs stand for, or all. Raises for what is not there or must not travel."""
        ...

    def find_models(self, folded: Collection[str]) -> Sequence[Selection]:
        """A selection for each model that it has of these names (folded), and that may travel. Raises OSError."""
        ...

    def read_manifests(self, models: Sequence[SelectedModel]) -> Iterator[tuple[ModelName, bytes]]:
        """
        Yield the raw manifests of selected models, once the blobs have been read.

        They are what they were at `select`. A bundle also checks its end here, so this is always called.
        """
        ...


class Inbox(Protocol):
    """One transaction of a sink."""

    @property
    def missing(self) -> Sequence[Wanted]:
        """The blobs that have to be written. One with a `start` is there up to that byte."""
        ...

    @property
    def received(self) -> Received:
        """What was taken in, once the block of `receive` is left. Raises RuntimeError before."""
        ...

    def held(self, digest: Digest, /) -> BytesAt | None:
        """A blob that the selection requires, or that is staged; None for any other."""
        ...

    def take_files(self, file_of: Callable[[Descriptor], Path | None]) -> None:
        """Take missing blobs by linking or cloning their files, if the sink does that; what it cannot stays missing."""
        ...

    def write_blob(self, wanted: Wanted, chunks: Iterable[Chunk]) -> None:
        """Take the bytes of a blob from `wanted.start` on, verified. Raises BlobError, and what the chunks raise."""
        ...

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        """Take one manifest. Raises IntegrityError unless it is what the selection says."""
        ...


class Sink(Protocol):
    """Where models go."""

    def compare(self, selection: Selection) -> Forecast:
        """What `receive` would do. Writes nothing, hashes nothing, and refuses what `receive` would refuse."""
        ...

    def receive(self, selection: Selection) -> AbstractContextManager[Inbox]:
        """Open a transaction; leaving it publishes, an exception in it publishes nothing."""
        ...


class RepairInbox(Inbox, Protocol):
    """One transaction of a repair."""

    def forgo(self) -> None:
        """Do without the blobs that nobody delivered, and without the models that need them."""
        ...


class RepairSink(Sink, Protocol):
    """A store that can be repaired."""

    def obstacles(self, digests: Collection[Digest]) -> Mapping[Digest, str]:
        """Which blobs cannot be replaced before a person has done something, and what that is. Raises OSError."""
        ...

    def repair(self, selection: Selection, damaged: Collection[Digest]) -> AbstractContextManager[RepairInbox]:
        """As `receive`; `damaged` blobs are replaced, and what they replace is kept."""
        ...


def copy(source: Source, sink: Sink, selection: Selection, *, phase: str, progress: Progress) -> Received:
    """
    Move a selection: every blob that the sink misses, then every manifest.

    `phase` is what it is called while it lasts. Raises what the two places raise.
    """
    try:
        with sink.receive(selection) as inbox:
            inbox.take_files(source.file_of)
            missing = inbox.missing
            progress.phase(phase, sum(wanted.size for wanted in missing))
            for wanted, chunks in marked(source.read_blobs(missing, inbox.held)):
                told = watched(chunks, wanted.blob.digest.short, wanted.size, progress)
                inbox.write_blob(wanted, marked(told, can_resume=source.can_resume))
            for name, raw in marked(source.read_manifests(selection.models)):
                inbox.write_manifest(name, raw)
    except SourceFailureError as failure:
        # The source's own error, which says what it is about and has its own exit code.
        raise failure.error from None
    return inbox.received
