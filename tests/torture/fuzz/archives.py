"""Targets that read whole archives. Every reader in ostore and the script of the bundle must agree."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import zstandard

from ostore.formats.errors import LimitError, OstoreError
from ostore.formats.seek_table import write_table
from ostore.formats.selection import Wanted
from ostore.formats.zstd_frame import FrameSpan, measure_frame
from ostore.places.bundle import restore
from ostore.places.bundle.reader import BundleReader, _read_seek_table, open_bundle, open_piped_bundle
from ostore.streams.bytes_at import BytesAt, FileBytes, PipeBytes, nothing_held
from ostore.streams.frames import PipedFrames, SeekableStream, decode_frame
from ostore.streams.plain import SeekablePlainStream
from ostore.streams.tar import TarReader
from ostore.streams.verified import verified

_MAGIC = b"ustar  \0"
# More is only more of the same, and the oracle's time.
_MAX_CONTENT = 32 * 1024 * 1024
# For messages.
_PATH = Path("fuzz")

Members = list[tuple[str, bytes]]
_Read = TypeVar("_Read")


def read_tar(data: bytes) -> None:
    """The members of a tar, by our reader and by that of restore.py."""
    stream = repaired(data)
    theirs = _restored_members(stream)
    ours = refused_alike(lambda: _members(stream), theirs)
    if theirs is None:
        theirs = _restored_members(_without_padding(stream))
    # An archive of nothing: the script, which knows that an index comes first, refuses it one step earlier.
    assert theirs == (ours or None)


def _without_padding(stream: bytes) -> bytes:
    """The archive without more zeros than end it: we take those of a plain archive, and restore.py does not."""
    content = -(-len(stream.rstrip(b"\0")) // 512) * 512
    return stream[: content + 2 * 512]


def read_frames(data: bytes) -> None:
    """The frames of a bundle, forward and through the seek table, and by libzstd alone."""
    sealed = resealed(data)
    with _opened(sealed) as fd:
        sought = _read_seekable(FileBytes(fd, _PATH))
        piped = refused_alike(lambda: list(map(decode_frame, _few(PipedFrames(PipeBytes(fd), b"")))), sought)
        if not piped:
            # No frames, no archive: it is the next reader that refuses this.
            return
        content = b"".join(piped)
        assert sought == content
    with zstandard.ZstdDecompressor().stream_reader(sealed, read_across_frames=True) as decoded:
        assert decoded.read() == content


_PADDING = "data after the end of the archive"


def read_bundle(data: bytes) -> None:
    """A bundle as a file and through a pipe, plain and compressed, and by restore.py: all read the same or refuse."""
    stream = repaired(data)
    framed = _framed(stream)
    pieces = {"file": stream, "pipe": stream, "compressed file": framed, "compressed pipe": framed}
    outcomes: dict[str, str | Exception] = {
        way: _read_by_us(content, is_piped="pipe" in way) for way, content in pieces.items()
    }
    if any(isinstance(outcome, LimitError) for outcome in outcomes.values()):
        return
    if isinstance(outcomes["file"], str):
        # Only a plain archive may have more zeros at its end: other tar programs and dd write them.
        outcomes = {way: outcome for way, outcome in outcomes.items() if _PADDING not in str(outcome)}
    restored = _read_by_restore(stream)
    if not isinstance(restored, str):
        restored = _read_by_restore(_without_padding(stream))
    outcomes["restore.py"] = restored
    read = {way: outcome for way, outcome in outcomes.items() if isinstance(outcome, str)}
    assert len(read) in {0, len(outcomes)}, outcomes
    assert len(set(read.values())) <= 1, read


def refused_alike(read: Callable[[], _Read], theirs: object, *, but_for: str = "") -> _Read:
    """What one reader says; or its refusal, if the other refuses too (not read: None), or need not see it."""
    try:
        return read()
    except LimitError:
        raise
    except OstoreError as error:
        if theirs is not None and not (but_for and but_for in str(error)):
            raise AssertionError(f"refused by one reader only: {error}") from None
        raise


def repaired(data: bytes) -> bytes:
    """A mutated tar with right checksums in its headers. An input of odd length stays as it is, to try wrong ones."""
    if len(data) % 2:
        return data
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(_summed(block) if block[257:265] == _MAGIC else block for block in blocks)


def resealed(data: bytes) -> bytes:
    """Mutated frames with the seek table they need; what is odd stays as it is."""
    if len(data) % 2:
        return data
    spans: list[FrameSpan] = []
    position = 0
    with contextlib.suppress(OstoreError):
        while (span := measure_frame(data[position:])) and position + span.size <= len(data):
            spans.append(span)
            position += span.size
    return data[:position] + write_table(spans)


def _summed(block: bytes) -> bytes:
    plain = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(plain) + block[156:]


def _members(stream: bytes) -> Members:
    with _opened(stream) as fd:
        reader = TarReader(SeekablePlainStream(FileBytes(fd, _PATH)))
        found: Members = []
        while header := reader.next_member():
            found.append((header.name, reader.read(header.size)))
        return found


def _restored_members(stream: bytes) -> Members | None:
    archive = restore.Archive(io.BytesIO(stream).read)
    found: Members = []
    try:
        while path := archive.peek()[0]:
            found.append((path, b"".join(archive.body(archive.enter(path)))))
        archive.close()
    except restore.RestoreError:
        return None
    return found


def _few(frames: Iterator[bytes] | PipedFrames) -> Iterator[bytes]:
    size = 0
    for frame in frames:
        span = measure_frame(frame)
        size += span.content_size if span else 0
        if size > _MAX_CONTENT:
            raise LimitError("more than a fuzzer has time for")
        yield frame


def _read_seekable(source: BytesAt) -> bytes | None:
    with ThreadPoolExecutor(1) as pool:
        try:
            spans = _read_seek_table(source)
            length = sum(span.content_size for span in spans)
            return b"".join(SeekableStream(source, spans, pool, 1).take(min(length, _MAX_CONTENT)))
        except OstoreError:
            return None


def _framed(stream: bytes) -> bytes:
    """In frames as small as make a difference."""
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=True, write_checksum=False)
    contents = [stream[at : at + 1536] for at in range(0, len(stream), 1536)]
    frames = [compressor.compress(content) for content in contents]
    table = write_table([FrameSpan(len(frame), len(content)) for frame, content in zip(frames, contents, strict=True)])
    return b"".join(frames) + table


def _read_by_us(content: bytes, *, is_piped: bool) -> str | OstoreError:
    with _opened(content) as fd:
        path = Path(f"/proc/self/fd/{fd}")
        try:
            with open_piped_bundle(PipeBytes(fd), jobs=1) if is_piped else open_bundle(path, jobs=1) as reader:
                return _everything(reader)
        except OstoreError as error:
            return error


def _everything(reader: BundleReader) -> str:
    selection = reader.select([])
    found = hashlib.sha256()
    for wanted, chunks in reader.read_blobs([Wanted(blob) for blob in selection.blobs], nothing_held):
        for chunk in verified(chunks, wanted.blob):
            found.update(chunk)
    # In the order of names, whatever their order in the index.
    for name, raw in sorted((name.full, raw) for name, raw in reader.read_manifests(selection.models)):
        found.update(name.encode() + raw)
    return found.hexdigest()


class _Sink(restore.Inbox):
    """In place of a store's."""

    def __init__(self) -> None:
        self.found = hashlib.sha256()
        self.manifests: list[tuple[str, bytes]] = []

    def has(self, blob: restore.Blob) -> bool:
        return False

    def write_blob(self, blob: restore.Blob, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self.found.update(piece)

    def write_manifest(self, model: restore.Model, raw: bytes) -> None:
        self.manifests.append((model.name, raw))


def _read_by_restore(stream: bytes) -> str | restore.RestoreError:
    archive, sink = restore.Archive(io.BytesIO(stream).read), _Sink()
    try:
        restore.read_members(archive, restore.read_index(archive), sink)
    except restore.RestoreError as error:
        return error
    for name, raw in sorted(sink.manifests):
        sink.found.update(name.encode() + raw)
    return sink.found.hexdigest()


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[int]:
    """A file in memory, open at its start."""
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
