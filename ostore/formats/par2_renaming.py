"""
Give the files that PAR2 parity describes other names.

par2 wants all files below one folder, and takes no symbolic link to a file. So volumes on several disks are given to it
through links to their folders, and it knows them by names such as `alias/NAME.001`. Afterwards these are put right.

What recovers a block depends on the order of the files. That is the order of their identities, and an identity is the
digest of the first 16 KiB, the length and the name. So an alias is chosen with which the order stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from ostore.formats.par2_packets import DESCRIPTION, HEADER_BYTES, MAGIC, MAIN, SUMS, Packet

# As much of a file is in its identity.
BEGINNING_BYTES = 16 * 1024
_ID_BYTES = 16
# In the main packet, the identities come after the size of a block and the number of files.
_IDS_AT = 12
# A description has the identity, the digest of the file, that of its beginning, its length and its name.
_BEGINNING_AT, _LENGTH_AT, _NAME_AT = 32, 48, 56
_PIECE = 8 * 1024 * 1024

ReadAt = Callable[[int, int], bytes]


class DescribedFile(NamedTuple):
    """A file as its identity has it: the digest of its beginning, its length, and its name."""

    beginning: bytes
    length: bytes
    name: bytes

    @classmethod
    def of(cls, name: str, beginning: bytes, length: int) -> DescribedFile:
        """`beginning` is the first 16 KiB of the file, `length` its bytes."""
        digest = hashlib.md5(beginning, usedforsecurity=False).digest()
        return cls(digest, length.to_bytes(8, "little"), name.encode("utf-8", "surrogateescape"))

    @property
    def identity(self) -> bytes:
        return hashlib.md5(b"".join(self), usedforsecurity=False).digest()

    def below(self, alias: str) -> DescribedFile:
        """Return the same file in a folder."""
        return self._replace(name=f"{alias}/".encode() + self.name)


def aliases(files: Sequence[DescribedFile]) -> list[str]:
    """Return for each file a folder name of its own: below these, the files have the order that they have without."""
    ranks = {file.identity: rank for rank, file in enumerate(sorted(files, key=lambda file: _number(file.identity)))}
    return [_alias(number, file, ranks[file.identity], len(files)) for number, file in enumerate(files)]


class Renaming:
    """
    What becomes of the packets of a set. `main` is the body of its main packet, `descriptions` are those of its files.
    """

    def __init__(self, main: bytes, descriptions: Iterable[bytes]) -> None:
        """Raises RuntimeError if the files had another order without the folder before their names."""
        self._bodies: dict[bytes, bytes] = {}
        for body in descriptions:
            name = body[_NAME_AT:].rstrip(b"\0").rpartition(b"/")[2]
            file = DescribedFile(body[_BEGINNING_AT:_LENGTH_AT], body[_LENGTH_AT:_NAME_AT], name)
            self._bodies[body[:_ID_BYTES]] = file.identity + body[_ID_BYTES:_NAME_AT] + name + bytes(-len(name) % 4)
        old = [main[at : at + _ID_BYTES] for at in range(_IDS_AT, len(main), _ID_BYTES)]
        new = [self._bodies[identity][:_ID_BYTES] for identity in old]
        if sorted(new, key=_number) != new:
            raise RuntimeError("PAR2: the files would have another order under their own names")
        self._main = main[:_IDS_AT] + b"".join(new)
        self._set = hashlib.md5(self._main, usedforsecurity=False).digest()

    def rewritten(self, read_at: ReadAt, packets: Iterable[Packet]) -> Iterator[bytes]:
        """Yield the bytes of a PAR2 file of the set with the new names. `packets` are those of the file, in order."""
        for packet in packets:
            kind = read_at(HEADER_BYTES, packet.offset)[-16:]
            if kind in {MAIN, DESCRIPTION, SUMS}:
                body = self._renamed(kind, read_at(packet.size - HEADER_BYTES, packet.offset + HEADER_BYTES))
                yield self._header(kind, [body])
                yield body
            else:
                yield self._header(kind, _body(read_at, packet))
                yield from _body(read_at, packet)

    def _renamed(self, kind: bytes, body: bytes) -> bytes:
        if kind == MAIN:
            return self._main
        new = self._bodies[body[:_ID_BYTES]]
        return new if kind == DESCRIPTION else new[:_ID_BYTES] + body[_ID_BYTES:]

    def _header(self, kind: bytes, body: Iterable[bytes]) -> bytes:
        hasher, size = hashlib.md5(self._set + kind, usedforsecurity=False), HEADER_BYTES
        for piece in body:
            hasher.update(piece)
            size += len(piece)
        return MAGIC + size.to_bytes(8, "little") + hasher.digest() + self._set + kind


def _alias(number: int, file: DescribedFile, rank: int, files: int) -> str:
    """Return the first alias with which an identity is in the range of its rank. It takes some `files` attempts."""
    attempts = (f"{number}.{attempt}" for attempt in count())
    return next(alias for alias in attempts if _number(file.below(alias).identity) * files >> 8 * _ID_BYTES == rank)


def _number(identity: bytes) -> int:
    """Return the number that identities are ordered by."""
    return int.from_bytes(identity, "little")


def _body(read_at: ReadAt, packet: Packet) -> Iterator[bytes]:
    at, end = packet.offset + HEADER_BYTES, packet.offset + packet.size
    while at < end and (piece := read_at(min(_PIECE, end - at), at)):
        yield piece
        at += len(piece)
