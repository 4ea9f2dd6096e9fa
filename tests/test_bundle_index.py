"""The index of a bundle has one form, and an index that contradicts itself is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats import bundle_index
from ostore.formats.bundle_index import (
    MAX_FILE_BYTES,
    MAX_INDEX_BYTES,
    MAX_MEMBERS,
    BundleIndex,
    IndexedFile,
    blob_path,
    manifest_path,
)
from ostore.formats.digest import Digest
from ostore.formats.errors import (
    FormatError,
    InvalidBundleError,
    InvalidDigestError,
    InvalidNameError,
    LimitError,
    OstoreError,
    UnsafeError,
)
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Descriptor
from ostore.formats.name import ModelName
from ostore.formats.selection import SelectedModel, Selection

QUICK = settings(max_examples=100, deadline=None, database=None)

A, B, C, M, N = (Digest.of(letter) for letter in (b"a", b"b", b"c", b"m", b"n"))
INDEX = BundleIndex(
    creator="ostore/0.1.0",
    selection=Selection(
        models=(
            SelectedModel(ModelName.parse("hf.co/u/r:Q4"), M, 300, (A, B)),
            SelectedModel(ModelName.parse("llama3"), N, 400, (B, C)),
        ),
        blobs=(Descriptor(A, 1), Descriptor(B, 20)),
        requires=(Descriptor(C, 300),),
    ),
    files=(IndexedFile("ostore/SHA256SUMS", Digest.of(b"sums"), 4),),
)

Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> bytes:
    document = json.loads(INDEX.write())
    change(document)
    return json.dumps(document).encode()


def test_the_written_index_is_canonical_and_as_documented() -> None:
    entry = {digest: {"digest": f"sha256:{digest.hex}"} for digest in (A, B, C, M, N)}
    document = {
        "blobs": [{**entry[A], "size": 1}, {**entry[B], "size": 20}],
        "creator": "ostore/0.1.0",
        "files": [{"digest": str(Digest.of(b"sums")), "path": "ostore/SHA256SUMS", "size": 4}],
        "format": "ostore-bundle",
        "models": [
            {"blobs": [str(A), str(B)], "manifest": {**entry[M], "size": 300}, "name": "hf.co/u/r:Q4"},
            {
                "blobs": [str(B), str(C)],
                "manifest": {**entry[N], "size": 400},
                "name": "registry.ollama.ai/library/llama3:latest",
            },
        ],
        "requires": [{**entry[C], "size": 300}],
        "version": 1,
    }
    assert INDEX.write() == json.dumps(document, separators=(",", ":")).encode() + b"\n"


def test_an_index_survives_its_bytes() -> None:
    assert BundleIndex.parse(INDEX.write()) == INDEX


def test_paths_in_a_bundle_are_places_in_a_store() -> None:
    assert blob_path(A) == f"blobs/sha256-{A.hex}"
    assert manifest_path(ModelName.parse("localhost:5000/n/m:t")) == "manifests/localhost:5000/n/m/t"


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(future={"a": [1.5]}),
        lambda index: index["models"][0].update(license="MIT"),
        lambda index: index["blobs"][0].update(mediaType="x"),
        lambda index: index.update(needs=[]),
        lambda index: index.update(channel="weekly", sequence=7),
    ],
    ids=["unknown key", "unknown key of a model", "unknown key of a blob", "empty needs", "channel and sequence"],
)
def test_unknown_keys_are_ignored_within_version_1(change: Change) -> None:
    assert BundleIndex.parse(changed(change)) == INDEX


def test_lists_may_be_absent() -> None:
    empty = BundleIndex.parse(b'{"format":"ostore-bundle","version":1}')
    assert empty == BundleIndex("", Selection((), ()), ())


@pytest.mark.parametrize(
    "change",
    [lambda index: index.update(version=2), lambda index: index.update(needs=["encryption"])],
    ids=["version", "needs"],
)
def test_an_index_of_the_future_is_refused_by_saying_so(change: Change) -> None:
    with pytest.raises(InvalidBundleError, match="made by a newer ostore"):
        BundleIndex.parse(changed(change))


def model(index: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = index["models"][0]
    return found


REFUSED: dict[str, tuple[Change, type[OstoreError]]] = {
    "another format": (lambda index: index.update(format="tar"), InvalidBundleError),
    "no format": (lambda index: index.pop("format"), InvalidBundleError),
    "no version": (lambda index: index.pop("version"), InvalidBundleError),
    "version 0": (lambda index: index.update(version=0), InvalidBundleError),
    "version text": (lambda index: index.update(version="1"), InvalidBundleError),
    "version true": (lambda index: index.update(version=True), InvalidBundleError),
    "version float": (lambda index: index.update(version=1.0), InvalidBundleError),
    "needs text": (lambda index: index.update(needs="x"), InvalidBundleError),
    "creator a number": (lambda index: index.update(creator=5), InvalidBundleError),
    "creator with an escape": (lambda index: index.update(creator="\x1b[2J"), UnsafeError),
    "creator too long": (lambda index: index.update(creator="x" * 256), UnsafeError),
    "models an object": (lambda index: index.update(models={}), InvalidBundleError),
    "models null": (lambda index: index.update(models=None), InvalidBundleError),
    "model text": (lambda index: index.update(models=["llama3"]), InvalidBundleError),
    "short name": (lambda index: model(index).update(name="llama3:latest"), InvalidNameError),
    "name with a path": (lambda index: model(index).update(name="../../etc/passwd:x"), InvalidNameError),
    "name with an escape": (lambda index: model(index).update(name="a/b/\x1b[2J:x"), InvalidNameError),
    "no name": (lambda index: model(index).pop("name"), InvalidNameError),
    "name a list": (lambda index: model(index).update(name=[]), InvalidNameError),
    "model twice": (lambda index: index["models"].append(model(index)), UnsafeError),
    "twins": (lambda index: index["models"].append({**model(index), "name": "hf.co/U/r:q4"}), UnsafeError),
    "no manifest": (lambda index: model(index).pop("manifest"), InvalidBundleError),
    "manifest too long": (
        lambda index: model(index)["manifest"].update(size=MAX_MANIFEST_BYTES + 1),
        LimitError,
    ),
    "blob of a model twice": (lambda index: model(index)["blobs"].append(str(A)), UnsafeError),
    "blob of a model an object": (lambda index: model(index)["blobs"].append({}), InvalidDigestError),
    "blob of a model unlisted": (lambda index: model(index)["blobs"].append(str(M)), InvalidBundleError),
    "blob of no model": (
        lambda index: index["blobs"].append({"digest": str(M), "size": 1}),
        InvalidBundleError,
    ),
    "blob missing": (lambda index: index["blobs"].pop(), InvalidBundleError),
    "blob twice": (lambda index: index["blobs"].append({"digest": str(A), "size": 1}), UnsafeError),
    "blob twice, another size": (lambda index: index["blobs"].append({"digest": str(A), "size": 2}), UnsafeError),
    "blob there and required": (lambda index: index["requires"].append(index["blobs"][0]), UnsafeError),
    "digest with a path": (lambda index: index["blobs"][0].update(digest="sha256:../../x"), InvalidDigestError),
    "digest with a dash": (lambda index: index["blobs"][0].update(digest=A.filename), InvalidDigestError),
    "digest upper case": (
        lambda index: index["blobs"][0].update(digest=f"sha256:{A.hex.upper()}"),
        InvalidDigestError,
    ),
    "no digest": (lambda index: index["blobs"][0].pop("digest"), InvalidDigestError),
    "no size": (lambda index: index["blobs"][0].pop("size"), InvalidBundleError),
    "negative size": (lambda index: index["blobs"][0].update(size=-1), InvalidBundleError),
    "size 2^63": (lambda index: index["blobs"][0].update(size=2**63), InvalidBundleError),
    "size float": (lambda index: index["blobs"][0].update(size=1.0), InvalidBundleError),
    "size text": (lambda index: index["blobs"][0].update(size="1"), InvalidBundleError),
    "size true": (lambda index: index["blobs"][0].update(size=True), InvalidBundleError),
    "sizes overflow": (lambda index: index["blobs"][0].update(size=2**63 - 1), LimitError),
    "sizes overflow by what is required": (lambda index: index["requires"][0].update(size=2**63 - 1), LimitError),
    "too many blobs": (lambda index: index.update(blobs=[0] * (MAX_MEMBERS + 1)), LimitError),
    "file twice": (lambda index: index["files"].append(index["files"][0]), UnsafeError),
    "file too long": (lambda index: index["files"][0].update(size=MAX_FILE_BYTES + 1), LimitError),
    "no path": (lambda index: index["files"][0].pop("path"), UnsafeError),
    "file null": (lambda index: index["files"].append(None), InvalidBundleError),
    **{
        f"file {path!r:.20}": (
            lambda index, path=path: index["files"][0].update(path=path),  # type: ignore[misc]
            UnsafeError,
        )
        for path in (
            "ostore/bundle.json",
            "ostore/bundle.json.sig",
            "ostore/../blobs/x",
            "ostore/a/b",
            "ostore/.hidden",
            "ostore/",
            "/etc/passwd",
            "blobs/README",
            "ostore/a\n",
            "ostore/a\\b",
            "ostore/" + "a" * 92,
            5,
        )
    },
}


@pytest.mark.parametrize(("change", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_an_index_with_one_thing_wrong_is_refused_for_that(change: Change, error: type[OstoreError]) -> None:
    with pytest.raises(error) as caught:
        BundleIndex.parse(changed(change))
    assert type(caught.value) is error
    assert str(caught.value).startswith("index: ")


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", FormatError),
        (b"null", InvalidBundleError),
        (b"[]", InvalidBundleError),
        (INDEX.write()[:-2], FormatError),
        (INDEX.write() + b"{}", FormatError),
        (b"\xef\xbb\xbf" + INDEX.write(), FormatError),
        (INDEX.write().replace(b'"version":1', b'"version":1,"version":1'), UnsafeError),
        (INDEX.write().replace(b'"version":1', b'"version":1,"Version":2'), UnsafeError),
        (INDEX.write().replace(b'"creator":"', b'"creator":"\\ud800'), FormatError),
        (INDEX.write().replace(b'"version":1', b'"version":NaN'), FormatError),
        (b"[" * 200_000, LimitError),
        (b" " * (MAX_INDEX_BYTES + 1), LimitError),
    ],
    ids=[
        "empty",
        "null",
        "list",
        "cut",
        "second document",
        "byte order mark",
        "key twice",
        "key twice in another case",
        "lone surrogate",
        "NaN",
        "nested too deeply",
        "too long",
    ],
)
def test_bytes_that_are_no_index_are_refused(raw: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error, match=r"^index: "):
        BundleIndex.parse(raw)


def test_members_are_counted_over_all_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_index, "MAX_MEMBERS", 4)
    with pytest.raises(LimitError, match="at most 4 members"):
        BundleIndex.parse(INDEX.write())
    monkeypatch.setattr(bundle_index, "MAX_MEMBERS", 5)
    assert BundleIndex.parse(INDEX.write()) == INDEX


LEAVES: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({})
)


@QUICK
@given(st.data())
def test_an_index_with_any_value_replaced_is_read_or_refused_and_never_anything_else(data: st.DataObject) -> None:
    document = copy.deepcopy(json.loads(INDEX.write()))
    target = document
    while True:
        key = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        if not isinstance(target[key], (dict, list)) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = data.draw(LEAVES)
    try:
        found = BundleIndex.parse(json.dumps(document).encode())
    except OstoreError:
        return
    assert BundleIndex.parse(found.write()) == found
