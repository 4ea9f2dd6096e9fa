"""
Answer requests as a read-only registry does: the distribution API, as Ollama, skopeo and oras use it.

Nothing is written, and no path is made of what a client sends: it is looked up among what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from aiohttp import web

from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.server.catalogue import Catalogue, Repository
from ostore.server.contents import Content
from ostore.server.figures import CONTENT_TYPE, Figures, access_line, health
from ostore.server.requests import Asked, BadPathError, ByteRange, Doorman, read_path, read_range
from ostore.server.sending import CAN_SEND, Sender
from ostore.server.supplies import Offer, ServedModel, Supply
from ostore.server.verification import State, Verification

_JSON = "application/json"
_VERSION = {"Docker-Distribution-API-Version": "registry/2.0", "Server": "ostore"}
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# They refuse Ollama's media types in a manifest of Docker's type, and take them in one of the OCI's.
_OCI_CLIENTS = ("skopeo/", "containers/")
# What a client is told to wait if its blob is not hashed yet.
_RETRY_SECONDS = 5
# A place is looked at again after so long, and after so many times as long as looking takes.
_LOOK_SECONDS, _LOOK_SHARE = 1.0, 20
# Through TLS, and where the system cannot send a file, each connection holds so much.
_CHUNK_BYTES = 64 * 1024
_MAX_PAGE = 10_000
_MOMENT_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Limits:
    """
    How long, in seconds, a client may take for a request (`head`) and to take bytes (`stall`), how long a request waits
    for a blob to be hashed (`hash`), and how many connections there may be.
    """

    head: float = 20.0
    stall: float = 60.0
    hash: float = 25.0
    connections: int = 1024


class _BlobResponse(web.StreamResponse):
    """The head of an answer with bytes of a blob, and how many of them went out."""

    sent = 0


class Registry:
    """Answers requests. `log` is given lines and returns at once; whoever prints them escapes them."""

    def __init__(
        self,
        supply: Supply,
        doorman: Doorman,
        *,
        is_served: Callable[[ModelName], bool],
        log: Callable[[str], None],
        limits: Limits,
    ) -> None:
        self.figures = Figures()
        self.limits = limits
        self.sender = Sender() if CAN_SEND else None
        self.connections: Callable[[], int] = lambda: 0
        # Connections with a request under way, and when others had their last one.
        self.busy: set[web.RequestHandler] = set()
        self.answered: dict[web.RequestHandler, float] = {}
        self._supply, self._doorman, self._is_served, self._log = supply, doorman, is_served, log
        self._catalogue = Catalogue()
        # What was told of what cannot be served.
        self._left: set[str] = set()
        self._looked, self._look_again = 0.0, asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self.verification = Verification(supply, self._tell_damaged, self._tell_news)

    def start(self, offer: Offer) -> None:
        """Begin to hash and to send. `offer` is what was found already, and who starts it tells what is left out."""
        self._left = {*_left_told(offer)}
        self._take(offer)
        self.verification.start()
        if self.sender:
            self.sender.start()

    def stop(self) -> None:
        """Abort what is being sent, and end the threads."""
        if self.sender:
            self.sender.stop()
        self.verification.stop()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Whatever goes wrong is one line in the log and a status."""
        self.busy.add(request.protocol)
        try:
            return await self._answer(request)
        except Exception as error:  # noqa: BLE001 - one bad request must not be silence in the log
            self._log(f"{request.raw_path:.300}: {type(error).__name__}: {error}")
            return _error(500, "UNKNOWN", "the server cannot read it; its log says why")
        finally:
            self.busy.discard(request.protocol)
            self.answered[request.protocol] = self._loop.time()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1:
            return _error(400, "UNSUPPORTED", "expected one Host")
        if not self._doorman.accepts_host(hosts[0]):
            return _error(403, "DENIED", "not a name of this server")
        if request.method not in {"GET", "HEAD"}:
            return _error(405, "UNSUPPORTED", "read only", {"Allow": "GET, HEAD"})
        path = request.raw_path.partition("?")[0]
        if path == "/healthz":
            return _text(health(self.verification.extent(), len(self._catalogue.models), left=len(self._left)), _JSON)
        if not self._doorman.accepts_token(request.headers.get("Authorization")):
            return _error(401, "UNAUTHORIZED", "a token is needed", {"WWW-Authenticate": 'Basic realm="ostore"'})
        return await self._answer_known(request, path)

    async def _answer_known(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if path in {"/v2", "/v2/"}:
            return _text("{}", _JSON)
        if path == "/metrics":
            return self._metrics()
        if path == "/v2/_catalog":
            return await self._list_repositories(request)
        try:
            asked = read_path(request.raw_path)
        except BadPathError:
            return _error(400, "DIGEST_INVALID" if "/blobs/" in path else "MANIFEST_INVALID", "no tag and no digest")
        return await self._answer_about(request, asked) if asked else _error(404, "NAME_UNKNOWN", "no such path")

    async def _answer_about(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        repository = await self._repository(asked)
        if asked.what == "manifest" and asked.tag and self._catalogue.may_be_broken(asked.repository, asked.tag):
            return _error(500, "UNKNOWN", "the model is damaged here, or its folder cannot be read; the log says which")
        if repository is None:
            return _error(404, "NAME_UNKNOWN", "no such model")
        if asked.what == "tags":
            return await self._list_tags(request, asked, repository)
        if asked.what == "manifest":
            return self._manifest(request, asked, repository)
        blob = repository.blobs.get(asked.digest) if asked.digest else None
        return await self._blob(request, blob) if blob else _error(404, "BLOB_UNKNOWN", "no model here has it")

    async def _list_repositories(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._look()
        await self._until_hashed(self._catalogue.blobs.values())
        paths = (one.path for one in self._catalogue.repositories.values() if self._tags(one))
        return _listing(request, {}, "repositories", sorted(paths))

    async def _list_tags(self, request: web.BaseRequest, asked: Asked, repository: Repository) -> web.StreamResponse:
        await self._until_hashed(repository.blobs.values())
        if tags := self._tags(repository):
            return _listing(request, {"name": asked.repository}, "tags", tags)
        return _error(503, "UNAVAILABLE", "not hashed yet, or damaged", {"Retry-After": str(_RETRY_SECONDS)})

    async def _repository(self, asked: Asked) -> Repository | None:
        if asked.what != "blob":
            await self._look()
        repository = self._catalogue.repository(asked.repository)
        if asked.what == "blob" and (repository is None or asked.digest not in repository.blobs):
            await self._look()
            repository = self._catalogue.repository(asked.repository)
        return repository

    def _tags(self, repository: Repository) -> list[str]:
        """Return the tags whose models are known to be whole."""
        whole = (one for one in repository.tags.values() if self.verification.known(one.blobs) <= {State.READY})
        return sorted(model.name.tag for model in whole)

    def _manifest(self, request: web.BaseRequest, asked: Asked, repository: Repository) -> web.StreamResponse:
        by_digest = repository.manifests.get(asked.digest) if asked.digest else None
        model = by_digest or repository.tags.get(asked.tag.lower())
        if model is None:
            return _error(404, "MANIFEST_UNKNOWN", "no such tag" if asked.tag else "no such manifest")
        if State.DAMAGED in self.verification.known(model.blobs):
            return _error(500, "UNKNOWN", "the model is damaged here; the log of the server names the blob")
        agent = request.headers.get("User-Agent", "")
        kind = _OCI_MANIFEST if agent.startswith(_OCI_CLIENTS) else _manifest_type(model)
        return web.Response(body=model.raw, headers={"Content-Type": kind, **_labels(model.digest)})

    async def _blob(self, request: web.BaseRequest, blob: Descriptor) -> web.StreamResponse:
        content = await asyncio.to_thread(self._supply.opened, blob)
        if content is None:
            return _error(404, "BLOB_UNKNOWN", "the blob is not there any more")
        is_sent = False
        try:
            # Without bytes there is nothing to verify, and Ollama takes no 503 here.
            is_head = request.method == "HEAD"
            state = self.verification.state(blob, content.stamp) if is_head else await self._state(blob, content)
            if state is State.WAITING and not is_head:
                return _error(503, "UNAVAILABLE", "being hashed", {"Retry-After": str(_RETRY_SECONDS)})
            if state is State.DAMAGED:
                return _error(500, "UNKNOWN", "the blob is damaged here; the log of the server says how")
            response, wanted = _blob_head(request, blob)
            if not isinstance(response, _BlobResponse) or is_head or wanted.start == wanted.end:
                return response
            try:
                await response.prepare(request)
            except ConnectionError:
                # The client has left: all that is to be done is its line in the log.
                return response
            is_sent = True
            return await self._send(request, response, content, wanted)
        finally:
            if not is_sent:
                content.close()

    async def _send(
        self, request: web.BaseRequest, response: _BlobResponse, content: Content, wanted: ByteRange
    ) -> web.StreamResponse:
        """Send the bytes of a blob and close its content. If that fails, the connection is reset."""
        transport = request.transport

        def count(sent: int) -> None:
            self.figures.sent_bytes += sent
            response.sent += sent

        try:
            if transport is None or transport.is_closing():
                content.close()
            elif self.sender and transport.get_extra_info("sslcontext") is None:
                await self._until_written(transport, content)
                # -1 if it was closed meanwhile; then sending fails.
                fd = transport.get_extra_info("socket").fileno()
                await self.sender.send(fd, content, *wanted, stall=self.limits.stall, count=count)
            else:
                await self._send_by_loop(response, content, wanted, count)
        except Exception as error:  # noqa: BLE001 - another head must not follow in the middle of the bytes
            if not isinstance(error, OSError):
                told = error if isinstance(error, OstoreError) else f"{type(error).__name__}: {error}"
                self._log(f"{request.raw_path:.300}: aborted: {told}")
            if transport is not None:
                transport.abort()
        return response

    async def _until_written(self, transport: asyncio.Transport, content: Content) -> None:
        """Wait until the head is with the system: what a thread sends must come after it. An error closes `content`."""
        try:
            async with asyncio.timeout(self.limits.stall):
                # A transport tells nobody of this; it has hardly ever to be waited for.
                while transport.get_write_buffer_size():  # noqa: ASYNC110
                    await asyncio.sleep(_MOMENT_SECONDS)
        except BaseException:
            content.close()
            raise

    async def _send_by_loop(
        self, response: web.StreamResponse, content: Content, wanted: ByteRange, count: Callable[[int], None]
    ) -> None:
        try:
            position = wanted.start
            while position < wanted.end:
                chunk = await asyncio.to_thread(content.read, position, min(_CHUNK_BYTES, wanted.end - position))
                async with asyncio.timeout(self.limits.stall):
                    await response.write(chunk)
                position += len(chunk)
                count(len(chunk))
        finally:
            content.close()

    async def _state(self, blob: Descriptor, content: Content) -> State:
        """Return the state of a blob; of one that is not hashed yet, after a while."""
        await self._while(lambda: self.verification.state(blob, content.stamp) is State.WAITING)
        return self.verification.state(blob, content.stamp)

    async def _until_hashed(self, blobs: Collection[Descriptor]) -> None:
        """Wait a while for blobs to be hashed, so that a list that is asked for at the start has what comes soon."""
        await self._while(lambda: State.WAITING in self.verification.known(blobs))

    async def _while(self, is_waiting: Callable[[], bool]) -> None:
        """Wait for as long as a condition holds that news of hashing may end, at most as long as the limit says."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.hash):
                while True:
                    # Before the condition is looked at: what ends it meanwhile is then no news that was missed.
                    news = self._news
                    if not is_waiting():
                        return
                    await news.wait()

    async def _look(self) -> None:
        """Look at the place again, unless that was just done."""
        async with self._look_again:
            if self._loop.time() < self._looked:
                return
            begin = self._loop.time()
            offer = await asyncio.to_thread(self._supply.look)
            await asyncio.to_thread(self._take, offer)
            now = self._loop.time()
            self._looked = now + max(_LOOK_SECONDS, _LOOK_SHARE * (now - begin))

    def _take(self, offer: Offer) -> None:
        models = [model for model in offer.models if self._is_served(model.name)]
        broken = frozenset(name for name in offer.broken if self._is_served(name))
        catalogue, has_doubts = self._catalogue, bool(offer.doubts)
        if (models, broken, has_doubts) != (list(catalogue.models), catalogue.broken, catalogue.has_doubts):
            self._catalogue = Catalogue(models, broken, has_doubts=has_doubts)
        self.verification.want(self._catalogue.blobs.values(), offer.stamps)
        left = {*offer.doubts, *_left_told(offer)}
        for line in sorted(left - self._left):
            self._loop.call_soon_threadsafe(self._log, line)
        self._left = left

    def _metrics(self) -> web.StreamResponse:
        return _text(
            self.figures.metrics(
                self.verification.extent(),
                models=len(self._catalogue.models),
                transfers=self.sender.count if self.sender else 0,
                connections=self.connections(),
                hashed_bytes=self.verification.hashed_bytes,
            ),
            CONTENT_TYPE,
        )

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, seconds: float) -> None:
        """Count a request and log its line."""
        self.figures.requests[response.status] += 1
        moment = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        # A query may have a token.
        line = f"{request.method} {request.raw_path.partition('?')[0]}"
        agent = request.headers.get("User-Agent", "")
        sent = response.sent if isinstance(response, _BlobResponse) else 0
        self._log(
            access_line(
                moment, request.remote or "-", line, status=response.status, sent=sent, seconds=seconds, agent=agent
            )
        )

    def _tell_damaged(self, blob: Descriptor, reason: str) -> None:
        self._loop.call_soon_threadsafe(self._log, f"blob {blob.digest} is damaged and not served: {reason}")

    def _tell_news(self) -> None:
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _left_told(offer: Offer) -> Iterator[str]:
    return (f"{one.subject}: not served: {one.error}" for one in offer.left)


def _blob_head(request: web.BaseRequest, blob: Descriptor) -> tuple[web.StreamResponse, ByteRange]:
    """Return the response that begins the answer for a blob, and the bytes that follow."""
    wanted: ByteRange | str | None = None
    if request.method == "GET" and request.headers.get("If-Range") in {None, _tag(blob.digest)}:
        wanted = read_range(request.headers.get("Range"), blob.size)
    if isinstance(wanted, str):
        refusal = _error(416, "UNSUPPORTED", "no such bytes", {"Content-Range": f"bytes */{blob.size}"})
        return refusal, ByteRange(0, 0)
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **_labels(blob.digest)}
    if wanted is None:
        # Ollama takes a whole answer only with a Location, and then asks there for the parts.
        response = _BlobResponse(headers={**headers, "Location": request.raw_path.partition("?")[0]})
        wanted = ByteRange(0, blob.size)
    else:
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.end - 1}/{blob.size}"
        response = _BlobResponse(status=206, headers=headers)
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


def _listing(request: web.BaseRequest, head: Mapping[str, str], key: str, names: list[str]) -> web.StreamResponse:
    """Return a page of a list: at most `n` names behind `last`."""
    query = request.query
    last, text = query.get("last", ""), query.get("n", "")
    count = (
        min(int(text), _MAX_PAGE) if text.isascii() and text.isdigit() and len(text) < len(str(2**31)) else _MAX_PAGE
    )
    rest = [name for name in names if name > last]
    headers = {}
    if len(rest) > count > 0:
        path = request.raw_path.partition("?")[0]
        headers["Link"] = f'<{quote(path, safe="/:")}?{urlencode({"n": count, "last": rest[count - 1]})}>; rel="next"'
    return _text(json.dumps({**head, key: rest[:count]}) + "\n", _JSON, headers)


def _text(text: str, kind: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=text.encode(), headers={"Content-Type": kind, **_VERSION, **(headers or {})})


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    document = json.dumps({"errors": [{"code": code, "message": message}]}) + "\n"
    return web.Response(
        status=status, body=document.encode(), headers={"Content-Type": _JSON, **_VERSION, **(headers or {})}
    )
