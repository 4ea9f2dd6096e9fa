"""Tell a failure of the source of bytes from a failure of their destination."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from ostore.formats.errors import OstoreError

_Item = TypeVar("_Item")


class SourceFailureError(Exception):
    """
    A source failed while its items were in use. `error` is what it raised.

    `can_resume` says that the source can start in the middle of a blob, so the bytes received so far are worth keeping.
    """

    def __init__(self, error: OSError | OstoreError, *, can_resume: bool) -> None:
        super().__init__(_told(error))
        self.error = error
        self.can_resume = can_resume


def marked(items: Iterable[_Item], *, can_resume: bool = False) -> Iterator[_Item]:
    """Pass on what a source yields. Raises SourceFailureError instead of the source's OstoreError or OSError."""
    try:
        yield from items
    except (OSError, OstoreError) as error:
        raise SourceFailureError(error, can_resume=can_resume) from None


def _told(error: OSError | OstoreError) -> str:
    if isinstance(error, OstoreError):
        return str(error)
    return f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")
