"""
A container image that carries a store (image-spec v1.1.1: config.md, layer.md, manifest.md), in one tar that is both an
OCI image layout and a `docker save` archive: Docker without its containerd store takes no layout.

Each blob of some size is a layer of its own, so images share layers as models share blobs. Small blobs and the
manifests are in the last layer. All bytes follow from the models: no time, no user and no machine is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ostore.formats.digest import Digest
from ostore.formats.errors import UsageError
from ostore.formats.json_reading import write_canonical_json
from ostore.formats.manifest import Descriptor
from ostore.formats.name import DEFAULT_HOST, DEFAULT_NAMESPACE, ModelName
from ostore.formats.oci_layout import BLOBS as BLOBS_IN_LAYOUT
from ostore.formats.oci_layout import INDEX, LAYOUT, OCI_INDEX, OCI_MANIFEST, REF_NAME, layout_document
from ostore.formats.selection import SelectedModel, Selection
from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.formats.tar_header import END_OF_ARCHIVE, folder_header, member_length

DEFAULT_AT = "/models"
# What `docker load` reads; the layout has the same blobs.
DOCKER_INDEX = "manifest.json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_IMAGE_NAME = "io.containerd.image.name"
# A layer costs a registry a few requests, so texts and configs get none of their own.
_OWN_LAYER_BYTES = 64 * 1024
# Docker takes 125 layers (maxLayerDepth in its layer store), and an image may be built on this one. Of more blobs, the
# largest have layers of their own.
_MOST_OWN_LAYERS = 100
# Nothing here was made at any time. Programs want to read one.
_CREATED = "1970-01-01T00:00:00Z"
# Models run on any processor. Docker, podman and containerd look at it in lists of images only.
_ARCHITECTURE, _OS = "amd64", "linux"
# Docker's grammar of a part of a repository (distribution/reference), and so much of a name as fits into 255.
_REFERENCE_PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_MAX_REFERENCE_CHARACTERS = 100
# An image that is here and nowhere else: podman calls its own so, and Docker does not look for it on Docker Hub.
_REGISTRY = "localhost"
_MAX_AT_CHARACTERS = 200
_AT_PART = re.compile(r"(?!\.{1,2}$)(?!\.wh\.)[A-Za-z0-9._@+-]+")
# A label is a line to read.
_MOST_NAMES = 20


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a layer: its path, and the blob or manifest that it has."""

    path: str
    blob: Descriptor


@dataclass(frozen=True)
class ImagePlan:
    """
    How models become an image: the layers, each by its files, which stand below the folder `at` of the image.

    The last layer also has the manifests, behind its blobs.
    """

    selection: Selection
    at: str

    @cached_property
    def layers(self) -> tuple[tuple[Member, ...], ...]:
        """The blobs of each layer. The last may have none."""
        large = [blob for blob in self.selection.blobs if blob.size >= _OWN_LAYER_BYTES]
        chosen = {blob.digest for blob in sorted(large, key=lambda blob: -blob.size)[:_MOST_OWN_LAYERS]}
        own = [(self._member(blob),) for blob in self.selection.blobs if blob.digest in chosen]
        rest = tuple(self._member(blob) for blob in self.selection.blobs if blob.digest not in chosen)
        return (*own, rest)

    @cached_property
    def manifests(self) -> tuple[Member, ...]:
        """The manifest of each model, in the order of the selection."""
        return tuple(
            Member(self._path(MANIFESTS, *model.name.parts), Descriptor(model.manifest_digest, model.manifest_size))
            for model in self.selection.models
        )

    def members(self, number: int) -> tuple[Member, ...]:
        """Return all files of a layer."""
        return self.layers[number] + (self.manifests if number == len(self.layers) - 1 else ())

    def head(self, number: int) -> bytes:
        """Return the first bytes of a layer: the headers of the folders that its files are in, each before its own."""
        folders = {folder for member in self.members(number) for folder in _above(member.path)}
        return b"".join(map(folder_header, sorted(folders)))

    def size_of(self, number: int) -> int:
        """Return the size of a layer in bytes."""
        sizes = (member_length(member.path, member.blob.size) for member in self.members(number))
        return len(self.head(number)) + sum(sizes) + len(END_OF_ARCHIVE)

    @property
    def size(self) -> int:
        """The size of all layers in bytes. The file of the image is a little larger."""
        return sum(map(self.size_of, range(len(self.layers))))

    @property
    def reference(self) -> str:
        """The name of the image: that of its only model, as Docker can spell it."""
        names = [model.name for model in self.selection.models]
        return _reference(names[0]) if len(names) == 1 else f"{_REGISTRY}/models:latest"

    def documents(self, layers: Sequence[Descriptor]) -> Iterator[tuple[str, bytes]]:
        """Yield path and bytes of all that follows the layers: config, manifest, and what lists them."""
        config = self._config(layers)
        manifest = write_canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": _described(_CONFIG, _of(config)),
                "layers": [_described(_LAYER, layer) for layer in layers],
            }
        )
        annotations = {_IMAGE_NAME: self.reference, REF_NAME: self.reference}
        platform = {"architecture": _ARCHITECTURE, "os": _OS}
        listed = {**_described(OCI_MANIFEST, _of(manifest)), "annotations": annotations, "platform": platform}
        yield blob_path(_of(config).digest), config
        yield blob_path(_of(manifest).digest), manifest
        yield INDEX, write_canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]})
        yield (
            DOCKER_INDEX,
            write_canonical_json(
                [
                    {
                        "Config": blob_path(_of(config).digest),
                        "RepoTags": [self.reference],
                        "Layers": [blob_path(layer.digest) for layer in layers],
                    }
                ]
            ),
        )
        yield LAYOUT, layout_document()

    def _config(self, layers: Sequence[Descriptor]) -> bytes:
        labels = {
            "org.opencontainers.image.title": _listed(self.selection.models),
            "org.opencontainers.image.description": f"Models for Ollama: OLLAMA_MODELS={self.at}",
        }
        return write_canonical_json(
            {
                "architecture": _ARCHITECTURE,
                "os": _OS,
                "created": _CREATED,
                "config": {"Labels": labels},
                "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
                "history": [
                    {"created": _CREATED, "created_by": "ostore", "comment": self._told(number)}
                    for number in range(len(layers))
                ],
            }
        )

    def _told(self, number: int) -> str:
        if number == len(self.layers) - 1:
            return "manifests, and blobs of less than 64 KiB" if self.layers[number] else "manifests"
        return str(self.layers[number][0].blob.digest)

    def _member(self, blob: Descriptor) -> Member:
        return Member(self._path(BLOBS, blob.digest.filename), blob)

    def _path(self, *parts: str) -> str:
        return "/".join((*filter(None, self.at.split("/")), *parts))


def archive_head() -> bytes:
    """Return the first bytes of the archive: its folders. Without them, skopeo wants to be root to make them."""
    return b"".join(map(folder_header, _above("/".join((*BLOBS_IN_LAYOUT, "")))))


def parse_at(text: str) -> str:
    """Return the folder of an image that a person typed. Raises UsageError unless it is a plain absolute path."""
    parts = [part for part in text.split("/") if part]
    is_plain = text.startswith("/") and len(text) <= _MAX_AT_CHARACTERS and all(map(_AT_PART.fullmatch, parts))
    if not is_plain:
        raise UsageError(
            f"expected a folder in the image, as {DEFAULT_AT} is, got {text!r:.90}",
            hint="letters, digits and ._@+- between slashes",
            parameter="at",
        )
    return "/" + "/".join(parts)


def blob_path(digest: Digest) -> str:
    """Return the path of a blob in the archive."""
    return "/".join((*BLOBS_IN_LAYOUT, digest.hex))


def _above(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: number + 1]) + "/" for number in range(len(parts)))


def _of(raw: bytes) -> Descriptor:
    return Descriptor(Digest.of(raw), len(raw))


def _described(media_type: str, blob: Descriptor) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(blob.digest), "size": blob.size}


def _listed(models: Iterable[SelectedModel]) -> str:
    names = [str(model.name) for model in models]
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _reference(name: ModelName) -> str:
    is_official = name.namespace.lower() == DEFAULT_NAMESPACE
    parts = [
        *([] if name.host.lower() == DEFAULT_HOST else [name.host]),
        *([] if is_official and name.host.lower() == DEFAULT_HOST else [name.namespace]),
        name.model,
    ]
    spelled = ["-".join(_REFERENCE_PART.findall(part.lower()[:_MAX_REFERENCE_CHARACTERS])) for part in parts]
    return "/".join((_REGISTRY, *filter(None, spelled))) + f":{name.tag}"
