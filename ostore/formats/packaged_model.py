"""
GGUF models as other programs package them for registries, and what Ollama calls the same files.

A package of Docker or of the CNCF's ModelPack lists raw files, so a manifest of Ollama's can list the very same blobs.
Only the config is written anew. Equal packages give equal bytes.

Source: modelpack/model-spec v0.0.7, and docker/model-runner (pkg/distribution/types).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ostore.formats import media_types, model_pack
from ostore.formats.digest import Digest
from ostore.formats.errors import ForeignManifestError, FormatError
from ostore.formats.json_reading import read_strict_json
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.manifest_writing import NewConfig, write_config, write_manifest

_DOCKER = "application/vnd.docker.ai."
_CNCF = "application/vnd.cncf.model."
_DOCKER_TYPES = {
    f"{_DOCKER}gguf.v3": media_types.MODEL,
    f"{_DOCKER}mmproj": media_types.PROJECTOR,
    f"{_DOCKER}license": media_types.LICENSE,
}
# What files of a ModelPack are, by type and name. The small ones have the names that `model_pack` gives them.
_CNCF_FILES = (
    (model_pack.WEIGHT, r"mmproj.*", media_types.PROJECTOR),
    (model_pack.WEIGHT, r"adapter.*", media_types.ADAPTER),
    (model_pack.WEIGHT, r"draft.*", media_types.DRAFT),
    (model_pack.WEIGHT, r"(.*\.gguf)?", media_types.MODEL),
    (model_pack.WEIGHT_CONFIG, r"template", media_types.TEMPLATE),
    (model_pack.WEIGHT_CONFIG, r"system", media_types.SYSTEM),
    (model_pack.WEIGHT_CONFIG, r"params\.json", media_types.PARAMS),
    (model_pack.WEIGHT_CONFIG, r"messages\.json", media_types.MESSAGES),
    (model_pack.DOC, r"license.*", media_types.LICENSE),
)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model of Ollama's that has the files of a package: its manifest, and the bytes of its config."""

    manifest: Manifest
    config: bytes


def is_package(manifest: Manifest) -> bool:
    """Whether a manifest is that of a packaged model, of whatever files."""
    return any(kind.startswith((_DOCKER, _CNCF)) for kind in manifest.layer_types)


def packaged_model(package: Manifest, config: bytes) -> PackagedModel:
    """
    Return the model that a package holds. `config` is the package's own.

    Raises ForeignManifestError for a package of other weights than one GGUF file, FormatError for a config that is
    none, and what `Manifest.parse` raises.
    """
    layers = tuple(_layers(package))
    weights = [layer for layer in layers if layer.media_type == media_types.MODEL]
    if len(weights) != 1:
        types = ", ".join(sorted(set(package.layer_types)))
        raise ForeignManifestError(f"expected a package of one GGUF file, got {len(weights)} of them ({types:.200})")
    told = _told(config)
    label = told.get("format", "gguf")
    if label.lower() != "gguf":
        raise ForeignManifestError(f"a package of {label} files; Ollama runs GGUF")
    family = told.get("architecture") or told.get("family", "")
    written = write_config(
        NewConfig(
            model_format="gguf",
            model_family=family,
            model_families=(family,) if family else (),
            parameter_size=(told.get("paramSize") or told.get("parameters", "")).upper(),
            quantization=told.get("quantization", "").removeprefix("MOSTLY_"),
            renderer="",
            parser="",
            requires="",
            capabilities=(),
            draft_architecture=None,
        )
    )
    described = Descriptor(Digest.of(written), len(written), media_types.CONFIG)
    return PackagedModel(Manifest.parse(write_manifest(described, layers)), written)


def _layers(package: Manifest) -> Iterator[Descriptor]:
    """Yield the layers that mean something to Ollama, with its types."""
    paths = _paths(package)
    for number, layer in enumerate(package.layers):
        path = paths.get(number, "").lower()
        meant = (
            kind
            for media_type, name, kind in _CNCF_FILES
            if layer.media_type == media_type and re.fullmatch(name, path)
        )
        if kind := _DOCKER_TYPES.get(layer.media_type) or next(meant, None):
            yield Descriptor(layer.digest, layer.size, kind)


def _paths(package: Manifest) -> dict[int, str]:
    """Return the names of the files, by the number of the layer."""
    # The manifest reads keys of any case, and this reads the usual ones.
    layers = read_strict_json(package.raw).get("layers") or ()
    found = {}
    for number, layer in enumerate(layers):
        annotations = layer.get("annotations")
        path = annotations.get(model_pack.FILEPATH) if isinstance(annotations, dict) else None
        if isinstance(path, str):
            found[number] = path.rpartition("/")[2]
    return found


def _told(config: bytes) -> Mapping[str, str]:
    """Return what a config says of the model, as far as it can be read. Both kinds nest it in the same way."""
    document = read_strict_json(config)
    if not isinstance(document, dict):
        raise FormatError("config: expected an object")
    found = {}
    for part in ("descriptor", "config"):
        members = document.get(part)
        for name, value in members.items() if isinstance(members, dict) else ():
            text = value.replace(" ", "") if isinstance(value, str) else ""
            if _LABEL.fullmatch(text):
                found[name] = text
    return found
