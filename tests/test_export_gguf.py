"""`ostore export --as gguf` makes plain files that are checked by `sha256sum -c`, whole or not at all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import ostore
from ostore.streams.file_lock import try_lock
from tests.gguf import gguf, talking_gguf
from tests.support import LICENSE, MODEL, PROJECTOR, SYSTEM, TENSOR, Store, full, sha256, tree
from tests.support import ostore as run
from tests.test_json import report

ADAPTER = "application/vnd.ollama.image.adapter"
WEIGHTS, SEES = talking_gguf(), gguf({"general.architecture": "clip"}, {})
LATIN1 = "Lizenz f\u00fcr alle".encode("latin-1")


@pytest.fixture
def made(tmp_path: Path) -> Store:
    store = Store(tmp_path / "models")
    kinds = [(MODEL, WEIGHTS), (PROJECTOR, SEES), (ADAPTER, b"an adapter"), (SYSTEM, b"Say hi!")]
    layers = [store.layer(kind, data) for kind, data in (*kinds, (LICENSE, b"MIT"), (LICENSE, LATIN1))]
    store.add(full("all:8b"), *layers)
    store.model("plain:latest", WEIGHTS, license=b"MIT")
    return store


def export(store: Store, *words: str | Path, code: int = 0) -> str:
    done = run("export", *words, "--as", "gguf", environment={"OLLAMA_MODELS": str(store.root)}, cwd=store.root.parent)
    assert done.returncode == code, done.stderr
    return done.stderr


def test_a_model_becomes_files_that_any_program_reads(made: Store, tmp_path: Path) -> None:
    export(made, "all:8b", "out/")
    out = tmp_path / "out"
    contents = {
        "LICENSE-2.txt": LATIN1,
        "LICENSE.txt": b"MIT",
        "adapter-all-8b.gguf": b"an adapter",
        "all-8b.gguf": WEIGHTS,
        "mmproj-all-8b.gguf": SEES,
    }
    assert {path.name for path in out.iterdir()} == {*contents, "Modelfile", "SHA256SUMS"}
    assert {name: (out / name).read_bytes() for name in contents} == contents
    assert (
        "FROM ./all-8b.gguf\nFROM ./mmproj-all-8b.gguf\nADAPTER ./adapter-all-8b.gguf\nSYSTEM Say hi!\n"
        in (out / "Modelfile").read_text()
    )
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=True)
    assert checked.stdout.count(": OK\n") == 6


def test_several_models_lie_side_by_side(made: Store, tmp_path: Path) -> None:
    export(made, "all:8b", "plain", "out/")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"all-8b.Modelfile", "plain.Modelfile", "plain.LICENSE.txt", "all-8b.LICENSE-2.txt"} < names
    checked = ["sha256sum", "--quiet", "-c", "SHA256SUMS"]
    assert subprocess.run(checked, cwd=tmp_path / "out", check=True, capture_output=True).stdout == b""


def test_what_is_there_needs_replace(made: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/plain.gguf").write_bytes(b"mine")
    before = tree(tmp_path / "out")
    assert "out/plain.gguf: exists (--replace overwrites it)" in export(made, "plain", "out/", code=2)
    assert tree(tmp_path / "out") == before
    # A command that was killed has left it.
    (tmp_path / "out/plain.gguf.part").write_bytes(b"half")
    export(made, "plain", "out/", "--replace")
    assert (tmp_path / "out/plain.gguf").read_bytes() == WEIGHTS
    after = tree(tmp_path / "out")
    assert sorted(after) == ["LICENSE.txt", "Modelfile", "SHA256SUMS", "plain.gguf"]
    (tmp_path / "out/plain.gguf").unlink()
    (tmp_path / "out/plain.gguf").symlink_to("elsewhere")
    assert "which is never replaced" in export(made, "plain", "out/", "--replace", code=2)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_damaged_blob_leaves_nothing_behind(made: Store, tmp_path: Path, is_new: bool) -> None:
    made.blob_path(b"an adapter").write_bytes(b"an-adapter")
    if not is_new:
        (tmp_path / "out").mkdir()
    told = export(made, "all:8b", "out/", code=4)
    assert f"blob sha256:{sha256(b'an adapter')}: its bytes have another digest" in told
    assert "used by all:8b" in told
    assert (tmp_path / "out").exists() != is_new
    assert is_new or tree(tmp_path / "out") == {}


def test_nobody_writes_where_another_command_does(made: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/SHA256SUMS.part").open("wb") as sums:
        assert try_lock(sums.fileno())
        assert "another export is writing there" in export(made, "plain", "out/", code=6)
    assert sorted(tree(tmp_path / "out")) == ["SHA256SUMS.part"]
    export(made, "plain", "out/")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("plain", "out"), 2, "out: expected a folder for plain files (end it with /)"),
        (("plain", "out/", "--level", "3"), 2, "--level: only a bundle can have it, not plain files"),
        (("plain", "no/out/"), 3, "no: no such folder"),
        (("plain", "file/"), 2, "file: expected a folder"),
        (("mlx", "out/"), 12, "mlx:latest: a model of 1 tensors"),
        (("ml*", "out/"), 12, "mlx:latest: a model of 1 tensors"),
        (("*", "out/", "--strict"), 12, "mlx:latest: a model of 1 tensors"),
        (("odd", "out/"), 12, "cannot be written in a Modelfile"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_written_is_one_line_and_nothing_is_made(
    made: Store, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    made.add(full("mlx:latest"), made.layer(TENSOR, b"t"))
    made.model("odd:latest", WEIGHTS, system=b'"""\n"""\n')
    (tmp_path / "file").write_bytes(b"mine")
    before = tree(tmp_path)
    assert says in export(made, *words, code=code).splitlines()[-1]
    assert tree(tmp_path) == before


def test_another_form_is_refused(made: Store) -> None:
    done = run("export", "plain", "out/", "--as", "zip", "--models", made.root)
    assert done.returncode == 2
    assert "'zip' is not " in done.stderr


def test_a_model_that_only_a_glob_matches_is_left_out(made: Store, tmp_path: Path) -> None:
    made.add(full("mlx:latest"), made.layer(TENSOR, b"t"))
    assert "ostore: warning: mlx:latest: left out: a model of 1 tensors" in export(made, "*", "out/", code=12)
    assert (tmp_path / "out/plain.gguf").read_bytes() == WEIGHTS
    # The files of one model are called like those of the same one among others.
    (made.root / "manifests/registry.ollama.ai/library/all/8b").unlink()
    export(made, "*", "less/", code=12)
    assert (tmp_path / "less/plain.Modelfile").exists()
    assert not (tmp_path / "less/Modelfile").exists()


def test_a_store_without_models_has_nothing_to_write(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    (store.root / "manifests").mkdir(parents=True)
    assert "no models in" in export(store, "--all", "out/", code=3)


@pytest.mark.parametrize("is_dry", [True, False])
def test_the_document_lists_the_files(made: Store, tmp_path: Path, is_dry: bool) -> None:
    options = ["--dry-run"] if is_dry else []
    out = f"{tmp_path}/out/"
    document = report("export-gguf", "export", "plain", out, "--as", "gguf", *options, models=made.root)
    assert [file["name"] for file in document["files"]] == ["plain.gguf", "Modelfile", "LICENSE.txt"]
    assert document["files"][0]["digest"] == f"sha256:{sha256(WEIGHTS)}"
    assert (document["dry_run"], Path(out).exists()) == (is_dry, not is_dry)
    if not is_dry:
        assert {file["name"]: file["size"] for file in document["files"]} == {
            path.name: path.stat().st_size for path in Path(out).iterdir() if path.name != "SHA256SUMS"
        }


def test_the_library_tells_what_it_is_going_to_write(made: Store, tmp_path: Path) -> None:
    told: list[ostore.GgufExportReport] = []
    done = ostore.export_gguf(["plain"], tmp_path / "out", before=told.append, models=made.root)
    assert ([one.dry_run for one in told], done.dry_run, told[0].files) == ([True], False, done.files)
    assert done.destination == os.fspath(tmp_path / "out")
