"""Bytes in memory, with the interface of `streams.bytes_at`. They record their use, and fail where a test wants it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ostore.streams.chunks import Chunk


@dataclass
class StayingBytes:
    """Bytes that stay, and a note of every call: how many were asked for, and from where."""

    data: bytes
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, size: int, offset: int) -> bytes:
        self.asked.append((size, offset))
        return self.data[offset : offset + size]

    def refuse_changes(self) -> None:
        pass


class PassingBytes:
    """Bytes that pass, at most `step` a call; then `failure` is raised, if there is one."""

    def __init__(self, data: bytes, step: int, failure: Exception | None = None) -> None:
        self._data = memoryview(data)
        self._step = step
        self._failure = failure

    def read(self, size: int) -> bytes:
        if not len(self._data) and self._failure:
            raise self._failure
        length = min(size, self._step)
        piece, self._data = self._data[:length], self._data[length:]
        return bytes(piece)


@dataclass
class Gathered:
    """An output that keeps each call's buffers, and how often it was told to sync."""

    calls: list[list[Chunk]] = field(default_factory=list)
    syncs: int = 0

    def write(self, buffers: Sequence[Chunk]) -> int:
        self.calls.append(list(buffers))
        return sum(map(len, buffers))

    def sync(self) -> None:
        self.syncs += 1

    @property
    def data(self) -> bytes:
        return b"".join(buffer for call in self.calls for buffer in call)
