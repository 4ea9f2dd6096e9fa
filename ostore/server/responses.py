"""What the server answers: lists, errors, manifests, and the heads of answers with bytes of a blob."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from aiohttp import web

from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.manifest import Descriptor
from ostore.server.requests import ByteRange, read_range
from ostore.server.supplies import ServedModel

JSON = "application/json"
_VERSION = {"Docker-Distribution-API-Version": "registry/2.0", "Server": "ostore"}
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# They refuse Ollama's media types in a manifest of Docker's type, and take them in one of the OCI's.
_OCI_CLIENTS = ("skopeo/", "containers/")
_MAX_PAGE = 10_000


class BlobResponse(web.StreamResponse):
    """The head of an answer with bytes of a blob, and how many of them went out."""

    sent = 0


def path_of(request: web.BaseRequest) -> str:
    """Return the path of a request as it came, without the query, in which there may be a token."""
    return request.raw_path.partition("?")[0]


def manifest(request: web.BaseRequest, model: ServedModel) -> web.Response:
    """Return a manifest, byte for byte, under the media type that the client takes."""
    agent = request.headers.get("User-Agent", "")
    kind = _OCI_MANIFEST if agent.startswith(_OCI_CLIENTS) else _manifest_type(model)
    return web.Response(body=model.raw, headers={"Content-Type": kind, **_labels(model.digest)})


def blob_head(request: web.BaseRequest, blob: Descriptor) -> tuple[web.StreamResponse, ByteRange]:
    """Return the response that begins the answer for a blob, and the bytes that follow."""
    wanted: ByteRange | str | None = None
    if request.method == "GET" and request.headers.get("If-Range") in {None, _tag(blob.digest)}:
        wanted = read_range(request.headers.get("Range"), blob.size)
    if isinstance(wanted, str):
        refusal = failure(416, "UNSUPPORTED", "no such bytes", {"Content-Range": f"bytes */{blob.size}"})
        return refusal, ByteRange(0, 0)
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **_labels(blob.digest)}
    if wanted is None:
        # Ollama takes a whole answer only with a Location, and then asks there for the parts.
        response = BlobResponse(headers={**headers, "Location": path_of(request)})
        wanted = ByteRange(0, blob.size)
    else:
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.end - 1}/{blob.size}"
        response = BlobResponse(status=206, headers=headers)
    response.content_length = wanted.end - wanted.start
    return response, wanted


def _labels(digest: Digest) -> dict[str, str]:
    return {"Docker-Content-Digest": str(digest), "ETag": _tag(digest), **_VERSION}


def _tag(digest: Digest) -> str:
    return f'"{digest}"'


def _manifest_type(model: ServedModel) -> str:
    """Return the media type that a manifest gives itself, if a client may know it."""
    is_oci = f'"{_OCI_MANIFEST}"'.encode() in model.raw and media_types.MANIFEST.encode() not in model.raw
    return _OCI_MANIFEST if is_oci else media_types.MANIFEST


def listing(request: web.BaseRequest, head: Mapping[str, str], key: str, names: list[str]) -> web.StreamResponse:
    """Return a page of a list: at most `n` names behind `last`."""
    query = request.query
    last, text = query.get("last", ""), query.get("n", "")
    count = (
        min(int(text), _MAX_PAGE) if text.isascii() and text.isdigit() and len(text) < len(str(2**31)) else _MAX_PAGE
    )
    rest = [name for name in names if name > last]
    headers = {}
    if len(rest) > count > 0:
        path = path_of(request)
        headers["Link"] = f'<{quote(path, safe="/:")}?{urlencode({"n": count, "last": rest[count - 1]})}>; rel="next"'
    return plain(json.dumps({**head, key: rest[:count]}) + "\n", JSON, headers)


def plain(text: str, kind: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a text of this media type."""
    return web.Response(body=text.encode(), headers={"Content-Type": kind, **_VERSION, **(headers or {})})


def failure(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error as the distribution API writes it."""
    document = json.dumps({"errors": [{"code": code, "message": message}]}) + "\n"
    return web.Response(
        status=status, body=document.encode(), headers={"Content-Type": JSON, **_VERSION, **(headers or {})}
    )
