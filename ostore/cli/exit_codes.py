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


def end_with(*classes: str) -> None:
    """Exit with the code of the worst of these classes. Return if every one is `whole`."""
    bad = [name for name in classes if name != "whole"]
    if bad:
        raise typer.Exit(CODES[worst(bad)])
