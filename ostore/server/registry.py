"""
Answer requests as a read-only registry does: the distribution API, as Ollama, skopeo and oras use it.

Nothing is written, and no path is made of what a client sends: it is looked up among what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from ostore.formats.errors import OstoreError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.server.catalogue import Catalogue, Repository
from ostore.server.contents import Content
from ostore.server.figures import CONTENT_TYPE, Figures, access_line, health
from ostore.server.requests import Asked, BadPathError, ByteRange, Doorman, read_path
from ostore.server.responses import JSON, BlobResponse, blob_head, failure, listing, manifest, path_of, plain
from ostore.server.sending import CAN_SEND, Sender
from ostore.server.supplies import Offer, Supply
from ostore.server.verification import State, Verification

# What a client is told to wait if its blob is not hashed yet.
_RETRY_SECONDS = 5
# A place is looked at again after so long, and after so many times as long as looking takes.
_LOOK_SECONDS, _LOOK_SHARE = 1.0, 20
# Through TLS, and where the system cannot send a file, each connection holds so much.
_CHUNK_BYTES = 64 * 1024
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
            self._log(f"{path_of(request):.300}: {type(error).__name__}: {error}")
            return failure(500, "UNKNOWN", "the server cannot read it; its log says why")
        finally:
            self.busy.discard(request.protocol)
            self.answered[request.protocol] = self._loop.time()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1:
            return failure(400, "UNSUPPORTED", "expected one Host")
        if not self._doorman.accepts_host(hosts[0]):
            return failure(403, "DENIED", "not a name of this server")
        if request.method not in {"GET", "HEAD"}:
            return failure(405, "UNSUPPORTED", "read only", {"Allow": "GET, HEAD"})
        path = path_of(request)
        if path == "/healthz":
            return plain(health(self.verification.extent(), len(self._catalogue.models), left=len(self._left)), JSON)
        if not self._doorman.accepts_token(request.headers.get("Authorization")):
            return failure(401, "UNAUTHORIZED", "a token is needed", {"WWW-Authenticate": 'Basic realm="ostore"'})
        return await self._answer_known(request, path)

    async def _answer_known(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if path in {"/v2", "/v2/"}:
            return plain("{}", JSON)
        if path == "/metrics":
            return self._metrics()
        if path == "/v2/_catalog":
            return await self._list_repositories(request)
        try:
            asked = read_path(request.raw_path)
        except BadPathError:
            return failure(400, "DIGEST_INVALID" if "/blobs/" in path else "MANIFEST_INVALID", "no tag and no digest")
        return await self._answer_about(request, asked) if asked else failure(404, "NAME_UNKNOWN", "no such path")

    async def _answer_about(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        repository = await self._repository(asked)
        if asked.what == "manifest" and asked.tag and self._catalogue.may_be_broken(asked.repository, asked.tag):
            return failure(
                500, "UNKNOWN", "the model is damaged here, or its folder cannot be read; the log says which"
            )
        if repository is None:
            return failure(404, "NAME_UNKNOWN", "no such model")
        if asked.what == "tags":
            return await self._list_tags(request, asked, repository)
        if asked.what == "manifest":
            return self._manifest(request, asked, repository)
        blob = repository.blobs.get(asked.digest) if asked.digest else None
        return await self._blob(request, blob) if blob else failure(404, "BLOB_UNKNOWN", "no model here has it")

    async def _list_repositories(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._look()
        await self._until_hashed(self._catalogue.blobs.values())
        paths = (one.path for one in self._catalogue.repositories.values() if self._tags(one))
        return listing(request, {}, "repositories", sorted(paths))

    async def _list_tags(self, request: web.BaseRequest, asked: Asked, repository: Repository) -> web.StreamResponse:
        await self._until_hashed(repository.blobs.values())
        if tags := self._tags(repository):
            return listing(request, {"name": asked.repository}, "tags", tags)
        return failure(503, "UNAVAILABLE", "not hashed yet, or damaged", {"Retry-After": str(_RETRY_SECONDS)})

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
            return failure(404, "MANIFEST_UNKNOWN", "no such tag" if asked.tag else "no such manifest")
        if State.DAMAGED in self.verification.known(model.blobs):
            return failure(500, "UNKNOWN", "the model is damaged here; the log of the server names the blob")
        return manifest(request, model)

    async def _blob(self, request: web.BaseRequest, blob: Descriptor) -> web.StreamResponse:
        content = await asyncio.to_thread(self._supply.opened, blob)
        if content is None:
            return failure(404, "BLOB_UNKNOWN", "the blob is not there any more")
        is_sent = False
        try:
            # Without bytes there is nothing to verify, and Ollama takes no 503 here.
            is_head = request.method == "HEAD"
            state = self.verification.state(blob, content.stamp) if is_head else await self._state(blob, content)
            if state is State.WAITING and not is_head:
                return failure(503, "UNAVAILABLE", "being hashed", {"Retry-After": str(_RETRY_SECONDS)})
            if state is State.DAMAGED:
                return failure(500, "UNKNOWN", "the blob is damaged here; the log of the server says how")
            response, wanted = blob_head(request, blob)
            if not isinstance(response, BlobResponse) or is_head or wanted.start == wanted.end:
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
        self, request: web.BaseRequest, response: BlobResponse, content: Content, wanted: ByteRange
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
                self._log(f"{path_of(request):.300}: aborted: {told}")
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
        return plain(
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
        line = f"{request.method} {path_of(request)}"
        agent = request.headers.get("User-Agent", "")
        sent = response.sent if isinstance(response, BlobResponse) else 0
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
