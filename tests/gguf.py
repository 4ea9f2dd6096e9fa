"""Write GGUF files for tests: models of some kilobytes that a real Ollama takes."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Typed(NamedTuple):
    """A number of a type that is not u32, f32 or bool: the number of the type, its letter in struct, and the number."""

    kind: int
    letter: str
    number: float


Value = str | float | Typed | list[str] | list[float] | list[int]
Tensor = tuple[tuple[int, ...], list[float]]
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


def gguf(
    keys: Mapping[str, Value], tensors: Mapping[str, Tensor], *, version: int = 3, order: str = "<", alignment: int = 32
) -> bytes:
    """Return a file with these keys and tensors: of each, the shape, and numbers that are repeated to fill it."""
    infos, data = [], b""
    for name, (shape, numbers) in tensors.items():
        infos.append(info(name, shape, 0, len(data), order=order, version=version))
        # Type 0 is F32.
        data += struct.pack(f"{order}{len(numbers)}f", *numbers) * (math.prod(shape) // len(numbers))
        data += bytes(-len(data) % alignment)
    entries = [entry(key, value, order, version) for key, value in keys.items()]
    return assembled(entries, infos, data, version=version, order=order, alignment=alignment)


def assembled(
    entries: Sequence[bytes],
    infos: Sequence[bytes],
    data: bytes = b"",
    *,
    version: int = 3,
    order: str = "<",
    alignment: int = 32,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """Return a file of ready parts. `counts` are the numbers of tensors and keys that it says it has."""
    tensors, keys = counts or (len(infos), len(entries))
    head = b"GGUF" + struct.pack(f"{order}I2{'I' if version == 1 else 'Q'}", version, tensors, keys)
    head += b"".join([*entries, *infos])
    return head + bytes(-len(head) % alignment) + data


def entry(key: str, value: Value, order: str = "<", version: int = 3) -> bytes:
    """Return one key with its value."""
    return _text(key, order, version) + _value(value, order, version)


def info(
    name: str, shape: Sequence[int], kind: int = 0, offset: int = 0, *, order: str = "<", version: int = 3
) -> bytes:
    """Return what a header says of one tensor."""
    return _text(name, order, version) + struct.pack(f"{order}I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def split(keys: Mapping[str, Value], *parts: Mapping[str, Tensor]) -> list[bytes]:
    """Return the files of a set with these tensors in each, as `llama-gguf-split` writes them."""
    number = sum(map(len, parts))
    return [
        gguf({**({} if index else keys), **split_keys(index, len(parts), number)}, part)
        for index, part in enumerate(parts)
    ]


def split_keys(index: int, count: int, tensors: int) -> dict[str, Value]:
    """Return the keys of one part of a set."""
    return {
        "split.no": Typed(2, "H", index),
        "split.count": Typed(2, "H", count),
        "split.tensors.count": Typed(5, "i", tensors),
    }


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
    tensors: dict[str, Tensor] = {
        "token_embd.weight": ((32, len(tokens)), [1.0]),
        "output_norm.weight": ((32,), [1.0]),
        "output.weight": ((32, len(tokens)), scores),
        "blk.0.attn_norm.weight": ((32,), [1.0]),
        "blk.0.ffn_norm.weight": ((32,), [1.0]),
        **{f"blk.0.{name}.weight": (shape, [0.0]) for name, shape in within.items()},
    }
    return gguf(keys, tensors)


def embedding_gguf() -> bytes:
    """Return a BERT that makes the same vector of 32 numbers of every text."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    specials = {"padding": 0, "unknown": 1, "bos": 2, "cls": 2, "eos": 3, "seperator": 3, "mask": 4}
    keys: dict[str, Value] = {
        "general.architecture": "bert",
        "bert.block_count": 1,
        "bert.context_length": 64,
        "bert.embedding_length": 32,
        "bert.feed_forward_length": 64,
        "bert.attention.head_count": 1,
        "bert.attention.layer_norm_epsilon": 0.5,
        "bert.attention.causal": False,
        # The mean of all states.
        "bert.pooling_type": 1,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(tokens),
        "tokenizer.ggml.token_type_count": 2,
        **{f"tokenizer.ggml.{name}_token_id": number for name, number in specials.items()},
    }
    within = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (32, 32))
    within |= {"ffn_up": (32, 64), "ffn_down": (64, 32)}
    norms = ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm")
    tensors: dict[str, Tensor] = {
        "token_embd.weight": ((32, len(tokens)), [1.0]),
        "token_types.weight": ((32, 2), [0.0]),
        "position_embd.weight": ((32, 64), [0.0]),
        **{f"blk.0.{name}.weight": (shape, [0.0]) for name, shape in within.items()},
        **{f"blk.0.{name}.bias": (shape[1:], [0.0]) for name, shape in within.items()},
        **{f"{norm}.{part}": ((32,), [1.0]) for norm in norms for part in ("weight", "bias")},
    }
    return gguf(keys, tensors)


def _text(text: str, order: str = "<", version: int = 3) -> bytes:
    raw = text.encode("utf-8", "surrogateescape") + (b"\0" if version == 1 else b"")
    return struct.pack(f"{order}Q", len(raw)) + raw


def _value(value: Value, order: str = "<", version: int = 3) -> bytes:
    """A value, after its type. Whole numbers are unsigned."""
    if isinstance(value, Typed):
        return struct.pack(f"{order}I{value.letter}", value.kind, value.number)
    if isinstance(value, list):
        # There may be 128,000 empty ones.
        listed: Sequence[str | float] = value
        made = {item: _value(item, order, version) for item in set(listed)}
        items = [made[item] for item in listed]
        return struct.pack(f"{order}I4sQ", 9, items[0][:4], len(items)) + b"".join(item[4:] for item in items)
    if isinstance(value, str):
        return struct.pack(f"{order}I", 8) + _text(value, order, version)
    if isinstance(value, bool):
        return struct.pack(f"{order}I?", 7, value)
    return struct.pack(f"{order}II", 4, value) if isinstance(value, int) else struct.pack(f"{order}If", 6, value)
