"""Colours on a terminal: a few words that a reader looks for. Everything else is plain, so no text can fake them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from re import Pattern
from typing import Literal, NamedTuple, TextIO

Choice = Literal["auto", "always", "never"]
_RED, _GREEN, _YELLOW = 31, 32, 33
_CHOICES: tuple[Choice, ...] = ("auto", "always", "never")
_choices: list[Choice] = ["auto"]


class Mark(NamedTuple):
    """The words that a pattern matches, and their colour (SGR of ECMA-48). `^` is the start of a line."""

    pattern: Pattern[str]
    colour: int


ERROR = (Mark(re.compile(r"\Aostore: error\[[a-z-]+\]:"), _RED),)
WARNING = (Mark(re.compile(r"\Aostore: warning:"), _YELLOW),)
VERDICT = (
    Mark(re.compile(r"(?<=: )[0-9,]+ problems?(?= \(.*\)$)", re.MULTILINE), _RED),
    Mark(re.compile(r"(?<=: )whole(?= \(.*\)$)", re.MULTILINE), _GREEN),
)
SEVERITY = (
    Mark(re.compile(r"^PROBLEM(?=  [a-z])", re.MULTILINE), _RED),
    Mark(re.compile(r"^WARNING(?=  [a-z])", re.MULTILINE), _YELLOW),
)


def choose(arguments: Sequence[str]) -> None:
    """
    Follow the last `--color` among the arguments of a command.

    This looks at them before they are parsed: an error about arguments has a colour too.
    """
    for word, following in pairwise((*arguments, "")):
        if word.startswith("--color"):
            value = following if word == "--color" else word.removeprefix("--color=")
            _choices[:] = [choice for choice in _CHOICES if choice == value] or _choices


def is_coloured(stream: TextIO) -> bool:
    """Whether a stream gets colours. --color wins over NO_COLOR, and that over FORCE_COLOR (no-color.org)."""
    if _choices != ["auto"]:
        return _choices == ["always"]
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and not is_dumb())


def is_dumb() -> bool:
    """Whether the terminal says that it can only print."""
    return os.environ.get("TERM", "").lower() in {"dumb", "unknown"}


def painted(text: str, marks: Sequence[Mark]) -> str:
    """Return a text with its marks in colour. Whoever calls this has escaped the text."""
    for pattern, colour in marks:
        text = pattern.sub(f"\x1b[{colour}m\\g<0>\x1b[m", text)
    return text
