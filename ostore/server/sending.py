"""
Send the bytes of blobs by a few threads, clear of the event loop.

All threads wait at one epoll for any socket that takes bytes. A thread serves a socket for one turn and gives it back,
so a client that stalls costs no thread, and many that are quick share all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future

from ostore.server.contents import Content

# Enough for a slow disk to have some reads at once, and for a fair share of processors that many programs want.
_THREADS = 12
# What a socket gets before the next one has its turn.
_TURN_BYTES = 8 * 1024 * 1024
# A disk that answers no more must not keep the server from ending.
_JOIN_SECONDS = 5
# Linger for 0 seconds: a reset. What the client has got can then not be taken for the whole.
_RESET = struct.pack("ii", 1, 0)

CAN_SEND = hasattr(select, "epoll") and hasattr(os, "sendfile")


class _Transfer:
    """One range of bytes on its way to a socket. It closes the content and its own descriptor of the socket."""

    def __init__(self, to: socket.socket, content: Content, start: int, end: int) -> None:
        self.socket, self._content, self.position, self._end = to, content, start, end
        self.ended: Future[None] = Future()
        self._closing = threading.Lock()

    def advance(self) -> bool:
        """Send what the socket takes, for one turn. Returns whether all is sent. Raises OstoreError, OSError."""
        turn_end = min(self._end, self.position + _TURN_BYTES)
        self.position += self._content.send(self.socket, self.position, turn_end)
        return self.position == self._end

    def end(self, error: Exception | None = None) -> None:
        """Close what it has. After an error, the connection is reset."""
        with self._closing:
            if error:
                _reset(self.socket)
            self.socket.close()
            self._content.close()
        if error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    def abort(self) -> None:
        """Let whoever sends fail soon."""
        with self._closing, contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Sender:
    """A few threads that send. `sent_bytes` is for the figures."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.pipe()
        self._transfers: dict[int, _Transfer] = {}
        # Level triggered, so that one byte wakes all threads.
        self._epoll.register(self._wake[0], select.EPOLLHUP)
        self._threads = [threading.Thread(target=self._work, name="sending", daemon=True) for _ in range(_THREADS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Abort all transfers and end the threads."""
        for transfer in list(self._transfers.values()):
            transfer.abort()
        os.close(self._wake[1])
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        for transfer in list(self._transfers.values()):
            self._take_out(transfer)
            transfer.end(ConnectionAbortedError("the server ends"))
        os.close(self._wake[0])
        self._epoll.close()

    @property
    def count(self) -> int:
        """How many transfers are under way."""
        return len(self._transfers)

    async def send(
        self, fd: int, content: Content, start: int, end: int, *, stall: float, count: Callable[[int], None]
    ) -> None:
        """
        Send a range of bytes to the socket with this descriptor, and close the content. `count` is told how many.

        Raises IntegrityError if the bytes changed meanwhile, TimeoutError if the client took none for `stall` seconds,
        OSError. The connection then ends before all is sent.
        """
        with contextlib.ExitStack() as unless_begun:
            unless_begun.callback(content.close)
            to = unless_begun.enter_context(socket.socket(fileno=os.dup(fd)))
            transfer = _Transfer(to, content, start, end)
            self._transfers[to.fileno()] = transfer
            unless_begun.callback(self._transfers.pop, to.fileno())
            self._epoll.register(to.fileno(), select.EPOLLOUT | select.EPOLLONESHOT)
            unless_begun.pop_all()
        ended = asyncio.wrap_future(transfer.ended)
        try:
            await _until(ended, transfer, stall)
        finally:
            if not ended.done():
                transfer.abort()
                # Nobody waits for its error any more.
                ended.add_done_callback(lambda future: future.cancelled() or future.exception())
            count(transfer.position - start)

    def _work(self) -> None:
        while True:
            for fd, _ in self._epoll.poll(maxevents=1):
                if fd == self._wake[0]:
                    return
                transfer = self._transfers[fd]
                try:
                    is_done = transfer.advance()
                except Exception as error:  # noqa: BLE001 - this thread serves all others too
                    self._take_out(transfer)
                    transfer.end(error)
                    continue
                if is_done:
                    self._take_out(transfer)
                    transfer.end()
                else:
                    self._epoll.modify(fd, select.EPOLLOUT | select.EPOLLONESHOT)

    def _take_out(self, transfer: _Transfer) -> None:
        fd = transfer.socket.fileno()
        self._epoll.unregister(fd)
        del self._transfers[fd]


async def _until(ended: asyncio.Future[None], transfer: _Transfer, stall: float) -> None:
    """Wait for the end of a transfer for as long as it gets on. Raises TimeoutError, and what ended it."""
    while True:
        before = transfer.position
        done, _ = await asyncio.wait({ended}, timeout=stall)
        if done:
            return ended.result()
        if transfer.position == before:
            raise TimeoutError(f"the client took nothing for {stall:g} s")


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
