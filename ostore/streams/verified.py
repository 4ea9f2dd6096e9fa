"""Check the size and SHA-256 of bytes while they pass. Bytes become a blob in this way only."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from io import FileIO
from typing import Protocol

from ostore.formats.digest import Digest
from ostore.formats.errors import DigestMismatchError, SizeMismatchError
from ostore.formats.manifest import Descriptor
from ostore.streams.chunks import Chunk
from ostore.streams.pool import Pool

# For smaller blobs, a thread costs more time than it saves.
_INLINE_BYTES = 1024 * 1024
_CHUNKS_BEHIND = 2
# Fits into a processor's cache, and makes Python's own cost negligible. hashlib.file_digest uses the same size.
_BUFFER_BYTES = 256 * 1024


class _Hasher(Protocol):
    def update(self, data: Chunk, /) -> None: ...


_Hashing = Callable[[Iterable[Chunk], _Hasher], Iterator[Chunk]]


@dataclass(frozen=True, slots=True)
class Steps:
    """
    Calls `told` with the size and digest of the bytes before byte `first` of a blob, and after every `step` bytes more.

    It is called in the thread that hashes. What it raises ends the verification.
    """

    first: int
    step: int
    told: Callable[[int, Digest], None]


def verified(chunks: Iterable[Chunk], descriptor: Descriptor, steps: Steps | None = None) -> Iterator[Chunk]:
    """
    Pass chunks through, and raise unless together they are exactly the blob.

    The caller must not use the chunks before the iterator is exhausted. A chunk is hashed while the caller uses it and
    the next one is produced. `steps` tells of the digests on the way.

    Raises:
        SizeMismatchError: there are more bytes than promised (raised as soon as they come), or fewer.
        DigestMismatchError: the number of bytes is right, but their digest differs.
    """
    yield from _checked(hashed_beside if descriptor.size > _INLINE_BYTES else _hashed, chunks, descriptor, steps)


def _checked(
    hashing: _Hashing, chunks: Iterable[Chunk], descriptor: Descriptor, steps: Steps | None = None
) -> Iterator[Chunk]:
    hasher = hashlib.sha256()
    yield from hashing(_bounded(chunks, descriptor), _SteppingHasher(hasher, steps) if steps else hasher)
    if hasher.hexdigest() != descriptor.digest.hex:
        raise DigestMismatchError(
            f"blob {descriptor.digest}: its bytes have another digest, sha256:{hasher.hexdigest()}",
            digest=str(descriptor.digest),
        )


class _SteppingHasher:
    """Hashes, and tells of the digest at each step on the way. Once telling has failed, it does nothing more."""

    def __init__(self, hasher: hashlib._Hash, steps: Steps) -> None:
        self._hasher = hasher
        self._steps = steps
        self._size = 0
        self._next = steps.first
        self._has_failed = False

    def update(self, data: Chunk, /) -> None:
        # More chunks may have been handed over by then, and their place is not known any more.
        view = memoryview(b"" if self._has_failed else data)
        while self._size + len(view) >= self._next:
            missing = self._next - self._size
            self._hasher.update(view[:missing])
            view, self._size = view[missing:], self._next
            self._next += self._steps.step
            self._has_failed = True
            self._steps.told(self._size, Digest(self._hasher.hexdigest()))
            self._has_failed = False
        self._hasher.update(view)
        self._size += len(view)


def hash_file(fd: int, descriptor: Descriptor, advance: Callable[[int], None]) -> None:
    """
    Read an open file from its position to its end and check that it is the blob.

    It reuses one buffer, so several files can be hashed at once in little memory. It calls `advance` with the number of
    bytes of each read. Raises SizeMismatchError or DigestMismatchError, as `verified` does. Raises OSError.
    """
    for _ in _checked(_hashed, _stretches(fd, advance), descriptor):
        pass


def digest_file(fd: int, advance: Callable[[int], None]) -> Digest:
    """Hash an open file from its position to its end. Calls `advance` as `hash_file` does. Raises OSError."""
    hasher = hashlib.sha256()
    for stretch in _stretches(fd, advance):
        hasher.update(stretch)
    return Digest(hasher.hexdigest())


def _stretches(fd: int, advance: Callable[[int], None]) -> Iterator[Chunk]:
    """Yield the rest of an open file. Each piece is valid only until the next: they share one buffer."""
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


def _hashed(chunks: Iterable[Chunk], hasher: _Hasher) -> Iterator[Chunk]:
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk


def hashed_beside(chunks: Iterable[Chunk], hasher: _Hasher) -> Iterator[Chunk]:
    """
    Pass chunks through and hash them in a second thread, at most two behind. hashlib releases the GIL meanwhile.

    The hash is of all chunks once the iterator is exhausted.
    """
    with Pool(1) as pool:
        behind: deque[Future[None]] = deque()
        for chunk in chunks:
            if len(behind) == _CHUNKS_BEHIND:
                behind.popleft().result()
            behind.append(pool.submit(hasher.update, chunk))
            yield chunk
        while behind:
            behind.popleft().result()
