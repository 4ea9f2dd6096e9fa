"""A real Ollama accepts what we wrote. Runs if `ollama` is on PATH or OSTORE_TEST_OLLAMA names it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ostore
from tests.support import PARAMS, Store, full, noise, tree
from tests.support import ostore as run

OLLAMA = os.environ.get("OSTORE_TEST_OLLAMA") or shutil.which("ollama")
pytestmark = pytest.mark.skipif(OLLAMA is None, reason="no ollama on PATH, and OSTORE_TEST_OLLAMA is not set")


def tiny_gguf(seed: int) -> bytes:
    """A GGUF of one key and no tensors: enough for a server to show."""

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    return (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2)
        + text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
        + text(b"general.name") + struct.pack("<I", 8) + text(noise(20, seed).hex().encode())
    )  # fmt: skip


class Server:
    """A real server on a loopback port of its own."""

    def __init__(self, models: Path, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{probe.getsockname()[1]}"
        home.mkdir(exist_ok=True)
        self._environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "OLLAMA_HOST": self._address,
            "OLLAMA_MODELS": str(models),
            "OLLAMA_NO_CLOUD": "1",
        }
        self._process = subprocess.Popen(
            [str(OLLAMA), "serve"],
            env=self._environment,
            cwd=home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        for _ in range(200):
            try:
                self.get("/api/version")
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise TimeoutError("the server did not start")

    def get(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        data = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(f"http://{self._address}{path}", data, timeout=30) as response:
            return json.load(response)

    def cli(self, *arguments: str) -> str:
        return subprocess.run(
            [str(OLLAMA), *arguments], env=self._environment, check=True, capture_output=True, text=True
        ).stdout

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def source(tmp_path: Path) -> Store:
    store = Store(tmp_path / "source")
    store.model("tiny:q4", tiny_gguf(1), template=b"{{ .Prompt }}", license=b"MIT", params=b'{"top_k":10}\n')
    store.model("tiny:latest", tiny_gguf(1), template=b"{{ .Prompt }}", system=b"Say hi!")
    store.model("registry.ollama.ai/someone/custom:latest", tiny_gguf(2))
    store.model("hf.co/someone/Some-Model-GGUF:Q4_K_M", tiny_gguf(3))
    store.model("localhost:5000/library/private:v1", tiny_gguf(4), template=b"{{ .Prompt }} " * 100)
    config, layer = store.config(), store.layer("application/vnd.ollama.image.model", tiny_gguf(5))
    odd = {"layers": [layer], "config": config, "schemaVersion": 2, "annotations": {"by": "a registry"}}
    store.write_manifest(full("odd:latest"), json.dumps(odd, indent=3).encode())
    store.write_manifest(full("spaced:latest"), exactly(512, config, layer))
    store.write_manifest(full("newline:latest"), exactly(512, config, layer) + b"\n")
    stub = store.config(remote_host="https://ollama.com:443", remote_model="gpt-oss:20b")
    store.write_manifest(full("stub:latest"), json.dumps({"schemaVersion": 2, "config": stub, "layers": None}).encode())
    return store


def exactly(size: int, config: dict[str, Any], layer: dict[str, Any]) -> bytes:
    """A manifest that ends where the buffer of Go's decoder does."""
    document = {"schemaVersion": 2, "mediaType": "", "config": config, "layers": [layer]}
    document["mediaType"] = "x" * (size - len(json.dumps(document)))
    return json.dumps(document).encode()


@pytest.fixture
def imported(source: Store, tmp_path: Path) -> Path:
    ostore.export(["*"], tmp_path / "b.tar.zst", models=source.root)
    ostore.import_bundle(tmp_path / "b.tar.zst", models=tmp_path / "imported")
    return tmp_path / "imported"


@pytest.fixture
def server(imported: Path, tmp_path: Path) -> Iterator[Server]:
    started = Server(imported, tmp_path / "server-home")
    try:
        started.wait()
        yield started
    finally:
        started.stop()


def cells(listing: str) -> list[list[str]]:
    return [re.split(r" {2,}", line.strip())[:4] for line in listing.splitlines()]


def test_list_matches_cell_by_cell(server: Server, imported: Path) -> None:
    now = time.time() - 3 * 86400
    for path in (imported / "manifests").rglob("*"):
        os.utime(path, (now, now))
    for age, name in enumerate(["tiny/q4", "tiny/latest", "odd/latest", "spaced/latest"]):
        stamp = now - 100_000 * age
        os.utime(imported / "manifests/registry.ollama.ai/library" / name, (stamp, stamp))
    restarted = Server(imported, imported.parent / "server-home-2")
    try:
        restarted.wait()
        theirs = cells(restarted.cli("list"))
        version = restarted.get("/api/version")["version"]
    finally:
        restarted.stop()
    ours = cells(run("list", "--models", imported).stdout)
    if tuple(map(int, version.split("-")[0].split("."))) < (0, 12):
        # Cloud stubs came with 0.12; before, one was a model of a few bytes.
        theirs, ours = ([row for row in rows if row[0] != "stub:latest"] for rows in (theirs, ours))
    assert sorted(theirs) == sorted(ours)
    # Models of one second stand in no order that Ollama promises.
    dated = {"tiny:q4", "tiny:latest", "odd:latest", "spaced:latest"}
    assert [row for row in theirs if row[0] in dated] == [row for row in ours if row[0] in dated]


def test_every_imported_model_has_the_same_id_and_is_shown(server: Server, imported: Path) -> None:
    theirs = {model["name"]: model["digest"] for model in server.get("/api/tags")["models"]}
    ours = {row.name: row.digest.removeprefix("sha256:") for row in ostore.list_models(models=imported).models}
    assert theirs == ours
    shown = server.get("/api/show", {"model": "tiny:q4"})
    assert shown["license"] == "MIT"
    assert "top_k" in shown["parameters"]
    assert ostore.show("tiny:q4", models=imported).licenses == ("MIT",)
    for name in theirs.keys() - {"stub:latest"}:
        assert server.get("/api/show", {"model": name})["details"]["family"]


def test_an_import_beside_a_running_server_is_listed_at_once(server: Server, imported: Path, tmp_path: Path) -> None:
    more = Store(tmp_path / "more")
    more.model("new:latest", tiny_gguf(9), system=b"new")
    ostore.export(["new"], tmp_path / "new.tar", models=more.root)
    ostore.import_bundle(tmp_path / "new.tar", models=imported)
    assert "new:latest" in server.cli("list")
    assert server.get("/api/show", {"model": "new"})["system"] == "new"


def test_a_start_of_the_server_prunes_nothing_that_was_imported(imported: Path, tmp_path: Path) -> None:
    before = tree(imported)
    for path in (imported / "blobs").iterdir():
        os.utime(path, (0, 0))
    started = Server(imported, tmp_path / "server-home")
    try:
        started.wait()
        time.sleep(1)
    finally:
        started.stop()
    assert tree(imported) == before


def test_the_server_copies_and_removes_what_was_imported(server: Server, imported: Path) -> None:
    server.cli("cp", "tiny:q4", "copied")
    server.cli("rm", "tiny:q4")
    server.cli("rm", "hf.co/someone/Some-Model-GGUF:Q4_K_M")
    names = {row.name for row in ostore.list_models(models=imported).models}
    assert "copied:latest" in names
    assert not names & {"tiny:q4", "hf.co/someone/Some-Model-GGUF:Q4_K_M"}
    assert ostore.verify(models=imported)[0].verdict == "whole"


def test_a_modelfile_of_ours_builds_the_same_model(server: Server, imported: Path, tmp_path: Path) -> None:
    """Only releases that create without llama-quantize can do this offline."""
    (tmp_path / "Modelfile").write_text(ostore.modelfile("tiny:q4", models=imported))
    try:
        server.cli("create", "again", "-f", str(tmp_path / "Modelfile"))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this server cannot create: {error.stderr.strip().splitlines()[-1]}")
    again = ostore.show("again", models=imported)
    first = ostore.show("tiny:q4", models=imported)
    assert (again.template, again.parameters, again.licenses) == (first.template, first.parameters, first.licenses)
    assert any(layer.media_type == PARAMS for layer in again.layers)


def listed(server: Server) -> dict[str, str]:
    return {model["name"]: model["digest"] for model in server.get("/api/tags")["models"]}


def test_the_server_sees_what_cp_and_rm_of_ours_do_and_goes_on_from_there(server: Server, imported: Path) -> None:
    before = listed(server)
    ostore.cp("tiny:q4", "mine:v1", models=imported)
    assert listed(server) == {**before, "mine:v1": before["tiny:q4"]}
    ostore.rm(["tiny:q4"], models=imported)
    assert listed(server).keys() == (before.keys() | {"mine:v1"}) - {"tiny:q4"}
    assert server.get("/api/show", {"model": "mine:v1"})["license"] == "MIT"
    server.cli("cp", "mine:v1", "again")
    server.cli("rm", "mine:v1")
    assert server.get("/api/show", {"model": "again"})["license"] == "MIT"
    assert ostore.verify(models=imported)[0].verdict == "whole"


def test_gc_takes_nothing_that_the_server_shows_and_leaves_its_next_start_nothing(
    imported: Path, tmp_path: Path
) -> None:
    before = tree(imported)
    orphan = Store(imported).blob(noise(50_000, 7))
    report = ostore.gc(grace=0, models=imported)
    assert report is not None
    assert [blob.digest for blob in report.removed] == [orphan]
    for path in (imported / "blobs").iterdir():
        os.utime(path, (0, 0))
    started = Server(imported, tmp_path / "server-home")
    try:
        started.wait()
        for name in listed(started).keys() - {"stub:latest"}:
            assert started.get("/api/show", {"model": name})["details"]["family"]
    finally:
        started.stop()
    assert tree(imported) == before


def test_a_moved_store_is_the_same_to_the_server(imported: Path, tmp_path: Path) -> None:
    ours = {row.name: row.digest.removeprefix("sha256:") for row in ostore.list_models(models=imported).models}
    ostore.move(tmp_path / "moved", models=imported)
    started = Server(tmp_path / "moved", tmp_path / "server-home")
    try:
        started.wait()
        assert listed(started) == ours
        started.cli("rm", "odd")
    finally:
        started.stop()
    assert ostore.verify(models=tmp_path / "moved")[0].verdict == "whole"
