"""The exit code of each class of error (docs/exit-codes.md). Scripts rely on these."""

from __future__ import annotations

import errno

import typer

from ostore.formats import errors

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

# The first match decides.
_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (errors.UsageError, "usage"),
    (errors.NotFoundError, "not-found"),
    (errors.IntegrityError, "integrity"),
    (errors.BusyError, "busy"),
    (errors.NoSpaceError, "no-space"),
    (errors.UnsafeError, "unsafe"),
    (errors.DamagedStoreError, "damaged"),
    (errors.FormatError, "format"),
    (errors.LimitError, "limit"),
    (errors.RemoteError, "remote"),
)
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def class_of(error: BaseException) -> str:
    """The class of an error; `failed` for an error of no known class."""
    for kind, name in _CLASSES:
        if isinstance(error, kind):
            return name
    if isinstance(error, OSError):
        return "no-space" if error.errno in _NO_SPACE else "io"
    return "failed"


def end_with(*classes: str) -> None:
    """Exit with the lowest code of these classes. Return if every one is `whole`."""
    codes = [CODES[name] for name in classes if name != "whole"]
    if codes:
        raise typer.Exit(min(codes))
