"""The errors of ostore, named by what is wrong. `cli/exit_codes.py` maps each class to an exit code.

A message says what is wrong, what was expected and what was found, in lower case. ostore does not wrap `OSError`: it
passes through with its file name.
"""

from __future__ import annotations


class OstoreError(Exception):
    """
    The base class of all errors of ostore.

    `hint` suggests what a person can do next, or is None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(OstoreError):
    """The request cannot be carried out as given. Nothing was written."""


class NotFoundError(OstoreError):
    """The model, bundle or store does not exist."""


class IntegrityError(OstoreError):
    """Bytes do not match their digest or size, or end too early."""


class BlobError(IntegrityError):
    """A blob is missing or does not match its descriptor. `digest` is the text of its digest, with `sha256:`."""

    def __init__(self, message: str, *, digest: str, hint: str | None = None) -> None:
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
        self.errno, self.strerror, self.filename = 13, "another program has it open", path


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


class InvalidBundleError(FormatError):
    """The bytes are not a bundle, or have a version that this ostore does not know."""


class RemoteError(OstoreError):
    """The other side of a network connection cannot be reached or breaks its protocol."""


class LimitError(OstoreError):
    """A documented limit is exceeded."""
