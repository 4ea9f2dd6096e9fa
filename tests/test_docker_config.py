"""Logins as Docker, Podman and skopeo keep them."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Protocol

import pytest

from ostore.formats.errors import FormatError, LimitError, OstoreError, UsageError
from ostore.host.surroundings import Surroundings
from ostore.places.registry import docker_config
from ostore.places.registry.docker_config import MAX_CONFIG_BYTES, DockerConfig, Login
from tests.support import unmeasured

HUB = "https://index.docker.io/v1/"


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def auth(user: str, password: str = "secret") -> dict[str, str]:  # noqa: S107 - of a test
    return {"auth": encoded(user, password)}


def config(folder: Path, **document: object) -> DockerConfig:
    path = folder / "config.json"
    path.write_text(json.dumps(document))
    return DockerConfig([path])


@pytest.mark.parametrize(
    ("key", "host", "repository", "fits"),
    [
        ("harbor.example", "harbor.example", "team/llama3", True),
        ("https://harbor.example", "harbor.example", "team/llama3", True),
        ("https://harbor.example/v2/", "harbor.example", "team/llama3", True),
        ("http://harbor.example/v1", "harbor.example", "team/llama3", True),
        ("harbor.example/", "HARBOR.example", "team/llama3", True),
        ("harbor.example", "harbor.example:8443", "team/llama3", False),
        ("harbor.example:8443", "harbor.example:8443", "team/llama3", True),
        ("harbor.example", "evil.harbor.example", "team/llama3", False),
        ("harbor.example/team", "harbor.example", "team/llama3", True),
        ("harbor.example/team/llama3", "harbor.example", "team/llama3", True),
        ("harbor.example/tea", "harbor.example", "team/llama3", False),
        ("harbor.example/other", "harbor.example", "team/llama3", False),
        (HUB, "docker.io", "ai/smollm2", True),
        (HUB, "registry-1.docker.io", "ai/smollm2", True),
        ("docker.io", "index.docker.io", "ai/smollm2", True),
        (HUB, "harbor.example", "ai/smollm2", False),
    ],
)
def test_a_login_is_for_its_host_and_namespace(
    tmp_path: Path, key: str, host: str, repository: str, fits: bool
) -> None:
    login = config(tmp_path, auths={key: auth("me")}).login_for(host, repository)
    assert login == (Login("me", "secret") if fits else None)


def test_the_longest_prefix_counts(tmp_path: Path) -> None:
    logins = config(
        tmp_path, auths={"h.example": auth("all"), "h.example/team": auth("team"), "h.example/team/x": auth("one")}
    )
    users = [
        login and login.user for login in (logins.login_for("h.example", name) for name in ("a/b", "team/y", "team/x"))
    ]
    assert users == ["all", "team", "one"]


def test_forms_of_a_login(tmp_path: Path) -> None:
    logins = config(
        tmp_path,
        auths={
            "token.example": {**auth("ignored"), "identitytoken": "a-token"},
            "plain.example": {"username": "me", "password": "p:w"},
            "colon.example": auth("me", "p:w"),
            "old.example": auth("me", "secret\0\0"),
            "empty.example": {},
        },
    )
    assert logins.login_for("token.example", "a/b") == Login(None, "a-token")
    assert logins.login_for("plain.example", "a/b") == Login("me", "p:w")
    assert logins.login_for("colon.example", "a/b") == Login("me", "p:w")
    assert logins.login_for("old.example", "a/b") == Login("me", "secret")
    assert logins.login_for("empty.example", "a/b") is None
    assert logins.names("empty.example")
    assert not logins.names("other.example")
    assert Login("me", "p:w").basic == f"Basic {encoded('me', 'p:w')}"


def test_no_secret_is_in_a_repr(tmp_path: Path) -> None:
    logins = config(tmp_path, auths={"h.example": auth("me", "hush")})
    login = logins.login_for("h.example", "a/b")
    assert login is not None
    shown = repr((login, logins, vars(logins)))
    assert "hush" not in shown
    assert encoded("me", "hush") not in shown


def test_the_environment_says_where_the_files_are(tmp_path: Path) -> None:
    home, runtime = tmp_path / "home", tmp_path / "run"
    for folder in (home / ".docker", tmp_path / "docker", runtime / "containers"):
        folder.mkdir(parents=True)
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": {"h.example": auth("home")}}))
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {"h.example": auth("named")}}))
    (runtime / "containers" / "auth.json").write_text(
        json.dumps({"auths": {"h.example": auth("podman"), "p.example": auth("podman")}})
    )

    def user(host: str, **environ: str) -> str | None:
        logins = DockerConfig.of(Surroundings(environ=environ, platform="linux", home=home, cwd=tmp_path))
        login = logins.login_for(host, "a/b")
        return login.user if login else None

    assert user("h.example") == "home"
    assert user("h.example", DOCKER_CONFIG="docker") == "named"
    assert user("h.example", DOCKER_CONFIG="") == "home"
    assert user("h.example", DOCKER_CONFIG=str(tmp_path / "absent"), XDG_RUNTIME_DIR=str(runtime)) == "podman"
    assert user("p.example", XDG_RUNTIME_DIR=str(runtime)) == "podman"
    assert user("p.example") is None
    assert DockerConfig.of(Surroundings({}, "linux", None, tmp_path)).login_for("h.example", "a/b") is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"auths": []}',
        '{"auths": {"h.example": "x"}}',
        '{"auths": {"h.example": {"auth": 7}}}',
        '{"auths": {"h.example": {"auth": "!!"}}}',
        json.dumps({"auths": {"h.example": {"auth": base64.b64encode(b"no colon hush").decode()}}}),
        '{"credsStore": "../../bin/sh"}',
        '{"credsStore": 7}',
        '{"credHelpers": {"h.example": "a b"}}',
    ],
)
def test_a_file_that_is_wrong_is_named_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=str(path)) as refusal:
        DockerConfig([path]).login_for("h.example", "a/b")
    assert "hush" not in str(refusal.value)
    assert base64.b64encode(b"no colon hush").decode() not in str(refusal.value)


def test_a_file_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(" ")
    assert DockerConfig([path]).login_for("h.example", "a/b") is None
    path.write_bytes(b" " * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(LimitError, match=str(path)):
        DockerConfig([path]).login_for("h.example", "a/b")
    with pytest.raises((FormatError, OSError), match=str(tmp_path)):
        DockerConfig([tmp_path]).login_for("h.example", "a/b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="FIFOs of POSIX")
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(FormatError, match="not a regular file"):
        DockerConfig([tmp_path / "config.json"]).login_for("h.example", "a/b")


HELPER = """#!{python}
import sys
assert sys.argv[1:] == ["get"], sys.argv
host = sys.stdin.read()
with open({log!r}, "a") as log:
    log.write(host + "\\n")
{body}
"""
ANSWER = 'import json; print(json.dumps({"ServerURL": host, "Username": "%s", "Secret": "hush"}))'


class Helper(Protocol):
    """Makes a program docker-credential-NAME with such a body, and returns the file that says what it was asked."""

    def __call__(self, body: str, name: str = "desk", /) -> Path: ...


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helper:
    """Programs on PATH: a real one needs a desktop with a keychain."""
    if os.name == "nt":
        pytest.skip("scripts of POSIX")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def made(body: str, name: str = "desk", /) -> Path:
        path = folder / f"docker-credential-{name}"
        log = tmp_path / "asked"
        path.write_text(HELPER.format(python=sys.executable, log=str(log), body=body))
        path.chmod(0o755)
        return log

    return made


@unmeasured
def test_a_program_that_the_file_names_has_the_login(tmp_path: Path, helper: Helper) -> None:
    log = helper(ANSWER % "me")
    helper("print('credentials not found in native keychain'); sys.exit(1)", "empty")
    helper(ANSWER % "<token>", "token")
    helper('print("{\\"Username\\": \\"\\", \\"Secret\\": \\"\\"}")', "blank")
    logins = config(
        tmp_path,
        auths={"h.example": {}, "e.example": auth("file")},
        credsStore="desk",
        credHelpers={"e.example": "empty", "t.example": "token", "b.example": "blank", "f.example": ""},
    )
    assert logins.login_for("h.example:5000", "a/b") == Login("me", "hush")
    assert logins.login_for("docker.io", "a/b") == Login("me", "hush")
    assert logins.login_for("f.example", "a/b") == Login("me", "hush")
    assert log.read_text().split() == ["h.example:5000", HUB, "f.example"]
    assert logins.login_for("e.example", "a/b") == Login("file", "secret")
    assert logins.login_for("t.example", "a/b") == Login(None, "hush")
    assert logins.login_for("b.example", "a/b") is None


@unmeasured
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('the keychain is locked'); sys.exit(3)", "ended with 3: 'the keychain is locked'"),
        ("print('hush')", "is no login"),
        ("print('[]')", "is no login"),
        ('print("{\\"Username\\": 1, \\"Secret\\": \\"hush\\"}")', "is no login"),
        ('print("{\\"Username\\": \\"a:b\\", \\"Secret\\": \\"hush\\"}")', "is no login"),
        (r"""print('{"Username": "\\ud800", "Secret": "hush"}')""", "is no login"),
        (r"""print('{"Username": "me", "Secret": "hush\\udfff"}')""", "is no login"),
        ("while True: print('hush' * 1000)", "expected at most 65536 bytes"),
    ],
    ids=["fails", "no JSON", "no object", "no name", "colon", "no Unicode", "no Unicode in a secret", "endless"],
)
def test_a_program_that_gives_no_login_is_named(tmp_path: Path, helper: Helper, body: str, said: str) -> None:
    helper(body)
    with pytest.raises(UsageError, match=r"docker-credential-desk: .*") as refusal:
        config(tmp_path, credsStore="desk").login_for("h.example", "a/b")
    assert said in str(refusal.value)
    assert "hush" not in str(refusal.value)


@unmeasured
@pytest.mark.parametrize(
    "body", ["import time; time.sleep(60)", "sys.stdout.close(); import os, time; os.close(1); time.sleep(60)"]
)
def test_a_program_that_never_ends_is_ended(
    tmp_path: Path, helper: Helper, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(docker_config, "HELPER_SECONDS", 0.5)
    helper(body)
    with pytest.raises(UsageError, match=r"docker-credential-desk: no answer in"):
        config(tmp_path, credsStore="desk").login_for("h.example", "a/b")


@unmeasured
def test_a_program_that_cannot_be_run_is_named(tmp_path: Path, helper: Helper) -> None:
    helper("pass", "broken")
    (tmp_path / "bin" / "docker-credential-broken").write_bytes(b"\x7fELF nothing")
    with pytest.raises(UsageError, match="docker-credential-broken: cannot be run"):
        config(tmp_path, credsStore="broken").login_for("h.example", "a/b")
    with pytest.raises(UsageError, match="docker-credential-absent, which is not installed") as refusal:
        config(tmp_path, credsStore="absent").login_for("h.example", "a/b")
    assert isinstance(refusal.value, OstoreError)
    assert "'absent'" in str(refusal.value.hint)
