"""A GGUF that only Ollama can load is told from its header: one row of Ollama's table a test, and its negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from ostore.formats.dialect import dialect_of, runs_in
from tests.gguf import ONE_LAYER, Value, assembled, entry, info
from tests.test_gguf import read, reader

EPSILON = "gemma3.attention.layer_norm_rms_epsilon"
CHARSMAP = "tokenizer.ggml.precompiled_charsmap"
TEMPLATE = "tokenizer.chat_template"


def llama3(
    *,
    pre: str | None = None,
    eos: int = 128_009,
    start: str = "<|start_header_id|>",
    end: str = "<|eot_id|>",
    template: str = "",
) -> dict[str, Value]:
    words = [*[""] * 128_006, start, "", "", end]
    keys: dict[str, Value] = {"tokenizer.ggml.tokens": words, "tokenizer.ggml.eos_token_id": eos, TEMPLATE: template}
    return keys if pre is None else {**keys, "tokenizer.ggml.pre": pre}


def two(second: int, third: int) -> list[bytes]:
    return [info("token_embd.weight", (4, second)), info("per_layer_token_embd.weight", (4, third))]


def named(*names: str) -> list[bytes]:
    return [info(name, (1,)) for name in names]


# Architecture, keys, tensors: of the dialect, and not.
Made = tuple[str, Mapping[str, Value], Sequence[bytes]]
ALWAYS = ("deepseekocr", "glmocr", "gptoss", "glm4moelite", "qwen25vl", "olmo3")
DIALECTS: list[Made] = [
    *((name, {}, ()) for name in ALWAYS),
    ("gemma3", {EPSILON: 0.5, "gemma3.mm.tokens_per_image": 1}, ()),
    ("gemma3", {EPSILON: 0.5, "gemma3.rope.global.freq_base": 1.5}, ()),
    ("gemma3", {EPSILON: 0.5, "gemma3.rope.local.freq_base": 1.5}, ()),
    ("gemma3", {EPSILON: 0.5, "tokenizer.ggml.add_padding_token": False}, ()),
    ("gemma3", {EPSILON: 0.5, "tokenizer.ggml.add_unknown_token": False}, ()),
    *(("gemma3", {EPSILON: 0.5}, named(name)) for name in ("v.x", "mm.x", "dense.0.weight")),
    ("gemma3", {}, ()),
    ("gemma3n", {}, two(2, 3)),
    *(("gemma4", {}, named(name)) for name in ("a.x", "v.x", "mm.x", "model.vision_tower.x")),
    ("gemma4", {"tokenizer.ggml.model": "llama"}, ()),
    *(
        (name, {f"{name}.{key}": 1}, ())
        for name in ("qwen35", "qwen35moe")
        for key in ("vision.block_count", "image_token_id", "ssm.v_head_reordered", "rope.mrope_interleaved")
    ),
    *((name, {}, named(tensor)) for name in ("qwen35", "qwen35moe") for tensor in ("mtp.x", "v.x")),
    ("qwen35moe", {"qwen35moe.feed_forward_length": 1}, ()),
    ("qwen3vl", {}, ()),
    ("qwen3vlmoe", {}, ()),
    ("qwen3next", {}, named("blk.0.ssm_dt")),
    ("mistral3", {"mistral3.rope.scaling.beta_fast": 1.5}, ()),
    ("mistral3", {"mistral3.rope.scaling.mscale_all_dim": 1.5}, ()),
    ("mistral3", {"mistral3.rope.scaling_beta": 1.5}, ()),
    *(("mistral3", {}, named(name)) for name in ("v.x", "mm.x")),
    *(("llama4", {}, named(name)) for name in ("v.x", "mm.x")),
    ("llama", llama3(), ()),
    ("llama", llama3(pre="default"), ()),
    ("llama", llama3(pre="llama-bpe", eos=128_001), ()),
    ("llama", llama3(start="", template="{{ '<|start_header_id|>' }}"), ()),
    ("llama", llama3(start="", template="{{ '<|eot_id|>' }}"), ()),
    ("lfm2", {}, named("output_norm.weight")),
    *(("laguna", {f"laguna.rope.swa.{key}": 1}, ()) for key in ("dimension_count", "freq_base")),
    ("laguna", {}, named("blk.0.attn_g.weight")),
    *(("nemotron_h_moe", {}, named(name)) for name in ("blk.0.ffn_latent_in.weight", "blk.1.ffn_latent_in", "mtp.x")),
    *(("nemotron_h_omni", {}, named(name)) for name in ("v.x", "a.x", "mm.x")),
    ("bert", {"tokenizer.ggml.model": "t5", CHARSMAP: ["A", "b", "="]}, ()),
    ("clip", {}, ()),
]  # fmt: skip
OTHERS: list[Made] = [
    *((name, {}, named("v.x")) for name in ("deepseek2-ocr", "gpt-oss", "qwen2vl", "olmo2", "unknown")),
    ("gemma3", {EPSILON: 0.5}, named("vx", "blk.0.v.x", "dense.1.weight")),
    ("gemma3", {"general.type": "adapter", "adapter.type": "lora"}, ()),
    ("gemma3n", {}, two(3, 3)),
    ("gemma3n", {}, two(3, 4)[:1]),
    ("gemma3n", {}, ()),
    ("gemma4", {"tokenizer.ggml.model": "gemma4"}, named("blk.0.a.x")),
    ("qwen35", {"qwen35.feed_forward_length": 1}, ()),
    ("qwen35moe", {}, ()),
    ("qwen3vl", {"qwen3vl.rope.dimension_sections": [1, 2]}, ()),
    ("qwen3vlmoe", {"qwen3vlmoe.rope.dimension_sections": [1, 2]}, ()),
    ("qwen3next", {}, named("blk.0.ssm_dt.bias")),
    ("mistral3", {"mistral3.rope.scaling.factor": 1.5}, ()),
    ("llama4", {}, named("blk.0.v")),
    ("llama", {}, ()),
    ("llama", {"tokenizer.ggml.tokens": ["<|eot_id|>"]}, ()),
    ("llama", llama3(end=""), ()),
    ("llama", llama3(start=""), ()),
    ("llama", llama3(pre="llama-bpe"), ()),
    ("lfm2", {}, named("output_norm.weight", "token_embd_norm.weight")),
    ("lfm2", {}, ()),
    ("laguna", {}, named("blk.0.attn_q.weight")),
    ("nemotron_h_moe", {}, named("blk.2.ffn_latent_in")),
    ("nemotron_h_omni", {}, named("blk.0.v")),
    ("bert", {"tokenizer.ggml.model": "bert", CHARSMAP: ["A", "b", "="]}, ()),
    ("bert", {"tokenizer.ggml.model": "t5", CHARSMAP: ["Ab", "c"]}, ()),
    ("bert", {"tokenizer.ggml.model": "t5", CHARSMAP: [1, 2]}, ()),
    ("clip", {"clip.projector_type": "mlp"}, ()),
    ("clip", {"clip.vision.projector_type": "gemma3"}, ()),
]


def told(made: Made) -> str | None:
    architecture, keys, tensors = made
    entries = [entry(key, value) for key, value in {"general.architecture": architecture, **keys}.items()]
    data = assembled(entries, tensors, bytes(1024))
    return dialect_of(read(data), reader(data))


def labels(rows: Sequence[Made]) -> list[str]:
    return [f"{number} {row[0]}" for number, row in enumerate(rows)]


@pytest.mark.parametrize("made", DIALECTS, ids=labels(DIALECTS))
def test_what_only_ollama_loads_is_a_dialect(made: Made) -> None:
    assert told(made) == made[0]
    assert runs_in(told(made)) == f"Ollama only ({made[0]} dialect)"


@pytest.mark.parametrize("made", OTHERS, ids=labels(OTHERS))
def test_what_llama_cpp_loads_too_is_none(made: Made) -> None:
    assert told(made) is None
    assert runs_in(told(made)) == "Ollama, llama.cpp"


def test_a_model_of_one_layer_is_no_dialect() -> None:
    assert told(("llama", ONE_LAYER, ())) is None
