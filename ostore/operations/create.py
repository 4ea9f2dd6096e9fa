"""
Make the manifest, config and texts of a model from a Modelfile: the bytes and the order of a server's `create`.

Source: createModel in server/create.go of ollama at fb30760. Weights are known by their digest and header alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ostore.formats import media_types
from ostore.formats.config import ModelConfig
from ostore.formats.digest import Digest
from ostore.formats.json_writing import sorted_keys, write_go_json
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.manifest_writing import NewConfig, write_config, write_manifest
from ostore.formats.modelfile_reading import Modelfile

# Renderer and parser of these architectures, if the Modelfile and the model that it builds on name none.
_RENDERERS = {
    "gemma4": "gemma4",
    "laguna": "laguna",
    "nemotron_h": "nemotron-3-nano",
    "nemotron_h_moe": "nemotron-3-nano",
    "nemotron_h_omni": "nemotron-3-nano",
}
_STOPS = {"gemma4": ["<turn|>"]}


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a layer of weights says: its architecture, and the labels of its size and quantization."""

    architecture: str
    parameter_size: str
    quantization: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that a model begins with. `header` is that of a GGUF, or None for any other layer."""

    blob: Descriptor
    header: Header | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """What a model of the store hands down besides its layers: its config, and the values of its params layers."""

    config: ModelConfig = field(default_factory=ModelConfig)
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewModel:
    """A manifest, and the blobs that are new: its config and texts, by digest."""

    manifest: Manifest
    blobs: Mapping[Digest, bytes]


def new_model(modelfile: Modelfile, layers: Sequence[Layer], base: Base | None = None) -> NewModel:
    """
    Return the model that a Modelfile makes of layers: those of the model that it builds on, or files, in their order.
    """
    base = base or Base()
    composing = _Composing([layer.blob for layer in layers])
    config = _config(modelfile, layers, base.config)
    if modelfile.template:
        composing.replace(media_types.TEMPLATE, modelfile.template.encode())
    # An empty text cannot take an inherited one away.
    if modelfile.system:
        composing.replace(media_types.SYSTEM, modelfile.system.encode())
    for text in modelfile.licenses:
        composing.append(media_types.LICENSE, text.encode())
    if parameters := _parameters(modelfile, layers, base):
        composing.replace(media_types.PARAMS, write_go_json(sorted_keys(parameters)))
    if modelfile.messages:
        messages = [{"role": role, "content": content} for role, content in modelfile.messages]
        composing.replace(media_types.MESSAGES, write_go_json(messages))
    described = composing.new(media_types.CONFIG, write_config(config))
    return NewModel(Manifest.parse(write_manifest(described, composing.layers)), composing.blobs)


class _Composing:
    """The layers so far, and the bytes of the new ones."""

    def __init__(self, layers: list[Descriptor]) -> None:
        self.layers = layers
        self.blobs: dict[Digest, bytes] = {}

    def new(self, media_type: str, data: bytes) -> Descriptor:
        digest = Digest.of(data)
        self.blobs[digest] = data
        return Descriptor(digest, len(data), media_type)

    def append(self, media_type: str, data: bytes) -> None:
        self.layers.append(self.new(media_type, data))

    def replace(self, media_type: str, data: bytes) -> None:
        self.layers = [layer for layer in self.layers if layer.media_type != media_type]
        self.append(media_type, data)


def _config(modelfile: Modelfile, layers: Sequence[Layer], inherited: ModelConfig) -> NewConfig:
    """Return the config: what the Modelfile says, then what is inherited, then what the headers say."""
    headers = _headers(layers, media_types.MODEL)
    drafts = _headers(layers, media_types.DRAFT)
    renderer, parser = modelfile.renderer or inherited.renderer, modelfile.parser or inherited.parser
    for header in headers:
        renderer = renderer or _RENDERERS.get(header.architecture, "")
        parser = parser or _RENDERERS.get(header.architecture, "")
    return NewConfig(
        model_format=inherited.model_format or ("gguf" if headers else ""),
        model_family=next((header.architecture for header in headers), ""),
        model_families=tuple(header.architecture for header in headers),
        parameter_size=next((header.parameter_size for header in headers), ""),
        quantization=next((header.quantization for header in headers), ""),
        renderer=renderer,
        parser=parser,
        requires=modelfile.requires or inherited.requires,
        capabilities=inherited.capabilities,
        draft_architecture=drafts[-1].architecture if drafts else None,
    )


def _parameters(modelfile: Modelfile, layers: Sequence[Layer], base: Base) -> dict[str, object]:
    """Return what the Modelfile sets, and what it does not set and the base has. A list is replaced, not extended."""
    parameters: dict[str, object] = dict(modelfile.parameters)
    lacks_renderer = not ((modelfile.renderer or base.config.renderer) and (modelfile.parser or base.config.parser))
    if lacks_renderer:
        # This comes before what is inherited, as there.
        for header in _headers(layers, media_types.MODEL):
            if header.architecture in _STOPS:
                parameters.setdefault("stop", _STOPS[header.architecture])
    return {**base.parameters, **parameters}


def _headers(layers: Sequence[Layer], media_type: str) -> list[Header]:
    return [layer.header for layer in layers if layer.blob.media_type == media_type and layer.header is not None]
