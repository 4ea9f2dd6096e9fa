"""Models in the packages of Docker and of ModelPack: read from registries into models of Ollama's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ostore.formats import media_types, model_pack
from ostore.formats.errors import ForeignManifestError, FormatError
from ostore.formats.manifest import Manifest
from ostore.formats.packaged_model import is_package, packaged_model
from tests.false_registry import Asked, answer, false_registry, of_store
from tests.registries import docker_registry, needs_registry
from tests.support import Store, noise, sha256, six_kinds
from tests.support import ostore as run

WEIGHTS = b"GGUF" + noise(700_000, 5)
DOCKER = {"format": "gguf", "quantization": "MOSTLY_Q4_K_M", "parameters": "361.82 M", "architecture": "llama"}
DOCKER_CONFIG = "application/vnd.docker.ai.model.config.v0.1+json"
GGUF = "application/vnd.docker.ai.gguf.v3"
LICENSE = "application/vnd.docker.ai.license"
OTHER_KINDS: dict[str, list[tuple[str, str | None]]] = {
    "safetensors of Docker": [("application/vnd.docker.ai.safetensors", None)],
    "safetensors": [(model_pack.WEIGHT, "model.safetensors")],
    "of another program": [(model_pack.WEIGHT, "pytorch_model.bin")],
    "a tar": [("application/vnd.cncf.model.weight.v1.tar", "model.gguf")],
    "two files": [(GGUF, None), (GGUF, None)],
    "only a projector": [("application/vnd.docker.ai.mmproj", None)],
}


def layer(media_type: str, path: object = None, data: bytes = WEIGHTS) -> dict[str, Any]:
    """A layer as a package has it. The blob need not be anywhere."""
    annotations = {} if path is None else {"annotations": {model_pack.FILEPATH: path}}
    return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data), **annotations}


def package(*layers: dict[str, Any]) -> Manifest:
    return Manifest.parse(json.dumps({"config": layer(DOCKER_CONFIG, data=b"{}"), "layers": layers}).encode())


def made(*layers: dict[str, Any], config: object = None) -> list[str]:
    """The types of the layers of the model that is made of a package."""
    return packaged_model(package(*layers), json.dumps(config or {}).encode()).manifest.layer_types


def test_docker_names_its_files_by_type() -> None:
    types = made(layer(GGUF), layer("application/vnd.docker.ai.mmproj"), layer(LICENSE), layer("text/plain"))
    assert types == [media_types.MODEL, media_types.PROJECTOR, media_types.LICENSE]


@pytest.mark.parametrize(
    ("media_type", "path", "kind"),
    [
        (model_pack.WEIGHT, "mmproj-model-f16.gguf", media_types.PROJECTOR),
        (model_pack.WEIGHT, "adapter.gguf", media_types.ADAPTER),
        (model_pack.WEIGHT, "draft.gguf", media_types.DRAFT),
        (model_pack.WEIGHT_CONFIG, "template", media_types.TEMPLATE),
        (model_pack.WEIGHT_CONFIG, "system", media_types.SYSTEM),
        (model_pack.WEIGHT_CONFIG, "params.json", media_types.PARAMS),
        (model_pack.WEIGHT_CONFIG, "messages.json", media_types.MESSAGES),
        (model_pack.WEIGHT_CONFIG, "tokenizer.json", None),
        (model_pack.WEIGHT_CONFIG, "TEMPLATE.md", None),
        (model_pack.DOC, "docs/LICENSE-2", media_types.LICENSE),
        (model_pack.DOC, "README.md", None),
        (model_pack.DOC, None, None),
        (model_pack.DOC, 7, None),
    ],
)
def test_model_pack_names_its_files_by_path(media_type: str, path: object, kind: str | None) -> None:
    types = made(layer(model_pack.WEIGHT, "weights/Model.gguf"), layer(media_type, path, b"x"))
    assert types == [media_types.MODEL, *([kind] if kind else [])]


def test_weights_without_a_name_are_the_model() -> None:
    assert made(layer(model_pack.WEIGHT)) == [media_types.MODEL]


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_package_of_other_files_is_no_model(kind: str) -> None:
    files = package(*(layer(media_type, path) for media_type, path in OTHER_KINDS[kind]))
    assert is_package(files)
    with pytest.raises(ForeignManifestError, match="expected a package of one GGUF file"):
        packaged_model(files, b"{}")


def test_what_the_config_says_is_taken_over_if_it_can_be_read() -> None:
    told = {"descriptor": {"family": "qwen2"}, "config": {"paramSize": "8b", "quantization": "Q4\n\u001b[2J"}}
    config = json.loads(packaged_model(package(layer(GGUF)), json.dumps(told).encode()).config)
    assert config == {
        "model_format": "gguf",
        "model_family": "qwen2",
        "model_families": ["qwen2"],
        "model_type": "8B",
        "file_type": "",
        "architecture": "amd64",
        "os": "linux",
    }
    nothing = json.loads(packaged_model(package(layer(GGUF)), b'{"config": 7}').config)
    assert nothing["model_families"] is None
    with pytest.raises(ForeignManifestError, match="a package of safetensors files"):
        made(layer(GGUF), config={"config": {"format": "safetensors"}})
    for raw in (b"[]", b"{", b'{"config": {"format": "gguf", "format": "x"}}'):
        with pytest.raises(FormatError):
            packaged_model(package(layer(GGUF)), raw)


def test_a_model_of_ollama_is_taken_as_it_is(tmp_path: Path) -> None:
    """Whatever else is in it: what has a digest is not written anew."""
    store = Store(tmp_path / "from")
    layers = [store.layer(media_types.MODEL, WEIGHTS), store.layer(model_pack.WEIGHT, b"raw"), store.layer(GGUF, b"x")]
    path = store.add("registry.ollama.ai/me/both:latest", *layers)
    with false_registry(of_store(store.root)) as registry:
        done = run("pull", f"{registry.host}/me/both", "--to", f"oci:{tmp_path}/layout")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"layout/blobs/sha256/{sha256(path.read_bytes())}").exists()


def test_images_and_models_are_no_packages() -> None:
    assert not is_package(package(layer(media_types.MODEL)))
    assert not is_package(package(layer("application/vnd.oci.image.layer.v1.tar")))


def served(store: Store, config: bytes, *, digest: str = "", size: int = 0) -> str:
    """Put a package of Docker into a store, to be served under any host."""
    described = store.layer(DOCKER_CONFIG, config)
    described |= {"digest": digest or described["digest"], "size": size or described["size"]}
    layers = [store.layer(GGUF, WEIGHTS), store.layer(LICENSE, b"Apache")]
    layers.append(store.layer("application/vnd.docker.ai.chat.template.jinja", b"{% if %}"))
    store.write_manifest(
        "registry.ollama.ai/ai/small:latest",
        json.dumps({"schemaVersion": 2, "config": described, "layers": layers}).encode(),
    )
    return "ai/small"


@pytest.mark.skipif(os.name == "nt", reason="the host of a name has a port, which no path can have")
def test_a_package_is_pulled_into_a_model(tmp_path: Path) -> None:
    store = Store(tmp_path / "from")
    name = served(store, json.dumps({"config": DOCKER}).encode())
    with false_registry(of_store(store.root)) as registry:
        done = run("pull", f"{registry.host}/{name}", "--models", tmp_path / "models")
        assert done.returncode == 0, done.stderr
        assert "made from a package for other programs, which has no template" in done.stderr
        # Equal packages are equal models.
        again = run("pull", f"{registry.host}/{name}", "--models", tmp_path / "models", "--json")
        assert json.loads(again.stdout)["models"][0]["outcome"] == "already there"
        shown = run("show", f"{registry.host}/{name}", "--models", tmp_path / "models", "--json")
        bundled = run("pull", f"{registry.host}/{name}", "--to", tmp_path / "b.tar.zst")
        assert bundled.returncode == 0, bundled.stderr
    found = json.loads(shown.stdout)
    assert (found["config"]["model_family"], found["config"]["parameter_size"]) == ("llama", "361.82M")
    assert found["licenses"] == ["Apache"]
    assert run("verify", "--models", tmp_path / "models").returncode == 0
    assert run("verify", tmp_path / "b.tar.zst").returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="the host of a name has a port, which no path can have")
def test_a_registry_that_has_too_much_to_do_is_asked_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "from")
    name = served(store, json.dumps({"config": DOCKER}).encode())
    honest, seen = of_store(store.root), set[str]()

    def answers(asked: Asked) -> Iterable[bytes]:
        is_first = asked.path not in seen
        seen.add(asked.path)
        return answer(b"", "503 Service Unavailable", Retry_After="0") if is_first else honest(asked)

    with false_registry(answers) as registry:
        done = run("pull", f"{registry.host}/{name}", "--models", tmp_path / "models")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("config", "described", "code", "says"),
    [
        (b'{"config": {}}', {"digest": f"sha256:{'a' * 64}"}, 4, "no blob sha256:aaaa"),
        (b'{"config": {}}', {"size": 3}, 4, "expected 3 bytes"),
        (b'{"config": {}}', {"size": 5_000_000}, 13, "config"),
        (b"<html>", {}, 12, "not JSON"),
    ],
)
def test_a_package_that_lies_is_refused(
    tmp_path: Path, config: bytes, described: dict[str, Any], code: int, says: str
) -> None:
    store = Store(tmp_path / "from")
    name = served(store, config, **described)
    with false_registry(of_store(store.root)) as registry:
        done = run("pull", f"{registry.host}/{name}", "--models", tmp_path / "models")
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path).glob("models/manifests/*/*/*/*"))


def test_what_is_no_gguf_file_is_no_model(tmp_path: Path) -> None:
    store = Store(tmp_path / "from")
    layers = [store.layer(GGUF, b"PK\3\4" + noise(100))]
    config = store.layer(DOCKER_CONFIG, json.dumps({"config": DOCKER}).encode())
    store.add("registry.ollama.ai/ai/zip:latest", *layers, config=config)
    store.write_manifest("registry.ollama.ai/ai/none:latest", b'{"schemaVersion":2,"layers":[]}')
    with false_registry(of_store(store.root)) as registry:
        for name, says in (("zip", "its weights are no GGUF file: they begin with b'PK"), ("none", "it has no blob")):
            done = run("pull", f"{registry.host}/ai/{name}", "--models", tmp_path / "models")
            assert (done.returncode, f"ai/{name}:latest: " in done.stderr, says in done.stderr) == (12, True, True)


@needs_registry
def test_what_push_packs_comes_back_as_the_same_model(tmp_path: Path) -> None:
    store = six_kinds(tmp_path / "from")
    store.model("tiny:q4", WEIGHTS, template=b"{{ .Prompt }}", license=b"MIT")
    store.model("sees:latest", b"GGUF" + noise(9_000, 3), projector=noise(100_000, 4))
    with docker_registry(tmp_path / "registry") as registry:
        to = f"{registry.host}/packs"
        pushed = run("push", "tiny:q4", "sees", "--to", to, "--modelpack", "--models", store.root)
        assert pushed.returncode == 0, pushed.stderr
        names = [f"{to}/tiny:q4-modelpack", f"{to}/sees:latest-modelpack"]
        assert run("pull", *names, "--models", tmp_path / "back").returncode == 0
        # Beside their models, they are not listed a second time.
        assert "copied 2 models" in run("sync", f"http://{to}", f"{tmp_path}/all/").stdout
    back = Store(tmp_path / "back")
    for name, origin in zip(names, ("tiny:q4", "sees:latest"), strict=True):
        there = Manifest.parse(store.manifest_path(f"registry.ollama.ai/library/{origin}").read_bytes())
        here = Manifest.parse(back.manifest_path(name).read_bytes())
        assert [(one.digest, one.media_type) for one in here.layers] == [
            (one.digest, one.media_type) for one in there.layers
        ]
    assert run("verify", "--models", back.root).returncode == 0
