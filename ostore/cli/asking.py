"""The question before something is changed or taken away: on standard error, and no unless somebody says yes."""

from __future__ import annotations

import sys

from ostore.cli.text import say


def agreed(plan: str, question: str) -> bool:
    """
    Show a plan and ask; only `y` or `yes` is one.

    Raises UsageError where nobody can answer.
    """
    refuse_without_terminal()
    say(plan, sys.stderr)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def refuse_without_terminal(hint: str = "--dry-run only shows what would be done") -> None:
    """Raises UsageError where nobody can answer: of a long command that is to be known before it begins."""
    from ostore.formats.errors import UsageError

    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("this asks before it goes ahead, and there is no terminal; --yes answers", hint=hint)
