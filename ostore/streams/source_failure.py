"""Tell a failure of the source of bytes from a failure of their destination."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.streams.bytes_at import BytesAt

_Item = TypeVar("_Item")


class SourceFailureError(Exception):
    """
    A source failed while its items were in use. `error` is what it raised.

    `can_resume` says that the source can start in the middle of a blob, so the bytes received so far are worth keeping.
    `digest` is that of the blob whose bytes were asked for, if that is known here.
    """

    def __init__(self, error: OSError | OstoreError, *, can_resume: bool, digest: Digest | None = None) -> None:
        super().__init__(_told(error))
        self.error = error
        self.can_resume = can_resume
        self.digest = digest


def marked(items: Iterable[_Item], *, can_resume: bool = False) -> Iterator[_Item]:
    """Pass on what a source yields. Raises SourceFailureError instead of the source's OstoreError or OSError."""
    try:
        yield from items
    except (OSError, OstoreError) as error:
        raise SourceFailureError(error, can_resume=can_resume) from None


@contextmanager
def marking(digest: Digest) -> Iterator[None]:
    """Raises SourceFailureError, which names this blob, instead of an OstoreError or OSError of the block."""
    try:
        yield
    except (OSError, OstoreError) as error:
        raise SourceFailureError(error, can_resume=False, digest=digest) from None


class MarkedBytes:
    """The bytes of a blob. Whatever reading them raises is a SourceFailureError that names the blob."""

    def __init__(self, data: BytesAt, digest: Digest) -> None:
        self._data, self._digest = data, digest
        self.size = data.size

    def read_at(self, size: int, offset: int) -> bytes:
        """Return what the bytes return. Raises SourceFailureError."""
        with marking(self._digest):
            return self._data.read_at(size, offset)

    def refuse_changes(self) -> None:
        """Raises SourceFailureError if the bytes have changed."""
        with marking(self._digest):
            self._data.refuse_changes()


def _told(error: OSError | OstoreError) -> str:
    if isinstance(error, OstoreError):
        return str(error)
    return f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")
