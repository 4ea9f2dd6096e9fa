"""
Threads that hash and compress. Ctrl-C waits until they have taken a task.

Python raises KeyboardInterrupt between any two steps of the main thread. In the middle of `submit` that can leave a
lock of the executor taken for ever, and then its threads, and whoever waits for them, never end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
# What ends a command with an exception. Windows cannot hold signals back.
_SIGNALS = frozenset(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Pool(ThreadPoolExecutor):
    """A ThreadPoolExecutor that takes a task whole before a signal arrives. Its threads take no signals."""

    def submit(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        with _signals_held_back():
            return super().submit(function, *args, **kwargs)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # pragma: no cover - Windows
        yield
        return
    before: Any = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
