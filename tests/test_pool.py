"""A signal while threads take a task does not keep them, or whoever waits for them, from ending."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from ostore.streams.pool import Pool, WaitingPool

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


@pytest.mark.parametrize("kind", [Pool, WaitingPool])
def test_its_threads_leave_signals_to_the_main_thread(kind: type[Pool | WaitingPool]) -> None:
    pool = kind(1)
    with closing(pool) if isinstance(pool, WaitingPool) else pool:
        held = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
    assert {signal.SIGINT, signal.SIGTERM} <= held
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_pool_that_waits_for_servers_is_not_waited_for() -> None:
    pool, begun, go_on = WaitingPool(1), threading.Event(), threading.Event()
    ran: list[str] = []

    def wait() -> str:
        begun.set()
        go_on.wait(60)
        return "done"

    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()
    waiting = pool.submit(wait)
    pool.submit(ran.append, "not begun")
    begun.wait(60)
    pool.close()
    assert not waiting.done()
    go_on.set()
    assert waiting.result() == "done"
    assert ran == []
