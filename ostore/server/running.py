"""Run the server until it is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from ostore.server.registry import Registry
from ostore.server.supplies import Offer

# A request line or a field of a head. Tokens of real registries have some 2 kB.
_MAX_LINE = 8190
_MAX_FIELDS = 64
_SWEEP_SECONDS = 1.0
# What a request that we refused may still send.
_LINGER_SECONDS = 1.0
_SHUTDOWN_SECONDS = 2.0
_TLS_SECONDS = 10.0
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


def run(
    made: Callable[[], Registry],
    offer: Offer,
    listening: socket.socket,
    tls: ssl.SSLContext | None,
    *,
    started: Callable[[], None],
    ended: Callable[[], None],
) -> Registry:
    """
    Answer requests until a signal or Ctrl-C ends it, and return the registry with its figures.

    `made` is called in the event loop. `started` is called when clients can connect, and `ended`
    when no more can.
    """
    registries: list[Registry] = []

    async def main() -> None:
        registries.append(registry := made())
        registry.start(offer)
        await serve(registry, listening, tls, started=started, ended=ended, stop=asyncio.Event())

    with listening:
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            # Windows alone: elsewhere Ctrl-C sets `stop`.
            if not registries:
                raise
    return registries[0]


async def serve(
    registry: Registry,
    listening: socket.socket,
    tls: ssl.SSLContext | None,
    *,
    started: Callable[[], None],
    ended: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Answer requests until `stop` is set. `started` is called when clients can connect."""
    server = _Server(
        registry.answer,
        most=registry.limits.connections,
        access_log=cast("logging.Logger", registry),
        access_log_class=_AccessLog,
        logger=_silent(),
        keepalive_timeout=registry.limits.head,
        lingering_time=_LINGER_SECONDS,
        max_line_size=_MAX_LINE,
        max_field_size=_MAX_LINE,
        max_headers=_MAX_FIELDS,
        auto_decompress=False,
    )
    registry.connections = lambda: len(server.connections)

    loop = asyncio.get_running_loop()
    handshake = _TLS_SECONDS if tls else None
    listener = await loop.create_server(server.next_protocol, sock=listening, ssl=tls, ssl_handshake_timeout=handshake)
    sweeping = asyncio.create_task(_sweep(server, registry))
    try:
        with _stopping_at_signals(loop, stop):
            started()
            await stop.wait()
    finally:
        sweeping.cancel()
        listener.close()
        ended()
        server.pre_shutdown()
        registry.stop()
        await server.shutdown(_SHUTDOWN_SECONDS)


class _Server(web.Server):
    """Makes no more than `most` connections."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        most: int,
        **options: Any,  # noqa: ANN401 - those of aiohttp
    ) -> None:
        super().__init__(handler, **options)
        self._most = most
        # Those whose connection is not made yet, and until when it has to be: with TLS, after the handshake.
        self._coming: dict[web.RequestHandler, float] = {}

    def next_protocol(self) -> asyncio.Protocol:
        """Return what answers the next connection."""
        now = asyncio.get_running_loop().time()
        self._coming = {one: until for one, until in self._coming.items() if until > now}
        if len(self.connections) + len(self._coming) >= self._most:
            return _Refusal()
        self._coming[protocol := self()] = now + _TLS_SECONDS
        return protocol

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._coming.pop(handler, None)
        super().connection_made(handler, transport)


class _Refusal(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


class _AccessLog(AbstractAccessLogger):
    """Hands each request to the registry, also those that are no HTTP."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        cast("Registry", self.logger).log_access(request, response, time)


async def _sweep(server: web.Server, registry: Registry) -> None:
    """Abort connections that have had no request under way for too long, half a request included."""
    loop = asyncio.get_running_loop()
    limit = registry.limits.head
    seen: dict[web.RequestHandler, float] = {}
    while True:
        await asyncio.sleep(min(_SWEEP_SECONDS, limit / 2))
        now = loop.time()
        seen = {one: max(seen.get(one, now), registry.answered.get(one, 0)) for one in server.connections}
        registry.answered = {one: registry.answered[one] for one in seen if one in registry.answered}
        for one, since in seen.items():
            if one not in registry.busy and now - since > limit and one.transport is not None:
                one.transport.abort()


@contextlib.contextmanager
def _stopping_at_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    """Let signals set `stop`. In any thread but the first, and on Windows, they do what they did."""
    before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
    for name in _SIGNALS:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
            number = getattr(signal, name)
            kept = signal.getsignal(number)
            loop.add_signal_handler(number, stop.set)
            before[number] = kept
    try:
        yield
    finally:
        for number, kept in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, kept if kept is not None else signal.SIG_DFL)


def _silent() -> logging.Logger:
    """Return a logger that keeps quiet: what a person should know, the registry logs."""
    logger = logging.Logger("ostore.server")  # noqa: LOG001 - it belongs to nobody else
    logger.addHandler(logging.NullHandler())
    return logger


def notify(address: str, state: str) -> None:
    """
    Tell systemd a state: `READY=1` or `STOPPING=1`. `address` is what NOTIFY_SOCKET says; empty if nobody asks.

    Source: sd_notify(3). Nothing is raised: a service that cannot tell still serves.
    """
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        # A name with '@' is in the abstract namespace.
        told.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        told.send(state.encode())
