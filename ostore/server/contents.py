"""
The bytes of one blob, as they lie in a file or in the frames of a bundle, sent to a socket that does not block.

What is sent, what is hashed and what goes through TLS comes by the same way: bytes that were verified are the bytes
that are served.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

from ostore.formats.errors import IntegrityError
from ostore.formats.zstd_frame import FrameSpan
from ostore.streams.bytes_at import FileBytes
from ostore.streams.chunks import Chunk, read_at
from ostore.streams.frames import decode_listed

# Decoded frames of at most 8 MiB that exist at once, for all connections: 48 MiB.
KEPT_FRAMES = 6
# Each has a compressed frame in memory too.
_DECODERS = 2
_PATIENCE_MILLISECONDS = 10
_BLOCK = 128 * 1024
_RAW_HEAD, _BLOCK_HEAD = 9, 3


class Stamp(NamedTuple):
    """What tells a file, and every change of it that the system tells, from before."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


# No file has it.
NO_STAMP = Stamp(0, 0, 0, 0, 0)


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp in a status."""
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Content(Protocol):
    """The bytes of one blob, opened. `stamp` tells them from those of a file that has changed since."""

    @property
    def stamp(self) -> Stamp: ...

    def send(self, to: socket.socket, start: int, end: int) -> int:
        """
        Send bytes from `start` on, not past `end`, until the socket is full. Returns how many it took.

        Raises IntegrityError if the bytes have changed since opening, OSError.
        """
        ...

    def read(self, start: int, size: int) -> Chunk:
        """Return 1 to `size` bytes from `start` on. Raises IntegrityError at the end, or if they changed, OSError."""
        ...

    def close(self) -> None: ...


class FileContent:
    """A blob that is a file, or a part of one: `start` is where it begins there. It closes `fd` if it owns it."""

    def __init__(self, fd: int, *, start: int = 0, owns: bool = True) -> None:
        self._fd, self._start, self._owns = fd, start, owns
        self.stamp = stamp_of(os.fstat(fd))

    def send(self, to: socket.socket, start: int, end: int) -> int:
        try:
            sent = os.sendfile(to.fileno(), self._fd, self._start + start, end - start) or _ended()
        except BlockingIOError:
            sent = 0
        # Afterwards: the last bytes of a changed file must not end a transfer that looks whole.
        self._refuse_changes()
        return sent

    def read(self, start: int, size: int) -> Chunk:
        data = read_at(self._fd, size, self._start + start)
        self._refuse_changes()
        return data or _ended_bytes()

    def close(self) -> None:
        if self._owns:
            os.close(self._fd)

    def _refuse_changes(self) -> None:
        if stamp_of(os.fstat(self._fd)) != self.stamp:
            raise IntegrityError("the file changed while it was read")


class FrameShelf:
    """The frames of a bundle, and the few that are decoded. One decode serves all who wait for the frame."""

    def __init__(self, file: FileBytes, spans: Sequence[FrameSpan]) -> None:
        self.file = file
        self.spans = spans
        self.offsets = list(accumulate((span.size for span in spans), initial=0))
        self.starts = list(accumulate((span.content_size for span in spans), initial=0))
        self._decoded: OrderedDict[int, memoryview | None] = OrderedDict()
        self._users: dict[int, int] = {}
        self._changed = threading.Condition()
        self._decoding = threading.Semaphore(_DECODERS)

    @contextlib.contextmanager
    def decoded(self, number: int) -> Iterator[memoryview]:
        """
        Yield a decoded frame. It counts among the few for as long as the block lasts, so that must be short.

        Raises IntegrityError, FormatError or LimitError for a damaged frame, OSError.
        """
        self._take(number)
        try:
            content = self._decoded[number]
            if content is None:
                content = self._decode(number)
            yield content
        finally:
            with self._changed:
                self._users[number] -= 1
                if not self._users[number]:
                    del self._users[number]
                self._changed.notify_all()

    def _take(self, number: int) -> None:
        """Wait until the frame is decoded, or has a place, which is None until then and is the caller's to fill."""
        with self._changed:
            while True:
                if number in self._decoded:
                    if self._decoded[number] is not None or number not in self._users:
                        break
                elif len(self._decoded) < KEPT_FRAMES or self._drop_one():
                    self._decoded[number] = None
                    break
                self._changed.wait()
            self._users[number] = self._users.get(number, 0) + 1
            self._decoded.move_to_end(number)

    def _drop_one(self) -> bool:
        """Forget the frame that nobody has used for the longest time. False if all are in use."""
        for number in self._decoded:
            if number not in self._users:
                del self._decoded[number]
                return True
        return False

    def _decode(self, number: int) -> memoryview:
        try:
            with self._decoding:
                content = decode_listed(self.file, number, self.spans[number], self.offsets[number])
        except BaseException:
            with self._changed:
                del self._decoded[number]
            raise
        with self._changed:
            self._decoded[number] = content
            self._changed.notify_all()
        return content


class FramesContent:
    """A blob inside the frames of a bundle, from byte `start` of the tar stream on."""

    def __init__(self, shelf: FrameShelf, start: int) -> None:
        self._shelf, self._start = shelf, start
        self._fd = shelf.file.fd
        self.stamp = stamp_of(os.fstat(self._fd))

    def send(self, to: socket.socket, start: int, end: int) -> int:
        position = start
        try:
            while position < end:
                size, sent = self._send_piece(to, position, end)
                position += sent
                if sent < size:
                    break
        except BlockingIOError:
            pass
        self._refuse_changes()
        return position - start

    def _send_piece(self, to: socket.socket, start: int, end: int) -> tuple[int, int]:
        """Send from one block or frame. Returns how many bytes it had, and how many the socket took."""
        number, skip = self._frame_at(start)
        if (block := self._raw_block(number, skip)) is not None:
            offset, size = block
            size = min(size, end - start)
            return size, os.sendfile(to.fileno(), self._fd, offset, size) or _ended()
        with self._shelf.decoded(number) as content:
            return _sent_patiently(to, content[skip : skip + end - start])

    def read(self, start: int, size: int) -> Chunk:
        number, skip = self._frame_at(start)
        if (block := self._raw_block(number, skip)) is not None:
            offset, most = block
            data = read_at(self._fd, min(size, most), offset) or _ended_bytes()
        else:
            with self._shelf.decoded(number) as content:
                # A copy, because the frame is to be forgotten when others need the room.
                data = bytes(content[skip : skip + size])
        self._refuse_changes()
        return data

    def close(self) -> None:
        """Do nothing: whoever opened the bundle closes it."""

    def _frame_at(self, start: int) -> tuple[int, int]:
        """Return the frame that holds a byte of the blob, and how many bytes of the frame are before it."""
        position = self._start + start
        number = bisect_right(self._shelf.starts, position) - 1
        if number >= len(self._shelf.spans):
            _ended()
        return number, position - self._shelf.starts[number]

    def _raw_block(self, number: int, skip: int) -> tuple[int, int] | None:
        """
        Return where the file has the bytes of a frame from byte `skip` on, and how many without a gap.

        None for a frame that is compressed, and for any other than `zstd_frame.raw_frame` writes.
        """
        span = self._shelf.spans[number]
        blocks = -(-span.content_size // _BLOCK)
        if span.size != _RAW_HEAD + blocks * _BLOCK_HEAD + span.content_size:
            return None
        block, inside = divmod(skip, _BLOCK)
        head = self._shelf.offsets[number] + _RAW_HEAD + block * (_BLOCK_HEAD + _BLOCK)
        size = min(_BLOCK, span.content_size - block * _BLOCK)
        expected = size << 3 | (block == blocks - 1)
        if int.from_bytes(read_at(self._fd, _BLOCK_HEAD, head), "little") != expected:
            return None
        return head + _BLOCK_HEAD + inside, size - inside

    def _refuse_changes(self) -> None:
        if stamp_of(os.fstat(self._fd)) != self.stamp:
            raise IntegrityError("the bundle changed while it was read")


def _sent_patiently(to: socket.socket, piece: memoryview) -> tuple[int, int]:
    """
    Send a piece of a decoded frame. Returns how many bytes it had, and how many the socket took.

    Once the socket is full, a client that reads gets a moment: to decode the frame again would take as long.
    """
    sent = 0
    waiting = select.poll()
    waiting.register(to, select.POLLOUT)
    # A socket that can take bytes may still refuse them. What it took before that counts: it must not be sent twice.
    with contextlib.suppress(BlockingIOError):
        sent = to.send(piece)
        while sent < len(piece) and waiting.poll(_PATIENCE_MILLISECONDS):
            sent += to.send(piece[sent:])
    return len(piece), sent


def _ended() -> int:
    raise IntegrityError("the file ended before the blob did")


def _ended_bytes() -> bytes:
    raise IntegrityError("the file ended before the blob did")
