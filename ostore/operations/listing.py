"""List models without a server, with the same values as `ollama list`."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple

from ostore.formats import media_types
from ostore.formats.config import is_config, is_stub
from ostore.formats.errors import BlobMissingError, OstoreError
from ostore.formats.manifest import MAX_CONFIG_BYTES, Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.store_layout import COMING_MANIFESTS

if TYPE_CHECKING:
    from ostore.operations.transfer import SmallBlobs, StoredManifest


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
    return _CLOUD_STUB if is_stub(raw) and not _has_weights(manifest) else ""


def is_cloud_stub(store: SmallBlobs, manifest: Manifest) -> bool:
    """Return whether a model runs on another host. The config is read only if the manifest lists no weights."""
    if _has_weights(manifest) or manifest.config is None:
        return False
    try:
        return is_stub(store.read_small_blob(manifest.config, MAX_CONFIG_BYTES + 1))
    except (OstoreError, OSError):
        return False


def is_unlisted(store: SmallBlobs, manifest: Manifest) -> bool:
    """Return whether a model has a whole config that is not JSON, so that no server lists the model."""
    if manifest.config is None:
        return False
    try:
        raw = store.read_small_blob(manifest.config, MAX_CONFIG_BYTES + 1)
    except (OstoreError, OSError):
        return False
    return len(raw) == manifest.config.size and not is_config(raw)


def _has_weights(manifest: Manifest) -> bool:
    return any(media_type in _WEIGHTS for media_type in manifest.layer_types)
