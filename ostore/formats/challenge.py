"""Challenges of a registry: what `WWW-Authenticate` asks for (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from ostore.formats.errors import LimitError, RemoteError

# Real ones have about 200 characters, one or two challenges, and three parameters.
MAX_CHALLENGE_CHARACTERS = 8192
MAX_CHALLENGES = 16
MAX_PARAMETERS = 32

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Of schemes such as Negotiate. A parameter looks like its beginning, so what follows decides.
_TOKEN_68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_QUOTED = re.compile(r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*)"')
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_BLANKS = re.compile(r"[ \t]*")
_BLANKS_AND_COMMAS = re.compile(r"[ \t,]*")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class BasicChallenge:
    """A name and a password are wanted."""

    realm: str


@dataclass(frozen=True, slots=True)
class BearerChallenge:
    """A token is wanted, which the URL `realm` gives for `service` and `scopes`."""

    realm: str
    service: str
    scopes: tuple[str, ...]


Challenge: TypeAlias = BasicChallenge | BearerChallenge


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """
    Return the challenges of all `WWW-Authenticate` headers of an answer, in their order. Other schemes are left out.

    Raises RemoteError for text outside the grammar or a Bearer challenge without a realm, LimitError for more text,
    challenges or parameters than a registry needs.
    """
    found: list[Challenge] = []
    room = MAX_CHALLENGE_CHARACTERS
    for header in headers:
        room -= len(header)
        if room < 0:
            raise LimitError(f"WWW-Authenticate: expected at most {MAX_CHALLENGE_CHARACTERS} characters")
        found += filter(None, (_challenge(*one) for one in _Reader(header).challenges()))
        if len(found) > MAX_CHALLENGES:
            raise LimitError(f"WWW-Authenticate: expected at most {MAX_CHALLENGES} challenges")
    return tuple(found)


def _challenge(scheme: str, parameters: dict[str, str]) -> Challenge | None:
    realm = parameters.get("realm", "")
    if scheme == "basic":
        return BasicChallenge(realm)
    if scheme != "bearer":
        return None
    if not realm:
        raise RemoteError("WWW-Authenticate: Bearer without a realm, so nobody knows where tokens are")
    return BearerChallenge(realm, parameters.get("service", ""), tuple(parameters.get("scope", "").split()))


class _Reader:
    """Reads one header from its start to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def challenges(self) -> Iterable[tuple[str, dict[str, str]]]:
        """Yield the scheme, in lower case, and the parameters of each challenge."""
        self._skip(_BLANKS_AND_COMMAS)
        while self._at < len(self._text):
            scheme = self._take(_TOKEN, "a scheme")
            if self._skip(_BLANKS) and self._skip(_TOKEN_68):
                parameters: dict[str, str] = {}
            else:
                parameters = self._parameters()
            yield scheme.lower(), parameters
            self._skip(_BLANKS_AND_COMMAS)

    def _parameters(self) -> dict[str, str]:
        """Return the parameters that begin here. The next challenge begins with a word that no `=` follows."""
        found: dict[str, str] = {}
        while (word := _TOKEN.match(self._text, self._at)) and _EQUALS.match(self._text, word.end()):
            self._at = word.end()
            self._skip(_EQUALS)
            name = word[0].lower()
            if name in found:
                # Two readers could understand it differently.
                raise RemoteError(f"WWW-Authenticate: parameter {name!r:.40} occurs twice")
            found[name] = self._value()
            if len(found) > MAX_PARAMETERS:
                raise LimitError(f"WWW-Authenticate: expected at most {MAX_PARAMETERS} parameters")
            before = self._at
            self._skip(_BLANKS)
            if self._at < len(self._text) and self._text[self._at] != ",":
                raise self._wrong("a comma")
            self._at = before
            self._skip(_BLANKS_AND_COMMAS)
        return found

    def _value(self) -> str:
        if quoted := _QUOTED.match(self._text, self._at):
            self._at = quoted.end()
            return _ESCAPED.sub(r"\1", quoted[1])
        return self._take(_TOKEN, "a value")

    def _take(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._wrong(what)
        self._at = found.end()
        return found[0]

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Go past what matches. Return whether that was anything."""
        found = pattern.match(self._text, self._at)
        if found is None or found.end() == self._at:
            return False
        self._at = found.end()
        return True

    def _wrong(self, expected: str) -> RemoteError:
        return RemoteError(f"WWW-Authenticate: expected {expected}, got {self._text[self._at :]!r:.60}")
