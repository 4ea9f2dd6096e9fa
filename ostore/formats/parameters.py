"""The parameters that a Modelfile can set, and how Ollama turns their texts into numbers: api/types.go at fb30760."""

from __future__ import annotations

import math
import re
import struct

from ostore.formats.errors import FormatError

Scalar = int | float | bool | str

_INTEGERS = frozenset(
    {
        "num_ctx",
        "num_batch",
        "num_gpu",
        "num_thread",
        "draft_num_predict",
        "num_keep",
        "seed",
        "num_predict",
        "top_k",
        "repeat_last_n",
        "main_gpu",
    }
)
_FLOATS = frozenset(
    {
        "top_p",
        "min_p",
        "typical_p",
        "temperature",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
    }
)
_SWITCHES = frozenset({"use_mmap"})
# Releases before 0.12 knew them. `ollama create` passes over them with a warning.
DEPRECATED = frozenset(
    {
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mlock",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
    }
)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_INTEGER = re.compile("[+-]?[0-9]{1,40}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
# Digits that tell any two 32-bit floats apart.
_FLOAT32_DIGITS = 9
# Above it, not every integer is a 64-bit float.
_MAX_EXACT = 2**53


def is_known(key: str) -> bool:
    """Return whether it is a parameter with one value."""
    return key in _INTEGERS or key in _FLOATS or key in _SWITCHES


def parse_parameter(key: str, text: str) -> Scalar:
    """
    Return the value that Ollama stores for a known parameter.

    A float is rounded to 32 bits and an integer to what a 64-bit float can hold, because the value goes through both.
    Raises FormatError for a text that is no such value.
    """
    if key in _SWITCHES:
        if text not in _TRUE | _FALSE:
            raise FormatError(f"{key}: expected true or false, got {text!r:.40}")
        return text in _TRUE
    if key in _INTEGERS:
        number = int(text) if _INTEGER.fullmatch(text) else None
        if number is None or not -(2**63) <= number < 2**63:
            raise FormatError(f"{key}: expected an integer of 64 bits, got {text!r:.40}")
        return as_go_has_it(number)
    rounded = _float32(float(text)) if _DECIMAL.fullmatch(text) else math.inf
    if math.isinf(rounded):
        raise FormatError(f"{key}: expected a number, at most 3.4e38, got {text!r:.40}")
    return rounded


def as_go_has_it(number: int) -> int | float:
    """Return an integer as Go has it after JSON: one that 64-bit floats cannot hold is rounded."""
    return number if abs(number) <= _MAX_EXACT else float(number)


def _float32(number: float) -> float:
    """Return the float with the fewest digits that is the same number in 32 bits. Infinite if it is too large."""
    try:
        packed = struct.pack("<f", number)
    except OverflowError:
        return math.inf
    exact: float = struct.unpack("<f", packed)[0]
    candidates = (float(f"{exact:.{digits}g}") for digits in range(1, _FLOAT32_DIGITS))
    return next((short for short in candidates if _packed(short) == packed), float(f"{exact:.{_FLOAT32_DIGITS}g}"))


def _packed(number: float) -> bytes:
    try:
        return struct.pack("<f", number)
    except OverflowError:
        return b""
