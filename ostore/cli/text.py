"""
All text for a terminal or a pipe goes through `say`, which escapes what is not printable. Also tables and units.

What a model holds as data goes through `say_data`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TextIO

from ostore.cli.colours import Mark, is_coloured, painted
from ostore.formats.wording import clean, human_bytes, one_line, plural

__all__ = [
    "UnprintedError",
    "abandon_output",
    "clean",
    "columns",
    "flush",
    "has_lost_its_reader",
    "human_age",
    "human_bytes",
    "human_seconds",
    "human_time",
    "one_line",
    "own_stderr",
    "plural",
    "say",
    "say_data",
    "table",
    "tell",
]

# A parameter in a hint, and its value. Not preceded by what a path may end with.
_PARAMETER = re.compile(r"(?<![\w./=-])(models|replace|without_models)=('[^']*'|True|[^\s?;)]+)")


def as_options(hint: str) -> str:
    """Return a hint of the library, which names parameters, with the options of the same names: --replace, --models."""
    return _PARAMETER.sub(
        lambda found: f"--{found[1].replace('_', '-')}" + ("" if found[2] == "True" else f" {found[2]}"), hint
    )


class UnprintedError(Exception):
    """
    Standard output takes no more.

    `done` says what the command has done nevertheless; it is empty if the command has changed nothing.
    """

    def __init__(self, cause: OSError, done: str = "") -> None:
        super().__init__(f"standard output: {cause.strerror or cause}")
        self.cause = cause
        self.done = done


def say(text: str, stream: TextIO | None = None, *, end: str = "\n", marks: Sequence[Mark] = ()) -> None:
    """
    Print a line, or a piece that ends with `end`, to standard output by default.

    What is not printable, or not in the encoding, is escaped; after that, the marks get their colours. Raises
    UnprintedError for standard output, OSError for another stream.
    """
    if stream is not None:
        _write(text, stream, end, marks)
        return
    with _standard_output() as out:
        _write(text, out, end, marks)


def tell(text: str, *, marks: Sequence[Mark] = (), stream: TextIO | None = None) -> None:
    """Print a line on standard error. If that is a full disk or a closed pipe, the exit code still tells."""
    out = stream or sys.stderr
    with contextlib.suppress(OSError):
        say(text, out, marks=marks)
        out.flush()


def own_stderr() -> TextIO:
    """
    Return standard error for a thread that may be stuck in it when the program ends.

    It has a lock of its own: when Python ends, it waits for that of `sys.stderr`.
    """
    try:
        fd = sys.stderr.fileno()
    except io.UnsupportedOperation:
        # Who calls the program as a function has put something else in its place.
        return sys.stderr
    return os.fdopen(fd, "w", encoding=sys.stderr.encoding, closefd=False)


def flush() -> None:
    """Write to standard output what was said. Raises UnprintedError."""
    with _standard_output() as out:
        out.flush()


def has_lost_its_reader(error: Exception) -> bool:
    """Whether Windows says that nobody reads our output any more: it has no error of its own for that."""
    return os.name == "nt" and isinstance(error, OSError) and (error.errno, error.filename) == (errno.EINVAL, None)


@contextlib.contextmanager
def _standard_output() -> Iterator[TextIO]:
    if sys.stdout is None:  # closed before the program started
        raise UnprintedError(OSError(errno.EBADF, "closed"))
    try:
        yield sys.stdout
    except OSError as error:
        gone = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        raise UnprintedError(gone if has_lost_its_reader(error) else error) from error


def _write(text: str, out: TextIO, end: str, marks: Sequence[Mark]) -> None:
    encoding = getattr(out, "encoding", None) or "utf-8"
    printable = clean(text).encode(encoding, "backslashreplace").decode(encoding)
    out.write((painted(printable, marks) if marks and is_coloured(out) else printable) + end)


def say_data(data: bytes) -> None:
    """
    Print what a file or another program may be waiting for: byte for byte.

    On a terminal, what is not printable is escaped, and the last line ends.
    """
    if sys.stdout is None or sys.stdout.isatty():
        if data:
            say(data.removesuffix(b"\n").decode("utf-8", "backslashreplace"))
        return
    with _standard_output() as out:
        out.flush()
        out.buffer.write(data)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns left-aligned, four spaces apart, as Ollama prints them."""
    lines = [[clean(cell) for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "    ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def columns(most: int) -> int:
    """How many columns to fill with text: those of the terminal, at most `most` and at least 40."""
    return max(40, min(most, shutil.get_terminal_size((most, 0)).columns))


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


def human_time(moment: float) -> str:
    """A time, given in seconds since 1970: 2026-11-22 14:58 UTC."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


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


def abandon_output() -> None:
    """Redirect standard output to the null device: Python flushes it once more when it ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
