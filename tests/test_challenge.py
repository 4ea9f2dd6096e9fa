"""Challenges: what registries send, and what nobody should."""

from __future__ import annotations

from contextlib import suppress

import pytest

from ostore.formats.challenge import (
    MAX_CHALLENGE_CHARACTERS,
    MAX_CHALLENGES,
    MAX_PARAMETERS,
    BasicChallenge,
    BearerChallenge,
    Challenge,
    parse_challenges,
)
from ostore.formats.errors import LimitError, RemoteError
from tests.support import noise

HUB = BearerChallenge("https://auth.docker.io/token", "registry.docker.io", ("repository:a/b:pull",))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"'],
            [HUB],
            id="Docker Hub",
        ),
        pytest.param(
            ['bearer scope = "repository:a/b:pull" , SERVICE=registry.docker.io ,Realm="https://auth.docker.io/token"'],
            [HUB],
            id="any case, order and spacing",
        ),
        pytest.param(['Basic realm="Registry Realm"'], [BasicChallenge("Registry Realm")], id="docker-registry"),
        pytest.param(["Basic"], [BasicChallenge("")], id="no parameters"),
        pytest.param([r'Basic realm="a \"b\", c=\\d"'], [BasicChallenge(r'a "b", c=\d')], id="escapes in quotes"),
        pytest.param(
            ['Basic realm="x", Bearer realm="https://y/t"'],
            [BasicChallenge("x"), BearerChallenge("https://y/t", "", ())],
            id="two in one header",
        ),
        pytest.param(
            ['Bearer realm="https://y/t"', 'Basic realm="x"'],
            [BearerChallenge("https://y/t", "", ()), BasicChallenge("x")],
            id="two headers",
        ),
        pytest.param(
            ['Negotiate, NTLM TlRMTVNTUAAB==, , Digest qop="auth, int", Basic realm=x,'],
            [BasicChallenge("x")],
            id="other schemes are left out",
        ),
        pytest.param(
            ['Bearer realm="https://y/t",scope="repository:a/b:pull repository:c/d:pull,push"'],
            [BearerChallenge("https://y/t", "", ("repository:a/b:pull", "repository:c/d:pull,push"))],
            id="several scopes",
        ),
        pytest.param([], [], id="none"),
        pytest.param([" , ,"], [], id="empty"),
    ],
)
def test_challenges_are_read(headers: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(headers) == tuple(expected)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        'Bearer service="x"',
        'Bearer realm=""',
        'Bearer realm="https://a/t",realm="https://b/t"',
        'Bearer realm="https://a/t',
        'Bearer realm="https://a/t" service="x"',
        "Bearer realm=https://a/t",
        'Bearer realm="https://a/t\x1b[2J"',
        'Bearer realm="https://a/t\\\r\n"',
        '"Bearer" realm="x"',
        "=x",
    ],
)
def test_text_outside_the_grammar_is_refused(header: str) -> None:
    with pytest.raises(RemoteError, match="WWW-Authenticate"):
        parse_challenges([header])


@pytest.mark.parametrize(
    "headers",
    [
        ["x" * (MAX_CHALLENGE_CHARACTERS + 1)],
        ["Basic"] * 2000,
        [",".join(["Basic"] * (MAX_CHALLENGES + 1))],
        ["Basic " + ",".join(f"p{number}=x" for number in range(MAX_PARAMETERS + 1))],
    ],
    ids=["long", "many headers", "many challenges", "many parameters"],
)
def test_more_than_a_registry_needs_is_refused(headers: list[str]) -> None:
    with pytest.raises(LimitError):
        parse_challenges(headers)


def test_any_text_is_read_or_refused() -> None:
    start = 'Bearer realm="https://a/t",service=b,scope="c", Basic realm="d"'
    for seed in range(2000):
        place, *others = noise(4, seed)
        at = place % len(start)
        text = start[:at] + bytes(others).decode("latin-1") + start[at + seed % 3 :]
        with suppress(RemoteError, LimitError):
            parse_challenges([text])
