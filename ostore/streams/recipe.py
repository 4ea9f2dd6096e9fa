"""Follow a recipe: the bytes of a blob, from its bases and new bytes. Nothing is kept of them."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from ostore.formats.errors import BlobError, DigestMismatchError, InvalidBundleError, LimitError, TruncatedError
from ostore.formats.manifest import Descriptor
from ostore.formats.recipe import MAX_HEAD_BYTES, MadeBlob, Recipe
from ostore.formats.remedy import ostore
from ostore.streams.bytes_at import BytesAt, Held, read_chunks_at
from ostore.streams.chunks import Chunk
from ostore.streams.verified import verified

# Fits into a processor's cache, where the bytes stay until they are hashed and written: 8 MiB took twice as long.
COPIED_BYTES = 1024 * 1024
# Steps can be as short as a byte. Their bytes are joined up to this size, because each chunk has a cost of its own.
_SHORT_BYTES = 64 * 1024
# Of recipes that others in the same file build on, together. A recipe mostly has one step for each tensor.
MAX_NESTED_STEPS = 100_000
# How often those may be read for less than 64 KiB. Some seconds; what recipes share is read once by each.
MAX_SHORT_READS = 250_000


def split_head(stored: Iterator[Chunk]) -> tuple[bytes, Iterator[Chunk]]:
    """
    Return the head of a recipe as it is stored, with its newline, and the new bytes.

    Raises LimitError for a head above 4 MiB, InvalidBundleError if there is none, and what `stored` raises.
    """
    head = b""
    for chunk in stored:
        end = bytes(chunk[: MAX_HEAD_BYTES + 1]).find(b"\n") + 1
        head += bytes(chunk[: end or MAX_HEAD_BYTES + 1])
        if len(head) > MAX_HEAD_BYTES:
            raise LimitError(f"expected a head of at most {MAX_HEAD_BYTES} bytes")
        if end:
            return head, _after(chunk[end:], stored)
    raise InvalidBundleError("its head does not end")


def follow(recipe: Recipe, bases: Sequence[BytesAt], new: Iterator[Chunk]) -> Iterator[Chunk]:
    """
    Yield the bytes of the blob. `new` is read to its end.

    Raises TruncatedError if a base or `new` is shorter than the steps say, and what reading them raises.
    """
    short: list[Chunk] = []
    filled = 0
    for piece in _pieces(recipe, bases, _Forward(new)):
        short.append(piece)
        filled += len(piece)
        if filled >= _SHORT_BYTES:
            yield short[0] if len(short) == 1 else b"".join(short)
            short, filled = [], 0
    if short:
        yield b"".join(short)
    # Where the new bytes end, their digest is checked.
    deque(new, maxlen=0)


def refuse_damaged_bases(made: MadeBlob, bases: Iterable[Descriptor], held: Held) -> None:
    """Hash bases that are held, when what was made of them is wrong. Raises BlobError for a damaged one, OSError."""
    for base in bases:
        data = held(base.digest)
        try:
            for _ in verified(read_chunks_at(data, base.size), base) if data else ():
                pass
        except BlobError as error:
            raise DigestMismatchError(
                f"blob {base.digest} in the store is damaged, and {made.blob.digest} is made of it",
                digest=error.digest,
                hint=ostore("verify", after="names the models that it breaks").otherwise(
                    ostore("inventory", "--verify", after="lists what is whole, for a delta that builds on that alone")
                ),
            ) from None


class Nesting:
    """Counts what recipes cost that other recipes build on. Each floor of such a tower can multiply the work."""

    def __init__(self) -> None:
        self._steps = 0
        self._saved_bytes = MAX_SHORT_READS * _SHORT_BYTES

    def add_steps(self, steps: int) -> None:
        """Count the steps of one more recipe. Raises LimitError for too many."""
        self._steps += steps
        if self._steps > MAX_NESTED_STEPS:
            raise LimitError(f"expected at most {MAX_NESTED_STEPS} steps in the recipes that others build on")

    def add_read(self, size: int) -> None:
        """Count one more read of a step. Long reads make up for short ones. Raises LimitError for too many."""
        self._saved_bytes += size - _SHORT_BYTES
        if self._saved_bytes < 0:
            raise LimitError(f"recipes on top of each other take over {MAX_SHORT_READS} short ranges of each other")


class MadeBytes:
    """The bytes of a blob that a recipe makes, in any order. `new` has the new bytes alone."""

    def __init__(
        self, recipe: Recipe, bases: Sequence[BytesAt], new: BytesAt, head_bytes: int, nesting: Nesting
    ) -> None:
        """
        `new` is the recipe as it is stored; the new bytes begin after its head. Raises LimitError if the recipe is one
        too many for `nesting`, and so does reading.
        """
        nesting.add_steps(len(recipe.steps))
        self._bases, self._new, self._nesting = bases, new, nesting
        self._steps = recipe.steps
        self._starts = list(accumulate((step.length for step in recipe.steps), initial=0))
        lengths = (0 if step.base is not None else step.length for step in recipe.steps)
        self._new_starts = list(accumulate(lengths, initial=head_bytes))
        self.size = self._starts[-1]

    def read_at(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from byte `offset`, or fewer at the end. Raises what the bases raise."""
        pieces = []
        size = max(0, min(size, self.size - offset))
        number = bisect_right(self._starts, offset) - 1
        while size:
            step, skipped = self._steps[number], offset - self._starts[number]
            length = min(size, step.length - skipped)
            self._nesting.add_read(length)
            if step.base is None:
                piece = self._new.read_at(length, self._new_starts[number] + skipped)
            else:
                piece = self._bases[step.base].read_at(length, step.offset + skipped)
            if len(piece) < length:
                raise TruncatedError("a recipe builds on more bytes than are there")
            pieces.append(piece)
            size, offset, number = size - length, offset + length, number + 1
        return b"".join(pieces)

    def refuse_changes(self) -> None:
        """Raises IntegrityError if a base has changed."""
        for base in (*self._bases, self._new):
            base.refuse_changes()


def _pieces(recipe: Recipe, bases: Sequence[BytesAt], new: _Forward) -> Iterator[Chunk]:
    for step in recipe.steps:
        if step.base is None:
            yield from new.take(step.length)
            continue
        read_at, end = bases[step.base].read_at, step.offset + step.length
        for offset in range(step.offset, end, COPIED_BYTES):
            yield _whole(read_at, min(COPIED_BYTES, end - offset), offset)


def _whole(read_at: Callable[[int, int], bytes], size: int, offset: int) -> bytes:
    data = read_at(size, offset)
    if len(data) < size:
        raise TruncatedError("a recipe builds on more bytes than are there")
    return data


def _after(first: Chunk, rest: Iterator[Chunk]) -> Iterator[Chunk]:
    if len(first):
        yield first
    yield from rest


class _Forward:
    """The new bytes, taken in pieces of the wanted lengths."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self._current = memoryview(b"")

    def take(self, size: int) -> Iterator[Chunk]:
        while size:
            if not len(self._current):
                chunk = next(self._chunks, None)
                if chunk is None:
                    raise TruncatedError("a recipe builds on more bytes than are there")
                self._current = memoryview(chunk)
            piece, self._current = self._current[:size], self._current[size:]
            size -= len(piece)
            yield piece
