"""The output of `ostore show`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes

if TYPE_CHECKING:
    from ostore.operations.show import ShownModel

# Rows of a terminal; --license shows the whole text.
_EXCERPT_LINES = 4


def text(shown: ShownModel) -> str:
    config = shown.config
    facts = (
        ("name", shown.name),
        ("id", shown.digest.removeprefix("sha256:")[:12]),
        ("size", human_bytes(shown.size)),
        ("format", config.model_format),
        ("family", config.model_family),
        ("parameters", config.parameter_size),
        ("quantization", config.quantization),
        ("context length", str(config.context_length or "")),
        ("embedding length", str(config.embedding_length or "")),
        ("renderer", config.renderer),
        ("parser", config.parser),
        ("requires", f"Ollama {config.requires}" if config.requires else ""),
        ("runs on", f"{config.remote_host} as {config.remote_model}" if config.is_cloud_stub else ""),
    )
    sections = [("Model", [f"{key:<18}{value}" for key, value in facts if value])]
    sections.append(("Capabilities", list(config.capabilities)))
    sections.append(("Parameters", [f"{entry.key:<18}{_quoted(entry.value)}" for entry in shown.parameters]))
    sections.append(("System", shown.system.splitlines()))
    sections.append(("License", [line for text in shown.licenses for line in text.splitlines()[:_EXCERPT_LINES]]))
    sections.append(("Layers", _layer_lines(shown)))
    return "\n".join(_section(title, lines) for title, lines in sections if lines).rstrip("\n")


def parameters(shown: ShownModel) -> str:
    """The parameters as `ollama show --parameters` prints them."""
    return "".join(f"{entry.key:<30} {_quoted(entry.value)}\n" for entry in shown.parameters)


def _layer_lines(shown: ShownModel) -> list[str]:
    lines = [
        f"{layer.digest.removeprefix('sha256:')[:12]}  {human_bytes(layer.size):<10}{layer.media_type}"
        for layer in shown.layers
    ]
    hidden = len(lines) - 12
    return lines if hidden <= 0 else [*lines[:12], f"and {hidden} more (--manifest shows all)"]


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([f"  {title}", *(f"    {line}" for line in lines), ""])


def _quoted(value: object) -> str:
    from ostore.formats.modelfile import parameter_text

    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else parameter_text(value)
