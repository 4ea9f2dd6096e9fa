"""
Which GGUF files only Ollama can load: it translates them while it loads them, and llama.cpp refuses them or loads them
wrong.

Source: llama/compat/llama-ollama-compat.cpp at fb30760. The header alone decides.
"""

from __future__ import annotations

from collections.abc import Callable

from ostore.formats.gguf import STRING, Gguf, ReadAt, read_array
from ostore.formats.gguf_facts import chat_template, kind_of

EVERYWHERE = "Ollama, llama.cpp"
TENSORS = "Ollama only (safetensors)"
NOWHERE = "nothing (parts of a split set)"

# Tokens of Llama 3.
_START_OF_HEADER, _END_OF_TURN, _END_OF_TEXT = 128006, 128009, 128001

_Rule = Callable[[Gguf, ReadAt], bool]


def dialect_of(gguf: Gguf, read_at: ReadAt) -> str | None:
    """
    Return the architecture of a file that llama.cpp cannot load, None for any other file.

    An adapter has the architecture of its model but none of its keys, and is no dialect. Reads some tokens of a Llama.
    Raises what `read_array` raises.
    """
    rule = _RULES.get(gguf.architecture) if kind_of(gguf) != "adapter" else None
    return gguf.architecture if rule and rule(gguf, read_at) else None


def runs_in(dialect: str | None) -> str:
    """Return where a GGUF of this dialect runs."""
    return f"Ollama only ({dialect} dialect)" if dialect else EVERYWHERE


def refusal(dialect: str) -> str:
    """Return what a person should know before another program loads a file of this dialect."""
    return f"runs in {runs_in(dialect)}; llama.cpp refuses such a file or loads it wrong"


def _always(_gguf: Gguf, _read_at: ReadAt) -> bool:
    return True


def _with(*, keys: tuple[str, ...] = (), tensors: tuple[str, ...] = ()) -> _Rule:
    """A file with one of these keys, or a tensor whose name begins with one of these. Keys are of the architecture."""

    def rule(gguf: Gguf, _read_at: ReadAt) -> bool:
        return any(_has(gguf, key) for key in keys) or (bool(tensors) and gguf.has_tensor(*tensors))

    return rule


def _without(key: str) -> _Rule:
    return lambda gguf, _read_at: not _has(gguf, key)


def _any(*rules: _Rule) -> _Rule:
    return lambda gguf, read_at: any(rule(gguf, read_at) for rule in rules)


def _has(gguf: Gguf, key: str) -> bool:
    return gguf.has(key if key.startswith("tokenizer.") else f"{gguf.architecture}.{key}")


def _is_gemma3n(gguf: Gguf, _read_at: ReadAt) -> bool:
    shapes = {tensor.name: (*tensor.shape, 1, 1) for tensor in gguf.tensors}
    tokens, by_layer = shapes.get("token_embd.weight"), shapes.get("per_layer_token_embd.weight")
    return tokens is not None and by_layer is not None and tokens[1] != by_layer[1]


def _has_llama_tokenizer(gguf: Gguf, _read_at: ReadAt) -> bool:
    return gguf.text("tokenizer.ggml.model") == "llama"


def _is_qwen3next(gguf: Gguf, _read_at: ReadAt) -> bool:
    return any(tensor.name.endswith(".ssm_dt") for tensor in gguf.tensors)


def _is_llama3(gguf: Gguf, read_at: ReadAt) -> bool:
    """Llama.cpp loads it, but does not see where an answer ends."""
    if _token(gguf, read_at, _END_OF_TURN) != "<|eot_id|>":
        return False
    template = chat_template(gguf)
    has_turns = "<|start_header_id|>" in template or "<|eot_id|>" in template
    if not has_turns and _token(gguf, read_at, _START_OF_HEADER) != "<|start_header_id|>":
        return False
    lacks_splitter = not gguf.has("tokenizer.ggml.pre") or gguf.text("tokenizer.ggml.pre") == "default"
    return lacks_splitter or gguf.number("tokenizer.ggml.eos_token_id") == _END_OF_TEXT


def _token(gguf: Gguf, read_at: ReadAt, index: int) -> object:
    tokens = gguf.array("tokenizer.ggml.tokens", STRING)
    found = read_array(read_at, gguf, tokens, start=index, count=1) if tokens else []
    return found[0] if found else None


def _is_lfm2(gguf: Gguf, _read_at: ReadAt) -> bool:
    names = {tensor.name for tensor in gguf.tensors}
    return "output_norm.weight" in names and "token_embd_norm.weight" not in names


def _has_lettered_charsmap(gguf: Gguf, _read_at: ReadAt) -> bool:
    """snowflake-arctic-embed2: each letter of the Base64 is a text of its own, of 8 bytes for its length and one."""
    charsmap = gguf.array("tokenizer.ggml.precompiled_charsmap", STRING)
    letters = charsmap is not None and charsmap.count > 0 and charsmap.size == 9 * charsmap.count
    return letters and gguf.text("tokenizer.ggml.model") == "t5"


def _lacks_projector_type(gguf: Gguf, _read_at: ReadAt) -> bool:
    return not any(_has(gguf, key) for key in ("projector_type", "vision.projector_type", "audio.projector_type"))


_QWEN35 = _with(
    keys=("vision.block_count", "image_token_id", "ssm.v_head_reordered", "rope.mrope_interleaved"),
    tensors=("mtp.", "v."),
)
# One line an architecture. Those without a rule have other names in llama.cpp, or are built otherwise there.
_RULES: dict[str, _Rule] = {
    "deepseekocr": _always,
    "glmocr": _always,
    "gptoss": _always,
    "glm4moelite": _always,
    "qwen25vl": _always,
    "olmo3": _always,
    "gemma3": _any(
        _with(
            keys=(
                "mm.tokens_per_image",
                "rope.global.freq_base",
                "rope.local.freq_base",
                "tokenizer.ggml.add_padding_token",
                "tokenizer.ggml.add_unknown_token",
            ),
            tensors=("v.", "mm.", "dense.0.weight"),
        ),
        _without("attention.layer_norm_rms_epsilon"),
    ),
    "gemma3n": _is_gemma3n,
    "gemma4": _any(_with(tensors=("a.", "v.", "mm.", "model.vision_tower.")), _has_llama_tokenizer),
    "qwen35": _QWEN35,
    "qwen35moe": _any(_QWEN35, _with(keys=("feed_forward_length",))),
    "qwen3vl": _without("rope.dimension_sections"),
    "qwen3vlmoe": _without("rope.dimension_sections"),
    "qwen3next": _is_qwen3next,
    "mistral3": _with(
        keys=("rope.scaling.beta_fast", "rope.scaling.mscale_all_dim", "rope.scaling_beta"), tensors=("v.", "mm.")
    ),
    "llama4": _with(tensors=("v.", "mm.")),
    "llama": _is_llama3,
    "lfm2": _is_lfm2,
    "laguna": _with(keys=("rope.swa.dimension_count", "rope.swa.freq_base"), tensors=("blk.0.attn_g.weight",)),
    "nemotron_h_moe": _with(tensors=("blk.0.ffn_latent_in", "blk.1.ffn_latent_in", "mtp.")),
    "nemotron_h_omni": _with(tensors=("v.", "a.", "mm.")),
    "bert": _has_lettered_charsmap,
    "clip": _lacks_projector_type,
}
