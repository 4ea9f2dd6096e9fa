"""`ostore path` prints the path of the weights and nothing else, or says in one line why there is none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import ostore
from tests.gguf import gguf, talking_gguf
from tests.support import MODEL, OSTORE, PROJECTOR, TENSOR, Store, as_user, full
from tests.support import ostore as run
from tests.test_json import report

ADAPTER = "application/vnd.ollama.image.adapter"
WEIGHTS, SEES, TUNES = talking_gguf(), gguf({"general.architecture": "clip"}, {}), b"an adapter"
DIALECT = gguf({"general.architecture": "gptoss"}, {"a": ((32,), [1.0])})


@pytest.fixture
def made(tmp_path: Path) -> Store:
    store = Store(tmp_path / "models")
    store.model("plain:latest", WEIGHTS)
    layers = [store.layer(PROJECTOR, SEES), store.layer(MODEL, WEIGHTS), store.layer(ADAPTER, TUNES)]
    store.add(full("full:latest"), *layers)
    return store


def printed(store: Store, *words: str) -> tuple[int, str, str]:
    done = run("path", *words, environment={"OLLAMA_MODELS": str(store.root)})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("option", "content"), [((), WEIGHTS), (("--projector",), SEES), (("--adapter",), TUNES)])
def test_the_path_is_all_that_is_printed(made: Store, option: tuple[str, ...], content: bytes) -> None:
    assert printed(made, "full", *option) == (0, f"{made.blob_path(content)}\n", "")


def test_a_document_has_all_files_with_their_media_types(made: Store) -> None:
    document = report("path", "path", "full", models=made.root)
    assert [(part["media_type"].rpartition(".")[2], part["path"]) for part in document["parts"]] == [
        ("model", str(made.blob_path(WEIGHTS))),
        ("projector", str(made.blob_path(SEES))),
        ("adapter", str(made.blob_path(TUNES))),
    ]
    assert (document["runs_in"], document["dialect"]) == ("Ollama, llama.cpp", None)


def test_a_path_is_absolute_and_byte_for_byte(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/na\xffme"
    made = Store(Path(os.fsdecode(folder)))
    made.model("plain:latest", WEIGHTS)
    environment = {**os.environ, "OLLAMA_MODELS": made.root.name}
    done = subprocess.run([*OSTORE, "path", "plain"], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (os.fsencode(made.blob_path(WEIGHTS)) + b"\n", b"")


def test_a_blob_under_an_old_name_is_found_where_it_is(made: Store) -> None:
    old = made.blob_path(WEIGHTS).rename(made.blob_path(WEIGHTS).with_name(made.blob_path(WEIGHTS).name[7:]))
    assert printed(made, "plain") == (0, f"{old}\n", "")


def test_a_file_that_only_ollama_loads_is_a_warning_and_with_strict_an_error(made: Store) -> None:
    made.model("odd:latest", DIALECT)
    warning = "odd:latest: runs in Ollama only (gptoss dialect); llama.cpp refuses such a file or loads it wrong"
    assert printed(made, "odd") == (0, f"{made.blob_path(DIALECT)}\n", f"ostore: warning: {warning}\n")
    assert printed(made, "odd", "--strict") == (10, "", f"ostore: error[damaged]: {warning}\n")


def test_a_file_whose_header_nobody_can_read_is_a_warning(made: Store) -> None:
    made.model("noise:latest", b"no header")
    code, out, told = printed(made, "noise")
    assert (code, out) == (0, f"{made.blob_path(b'no header')}\n")
    assert "ostore: warning: noise:latest: cannot tell where it runs: blob sha256:" in told
    assert ": not a GGUF file" in told


def without_weights(store: Store) -> None:
    store.add(full("odd:latest"), store.layer(PROJECTOR, SEES))


def of_tensors(store: Store) -> None:
    store.add(full("odd:latest"), *(store.layer(TENSOR, b"%d" % number) for number in range(3)))


def elsewhere(store: Store) -> None:
    config = store.config(remote_host="https://ollama.com", remote_model="odd")
    store.add(full("odd:latest"), config=config)


def in_pieces(store: Store) -> None:
    store.add(full("odd:latest"), store.layer(MODEL, b"one"), store.layer(MODEL, b"two"))


def missing(store: Store) -> None:
    store.model("odd:latest", b"gone")
    store.blob_path(b"gone").unlink()


def leading_nowhere(store: Store) -> None:
    missing(store)
    store.blob_path(b"gone").symlink_to("nowhere")


def incomplete(store: Store) -> None:
    store.model("odd:latest", b"gone")
    store.blob_path(b"gone").write_bytes(b"go")


def a_folder(store: Store) -> None:
    missing(store)
    store.blob_path(b"gone").mkdir()


def unreadable(store: Store) -> None:
    store.write_manifest(full("odd:latest"), b"{")


@pytest.mark.parametrize(
    ("prepare", "code", "says"),
    [
        (without_weights, 12, "odd:latest: no weights in its manifest"),
        (of_tensors, 12, "odd:latest: a model of 3 tensors, each a blob; only Ollama reads it"),
        (elsewhere, 3, "odd:latest: a cloud model; its weights are on https://ollama.com and not in this store"),
        (in_pieces, 12, "odd:latest: its weights are in 2 files, which no version of Ollama loads"),
        (missing, 4, ": missing (ostore verify odd:latest shows all that is damaged"),
        (leading_nowhere, 4, ": missing"),
        (incomplete, 4, ": expected 4 bytes, got 2"),
        (a_folder, 10, ": expected a regular file"),
        (unreadable, 10, "manifests/registry.ollama.ai/library/odd/latest: manifest: not JSON"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_model_without_a_file_is_one_line(
    made: Store, prepare: Callable[[Store], object], code: int, says: str
) -> None:
    prepare(made)
    # A glob that means nothing else ends in the same way.
    for word in ("odd", "od*"):
        ended, out, told = printed(made, word)
        assert (ended, out, told.count("\n")) == (code, "", 1)
        assert says in told


def test_a_config_that_is_no_json_does_not_matter(made: Store) -> None:
    config = made.layer("application/vnd.docker.container.image.v1+json", b"{")
    made.add(full("odd:latest"), made.layer(MODEL, WEIGHTS), config=config)
    assert printed(made, "odd") == (0, f"{made.blob_path(WEIGHTS)}\n", "")


def test_a_manifest_without_a_config_has_weights(made: Store) -> None:
    empty = {"mediaType": "", "digest": "", "size": 0}
    made.add(full("odd:latest"), made.layer(MODEL, WEIGHTS), config=empty)
    assert printed(made, "odd") == (0, f"{made.blob_path(WEIGHTS)}\n", "")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("*",), 2, "'*': expected one model, got 2"),
        (("plain", "--projector"), 3, "plain:latest: has no projector"),
        (("full", "--projector", "--adapter"), 2, "choose only one of --projector and --adapter"),
        (("nobody",), 3, "no model 'nobody'"),
    ],
)
def test_what_cannot_be_printed_is_one_line(made: Store, words: tuple[str, ...], code: int, says: str) -> None:
    ended, out, told = printed(made, *words)
    assert (ended, out, told.count("\n")) == (code, "", 1)
    assert says in told


@pytest.mark.parametrize(
    ("closed", "says"),
    [
        ("", "no permission to enter this folder (drwx------ root:root)"),
        ("blobs", "no permission to enter this folder (drwx------ root:root)"),
        ("blobs/*", "no permission to read this (-rw------- root:root)"),
    ],
)
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to be another user")
def test_a_store_of_another_user_says_which_permission_is_missing(public: Store, closed: str, says: str) -> None:
    public.model("plain:latest", WEIGHTS)
    places = [public.blob_path(WEIGHTS)] if "*" in closed else [public.root / closed]
    for place in places:
        place.chmod(0o600 if place.is_file() else 0o700)
    done = as_user(12_345, "path", "plain", "--models", public.root)
    assert (done.returncode, done.stdout) == (9, "")
    assert f"{places[0]}: {says}" in done.stderr


def test_the_library_returns_the_same(made: Store) -> None:
    found = ostore.path("full", models=made.root)
    assert (found.path, found.name, found.warnings) == (str(made.blob_path(WEIGHTS)), "full:latest", ())
