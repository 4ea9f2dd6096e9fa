"""A proxy in front of a real registry, which notes all requests, and answers in its place where a test says so."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PIECE = 64 * 1024
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


@dataclass
class Noted:
    """One request: the bytes of its body that came, and the status of the answer; 0 if the connection was cut."""

    method: str
    path: str
    authorization: str | None
    size: int = 0
    status: int = 0


# Returns an answer in place of the registry's, or None; it is asked before the body is read.
Instead = Callable[[Noted], tuple[int, dict[str, str], bytes] | None]
# Returns the headers of an answer as they are to be sent.
Changed = Callable[[Noted, dict[str, str]], dict[str, str]]


@dataclass
class Proxy:
    """
    A running proxy. `cut_after` is how many bytes of bodies it takes before it cuts each connection, once.

    `ports` maps the beginning of a path to the port of another server.
    """

    port: int
    upstream: int
    requests: list[Noted] = field(default_factory=list)
    instead: Instead = lambda _noted: None
    changed: Changed = lambda _noted, headers: headers
    cut_after: int | None = None
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def sent(self) -> int:
        """The bytes of all bodies."""
        return sum(noted.size for noted in self.requests)


class _Forwarding(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def forward(self) -> None:
        proxy = self.proxy
        noted = Noted(self.command, self.path, self.headers["Authorization"])
        proxy.requests.append(noted)
        if answer := proxy.instead(noted):
            noted.status = answer[0]
            # What is left of the body would be taken for the next request.
            self.close_connection = True
            self._answer(answer[0], {**answer[1], "Content-Length": str(len(answer[2])), "Connection": "close"})
            self.wfile.write(answer[2])
            return
        port = next((port for start, port in proxy.ports.items() if self.path.startswith(start)), proxy.upstream)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders()
            left = int(self.headers["Content-Length"] or 0)
            while left:
                data = self.rfile.read(min(left, _PIECE))
                if not data:
                    self.close_connection = True
                    return
                if proxy.cut_after is not None and proxy.sent + len(data) > proxy.cut_after:
                    proxy.cut_after = None
                    self.close_connection = True
                    return
                noted.size += len(data)
                left -= len(data)
                connection.send(data)
            response = connection.getresponse()
            body = response.read()
        noted.status = response.status
        headers = {name: value for name, value in response.getheaders() if name.lower() != "transfer-encoding"}
        if self.command != "HEAD":
            headers["Content-Length"] = str(len(body))
        self._answer(response.status, proxy.changed(noted, headers))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that is killed is no error."""


@contextlib.contextmanager
def proxy_of(upstream: int) -> Iterator[Proxy]:
    """Run a proxy of a server on loopback."""
    with _QuietServer(("127.0.0.1", 0), _Forwarding) as server:
        proxy = Proxy(server.server_address[1], upstream)
        methods = {f"do_{method}": _Forwarding.forward for method in _METHODS}
        server.RequestHandlerClass = type("_Of", (_Forwarding,), {"proxy": proxy, **methods})
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
