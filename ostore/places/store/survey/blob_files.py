"""
Find the file of a blob, under whatever name it lies in `blobs/`.

A store that went through another program has blobs under other names, and people put links in the place of blobs. The
bytes count: such a blob is there. Whether Ollama finds it is another question (`is_misspelled`).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ostore.formats.digest import Digest, blob_digest, is_misspelled, reading_order
from ostore.formats.errors import BlobMissingError, DamagedStoreError, DigestMismatchError, SizeMismatchError
from ostore.formats.manifest import Descriptor
from ostore.formats.store_layout import BLOBS
from ostore.streams.chunks import read_full
from ostore.streams.durable import Directory, naming
from ostore.streams.links import mode_of, open_to_read

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_SMALL_BYTES = 64 * 1024


class BlobFile(NamedTuple):
    """
    The entry of a blob in `blobs/`.

    `status` is that of the regular file that it leads to, or None if it leads to none.
    """

    filename: str
    is_link: bool
    status: os.stat_result | None

    @property
    def is_misspelled(self) -> bool:
        """True if no Ollama finds the blob under this name."""
        return is_misspelled(self.filename)


class BlobFiles:
    """The files of the blobs of one store. What lies there under odd names is looked up once."""

    def __init__(self, root: Path) -> None:
        self._folder = root / BLOBS
        self._prefix = os.path.join(self._folder, "")  # noqa: PTH118 - text

    def find(self, digest: Digest) -> BlobFile | None:
        """Return the entry of a blob, the name that Ollama gives it first; None if there is none. Raises OSError."""
        filename = digest.filename
        status = self._status(filename)
        if status is None and (filename := self._oddly_named.get(digest, "")):
            status = self._status(filename)
        if status is None:
            return None
        if stat.S_ISREG(status.st_mode):
            return BlobFile(filename, is_link=False, status=status)
        if stat.S_ISLNK(mode_of(status)):
            return BlobFile(filename, is_link=True, status=self._target(filename))
        return BlobFile(filename, is_link=False, status=None)

    def size_of(self, digest: Digest) -> int | None:
        """Return the size in bytes of a blob's file, links followed; None if there is no file. Raises OSError."""
        found = self.find(digest)
        return found.status.st_size if found and found.status else None

    def path_of(self, blob: Descriptor) -> Path:
        """
        Return the absolute path of a blob's file, or of the link that leads to it. Nothing is hashed.

        Raises BlobMissingError, SizeMismatchError, DamagedStoreError if it is neither file nor link, OSError.
        """
        digest = str(blob.digest)
        found = self.find(blob.digest)
        if found is None or (found.is_link and found.status is None):
            raise BlobMissingError(f"blob {digest}: missing", digest=digest)
        if found.status is None:
            raise DamagedStoreError(f"{self._folder / found.filename}: expected a regular file")
        if found.status.st_size != blob.size:
            got = found.status.st_size
            raise SizeMismatchError(f"blob {digest}: expected {blob.size} bytes, got {got}", digest=digest)
        return self._folder.absolute() / found.filename

    def read_small(self, digest: Digest, limit: int) -> bytes:
        """Return the first `limit` bytes of a blob. Raises what `opened` raises."""
        fd = self._opened_quickly(digest)
        if fd is None:
            with self.opened(digest) as fd:
                return read_full(fd, limit)
        try:
            # A config has some hundred bytes, and a read that gives less than was asked for is at the end of the file.
            wanted = min(limit, _SMALL_BYTES)
            data = os.read(fd, wanted)
            return data if len(data) < wanted else data + read_full(fd, limit - len(data))
        finally:
            os.close(fd)

    def _opened_quickly(self, digest: Digest) -> int | None:
        """Open a blob if it is a regular file of the usual name. Lists and plans do this for thousands of configs."""
        if not _NOFOLLOW:  # pragma: no cover - Windows
            return None
        try:
            fd = os.open(self._prefix + digest.filename, os.O_RDONLY | _NOFOLLOW | _NONBLOCK | _CLOEXEC)
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    @contextlib.contextmanager
    def opened(self, digest: Digest) -> Iterator[int]:
        """
        Open a blob for reading.

        Raises BlobMissingError, also for a link that leads to no file; DamagedStoreError if it is neither file nor
        link; OSError. A DigestMismatchError of the block does not tell the digest of what a link leads to: that may be
        a file that only we may read.
        """
        found = self.find(digest)
        if found is None:
            raise BlobMissingError(f"blob {digest}: missing", digest=str(digest))
        fd = self._opened_link(found.filename, digest) if found.is_link else self._opened_file(found.filename, digest)
        try:
            with naming(self._folder / found.filename):
                yield fd
        except DigestMismatchError:
            if not found.is_link:
                raise
            raise _other_bytes_behind_link(digest) from None
        finally:
            os.close(fd)

    def _opened_file(self, filename: str, digest: Digest) -> int:
        try:
            with Directory.open(self._folder) as blobs:
                return blobs.open_file(filename)
        except FileNotFoundError:
            raise BlobMissingError(f"blob {digest}: missing", digest=str(digest)) from None

    def _opened_link(self, filename: str, digest: Digest) -> int:
        path = self._folder / filename
        if self._target(filename) is None:
            raise BlobMissingError(
                f"blob {digest}: missing: blobs/{filename} is a link that leads to no file", digest=str(digest)
            )
        fd = open_to_read(path)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise DamagedStoreError(f"{path}: expected a link to a regular file")

    def _status(self, filename: str) -> os.stat_result | None:
        try:
            # Text, not Path: to make sixty thousand of those takes half a second.
            return os.lstat(self._prefix + filename)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _target(self, filename: str) -> os.stat_result | None:
        try:
            status = os.stat(self._prefix + filename)  # noqa: PTH116 - as above
        except PermissionError:
            raise
        except OSError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    @cached_property
    def _oddly_named(self) -> dict[Digest, str]:
        """The blobs whose name is not the one that Ollama gives now. Older names of Ollama come before others."""
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - names
        except (FileNotFoundError, NotADirectoryError):
            return {}
        odd: dict[Digest, str] = {}
        for name in sorted(names):
            if Digest.of_filename(name) is None and (digest := blob_digest(name)):
                rival = odd.setdefault(digest, name)
                odd[digest] = min(rival, name, key=lambda filename: reading_order(digest, filename))
        return odd


def _other_bytes_behind_link(digest: Digest) -> DigestMismatchError:
    """Return the error of a link to a file with other bytes. It tells nothing of them."""
    return DigestMismatchError(f"blob {digest}: a link to a file with other bytes", digest=str(digest))
