"""Write the two documents of a model byte for byte as a server's `create` does, since Ollama 0.32.7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ostore.formats import media_types
from ostore.formats.json_writing import write_go_json
from ostore.formats.manifest import Descriptor


@dataclass(frozen=True, slots=True)
class NewConfig:
    """
    The fields of the config of a model that a server creates: types/model/config.go at fb30760.

    `draft_architecture` is that of a draft model in the same manifest, or None if there is none.
    """

    model_format: str
    model_family: str
    model_families: tuple[str, ...]
    parameter_size: str
    quantization: str
    renderer: str
    parser: str
    requires: str
    capabilities: tuple[str, ...]
    draft_architecture: str | None


def write_config(config: NewConfig) -> bytes:
    """Return the config blob. Fields without a value are left out, but for those that Go always writes."""
    draft = None
    if config.draft_architecture is not None:
        draft = _with_values({"model_format": "gguf", "architecture": config.draft_architecture})
    document = {
        "model_format": config.model_format,
        "model_family": config.model_family,
        # Go writes a list that nothing was put into as null.
        "model_families": config.model_families or None,
        "model_type": config.parameter_size,
        "file_type": config.quantization,
        **_with_values(
            {
                "renderer": config.renderer,
                "parser": config.parser,
                "requires": config.requires,
                "capabilities": config.capabilities,
                "draft": draft,
            }
        ),
        # On every platform.
        "architecture": "amd64",
        "os": "linux",
    }
    return write_go_json(document)


def write_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """Return the manifest of a config and layers: manifest/manifest.go at fb30760."""
    return write_go_json(
        {
            "schemaVersion": 2,
            "mediaType": media_types.MANIFEST,
            "config": _written(config),
            "layers": [_written(layer) for layer in layers] or None,
        }
    )


def _written(blob: Descriptor) -> dict[str, object]:
    named = _with_values({"from": blob.origin, "name": blob.layer_name})
    return {"mediaType": blob.media_type, "digest": str(blob.digest), "size": blob.size, **named}


def _with_values(members: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in members.items() if value}
