"""
Answer the challenges of one registry. What is secret goes to the host that it is for, and to no other.

A realm, which gives tokens, may be on another host: docs/adr/0017-secrets-go-where-they-were-meant-to.md.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ostore.formats.challenge import BasicChallenge, BearerChallenge, Challenge, parse_challenges
from ostore.formats.errors import RemoteError, UsageError
from ostore.formats.name import DEFAULT_HOST
from ostore.formats.web_address import is_inward, is_loopback, origin_of, without_secrets
from ostore.host.surroundings import Surroundings
from ostore.places.registry.docker_config import DockerConfig, Login
from ostore.places.registry.ollama_key import KEY_FILE, OllamaKey
from ostore.streams.http import Answer, Request, refused

Ask: TypeAlias = Callable[[Request], Answer]

# Real ones have one to three kilobytes. More does not fit into the head of a request.
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_REALM = re.compile(r"[\x21-\x7e]{1,2048}")
# The protocol's own default, and the part of its time for which a token is used.
_TOKEN_SECONDS, _USED_SHARE = 60, 0.8
_OK, _DENIED = 200, frozenset({400, 401, 403, 404})
_NONCE_BYTES = 16
# Large registries whose tokens come from elsewhere, which `docker login` sends their passwords to.
_REALMS_ELSEWHERE = {"registry-1.docker.io": "auth.docker.io", "registry.gitlab.com": "gitlab.com"}


@dataclass(frozen=True, slots=True)
class Access:
    """By what a person can prove who they are. `now` returns the seconds since 1970."""

    logins: DockerConfig
    ollama_key: Path | None
    now: Callable[[], float]

    @classmethod
    def of(cls, surroundings: Surroundings, now: Callable[[], float]) -> Access:
        key = surroundings.home.joinpath(*KEY_FILE) if surroundings.home else None
        return cls(DockerConfig.of(surroundings), key, now)


@dataclass(frozen=True, slots=True)
class Permit:
    """
    What requests need: actions in a repository, and to read `sources`, from which blobs are mounted.

    The empty repository stands for the list of all.
    """

    repository: str
    actions: tuple[str, ...] = ("pull",)
    sources: tuple[str, ...] = ()

    @property
    def scopes(self) -> tuple[str, ...]:
        """The same as the protocol of tokens writes it."""
        if not self.repository:
            return ("registry:catalog:*",)
        others = (f"repository:{source}:pull" for source in self.sources if source != self.repository)
        return (f"repository:{self.repository}:{','.join(self.actions)}", *others)


@dataclass(frozen=True, slots=True)
class _Header:
    """A value of `Authorization`, and the time until which it is used, on the clock that never goes back."""

    value: str = field(repr=False)
    until: float


class Authorizer:
    """
    The answers to one registry. Several threads may ask for them.

    `host` is the registry as typed, and `base_url` where its requests go. `ask` sends the requests for tokens.
    """

    def __init__(self, host: str, base_url: str, access: Access, ask: Ask) -> None:
        self._host = host
        self._base_url = base_url
        self._access = access
        self._ask = ask
        self._lock = threading.Lock()
        self._headers: dict[Permit, _Header] = {}

    @property
    def hint(self) -> str:
        """What a person can do when the registry refuses."""
        if self._host == DEFAULT_HOST:
            return "the key of your Ollama has to be known at https://ollama.com/settings/keys"
        return f"docker login {self._host}, skopeo login or podman login keeps a name and a password for it"

    def known(self, permit: Permit) -> str | None:
        """Return the value of `Authorization` that a request can be sent with at once, or None."""
        header = self._headers.get(permit)
        return header.value if header and time.monotonic() < header.until else None

    def answers(self, challenge: str, permit: Permit, rejected: str | None) -> Iterator[str]:
        """
        Yield what to try in `Authorization`, the likeliest first, for a request that was answered with 401.

        `challenge` is the value of `WWW-Authenticate`, `rejected` what the request was sent with. Ask for the next
        value if one was refused. Raises RemoteError or LimitError if the challenge is wrong, would lead secrets to
        another host or gives no token, UsageError, FormatError, LimitError or OSError if a login or key cannot be had.
        """
        refused_before = {rejected}
        for one in sorted(parse_challenges([challenge]), key=lambda one: isinstance(one, BasicChallenge)):
            for make in self._ways(one, permit):
                with self._lock:
                    header = self.known(permit)
                    if header is None or header in refused_before:
                        # Otherwise another thread has just made a new one.
                        made = make()
                        if made is None:
                            continue
                        self._headers[permit], header = made, made.value
                refused_before.add(header)
                yield header
        self._headers.pop(permit, None)

    def _ways(self, challenge: Challenge, permit: Permit) -> Iterator[Callable[[], _Header | None]]:
        """Yield functions that make an answer, or return None if they have none."""
        login = self._access.logins.login_for(self._host, permit.repository)
        if isinstance(challenge, BasicChallenge):
            # The client connects without TLS only to this machine, or where a person allowed it.
            if login and login.user is not None:
                yield lambda: _Header(login.basic, float("inf"))
            return
        is_own = self._is_own(challenge.realm)
        if login and (is_own or self._is_allowed(challenge.realm)):
            yield lambda: self._with_login(challenge, permit, login)
            return
        yield lambda: self._token(_get(challenge, permit), is_anonymous=True)
        if login:
            host = urlsplit(challenge.realm).netloc
            raise RemoteError(
                f"{self._host}: wants the login for it sent to another host, {host}",
                hint=f'if that host is right, add "{host}": {{}} to "auths" in the configuration of Docker',
            )
        if is_own and (path := self._access.ollama_key):
            yield lambda: self._with_key(challenge, permit, path)

    def _with_login(self, challenge: BearerChallenge, permit: Permit, login: Login) -> _Header | None:
        if login.user is not None:
            return self._token(_get(challenge, permit, login.basic))
        form = {
            "grant_type": "refresh_token",
            "client_id": "ostore",
            "service": challenge.service,
            "scope": " ".join(_scopes(challenge, permit)),
            "refresh_token": login.secret,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._token(Request("POST", challenge.realm, headers, urlencode(form).encode()))

    def _with_key(self, challenge: BearerChallenge, permit: Permit, path: Path) -> _Header | None:
        try:
            key = OllamaKey.read(path)
        except UsageError:
            # Every Ollama makes a key, and most registries know nothing of it.
            if self._host != DEFAULT_HOST:
                return None
            raise
        if key is None:
            return None
        nonce = base64.urlsafe_b64encode(secrets.token_bytes(_NONCE_BYTES)).rstrip(b"=").decode()
        more = (("nonce", nonce), ("ts", str(int(self._access.now()))))
        url = _url(challenge, permit, more)
        return self._token(Request("GET", url, {"Authorization": key.authorization(url)}), is_anonymous=True)

    def _token(self, request: Request, *, is_anonymous: bool = False) -> _Header | None:
        """Ask for a token. Return None if there is none for nobody in particular."""
        asked = time.monotonic()
        answer = self._ask(request)
        if answer.status in _DENIED and is_anonymous:
            return None
        if answer.status != _OK:
            raise refused(request, answer, hint=self.hint if answer.status in _DENIED else None)
        try:
            document: Any = json.loads(answer.body)
        except (ValueError, RecursionError):
            document = None
        token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            # The answer may be a token of another form.
            raise RemoteError(f"{request.told}: the answer has no token")
        seconds = document.get("expires_in")
        lasts = seconds if isinstance(seconds, int) and seconds > 0 else _TOKEN_SECONDS
        return _Header(f"Bearer {token}", asked + min(lasts, 10**9) * _USED_SHARE)

    def _is_own(self, realm: str) -> bool:
        """Return whether a realm is on the host of the registry. Raises RemoteError if nobody must be sent there."""
        problem = None
        try:
            parts = urlsplit(realm)
            scheme, host, port = origin_of(realm)
        except ValueError:
            raise RemoteError(f"{self._host}: its tokens are at {realm!r:.200}, which is no address") from None
        own_scheme, own_host, own_port = origin_of(self._base_url)
        if not _REALM.fullmatch(realm) or scheme not in {"http", "https"} or not host or "@" in parts.netloc:
            problem = "is no address"
        elif (host, port) == (own_host, own_port) and scheme in {"https", own_scheme}:
            return True
        elif scheme != "https" and not (is_loopback(host) and is_loopback(own_host)):
            problem = "is not encrypted"
        elif is_inward(host) and not is_inward(own_host):
            problem = "is an address of this machine or of its link"
        if problem:
            raise RemoteError(f"{self._host}: its tokens are at {without_secrets(realm)!r:.200}, which {problem}")
        return False

    def _is_allowed(self, realm: str) -> bool:
        """Return whether the login of the registry may go to a realm on another host: if a person has named that."""
        _, own_host, _ = origin_of(self._base_url)
        parts = urlsplit(realm)
        return _REALMS_ELSEWHERE.get(own_host) == parts.netloc.lower() or self._access.logins.names(parts.netloc)


def _get(challenge: BearerChallenge, permit: Permit, authorization: str | None = None) -> Request:
    headers = {"Authorization": authorization} if authorization else {}
    return Request("GET", _url(challenge, permit), headers)


def _url(challenge: BearerChallenge, permit: Permit, more: tuple[tuple[str, str], ...] = ()) -> str:
    """Return the URL of a token. The keys are sorted, because Ollama signs them so."""
    parts = urlsplit(challenge.realm)
    asked = [("scope", scope) for scope in _scopes(challenge, permit)]
    service = [("service", challenge.service)] if challenge.service else []
    names = {"scope", "service", *(name for name, _ in more)}
    kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in names]
    query = urlencode(sorted([*kept, *asked, *service, *more], key=lambda pair: pair[0]))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _scopes(challenge: BearerChallenge, permit: Permit) -> list[str]:
    """Return what the registry asks for and what the requests need, each resource once."""
    actions: dict[str, dict[str, None]] = {}
    for scope in (*challenge.scopes, *permit.scopes):
        resource, _, wanted = scope.rpartition(":")
        actions.setdefault(resource, {}).update(dict.fromkeys(wanted.split(",")))
    return [f"{resource}:{','.join(wanted)}" for resource, wanted in actions.items()]
