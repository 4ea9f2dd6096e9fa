"""The index of a bundle, its first member. It gives the name, size and order of every member that it lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ostore.formats.digest import Digest
from ostore.formats.errors import InvalidBundleError, LimitError, OstoreError, UnsafeError
from ostore.formats.json_reading import read_strict_json, write_canonical_json
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Descriptor
from ostore.formats.name import ModelName
from ostore.formats.recipe import MAX_HEAD_BYTES, MadeBlob, check_order
from ostore.formats.selection import SelectedModel, Selection, refuse_repeats, refuse_twins

FORMAT = "ostore-bundle"
VERSION = 1
INDEX_PATH = "ostore/bundle.json"
SIGNATURE_PATH = "ostore/bundle.json.sig"
MAX_INDEX_BYTES = 16 * 1024 * 1024
MAX_MEMBERS = 100_000
# SHA256SUMS has about 150 bytes a member.
MAX_FILE_BYTES = 32 * 1024 * 1024
_MAX_TOTAL = 2**63 - 1
# What a reader must know beyond version 1.
RECIPES = "recipes"
_KNOWN_NEEDS = (RECIPES,)
# `ostore inspect` shows the creator in one line.
_MAX_CREATOR_CHARACTERS = 255
_FILE_PATH = re.compile(r"ostore/[A-Za-z0-9_][A-Za-z0-9._-]{0,90}")


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A member below `ostore/`, except the index and its signatures."""

    path: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class BundleIndex:
    """What a bundle says it holds. Its blobs and recipes are in the order of `selection.blobs`."""

    creator: str
    selection: Selection
    files: tuple[IndexedFile, ...]

    @classmethod
    def parse(cls, raw: bytes) -> BundleIndex:
        """
        Read and check an index.

        Raises FormatError if it is not JSON, InvalidBundleError if it is not ours or is from a newer ostore, LimitError
        above a limit, UnsafeError for a forbidden or repeated entry, InvalidDigestError, InvalidNameError.
        """
        if len(raw) > MAX_INDEX_BYTES:
            raise LimitError(f"index: expected at most {MAX_INDEX_BYTES} bytes, got {len(raw)}")
        try:
            return _read_index(read_strict_json(raw, is_folded=True))
        except InvalidBundleError:
            raise
        except OstoreError as error:
            # Keep the class: a forbidden name in an index is still a forbidden name.
            raise _in_index(error) from None

    def write(self) -> bytes:
        """Return the index as canonical JSON."""
        selection = self.selection
        document: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "creator": self.creator,
            "models": [_model_entry(model) for model in selection.models],
            "blobs": [_entry(blob.digest, blob.size) for blob in selection.whole],
            "requires": [_entry(blob.digest, blob.size) for blob in selection.requires],
            "files": [{"path": file.path, **_entry(file.digest, file.size)} for file in self.files],
        }
        if selection.recipes:
            document["needs"] = [RECIPES]
            document["recipes"] = [_recipe_entry(made) for made in selection.recipes]
        return write_canonical_json(document)


def blob_path(digest: Digest) -> str:
    """Return the member name of a blob. It is also the path of the blob in a store."""
    return f"blobs/{digest.filename}"


def recipe_path(made: MadeBlob) -> str:
    """Return the member name of a recipe. It has the digest of the blob that the recipe makes."""
    return f"recipes/{made.blob.digest.filename}"


def manifest_path(name: ModelName) -> str:
    """Return the path of a manifest in a store."""
    return "/".join(("manifests", *name.parts))


def manifest_members(selection: Selection) -> dict[ModelName, str]:
    """
    Return the member names of the manifests: their paths in a store, for models that the bundle holds whole.

    The manifest of a model that needs a blob from elsewhere, or one that a recipe makes, is below `ostore/`. There,
    `tar` may unpack it, and Ollama does not list the model.
    """
    elsewhere = {blob.digest for blob in selection.requires}.union(selection.makers)
    return {
        model.name: manifest_path(model.name)
        if elsewhere.isdisjoint(model.blobs)
        else f"ostore/{manifest_path(model.name)}"
        for model in selection.models
    }


def _read_index(document: Any) -> BundleIndex:  # noqa: ANN401 - fresh from the JSON decoder
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidBundleError(f"index: expected format {FORMAT!r}")
    _refuse_newer(document)
    creator = document.get("creator", "")
    if not isinstance(creator, str):
        raise InvalidBundleError("index: expected creator as text")
    if len(creator) > _MAX_CREATOR_CHARACTERS or not creator.isprintable():
        raise UnsafeError(
            f"creator: expected at most {_MAX_CREATOR_CHARACTERS} printable characters, got {creator!r:.90}"
        )
    models = tuple(_model(entry) for entry in _list(document, "models"))
    blobs, requires = (tuple(_descriptor(entry) for entry in _list(document, key)) for key in ("blobs", "requires"))
    files = tuple(_file(entry) for entry in _list(document, "files"))
    recipes = tuple(_recipe(entry) for entry in _list(document, "recipes"))
    if recipes and RECIPES not in _list(document, "needs"):
        raise InvalidBundleError(f"index: expected {RECIPES!r} in needs, because there are recipes")
    made = tuple(recipe.blob for recipe in recipes)
    selection = Selection(models, (*blobs, *made), requires, recipes=recipes)
    _check(selection, files)
    return BundleIndex(creator, selection, files)


def _refuse_newer(document: dict[str, Any]) -> None:
    version = document.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InvalidBundleError(f"index: expected a version, got {version!r:.40}")
    needs = _list(document, "needs")
    if version > VERSION or any(need not in _KNOWN_NEEDS for need in needs):
        raise InvalidBundleError(f"made by a newer ostore: version {version!r:.20}, needs {needs!r:.80}")


def _check(selection: Selection, files: Sequence[IndexedFile]) -> None:
    if len(selection.models) + len(selection.blobs) + len(files) > MAX_MEMBERS:
        raise LimitError(f"expected at most {MAX_MEMBERS} members")
    refuse_twins(model.name for model in selection.models)
    known = [blob.digest for blob in (*selection.blobs, *selection.requires)]
    for what, keys in (
        ("model", [model.name.full for model in selection.models]),
        ("blob", map(str, known)),
        ("file", [file.path for file in files]),
    ):
        refuse_repeats(what, keys)
    stored = sum(made.stored.size for made in selection.recipes)
    if sum(selection.sizes.values()) > _MAX_TOTAL or stored > _MAX_TOTAL:
        raise LimitError("sizes add up to more than 2^63-1 bytes")
    check_order(selection.recipes, {blob.digest for blob in (*selection.whole, *selection.requires)})
    bases = {base for made in selection.recipes for base in made.bases}
    held_bases = bases.intersection(blob.digest for blob in selection.requires)
    for digest in sorted((selection.needed | held_bases) ^ set(known)):
        raise InvalidBundleError(f"index: {digest} is listed for a model or as a blob, but not both")


def _model(entry: Any) -> SelectedModel:  # noqa: ANN401
    fields = _object(entry, "models")
    manifest = _descriptor(fields.get("manifest"))
    if manifest.size > MAX_MANIFEST_BYTES:
        raise LimitError(f"expected a manifest of at most {MAX_MANIFEST_BYTES} bytes, got {manifest.size}")
    blobs = tuple(Digest.parse(text) for text in _list(fields, "blobs"))
    refuse_repeats("blob", map(str, blobs))
    return SelectedModel(ModelName.parse_full(fields.get("name")), manifest.digest, manifest.size, blobs)


def _recipe(entry: Any) -> MadeBlob:  # noqa: ANN401
    fields = _object(entry, "recipes")
    blob, stored = _descriptor(fields), _descriptor(fields.get("stored"))
    if not 0 < stored.size <= blob.size + MAX_HEAD_BYTES:
        raise LimitError(f"recipe for {blob.digest}: expected at most its size and {MAX_HEAD_BYTES} bytes")
    return MadeBlob(blob, tuple(Digest.parse(text) for text in _list(fields, "bases")), stored)


def _file(entry: Any) -> IndexedFile:  # noqa: ANN401
    fields = _object(entry, "files")
    path, descriptor = fields.get("path"), _descriptor(entry)
    if not isinstance(path, str) or _FILE_PATH.fullmatch(path) is None or path in {INDEX_PATH, SIGNATURE_PATH}:
        raise UnsafeError(f"forbidden file path {path!r:.120}")
    if descriptor.size > MAX_FILE_BYTES:
        raise LimitError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {descriptor.size}")
    return IndexedFile(path, descriptor.digest, descriptor.size)


def _descriptor(entry: Any) -> Descriptor:  # noqa: ANN401
    fields = _object(entry, "digest and size")
    size = fields.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _MAX_TOTAL:
        raise InvalidBundleError(f"index: expected a size of 0 to 2^63-1, got {size!r:.40}")
    return Descriptor(Digest.parse(fields.get("digest")), size)


def _object(entry: Any, where: str) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(entry, dict):
        raise InvalidBundleError(f"index: {where}: expected an object, got {entry!r:.40}")
    return entry


def _list(fields: dict[str, Any], key: str) -> list[Any]:
    value = fields.get(key, [])
    if not isinstance(value, list):
        raise InvalidBundleError(f"index: {key}: expected a list, got {value!r:.40}")
    if len(value) > MAX_MEMBERS:
        raise LimitError(f"{key}: expected at most {MAX_MEMBERS} entries, got {len(value)}")
    return value


def _model_entry(model: SelectedModel) -> dict[str, Any]:
    return {
        "name": model.name.full,
        "manifest": _entry(model.manifest_digest, model.manifest_size),
        "blobs": [str(digest) for digest in model.blobs],
    }


def _recipe_entry(made: MadeBlob) -> dict[str, Any]:
    return {
        **_entry(made.blob.digest, made.blob.size),
        "bases": [str(base) for base in made.bases],
        "stored": _entry(made.stored.digest, made.stored.size),
    }


def _entry(digest: Digest, size: int) -> dict[str, Any]:
    return {"digest": str(digest), "size": size}


def _in_index(error: OstoreError) -> OstoreError:
    error.args = (f"index: {error}",)
    return error
