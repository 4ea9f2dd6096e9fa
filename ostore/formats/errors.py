"""Every way ostore can refuse, named by what is wrong; floor 4 maps each class to an exit code.

Messages say what, expected, got, in lower case. `OSError` is not wrapped: it passes through, with its file name.
"""

from __future__ import annotations


class OstoreError(Exception):
    """
    The root of the tree: catch this to catch every refusal of ostore.

    `hint` is the next thing a person could type, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(OstoreError):
    """The request cannot be carried out as it was put; nothing was written."""


class NotFoundError(OstoreError):
    """No such model, bundle or store."""


class IntegrityError(OstoreError):
    """Bytes are not what their digest or size promised, or end too early."""


class BlobError(IntegrityError):
    """One blob is missing or is not what its descriptor promises; `digest` is its `sha256:…` text."""

    def __init__(self, message: str, *, digest: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.digest = digest


class BlobMissingError(BlobError):
    """A blob that a manifest names is not there."""


class SizeMismatchError(BlobError):
    """A blob has fewer or more bytes than its descriptor says."""


class DigestMismatchError(BlobError):
    """A blob has the promised size but other bytes."""


class TruncatedError(IntegrityError):
    """Input ended before everything it promised."""


class BusyError(OstoreError):
    """Another ostore holds the lock."""


class NoSpaceError(OstoreError):
    """The disk, a quota or a file-size limit would not hold the result."""


class UnsafeError(OstoreError):
    """A forbidden name, type or path."""


class InvalidNameError(UnsafeError):
    """Text that Ollama's name grammar does not allow, or that the target disk cannot hold."""


class InvalidDigestError(UnsafeError):
    """Text that is not `sha256:` and 64 lower-case hexadecimal digits."""


class AmbiguousManifestError(UnsafeError):
    """A manifest that two readers may understand in two ways."""


class DamagedStoreError(OstoreError):
    """Manifests, names or the layout of a store are damaged."""


class FormatError(OstoreError):
    """Not ours, or a version we do not know."""


class InvalidManifestError(FormatError):
    """Bytes that are not a manifest."""


class InvalidBundleError(FormatError):
    """Bytes that are not a bundle of a version we know."""


class RemoteError(OstoreError):
    """The other side of a network misbehaved or could not be reached."""


class LimitError(OstoreError):
    """A documented cap was exceeded."""
