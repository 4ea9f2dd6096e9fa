"""
Upload blobs to one repository of a registry (OCI distribution specification 1.1, "Pushing blobs").

A blob is hashed while it is sent. Its last bytes are not sent before all of it is known to be right, so no registry
gets a damaged one whole.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator
from urllib.parse import urljoin, urlsplit

from ostore.formats.digest import Digest
from ostore.formats.errors import RemoteError
from ostore.formats.manifest import Descriptor
from ostore.formats.remedy import ostore
from ostore.formats.upload_state import UploadState
from ostore.formats.web_address import origin_of, without_secrets
from ostore.places.registry.authorization import Permit
from ostore.places.registry.client import ACCEPT, RegistryClient
from ostore.places.registry.upload_states import UploadStates
from ostore.streams.chunks import Chunk
from ostore.streams.http import Answer, Patience, Request
from ostore.streams.verified import verified

# A kill costs at most one piece. A slow line gets small ones, a quick one is not kept waiting for answers.
FIRST_PIECE_BYTES, LAST_PIECE_BYTES = 8 * 1024 * 1024, 32 * 1024 * 1024
_QUICK_SECONDS = 2.0
_SLICE_BYTES = 256 * 1024
# A registry may hash all of a large blob before it answers.
_COMMIT_SECONDS = 900.0
_CREATED, _MULTIPLE, _BAD_REQUEST, _UNAUTHORIZED, _NOT_FOUND = 201, 300, 400, 401, 404
# What registries answer if an upload is gone, if they expected other bytes, or if they take no pieces at all.
_LOST = frozenset({400, 404, 405, 409, 410, 411, 415, 416, 501})
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})")
_BYTES = {"Content-Type": "application/octet-stream"}
_LOCATION = re.compile(r"[\x21-\x7e]{1,8192}")


class UploadLostError(Exception):
    """The registry no longer knows an upload, or has other bytes. It has to begin anew, with the blob's first byte."""

    def __init__(self, error: RemoteError) -> None:
        super().__init__(str(error))
        self.error = error


class Sent:
    """How many bytes were sent, and how many an interrupted push had sent before. Several threads may count."""

    def __init__(self) -> None:
        self.size = self.resumed = 0
        self._lock = threading.Lock()

    def count(self, *, size: int = 0, resumed: int = 0) -> None:
        with self._lock:
            self.size += size
            self.resumed += resumed


class _Body:
    """Bytes that are sent at the rate that is allowed, as often as somebody asks."""

    def __init__(self, data: memoryview | bytes, client: RegistryClient) -> None:
        self._data = memoryview(data)
        self._client = client

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), _SLICE_BYTES):
            # A copy: who sends it may hold it longer than the buffer that it is in may be held.
            data = bytes(self._data[start : start + _SLICE_BYTES])
            yield data
            self._client.rate.passed(len(data))


class Repository:
    """The blobs of one repository. `present` are those that it is known to have."""

    def __init__(self, client: RegistryClient, permit: Permit, states: UploadStates, sent: Sent) -> None:
        self.client = client
        self.name = permit.repository
        self.present: set[Digest] = set()
        self._permit = permit
        self._states = states
        self._sent = sent
        # Uploads that a registry has opened instead of mounting a blob.
        self._opened: dict[Digest, str] = {}
        self._refused: set[tuple[Digest, str]] = set()

    def ask(self, method: str, path: str, **options: object) -> Answer:
        """Ask for a path of the repository, or a URL. Raises what `RegistryClient.ask` raises."""
        return self.client.ask(method, self.name, path, permit=self._permit, **options)  # type: ignore[arg-type]

    def has(self, digest: Digest) -> bool:
        """Return whether the repository has a blob. Raises RemoteError."""
        if digest not in self.present:
            path = f"blobs/{digest}"
            answer = self.ask("HEAD", path)
            if answer.status == _NOT_FOUND:
                return False
            self._accepted(answer, "HEAD", path)
            self.present.add(digest)
        return True

    def manifest(self, tag: str) -> bytes | None:
        """Return the bytes of the manifest under a tag, or None if there is none. Raises RemoteError, LimitError."""
        path = f"manifests/{tag}"
        answer = self.ask("GET", path, headers={"Accept": ACCEPT})
        return None if answer.status == _NOT_FOUND else self._accepted(answer, "GET", path).body

    def was_refused(self, digest: Digest, source: str) -> bool:
        """Return whether the registry has been asked in vain to take a blob over from that repository."""
        return (digest, source) in self._refused

    def mount(self, digest: Digest, source: str) -> bool:
        """Take a blob over from another repository, and return whether the registry did that. Raises RemoteError."""
        answer = self._post(f"blobs/uploads/?mount={digest}&from={source}")
        if answer.status == _CREATED:
            self.present.add(digest)
            return True
        if answer.status < _MULTIPLE:
            self._opened[digest] = self._location(answer)
        self._refused.add((digest, source))
        return False

    def upload(self, blob: Descriptor, chunks: Iterable[Chunk]) -> None:
        """
        Send a blob, verified, from where an interrupted push has stopped.

        Raises BlobError, RemoteError, UploadLostError, and what the chunks raise.
        """
        pieces = _Pieces(verified(chunks, blob))
        if blob.size <= FIRST_PIECE_BYTES:
            self._send_whole(blob, next(iter(pieces)))
        else:
            self._send_pieces(blob, pieces)
        self.forget(blob.digest)
        self.present.add(blob.digest)

    def forget(self, digest: Digest) -> None:
        """Remember no upload of a blob any more."""
        self._states.forget(self.client.base, self.name, digest)

    def put_manifest(self, tag: str, raw: bytes, media_type: str) -> None:
        """Make a manifest visible under a tag. Raises RemoteError."""
        path = f"manifests/{tag}"
        answer = self._accepted(self.ask("PUT", path, headers={"Content-Type": media_type}, body=raw), "PUT", path)
        told, digest = answer.headers.get("docker-content-digest"), str(Digest.of(raw))
        if told not in {None, digest}:
            raise RemoteError(f"{self.client.base}: {self.name}:{tag}: sent the manifest {digest}, it keeps {told}")

    def _send_whole(self, blob: Descriptor, data: memoryview) -> None:
        headers = {**_BYTES, "Content-Length": str(len(data))}

        def send() -> Answer:
            # Nobody knows what an upload has that has failed, so each try has its own.
            url = _with_digest(self._begin(blob.digest), blob.digest)
            answer = self.ask("PUT", url, headers=headers, body=_Body(data, self.client))
            return self._accepted(answer, "PUT", url)

        Patience().repeated(send)
        self._sent.count(size=len(data))

    def _send_pieces(self, blob: Descriptor, pieces: _Pieces) -> None:
        state = self._resumed(blob) or UploadState(self._begin(blob.digest), 0)
        self._sent.count(resumed=state.offset)
        is_new = state.offset == 0
        for piece in pieces:
            try:
                state = self._send_piece(blob.digest, state, piece, pieces)
            except UploadLostError:
                if pieces.position or not is_new:
                    raise
                # It takes no pieces, as some registries do.
                self._stream(blob, piece, pieces)
                return
        self._commit(blob.digest, state.location)

    def _send_piece(self, digest: Digest, state: UploadState, piece: memoryview, pieces: _Pieces) -> UploadState:
        """Send what the registry lacks of a piece, and return the state of the upload then."""
        patience, position = Patience(), pieces.position
        while state.offset < position + len(piece):
            rest, began = piece[state.offset - position :], time.monotonic()
            try:
                answer = self._patch(state, rest)
                if answer.status < _MULTIPLE:
                    self._sent.count(size=len(rest))
                    state = UploadState(self._location(answer, state.location), state.offset + len(rest))
                    self._states.write(self.client.base, self.name, digest, state)
                    pieces.adapt(len(rest), time.monotonic() - began)
                    continue
                problem = self.client.refused(Request("PATCH", state.location), answer)
            except RemoteError as error:
                problem = error
            if problem.status in _LOST:
                raise self._lost(digest, problem)
            if not problem.is_passing:
                raise problem
            patience.wait(problem)
            there = self._status(state.location)
            if there is None or there.offset < position:
                # The bytes before this piece are no longer here.
                raise self._lost(digest, problem)
            if there.offset > state.offset:
                patience.progressed()
            state = there
        return state

    def _patch(self, state: UploadState, data: memoryview) -> Answer:
        span = f"{state.offset}-{state.offset + len(data) - 1}"
        headers = {**_BYTES, "Content-Length": str(len(data)), "Content-Range": span}
        return self.ask("PATCH", state.location, headers=headers, body=_Body(data, self.client))

    def _stream(self, blob: Descriptor, first: memoryview, rest: _Pieces) -> None:
        """Send a blob in one request."""

        def body() -> Iterator[bytes]:
            yield from _Body(first, self.client)
            for piece in rest:
                yield from _Body(piece, self.client)

        location = self._begin(blob.digest)
        headers = {**_BYTES, "Content-Length": str(blob.size)}
        url = _with_digest(location, blob.digest)
        answer = self.ask("PUT", url, headers=headers, body=body(), stall_seconds=_COMMIT_SECONDS)
        self._accepted(answer, "PUT", location)
        self._sent.count(size=blob.size)

    def _commit(self, digest: Digest, location: str) -> None:
        answer = self.ask("PUT", _with_digest(location, digest), headers=_BYTES, stall_seconds=_COMMIT_SECONDS)
        if answer.status in _LOST:
            # An answer may have been lost, and this is that to the second try.
            if answer.status != _BAD_REQUEST and self.has(digest):
                return
            raise self._lost(digest, self.client.refused(Request("PUT", location), answer))
        self._accepted(answer, "PUT", location)

    def _begin(self, digest: Digest) -> str:
        """Open an upload and return its location."""
        if location := self._opened.pop(digest, None):
            return location
        path = "blobs/uploads/"
        return self._location(self._accepted(self._post(path), "POST", path))

    def _post(self, path: str) -> Answer:
        """Ask for an upload. An answer that was lost costs the registry an upload of no bytes, so it is asked again."""

        def post() -> Answer:
            answer = self.ask("POST", path)
            problem = self.client.refused(Request("POST", f"{self.client.base}/v2/{self.name}/{path}"), answer)
            if problem.is_passing:
                raise problem
            return answer

        return Patience().repeated(post)

    def _resumed(self, blob: Descriptor) -> UploadState | None:
        """Return where an interrupted push has stopped, or None if nothing is left of it."""
        state = self._states.read(self.client.base, self.name, blob.digest)
        if state is None or origin_of(state.location) != origin_of(self.client.base):
            return None
        there = self._status(state.location)
        if there is None or not 0 < there.offset <= blob.size:
            self.forget(blob.digest)
            return None
        return there

    def _status(self, location: str) -> UploadState | None:
        """Ask how many bytes an upload has. None: it is gone."""
        answer = self.ask("GET", location)
        if answer.status >= _MULTIPLE:
            return None
        found = _RANGE.fullmatch(answer.headers.get("range", ""))
        last = int(found[1]) if found else 0
        # docker-registry says 0-0 of one byte, and of none.
        return UploadState(self._location(answer, location), last + 1 if last else 0)

    def _lost(self, digest: Digest, problem: RemoteError) -> UploadLostError:
        self.forget(digest)
        return UploadLostError(problem)

    def _location(self, answer: Answer, before: str | None = None) -> str:
        """Return where an answer sends the rest. Raises RemoteError if that is nowhere, or on another host."""
        text = answer.headers.get("docker-upload-location") or answer.headers.get("location") or before
        if text is None or not _LOCATION.fullmatch(text):
            raise RemoteError(f"{self.client.base}: does not say where to send a blob of {self.name}")
        try:
            url = urljoin(answer.url, text)
            if origin_of(url) == origin_of(self.client.base) and "@" not in urlsplit(url).netloc:
                return url
            told = without_secrets(url)
        except ValueError:
            told = "no address"
        hint = None
        if told.partition("://")[2].startswith(self.client.base.partition("://")[2]):
            hint = "it does not know that it is reached over TLS: its proxy has to send X-Forwarded-Proto"
        raise RemoteError(
            f"{self.client.base}: wants a blob of {self.name} sent to another host, {told:.200}", hint=hint
        )

    def _accepted(self, answer: Answer, method: str, path: str) -> Answer:
        path = path if "://" in path else f"{self.name}/{path}"
        try:
            return self.client.accepted(answer, method, path)
        except RemoteError as error:
            if self.name != self.name.lower() and error.hint is None:
                error.hint = ostore(
                    "cp",
                    "--help",
                    before="most registries take lower-case names only",
                    after="says how to give it another name",
                )
            raise


class _Pieces:
    """
    A blob, a large piece at a time. The last one comes once the chunks have ended, so once they are verified.

    All pieces share one buffer: each is valid until the next. `position` is where the current one begins.
    """

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self.position = 0
        self._chunks = chunks
        self._size = FIRST_PIECE_BYTES
        self._iterator = self._made()

    def adapt(self, size: int, seconds: float) -> None:
        """Make the next pieces larger if this one took little time."""
        if size >= self._size and seconds < _QUICK_SECONDS:
            self._size = min(2 * self._size, LAST_PIECE_BYTES)

    def __iter__(self) -> Iterator[memoryview]:
        return self._iterator

    def _made(self) -> Iterator[memoryview]:
        buffer, filled = bytearray(self._size), 0
        for chunk in self._chunks:
            rest = memoryview(chunk)
            while rest:
                if filled >= self._size:
                    yield memoryview(buffer)[:filled]
                    self.position += filled
                    filled = 0
                if len(buffer) < self._size:
                    buffer = bytearray(self._size)
                count = min(len(rest), self._size - filled)
                buffer[filled : filled + count] = rest[:count]
                filled, rest = filled + count, rest[count:]
        yield memoryview(buffer)[:filled]


def _with_digest(location: str, digest: Digest) -> str:
    return f"{location}{'&' if urlsplit(location).query else '?'}digest={digest}"
