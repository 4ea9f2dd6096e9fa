"""How far a long operation is: the one thing that travels upward through the floors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ostore.streams.chunks import Chunk


class Progress(Protocol):
    """Told by library code what is going on; called from several threads."""

    def phase(self, label: str, total_bytes: int) -> None:
        """A new stretch of work begins, of so many bytes; 0 if it has no length."""

    def begin(self, item: str, size: int) -> None:
        """Work on one item starts: a blob's 12 digits or a model's name, and its size in bytes."""

    def advance(self, item: str, size: int) -> None:
        """So many more bytes of the item are done."""

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
    """Ends a worker whose result nobody waits for any more."""


class _Stoppable:
    """Passes everything on, until it is told to stop."""

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
    A progress for threads that work on large files: left by an exception, it ends each of them at its next chunk.

    Without it Ctrl-C would wait until 40 GB are hashed. Open it inside the pool's block.
    """
    stopping = _Stoppable(progress)
    try:
        yield stopping
    except BaseException:
        stopping.stopped = True
        raise


@contextmanager
def watching(item: str, size: int, progress: Progress) -> Iterator[Callable[[int], None]]:
    """Tell `progress` of work on one item; what is yielded takes the bytes of each step of it."""
    progress.begin(item, size)
    yield lambda done: progress.advance(item, done)
    progress.end(item)


def watched(chunks: Iterator[Chunk], item: str, size: int, progress: Progress) -> Iterator[Chunk]:
    """Pass chunks through and tell `progress` of each."""
    with watching(item, size, progress) as advance:
        for chunk in chunks:
            advance(len(chunk))
            yield chunk
