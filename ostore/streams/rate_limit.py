"""A limit for the rate of all connections of a command together."""

from __future__ import annotations

import threading
import time

# What may pass at once after a pause.
_BURST_SECONDS = 0.25


class RateLimit:
    """
    Lets at most so many bytes a second pass, over all threads that ask. `None` lets all pass.

    It makes a thread wait after its bytes have come: the system's buffers fill, and the peer sends more slowly.
    """

    def __init__(self, bytes_per_second: int | None) -> None:
        self.bytes_per_second = bytes_per_second
        self._free_at = time.monotonic()
        self._lock = threading.Lock()

    def passed(self, size: int) -> None:
        """Account for bytes that were sent or received, and wait until the next ones may be."""
        if self.bytes_per_second is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - _BURST_SECONDS) + size / self.bytes_per_second
            seconds = self._free_at - now
        if seconds > 0:
            time.sleep(seconds)
