"""`ostore serve` as a program for tests, and clients that ask it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support import OSTORE

posix = pytest.mark.skipif(os.name == "nt", reason="signals and sockets of POSIX")
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"

# In seconds. A request of which the server waits for more gets no answer.
_MOMENT = 0.05


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:  # noqa: ANN401 - whatever JSON it is
        return json.loads(self.body)


@dataclass(frozen=True)
class Serving:
    """A server that runs: its process, its URL, and the file of its standard error."""

    program: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def host(self) -> str:
        """HOST:PORT, as it stands in the name of a model."""
        return urlsplit(self.url).netloc

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask over a connection of its own. `Host` replaces the name of the server; `User_Agent` is a header too."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def send(self, data: bytes, *, until_silent: bool = False) -> bytes:
        """Send bytes as they are, and return all that comes back until the server closes, or is silent for a moment."""
        with socket.create_connection(self.address, timeout=_MOMENT if until_silent else 30) as connection:
            answer = b""
            # The server may have closed it already.
            with contextlib.suppress(OSError):
                connection.sendall(data)
                while piece := connection.recv(65536):
                    answer += piece
            return answer

    def ready(self) -> None:
        """Wait until every blob is hashed."""
        while self.ask("/healthz").document["status"] == "hashing":
            time.sleep(0.02)

    def lines(self) -> list[str]:
        """Return the lines of the log, all that were told before. A thread of the server writes them, in order."""
        mark = f"mark-{time.monotonic_ns()}"
        self.ask("/healthz", User_Agent=mark)
        while mark not in (text := self.log.read_text(encoding="utf-8")):
            time.sleep(0.01)
        return [line for line in text.splitlines() if '"mark-' not in line]

    def typed(self) -> list[str]:
        """Return the lines that it tells to type on the clients. May be called once."""
        assert self.program.stdout
        lines = [line.strip() for line in iter(self.program.stdout.readline, "Ctrl-C ends it\n")]
        return lines[1:]

    def peak(self) -> int:
        """Return its peak memory in bytes."""
        status = Path(f"/proc/{self.program.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s+([0-9]+) kB", status)
        assert found
        return int(found[1]) * 1024


@contextlib.contextmanager
def serving(
    place: str | Path | None, folder: Path, *options: str | Path, listen: str = "127.0.0.1:0", **environment: str
) -> Iterator[Serving]:
    """Serve a place, hashed, until the block ends. The server has to end well then."""
    words = [*([str(place)] if place else []), "--listen", listen, *map(str, options)]
    log = folder / f"serve-{time.monotonic_ns()}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*OSTORE, "serve", *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environment},
        ) as program,
    ):
        assert program.stdout
        first = program.stdout.readline()
        found = re.search(r"https?://\S+", first)
        assert found, log.read_text(encoding="utf-8")
        server = Serving(program, found[0], log)
        try:
            if found[0].startswith("http:") and "--token-file" not in options:
                server.ready()
            yield server
        finally:
            program.send_signal(signal.SIGTERM)
            program.stdout.read()
        code = program.wait(timeout=30)
    text = log.read_text(encoding="utf-8")
    assert (code, "Traceback" in text) == (0, False), text


class OllamaDouble:
    """
    Makes the requests of `ollama pull --insecure`, as they were recorded from Ollama 0.3.14 to 0.33, and stores blobs.

    It stands in where no real `ollama` is installed: building one takes an hour and a network. The tests run a real one
    too, where OSTORE_TEST_OLLAMA or PATH has it. Like the real one, it does not look at the status of the parts, asks
    for them with another User-Agent, and hangs up on the whole answer that it asks for first.
    """

    PART = 100_000_000
    AGENT = "ollama/0.33.0 (amd64 linux) Go/go1.26.0"

    def __init__(self, server: Serving, part: int = PART) -> None:
        self._server, self._part = server, part

    def pull(self, repository: str, tag: str = "latest") -> dict[str, bytes]:
        """Return the blobs of a model by digest. Raises AssertionError where the real one reports an error."""
        path = f"/v2/{repository}/manifests/{tag}"
        manifest = self._server.ask(path, Accept=DOCKER, User_Agent=self.AGENT, Accept_Encoding="gzip")
        assert manifest.status < 400, "pull model manifest"
        document = manifest.document
        return {
            layer["digest"]: self._blob(repository, layer["digest"])
            for layer in (*document["layers"], document["config"])
        }

    def _blob(self, repository: str, digest: str) -> bytes:
        path = f"/v2/{repository}/blobs/{digest}"
        head = self._server.ask(path, "HEAD", User_Agent=self.AGENT)
        assert head.status < 400
        size = int(head.headers.get("Content-Length", "0"))
        where = self._location(path)
        parts = []
        for start in range(0, size, self._part):
            asked = f"bytes={start}-{min(size, start + self._part) - 1}"
            parts.append(self._server.ask(where, Range=asked, User_Agent="Go-http-client/1.1").body)
        return b"".join(parts)

    def _location(self, path: str) -> str:
        """Ask for the whole, look for a Location, and hang up without reading."""
        connection = http.client.HTTPConnection(*self._server.address, timeout=30)
        connection.request("GET", path, headers={"User-Agent": self.AGENT, "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        where = answer.headers["Location"]
        connection.close()
        assert answer.status in {200, 307}
        assert where, "http: no Location header in response"
        return str(where)


def ollamas() -> list[Path]:
    """Return the real Ollamas that are here: those that OSTORE_TEST_OLLAMA names, with ':' between, or that of PATH."""
    named = [Path(one) for one in os.environ.get("OSTORE_TEST_OLLAMA", "").split(os.pathsep) if one]
    found = shutil.which("ollama")
    return named or ([Path(found)] if found else [])


@contextlib.contextmanager
def ollama_server(program: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Run a real Ollama with an empty store in a folder, and yield the environment of its clients."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    home = folder / "ollama"
    home.mkdir()
    surroundings = {**os.environ, "OLLAMA_HOST": host, "OLLAMA_MODELS": str(home / "models"), "HOME": str(home)}
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen([program, "serve"], env=surroundings, stdout=log, stderr=log) as server,
    ):
        try:
            while subprocess.run([program, "list"], env=surroundings, capture_output=True, check=False).returncode:
                assert server.poll() is None, (home / "log").read_text()
                time.sleep(0.1)
            yield surroundings
        finally:
            server.terminate()
