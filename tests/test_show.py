"""`ostore show` prints data as it is, a Modelfile that says everything, and the name of what is damaged."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ostore
from tests.gguf import ONE_LAYER, Tensor, Value, gguf
from tests.support import (
    CONFIG,
    LICENSE,
    MODEL,
    OSTORE,
    PARAMS,
    PROJECTOR,
    SYSTEM,
    TEMPLATE,
    TENSOR,
    Store,
    as_user,
    full,
    sha256,
    terminal,
)
from tests.support import ostore as run
from tests.test_safetensors import tensor, written
from tests.torture.fuzz.modelfile_reader import INSTRUCTIONS, read_modelfile

MESSAGES = "application/vnd.ollama.image.messages"
ADAPTER = "application/vnd.ollama.image.adapter"
DRAFT = "application/vnd.ollama.image.draft"
PROMPT = "application/vnd.ollama.image.prompt"

# A tab, CRLF, a non-breaking space, two joiners, an escape, bytes that are not UTF-8, and lines at both ends.
DATA = "\n\ta\r\nb\u00a0c\u200dd\u200ce\x1b[2J".encode() + b"\xff\xfe \n\n"
# The same without what a Modelfile cannot hold.
TEXT = "\ta\r\nb\u00a0c\u200dd\u200ce"


def printed(*arguments: str | Path, models: Path) -> bytes:
    """What `ostore show` writes into a pipe."""
    return subprocess.run([*OSTORE, "show", *arguments, "--models", models], capture_output=True, check=True).stdout


def on_a_terminal(*arguments: str, models: Path) -> str:
    with terminal() as (stdout, shown):
        subprocess.run([*OSTORE, "show", *arguments, "--models", models], stdout=stdout, check=True)
    return b"".join(shown).decode()


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.mark.parametrize(("part", "media_type"), [("template", TEMPLATE), ("system", SYSTEM), ("license", LICENSE)])
def test_a_text_goes_out_byte_for_byte_and_only_a_terminal_gets_it_escaped(
    empty: Store, part: str, media_type: str
) -> None:
    empty.add(full("odd:latest"), empty.layer(media_type, DATA))
    assert printed("odd", f"--{part}", models=empty.root) == DATA
    shown = on_a_terminal("odd", f"--{part}", models=empty.root)
    assert shown == "\n\\x09a\\x0d\nb\\xa0c\\u200dd\\u200ce\\x1b[2J\\xff\\xfe \n\n"


def test_a_manifest_and_a_config_go_out_with_the_bytes_that_they_are_named_by(empty: Store) -> None:
    config = empty.layer(CONFIG, '{\t"model_family":\t"\u00a0\u200d"}\r\n\n'.encode())
    document = {"schemaVersion": 2, "note": "\u00a0", "config": config, "layers": [empty.layer(MODEL, b"w")]}
    raw = json.dumps(document, indent="\t", ensure_ascii=False).replace("\n", "\r\n").encode()
    empty.write_manifest(full("odd:latest"), raw)
    assert printed("odd", "--manifest", models=empty.root) == raw
    listed = run("list", "--models", empty.root).stdout
    assert sha256(printed("odd", "--manifest", models=empty.root))[:12] in listed
    assert f"sha256:{sha256(printed('odd', '--config', models=empty.root))}" == config["digest"]
    assert "\\x09" in on_a_terminal("odd", "--manifest", models=empty.root)


def test_a_modelfile_goes_out_with_the_bytes_of_every_text(empty: Store) -> None:
    params = json.dumps({"stop": [TEXT]}).encode()
    texts = [empty.layer(media_type, TEXT.encode()) for media_type in (TEMPLATE, SYSTEM, LICENSE)]
    messages = empty.layer(MESSAGES, json.dumps([{"role": "user", "content": TEXT}]).encode())
    empty.add(full("odd:latest"), empty.layer(MODEL, b"w"), *texts, empty.layer(PARAMS, params), messages)
    out = printed("odd", "--modelfile", models=empty.root)
    assert out.count(TEXT.encode()) == 5
    assert out.decode() == ostore.modelfile("odd", models=empty.root)
    assert "\\x09a" in on_a_terminal("odd", "--modelfile", models=empty.root)


def test_parameters_go_out_as_ollama_prints_them(empty: Store) -> None:
    params = '{"top_k":10,"stop":["a\u00a0b","c\\t"],"none":null}'
    empty.add(full("odd:latest"), empty.layer(PARAMS, params.encode()))
    expected = f'{"stop":<30} "a\u00a0b"\n{"stop":<30} "c\\t"\n{"top_k":<30} 10\n'
    assert printed("odd", "--parameters", models=empty.root).decode() == expected


def test_several_licences_are_lines_and_a_part_that_is_absent_is_nothing(empty: Store) -> None:
    empty.add(full("odd:latest"), empty.layer(LICENSE, b"MIT"), empty.layer(LICENSE, b"Apache-2.0\n"))
    assert printed("odd", "--license", models=empty.root) == b"MIT\nApache-2.0\n"
    assert printed("odd", "--system", models=empty.root) == b""
    assert on_a_terminal("odd", "--system", models=empty.root) == ""


def test_the_older_type_of_a_template_counts_only_without_the_newer(empty: Store) -> None:
    empty.add(full("old:latest"), empty.layer(PROMPT, b"old"))
    empty.add(full("both:latest"), empty.layer(TEMPLATE, b"new"), empty.layer(PROMPT, b"old"))
    assert printed("old", "--template", models=empty.root) == b"old"
    assert printed("both", "--template", models=empty.root) == b"new"


# Everything that a Modelfile can say: what states it in a store, and what the Modelfile says then. A layer is a media
# type and its bytes. FROM is in every Modelfile; a path is written as the bytes of its blob. Of ADAPTER the last one
# counts, so two adapters are named by FROM.
STATED: dict[str, tuple[list[tuple[str, bytes]], dict[str, str], list[tuple[str, str, str]]]] = {
    "from": ([(MODEL, b"weights"), (PROJECTOR, b"sees")], {}, [("from", "", "weights"), ("from", "", "sees")]),
    "adapter": ([(ADAPTER, b"lora"), (ADAPTER, b"more")], {}, [("from", "", "lora"), ("from", "", "more")]),
    "draft": ([(DRAFT, b"quick")], {}, [("draft", "", "quick")]),
    "template": ([(TEMPLATE, b"{{ .Prompt }}")], {}, [("template", "", "{{ .Prompt }}")]),
    "system": ([(SYSTEM, b"Be\nkind")], {}, [("system", "", "Be\nkind")]),
    "renderer": ([], {"renderer": "qwen3.5"}, [("renderer", "", "qwen3.5")]),
    "parser": ([], {"parser": "qwen3.5"}, [("parser", "", "qwen3.5")]),
    "requires": ([], {"requires": "0.19.0"}, [("requires", "", "0.19.0")]),
    "license": ([(LICENSE, b"MIT"), (LICENSE, b"BSD")], {}, [("license", "", "MIT"), ("license", "", "BSD")]),
    "parameter": (
        [(PARAMS, b'{"top_k":10,"stop":["a","b"]}')],
        {},
        [("parameter", "stop", "a"), ("parameter", "stop", "b"), ("parameter", "top_k", "10")],
    ),
    "message": (
        [(MESSAGES, b'[{"role":"user","content":"hi"},{"role":"assistant","content":"yes?"}]')],
        {},
        [("message", "user", "hi"), ("message", "assistant", "yes?")],
    ),
}


def instructions(store: Store, name: str) -> list[tuple[str, str, str]]:
    """What Ollama's reader finds in the Modelfile of a model, with the bytes of a blob for its path."""
    found = read_modelfile(printed(name, "--modelfile", models=store.root).decode())
    blobs = str(store.root / "blobs")
    return [
        (word, key, Path(value).read_text() if value.startswith(blobs) else value) for word, key, value in found
    ]  # fmt: skip


def test_every_instruction_that_ollama_reads_has_a_row_here() -> None:
    assert STATED.keys() == INSTRUCTIONS


@pytest.mark.parametrize("word", STATED)
def test_a_modelfile_says_what_the_model_says(empty: Store, word: str) -> None:
    layers, fields, said = STATED[word]
    base = [] if word == "from" else [empty.layer(MODEL, b"base")]
    empty.add(full("odd:latest"), *base, *(empty.layer(*layer) for layer in layers), config=empty.config(**fields))
    assert instructions(empty, "odd") == [*([("from", "", "base")] if base else []), *said]


def test_a_modelfile_says_all_of_it_together(empty: Store) -> None:
    layers = [empty.layer(*layer) for row in STATED.values() for layer in row[0]]
    fields = {key: value for row in STATED.values() for key, value in row[1].items()}
    empty.add(full("odd:latest"), *layers, config=empty.config(**fields))
    assert sorted(instructions(empty, "odd")) == sorted(line for row in STATED.values() for line in row[2])


def test_a_model_without_a_file_of_weights_is_built_from_its_name(empty: Store) -> None:
    empty.add(full("mlx:latest"), empty.layer(TENSOR, b"t", name="a"), empty.layer(SYSTEM, b"Hi"))
    assert instructions(empty, "mlx") == [("from", "", "mlx:latest"), ("system", "", "Hi")]


def test_a_modelfile_is_no_json_and_whoever_asks_for_both_is_told(store: Store) -> None:
    done = run("show", "tiny", "--modelfile", "--json", "--models", store.root)
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["class"] == "usage"


def test_the_summary_has_what_the_config_and_the_texts_say(empty: Store) -> None:
    config = empty.config(renderer="qwen3-vl", parser="qwen3-coder", requires="0.19.0", capabilities=["tools", None])
    layers = [(MODEL, b"w"), (SYSTEM, b"Be\nkind"), (PARAMS, b'{"top_k":10}'), (LICENSE, b"MIT"), (TEMPLATE, b"t")]
    empty.add(full("whole:latest"), *(empty.layer(*layer) for layer in layers), config=config)
    summary = run("show", "whole", "--models", empty.root).stdout
    lines = [line.split(maxsplit=1) for line in summary.splitlines()]
    for line in (["renderer", "qwen3-vl"], ["parser", "qwen3-coder"], ["requires", "Ollama 0.19.0"], ["top_k", "10"]):
        assert line in lines
    for word in ("whole:latest", "Q4_K_M", "1.5M", "    tools\n", "    Be\n    kind\n", "MIT", "image.template"):
        assert word in summary
    assert "None" not in summary


def test_show_of_what_is_not_there(store: Store) -> None:
    done = run("show", "nosuch", "--models", store.root)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


SMALL = {
    "config": b'{"model_family":"test"}',
    "params": b'{"top_k":10}',
    "messages": b'[{"role":"user","content":"hi"}]',
    "template": b"{{ .Prompt }}",
    "system": b"Be kind",
    "license": b"MIT",
}
TYPES = {
    "config": CONFIG,
    "params": PARAMS,
    "messages": MESSAGES,
    "template": TEMPLATE,
    "system": SYSTEM,
    "license": LICENSE,
}
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "missing"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:2]), "bytes, got 2"),
    "empty": (lambda path: path.write_bytes(b""), "bytes, got 0"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"  "), "bytes, got more"),
}


def with_small(store: Store, **blobs: bytes) -> dict[str, Any]:
    """A model with all kinds of small blobs; gives the descriptor of each."""
    made = {kind: store.layer(TYPES[kind], data) for kind, data in (SMALL | blobs).items()}
    layers = [layer for kind, layer in made.items() if kind != "config"]
    store.add(full("odd:latest"), store.layer(MODEL, b"w"), *layers, config=made["config"])
    return made


@pytest.mark.parametrize(
    ("kind", "damage"), [*((kind, "cut") for kind in SMALL), *(("params", damage) for damage in DAMAGE)]
)
def test_a_damaged_blob_is_named_with_its_model_and_what_to_do(empty: Store, kind: str, damage: str) -> None:
    with_small(empty)
    hurt, says = DAMAGE[damage]
    hurt(empty.blob_path(SMALL[kind]))
    done = run("show", "odd", "--models", empty.root)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert done.stderr.startswith(
        f"ostore: error[integrity]: odd:latest: {kind} blob sha256:{sha256(SMALL[kind])}: "
    )  # fmt: skip
    assert says in done.stderr
    about = f"--models {empty.root}"
    assert f"(ostore verify odd:latest {about} shows all that is damaged, or ostore repair" in done.stderr
    assert f"--from BUNDLE {about} brings good copies)" in done.stderr


def test_the_parts_of_a_damaged_model_that_are_whole_are_printed(empty: Store) -> None:
    with_small(empty)
    empty.blob_path(SMALL["config"]).write_bytes(b"{")
    assert printed("odd", "--system", models=empty.root) == SMALL["system"]
    assert run("show", "odd", "--config", "--models", empty.root).returncode == 4


NO_JSON = [
    ("config", b"not JSON", "not JSON: expecting value at character 0"),
    ("config", b'["a"]', "expected an object"),
    ("params", b'{"top_k":', "not JSON: expecting value at character 9"),
    ("params", b"[1]", "expected an object, got [1]"),
    ("messages", b"{}", "expected a list, got {}"),
    ("messages", b'[{"role":5}]', "role of a message: expected text, got 5"),
    ("messages", b"[5]", "role of a message: expected text, got 5"),
]


@pytest.mark.parametrize(("kind", "data", "says"), NO_JSON, ids=[f"{kind} {data!r}" for kind, data, _ in NO_JSON])
def test_a_whole_blob_that_is_not_what_it_should_be_is_of_another_kind_and_named(
    empty: Store, kind: str, data: bytes, says: str
) -> None:
    blob = with_small(empty, **{kind: data})[kind]
    done = run("show", "odd", "--models", empty.root)
    assert (done.returncode, done.stdout) == (12, "")
    told = f"odd:latest: {kind} blob {blob['digest']}: the blob is whole, but {says}"
    assert done.stderr == f"ostore: error[format]: {told}\n"


def test_altered_bytes_of_the_same_size_that_are_no_json_are_damage(empty: Store) -> None:
    with_small(empty)
    empty.blob_path(SMALL["params"]).write_bytes(b"}" * len(SMALL["params"]))
    done = run("show", "odd", "--models", empty.root)
    assert done.returncode == 4
    assert f"params blob sha256:{sha256(SMALL['params'])}: does not match its digest" in done.stderr


@pytest.mark.parametrize(("kind", "data"), [("params", b"null"), ("messages", b"null"), ("messages", b"[null]")])
def test_null_says_nothing(empty: Store, kind: str, data: bytes) -> None:
    with_small(empty, **{kind: data})
    shown = ostore.show("odd", models=empty.root)
    assert shown.parameters == (() if kind == "params" else (ostore.Parameter("top_k", 10),))
    assert all(message == ostore.Message("", "") for message in shown.messages) or kind == "params"


def test_a_text_that_is_too_long_is_a_limit_and_not_cut(empty: Store) -> None:
    with_small(empty, license=bytes(4 * 1024 * 1024 + 1))
    done = run("show", "odd", "--license", "--models", empty.root)
    assert (done.returncode, done.stdout) == (13, "")
    assert "license blob" in done.stderr
    assert "expected at most 4194304 bytes, got 4194305" in done.stderr


CLIP: dict[str, Value] = {
    "general.architecture": "clip",
    "clip.vision.embedding_length": 1152,
    "clip.vision.projection_dim": 2560,
    "clip.projector_type": "gemma3",
}
# Of the newer kind, which Ollama translates.
SEEING: dict[str, Value] = {
    **{key.replace("llama", "qwen35"): value for key, value in ONE_LAYER.items()},
    "general.architecture": "qwen35",
    "general.file_type": 7,
    "qwen35.image_token_id": 5,
    "odd.number": float("inf"),
    "odd\n  Layers": 1,
    "odd.text": "one\ntwo" + "x" * 100,
    "tokenizer.ggml.tokens": ["a", "b"],
    "tokenizer.ggml.add_bos_token": True,
}
SOME: dict[str, Tensor] = {"v.t": ((32, 40), [1.0])}


def with_headers(store: Store, model: bytes, projector: bytes = gguf(CLIP, SOME), **fields: str) -> None:
    config = store.config(**{"model_type": "", "file_type": "unknown", **fields})
    store.add(full("odd:latest"), store.layer(MODEL, model), store.layer(PROJECTOR, projector), config=config)


def test_a_summary_says_what_the_headers_say(empty: Store) -> None:
    with_headers(empty, gguf(SEEING, SOME))
    summary = run("show", "odd", "--verbose", "--models", empty.root).stdout
    model, capabilities, projector, layers, metadata, tensors, *_ = summary.split("\n\n")
    assert model.splitlines()[5:] == [
        "    architecture      qwen35",
        "    parameters        1K",
        "    context length    64",
        "    embedding length  32",
        "    quantization      Q8_0",
        "    runs in           Ollama only (qwen35 dialect)",
    ]
    assert capabilities.split() == ["Capabilities", "completion", "vision"]
    assert projector.splitlines() == [
        "  Projector",
        "    architecture      clip",
        "    parameters        1K",
        "    embedding length  1152",
        "    dimensions        2560",
    ]
    assert layers.startswith("  Layers")
    said = dict(line.split(maxsplit=1) for line in metadata.splitlines()[1:])
    assert [*said] == [key.replace("\n  Layers", "\\n") for key in sorted(SEEING)]
    assert said["odd.text"] == f"one\\ntwo{'x' * 72}..."
    assert (said["odd.number"], said["qwen35.attention.layer_norm_rms_epsilon"]) == ("inf", "0.5")
    assert (said["tokenizer.ggml.tokens"], said["tokenizer.ggml.add_bos_token"]) == ("2 x string", "true")
    assert [line.split() for line in tensors.splitlines()[1:]] == [["v.t", "F32", "32x40"]]


def test_what_the_config_says_comes_first(empty: Store) -> None:
    with_headers(empty, gguf(SEEING, SOME), model_type="1.5M", file_type="Q4_K_M")
    summary = run("show", "odd", "--models", empty.root).stdout
    assert "    parameters        1.5M\n" in summary
    assert "    quantization      Q4_K_M\n" in summary
    assert "Metadata" not in summary


def test_weights_that_cannot_be_read_are_named_and_all_else_is_shown(empty: Store) -> None:
    with_headers(empty, gguf(SEEING, SOME), gguf(CLIP, SOME))
    empty.blob_path(gguf(SEEING, SOME)).unlink()
    path = empty.blob_path(gguf(CLIP, SOME))
    path.write_bytes(path.read_bytes()[:-1])
    done = run("show", "odd", "--models", empty.root)
    assert (done.returncode, done.stderr) == (0, "")
    unknown = done.stdout.partition("  Not known\n")[2].partition("\n\n")[0].splitlines()
    assert unknown[0] == f"    model             blob sha256:{sha256(gguf(SEEING, SOME))}: missing"
    assert unknown[1].startswith(
        f"    projector         blob sha256:{sha256(gguf(CLIP, SOME))}: the file ends at byte "
    )
    assert "architecture      test" in done.stdout
    assert "runs in" not in done.stdout
    assert "Projector" not in done.stdout


def test_a_model_says_where_it_runs(empty: Store) -> None:
    empty.add(full("plain:latest"), empty.layer(MODEL, gguf(ONE_LAYER, SOME)))
    empty.add(full("clip:latest"), empty.layer(MODEL, gguf(ONE_LAYER, {})), empty.layer(PROJECTOR, gguf({}, {})))
    old = gguf({"general.architecture": "clip"}, {})
    empty.add(full("old:latest"), empty.layer(MODEL, gguf(ONE_LAYER, {})), empty.layer(PROJECTOR, old))
    empty.add(full("mlx:latest"), empty.layer(TENSOR, b"t", name="a"))
    empty.add(full("stub:latest"), empty.layer(LICENSE, b"MIT"))
    found = {name: ostore.show(name, models=empty.root).runs_in for name in ("plain", "clip", "old", "mlx", "stub")}
    assert found == {
        "plain": "Ollama, llama.cpp",
        "clip": "Ollama, llama.cpp",
        "old": "Ollama only (clip dialect)",
        "mlx": "Ollama only (safetensors)",
        "stub": "",
    }


def test_a_model_of_tensors_says_what_their_headers_say(empty: Store) -> None:
    packed = {"__metadata__": {"quant_type": "int4", "group_size": "32"}, "w": tensor("U32", [32, 8], 0, 1024)}
    packed["w.scale"] = tensor("F16", [32, 2], 1024, 1152)
    experts = {"e.1": tensor("BF16", [2, 2], 0, 8), "e.2": tensor("BF16", [2], 8, 12)}
    layers = [
        empty.layer(TENSOR, written(header, bytes(size)), name=name)
        for name, header, size in (("layer.w", packed, 1152), ("experts", experts, 12))
    ]
    config = empty.config(model_format="safetensors", model_type="", file_type="")
    empty.add(full("mlx:latest"), *layers, config=config)
    [weights] = ostore.show("mlx", models=empty.root).weights
    assert (weights.parameter_count, weights.quantization, weights.unknown) == (32 * 64 + 6, "INT4", "")
    assert [(shown.name, shown.type, shown.shape) for shown in weights.tensors] == [
        ("layer.w", "INT4", (32, 64)),
        ("e.1", "BF16", (2, 2)),
        ("e.2", "BF16", (2,)),
    ]
    summary = run("show", "mlx", "-v", "--models", empty.root).stdout
    for line in (
        "parameters        2K",
        "quantization      INT4",
        "architecture      test",
        "runs in           Ollama only",
    ):
        assert f"    {line}" in summary
    empty.blob_path(written(experts, bytes(12))).write_bytes(b"short")
    told = run("show", "mlx", "--models", empty.root)
    assert told.returncode == 0
    assert "  Not known\n    tensor            blob sha256:" in told.stdout
    assert "runs in           Ollama only (safetensors)" in told.stdout


def test_too_many_tensors_are_not_all_opened(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostore.operations.weights.MAX_TENSOR_BLOBS", 2)
    empty.add(full("mlx:latest"), *(empty.layer(TENSOR, written({}), name=f"t{number}") for number in range(3)))
    [weights] = ostore.show("mlx", models=empty.root).weights
    assert weights.unknown == "expected at most 2 blobs of tensors to read, got 3"
    empty.add(full("none:latest"), empty.layer(TENSOR, written({}), name="t"))
    [weights] = ostore.show("none", models=empty.root).weights
    assert (weights.unknown, weights.parameter_count, weights.quantization) == ("", 0, "")


def test_the_last_of_several_files_of_weights_says_what_the_model_can_do(empty: Store) -> None:
    embedding: dict[str, Value] = {**ONE_LAYER, "llama.pooling_type": 1}
    layers = [empty.layer(MODEL, gguf(keys, {})) for keys in (ONE_LAYER, embedding)]
    empty.add(full("two:latest"), *layers)
    shown = ostore.show("two", models=empty.root)
    assert shown.capabilities == ("embedding",)
    assert [weights.architecture for weights in shown.weights] == ["llama", "llama"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_weights_that_this_user_may_not_read_are_told_in_words(public: Store) -> None:
    public.blob_path(b"the weights").chmod(0o600)
    said = as_user(12_345, "show", "tiny", "--models", public.root).stdout
    assert f"blob sha256:{sha256(b'the weights')}: Permission denied" in said
    said = as_user(12_345, "show", "tiny", "--modelfile", "--models", public.root).stdout
    assert "# Lost: what is lost is not known: Permission denied\n" in said
