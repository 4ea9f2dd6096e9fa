"""The manifests of a store keep blobs from being deleted, and a doubt keeps all of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ostore.formats.digest import Digest
from ostore.formats.errors import LimitError
from ostore.formats.manifest import MAX_MANIFEST_BYTES, mentioned_by
from ostore.formats.name import ModelName
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.places.store.survey.references import (
    MAX_LIST_DEPTH,
    References,
    find_references,
    references_of,
)
from ostore.places.store.survey.scan import scan_manifests
from tests.support import MODEL, Store, full, sha256

A, B, C, D = (Digest(letter * 64) for letter in "abcd")
LIST = "application/vnd.ollama.manifest.list.v2+json"


def layer(digest: str) -> dict[str, Any]:
    return {"mediaType": MODEL, "digest": digest, "size": 1}


def manifest(*digests: str, **more: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "layers": [layer(digest) for digest in digests], **more}).encode()


def manifest_list(*children: str, **more: object) -> bytes:
    entries = [{"mediaType": LIST, "digest": child, "size": 1} for child in children]
    return json.dumps({"schemaVersion": 2, "mediaType": LIST, "manifests": entries, **more}).encode()


def escaped(text: str) -> bytes:
    """JSON text in which no digest shows."""
    return b'"' + "".join(f"\\u{ord(letter):04x}" for letter in text).encode() + b'"'


def names(found: References, digest: Digest) -> list[str]:
    return [str(name) for name in found.users[digest]]


def doubts(found: References) -> list[tuple[str, str]]:
    return [(doubt.path, doubt.reason) for doubt in found.doubts]


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def test_every_blob_of_every_model_is_kept_and_so_is_every_manifest(kinds: Store) -> None:
    found = find_references(kinds.root)
    assert found.doubts == ()
    blobs = {Digest.of(path.read_bytes()) for path in (kinds.root / "blobs").iterdir()}
    manifests = {Digest.of(kinds.manifest_path(name).read_bytes()) for name in kinds.names}
    assert set(found.users) == blobs | manifests
    assert all(found.users.values())


def test_it_says_which_models_keep_a_blob(store: Store) -> None:
    found = find_references(store.root)
    shared = Digest.of(b"the weights " * 1000)
    assert names(found, shared) == ["tiny:latest", "tiny:q4"]
    assert names(found, Digest.of(b"Say hi!")) == ["tiny:q4"]
    assert found.scan.users[shared] == found.users[shared]
    assert D not in found.users


@pytest.mark.parametrize(
    "spelled",
    [
        f'"sha256:{A.hex}"',
        f'"sha256-{A.hex}"',
        f'"sha256:{A.hex.upper()}"',
        f'"sha256-{A.hex.upper()}"',
        escaped(str(A)).decode(),
        escaped(f"sha256-{A.hex.upper()}").decode(),
        f'"\\u0073ha256:{A.hex}"',
    ],
    ids=["canonical", "dash", "upper case", "upper case with dash", "escaped", "escaped odd form", "one escape"],
)
@pytest.mark.parametrize("where", ["layers", "config", "LAYERS"])
def test_a_digest_is_kept_however_it_is_spelled(empty: Store, spelled: str, where: str) -> None:
    reference = f'{{"mediaType":"{MODEL}","digest":{spelled},"size":1}}'
    value = reference if where == "config" else f"[{reference}]"
    empty.write_manifest(full("odd:latest"), f'{{"schemaVersion":2,"{where}":{value}}}'.encode())
    found = find_references(empty.root)
    assert names(found, A) == ["odd:latest"]
    assert found.doubts == ()


def test_digests_that_only_another_reader_would_see_are_kept(empty: Store) -> None:
    raw = manifest(str(A), annotations={"base": f"see sha256-{B.hex.upper()}"})
    raw = raw.replace(b'"layers"', b'"layers":[{"digest":"' + str(C).encode() + b'","size":1}],"layers"', 1)
    empty.write_manifest(full("twice:latest"), raw + f"\n{D}".encode())
    found = find_references(empty.root)
    assert set(found.users) == {A, B, C, D, Digest.of(raw + f"\n{D}".encode())}
    assert found.doubts == ()


@pytest.mark.parametrize("tree", ["manifests", "manifests-v2"])
@pytest.mark.parametrize(
    ("path", "raw", "reason"),
    [
        ("registry.ollama.ai/library/bad/latest", b"", "manifest: empty"),
        ("registry.ollama.ai/library/bad/latest", f'{{"layers":[{{"digest":"{A}"'.encode(), "manifest: "),
        ("registry.ollama.ai/library/bad/latest", manifest("sha256:zz", str(A)), "layers[0].digest: "),
        (
            "registry.ollama.ai/library/bad/latest",
            manifest(str(A)) + b" " * MAX_MANIFEST_BYTES,
            "manifest: expected at",
        ),
        ("registry.ollama.ai/library/bad/.latest.swp", manifest(str(A)), "its path is not a model name"),
        ("registry.ollama.ai/li.brary/bad/latest", manifest(str(A)), "its path is not a model name"),
    ],
    ids=["empty", "cut", "bad digest", "too long", "odd tag", "odd namespace"],
)
def test_what_is_no_manifest_leaves_a_doubt_and_keeps_what_it_mentions(
    empty: Store, tree: str, path: str, raw: bytes, reason: str
) -> None:
    empty.model("good:latest", b"weights")
    target = empty.root / tree / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(raw)
    found = find_references(empty.root)
    ((doubtful, why),) = doubts(found)
    assert doubtful == f"{tree}/{path}"
    assert why.startswith(reason)
    assert (A in found.users) == (str(A).encode() in raw)
    assert names(found, Digest.of(b"weights")) == ["good:latest"]


def test_an_entry_without_a_name_keeps_the_digests_that_it_hides_in_escapes(empty: Store) -> None:
    raw = b'{"schemaVersion":2,"layers":[{"digest":' + escaped(str(A)) + b',"size":1}]}'
    target = empty.root / "manifests/registry.ollama.ai/library/bad/.hidden"
    target.parent.mkdir(parents=True)
    target.write_bytes(raw)
    assert find_references(empty.root).users == {A: (), Digest.of(raw): ()}


@pytest.mark.parametrize("kind", ["folder", "fifo", "dangling link", "loop"])
def test_an_entry_that_is_no_file_leaves_a_doubt(store: Store, kind: str) -> None:
    target = store.root / "manifests/registry.ollama.ai/library/tiny/odd"
    if kind == "folder":
        target.mkdir()
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        target.symlink_to("odd" if kind == "loop" else f"../../../../../blobs/{A.filename}")
    found = find_references(store.root)
    assert [path for path, _ in doubts(found)] == ["manifests/registry.ollama.ai/library/tiny/odd"]
    assert (A in found.users) == (kind == "dangling link")


@pytest.mark.parametrize("path", ["manifests", "manifests-v2", "manifests/hf.co", "manifests/hf.co/someone/model"])
def test_a_link_to_a_disk_that_is_not_there_leaves_a_doubt(tmp_path: Path, path: str) -> None:
    link = tmp_path / path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/nonexistent/disk")
    assert doubts(find_references(tmp_path)) == [(path, "a link that leads to no folder")]


def test_linked_folders_are_followed_and_leave_no_doubt(store: Store, tmp_path: Path) -> None:
    models = tmp_path / "linked"
    (models / "manifests").mkdir(parents=True)
    (models / "manifests/registry.ollama.ai").symlink_to(store.root / "manifests/registry.ollama.ai")
    (models / "manifests-v2").symlink_to(store.root / "manifests")
    (models / "manifests/README").symlink_to(__file__)
    found = find_references(models)
    assert found.doubts == ()
    assert names(found, Digest.of(b"Say hi!")) == ["tiny:q4"]


def test_a_file_at_another_depth_is_no_manifest_and_leaves_no_doubt(store: Store) -> None:
    (store.root / "manifests/README").write_bytes(b"hello")
    (store.root / "manifests/.ostore-tmp/1-a").mkdir(parents=True)
    (store.root / "manifests/.ostore-tmp/1-a/000.json").write_bytes(b"{")
    found = find_references(store.root)
    assert found.doubts == ()
    assert [stray.path for stray in found.scan.strays] == ["manifests/README"]


def test_a_file_at_another_depth_that_mentions_a_digest_keeps_the_blob(store: Store) -> None:
    path = store.root / "manifests/library/tiny/misplaced"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"layers":[{"digest":"sha256-' + b"C" * 64 + b'"}]}')
    found = find_references(store.root)
    assert (found.doubts, names(found, Digest("c" * 64))) == ((), [])
    assert Digest("c" * 64) in found.users


def test_a_side_file_of_an_operating_system_is_no_doubt_unless_it_mentions_a_digest(store: Store) -> None:
    folder = store.manifest_path(full("tiny:q4")).parent
    (folder / "._q4").write_bytes(b"\x00\x05\x16\x07\x00\x02")
    (folder / "desktop.ini").write_bytes(b"[.ShellClassInfo]")
    assert find_references(store.root).doubts == ()
    (folder / "._q4").write_bytes(b"\x00\x05\x16\x07 sha256:" + b"c" * 64)
    (folder / ".DS_Store").write_bytes(b"not what it says")
    assert {doubt.path.rpartition("/")[2] for doubt in find_references(store.root).doubts} == {"._q4", ".DS_Store"}


def test_a_store_without_manifests_keeps_nothing(tmp_path: Path) -> None:
    found = find_references(tmp_path)
    assert (found.users, found.doubts, found.scan.models) == ({}, (), ())


def link_v2(store: Store, target: Path, name: str = "linked") -> Path:
    link = store.root / "manifests-v2/ollama.com/library" / name / "latest"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))
    return link


def test_a_name_that_links_to_a_blob_keeps_the_blob_and_what_it_refers_to(empty: Store) -> None:
    raw = manifest(str(A))
    empty.blob(raw)
    link_v2(empty, empty.blob_path(raw))
    found = find_references(empty.root)
    assert found.users == {A: found.users[A], Digest.of(raw): found.users[A]}
    assert found.users[A] == (ModelName.parse("linked"),)
    assert found.doubts == ()


def test_a_linked_blob_is_kept_although_its_bytes_are_others(empty: Store) -> None:
    empty.blob(b"anything")
    (empty.root / "blobs" / B.filename).write_bytes(manifest(str(A)))
    link = link_v2(empty, empty.root / "blobs" / B.filename)
    link_v2(empty, link, "chain")
    found = find_references(empty.root)
    assert names(found, B) == names(found, A) == ["chain:latest", "linked:latest"]


def test_children_of_a_list_are_read_and_keep_what_they_refer_to(empty: Store) -> None:
    leaf = manifest(str(A), config=layer(str(B)))
    hidden = b'{"schemaVersion":2,"layers":[{"size":1,"digest":' + escaped(str(C)) + b"}]}"
    inner = manifest_list(empty.blob(hidden))
    top = manifest_list(empty.blob(leaf), empty.blob(inner))
    empty.write_manifest(full("many:latest"), top)
    found = find_references(empty.root)
    assert found.doubts == ()
    assert set(found.users) == {A, B, C, *map(Digest.of, (leaf, hidden, inner, top))}
    assert {tuple(map(str, users)) for users in found.users.values()} == {("many:latest",)}


def test_a_child_is_found_by_whatever_spelling_the_list_and_the_disk_have(empty: Store) -> None:
    leaf = manifest(str(A))
    empty.blob(leaf)
    plain = empty.blob_path(leaf)
    plain.rename(plain.with_name(f"sha256-{sha256(leaf).upper()}"))
    raw = b'{"schemaVersion":2,"manifests":[{"size":1,"digest":' + escaped(f"sha256:{sha256(leaf)}") + b"}]}"
    empty.write_manifest(full("many:latest"), raw)
    found = find_references(empty.root)
    assert (names(found, A), found.doubts) == (["many:latest"], ())


def test_a_child_of_two_models_is_kept_by_both(empty: Store) -> None:
    child = empty.blob(manifest(str(A)))
    empty.write_manifest(full("one:latest"), manifest_list(child))
    empty.write_manifest(full("two:latest"), manifest_list(child, note=1))
    assert names(find_references(empty.root), A) == ["one:latest", "two:latest"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, os.strerror(2)),
        (b"GGUF", "manifest: "),
        (b" " * (MAX_MANIFEST_BYTES + 1), "manifest: expected at most"),
        (manifest(str(B)), "not what its digest promises"),
    ],
    ids=["missing", "no manifest", "too long", "other bytes"],
)
def test_a_child_that_cannot_be_relied_upon_leaves_one_doubt(empty: Store, raw: bytes | None, reason: str) -> None:
    if raw is not None:
        (empty.root / "blobs").mkdir(parents=True)
        (empty.root / "blobs" / A.filename).write_bytes(raw)
    for name in ("one:latest", "two:latest"):
        empty.write_manifest(full(name), manifest_list(str(A)))
    found = find_references(empty.root)
    ((path, why),) = doubts(found)
    assert path == f"blobs/{A.filename}"
    assert why.startswith(reason)
    assert names(found, A) == ["one:latest", "two:latest"]
    assert (B in found.users) == (reason == "not what its digest promises")


def test_lists_within_lists_end_with_a_doubt_and_not_with_a_long_walk(empty: Store) -> None:
    raw = manifest(str(A))
    for _ in range(MAX_LIST_DEPTH):
        raw = manifest_list(empty.blob(raw))
    empty.write_manifest(full("deep:latest"), raw)
    assert find_references(empty.root).doubts == ()
    assert names(find_references(empty.root), A) == ["deep:latest"]
    empty.write_manifest(full("deep:latest"), manifest_list(empty.blob(raw)))
    ((path, why),) = doubts(find_references(empty.root))
    assert path.startswith("blobs/sha256-")
    assert why == f"manifest lists within lists: expected at most {MAX_LIST_DEPTH}"


@pytest.mark.parametrize("raw", [b"", b"{", b"not json", b"[]"], ids=repr)
def test_bytes_that_are_no_manifest_mention_themselves_and_what_looks_like_a_digest(raw: bytes) -> None:
    more = raw + f" sha256-{A.hex.upper()}".encode()
    assert mentioned_by(raw) == {Digest.of(raw)}
    assert mentioned_by(more) == {A, Digest.of(more)}


def test_a_manifest_that_is_too_much_is_an_error_and_not_a_manifest_that_needs_nothing() -> None:
    with pytest.raises(LimitError):
        mentioned_by(b"[" * 10_000)
    with pytest.raises(LimitError):
        mentioned_by(b" " * (MAX_MANIFEST_BYTES + 1))


def test_a_link_that_goes_while_manifests_are_read_keeps_nothing(store: Store) -> None:
    link = store.manifest_path(full("tiny:link"))
    link.symlink_to("q4")
    scan = scan_manifests(find_manifests(store.root))
    link.unlink()
    assert references_of(store.root, scan).named.keys() == find_references(store.root).named.keys()
