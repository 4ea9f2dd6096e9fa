"""
Read large things from servers by ranges over many connections, in order.

Servers pace each connection, and each request waits for its first byte. So many ranges are asked for at once, of the
next things too, and yielded in order. Between the first byte that is not taken yet and the last one asked for there are
at most 64 MiB: that much memory is used, and that much is lost in a kill.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from ostore.formats.content_range import parse_content_length, parse_content_range
from ostore.formats.errors import RemoteError
from ostore.streams.chunks import Chunk
from ostore.streams.http import Patience, Response

CONNECTIONS = 32
_RANGE_BYTES = 2 * 1024 * 1024
_IN_FLIGHT_BYTES = 64 * 1024 * 1024
# For a server that has too many requests: as much in flight, in half as many.
_FEWER, _LARGER_BYTES = 16, 4 * 1024 * 1024
_OK, _PARTIAL, _TOO_MANY = 200, 206, 429
# No network brings more. A server next door sends as much over few connections, and more of them only take turns.
_ENOUGH_BYTES_PER_SECOND = 1_000_000_000
_AT_FIRST, _AT_LEAST = 4, 2
# With fewer bytes a second, a connection more only makes servers wait.
_BYTES_PER_CONNECTION = 256 * 1024


class Target(Protocol):
    """Something to read from byte `start` to byte `size`."""

    @property
    def start(self) -> int: ...
    @property
    def size(self) -> int: ...

    def opened(self, first: int, end: int, /) -> AbstractContextManager[Response]:
        """
        Ask for the bytes from `first` to before `end`; for all of them without a range.

        Entering the block raises an OstoreError unless the status is 200 or 206.
        """
        ...

    def refuse_size(self, size: int, /) -> None:
        """Raises an OstoreError if this is not the size of the target."""
        ...


def connections_for(jobs: int | None, limit_rate: int | None) -> int:
    """Return how many connections to use if a person says `jobs`, or nothing."""
    if limit_rate is not None:
        return min(jobs or CONNECTIONS, max(1, limit_rate // _BYTES_PER_CONNECTION))
    return jobs or CONNECTIONS


@dataclass(slots=True)
class _Part:
    """A range: what it is of, and what has come of it."""

    reading: _Reading
    first: int
    end: int
    data: memoryview | None = None
    error: Exception | None = None
    is_done: bool = False

    @property
    def size(self) -> int:
        return self.end - self.first


@dataclass(slots=True)
class _Reading:
    """How far a target is: what is asked for, in order, and from where on nothing is."""

    target: Target
    next: int
    parts: deque[_Part] = field(default_factory=deque)
    # The server sends all of it, whatever is asked for.
    is_sequential: bool = False
    # Nobody wants the rest.
    is_skipped: bool = False


class Ranges:
    """
    Reads targets in order. Call `close` at the end; threads that wait for a server end a little later.

    `stream` is called for one target after the other, and only one thread reads.
    """

    def __init__(self, targets: Sequence[Target], *, connections: int) -> None:
        self._readings = deque(_Reading(target, target.start) for target in targets)
        self._pending = deque(self._readings)
        self._current: _Reading | None = None
        self._connections = connections
        self._useful = min(_AT_FIRST, connections)
        self._seconds_a_byte = math.inf
        self._range_bytes = _RANGE_BYTES
        self._memory: list[bytearray] = []
        self._lock = threading.RLock()
        # Each thread that is woken takes a turn at the lock, so only those with work are woken. The lock is one that
        # can be taken twice, because a stream may be closed wherever the collector runs.
        self._ready, self._room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._asked = 0
        self._active = 0
        self._has_ranges = False
        self._is_closed = False
        self._threads: list[threading.Thread] = []
        self._open: set[Response] = set()
        self._most_threads = sum(-(-(one.target.size - one.next) // _RANGE_BYTES) for one in self._pending)

    def stream(self) -> Iterator[Chunk]:
        """
        Return the bytes of the next target. What is left of the one before is wanted no more.

        Iterating raises what the target's `opened` raises, RemoteError.
        """
        if self._current is not None:
            self._skip(self._current)
        self._current = self._readings.popleft()
        return self._stream(self._current)

    def _stream(self, reading: _Reading) -> Iterator[Chunk]:
        try:
            yield from self._parts_of(reading)
            if reading.is_sequential:
                yield from self._in_sequence(reading)
        finally:
            self._skip(reading)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._wake_all()
            left = list(self._open)
        for response in left:
            response.abort()

    def _parts_of(self, reading: _Reading) -> Iterator[Chunk]:
        self._start_threads()
        while True:
            with self._lock:
                self._ready.wait_for(lambda: self._is_over(reading) or (reading.parts and reading.parts[0].is_done))
                if self._is_closed:
                    raise RuntimeError("the ranges are closed")
                if not reading.parts or not reading.parts[0].is_done or reading.is_sequential:
                    return
                part = reading.parts.popleft()
                self._asked -= part.size
                self._room.notify()
            if part.error is not None:
                raise part.error
            if part.data is not None:
                yield part.data

    def _is_over(self, reading: _Reading) -> bool:
        return (
            self._is_closed
            or reading.is_sequential
            or reading.is_skipped
            or (reading.next >= reading.target.size and not reading.parts)
        )

    def _skip(self, reading: _Reading) -> None:
        """Want no more of a target."""
        with self._lock:
            reading.is_skipped = True
            self._asked -= sum(part.size for part in reading.parts)
            reading.parts.clear()
            self._wake_all()

    def _wake_all(self) -> None:
        self._ready.notify_all()
        self._room.notify_all()

    def _start_threads(self) -> None:
        """Start the threads that are of use and not there yet."""
        with self._lock:
            wanted = 0 if self._is_closed else min(self._useful, self._connections, self._most_threads)
            # They are not waited for at the end of the program: a server may let them wait.
            for _ in range(wanted - len(self._threads)):
                thread = threading.Thread(target=self._work, daemon=True)
                thread.start()
                self._threads.append(thread)

    def _work(self) -> None:
        while self._has_worked():
            pass

    def _has_worked(self) -> bool:
        """Fetch one part; False at the end. Afterwards this thread holds nothing of it, while it waits for the next."""
        part = self._next_part()
        if part is None:
            return False
        try:
            part.data = self._fetched(part)
        except Exception as error:  # noqa: BLE001 - it is raised where the part is wanted
            part.error = error
        with self._lock:
            part.is_done = True
            self._active -= 1
            self._ready.notify()
        return True

    def _next_part(self) -> _Part | None:
        """Wait until something may be asked for, and return it; None at the end."""
        with self._lock:
            while not self._is_closed:
                while self._pending and (
                    self._pending[0].next >= self._pending[0].target.size
                    or self._pending[0].is_skipped
                    or self._pending[0].is_sequential
                ):
                    self._pending.popleft()
                if not self._pending:
                    self._room.notify_all()
                    return None
                if part := self._planned(self._pending[0]):
                    return part
                self._room.wait()
            return None

    def _planned(self, reading: _Reading) -> _Part | None:
        end = min(reading.target.size, reading.next + self._range_bytes)
        # Whether there are ranges shows with the first one.
        is_known = self._has_ranges or self._active == 0
        if self._active >= min(self._useful, self._connections) or not is_known:
            return None
        # What lies ready for longer than needed has left the processor's cache.
        room = min(_IN_FLIGHT_BYTES, 2 * self._useful * self._range_bytes)
        if self._asked and self._asked + end - reading.next > room:
            return None
        part = _Part(reading, reading.next, end)
        reading.next = end
        reading.parts.append(part)
        self._asked += part.size
        self._active += 1
        return part

    def _buffer(self, size: int) -> memoryview:
        """Return memory for a part. What nobody holds any more is used again: clearing new memory takes its time."""
        with self._lock:
            free = next((memory for memory in self._memory if len(memory) >= size and _is_free(memory)), None)
            if free is None:
                free = bytearray(max(size, self._range_bytes))
                self._memory.append(free)
            return memoryview(free)[:size]

    def _learn(self, seconds: float, size: int) -> None:
        """Use as many connections as it takes to get enough, by the fastest part so far."""
        if size < _RANGE_BYTES // 2:
            # That was mostly the wait for the first byte.
            return
        with self._lock:
            before = self._useful
            self._seconds_a_byte = min(self._seconds_a_byte, seconds / size)
            self._useful = max(_AT_LEAST, math.ceil(self._seconds_a_byte * _ENOUGH_BYTES_PER_SECOND))
            if self._useful > before:
                self._room.notify_all()
        # Without one more, those that are there do it.
        with suppress(RuntimeError):
            self._start_threads()

    def _fetched(self, part: _Part) -> memoryview | None:
        """Return the bytes of a part, or None if the server knows no ranges."""
        target = part.reading.target
        data = self._buffer(part.size)
        got, patience, began = 0, Patience(), time.monotonic()
        while got < part.size and not part.reading.is_skipped and not self._is_closed:
            try:
                with target.opened(part.first + got, part.end) as response:
                    if not self._begins(response, part, got):
                        return None
                    with self._tracked(response):
                        came = response.read_into(data[got:])
                    got += came
                    if came:
                        patience.progressed()
                    self._refuse_early_end(response, part.size - got)
            except RemoteError as error:
                if error.status == _TOO_MANY:
                    self._slow_down()
                if not error.is_passing:
                    raise
                patience.wait(error)
        if got == part.size:
            self._learn(time.monotonic() - began, part.size)
        return data

    def _begins(self, response: Response, part: _Part, got: int) -> bool:
        """Return whether an answer begins where a part wants to go on. Raises RemoteError if it begins elsewhere."""
        target, first = part.reading.target, part.first + got
        is_whole = first == 0 and part.end == target.size
        if response.status == _OK:
            length = parse_content_length(response.headers.get("content-length", ""))
            if length is not None:
                target.refuse_size(length)
            if not is_whole:
                with self._lock:
                    part.reading.is_sequential = True
                    self._wake_all()
            return is_whole
        text = response.headers.get("content-range", "")
        span = parse_content_range(text)
        if span is None or span[:2] != (first, part.end):
            raise RemoteError(f"{response.request.told}: asked for bytes {first}-{part.end - 1}, got {text[:80]!r}")
        if span[2] is not None:
            target.refuse_size(span[2])
        with self._lock:
            if not self._has_ranges:
                self._has_ranges = True
                self._room.notify_all()
        return True

    @contextmanager
    def _tracked(self, response: Response) -> Iterator[None]:
        """Let `close` end an answer while it is read in this block."""
        with self._lock:
            self._open.add(response)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(response)

    @staticmethod
    def _refuse_early_end(response: Response, left: int) -> None:
        if left:
            raise RemoteError(f"{response.request.told}: the answer ended early", is_passing=True)

    def _slow_down(self) -> None:
        with self._lock:
            self._connections = min(self._connections, _FEWER)
            self._range_bytes = _LARGER_BYTES
            self._room.notify_all()

    def _in_sequence(self, reading: _Reading) -> Iterator[Chunk]:
        """Yield the rest of a target from a server that sends all of it whatever is asked for."""
        target, patience = reading.target, Patience()
        with self._lock:
            position = reading.parts[0].first if reading.parts else reading.next
        while position < target.size:
            try:
                with target.opened(0, target.size) as response:
                    seen = 0
                    while seen < target.size and (data := response.read(target.size - seen)):
                        seen += len(data)
                        if seen > position:
                            yield data[position - seen :]
                            position = seen
                            patience.progressed()
                    self._refuse_early_end(response, target.size - seen)
            except RemoteError as error:
                if not error.is_passing:
                    raise
                patience.wait(error)


def _is_free(memory: bytearray) -> bool:
    """Return whether nobody holds a view of a buffer. Its size cannot be changed as long as somebody does."""
    try:
        memory.append(memory.pop())
    except BufferError:
        return False
    return True
