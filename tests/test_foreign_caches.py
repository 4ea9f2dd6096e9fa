"""Files of other programs are found, and their names are believed only for what they promise."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ostore.formats.digest import Digest
from ostore.places.foreign_caches.candidates import CacheKind, Candidate, ForeignCache, FoundFiles, opened
from ostore.places.foreign_caches.walk import MAX_DEPTH, find_files, recognise
from tests.support import Store, costs_the_same_per_item, noise, sha256

GIT = "a" * 40
XET = "ab" * 32
COMMIT = "c" * 40


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def link(path: Path, target: Path) -> Path:
    """A relative link, as the Hub's libraries make them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))
    return path


def look(*places: Path, kind: CacheKind = CacheKind.FOLDER) -> FoundFiles:
    return find_files(ForeignCache(kind, place) for place in places)


def named(found: FoundFiles) -> dict[str, str | None]:
    return {candidate.path: candidate.digest.hex if candidate.digest else None for candidate in found.candidates}


def cached_repository(cache: Path, name: str, files: dict[str, bytes], *, in_git: bool = False) -> Path:
    """A repository in the cache, as huggingface_hub 2.4 leaves it without the shared store."""
    repository = cache / f"models--{name.replace('/', '--')}"
    put(repository / "refs/main", COMMIT.encode())
    for file, data in files.items():
        blob = put(repository / "blobs" / (GIT if in_git else sha256(data)), data)
        link(repository / "snapshots" / COMMIT / file, blob)
    return repository


def test_a_blob_of_the_hub_is_found_once_and_by_its_digest(tmp_path: Path) -> None:
    repository = cached_repository(tmp_path, "org/repo", {"q4.gguf": b"weights", "sub/same.gguf": b"weights"})
    assert named(look(tmp_path)) == {str(repository / "blobs" / sha256(b"weights")): sha256(b"weights")}


def test_a_small_file_of_the_hub_is_named_by_git_which_promises_nothing(tmp_path: Path) -> None:
    repository = cached_repository(tmp_path, "org/repo", {"config.json": b"{}"}, in_git=True)
    assert named(look(tmp_path)) == {str(repository / "blobs" / GIT): None}


def test_the_name_of_a_shared_blob_is_no_sha256_but_that_of_the_link_to_it_is(tmp_path: Path) -> None:
    shared = put(tmp_path / "blobs/ab" / XET, b"shared")
    put(tmp_path / "blobs/.huggingface-shared-blobs", b"1\n")
    put(tmp_path / f"blobs/ab/{XET}.refs", b"")
    put(tmp_path / f"blobs/ab/{XET}.lock", b"")
    lost = put(tmp_path / "blobs/ab" / f"ab{'0' * 62}", b"nobody refers to it")
    for name in ("one", "two"):
        blob = link(tmp_path / f"models--org--{name}/blobs" / sha256(b"shared"), shared)
        link(tmp_path / f"models--org--{name}/snapshots/{COMMIT}/model.gguf", blob)
    assert named(look(tmp_path)) == {
        str(tmp_path / "models--org--one/blobs" / sha256(b"shared")): sha256(b"shared"),
        str(lost): None,
    }


def test_a_snapshot_without_links_holds_the_files_themselves(tmp_path: Path) -> None:
    file = put(tmp_path / f"models--org--repo/snapshots/{COMMIT}/model.safetensors", b"weights")
    assert named(look(tmp_path)) == {str(file): None}


def test_what_is_still_loaded_or_only_says_something_is_no_candidate(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--repo"
    digest = sha256(b"x")
    for name in (f"blobs/{digest}.incomplete", f"blobs/{digest}.1234.incomplete", "refs/main", "refs/x.gguf"):
        put(repository / name, b"x")
    put(repository / f".no_exist/{COMMIT}/config.json", b"")
    put(tmp_path / ".locks/models--org--repo/x.gguf", b"")
    put(tmp_path / "CACHEDIR.TAG", b"x")
    put(tmp_path / "a/part.gguf.downloadInProgress", b"x")
    assert look(tmp_path).candidates == ()


def test_files_of_lm_studio_and_llama_cpp_are_found_by_their_suffix(tmp_path: Path) -> None:
    files = [put(tmp_path / name, name.encode()) for name in ("org/repo/q4.gguf", "ggml-org_repo_Q8.GGUF")]
    put(tmp_path / "ggml-org_repo_Q8.GGUF.etag", b"x")
    put(tmp_path / "manifest=org=repo=latest.json", b"x")
    assert named(look(tmp_path)) == {str(file): None for file in files}


def test_blobs_of_another_store_are_found_and_its_manifests_are_not_looked_at(store: Store) -> None:
    manifests = store.root / "manifests/registry.ollama.ai/library/x.gguf"
    put(manifests / "latest.gguf", b"{}")
    put(store.root / "blobs/sha256-123", b"x")
    put(store.root / "blobs" / f"sha256-{'b' * 64}-partial", b"x")
    put(store.root / ".ostore/trash/x.gguf", b"x")
    blobs = {path for path in (store.root / "blobs").iterdir() if len(path.name) == 71}
    assert named(look(store.root)) == {str(path): path.name.removeprefix("sha256-") for path in blobs}
    # Whichever of its folders is named.
    assert named(look(store.root / "blobs")) == named(look(store.root)) == named(look(store.root.parent))


@pytest.mark.parametrize("below", ["", "models--org--repo", "models--org--repo/blobs"])
def test_a_repository_or_its_folder_of_blobs_can_be_the_place(tmp_path: Path, below: str) -> None:
    cached_repository(tmp_path, "org/repo", {"q4.gguf": b"weights"})
    assert list(named(look(tmp_path / below)).values()) == [sha256(b"weights")]


def test_a_file_with_several_names_is_one_and_the_name_that_promises_counts(tmp_path: Path, store: Store) -> None:
    blob = store.blob_path(b"the weights " * 1000)
    link(tmp_path / "a/linked.gguf", blob)
    os.link(blob, tmp_path / "a/hard.gguf")
    found = look(tmp_path / "a", store.root)
    assert [candidate.path for candidate in found.candidates if candidate.size == 12000] == [str(blob)]


def test_folders_behind_links_are_not_entered_so_there_are_no_loops(tmp_path: Path) -> None:
    put(tmp_path / "outside/x.gguf", b"x")
    file = put(tmp_path / "place/y.gguf", b"y")
    (tmp_path / "place/loop").symlink_to(tmp_path / "place")
    (tmp_path / "place/away").symlink_to(tmp_path / "outside")
    (tmp_path / "place/self.gguf").symlink_to("self.gguf")
    (tmp_path / "place/nowhere.gguf").symlink_to("nothing")
    (tmp_path / "place/folder.gguf").mkdir()
    os.mkfifo(tmp_path / "place/pipe.gguf")
    found = look(tmp_path / "place")
    assert named(found) == {str(file): None}
    assert [entry.path for entry in found.unreadable] == [str(tmp_path / "place/self.gguf")]
    # The place itself may be a link.
    (tmp_path / "linked").symlink_to("place")
    assert list(named(look(tmp_path / "linked"))) == [str(tmp_path / "linked/y.gguf")]


def test_depth_is_bounded_and_what_lies_deeper_is_named(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * MAX_DEPTH)
    file = put(deep / "x.gguf", b"x")
    put(deep / "e/y.gguf", b"y")
    found = look(tmp_path)
    assert named(found) == {str(file): None}
    assert [(entry.path, entry.reason) for entry in found.unreadable] == [
        (str(deep / "e"), "more than 12 folders deep")
    ]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
def test_a_folder_that_may_not_be_read_is_named_and_the_rest_is_found(tmp_path: Path) -> None:
    put(tmp_path / "open/x.gguf", b"x")
    shut = put(tmp_path / "shut/y.gguf", b"y").parent
    os.chown(shut, 12345, 12345)
    shut.chmod(0o700)
    code = (
        "import sys; from pathlib import Path\n"
        "from ostore.places.foreign_caches.candidates import ForeignCache, CacheKind\n"
        "from ostore.places.foreign_caches.walk import find_files\n"
        "found = find_files([ForeignCache(CacheKind.FOLDER, Path(sys.argv[1]))])\n"
        "print([Path(file.path).name for file in found.candidates])\n"
        "print([(Path(folder.path).name, folder.reason) for folder in found.unreadable])\n"
    )
    # A root that may do no more than others: the interpreter may lie where other users cannot enter.
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    told = subprocess.run(
        [*powerless, sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == ["['x.gguf']", f"[('shut', '{os.strerror(errno.EACCES)}')]"]


def test_a_place_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert look(tmp_path / "absent") == FoundFiles((), ())


def test_copies_are_those_that_promise_the_digest_then_those_of_the_same_size(tmp_path: Path) -> None:
    weights, other = noise(1000), noise(1000, 2)
    first = put(tmp_path / "z/blobs" / f"sha256-{sha256(weights)}", weights)
    put(tmp_path / "y/blobs" / f"sha256-{sha256(weights)}", weights[:-1])
    put(tmp_path / "x/blobs" / f"sha256-{sha256(other)}", other)
    second = put(tmp_path / "a.gguf", weights)
    third = put(tmp_path / "b.gguf", other)
    put(tmp_path / "c.gguf", b"short")
    copies = list(look(tmp_path).copies_of(Digest(sha256(weights)), 1000))
    assert [candidate.path for candidate in copies] == [str(first), str(second), str(third)]
    assert list(look(tmp_path).copies_of(Digest("f" * 64), 1)) == []


def test_an_exchanged_file_is_not_opened_for_the_one_that_was_found(tmp_path: Path) -> None:
    path = put(tmp_path / "x.gguf", b"weights")
    (candidate,) = look(tmp_path).candidates
    with opened(candidate) as fd:
        assert os.read(fd, 10) == b"weights"
    path.write_bytes(b"longer weights")
    with pytest.raises(OSError, match="of another size by now"), opened(candidate):
        pass
    path.rename(tmp_path / "kept")
    path.write_bytes(b"weights")
    with pytest.raises(OSError, match="another file by now"), opened(candidate):
        pass
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="another file by now"), opened(candidate):
        pass


def test_folders_are_recognised_by_what_lies_in_them(tmp_path: Path, store: Store) -> None:
    cached_repository(tmp_path / "hub", "org/repo", {"x.gguf": b"x"})
    put(tmp_path / "folder/x.gguf", b"x")
    kinds = [recognise(path).kind for path in (store.root, tmp_path / "hub", tmp_path / "folder")]
    assert kinds == [CacheKind.STORE, CacheKind.HUGGING_FACE, CacheKind.FOLDER]


def test_a_file_costs_the_same_among_many(tmp_path: Path) -> None:
    def work(count: int) -> Callable[[], object]:
        hub = tmp_path / str(count)
        for number in range(count):
            put(hub / f"models--org--r{number // 10}/blobs/{number:064x}", b"")
        return lambda: look(hub)

    assert costs_the_same_per_item(work)


def test_a_candidate_knows_its_file(tmp_path: Path) -> None:
    path = put(tmp_path / "x.gguf", noise(10_000))
    status = path.stat()
    assert look(tmp_path, kind=CacheKind.LM_STUDIO).candidates == (
        Candidate(str(path), CacheKind.LM_STUDIO, 10_000, status.st_blocks * 512, status.st_dev, status.st_ino, None),
    )
