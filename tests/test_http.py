"""The HTTP client: what it bounds, whom it trusts, through whom it goes, and how long it waits."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import trustme

from ostore.formats.content_range import parse_content_range
from ostore.formats.errors import LimitError, RemoteError, UsageError
from ostore.streams.http import Http, NetworkTerms, Patience, Request
from ostore.streams.rate_limit import RateLimit
from tests.false_registry import Asked, answer, false_registry
from tests.ports import free_port


@contextlib.contextmanager
def client(**terms: object) -> Iterator[Http]:
    made = Http(NetworkTerms(**terms))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def drip(pause: float) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(1000):
        time.sleep(pause)
        yield b"x"


def slow_head(pause: float) -> Iterator[bytes]:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":
        time.sleep(pause)
        yield bytes([byte])


def silence(_asked: Asked) -> Iterator[bytes]:
    time.sleep(5)
    yield from answer()


@pytest.mark.parametrize("slow", [drip, slow_head, silence], ids=["a byte now and then", "in the head", "not at all"])
def test_a_peer_that_sends_too_little_is_given_up(slow: object) -> None:
    answers = silence if slow is silence else (lambda _: slow(0.1))  # type: ignore[operator]
    with false_registry(answers) as server, client() as asking:
        began = time.monotonic()
        request = Request("GET", f"http://{server.host}/", stall_seconds=0.4)
        with pytest.raises(RemoteError, match="no answer in time") as caught, asking.opened(request) as response:
            response.whole()
        assert caught.value.is_passing
        assert time.monotonic() - began < 4


def test_bytes_that_come_slowly_but_do_come_are_waited_for() -> None:
    def answers(_asked: Asked) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"
        for _ in range(4):
            time.sleep(0.3)
            yield b"x" * 1000

    with false_registry(answers) as server, client() as asking:
        assert asking.ask(Request("GET", f"http://{server.host}/", stall_seconds=0.8)).body == b"x" * 4000


class Secure:
    """A server of HTTPS with one certificate."""

    def __init__(self, certificate: trustme.LeafCert, version: ssl.TLSVersion | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        if version:
            context.minimum_version = context.maximum_version = version
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"https://127.0.0.1:{self.server.server_address[1]}/"

    def __exit__(self, *_error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "authority.pem")
    return made


def test_a_private_authority_is_trusted_if_it_is_named(authority: trustme.CA, tmp_path: Path) -> None:
    with Secure(authority.issue_cert("127.0.0.1")) as url, client(ca_file=tmp_path / "authority.pem") as asking:
        assert asking.ask(Request("HEAD", url)).status == 200
    with Secure(authority.issue_cert("127.0.0.1")) as url, client() as asking:
        with pytest.raises(RemoteError, match="its certificate is not valid") as caught:
            asking.ask(Request("HEAD", url))
        assert "--ca-file" in str(caught.value.hint)


def test_the_systems_file_of_authorities_is_that_of_the_environment(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with Secure(authority.issue_cert("127.0.0.1")) as url, client() as asking:
        assert asking.ask(Request("HEAD", url)).status == 200


def test_a_certificate_of_another_host_or_time_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    for certificate, why in (
        (authority.issue_cert("registry.example"), "mismatch"),
        (authority.issue_cert("127.0.0.1", not_before=past, not_after=past + dt.timedelta(1)), "expired"),
    ):
        with (
            Secure(certificate) as url,
            client(ca_file=tmp_path / "authority.pem") as asking,
            pytest.raises(RemoteError, match=f"its certificate is not valid: .*{why}"),
        ):
            asking.ask(Request("HEAD", url))


def test_a_server_without_tls_is_told_so() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with client() as asking, pytest.raises(RemoteError, match="no TLS connection") as caught:
            asking.ask(Request("GET", f"https://127.0.0.1:{server.server_address[1]}/"))
        server.shutdown()
        assert "--plain-http" in str(caught.value.hint)


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_file_of_authorities_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / "x.pem").write_bytes(content)
    with client(ca_file=tmp_path / "x.pem") as asking, pytest.raises(UsageError, match=r"ca-file: .*x\.pem: "):
        asking.ask(Request("GET", "https://127.0.0.1:1/"))


def test_a_proxy_is_used_for_other_hosts_and_gets_its_own_login() -> None:
    with false_registry(lambda _: answer(b"from the proxy")) as proxy:
        terms = {"proxies": {"http": f"http://me:pass%20word@{proxy.host}", "no": "lan.example, .other.example"}}
        with client(plain_http=True, **terms) as asking:
            assert asking.ask(Request("GET", "http://registry.example/x")).body == b"from the proxy"
            assert proxy.asked[0].path == "http://registry.example/x"
            assert proxy.asked[0].headers["proxy-authorization"] == "Basic bWU6cGFzcyB3b3Jk"
            with false_registry(lambda _: answer(b"itself")) as server:
                assert asking.ask(Request("GET", f"http://{server.host}/")).body == b"itself"
            for host in ("lan.example", "a.other.example", "other.example"):
                with pytest.raises(RemoteError):
                    asking.ask(Request("GET", f"http://{host}:1/"), patience=Patience(tries=1))
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("proxy", ["http://me:secret@proxy.example:99999", "http://me:secret@[x", "http://127.0.0.1:1"])
def test_a_proxy_that_fails_is_told_without_its_password(proxy: str) -> None:
    with client(plain_http=True, proxies={"http": proxy}) as asking, pytest.raises(RemoteError) as caught:
        asking.ask(Request("GET", "http://registry.example/"))
    assert "through the proxy that the environment names: " in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not caught.value.is_passing


def test_https_goes_through_a_tunnel(authority: trustme.CA, tmp_path: Path) -> None:
    def tunnel(asked: Asked) -> Iterable[bytes]:
        return answer(b"no", "403 Forbidden")

    with (
        false_registry(tunnel) as proxy,
        client(proxies={"https": proxy.host}) as asking,
        pytest.raises(RemoteError, match="403"),
    ):
        asking.ask(Request("GET", "https://registry.example/"))
    assert (proxy.asked[0].method, proxy.asked[0].path) == ("CONNECT", "registry.example:443")


def test_another_machine_is_not_asked_without_tls() -> None:
    with client() as asking, pytest.raises(UsageError, match="not encrypted") as caught:
        asking.ask(Request("GET", "http://registry.example/"))
    assert "--plain-http" in str(caught.value.hint)


@pytest.mark.parametrize("url", ["ftp://registry.example/", "https:///x", "registry.example"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with client() as asking, pytest.raises(UsageError, match="no address of a server"):
        asking.ask(Request("GET", url))


def test_a_redirect_takes_no_login_to_another_origin() -> None:
    with false_registry(lambda asked: answer(b"files")) as files:
        turns = iter([answer(b"", "307 Temporary Redirect", Location=f"http://{files.host}/x"), answer(b"here")])
        with false_registry(lambda _: next(turns)) as server, client() as asking:
            asking.ask(Request("GET", f"http://{server.host}/", {"Authorization": "Basic secret"}))
    assert server.asked[0].headers["authorization"] == "Basic secret"
    assert "authorization" not in files.asked[0].headers


def test_a_connection_is_used_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepted = itertools.count()
        seen: list[int] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    seen.append(next(accepted))
                    with connection, connection.makefile("rb") as lines:
                        while lines.readline():
                            while lines.readline().strip():
                                pass
                            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with client() as asking:
            for _ in range(3):
                assert asking.ask(Request("GET", f"http://127.0.0.1:{listening.getsockname()[1]}/")).body == b"ok"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert seen == [0]


def test_what_was_left_behind_sends_nothing_any_more() -> None:
    with false_registry(lambda _: answer()) as server, client() as asking:
        asking.close()
        with pytest.raises(RemoteError, match="not sent, because the command has ended"):
            asking.ask(Request("GET", f"http://{server.host}/"))
    assert server.asked == []


def test_who_has_waited_long_enough_does_not_wait_again() -> None:
    attempts: list[RemoteError] = []

    def attempt() -> None:
        attempts.append(RemoteError("again", is_passing=True, retry_after=0))
        Patience(tries=3).repeated(fail)

    def fail() -> None:
        raise attempts[-1]

    with pytest.raises(RemoteError, match="again"):
        Patience().repeated(attempt)
    assert len(attempts) == 1


def test_patience_ends() -> None:
    slow = RemoteError("wait", retry_after=301)
    with pytest.raises(RemoteError, match="wait"):
        Patience().wait(slow)
    patience, problem = Patience(tries=3), RemoteError("again", retry_after=0)
    patience.wait(problem)
    patience.wait(problem)
    patience.progressed()
    patience.wait(problem)
    patience.wait(problem)
    with pytest.raises(RemoteError, match="again"):
        patience.wait(problem)


def test_what_sends_too_much_is_refused() -> None:
    with (
        false_registry(lambda _: answer(b"x" * 1001)) as server,
        client() as asking,
        pytest.raises(LimitError, match="more than 1000 bytes"),
    ):
        asking.ask(Request("GET", f"http://{server.host}/"), limit=1000)
    port = free_port()
    with client() as asking, pytest.raises(RemoteError, match="connection refused") as caught:
        asking.ask(Request("GET", f"http://127.0.0.1:{port}/"))
    assert not caught.value.is_passing


def test_a_rate_counts_for_all_together() -> None:
    rate = RateLimit(1_000_000)
    began = time.monotonic()

    def send() -> None:
        for _ in range(4):
            rate.passed(50_000)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began > 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes 0-9/10", (0, 10, 10)),
        ("bytes 5-9/*", (5, 10, None)),
        ("bytes 9-5/10", None),
        ("bytes 0-10/10", None),
        ("bytes */10", None),
        ("items 0-9/10", None),
        (f"bytes 0-{'9' * 30}/*", None),
        ("", None),
    ],
)
def test_a_content_range_is_read_or_refused(text: str, expected: object) -> None:
    assert parse_content_range(text) == expected
