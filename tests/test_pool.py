"""A signal while threads take a task does not keep them, or whoever waits for them, from ending."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from ostore.streams.pool import Pool

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows cannot hold signals back")


def test_a_task_is_taken_whole_before_ctrl_c_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ran: list[str] = []
    start = ThreadPoolExecutor._adjust_thread_count

    def interrupted(self: ThreadPoolExecutor) -> None:
        signal.raise_signal(signal.SIGINT)
        ran.append("went on")
        start(self)

    monkeypatch.setattr(ThreadPoolExecutor, "_adjust_thread_count", interrupted)
    with pytest.raises(KeyboardInterrupt), Pool(1) as pool:
        pool.submit(ran.append, "the task")
    assert ran == ["went on", "the task"]


def test_its_threads_leave_signals_to_the_main_thread() -> None:
    with Pool(1) as pool:
        held = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
    assert {signal.SIGINT, signal.SIGTERM} <= held
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
