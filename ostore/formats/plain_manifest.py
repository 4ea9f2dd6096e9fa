"""
The shape in which Ollama itself writes manifests, recognised in their bytes: reading JSON as Go does takes six times as
long, and a store has thousands.

Go's encoding/json writes manifest.Manifest and manifest.Layer (ollama at fb30760) without spaces, keys in this order.
What has exactly that shape leaves nothing to argue about: no key of another case or twice, no escape, one spelling of
every digest. Everything else, right or wrong, is for the reader of JSON; tests hold that both read the same.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# So many descriptors do not fit that the cap on layers would matter.
_MAX_BYTES = 1024 * 1024
_TEXT = rb"[ !#-\[\]-~]"
_MEDIA_TYPE = rb"%b{0,255}" % _TEXT
# Sizes of up to 18 digits are below 2^63.
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
# No text can hold this: it has quotation marks.
_DIGESTS = re.compile(r'"digest":"sha256:([0-9a-f]{64})"')
_MEDIA_TYPES = re.compile(r'"mediaType":"([^"]*)"')
_SIZES = re.compile(_DIGESTS.pattern + r',"size":([0-9]+)')
_CONFIG_SIZE = re.compile(rb'","size":([0-9]+)')


class PlainDescriptor(NamedTuple):
    """One descriptor's members as text; absent ones are empty."""

    media_type: str
    digest: str
    size: str
    origin: str
    name: str


def is_plain(raw: bytes) -> bool:
    """Whether bytes are a manifest in this shape; the functions below are for those that are."""
    return len(raw) <= _MAX_BYTES and _MANIFEST.fullmatch(raw) is not None


def plain_descriptors(raw: bytes) -> list[PlainDescriptor]:
    """The config, then the layers."""
    return [PlainDescriptor(*found) for found in _DESCRIPTORS.findall(raw.decode("ascii"))]


def plain_digests(raw: bytes) -> list[str]:
    """The digits of all their digests, in the same order."""
    return _DIGESTS.findall(raw.decode("ascii"))


def plain_layer_types(raw: bytes) -> list[str]:
    """The media types of the layers: all but the document's own and the config's."""
    return _MEDIA_TYPES.findall(raw.decode("ascii"))[2:]


def plain_config_size(raw: bytes) -> int:
    """The size of the first of them."""
    found = _CONFIG_SIZE.search(raw)
    return int(found[1]) if found else 0


def plain_sizes(raw: bytes) -> list[tuple[str, str]]:
    """The digits of their digests, and their sizes, in the same order."""
    return _SIZES.findall(raw.decode("ascii"))
