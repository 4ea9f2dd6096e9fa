"""
A fast reader for manifests in the exact shape that Ollama writes. It matches their bytes with regular expressions.
Reading JSON as Go does takes six times as long, and a store has thousands of manifests.

Go's encoding/json writes manifest.Manifest and manifest.Layer (ollama at fb30760) without spaces and with keys in this
order. A manifest of exactly that shape is never ambiguous: it has no key in another case or twice, no escape, and one
spelling of every digest. The JSON reader handles every other manifest, valid or not. Tests check that both agree.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# A manifest of this size cannot exceed the limit on layers, so nothing here counts them.
_MAX_BYTES = 1024 * 1024
_TEXT = rb"[ !#-\[\]-~]"
_MEDIA_TYPE = rb"%b{0,255}" % _TEXT
# A size of up to 18 digits is below 2^63.
_DESCRIPTOR = (
    rb'{"mediaType":"(%b)","digest":"sha256:([0-9a-f]{64})","size":(0|[1-9][0-9]{0,17})'
    rb'(?:,"from":"(%b*)")?(?:,"name":"(%b*)")?}'
) % (_MEDIA_TYPE, _TEXT, _TEXT)
_WITHOUT_GROUPS = re.sub(rb"\((?!\?)", rb"(?:", _DESCRIPTOR)
_MANIFEST = re.compile(
    rb'{"schemaVersion":2,"mediaType":"%b","config":%b,"layers":\[(?:%b(?:,%b)*)?\]}[ \t\r\n]*'
    % (_MEDIA_TYPE, _WITHOUT_GROUPS, _WITHOUT_GROUPS, _WITHOUT_GROUPS)
)
_DESCRIPTORS = re.compile(_DESCRIPTOR.decode(), re.ASCII)
# These cannot match inside a text: a text here has no quotation marks.
_DIGESTS = re.compile(r'"digest":"sha256:([0-9a-f]{64})"')
_MEDIA_TYPES = re.compile(r'"mediaType":"([^"]*)"')
_SIZES = re.compile(_DIGESTS.pattern + r',"size":([0-9]+)')
# Real weights have megabytes. What has less than six digits is a text, or weights of a test.
LARGE_BYTES = 100_000
_LARGE = re.compile(rb'"size":[0-9]{6}')


class PlainDescriptor(NamedTuple):
    """The members of one descriptor as text. An absent member is empty."""

    media_type: str
    digest: str
    size: str
    origin: str
    name: str


def is_plain(raw: bytes) -> bool:
    """Whether a manifest has this shape. The functions below require that it has."""
    return len(raw) <= _MAX_BYTES and _MANIFEST.fullmatch(raw) is not None


def plain_descriptors(raw: bytes) -> list[PlainDescriptor]:
    """Return the descriptor of the config, then those of the layers."""
    return [PlainDescriptor(*found) for found in _DESCRIPTORS.findall(raw.decode("ascii"))]


def plain_config(raw: bytes) -> PlainDescriptor:
    """Return the descriptor of the config."""
    return PlainDescriptor(*next(_DESCRIPTORS.finditer(raw.decode("ascii"))).groups(default=""))


def plain_digests(raw: bytes) -> list[str]:
    """Return the 64 digits of every digest: the config, then the layers."""
    return _DIGESTS.findall(raw.decode("ascii"))


def plain_layer_types(raw: bytes) -> list[str]:
    """Return the media types of the layers, without those of the document and the config."""
    return _MEDIA_TYPES.findall(raw.decode("ascii"))[2:]


def plain_sizes(raw: bytes) -> list[tuple[str, str]]:
    """Return the 64 digits and the size, as text, of every descriptor: the config, then the layers."""
    return _SIZES.findall(raw.decode("ascii"))


def has_large_blob(raw: bytes) -> bool:
    """Return whether any descriptor has a size of `LARGE_BYTES` or more."""
    return _LARGE.search(raw) is not None
