"""A registry that nobody can write to: what Ollama, skopeo, oras and curl get of a store and of bundles."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving import DOCKER, OCI, OllamaDouble, Serving, needs, ollama_server, ollamas, posix, serving
from tests.support import MODEL, OSTORE, Store, as_user, full, noise, sha256, tree
from tests.support import ostore as run
from tests.test_json import checked

pytestmark = posix
# More than two frames that do not shrink, and two that do.
HARD, SOFT = noise(20_000_000, 5), bytes(noise(17_000_000, 6)).translate(bytes(byte & 31 for byte in range(256)))
KINDS = ("store", "bundle.tar", "bundle.tar.zst", "oci:layout")


def place_at(folder: Path, kind: str) -> str:
    """What is typed for a place of this kind in a folder."""
    scheme, _, name = kind.rpartition(":")
    return f"oci:{folder / name}" if scheme else str(folder / name)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and its bundles; no test may change them."""
    folder = tmp_path_factory.mktemp("served")
    store = Store(folder / "store")
    store.model("hard:latest", HARD, template=b"{{ .Prompt }}", license=b"MIT")
    store.model("hard:q4", HARD, system=b"Say hi!")
    store.model("soft:latest", SOFT)
    store.model("hf.co/someone/Other:Q4_K_M", b"other weights")
    store.add(full("empty:latest"), store.layer(MODEL, b""))
    for kind in KINDS[1:]:
        made = run("export", "--all", place_at(folder, kind), "--models", store.root)
        assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, places: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(place_at(places, request.param), tmp_path_factory.mktemp("log")) as found:
        yield found


def blob_path(data: bytes, repository: str = "library/hard") -> str:
    return f"/v2/{repository}/blobs/sha256:{sha256(data)}"


def metric(server: Serving, name: str) -> int:
    lines = server.ask("/metrics").body.decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"ostore_{name} "))


def test_the_manifest_is_that_of_the_store_by_tag_and_by_digest(server: Serving, places: Path) -> None:
    raw = (places / "store/manifests/registry.ollama.ai/library/hard/q4").read_bytes()
    digest = f"sha256:{sha256(raw)}"
    for reference in ("q4", "Q4", digest):
        found = server.ask(f"/v2/library/Hard/manifests/{reference}")
        assert (found.status, found.body) == (200, raw)
        assert found.headers["Content-Type"] == DOCKER
        assert found.headers["Docker-Content-Digest"] == digest
        head = server.ask(f"/v2/library/hard/manifests/{reference}", "HEAD")
        assert (head.status, head.body, int(head.headers["Content-Length"])) == (200, b"", len(raw))
    for agent in ("skopeo/1.9.3", "containers/5.24.1 (github.com/containers/image)"):
        assert server.ask("/v2/library/hard/manifests/q4", User_Agent=agent).headers["Content-Type"] == OCI


def test_a_blob_comes_whole_with_its_own_path_as_location(server: Serving) -> None:
    for data, repository in ((HARD, "library/hard"), (SOFT, "library/soft"), (b"", "library/empty")):
        path = blob_path(data, repository)
        found = server.ask(path)
        assert (found.status, found.body == data, found.headers["Location"]) == (200, True, path)
        head = server.ask(path, "HEAD")
        assert (head.status, head.body, int(head.headers["Content-Length"])) == (200, b"", len(data))
        assert head.headers["Accept-Ranges"] == "bytes"


FRAME = 8 * 1024 * 1024
RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=5-12000", 5, 12_001),
    (f"bytes={FRAME - 700}-{FRAME + 700}", FRAME - 700, FRAME + 701),
    (f"bytes={128 * 1024 - 3}-{3 * 128 * 1024}", 128 * 1024 - 3, 3 * 128 * 1024 + 1),
    ("bytes=16000000-", 16_000_000, None),
    ("bytes=-700", -700, None),
    ("bytes=-99999999999", 0, None),
    ("bytes=16999999-18446744073709551616", 16_999_999, None),
]


@pytest.mark.parametrize(("asked", "start", "end"), RANGES)
def test_a_range_is_answered_with_exactly_its_bytes(server: Serving, asked: str, start: int, end: int | None) -> None:
    for data, repository in ((HARD, "library/hard"), (SOFT, "library/soft")):
        found = server.ask(blob_path(data, repository), Range=asked)
        assert (found.status, found.body == data[start:end]) == (206, True)
        first = len(data) - len(found.body) if end is None else start
        assert found.headers["Content-Range"] == f"bytes {first}-{first + len(found.body) - 1}/{len(data)}"


@pytest.mark.parametrize("asked", ["bytes=20000000-", "bytes=20000000-20000001", "bytes=-0", f"bytes={'9' * 5000}-"])
def test_a_range_behind_the_end_is_refused(server: Serving, asked: str) -> None:
    found = server.ask(blob_path(HARD), Range=asked)
    assert (found.status, found.headers["Content-Range"]) == (416, "bytes */20000000")


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=0-0,5-5", "lines=1-2", "bytes=-", "bytes=a-b", ""])
def test_what_is_no_single_range_means_the_whole(server: Serving, asked: str) -> None:
    found = server.ask(blob_path(b"other weights", "someone/other"), Range=asked)
    assert (found.status, found.body) == (200, b"other weights")


def test_a_range_of_another_version_means_the_whole(server: Serving) -> None:
    path = blob_path(b"other weights", "someone/other")
    tag = server.ask(path, "HEAD").headers["ETag"]
    assert server.ask(path, Range="bytes=1-2", If_Range='"another"').status == 200
    assert server.ask(path, Range="bytes=1-2", If_Range=tag).body == b"th"


def test_sixteen_ranges_at_once_give_the_whole(server: Serving) -> None:
    for data, repository in ((HARD, "library/hard"), (SOFT, "library/soft")):
        step = -(-len(data) // 16)

        def part(start: int, data: bytes = data, step: int = step, path: str = blob_path(data, repository)) -> bytes:
            return server.ask(path, Range=f"bytes={start}-{min(len(data), start + step) - 1}").body

        with ThreadPoolExecutor(16) as pool:
            assert b"".join(pool.map(part, range(0, len(data), step))) == data


def test_one_connection_serves_one_request_after_another(server: Serving) -> None:
    path = blob_path(SOFT, "library/soft")
    request = f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\nRange: bytes=1-70000\r\n".encode()
    answer = server.send((request + b"\r\n") * 2 + request + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 206 ") == 3
    assert answer.count(SOFT[1:70_001]) == 3


@needs("curl")
def test_curl_gets_ranges_and_goes_on_where_it_stopped(server: Serving, tmp_path: Path) -> None:
    target = tmp_path / "blob"
    target.write_bytes(HARD[:9_000_000])
    subprocess.run(["curl", "-sf", "-C", "-", "-o", target, f"{server.url}{blob_path(HARD)}"], check=True)
    assert target.read_bytes() == HARD


@needs("skopeo")
def test_skopeo_copies_a_model_and_lists_its_tags(server: Serving, tmp_path: Path) -> None:
    there = f"docker://{server.host}/library/hard"
    copying = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"{there}:q4", f"dir:{tmp_path}/out"]
    subprocess.run(copying, check=True)
    assert sha256((tmp_path / "out" / sha256(HARD)).read_bytes()) == sha256(HARD)
    raw = server.ask("/v2/library/hard/manifests/q4").body
    assert (tmp_path / "out/manifest.json").read_bytes() == raw
    listing = ["skopeo", "list-tags", "--tls-verify=false", there]
    told = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    assert json.loads(told)["Tags"] == ["latest", "q4"]


def test_oras_pulls_a_model(server: Serving, tmp_path: Path) -> None:
    client = pytest.importorskip("oras.client", reason="needs the PyPI package oras")
    oras = client.OrasClient(hostname=server.host, insecure=True)
    files = oras.pull(target=f"{server.host}/library/soft:latest", outdir=str(tmp_path))
    assert [sha256(Path(file).read_bytes()) for file in files] == [sha256(SOFT)]
    assert oras.get_tags(f"{server.host}/library/hard") == ["latest", "q4"]


def test_the_requests_of_ollama_are_answered(server: Serving) -> None:
    blobs = OllamaDouble(server, part=3_000_000).pull("library/hard", "latest")
    assert {f"sha256:{sha256(data)}" for data in blobs.values()} == set(blobs)
    assert f"sha256:{sha256(HARD)}" in blobs


@pytest.mark.skipif(not ollamas(), reason="needs an ollama on PATH, or OSTORE_TEST_OLLAMA=/path/to/ollama")
@pytest.mark.parametrize("program", ollamas(), ids=str)
def test_a_real_ollama_pulls(server: Serving, tmp_path: Path, program: Path) -> None:
    with ollama_server(program, tmp_path) as surroundings:
        for model in ("hard:q4", "soft"):
            pulling = [str(program), "pull", "--insecure", f"{server.host}/library/{model}"]
            done = subprocess.run(pulling, env=surroundings, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    stored = tree(tmp_path / "ollama/models/blobs")
    assert [name for name, digest in stored.items() if name != f"sha256-{digest}"] == []
    assert {f"sha256-{sha256(HARD)}", f"sha256-{sha256(SOFT)}"} <= stored.keys()


def test_what_registries_tell_of_themselves(server: Serving) -> None:
    for path in ("/v2/", "/v2"):
        found = server.ask(path)
        assert (found.status, found.headers["Docker-Distribution-API-Version"]) == (200, "registry/2.0")
    names = ["library/empty", "library/hard", "library/soft", "someone/Other"]
    assert server.ask("/v2/_catalog").document == {"repositories": names}
    assert server.ask("/v2/library/hard/tags/list").document == {"name": "library/hard", "tags": ["latest", "q4"]}
    page = server.ask("/v2/_catalog?n=3")
    assert page.document == {"repositories": names[:3]}
    assert page.headers["Link"] == '</v2/_catalog?n=3&last=library%2Fsoft>; rel="next"'
    assert server.ask("/v2/_catalog?n=3&last=library%2Fsoft").document == {"repositories": names[3:]}


def test_how_far_it_is_and_what_it_did_can_be_asked(server: Serving) -> None:
    health = server.ask("/healthz").document
    blobs = {"ready": 8, "waiting": 0, "damaged": 0}
    assert (health["status"], health["models"], health["blobs"]) == ("ready", 5, blobs)
    assert health["hashed_bytes"] == health["total_bytes"] > len(HARD) + len(SOFT)
    before = metric(server, "sent_bytes_total")
    server.ask(blob_path(HARD), Range="bytes=0-99")
    # The bytes are counted when they are out, which the client may see first.
    until(lambda: metric(server, "sent_bytes_total") == before + 100)
    assert (metric(server, "models"), metric(server, "transfers")) == (5, 0)


def test_what_is_not_there_is_said(server: Serving) -> None:
    for path in (
        "/v2/library/none/manifests/latest",
        "/v2/library/hard/manifests/none",
        f"/v2/library/hard/manifests/sha256:{'0' * 64}",
        f"/v2/library/hard/blobs/sha256:{'0' * 64}",
        "/",
        "/v2/hard/manifests/latest",
        "/v2/library/none/tags/list",
    ):
        found = server.ask(path)
        assert (found.status, len(found.document["errors"])) == (404, 1)


# What follows needs a store of its own, or options.


def test_of_one_name_on_several_hosts_that_of_ollama_is_served(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    for host in ("a.example", "registry.ollama.ai", "hf.co"):
        store.model(f"{host}/library/m:latest", host.encode())
        if host != "registry.ollama.ai":
            store.model(f"{host}/library/m:other", host.encode())
    with serving(store.root, tmp_path) as server:
        for tag, weights in (("latest", b"registry.ollama.ai"), ("other", b"a.example")):
            manifest = server.ask(f"/v2/library/m/manifests/{tag}").document
            assert manifest["layers"][0]["digest"] == f"sha256:{sha256(weights)}"


def test_only_what_is_chosen_is_served(store: Store, tmp_path: Path) -> None:
    store.model("secret:latest", b"secret weights")
    with serving(store.root, tmp_path, "--only", "tiny*") as server:
        assert server.ask("/v2/_catalog").document == {"repositories": ["library/tiny"]}
        assert server.ask("/v2/library/secret/manifests/latest").status == 404
        for repository in ("secret", "tiny"):
            assert server.ask(blob_path(b"secret weights", f"library/{repository}")).status == 404
    refused = run("serve", store.root, "--only", "none*", "--listen", "127.0.0.1:0")
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)


def test_a_model_that_comes_is_served_and_one_that_goes_is_not(store: Store, tmp_path: Path) -> None:
    with serving(store.root, tmp_path) as server:
        path = store.model("late:latest", b"late weights")
        until(lambda: server.ask("/v2/library/late/manifests/latest").status == 200)
        assert server.ask(blob_path(b"late weights", "library/late")).body == b"late weights"
        path.unlink()
        until(lambda: server.ask("/v2/library/late/manifests/latest").status == 404)
        assert server.ask(blob_path(b"late weights", "library/late")).status == 404


def until(happens: object) -> None:
    """Ask again and again, because a server looks at a store once a second."""
    assert callable(happens)
    for _ in range(300):
        if happens():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it does not happen")


def test_a_damaged_blob_is_never_sent_and_is_once_in_the_log(store: Store, tmp_path: Path) -> None:
    weights = b"the weights " * 1000
    store.blob_path(weights).write_bytes(b"x" * len(weights))
    with serving(store.root, tmp_path) as server:
        for _ in range(3):
            found = server.ask(blob_path(weights, "library/tiny"))
            assert (found.status, b"xxx" in found.body) == (500, False)
        assert server.ask("/v2/library/tiny/manifests/latest").status == 500
        assert server.ask("/v2/library/tiny/tags/list").status == 503
        assert server.ask("/healthz").document["status"] == "damaged"
        assert len([line for line in server.lines() if "is damaged" in line]) == 1
        store.blob(weights)
        until(lambda: server.ask("/v2/library/tiny/manifests/latest").status == 200)
        assert server.ask(blob_path(weights, "library/tiny")).body == weights


def test_a_blob_that_changes_is_hashed_before_it_is_sent_again(store: Store, tmp_path: Path) -> None:
    weights = b"the weights " * 1000
    path = store.blob_path(weights)
    with serving(store.root, tmp_path) as server:
        status = path.stat()
        path.write_bytes(b"y" * len(weights))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert server.ask(blob_path(weights, "library/tiny")).status == 500


def test_models_that_are_not_whole_are_not_served_and_told(store: Store, tmp_path: Path) -> None:
    store.model("gone:latest", b"gone weights")
    store.blob_path(b"gone weights").unlink()
    store.write_manifest(full("bad:latest"), b"{}x")
    with serving(store.root, tmp_path) as server:
        assert server.ask("/v2/_catalog").document == {"repositories": ["library/tiny"]}
        told = "\n".join(server.lines())
        assert "warning: gone:latest: not served: blob sha256:" in told
        assert "warning: bad:latest: not served: " in told


@pytest.mark.parametrize("kind", ["store", "oci:layout"])
def test_what_is_damaged_later_is_listed_no_more_although_nobody_has_asked_for_it(kind: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    weights = noise(300_000, 7)
    store.model("tiny:latest", weights)
    store.model("other:latest", b"other weights")
    assert run("export", "--all", place_at(tmp_path, "oci:layout"), "--models", store.root).returncode == 0
    with serving(place_at(tmp_path, kind), tmp_path) as server:
        repositories = server.ask("/v2/_catalog").document["repositories"]
        assert repositories == ["library/other", "library/tiny"]
        in_layout = tmp_path / "layout/blobs/sha256" / sha256(weights)
        damaged = store.blob_path(weights) if kind == "store" else in_layout
        with damaged.open("r+b") as file:
            file.write(bytes(1000))
        until(lambda: server.ask("/v2/_catalog").document["repositories"] == ["library/other"])
        assert server.ask("/healthz").document["status"] == "damaged"
        assert server.ask("/v2/library/tiny/manifests/latest").status == 500


def test_a_blob_that_a_layout_has_no_more_takes_its_model_along(store: Store, tmp_path: Path) -> None:
    assert run("export", "--all", place_at(tmp_path, "oci:layout"), "--models", store.root).returncode == 0
    with serving(place_at(tmp_path, "oci:layout"), tmp_path) as server:
        (tmp_path / "layout/blobs/sha256" / sha256(b"the weights " * 1000)).unlink()
        until(lambda: server.ask("/v2/library/tiny/manifests/latest").status == 500)
        health = server.ask("/healthz").document
        # Two models have it.
        assert (health["status"], health["left_out"]) == ("damaged", 2)
        assert [line for line in server.lines() if line.startswith("tiny:latest: not served: blob sha256:")]


@pytest.mark.parametrize("way", ["a file", "a link that leads nowhere", "no folder"])
def test_what_cannot_be_looked_into_is_not_taken_for_gone(way: str, store: Store, tmp_path: Path) -> None:
    """Who asks by name, as `sync --delete` does, must not hear that a model is gone."""
    manifests = store.root / "manifests"
    folder = manifests if way == "no folder" else manifests / "registry.ollama.ai" / "library"
    with serving(store.root, tmp_path) as server:
        assert server.ask("/v2/library/nobody/manifests/latest").status == 404
        folder.rename(tmp_path / "aside")
        if way == "a file":
            folder.write_bytes(b"no folder")
        elif way == "a link that leads nowhere":
            folder.symlink_to("nowhere")
        until(lambda: server.ask("/v2/library/tiny/manifests/latest").status == 500)
        assert server.ask("/healthz").document["status"] == "damaged"
        assert [line for line in server.lines() if line.startswith(str(folder.relative_to(store.root)))]
        folder.unlink(missing_ok=True)
        (tmp_path / "aside").rename(folder)
        until(lambda: server.ask("/v2/library/tiny/manifests/latest").status == 200)
        assert server.ask("/v2/library/nobody/manifests/latest").status == 404


def test_the_log_has_no_query(store: Store, tmp_path: Path) -> None:
    with serving(store.root, tmp_path) as server:
        server.ask("/v2/?token=s3cret")
        until(lambda: [line for line in server.lines() if '"GET /v2/"' in line])
        assert "s3cret" not in "\n".join(server.lines())


def test_a_token_is_asked_for_everything_but_the_health(store: Store, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-token\n")
    basic = base64.b64encode(b"anybody:s3cret-token").decode()
    with serving(store.root, tmp_path, "--token-file", token) as server:
        server.ready()
        for good in ("Bearer s3cret-token", f"Basic {basic}", f"basic {basic}"):
            assert server.ask("/v2/", Authorization=good).status == 200
        wrong = base64.b64encode(b"anybody:wrong").decode()
        for bad in (
            "Bearer wrong",
            "Bearer ",
            "",
            f"Basic {wrong}",
            "Basic !!",
            "s3cret-token",
            f"Bearer {'x' * 8000}",
        ):
            for path in ("/v2/", "/metrics", "/v2/_catalog"):
                found = server.ask(path, Authorization=bad)
                assert (found.status, found.headers["WWW-Authenticate"]) == (401, 'Basic realm="ostore"')
        assert server.ask("/healthz").status == 200
        assert "s3cret" not in "\n".join(server.lines())


def certificates(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Files of an authority, of a certificate for this machine, and of its key."""
    trustme = pytest.importorskip("trustme", reason="needs the PyPI package trustme")
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    made.private_key_pem.write_to_path(key)
    for number, blob in enumerate(made.cert_chain_pems):
        blob.write_to_path(cert, append=bool(number))
    return ca, cert, key


def test_https_with_a_certificate_of_its_own(store: Store, tmp_path: Path) -> None:
    ca, cert, key = certificates(tmp_path)
    store.model("big:latest", HARD)
    with serving(store.root, tmp_path, "--tls-cert", cert, "--tls-key", key) as server:
        url = f"https://localhost:{server.address[1]}{blob_path(HARD, 'library/big')}"
        asking = ["curl", "-sf", "--retry", "9", "--cacert", str(ca), url]
        assert sha256(subprocess.run(asking, check=True, capture_output=True).stdout) == sha256(HARD)
    for words in (("--tls-key", key), ("--tls-cert", key), ("--tls-cert", cert, "--tls-key", cert)):
        refused = run("serve", store.root, *words)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    missing = run("serve", store.root, "--tls-cert", tmp_path / "none.pem")
    assert (missing.returncode, missing.stderr.count("\n")) == (9, 1)


def test_which_names_of_the_server_are_accepted(store: Store, tmp_path: Path) -> None:
    with serving(store.root, tmp_path) as server:
        for good in ("localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.9:11435", "[::1]:80"):
            assert server.ask("/v2/", Host=good).status == 200
        for bad in ("evil.example", "192.168.1.5", "localhost.evil.example", "registry.ollama.ai", "a@localhost", ""):
            assert server.ask("/v2/", Host=bad).status == 403
    with serving(store.root, tmp_path, "--host", "registry.ollama.ai") as server:
        assert server.ask("/v2/", Host="registry.ollama.ai").status == 200
        assert server.ask("/v2/", Host="evil.example").status == 403
    with serving(store.root, tmp_path, listen="0.0.0.0:0") as server:
        for good in ("mirror.lan:11435", "192.168.1.5", "localhost"):
            assert server.ask("/v2/", Host=good).status == 200
    with serving(store.root, tmp_path, "--host", "mirror.lan", listen="0.0.0.0:0") as server:
        answers = {host: server.ask("/v2/", Host=host).status for host in ("mirror.lan", "192.168.1.5", "evil.example")}
        assert list(answers.values()) == [200, 200, 403]


def test_it_says_where_it_is_and_what_to_type(store: Store) -> None:
    with subprocess.Popen(
        [*OSTORE, "serve", str(store.root), "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True, stderr=-3
    ) as program:
        assert program.stdout
        lines = [program.stdout.readline().rstrip("\n") for _ in range(6)]
        program.send_signal(signal.SIGINT)
        rest = program.stdout.read()
    assert program.returncode == 0
    host = lines[0].rpartition("//")[2]
    assert lines == [
        f"serving 2 models of {store.root} at http://{host}",
        "on the clients:",
        f"  ollama pull --insecure {host}/library/tiny:latest",
        f"  ostore pull {host}/library/tiny:latest --plain-http",
        f"  skopeo copy --src-tls-verify=false docker://{host}/library/tiny:latest dir:DIR",
        "Ctrl-C ends it",
    ]
    assert rest.startswith("answered 0 requests in ")


@needs("skopeo")
@pytest.mark.parametrize("way", ["an address of IPv6", "a token", "https"])
def test_what_it_says_to_type_works(way: str, store: Store, tmp_path: Path) -> None:
    ca, cert, key = certificates(tmp_path)
    (tmp_path / "token").write_text("s3cret-token\n")
    options: tuple[str | Path, ...] = {
        "an address of IPv6": (),
        "a token": ("--token-file", tmp_path / "token"),
        "https": ("--tls-cert", cert, "--tls-key", key),
    }[way]
    listen = "[::1]:0" if way == "an address of IPv6" else "127.0.0.1:0"
    surroundings = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OLLAMA_MODELS": str(tmp_path / "copy"),
        "SSL_CERT_FILE": str(ca),
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    with serving(store.root, tmp_path, *options, listen=listen) as server:
        typed = [line for line in server.typed() if not line.startswith("ollama ")]
        if "HOST:" in typed[0]:
            pytest.skip("no name of this machine has an address of IPv6")
        for line in typed:
            meant = line.replace("CA.pem", str(ca)).replace("TOKEN_FILE", str(tmp_path / "token"))
            done = subprocess.run(["sh", "-c", meant], env=surroundings, cwd=tmp_path, capture_output=True, check=False)
            assert done.returncode == 0, (line, done.stderr)
    assert len(typed) == (3 if way == "a token" else 2)
    assert len(list((tmp_path / "DIR").iterdir())) > 2
    assert run("list", "-q", "--models", tmp_path / "copy").stdout.strip() == typed[-2].split()[2]


def test_a_name_with_a_port_is_no_name_of_a_host(store: Store) -> None:
    for name in ("mirror.lan:11435", "http://mirror.lan"):
        refused = run("serve", store.root, "--host", name)
        assert (refused.returncode, f"{name}: expected the name of a host" in refused.stderr) == (2, True)


@contextlib.contextmanager
def unread(store: Store) -> Iterator[Serving]:
    """A server of whose standard error nobody reads. It is a pipe, which is full after some hundred lines."""
    command = [*OSTORE, "serve", str(store.root), "--listen", "127.0.0.1:0", "-q"]
    # Unbuffered, the stream has no lock that a thread could keep.
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered) as program:
        assert program.stdout
        try:
            yield Serving(program, program.stdout.readline().rstrip("\n"), Path())
        finally:
            program.kill()


def ask_often(server: Serving, numbers: range) -> None:
    """Each request has a number, and all go over one connection, many at once."""
    with socket.create_connection(server.address, timeout=30) as connection:
        for begin in numbers[::50]:
            some = [number for number in numbers if begin <= number < begin + 50]
            head = f"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {'x' * 250}"
            heads = (f"{head}{number}" for number in some)
            connection.sendall("".join(f"{head}\r\n\r\n" for head in heads).encode())
            answers = b""
            while answers.count(b"{}") < len(some):
                piece = connection.recv(65536)
                assert piece
                answers += piece


def test_who_does_not_read_the_log_stops_nothing_and_is_told_what_is_missing(store: Store) -> None:
    with unread(store) as server:
        ask_often(server, range(5500))
        told = []
        assert server.program.stderr
        for line in server.program.stderr:
            told.append(line)
            if "missing here" in line:
                break
        ask_often(server, range(5500, 5510))
        server.program.terminate()
        told += server.program.stderr
        assert server.program.wait(timeout=30) == 0
    found = [re.search(r"xx([0-9]+)\"|: ([0-9]+) lines are missing here$", line) for line in told]
    numbers: list[int] = []
    for one in filter(None, found):
        # What is missing is as if it were there.
        begin = numbers[-1] + 1 if numbers else 0
        numbers += [int(one[1])] if one[1] else range(begin, begin + int(one[2]))
    assert numbers == list(range(5510))
    assert len(told) < 5500


def test_a_signal_ends_it_while_nobody_reads_the_log(store: Store) -> None:
    with unread(store) as server:
        ask_often(server, range(1000))
        server.program.terminate()
        assert server.program.wait(timeout=30) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_well_and_the_report_tells_what_it_did(
    store: Store, tmp_path: Path, number: signal.Signals
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        surroundings = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        command = [*OSTORE, "serve", str(store.root), "--listen", "127.0.0.1:0", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=-3, text=True, env=surroundings) as program:
            assert systemd.recv(100) == b"READY=1"
            program.send_signal(number)
            assert systemd.recv(100) == b"STOPPING=1"
            assert program.stdout
            report = checked("serve", program.stdout.read())
    assert program.returncode == 0
    assert (report["schema"], report["models"], report["requests"], report["sent_bytes"]) == ("ostore.serve/1", 2, 0, 0)


def test_a_server_ends_while_clients_stall(places: Path, tmp_path: Path) -> None:
    with serving(places / "store", tmp_path) as server:
        stalled = [socket.create_connection(server.address) for _ in range(5)]
        for client in stalled:
            client.sendall(f"GET {blob_path(HARD)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.recv(100)
    for client in stalled:
        client.close()


def test_an_address_that_cannot_be_had_is_one_line(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = run("serve", store.root, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
        assert refused.returncode == 6
        assert refused.stderr.startswith("ostore: error[busy]: port ")
    for bad in ("", "nonsense", "127.0.0.1", "127.0.0.1:99999", "a:b:80", "198.51.100.7:0", "no.such.invalid:0", ":-1"):
        refused = run("serve", store.root, "--listen", bad)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), bad
        assert refused.stderr.startswith("ostore: error[usage]: --listen: ")


def test_a_port_that_only_root_may_have(public: Store) -> None:
    limit = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if os.geteuid() != 0 or not limit.exists() or int(limit.read_text()) <= 80:
        pytest.skip("needs root, and a system where ports below 1024 are root's")
    refused = as_user(65534, "serve", public.root, "--listen", "127.0.0.1:80")
    assert refused.returncode == 2
    assert "port 80: this user may not listen there (ports below 1024 need root" in refused.stderr


def test_without_the_extra_it_says_what_to_type(store: Store) -> None:
    code = "import sys; sys.modules['aiohttp'] = None; from ostore.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("(pip install 'ostore[serve]')\n")


def test_what_cannot_be_served_is_said(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty-token").write_text("\n")
    for words, code in (
        (("-",), 2),
        ((tmp_path / "none.tar.zst",), 3),
        ((tmp_path,), 3),
        ((store.root, "--models", store.root), 2),
        ((store.root, "--token-file", tmp_path / "none"), 9),
        ((store.root, "--token-file", tmp_path / "empty-token"), 2),
    ):
        refused = run("serve", *words, "--listen", "127.0.0.1:0")
        assert (refused.returncode, refused.stderr.count("\n")) == (code, 1), words


def test_a_bundle_in_volumes_and_a_model_of_a_delta_are_not_served(store: Store, tmp_path: Path) -> None:
    store.add(full("new:latest"), store.layer(MODEL, noise(3_000_000)), config=store.config(model_type="another"))
    made = run("export", "new", tmp_path / "v.tar", "--split", "1MiB", "--models", store.root)
    assert made.returncode == 0, made.stderr
    refused = run("serve", tmp_path / "v.tar.001", "--listen", "127.0.0.1:0")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    far = Store(tmp_path / "far")
    far.model("tiny:latest", b"the weights " * 1000, template=b"{{ .Prompt }}")
    made = run("export", "--all", tmp_path / "d.tar", "--have", far.root, "--models", store.root)
    assert made.returncode == 0, made.stderr
    with serving(tmp_path / "d.tar", tmp_path) as server:
        assert server.ask("/v2/_catalog").document == {"repositories": ["library/new"]}
        assert "a delta has it" in "\n".join(server.lines())


def test_the_store_of_the_machine_is_served_by_default(store: Store, tmp_path: Path) -> None:
    with serving(None, tmp_path, OLLAMA_MODELS=str(store.root)) as server:
        assert server.ask("/v2/library/tiny/manifests/latest").status == 200
    before = tree(store.root)
    with serving(None, tmp_path, "--models", store.root) as server:
        assert server.ask("/v2/library/tiny/manifests/latest").status == 200
    assert tree(store.root, without=()) == before


def test_a_store_without_models_is_served_until_some_come(tmp_path: Path) -> None:
    (tmp_path / "models/manifests").mkdir(parents=True)
    with serving(tmp_path / "models", tmp_path) as server:
        assert server.ask("/v2/_catalog").document == {"repositories": []}
        Store(tmp_path / "models").model("first:latest", b"first")
        until(lambda: server.ask("/v2/_catalog").document == {"repositories": ["library/first"]})


def test_a_quiet_server_prints_its_address_alone(store: Store) -> None:
    command = [*OSTORE, "serve", str(store.root), "--listen", "127.0.0.1:0", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=-3, text=True) as program:
        assert program.stdout
        first = program.stdout.readline()
        program.terminate()
        assert (first.startswith("http://127.0.0.1:"), program.stdout.read()) == (True, "")


def test_ostore_pulls_from_every_kind_of_place(server: Serving, places: Path, tmp_path: Path) -> None:
    names = [
        f"{server.host}/library/hard:q4",
        f"{server.host}/library/soft:latest",
        f"{server.host}/library/empty:latest",
    ]
    done = run("pull", *names, "--models", tmp_path / "models")
    assert done.returncode == 0, done.stderr
    assert run("verify", "--models", tmp_path / "models").returncode == 0
    there = Store(places / "store").manifest_path(full("hard:q4")).read_bytes()
    assert Store(tmp_path / "models").manifest_path(names[0]).read_bytes() == there
