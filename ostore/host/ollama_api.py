"""
A client of a running Ollama: its own API, and the one that it has in common with OpenAI.

Nothing that it answers is believed to be short, whole or of the right type. An answer of status 200 can still be a
failure: a server that has begun to answer has no other way to say so than another line.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ostore.formats.digest import Digest, blob_digest
from ostore.formats.errors import FormatError, LimitError, OstoreError, RemoteError
from ostore.formats.json_reading import read_strict_json
from ostore.streams.http import Answer, Http, Request, Response, refused

# A list has half a kilobyte a model, so this is a store of 30,000. The details of a model have less than 1 MB.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
# A few tokens have some hundred bytes each.
MAX_SPOKEN_BYTES = 1024 * 1024
MAX_LINE_BYTES = 256 * 1024
# Of an answer, whatever pauses it makes.
_MAX_ANSWER_SECONDS = 300.0
_READ_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 200
_OK, _NOT_FOUND = 200, 404

_PROMPT = "Say one word."
# A model that thinks first has begun by then, too.
_TOKENS = 8
_NANOSECOND = 1e-9


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a server lists. `digest` is that of its manifest as the server sees it."""

    name: str
    digest: Digest
    is_stub: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """
    What a server says of one model.

    `files` are the paths of its weights, adapters and projectors, as the server sees them. `capabilities` are Ollama's
    words; a server before 0.6.4 has none, and then these are what follows from the header of the weights.
    """

    files: tuple[str, ...]
    capabilities: tuple[str, ...]

    @property
    def digests(self) -> frozenset[Digest]:
        """The digests in the names of the files."""
        names = (path.replace("\\", "/").rpartition("/")[2].replace(":", "-") for path in self.files)
        return frozenset(digest for name in names if (digest := blob_digest(name)))


@dataclass(frozen=True, slots=True)
class Spoken:
    """
    What a model answered. `seconds` went by until its first token came, and with it the loading of the model.

    `load_seconds` and `tokens_per_second` are the server's own figures, or None. An embedding model has `dimensions`
    and no text.
    """

    text: str
    seconds: float
    tokens: int | None = None
    load_seconds: float | None = None
    tokens_per_second: float | None = None
    dimensions: int | None = None


class OllamaApi:
    """
    The server at `url`.

    It may be silent for `seconds`, and for `model_seconds` when a model has to be loaded. Every method raises
    RemoteError if the server cannot be reached or answers something else, and LimitError if it answers too much.
    """

    def __init__(self, url: str, http: Http, *, seconds: float, model_seconds: float) -> None:
        self.url = url
        self._http = http
        self._seconds = seconds
        self._model_seconds = model_seconds

    def version(self) -> str:
        """Return the version. `status` of the RemoteError is None if nothing answered."""
        request = self._request("GET", "/api/version")
        try:
            version = self._json(request).get("version")
        except RemoteError as error:
            if error.status is None:
                raise
            raise RemoteError(f"{self.url}: not an Ollama: {error}", status=error.status) from None
        if not isinstance(version, str) or not version:
            raise RemoteError(f"{self.url}: not an Ollama: {request.told} has no version", status=_OK)
        return version[:_SHOWN_CHARACTERS]

    def models(self) -> tuple[ServedModel, ...]:
        """Return the models that it lists."""
        request = self._request("GET", "/api/tags")
        return tuple(
            ServedModel(_text(entry, "name", request), _digest(entry, request), bool(entry.get("remote_host")))
            for entry in _objects(self._json(request), "models", request)
        )

    def loaded(self) -> Mapping[str, Digest]:
        """
        Return the models that are in memory, by name, with the digests that their manifests had then.

        The first releases do not tell.
        """
        request = self._request("GET", "/api/ps")
        answer = self._answer(request)
        if answer.status == _NOT_FOUND:
            return {}
        entries = _objects(self._parsed(request, answer), "models", request)
        return {_text(entry, "name", request): _digest(entry, request) for entry in entries}

    def openai_names(self) -> frozenset[str]:
        """Return the names that the API of OpenAI lists."""
        request = self._request("GET", "/v1/models")
        return frozenset(_text(entry, "id", request) for entry in _objects(self._json(request), "data", request))

    def show(self, name: str) -> Shown:
        """Return what it says of a model. It opens the weights for that."""
        document = self._json(self._request("POST", "/api/show", {"model": name, "name": name}))
        modelfile, words = document.get("modelfile"), document.get("capabilities")
        if not isinstance(words, list):
            about = document.get("model_info")
            pools = isinstance(about, dict) and f"{about.get('general.architecture')}.pooling_type" in about
            words = ["embedding" if pools else "completion"]
        files = tuple(_files_of(modelfile)) if isinstance(modelfile, str) else ()
        return Shown(files, tuple(word for word in words if isinstance(word, str)))

    def has_blob(self, digest: Digest) -> bool:
        """Return whether it has a file for a blob. Its bytes may be others."""
        request = self._request("HEAD", f"/api/blobs/{digest}")
        answer = self._answer(request)
        if answer.status not in {_OK, _NOT_FOUND}:
            raise refused(request, answer)
        return answer.status == _OK

    def generate(self, name: str) -> Spoken:
        """Let a model say a word over Ollama's API. It counts only if the answer ends with `done` and has no error."""
        options = {"num_predict": _TOKENS, "temperature": 0, "seed": 1}
        body = {"model": name, "prompt": _PROMPT, "stream": True, "options": options}
        request = self._request("POST", "/api/generate", body)
        began, first, text, end = time.monotonic(), None, "", None
        for line in self._lines(request):
            document = _document(line, request)
            piece = "".join(word for key in ("thinking", "response") if isinstance(word := document.get(key), str))
            if first is None and piece:
                first = time.monotonic() - began
            text += piece
            end = document if document.get("done") is True else end
        if end is None:
            raise RemoteError(f"{request.told}: the answer ended before it was done", status=_OK)
        count, nanoseconds, load = (_count(end, key) for key in ("eval_count", "eval_duration", "load_duration"))
        return Spoken(
            text[:_SHOWN_CHARACTERS],
            time.monotonic() - began if first is None else first,
            count,
            None if load is None else load * _NANOSECOND,
            count / (nanoseconds * _NANOSECOND) if count and nanoseconds else None,
        )

    def chat_as_openai(self, name: str) -> Spoken:
        """Let a model say a word over the API of OpenAI. It counts only if the answer ends with its mark of the end."""
        messages = [{"role": "user", "content": _PROMPT}]
        body = {"model": name, "messages": messages, "stream": True, "max_tokens": _TOKENS, "temperature": 0, "seed": 1}
        request = self._request("POST", "/v1/chat/completions", body)
        began, first, text, is_finished, is_done = time.monotonic(), None, "", False, False
        for line in self._lines(request):
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                is_done = True
                continue
            document = _document(data, request)
            for choice in _objects(document, "choices", request):
                delta = choice.get("delta")
                pieces = (delta.get(key) for key in ("reasoning", "content")) if isinstance(delta, dict) else ()
                piece = "".join(word for word in pieces if isinstance(word, str))
                if first is None and piece:
                    first = time.monotonic() - began
                text += piece
                is_finished = is_finished or isinstance(choice.get("finish_reason"), str)
        if not (is_finished and is_done):
            raise RemoteError(f"{request.told}: the answer ended before it was done", status=_OK)
        return Spoken(text[:_SHOWN_CHARACTERS], time.monotonic() - began if first is None else first)

    def embed(self, name: str) -> Spoken:
        """Let an embedding model embed a text over Ollama's API."""
        request = self._request("POST", "/api/embed", {"model": name, "input": _PROMPT}, self._model_seconds)
        began = time.monotonic()
        document = self._json(request)
        vectors = document.get("embeddings")
        load = _count(document, "load_duration")
        return Spoken(
            "",
            time.monotonic() - began,
            load_seconds=None if load is None else load * _NANOSECOND,
            dimensions=_dimensions(vectors[0] if isinstance(vectors, list) and vectors else None, request),
        )

    def embed_as_openai(self, name: str) -> Spoken:
        """Let an embedding model embed a text over the API of OpenAI."""
        request = self._request("POST", "/v1/embeddings", {"model": name, "input": _PROMPT}, self._model_seconds)
        began = time.monotonic()
        entries = _objects(self._json(request), "data", request)
        vector = entries[0].get("embedding") if entries else None
        return Spoken("", time.monotonic() - began, dimensions=_dimensions(vector, request))

    def unload(self, name: str) -> None:
        """Take a model out of memory."""
        self._json(self._request("POST", "/api/generate", {"model": name, "keep_alive": 0, "stream": False}))

    def _request(
        self, method: str, path: str, body: Mapping[str, object] | None = None, seconds: float | None = None
    ) -> Request:
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = b"" if body is None else json.dumps(body).encode()
        return Request(method, f"{self.url}{path}", headers, data, seconds or self._seconds)

    def _json(self, request: Request) -> dict[str, Any]:
        """Return the object that a server answers with. Raises RemoteError for another answer or an error in it."""
        return self._parsed(request, self._answer(request))

    def _parsed(self, request: Request, answer: Answer) -> dict[str, Any]:
        if answer.status != _OK:
            raise _refused(request, answer)
        return _document(answer.body, request)

    def _answer(self, request: Request) -> Answer:
        with self._http.opened(request) as response:
            body = b"".join(_pieces(response, MAX_ANSWER_BYTES, max(_MAX_ANSWER_SECONDS, request.stall_seconds)))
            return Answer(response.status, response.headers, body, response.url)

    def _lines(self, request: Request) -> Iterator[bytes]:
        """Yield the lines of an answer that comes in pieces, without those that are empty."""
        with self._http.opened(
            Request(request.method, request.url, request.headers, request.body, self._model_seconds)
        ) as (response):
            if response.status != _OK:
                body = b"".join(_pieces(response, MAX_ANSWER_BYTES, _MAX_ANSWER_SECONDS))
                raise _refused(request, Answer(response.status, response.headers, body, response.url))
            rest = b""
            for piece in _pieces(response, MAX_SPOKEN_BYTES, self._model_seconds + _MAX_ANSWER_SECONDS):
                *lines, rest = (rest + piece).split(b"\n")
                if len(rest) > MAX_LINE_BYTES:
                    raise LimitError(f"{request.told}: a line of more than {MAX_LINE_BYTES} bytes")
                yield from (line for line in lines if line.strip())
            if rest.strip():
                yield rest


def _pieces(response: Response, limit: int, seconds: float) -> Iterator[bytes]:
    """Yield the body of an answer. Raises LimitError if it is larger than `limit`, RemoteError if it takes too long."""
    size, deadline = 0, time.monotonic() + seconds
    while piece := response.read(_READ_BYTES):
        size += len(piece)
        if size > limit:
            raise LimitError(f"{response.request.told}: an answer of more than {limit} bytes")
        if time.monotonic() > deadline:
            raise RemoteError(f"{response.request.told}: the answer took more than {seconds:.0f} seconds")
        yield piece


def _document(raw: bytes, request: Request) -> dict[str, Any]:
    """Return the JSON object in an answer or a line of it. Raises RemoteError if it is none, or has an error."""
    try:
        document = read_strict_json(raw)
    except FormatError as error:
        raise RemoteError(f"{request.told}: {error}: {_shown(raw)}", status=_OK) from None
    if not isinstance(document, dict):
        raise RemoteError(f"{request.told}: expected a JSON object, got {_shown(raw)}", status=_OK)
    if document.get("error"):
        raise RemoteError(f"{request.told}: {_error_of(document)}", status=_OK)
    return document


def _refused(request: Request, answer: Answer) -> RemoteError:
    """Return the error for an answer of another status, with what Ollama says of it."""
    try:
        document = read_strict_json(answer.body)
    except OstoreError:
        document = None
    if isinstance(document, dict) and document.get("error"):
        return RemoteError(f"{request.told}: {answer.status}: {_error_of(document)}", status=answer.status)
    return refused(request, answer)


def _error_of(document: Mapping[str, Any]) -> str:
    error = document["error"]
    text = error.get("message") if isinstance(error, dict) else error
    return str(text)[:_SHOWN_CHARACTERS].strip()


def _shown(raw: bytes) -> str:
    return repr(raw[:_SHOWN_CHARACTERS].decode("utf-8", "replace"))


def _objects(document: Mapping[str, Any], key: str, request: Request) -> list[dict[str, Any]]:
    """Return the list of objects under a key. Go writes an empty list as null."""
    entries = document.get(key)
    if entries is None and key in document:
        return []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RemoteError(f"{request.told}: expected a list of objects as {key!r}", status=_OK)
    return entries


def _text(entry: Mapping[str, Any], key: str, request: Request) -> str:
    text = entry.get(key)
    if not isinstance(text, str) or not text:
        raise RemoteError(f"{request.told}: a model without {key!r}", status=_OK)
    return text


def _digest(entry: Mapping[str, Any], request: Request) -> Digest:
    """Return the digest of a model. Ollama writes it without `sha256:`."""
    digest = Digest.of_text(f"sha256:{entry.get('digest')}")
    if digest is None:
        raise RemoteError(f"{request.told}: the digest of a model is {str(entry.get('digest'))[:80]!r}", status=_OK)
    return digest


def _count(document: Mapping[str, Any], key: str) -> int | None:
    value = document.get(key)
    return value if type(value) is int and value >= 0 else None


def _dimensions(vector: object, request: Request) -> int:
    if (
        not isinstance(vector, list)
        or not vector
        or not all(type(x) in {int, float} and math.isfinite(x) for x in vector)
    ):
        raise RemoteError(f"{request.told}: expected a list of numbers as the embedding", status=_OK)
    return len(vector)


def _files_of(modelfile: str) -> Iterator[str]:
    """Yield the paths that a Modelfile of `ollama show` begins with: of weights, adapters and projectors."""
    for line in modelfile.splitlines():
        word, _, path = line.partition(" ")
        if word in {"FROM", "ADAPTER", "DRAFT"}:
            yield path.strip().strip('"')
        elif line and not line.startswith("#"):
            # A text may follow that has such a line too.
            return
