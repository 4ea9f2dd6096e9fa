"""Read the members of a bundle's tar stream in order, and refuse all that a bundle must not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ostore.formats.errors import InvalidBundleError, LimitError, UnsafeError
from ostore.formats.tar_header import (
    BLOCK,
    END_OF_ARCHIVE,
    LONG_NAME,
    MAX_LONG_NAME_BYTES,
    REGULAR,
    TarHeader,
    padding,
    parse_header,
    parse_long_name,
)
from ostore.streams.chunks import Chunk

# ostore refuses every extended header. It reads at most this much of one to see what comes next.
_MAX_EXTENDED_BYTES = 1024 * 1024


class ForwardStream(Protocol):
    """The tar stream of a bundle. `position` is the offset of the next byte."""

    position: int

    def take(self, size: int) -> Iterator[Chunk]: ...
    def skip(self, size: int) -> None: ...
    def will_read(self, end: int) -> None: ...
    def finish(self) -> None: ...


class TarReader:
    """Reads members in order. The caller reads or skips the data of each before it asks for the next."""

    def __init__(self, stream: ForwardStream) -> None:
        self._stream = stream

    def next_member(self) -> TarHeader | None:
        """
        Return the header of the next member with its whole name, or None at the end (two zero blocks).

        Raises UnsafeError for a member that is not a regular file. Raises FormatError, IntegrityError or LimitError.
        """
        block = self._read(BLOCK)
        if not any(block):
            self._end_archive()
            return None
        header = parse_header(block)
        if header.is_extended:
            self._refuse_extended(header)
        if header.type_flag == LONG_NAME:
            return self._long_named(header)
        return self._regular(header)

    def data(self, size: int, start: int = 0) -> Iterator[Chunk]:
        """
        Yield the `size` bytes of a member, or those from `start` on. After the last, the stream stands at the next
        header.
        """
        if start:
            self._stream.skip(start)
        yield from self._stream.take(size - start)
        if any(self._read(padding(size))):
            raise InvalidBundleError("tar: bytes in the padding of a member")

    def skip(self, size: int) -> None:
        self._stream.skip(size + padding(size))

    def read(self, size: int) -> bytes:
        """Return all bytes of a small member."""
        return b"".join(self.data(size))

    def _read(self, size: int) -> bytes:
        return b"".join(self._stream.take(size))

    def _end_archive(self) -> None:
        if any(self._read(len(END_OF_ARCHIVE) - BLOCK)):
            raise InvalidBundleError("tar: one zero block, expected two")
        self._stream.finish()

    def _long_named(self, entry: TarHeader) -> TarHeader:
        if entry.size > MAX_LONG_NAME_BYTES:
            raise LimitError(f"long name: expected at most {MAX_LONG_NAME_BYTES} bytes, got {entry.size}")
        name = parse_long_name(self.read(entry.size))
        header = self._regular(parse_header(self._read(BLOCK)))
        if not name.startswith(header.name) or len(name) == len(header.name):
            raise UnsafeError(f"member {header.name!r}: another name than its long name {name!r}")
        return TarHeader(name, header.size, header.type_flag)

    def _regular(self, header: TarHeader) -> TarHeader:
        if header.type_flag != REGULAR:
            raise UnsafeError(f"member {header.name!r}: a {header.kind} has no place in a bundle")
        return header

    def _refuse_extended(self, header: TarHeader) -> None:
        if header.size > _MAX_EXTENDED_BYTES:
            raise LimitError(f"tar: an extended header of {header.size} bytes")
        self.skip(header.size)
        follower = self._read(BLOCK)
        if any(follower) and parse_header(follower).is_extended:
            raise LimitError("tar: extended headers in a chain")
        raise UnsafeError(f"member {header.name!r}: an extended header has no place in a bundle")
