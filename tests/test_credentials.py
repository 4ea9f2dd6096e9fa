"""Registries that want to know who asks, through the program: real ones, and logins that real programs wrote."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.logging_proxy import Noted, Proxy, proxy_of
from tests.registries import DockerRegistry, docker_registry, needs_registry
from tests.support import Store, noise, unmeasured
from tests.support import ostore as run
from tests.test_ollama_key import made_key
from tests.token_server import SERVICE, TokenServer, token_server

pytestmark = needs_registry
needs_htpasswd = pytest.mark.skipif(shutil.which("htpasswd") is None, reason="needs htpasswd of apache2-utils")
# What Ollama signs of a request without a body.
NO_BODY = "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
LOGIN = base64.b64encode(b"me:hush").decode()


def a_store(folder: Path) -> Store:
    store = Store(folder / "origin")
    store.model("tiny:latest", noise(70_001, 3), template=b"{{ .Prompt }}")
    store.model("registry.ollama.ai/me/private:latest", noise(5_001, 4))
    return store


def filled(folder: Path, root: Path) -> None:
    """A registry's data: docker-registry without any authentication takes the models."""
    with docker_registry(root) as registry:
        registry.fill(a_store(folder))


def home_of(folder: Path, auths: dict[str, object] | None = None, **more: object) -> dict[str, str]:
    """The environment of a person with such a Docker configuration."""
    docker = folder / "home" / ".docker"
    docker.mkdir(parents=True, exist_ok=True)
    (docker / "config.json").write_text(json.dumps({"auths": auths or {}, **more}))
    return {"HOME": str(folder / "home"), "XDG_RUNTIME_DIR": "", "DOCKER_CONFIG": "", "OLLAMA_MODELS": ""}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[DockerRegistry]:
    """A docker-registry that wants a name and a password."""
    passwords = tmp_path / "htpasswd"
    passwords.write_bytes(subprocess.run(["htpasswd", "-nbB", "me", "hush"], capture_output=True, check=True).stdout)
    filled(tmp_path, tmp_path / "data")
    with docker_registry(tmp_path / "data", htpasswd=passwords) as registry:
        yield registry


@needs_htpasswd
def test_a_password_from_the_configuration_of_docker(tmp_path: Path, guarded: DockerRegistry) -> None:
    name, models = guarded.name("me/private"), tmp_path / "models"
    denied = run("pull", name, "--models", models, environment=home_of(tmp_path))
    assert denied.returncode == 11
    assert "401 Unauthorized" in denied.stderr
    assert f"docker login {guarded.host}" in denied.stderr
    wrong = home_of(tmp_path, {guarded.host: {"auth": base64.b64encode(b"me:other").decode()}})
    denied = run("pull", name, "--models", models, environment=wrong)
    assert denied.returncode == 11
    assert "other" not in denied.stderr
    assert not models.exists()
    done = run("pull", name, "--models", models, environment=home_of(tmp_path, {guarded.host: {"auth": LOGIN}}))
    assert done.returncode == 0, done.stderr
    assert run("verify", "--models", models).returncode == 0


@needs_htpasswd
@unmeasured
@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_a_login_that_skopeo_keeps(tmp_path: Path, guarded: DockerRegistry) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environment = {**home_of(tmp_path), "XDG_RUNTIME_DIR": str(runtime)}
    subprocess.run(
        ["skopeo", "login", "--tls-verify=false", "-u", "me", "--password-stdin", guarded.host],
        input=b"hush",
        env={"PATH": "/usr/bin:/bin", **environment},
        check=True,
        capture_output=True,
    )
    assert (runtime / "containers" / "auth.json").exists()
    done = run("pull", guarded.name("tiny"), "--models", tmp_path / "models", environment=environment)
    assert done.returncode == 0, done.stderr


@needs_htpasswd
@unmeasured
@pytest.mark.skipif(sys.platform == "win32", reason="scripts of POSIX")
def test_a_login_that_a_program_keeps(tmp_path: Path, guarded: DockerRegistry) -> None:
    """The programs of Docker keep secrets in the keychain of a desktop, which no test machine has."""
    program = tmp_path / "docker-credential-desk"
    program.write_text('#!/bin/sh\nread -r host\nprintf \'{"Username": "me", "Secret": "hush"}\'\n')
    program.chmod(0o755)
    environment = {**home_of(tmp_path, credsStore="desk"), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = run("pull", guarded.name("tiny"), "--models", tmp_path / "models", environment=environment)
    assert done.returncode == 0, done.stderr
    # Half of a character, which no encoding has.
    program.write_text('#!/bin/sh\nread -r host\nprintf %s \'{"Username": "\\ud800", "Secret": "hush"}\'\n')
    done = run("pull", guarded.name("tiny"), "--models", tmp_path / "models", environment=environment)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        f"ostore: error[usage]: docker-credential-desk: what it says about {guarded.host} is no login",
    )
    program.unlink()
    done = run("pull", guarded.name("tiny"), "--models", tmp_path / "models", environment=environment)
    assert done.returncode == 2
    assert "docker-credential-desk, which is not installed" in done.stderr


@needs_htpasswd
def test_a_configuration_that_is_wrong_is_one_line(tmp_path: Path, guarded: DockerRegistry) -> None:
    environment = home_of(tmp_path)
    path = tmp_path / "home" / ".docker" / "config.json"
    path.write_text(json.dumps({"auths": {guarded.host: {"auth": "aHVzaA=="}}}))
    done = run("pull", guarded.name("tiny"), "--models", tmp_path / "models", environment=environment)
    assert done.returncode == 12
    assert done.stderr.splitlines()[-1].startswith(f"ostore: error[format]: {path}: login of {guarded.host}: 'auth'")
    assert "aHVzaA" not in done.stderr
    assert "hush" not in done.stderr


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    with token_server(tmp_path) as server:
        yield server


@pytest.fixture
def proxy(tmp_path: Path, tokens: TokenServer) -> Iterator[Proxy]:
    """A docker-registry whose tokens are on its own host: at a path of the proxy before it."""
    filled(tmp_path, tmp_path / "data")
    with proxy_of(0) as proxy:
        settings = tokens.settings(f"http://{proxy.host}/token")
        with docker_registry(tmp_path / "data", more=settings) as registry:
            proxy.upstream, proxy.ports["/token"] = registry.port, tokens.port
            yield proxy


def test_a_token_for_nobody(tmp_path: Path, proxy: Proxy, tokens: TokenServer) -> None:
    models = tmp_path / "models"
    done = run("pull", f"{proxy.host}/library/tiny", "--models", models, environment=home_of(tmp_path))
    assert done.returncode == 0, done.stderr
    ((query, secret),) = tokens.seen
    assert (query["scope"], secret) == (["repository:library/tiny:pull"], None)
    # The manifest twice, the token, and each blob.
    assert [noted.status for noted in proxy.requests] == [401, 200, 200, *[200] * 3]
    denied = run("pull", f"{proxy.host}/me/private", "--models", models, environment=home_of(tmp_path))
    assert denied.returncode == 11
    assert f"docker login {proxy.host}" in denied.stderr


def test_a_token_for_a_login(tmp_path: Path, proxy: Proxy, tokens: TokenServer) -> None:
    environment = home_of(tmp_path, {proxy.host: {"auth": LOGIN}})
    done = run("pull", f"{proxy.host}/me/private", "--models", tmp_path / "models", environment=environment)
    assert done.returncode == 0, done.stderr
    assert [secret for _, secret in tokens.seen] == [f"Basic {LOGIN}"]


def test_a_token_that_ends_on_the_way_is_asked_for_again(tmp_path: Path, proxy: Proxy, tokens: TokenServer) -> None:
    ended: list[str | None] = []

    def answer(noted: Noted) -> tuple[int, dict[str, str], bytes] | None:
        if "/blobs/" in noted.path and not ended:
            ended.append(noted.authorization)
        if noted.authorization in ended:
            realm = f"http://{proxy.host}/token"
            return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="{SERVICE}"'}, b""
        return None

    proxy.instead = answer
    done = run("pull", f"{proxy.host}/library/tiny", "--models", tmp_path / "m", environment=home_of(tmp_path))
    assert done.returncode == 0, done.stderr
    assert len(tokens.seen) == 2


def test_a_realm_on_another_host_gets_the_login_only_if_it_is_named(tmp_path: Path, tokens: TokenServer) -> None:
    filled(tmp_path, tmp_path / "data")
    realm = f"127.0.0.1:{tokens.port}"
    with docker_registry(tmp_path / "data", more=tokens.settings(f"http://{realm}/token")) as registry:
        auths: dict[str, object] = {registry.host: {"auth": LOGIN}}
        name, models = registry.name("me/private"), tmp_path / "models"
        denied = run("pull", name, "--models", models, environment=home_of(tmp_path, auths))
        assert denied.returncode == 11
        assert f"wants the login for it sent to another host, {realm}" in denied.stderr
        assert f'add "{realm}": {{}} to "auths"' in denied.stderr
        assert [secret for _, secret in tokens.seen] == [None]
        done = run("pull", name, "--models", models, environment=home_of(tmp_path, {**auths, realm: {}}))
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen of OpenSSH")
def test_ollamas_key_opens_what_is_private(tmp_path: Path) -> None:
    """Ollama's registry is not to be had: this one checks the signature as its documents say, and gives a token."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    environment = home_of(tmp_path)
    key = tmp_path / "home" / ".ollama" / "id_ed25519"
    key.parent.mkdir()
    public = load_ssh_public_key(made_key(key).with_suffix(".pub").read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    with docker_registry(tmp_path / "data") as registry, proxy_of(registry.port) as proxy:
        registry.fill(a_store(tmp_path))
        realm = f"http://{proxy.host}/token"

        def answer(noted: Noted) -> tuple[int, dict[str, str], bytes] | None:
            proof = noted.authorization or ""
            if noted.path.startswith("/token"):
                if not proof:
                    return 401, {}, b""
                text = f"GET,http://{proxy.host}{noted.path},{NO_BODY}"
                public.verify(base64.b64decode(proof.partition(":")[2]), text.encode())
                return 200, {}, b'{"token": "from-the-key"}'
            if proof.endswith(" from-the-key"):
                return None
            scope = "repository:me/private:pull"
            return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="ollama",scope="{scope}"'}, b""

        proxy.instead = answer
        name = f"{proxy.host}/me/private"
        done = run("pull", name, "--models", tmp_path / "models", environment=environment)
        assert done.returncode == 0, done.stderr
        key.unlink()
        assert run("pull", name, "--models", tmp_path / "other", environment=environment).returncode == 11
