"""`ostore push` to a real registry: only what is missing, byte for byte, and again after a kill."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ostore
from ostore.cli.render import push as render
from ostore.formats.config import ModelConfig
from ostore.formats.digest import Digest
from ostore.formats.errors import RemoteError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.media_types import MANIFEST
from ostore.formats.model_pack import model_pack
from ostore.formats.name import ModelName
from ostore.formats.upload_state import upload_file_name
from ostore.places.registry.authorization import Access, Authorizer, Permit
from ostore.places.registry.client import RegistryClient
from ostore.places.registry.docker_config import DockerConfig
from ostore.places.registry.upload import FIRST_PIECE_BYTES, Repository, Sent
from ostore.places.registry.upload_states import UploadStates
from ostore.streams.http import Answer, Http, NetworkTerms
from tests.logging_proxy import Noted, Proxy, proxy_of
from tests.registries import DockerRegistry, docker_registry, needs_registry
from tests.support import (
    LICENSE,
    MODEL,
    OSTORE,
    TORTURE,
    Store,
    full,
    noise,
    six_kinds,
    terminal,
    tree,
    unmeasured,
)
from tests.support import ostore as run
from tests.test_credentials import LOGIN, home_of
from tests.token_server import token_server

pytestmark = needs_registry
# Three pieces: 8, 16 and the rest.
LARGE = noise(3 * FIRST_PIECE_BYTES + 12_345, 31)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return six_kinds(tmp_path_factory.mktemp("origin") / "models")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("large") / "models")
    store.model("large:latest", LARGE, template=b"{{ .Prompt }}")
    return store


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def proxy(registry: DockerRegistry) -> Iterator[Proxy]:
    with proxy_of(registry.port) as running:
        yield running


def pushed(
    tmp_path: Path, store: Store, *words: str, code: int = 0, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = run("push", *words, "--models", store.root, environment=environment or home_of(tmp_path))
    assert done.returncode == code, done.stderr
    return done


def manifest_at(registry: DockerRegistry, store: Path, name: str) -> bytes:
    """What somebody else gets who pulls it; all of it is verified on the way."""
    done = run("pull", name, "--models", store)
    assert done.returncode == 0, done.stderr
    return Store(store).manifest_path(name).read_bytes()


def counted(proxy: Proxy) -> Counter[str]:
    return Counter(noted.method for noted in proxy.requests)


def states(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "home").glob("**/uploads/*.json"))


def test_a_model_goes_there_byte_for_byte(tmp_path: Path, registry: DockerRegistry, origin: Store) -> None:
    before = tree(origin.root)
    done = pushed(tmp_path, origin, "tiny:q4", "sees", "odd", "mlx", "--to", f"{registry.host}/models")
    assert f"  sees:latest -> {registry.host}/models/sees:latest: added\n" in done.stdout
    assert re.search(r"pushed 4 models: \d+ blobs sent \(1\d MB\) in ", done.stdout)
    for short in ("tiny:q4", "sees:latest", "odd:latest", "mlx:latest"):
        got = manifest_at(registry, tmp_path / "there", f"{registry.host}/models/{short}")
        assert got == origin.manifest_path(full(short)).read_bytes()
    assert run("verify", "--models", tmp_path / "there").returncode == 0
    assert tree(origin.root) == before
    assert states(tmp_path) == []


def test_without_a_destination_the_name_says_where(tmp_path: Path, registry: DockerRegistry) -> None:
    store = Store(tmp_path / "models")
    name = f"{registry.host}/me/mine:v1"
    store.model(name, b"my weights")
    raw = store.manifest_path(name).read_bytes()
    pushed(tmp_path, store, name)
    assert manifest_at(registry, tmp_path / "there", name) == raw


def test_a_second_tag_sends_no_weights_and_few_requests(tmp_path: Path, proxy: Proxy, origin: Store) -> None:
    to = ("--to", f"{proxy.host}/models")
    pushed(tmp_path, origin, "tiny:q4", *to)
    sent = sum(len(path.read_bytes()) for path in (origin.root / "blobs").iterdir() if path.stat().st_size == 3_000_000)
    assert proxy.sent > sent
    proxy.requests.clear()
    done = json.loads(pushed(tmp_path, origin, "tiny:latest", *to, "--json").stdout)
    # What it has of its own: seven bytes, and the manifest.
    assert (done["blobs_sent"], done["size_sent"], done["blobs_present"]) == (1, 7, 3)
    assert proxy.sent < 1000
    assert counted(proxy) == {"GET": 1, "HEAD": 4, "POST": 1, "PUT": 2}
    proxy.requests.clear()
    again = pushed(tmp_path, origin, "tiny:latest", *to)
    assert f"tiny:latest -> {proxy.host}/models/tiny:latest: already there" in again.stdout
    assert counted(proxy) == {"GET": 1, "HEAD": 4}
    # Another tag of the very same blobs: one request for each, the manifest that is not there, and that which is then.
    copied = run("cp", "tiny:q4", "tiny:same", "--models", origin.root)
    assert copied.returncode == 0
    proxy.requests.clear()
    pushed(tmp_path, origin, "tiny:same", *to)
    assert counted(proxy) == {"GET": 1, "HEAD": 4, "PUT": 1}
    assert run("rm", "tiny:same", "--yes", "--models", origin.root).returncode == 0


def test_blobs_are_taken_over_from_other_repositories(tmp_path: Path, proxy: Proxy) -> None:
    store = Store(tmp_path / "models")
    store.model("base:latest", noise(100_000, 5), template=b"{{ .Prompt }}")
    weights = store.layer("application/vnd.ollama.image.model", noise(100_000, 5), **{"from": "models/base:latest"})
    system = store.layer("application/vnd.ollama.image.system", b"Be kind.")
    store.add(full("derived:latest"), weights, system)
    to = ("--to", f"{proxy.host}/models")
    done = json.loads(pushed(tmp_path, store, "base", "derived", *to, "--json").stdout)
    # The config and the weights: sent once, and mounted for the second repository.
    assert (done["blobs_sent"], done["size_sent"]) == (4, 100_000 + 149 + 13 + 8)
    posts = [noted for noted in proxy.requests if "mount=" in noted.path]
    assert [noted.status for noted in posts] == [201, 201]
    assert {noted.path.partition("from=")[2] for noted in posts} == {"models/base"}
    # Alone, a model says itself what it was made from.
    store.model("other:latest", b"x")
    store.add(full("third:latest"), weights, store.layer("application/vnd.ollama.image.params", b"{}"))
    proxy.requests.clear()
    done = json.loads(pushed(tmp_path, store, "third", *to, "--json").stdout)
    assert (done["blobs_mounted"], done["blobs_sent"]) == (1, 2)
    assert is_whole(tmp_path, f"{proxy.host}/models/third")


def is_whole(tmp_path: Path, name: str) -> bool:
    """Whether somebody else gets the model; all of it is verified on the way."""
    done = run("pull", name, "--models", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    return run("verify", "--models", tmp_path / "whole").returncode == 0


def test_where_nothing_can_be_taken_over_it_is_sent(tmp_path: Path, proxy: Proxy) -> None:
    """Registries need not mount. This one then opens an upload, as the specification says; that is used."""

    def answer(noted: Noted) -> tuple[int, dict[str, str], bytes] | None:
        if "mount=" not in noted.path:
            return None
        location = registry_upload(proxy, noted.path.partition("/v2/")[2].partition("/blobs/")[0])
        return 202, {"Location": location}, b""

    proxy.instead = answer
    store = Store(tmp_path / "models")
    for name in ("one:latest", "two:latest"):
        store.model(name, noise(50_000, 5))
    done = json.loads(pushed(tmp_path, store, "one", "two", "--to", f"{proxy.host}/models", "--json").stdout)
    assert (done["blobs_sent"], done["size_sent"], done["blobs_mounted"]) == (2, 2 * (50_000 + 149), 0)
    posts = [noted for noted in proxy.requests if noted.method == "POST" and "/two/" in noted.path]
    assert all("mount=" in noted.path for noted in posts)
    assert is_whole(tmp_path, f"{proxy.host}/models/two")


def registry_upload(proxy: Proxy, repository: str, data: bytes = b"") -> str:
    """Open an upload by hand, and send some bytes. Returns its location."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.upstream)) as connection:
        connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Host": proxy.host})
        answer = connection.getresponse()
        answer.read()
        location = answer.headers["Location"]
        if data:
            headers = {"Host": proxy.host, "Content-Range": f"0-{len(data) - 1}"}
            connection.request("PATCH", location.partition(proxy.host)[2], data, headers)
            answer = connection.getresponse()
            answer.read()
            location = answer.headers["Location"]
    return location


def test_a_dry_run_sends_nothing(tmp_path: Path, proxy: Proxy, origin: Store) -> None:
    done = pushed(tmp_path, origin, "tiny:q4", "--to", f"{proxy.host}/models", "-n", "--modelpack")
    assert "would push 1 model: 4 blobs to send (3.0 MB)" in done.stdout
    assert set(counted(proxy)) == {"GET", "HEAD"}
    assert states(tmp_path) == []


def test_another_model_of_the_name_is_replaced_only_if_asked(tmp_path: Path, proxy: Proxy, origin: Store) -> None:
    store = Store(tmp_path / "models")
    store.model("tiny:q4", b"other weights")
    to = ("--to", f"{proxy.host}/models")
    pushed(tmp_path, store, "tiny:q4", *to)
    proxy.requests.clear()
    refused = pushed(tmp_path, origin, "sees", "tiny:q4", *to, code=2)
    assert f"{proxy.host}/models/tiny:q4: the registry has a different model of this name" in refused.stderr
    assert "--replace overwrites it" in refused.stderr
    assert set(counted(proxy)) == {"GET"}
    assert "tiny:q4: replaced" in pushed(tmp_path, origin, "tiny:q4", *to, "--replace").stdout


def test_a_large_blob_goes_in_pieces(tmp_path: Path, proxy: Proxy, large: Store) -> None:
    done = json.loads(pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models", "--json").stdout)
    assert done["size_sent"] == len(LARGE) + 149 + 13
    patches = [noted for noted in proxy.requests if noted.method == "PATCH"]
    assert sum(noted.size for noted in patches) == len(LARGE)
    assert len(patches) >= 2
    assert states(tmp_path) == []
    assert is_whole(tmp_path, f"{proxy.host}/models/large")


@pytest.mark.parametrize("status", [400, 404, 405, 416, 501])
def test_a_registry_that_takes_no_pieces_gets_the_blob_whole(
    tmp_path: Path, proxy: Proxy, large: Store, status: int
) -> None:
    """Some registries take a blob in one request only. docker-registry takes both."""
    proxy.instead = lambda noted: (status, {}, b"") if noted.method == "PATCH" else None
    pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models")
    assert max(noted.size for noted in proxy.requests if noted.method == "PUT") == len(LARGE)
    assert is_whole(tmp_path, f"{proxy.host}/models/large")


def test_a_connection_that_breaks_on_the_way_costs_a_piece_at_most(tmp_path: Path, proxy: Proxy, large: Store) -> None:
    proxy.cut_after = FIRST_PIECE_BYTES + 5_000_000
    done = json.loads(pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models", "--json").stdout)
    assert done["size_resumed"] == 0
    assert proxy.sent <= len(LARGE) + 2 * FIRST_PIECE_BYTES
    assert is_whole(tmp_path, f"{proxy.host}/models/large")


@pytest.mark.parametrize("status", [404, 416])
def test_an_upload_that_is_lost_on_the_way_begins_anew(tmp_path: Path, proxy: Proxy, large: Store, status: int) -> None:
    """A registry that is cleaned up meanwhile. The old location is never used again."""
    lost: list[str] = []

    def answer(noted: Noted) -> tuple[int, dict[str, str], bytes] | None:
        patches = [one for one in proxy.requests if one.method == "PATCH"]
        upload = noted.path.partition("?")[0]
        if noted.method == "PATCH" and len(patches) == 2:
            lost.append(upload)
            return status, {}, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}'
        assert upload not in lost
        return None

    proxy.instead = answer
    done = json.loads(pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models", "--json").stdout)
    assert len(lost) == 1
    assert done["size_sent"] == len(LARGE) + FIRST_PIECE_BYTES + 149 + 13
    assert is_whole(tmp_path, f"{proxy.host}/models/large")


def test_what_passes_is_asked_again(tmp_path: Path, proxy: Proxy, origin: Store) -> None:
    """A registry that has too much to do for a moment."""
    troubles = iter([503, 429, 502])

    def answer(noted: Noted) -> tuple[int, dict[str, str], bytes] | None:
        if noted.method in {"POST", "PUT"} and (status := next(troubles, 0)):
            return status, {"Retry-After": "0"}, b""
        return None

    proxy.instead = answer
    pushed(tmp_path, origin, "tiny:q4", "--to", f"{proxy.host}/models")
    assert is_whole(tmp_path, f"{proxy.host}/models/tiny:q4")


@pytest.mark.parametrize("status", [429, 503, 0])
def test_a_small_blob_that_does_not_arrive_is_sent_again(
    tmp_path: Path, proxy: Proxy, origin: Store, status: int
) -> None:
    """Each time in an upload of its own."""
    locations: list[str] = []

    def answer(noted: Noted) -> tuple[int, dict[str, str], bytes] | None:
        if noted.method != "PUT" or "/uploads/" not in noted.path:
            return None
        locations.append(noted.path.partition("?")[0])
        if len(locations) > 1:
            return None
        if not status:
            raise ConnectionResetError
        return status, {"Retry-After": "0"}, b""

    proxy.instead = answer
    done = json.loads(pushed(tmp_path, origin, "tiny:q4", "--to", f"{proxy.host}/models", "--json").stdout)
    assert len(locations) == len(set(locations)) == done["blobs_sent"] + 1
    assert is_whole(tmp_path, f"{proxy.host}/models/tiny:q4")


def test_an_answer_that_was_lost_is_asked_for_again(tmp_path: Path, proxy: Proxy, large: Store) -> None:
    """Of the first request for an upload, and of the last one: the registry has the blob by then."""
    done: set[str] = set()

    def answer(noted: Noted) -> tuple[int, dict[str, str], bytes] | None:
        if noted.method == "POST" and "POST" not in done:
            done.add("POST")
            raise ConnectionResetError
        if noted.method == "PUT" and Digest.of(LARGE).hex in noted.path and "PUT" not in done:
            done.add("PUT")
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.upstream)) as connection:
                connection.request("PUT", noted.path, headers={"Host": proxy.host, "Content-Length": "0"})
                assert connection.getresponse().status == 201
            raise ConnectionResetError
        return None

    proxy.instead = answer
    pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models")
    assert done == {"POST", "PUT"}
    assert sum(noted.size for noted in proxy.requests if noted.method == "PATCH") == len(LARGE)
    assert is_whole(tmp_path, f"{proxy.host}/models/large")


def test_an_upload_that_is_gone_after_a_break_begins_anew(tmp_path: Path, proxy: Proxy, large: Store) -> None:
    proxy.cut_after = FIRST_PIECE_BYTES + 5_000_000
    proxy.instead = lambda noted: (404, {}, b"") if noted.method == "GET" and "/uploads/" in noted.path else None
    pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models")
    assert is_whole(tmp_path, f"{proxy.host}/models/large")


def test_a_piece_that_is_refused_is_told(tmp_path: Path, proxy: Proxy, large: Store) -> None:
    proxy.instead = lambda noted: (413, {}, b"too large") if noted.method == "PATCH" else None
    done = pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models", code=11)
    assert "413 Request Entity Too Large: 'too large'" in done.stderr


def test_a_registry_that_does_not_know_of_tls_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in front of a registry ends TLS, and does not say so. In tests, both are the same server."""
    base = "https://registry.example"
    http_client = Http(NetworkTerms())
    client = RegistryClient(http_client, base, Authorizer("", base, Access(DockerConfig([]), None, float), print))  # type: ignore[arg-type]
    begun = Answer(202, {"location": "http://registry.example/v2/x"}, b"", f"{base}/v2/a/b/blobs/uploads/")
    monkeypatch.setattr(client, "ask", lambda *_arguments, **_options: begun)
    repository = Repository(client, Permit("a/b"), UploadStates(None), Sent())
    with pytest.raises(RemoteError, match=r"another host, http://registry\.example/v2/x") as refusal:
        repository.upload(Descriptor(Digest.of(b"x"), 1), [b"x"])
    assert "X-Forwarded-Proto" in str(refusal.value.hint)


def test_an_upload_that_is_always_lost_is_given_up(tmp_path: Path, proxy: Proxy, large: Store) -> None:
    proxy.instead = lambda noted: (404, {}, b"") if noted.method == "PUT" and "digest=" in noted.path else None
    done = pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models", code=11)
    assert "404" in done.stderr.splitlines()[-1]


def begun(tmp_path: Path, large: Store, host: str, rate: str) -> subprocess.Popen[bytes]:
    command = [*OSTORE, "push", "large", "--to", f"{host}/models", "--models", str(large.root), "--limit-rate", rate]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **home_of(tmp_path)}
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@unmeasured
def test_after_a_kill_the_same_command_goes_on(tmp_path: Path, proxy: Proxy, large: Store) -> None:
    # It is killed between two pieces: of a piece that was cut, docker-registry 2.8.2 keeps some bytes, and then cancels
    # the upload because it has another size than its own location says.
    reached, is_killed = threading.Event(), threading.Event()

    def answer(noted: Noted) -> tuple[int, dict[str, str], bytes] | None:
        if noted.method == "PATCH" and [one.method for one in proxy.requests].count("PATCH") > 1:
            reached.set()
            is_killed.wait(60)
            raise ConnectionResetError
        return None

    proxy.instead = answer
    process = begun(tmp_path, large, proxy.host, "100MB")
    assert reached.wait(60)
    kill(process)
    is_killed.set()
    proxy.instead = lambda _noted: None
    (state,) = states(tmp_path)
    assert state.parent.stat().st_mode & 0o077 == 0
    done = json.loads(pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models", "--json").stdout)
    assert done["size_resumed"] == FIRST_PIECE_BYTES
    assert done["size_resumed"] + done["size_sent"] == len(LARGE) + 13
    assert states(tmp_path) == []
    assert is_whole(tmp_path, f"{proxy.host}/models/large")


@unmeasured
def test_killed_at_any_moment_nothing_is_there_that_is_not_whole(tmp_path: Path, large: Store) -> None:
    chance = random.Random(23)
    for number in range(50 if TORTURE else 4):
        with docker_registry(tmp_path / f"registry{number}") as registry:
            process = begun(tmp_path, large, registry.host, "12MB")
            time.sleep(chance.uniform(0.3, 2.5))
            kill(process)
            listed = registry.request("GET", "/v2/models/large/manifests/latest", Accept=MANIFEST).status
            (tmp_path / str(number)).mkdir()
            assert listed == 404 or is_whole(tmp_path / str(number), f"{registry.host}/models/large")
            pushed(tmp_path, large, "large", "--to", f"{registry.host}/models")
            assert is_whole(tmp_path / str(number), f"{registry.host}/models/large")
            assert states(tmp_path) == []


STATE = {"schema": "ostore.upload-state/1", "offset": FIRST_PIECE_BYTES}


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b"x" * 100_000,
        json.dumps({**STATE, "schema": "other", "location": "http://HOST/v2/x"}).encode(),
        json.dumps({**STATE, "offset": -1, "location": "http://HOST/v2/x"}).encode(),
        json.dumps({**STATE, "location": 7}).encode(),
        json.dumps({**STATE, "location": "http://127.0.0.1:1/evil"}).encode(),
        json.dumps({**STATE, "location": "https://HOST/v2/x"}).encode(),
        json.dumps({**STATE, "location": "http://HOST/v2/models/large/blobs/uploads/none"}).encode(),
    ],
)
def test_a_state_that_is_wrong_is_no_harm(tmp_path: Path, proxy: Proxy, large: Store, raw: bytes) -> None:
    write_state(tmp_path, proxy, raw.replace(b"HOST", proxy.host.encode()))
    done = json.loads(pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models", "--json").stdout)
    assert (done["size_resumed"], done["size_sent"]) == (0, len(LARGE) + 149 + 13)
    assert states(tmp_path) == []


def write_state(tmp_path: Path, proxy: Proxy, raw: bytes) -> None:
    home_of(tmp_path)
    folder = tmp_path / "home" / ".local" / "state" / "ostore" / "uploads"
    folder.mkdir(parents=True)
    (folder / upload_file_name(f"http://{proxy.host}", "models/large", Digest.of(LARGE))).write_bytes(raw)


def test_an_upload_with_other_bytes_begins_anew(tmp_path: Path, proxy: Proxy, large: Store) -> None:
    """The registry finds out by the digest, and nobody else could."""
    location = registry_upload(proxy, "models/large", bytes(FIRST_PIECE_BYTES))
    write_state(tmp_path, proxy, json.dumps({**STATE, "location": location}).encode())
    done = json.loads(pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models", "--json").stdout)
    assert done["size_resumed"] == FIRST_PIECE_BYTES
    assert 400 in {noted.status for noted in proxy.requests}
    assert is_whole(tmp_path, f"{proxy.host}/models/large")


def test_an_upload_of_no_bytes_begins_anew(tmp_path: Path, proxy: Proxy, large: Store) -> None:
    """docker-registry says 0-0 of it, which elsewhere means one byte."""
    write_state(tmp_path, proxy, json.dumps({**STATE, "location": registry_upload(proxy, "models/large")}).encode())
    done = json.loads(pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models", "--json").stdout)
    assert done["size_resumed"] == 0
    assert is_whole(tmp_path, f"{proxy.host}/models/large")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to be another user")
@unmeasured
def test_a_home_that_cannot_be_written_is_no_harm(tmp_path: Path, proxy: Proxy, large: Store) -> None:
    environment = {**home_of(tmp_path), "XDG_STATE_HOME": "/proc/nowhere"}
    pushed(tmp_path, large, "large", "--to", f"{proxy.host}/models", environment=environment)


def test_a_damaged_blob_is_never_completed(tmp_path: Path, proxy: Proxy) -> None:
    store = Store(tmp_path / "models")
    store.model("large:latest", LARGE, template=b"{{ .Prompt }}")
    path = store.blob_path(LARGE)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = pushed(tmp_path, store, "large", "--to", f"{proxy.host}/models", code=4)
    assert f"blob sha256:{Digest.of(LARGE).hex}" in done.stderr
    weights = [noted for noted in proxy.requests if noted.method == "PUT" and Digest.of(LARGE).hex in noted.path]
    assert weights == []
    assert not [noted for noted in proxy.requests if "/manifests/" in noted.path and noted.method == "PUT"]
    # One that is small is not even begun.
    small = store.blob_path(b"{{ .Prompt }}")
    path.write_bytes(LARGE)
    small.write_bytes(b"{{ .Prompt }?")
    proxy.requests.clear()
    done = pushed(tmp_path, store, "large", "--to", f"{proxy.host}/models", code=4)
    assert not [noted for noted in proxy.requests if noted.method == "PUT" and noted.size == 13]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:1/v2/models/tiny/blobs/uploads/x",
        "https://evil.example/upload",
        "//evil.example/upload",
        "http://me:hush@127.0.0.1/x",
        "http://[x",
        "",
        "http://127.0.0.1:99999/",
    ],
)
def test_nothing_is_sent_to_another_host(tmp_path: Path, proxy: Proxy, origin: Store, location: str) -> None:
    """E102. A real registry does not do that."""
    proxy.changed = lambda noted, headers: {**headers, "Location": location} if noted.method == "POST" else headers
    done = pushed(tmp_path, origin, "tiny:q4", "--to", f"{proxy.host}/models", code=11)
    assert "hush" not in done.stderr
    assert re.search(r"wants a blob of models/tiny sent to another host|does not say where", done.stderr)
    assert not [noted for noted in proxy.requests if noted.method in {"PUT", "PATCH"}]


def test_a_manifest_that_the_registry_changes_is_told(tmp_path: Path, proxy: Proxy, origin: Store) -> None:
    proxy.changed = lambda noted, headers: (
        {**headers, "Docker-Content-Digest": f"sha256:{'0' * 64}"} if "/manifests/" in noted.path else headers
    )
    done = pushed(tmp_path, origin, "tiny:q4", "--to", f"{proxy.host}/models", code=11)
    assert "it keeps sha256:000" in done.stderr


def test_modelpack_is_a_second_manifest_of_the_same_weights(tmp_path: Path, proxy: Proxy, origin: Store) -> None:
    to = ("--to", f"{proxy.host}/models")
    pushed(tmp_path, origin, "sees", *to)
    proxy.requests.clear()
    pushed(tmp_path, origin, "sees", *to, "--modelpack")
    assert proxy.sent < 2000
    document = at_registry(proxy, "models/sees", "manifests/latest-modelpack")
    assert document["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert document["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    kinds = [(layer["mediaType"], layer["annotations"]["org.cncf.model.filepath"]) for layer in document["layers"]]
    raw = "application/vnd.cncf.model.weight.v1.raw"
    assert kinds == [(raw, "model.gguf"), (raw, "mmproj.gguf")]
    own = json.loads(origin.manifest_path(full("sees:latest")).read_bytes())
    assert [layer["digest"] for layer in document["layers"]] == [layer["digest"] for layer in own["layers"]]
    config = at_registry(proxy, "models/sees", f"blobs/{document['config']['digest']}")
    assert config == {
        "descriptor": {"family": "test", "name": "sees", "version": "latest"},
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in own["layers"]]},
        "config": {"format": "gguf", "paramSize": "1.5m", "quantization": "Q4_K_M"},
    }
    proxy.requests.clear()
    pushed(tmp_path, origin, "sees", *to, "--modelpack")
    assert proxy.sent == 0
    refused = pushed(tmp_path, origin, "mlx", *to, "--modelpack", code=2)
    assert "--modelpack: mlx:latest: a model of 300 tensors" in refused.stderr


def at_registry(proxy: Proxy, repository: str, path: str) -> dict[str, Any]:
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    request = urllib.request.Request(f"http://{proxy.host}/v2/{repository}/{path}", headers=accept)
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
        document: dict[str, Any] = json.load(answer)
    return document


def test_a_second_tag_with_tokens(tmp_path: Path, origin: Store) -> None:
    with token_server(tmp_path) as tokens, proxy_of(0) as proxy:
        proxy.ports["/token"] = tokens.port
        settings = tokens.settings(f"http://{proxy.host}/token")
        with docker_registry(tmp_path / "registry", more=settings) as registry:
            proxy.upstream = registry.port
            to = ("--to", f"{proxy.host}/library")
            denied = pushed(tmp_path, origin, "tiny:q4", *to, code=11)
            assert f"docker login {proxy.host}" in denied.stderr
            environment = home_of(tmp_path, {proxy.host: {"auth": LOGIN}})
            pushed(tmp_path, origin, "tiny:q4", *to, environment=environment)
            assert tokens.seen[-1][0]["scope"] == ["repository:library/tiny:pull,push"]
            proxy.requests.clear()
            pushed(tmp_path, origin, "tiny:q4", *to, environment=environment)
            assert [noted.status for noted in proxy.requests] == [401, 200, 200, *[200] * 4]


def test_layers_of_a_modelpack_have_names_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    layers = [
        store.layer(kind, data) for kind, data in ((MODEL, b"w"), (LICENSE, b"a"), (LICENSE, b"b"), ("x/y", b"c"))
    ]
    raw = store.add(full("tiny:latest"), *layers, layers[0]).read_bytes()
    pack = model_pack(ModelName.parse("tiny"), Manifest.parse(raw), ModelConfig())
    document = json.loads(pack.manifest)
    paths = [layer["annotations"]["org.cncf.model.filepath"] for layer in document["layers"]]
    assert paths == ["model.gguf", "LICENSE", "LICENSE-2"]
    assert document["config"]["digest"] == str(pack.described.digest)
    assert json.loads(pack.config)["config"] == {"format": "gguf"}


def test_what_the_summary_says() -> None:
    model = ostore.PushedModel("tiny:q4", "h.example/a/tiny:q4", "added", "sha256:0")
    report = ostore.PushReport(
        dry_run=False,
        models=(model,),
        blobs_sent=1,
        size_sent=7,
        size_resumed=9_000,
        blobs_mounted=2,
        blobs_present=3,
        warnings=(),
    )
    counts = "1 blob sent (7 B), 9 KB sent before, 2 taken over there, 3 already there"
    assert render.summary(report, 1.0) == f"pushed 1 model: {counts} in 1.0 s"


@unmeasured
def test_at_a_terminal_it_says_what_is_to_come(tmp_path: Path, proxy: Proxy, origin: Store) -> None:
    with terminal() as (theirs, shown):
        command = [*OSTORE, "push", "tiny:q4", "--to", f"{proxy.host}/models", "--models", str(origin.root)]
        environment = {**os.environ, **home_of(tmp_path), "TERM": "xterm"}
        done = subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, check=False)
    assert done.returncode == 0
    assert b"to push: 1 model, 3.0 MB to send" in b"".join(shown)
    # Nothing is asked twice for that.
    assert counted(proxy)["HEAD"] == 4


@pytest.mark.parametrize("names", [[], ()])
def test_no_names_are_refused(names: list[str], origin: Store) -> None:
    with pytest.raises(ostore.UsageError, match="expected at least one model"):
        ostore.push(names, to="127.0.0.1:1/models", models=origin.root)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nobody", "--to", "127.0.0.1:1/models"], 3, "no model 'nobody'"),
        (["tiny:q4", "--to", "127.0.0.1:1/models"], 11, "connection refused"),
        (["tiny:q4", "--to", "127.0.0.1:1"], 2, "--to: expected REGISTRY/NAMESPACE"),
        (["tiny:q4", "--to", "https://me:hush@h.example/models"], 2, "--to: expected REGISTRY/NAMESPACE"),
        (["tiny:q4", "--to", "h.example/a/b"], 2, "--to: expected REGISTRY/NAMESPACE"),
        (["tiny:q4", "--insecure"], 2, "--plain-http allows that here"),
        (["tiny:*", "sees", "--to", "10.255.255.1/models", "--limit-rate", "0"], 2, "--limit-rate: expected 1 to"),
        (["tiny:q4", "--to", "127.0.0.1:1/models", "--ca-file", "none.pem"], 2, "none.pem: No such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, origin: Store, words: list[str], code: int, says: str) -> None:
    done = pushed(tmp_path, origin, *words, code=code)
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("ostore: error")]
    assert says in told
    assert "hush" not in done.stderr
    assert done.stdout == ""


def test_capitals_are_explained(tmp_path: Path, registry: DockerRegistry, origin: Store) -> None:
    done = pushed(tmp_path, origin, "hf.co/*", "--to", f"{registry.host}/models", code=11)
    assert "most registries take lower-case names only" in done.stderr.splitlines()[-1]


def test_two_models_that_would_have_one_name_are_refused(tmp_path: Path, proxy: Proxy) -> None:
    store = Store(tmp_path / "models")
    store.model("tiny:latest", b"one")
    store.model("registry.ollama.ai/someone/tiny:latest", b"two")
    done = pushed(tmp_path, store, "*tiny*", "--to", f"{proxy.host}/models", code=2)
    assert f"would both become {proxy.host}/models/tiny:latest" in done.stderr
    assert not [noted for noted in proxy.requests if noted.method not in {"GET", "HEAD"}]
