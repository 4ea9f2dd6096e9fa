"""Read a bundle. Every byte of it is hostile until its digest is checked."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from ostore.formats import seek_table, zstd_frame
from ostore.formats.bundle_index import (
    INDEX_PATH,
    MAX_INDEX_BYTES,
    BundleIndex,
)
from ostore.formats.digest import Digest
from ostore.formats.errors import (
    DigestMismatchError,
    IntegrityError,
    InvalidBundleError,
    LimitError,
    NotFoundError,
    OstoreError,
    UsageError,
)
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName, alike, choose
from ostore.formats.selection import SelectedModel, Selection, Wanted
from ostore.formats.tar_header import BLOCK
from ostore.places.bundle.foreign import PEEK_BYTES, PIPE_PEEK_BYTES, explained
from ostore.places.bundle.walk import Walk
from ostore.streams.bytes_at import BytesAt, FileBytes, Forward, ForwardOver, Held
from ostore.streams.chunks import Chunk, read_until_full
from ostore.streams.durable import naming
from ostore.streams.frames import PipedFrames, PipedStream, SeekableStream, in_flight, workers
from ostore.streams.links import on_any_length, open_to_read
from ostore.streams.plain import PipedPlainStream, SeekablePlainStream
from ostore.streams.pool import Pool
from ostore.streams.tar import ForwardStream, TarReader

# In a message; `ostore inspect` shows all.
_SHOWN_NAMES = 5


@contextlib.contextmanager
def open_bundle(path: Path, *, jobs: int, label: str | None = None) -> Iterator[BundleReader]:
    """
    Open a bundle file and read its index. `label` names it for people; the default is its path.

    Raises NotFoundError if it is absent, UsageError if it is not a regular file, FormatError, LimitError, UnsafeError,
    OSError, and IntegrityError, also on leaving, if the file has changed.
    """
    with _opened(path) as file, Pool(workers(jobs)) as pool:
        try:
            reader = BundleReader(_streams(file, pool, jobs), label or str(path), file)
        except OstoreError as error:
            error.args = (f"{path}: {error}",)
            raise explained(error, file.read_at(PEEK_BYTES, 0), path) from None
        yield reader
        file.refuse_changes()


@contextlib.contextmanager
def open_piped_bundle(pipe: Forward, *, jobs: int, label: str = "-") -> Iterator[BundleReader]:
    """Read a bundle from a pipe, in one pass. Raises FormatError, LimitError, UnsafeError, IntegrityError, OSError."""
    start = read_until_full(pipe.read, PIPE_PEEK_BYTES)
    with Pool(workers(jobs)) as pool:
        stream: ForwardStream
        try:
            if _is_framed(start):
                stream = PipedStream(PipedFrames(pipe, start), pool, in_flight(jobs))
            else:
                stream = PipedPlainStream(pipe, start)
            reader = BundleReader(lambda: stream, label)
        except OstoreError as error:
            raise explained(error, start, None) from None
        yield reader


class BundleReader:
    """
    A bundle as a source of models. `index` is what the bundle claims; bytes are verified only when they are read.

    For a file, each call makes its own walk. A pipe has one walk: blobs come in the order of the archive, whatever
    order was asked for, and `read_manifests` goes on from there.
    """

    def __init__(self, open_stream: Callable[[], ForwardStream], label: str, file: BytesAt | None = None) -> None:
        """`file` is the file that streams skip in and that must not change meanwhile; None for a pipe."""
        self.label = label
        self._open_stream = open_stream
        self._file = file
        first = open_stream()
        self.index = _read_index(TarReader(first))
        self._behind_index = first.position
        self._numbers = {blob.digest: number for number, blob in enumerate(self.index.selection.blobs)}
        self._pipe = Walk(self.index, first) if file is None else None

    @property
    def can_resume(self) -> bool:
        """Whether a blob can be read from its middle on: of a file, the frames before are skipped."""
        return self._file is not None

    def select(self, patterns: Sequence[str]) -> Selection:
        """
        Return the models that match these names or globs; all models if there are no patterns.

        Raises NotFoundError for a pattern that matches nothing, InvalidNameError.
        """
        if not patterns:
            return self.index.selection
        chosen, unmatched = choose([model.name for model in self.index.selection.models], patterns)
        if unmatched:
            raise self._no_model(unmatched[0])
        return self.index.selection.restricted(chosen)

    def find_models(self, folded: Collection[str]) -> tuple[Selection, ...]:
        """Return one selection for each model whose folded name is in `folded`."""
        chosen = self.index.selection
        blobs, requires = ({blob.digest: blob for blob in part} for part in (chosen.blobs, chosen.requires))
        return tuple(
            Selection(
                (model,),
                tuple(blobs[key] for key in model.blobs if key in blobs),
                tuple(requires[key] for key in model.blobs if key in requires),
            )
            for model in chosen.models
            if model.name.folded in folded
        )

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Return the lacking blobs that the index lists with that size, in its order. A size of None matches any."""
        found = (blob for blob in self.index.selection.blobs if blob.digest in lacking)
        return tuple(blob for blob in found if lacking[blob.digest] in {None, blob.size})

    def file_of(self, _blob: Descriptor, /) -> Path | None:
        """Return None: a blob is a part of the bundle's file."""
        return None

    def read_blobs(self, wanted: Sequence[Wanted], _held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """
        Yield wanted blobs, unverified; a pipe from their first byte on. Each stream is valid until the next one is
        asked for.

        Only the wanted parts of a file are read. Raises FormatError, UnsafeError, IntegrityError or LimitError; reading
        a stream raises the same.
        """
        listed = [one for one in wanted if one.blob.digest in self._numbers]
        if self._pipe:
            yield from self._pipe.read_blobs(listed)
            return
        for run in self._ascending(listed):
            yield from self._walk().read_blobs(run)

    def read_manifests(self, models: Sequence[SelectedModel]) -> Iterator[tuple[ModelName, bytes]]:
        """
        Yield the raw manifests of selected models, each checked against the index, then check the end.

        For a pipe, call it when `read_blobs` is exhausted. Raises the errors of `read_blobs`, and
        AmbiguousManifestError for a manifest that readers understand differently.
        """
        chosen = {model.name for model in models}
        try:
            for model, raw in (self._pipe or self._walk()).read_manifests():
                if model.name in chosen:
                    _check_manifest(self.index.selection, model, raw)
                    yield model.name, raw
        except OstoreError:
            # A file that has changed explains any other error.
            self._refuse_changes()
            raise
        # The caller publishes next, so a change has to show now.
        self._refuse_changes()

    def _no_model(self, word: str) -> NotFoundError:
        names = [model.name for model in self.index.selection.models]
        found = alike(word, names)
        meant = f"did you mean {' or '.join(found)}? " if found else ""
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        hint = f"{meant}It holds {', '.join(map(str, names[:_SHOWN_NAMES]))}{more}"
        return NotFoundError(f"no model {word!r} in the bundle {self.label}", hint=hint)

    def _refuse_changes(self) -> None:
        if self._file is not None:
            self._file.refuse_changes()

    def _walk(self) -> Walk:
        stream = self._open_stream()
        stream.skip(self._behind_index)
        return Walk(self.index, stream, can_skip=True)

    def _ascending(self, wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
        """Yield the same blobs in runs, each of which can be read in one forward walk."""
        run: list[Wanted] = []
        for one in wanted:
            if run and self._numbers[one.blob.digest] <= self._numbers[run[-1].blob.digest]:
                yield run
                run = []
            run.append(one)
        if run:
            yield run


def _read_index(tar: TarReader) -> BundleIndex:
    header = tar.next_member()
    if header is None or header.name != INDEX_PATH:
        raise InvalidBundleError("not a bundle of ostore: its first member is not the index")
    if header.size > MAX_INDEX_BYTES:
        raise LimitError(f"index: expected at most {MAX_INDEX_BYTES} bytes, got {header.size}")
    return BundleIndex.parse(tar.read(header.size))


def _check_manifest(selection: Selection, model: SelectedModel, raw: bytes) -> None:
    try:
        if Digest.of(raw) != model.manifest_digest:
            raise DigestMismatchError(
                f"expected {model.manifest_digest}, got {Digest.of(raw)}", digest=str(model.manifest_digest)
            )
        manifest = Manifest.parse(raw)
        manifest.refuse_unclear()
    except OstoreError as error:
        error.args = (f"manifest of {model.name}: {error}",)
        raise
    Selection.of([(model.name, manifest)])  # refuses two sizes for one blob
    if SelectedModel.of(model.name, manifest) != model:
        raise IntegrityError(f"manifest of {model.name}: names other blobs than the index")
    sizes = selection.sizes
    for blob in manifest.descriptors:
        if blob.size != sizes[blob.digest]:
            raise IntegrityError(
                f"manifest of {model.name}: {blob.digest}: expected {sizes[blob.digest]} bytes, got {blob.size}"
            )


def _streams(file: BytesAt, pool: Pool, jobs: int) -> Callable[[], ForwardStream]:
    """
    Return a function that opens a new stream over a bundle file. Its bytes say which kind it is, not its name.

    Raises FormatError, LimitError, IntegrityError.
    """
    if not _is_framed(file.read_at(BLOCK, 0)):
        return lambda: SeekablePlainStream(file)
    spans = _read_seek_table(file)
    return lambda: SeekableStream(file, spans, pool, in_flight(jobs))


def _is_framed(start: bytes) -> bool:
    """
    Return True for zstd, False for a plain tar that begins like a bundle.

    Raises InvalidBundleError for anything else, LimitError for a skippable frame.
    """
    if start.startswith(INDEX_PATH.encode() + b"\0"):
        return False
    if start and zstd_frame.MAGIC.startswith(start[:4]):
        return True
    if start[1:4] == b"\x2a\x4d\x18":
        raise LimitError("a skippable frame where the index is expected")
    raise InvalidBundleError(
        f"not a bundle, nor anything else that is known: it begins with {start[:8].hex(' ')}",
        hint="if its SHA-256 is not that of the original, copy the file again",
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[FileBytes]:
    try:
        fd = open_to_read(on_any_length(path))
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such bundle") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"{path}: not a regular file", hint="to read a pipe, name '-' as the source")
        # An OSError without a path of its own is about the bundle.
        with naming(path):
            yield FileBytes(fd, path)
    finally:
        os.close(fd)


def _read_seek_table(source: BytesAt) -> tuple[zstd_frame.FrameSpan, ...]:
    """Return the frames of a bundle file. Raises IntegrityError unless the seek table accounts for every byte of it."""
    footer = source.read_at(seek_table.FOOTER_BYTES, max(0, source.size - seek_table.FOOTER_BYTES))
    size = seek_table.table_size(footer)
    if size is not None and size < source.size:
        table = source.read_at(size, source.size - size)
        if table.startswith(seek_table.SKIPPABLE_MAGIC):
            spans = seek_table.read_table(table)
            if sum(span.size for span in spans) + size == source.size:
                return spans
    _explain_end(source)
    # The pass found no fault, so the table is good now. The file has changed since the table was read above.
    raise IntegrityError("seek table: disagrees with the frames before it")  # pragma: no cover - see above


def _explain_end(source: BytesAt) -> None:
    """Walk a bundle that has no good table at its end, to raise the error that says why: cut off, extended, damaged."""
    for _ in PipedFrames(ForwardOver(source), b""):
        pass
