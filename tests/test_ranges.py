"""Ranges over many connections: whatever a server does, the bytes come in order or an error comes, and nobody waits."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from ostore.formats.errors import RemoteError
from ostore.streams import ranges
from ostore.streams.http import Patience, Request, Response
from tests.support import TORTURE, noise, some

RUNS = range(5_000)
# So small that a target of some bytes has many.
RANGE_BYTES = 64


class Answer:
    """A double of an answer: no real server fails on order, thousands of times, without a network."""

    def __init__(self, content: bytes, first: int, end: int, *, is_whole: bool, cut: int | None) -> None:
        self.request = Request("GET", "http://double")
        self.status = 200 if is_whole else 206
        span = {} if is_whole else {"content-range": f"bytes {first}-{end - 1}/{len(content)}"}
        self.headers = {"content-length": str(len(content) if is_whole else end - first), **span}
        self._left = memoryview(content if is_whole else content[first:end])[:cut]

    def read_into(self, buffer: memoryview) -> int:
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def read(self, size: int) -> bytes:
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data

    def abort(self) -> None:
        self._left = self._left[:0]


class Server:
    """One target, and what goes wrong with it."""

    def __init__(self, chance: random.Random, seed: int) -> None:
        self.content = noise(chance.choice([0, 1, RANGE_BYTES, RANGE_BYTES + 1, chance.randrange(5_000)]), seed)
        self.size = len(self.content)
        self.start = chance.choice([0, 0, chance.randrange(self.size + 1)])
        self.knows_ranges = chance.random() < 0.9
        self.fails_at = chance.randrange(self.size + 1) if chance.random() < 0.2 else None
        self._chance = chance

    @contextlib.contextmanager
    def opened(self, first: int, end: int) -> Iterator[Response]:
        if self.fails_at is not None and first <= self.fails_at < end:
            raise RemoteError("refused")
        if self._chance.random() < 0.05:
            raise RemoteError("too many", status=429, is_passing=True)
        cut = self._chance.randrange(end - first + 1) if end - first > 1 and self._chance.random() < 0.05 else None
        is_whole = not self.knows_ranges
        answer = Answer(self.content, first, end, is_whole=is_whole, cut=cut if self.knows_ranges else None)
        yield cast("Response", cast("Any", answer))

    def refuse_size(self, size: int) -> None:
        if size != self.size:
            raise RemoteError("another size")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ranges, and nobody waits before the next try."""
    monkeypatch.setattr(ranges, "_RANGE_BYTES", RANGE_BYTES)
    monkeypatch.setattr(ranges, "_LARGER_BYTES", 2 * RANGE_BYTES)
    monkeypatch.setattr(ranges, "_IN_FLIGHT_BYTES", 8 * RANGE_BYTES)
    monkeypatch.setattr(Patience, "wait", lambda _self, _error: None)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("seed", some(RUNS, len(RUNS) if TORTURE else 300, "ranges"))
def test_bytes_come_in_order_or_an_error_comes(seed: int) -> None:
    chance = random.Random(seed)
    servers = [Server(chance, seed + number) for number in range(chance.randrange(1, 5))]
    reader = ranges.Ranges(servers, connections=chance.choice([1, 2, 16]))
    for server in servers:
        stream, got = reader.stream(), b""
        wanted = chance.choice([len(server.content), chance.randrange(len(server.content) + 1)])
        try:
            for chunk in stream:
                got += bytes(chunk)
                if len(got) >= wanted and chance.random() < 0.2:
                    # Nobody wants the rest.
                    break
            else:
                assert got == server.content[server.start :]
        except RemoteError:
            assert server.fails_at is not None
        assert server.content[server.start :].startswith(got)
    reader.close()


@pytest.mark.usefixtures("hasty")
def test_a_thread_that_cannot_be_started_leaves_the_work_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    class Plain(Server):
        def __init__(self) -> None:
            super().__init__(random.Random(1), 1)
            self.content, self.start, self.knows_ranges, self.fails_at = noise(5_000), 0, True, None
            self.size = len(self.content)

    reader = ranges.Ranges([Plain()], connections=2)
    # The first is started by the reader, the second as soon as it would be of use.
    monkeypatch.setattr(ranges, "_AT_FIRST", 1)
    reader._useful = 1
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert b"".join(map(bytes, reader.stream())) == noise(5_000)
