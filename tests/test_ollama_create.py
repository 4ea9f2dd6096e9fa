"""A real Ollama makes the same models of the same Modelfiles. Runs where tests/test_ollama.py runs."""

from __future__ import annotations

import json
import subprocess
import urllib.error
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ostore.formats.manifest import Manifest
from tests.gguf import ONE_LAYER, Tensor, gguf, talking_gguf
from tests.support import ADAPTER, CONFIG, PROJECTOR, Store, full
from tests.support import ostore as run
from tests.test_ollama import OLLAMA, Server

pytestmark = pytest.mark.skipif(OLLAMA is None, reason="no ollama on PATH, and OSTORE_TEST_OLLAMA is not set")

TENSORS: dict[str, Tensor] = {
    "token_embd.weight": ((32, 4), [0.5]),
    "blk.0.attn_norm.weight": ((32,), [0.5]),
    "output_norm.weight": ((32,), [0.5]),
}
# From 0.30 on, a server passes every model through llama-quantize, but not one with such a tensor.
LEFT_ALONE: dict[str, Tensor] = {"v.left.alone": ((32,), [0.5])}
FILES = {
    "a.gguf": gguf({**ONE_LAYER, "llama.vocab_size": 4}, {**TENSORS, **LEFT_ALONE}),
    "q.gguf": gguf({**ONE_LAYER, "llama.vocab_size": 4, "general.file_type": 15}, {**TENSORS, **LEFT_ALONE}),
    "p.gguf": gguf(
        {"general.architecture": "clip", "general.type": "projector", "clip.projector_type": "mlp"}, TENSORS
    ),
    "l.gguf": gguf({"general.architecture": "llama", "general.type": "adapter"}, TENSORS),
    "dir/m.gguf": gguf({**ONE_LAYER, "llama.vocab_size": 4, "general.name": "in a folder"}, {**TENSORS, **LEFT_ALONE}),
    "two/m.gguf": gguf({**ONE_LAYER, "llama.vocab_size": 4, "general.name": "two"}, {**TENSORS, **LEFT_ALONE}),
    "two/mmproj.gguf": gguf({"general.architecture": "clip", "clip.vision.block_count": 1}, TENSORS),
}
# Each is made by both, in this order, as m0, m1 and so on. What they build on is made first.
MODELFILES = (
    "FROM ./a.gguf\nTEMPLATE {{ .Prompt }}",
    "FROM a.gguf\nTEMPLATE {{ .Prompt }}\nSYSTEM s\nPARAMETER top_k 5\nPARAMETER stop a\nLICENSE MIT\nMESSAGE user hi",
    "FROM q.gguf\nTEMPLATE {{ .Prompt }}",
    "FROM {here}/a.gguf\nTEMPLATE {{ .System }} {{ .Prompt }}",
    "FROM dir\nTEMPLATE {{ .Prompt }}",
    "FROM two\nTEMPLATE {{ .Prompt }}",
    "FROM a.gguf\nFROM p.gguf\nTEMPLATE {{ .Prompt }}",
    "FROM a.gguf\nADAPTER l.gguf\nTEMPLATE {{ .Prompt }}",
    "FROM a.gguf\nADAPTER ./l.gguf\nTEMPLATE {{ .Prompt }}\nSYSTEM s",
    "FROM m0",
    "FROM m1",
    "FROM m1:latest",
    "FROM registry.ollama.ai/library/m1",
    "from m1\nsystem other",
    "FROM m1\nSYSTEM ",
    'FROM m1\nSYSTEM ""',
    "FROM m1\nTEMPLATE new {{ .Prompt }}",
    "FROM m1\nLICENSE two",
    "FROM m1\nLICENSE MIT",
    "FROM m1\nPARAMETER top_k 6",
    "FROM m1\nPARAMETER stop b\nPARAMETER stop c",
    "FROM m1\nMESSAGE assistant yo",
    "FROM m1\nADAPTER l.gguf",
    "FROM m5\nSYSTEM s",
    "FROM m7\nSYSTEM s",
    "FROM m0\nFROM m1",
    "FROM m0\nPARAMETER temperature 0.123456789\nPARAMETER top_p 0.7\nPARAMETER min_p 1e-7\nPARAMETER typical_p 1",
    "FROM m0\nPARAMETER num_ctx 1048576\nPARAMETER seed 123456789\nPARAMETER num_predict -1",
    "FROM m0\nPARAMETER seed 9223372036854775807",
    "FROM m0\nPARAMETER seed 9007199254740993",
    "FROM m0\nPARAMETER num_keep +3\nPARAMETER use_mmap f",
    "FROM m0\nPARAMETER temperature 16777217",
    "FROM m0\nPARAMETER temperature 3.4e38\nPARAMETER repeat_penalty .5\nPARAMETER presence_penalty 1e-46",
    'FROM m0\nPARAMETER stop <|im_end|>\nPARAMETER stop "a & b"\nPARAMETER stop """ """',
    "FROM m0\nPARAMETER stop é\u2028\u2029",
    "FROM m0\nPARAMETER top_k 1\nPARAMETER top_k 2",
    "FROM m0\nPARAMETER num_gpu 1\nPARAMETER main_gpu 0\nPARAMETER num_thread 2\nPARAMETER num_batch 3",
    "FROM m0\nPARAMETER repeat_last_n 64\nPARAMETER frequency_penalty 0.1\nPARAMETER presence_penalty 1.5",
    'FROM m0\nSYSTEM say "hi"',
    "FROM m0\nSYSTEM 'single'",
    'FROM m0\nSYSTEM "a" "b"',
    'FROM m0\nSYSTEM "x" y\nTEMPLATE "z"',
    'FROM m0\nSYSTEM """a"""b\nX"""',
    'FROM m0\nSYSTEM """\na\n"""\n',
    'FROM m0\nSYSTEM """a\r\nb"""\r\n',
    "FROM m0\r\nSYSTEM crlf\r\n",
    "FROM m0\rSYSTEM cr",
    "FROM m0\nSYSTEM \t a \t ",
    "FROM m0\nSYSTEM a # no comment",
    "# a comment\n\n   FROM m0\n\t# another\n  SYSTEM\tindented",
    "FROM m0\nSYSTEM a\u00a0b\u200dc\u00add\x0be\u3000f\ue000g",
    "\ufeffFROM m0\nSYSTEM with a mark",
    "FROM m0\nSYSTEM \\n \\t \\\\",
    'FROM m0\nSYSTEM <b> & "c" \u00e9 \U0001f600',
    'FROM m0\nMESSAGE system s\nMESSAGE user u: v\nMESSAGE assistant "a\nb"\nMESSAGE user <x>',
    'FROM m0\nMESSAGE user """\n\n"""',
    'FROM m0\nTEMPLATE """{{ if .System }}{{ .System }}\n{{ end }}{{ .Prompt }}"""',
    "FROM m0\nTEMPLATE {{ range .Messages }}{{ .Content }}{{ end }}",
    "FROM m0\nSYSTEM one\nSYSTEM two\nTEMPLATE a {{ .Prompt }}\nTEMPLATE b {{ .Prompt }}",
    'FROM m0\nLICENSE """a\nlong one"""\nLICENSE b\nLICENSE b',
    "FROM m0\nPARAMETER mirostat 1\nPARAMETER top_k 3",
    "FROM m10\nPARAMETER temperature 0.5\nSYSTEM chain",
    "sYsTeM mixed\nFrOm m0",
)
# What 0.12 and newer know besides.
RENDERED = (
    "FROM m0\nRENDERER r\nPARSER p",
    "FROM m1\nREQUIRES v0.14.0\nRENDERER qwen3-coder",
)
REFUSED = (
    "SYSTEM no from",
    "FROM m0\nPARAMETER  top_k 1",
    "FROM m0\nPARAMETER nothing 1",
    "FROM m0\nPARAMETER top_k 1.0",
    "FROM m0\nPARAMETER temperature x",
    "FROM m0\nMESSAGE User hi",
    "FROM m0\nEXEC x",
    'FROM m0\nSYSTEM """open',
    "FROM m0\nSYSTEM",
    "FROM m0\nADAPTER ./absent.gguf",
    "FROM m0\nTEMPLATE {{ if .x }}",
    "FROM m0\nTEMPLATE {{ .x",
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("create")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def server(here: Path) -> Iterator[Server]:
    started = Server(here / "theirs", here / "home", OLLAMA_NOPRUNE="1")
    try:
        started.wait()
        yield started
    finally:
        started.stop()


def write(here: Path, text: str) -> Path:
    path = here / "Modelfile"
    path.write_bytes(text.replace("{here}", str(here)).encode())
    return path


def told(store: Store, name: str, *, is_new: bool) -> Any:  # noqa: ANN401 - JSON
    """
    What a model is: its manifest for a server since 0.32.7, else what older ones and we agree about.

    Newer ones write the name of a file as `from`, and we write none, because it says nothing. Older ones add `rootfs`
    to a config, the path of a blob as `from` of a file, and the families of projectors. They take files in any order.
    """
    manifest = json.loads(store.manifest_path(full(name)).read_bytes())
    config = json.loads((store.root / "blobs" / manifest["config"]["digest"].replace(":", "-")).read_bytes())
    if is_new:
        files = {Path(file).name for file in FILES}
        layers = [{key: layer[key] for key in layer if layer[key] not in files} for layer in manifest["layers"]]
        return {**manifest, "layers": layers}
    config.pop("rootfs", None)
    kinds = [layer["mediaType"] for layer in manifest["layers"]]
    if PROJECTOR in kinds or ADAPTER in kinds:
        for key in ("model_family", "model_families", "model_type", "file_type"):
            config.pop(key)
    layers = [
        {key: layer[key] for key in layer if key != "from" or "/" not in layer[key]} for layer in manifest["layers"]
    ]
    return config, sorted(layers, key=json.dumps)


def test_sixty_modelfiles_make_the_same_models(here: Path, server: Server) -> None:
    theirs, ours = Store(here / "theirs"), Store(here / "ours")
    is_new = server.version >= (0, 32, 7)
    table: Sequence[str] = MODELFILES
    # A build without a version is (0, 0, 0).
    if is_new or server.version >= (0, 14, 0):
        table = (*table, *RENDERED)
    differing = []
    for number, text in enumerate(table):
        modelfile, name = write(here, text), f"m{number}:latest"
        server.cli("create", name, "-f", str(modelfile))
        done = run("create", name, "-f", modelfile, "--models", ours.root, "-q")
        assert done.returncode == 0, f"{text!r}: {done.stderr}"
        if told(theirs, name, is_new=is_new) != told(ours, name, is_new=is_new):
            differing.append((text, told(theirs, name, is_new=is_new), told(ours, name, is_new=is_new)))
    assert differing == []
    assert run("verify", "--models", ours.root).returncode == 0


def test_what_it_refuses_we_refuse(here: Path, server: Server) -> None:
    server.cli("create", "m0", "-f", str(write(here, MODELFILES[0])))
    assert run("create", "m0", "-f", here / "Modelfile", "--models", here / "ours", "-q", "--replace").returncode == 0
    for text in REFUSED:
        modelfile = write(here, text)
        with pytest.raises(subprocess.CalledProcessError):
            server.cli("create", "refused", "-f", str(modelfile))
        done = run("create", "refused", "-f", modelfile, "--models", here / "ours", "-q")
        assert (done.returncode in {2, 3, 12}, done.stderr.count("\n")) == (True, 1), f"{text!r}: {done.stderr}"


def test_it_lists_and_shows_what_we_made(here: Path, server: Server) -> None:
    ours = Store(here / "listed")
    done = run("create", "mine", "-f", write(here, MODELFILES[1]), "--models", ours.root, "-q")
    assert done.returncode == 0, done.stderr
    for path in sorted(ours.root.rglob("*")):
        target = here / "theirs" / path.relative_to(ours.root)
        if path.is_file() and ".ostore" not in path.parts and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    assert "mine:latest" in server.cli("list")
    shown = server.get("/api/show", {"model": "mine"})
    assert (shown["system"], shown["details"]["family"]) == ("s", "llama")
    manifest = Manifest.parse(ours.manifest_path(full("mine:latest")).read_bytes())
    assert manifest.config
    assert manifest.config.media_type == CONFIG


def test_it_answers_with_what_we_made(here: Path, tmp_path: Path) -> None:
    (here / "talks.gguf").write_bytes(talking_gguf())
    modelfile = write(here, 'FROM talks.gguf\nTEMPLATE "{{ .Prompt }}"\nPARAMETER num_predict 2\nPARAMETER num_ctx 64')
    done = run("create", "talks", "-f", modelfile, "--models", tmp_path / "models", "-q")
    assert done.returncode == 0, done.stderr
    talking = Server(tmp_path / "models", tmp_path / "home")
    try:
        talking.wait()
        answer = talking.get("/api/generate", {"model": "talks", "prompt": "hi", "stream": False})
    except urllib.error.HTTPError as error:
        pytest.skip(f"this server runs no model: {error.read().decode()[:200]}")
    finally:
        talking.stop()
    assert answer["response"].split() == ["hello", "hello"]
