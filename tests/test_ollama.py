"""A real Ollama accepts what we wrote. Runs if `ollama` is on PATH or OSTORE_TEST_OLLAMA names it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ostore
from tests.gguf import ONE_LAYER, gguf
from tests.remedies.ollama_double import OllamaDouble
from tests.support import LICENSE, MODEL, OSTORE, PARAMS, SYSTEM, TEMPLATE, Store, full, noise, sha256, tree
from tests.support import ostore as run

OLLAMA = os.environ.get("OSTORE_TEST_OLLAMA") or shutil.which("ollama")
MESSAGES = "application/vnd.ollama.image.messages"
pytestmark = pytest.mark.skipif(OLLAMA is None, reason="no ollama on PATH, and OSTORE_TEST_OLLAMA is not set")


def tiny_gguf(seed: int) -> bytes:
    """A GGUF that every release shows and can build on: the keys and a few of the tensors of a llama of one layer."""
    keys = {**ONE_LAYER, "general.name": noise(20, seed).hex(), "llama.vocab_size": 4}
    shapes = {"token_embd.weight": (32, 4), "blk.0.attn_norm.weight": (32,), "output_norm.weight": (32,)}
    return gguf(keys, {name: (shape, [0.5]) for name, shape in shapes.items()})


class Server:
    """A real server on a loopback port of its own."""

    def __init__(self, models: Path, home: Path, **environment: str) -> None:
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
            **environment,
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

    @property
    def version(self) -> tuple[int, ...]:
        """(0, 9, 6) for 0.9.6 and for 0.9.6-rc1; (0, 0, 0) if it was built without a version."""
        return tuple(map(int, self.get("/api/version")["version"].split("-")[0].split(".")))

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
    # The first releases put tabs between the columns.
    return [re.split(r" {2,}| *\t[ \t]*", line.strip())[:4] for line in listing.splitlines()]


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
        version = restarted.version
    finally:
        restarted.stop()
    ours = cells(run("list", "--models", imported).stdout)
    if version < (0, 1, 35):
        # It hashes the whole file, not what Go's decoder has read.
        theirs, ours = ([row for row in rows if row[0] != "newline:latest"] for rows in (theirs, ours))
    if version < (0, 12):
        # Cloud stubs came with 0.12; before, one was a model of a few bytes.
        theirs, ours = ([row for row in rows if row[0] != "stub:latest"] for rows in (theirs, ours))
    assert sorted(theirs) == sorted(ours)
    # Models of one second stand in no order that Ollama promises.
    dated = {"tiny:q4", "tiny:latest", "odd:latest", "spaced:latest"}
    assert [row for row in theirs if row[0] in dated] == [row for row in ours if row[0] in dated]


def test_every_imported_model_has_the_same_id_and_is_shown(server: Server, imported: Path) -> None:
    theirs = {model["name"]: model["digest"] for model in server.get("/api/tags")["models"]}
    ours = {row.name: row.digest.removeprefix("sha256:") for row in ostore.list_models(models=imported).models}
    if server.version < (0, 1, 35):
        # It hashes the whole file, not what Go's decoder has read.
        ours["newline:latest"] = sha256(Store(imported).manifest_path(full("newline:latest")).read_bytes())
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
    """What a person types: `ostore show --modelfile > Modelfile`, then `ollama create`."""
    store = Store(imported)
    texts = {TEMPLATE: b"\t{{ .System }}\r\n{{ .Prompt }} \n", SYSTEM: b'"Say"\thi!', LICENSE: b"MIT\n\n"}
    params = b'{"num_ctx":1048576,"stop":["\\t<|end|>","\\"x\\""],"temperature":0.7}\n'
    messages = b'[{"role":"user","content":"\\ta\\r\\nb"},{"role":"assistant","content":"yes?"}]\n'
    layers = [(MODEL, tiny_gguf(1)), *texts.items(), (PARAMS, params), (MESSAGES, messages)]
    # The instructions for these came later.
    fields = {"renderer": "qwen3-coder", "parser": "qwen3-coder", "requires": "0.14.0"}
    config = store.config(**(fields if server.version >= (0, 14) else {}))
    store.add(full("first:latest"), *(store.layer(*layer) for layer in layers), config=config)
    with (tmp_path / "Modelfile").open("wb") as file:
        subprocess.run([*OSTORE, "show", "first", "--modelfile", "--models", imported], stdout=file, check=True)
    try:
        server.cli("create", "again", "-f", str(tmp_path / "Modelfile"))
    except subprocess.CalledProcessError as error:
        if "llama-quantize" not in error.stderr:
            raise
        pytest.skip(f"this server cannot create: {error.stderr.strip().splitlines()[-1]}")
    again, first = (ostore.show(name, models=imported) for name in ("again", "first"))
    for part in ("template", "system", "licenses", "parameters", "messages"):
        assert getattr(again, part) == getattr(first, part), part
    for field in fields:
        assert getattr(again.config, field) == getattr(first.config, field), field


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


def test_the_double_of_the_remedies_deletes_what_this_server_deletes(imported: Path, tmp_path: Path) -> None:
    """Digests with a dash are other digests to a server that removes a model, although they open the same files."""
    manifest = Store(imported).manifest_path(full("tiny:q4"))
    manifest.write_bytes(manifest.read_bytes().replace(b"sha256:", b"sha256-"))
    copied = tmp_path / "copied"
    shutil.copytree(imported, copied, symlinks=True)
    assert OllamaDouble(copied, copied).run(("rm", "tiny:q4")) == 0
    # A start would prune what this test is about.
    started = Server(imported, tmp_path / "server-home", OLLAMA_NOPRUNE="1")
    try:
        started.wait()
        started.cli("rm", "tiny:q4")
    finally:
        started.stop()
    assert {path.name for path in (imported / "blobs").iterdir()} == {
        path.name for path in (copied / "blobs").iterdir()
    }
