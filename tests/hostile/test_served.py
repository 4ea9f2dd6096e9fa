"""What clients may try with `ostore serve`, over real sockets. The numbers are those of docs/threats.md."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import re
import select
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

from ostore.api.addresses import opened_source
from ostore.formats.digest import Digest
from ostore.formats.manifest import Descriptor
from ostore.places.bundle.reader import BundleReader
from ostore.places.oci_layout.folder import LayoutFolder
from ostore.places.store.store import LocalStore
from ostore.places.store.survey import scan
from ostore.server import registry
from ostore.server.contents import FileContent
from ostore.server.listening import Address, opened
from ostore.server.registry import Limits, Registry
from ostore.server.requests import Doorman
from ostore.server.running import serve
from ostore.server.sending import CAN_SEND
from ostore.server.supplies import BundleSupply, LayoutSupply, StoreSupply
from ostore.streams.chunks import Chunk
from tests.serving import Serving, posix, serving
from tests.support import Store, noise, sha256, some, unmeasured
from tests.support import ostore as run

pytestmark = posix
WEIGHTS = b"the weights " * 1000
LARGE = noise(48_000_000)
SECRET = b"root:secret outside of the store"
MEBIBYTE = 1024 * 1024
EPOLL = getattr(select, "epoll", None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    store = Store(folder / "store")
    store.model("tiny:latest", WEIGHTS)
    store.model("large:latest", LARGE)
    store.blob(b"an orphan that no model has")
    (folder / "passwd").write_bytes(SECRET)
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Serving]:
    with serving(place / "store", place) as found:
        yield found


def blob_path(data: bytes, repository: str = "library/tiny") -> str:
    return f"/v2/{repository}/blobs/sha256:{sha256(data)}"


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.[01] ([0-9]{3}) ", answer)
    return int(found[1]) if found else 0


def request(path: str | bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    target = path if isinstance(path, bytes) else path.encode()
    return b"\r\n".join(
        [method + b" " + target + b" HTTP/1.1", b"Host: localhost", *headers, b"Connection: close", b"\r\n"]
    )


PATHS = (
    b"/v2/../../passwd",
    b"/v2/..%2f..%2fpasswd",
    b"/v2/%2e%2e/%2e%2e/passwd",
    b"/v2/library/tiny/blobs/../../../../passwd",
    b"/v2/library/tiny/manifests/..",
    b"/v2/library/tiny/manifests/%2e%2e%2f%2e%2e%2fpasswd",
    b"//v2//library//tiny",
    b"/v2\\library\\tiny",
    b"/v2/library/tiny/manifests/..%c0%af",
    b"/v2/library/tiny/manifests/a%00b",
    b"/v2/library/tiny/manifests/\xff\xfe",
    b"/v2/library/tiny/manifests/\x1b]0;evil\x07",
    b"http://evil.example/passwd",
    b"*",
    b"/v2/" + b"a/" * 2000,
    b"/" + b"a" * 65536,
)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path[:40]))
def test_f111_no_path_leads_out(server: Serving, path: bytes) -> None:
    answer = server.send(request(path))
    assert status_of(answer) in {400, 404, 414}
    assert SECRET not in answer
    assert all(line.isprintable() for line in server.lines())


@pytest.mark.parametrize("reference", ["sha256:", f"sha256:{'A' * 64}", "sha256:..%2f", f"md5:{'0' * 32}", "x"])
def test_f112_a_bad_digest_is_refused(server: Serving, reference: str) -> None:
    assert server.ask(f"/v2/library/tiny/blobs/{reference}").status in {400, 404}


def test_f112_a_blob_of_no_served_model_is_as_if_it_were_not_there(server: Serving) -> None:
    assert server.ask(blob_path(b"an orphan that no model has")).status == 404
    assert server.ask(blob_path(LARGE)).status == 404
    assert server.ask(blob_path(LARGE, "library/large"), Range="bytes=0-0").status == 206


@pytest.mark.parametrize(
    ("value", "statuses"),
    [
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(500)), {200}),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)), {400}),
        ("bytes=-0", {416}),
        ("bytes=5-2", {200}),
        ("bytes=0-18446744073709551616", {206}),
        (f"bytes={'9' * 7000}-", {416}),
    ],
    ids=["500", "10000", "-0", "5-2", "2^64", "long"],
)
def test_f113_one_range_or_all_bytes(server: Serving, value: str, statuses: set[int]) -> None:
    found = server.ask(blob_path(WEIGHTS), Range=value)
    assert found.status in statuses
    assert len(found.body) <= len(WEIGHTS)


@unmeasured
def test_f114_f115_three_hundred_clients_that_stall_keep_nobody_from_being_served(tmp_path: Path) -> None:
    """Of a store and of a bundle of frames that shrink, whose decoded frames no stalled client may hold."""
    soft = bytes(LARGE).translate(bytes(byte & 31 for byte in range(256)))
    store = Store(tmp_path / "store")
    store.model("soft:latest", soft)
    store.model("tiny:latest", WEIGHTS)
    assert run("export", "--all", tmp_path / "b.tar.zst", "--models", store.root).returncode == 0
    for place in (store.root, tmp_path / "b.tar.zst"):
        with serving(place, tmp_path) as server, contextlib.ExitStack() as stack:
            path = blob_path(soft, "library/soft")
            for number in range(300):
                client = stack.enter_context(socket.create_connection(server.address))
                # A third send half a request, and the others read nothing of what they asked for.
                start = number * 100_000
                whole = request(path, f"Range: bytes={start}-".encode())
                client.sendall(whole[:60] if number % 3 == 0 else whole)
            took = []
            for _ in range(60):
                begin = time.monotonic()
                assert server.ask(blob_path(WEIGHTS)).body == WEIGHTS
                took.append(time.monotonic() - begin)
            assert server.ask(path).body == soft
            # 128 MiB and a quarter of a second on a machine of its own; here it is only not out of all proportion.
            assert server.peak() < 128 * MEBIBYTE
            assert statistics.median(took) < 1


@contextlib.contextmanager
def limited(store: Store, limits: Limits, *, is_ready: bool = True) -> Iterator[tuple[Serving, list[str]]]:
    """
    A server in this process, with limits that a test can wait for, and the lines of its log.

    The program waits for a minute, and has no option for it.
    """
    lines: list[str] = []
    listener = opened(Address("127.0.0.1", 0))
    host, port = listener.getsockname()
    begun = threading.Event()
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        supply = StoreSupply(LocalStore(store.root))
        doorman = Doorman((), None, is_local=True)
        made = Registry(supply, doorman, is_served=lambda _name: True, log=lines.append, limits=limits)
        made.start(supply.look())
        ends.append((asyncio.get_running_loop(), stop := asyncio.Event()))
        await serve(made, listener, None, started=begun.set, ended=lambda: None, stop=stop)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    begun.wait()
    try:
        server = Serving(None, f"http://{host}:{port}", Path())  # type: ignore[arg-type]
        if is_ready:
            server.ready()
        yield server, lines
    finally:
        for loop, stop in ends:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        listener.close()


def test_a_blob_that_is_not_hashed_yet_is_to_be_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading waits here, as on a slow disk. A blob that is asked for is hashed before smaller ones."""
    go_on, read, order = threading.Event(), FileContent.read, list[int]()

    def read_slowly(content: FileContent, start: int, size: int) -> Chunk:
        go_on.wait()
        order.append(size)
        return read(content, start, size)

    monkeypatch.setattr(FileContent, "read", read_slowly)
    store = Store(tmp_path / "store")
    for number in range(1, 6):
        store.model(f"m{number}:latest", bytes(number) * 1000)
    with limited(store, Limits(hash=0.05), is_ready=False) as (server, _):
        try:
            found = server.ask(blob_path(bytes(5000), "library/m5"))
            assert (found.status, found.headers["Retry-After"]) == (503, "5")
            # Ollama gives up if it cannot have the size.
            found = server.ask(blob_path(bytes(5000), "library/m5"), "HEAD")
            assert (found.status, found.headers["Content-Length"]) == (200, "5000")
            assert server.ask("/healthz").document["status"] == "hashing"
            assert server.ask("/v2/_catalog").document == {"repositories": []}
            assert server.ask("/v2/library/m1/tags/list").status == 503
            # The manifest is needed to know what to ask for.
            assert server.ask("/v2/library/m1/manifests/latest").status == 200
        finally:
            go_on.set()
        server.ready()
        assert order.index(5000) == 1
        assert server.ask(blob_path(bytes(5000), "library/m5")).body == bytes(5000)


def closed_by_server(client: socket.socket) -> bool:
    """Read to the end of a connection. False if it does not end."""
    client.settimeout(30)
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def test_f114_half_a_request_is_not_waited_for(place: Path) -> None:
    with limited(Store(place / "store"), Limits(head=0.2)) as (server, _):
        for begin in (b"", b"GET /v2/ HTTP/1.1\r\nHost: loc", request("/v2/").replace(b"Connection: close\r\n", b"")):
            with socket.create_connection(server.address) as client:
                client.sendall(begin)
                assert closed_by_server(client)


def test_f114_a_connection_too_many_is_refused(place: Path) -> None:
    limits = Limits(connections=3)
    with (
        limited(Store(place / "store"), limits, is_ready=False) as (server, _),
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(accepted(server)) for _ in range(3)]
        with socket.create_connection(server.address) as refused:
            assert closed_by_server(refused)
        for client in clients:
            client.sendall(KEPT)
            assert client.recv(12) == b"HTTP/1.1 200"


KEPT = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n"


def accepted(server: Serving) -> socket.socket:
    """Return a connection that was answered and is kept. Those of other clients may not have gone yet."""
    for _ in range(1000):
        client = socket.create_connection(server.address)
        with contextlib.suppress(ConnectionError):
            client.sendall(KEPT)
            if b"{}" in client.recv(65536):
                return client
        client.close()
        time.sleep(0.01)
    raise AssertionError("no connection is accepted")


def test_f115_a_client_that_takes_nothing_is_cut_off(place: Path) -> None:
    limits = Limits(stall=0.2)
    with limited(Store(place / "store"), limits) as (server, lines), socket.create_connection(server.address) as client:
        client.sendall(request(blob_path(LARGE, "library/large")))
        until_logged(lines, "library/large")
        got = 0
        # Whether what the system had taken arrives before the reset is a matter of time.
        with contextlib.suppress(ConnectionError):
            got = read_all(client)
        assert got < len(LARGE)


def read_all(client: socket.socket) -> int:
    """Read to the end of a connection, and return how many bytes came."""
    got = 0
    while piece := client.recv(65536):
        got += len(piece)
    return got


def until_logged(lines: list[str], text: str) -> None:
    for _ in range(1000):
        if any(text in line for line in list(lines)):
            return
        time.sleep(0.02)
    raise AssertionError(lines)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_f116_nothing_can_be_written(server: Serving, place: Path, method: str) -> None:
    for path in ("/v2/library/tiny/blobs/uploads/", blob_path(WEIGHTS), "/v2/library/tiny/manifests/latest", "/v2/"):
        body = b"Content-Length: 5"
        answer = server.send(request(path, body, method=method.encode()) + b"hello")
        assert status_of(answer) in {400, 405}
    assert (place / "store/blobs" / f"sha256-{sha256(WEIGHTS)}").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    "headers",
    [
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"X-Folded: a\r\n b",),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Content-Length: -1",),
        (b"Content-Length: +5",),
        (b"Content Length: 5",),
        (b"X: a\nContent-Length: 5",),
    ],
    ids=["two lengths", "both", "folded", "identity", "minus", "plus", "blank", "bare LF"],
)
def test_f117_what_two_servers_may_read_in_two_ways_is_refused(server: Serving, headers: tuple[bytes, ...]) -> None:
    smuggled = b"GET /v2/library/tiny/manifests/latest HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = server.send(request("/healthz", *headers).replace(b"Connection: close\r\n", b"") + smuggled)
    assert (status_of(answer), answer.count(b"HTTP/1.")) == (400, 1)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:11435", "127.0.0.1.evil.example", "[::1", "192.0.2.1"])
def test_f118_a_name_that_leads_here_is_not_enough(server: Serving, host: str) -> None:
    assert server.ask("/v2/library/tiny/manifests/latest", Host=host).status == 403


def test_f118_two_names_or_none_are_refused(server: Serving) -> None:
    both = request("/v2/", b"Host: evil.example")
    assert status_of(server.send(both)) == 400
    assert (
        status_of(server.send(both.replace(b"Host: localhost\r\n", b"").replace(b"Host: evil.example\r\n", b""))) == 400
    )


def test_f120_a_client_that_leaves_is_one_line(server: Serving) -> None:
    before = len(server.lines())
    for _ in range(20):
        with socket.create_connection(server.address) as client:
            client.sendall(request(blob_path(LARGE, "library/large")))
            client.recv(1000)
            # A reset instead of an end.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for _ in range(1000):
        if len(server.lines()) >= before + 20:
            break
        time.sleep(0.02)
    assert len(server.lines()) == before + 20
    assert server.ask("/v2/").status == 200


def test_f120_a_client_that_leaves_before_its_answer_is_no_error(server: Serving) -> None:
    before, path = len(server.lines()), blob_path(LARGE, "library/large")
    for _ in range(20):
        with socket.create_connection(server.address) as client:
            client.sendall(request(path))
    told: list[str] = []
    while len(told) < 20:
        told = [line for line in server.lines()[before:] if path in line]
    assert len(told) == 20
    assert [line for line in told if "Error" in line or '" 500 ' in line] == []


def held_back(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let every reading of a file of a blob wait, as on a slow disk, until the event is set."""
    go_on, read = threading.Event(), FileContent.read

    def read_later(content: FileContent, start: int, size: int) -> Chunk:
        go_on.wait()
        return read(content, start, size)

    monkeypatch.setattr(FileContent, "read", read_later)
    return go_on


def figure(server: Serving, name: str) -> int:
    lines = server.ask("/metrics").body.decode().splitlines()
    return next((int(line.split()[-1]) for line in lines if line.startswith(f"ostore_{name} ")), 0)


def until_asked(server: Serving, name: str, value: int) -> None:
    for _ in range(1000):
        if figure(server, name) == value:
            return
        time.sleep(0.02)
    raise AssertionError(f"{name} is not {value}")


def test_a_blob_is_hashed_once_though_somebody_asks_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = held_back(monkeypatch)
    store = Store(tmp_path / "store")
    store.model("tiny:latest", WEIGHTS)
    with limited(store, Limits(), is_ready=False) as (server, _):
        try:
            assert server.ask("/v2/library/tiny/manifests/latest").status == 200
        finally:
            go_on.set()
        # Small blobs come first, also a second time.
        server.ready()
        assert figure(server, "hashed_bytes_total") == server.ask("/healthz").document["total_bytes"]


@pytest.mark.parametrize("by", ["threads", "loop"])
def test_whatever_goes_wrong_while_a_blob_is_sent_cuts_it_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Memory is lacking here. There are more such requests than threads that send."""
    monkeypatch.setattr(registry, "CAN_SEND", by == "threads")
    store = Store(tmp_path / "store")
    store.model("tiny:latest", WEIGHTS)
    with limited(store, Limits(stall=5)) as (server, lines):
        with monkeypatch.context() as lacking:
            lacking.setattr(FileContent, "send" if by == "threads" else "read", no_memory)
            for _ in range(15):
                answer = server.send(request(blob_path(WEIGHTS)))
                assert answer.count(b"HTTP/1.1 ") <= 1
                assert b"errors" not in answer
        assert server.ask(blob_path(WEIGHTS)).body == WEIGHTS
        assert len([line for line in lines if "aborted: MemoryError: " in line]) == 15
        assert figure(server, "transfers") == 0


def no_memory(*_: object) -> int:
    raise MemoryError


def test_a_blob_that_could_not_be_hashed_for_lack_of_memory_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    store.model("tiny:latest", WEIGHTS)
    with monkeypatch.context() as lacking:
        lacking.setattr(FileContent, "read", no_memory)
        with limited(store, Limits(hash=0.1)) as (server, lines):
            until_logged(lines, "is damaged and not served: MemoryError: ")
            assert server.ask(blob_path(WEIGHTS)).status in {500, 503}
            lacking.undo()
            for _ in range(1000):
                if server.ask("/v2/library/tiny/manifests/latest").status == 200:
                    break
                time.sleep(0.02)
            assert server.ask(blob_path(WEIGHTS)).body == WEIGHTS
            server.ready()
            assert server.ask("/healthz").document["status"] == "ready"


def descriptors() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())


class Watches:
    """An epoll of a system that watches no more sockets for us, which root alone could bring about (epoll(7))."""

    is_full = True

    def __init__(self) -> None:
        assert EPOLL
        self._real = EPOLL()

    def register(self, fd: int, events: int) -> None:
        if self.is_full and events & select.EPOLLOUT:
            raise OSError(errno.ENOSPC, "no watches")
        self._real.register(fd, events)

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


@pytest.mark.skipif(not CAN_SEND, reason="needs epoll")
def test_a_transfer_that_cannot_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "epoll", Watches)
    store = Store(tmp_path / "store")
    store.model("tiny:latest", WEIGHTS)
    with limited(store, Limits()) as (server, _):
        server.send(request(blob_path(WEIGHTS)))
        until_asked(server, "connections", 1)
        before = len(descriptors())
        for _ in range(20):
            assert WEIGHTS not in server.send(request(blob_path(WEIGHTS)))
        until_asked(server, "connections", 1)
        assert len(descriptors()) <= before
        assert figure(server, "transfers") == 0
        monkeypatch.setattr(Watches, "is_full", False)
        assert server.ask(blob_path(WEIGHTS)).body == WEIGHTS


class Grudging(socket.socket):
    """A socket that takes little, and every other time nothing, though it could: no system does so at will."""

    count = 0

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        self.count += 1
        if self.count % 2 == 0:
            raise BlockingIOError(errno.EAGAIN, "not now")
        return super().send(memoryview(data)[:1000], flags)


def test_bytes_that_a_socket_took_are_not_sent_again(tmp_path: Path) -> None:
    soft = bytes(byte & 31 for byte in noise(100_000))
    store = Store(tmp_path / "store")
    store.model("soft:latest", soft)
    assert run("export", "--all", tmp_path / "b.tar.zst", "--models", store.root).returncode == 0
    ours, theirs = socket.socketpair()
    with opened_source(str(tmp_path / "b.tar.zst"), jobs=1) as bundle, theirs, Grudging(fileno=ours.detach()) as to:
        assert isinstance(bundle, BundleReader)
        content = BundleSupply(bundle).opened(Descriptor(Digest.of(soft), len(soft)))
        assert content
        position, got = 0, b""
        while position < len(soft):
            position += (sent := content.send(to, position, len(soft)))
            got += theirs.recv(sent) if sent else b""
        to.close()
        assert got + theirs.recv(len(soft)) == soft


def test_a_manifest_that_the_disk_did_not_give_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has changed when it does. In this process, because no disk fails at will."""
    store = Store(tmp_path / "store")
    store.model("tiny:latest", WEIGHTS)
    asked = "/v2/library/tiny/manifests/latest"
    with monkeypatch.context() as failing, limited(store, Limits(), is_ready=False) as (server, _):
        store.model("late:latest", b"late weights")
        failing.setattr(scan, "read_small_file", no_disk)
        assert server.ask(asked.replace("tiny", "late")).status == 500
        failing.undo()
        for _ in range(1000):
            if server.ask(asked.replace("tiny", "late")).status == 200:
                break
            time.sleep(0.02)
        assert server.ask(asked.replace("tiny", "late")).status == 200


def no_disk(*_: object) -> bytes:
    raise OSError(errno.EIO, "Input/output error")


def test_a_manifest_of_a_layout_that_the_disk_did_not_give_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    store.model("tiny:latest", WEIGHTS)
    assert run("export", "--all", f"oci:{tmp_path / 'out'}", "--models", store.root).returncode == 0
    supply = LayoutSupply(tmp_path / "out", "out")
    with monkeypatch.context() as failing:
        failing.setattr(LayoutFolder, "read_manifest", no_disk)
        assert [str(name) for name in supply.look().broken] == ["tiny:latest"]
    assert [str(model.name) for model in supply.look().models] == ["tiny:latest"]


@pytest.mark.parametrize("change", ["removed", "replaced", "cut", "overwritten"])
def test_f121_a_blob_that_changes_while_it_is_sent_is_cut_off(tmp_path: Path, change: str) -> None:
    store = Store(tmp_path / "store")
    store.model("large:latest", LARGE)
    path = store.blob_path(LARGE)
    with serving(store.root, tmp_path) as server, socket.create_connection(server.address) as client:
        client.sendall(request(blob_path(LARGE, "library/large")))
        got = len(client.recv(65536).partition(b"\r\n\r\n")[2])
        if change == "removed":
            path.unlink()
        elif change == "replaced":
            (other := tmp_path / "other").write_bytes(LARGE)
            other.replace(path)
        elif change == "cut":
            os.truncate(path, 1_000_000)
        else:
            with path.open("r+b") as file:
                file.seek(len(LARGE) - 5)
                file.write(b"wrong")
        with contextlib.suppress(ConnectionError):
            got += read_all(client)
        assert got < len(LARGE)
        assert len([line for line in server.lines() if "aborted: " in line]) == 1


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_f122_what_is_no_file_is_no_blob(tmp_path: Path, kind: str) -> None:
    (tmp_path / "passwd").write_bytes(SECRET)
    store = Store(tmp_path / "store")
    store.model("tiny:latest", WEIGHTS)
    store.model("planted:latest", SECRET)
    path = store.blob_path(SECRET)
    path.unlink()
    if kind == "link":
        path.symlink_to(tmp_path / "passwd")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with serving(store.root, tmp_path) as server:
        for repository in ("library/planted", "library/tiny"):
            assert server.ask(blob_path(SECRET, repository)).status == 404
        path = store.blob_path(WEIGHTS)
        path.unlink()
        path.symlink_to(tmp_path / "passwd")
        assert server.ask(blob_path(WEIGHTS)).status == 404


def test_f122_a_compressed_twin_of_a_blob_is_not_served(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.model("tiny:latest", WEIGHTS)
    store.blob_path(WEIGHTS).with_name(f"sha256-{sha256(WEIGHTS)}.gz").write_bytes(SECRET)
    with serving(store.root, tmp_path) as server:
        found = server.ask(blob_path(WEIGHTS), Accept_Encoding="gzip, br, zstd")
        assert (found.status, found.body, "Content-Encoding" in found.headers) == (200, WEIGHTS, False)


def malformed(seed: int) -> bytes:
    """A request that is wrong in one way or several, the same for the same seed."""
    chance = random.Random(seed)
    good = request(
        chance.choice(
            [*PATHS, blob_path(WEIGHTS).encode(), b"/v2/_catalog?n=-1&last=\xff", b"/v2/library/tiny/tags/list"]
        ),
        chance.choice(
            [b"Range: bytes=0-", b"Range: bytes=--1", b"Accept: */*", b"If-Range: x", b"Expect: 100-continue"]
        ),
        chance.choice(
            [b"Content-Length: 7", b"Transfer-Encoding: chunked", b"Upgrade: websocket", b"Authorization: Basic \xff"]
        ),
        method=chance.choice([b"GET", b"HEAD", b"POST", b"G\x00T", b"", b"PRI"]),
    )
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(good))
        kind = chance.randrange(4)
        if kind == 0:
            good = good[:at]
        elif kind == 1:
            good = good[:at] + chance.randbytes(chance.randrange(1, 40)) + good[at:]
        elif kind == 2:
            good = good[:at] + bytes([good[at] ^ 1 << chance.randrange(8)]) + good[at + 1 :]
        else:
            good = good[at:] + good[:at]
        good = good or b"\n"
    return good


@unmeasured
def test_f123_ten_thousand_malformed_requests_do_no_harm(server: Serving) -> None:
    before = server.peak()
    for seed in some(range(10_000), 500, "F123"):
        answer = server.send(malformed(seed), until_silent=True)
        assert status_of(answer) < 500 or status_of(answer) == 503, (seed, answer[:200])
        assert SECRET not in answer, seed
    assert server.peak() < before + 32 * MEBIBYTE
    assert server.ask(blob_path(WEIGHTS)).body == WEIGHTS
    lines = server.lines()
    assert [line for line in lines if not line.isprintable() or "Traceback" in line or "Error" in line] == []


def test_f114_connections_that_come_and_go_are_not_counted(place: Path) -> None:
    with limited(Store(place / "store"), Limits(connections=20)) as (server, _):
        for _ in range(100):
            assert server.ask("/v2/").status == 200
