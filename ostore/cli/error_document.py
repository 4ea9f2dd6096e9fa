"""What a command knows beyond the error that stops it. With `--json`, it is in the document of the error."""

from __future__ import annotations

from collections.abc import Mapping

_more: dict[str, object] = {}


def begin() -> None:
    """Forget what an earlier command of this process has added."""
    _more.clear()


def add(fields: Mapping[str, object]) -> None:
    """Add fields to the document of the error that is about to end the command."""
    _more.update(fields)


def added() -> dict[str, object]:
    """Return the fields that were added."""
    return dict(_more)
