"""Answers to challenges: which secret goes where."""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from ostore.formats.errors import OstoreError, RemoteError, UsageError
from ostore.places.registry.authorization import Access, Authorizer, Permit
from ostore.places.registry.client import base_of
from ostore.places.registry.docker_config import DockerConfig
from ostore.places.registry.ollama_key import OllamaKey
from ostore.streams.http import Answer, NetworkTerms, Request
from tests.test_ollama_key import made_key

HOST = "registry.example"
OWN, ELSEWHERE = f"https://{HOST}/token", "https://auth.example/token"
PERMIT = Permit("team/llama3")
SECRET = base64.b64encode(b"me:hush").decode()


@dataclass
class Tokens:
    """
    The servers of tokens, in memory. A real one says nothing wrong, and cannot be asked what it got.

    `answers` are given in turn, the last one for ever.
    """

    answers: Sequence[tuple[int, Any]] = ((200, {"token": "one"}),)
    asked: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Answer:
        self.asked.append(request)
        status, document = self.answers[min(len(self.asked), len(self.answers)) - 1]
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return Answer(status, {}, body, request.url)

    def queries(self) -> list[dict[str, str]]:
        return [dict(parse_qsl(urlsplit(request.url).query)) for request in self.asked]

    def secrets(self) -> list[str | None]:
        return [request.headers.get("Authorization") for request in self.asked]


def authorizer(
    tmp_path: Path,
    tokens: Tokens,
    *,
    auths: Mapping[str, Any] | None = None,
    key: Path | None = None,
    host: str = HOST,
    base_url: str = "",
) -> Authorizer:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": auths or {}}))
    access = Access(DockerConfig([path]), key, lambda: 1_700_000_000.5)
    return Authorizer(host, base_url or f"https://{host}", access, tokens)


def bearer(realm: str = OWN, scope: str = "repository:team/llama3:pull") -> str:
    return f'Bearer realm="{realm}",service="the service",scope="{scope}"'


LOGIN = {HOST: {"auth": SECRET}}


def test_a_token_for_nobody_is_asked_for_and_kept(tmp_path: Path) -> None:
    tokens = Tokens([(200, {"token": "one"}), (200, {"access_token": "two"})])
    asks = authorizer(tmp_path, tokens)
    assert asks.known(PERMIT) is None
    assert next(asks.answers(bearer(), PERMIT, None)) == "Bearer one"
    assert asks.known(PERMIT) == "Bearer one"
    assert asks.known(Permit("team/other")) is None
    assert tokens.queries() == [{"scope": "repository:team/llama3:pull", "service": "the service"}]
    assert tokens.secrets() == [None]
    # It has expired since: the same question, and another token.
    assert next(asks.answers(bearer(), PERMIT, "Bearer one")) == "Bearer two"
    assert len(tokens.asked) == 2


def test_a_token_is_not_used_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    asks = authorizer(tmp_path, Tokens([(200, {"token": "one", "expires_in": 300}), (200, {"token": "two"})]))
    next(asks.answers(bearer(), PERMIT, None))
    now[0] = 1239.0
    assert asks.known(PERMIT) == "Bearer one"
    now[0] = 1241.0
    assert asks.known(PERMIT) is None
    next(asks.answers(bearer(), PERMIT, None))
    now[0] += 49
    assert asks.known(PERMIT) is None


def test_all_that_is_needed_is_asked_for_at_once(tmp_path: Path) -> None:
    tokens = Tokens()
    permit = Permit("team/new", ("pull", "push"), ("team/old", "team/new"))
    challenge = bearer(f"{OWN}?account=x&service=y", "repository:team/new:pull registry:catalog:*")
    next(authorizer(tmp_path, tokens).answers(challenge, permit, None))
    assert parse_qsl(urlsplit(tokens.asked[0].url).query) == [
        ("account", "x"),
        ("scope", "repository:team/new:pull,push"),
        ("scope", "registry:catalog:*"),
        ("scope", "repository:team/old:pull"),
        ("service", "the service"),
    ]


def test_a_login_goes_to_the_realm_of_its_own_host(tmp_path: Path) -> None:
    tokens = Tokens()
    asks = authorizer(tmp_path, tokens, auths=LOGIN)
    assert list(asks.answers(bearer(), PERMIT, None)) == ["Bearer one"]
    assert tokens.secrets() == [f"Basic {SECRET}"]
    assert asks.known(PERMIT) is None


def test_an_identity_token_is_posted(tmp_path: Path) -> None:
    tokens = Tokens([(200, {"access_token": "one"})])
    asks = authorizer(tmp_path, tokens, auths={HOST: {"identitytoken": "hush&"}})
    assert next(asks.answers(bearer(), PERMIT, None)) == "Bearer one"
    (request,) = tokens.asked
    assert (request.method, request.url) == ("POST", OWN)
    assert isinstance(request.body, bytes)
    assert dict(parse_qsl(request.body.decode())) == {
        "grant_type": "refresh_token",
        "client_id": "ostore",
        "service": "the service",
        "scope": "repository:team/llama3:pull",
        "refresh_token": "hush&",
    }
    assert list(asks.answers('Basic realm="x"', PERMIT, None)) == []


def test_basic(tmp_path: Path) -> None:
    tokens = Tokens()
    asks = authorizer(tmp_path, tokens, auths=LOGIN)
    assert list(asks.answers('Basic realm="x"', PERMIT, None)) == [f"Basic {SECRET}"]
    assert next(asks.answers('Basic realm="x"', PERMIT, None)) == f"Basic {SECRET}"
    assert asks.known(PERMIT) == f"Basic {SECRET}"
    assert list(authorizer(tmp_path, tokens).answers('Basic realm="x"', PERMIT, None)) == []
    assert tokens.asked == []
    assert "docker login registry.example" in asks.hint


def test_a_token_is_preferred_to_a_password(tmp_path: Path) -> None:
    asks = authorizer(tmp_path, Tokens(), auths=LOGIN)
    assert list(asks.answers(f'Basic realm="x", {bearer()}', PERMIT, None)) == ["Bearer one", f"Basic {SECRET}"]


@pytest.mark.parametrize(
    ("realm", "host", "named"),
    [
        (ELSEWHERE, HOST, False),
        (f"https://{HOST}:8443/token", HOST, False),
        (f"https://x.{HOST}/token", HOST, False),
        ("https://auth.docker.io/token", HOST, False),
        ("https://auth.docker.io.example/token", "registry-1.docker.io", False),
        ("https://auth.docker.io/token", "registry-1.docker.io", True),
        ("https://gitlab.com/jwt/auth", "registry.gitlab.com", True),
    ],
)
def test_a_realm_on_another_host_gets_no_login_but_of_large_registries(
    tmp_path: Path, realm: str, host: str, named: bool
) -> None:
    tokens = Tokens()
    asks = authorizer(tmp_path, tokens, auths={host: {"auth": SECRET}, "auth.docker.io.evil": {}}, host=host)
    answers = asks.answers(bearer(realm), PERMIT, None)
    assert next(answers) == "Bearer one"
    assert tokens.secrets() == [f"Basic {SECRET}" if named else None]
    if not named:
        with pytest.raises(RemoteError, match=re.escape(f"{host}: wants the login for it sent to another host")):
            next(answers)
    assert len(tokens.asked) == 1


def test_a_realm_that_a_person_has_named_gets_the_login_of_the_registry_and_no_other(tmp_path: Path) -> None:
    tokens = Tokens()
    other = base64.b64encode(b"other:hidden").decode()
    asks = authorizer(tmp_path, tokens, auths={**LOGIN, "auth.example": {"auth": other}})
    assert list(asks.answers(bearer(ELSEWHERE), PERMIT, None)) == ["Bearer one"]
    # Without a login for the registry, that for the realm stays where it is: its token would go to the registry.
    asks = authorizer(tmp_path, tokens, auths={"auth.example": {"auth": other}})
    assert list(asks.answers(bearer(ELSEWHERE), PERMIT, None)) == ["Bearer one"]
    assert tokens.secrets() == [f"Basic {SECRET}", None]


def test_docker_hub_by_the_name_that_people_type(tmp_path: Path) -> None:
    base_url = base_of("docker.io", NetworkTerms())
    assert base_url == "https://registry-1.docker.io"
    tokens = Tokens()
    auths = {"https://index.docker.io/v1/": {"auth": SECRET}}
    asks = authorizer(tmp_path, tokens, auths=auths, host="docker.io", base_url=base_url)
    assert list(asks.answers(bearer("https://auth.docker.io/token"), PERMIT, None)) == ["Bearer one"]
    assert tokens.secrets() == [f"Basic {SECRET}"]


@pytest.mark.parametrize(
    "realm",
    [
        f"http://{HOST}/token",
        "http://auth.example/token",
        "https://127.0.0.1/token",
        "https://[::1]/token",
        "https://localhost/token",
        "https://169.254.169.254/latest/meta-data",
        "https://0.0.0.0/token",
        "file:///etc/passwd",
        "gopher://auth.example/",
        "/token",
        "https://",
        "https://user:hush@auth.example/token",
        "https://[auth.example/token",
        "https://auth.example:99999/token",
        "https://auth.example/a b",
        "https://auth.ex\u00e4mple/token",
    ],
)
def test_a_realm_where_nobody_must_be_sent_is_refused(tmp_path: Path, realm: str) -> None:
    tokens = Tokens()
    asks = authorizer(tmp_path, tokens, auths=LOGIN)
    with pytest.raises(RemoteError, match=HOST) as refusal:
        next(asks.answers(bearer(realm), PERMIT, None))
    assert tokens.asked == []
    assert "hush" not in str(refusal.value)


def test_without_tls_the_realm_is_on_the_same_port_or_on_this_machine(tmp_path: Path) -> None:
    tokens = Tokens()
    asks = authorizer(tmp_path, tokens, host="127.0.0.1:5000", base_url="http://127.0.0.1:5000")
    for realm in ("http://127.0.0.1:5000/t", "https://127.0.0.1:5000/t", "http://localhost:6000/t"):
        assert next(asks.answers(bearer(realm), PERMIT, None)) == "Bearer one"
    lan = authorizer(tmp_path, tokens, host="10.0.0.5:5000", base_url="http://10.0.0.5:5000")
    assert next(lan.answers(bearer("http://10.0.0.5:5000/t"), PERMIT, None)) == "Bearer one"
    with pytest.raises(RemoteError, match="is not encrypted"):
        next(lan.answers(bearer("http://10.0.0.6:5000/t"), PERMIT, None))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        [],
        {},
        {"token": ""},
        {"token": 7},
        {"token": "a\r\nX-Evil: 1"},
        {"token": "a b"},
        {"token": "\u00e4"},
        {"token": "x" * 20_000},
    ],
    ids=lambda document: repr(document)[:12],
)
def test_what_is_no_token_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(RemoteError, match=r"GET https://registry\.example/token: the answer has no token"):
        next(authorizer(tmp_path, Tokens([(200, document)])).answers(bearer(), PERMIT, None))


@pytest.mark.parametrize("seconds", [0, -5, "300", None, 10**30, 1.5])
def test_a_strange_duration_is_no_error(tmp_path: Path, seconds: object) -> None:
    asks = authorizer(tmp_path, Tokens([(200, {"token": "one", "expires_in": seconds})]))
    assert next(asks.answers(bearer(), PERMIT, None)) == "Bearer one"
    assert asks.known(PERMIT) == "Bearer one"


def test_a_login_that_is_refused_is_told_with_what_to_do(tmp_path: Path) -> None:
    tokens = Tokens([(401, b"no such user")])
    with pytest.raises(RemoteError, match="401 Unauthorized: 'no such user'") as refusal:
        next(authorizer(tmp_path, tokens, auths=LOGIN).answers(bearer(), PERMIT, None))
    assert "docker login registry.example" in str(refusal.value.hint)
    with pytest.raises(RemoteError, match="500"):
        next(authorizer(tmp_path, Tokens([(500, b"")])).answers(bearer(), PERMIT, None))
    assert list(authorizer(tmp_path, Tokens([(403, b"")])).answers(bearer(), PERMIT, None)) == []


def test_a_challenge_that_says_nothing_has_no_answer(tmp_path: Path) -> None:
    assert list(authorizer(tmp_path, Tokens()).answers("", PERMIT, None)) == []
    assert list(authorizer(tmp_path, Tokens()).answers("Negotiate", PERMIT, None)) == []


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen of OpenSSH")
def test_ollamas_key_comes_after_nobody_and_signs_the_very_url(tmp_path: Path) -> None:
    path = made_key(tmp_path / "id_ed25519")
    key = OllamaKey.read(path)
    assert key is not None
    tokens = Tokens([(200, {"token": "nobody"}), (200, {"token": "mine"})])
    asks = authorizer(tmp_path, tokens, key=path)
    answers = asks.answers(bearer(), PERMIT, None)
    assert [next(answers), next(answers)] == ["Bearer nobody", "Bearer mine"]
    first, second = tokens.asked
    assert dict(first.headers) == {}
    assert second.headers["Authorization"] == key.authorization(second.url)
    assert [name for name, _ in parse_qsl(urlsplit(second.url).query)] == ["nonce", "scope", "service", "ts"]
    query = tokens.queries()[1]
    assert query["ts"] == "1700000000"
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", query["nonce"])
    assert list(answers) == []


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen of OpenSSH")
def test_ollamas_key_never_goes_to_another_host(tmp_path: Path) -> None:
    path = made_key(tmp_path / "id_ed25519")
    tokens = Tokens([(401, b"")])
    for host in (HOST, "registry.ollama.ai"):
        assert list(authorizer(tmp_path, tokens, key=path, host=host).answers(bearer(ELSEWHERE), PERMIT, None)) == []
    assert tokens.secrets() == [None, None]
    # Whoever has logged in is known by that.
    assert list(authorizer(tmp_path, Tokens(), key=path, auths=LOGIN).answers(bearer(), PERMIT, None)) == ["Bearer one"]


@pytest.mark.parametrize("host", [HOST, "registry.ollama.ai"])
def test_without_the_extra_only_ollamas_registry_complains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def missing(_path: Path) -> None:
        raise UsageError("not installed")

    monkeypatch.setattr(OllamaKey, "read", missing)
    asks = authorizer(tmp_path, Tokens([(401, b"")]), key=tmp_path / "id_ed25519", host=host)
    answers = asks.answers(bearer(f"https://{host}/token"), PERMIT, None)
    if host == HOST:
        assert list(answers) == []
    else:
        with pytest.raises(UsageError):
            next(answers)
        assert "ollama.com/settings/keys" in asks.hint


def test_without_a_key_there_is_no_answer(tmp_path: Path) -> None:
    asks = authorizer(tmp_path, Tokens([(401, b"")]), key=tmp_path / "absent")
    assert list(asks.answers(bearer(), PERMIT, None)) == []


def test_many_that_are_refused_at_once_ask_for_one_token(tmp_path: Path) -> None:
    tokens = Tokens([(200, {"token": "old"}), (200, {"token": "new"})])
    asks = authorizer(tmp_path, tokens)
    next(asks.answers(bearer(), PERMIT, None))
    got: list[str] = []
    threads = [
        threading.Thread(target=lambda: got.append(next(asks.answers(bearer(), PERMIT, "Bearer old"))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["Bearer new"] * 8
    assert len(tokens.asked) == 2


def test_a_wrong_configuration_is_told_when_a_registry_wants_a_login(tmp_path: Path) -> None:
    asks = authorizer(tmp_path, Tokens())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OstoreError, match=r"config\.json: not JSON"):
        next(asks.answers(bearer(), PERMIT, None))
