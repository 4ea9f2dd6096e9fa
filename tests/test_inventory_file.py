"""An inventory has one form, and a hostile one is refused before anything is done with what it says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from ostore.formats import inventory as inventories
from ostore.formats.digest import Digest
from ostore.formats.errors import (
    FormatError,
    InvalidDigestError,
    InvalidNameError,
    LimitError,
    OstoreError,
    UnsafeError,
)
from ostore.formats.inventory import (
    MAX_INVENTORY_BYTES,
    MAX_TENSORS,
    HeldBlob,
    HeldModel,
    Inventory,
    TensorAt,
    TensorMap,
)
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Descriptor
from ostore.formats.name import ModelName
from ostore.formats.selection import SelectedModel, Selection

A, B, C, H, M, N, T, U = (Digest.of(letter) for letter in (b"a", b"b", b"c", b"h", b"m", b"n", b"t", b"u"))
TENSORS = TensorMap(Descriptor(H, 32), (TensorAt(32, 8, T), TensorAt(64, 36, U)))
INVENTORY = Inventory.of(
    [
        HeldModel(ModelName.parse("llama3"), Descriptor(N, 400), (B, C)),
        HeldModel(ModelName.parse("hf.co/u/r:Q4"), Descriptor(M, 300), (A, B)),
    ],
    [HeldBlob(B, 20, is_staged=True), HeldBlob(A, 100, tensors=TENSORS)],
)

Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> bytes:
    document = json.loads(INVENTORY.write())
    change(document)
    return json.dumps(document).encode()


def blob(document: dict[str, Any]) -> dict[str, Any]:
    """The blob that has tensors."""
    found: dict[str, Any] = next(entry for entry in document["blobs"] if "tensors" in entry)
    return found


def inside(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = blob(document)["tensors"]
    return found


def tensor(document: dict[str, Any], place: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = inside(document)["tensors"][place]
    return found


def test_the_written_inventory_is_canonical_and_as_documented() -> None:
    blobs = {
        A: {
            "digest": str(A),
            "size": 100,
            "tensors": {
                "header": {"digest": str(H), "size": 32},
                "tensors": [
                    {"digest": str(T), "length": 8, "offset": 32},
                    {"digest": str(U), "length": 36, "offset": 64},
                ],
            },
        },
        B: {"digest": str(B), "size": 20, "staged": True},
    }
    document = {
        "blobs": [blobs[digest] for digest in sorted(blobs)],
        "format": "ostore-inventory",
        "models": [
            {"blobs": [str(A), str(B)], "manifest": {"digest": str(M), "size": 300}, "name": "hf.co/u/r:Q4"},
            {
                "blobs": [str(B), str(C)],
                "manifest": {"digest": str(N), "size": 400},
                "name": "registry.ollama.ai/library/llama3:latest",
            },
        ],
        "version": 1,
    }
    assert INVENTORY.write() == json.dumps(document, separators=(",", ":")).encode() + b"\n"


def test_an_inventory_survives_its_bytes() -> None:
    assert Inventory.parse(INVENTORY.write()) == INVENTORY


def test_the_order_of_a_file_does_not_matter() -> None:
    assert Inventory.parse(changed(lambda one: (one["models"].reverse(), one["blobs"].reverse()))) == INVENTORY


def test_a_blob_is_there_only_with_the_size_that_it_should_have() -> None:
    assert INVENTORY.has(Descriptor(B, 20))
    assert not INVENTORY.has(Descriptor(B, 21))
    assert not INVENTORY.has(Descriptor(C, 1))


def test_whoever_took_a_bundle_in_has_what_it_requires() -> None:
    name = ModelName.parse("m")
    selection = Selection((SelectedModel(name, M, 300, (A, B)),), (Descriptor(A, 1),), (Descriptor(B, 2),))
    assert Inventory.of_selection(selection) == Inventory(
        (HeldModel(name, Descriptor(M, 300), (A, B)),), tuple(sorted((HeldBlob(A, 1), HeldBlob(B, 2))))
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(future={"a": [1.5]}),
        lambda one: one["models"][0].update(license="MIT"),
        lambda one: blob(one).update(mediaType="x"),
        lambda one: tensor(one).update(name="blk.0"),
        lambda one: one.update(needs=[]),
        lambda one: one["blobs"][0].update(staged=one["blobs"][0].get("staged", False)),
    ],
    ids=["unknown key", "of a model", "of a blob", "of a tensor", "empty needs", "staged is false"],
)
def test_unknown_keys_are_ignored_within_version_1(change: Change) -> None:
    assert Inventory.parse(changed(change)) == INVENTORY


def test_lists_may_be_absent() -> None:
    assert Inventory.parse(b'{"format":"ostore-inventory","version":1}') == Inventory((), ())


REFUSED: dict[str, tuple[Change, type[OstoreError]]] = {
    "another format": (lambda one: one.update(format="ostore-bundle"), FormatError),
    "no version": (lambda one: one.pop("version"), FormatError),
    "version 0": (lambda one: one.update(version=0), FormatError),
    "version true": (lambda one: one.update(version=True), FormatError),
    "version 2": (lambda one: one.update(version=2), FormatError),
    "needs": (lambda one: one.update(needs=["x"]), FormatError),
    "models an object": (lambda one: one.update(models={}), FormatError),
    "a model a text": (lambda one: one.update(models=["m"]), FormatError),
    "a name of a terminal": (lambda one: one["models"][0].update(name="\x1b[2J/a/b:c"), InvalidNameError),
    "a name that climbs": (lambda one: one["models"][0].update(name="../../../etc/a:b"), InvalidNameError),
    "a short name": (lambda one: one["models"][0].update(name="llama3"), InvalidNameError),
    "no manifest": (lambda one: one["models"][0].pop("manifest"), FormatError),
    "a large manifest": (
        lambda one: one["models"][0]["manifest"].update(size=MAX_MANIFEST_BYTES + 1),
        LimitError,
    ),
    "a blob twice in a model": (lambda one: one["models"][0].update(blobs=[str(A), str(A)]), UnsafeError),
    "a model twice": (lambda one: one["models"].append(copy.deepcopy(one["models"][0])), UnsafeError),
    "twins": (lambda one: one["models"].append({**one["models"][0], "name": "hf.co/U/r:Q4"}), UnsafeError),
    "a blob twice": (lambda one: one["blobs"].append(copy.deepcopy(one["blobs"][0])), UnsafeError),
    "a digest in upper case": (lambda one: blob(one).update(digest=f"sha256:{A.hex.upper()}"), InvalidDigestError),
    "a digest of a path": (lambda one: blob(one).update(digest="../../x"), InvalidDigestError),
    "a size below 0": (lambda one: blob(one).update(size=-1), FormatError),
    "a size of 2^63": (lambda one: blob(one).update(size=2**63), FormatError),
    "a size as a float": (lambda one: blob(one).update(size=1.0), FormatError),
    "a size that is true": (lambda one: blob(one).update(size=True), FormatError),
    "sizes above 2^63 in all": (lambda one: [entry.update(size=2**62) for entry in one["blobs"]], LimitError),
    "staged a number": (lambda one: blob(one).update(staged=1), FormatError),
    "tensors a list": (lambda one: blob(one).update(tensors=[]), FormatError),
    "no header": (lambda one: inside(one).pop("header"), FormatError),
    "a header that is larger than the blob": (
        lambda one: inside(one).update(header={"digest": str(H), "size": 101}, tensors=[]),
        UnsafeError,
    ),
    "a tensor outside": (lambda one: tensor(one, 1).update(length=37), UnsafeError),
    "a tensor far outside": (lambda one: tensor(one, 1).update(offset=2**63 - 1, length=2**63 - 1), UnsafeError),
    "a tensor in the header": (lambda one: tensor(one).update(offset=31), UnsafeError),
    "tensors that overlap": (lambda one: tensor(one).update(length=33), UnsafeError),
    "tensors out of order": (lambda one: inside(one)["tensors"].reverse(), UnsafeError),
    "an empty tensor": (lambda one: tensor(one).update(length=0), FormatError),
    "an offset below 0": (lambda one: tensor(one).update(offset=-1), FormatError),
    "a tensor without digest": (lambda one: tensor(one).pop("digest"), InvalidDigestError),
}


@pytest.mark.parametrize(("change", "error"), REFUSED.values(), ids=REFUSED)
def test_what_contradicts_itself_is_refused(change: Change, error: type[OstoreError]) -> None:
    with pytest.raises(error, match="inventory: ") as caught:
        Inventory.parse(changed(change))
    assert type(caught.value) is error


def test_a_key_in_two_spellings_is_refused() -> None:
    with pytest.raises(UnsafeError, match="occurs twice"):
        Inventory.parse(b'{"format":"ostore-inventory","version":1,"blobs":[],"Blobs":[]}')


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b'{"format":"ostore-inventory","version":1}x'])
def test_what_is_no_document_is_refused(raw: bytes) -> None:
    with pytest.raises(FormatError, match="inventory: "):
        Inventory.parse(raw)


def test_nesting_that_no_reader_follows_is_refused() -> None:
    with pytest.raises(LimitError):
        Inventory.parse(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_a_file_that_is_too_large_is_not_parsed() -> None:
    with pytest.raises(LimitError, match="at most"):
        Inventory.parse(b" " * (MAX_INVENTORY_BYTES + 1))


def test_more_members_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = INVENTORY.write()
    monkeypatch.setattr(inventories, "MAX_MEMBERS", 3)
    with pytest.raises(LimitError, match="at most 3 models and blobs"):
        Inventory.parse(raw)
    with pytest.raises(LimitError, match="inventory of 4 models and blobs, 2 tensors"):
        INVENTORY.write()
    monkeypatch.setattr(inventories, "MAX_MEMBERS", 1)
    with pytest.raises(LimitError, match="models: expected at most 1 entries, got 2"):
        Inventory.parse(raw)


def test_more_tensors_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = INVENTORY.write()
    monkeypatch.setattr(inventories, "MAX_TENSORS", 1)
    with pytest.raises(LimitError, match="at most 1 tensors"):
        Inventory.parse(raw)
    with pytest.raises(LimitError, match="2 tensors"):
        INVENTORY.write()


def test_the_largest_number_of_tensors_can_be_read_back() -> None:
    """What `write` lets through, the reader takes: it also counts values."""
    size = 40 + 100_000 * MAX_TENSORS
    tensors = tuple(TensorAt(40 + 100_000 * number, 100_000, T) for number in range(MAX_TENSORS))
    full = Inventory((), (HeldBlob(A, size, tensors=TensorMap(Descriptor(H, 40), tensors)),))
    assert Inventory.parse(full.write()) == full
