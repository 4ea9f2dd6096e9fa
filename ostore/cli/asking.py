"""The question before a command changes or removes something: on standard error, and the default is no."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ostore.cli.text import say

if TYPE_CHECKING:
    from ostore.formats.remedy import Remedy


def agreed(plan: str, question: str) -> bool:
    """
    Show a plan and ask whether to go ahead. Only `y` and `yes` mean yes.

    Raises UsageError if standard input is not a terminal.
    """
    refuse_without_terminal()
    say(plan, sys.stderr)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def refuse_without_terminal(hint: Remedy | str = "--dry-run shows what would happen") -> None:
    """Raise UsageError if standard input is not a terminal. A long command calls this before it starts to work."""
    from ostore.formats.errors import UsageError

    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            "this command asks for confirmation, but there is no terminal; add --yes to confirm", hint=hint
        )
