"""
What a model can do, in Ollama's words and order, from its config, its template and the headers of its weights.

Source: server/images.go and model/parsers at fb30760. Of a model with a Go template and a chat template in the header,
Ollama uses the one with which it can do more; which texts it compares besides is left out here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ostore.formats.config import ModelConfig
from ostore.formats.gguf import Gguf
from ostore.formats.gguf_facts import chat_template, is_embedding

_ACTION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_FIELD = re.compile(r"\.([A-Za-z]\w*)")
# Parsers that read calls of tools but no thoughts, thoughts but no calls, and neither. All others read both.
_WITHOUT_THINKING = frozenset(
    {
        "functiongemma", "gemma4-no-thinking", "glm-ocr", "lfm2", "ministral", "olmo3", "qwen3", "qwen3-coder",
        "qwen3-vl-instruct",
    }
)  # fmt: skip
_WITHOUT_TOOLS = frozenset({"olmo3-think"})
_WITH_BOTH = frozenset(
    {
        "cogito", "cohere", "deepseek3", "gemma4", "glimmer", "glm-4.7", "harmony", "laguna", "lfm2-thinking",
        "nemotron-3-nano", "nemotron-3.5-nano", "ornith", "poolside-v1", "qwen3-thinking", "qwen3-vl-thinking",
        "qwen3.5",
    }
)  # fmt: skip
_GPT_OSS = frozenset({"gptoss", "gpt-oss"})
_NO_SOUND_YET = "nemotron_h_omni"


def capabilities(
    config: ModelConfig, template: str, gguf: Gguf | None = None, projectors: Sequence[Gguf] = ()
) -> tuple[str, ...]:
    """Return what a model can do. `gguf` is the header of its weights, None if it has none or it is not known."""
    of_go, of_header = _of_go_template(template), _of_chat_template(chat_template(gguf) if gguf else "")
    is_rendered = bool(config.renderer or config.parser) or config.model_family in _GPT_OSS
    uses_header = not is_rendered and (not template or len(of_header) > len(of_go))
    found = [*config.capabilities, *(of_header if uses_header else ())]
    found += _of_weights(gguf) if gguf else ()
    found += ["vision", *(["audio"] if any(map(_hears, projectors)) else [])] if projectors else ()
    found += () if uses_header else of_go
    found += _of_parser(config.parser)
    found += ["thinking"] if config.model_family in _GPT_OSS else ()
    is_silent = _NO_SOUND_YET in {config.model_family, gguf.architecture if gguf else ""}
    return tuple(word for word in dict.fromkeys(found) if word != "audio" or not is_silent)


def _of_weights(gguf: Gguf) -> list[str]:
    found = ["embedding" if is_embedding(gguf) else "completion"]
    return found + [sense for sense in ("vision", "audio") if _has(gguf, f"{sense}.block_count")]


def _of_chat_template(template: str) -> list[str]:
    return [*(["tools"] if "tools" in template or "tool_call" in template else []), *_thoughts(template)]


def _thoughts(template: str) -> list[str]:
    if "<think>" in template and "</think>" in template:
        return ["thinking"]
    splits = "content.split('</think>')" in template or 'content.split("</think>")' in template
    return ["thinking"] if splits and "reasoning_content" not in template and "<SPECIAL_12>" not in template else []


def _of_go_template(template: str) -> list[str]:
    fields = {field.lower() for action in _ACTION.findall(template) for field in _FIELD.findall(action)}
    words = (("tools", "tools"), ("suffix", "insert"), ("thinking", "thinking"))
    return [capability for field, capability in words if field in fields]


def _of_parser(parser: str) -> list[str]:
    reads_tools = parser in _WITH_BOTH or parser in _WITHOUT_THINKING
    reads_thoughts = parser in _WITH_BOTH or parser in _WITHOUT_TOOLS
    return [*(["tools"] if reads_tools else []), *(["thinking"] if reads_thoughts else [])]


def _has(gguf: Gguf, key: str) -> bool:
    return gguf.has(f"{gguf.architecture}.{key}")


def _hears(projector: Gguf) -> bool:
    if projector.text("vision.projector_type") == "gemma3nv":
        return False
    return any(key.endswith("has_audio_encoder") and field.value is True for key, field in projector.fields.items())
