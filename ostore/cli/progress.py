"""Progress on standard error: bars on a terminal, elsewhere a plain line every ten seconds, or JSON, or nothing."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, TypeVar

from ostore.cli.colours import is_coloured, is_dumb
from ostore.cli.text import human_bytes, tell
from ostore.streams.progress import SILENT, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

T = TypeVar("T")
Mode = Literal["auto", "plain", "json", "none"]
_LINE_SECONDS = 10.0
_JSON_SECONDS = 1.0
# With fewer columns than this, the rate and the time left would leave no room for the bar.
_WIDE_COLUMNS = 72
# A bar for a smaller item would only flicker.
_BAR_BYTES = 16_000_000


@contextlib.contextmanager
def shown(mode: Mode, *, quiet: bool, as_json: bool = False) -> Iterator[Progress]:
    """
    Show progress while a command runs.

    A command whose report is JSON shows progress only if somebody asks for it.
    """
    if quiet or mode == "none" or (as_json and mode == "auto"):
        yield SILENT
    elif mode == "json":
        counting = JsonProgress()
        yield counting
        counting.finish()
    elif mode == "plain" or not sys.stderr.isatty() or is_dumb():
        yield PlainProgress()
    else:
        with _bars() as bars:
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


def summed_up(progress: Progress, line: Callable[[T], str]) -> Callable[[T], None] | None:
    """Return what prints a line before the progress, or None where no person watches it at a terminal."""
    if not (isinstance(progress, (BarProgress, PlainProgress)) and sys.stderr.isatty()):
        return None

    def print_line(report: T) -> None:
        with paused(progress):
            tell(line(report))

    return print_line


class _Lines(ABC):
    """A line at the start of each phase, then one every so many seconds. What the lines say is up to a subclass."""

    seconds: float

    def __init__(self) -> None:
        self._label = ""
        self._total = 0
        self._done = 0
        self._next = 0.0
        self._lock = threading.Lock()

    def phase(self, label: str, total_bytes: int) -> None:
        with self._lock:
            self._label, self._total, self._done = label, total_bytes, 0
            self._next = time.monotonic() + self.seconds
            line = self._begun()
        tell(line)

    def begin(self, item: str, size: int) -> None:  # noqa: B027 - lines show no items
        pass

    def advance(self, item: str, size: int) -> None:  # noqa: ARG002 - lines show the total only
        with self._lock:
            self._done += size
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + self.seconds
            line = self._advanced()
        tell(line)

    def end(self, item: str) -> None:  # noqa: B027 - the same
        pass

    @abstractmethod
    def _begun(self) -> str: ...

    @abstractmethod
    def _advanced(self) -> str: ...


class PlainProgress(_Lines):
    """Lines for people."""

    seconds = _LINE_SECONDS

    def _begun(self) -> str:
        return f"{self._label}: {human_bytes(self._total)}" if self._total else self._label

    def _advanced(self) -> str:
        percent = f" ({100 * self._done // self._total} %)" if self._total else ""
        return f"{self._label}: {human_bytes(self._done)} of {human_bytes(self._total)}{percent}"


class JsonProgress(_Lines):
    """Lines for programs, each a JSON object. The last line of a phase says how far it came."""

    seconds = _JSON_SECONDS

    def phase(self, label: str, total_bytes: int) -> None:
        self.finish()
        super().phase(label, total_bytes)

    def finish(self) -> None:
        """End the phase. Call this after the last one."""
        if self._label and self._total:
            tell(self._advanced())

    def _begun(self) -> str:
        return self._advanced()

    def _advanced(self) -> str:
        document = {
            "schema": "ostore.progress/1",
            "event": "progress",
            "phase": self._label,
            "done": self._done,
            "total": self._total or None,
        }
        return json.dumps(document, ensure_ascii=True)


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


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True, no_color=not is_coloured(sys.stderr))
    what = TextColumn("{task.description}", markup=False)
    if console.width < _WIDE_COLUMNS:
        narrow = (what, BarColumn(bar_width=None), TaskProgressColumn())
        return RichProgress(*narrow, console=console, transient=True, expand=True)
    wide = (what, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return RichProgress(*wide, console=console, transient=True)
