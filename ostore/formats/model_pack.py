"""
A model as the CNCF's ModelPack describes it (modelpack/model-spec, v0.0.7): another manifest of the same blobs.

Its layers are raw files, so the weights are the blob that Ollama has. Equal models give equal bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from ostore.formats import media_types
from ostore.formats.config import ModelConfig
from ostore.formats.digest import Digest
from ostore.formats.json_reading import write_canonical_json
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.parts import parts_of

ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"
FILEPATH = "org.cncf.model.filepath"
TAG_SUFFIX = "-modelpack"
# What each layer of Ollama's is in a ModelPack, and the name of its file.
_LAYERS = {
    media_types.MODEL: (WEIGHT, "model.gguf"),
    media_types.PROJECTOR: (WEIGHT, "mmproj.gguf"),
    media_types.ADAPTER: (WEIGHT, "adapter.gguf"),
    media_types.DRAFT: (WEIGHT, "draft.gguf"),
    media_types.TEMPLATE: (WEIGHT_CONFIG, "template"),
    media_types.PROMPT: (WEIGHT_CONFIG, "template"),
    media_types.SYSTEM: (WEIGHT_CONFIG, "system"),
    media_types.PARAMS: (WEIGHT_CONFIG, "params.json"),
    media_types.MESSAGES: (WEIGHT_CONFIG, "messages.json"),
    media_types.LICENSE: (DOC, "LICENSE"),
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9])?)([KMBT])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelPack:
    """The bytes of a ModelPack's config and manifest."""

    config: bytes
    manifest: bytes

    @property
    def described(self) -> Descriptor:
        """The descriptor of the config."""
        return Descriptor(Digest.of(self.config), len(self.config), CONFIG)


def model_pack(name: ModelName, manifest: Manifest, config: ModelConfig) -> ModelPack:
    """Return the ModelPack of a model of GGUF files. Raises FormatError or NotFoundError for any other model."""
    parts_of(name, manifest, config)
    layers: dict[Digest, tuple[Descriptor, str, str]] = {}
    taken: dict[str, int] = {}
    for layer in manifest.layers:
        if layer.media_type in _LAYERS and layer.digest not in layers:
            media_type, path = _LAYERS[layer.media_type]
            taken[path] = taken.get(path, 0) + 1
            stem, dot, ending = path.partition(".")
            numbered = path if taken[path] == 1 else f"{stem}-{taken[path]}{dot}{ending}"
            layers[layer.digest] = (layer, media_type, numbered)
    described = write_canonical_json(
        {
            "descriptor": _filled(family=config.model_family, name=name.model, version=name.tag),
            "modelfs": {"type": "layers", "diffIds": [str(digest) for digest in layers]},
            "config": _filled(
                format="gguf", paramSize=_param_size(config.parameter_size), quantization=config.quantization
            ),
        }
    )
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": ARTIFACT,
        "config": _descriptor(Descriptor(Digest.of(described), len(described)), CONFIG),
        "layers": [
            {**_descriptor(layer, media_type), "annotations": {FILEPATH: path}}
            for layer, media_type, path in layers.values()
        ],
    }
    return ModelPack(described, write_canonical_json(document))


def is_pack_of(name: ModelName, names: Collection[ModelName]) -> bool:
    """Whether a name is that of a ModelPack which `push` has put beside one of these models."""
    bare = name.tag.removesuffix(TAG_SUFFIX)
    return bare != name.tag and bool(bare) and ModelName(name.host, name.namespace, name.model, bare) in names


def _descriptor(blob: Descriptor, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(blob.digest), "size": blob.size}


def _filled(**members: str) -> dict[str, str]:
    return {name: value for name, value in members.items() if value}


def _param_size(label: str) -> str:
    """Return `8b` for Ollama's `8.0B`, or nothing for what is no such size."""
    found = _SIZE.fullmatch(label)
    return f"{found[1].removesuffix('.0')}{found[2].lower()}" if found else ""
