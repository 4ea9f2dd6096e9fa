"""The question before something is taken away: on standard error, and no unless somebody says yes."""

from __future__ import annotations

import sys

from ostore.cli.text import say


def agreed(plan: str, question: str) -> bool:
    """
    Show a plan and ask; only `y` or `yes` is one.

    Raises UsageError where nobody can answer.
    """
    from ostore.formats.errors import UsageError

    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("this asks before it removes anything, and there is no terminal", hint="--yes answers")
    say(plan, sys.stderr)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
