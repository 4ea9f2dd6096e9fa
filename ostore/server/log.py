"""Write the lines of a log clear of the event loop: whoever reads them may pause, and the server must not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

# Some megabytes, if nobody reads them.
_MOST_LINES = 4096
# A reader that pauses must not keep the server from ending.
_JOIN_SECONDS = 1
_TOGETHER_SECONDS = 0.02


class Log:
    """
    A thread that gives lines to `write`, in order, while the block lasts. At its end, those that wait get a moment.

    When too many wait, more are dropped; where they would have been, a line says how many.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._waiting: list[str] = []
        self._dropped = 0
        self._news = threading.Condition()
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._news:
            self._is_over = True
            self._news.notify()
        self._thread.join(_JOIN_SECONDS)

    def tell(self, line: str) -> None:
        """Take a line, and return at once."""
        with self._news:
            if len(self._waiting) < _MOST_LINES:
                self._waiting.append(line)
                if len(self._waiting) == 1:
                    self._news.notify()
            else:
                self._dropped += 1

    def _work(self) -> None:
        while lines := self._taken():
            for line in lines:
                # A line that cannot be written must not be the last one.
                with contextlib.suppress(Exception):
                    self._write(line)

    def _taken(self) -> list[str]:
        """Wait for lines, and take all of them. None come after the end."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._is_over)
            # Each time that a thread is woken takes from the requests, so lines are written together.
            self._news.wait_for(lambda: self._is_over, _TOGETHER_SECONDS)
            lines, self._waiting = self._waiting, []
            if self._dropped:
                lines.append(f"the log was not read: {self._dropped} lines are missing here")
                self._dropped = 0
            return lines
