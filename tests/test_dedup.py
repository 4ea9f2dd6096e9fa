"""Dedup decides from literals what counts as the same bytes, and reads only as much of real files as it needs."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import typing
from collections.abc import Callable
from pathlib import Path

import pytest

import ostore
from ostore.formats.digest import Digest
from ostore.operations.dedup import (
    CopyState,
    KeptFile,
    find_duplicates,
    must_be_hashed,
    named_by_inode,
)
from ostore.operations.verify import Verdict
from ostore.places.foreign_caches.candidates import CacheKind
from ostore.places.foreign_caches.usual_folders import usual_caches
from ostore.settings import surroundings
from ostore.streams.extents import Extent, shared_bytes
from tests.support import OSTORE, Store, costs_the_same_per_item, noise, sha256
from tests.support import ostore as run
from tests.test_foreign_caches import cached_repository, link, put
from tests.test_json import checked, report, schema

A, B = Digest("a" * 64), Digest("b" * 64)
WEIGHTS = noise(300_000)


def kept(path: str, digest: Digest | None, size: int = 5000, inode: int = 0) -> KeptFile:
    return KeptFile(path, "folder", size, size, (1, inode or hash(path)), digest)


def test_files_are_the_same_if_their_names_promise_it_and_the_blob_comes_first() -> None:
    own = [kept("blob", A), kept("other", B)]
    others = [kept("y", A), kept("x", A), kept("unnamed", None)]
    assert find_duplicates(own, others) == [(A, [own[0], *others[:2]])]


def test_two_neighbours_may_keep_what_the_store_has_not() -> None:
    others = [kept("x", B), kept("y", B)]
    assert find_duplicates([kept("blob", A)], others) == [(B, others)]


def test_a_file_of_another_size_is_incomplete_and_no_copy() -> None:
    assert find_duplicates([kept("blob", A)], [kept("x", A, size=4999)]) == []


def test_the_largest_come_first() -> None:
    own = [kept("small", A, size=5000), kept("large", B, size=6000)]
    others = [kept("x", A, size=5000), kept("y", B, size=6000)]
    assert [digest for digest, _ in find_duplicates(own, others)] == [B, A]


def test_less_than_a_block_is_not_worth_sharing() -> None:
    assert find_duplicates([kept("blob", A, size=4095)], [kept("x", A, size=4095)]) == []
    assert must_be_hashed([kept("blob", A, size=4095)], [kept("x", None, size=4095)]) == {}


def test_only_what_has_no_name_and_the_size_of_a_named_file_must_be_hashed() -> None:
    own = [kept("one", A), kept("two", B), kept("again", A)]
    others = [kept("named", A), kept("same size", None), kept("other size", None, size=5001)]
    assert must_be_hashed(own, others) == {"same size": (others[1], own[:2])}


def test_another_name_of_a_blob_needs_no_hashing() -> None:
    own, other = kept("blob", A, inode=7), kept("hard link", None, inode=7)
    assert named_by_inode([own], [other]) == [KeptFile("hard link", "folder", 5000, 5000, (1, 7), A)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([(0, 100, 50)], [(0, 100, 50)], 50),
        ([(0, 100, 50)], [(0, 101, 50)], 0),
        ([(0, 100, 64)], [(0, 100, 64)], 60),
        ([(0, 100, 10), (10, 500, 50)], [(0, 100, 20), (20, 510, 40)], 50),
        ([(0, 100, 10), (20, 120, 10)], [(0, 100, 30)], 20),
        ([(0, 100, 10)], [], 0),
        ([(0, 100, 5), (5, 105, 5)], [(0, 100, 10)], 10),
    ],
    ids=["all", "elsewhere", "past the end", "in pieces", "with a hole", "unknown", "cut otherwise"],
)
def test_bytes_are_shared_where_both_files_lie_in_the_same_place(
    one: list[tuple[int, int, int]], other: list[tuple[int, int, int]], expected: int
) -> None:
    first, second = (tuple(Extent(*numbers) for numbers in file) for file in (one, other))
    assert shared_bytes(first, second, 60) == shared_bytes(second, first, 60) == expected


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with nothing in it; no variable leads elsewhere."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "LLAMA_CACHE", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store(tmp_path / "models")
    made.model("big:latest", WEIGHTS, license=b"MIT")
    made.model("small:latest", noise(5000, 2))
    monkeypatch.setenv("OLLAMA_MODELS", str(made.root))
    return made


def states(found: ostore.DedupReport) -> dict[str, str]:
    return {copy.path: copy.state for blob in found.duplicates for copy in blob.copies}


def test_every_program_keeps_its_models_where_it_is_looked_for(home: Path, models: Store) -> None:
    hub = cached_repository(home / ".cache/huggingface/hub", "org/repo", {"q4.gguf": WEIGHTS})
    files = [hub / "blobs" / sha256(WEIGHTS)]
    files += [put(home / f"{folder}/org/repo/q4.gguf", WEIGHTS) for folder in (".lmstudio/models", "lms/models")]
    (home / ".lmstudio-home-pointer").write_text(f"{home}/lms\n")
    files += [put(home / ".cache/llama.cpp/org_repo_q4.gguf", WEIGHTS)]
    other = Store(home / ".ollama/models")
    other.model("copy:latest", WEIGHTS)
    found = ostore.dedup()
    assert set(states(found)) == {*map(str, files), str(other.blob_path(WEIGHTS))}
    (blob,) = found.duplicates
    assert (blob.path, blob.models) == (str(models.blob_path(WEIGHTS)), ("big:latest",))
    assert {place.kind for place in found.folders} == {"ollama", "hugging-face", "lm-studio", "llama.cpp"}


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HF_HUB_CACHE", "{}/x", "x"),
        ("HF_HUB_CACHE", "$HOME/x", "home/x"),
        ("HF_HUB_CACHE", "~/x", "home/x"),
        ("HUGGINGFACE_HUB_CACHE", "{}/x", "x"),
        ("HF_HOME", "{}/x", "x/hub"),
        ("XDG_CACHE_HOME", "{}/x", "x/huggingface/hub"),
        ("LLAMA_CACHE", "{}/x", "x"),
        ("XDG_CACHE_HOME", "{}/x", "x/llama.cpp"),
    ],
)
def test_variables_that_move_a_cache_are_followed(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    tmp_path = home.parent
    monkeypatch.setenv(variable, value.format(tmp_path))
    (tmp_path / expected).mkdir(parents=True)
    assert tmp_path / expected in [cache.path for cache in usual_caches(surroundings(), tmp_path / "models")]


def test_named_folders_are_looked_in_instead_of_the_usual_ones(home: Path, models: Store, tmp_path: Path) -> None:
    put(home / ".lmstudio/models/org/repo/q4.gguf", WEIGHTS)
    file = put(tmp_path / "mine/q4.gguf", WEIGHTS)
    assert list(states(ostore.dedup([tmp_path / "mine"]))) == [str(file)]


@pytest.mark.parametrize(("path", "code"), [("absent", 3), ("file", 2)])
def test_a_path_that_is_no_folder_is_refused(models: Store, tmp_path: Path, path: str, code: int) -> None:
    (tmp_path / "file").touch()
    assert run("dedup", tmp_path / path).returncode == code


def test_a_link_to_a_blob_is_no_copy_and_a_hard_link_is_no_loss(models: Store, tmp_path: Path) -> None:
    link(tmp_path / "lms/org/linked.gguf", models.blob_path(WEIGHTS))
    assert ostore.dedup([tmp_path / "lms"]).duplicates == ()
    os.link(models.blob_path(WEIGHTS), tmp_path / "lms/org/hard.gguf")
    found = ostore.dedup([tmp_path / "lms", models.root])
    assert states(found) == {}  # the first of its names is the link
    (tmp_path / "lms/org/linked.gguf").unlink()
    found = ostore.dedup([tmp_path / "lms"])
    assert states(found) == {str(tmp_path / "lms/org/hard.gguf"): "same-file"}
    assert (found.hashed, found.gain) == (0, 0)


def test_what_two_other_stores_keep_is_told_although_this_one_has_not_got_it(models: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        Store(tmp_path / name).model("x:latest", noise(9000, 9))
    (blob,) = ostore.dedup([tmp_path / "one", tmp_path / "two"]).duplicates
    assert (blob.digest, blob.models) == (f"sha256:{sha256(noise(9000, 9))}", ())


def test_a_file_of_the_same_size_is_hashed_unless_samples_tell_it_apart(models: Store, tmp_path: Path) -> None:
    same = put(tmp_path / "g/same.gguf", WEIGHTS)
    put(tmp_path / "g/head.gguf", b"X" + WEIGHTS[1:])
    put(tmp_path / "g/tail.gguf", WEIGHTS[:-1] + b"X")
    put(tmp_path / "g/between.gguf", WEIGHTS[:100_000] + b"X" + WEIGHTS[100_001:])
    found = ostore.dedup([tmp_path / "g"])
    assert list(states(found)) == [str(same)]
    assert (found.hashed, found.hashed_size, found.files) == (2, 2 * len(WEIGHTS), 4)


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@needs_strace
def test_a_model_in_the_hub_cache_is_found_with_no_byte_of_it_read(home: Path, models: Store, tmp_path: Path) -> None:
    repository = cached_repository(home / ".cache/huggingface/hub", "org/repo", {"q4.gguf": WEIGHTS})
    trace = tmp_path / "trace"
    reads = "read,pread64,readv,preadv,preadv2,mmap,sendfile,copy_file_range,splice"
    command = ["strace", "-f", "-y", "-e", f"trace={reads}", "-o", str(trace), *OSTORE, "dedup", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    document = checked("dedup", done.stdout)
    assert [copy["path"] for blob in document["duplicates"] for copy in blob["copies"]] == [
        str(repository / "blobs" / sha256(WEIGHTS))
    ]
    assert document["hashed"] == 0
    traced = trace.read_text()
    assert "/manifests/" in traced  # it sees what is read
    assert sha256(WEIGHTS) not in traced


def test_an_unreadable_file_is_named_and_the_rest_is_found(models: Store, tmp_path: Path) -> None:
    put(tmp_path / "g/a.gguf", WEIGHTS)
    loop = tmp_path / "g/loop.gguf"
    loop.symlink_to(loop.name)
    done = run("dedup", tmp_path / "g")
    assert done.returncode == 0
    assert f"warning: {loop}: {os.strerror(errno.ELOOP)}" in done.stderr
    assert "a.gguf" in done.stdout


def test_a_name_from_outside_cannot_write_on_the_terminal(models: Store, tmp_path: Path) -> None:
    put(tmp_path / "g/\x1b[31mred\nline.gguf", WEIGHTS)
    done = run("dedup", tmp_path / "g")
    assert "\\x1b[31mred\\nline.gguf" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_nothing_kept_twice_is_said(home: Path, models: Store) -> None:
    done = run("dedup")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"nothing is kept twice ({models.root})"
    assert run("dedup", "--link", "--yes").returncode == 0


def test_quiet_prints_one_copy_a_line(models: Store, tmp_path: Path) -> None:
    files = [put(tmp_path / f"g/{name}.gguf", WEIGHTS) for name in "ab"]
    done = run("dedup", tmp_path / "g", "-q")
    assert (done.stdout, done.stderr) == ("".join(f"{file}\n" for file in files), "")


def test_many_blobs_are_shown_by_their_largest(models: Store, tmp_path: Path) -> None:
    for number in range(30):
        data = noise(5000 + number, number)
        models.model(f"m{number}:latest", data)
        put(tmp_path / f"g/{number}.gguf", data)
    done = run("dedup", tmp_path / "g")
    assert "and 10 smaller blobs (-v shows all)" in done.stdout
    assert "m29:latest" in done.stdout
    assert "m3:latest" not in done.stdout
    assert "m3:latest" in run("dedup", tmp_path / "g", "-v").stdout


def test_without_a_terminal_sharing_needs_yes(models: Store, tmp_path: Path) -> None:
    put(tmp_path / "g/a.gguf", WEIGHTS)
    done = subprocess.run(
        [*OSTORE, "dedup", str(tmp_path / "g"), "--link"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "a.gguf" not in done.stdout


def test_the_document_is_what_its_schema_says_and_knows_every_state(models: Store, tmp_path: Path) -> None:
    put(tmp_path / "g/a.gguf", WEIGHTS)
    document = report("dedup", "dedup", tmp_path / "g", "--progress", "none", models=models.root)
    assert document["dry_run"] is True
    assert document["copied_size"] == len(WEIGHTS)
    properties = schema("dedup")["properties"]
    copy = properties["duplicates"]["items"]["properties"]["copies"]["items"]["properties"]
    assert copy["state"]["enum"] == list(typing.get_args(CopyState))
    assert copy["kind"]["enum"] == properties["folders"]["items"]["properties"]["kind"]["enum"] == list(CacheKind)
    # Only a lock can find that something is not there.
    assert properties["verdict"]["enum"] == [verdict for verdict in typing.get_args(Verdict) if verdict != "not-found"]


def test_a_blob_costs_the_same_among_many_though_one_in_ten_has_a_copy(tmp_path: Path) -> None:
    def work(count: int) -> Callable[[], object]:
        store, cache = tmp_path / f"{count}/models", tmp_path / f"{count}/hub"
        for number in range(count):
            digits, size = f"{number:064x}", 5000 + number
            hole(store / f"blobs/sha256-{digits}", size)
            digits = digits if number % 10 == 0 else digits.replace("0", "f")
            hole(cache / f"models--org--r{number // 10}/blobs/{digits}", size)

        def compare() -> None:
            found = ostore.dedup([cache], models=store)
            assert (len(found.duplicates), found.hashed) == (count // 10, 0)

        return compare

    assert costs_the_same_per_item(work)


def hole(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)


def test_a_model_that_only_another_program_has_is_offered_with_the_command_that_takes_it_in(
    models: Store, tmp_path: Path
) -> None:
    folder, tiny = tmp_path / "lm", tmp_path / "lm/me/Tiny-GGUF"
    put(tiny / "Tiny-Q4_K_M.gguf", noise(6000, 5))
    put(tiny / "mmproj-Tiny.gguf", noise(4500, 6))
    put(folder / "me/Big/big.gguf", noise(7000, 7))
    parts = [folder / f"me/Split/split-0000{number}-of-00002.GGUF" for number in (1, 2)]
    for number, part in enumerate(parts):
        put(part, noise(4500, 20 + number))
    for path in folder.rglob("*.*"):
        path.chmod(0o644)
    # The store has these bytes, and that is too small for a model.
    put(folder / "me/Known/known.gguf", WEIGHTS)
    put(folder / "me/Known/small.gguf", b"GGUF")
    # It has the size of a blob, and other bytes.
    put(folder / "me/Same/same.gguf", noise(5000, 9))
    (folder / "me/Same/same.gguf").chmod(0o664)
    document = report("dedup", "dedup", folder, models=models.root)
    # A part of a whole cannot be linked, nor should a file that others may write into.
    assert [(model["create_arguments"], model["size"]) for model in document["foreign"]] == [
        ([["ostore", "create", "big-2", f"{folder}/me/Big/big.gguf", "--link"]], 7000),
        ([["ostore", "create", "same", f"{folder}/me/Same/same.gguf"]], 5000),
        ([["ostore", "create", "split", *map(str, parts)]], 9000),
        (
            [["ostore", "create", "tiny:q4_k_m", f"{tiny}/Tiny-Q4_K_M.gguf", f"{tiny}/mmproj-Tiny.gguf", "--link"]],
            10_500,
        ),
    ]
    told = run("dedup", folder, environment={"OLLAMA_MODELS": str(models.root)}).stdout
    assert f"  7 KB  ostore create big-2 {folder}/me/Big/big.gguf --link\n" in told


def test_a_model_of_the_hugging_face_cache_is_offered_under_its_name(models: Store, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    cached_repository(hub, "me/tiny", {"Tiny-Q8_0.gguf": noise(6000, 5), "README.md": b"x" * 5000})
    document = report("dedup", "dedup", hub, models=models.root)
    ((create,),) = [model["create_arguments"] for model in document["foreign"]]
    assert create[:3] == ["ostore", "create", "tiny:q8_0"]
    assert create[3].endswith("/Tiny-Q8_0.gguf")
    assert "/snapshots/" in create[3]


def test_a_model_of_another_store_is_not_offered(models: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.model("theirs:latest", noise(6000, 5))
    assert report("dedup", "dedup", other.root, models=models.root)["foreign"] == []


def test_of_many_offers_the_first_are_shown(models: Store, tmp_path: Path) -> None:
    for number in range(22):
        put(tmp_path / f"m/{number}.gguf", noise(4500, 100 + number))
    told = run("dedup", tmp_path / "m", environment={"OLLAMA_MODELS": str(models.root)}).stdout
    assert told.count("ostore create") == 20
    assert "and 2 more models (-v shows all)" in told
