"""Progress on standard error: bars on a terminal, elsewhere a plain line every ten seconds, or nothing."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from ostore.cli.text import human_bytes, say
from ostore.streams.progress import SILENT, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

Mode = Literal["auto", "plain", "none"]
_LINE_SECONDS = 10.0
# A bar for a smaller item would only flicker.
_BAR_BYTES = 16_000_000


@contextlib.contextmanager
def shown(mode: Mode, *, quiet: bool, color: str) -> Iterator[Progress]:
    """Show progress while a command runs."""
    if quiet or mode == "none":
        yield SILENT
    elif mode == "plain" or not sys.stderr.isatty():
        yield PlainProgress()
    else:
        with _bars(color) as bars:
            yield BarProgress(bars)


@contextlib.contextmanager
def paused(progress: Progress) -> Iterator[None]:
    """Hide the bars while a command asks a question."""
    bars = progress.bars if isinstance(progress, BarProgress) else None
    if bars:
        bars.stop()
    yield
    if bars:
        bars.start()


class PlainProgress:
    """A line at the start of each phase, then one every ten seconds."""

    def __init__(self) -> None:
        self._label = ""
        self._total = 0
        self._done = 0
        self._next = 0.0
        self._lock = threading.Lock()

    def phase(self, label: str, total_bytes: int) -> None:
        with self._lock:
            self._label, self._total, self._done = label, total_bytes, 0
            self._next = time.monotonic() + _LINE_SECONDS
        _tell(f"{label}: {human_bytes(total_bytes)}" if total_bytes else label)

    def begin(self, item: str, size: int) -> None:
        pass

    def advance(self, item: str, size: int) -> None:  # noqa: ARG002 - lines show the total only
        with self._lock:
            self._done += size
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _LINE_SECONDS
            percent = f" ({100 * self._done // self._total} %)" if self._total else ""
            line = f"{self._label}: {human_bytes(self._done)} of {human_bytes(self._total)}{percent}"
        _tell(line)

    def end(self, item: str) -> None:
        pass


def _tell(line: str) -> None:
    # A closed pipe or a log on a full disk must not stop the work.
    with contextlib.suppress(OSError):
        say(line, sys.stderr)


class BarProgress:
    """A bar for the total, and one for each large blob in progress."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self._whole: TaskID | None = None
        self._items: dict[str, TaskID] = {}

    def phase(self, label: str, total_bytes: int) -> None:
        if self._whole is not None:
            self.bars.remove_task(self._whole)
        self._whole = self.bars.add_task(label, total=total_bytes or None)

    def begin(self, item: str, size: int) -> None:
        if size >= _BAR_BYTES:
            self._items[item] = self.bars.add_task(f"  {item}", total=size)

    def advance(self, item: str, size: int) -> None:
        if self._whole is not None:
            self.bars.advance(self._whole, size)
        if item in self._items:
            self.bars.advance(self._items[item], size)

    def end(self, item: str) -> None:
        if item in self._items:
            self.bars.remove_task(self._items.pop(item))


def _bars(color: str) -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True, no_color={"always": False, "never": True}.get(color))
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return RichProgress(*columns, console=console, transient=True)
