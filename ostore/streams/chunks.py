"""What a stream is here: buffers in order, each of which stays valid for as long as somebody holds it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial

# An iterator of buffers rather than a file object: a decoded frame can be hashed, written and sliced by several
# threads without a copy, and there is no short read to forget (docs/adr/0003).
Chunk = bytes | memoryview

# One zstd frame: large enough that Python's cost per chunk vanishes, small enough to hold several.
CHUNK_BYTES = 8 * 1024 * 1024


def read_chunks(fd: int, limit: int, lead: int = 0) -> Iterator[bytes]:
    """
    Yield what is left of an open file in chunks of 8 MiB, the last one shorter; at most `limit` bytes and one more.

    The byte too many is what tells a reader that the file is longer than promised. The first chunk is `lead` bytes
    shorter: behind a header of that size, chunks and frames then coincide, and none has to be put together.
    """
    remaining, wanted = limit + 1, CHUNK_BYTES - lead
    while remaining and (chunk := read_full(fd, min(wanted, remaining))):
        remaining, wanted = remaining - len(chunk), CHUNK_BYTES
        yield chunk


def read_full(fd: int, size: int) -> bytes:
    """Up to `size` bytes; fewer only at the end of the input, never because a pipe had no more just now."""
    return read_until_full(partial(os.read, fd), size)


def read_until_full(read: Callable[[int], bytes], size: int) -> bytes:
    """Call `read` until it has given `size` bytes in all, or none, which is the end. Raises what it raises."""
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
    """Let the next read of an open file come from its disk, as far as the system can be told so."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


if hasattr(os, "pread"):
    read_at = os.pread
else:
    _seek_and_read = threading.Lock()

    def read_at(fd: int, size: int, offset: int, /) -> bytes:
        """Read from an offset, as os.pread does where there is one (not on Windows)."""
        with _seek_and_read:
            os.lseek(fd, offset, os.SEEK_SET)
            return read_full(fd, size)
