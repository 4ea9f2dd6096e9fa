"""Real registries on loopback, and clients that count what others send."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ostore.formats.manifest import Manifest
from ostore.formats.media_types import MANIFEST
from ostore.formats.name import ModelName
from tests.ports import free_port
from tests.support import Store

PROGRAM = shutil.which("docker-registry")
needs_registry = pytest.mark.skipif(PROGRAM is None, reason="docker-registry is not installed")


@dataclass(frozen=True)
class DockerRegistry:
    """A running docker-registry. `root` is where it keeps what it gets."""

    port: int
    root: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def name(self, short: str) -> str:
        """The full name of a model in this registry."""
        model = ModelName.parse(short)
        return f"{self.host}/{model.namespace}/{model.model}:{model.tag}"

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            answer.read()
            return answer

    def fill(self, store: Store) -> None:
        """Upload every model of a store, as any client would. This registry takes no capitals in a repository."""
        for path in sorted((store.root / "manifests").glob("*/*/*/*")):
            namespace, model, tag = path.parts[-3:]
            if f"{namespace}/{model}" != f"{namespace}/{model}".lower():
                continue
            manifest = Manifest.parse(path.read_bytes())
            for blob in manifest.blobs:
                content = (store.root / "blobs" / blob.digest.filename).read_bytes()
                begun = self.request("POST", f"/v2/{namespace}/{model}/blobs/uploads/")
                location = begun.headers["Location"].partition(self.host)[2]
                done = self.request(
                    "PUT", f"{location}&digest={blob.digest}", content, Content_Type="application/octet-stream"
                )
                assert done.status == 201
            done = self.request("PUT", f"/v2/{namespace}/{model}/manifests/{tag}", manifest.raw, Content_Type=MANIFEST)
            assert done.status == 201


@contextlib.contextmanager
def docker_registry(
    root: Path, *, htpasswd: Path | None = None, tls: tuple[Path, Path] | None = None, more: str = ""
) -> Iterator[DockerRegistry]:
    """
    Run Debian's docker-registry on a free port of loopback.

    `tls` are the files of its certificate and key; `more` goes to its settings.
    """
    assert PROGRAM is not None
    port = free_port()
    auth = f"auth: {{htpasswd: {{realm: here, path: {htpasswd}}}}}\n" if htpasswd else ""
    at = f"addr: '127.0.0.1:{port}'" + (f", tls: {{certificate: {tls[0]}, key: {tls[1]}}}" if tls else "")
    settings = root.with_suffix(".yml")
    settings.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\n"
        f"http: {{{at}}}\nlog: {{level: error, accesslog: {{disabled: true}}}}\n{auth}{more}"
    )
    log = root.with_suffix(".log")
    with log.open("wb") as errors:
        process = subprocess.Popen([PROGRAM, "serve", str(settings)], stdout=errors, stderr=errors)
    try:
        wait_for_port(port, process)
        yield DockerRegistry(port, root)
    finally:
        process.kill()
        process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until something listens on a port of loopback."""
    for _ in range(600):
        assert process is None or process.poll() is None, "the server has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")
