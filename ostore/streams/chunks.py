"""Streams are iterators of chunks. A chunk is a buffer that stays valid for as long as somebody holds it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial

# A stream is not a file object: several threads can hash, write and slice a decoded frame without a copy, and nobody
# can forget a short read (docs/adr/0003).
Chunk = bytes | memoryview

# One zstd frame. Large enough to make Python's cost per chunk negligible, small enough to hold several.
CHUNK_BYTES = 8 * 1024 * 1024


def read_chunks(fd: int, limit: int, lead: int = 0) -> Iterator[bytes]:
    """
    Yield the rest of an open file in chunks of 8 MiB (the last is shorter), at most `limit` bytes and one more.

    The extra byte tells the reader that the file is longer than promised. The first chunk is `lead` bytes shorter:
    after a header of that size, each chunk is one frame, and no frame has to be joined from two chunks. Raises OSError.
    """
    remaining, wanted = limit + 1, CHUNK_BYTES - lead
    while remaining and (chunk := read_full(fd, min(wanted, remaining))):
        remaining, wanted = remaining - len(chunk), CHUNK_BYTES
        yield chunk


def read_full(fd: int, size: int) -> bytes:
    """Read `size` bytes, or fewer at the end of the input. Waits for a pipe that has no more yet. Raises OSError."""
    return read_until_full(partial(os.read, fd), size)


def read_until_full(read: Callable[[int], bytes], size: int) -> bytes:
    """Call `read` until it has returned `size` bytes in all or none, which is the end. Raises what `read` raises."""
    data = read(size)
    if len(data) == size or not data:
        return data
    pieces = [data]
    missing = size - len(data)
    while missing and (data := read(min(missing, 1024 * 1024))):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)


def forget_cached(fd: int) -> None:
    """Ask the system to drop its cache of a file, so the next read comes from the disk. Needs posix_fadvise."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


_seek_and_read = threading.Lock()


def seek_and_read(fd: int, size: int, offset: int, /) -> bytes:
    """Read from an offset and leave the position, as os.pread does. Raises OSError."""
    with _seek_and_read:
        position = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, offset, os.SEEK_SET)
        try:
            return read_full(fd, size)
        finally:
            os.lseek(fd, position, os.SEEK_SET)


# Windows has no os.pread.
read_at: Callable[[int, int, int], bytes] = getattr(os, "pread", seek_and_read)
