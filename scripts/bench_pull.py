"""The rows of `scripts/bench.py` about `pull`, beside aria2 and curl, and about `push`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OSTORE = str(Path(sys.executable).parent / "ostore")
SERVER = Path(__file__).with_name("paced_registry.py")
ARIA2 = shutil.which("aria2c")
REGISTRY = shutil.which("docker-registry")
PACE = 20_000_000
SIZE = 2_000_000_000
_PIECE = 1_000_000


def rows(bench: Any, peak: Callable[..., float]) -> None:  # noqa: ANN401 - the Bench of bench.py, which imports this
    """Measure pulls. `peak` returns the memory of a command in MiB."""
    folder = bench.folder / "pulling"
    origin, target = folder / "origin", folder / "target"
    origin.mkdir(parents=True)
    weights = _model(origin, min(SIZE, bench.size))
    for wait in (0, 0.06):
        where = f"paced, {round(wait * 1000)} ms to the first byte"
        if ARIA2 is None:
            print(f"pull {where}: left out, because there is no aria2c")
            continue
        with _serving(origin, PACE, wait) as host:
            aria2 = _aria2(host, weights, target)
            for against, reach, hashing in (
                ("aria2c alone", 1 / 0.95, ()),
                ("aria2c, sha256sum", 0.8, ("sha256sum",)),
                ("aria2c, openssl", 0.9, ("openssl", "dgst", "-sha256")),
            ):
                bench.compare(
                    f"pull, {where}", against, reach, _pull(host, target), _then(aria2, hashing, target), _clean(target)
                )
    with _serving(origin, 0, 0) as host:
        curl = _curl(host, weights, target)
        for against, reach, hashing in (
            ("curl, sha256sum", 0.5, ("sha256sum",)),
            ("curl, openssl", 0.8, ("openssl", "dgst", "-sha256")),
        ):
            bench.compare(
                "pull, not paced", against, reach, _pull(host, target), _then(curl, hashing, target), _clean(target)
            )
        pulled = peak(OSTORE, "pull", f"{host}/library/model", "--models", target, "-q")
        bench.figures("pull, not paced: memory", "128 MiB", 1.0, "MiB", pulled, 128)
        _clean(target)()
        _killed(bench, host, target, weights)
        _pushed(bench, host, target)
    shutil.rmtree(folder)


def _model(folder: Path, size: int) -> str:
    """Write the files of a registry with one model; gives the digest of its weights."""
    noise, hasher = random.Random(18), hashlib.sha256()
    with (folder / "weights").open("wb") as file:
        for _ in range(size // _PIECE):
            piece = noise.randbytes(_PIECE)
            hasher.update(piece)
            file.write(piece)
    weights = hasher.hexdigest()
    (folder / "weights").rename(folder / f"sha256-{weights}")
    config = b'{"model_format":"gguf"}'
    (folder / f"sha256-{hashlib.sha256(config).hexdigest()}").write_bytes(config)
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.ollama.image.model",
                "digest": f"sha256:{weights}",
                "size": size // _PIECE * _PIECE,
            }
        ],
    }
    (folder / "manifest").write_text(json.dumps(document, separators=(",", ":")))
    return weights


@contextlib.contextmanager
def _serving(folder: Path, pace: int, wait: float) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER), str(folder), str(port), str(pace), str(wait)]
    with subprocess.Popen(command) as server:
        try:
            _wait_for(port)
            yield f"127.0.0.1:{port}"
        finally:
            server.kill()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)


def _url(host: str, weights: str) -> str:
    return f"http://{host}/v2/library/model/blobs/sha256:{weights}"


def _pull(host: str, target: Path) -> Callable[[], object]:
    return lambda: _run(OSTORE, "pull", f"{host}/library/model", "--models", str(target), "-q")


def _aria2(host: str, weights: str, target: Path) -> tuple[str, ...]:
    url = _url(host, weights)
    return ("aria2c", "-x16", "-s16", "-q", "--file-allocation=none", "-d", str(target), "-o", "file", url)


def _curl(host: str, weights: str, target: Path) -> tuple[str, ...]:
    return ("curl", "-s", "--create-dirs", "-o", str(target / "file"), _url(host, weights))


def _then(fetch: tuple[str, ...], hashing: tuple[str, ...], target: Path) -> Callable[[], object]:
    def work() -> None:
        _run(*fetch)
        if hashing:
            _run(*hashing, str(target / "file"))

    return work


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _clean(target: Path) -> Callable[[], object]:
    return lambda: shutil.rmtree(target, ignore_errors=True)


def _killed(bench: Any, host: str, target: Path, weights: str) -> None:  # noqa: ANN401
    """How many bytes come twice after a kill in the middle: what was received, less what the blob has."""
    size = (bench.folder / "pulling/origin" / f"sha256-{weights}").stat().st_size
    before = _received()
    words = [OSTORE, "pull", f"{host}/library/model", "--models", str(target), "-q"]
    with subprocess.Popen(words) as process:
        while process.poll() is None and _received() - before < size // 2:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    _run(*words)
    twice = (_received() - before - size) / 1024 / 1024
    bench.figures("pull, killed half-way: bytes twice", "64 MiB", 1.0, "MiB", twice, 64)


def _pushed(bench: Any, host: str, target: Path) -> None:  # noqa: ANN401
    """What a push of a second tag sends, and how often it asks, by the log of a real registry."""
    if REGISTRY is None:
        print("push of a second tag: left out, because there is no docker-registry")
        return
    folder = bench.folder / "pulling"
    settings, log = folder / "registry.yml", folder / "registry.log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    model, there = f"{host}/library/model", ("--to", f"127.0.0.1:{port}/library", "--models", str(target))
    with (
        log.open("w") as output,
        subprocess.Popen([REGISTRY, "serve", settings], stdout=output, stderr=output) as server,
    ):
        try:
            _wait_for(port)
            _run(OSTORE, "push", model, *there, "-q")
            _run(OSTORE, "cp", model, f"{model}:second", "--models", str(target), "-q")
            before = _requests(log)
            words = [OSTORE, "push", f"{model}:second", *there, "--json"]
            report = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
            asked = _requests(log) - before
        finally:
            server.terminate()
    bench.figures("push of a second tag: bytes of blobs", "0", 0.0, "B", report["size_sent"], 1)
    bench.figures("push of a second tag: requests", "2 and one a blob", 1.0, "", asked, 2 + report["blobs_present"])


def _requests(log: Path) -> int:
    """The requests in the log of a docker-registry."""
    return log.read_text().count("HTTP/1.1")


def _received() -> int:
    """The bytes that loopback has carried."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])
