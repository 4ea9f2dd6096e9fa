"""The files of an OCI image layout. Anybody may have written them: no link is followed, and lengths have limits."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ostore.formats.digest import Digest
from ostore.formats.errors import (
    BlobMissingError,
    DamagedStoreError,
    DigestMismatchError,
    FormatError,
    OstoreError,
    SizeMismatchError,
)
from ostore.formats.manifest import Descriptor
from ostore.formats.oci_layout import BLOBS, INDEX, LAYOUT, MAX_INDEX_BYTES, MAX_LAYOUT_BYTES, ImageIndex, check_layout
from ostore.streams.chunks import read_full
from ostore.streams.durable import Directory, naming

_Seen = TypeVar("_Seen")
_NOT_THERE = (FileNotFoundError, NotADirectoryError)


class LayoutFolder:
    """The folder of a layout. It is opened anew for each look, so several threads may use this."""

    def __init__(self, path: Path, label: str) -> None:
        self.path = path
        self._label = label
        self._blobs = path.joinpath(*BLOBS)

    def read_index(self) -> ImageIndex:
        """Return the index. Raises FormatError if this is no layout, LimitError, UnsafeError, DamagedStoreError."""
        with Directory.open(self.path) as folder:
            return read_index(folder, self._label)

    @contextlib.contextmanager
    def opened(self, digest: Digest) -> Iterator[int]:
        """Open a blob for reading. Raises BlobMissingError, DamagedStoreError if it is no regular file, OSError."""
        fd = self._looked_into(lambda blobs: blobs.open_file(digest.hex), digest)
        try:
            with naming(self._blobs / digest.hex):
                yield fd
        finally:
            os.close(fd)

    def refuse(self, blob: Descriptor) -> None:
        """
        Look at the file of a blob, by name and size.

        Raises BlobMissingError, SizeMismatchError, DamagedStoreError if it is no regular file, OSError.
        """
        status = self._looked_into(lambda blobs: blobs.lstat(blob.digest.hex), blob.digest)
        if status is None:
            raise _missing(blob.digest)
        if not stat.S_ISREG(status.st_mode):
            raise DamagedStoreError(f"{self._blobs / blob.digest.hex}: expected a regular file")
        if status.st_size != blob.size:
            problem = f"blob {blob.digest}: expected {blob.size} bytes, got {status.st_size}"
            raise SizeMismatchError(problem, digest=str(blob.digest))

    def size_of(self, digest: Digest) -> int | None:
        """Return the size in bytes of the file of a blob, or None if there is no regular file. Raises OSError."""
        try:
            status = self._looked_into(lambda blobs: blobs.lstat(digest.hex), digest)
        except OstoreError:
            return None
        return status.st_size if status and stat.S_ISREG(status.st_mode) else None

    def file_of(self, blob: Descriptor) -> Path | None:
        """Return the file of a blob if it is a regular file of the right size, else None. Raises OSError."""
        return self._blobs / blob.digest.hex if self.size_of(blob.digest) == blob.size else None

    def read_manifest(self, manifest: Descriptor) -> bytes:
        """Return the bytes of a manifest. Raises the errors of `opened`, BlobError if they are not as promised."""
        with self.opened(manifest.digest) as fd:
            raw = read_full(fd, manifest.size + 1)
        digest = str(manifest.digest)
        if len(raw) != manifest.size:
            got = str(len(raw)) if len(raw) < manifest.size else "more"
            raise SizeMismatchError(f"manifest {digest}: expected {manifest.size} bytes, got {got}", digest=digest)
        if Digest.of(raw) != manifest.digest:
            raise DigestMismatchError(f"manifest {digest}: its bytes have another digest", digest=digest)
        return raw

    def _looked_into(self, look: Callable[[Directory], _Seen], digest: Digest) -> _Seen:
        """Open the folder of blobs and look. Raises BlobMissingError if there is no such folder, or nothing in it."""
        try:
            with contextlib.ExitStack() as opened:
                folder = opened.enter_context(Directory.open(self.path))
                for name in BLOBS:
                    folder = opened.enter_context(folder.child(name))
                return look(folder)
        except _NOT_THERE:
            raise _missing(digest) from None


def read_index(folder: Directory, label: str) -> ImageIndex:
    """Return the index of an open layout. Raises what `LayoutFolder.read_index` raises, each with the label."""
    refuse_other_versions(folder, label)
    with _labelled(label):
        return ImageIndex.parse(read_limited(folder, INDEX, MAX_INDEX_BYTES))


def refuse_other_versions(folder: Directory, label: str) -> None:
    """Raises what `read_index` raises, unless the folder is a layout of version 1. It may have no index yet."""
    with _labelled(label):
        check_layout(read_limited(folder, LAYOUT, MAX_LAYOUT_BYTES))


@contextlib.contextmanager
def _labelled(label: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(error.filename or LAYOUT).name
        raise FormatError(f"{label}: no OCI image layout: it has no file {missing}") from None
    except DamagedStoreError:
        raise
    except OstoreError as error:
        error.args = (f"{label}: {error}",)
        raise


def read_limited(folder: Directory, name: str, limit: int) -> bytes:
    """Return a file's bytes, at most one past the limit. Raises DamagedStoreError if it is no regular file, OSError."""
    fd = folder.open_file(name)
    try:
        with naming(folder.path / name):
            return read_full(fd, limit + 1)
    finally:
        os.close(fd)


def _missing(digest: Digest) -> BlobMissingError:
    return BlobMissingError(f"blob {digest}: missing", digest=str(digest))
