"""
Threads that hash, compress and send. Ctrl-C waits until they have taken a task.

Python raises KeyboardInterrupt between any two steps of the main thread. In the middle of `submit` that can leave a
lock of the executor taken for ever, and then its threads, and whoever waits for them, never end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
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


class WaitingPool:
    """
    So many threads at most, which wait for servers. Call `close` at the end.

    Nobody waits for them then: what is under way ends by itself, or with the program. A ThreadPoolExecutor cannot be
    left like that, because Python waits for its threads at the end, whatever they wait for.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._threads: list[threading.Thread] = []
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def submit(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Let a thread call a function. The future has what it returns or raises."""
        future: Future[_T] = Future()

        def task() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is wanted
                future.set_exception(error)

        with _signals_held_back():
            self._tasks.put(task)
            if len(self._threads) < self._size:
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()
        return future

    def close(self) -> None:
        """Drop what is not begun, and let the threads end. Nothing is waited for."""
        with suppress(Empty):
            while True:
                self._tasks.get_nowait()
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        while task := self._tasks.get():
            task()
            # It holds what it has sent.
            del task


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
