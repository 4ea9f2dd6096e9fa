"""Progress of a long operation. It is the only thing that lower floors report upward while they work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ostore.streams.chunks import Chunk


class Progress(Protocol):
    """What library code calls to report progress. Several threads call it at once."""

    def phase(self, label: str, total_bytes: int) -> None:
        """A new phase of work begins. It has `total_bytes` bytes, or 0 if it has no length."""

    def begin(self, item: str, size: int) -> None:
        """Work on an item begins. `item` is the 12 digits of a blob or the name of a model, `size` its bytes."""

    def advance(self, item: str, size: int) -> None:
        """`size` more bytes of the item are done."""

    def end(self, item: str) -> None:
        """The item is done."""


class _Silent:
    def phase(self, label: str, total_bytes: int) -> None:
        pass

    def begin(self, item: str, size: int) -> None:
        pass

    def advance(self, item: str, size: int) -> None:
        pass

    def end(self, item: str) -> None:
        pass


SILENT: Progress = _Silent()


class StoppedError(Exception):
    """Ends a worker whose result is no longer needed."""


class _Stoppable:
    """Forwards every call to another progress. Raises StoppedError from `advance` once it is stopped."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.stopped = False

    def phase(self, label: str, total_bytes: int) -> None:
        self._progress.phase(label, total_bytes)

    def begin(self, item: str, size: int) -> None:
        self._progress.begin(item, size)

    def advance(self, item: str, size: int) -> None:
        if self.stopped:
            raise StoppedError
        self._progress.advance(item, size)

    def end(self, item: str) -> None:
        self._progress.end(item)


@contextmanager
def stoppable(progress: Progress) -> Iterator[Progress]:
    """
    Yield a progress for threads that work on large files. An exception in the block ends each thread at its next chunk.

    Without this, Ctrl-C waits until 40 GB are hashed. Open it inside the block of the thread pool.
    """
    stopping = _Stoppable(progress)
    try:
        yield stopping
    except BaseException:
        stopping.stopped = True
        raise


@contextmanager
def watching(item: str, size: int, progress: Progress) -> Iterator[Callable[[int], None]]:
    """Report work on one item. Yields a function to call with the number of bytes of each step."""
    progress.begin(item, size)
    yield lambda done: progress.advance(item, done)
    progress.end(item)


def watched(chunks: Iterator[Chunk], item: str, size: int, progress: Progress) -> Iterator[Chunk]:
    """Pass chunks through and report each to `progress`."""
    with watching(item, size, progress) as advance:
        for chunk in chunks:
            advance(len(chunk))
            yield chunk
