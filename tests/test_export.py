"""Export leaves only whole bundles, overwrites nothing unasked, and says in every refusal what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import ostore
from tests.support import OSTORE, Store, full, noise, tree
from tests.support import ostore as run

WEIGHTS = b"the weights " * 1000


@pytest.mark.parametrize("target", ["b.tar.zst", "b.tar"])
@pytest.mark.parametrize(
    ("damage", "error"),
    [
        pytest.param(lambda path: path.write_bytes(bytes(len(WEIGHTS))), ostore.DigestMismatchError, id="zeroed"),
        pytest.param(lambda path: path.write_bytes(WEIGHTS[:-1]), ostore.SizeMismatchError, id="one byte short"),
        pytest.param(lambda path: path.write_bytes(WEIGHTS + b"x"), ostore.SizeMismatchError, id="one byte more"),
        pytest.param(lambda path: path.unlink(), ostore.BlobMissingError, id="missing"),
    ],
)
def test_a_damaged_blob_stops_the_export_names_every_user_and_leaves_no_file(
    store: Store, tmp_path: Path, target: str, damage: object, error: type[ostore.BlobError]
) -> None:
    assert callable(damage)
    damage(store.blob_path(WEIGHTS))
    (tmp_path / "out").mkdir()
    with pytest.raises(error) as caught:
        ostore.export(["tiny:q4"], tmp_path / "out" / target, models=store.root)
    message = str(caught.value)
    assert store.blob_path(WEIGHTS).name.replace("-", ":") in message
    assert "tiny:latest, tiny:q4" in message
    assert list((tmp_path / "out").iterdir()) == []
    assert run("export", "tiny", tmp_path / "out" / target, "--models", store.root).returncode == 4


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["tiny", "bundle"], 2, "FILE.tar.zst"),
        (["tiny"], 2, "MODEL... DEST"),
        (["--all", "tiny", "b.tar"], 2, "MODEL... DEST"),
        (["nosuch", "b.tar"], 3, "nosuch"),
        (["nosuch*", "b.tar"], 3, "nosuch*"),
        (["a/b/c/d", "b.tar"], 2, "invalid"),
        (["tiny", "b.tar", "--level", "3"], 2, "no level"),
        (["tiny", "b.tar.zst", "--level", "0"], 2, "1 to 19"),
        (["tiny", "b.tar.zst", "--level", "20"], 2, "1 to 19"),
        (["tiny", "b.tar.zst", "--level", "best"], 2, "auto or 1 to 19"),
        (["tiny", "b.tar.zst", "-j", "0"], 2, "jobs"),
        (["tiny", "nosuch/b.tar.zst"], 3, "nosuch"),
        (["tiny", "b.tar.zst", "--nosuch"], 2, "--nosuch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_one_line_and_its_exit_code(
    store: Store, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    before = tree(tmp_path)
    done = run("export", *arguments, "--models", store.root, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("ostore: error[")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert tree(tmp_path) == before


def test_an_existing_bundle_is_overwritten_only_when_asked(store: Store, tmp_path: Path) -> None:
    bundle = tmp_path / "b.tar.zst"
    bundle.write_bytes(b"precious")
    with pytest.raises(ostore.UsageError) as caught:
        ostore.export(["tiny"], bundle, models=store.root)
    assert "replace=True" in str(caught.value.hint)
    assert bundle.read_bytes() == b"precious"
    ostore.export(["tiny"], bundle, replace=True, models=store.root)
    assert ostore.verify([bundle])[0].verdict == "whole"


def test_a_dead_part_file_is_taken_over(store: Store, tmp_path: Path) -> None:
    (tmp_path / "b.tar.part").write_bytes(noise(2_000_000))
    ostore.export(["tiny"], tmp_path / "b.tar", models=store.root)
    assert ostore.verify([tmp_path / "b.tar"])[0].verdict == "whole"
    assert not (tmp_path / "b.tar.part").exists()


def test_a_part_file_that_is_being_written_is_busy(store: Store, tmp_path: Path) -> None:
    command = ["flock", "-x", str(tmp_path / "b.tar.part"), "sleep", "20"]
    if shutil.which("flock") is None:
        pytest.skip("flock is not installed")
    with subprocess.Popen(command) as other:
        while (
            not (tmp_path / "b.tar.part").exists()
            or run("export", "tiny", tmp_path / "b.tar", "--models", store.root).returncode == 0
        ):
            (tmp_path / "b.tar").unlink(missing_ok=True)
        done = run("export", "tiny", tmp_path / "b.tar", "--models", store.root)
        other.kill()
    assert done.returncode == 6
    assert done.stderr.startswith("ostore: error[busy]: ")


def test_nothing_but_the_bundle_goes_to_standard_output(store: Store, tmp_path: Path) -> None:
    with (tmp_path / "b.tar.zst").open("wb") as out:
        done = subprocess.run(
            [*OSTORE, "export", "tiny", "-", "--json", "--models", store.root],
            stdout=out,
            stderr=subprocess.PIPE,
            check=True,
        )
    assert ostore.verify([tmp_path / "b.tar.zst"])[0].verdict == "whole"
    assert json.loads(done.stderr)["models"] == ["tiny:latest"]


def test_a_full_disk_is_no_space_and_leaves_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.model("big:latest", noise(4_000_000))
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
    try:
        for target in ("b.tar.zst", "b.tar"):
            done = run("export", "big", disk / target, "--models", store.root)
            assert done.returncode == 7, done.stderr
            assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(("sink", "code"), [("/dev/full", 7), ("| head -c 1", 9)])
def test_a_full_or_closed_standard_output_is_not_success(store: Store, tmp_path: Path, sink: str, code: int) -> None:
    redirect = f"> {sink}" if sink.startswith("/") else sink
    store.model("big:latest", noise(3_000_000))
    command = (
        f"{' '.join(OSTORE)} export big - --models {store.root} {redirect}; echo ${{PIPESTATUS[0]}} > {tmp_path}/code"
    )
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
    assert int((tmp_path / "code").read_text()) == code
    assert len(re.findall("^ostore: error", done.stderr, re.MULTILINE)) == 1, done.stderr
    assert ("the program that read the bundle has ended" in done.stderr) == (code == 9)


def test_what_no_ollama_writes_yet_is_listed_but_not_exported(store: Store, tmp_path: Path) -> None:
    coming = store.root / "manifests-v2/ollama.com/library/coming"
    coming.mkdir(parents=True)
    shutil.copy(store.manifest_path(full("tiny:q4")), coming / "latest")
    children = {"manifests": [{"digest": store.blob(b"child"), "size": 5}], "schemaVersion": 2}
    store.write_manifest(full("list:latest"), json.dumps(children).encode())
    listed = {row.name: row.note for row in ostore.list_models(models=store.root).models}
    assert listed.keys() == {"tiny:latest", "tiny:q4", "coming:latest", "list:latest"}
    assert listed["list:latest"] == "manifest list"
    for name in ("coming", "list"):
        done = run("export", name, tmp_path / "b.tar", "--models", store.root)
        assert done.returncode == 12, done.stderr
        assert f"{name}:latest" in done.stderr


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda raw: raw.replace(b'"digest":"sha256:', b'"digest":"sha256-', 1), 8, id="dash digest"),
        pytest.param(lambda raw: raw.replace(b'"layers":', b'"Layers":[],"layers":'), 8, id="a key twice"),
        pytest.param(lambda raw: raw + b"more", 12, id="bytes after the document"),
        pytest.param(lambda raw: raw.replace(b'"schemaVersion":2', b'"schemaVersion":1'), 12, id="other version"),
        pytest.param(lambda raw: b"", 10, id="empty"),
    ],
)
def test_a_manifest_that_must_not_travel_is_refused_by_name(
    store: Store, tmp_path: Path, change: object, code: int
) -> None:
    path = store.manifest_path(full("tiny:q4"))
    assert callable(change)
    path.write_bytes(change(path.read_bytes()))
    done = run("export", "tiny:q4", tmp_path / "b.tar", "--models", store.root)
    assert done.returncode == code, done.stderr
    assert "tiny" in done.stderr
    assert not (tmp_path / "b.tar").exists()


def test_a_cloud_stub_is_exported_with_a_warning(store: Store, tmp_path: Path) -> None:
    stub = store.config(remote_host="https://ollama.com:443", remote_model="gpt-oss:20b")
    store.write_manifest(
        full("gpt-oss:20b-cloud"), json.dumps({"schemaVersion": 2, "config": stub, "layers": None}).encode()
    )
    report = ostore.export(["gpt-oss*"], tmp_path / "b.tar", models=store.root)
    assert report.warnings == ("gpt-oss:20b-cloud: a cloud stub, of no use without the internet",)
    ostore.import_bundle(tmp_path / "b.tar", models=tmp_path / "other")
    assert ostore.list_models(models=tmp_path / "other").models[0].size is None


def test_legacy_blob_names_are_read(store: Store, tmp_path: Path) -> None:
    """Ollama before 0.1.30 wrote a colon where a dash stands now."""
    path = store.blob_path(WEIGHTS)
    path.rename(path.with_name(path.name.replace("-", ":")))
    assert ostore.verify(models=store.root)[0].verdict == "whole"
    ostore.export(["tiny"], tmp_path / "b.tar", models=store.root)
    assert ostore.verify([tmp_path / "b.tar"])[0].verdict == "whole"


def test_dry_run_says_what_would_be_exported_and_writes_nothing(store: Store, tmp_path: Path) -> None:
    done = run("export", "tiny:*", tmp_path / "b.tar.zst", "-n", "--models", store.root)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("would export 2 models, 4 blobs, 12 KB (12 KB shared once) -> ")
    assert not (tmp_path / "b.tar.zst").exists()


def test_a_model_of_tensors_has_a_modelfile_that_names_it(kinds: Store) -> None:
    lines = ostore.modelfile("mlx", models=kinds.root).splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM mlx:latest"]
