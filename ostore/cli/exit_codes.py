"""The exit code of each class of error (docs/exit-codes.md). Scripts rely on these."""

from __future__ import annotations

import typer

from ostore.formats.errors import worst

INTERRUPTED = 130
TERMINATED = 143
USAGE = 2

CODES = {
    "failed": 1,
    "usage": USAGE,
    "not-found": 3,
    "integrity": 4,
    "trust": 5,
    "busy": 6,
    "no-space": 7,
    "unsafe": 8,
    "io": 9,
    "damaged": 10,
    "remote": 11,
    "format": 12,
    "limit": 13,
}

# What Python says when the system has no memory or no right for one more thread.
_NO_THREAD = "can't start new thread"


def is_lack_of_threads(error: BaseException) -> bool:
    """Whether a thread could not be started, because of `ulimit -v` or `ulimit -u`."""
    return isinstance(error, RuntimeError) and _NO_THREAD in str(error)


def end_with(*classes: str) -> None:
    """Exit with the code of the worst of these classes. Return if every one is `whole`."""
    bad = [name for name in classes if name != "whole"]
    if bad:
        raise typer.Exit(CODES[worst(bad)])
