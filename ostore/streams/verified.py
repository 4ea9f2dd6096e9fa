"""The only way by which bytes become a blob: through a check of their size and SHA-256 while they pass."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from typing import Protocol

from ostore.formats.digest import Digest
from ostore.formats.errors import DigestMismatchError, SizeMismatchError
from ostore.formats.manifest import Descriptor
from ostore.streams.chunks import Chunk

# Below this a thread costs more than it hides.
_INLINE_BYTES = 1024 * 1024
# Small enough for a processor's cache, large enough that Python's part does not count (hashlib.file_digest has it too).
_CHUNKS_BEHIND = 2
_BUFFER_BYTES = 256 * 1024


class _Hasher(Protocol):
    def update(self, data: Chunk, /) -> None: ...


_Hashing = Callable[[Iterator[Chunk], _Hasher], Iterator[Chunk]]


def verified(chunks: Iterable[Chunk], descriptor: Descriptor) -> Iterator[Chunk]:
    """
    Pass chunks through; raise unless together they are exactly the blob.

    A caller must not use what it got before the iterator is exhausted. The hash of one chunk is taken while the next
    one is produced and this one consumed.

    Raises:
        SizeMismatchError: more bytes than promised (as soon as they come) or fewer.
        DigestMismatchError: the right number of other bytes.
    """
    yield from _checked(_hashed_beside if descriptor.size > _INLINE_BYTES else _hashed, chunks, descriptor)


def _checked(hashing: _Hashing, chunks: Iterable[Chunk], descriptor: Descriptor) -> Iterator[Chunk]:
    hasher = hashlib.sha256()
    yield from hashing(_bounded(chunks, descriptor), hasher)
    if hasher.hexdigest() != descriptor.digest.hex:
        raise DigestMismatchError(
            f"blob {descriptor.digest}: expected these bytes, got sha256:{hasher.hexdigest()}",
            digest=str(descriptor.digest),
        )


def hash_file(fd: int, descriptor: Descriptor, advance: Callable[[int], None]) -> None:
    """
    Read an open file to its end and check that it is the blob; nothing of it is kept.

    One buffer is read into again and again, so several files can be hashed at once in little memory. `advance` is told
    of every stretch of bytes. Raises SizeMismatchError or DigestMismatchError as `verified`, OSError.
    """
    for _ in _checked(_hashed, _stretches(fd, advance), descriptor):
        pass


def digest_file(fd: int, advance: Callable[[int], None]) -> Digest:
    """Read an open file to its end and say what its digest is. `advance` is told of every stretch. Raises OSError."""
    hasher = hashlib.sha256()
    for stretch in _stretches(fd, advance):
        hasher.update(stretch)
    return Digest(hasher.hexdigest())


def _stretches(fd: int, advance: Callable[[int], None]) -> Iterator[Chunk]:
    """What is left of an open file, each time in the same buffer."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with FileIO(fd, closefd=False) as file:
        while size := file.readinto(buffer):
            advance(size)
            yield buffer[:size]


def _bounded(chunks: Iterable[Chunk], descriptor: Descriptor) -> Iterator[Chunk]:
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if seen > descriptor.size:
            break
        yield chunk
    if seen != descriptor.size:
        got = f"{seen}" if seen < descriptor.size else "more"
        raise SizeMismatchError(
            f"blob {descriptor.digest}: expected {descriptor.size} bytes, got {got}", digest=str(descriptor.digest)
        )


def _hashed(chunks: Iterator[Chunk], hasher: _Hasher) -> Iterator[Chunk]:
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk


def _hashed_beside(chunks: Iterator[Chunk], hasher: _Hasher) -> Iterator[Chunk]:
    """Hash in a thread of its own, at most two chunks behind: hashlib releases the GIL."""
    with ThreadPoolExecutor(1) as pool:
        behind: deque[Future[None]] = deque()
        for chunk in chunks:
            if len(behind) == _CHUNKS_BEHIND:
                behind.popleft().result()
            behind.append(pool.submit(hasher.update, chunk))
            yield chunk
        while behind:
            behind.popleft().result()
