"""
Find out where on a disk the bytes of a file lie, to see without reading whether two files share them. Make two files
share equal bytes, or make a file that shares all bytes of another.

Linux only (FS_IOC_FIEMAP of linux/fiemap.h, FIDEDUPERANGE and FICLONE of linux/fs.h). Without an answer from the
kernel, no bytes count as shared.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

# linux/fiemap.h: struct fiemap, struct fiemap_extent and _IOWR('f', 11, struct fiemap), as on most processors.
_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
_EXTENTS_A_CALL = 256
_LAST = 0x0001
# An extent has no place to compare if it is unknown, delayed, encoded, not aligned, or stored in the metadata.
_NO_PLACE = 0x0002 | 0x0004 | 0x0080 | 0x0100 | 0x0200 | 0x0400
_ALL = 2**64 - 1
# linux/fs.h: _IOWR(0x94, 54, struct file_dedupe_range), as on most processors; the struct, followed by one
# file_dedupe_range_info.
_FIDEDUPERANGE = 0xC0189436
_DEDUPE_RANGE = struct.Struct("=QQHHIqQQiI")
_BYTES_DIFFER = 1
# linux/fs.h: _IOW(0x94, 9, int), as on most processors.
_FICLONE = 0x40049409
# What the kernel says if a disk cannot share, or if the files are on two disks (ioctl_ficlone(2)).
_CANNOT_SHARE = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes of a file from offset `logical` on lie on the disk from offset `physical` on."""

    logical: int
    physical: int
    length: int


def extents_of(fd: int) -> tuple[Extent, ...]:
    """Return the extents of an open file that have a place, in order. Empty if the disk does not tell them."""
    if sys.platform != "linux":
        return ()
    try:
        return tuple(_extents(fd))
    except OSError:
        return ()


def shared_bytes(one: tuple[Extent, ...], other: tuple[Extent, ...], size: int) -> int:
    """Return how many of the first `size` bytes two files share on the disk."""
    shared, first, second = 0, 0, 0
    while first < len(one) and second < len(other):
        a, b = one[first], other[second]
        start = max(a.logical, b.logical)
        end = min(a.logical + a.length, b.logical + b.length)
        if a.physical - a.logical == b.physical - b.logical:
            shared += max(0, min(end, size) - start)
        if a.logical + a.length == end:
            first += 1
        else:
            second += 1
    return shared


def share_extents(source: int, target: int, offset: int, length: int) -> int | None:
    """
    Ask the kernel to compare `length` bytes of two open files from `offset` on and to keep equal bytes only once.

    Both files keep their bytes, owner, mode and times. `target` does not have to be open for writing: its owner and
    root may do this, and since Linux 4.20 every user who may write to it (ioctl_fideduperange(2)). Returns how many
    bytes are shared now, which may be fewer, or None if the bytes differ. With a `length` of 0 it only asks whether
    the disk can share.

    Raises OSError: EXDEV for two disks, EOPNOTSUPP or EINVAL if the disk cannot share, EPERM, EROFS.
    """
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    import fcntl  # noqa: PLC0415 - POSIX only

    request = bytearray(_DEDUPE_RANGE.pack(offset, length, 1, 0, 0, target, offset, 0, 0, 0))
    fcntl.ioctl(source, _FIDEDUPERANGE, request)
    *_, shared, status, _ = _DEDUPE_RANGE.unpack(request)
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return None if status == _BYTES_DIFFER else int(shared)


def clone_file(source: int, target: int) -> bool:
    """
    Let an open, empty file share all bytes of another, without copying. Returns False if the disk cannot do that.

    Raises OSError: ENOSPC, EIO.
    """
    if sys.platform != "linux":
        return False
    import fcntl  # noqa: PLC0415 - POSIX only

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
        return False
    return True


def _extents(fd: int) -> Iterator[Extent]:
    import fcntl  # noqa: PLC0415 - POSIX only

    start = 0
    while True:
        buffer = bytearray(_HEAD.size + _EXTENTS_A_CALL * _EXTENT.size)
        _HEAD.pack_into(buffer, 0, start, _ALL - start, 0, 0, _EXTENTS_A_CALL, 0)
        fcntl.ioctl(fd, _FIEMAP, buffer)
        count = _HEAD.unpack_from(buffer)[3]
        flags = _LAST
        for number in range(count):
            logical, physical, length, _, _, flags, *_ = _EXTENT.unpack_from(buffer, _HEAD.size + number * _EXTENT.size)
            if not flags & _NO_PLACE and length:
                yield Extent(logical, physical, length)
            start = logical + length
        if not count or flags & _LAST:
            return
