"""The only way by which bytes become a blob: through a check of their size and SHA-256 while they pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ostore.formats.errors import DigestMismatchError, SizeMismatchError
from ostore.formats.manifest import Descriptor
from ostore.streams.chunks import Chunk

# Below this a thread costs more than it hides.
_INLINE_BYTES = 1024 * 1024


def verified(chunks: Iterable[Chunk], descriptor: Descriptor) -> Iterator[Chunk]:
    """
    Pass chunks through; raise unless together they are exactly the blob.

    A caller must not use what it got before the iterator is exhausted. The hash of one chunk is taken while the next
    one is produced and this one consumed.

    Raises:
        SizeMismatchError: more bytes than promised (as soon as they come) or fewer.
        DigestMismatchError: the right number of other bytes.
    """
    hasher = hashlib.sha256()
    bounded = _bounded(chunks, descriptor)
    yield from _hashed_beside(bounded, hasher) if descriptor.size > _INLINE_BYTES else _hashed(bounded, hasher)
    if hasher.hexdigest() != descriptor.digest.hex:
        raise DigestMismatchError(
            f"blob {descriptor.digest}: expected these bytes, got sha256:{hasher.hexdigest()}",
            digest=str(descriptor.digest),
        )


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


def _hashed(chunks: Iterator[Chunk], hasher: hashlib._Hash) -> Iterator[Chunk]:
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk


def _hashed_beside(chunks: Iterator[Chunk], hasher: hashlib._Hash) -> Iterator[Chunk]:
    """Hash in a thread of its own, at most one chunk behind: hashlib releases the GIL."""
    with ThreadPoolExecutor(1) as pool:
        behind: Future[None] | None = None
        for chunk in chunks:
            if behind:
                behind.result()
            behind = pool.submit(hasher.update, chunk)
            yield chunk
        if behind:
            behind.result()
