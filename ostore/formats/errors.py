"""The errors of ostore, named by what is wrong. `cli/exit_codes.py` maps each class to an exit code.

A message says what is wrong, what was expected and what was found, in lower case. ostore does not wrap `OSError`: it
passes through with its file name.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostore.formats.remedy import Remedy

# What Python says when the system has no memory or no right for one more thread.
_NO_THREAD = "can't start new thread"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Of several classes, the first of these is the worst.
_WORST_FIRST = ("integrity", "io", "damaged", "unsafe", "format", "limit")


class OstoreError(Exception):
    """
    The base class of all errors of ostore.

    `hint` suggests what a person can do next: a Remedy if there is something to type, else a sentence or None.
    """

    def __init__(self, message: str, *, hint: Remedy | str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(OstoreError):
    """
    The request cannot be carried out as given. Nothing was written.

    If it is about one parameter of a function, the message begins with its name, `parameter`.
    """

    def __init__(self, message: str, *, hint: Remedy | str | None = None, parameter: str = "") -> None:
        super().__init__(f"{parameter}: {message}" if parameter else message, hint=hint)
        self.parameter = parameter


class NotFoundError(OstoreError):
    """The model, bundle or store does not exist."""


class BasisMissingError(NotFoundError):
    """A delta builds on blobs that are not there, or not whole. `digests` are those of all of them, as texts."""

    def __init__(self, message: str, *, digests: tuple[str, ...] = (), hint: Remedy | str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.digests = digests


class IntegrityError(OstoreError):
    """Bytes do not match their digest or size, or end too early."""


class VolumesError(IntegrityError):
    """Volumes of a bundle are missing, damaged, or not what their names say."""


class BlobError(IntegrityError):
    """A blob is missing or does not match its descriptor. `digest` is the text of its digest, with `sha256:`."""

    def __init__(self, message: str, *, digest: str, hint: Remedy | str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.digest = digest


class BlobMissingError(BlobError):
    """A manifest names a blob that is missing."""


class SizeMismatchError(BlobError):
    """A blob has fewer or more bytes than its descriptor says."""


class DigestMismatchError(BlobError):
    """A blob has the size that its descriptor says, but other bytes."""


class TruncatedError(IntegrityError):
    """The input ends before all that it announces."""


class BusyError(OstoreError):
    """Another ostore holds the lock."""


class InUseError(BusyError, PermissionError):
    """Another program has a file open, so Windows lets nobody rename or remove it. Other systems never say this."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: another program has it open", hint="stop Ollama, then run the same command again")
        self.errno, self.strerror, self.filename = errno.EACCES, "another program has it open", path


class NoSpaceError(OstoreError):
    """The result does not fit on the disk, into a quota or under a file-size limit."""


class UnsafeError(OstoreError):
    """A forbidden name, type or path."""


class InvalidNameError(UnsafeError):
    """Ollama's grammar of names does not allow this name, or the target disk cannot hold it."""


class InvalidDigestError(UnsafeError):
    """A digest is not `sha256:` and 64 lower-case hexadecimal digits."""


class AmbiguousManifestError(UnsafeError):
    """Two readers may understand the manifest differently."""


class DamagedStoreError(OstoreError):
    """The manifests, names or layout of a store are damaged."""


class FormatError(OstoreError):
    """The data has an unexpected format, or a version that this ostore does not know."""


class InvalidManifestError(FormatError):
    """The bytes are not a manifest."""


class ForeignManifestError(FormatError):
    """The bytes are a manifest, but not that of a model."""


class InvalidBundleError(FormatError):
    """The bytes are not a bundle, or have a version that this ostore does not know."""


class RemoteError(OstoreError):
    """
    The other side of a network connection cannot be reached, refuses, or breaks its protocol.

    `status` is the HTTP status of its answer, if there was one. `is_passing` says that the same may work a moment
    later, and `retry_after` how many seconds later, if the other side has told.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: Remedy | str | None = None,
        status: int | None = None,
        is_passing: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.is_passing = is_passing
        self.retry_after = retry_after


class LimitError(OstoreError):
    """A documented limit is exceeded."""


# The first match decides.
_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (UsageError, "usage"),
    (NotFoundError, "not-found"),
    (IntegrityError, "integrity"),
    (BusyError, "busy"),
    (NoSpaceError, "no-space"),
    (UnsafeError, "unsafe"),
    (DamagedStoreError, "damaged"),
    (FormatError, "format"),
    (LimitError, "limit"),
    (RemoteError, "remote"),
)


def class_of(error: BaseException) -> str:
    """Return the class of an error (docs/exit-codes.md); `failed` for an error of no known class."""
    # InUseError is an OSError too.
    if name := next((name for kind, name in _CLASSES if isinstance(error, kind)), ""):
        return name
    if isinstance(error, OSError):
        return "no-space" if error.errno in _NO_SPACE else "io"
    return "limit" if is_lack_of_memory(error) else "failed"


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether the system gives no memory or no thread, because of `ulimit -v` or `ulimit -u`."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_THREAD in str(error))


def worst(classes: Iterable[str]) -> str:
    """Return the worst of several classes of errors."""
    return min(classes, key=lambda name: _WORST_FIRST.index(name) if name in _WORST_FIRST else len(_WORST_FIRST))
