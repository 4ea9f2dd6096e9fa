"""
The one HTTP client. All that it reads is bounded, it waits for nobody for ever, and it never skips verification.

It knows nothing of registries. A request says where to and what; an answer of any status comes back, and the caller
says what it means.
"""

from __future__ import annotations

import http.client
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3

from ostore.formats.errors import LimitError, OstoreError, RemoteError, UsageError
from ostore.formats.remedy import Remedy
from ostore.formats.version import VERSION
from ostore.formats.web_address import is_excepted, is_inward, is_loopback, origin_of, without_secrets
from ostore.streams.http_connection import POOLS
from ostore.streams.http_failures import TOLD_CHARACTERS, translated
from ostore.streams.rate_limit import RateLimit

USER_AGENT = f"ostore/{VERSION}"
# Manifests are the largest answers that are read whole. An error is read no further than people will read it.
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_CONNECT_SECONDS = 15.0
STALL_SECONDS = 30.0
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Of a server that has too much to do at the moment.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REPEATABLE = frozenset({"GET", "HEAD", "PUT"})
_TRIES = 5
# Nobody watches an air gap's other side for longer, and the next try of the command goes on where this one was.
_MAX_WAITING_SECONDS = 300.0
_SLICE_BYTES = 256 * 1024
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class NetworkTerms:
    """
    What holds for all connections of a command.

    `proxies` maps `http`, `https` and `no` to what the environment says. `ca_file` has authorities that are trusted
    beside those of the system. `plain_http` allows connections without TLS to other machines. `limit_rate` is bytes a
    second, of all connections together.
    """

    proxies: Mapping[str, str] = field(default_factory=dict)
    ca_file: Path | None = None
    plain_http: bool = False
    limit_rate: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One request. A body that is an iterable is sent once, so such a request is never repeated."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""
    stall_seconds: float = STALL_SECONDS

    @property
    def told(self) -> str:
        """Method and URL for messages, without what may be secret."""
        return f"{self.method} {without_secrets(self.url)}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read whole. Keys of `headers` are in lower case. `url` is where it came from in the end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class Response:
    """An answer whose body is still to be read. It is a `Forward`. Keys of `headers` are in lower case."""

    def __init__(self, request: Request, response: urllib3.BaseHTTPResponse, rate: RateLimit) -> None:
        self.request = request
        self.url = request.url
        self.status = response.status
        self.headers = {key.lower(): value for key, value in response.headers.items()}
        self._response = response
        # What http.client made. urllib3's own `readinto` makes bytes and copies them, which takes half of the time.
        self._below: http.client.HTTPResponse = response._fp  # type: ignore[attr-defined] # noqa: SLF001
        self._rate = rate

    def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes; empty at the end. Raises RemoteError, LimitError."""
        with translated(self.request.told):
            data: bytes = self._response.read1(min(size, _SLICE_BYTES), decode_content=False) or b""
        self._rate.passed(len(data))
        return data

    def read_into(self, buffer: memoryview) -> int:
        """Fill a buffer, and return how many bytes came: fewer only at the end. Raises RemoteError, LimitError."""
        got = 0
        while got < len(buffer):
            with translated(self.request.told):
                size = self._below.readinto(buffer[got : got + _SLICE_BYTES])
            if not size:
                break
            got += size
            self._rate.passed(size)
        return got

    def read_whole(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the rest of the body. Raises LimitError if it has more than `limit` bytes, and what `read` raises."""
        pieces, size, promised = [], 0, self._below.length or 0
        if promised > limit:
            raise LimitError(f"{self.request.told}: an answer of more than {limit} bytes")
        while data := self.read(_SLICE_BYTES):
            size += len(data)
            if size > limit:
                raise LimitError(f"{self.request.told}: an answer of more than {limit} bytes")
            pieces.append(data)
        if size < promised:
            raise RemoteError(f"{self.request.told}: the answer ended early", is_passing=True)
        return b"".join(pieces)

    def whole(self, limit: int = MAX_ANSWER_BYTES) -> Answer:
        """Return the answer with the rest of its body. Of an error's body, only the beginning is read."""
        if self.status < 400:  # noqa: PLR2004 - RFC 9110: errors begin there
            return Answer(self.status, self.headers, self.read_whole(limit), self.url)
        body = b""
        while len(body) < _MAX_ERROR_BYTES and (data := self.read(_MAX_ERROR_BYTES)):
            body += data
        return Answer(self.status, self.headers, body, self.url)

    def finish(self) -> None:
        """Read to the end if little of the body is left: the connection can be used again then."""
        left = self._below.length
        if left is not None and left <= _SLICE_BYTES:
            with suppress(OstoreError):
                while self.read(_SLICE_BYTES):
                    pass

    def end(self) -> None:
        """Close the connection, unless the answer was read to its end."""
        self._response.close()

    def abort(self) -> None:
        """Let another thread that reads find the end."""
        with suppress(Exception):
            self._response.shutdown()


class Patience:
    """
    How long to wait for a server that fails: a few tries without any progress, and some minutes in all.

    Each thing that is asked for has its own: threads wait side by side, and hours of a command may have many pauses.
    A server that never answers ends the command with the first of them.
    """

    def __init__(self, *, tries: int = _TRIES, seconds: float = _MAX_WAITING_SECONDS) -> None:
        self._tries, self._left = tries, seconds
        self._failures = 0
        self._lock = threading.Lock()

    def progressed(self) -> None:
        """Begin to count anew: something has come."""
        self._failures = 0

    def repeated(self, attempt: Callable[[], _T]) -> _T:
        """Make an attempt, and again after an error that passes. Raises what it raises otherwise, or too often."""
        while True:
            try:
                return attempt()
            except RemoteError as error:
                if not error.is_passing:
                    raise
                self.wait(error)

    def wait(self, problem: RemoteError) -> None:
        """Sleep until it is time to try again. Raises the problem if that was often or long enough."""
        with self._lock:
            # A server that says when to come again has not failed. The minutes in all bound that too.
            self._failures += problem.retry_after is None or problem.retry_after < 1
            # Many clients that fail together should not come back together.
            pause = 2.0 ** max(0, self._failures - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
            seconds = pause if problem.retry_after is None else problem.retry_after
            if self._failures >= self._tries or seconds > self._left:
                # Whoever catches it must not wait again.
                problem.is_passing = False
                raise problem
            self._left -= seconds
        time.sleep(seconds)


class Http:
    """Connections to any number of servers. Several threads may use one. `connections` are kept for each server."""

    def __init__(self, terms: NetworkTerms, *, connections: int = 1) -> None:
        self._terms = terms
        self._connections = connections
        self._lock = threading.Lock()
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self.rate = RateLimit(terms.limit_rate)
        self._is_closed = False

    def close(self) -> None:
        """Close the connections that wait for more requests. A thread that was left behind sends none any more."""
        self._is_closed = True
        for manager in self._managers.values():
            manager.clear()

    def ask(self, request: Request, *, limit: int = MAX_ANSWER_BYTES, patience: Patience | None = None) -> Answer:
        """
        Send a request and read the whole answer, whatever its status. What may be repeated is tried several times.

        Raises RemoteError if no answer comes, LimitError if it is larger than `limit` bytes.
        """
        patience = patience or Patience()
        repeatable = request.method in _REPEATABLE and isinstance(request.body, bytes)
        while True:
            try:
                with self.opened(request) as response:
                    answer = response.whole(limit)
            except RemoteError as error:
                if not repeatable or not error.is_passing:
                    raise
                patience.wait(error)
                continue
            if not repeatable or answer.status not in _PASSING:
                return answer
            patience.wait(refused(request, answer))

    @contextmanager
    def opened(self, request: Request) -> Iterator[Response]:
        """
        Send a request once, follow redirects, and yield the answer of any other status.

        Raises RemoteError, LimitError.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._sent(request)
            try:
                target = response.headers.get("location")
                if response.status not in _REDIRECTS or target is None or request.method not in {"GET", "HEAD"}:
                    yield response
                    response.finish()
                    return
                response.finish()
            finally:
                # Of an answer that was read to its end, the connection is free already, and stays open.
                response.end()
            request = self._redirected(request, target)
        raise RemoteError(f"{request.told}: more than {_MAX_REDIRECTS} redirects")

    def refuse_scheme(self, url: str) -> None:
        """Raises UsageError for a URL that is not https, unless it is of this machine or plain http is allowed."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"{without_secrets(url)!r}: no address of a server; expected https://HOST")
        if parts.scheme == "http" and not self._may_be_plain(parts.hostname):
            raise UsageError(
                f"{without_secrets(url)}: not encrypted", hint="--plain-http allows it, on a network that you trust"
            )

    def _may_be_plain(self, host: str) -> bool:
        return self._terms.plain_http or is_loopback(host)

    def _sent(self, request: Request) -> Response:
        if self._is_closed:
            raise RemoteError(f"{request.told}: not sent, because the command has ended")
        self.refuse_scheme(request.url)
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **request.headers}
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=request.stall_seconds)
        proxy = self._proxy_for(urlsplit(request.url))
        with translated(f"{request.told}, through the proxy that the environment names" if proxy else request.told):
            response = self._manager(proxy).urlopen(
                request.method,
                request.url,
                body=request.body or None,
                headers=headers,
                redirect=False,
                retries=False,
                timeout=timeout,
                preload_content=False,
                decode_content=False,
                # Whoever reads knows how much it has to be.
                enforce_content_length=False,
            )
        return Response(request, response, self.rate)

    def _manager(self, proxy: str | None) -> urllib3.PoolManager:
        with self._lock:
            if proxy not in self._managers:
                self._managers[proxy] = self._made_manager(proxy)
            return self._managers[proxy]

    def _made_manager(self, proxy: str | None) -> urllib3.PoolManager:
        options: dict[str, Any] = {"maxsize": self._connections, "ssl_context": _tls(self._terms.ca_file)}
        if proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            user = urlsplit(proxy)
            secret = f"{unquote(user.username)}:{unquote(user.password or '')}" if user.username else None
            manager = urllib3.ProxyManager(
                proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=secret), **options
            )
        manager.pool_classes_by_scheme = POOLS
        return manager

    def _proxy_for(self, parts: SplitResult) -> str | None:
        """Return the proxy for a server, as Go and curl choose it; none for this machine."""
        proxy = self._terms.proxies.get(parts.scheme)
        if not proxy or is_loopback(parts.hostname or ""):
            return None
        if is_excepted(parts.hostname or "", self._terms.proxies.get("no", "")):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _redirected(self, request: Request, target: str) -> Request:
        """Return the request for where an answer points to. Raises RemoteError if it must not be sent there."""
        try:
            url = urljoin(request.url, target)
            old, new = urlsplit(request.url), urlsplit(url)
            is_same = origin_of(request.url) == origin_of(url)
        except ValueError:
            raise RemoteError(f"{request.told}: redirected to what is no address") from None
        problem = None
        if new.scheme not in {"http", "https"} or not new.hostname or "@" in new.netloc:
            problem = "is no address"
        elif new.scheme == "http" and (old.scheme == "https" or not self._may_be_plain(new.hostname)):
            problem = "is not encrypted"
        elif is_inward(new.hostname) and not is_inward(old.hostname or ""):
            problem = "is an address of this machine or of its link"
        if problem:
            raise RemoteError(f"{request.told}: redirected to {without_secrets(url)}, which {problem}")
        headers = request.headers
        if not is_same:
            # It was issued for the first one.
            headers = {key: value for key, value in headers.items() if key.lower() != "authorization"}
        return replace(request, url=url, headers=headers)


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """Return what servers are verified with. Raises UsageError for a file of authorities that is none."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise UsageError(f"{ca_file}: no certificates in PEM form", parameter="ca-file") from None
        except OSError as error:
            raise UsageError(f"{ca_file}: {error.strerror}", parameter="ca-file") from None
    return context


def refused(request: Request, answer: Answer, *, hint: Remedy | str | None = None) -> RemoteError:
    """Return the error for an answer that is not what was asked for: its status, and the beginning of what it says."""
    text = answer.body.decode("utf-8", "replace").strip()
    said = f": {text[:TOLD_CHARACTERS]!r}" if text else ""
    phrase = f" {http.client.responses[answer.status]}" if answer.status in http.client.responses else ""
    return RemoteError(
        f"{request.told}: {answer.status}{phrase}{said}",
        hint=hint,
        status=answer.status,
        is_passing=answer.status in _PASSING,
        retry_after=_retry_after(answer.headers),
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks to wait, or None. A date is not understood: our clock may be wrong."""
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None
