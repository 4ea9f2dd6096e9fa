"""
The documents of an OCI image layout (image-spec v1.1.1, image-layout.md and image-index.md), with models in it.

    oci-layout              says that this is one
    index.json              lists manifests, each with a name
    blobs/sha256/HEX        a manifest, config or layer

Whoever wrote a layout may be hostile or a program for images. So entries that are no models are no errors here: they
have a reason, and stay as they are when the index is written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ostore.formats.digest import Digest
from ostore.formats.errors import FormatError, InvalidNameError, LimitError, OstoreError, UnsafeError
from ostore.formats.json_reading import read_strict_json, write_canonical_json
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Descriptor
from ostore.formats.media_types import MANIFEST as DOCKER_MANIFEST
from ostore.formats.name import ModelName

LAYOUT, INDEX = "oci-layout", "index.json"
# The folder of blobs, a part of its path each.
BLOBS = ("blobs", "sha256")
# An entry has at least 200 bytes, so this is room for 80,000 models.
MAX_INDEX_BYTES = 16 * 1024 * 1024
# The file is {"imageLayoutVersion":"1.0.0"}; a later version may say more.
MAX_LAYOUT_BYTES = 64 * 1024
# All manifests together: they are in memory at once. A usual one has 1 kB, that of a model of 1,000 tensors 230 kB.
MAX_MANIFESTS_BYTES = 32 * 1024 * 1024

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
# skopeo and oras find a manifest by it.
REF_NAME = "org.opencontainers.image.ref.name"
# containerd writes the name here, and only the tag into REF_NAME.
_IMAGE_NAME = "io.containerd.image.name"
_VERSION, _VERSION_KEY = 1, "imageLayoutVersion"
_SCHEMA_VERSION = 2
_MAX_INT64 = 2**63 - 1
# Nobody calls a model so, but many a program leaves it as the only name.
_TAG_ALONE = "latest"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """
    One manifest of an index. `raw` is the whole entry as it was read, `text` its name as somebody wrote it, or empty.

    `name` and `manifest` are None if this is no model, and then `problem` says why. It is an error if this was meant
    for a model, and a sentence if it is something else, such as an image.
    """

    raw: Any
    text: str
    name: ModelName | None = None
    manifest: Descriptor | None = None
    problem: OstoreError | str = ""


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """What an `index.json` says. `raw` are all its members, so that nothing is lost when it is written anew."""

    raw: Mapping[str, Any]
    entries: tuple[IndexEntry, ...]

    @classmethod
    def empty(cls) -> ImageIndex:
        return cls({}, ())

    @classmethod
    def parse(cls, raw: bytes) -> ImageIndex:
        """
        Read an index. An entry that cannot be read has a problem.

        Raises FormatError, LimitError, and UnsafeError for a key that occurs twice, or a document that may also be
        read as a manifest (CVE-2021-41190).
        """
        if len(raw) > MAX_INDEX_BYTES:
            raise LimitError(f"{INDEX}: expected at most {MAX_INDEX_BYTES} bytes, got more")
        try:
            document = read_strict_json(raw, is_folded=True)
        except OstoreError as error:
            error.args = (f"{INDEX}: {error}",)
            raise
        if not isinstance(document, dict):
            raise FormatError(f"{INDEX}: expected an object")
        if {key.lower() for key in document} & {"config", "layers", "fslayers"}:
            raise UnsafeError(f"{INDEX}: both a manifest and a list of manifests in one document")
        if document.get("schemaVersion") != _SCHEMA_VERSION:
            raise FormatError(f"{INDEX}: expected schemaVersion 2, got {document.get('schemaVersion')!r:.40}")
        if document.get("mediaType") not in (None, OCI_INDEX):
            raise FormatError(f"{INDEX}: expected {OCI_INDEX}, got {document['mediaType']!r:.90}")
        listed = document.get("manifests")
        if not isinstance(listed, list):
            raise FormatError(f"{INDEX}: expected a list of manifests")
        index = cls(document, tuple(_entry(entry, f"{INDEX}: manifests[{at}]") for at, entry in enumerate(listed)))
        if sum(entry.manifest.size for entry in index.entries if entry.manifest) > MAX_MANIFESTS_BYTES:
            raise LimitError(f"{INDEX}: expected manifests of at most {MAX_MANIFESTS_BYTES} bytes in all, got more")
        return index

    def with_models(self, models: Iterable[tuple[ModelName, Descriptor]]) -> ImageIndex:
        """Return the index with these models in place of those of the same names. Other entries stay as they are."""
        made = {name.folded: _made(name, manifest) for name, manifest in models}
        stay = [entry for entry in self.entries if entry.name is None or entry.name.folded not in made]
        return ImageIndex(self.raw, (*stay, *made.values()))

    def write(self) -> bytes:
        """Return the bytes of the index. Raises LimitError if no reader would take them."""
        document = {
            **self.raw,
            "schemaVersion": _SCHEMA_VERSION,
            "mediaType": OCI_INDEX,
            "manifests": [entry.raw for entry in self.entries],
        }
        try:
            raw = write_canonical_json(document)
        except LimitError as error:
            raise LimitError(f"{INDEX}: {error}") from None
        # What the limits are is known to the reader alone.
        self.parse(raw)
        return raw


def layout_document() -> bytes:
    """Return the bytes of a file `oci-layout`."""
    return write_canonical_json({_VERSION_KEY: "1.0.0"})


def check_layout(raw: bytes) -> None:
    """Raises FormatError unless a file `oci-layout` is of version 1, LimitError, UnsafeError."""
    if len(raw) > MAX_LAYOUT_BYTES:
        raise LimitError(f"{LAYOUT}: expected at most {MAX_LAYOUT_BYTES} bytes, got more")
    try:
        document = read_strict_json(raw, is_folded=True)
    except OstoreError as error:
        error.args = (f"{LAYOUT}: {error}",)
        raise
    version = document.get(_VERSION_KEY) if isinstance(document, dict) else None
    if not isinstance(version, str) or version.partition(".")[0] != str(_VERSION):
        raise FormatError(f"{LAYOUT}: expected {_VERSION_KEY} 1, got {version!r:.40}")


def _made(name: ModelName, manifest: Descriptor) -> IndexEntry:
    raw = {
        # With the type of Docker, which is in the manifest itself, skopeo refuses layers of models.
        "mediaType": OCI_MANIFEST,
        "digest": str(manifest.digest),
        "size": manifest.size,
        "annotations": {REF_NAME: name.full},
    }
    return IndexEntry(raw, name.full, name, manifest)


def _entry(raw: object, where: str) -> IndexEntry:
    if not isinstance(raw, dict):
        return IndexEntry(raw, where, problem=FormatError(f"{where}: expected an object"))
    text = _name_of(raw)
    media_type = raw.get("mediaType")
    if media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
        kind = "a list of manifests" if "index" in str(media_type) or "list" in str(media_type) else "no manifest"
        return IndexEntry(raw, text or where, problem=f"{kind} ({media_type!r:.90}), and no model")
    try:
        return IndexEntry(raw, text, _model_name(text), _descriptor(raw))
    except OstoreError as error:
        return IndexEntry(raw, text or where, problem=error)


def _name_of(raw: Mapping[str, Any]) -> str:
    annotations = raw.get("annotations")
    found = annotations if isinstance(annotations, dict) else {}
    text = found.get(_IMAGE_NAME) or found.get(REF_NAME) or ""
    return text if isinstance(text, str) else ""


def _model_name(text: str) -> ModelName:
    if not text:
        raise InvalidNameError(f"a manifest without a name (annotation {REF_NAME})", hint=_RENAME)
    if text == _TAG_ALONE:
        raise InvalidNameError(f"{text!r}: a tag alone, and no name of a model", hint=_RENAME)
    try:
        return ModelName.parse(text)
    except InvalidNameError as error:
        raise InvalidNameError(f"no name of a model: {error}", hint=_RENAME) from None


_RENAME = "copy it there under the name of the model, as in skopeo copy ... oci:DIR:llama3:8b"


def _descriptor(raw: Mapping[str, Any]) -> Descriptor:
    digest, size = Digest.parse(raw.get("digest")), raw.get("size")
    if type(size) is not int or not 0 <= size <= _MAX_INT64:
        raise FormatError(f"size: expected 0 to 2^63-1 as an integer, got {size!r:.40}")
    if size > MAX_MANIFEST_BYTES:
        raise LimitError(f"manifest {digest}: expected at most {MAX_MANIFEST_BYTES} bytes, got {size}")
    return Descriptor(digest, size)
