"""The media types that ostore treats specially. It carries layers of all other types unchanged."""

from __future__ import annotations

from collections.abc import Sequence

_PREFIX = "application/vnd.ollama.image."
# ollama server/images.go and manifest/layer.go at fb30760.
MODEL = "application/vnd.ollama.image.model"
ADAPTER = "application/vnd.ollama.image.adapter"
PROJECTOR = "application/vnd.ollama.image.projector"
DRAFT = "application/vnd.ollama.image.draft"
TEMPLATE = "application/vnd.ollama.image.template"
# Only the first releases wrote it. Ollama still reads it as a template.
PROMPT = "application/vnd.ollama.image.prompt"
SYSTEM = "application/vnd.ollama.image.system"
PARAMS = "application/vnd.ollama.image.params"
MESSAGES = "application/vnd.ollama.image.messages"
LICENSE = "application/vnd.ollama.image.license"
TENSOR = "application/vnd.ollama.image.tensor"
CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# OCI image specification 1.1, media-types.md. skopeo and podman take Ollama's manifests under this type only.
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"

# The layers with weights in a file of their own.
WEIGHTS = frozenset({MODEL, PROJECTOR, ADAPTER, DRAFT})

# A set, because ostore looks up every layer of every manifest.
KNOWN = frozenset(
    {MODEL, TENSOR, CONFIG, MANIFEST, TEMPLATE, PARAMS, LICENSE, SYSTEM, MESSAGES, PROJECTOR, ADAPTER, DRAFT, PROMPT}
)


def foreign_kind(types: Sequence[str]) -> str:
    """Return what layers of these types make, if none is of a model of Ollama. Else nothing."""
    if not types or any(kind.startswith(_PREFIX) for kind in types):
        return ""
    return f"no model, but something with layers of type {types[0]!r:.90}"
