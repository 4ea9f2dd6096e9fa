"""
The packets of PAR2 files, as far as they must be looked at before a program reads them: their bounds and the names in
them. Format: Parity Volume Set Specification 2.0. Numbers are little endian.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import NamedTuple

from ostore.formats.errors import UnsafeError

MAGIC = b"PAR2\0PKT"
HEADER_BYTES = 64
# The digest covers everything from here on.
HASHED_FROM = 32
DESCRIPTION = b"PAR 2.0\0FileDesc"
SUMS = b"PAR 2.0\0IFSC\0\0\0\0"
MAIN = b"PAR 2.0\0Main\0\0\0\0"
_KNOWN = frozenset({DESCRIPTION, SUMS, MAIN, b"PAR 2.0\0RecvSlic", b"PAR 2.0\0Creator\0"})
# In a description, the length and the name come after three digests.
_LENGTH_AT, _NAME_AT = HEADER_BYTES + 48, HEADER_BYTES + 56
# A block of a set of 2 TB in 2,000 blocks. A description is a name, which no system has longer.
_MAX_PACKET = 1024 * 1024 * 1024
_MAX_DESCRIPTION = 64 * 1024
_WINDOW = 1024 * 1024
# Bytes that look like packets and are none must not be hashed for ever. A file of 2,000 blocks has 20,000 packets.
_MAX_HASHED = 4
_MAX_CANDIDATES = 1_000_000

ReadAt = Callable[[int, int], bytes]


class Packet(NamedTuple):
    """
    Where a whole packet is, and the identifier of the set of files that it is of. Of a description, also the name and
    the length of the file that it describes.
    """

    offset: int
    size: int
    of_set: bytes
    name: str | None = None
    length: int = 0


def whole_packets(read_at: ReadAt, size: int, *, names: Collection[str], subject: str) -> Iterator[Packet]:
    """
    Yield the packets of a PAR2 file of `size` bytes that are whole, and of a kind that par2 needs. Others are skipped.

    `read_at` takes a size and an offset. Raises UnsafeError if a packet describes a file that is not in `names`, or has
    another one in it.
    """
    end, left = 0, _MAX_HASHED * size + _WINDOW
    for offset in islice(_candidates(read_at, size), _MAX_CANDIDATES):
        if offset < end:
            # A program that finds fault with the outer one might look for more inside. By chance it is never there.
            raise UnsafeError(f"{subject}: a packet inside of a packet")
        if offset + HEADER_BYTES > size:
            break
        header = read_at(HEADER_BYTES, offset)
        length = int.from_bytes(header[8:16], "little")
        is_bounded = HEADER_BYTES <= length <= min(_MAX_PACKET, size - offset, left) and length % 4 == 0
        if not is_bounded or header[48:64] not in _KNOWN:
            continue
        left -= length
        if _digest(read_at, offset, length) != header[16:32]:
            continue
        end = offset + length
        if header[48:64] == DESCRIPTION:
            yield _described(read_at(min(length, _MAX_DESCRIPTION), offset), offset, length, names, subject)
        else:
            yield Packet(offset, length, header[32:48])


def _described(packet: bytes, offset: int, size: int, names: Collection[str], subject: str) -> Packet:
    name = packet[_NAME_AT:].rstrip(b"\0").decode("utf-8", "surrogateescape")
    if name not in names:
        raise UnsafeError(f"{subject}: expected parity of the volumes, got that of a file {name[:100]!r}")
    return Packet(offset, size, packet[32:48], name, int.from_bytes(packet[_LENGTH_AT:_NAME_AT], "little"))


def _candidates(read_at: ReadAt, size: int) -> Iterator[int]:
    """Yield where packets may begin."""
    start = 0
    while start < size and (window := read_at(min(_WINDOW, size - start), start)):
        found = window.find(MAGIC)
        while found >= 0:
            yield start + found
            found = window.find(MAGIC, found + 1)
        # One may lie across the end of the window.
        start += max(1, len(window) - len(MAGIC) + 1)


def _digest(read_at: ReadAt, offset: int, size: int) -> bytes:
    hasher = hashlib.md5(usedforsecurity=False)
    at, end = offset + HASHED_FROM, offset + size
    while at < end and (piece := read_at(min(_WINDOW, end - at), at)):
        hasher.update(piece)
        at += len(piece)
    return hasher.digest()
