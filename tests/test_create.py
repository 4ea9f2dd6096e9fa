"""`ostore create` makes of a Modelfile, of files or of a folder the model that a server's `create` makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

import ostore
from ostore.formats.manifest import Manifest
from ostore.places.store.receiving.draft import StoreDraft
from ostore.streams.durable import Directory
from ostore.streams.progress import Progress, _Silent
from tests.gguf import ONE_LAYER, Tensor, embedding_gguf, gguf, split
from tests.support import (
    ADAPTER,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    SYSTEM,
    TEMPLATE,
    Store,
    full,
    nobody_else_writes,
    sha256,
    some,
    tree,
)
from tests.support import ostore as run

# The smallest file that a server takes: one key, no tensor. The digests of what is made of it are Ollama's own, in
# server/routes_create_test.go at fb30760.
SMALLEST = gguf({"general.architecture": "test"}, {})[:68]
TENSORS: dict[str, Tensor] = {"token_embd.weight": ((32, 4), [0.5]), "output_norm.weight": ((32,), [1.0])}
TINY = gguf(ONE_LAYER, TENSORS)
MMPROJ = gguf({"general.architecture": "clip", "general.type": "mmproj"}, TENSORS)
LORA = gguf({"general.architecture": "llama", "general.type": "adapter"}, TENSORS)
CHAT = gguf({**ONE_LAYER, "tokenizer.chat_template": "{{ messages }}"}, TENSORS)


@dataclass
class Bench:
    """A folder in which somebody makes models, and the store that they get into."""

    here: Path
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(self.here / "models")
        self.store.root.mkdir()

    def file(self, name: str, content: bytes) -> Path:
        path = self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def create(self, name: str, *words: str | Path, code: int = 0, modelfile: str | None = None) -> str:
        """Gives what it says: on the way out if it succeeds, else the error."""
        if modelfile is not None:
            (self.here / "Modelfile").write_bytes(modelfile.encode())
        done = run("create", name, *words, "--models", self.store.root, "--progress", "none", cwd=self.here)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout + done.stderr

    def manifest(self, name: str) -> bytes:
        return self.store.manifest_path(full(name)).read_bytes()

    def layers(self, name: str) -> list[tuple[str, bytes]]:
        """The media type and the bytes of each layer."""
        manifest = Manifest.parse(self.manifest(name))
        return [(layer.media_type, self.blob(layer.digest.filename)) for layer in manifest.layers]

    def config(self, name: str) -> dict[str, Any]:
        config = Manifest.parse(self.manifest(name)).config
        assert config
        found: dict[str, Any] = json.loads(self.blob(config.digest.filename))
        return found

    def blob(self, filename: str) -> bytes:
        return (self.store.root / "blobs" / filename).read_bytes()

    def is_whole(self) -> bool:
        return run("verify", "--models", self.store.root).returncode == 0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_ollamas_own_tests_expect_is_made_byte_for_byte(bench: Bench) -> None:
    bench.file("test.gguf", SMALLEST)
    bench.create("test", modelfile="FROM test.gguf")
    assert sha256(SMALLEST) == "89a2116c3a82d6a97f59f748d86ed4417214353fd178ee54df418fde32495fad"
    assert sha256(bench.manifest("test:latest")) == "f75369d1dd1fb2f7c3db80c05854077604d2e78397dbe270fbe9d8a453ae62ff"
    bench.create("child", modelfile="FROM test")
    assert sha256(bench.manifest("child:latest")) == "b52fc24e800c02f13ab460d268796f5051c9720ca5cd4abe6490b73d31c8d65f"
    bench.create(
        "params",
        modelfile="FROM test\nPARAMETER stop USER:\nPARAMETER stop ASSISTANT:\nPARAMETER temperature 1\n"
        "PARAMETER top_k 10\n",
    )
    bench.create("params2", modelfile="FROM params\nPARAMETER temperature 0.6\nPARAMETER top_p 0.7\n")
    bench.create("params3", modelfile="FROM params2\nPARAMETER stop <|endoftext|>\n")
    bench.create(
        "texts",
        modelfile="FROM test\nTEMPLATE {{ .System }} {{ .Prompt }}\nSYSTEM Say bye!\nLICENSE MIT\nLICENSE Apache-2.0\n"
        "MESSAGE assistant What is my purpose?\nMESSAGE user You run tests.\nMESSAGE assistant Oh, my god.\n",
    )
    found = {name: {sha256(data) for _, data in bench.layers(f"{name}:latest")} for name in ("params", "texts")}
    assert "1d0ad71299d48c2fb7ae2b98e683643e771f8a5b72be34942af90d97a91c1e37" in found["params"]
    assert [sha256(bench.layers(name)[-1][1]) for name in ("params2:latest", "params3:latest")] == [
        "e29a7b3c47287a2489c895d21fe413c20f859a85d20e749492f52a838e36e1ba",
        "12f58bb75cb3042d69a7e013ab87fb3c3c7088f50ddc62f0c77bd332f0d44d35",
    ]
    assert found["texts"] - {sha256(SMALLEST)} == {
        "fe7ac77b725cda2ccad03f88a880ecdfd7a33192d6cae08fce2c0ee1455991ed",
        "4c5f51faac758fecaff8db42f0b7382891a4d0c0bb885f7b86be88c814a7cc86",
        "e5dcffe836b6ec8a58e492419b550e65fb8cbdc308503979e5dacb33ac7ea3b7",
        "2af71558e438db0b73a20beab92dc278a94e1bbe974c00c1a33e3ab62d53a608",
        "298baeaf6928a60cf666d88d64a1ba606feb43a2865687c39e40652e407bffc4",
    }
    assert bench.is_whole()


def test_files_are_told_by_their_headers_and_layered_by_their_names(bench: Bench) -> None:
    files = [bench.file("z.gguf", TINY), bench.file("mmproj.gguf", MMPROJ), bench.file("lora.gguf", LORA)]
    said = bench.create("tiny", *files)
    assert bench.layers("tiny:latest") == [(ADAPTER, LORA), (PROJECTOR, MMPROJ), (MODEL, TINY)]
    assert bench.config("tiny:latest") == {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": "160",
        "file_type": "unknown",
        "architecture": "amd64",
        "os": "linux",
    }
    assert "created tiny:latest: 3 layers" in said
    assert "neither a chat template nor a TEMPLATE" in said
    assert bench.create("tiny", *files) == "tiny:latest is already there, and the same\n" + said.partition("\n")[2]


def test_a_model_that_answers_with_vectors_needs_no_template(bench: Bench) -> None:
    assert "warning" not in bench.create("vectors", bench.file("bert.gguf", embedding_gguf()))


@pytest.mark.parametrize("architecture", ["gemma4", "laguna", "nemotron_h_moe"])
def test_architectures_with_a_renderer_of_their_own_get_it(bench: Bench, architecture: str) -> None:
    bench.file("a.gguf", gguf({**ONE_LAYER, "general.architecture": architecture}, TENSORS))
    bench.create("a", modelfile="FROM a.gguf\nPARSER mine")
    config, stops = bench.config("a:latest"), [data for kind, data in bench.layers("a:latest") if kind == PARAMS]
    renderer = {"nemotron_h_moe": "nemotron-3-nano"}.get(architecture, architecture)
    assert (config["renderer"], config["parser"]) == (renderer, "mine")
    assert stops == ([b'{"stop":["\\u003cturn|\\u003e"]}\n'] if architecture == "gemma4" else [])


def test_every_instruction_has_its_place(bench: Bench) -> None:
    for name, content in (("m.gguf", CHAT), ("p.gguf", MMPROJ), ("l.gguf", LORA), ("d.gguf", TINY)):
        bench.file(name, content)
    bench.create(
        "all",
        "-f",
        bench.here / "Modelfile",
        modelfile="FROM m.gguf\nFROM p.gguf\nADAPTER ./l.gguf\nDRAFT d.gguf\nMESSAGE user hi\nPARAMETER top_k 1\n"
        "LICENSE a\nLICENSE b\nSYSTEM s\nTEMPLATE {{ .Prompt }}\nREQUIRES 0.14.0\nRENDERER r\nPARSER p\n",
    )
    assert [(kind, len(data)) for kind, data in bench.layers("all:latest")] == [
        (MODEL, len(CHAT)),
        (PROJECTOR, len(MMPROJ)),
        (ADAPTER, len(LORA)),
        ("application/vnd.ollama.image.draft", len(TINY)),
        (TEMPLATE, 13),
        (SYSTEM, 1),
        (LICENSE, 1),
        (LICENSE, 1),
        (PARAMS, 12),
        (MESSAGES, 33),
    ]
    config = bench.config("all:latest")
    assert (config["renderer"], config["parser"], config["requires"]) == ("r", "p", "0.14.0")
    assert config["draft"] == {"model_format": "gguf", "architecture": "llama"}
    assert list(config)[5:] == ["renderer", "parser", "requires", "draft", "architecture", "os"]
    assert b'"from"' not in bench.manifest("all:latest")


def test_a_model_hands_down_all_but_what_is_said_anew(bench: Bench) -> None:
    bench.file("m.gguf", TINY)
    bench.create(
        "base:v1",
        modelfile="FROM m.gguf\nTEMPLATE old\nSYSTEM old\nLICENSE MIT\nPARAMETER top_k 5\nPARAMETER stop a\n"
        "MESSAGE user old\nRENDERER r\nPARSER p\nREQUIRES 0.14.0\n",
    )
    bench.create("child", modelfile="FROM base:v1\nTEMPLATE new\nLICENSE mine\nPARAMETER stop b\nSYSTEM ")
    assert bench.layers("child:latest") == [
        (MODEL, TINY),
        (SYSTEM, b"old"),
        (LICENSE, b"MIT"),
        (MESSAGES, b'[{"role":"user","content":"old"}]\n'),
        (TEMPLATE, b"new"),
        (LICENSE, b"mine"),
        (PARAMS, b'{"stop":["b"],"top_k":5}\n'),
    ]
    assert bench.config("child:latest") == bench.config("base:v1")
    origins = [layer.get("from") for layer in json.loads(bench.manifest("child:latest"))["layers"]]
    assert origins == ["base:v1"] * 4 + [None] * 3


def test_what_no_create_made_can_be_built_on_too(bench: Bench) -> None:
    """Parameters in another form, of several layers, and tensors."""
    store = bench.store
    params = (store.layer(PARAMS, b'{ "top_k" : 5.0, "stop":["a"], "x": null}'), store.layer(PARAMS, b'{"seed":1}'))
    tensor = store.layer("application/vnd.ollama.image.tensor", b"t", name="a.weight")
    store.add(full("tensors:latest"), tensor, *params, config=store.config(model_format="safetensors", extra=1))
    bench.create("child", modelfile="FROM tensors\nPARAMETER seed 2")
    assert [data for _, data in bench.layers("child:latest")] == [
        b"t",
        b'{"seed":2,"stop":["a"],"top_k":5,"x":null}\n',
    ]
    config = bench.config("child:latest")
    assert (config["model_format"], config["model_families"], "extra" in config) == ("safetensors", None, False)
    assert json.loads(bench.manifest("child:latest"))["layers"][0]["name"] == "a.weight"


def test_a_folder_with_one_model_is_a_model(bench: Bench) -> None:
    """As in the Hugging Face cache, where a snapshot consists of links."""
    for name, content in (("blobs/1", TINY), ("blobs/2", MMPROJ), ("snapshots/x/README.md", b"read me")):
        bench.file(name, content)
    for name, blob in (("m.gguf", "1"), ("mmproj-m.gguf", "2")):
        (bench.here / "snapshots/x" / name).symlink_to(f"../../blobs/{blob}")
    bench.create("m", bench.here / "snapshots/x")
    assert bench.layers("m:latest") == [(MODEL, TINY), (PROJECTOR, MMPROJ)]
    assert sha256(TINY) in {path.name.removeprefix("sha256-") for path in (bench.store.root / "blobs").iterdir()}


@pytest.mark.parametrize("by", ["folder", "part", "FROM"])
def test_the_parts_of_a_set_become_the_file_that_they_were_made_of(bench: Bench, by: str) -> None:
    parts = split(ONE_LAYER, *({name: tensor} for name, tensor in TENSORS.items()))
    for number, part in enumerate(parts, 1):
        bench.file(f"set/m-{number:05}-of-{len(parts):05}.gguf", part)
    if by == "folder":
        bench.create("m", "set")
    elif by == "part":
        bench.create("m", "set/m-00002-of-00002.gguf")
    else:
        bench.create("m", modelfile="FROM set/m-00001-of-00002.gguf\nFROM set/m-00002-of-00002.gguf")
    assert bench.layers("m:latest") == [(MODEL, TINY)]
    assert "become one file, so they cannot be linked" in bench.create("l", "set", "--link", code=2)


def test_the_parts_of_a_set_may_end_in_capitals(bench: Bench) -> None:
    for number, part in enumerate(split(ONE_LAYER, *({name: tensor} for name, tensor in TENSORS.items())), 1):
        bench.file(f"m-{number:05}-of-00002.GGUF", part)
    bench.create("m", "m-00001-of-00002.GGUF")
    assert bench.layers("m:latest") == [(MODEL, TINY)]


def test_a_model_in_parts_becomes_one_that_ollama_loads_by_its_own_modelfile(bench: Bench) -> None:
    """Blobs have no names of a set: the headers tell that they are one."""
    parts = split(ONE_LAYER, *({name: tensor} for name, tensor in TENSORS.items()))
    bench.store.add(full("parts:latest"), *(bench.store.layer(MODEL, part) for part in reversed(parts)))
    text = ostore.modelfile("parts", models=bench.store.root)
    assert text.count("\nFROM ") == len(parts)
    bench.create("whole", modelfile=text)
    assert bench.layers("whole:latest") == [(MODEL, TINY)]
    alone = bench.store.blob_path(parts[0])
    assert "part 2 of 2 is missing" in bench.create("m", alone, code=2)
    other = bench.file("other.gguf", CHAT)
    assert "part 2 of 2 is missing" in bench.create("m", modelfile=f"FROM {alone}\nFROM {other}", code=2)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"], "part 2 of 3 is missing"),
        (["m-00002-of-00003.gguf"], "part 1 of 3 is missing"),
        (["alone.gguf"], "part 2 of 3 is missing"),
    ],
)
def test_a_set_that_is_not_whole_is_refused(bench: Bench, names: list[str], says: str) -> None:
    tensors = [*({name: tensor} for name, tensor in TENSORS.items()), {"x": TENSORS["token_embd.weight"]}]
    parts = split(ONE_LAYER, *tensors)
    for name in names:
        bench.file(name, parts[0 if name == "alone.gguf" else int(name[2:7]) - 1])
    before = tree(bench.here)
    assert says in bench.create("m", names[0], code=2)
    assert tree(bench.here) == before


def test_a_link_is_one_file_with_two_names_and_a_copy_is_not(bench: Bench) -> None:
    path = bench.file("m.gguf", TINY)
    path.chmod(0o600)
    assert "nothing copied" in bench.create("linked", path, "--link")
    blob = bench.store.blob_path(TINY)
    assert (path.samefile(blob), path.stat().st_mode & 0o777) == (True, 0o600)
    blob.unlink()
    bench.create("linked", path)
    assert (path.samefile(blob), blob.read_bytes()) == (False, TINY)
    assert path.read_bytes() == TINY


def test_a_blob_that_is_removed_once_it_was_found_is_there_all_the_same(bench: Bench) -> None:
    class Removing(_Silent):
        """Somebody removes the model that has the weights, once they were hashed in the store."""

        def end(self, item: str) -> None:
            if item == sha256(TINY)[:12]:
                bench.store.blob_path(TINY).unlink()

    path = bench.file("m.gguf", TINY)
    bench.create("m", path)
    ostore.create("n", [path], progress=Removing(), models=bench.store.root)
    assert bench.layers("n:latest") == [(MODEL, TINY)]
    assert bench.is_whole()


def test_a_blob_that_two_files_have_is_found_once(bench: Bench) -> None:
    for name, content in (("m.gguf", TINY), ("mmproj-1.gguf", MMPROJ), ("mmproj-2.gguf", MMPROJ)):
        bench.file(name, content)
    bench.store.blob(MMPROJ)
    bench.create("m", modelfile="FROM m.gguf\nFROM mmproj-1.gguf\nFROM mmproj-2.gguf")
    assert bench.layers("m:latest") == [(MODEL, TINY), (PROJECTOR, MMPROJ), (PROJECTOR, MMPROJ)]
    assert bench.is_whole()


def test_on_a_disk_without_hard_links_a_blob_is_found_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.file("m.gguf", TINY)
    bench.create("m", path)
    # As Directory.link does where the disk has none. tests/test_other_disks.py has such disks.
    monkeypatch.setattr(Directory, "link", lambda *_: False)
    report = ostore.create("n", [path], models=bench.store.root)
    assert (report.size_copied, bench.layers("n:latest")) == (0, [(MODEL, TINY)])


def test_a_file_whose_bytes_are_there_is_not_copied_again(bench: Bench) -> None:
    path = bench.file("m.gguf", TINY)
    bench.create("m", path)
    blob = bench.store.blob_path(TINY)
    before = blob.stat().st_ino
    assert "nothing copied" in bench.create("n", path)
    assert blob.stat().st_ino == before
    blob.write_bytes(TINY[:-1] + b"x")
    assert "copied" in bench.create("o", path)
    assert bench.is_whole()


@pytest.mark.parametrize("words", [(), ("--link",)], ids=["copied", "linked"])
def test_a_blob_that_the_store_has_stays_the_file_that_it_is(bench: Bench, words: tuple[str, ...]) -> None:
    """With --link it would else become the file of the person, who may write to it."""
    path = bench.file("m.gguf", TINY)
    bench.create("m", path)
    blob = bench.store.blob_path(TINY)
    before = blob.stat().st_ino
    bench.create("again", path, *words)
    assert blob.stat().st_ino == before != path.stat().st_ino


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to mount a disk and to give a file away"
)
def test_what_cannot_be_linked_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.file("m.gguf", TINY)
    before = tree(bench.store.root)
    os.chown(path, 12_345, 12_345)
    assert "it has another owner than the store" in bench.create("m", path, "--link", code=2)
    there = bench.here / "there"
    there.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", there], check=True)
    try:
        told = bench.create("m", bench.file("there/m.gguf", TINY), "--link", code=2)
    finally:
        subprocess.run(["umount", there], check=True)
    assert "it is on another disk than the store, or the disk forbids a second name (without --link, it" in told
    bench.file("mounted/m.gguf", TINY)
    subprocess.run(["mount", "--bind", bench.here / "mounted", there], check=True)
    try:
        assert told == bench.create("m", there / "m.gguf", "--link", code=2)
    finally:
        subprocess.run(["umount", there], check=True)

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(os, "link", forbidden)
    with pytest.raises(ostore.UsageError, match="the disk forbids a second name"):
        ostore.create("m", [bench.file("n.gguf", TINY)], link=True, models=bench.store.root)
    assert tree(bench.store.root) == before


def test_weights_that_the_store_has_are_not_read(bench: Bench) -> None:
    """Not if FROM names a model, and not if it names its blob, as `show --modelfile` writes it."""
    bench.create("m", bench.file("m.gguf", TINY))
    blob = bench.store.blob_path(TINY)
    blob.write_bytes(TINY[:-1] + b"x")
    bench.create("by-name", modelfile="FROM m\nPARAMETER top_k 1")
    bench.create("by-blob", modelfile=f"FROM {blob}\nPARAMETER top_k 2")
    assert not bench.is_whole()
    # A file of the right bytes is read, and the blob in the store beside it: it is put right.
    bench.create("by-file", bench.here / "m.gguf")
    assert bench.is_whole()


def test_show_and_create_are_inverse(bench: Bench) -> None:
    bench.file("m.gguf", CHAT)
    text = 'say "hi"\n\n\t<b> & é {{ .Prompt }}\r\n '
    quoted = f'"""{text}"""'
    bench.create(
        "m",
        modelfile=f"FROM m.gguf\nTEMPLATE {quoted}\nSYSTEM {quoted}\nLICENSE {quoted}\nLICENSE b\n"
        f"MESSAGE user {quoted}\n"
        'PARAMETER stop """ a"""\nPARAMETER stop b\nPARAMETER temperature 0.1\nPARAMETER num_ctx 1048576\n'
        "PARAMETER use_mmap true\nPARAMETER seed 9223372036854775807\nRENDERER r\nPARSER p\nREQUIRES 0.14.0",
    )
    shown = run("show", "m", "--modelfile", "--models", bench.store.root)
    assert shown.returncode == 0, shown.stderr
    with (bench.here / "Modelfile").open("w", newline="") as file:
        file.write(shown.stdout)
    raw = ostore.modelfile("m", models=bench.store.root)
    (bench.here / "Modelfile").write_bytes(raw.encode())
    bench.create("again")
    assert bench.manifest("again:latest") == bench.manifest("m:latest")


def modelfile(random: Random) -> str:
    """Some Modelfile, with any instruction that has a text, and files in any number."""
    texts = ("plain", "<b> & é", ' say "hi" ', "a\n\tb", '"quoted"', "{{ .Prompt }}", "# no comment", "\r\n")
    parameters = (
        ("temperature", repr(round(random.random(), random.randint(1, 9)))),
        ("top_k", str(random.randrange(2 ** random.randint(1, 63)))),
        ("num_predict", str(-random.randrange(9))),
        ("use_mmap", random.choice(["true", "f"])),
        *(("stop", text) for text in random.sample(texts, 2)),
    )
    lines = [f"FROM {name}" for name in ("m.gguf", "p.gguf", "l.gguf") if name == "m.gguf" or random.random() < 0.3]
    lines += random.choice([[], [] if "FROM l.gguf" in lines else ["ADAPTER l.gguf"]]) + random.choice(
        [[], [], ["DRAFT m2.gguf"]]
    )
    lines += [f'PARAMETER {key} """{value}"""' for key, value in random.sample(parameters, random.randint(0, 6))]
    for word in ("TEMPLATE", "SYSTEM", "LICENSE", "LICENSE", "MESSAGE user", "MESSAGE assistant"):
        lines += [f'{word} """{random.choice(texts)}"""'] if random.random() < 0.4 else []
    lines += random.choice([[], ["RENDERER r", "PARSER p"], ["REQUIRES 0.14.0"]])
    random.shuffle(lines)
    return "\n".join(lines)


@pytest.mark.parametrize("seed", some(range(1000), 40, "modelfiles"))
@nobody_else_writes
def test_what_is_created_is_shown_and_created_again(bench: Bench, seed: int) -> None:
    for name, content in (("m.gguf", CHAT), ("m2.gguf", TINY), ("p.gguf", MMPROJ), ("l.gguf", LORA)):
        bench.file(name, content)
    path = bench.file("Modelfile", modelfile(Random(seed)).encode())
    made = ostore.create("m", modelfile=path, models=bench.store.root)
    shown = ostore.modelfile("m", models=bench.store.root)
    assert "# Lost" not in shown
    path.write_bytes(shown.encode())
    assert ostore.create("again", modelfile=path, models=bench.store.root).digest == made.digest, shown


LOST: dict[str, tuple[Callable[[Store], Sequence[dict[str, Any]]], str]] = {
    "another order": (lambda store: [store.layer(SYSTEM, b"s"), store.layer(MODEL, TINY)], "come in another order"),
    "parameters": (
        lambda store: [store.layer(MODEL, TINY), store.layer(PARAMS, b'{ "top_k": 1 }')],
        "the parameters are written anew",
    ),
    "unprintable": (
        lambda store: [store.layer(MODEL, TINY), store.layer(SYSTEM, "a\u200db".encode())],
        "SYSTEM loses characters that cannot be printed",
    ),
    "another layer": (
        lambda store: [store.layer(MODEL, TINY), store.layer("application/x", b"x")],
        "1 of its layers: application/x",
    ),
    "an old template": (
        lambda store: [store.layer(MODEL, TINY), store.layer("application/vnd.ollama.image.prompt", b"x")],
        "1 of its layers: application/vnd.ollama.image.prompt",
    ),
    "two texts": (
        lambda store: [store.layer(MODEL, TINY), store.layer(SYSTEM, b"a"), store.layer(SYSTEM, b"b")],
        "SYSTEM is not what the model has",
    ),
    "tensors": (
        lambda store: [store.layer("application/vnd.ollama.image.tensor", b"t")],
        "a Modelfile cannot name its tensors",
    ),
    "cut weights": (lambda store: [store.layer(MODEL, TINY[:50])], "what is lost is not known"),
}


@pytest.mark.parametrize("what", LOST)
def test_what_would_be_lost_is_said_first(bench: Bench, what: str) -> None:
    layers, says = LOST[what]
    bench.store.add(full("m:latest"), *layers(bench.store), config=bench.store.config(context_length=5))
    lines = ostore.modelfile("m", models=bench.store.root).splitlines()
    lost = [line for line in lines[:5] if line.startswith("# Lost: ")]
    assert says in lost[0]
    if what not in {"tensors", "cut weights"}:
        # TINY is no model of that config.
        assert "what its config says of context_length, file_type, " in lost[-1]


def test_a_model_that_runs_elsewhere_has_nothing_to_be_made_of(bench: Bench) -> None:
    config = bench.store.config(remote_host="https://ollama.com:443", remote_model="gpt-oss:20b")
    bench.store.add(full("stub:latest"), config=config)
    assert "# Lost: it runs on https://ollama.com:443" in ostore.modelfile("stub", models=bench.store.root)
    assert "has no weights here to build on" in bench.create("m", modelfile="FROM stub", code=2)


def test_a_modelfile_may_come_out_of_a_pipe_or_have_another_name(bench: Bench) -> None:
    bench.file("sub/Other", b"FROM ./m.gguf\n")
    bench.file("sub/m.gguf", TINY)
    bench.create("m", "-f", "sub/Other")
    assert bench.layers("m:latest") == [(MODEL, TINY)]
    reading, writing = os.pipe()
    os.write(writing, b"FROM m\nSYSTEM hi")
    os.close(writing)
    kept = os.dup(0)
    os.dup2(reading, 0)
    try:
        report = ostore.create("piped", modelfile="-", models=bench.store.root)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reading)
    assert [layer.size for layer in report.layers] == [len(TINY), 2]


@dataclass
class Wrong:
    """A mistake: what there is, what is typed, the code, and what is said."""

    name: str
    words: str
    code: int
    says: str
    modelfile: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


WRONG = (
    Wrong("nothing", "m", 2, "neither a Modelfile nor a GGUF in this folder (name a file: create"),
    Wrong("no such file", "m x.gguf", 3, "x.gguf: no such file or folder"),
    Wrong("no such Modelfile", "m -f x", 3, "x: no such Modelfile"),
    Wrong("a folder as Modelfile", "m -f models", 9, "Is a directory"),
    Wrong("both", "m x -f y", 2, "expected a Modelfile or files, got both"),
    Wrong("a glob", "m* x", 2, "expected one new name, got a glob"),
    Wrong("no name", "a/b/c/d x", 2, "name: "),
    Wrong("an empty folder", "m d", 2, "d: no GGUF file in it", files={"d/x.txt": b""}),
    Wrong("a folder with a Modelfile", "m d", 2, "ostore create m -f d/Modelfile", files={"d/Modelfile": b""}),
    Wrong("two models", "m d", 2, "expected one model, got 2: a.gguf, b.gguf",
          files={"d/a.gguf": TINY, "d/b.gguf": TINY}),
    Wrong("only a projector", "m a.gguf", 2, "only projector weights, and a model needs others",
          files={"a.gguf": MMPROJ}),
    Wrong("safetensors", "m d", 2, "ostore keeps weights as they are, and does not convert them (convert them with",
          files={"d/model.safetensors": b""}),
    Wrong("a file of safetensors", "m a.safetensors", 2, "not a GGUF: ostore keeps", files={"a.safetensors": b"x"}),
    Wrong("three bytes", "m a.gguf", 12, "a.gguf: not a GGUF file", files={"a.gguf": b"GGU"}),
    Wrong("a cut header", "m a.gguf", 4, "the file ends", files={"a.gguf": TINY[:100]}),
    Wrong("cut weights", "m a.gguf", 4, "a.gguf: the file ends", files={"a.gguf": TINY[:-1]}),
    Wrong("a device", "m /dev/zero", 2, "expected a file of weights or a folder, got a pipe or a device"),
    Wrong("an unknown model", "m", 3, "Modelfile, line 1: FROM llama3: no such file, and ",
          "FROM llama3"),
    Wrong("an absent path", "m", 3, "Modelfile, line 2: FROM ./x.gguf: no such file or folder", "\nFROM ./x.gguf"),
    Wrong("an ID", "m", 3, "no name of a model", "FROM m@sha256:" + "0" * 64),
    Wrong("a device in FROM", "m", 2, "got a pipe or a device", "FROM /dev/zero"),
    Wrong("a strange home", "m", 2, "there is no such home", "FROM ~nobody-of-that-name/x"),
    Wrong("an adapter that is a model", "m", 2, "ADAPTER b.gguf: its header says that it is a model",
          "FROM a.gguf\nADAPTER b.gguf", {"a.gguf": TINY, "b.gguf": TINY}),
    Wrong("a file twice", "m", 2, "DRAFT ./a.gguf: FROM names the same file",
          "FROM a.gguf\nDRAFT ./a.gguf", {"a.gguf": TINY}),
    Wrong("no adapter", "m", 3, "Modelfile, line 2: ADAPTER l.gguf: no such file or folder",
          "FROM a.gguf\nADAPTER l.gguf", {"a.gguf": TINY}),
    Wrong("several drafts", "m", 2, "DRAFT d: expected one file, got 2",
          "FROM a.gguf\nDRAFT d", {"a.gguf": TINY, "d/a.gguf": TINY, "d/b.gguf": TINY}),
    Wrong("a name and a file", "m", 2, "FROM llama3 names no file, and another FROM does",
          "FROM a.gguf\nFROM llama3", {"a.gguf": TINY}),
    Wrong("a template", "m", 12, "template, line 1: {{ if }} has no {{ end }}",
          "FROM a.gguf\nTEMPLATE {{ if .x }}", {"a.gguf": TINY}),
    Wrong("an unknown instruction", "m", 12, "Modelfile, line 2, column 1", "FROM a.gguf\nRUN x", {"a.gguf": TINY}),
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_mistake_is_one_line_and_leaves_nothing(bench: Bench, wrong: Wrong) -> None:
    for name, content in wrong.files.items():
        bench.file(name, content)
    if wrong.modelfile is not None:
        bench.file("Modelfile", wrong.modelfile.encode())
    before = tree(bench.here, without=())
    told = bench.create(*wrong.words.split(), code=wrong.code)
    assert wrong.says in told
    assert told.count("\n") == 1
    assert tree(bench.here, without=()) == before


def test_a_pipe_in_place_of_weights_is_refused_and_not_waited_for(bench: Bench) -> None:
    os.mkfifo(bench.here / "m.gguf")
    assert "got a pipe or a device" in bench.create("m", "m.gguf", code=2)
    (bench.here / "loop.gguf").symlink_to("loop.gguf")
    assert "loop.gguf" in bench.create("m", "loop.gguf", code=9)


def test_another_model_of_the_name_is_replaced_only_if_asked(bench: Bench) -> None:
    bench.create("m", bench.file("m.gguf", TINY))
    before = tree(bench.store.root)
    assert "another model of that name is there (--replace" in bench.create("m", modelfile="FROM m\nSYSTEM x", code=2)
    assert tree(bench.store.root) == before
    assert "created m:latest (replaced)" in bench.create("m", "--replace")
    assert bench.layers("m:latest")[1:] == [(SYSTEM, b"x")]
    assert "a model gets a second name by: ostore cp m n" in bench.create("n", "m", code=3)
    assert "differ only by case" in bench.create("M", modelfile="FROM m\nSYSTEM y", code=8)


def test_a_damaged_base_is_refused_with_its_blob(bench: Bench) -> None:
    bench.store.model("m:latest", TINY, license=b"MIT")
    bench.store.blob_path(b"MIT").unlink()
    before = tree(bench.store.root)
    assert f"blob sha256:{sha256(b'MIT')}" in bench.create("n", modelfile="FROM m", code=4)
    assert tree(bench.store.root) == before
    bench.store.write_manifest(full("m:latest"), b"{")
    assert "m/latest" in bench.create("n", modelfile="FROM m", code=10)


@dataclass
class Meddler:
    """Stands in for whoever does something when a phase begins, or while a file is read."""

    phase_met: str
    act: Callable[[], object]
    item: str = ""

    def phase(self, label: str, total_bytes: int) -> None:
        if label == self.phase_met:
            self.act()

    def advance(self, item: str, size: int) -> None:
        if item == self.item:
            self.act()

    def begin(self, item: str, size: int) -> None: ...
    def end(self, item: str) -> None: ...


def swap(path: Path) -> None:
    """Put another file of the same size in the place of one."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b"x")


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


# What happens to the file, and when: while it is read, or between the reading of its header and of the rest.
CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "written to": (lambda path: os.utime(path, ns=(1, 1)), ""),
    "exchanged": (swap, "taking in weights"),
    "a FIFO": (become_a_fifo, "taking in weights"),
}


@pytest.mark.parametrize("link", [False, True], ids=["copied", "linked"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read_is_refused(bench: Bench, change: str, link: bool) -> None:
    act, phase = CHANGES[change]
    path = bench.file("m.gguf", TINY + bytes(3_000_000))
    before = tree(bench.store.root)
    meddler: Progress = Meddler(phase, lambda: act(path), "" if phase else path.name)
    with pytest.raises(ostore.IntegrityError, match=r"m\.gguf: changed while it was read"):
        ostore.create("m", [path], link=link, progress=meddler, models=bench.store.root)
    assert tree(bench.store.root) == before
    assert [*(bench.store.root / ".ostore/tx").iterdir()] == []


def test_a_part_that_is_exchanged_before_the_parts_become_one_file_is_refused(bench: Bench) -> None:
    paths = [
        bench.file(f"m-{number:05}-of-00002.gguf", part)
        for number, part in enumerate(split(ONE_LAYER, *({name: tensor} for name, tensor in TENSORS.items())), 1)
    ]
    meddler: Progress = Meddler("taking in weights", lambda: swap(paths[1]))
    with pytest.raises(ostore.IntegrityError, match="changed while it was read"):
        ostore.create("m", [paths[0]], progress=meddler, models=bench.store.root)


def test_a_file_that_is_exchanged_before_it_gets_a_second_name_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.file("m.gguf", TINY)
    link = Directory.link

    def swapping(self: Directory, name: str, target: Directory, target_name: str) -> bool:
        if name == path.name:
            swap(path)
        return link(self, name, target, target_name)

    monkeypatch.setattr(Directory, "link", swapping)
    with pytest.raises(ostore.IntegrityError, match="changed while it was read"):
        ostore.create("m", [path], link=True, models=bench.store.root)
    assert [*(bench.store.root / ".ostore/tx").iterdir()] == []


def test_a_file_that_goes_once_it_was_taken_in_is_no_failure(bench: Bench) -> None:
    path = bench.file("m.gguf", TINY)
    meddler: Progress = Meddler("publishing", path.unlink)
    assert ostore.create("m", [path], progress=meddler, models=bench.store.root).outcome == "added"


def test_a_model_whose_weights_are_removed_meanwhile_cannot_be_built_on(bench: Bench) -> None:
    bench.create("base", bench.file("m.gguf", TINY))
    bench.file("l.gguf", LORA)
    recipe = bench.file("Modelfile", b"FROM base\nADAPTER l.gguf")
    meddler: Progress = Meddler("taking in weights", bench.store.blob_path(TINY).unlink)
    with pytest.raises(ostore.DamagedStoreError, match="removed by another program meanwhile"):
        ostore.create("m", modelfile=recipe, progress=meddler, models=bench.store.root)
    assert not bench.store.manifest_path(full("m:latest")).exists()


def test_layers_come_in_the_order_of_ollama(bench: Bench) -> None:
    """By their paths from the folder that they have in common; what was merged comes last."""
    bench.file("x/model.gguf", TINY)
    bench.file("y/mmproj.gguf", MMPROJ)
    bench.create("m", modelfile="FROM y/mmproj.gguf\nFROM x/model.gguf")
    assert bench.layers("m:latest") == [(MODEL, TINY), (PROJECTOR, MMPROJ)]
    for number, part in enumerate(split(ONE_LAYER, *({name: tensor} for name, tensor in TENSORS.items())), 1):
        bench.file(f"set/a-{number:05}-of-00002.gguf", part)
    bench.file("set/mmproj.gguf", MMPROJ)
    bench.create("merged", "set")
    assert bench.layers("merged:latest") == [(PROJECTOR, MMPROJ), (MODEL, TINY)]


def test_without_a_modelfile_it_is_the_gguf_here(bench: Bench) -> None:
    bench.file("m.gguf", TINY)
    bench.create("m")
    assert bench.layers("m:latest") == [(MODEL, TINY)]
    bench.file("sub/modelfile.txt", b"FROM m")
    assert "sub/modelfile.txt: a Modelfile, and no weights (ostore create n -f" in bench.create(
        "n", "sub/modelfile.txt", code=2
    )


def test_a_blob_of_the_same_size_is_another_and_a_broken_manifest_is_no_model(bench: Bench) -> None:
    other = CHAT[:-1] + b"x"
    bench.create("other", bench.file("other.gguf", other))
    bench.store.write_manifest(full("m:latest"), b"")
    assert "created m:latest (repaired)" in bench.create("m", bench.file("m.gguf", CHAT))
    assert (bench.layers("m:latest"), bench.layers("other:latest")) == ([(MODEL, CHAT)], [(MODEL, other)])


def test_what_can_be_refused_is_refused_before_weights_are_read(bench: Bench) -> None:
    bench.create("m", bench.file("m.gguf", TINY))
    other = bench.file("other.gguf", CHAT)
    phases: list[str] = []
    meddler = Meddler("", lambda: None)
    meddler.phase = lambda label, total_bytes: phases.append(label)  # type: ignore[method-assign]
    watching: Progress = meddler
    for name, error in (("M", ostore.UnsafeError), ("m", ostore.UsageError)):
        with pytest.raises(error):
            ostore.create(name, [other], progress=watching, models=bench.store.root)
    assert phases == []


def test_a_file_that_others_may_write_to_is_not_linked(bench: Bench) -> None:
    path = bench.file("m.gguf", TINY)
    path.chmod(0o666)
    assert "everybody may write to it, and so to the blob" in bench.create("m", path, "--link", code=2)
    path.chmod(0o664)
    assert "linked (file and blob are one file)" in bench.create("m", path, "--link")


def test_a_file_that_is_exchanged_for_the_copy_alone_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path leads to the file with the right header before and after."""
    path, other = bench.file("m.gguf", TINY), bench.file("other", b"no weights" + TINY)
    stage = StoreDraft.stage

    def exchanged(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        path.rename(bench.here / "away")
        other.rename(path)
        try:
            return stage(*arguments, **more)
        finally:
            path.rename(other)
            (bench.here / "away").rename(path)

    monkeypatch.setattr(StoreDraft, "stage", exchanged)
    with pytest.raises(ostore.IntegrityError, match="changed while it was read"):
        ostore.create("m", [path], models=bench.store.root)
    assert run("list", "-q", "--models", bench.store.root).stdout == ""


def test_a_long_word_is_cut_in_messages_and_the_right_instruction_is_named(bench: Bench) -> None:
    bench.file("m.gguf", TINY)
    told = bench.create("m", modelfile=f"FROM m.gguf\nADAPTER ~nobody-of-that-name/{'x' * 5000}", code=2)
    assert "line 2: ADAPTER ~nobody" in told
    assert len(told) < 500


def test_two_names_of_one_file_are_taken_in_once(bench: Bench) -> None:
    first = bench.file("a.gguf", MMPROJ)
    (bench.here / "b.gguf").hardlink_to(first)
    bench.file("c.gguf", TINY)
    bench.create("m", "a.gguf", "b.gguf", "c.gguf", "--link")
    assert [data for _, data in bench.layers("m:latest")] == [MMPROJ, MMPROJ, TINY]
    assert [*(bench.store.root / ".ostore/tx").iterdir()] == []


def test_what_a_killed_one_has_copied_makes_room_before_the_next_one_copies(bench: Bench) -> None:
    """Else it would find no room on a disk that has enough for one."""
    path = bench.file("m.gguf", TINY)
    dead = bench.store.root / ".ostore/tx/99999-dead/000000.part"
    dead.parent.mkdir(parents=True)
    dead.write_bytes(TINY[:-1])
    dead.with_name(bench.store.blob_path(TINY).name).write_bytes(TINY)
    seen: list[bool] = []
    meddler: Progress = Meddler("taking in weights", lambda: seen.append(dead.exists()))
    ostore.create("m", [path], progress=meddler, models=bench.store.root)
    assert seen == [False]
    assert [*(bench.store.root / ".ostore/tx").iterdir()] == []


def test_a_second_name_that_a_killed_one_left_is_no_blob_of_an_import(bench: Bench) -> None:
    """Who linked a file may write to it. That was meant for the model of that command alone."""
    path = bench.file("m.gguf", TINY)
    bench.store.model("m:latest", TINY)
    ostore.export(["m"], bench.here / "b.tar", models=bench.store.root)
    shutil.rmtree(bench.store.root)
    blob = bench.store.blob_path(TINY)
    dead = bench.store.root / ".ostore/tx/99999-dead"
    dead.mkdir(parents=True)
    (dead / blob.name).hardlink_to(path)
    assert ostore.import_bundle(bench.here / "b.tar", models=bench.store.root).blobs_written == 2
    assert (blob.read_bytes(), blob.samefile(path), dead.exists()) == (TINY, False, False)


def test_what_would_surprise_is_said(bench: Bench) -> None:
    bench.file("chat.gguf", CHAT)
    bench.file("dialect.gguf", gguf({**ONE_LAYER, "general.architecture": "gptoss"}, TENSORS))
    said = bench.create("a", modelfile="FROM chat.gguf\nPARAMETER mirostat 1\nSYSTEM a\u200db")
    assert "PARAMETER mirostat is left out: Ollama knows it no more" in said
    assert "characters that cannot be printed are left out" in said
    assert "its chat template is in Jinja, and there is no TEMPLATE" in said
    assert "Ollama only (gptoss dialect)" in bench.create("b", modelfile="FROM dialect.gguf\nTEMPLATE x")
    assert bench.create("c", modelfile="FROM chat.gguf\nTEMPLATE x").count("\n") == 1


def test_the_report_is_what_was_made(bench: Bench) -> None:
    path = bench.file("m.gguf", TINY)
    done = run("create", "m", path, "--json", "-q", "--models", bench.store.root)
    report = json.loads(done.stdout)
    assert (report["schema"], report["model"], report["outcome"]) == ("ostore.create/1", "m:latest", "added")
    assert report["digest"] == f"sha256:{sha256(bench.manifest('m:latest'))}"
    assert report["layers"] == [{"media_type": MODEL, "digest": f"sha256:{sha256(TINY)}", "size": len(TINY)}]
    assert report["size_copied"] in {0, len(TINY)}


def test_a_store_is_made_only_beside_something(bench: Bench, tmp_path: Path) -> None:
    path = bench.file("m.gguf", TINY)
    shutil.rmtree(bench.store.root)
    bench.create("m", path)
    assert bench.is_whole()
    done = run("create", "m", path, "--models", tmp_path / "a/b/models")
    assert (done.returncode, (tmp_path / "a").exists()) == (3, False)


def test_a_crash_leaves_no_blob_and_the_next_run_finishes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.file("m.gguf", TINY)
    before = tree(bench.store.root, without=())

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "m")

    change: Callable[..., None] = full_disk
    monkeypatch.setattr("ostore.places.store.receiving.inbox.StoreInbox.write_manifest", change)
    with pytest.raises(OSError, match="No space"):
        ostore.create("m", [path], models=bench.store.root)
    assert tree(bench.store.root, without=(".ostore",)) == before
    assert [*(bench.store.root / ".ostore/tx").iterdir()] == []
    monkeypatch.undo()
    bench.create("m", path)
