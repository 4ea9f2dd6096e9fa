"""
A registry on loopback that answers exactly as a test says, byte by byte. No real one lies, stalls or floods on order.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """A request as it came in. Keys of `headers` are in lower case."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def span(self) -> tuple[int, int] | None:
        """The first byte and the one after the last of a range, if one is asked for."""
        text = self.headers.get("range", "").removeprefix("bytes=")
        first, dash, last = text.partition("-")
        return (int(first), int(last) + 1) if dash else None


Answers = Callable[[Asked], Iterable[bytes]]


def answer(body: bytes = b"", status: str = "200 OK", length: int | None = None, **headers: str) -> Iterator[bytes]:
    """An answer of HTTP, in two pieces."""
    sent = {"Content-Length": str(len(body) if length is None else length)}
    sent |= {key.replace("_", "-"): value for key, value in headers.items()}
    head = "".join(f"{key}: {value}\r\n" for key, value in sent.items() if value)
    yield f"HTTP/1.1 {status}\r\n{head}\r\n".encode()
    yield body


def blob(content: bytes, asked: Asked) -> Iterator[bytes]:
    """What an honest registry answers for a blob."""
    if asked.span is None:
        return answer(content)
    first, end = asked.span
    return answer(content[first:end], "206 Partial Content", Content_Range=f"bytes {first}-{end - 1}/{len(content)}")


def of_store(root: Path) -> Answers:
    """What an honest registry answers that has the models of a store, under any host."""

    def answers(asked: Asked) -> Iterator[bytes]:
        _, _, namespace, model, kind, reference = asked.path.split("/")
        found = [
            *root.glob(f"manifests/*/{namespace}/{model}/{reference}"),
            root / "blobs" / reference.replace(":", "-"),
        ]
        path = found[0]
        if not path.is_file():
            return answer(b"", "404 Not Found")
        return blob(path.read_bytes(), asked) if kind == "blobs" else answer(path.read_bytes())

    return answers


@dataclass
class FalseRegistry:
    """What it was asked, and how to reach it."""

    port: int
    asked: list[Asked] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [one.path for one in self.asked]


@contextlib.contextmanager
def false_registry(answers: Answers, *, port: int = 0) -> Iterator[FalseRegistry]:
    """Run one. After each answer the connection is kept, unless the answer raises ConnectionError."""
    with socket.create_server(("127.0.0.1", port), backlog=64) as listening:
        registry = FalseRegistry(listening.getsockname()[1])
        ended = threading.Event()
        connections: list[socket.socket] = []

        def serve(connection: socket.socket) -> None:
            with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as lines:
                while not ended.is_set() and (line := lines.readline()):
                    method, path, _ = line.decode("latin-1").split(" ", 2)
                    heads = iter(lambda: lines.readline().decode("latin-1").strip(), "")
                    headers = {key.lower(): value.strip() for key, _, value in (head.partition(":") for head in heads)}
                    lines.read(int(headers.get("content-length", "0")))
                    asked = Asked(method, path, headers)
                    registry.asked.append(asked)
                    for piece in answers(asked):
                        connection.sendall(piece)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    # Else the second piece waits until the first is confirmed.
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connections.append(connection)
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield registry
        finally:
            ended.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
