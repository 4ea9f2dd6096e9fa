"""
Find the recipe for a blob: which of its bytes are in blobs that the target has. Only bytes count, and no name.

Only files with tensors are looked at: GGUF and safetensors. A tensor is found in a base by its length, then by samples,
then by all its bytes; or by its digest, where only an inventory knows the base. Then the headers are compared. No more
than some chunks and two headers are in memory.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ostore.formats.digest import Digest
from ostore.formats.errors import DigestMismatchError
from ostore.formats.inventory import HeldBlob
from ostore.formats.manifest import Descriptor
from ostore.formats.recipe import MAX_BASES, MAX_HEAD_BYTES, MAX_STEPS, MadeBlob, Recipe, Step, joined
from ostore.formats.tensor_ranges import TensorRanges, read_tensor_ranges
from ostore.operations.delta.headers import MAX_COMPARED_BYTES, header_steps
from ostore.streams.bytes_at import BytesAt
from ostore.streams.chunks import CHUNK_BYTES, Chunk

# A recipe that saves less is not worth that tar alone cannot restore the bundle.
_MOST_STORED = 0.95
_SAMPLE_BYTES = 64
# The number of a basis, and an offset in it.
Place = tuple[int, int]
# Tensors with the same samples are all zeros, as a rule. More of them do not help.
_MAX_ALIKE = 8


@dataclass(frozen=True, slots=True)
class Basis:
    """
    A blob that a recipe may build on.

    `data` are its bytes if they are at hand. Otherwise `digests` has the digest of each tensor, in the order of
    `ranges`.
    """

    blob: Descriptor
    ranges: TensorRanges
    data: BytesAt | None
    digests: tuple[Digest, ...] = ()

    @classmethod
    def of(cls, blob: Descriptor, data: BytesAt) -> Basis | None:
        """Return the basis with these bytes, or None for a blob without tensors. Raises OSError."""
        if data.size != blob.size:
            return None
        ranges = read_tensor_ranges(data.read_at, data.size)
        return cls(blob, ranges, data) if ranges else None

    @classmethod
    def of_listed(cls, blob: HeldBlob) -> Basis | None:
        """Return the basis that an inventory describes, or None if it lists no tensors of the blob."""
        if blob.tensors is None:
            return None
        ranges = tuple((tensor.offset, tensor.length) for tensor in blob.tensors.tensors)
        digests = tuple(tensor.digest for tensor in blob.tensors.tensors)
        return cls(Descriptor(blob.digest, blob.size), TensorRanges(blob.tensors.header.size, ranges), None, digests)


@dataclass(frozen=True, slots=True)
class PlannedRecipe:
    """A recipe for a blob that is at hand. `new` are the offsets and lengths of its new bytes in the blob."""

    made: MadeBlob
    head: bytes
    new: tuple[tuple[int, int], ...]

    def read(self, data: BytesAt) -> Iterator[Chunk]:
        """Yield the recipe as it is stored. `data` are the bytes of the blob. Raises OSError."""
        yield self.head
        for offset, length in self.new:
            yield from _chunks(data, offset, length)


# By the number of a basis, the offsets in it, in order: a dict is an ordered set.
_Places = dict[int, dict[int, None]]


@dataclass(slots=True)
class _OfLength:
    """
    The tensors of one length. Those at hand wait in `unread` until samples are asked for, which are then kept.

    `digested` has those that are known by their digests alone: of each basis the first.
    """

    unread: list[Place] = field(default_factory=list)
    by_samples: dict[bytes, _Places] = field(default_factory=dict)
    digested: dict[Digest, dict[int, int]] = field(default_factory=dict)


class Bases:
    """The blobs that recipes may build on, by the lengths of their tensors. No tensor is looked at twice."""

    def __init__(self, bases: Iterable[Basis] = ()) -> None:
        self._bases: list[Basis] = []
        self._by_length: dict[int, _OfLength] = {}
        for basis in bases:
            self.add(basis)

    def __len__(self) -> int:
        return len(self._bases)

    def __getitem__(self, number: int) -> Basis:
        return self._bases[number]

    def add(self, basis: Basis) -> None:
        """Let later recipes build on a blob."""
        number, digests = len(self._bases), basis.digests or (None,) * len(basis.ranges.tensors)
        self._bases.append(basis)
        for (offset, length), digest in zip(basis.ranges.tensors, digests, strict=True):
            known = self._by_length.setdefault(length, _OfLength())
            if basis.data is not None:
                known.unread.append((number, offset))
            elif digest is not None:
                known.digested.setdefault(digest, {}).setdefault(number, offset)

    def alike(self, data: BytesAt, offset: int, length: int) -> Mapping[int, Collection[int]]:
        """Return the tensors of that length with the same samples: by the number of a basis, the offsets in it."""
        known = self._by_length.get(length)
        if known is None:
            return {}
        for number, there in known.unread:
            base = self._bases[number].data
            if base is not None:
                places = known.by_samples.setdefault(_samples(base, there, length), {})
                places.setdefault(number, {})[there] = None
        known.unread.clear()
        return known.by_samples.get(_samples(data, offset, length), {}) if known.by_samples else {}

    def digested(self, length: int) -> Mapping[Digest, Mapping[int, int]]:
        """Return the tensors of that length that are known by their digests alone: by basis, the first offset in it."""
        known = self._by_length.get(length)
        return known.digested if known else {}


def plan_recipe(
    blob: Descriptor, data: BytesAt, bases: Bases, advance: Callable[[int], None] = lambda _: None
) -> PlannedRecipe | None:
    """
    Return the recipe that makes a blob, or None if it is not worth one. `data` are its bytes, which are hashed.

    `advance` gets the number of bytes of each read. Raises DigestMismatchError if they are not the blob, OSError.
    """
    ranges = read_tensor_ranges(data.read_at, data.size) if len(bases) and data.size == blob.size else None
    if ranges is None or not any(_may_be_there(bases, data, *tensor) for tensor in ranges.tensors):
        return None
    search = _Search(blob, data, bases, advance)
    steps = search.run(ranges)
    recipe = Recipe(steps)
    head = recipe.write()
    size = len(head) + recipe.new_bytes
    used = search.used
    if size > blob.size * _MOST_STORED or len(steps) > MAX_STEPS or len(head) > MAX_HEAD_BYTES or not used:
        return None
    new = tuple(_new_ranges(steps))
    draft = PlannedRecipe(MadeBlob(blob, used, Descriptor(blob.digest, size)), head, new)
    stored = hashlib.sha256()
    for chunk in draft.read(data):
        stored.update(chunk)
    return PlannedRecipe(MadeBlob(blob, used, Descriptor(Digest(stored.hexdigest()), size)), head, new)


def _may_be_there(bases: Bases, data: BytesAt, offset: int, length: int) -> bool:
    return bool(bases.alike(data, offset, length) or bases.digested(length))


@dataclass
class _Search:
    """One pass over a blob, which hashes it. Steps count in all bases until `run` numbers those that are used."""

    blob: Descriptor
    data: BytesAt
    bases: Bases
    advance: Callable[[int], None]
    used: tuple[Digest, ...] = ()
    _hasher: hashlib._Hash = field(default_factory=hashlib.sha256)
    _steps: list[Step] = field(default_factory=list)
    _copied: dict[int, int] = field(default_factory=dict)

    def run(self, ranges: TensorRanges) -> tuple[Step, ...]:
        header = self._header(ranges.header)
        position = ranges.header
        for offset, length in ranges.tensors:
            self._take(position, offset - position, self._next_in_base())
            self._take(offset, length, self._candidates(offset, length), is_tensor=True)
            position = offset + length
        self._take(position, self.blob.size - position, self._next_in_base())
        if self._hasher.hexdigest() != self.blob.digest.hex:
            raise DigestMismatchError(
                f"blob {self.blob.digest}: its bytes have another digest, sha256:{self._hasher.hexdigest()}",
                digest=str(self.blob.digest),
            )
        return self._numbered(joined([*self._header_steps(header, ranges.header), *self._steps]))

    def _header(self, size: int) -> bytes:
        """Hash the header. Return it, or nothing if it is too long to be compared."""
        kept = []
        for chunk in _chunks(self.data, 0, size):
            self._hasher.update(chunk)
            self.advance(len(chunk))
            if size <= MAX_COMPARED_BYTES:
                kept.append(chunk)
        return b"".join(kept)

    def _header_steps(self, header: bytes, size: int) -> list[Step]:
        """Compare with the header of the base that gives most."""
        number = max(self._copied, key=lambda number: self._copied[number], default=None)
        if number is None:
            return [Step(size)]
        base = self.bases[number]
        if base.data is None or not header or base.ranges.header > MAX_COMPARED_BYTES:
            return [Step(size)]
        return header_steps(header, base.data.read_at(base.ranges.header, 0), number)

    def _candidates(self, offset: int, length: int) -> list[Place]:
        """Return the tensors that may be this one. The first is best: it goes on where the last copy ended."""
        found = self.bases.alike(self.data, offset, length)
        following = [(number, there) for number, there in self._next_in_base() if there in found.get(number, ())]
        known = [number for number in sorted(self._copied) if number in found]
        others = (number for number in found if number not in self._copied) if self._may_use_more else ()
        places = ((number, there) for number in itertools.chain(known, others) for there in found[number])
        return list(dict.fromkeys([*following, *itertools.islice(places, _MAX_ALIKE)]))[:_MAX_ALIKE]

    @property
    def _may_use_more(self) -> bool:
        return len(self._copied) < MAX_BASES

    def _next_in_base(self) -> list[Place]:
        """Return where the last copy ended, if the last step was one of bytes that are at hand."""
        last = self._steps[-1] if self._steps else None
        if last is None or last.base is None or self.bases[last.base].data is None:
            return []
        return [(last.base, last.offset + last.length)]

    def _take(self, offset: int, length: int, places: list[Place], *, is_tensor: bool = False) -> None:
        """Read the next bytes of the blob. They become a copy of the first of these places with the same bytes."""
        digested = self.bases.digested(length) if is_tensor else {}
        hasher = hashlib.sha256() if digested else None
        first, done = next(iter(places), None), 0
        for chunk in _chunks(self.data, offset, length):
            self._hasher.update(chunk)
            self.advance(len(chunk))
            if hasher:
                hasher.update(chunk)
            if first and not self._has(first, done, chunk):
                first = None
            done += len(chunk)
        # Samples hardly ever deceive, so this reads the blob again in the rarest cases only.
        found = first or next((place for place in places[1:] if self._is_at(place, offset, length)), None)
        if hasher and not found:
            found = self._listed(digested.get(Digest(hasher.hexdigest()), {}))
        self._add(Step(length, *found) if found else Step(length))

    def _listed(self, places: Mapping[int, int]) -> Place | None:
        """Return the first of these places that a recipe with the bases until now may use."""
        usable = places if self._may_use_more else [number for number in sorted(self._copied) if number in places]
        return next(((number, places[number]) for number in usable), None)

    def _is_at(self, place: Place, offset: int, length: int) -> bool:
        done = 0
        for chunk in _chunks(self.data, offset, length):
            if not self._has(place, done, chunk):
                return False
            done += len(chunk)
        return True

    def _has(self, place: Place, done: int, chunk: bytes) -> bool:
        base = self.bases[place[0]].data
        return base is not None and base.read_at(len(chunk), place[1] + done) == chunk

    def _add(self, step: Step) -> None:
        if step.base is not None:
            self._copied[step.base] = self._copied.get(step.base, 0) + step.length
        self._steps[-1:] = joined([*self._steps[-1:], step])

    def _numbered(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        """Number the bases in the order in which the steps first use them."""
        numbers = {
            number: place
            for place, number in enumerate(dict.fromkeys(step.base for step in steps if step.base is not None))
        }
        self.used = tuple(self.bases[number].blob.digest for number in numbers)
        return tuple(step if step.base is None else step._replace(base=numbers[step.base]) for step in steps)


def _new_ranges(steps: Iterable[Step]) -> Iterator[tuple[int, int]]:
    position = 0
    for step in steps:
        if step.base is None:
            yield position, step.length
        position += step.length


def _samples(data: BytesAt, offset: int, length: int) -> bytes:
    """Return the first, middle and last bytes of a tensor."""
    size = min(_SAMPLE_BYTES, length)
    return b"".join(data.read_at(size, offset + start) for start in (0, (length - size) // 2, length - size))


def _chunks(data: BytesAt, offset: int, length: int) -> Iterator[bytes]:
    """Yield a range in chunks. Ends early if the file has become shorter, which the digest shows."""
    end = offset + length
    while offset < end and (chunk := data.read_at(min(CHUNK_BYTES, end - offset), offset)):
        yield chunk
        offset += len(chunk)
