"""
Connections for `streams/http` that bound the head of an answer and give up on a peer that stalls.

http.client waits for ever for a peer that sends a byte now and then, and it reads any number of interim answers. Every
byte of an answer passes through `_Inflow`, so both end.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from http import HTTPStatus
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ostore.formats.errors import LimitError

# Registries send less than 4 KiB. nginx, Apache and Go refuse heads of more than 8 KiB to 1 MiB.
MAX_HEAD_BYTES = 64 * 1024
# A peer that sends less in the time that counts as a stall will not end within a lifetime.
_LEAST_BYTES = 1024
_BUFFER_BYTES = 16 * 1024


class _Inflow(io.RawIOBase):
    """The bytes that a socket receives."""

    def __init__(self, raw: io.RawIOBase, stall_seconds: float | None) -> None:
        super().__init__()
        self._raw = raw
        self._stall_seconds = stall_seconds
        self._waited = 0.0
        self._received = 0
        self.head_bytes: int | None = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any writable buffer, as of RawIOBase
        """Receive bytes. Raises LimitError for a head that is too long, TimeoutError for too few bytes, OSError."""
        began = time.monotonic()
        size: int = self._raw.readinto(buffer) or 0
        self._waited += time.monotonic() - began
        self._received += size
        if self.head_bytes is not None:
            self.head_bytes += size
            if self.head_bytes > MAX_HEAD_BYTES + _BUFFER_BYTES:
                raise LimitError(f"the head of an answer is longer than {MAX_HEAD_BYTES} bytes")
        if self._stall_seconds is not None and self._waited >= self._stall_seconds:
            if self._received < _LEAST_BYTES:
                raise TimeoutError("timed out")
            self._waited, self._received = 0.0, 0
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    """An answer whose bytes pass through `_Inflow`."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:  # noqa: ANN401 - of http.client
        super().__init__(sock, *args, **options)
        self._inflow = _Inflow(self.fp.detach(), sock.gettimeout())
        self.fp = io.BufferedReader(self._inflow, _BUFFER_BYTES)

    def begin(self) -> None:
        """Read the head. Raises LimitError, TimeoutError, HTTPException, OSError."""
        try:
            super().begin()
        except (http.client.LineTooLong, http.client.HTTPException) as error:
            if isinstance(error, http.client.LineTooLong) or "headers" in str(error):
                raise LimitError(f"the head of an answer is too long: {error}") from None
            raise
        self._inflow.head_bytes = None

    def _read_status(self) -> tuple[str, int, str]:
        """Return the status line. Each interim answer is 100, the only one that http.client passes over."""
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, status if status >= HTTPStatus.OK else HTTPStatus.CONTINUE, reason

    def _read_and_discard_trailer(self) -> None:
        """Pass over the headers after a body in chunks. They are bounded as those before it."""
        self._inflow.head_bytes = 0
        super()._read_and_discard_trailer()  # type: ignore[misc]
        self._inflow.head_bytes = None


class _Connection(HTTPConnection):
    response_class = _BoundedResponse


class _SecureConnection(HTTPSConnection):
    response_class = _BoundedResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


POOLS = {"http": _Pool, "https": _SecurePool}
