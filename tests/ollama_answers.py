"""
A double of a running Ollama. It answers from a store as a real one does, but for the answers that a test puts in place.

It is there because a real one cannot be told to misbehave, and is not installed everywhere. tests/test_probe.py asks it
and a real one the same questions.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL = "application/vnd.ollama.image.model"
# What a test puts in place of an answer: a status and bytes, or a function that writes what it likes.
Answer = tuple[int, bytes] | Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One request, and the way to answer it."""

    handler: BaseHTTPRequestHandler
    body: Any

    def send(self, status: int, data: bytes, kind: str = "application/json") -> None:
        self.handler.send_response(status)
        self.handler.send_header("Content-Type", kind)
        self.handler.send_header("Content-Length", str(len(data)))
        self.handler.end_headers()
        if self.handler.command != "HEAD":
            self.handler.wfile.write(data)

    def stream(self, *pieces: bytes) -> None:
        """Answer 200 with what ends when the connection does."""
        self.handler.send_response(200)
        self.handler.send_header("Connection", "close")
        self.handler.end_headers()
        for piece in pieces:
            self.handler.wfile.write(piece)
            self.handler.wfile.flush()
        self.handler.close_connection = True


@dataclass
class AnsweringOllama:
    """`asked` has every request, as `POST /api/show`, with its body."""

    store: Path
    version: str = "0.33.0"
    answers: Mapping[str, Answer] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ("completion",)
    loaded: tuple[str, ...] = ()
    folder: str | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def manifests(self) -> dict[str, bytes]:
        found = {}
        for path in sorted(self.store.glob("manifests/*/*/*/*")):
            host, space, model, tag = path.relative_to(self.store / "manifests").parts
            prefix = "" if host == "registry.ollama.ai" else f"{host}/"
            prefix += "" if not prefix and space == "library" else f"{space}/"
            found[f"{prefix}{model}:{tag}"] = path.read_bytes()
        return found

    def tags(self) -> list[dict[str, Any]]:
        """What it lists. A model without its config is hidden."""
        return [
            {"name": name, "digest": hashlib.sha256(raw).hexdigest()}
            for name, raw in self.manifests().items()
            if self.has(json.loads(raw)["config"]["digest"])
        ]

    def has(self, digest: str) -> bool:
        return (self.store / "blobs" / digest.replace(":", "-")).exists()

    def answer(self, exchange: Exchange) -> None:
        handler = exchange.handler
        what = f"{handler.command} {handler.path}"
        self.asked.append((what, exchange.body))
        planned = self.answers.get(what) or self.answers.get(f"{handler.command} *")
        if callable(planned):
            planned(exchange)
        elif planned is not None:
            exchange.send(*planned)
        elif handler.command == "HEAD":
            exchange.send(200 if self.has(handler.path.rpartition("/")[2]) else 404, b"")
        elif what in {"POST /api/generate", "POST /v1/chat/completions"}:
            exchange.stream(*self._words(what, exchange.body))
        else:
            document = self._document(what, exchange.body)
            exchange.send(404 if document is None else 200, json.dumps(document or {"error": "not found"}).encode())

    def _document(self, what: str, body: Any) -> object:  # noqa: ANN401 - JSON
        if what == "POST /api/show":
            return self._shown(body["model"])
        tags = self.tags()
        return {
            "GET /api/version": {"version": self.version},
            "GET /api/tags": {"models": tags},
            "GET /api/ps": {"models": [model for model in tags if model["name"] in self.loaded]},
            "GET /v1/models": {"object": "list", "data": [{"id": model["name"]} for model in tags] or None},
            "POST /api/embed": {"embeddings": [[0.5, 1, -2.5]], "load_duration": 1000},
            "POST /v1/embeddings": {"data": [{"embedding": [0.5, 1, -2.5]}]},
        }.get(what)

    def _shown(self, name: str) -> dict[str, Any] | None:
        raw = self.manifests().get(name)
        if raw is None:
            return None
        manifest = json.loads(raw)
        folder = self.folder or f"{self.store}/blobs"
        paths = [f"{folder}/{x['digest'].replace(':', '-')}" for x in manifest["layers"] if x["mediaType"] == MODEL]
        text = "# Modelfile\n\n" + "".join(f"FROM {path}\n" for path in paths) + "SYSTEM says\nFROM /x/sha256-1\n"
        return {"modelfile": text, "capabilities": list(self.capabilities)}

    def _words(self, what: str, body: Any) -> Iterator[bytes]:  # noqa: ANN401
        if body.get("keep_alive") == 0:
            yield b'{"done":true,"done_reason":"unload"}\n'
        elif what == "POST /api/generate":
            yield b'{"response":"hel","done":false}\n{"response":"lo"'
            yield b',"done":false}\n'
            yield b'{"response":"","done":true,"eval_count":2,"eval_duration":500000000,"load_duration":1000000000}\n'
        else:
            yield b'data: {"choices":[{"delta":{"content":"hello"},"finish_reason":null}]}\n\n'
            yield b'data: {"choices":[{"delta":{"content":""},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@contextmanager
def answering(double: AnsweringOllama) -> Iterator[str]:
    """Serve on a free loopback port, and yield the URL."""

    class Exchanges(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                double.answer(Exchange(self, json.loads(body) if body else None))
            except OSError:
                # The client has gone, as it should from some of the answers.
                self.close_connection = True

        do_POST = do_HEAD = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Exchanges)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
