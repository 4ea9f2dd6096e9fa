"""Write GGUF files for tests: models of some kilobytes that a real Ollama takes."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

Value = str | float | list[str] | list[float] | list[int]
ONE_LAYER: dict[str, Value] = {
    "general.architecture": "llama",
    "general.file_type": 0,
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 1,
    "llama.attention.head_count_kv": 1,
    "llama.attention.layer_norm_rms_epsilon": 0.5,
    "llama.rope.dimension_count": 32,
}


def gguf(keys: Mapping[str, Value], tensors: Mapping[str, tuple[tuple[int, ...], list[float]]]) -> bytes:
    """Return a file with these keys and tensors: of each, the shape, and numbers that are repeated to fill it."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(_text(key) + _value(value) for key, value in keys.items())
    data = b""
    for name, (shape, numbers) in tensors.items():
        # Type 0 is F32. Every tensor is a multiple of 32 bytes long, so none needs padding.
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        data += struct.pack(f"<{len(numbers)}f", *numbers) * (math.prod(shape) // len(numbers))
    return head + bytes(-len(head) % 32) + data


def talking_gguf() -> bytes:
    """Return a llama that answers everything with "hello", again and again."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581hello"]
    keys: dict[str, Value] = {
        **ONE_LAYER,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        # Unknown, control, bytes, and one ordinary word.
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, 1],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    # The layer adds nothing, so every state is all ones, and only the last token gets a score.
    scores = [0.0] * 32 * (len(tokens) - 1) + [1.0] * 32
    within = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (32, 32))
    within |= {"ffn_gate": (32, 64), "ffn_up": (32, 64), "ffn_down": (64, 32)}
    tensors: dict[str, tuple[tuple[int, ...], list[float]]] = {
        "token_embd.weight": ((32, len(tokens)), [1.0]),
        "output_norm.weight": ((32,), [1.0]),
        "output.weight": ((32, len(tokens)), scores),
        "blk.0.attn_norm.weight": ((32,), [1.0]),
        "blk.0.ffn_norm.weight": ((32,), [1.0]),
        **{f"blk.0.{name}.weight": (shape, [0.0]) for name, shape in within.items()},
    }
    return gguf(keys, tensors)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Value) -> bytes:
    """A value, after its type. Whole numbers are unsigned."""
    if isinstance(value, list):
        items = [_value(item) for item in value]
        return struct.pack("<I4sQ", 9, items[0][:4], len(items)) + b"".join(item[4:] for item in items)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    return struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<If", 6, value)
