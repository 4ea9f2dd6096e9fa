"""Read a bundle. Every byte of it is hostile until its digest is checked."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
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
from ostore.places.bundle.recipes import BundleRecipes
from ostore.places.bundle.walk import Walk
from ostore.streams.bytes_at import BytesAt, FileBytes, Forward, ForwardOver, Held, RangeOf
from ostore.streams.chunks import Chunk, read_until_full
from ostore.streams.durable import naming
from ostore.streams.framed_bytes import FramedBytes
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
    with _opened(path) as file, reading(file, path, jobs=jobs, label=label or str(path)) as reader:
        yield reader


@contextlib.contextmanager
def reading(file: BytesAt, path: Path, *, jobs: int, label: str) -> Iterator[BundleReader]:
    """Read a bundle that can be read in any order, as `open_bundle` does. `path` is the bundle's name in messages."""
    with Pool(workers(jobs)) as pool:
        try:
            open_stream, tar = _streams(file, pool, jobs)
            reader = BundleReader(open_stream, label, file, tar)
        except OstoreError as error:
            error.args = (f"{path}: {error}",)
            raise explained(error, file.read_at(PEEK_BYTES, 0), path) from None
        yield reader
        file.refuse_changes()


def is_whole(file: BytesAt, *, jobs: int) -> bool:
    """
    Return whether a bundle ends where these bytes end, as far as its index, seek table and manifests tell.

    No blob is read. Raises OSError.
    """
    try:
        if _is_framed(file.read_at(BLOCK, 0)) and not _seek_table_of(file):
            return False
        with reading(file, Path(), jobs=jobs, label="") as reader:
            for _ in reader.read_manifests(reader.index.selection.models):
                pass
    except OstoreError:
        return False
    return True


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

    def __init__(
        self,
        open_stream: Callable[[], ForwardStream],
        label: str,
        file: BytesAt | None = None,
        tar: BytesAt | None = None,
    ) -> None:
        """
        `file` is the file that streams skip in and that must not change meanwhile, and `tar` the tar stream in it. Both
        are None for a pipe.
        """
        self.label = label
        self._open_stream = open_stream
        self._file = file
        self._tar = tar
        first = open_stream()
        self.index = _read_index(TarReader(first))
        self._behind_index = first.position
        self._numbers = {blob.digest: number for number, blob in enumerate(self.index.selection.blobs)}
        self._pipe = Walk(self.index, first) if file is None else None
        self._followed: BundleRecipes | None = None
        self._ranges: dict[Digest, tuple[int, int]] = {}

    @property
    def can_resume(self) -> bool:
        """Whether a blob can be read from its middle on: of a file, the frames before are skipped."""
        return self._file is not None

    @property
    def bundle_size(self) -> int | None:
        """The bytes of the bundle, or None for a pipe."""
        return None if self._file is None else self._file.size

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
        return self._requiring(self.index.selection.restricted(chosen))

    def find_models(self, folded: Collection[str]) -> tuple[Selection, ...]:
        """Return one selection for each model whose folded name is in `folded`."""
        return tuple(self._alone(model) for model in self.index.selection.models if model.name.folded in folded)

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """
        Return the lacking blobs that the index lists with that size, in its order. A size of None matches any.

        One that a recipe makes of blobs from elsewhere is not among them.
        """
        found = (blob for blob in self.index.selection.blobs if blob.digest in lacking and self._has(blob.digest))
        return tuple(blob for blob in found if lacking[blob.digest] in {None, blob.size})

    def file_of(self, _blob: Descriptor, /) -> Path | None:
        """Return None: a blob is a part of the bundle's file."""
        return None

    def read_blobs(self, wanted: Sequence[Wanted], held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """
        Yield wanted blobs, unverified; a pipe from their first byte on. Each stream is valid until the next one is
        asked for.

        Only the wanted parts of a file are read. A blob that a recipe makes is made of what is `held`, or of other
        blobs in the file. Raises FormatError, UnsafeError, IntegrityError or LimitError; reading a stream raises the
        same, and NotFoundError if a base is not there.
        """
        listed = [one for one in wanted if one.blob.digest in self._numbers]
        pipe = [(self._pipe, listed)] if self._pipe else None
        runs = iter(pipe or ((self._walk(), run) for run in self._ascending(listed)))
        makers = self.index.selection.makers
        recipes = BundleRecipes(self.index.selection, self._member, held)
        for walk, run in runs:
            for one, chunks in walk.read_blobs(run):
                made = makers.get(one.blob.digest)
                yield one, recipes.follow(made, chunks) if made else chunks

    def bytes_of(self, digest: Digest, held: Held, /) -> BytesAt | None:
        """Return the bytes of a blob of a bundle file, unverified; None if it is not there. `held` is for recipes."""
        if self._followed is None or self._followed.held != held:
            self._followed = BundleRecipes(self.index.selection, self._member, held)
        return self._followed.bytes_of(digest)

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

    @property
    def tar(self) -> BytesAt | None:
        """The tar stream of a bundle file: the file itself, or `FramedBytes`. None for a pipe."""
        return self._tar

    def ranges(self) -> Mapping[Digest, tuple[int, int]]:
        """
        Return where the tar stream of a file has each blob, or its recipe: the first byte, and how many.

        Raises FormatError, UnsafeError, IntegrityError or LimitError for a bad bundle, OSError.
        """
        if not self._ranges:
            # Once, because each walk begins by hashing our own files.
            self._ranges = self._walk().ranges()
        return self._ranges

    def _member(self, digest: Digest) -> BytesAt | None:
        """Return what the file has of a blob: its bytes, or its recipe as it is stored."""
        if self._tar is None or digest not in self._numbers:
            return None
        return RangeOf(self._tar, *self.ranges()[digest])

    def _has(self, digest: Digest) -> bool:
        """Return whether the bundle alone gives a blob. A pipe cannot go back to the bases of a recipe."""
        built_on = self.index.selection.built_on([digest])
        return not built_on if self._pipe else all(base in self._numbers for base in built_on)

    def _requiring(self, selection: Selection) -> Selection:
        """Return the selection with the bases that are passed over: a pipe cannot go back to them."""
        if not self._pipe:
            return selection
        built_on = selection.built_on(selection.needed)
        known = selection.sizes
        passed = [blob for blob in self.index.selection.blobs if blob.digest in built_on and blob.digest not in known]
        return replace(selection, requires=(*selection.requires, *passed))

    def _alone(self, model: SelectedModel) -> Selection:
        """Return the selection of one model."""
        whole = self.index.selection
        needed, known = whole.built_on(model.blobs).union(model.blobs), self._numbers
        numbers = sorted(known[digest] for digest in model.blobs if digest in known)
        requires = {blob.digest: blob for blob in whole.requires}
        return self._requiring(
            Selection(
                (model,),
                tuple(whole.blobs[number] for number in numbers),
                tuple(requires[digest] for digest in sorted(needed.intersection(requires))),
                recipes=tuple(made for number in numbers if (made := whole.makers.get(whole.blobs[number].digest))),
            )
        )

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


def _streams(file: BytesAt, pool: Pool, jobs: int) -> tuple[Callable[[], ForwardStream], BytesAt]:
    """
    Return a function that opens a new stream over a bundle file, and the tar stream as bytes to read in any order.

    The bytes of the file say which kind it is, not its name. Raises FormatError, LimitError, IntegrityError.
    """
    if not _is_framed(file.read_at(BLOCK, 0)):
        return (lambda: SeekablePlainStream(file)), file
    spans = _read_seek_table(file)
    return (lambda: SeekableStream(file, spans, pool, in_flight(jobs))), FramedBytes(file, spans)


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
    if spans := _seek_table_of(source):
        return spans
    _explain_end(source)
    # The pass found no fault, so the table is good now. The file has changed since the table was read above.
    raise IntegrityError("seek table: disagrees with the frames before it")  # pragma: no cover - see above


def _seek_table_of(source: BytesAt) -> tuple[zstd_frame.FrameSpan, ...]:
    """Return the frames of a bundle file, or none if no seek table accounts for every byte of it."""
    footer = source.read_at(seek_table.FOOTER_BYTES, max(0, source.size - seek_table.FOOTER_BYTES))
    size = seek_table.table_size(footer)
    if size is not None and size < source.size:
        table = source.read_at(size, source.size - size)
        if table.startswith(seek_table.SKIPPABLE_MAGIC):
            spans = seek_table.read_table(table)
            if sum(span.size for span in spans) + size == source.size:
                return spans
    return ()


def _explain_end(source: BytesAt) -> None:
    """Walk a bundle that has no good table at its end, to raise the error that says why: cut off, extended, damaged."""
    for _ in PipedFrames(ForwardOver(source), b""):
        pass
