"""The bytes of many blobs of a store, with few files open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.streams.bytes_at import BytesAt, FileBytes

# A process may have 256 files open on macOS, and 1,024 elsewhere.
_MAX_OPEN = 32


class OpenBlobs:
    """The bytes of blobs of a store. Any number of them can be in use, because only some files are open at a time."""

    def __init__(self, opened: Callable[[Digest], AbstractContextManager[int]]) -> None:
        """`opened` opens the file of a blob, or raises OstoreError or OSError."""
        self._opened = opened
        self._open: OrderedDict[Digest, tuple[ExitStack, FileBytes]] = OrderedDict()

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1][0].close()

    def at(self, digest: Digest) -> BytesAt:
        """Return the bytes of a blob. Raises OstoreError, OSError."""
        return _BlobAt(self, digest)

    def held(self, digest: Digest, /) -> BytesAt | None:
        """Return the bytes of a blob, or None if its file cannot be opened."""
        try:
            return self.at(digest)
        except (OstoreError, OSError):
            return None

    def file(self, digest: Digest) -> FileBytes:
        """Open the file of a blob, or find it open. It is valid until the next call."""
        if digest not in self._open:
            while len(self._open) >= _MAX_OPEN:
                self._open.popitem(last=False)[1][0].close()
            with ExitStack() as stack:
                fd = stack.enter_context(self._opened(digest))
                file = FileBytes(fd, Path(digest.filename))
                self._open[digest] = (stack.pop_all(), file)
        self._open.move_to_end(digest)
        return self._open[digest][1]


class _BlobAt:
    """The bytes of one blob."""

    def __init__(self, blobs: OpenBlobs, digest: Digest) -> None:
        self._blobs, self._digest = blobs, digest
        self.size = blobs.file(digest).size

    def read_at(self, size: int, offset: int) -> bytes:
        return self._blobs.file(self._digest).read_at(size, offset)

    def refuse_changes(self) -> None:
        self._blobs.file(self._digest).refuse_changes()
