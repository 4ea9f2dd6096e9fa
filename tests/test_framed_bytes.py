"""The tar stream of a bundle can be read in any order, and blobs of a store with few files open."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobMissingError, IntegrityError, LimitError
from ostore.formats.zstd_frame import FrameSpan, measure_frame
from ostore.streams import framed_bytes, open_blobs
from ostore.streams.bytes_at import RangeOf
from ostore.streams.framed_bytes import FramedBytes
from ostore.streams.frames import encode_frame
from ostore.streams.open_blobs import OpenBlobs
from tests.in_memory import StayingBytes
from tests.support import noise

CONTENTS = [noise(1000, number) for number in range(4)]
WHOLE = b"".join(CONTENTS)


def framed() -> tuple[StayingBytes, list[FrameSpan]]:
    frames = [b"".join(encode_frame([content], 1)) for content in CONTENTS]
    spans = [span for frame in frames if (span := measure_frame(frame))]
    return StayingBytes(b"".join(frames)), spans


def test_frames_are_read_in_any_order_and_the_latest_are_kept() -> None:
    source, spans = framed()
    tar = FramedBytes(source, spans)
    assert tar.size == len(WHOLE)
    for size, offset in ((10, 0), (1500, 900), (4000, 0), (1, 3999), (9, 3995), (5, 4000), (5, 9999)):
        assert tar.read_at(size, offset) == WHOLE[offset : offset + size]
    source.asked.clear()
    tar.read_at(1000, 2500)
    assert tar.read_at(1000, 2500) == WHOLE[2500:3500]
    assert len(source.asked) <= 1
    tar.refuse_changes()
    middle = RangeOf(tar, 1000, 500)
    assert (middle.size, middle.read_at(600, 100), middle.read_at(1, 500)) == (500, WHOLE[1100:1500], b"")
    middle.refuse_changes()


def test_jumping_about_among_more_frames_than_are_kept_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed_bytes, "_KEPT_FRAMES", 2)
    monkeypatch.setattr(framed_bytes, "_FRAMES", 0)
    tar = FramedBytes(*framed())
    for _ in range(100):
        assert tar.read_at(4000, 0) == WHOLE
    with pytest.raises(LimitError):
        deque((tar.read_at(1, number % 3 * 1000) for number in range(10_000)), maxlen=0)


def test_a_frame_that_is_not_as_the_table_says_is_an_error() -> None:
    source, spans = framed()
    tar = FramedBytes(source, [spans[1], spans[0], *spans[2:]])
    if spans[0] == spans[1]:
        tar = FramedBytes(source, [FrameSpan(spans[0].size, 999), *spans[1:]])
    with pytest.raises(IntegrityError):
        tar.read_at(10, 0)


def test_any_number_of_blobs_is_read_with_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_blobs, "_MAX_OPEN", 2)
    opened: set[Digest] = set()

    @contextmanager
    def opening(digest: Digest) -> Iterator[int]:
        path = tmp_path / digest.hex
        if not path.exists():
            raise BlobMissingError("gone", digest=str(digest))
        fd = os.open(path, os.O_RDONLY)
        opened.add(digest)
        try:
            yield fd
        finally:
            os.close(fd)
            opened.remove(digest)

    digests = [Digest.of(content) for content in CONTENTS]
    for digest, content in zip(digests, CONTENTS, strict=True):
        (tmp_path / digest.hex).write_bytes(content)
    with closing(OpenBlobs(opening)) as blobs:
        bytes_of = [blobs.at(digest) for digest in digests]
        for data, content in zip(bytes_of * 2, CONTENTS * 2, strict=True):
            assert (data.size, data.read_at(5, 7)) == (1000, content[7:12])
            data.refuse_changes()
            assert len(opened) <= 2
        assert blobs.held(Digest.of(b"absent")) is None
        assert blobs.held(digests[0]) is not None
    assert not opened
