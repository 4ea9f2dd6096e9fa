"""Colours on a terminal: a few words that a reader looks for. Everything else is plain, so no text can fake them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from re import Pattern
from typing import Literal, NamedTuple, TextIO

Choice = Literal["auto", "always", "never"]
_RED, _GREEN, _YELLOW = 31, 32, 33
_choices: list[Choice] = ["auto"]


class Mark(NamedTuple):
    """The words that a pattern matches, and their colour (SGR of ECMA-48). `^` is the start of a line."""

    pattern: Pattern[str]
    colour: int


ERROR = (Mark(re.compile(r"\Aostore: error\[[a-z-]+\]:"), _RED),)
WARNING = (Mark(re.compile(r"\Aostore: warning:"), _YELLOW),)
VERDICT = (
    Mark(re.compile(r"\b[1-9][0-9,]* problems?(?= \(/.*\Z)"), _RED),
    Mark(re.compile(r"(?<=: )whole(?= \(/.*\Z)"), _GREEN),
)
SEVERITY = (
    Mark(re.compile(r"^PROBLEM(?=  [a-z])", re.MULTILINE), _RED),
    Mark(re.compile(r"^WARNING(?=  [a-z])", re.MULTILINE), _YELLOW),
)


def choose(choice: Choice) -> None:
    """Follow `--color`."""
    _choices[:] = [choice]


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
