"""The rows of `scripts/bench.py` about `ostore serve`, beside nginx with the same file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import bench_data as data

OSTORE = str(Path(sys.executable).parent / "ostore")
# Debian has it where only root looks for programs.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
WRK = shutil.which("wrk")
WEIGHTS = 256 * 1024 * 1024
RANGE = 8 * 1024 * 1024
CURLS, BUNDLE_CURLS, WRK_SECONDS = 64, 16, 5
GIB = 1024**3
_TICKS = os.sysconf("SC_CLK_TCK")
# Each request another range, so that no server can send the same bytes again and again from a cache of its own.
_LUA = f"""
local offset = 0
request = function()
  offset = (offset + {RANGE}) % {WEIGHTS}
  return wrk.format("GET", nil, {{Range = "bytes=" .. offset .. "-" .. (offset + {RANGE} - 1)}})
end
"""
_NGINX_CONF = """
worker_processes 2; daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {folder}; proxy_temp_path {folder};
fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
server {{ listen 127.0.0.1:{port}; location / {{ root {root}; }} }} }}
"""


class Figure(NamedTuple):
    """One row: its name, what it is compared with, how high the ratio may be, its unit, both sides, and a note."""

    name: str
    against: str
    reach: float
    unit: str
    ours: list[float]
    theirs: list[float]
    note: str = ""


class Server(NamedTuple):
    """A server that runs, and the URL of the file."""

    pids: tuple[int, ...]
    url: str

    def processor_seconds(self) -> float:
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.pids]
        return sum(int(one[11]) + int(one[12]) for one in fields) / _TICKS

    def peak(self) -> float:
        """The peak of its memory, in MiB."""
        lines = Path(f"/proc/{self.pids[0]}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def rows(folder: Path, rounds: int) -> Iterator[Figure]:
    """Measure, in turns. What is not installed gives no row."""
    store = folder / "served"
    made = {"hard": data.noise(1, WEIGHTS), "soft": data.bfloat16(2, WEIGHTS)}
    digests = {
        name: data.add_model(store, name, [data.config(1), (data.MODEL, weights)]) for name, weights in made.items()
    }
    blobs = store / "blobs"
    with ours(store, "hard", digests["hard"]) as our, contextlib.ExitStack() as stack:
        their = stack.enter_context(nginx(folder, blobs, digests["hard"])) if NGINX else None
        if their:
            yield from beside_nginx(folder, our, their, rounds)
        yield from from_bundles(folder, store, digests, rounds)
    shutil.rmtree(store)


def beside_nginx(folder: Path, our: Server, their: Server, rounds: int) -> Iterator[Figure]:
    row = Figure(f"serve, {CURLS} clients, whole blob", "nginx", 1.11, "s/GB", [], [])
    used = [0.0, 0.0]
    for _ in range(rounds):
        for side, server, figures in ((0, our, row.ours), (1, their, row.theirs)):
            before = server.processor_seconds()
            figures.append(curls(server.url, CURLS) * 1e9 / (CURLS * WEIGHTS))
            used[side] += server.processor_seconds() - before
    each = [seconds * 1e9 / (rounds * CURLS * WEIGHTS) for seconds in used]
    yield row._replace(note=f"processor {each[0]:.2f} / {each[1]:.2f} s/GB, {our.peak():.0f} MiB")
    if WRK:
        ranges = Figure("serve, ranges of 8 MiB", "nginx", 1.11, "s/GB", [], [])
        for _ in range(rounds):
            ranges.ours.append(wrk(folder, our.url))
            ranges.theirs.append(wrk(folder, their.url))
        yield ranges
    yield Figure("serve, memory", "128 MiB", 1.0, "MiB", [our.peak()], [128.0])


def from_bundles(folder: Path, store: Path, digests: dict[str, str], rounds: int) -> Iterator[Figure]:
    for name, ending, reach in (("hard", ".tar", 1.11), ("hard", ".tar.zst", 1.11), ("soft", ".tar.zst", 1.43)):
        bundle = folder / f"served{ending}"
        subprocess.run([OSTORE, "export", name, bundle, "--models", store, "-q"], check=True)
        kind = " that shrinks" if name == "soft" else ""
        row = Figure(f"serve, {BUNDLE_CURLS} clients, {ending}{kind}", "ostore serve, the store", reach, "s/GB", [], [])
        with ours(store, name, digests[name]) as stored, ours(bundle, name, digests[name]) as bundled:
            for _ in range(rounds):
                for server, figures in ((bundled, row.ours), (stored, row.theirs)):
                    figures.append(curls(server.url, BUNDLE_CURLS) * 1e9 / (BUNDLE_CURLS * WEIGHTS))
            yield row._replace(note=f"{bundled.peak():.0f} MiB")
        bundle.unlink()


@contextlib.contextmanager
def ours(place: Path, name: str, digest: str) -> Iterator[Server]:
    """Serve a place, and wait until the blob is hashed."""
    command = [OSTORE, "serve", str(place), "--listen", "127.0.0.1:0", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout  # noqa: S101
        address = program.stdout.readline().strip()
        url = f"{address}/v2/library/{name}/blobs/sha256:{digest}"
        # It is not ready before it is hashed.
        while subprocess.run(["curl", "-sfI", url], check=False, stdout=subprocess.DEVNULL).returncode:
            time.sleep(0.1)
        try:
            yield Server((program.pid,), url)
        finally:
            program.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def nginx(folder: Path, root: Path, digest: str) -> Iterator[Server]:
    """Serve a folder with nginx."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = folder / "nginx"
    own.mkdir()
    # Its workers are another user.
    for path in (folder, own):
        path.chmod(0o755)
    config = own / "nginx.conf"
    config.write_text(_NGINX_CONF.format(folder=own, root=root, port=port))
    with subprocess.Popen([str(NGINX), "-c", config, "-e", own / "error.log"]) as program:
        url = f"http://127.0.0.1:{port}/sha256-{digest}"
        while subprocess.run(["curl", "-sfI", url], check=False, stdout=subprocess.DEVNULL).returncode:
            time.sleep(0.1)
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        try:
            yield Server((program.pid, *map(int, children)), url)
        finally:
            program.send_signal(signal.SIGTERM)
    shutil.rmtree(own)


def curls(url: str, count: int) -> float:
    """Fetch a whole file so many times at once. Returns the seconds."""
    return timed(lambda: [program.wait() for program in [_curl(url) for _ in range(count)]])


def _curl(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["curl", "-sf", "-o", "/dev/null", url])


def timed(work: Callable[[], list[int]]) -> float:
    started = time.monotonic()
    if any(work()):
        sys.exit("a client failed")
    return time.monotonic() - started


def wrk(folder: Path, url: str) -> float:
    """Ask for ranges over 64 connections. Returns the seconds for each gigabyte."""
    script = folder / "ranges.lua"
    script.write_text(_LUA)
    command = [str(WRK), "-t2", f"-c{CURLS}", f"-d{WRK_SECONDS}s", "-s", str(script), url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    script.unlink()
    if "Non-2xx" in printed:
        sys.exit(printed)
    word = next(line.split()[1] for line in printed.splitlines() if line.startswith("Transfer/sec"))
    rate = float(word[:-2]) * {"KB": 1024, "MB": 1024**2, "GB": GIB}[word[-2:]]
    return 1e9 / rate
