"""
All text for a terminal or a pipe goes through `say`, which escapes what is not printable. Also tables and units.

What a model holds as data goes through `say_data`.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from ostore.formats.wording import clean, human_bytes, one_line, plural

__all__ = [
    "clean",
    "close_quietly",
    "human_age",
    "human_bytes",
    "human_seconds",
    "one_line",
    "plural",
    "say",
    "say_data",
    "table",
]

# A parameter in a hint, and its value. Not preceded by what a path may end with.
_PARAMETER = re.compile(r"(?<![\w./=-])(models|replace|without_models)=('[^']*'|True|[^\s?;)]+)")


def as_options(hint: str) -> str:
    """Return a hint of the library, which names parameters, with the options of the same names: --replace, --models."""
    return _PARAMETER.sub(
        lambda found: f"--{found[1].replace('_', '-')}" + ("" if found[2] == "True" else f" {found[2]}"), hint
    )


def say(text: str, stream: TextIO | None = None, *, end: str = "\n") -> None:
    """
    Print a line, or a piece that ends with `end`, to standard output by default.

    What is not printable, or not in the encoding, is escaped.
    """
    out = sys.stdout if stream is None else stream
    if out is None:  # closed before the program started
        raise OSError(errno.EBADF, "standard output is closed")
    encoding = getattr(out, "encoding", None) or "utf-8"
    printable = clean(text).encode(encoding, "backslashreplace").decode(encoding)
    out.write(printable + end)


def say_data(data: bytes) -> None:
    """
    Print what a file or another program may be waiting for: byte for byte.

    On a terminal, what is not printable is escaped, and the last line ends.
    """
    if sys.stdout is None or sys.stdout.isatty():
        if data:
            say(data.removesuffix(b"\n").decode("utf-8", "backslashreplace"))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns left-aligned, four spaces apart, as Ollama prints them."""
    lines = [[clean(cell) for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "    ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def human_age(seconds: float) -> str:
    """An age as Ollama prints it (format/time.go at fb30760)."""
    suffix = " ago" if seconds >= 0 else " from now"
    return _duration(abs(seconds)) + suffix


def human_seconds(seconds: float) -> str:
    """A duration for a summary: 0.4 s, 31 s, 4 min 12 s."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _duration(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004
        whole = int(seconds)
        return "Less than a second" if whole < 1 else "1 second" if whole == 1 else f"{whole} seconds"
    if seconds < 3600:  # noqa: PLR2004
        minutes = int(seconds / 60)
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    # Go's math.Round: half away from zero.
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for below, size, unit in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < below:
            return f"{hours // size} {unit}"
    return f"{int(seconds / 3600) // 8760} years"


def close_quietly() -> None:
    """Flush standard output. If its reader has gone, redirect it to the null device: Python flushes again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
