"""What a model can do, as Ollama's rules say from its config, its template and its headers."""

from __future__ import annotations

import pytest

from ostore.formats.capabilities import capabilities
from ostore.formats.config import ModelConfig
from ostore.formats.gguf import Gguf
from tests.gguf import Value
from tests.test_gguf_facts import made

PLAIN = ModelConfig()
THINKS = "{{ range .Messages }}<think>{{ .Thinking }}</think>{{ end }}"


def with_template(text: Value) -> Gguf:
    return made(tokenizer__chat_template=text)


@pytest.mark.parametrize(
    ("gguf", "expected"),
    [
        (made(), ("completion",)),
        (made(llama__pooling_type=1), ("embedding",)),
        (made(llama__vision__block_count=1), ("completion", "vision")),
        (made(llama__audio__block_count=1), ("completion", "audio")),
        (made("nemotron_h_omni", nemotron_h_omni__audio__block_count=1), ("completion",)),
        (with_template("{% if tools %}<think></think>"), ("tools", "thinking", "completion")),
        (with_template("tool_call"), ("tools", "completion")),
        (with_template("content.split('</think>')"), ("thinking", "completion")),
        (with_template("content.split('</think>') reasoning_content"), ("completion",)),
        (with_template("content.split('</think>') <SPECIAL_12>"), ("completion",)),
    ],
)
def test_a_header_says_what_a_model_can_do(gguf: Gguf, expected: tuple[str, ...]) -> None:
    assert capabilities(PLAIN, "", gguf) == expected


@pytest.mark.parametrize(
    ("config", "template", "expected"),
    [
        (PLAIN, "{{ .Prompt }} tools .Tools", ("completion",)),
        (PLAIN, "{{- if .Tools }}{{ end }}{{ .Suffix }}", ("completion", "tools", "insert")),
        (PLAIN, "{{ $.tools }}", ("completion", "tools")),
        (PLAIN, THINKS, ("completion", "thinking")),
        (ModelConfig(capabilities=("tools", "vision")), "{{ .Tools }}", ("tools", "vision", "completion")),
        (ModelConfig(parser="qwen3-coder"), "", ("completion", "tools")),
        (ModelConfig(parser="olmo3-think"), "", ("completion", "thinking")),
        (ModelConfig(parser="harmony"), "", ("completion", "tools", "thinking")),
        (ModelConfig(parser="passthrough"), "", ("completion",)),
        (ModelConfig(model_family="gptoss"), "", ("completion", "thinking")),
    ],
)
def test_a_config_and_a_template_say_more(config: ModelConfig, template: str, expected: tuple[str, ...]) -> None:
    assert capabilities(config, template, made()) == expected


@pytest.mark.parametrize(
    ("config", "template", "expected"),
    [
        (PLAIN, "{{ .Suffix }}", ("completion", "insert")),
        (PLAIN, "{{ .Prompt }}", ("tools", "completion")),
        (ModelConfig(renderer="x"), "", ("completion",)),
        (ModelConfig(model_family="gpt-oss"), "", ("completion", "thinking")),
    ],
)
def test_of_two_templates_one_counts(config: ModelConfig, template: str, expected: tuple[str, ...]) -> None:
    assert capabilities(config, template, with_template("tools")) == expected


@pytest.mark.parametrize(
    ("projector", "expected"),
    [
        (made("clip"), ("completion", "vision")),
        (made("clip", clip__has_audio_encoder=True), ("completion", "vision", "audio")),
        (made("clip", clip__has_audio_encoder=False), ("completion", "vision")),
        (made("clip", clip__has_audio_encoder=True, clip__vision__projector_type="gemma3nv"), ("completion", "vision")),
    ],
)
def test_a_projector_adds_to_it(projector: Gguf, expected: tuple[str, ...]) -> None:
    assert capabilities(PLAIN, "", made(), [projector]) == expected


def test_without_a_header_the_rest_still_counts() -> None:
    assert capabilities(ModelConfig(capabilities=("image",)), "{{ .Tools }}") == ("image", "tools")
