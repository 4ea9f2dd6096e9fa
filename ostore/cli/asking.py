"""The question before a command changes or removes something: on standard error, and the default is no."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from ostore.cli.stopping import if_stopped_meanwhile, remark_if_stopped
from ostore.cli.text import say, tell

Plan = TypeVar("Plan")

if TYPE_CHECKING:
    from ostore.formats.remedy import Remedy


class Asking(Generic[Plan]):
    """
    Asks about the plan that it is called with. `text` words the plan.

    If the answer is no, `declined` is the plan.
    """

    def __init__(self, text: Callable[[Plan], str], question: str) -> None:
        self._text = text
        self._question = question
        self.declined: Plan | None = None

    def __call__(self, plan: Plan) -> bool:
        is_agreed = agreed(self._text(plan), self._question)
        self.declined = None if is_agreed else plan
        return is_agreed


def agreed(plan: str, question: str, *, if_stopped: str = "nothing was changed") -> bool:
    """
    Show a plan and ask whether to go ahead. Only `y` and `yes` mean yes. `if_stopped` is true until the answer.

    Raises UsageError if standard input is not a terminal.
    """
    refuse_without_terminal()
    with if_stopped_meanwhile(if_stopped):
        say(plan, sys.stderr)
        say(f"{question} [y/N] ", sys.stderr, end="")
        sys.stderr.flush()
        try:
            answer = sys.stdin.readline()
        except BaseException:
            # The next message begins a line of its own.
            tell("")
            raise
    return answer.strip().lower() in {"y", "yes"}


def next_medium(number: int, needed: int, folders: Sequence[Path], problem: str) -> None:
    """
    Ask for a medium with room for a volume, and wait for Enter. `problem` is what is wrong with the one that is there.

    Raises UsageError at the end of the input.
    """
    from ostore.cli.text import human_bytes
    from ostore.formats.errors import UsageError

    places = " or ".join(map(str, folders))
    if problem:
        tell(problem)
    which = f"needs {human_bytes(needed)}; insert another medium in {places}"
    if not problem:
        which = f"no room for {human_bytes(needed)} in {places}; insert the next medium there"
    try:
        say(f"volume {number}: {which}, then press Enter ", sys.stderr, end="")
        sys.stderr.flush()
        answer = sys.stdin.readline()
    except BaseException:
        # The next message begins a line of its own.
        tell("")
        raise
    if not answer:
        tell("")
        raise UsageError(f"volume {number}: no medium, and no more input", hint=remark_if_stopped())


def refuse_without_terminal(hint: Remedy | str = "--dry-run shows what would happen") -> None:
    """Raise UsageError if standard input is not a terminal. A long command calls this before it starts to work."""
    from ostore.formats.errors import UsageError
    from ostore.streams.terminal import is_terminal

    if sys.stdin is None or not is_terminal(0):
        raise UsageError(
            "this command asks for confirmation, but there is no terminal; add --yes to confirm", hint=hint
        )
