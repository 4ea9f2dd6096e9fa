"""List and show models without a server, with the same values as `ollama list` and `ollama show`."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import NamedTuple, Protocol

from ostore.formats import media_types
from ostore.formats.config import ModelConfig, is_config
from ostore.formats.errors import BlobMissingError, OstoreError
from ostore.formats.json_reading import read_strict_json
from ostore.formats.manifest import MAX_CONFIG_BYTES, Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.store_layout import COMING_MANIFESTS

# Licences of 100 kB and templates of 30 kB exist. Longer text is not meant for a terminal.
MAX_TEXT_BYTES = 4 * 1024 * 1024


class StoredManifest(Protocol):
    """One model of a store."""

    @property
    def name(self) -> ModelName: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def modified(self) -> float: ...
    @property
    def tree(self) -> str: ...


class SmallBlobs(Protocol):
    """A store whose small blobs can be read whole."""

    def read_small_blob(self, descriptor: Descriptor, limit: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ListedModel:
    """
    One row of a list.

    `id` is the first 12 digits of `digest`, as in `ollama list`. `size` is the bytes that the manifest declares, summed
    as Ollama does, or None for a model without weights here (a cloud stub or a manifest list). `unique_size` is the
    bytes that no other model shares. `modified` is the manifest's mtime, seconds since 1970. `note` is what a reader
    should know, or empty.
    """

    name: str
    id: str
    digest: str
    size: int | None
    unique_size: int
    modified: float
    note: str


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
    and `raw_config` are the bytes of the two documents.
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


def list_rows(
    store: SmallBlobs, models: Iterable[StoredManifest], is_chosen: Callable[[ModelName], bool]
) -> tuple[ListedModel, ...]:
    """
    Return a row for each model that `is_chosen` accepts, newest first.

    `models` must be all models of the store, because they decide what is unique. Only a few hundred bytes of each are
    kept in memory, because there may be a hundred thousand.
    """
    uses: dict[bytes, int] = defaultdict(int)
    drafts = []
    for model in models:
        sizes = model.manifest.sizes
        # Of two descriptors of one blob the first counts, so it is put in last.
        blobs = {bytes.fromhex(digits): size for digits, size in reversed(sizes)}
        for digest in blobs:
            uses[digest] += 1
        if is_chosen(model.name):
            drafts.append(_draft(store, model, sum([size for _, size in sizes]), blobs))
    # Short names can be equal if hosts or namespaces differ by case, so names of one second are compared in full.
    drafts.sort(key=lambda draft: (-int(draft.modified), str(draft.name), draft.name))
    return tuple(_row(draft, uses) for draft in drafts)


def show_model(store: SmallBlobs, model: StoredManifest) -> ShownModel:
    """
    Read a model's config and text layers.

    Raises BlobMissingError, DamagedStoreError for a blob that is not a regular file, FormatError or LimitError for
    bad JSON, OSError.
    """
    manifest = model.manifest
    raw_config = store.read_small_blob(manifest.config, MAX_CONFIG_BYTES + 1) if manifest.config else b""
    texts = {
        media_type: [_text(store, layer) for layer in manifest.layers if layer.media_type == media_type]
        for media_type in _TEXT_LAYERS
    }
    return ShownModel(
        name=str(model.name),
        digest=f"sha256:{manifest.model_id}",
        size=manifest.declared_size,
        modified=model.modified,
        config=ModelConfig.parse(raw_config) if raw_config else ModelConfig(),
        # The last layer wins. The old media type of templates counts only if no layer has the new one.
        template="".join((texts[media_types.PROMPT] + texts[media_types.TEMPLATE])[-1:]),
        system="".join(texts[media_types.SYSTEM][-1:]),
        parameters=_parameters(texts[media_types.PARAMS]),
        messages=_messages(texts[media_types.MESSAGES]),
        licenses=tuple(texts[media_types.LICENSE]),
        layers=tuple(ShownLayer(layer.media_type, str(layer.digest), layer.size) for layer in manifest.descriptors),
        manifest=manifest.raw,
        raw_config=raw_config,
    )


_TEXT_LAYERS = (
    media_types.TEMPLATE,
    media_types.PROMPT,
    media_types.SYSTEM,
    media_types.PARAMS,
    media_types.MESSAGES,
    media_types.LICENSE,
)
_WEIGHTS = frozenset({media_types.MODEL, media_types.TENSOR})


# A digest and a size, packed to save memory.
_BLOB = struct.Struct(">32sQ")


class _Draft(NamedTuple):
    """A row before its `unique_size` is known, with the blobs to compute it once every manifest is read."""

    name: ModelName
    model_id: str
    size: int | None
    modified: float
    note: str
    blobs: bytes


def _draft(store: SmallBlobs, model: StoredManifest, declared_size: int, blobs: Mapping[bytes, int]) -> _Draft:
    note = _COMING if model.tree == COMING_MANIFESTS else _note(store, model.manifest)
    size = None if note in _NO_SIZE else declared_size
    packed = b"".join(starmap(_BLOB.pack, blobs.items()))
    return _Draft(model.name, model.manifest.model_id, size, model.modified, note, packed)


def _row(draft: _Draft, uses: Mapping[bytes, int]) -> ListedModel:
    model_id = draft.model_id
    unique_size = sum([size for digest, size in _BLOB.iter_unpack(draft.blobs) if uses[digest] == 1])
    return ListedModel(
        str(draft.name), model_id[:12], f"sha256:{model_id}", draft.size, unique_size, draft.modified, draft.note
    )


_CLOUD_STUB = "cloud stub: runs on another host"
_LIST = "manifest list"
_COMING = f"in {COMING_MANIFESTS}/, which no released Ollama reads"
_NO_SIZE = frozenset({_CLOUD_STUB, _LIST})


def _note(store: SmallBlobs, manifest: Manifest) -> str:
    if manifest.is_list:
        return _LIST
    if manifest.ambiguity or manifest.unfit:
        return f"cannot be exported: {manifest.ambiguity or manifest.unfit}"
    return _config_note(store, manifest, manifest.config) if manifest.config else ""


def _config_note(store: SmallBlobs, manifest: Manifest, config: Descriptor) -> str:
    """Say why a server hides the model, or that the model runs elsewhere."""
    try:
        raw = store.read_small_blob(config, MAX_CONFIG_BYTES + 1)
    except BlobMissingError:
        return "its config is missing, so no server lists it"
    except (OstoreError, OSError) as error:
        return f"its config cannot be read, so no server lists it: {error}"
    if not is_config(raw):
        return "its config is not JSON, so no server lists it"
    return _CLOUD_STUB if not _has_weights(manifest) and ModelConfig.parse(raw).is_cloud_stub else ""


def is_cloud_stub(store: SmallBlobs, manifest: Manifest) -> bool:
    """Return whether a model runs on another host. The config is read only if the manifest lists no weights."""
    if _has_weights(manifest) or manifest.config is None:
        return False
    try:
        return ModelConfig.parse(store.read_small_blob(manifest.config, MAX_CONFIG_BYTES + 1)).is_cloud_stub
    except (OstoreError, OSError):
        return False


def _has_weights(manifest: Manifest) -> bool:
    return any(media_type in _WEIGHTS for media_type in manifest.layer_types)


def _text(store: SmallBlobs, layer: Descriptor) -> str:
    return store.read_small_blob(layer, MAX_TEXT_BYTES).decode("utf-8", "replace")


def _parameters(texts: Sequence[str]) -> tuple[Parameter, ...]:
    document = read_strict_json(texts[-1].encode()) if texts else {}
    if not isinstance(document, dict):
        return ()
    return tuple(
        Parameter(key, item)
        for key, value in sorted(document.items())
        for item in (value if isinstance(value, list) else [value])
    )


def _messages(texts: Sequence[str]) -> tuple[Message, ...]:
    document = read_strict_json(texts[-1].encode()) if texts else []
    if not isinstance(document, list):
        return ()
    entries = [entry for entry in document if isinstance(entry, dict)]
    return tuple(Message(str(entry.get("role", "")), str(entry.get("content", ""))) for entry in entries)
