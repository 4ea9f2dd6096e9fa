"""Show one model without a server, with the same values as `ollama show`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from ostore.formats import media_types
from ostore.formats.capabilities import capabilities
from ostore.formats.config import ModelConfig
from ostore.formats.dialect import NOWHERE, TENSORS, runs_in
from ostore.formats.digest import Digest
from ostore.formats.errors import (
    BlobMissingError,
    DigestMismatchError,
    FormatError,
    LimitError,
    SizeMismatchError,
)
from ostore.formats.gguf_facts import split_of
from ostore.formats.json_reading import read_strict_json
from ostore.formats.manifest import MAX_CONFIG_BYTES, Descriptor
from ostore.formats.parameters import as_go_has_it
from ostore.formats.remedy import Remedy, ostore
from ostore.operations.transfer import SmallBlobs, StoredManifest
from ostore.operations.weights import OpenedBlobs, ShownWeights, read_tensors, read_weights

# Licences of 100 kB and templates of 30 kB exist. Longer text is not meant to be read by a person.
MAX_TEXT_BYTES = 4 * 1024 * 1024

Part = Literal["template", "system", "license", "manifest", "config"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One setting of a params layer, its value as in JSON. A list in the layer becomes one `Parameter` per item."""

    key: str
    value: object


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation that a model starts with."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ShownLayer:
    """One descriptor of a manifest, with the size in bytes that the manifest declares."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ShownModel:
    """
    One model: the fields of its config, its text layers, and every descriptor, the config first.

    `size` is the bytes that the manifest declares, `modified` the manifest's mtime in seconds since 1970. `manifest`
    and `raw_config` are the bytes of the two documents. `capabilities` is what the model can do in Ollama's words.
    `runs_in` says which programs can load its weights; it is empty if these are not here or cannot be read. `weights`
    has the header of each layer with weights.
    """

    name: str
    digest: str
    size: int
    modified: float
    config: ModelConfig
    template: str
    system: str
    parameters: tuple[Parameter, ...]
    messages: tuple[Message, ...]
    licenses: tuple[str, ...]
    layers: tuple[ShownLayer, ...]
    manifest: bytes
    raw_config: bytes
    capabilities: tuple[str, ...]
    runs_in: str
    weights: tuple[ShownWeights, ...]


class _Blobs(SmallBlobs, OpenedBlobs, Protocol):
    pass


def show_model(store: _Blobs, model: StoredManifest) -> ShownModel:
    """
    Read a model's config, its text layers and the headers of its weights.

    Weights that are missing or damaged are told in the value. Raises BlobMissingError, SizeMismatchError or
    DigestMismatchError for a damaged small blob, DamagedStoreError for one that is not a regular file, FormatError for
    a small blob that is whole but not the JSON that it should be, LimitError, OSError.
    """
    manifest, texts = model.manifest, _Texts(store, model)
    config = texts.parsed(manifest.config, ModelConfig.parse, ModelConfig())
    template = _decoded(texts.template)
    headers = [
        (layer, *read_weights(store, layer)) for layer in manifest.layers if layer.media_type in media_types.WEIGHTS
    ]
    of_model = [gguf for layer, _, gguf in headers if gguf and layer.media_type == media_types.MODEL]
    projectors = [gguf for layer, _, gguf in headers if gguf and layer.media_type == media_types.PROJECTOR]
    weights = tuple(shown for _, shown, _ in headers)
    return ShownModel(
        name=str(model.name),
        digest=f"sha256:{manifest.model_id}",
        size=manifest.declared_size,
        modified=model.modified,
        config=config,
        template=template,
        system=_decoded(texts.system),
        parameters=texts.parsed(texts.last(media_types.PARAMS), _parameters, ()),
        messages=texts.parsed(texts.last(media_types.MESSAGES), _messages, ()),
        licenses=tuple(_decoded(text) for text in texts.licenses),
        layers=tuple(ShownLayer(layer.media_type, str(layer.digest), layer.size) for layer in manifest.descriptors),
        manifest=manifest.raw,
        raw_config=texts.config,
        # Ollama takes the last of several.
        capabilities=capabilities(config, template, of_model[-1] if of_model else None, projectors),
        runs_in=NOWHERE if any(map(split_of, of_model)) else _runs_in(manifest.layers, weights),
        weights=weights + read_tensors(store, manifest.layers),
    )


def _runs_in(layers: Sequence[Descriptor], weights: Sequence[ShownWeights]) -> str:
    if any(shown.unknown for shown in weights):
        return ""
    if weights:
        return runs_in(next((shown.dialect for shown in weights if shown.dialect), None))
    return TENSORS if any(layer.media_type == media_types.TENSOR for layer in layers) else ""


def read_part(store: SmallBlobs, model: StoredManifest, part: Part) -> bytes:
    """
    Return one part of a model byte for byte, empty if it has none. Several licences are joined by line breaks.

    Raises BlobMissingError, SizeMismatchError, DamagedStoreError for a blob that is not a regular file, LimitError,
    OSError.
    """
    texts = _Texts(store, model)
    readers: dict[Part, Callable[[], bytes]] = {
        "template": lambda: texts.template,
        "system": lambda: texts.system,
        "license": lambda: b"\n".join(texts.licenses),
        "manifest": lambda: model.manifest.raw,
        "config": lambda: texts.config,
    }
    return readers[part]()


def handed_down(store: SmallBlobs, model: StoredManifest) -> tuple[ModelConfig, dict[str, object]]:
    """
    Return what a model hands down to one that builds on it: its config, and the values of its parameters as in JSON.

    Raises what `show_model` raises.
    """
    manifest, texts = model.manifest, _Texts(store, model)
    parameters: dict[str, object] = {}
    for layer in manifest.layers:
        if layer.media_type == media_types.PARAMS:
            found: dict[str, object] = texts.parsed(layer, _mapping, {})
            rounded = {key: as_go_has_it(value) if type(value) is int else value for key, value in found.items()}
            parameters = {**rounded, **parameters}
    return texts.parsed(manifest.config, ModelConfig.parse, ModelConfig()), parameters


@dataclass(frozen=True, slots=True)
class _Texts:
    """The small blobs of a model, each read when it is asked for."""

    store: SmallBlobs
    model: StoredManifest

    @property
    def config(self) -> bytes:
        return self.bytes_of(self.model.manifest.config)

    @property
    def template(self) -> bytes:
        # The old media type of templates counts only if no layer has the new one.
        return self.bytes_of(self.last(media_types.TEMPLATE) or self.last(media_types.PROMPT))

    @property
    def system(self) -> bytes:
        return self.bytes_of(self.last(media_types.SYSTEM))

    @property
    def licenses(self) -> list[bytes]:
        return [self.bytes_of(layer) for layer in self.model.manifest.layers if layer.media_type == media_types.LICENSE]

    def last(self, media_type: str) -> Descriptor | None:
        """Return the layer of a type that counts for Ollama if there are several."""
        layers = [layer for layer in self.model.manifest.layers if layer.media_type == media_type]
        return layers[-1] if layers else None

    def bytes_of(self, blob: Descriptor | None) -> bytes:
        if blob is None:
            return b""
        limit = MAX_CONFIG_BYTES if blob is self.model.manifest.config else MAX_TEXT_BYTES
        if blob.size > limit:
            raise LimitError(f"{self._named(blob)}: expected at most {limit} bytes, got {blob.size}")
        try:
            raw = self.store.read_small_blob(blob, blob.size + 1)
        except BlobMissingError as error:
            raise BlobMissingError(f"{self._named(blob)}: missing", digest=error.digest, hint=self._hint) from None
        if len(raw) != blob.size:
            got = "more" if len(raw) > blob.size else len(raw)
            message = f"{self._named(blob)}: expected {blob.size} bytes, got {got}"
            raise SizeMismatchError(message, digest=str(blob.digest), hint=self._hint)
        return raw

    def parsed(self, blob: Descriptor | None, parse: Callable[[bytes], T], absent: T) -> T:
        """Return what a blob says. If it cannot be read, it is hashed, to tell damage from what its author wrote."""
        if blob is None:
            return absent
        raw = self.bytes_of(blob)
        try:
            return parse(raw)
        except (FormatError, LimitError) as error:
            if Digest.of(raw) != blob.digest:
                message = f"{self._named(blob)}: does not match its digest"
                raise DigestMismatchError(message, digest=str(blob.digest), hint=self._hint) from None
            reason = str(error).removeprefix("config: ")
            raise type(error)(f"{self._named(blob)}: the blob is whole, but {reason}") from None

    def _named(self, blob: Descriptor) -> str:
        kind = "config" if blob == self.model.manifest.config else blob.media_type.rpartition(".")[2]
        return f"{self.model.name}: {kind} blob {blob.digest}"

    @property
    def _hint(self) -> Remedy:
        name = self.model.name
        verify = ostore("verify", name, after="shows all that is damaged")
        return verify.otherwise(ostore("repair", "--from", "BUNDLE", after="brings good copies"))


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _mapping(raw: bytes) -> dict[str, object]:
    return _json(raw, dict, "an object")


def _parameters(raw: bytes) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(key, item)
        for key, value in sorted(_mapping(raw).items())
        for item in (value if isinstance(value, list) else [value])
        # Ollama takes null for a parameter that is not there.
        if item is not None
    )


def _messages(raw: bytes) -> tuple[Message, ...]:
    entries: list[object] = _json(raw, list, "a list")
    return tuple(Message(_text(entry, "role"), _text(entry, "content")) for entry in entries)


def _json(raw: bytes, kind: type[T], expected: str) -> T:
    """Read JSON. Go reads null as nothing, and bytes that are not UTF-8 as U+FFFD."""
    document = read_strict_json(_decoded(raw).encode())
    if document is None:
        return kind()
    if not isinstance(document, kind):
        raise FormatError(f"expected {expected}, got {document!r:.40}")
    return document


def _text(message: object, key: str) -> str:
    value = message.get(key) if isinstance(message, dict) else message
    if not isinstance(value, str | None):
        raise FormatError(f"{key} of a message: expected text, got {value!r:.40}")
    return value or ""
