"""Read what follows the index of a bundle. Each member must come where the index lists it, with the listed size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import NoReturn

from ostore.formats.bundle_index import (
    INDEX_PATH,
    SIGNATURE_PATH,
    BundleIndex,
    blob_path,
    manifest_members,
    recipe_path,
)
from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError, InvalidBundleError, LimitError, OstoreError, UnsafeError
from ostore.formats.manifest import Descriptor
from ostore.formats.selection import SelectedModel, Wanted
from ostore.formats.tar_header import TarHeader, member_header, member_length
from ostore.streams.chunks import Chunk
from ostore.streams.tar import ForwardStream, TarReader
from ostore.streams.verified import verified

# An armoured signature is under 2 kB.
MAX_SIGNATURE_BYTES = 64 * 1024


class Walk:
    """One forward pass over what follows the index: our own files, blobs, manifests, the end."""

    def __init__(self, index: BundleIndex, stream: ForwardStream, *, can_skip: bool = False) -> None:
        """`stream` stands right after the index. With `can_skip`, members that are not wanted are not read."""
        self._index = index
        self._stream = stream
        self._can_skip = can_skip
        self._tar = TarReader(stream)
        self._blobs = index.selection.blobs
        self._offsets: list[int] = []
        self._next = 0
        self._announced = 0
        self._seen: set[str] = set()
        self._broken: OstoreError | None = None
        makers = index.selection.makers
        # Of each blob, the member that has it or that makes it, and its size.
        self._members = [
            (recipe_path(made), made.stored.size)
            if (made := makers.get(blob.digest))
            else (blob_path(blob.digest), blob.size)
            for blob in self._blobs
        ]
        self._names = {path for path, _ in self._members}
        self._manifests = manifest_members(index.selection)
        self._names |= set(self._manifests.values())
        self._names |= {file.path for file in index.files}

    def read_blobs(self, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """
        Yield the wanted blobs that lie ahead, unverified and in the order of the archive.

        A walk that cannot skip yields each from its start. Of a blob that a recipe makes, the chunks are those of the
        recipe as it is stored, from its start.
        """
        self._begin()
        whole = self._index.selection.makers.keys() if self._can_skip else None
        starts = {one.blob.digest: 0 if whole is None or one.blob.digest in whole else one.start for one in wanted}
        for number in range(self._next, len(self._blobs)):
            if (start := starts.get(self._blobs[number].digest)) is not None:
                self._pass_over(number)
                self._announce(number, starts)
                yield Wanted(self._blobs[number], start), self._chunks(number, start)
                self._refuse_to_go_on()

    def read_manifests(self) -> Iterator[tuple[SelectedModel, bytes]]:
        """Yield every manifest, unverified, then check that nothing follows."""
        self._begin()
        self._pass_over(len(self._blobs))
        for model in self._index.selection.models:
            self._expect(self._manifests[model.name], model.manifest_size)
            yield model, self._tar.read(model.manifest_size)
        extra = self._tar.next_member()
        if extra is not None:
            self._refuse(extra)

    def ranges(self) -> dict[Digest, tuple[int, int]]:
        """Return where the member of each blob has its bytes in the tar stream, and how many there are."""
        self._begin()
        return {
            blob.digest: (offset + len(member_header(path, size)), size)
            for blob, offset, (path, size) in zip(self._blobs, self._offsets, self._members, strict=False)
        }

    def _begin(self) -> None:
        """Verify the members below `ostore/` that the index lists, once. Their contents are not used here."""
        self._refuse_to_go_on()
        if self._offsets:
            return
        files = list(self._index.files)
        header = self._tar.next_member() if files else None
        if header is not None and header.name == SIGNATURE_PATH:
            if header.size > MAX_SIGNATURE_BYTES:
                raise LimitError(f"signatures: expected at most {MAX_SIGNATURE_BYTES} bytes, got {header.size}")
            # Read, not skipped, because the padding must be checked as well.
            self._tar.read(header.size)
            header = self._tar.next_member()
        for number, file in enumerate(files):
            self._expect(file.path, file.size, self._tar.next_member() if number else header)
            for _ in verified(self._tar.data(file.size), Descriptor(file.digest, file.size)):
                pass
        lengths = (member_length(*member) for member in self._members)
        self._offsets = list(accumulate(lengths, initial=self._stream.position))

    def _chunks(self, number: int, start: int) -> Iterator[Chunk]:
        path, size = self._members[number]
        self._go_to(self._offsets[number])
        self._next = number + 1
        try:
            self._expect(path, size)
        except OstoreError as error:
            self._broken = error
            raise
        yield from self._tar.data(size, start)

    def _refuse_to_go_on(self) -> None:
        """Raise again the error of an earlier unexpected member: what follows it does not match the index."""
        if self._broken:
            raise self._broken

    def _pass_over(self, number: int) -> None:
        """Go to the blob with that number, or past the last blob. In a pipe, check every header on the way."""
        if not self._can_skip:
            self._go_to(self._offsets[self._next])
            for path, size in self._members[self._next : number]:
                self._expect(path, size)
                self._tar.skip(size)
        self._seen.update(path for path, _ in self._members[self._next : number])
        self._next = number
        self._go_to(self._offsets[number])

    def _go_to(self, offset: int) -> None:
        if self._stream.position > offset:
            raise RuntimeError("the stream of a blob was used after the next one was asked for")
        self._stream.skip(offset - self._stream.position)

    def _announce(self, number: int, digests: Collection[Digest]) -> None:
        """Let the stream decode ahead to the end of the run of wanted blobs that starts at `number`."""
        if self._offsets[number] >= self._announced:
            while number < len(self._blobs) and self._blobs[number].digest in digests:
                number += 1
            self._announced = self._offsets[number]
            self._stream.will_read(self._announced)

    def _expect(self, name: str, size: int, header: TarHeader | None = None) -> None:
        """Refuse the next member (or `header`, if it was read already) unless it has this name and size."""
        header = header or self._tar.next_member()
        if header is None:
            raise IntegrityError(f"member {name!r}: listed in the index, but not in the archive")
        if header.name != name:
            self._refuse(header, awaited=name)
        if header.size != size:
            raise IntegrityError(f"member {name!r}: expected {size} bytes, got {header.size}")
        self._seen.add(name)

    def _refuse(self, header: TarHeader, awaited: str | None = None) -> NoReturn:
        """Raise the error that says what is wrong with an unexpected member."""
        following: TarHeader | None = header
        # The loop ends soon, because no listed member may come twice.
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
