"""
An inventory: what a place holds, as a small file. It is carried to whoever makes the next bundle for that place.

It crosses the gap in the other direction than a bundle and is as hostile, so it is parsed as strictly as an index.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from ostore.formats.bundle_index import MAX_MEMBERS
from ostore.formats.digest import Digest
from ostore.formats.errors import FormatError, LimitError, OstoreError, UnsafeError
from ostore.formats.json_reading import read_strict_json, write_canonical_json
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Descriptor
from ostore.formats.name import ModelName
from ostore.formats.selection import Selection, refuse_repeats, refuse_twins

FORMAT = "ostore-inventory"
VERSION = 1
MAX_INVENTORY_BYTES = 16 * 1024 * 1024
# A model has 150 to 2,000 tensors, and each takes some 120 bytes here.
MAX_TENSORS = 100_000
_MAX_TOTAL = 2**63 - 1


class TensorAt(NamedTuple):
    """One tensor in a blob: where its bytes begin, how many there are, and their digest. Its name does not matter."""

    offset: int
    length: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class TensorMap:
    """
    What is inside a blob: `header` are its first bytes, up to where tensors may begin.

    `tensors` are in the order of their offsets. None is empty, and none overlaps another or the header.
    """

    header: Descriptor
    tensors: tuple[TensorAt, ...]


class HeldModel(NamedTuple):
    """A model, the digest and size (bytes) of its manifest, and its distinct blobs, whether or not they are there."""

    name: ModelName
    manifest: Descriptor
    blobs: tuple[Digest, ...]


class HeldBlob(NamedTuple):
    """A blob that is there. `is_staged` says that an interrupted import has all of it; the next one takes it over."""

    digest: Digest
    size: int
    is_staged: bool = False
    tensors: TensorMap | None = None


@dataclass(frozen=True)
class Inventory:
    """The models, sorted by full name, and the blobs, sorted by digest, of a store or of any other place."""

    models: tuple[HeldModel, ...]
    blobs: tuple[HeldBlob, ...]

    @classmethod
    def of(cls, models: Iterable[HeldModel], blobs: Iterable[HeldBlob]) -> Inventory:
        """Make an inventory of models and blobs in any order."""
        return cls(
            tuple(sorted(models, key=lambda model: model.name.full)),
            tuple(sorted(blobs, key=lambda blob: blob.digest)),
        )

    @classmethod
    def of_selection(cls, selection: Selection) -> Inventory:
        """
        Return what a place has that took in these models. What they require was there before.

        So were the blobs that only recipes built on; but they belong to models that were replaced, perhaps.
        """
        required = (blob for blob in selection.requires if blob.digest in selection.needed)
        return cls.of(
            (
                HeldModel(model.name, Descriptor(model.manifest_digest, model.manifest_size), model.blobs)
                for model in selection.models
            ),
            (HeldBlob(blob.digest, blob.size) for blob in (*selection.blobs, *required)),
        )

    @classmethod
    def parse(cls, raw: bytes) -> Inventory:
        """
        Read and check an inventory.

        Raises FormatError if it is none, or from a newer ostore, UnsafeError for what is there twice or out of its
        place, LimitError above a limit, InvalidDigestError, InvalidNameError.
        """
        if len(raw) > MAX_INVENTORY_BYTES:
            raise LimitError(f"inventory: expected at most {MAX_INVENTORY_BYTES} bytes, got {len(raw)}")
        try:
            return _read(read_strict_json(raw, is_folded=True))
        except OstoreError as error:
            # Keep the class: a forbidden name in an inventory is still a forbidden name.
            error.args = (f"inventory: {error}",)
            raise

    def write(self) -> bytes:
        """Return the inventory as canonical JSON. Raises LimitError if no reader would take it."""
        tensors = sum(len(blob.tensors.tensors) for blob in self.blobs if blob.tensors)
        document: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "models": [
                {"name": name.full, "manifest": _entry(*manifest[:2]), "blobs": list(map(str, blobs))}
                for name, manifest, blobs in self.models
            ],
            "blobs": [_blob_entry(blob) for blob in self.blobs],
        }
        raw = write_canonical_json(document)
        members = len(self.models) + len(self.blobs)
        if members > MAX_MEMBERS or tensors > MAX_TENSORS or len(raw) > MAX_INVENTORY_BYTES:
            raise LimitError(
                f"inventory of {members} models and blobs, {tensors} tensors, {len(raw)} bytes: expected at most "
                f"{MAX_MEMBERS}, {MAX_TENSORS} and {MAX_INVENTORY_BYTES}"
            )
        return raw

    @cached_property
    def sizes(self) -> dict[Digest, int]:
        """The size in bytes of every blob that is there."""
        return {blob.digest: blob.size for blob in self.blobs}

    def has(self, blob: Descriptor) -> bool:
        """Return whether a blob is there, with the size that it should have."""
        return self.sizes.get(blob.digest) == blob.size


def _read(document: object) -> Inventory:
    fields = _object(document, "inventory")
    if fields.get("format") != FORMAT:
        raise FormatError(f"expected format {FORMAT!r}, got {fields.get('format')!r:.40}")
    version, needs = fields.get("version"), _list(fields, "needs")
    if type(version) is not int or version < 1:
        raise FormatError(f"expected a version, got {version!r:.40}")
    if version > VERSION or needs:
        raise FormatError(f"made by a newer ostore: version {version!r:.20}, needs {needs!r:.80}")
    models = tuple(map(_model, _list(fields, "models")))
    blobs = tuple(map(_blob, _list(fields, "blobs")))
    _check(models, blobs)
    return Inventory.of(models, blobs)


def _check(models: tuple[HeldModel, ...], blobs: tuple[HeldBlob, ...]) -> None:
    if len(models) + len(blobs) > MAX_MEMBERS:
        raise LimitError(f"expected at most {MAX_MEMBERS} models and blobs")
    if sum(len(blob.tensors.tensors) for blob in blobs if blob.tensors) > MAX_TENSORS:
        raise LimitError(f"expected at most {MAX_TENSORS} tensors")
    refuse_twins(model.name for model in models)
    refuse_repeats("model", [model.name.full for model in models])
    refuse_repeats("blob", [blob.digest for blob in blobs])
    if sum(blob.size for blob in blobs) > _MAX_TOTAL:
        raise LimitError("sizes add up to more than 2^63-1 bytes")


def _model(value: object) -> HeldModel:
    fields = _object(value, "model")
    manifest = _descriptor(fields.get("manifest"))
    if manifest.size > MAX_MANIFEST_BYTES:
        raise LimitError(f"expected a manifest of at most {MAX_MANIFEST_BYTES} bytes, got {manifest.size}")
    blobs = tuple(map(Digest.parse, _list(fields, "blobs")))
    refuse_repeats("blob", blobs)
    return HeldModel(ModelName.parse_full(fields.get("name")), manifest, blobs)


def _blob(value: object) -> HeldBlob:
    digest, size, *_ = _descriptor(value)
    fields = _object(value, "blob")
    staged, tensors = fields.get("staged", False), fields.get("tensors")
    if not isinstance(staged, bool):
        raise FormatError(f"staged: expected true or false, got {staged!r:.40}")
    return HeldBlob(digest, size, staged, None if tensors is None else _tensor_map(tensors, size))


def _tensor_map(value: object, size: int) -> TensorMap:
    """Read what is inside a blob of `size` bytes. A range outside it could make a reader ask for bytes of another."""
    fields = _object(value, "tensors")
    header = _descriptor(fields.get("header"))
    tensors = tuple(map(_tensor, _list(fields, "tensors")))
    end = header.size
    for tensor in tensors:
        if tensor.offset < end:
            raise UnsafeError(f"tensor at byte {tensor.offset}: expected none before byte {end}")
        end = tensor.offset + tensor.length
    if end > size:
        raise UnsafeError(f"header and tensors end at byte {end} of a blob of {size} bytes")
    return TensorMap(header, tensors)


def _tensor(value: object) -> TensorAt:
    fields = _object(value, "tensor")
    offset, length = _number(fields.get("offset"), "offset"), _number(fields.get("length"), "length")
    if not length:
        raise FormatError("length: expected 1 or more, got 0")
    return TensorAt(offset, length, Digest.parse(fields.get("digest")))


def _descriptor(value: object) -> Descriptor:
    fields = _object(value, "digest and size")
    return Descriptor(Digest.parse(fields.get("digest")), _number(fields.get("size"), "size"))


def _number(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_TOTAL:
        raise FormatError(f"{what}: expected 0 to 2^63-1, got {value!r:.40}")
    return value


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{what}: expected an object, got {value!r:.40}")
    return value


def _list(fields: dict[str, Any], key: str) -> list[Any]:
    value = fields.get(key, [])
    if not isinstance(value, list):
        raise FormatError(f"{key}: expected a list, got {value!r:.40}")
    if len(value) > MAX_MEMBERS:
        raise LimitError(f"{key}: expected at most {MAX_MEMBERS} entries, got {len(value)}")
    return value


def _entry(digest: Digest, size: int) -> dict[str, Any]:
    return {"digest": str(digest), "size": size}


def _blob_entry(blob: HeldBlob) -> dict[str, Any]:
    entry = _entry(blob.digest, blob.size)
    if blob.is_staged:
        entry["staged"] = True
    if blob.tensors:
        entry["tensors"] = {
            "header": _entry(*blob.tensors.header[:2]),
            "tensors": [
                {"offset": offset, "length": length, "digest": str(digest)}
                for offset, length, digest in blob.tensors.tensors
            ],
        }
    return entry
