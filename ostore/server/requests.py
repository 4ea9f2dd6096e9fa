"""Read what a request says: its path, range, host and token. Whatever is not exactly as expected is refused."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Collection
from typing import Literal, NamedTuple

from ostore.formats.digest import Digest

# Of types/model/name.go at fb30760, as in `formats/name.py`: no dot at the start, no slash, no percent sign.
_NAMESPACE = "[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"
_MODEL = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_PATH = re.compile(rf"/v2/({_NAMESPACE}/{_MODEL})/(?:(manifests|blobs)/([^/]+)|tags/list)")
_TAG = re.compile(_MODEL)
_RANGE = re.compile(r"bytes=\s*([0-9]*)\s*-\s*([0-9]*)\s*")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(?::([0-9]{1,5}))?")
# 2^63 has 19 digits; Python refuses to read numbers of thousands.
_MAX_DIGITS = 19
_LONG = 10**_MAX_DIGITS
_LOCAL = "localhost"

What = Literal["manifest", "blob", "tags"]


class Asked(NamedTuple):
    """What a path means: a manifest by tag or digest, a blob, or the list of tags of a repository."""

    what: What
    repository: str
    tag: str = ""
    digest: Digest | None = None


class BadPathError(ValueError):
    """A path that begins like one of a registry and has no valid name, tag or digest. It is not part of the library."""


def read_path(raw: str) -> Asked | None:
    """Return what the path of a request means, or None if it means nothing. Raises BadPathError."""
    # A colon is all that a careful client writes in another way.
    path = raw.partition("?")[0].replace("%3A", ":").replace("%3a", ":")
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    repository, kind, reference = found.groups()
    if kind is None:
        return Asked("tags", repository)
    digest = Digest.of_text(reference)
    if digest:
        return Asked("blob" if kind == "blobs" else "manifest", repository, digest=digest)
    if kind == "blobs" or not _TAG.fullmatch(reference):
        raise BadPathError
    return Asked("manifest", repository, reference)


class ByteRange(NamedTuple):
    """Bytes from `start` on, not past `end`."""

    start: int
    end: int


def read_range(value: str | None, size: int) -> ByteRange | Literal["unsatisfiable"] | None:
    """
    Return the one range that a header asks for; None for all bytes.

    Several ranges, and anything that is no range, mean all bytes (RFC 9110, 14.2).
    """
    found = _RANGE.fullmatch(value) if value is not None else None
    if found is None or found[1] == found[2] == "":
        return None
    first, last = (_number(text) for text in found.groups())
    if not found[1]:
        # The last so many bytes.
        return ByteRange(max(0, size - last), size) if last and size else "unsatisfiable"
    if found[2] and last < first:
        return None
    if first >= size:
        return "unsatisfiable"
    return ByteRange(first, min(last + 1, size) if found[2] else size)


def _number(digits: str) -> int:
    return int(digits or "0") if len(digits) <= _MAX_DIGITS else _LONG


class Doorman:
    """
    Decides which names of the server, and which tokens, are accepted.

    A page in a browser can make its own name lead to an address of this machine, and so read what is served here. An
    address as a name cannot be faked so. `is_local` means that only this machine can connect.
    """

    def __init__(self, names: Collection[str], token: str | None, *, is_local: bool) -> None:
        self._names = {name.lower().rstrip(".") for name in names}
        self._token = _hashed(token.encode()) if token is not None else None
        self._is_local = is_local

    def accepts_host(self, host: str) -> bool:
        """Return whether the value of a Host header is a name under which clients may ask."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]").lower().rstrip(".")
        if name in self._names or name == _LOCAL:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return not self._is_local and not self._names
        return address.is_loopback or not self._is_local

    def accepts_token(self, authorization: str | None) -> bool:
        """Return whether an Authorization header has the token: as Bearer, or as the password of Basic."""
        if self._token is None:
            return True
        scheme, _, value = (authorization or "").partition(" ")
        given = value.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        # Hashes have one length, so the time tells nothing of the token.
        return hmac.compare_digest(_hashed(given), self._token)


def _hashed(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
