"""Reading a bundle, every byte of it hostile until its digest is checked."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

from ostore.formats import seek_table, zstd_frame
from ostore.formats.bundle_index import (
    INDEX_PATH,
    MAX_INDEX_BYTES,
    SIGNATURE_PATH,
    BundleIndex,
    blob_path,
    manifest_path,
)
from ostore.formats.digest import Digest
from ostore.formats.errors import (
    DigestMismatchError,
    IntegrityError,
    InvalidBundleError,
    LimitError,
    NotFoundError,
    OstoreError,
    UnsafeError,
    UsageError,
)
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName, choose
from ostore.formats.selection import SelectedModel, Selection
from ostore.formats.tar_header import BLOCK, TarHeader, member_length
from ostore.streams.chunks import Chunk, read_at, read_full
from ostore.streams.durable import naming
from ostore.streams.frames import PipedFrames, PipedStream, SeekableStream, in_flight, workers
from ostore.streams.plain import PlainStream
from ostore.streams.tar import ForwardStream, TarReader
from ostore.streams.verified import verified

# Armoured signatures have under 2 kB each.
_MAX_SIGNATURE_BYTES = 64 * 1024
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)
# First bytes of what people mistake for a bundle.
_LOOKS_LIKE = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"BZh", "bzip2"),
    (b"GGUF", "a GGUF file"),
    (b"age-encryption.org", "an encrypted file"),
)


@contextlib.contextmanager
def open_bundle(path: Path, *, jobs: int) -> Iterator[BundleReader]:
    """
    Open a bundle file and read its index.

    Raises NotFoundError, UsageError (not a regular file), FormatError, LimitError, UnsafeError, IntegrityError.
    """
    with _opened(path) as fd, ThreadPoolExecutor(workers(jobs)) as pool:
        before = os.fstat(fd)

        def refuse_changes() -> None:
            after = os.fstat(fd)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise IntegrityError(f"{path}: changed while it was read")

        try:
            stream = _open_stream(fd, path.name, pool, jobs)
            reader = BundleReader(stream, is_seekable=True, refuse_changes=refuse_changes)
        except OstoreError as error:
            error.args = (f"{path}: {error}",)
            raise
        yield reader
        refuse_changes()


@contextlib.contextmanager
def open_piped_bundle(fd: int, *, jobs: int) -> Iterator[BundleReader]:
    """Read a bundle from an open pipe, in one pass; raises as `open_bundle` does."""
    start = read_full(fd, BLOCK)
    with ThreadPoolExecutor(workers(jobs)) as pool:
        stream: ForwardStream
        if _is_framed(start):
            stream = PipedStream(PipedFrames(fd, start), pool, in_flight(jobs))
        else:
            stream = PlainStream(fd, start, is_seekable=False)
        yield BundleReader(stream, is_seekable=False)


class BundleReader:
    """
    A source of models: its index is read, the rest comes when asked for, in the order of the archive.

    `index` is what the bundle says of itself; nothing in it is verified until the bytes have been read.
    """

    def __init__(
        self, stream: ForwardStream, *, is_seekable: bool, refuse_changes: Callable[[], None] = lambda: None
    ) -> None:
        """`refuse_changes` raises IntegrityError if the file is another than it was; asked before all is read."""
        self._stream = stream
        self._refuse_changes = refuse_changes
        self._tar = TarReader(stream)
        self._is_seekable = is_seekable
        self._seen: set[str] = set()
        self._announced = 0
        self.index = self._read_index()
        self._names = {blob_path(blob.digest) for blob in self.index.selection.blobs}
        self._names |= {manifest_path(model.name) for model in self.index.selection.models}
        self._names |= {file.path for file in self.index.files}
        self._selection = self.index.selection

    def select(self, patterns: Sequence[str]) -> Selection:
        """
        Take the models that these names or globs stand for, or all of them if there are none.

        Raises NotFoundError for a word that stands for nothing, InvalidNameError.
        """
        if patterns:
            names = [model.name for model in self.index.selection.models]
            chosen, unmatched = choose(names, patterns)
            if unmatched:
                raise NotFoundError(f"no model {unmatched[0]!r} in the bundle")
            self._selection = self.index.selection.restricted(chosen)
        return self._selection

    def read_blobs(self, wanted: Collection[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[Chunk]]]:
        """
        Yield wanted blobs in the order of the archive, unverified; each stream is valid until the next is asked for.

        A file is read only where the wanted ones lie, and a blob that cannot be read does not keep the next from being
        read. Raises FormatError, UnsafeError, IntegrityError or LimitError.
        """
        self._read_files()
        digests = {blob.digest for blob in wanted}
        blobs = self.index.selection.blobs
        lengths = (member_length(blob_path(blob.digest), blob.size) for blob in blobs)
        offsets = list(accumulate(lengths, initial=self._stream.position))
        for number, blob in enumerate(blobs):
            if blob.digest in digests:
                self._announce(number, digests, offsets)
                self._seek(offsets[number])
                self._expect(blob_path(blob.digest), blob.size)
                yield blob, self._tar.data(blob.size)
            elif not self._is_seekable:
                self._expect(blob_path(blob.digest), blob.size)
                self._tar.skip(blob.size)
        self._seek(offsets[-1])

    def read_manifests(self) -> Iterator[tuple[ModelName, bytes]]:
        """
        Yield the raw manifest of every selected model, each exactly what the index says of it; then check the end.

        Call it when `read_blobs` is exhausted. Raises as that does, and AmbiguousManifestError.
        """
        chosen = {model.name for model in self._selection.models}
        for model in self.index.selection.models:
            self._expect(manifest_path(model.name), model.manifest_size)
            raw = self._tar.read(model.manifest_size)
            if model.name in chosen:
                self._check_manifest(model, raw)
                yield model.name, raw
        extra = self._tar.next_member()
        if extra is not None:
            self._refuse(extra)
        # Before anybody publishes what was read.
        self._refuse_changes()

    def _read_index(self) -> BundleIndex:
        header = self._tar.next_member()
        if header is None or header.name != INDEX_PATH:
            raise InvalidBundleError("not a bundle of ostore: its first member is not the index")
        if header.size > MAX_INDEX_BYTES:
            raise LimitError(f"index: expected at most {MAX_INDEX_BYTES} bytes, got {header.size}")
        return BundleIndex.parse(self._tar.read(header.size))

    def _read_files(self) -> None:
        """Check the members below `ostore/` that the index lists; nobody here needs what is in them."""
        files = list(self.index.files)
        header = self._tar.next_member() if files else None
        if header is not None and header.name == SIGNATURE_PATH:
            if header.size > _MAX_SIGNATURE_BYTES:
                raise LimitError(f"signatures: expected at most {_MAX_SIGNATURE_BYTES} bytes, got {header.size}")
            # Read, not skipped: nothing may hide behind them either.
            self._tar.read(header.size)
            header = self._tar.next_member()
        for number, file in enumerate(files):
            self._expect(file.path, file.size, self._tar.next_member() if number else header)
            for _ in verified(self._tar.data(file.size), Descriptor(file.digest, file.size)):
                pass

    def _announce(self, number: int, digests: Collection[Digest], offsets: Sequence[int]) -> None:
        """Let the stream decode ahead to the end of the run of wanted blobs that starts here."""
        blobs = self.index.selection.blobs
        if offsets[number] >= self._announced:
            while number < len(blobs) and blobs[number].digest in digests:
                number += 1
            self._announced = offsets[number]
            self._stream.will_read(self._announced)

    def _seek(self, offset: int) -> None:
        if self._stream.position > offset:
            raise RuntimeError("the stream of a blob was used after the next one was asked for")
        self._stream.skip(offset - self._stream.position)

    def _expect(self, name: str, size: int, header: TarHeader | None = None) -> None:
        """The next member (or `header`, if it was read already) is this one; anything else is refused."""
        header = header or self._tar.next_member()
        if header is None:
            raise IntegrityError(f"member {name!r}: listed in the index, but not in the archive")
        if header.name != name:
            self._refuse(header, awaited=name)
        if header.size != size:
            raise IntegrityError(f"member {name!r}: expected {size} bytes, got {header.size}")
        self._seen.add(name)

    def _refuse(self, header: TarHeader, awaited: str | None = None) -> NoReturn:
        """Say what is wrong with a member that is not the awaited one."""
        following: TarHeader | None = header
        # Ends soon, whatever comes: no listed member may come twice on the way.
        while following is not None and following.name != awaited:
            if following.name in self._seen or following.name == INDEX_PATH:
                raise UnsafeError(f"member {following.name!r}: occurs twice")
            if following.name not in self._names:
                raise UnsafeError(f"member {following.name!r}: not listed in the index")
            self._seen.add(following.name)
            self._tar.skip(following.size)
            following = self._tar.next_member()
        if following is None:
            raise IntegrityError(f"member {awaited!r}: listed in the index, but not in the archive")
        raise InvalidBundleError(f"member {header.name!r}: out of order, expected {awaited!r}")

    def _check_manifest(self, model: SelectedModel, raw: bytes) -> None:
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
        sizes = self.index.selection.sizes
        for blob in manifest.descriptors:
            if blob.size != sizes[blob.digest]:
                raise IntegrityError(
                    f"manifest of {model.name}: {blob.digest}: expected {sizes[blob.digest]} bytes, got {blob.size}"
                )


def _open_stream(fd: int, name: str, pool: ThreadPoolExecutor, jobs: int) -> ForwardStream:
    start = read_full(fd, BLOCK)
    is_framed = _is_framed(start)
    if is_framed == name.endswith(".tar") and name.endswith((".tar", ".tar.zst")):
        raise InvalidBundleError(f"looks like {'zstd' if is_framed else 'a plain tar'}, unlike its name")
    if is_framed:
        return SeekableStream(fd, _read_seek_table(fd, os.fstat(fd).st_size), pool, in_flight(jobs))
    return PlainStream(fd, start, is_seekable=True)


def _is_framed(start: bytes) -> bool:
    """True for zstd, False for a plain tar that begins as a bundle does; FormatError for everything else."""
    if start.startswith(INDEX_PATH.encode() + b"\0"):
        return False
    if start and zstd_frame.MAGIC.startswith(start[:4]):
        return True
    if start[1:4] == b"\x2a\x4d\x18":
        raise LimitError("a skippable frame where the index is expected")
    looks = next((what for magic, what in _LOOKS_LIKE if start.startswith(magic)), None)
    if start[257:262] == b"ustar":
        looks = "a tar of something else"
    raise InvalidBundleError("not a bundle of ostore: " + (f"looks like {looks}" if looks else _first_bytes(start)))


def _first_bytes(start: bytes) -> str:
    return f"begins with {start[:8]!r}" if start else "empty"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        # Without O_NONBLOCK the open of a FIFO that nobody writes would never return.
        fd = os.open(path, os.O_RDONLY | _NONBLOCK | _BINARY)
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such bundle") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"{path}: not a regular file", hint="to read a pipe, name '-' as the source")
        # Whatever fails to be read without a name of its own is the bundle.
        with naming(path):
            yield fd
    finally:
        os.close(fd)


def _read_seek_table(fd: int, file_size: int) -> tuple[zstd_frame.FrameSpan, ...]:
    """The frames of a bundle file, once their table is whole and accounts for every byte of it."""
    footer = read_at(fd, seek_table.FOOTER_BYTES, max(0, file_size - seek_table.FOOTER_BYTES))
    size = seek_table.table_size(footer)
    if size is not None and size < file_size:
        table = read_at(fd, size, file_size - size)
        if table.startswith(seek_table.SKIPPABLE_MAGIC):
            spans = seek_table.read_table(table)
            if sum(span.size for span in spans) + size == file_size:
                return spans
    _explain_end(fd)
    # Whoever finds nothing wrong in one pass finds the table right: the file has changed since it was looked for.
    raise IntegrityError("seek table: disagrees with the frames before it")  # pragma: no cover - see above


def _explain_end(fd: int) -> None:
    """A bundle without a good table at its end is refused; walk it to say why: cut off, extended or damaged."""
    os.lseek(fd, 0, os.SEEK_SET)
    for _ in PipedFrames(fd, b""):
        pass
