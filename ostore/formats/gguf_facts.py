"""
What Ollama says of a model from the header of its GGUF: kind, size, quantization.

Sources, at fb30760: server/create.go (kind), fs/ggml (labels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ostore.formats.gguf import Gguf

Kind = Literal["model", "adapter", "projector"]

UNKNOWN = "unknown"
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}
# Ollama cannot take these tensors out of a model, so its create stores such a file as it is.
_EMBEDDED = ("a.", "mm.", "mtp.", "s.", "v.")
_THOUSAND, _MILLION, _BILLION = 10**3, 10**6, 10**9


@dataclass(frozen=True, slots=True)
class Split:
    """Which part of a split set a file is, counted from 0, of how many, and how many tensors all parts have."""

    number: int
    count: int
    tensors: int


def kind_of(gguf: Gguf) -> Kind:
    """Return what `create` makes of a file."""
    type_ = gguf.text("general.type")
    if type_ == "adapter":
        return "adapter"
    if type_ in {"projector", "mmproj"}:
        return "projector"
    has_blocks = gguf.number("block_count") > 0
    sees = gguf.number("vision.block_count") > 0
    encodes = gguf.architecture == "clip" and (gguf.is_true("has_vision_encoder") or gguf.is_true("has_audio_encoder"))
    return "projector" if not has_blocks and (sees or encodes) else "model"


def parameter_count(gguf: Gguf) -> int:
    """Return the number of parameters of the tensors in this one file."""
    return sum(tensor.elements for tensor in gguf.tensors)


def parameter_label(count: int) -> str:
    """Return a number of parameters as Ollama writes it: `268.10M`, `8B`."""
    if count >= _BILLION:
        return f"{count / _BILLION:.{1 if count % _BILLION else 0}f}B"
    if count >= _MILLION:
        return f"{count / _MILLION:.{2 if count % _MILLION else 0}f}M"
    return f"{count / _THOUSAND:.0f}K" if count >= _THOUSAND else str(count)


def quantization_in_config(gguf: Gguf) -> str:
    """Return the label that `create` writes. Ollama takes 0 for a key that is absent there."""
    return _FILE_TYPES.get(gguf.number("general.file_type") or -1, UNKNOWN)


def quantization_shown(gguf: Gguf) -> str:
    """Return the label that `list` and `show` give a model whose config has none."""
    if not gguf.has("general.file_type"):
        return UNKNOWN
    return _FILE_TYPES.get(gguf.number("general.file_type"), UNKNOWN)


def is_quantization(word: str) -> bool:
    """Return whether a word is the label of a quantization, in capitals or not."""
    return word.upper() in _FILE_TYPES.values()


def chat_template(gguf: Gguf) -> str:
    """Return the chat template in the header, in Jinja. Empty if there is none."""
    return gguf.text("tokenizer.chat_template")


def is_embedding(gguf: Gguf) -> bool:
    """Return whether a model makes vectors of texts, and no text of its own. Ollama goes by this key."""
    return gguf.has(f"{gguf.architecture}.pooling_type")


def has_embedded_parts(gguf: Gguf) -> bool:
    """Return whether a model has tensors for pictures, sound or drafts in the same file."""
    return gguf.has_tensor(*_EMBEDDED)


def split_of(gguf: Gguf) -> Split | None:
    """Return which part of a split set this is, None for a file that is whole."""
    keys = ("split.no", "split.count", "split.tensors.count")
    values = [field.value for key in keys if (field := gguf.fields.get(key)) and isinstance(field.value, int)]
    return Split(*values) if len(values) == len(keys) and values[1] > 1 else None
