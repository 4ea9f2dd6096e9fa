"""The output of `ostore show`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, one_line
from ostore.formats import media_types

if TYPE_CHECKING:
    from ostore.operations.show import ShownModel
    from ostore.operations.weights import ShownKey, ShownWeights

# Rows of a terminal; --license shows the whole text.
_EXCERPT_LINES = 4
# Of a value in a header; --json has the whole.
_VALUE_CHARACTERS = 80
_MAIN = frozenset({media_types.MODEL, media_types.TENSOR})
_NOTHING_KNOWN = "unknown"


def text(shown: ShownModel, *, verbose: bool = False) -> str:
    config = shown.config
    main = next((weights for weights in reversed(shown.weights) if weights.media_type in _MAIN), None)
    known = main if main and not main.unknown else None
    quantization = config.quantization if config.quantization not in {"", _NOTHING_KNOWN} else ""
    facts = (
        ("name", shown.name),
        ("id", _short(shown.digest)),
        ("size", human_bytes(shown.size)),
        ("format", config.model_format),
        ("architecture", (known and known.architecture) or config.model_family),
        ("parameters", config.parameter_size or (known.parameter_size if known else "")),
        ("context length", str(config.context_length or (known and known.context_length) or "")),
        ("embedding length", str(config.embedding_length or (known and known.embedding_length) or "")),
        ("quantization", quantization or (known.quantization if known else config.quantization)),
        ("renderer", config.renderer),
        ("parser", config.parser),
        ("requires", f"Ollama {config.requires}" if config.requires else ""),
        ("runs in", shown.runs_in),
        ("runs on", f"{config.remote_host} as {config.remote_model}" if config.is_cloud_stub else ""),
    )
    sections = [("Model", [f"{key:<18}{value}" for key, value in facts if value])]
    sections.append(("Not known", [f"{_kind(entry):<18}{entry.unknown}" for entry in shown.weights if entry.unknown]))
    sections.append(("Capabilities", list(shown.capabilities)))
    sections += [("Projector", _projector(entry)) for entry in shown.weights if _kind(entry) == "projector"]
    sections.append(("Parameters", [f"{entry.key:<18}{_quoted(entry.value)}" for entry in shown.parameters]))
    sections.append(("System", shown.system.splitlines()))
    sections.append(("License", [line for text in shown.licenses for line in text.splitlines()[:_EXCERPT_LINES]]))
    sections.append(("Layers", _layer_lines(shown)))
    if verbose:
        for entry in shown.weights:
            of = f"{_kind(entry)} {_short(entry.digest)}"
            sections.append((f"Metadata, {of}", _metadata(entry.metadata)))
            tensors = [(tensor.name, tensor.type, "x".join(map(str, tensor.shape))) for tensor in entry.tensors]
            sections.append((f"Tensors, {of}", [f"{name:<40} {kind:<8} {shape}" for name, kind, shape in tensors]))
    return "\n".join(_section(title, lines) for title, lines in sections if lines).rstrip("\n")


def parameters(shown: ShownModel) -> str:
    """The parameters as `ollama show --parameters` prints them."""
    return "".join(f"{entry.key:<30} {_quoted(entry.value)}\n" for entry in shown.parameters)


def _kind(entry: ShownWeights) -> str:
    return entry.media_type.rpartition(".")[2]


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _projector(entry: ShownWeights) -> list[str]:
    facts = (
        ("architecture", entry.architecture),
        ("parameters", "" if entry.unknown else entry.parameter_size),
        ("embedding length", str(entry.embedding_length or "")),
        ("dimensions", str(entry.projection or "")),
    )
    return [f"{key:<18}{value}" for key, value in facts if value]


def _metadata(keys: Sequence[ShownKey]) -> list[str]:
    return [f"{entry.key:<40} {_value(entry)}" for entry in sorted(keys, key=lambda entry: entry.key)]


def _value(entry: ShownKey) -> str:
    if entry.count is not None:
        return f"{entry.count:,} x {entry.type}"
    value = f"{entry.value:g}" if isinstance(entry.value, float) else str(entry.value)
    value = value.lower() if isinstance(entry.value, bool) else one_line(value)
    return value if len(value) <= _VALUE_CHARACTERS else f"{value[:_VALUE_CHARACTERS]}..."


def _layer_lines(shown: ShownModel) -> list[str]:
    lines = [f"{_short(layer.digest)}  {human_bytes(layer.size):<10}{layer.media_type}" for layer in shown.layers]
    hidden = len(lines) - 12
    return lines if hidden <= 0 else [*lines[:12], f"and {hidden} more (--manifest shows all)"]


def _section(title: str, lines: list[str]) -> str:
    # A text from a header or a config must not look like a line of ours.
    return "\n".join([f"  {title}", *(f"    {one_line(line)}" for line in lines), ""])


def _quoted(value: object) -> str:
    from ostore.formats.modelfile import parameter_text

    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else parameter_text(value)
