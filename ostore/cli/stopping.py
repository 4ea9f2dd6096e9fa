"""What to say when Ctrl-C or a signal stops a command: only what is true at that moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

GOES_ON = "the same command goes on from here"
_remarks: list[str | Callable[[], str]] = ["nothing was changed"]


def if_stopped(remark: str | Callable[[], str]) -> None:
    """Set what is true from now on, or what tells it then. Until a command calls this, it has changed nothing."""
    _remarks[-1] = remark


@contextmanager
def if_stopped_meanwhile(remark: str) -> Iterator[None]:
    """Set what is true in this block, and after an exception that leaves it."""
    _remarks.append(remark)
    yield
    _remarks.pop()


def remark_if_stopped() -> str:
    """Return what is true now."""
    remark = _remarks[-1]
    return remark if isinstance(remark, str) else remark()
