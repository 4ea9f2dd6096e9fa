"""What is taken out of a store, what is left out and why, and that nothing is told of what a link leads to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import ostore
from ostore.places.store import carrying
from ostore.places.store.store import LocalStore
from tests.odd_stores import ODD_STORES, WEIGHTS, altered_blob, linked, odd_model, short_blob
from tests.support import OSTORE, Store, full, noise, sha256, tree
from tests.support import ostore as run


@pytest.fixture
def mixed(tmp_path: Path) -> Store:
    """Three whole models, and two that share an altered blob."""
    store = Store(tmp_path / "models")
    for number in range(3):
        store.model(f"good{number}:latest", noise(3000, number))
    altered_blob(store)
    store.model("odd:again", WEIGHTS, template=b"another")
    store.blob_path(WEIGHTS).write_bytes(b"X" + WEIGHTS[1:])
    return store


@pytest.mark.parametrize("target", ["new.tar", "new.tar.zst", "new/"])
def test_what_is_altered_is_left_out_of_an_export_of_all_and_the_rest_is_whole(
    mixed: Store, tmp_path: Path, target: str
) -> None:
    done = run("export", "--all", target, "--models", mixed.root, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "exported 3 models" in done.stdout
    for name in ("odd:again", "odd:latest"):
        assert f"ostore: warning: {name}: left out: blob sha256:{sha256(WEIGHTS)}: its bytes have" in done.stderr
    assert run("import", target.rstrip("/"), "--models", tmp_path / "there", cwd=tmp_path).returncode == 0
    assert run("verify", "--models", tmp_path / "there").returncode == 0
    assert {model.name for model in ostore.list_models(models=tmp_path / "there").models} == {
        "good0:latest", "good1:latest", "good2:latest"
    }  # fmt: skip


def test_several_bad_models_are_each_found_and_left_out(mixed: Store, tmp_path: Path) -> None:
    mixed.model("bad:latest", noise(5000, 9))
    mixed.blob_path(noise(5000, 9)).write_bytes(b"Y" + noise(5000, 9)[1:])
    report = ostore.import_bundle(mixed.root, models=tmp_path / "there")
    assert {model.name for model in report.left_out} == {"bad:latest", "odd:again", "odd:latest"}
    assert {model.error_class for model in report.left_out} == {"integrity"}
    assert len(report.models) == 3


@pytest.mark.parametrize("command", ["export", "import"])
def test_strict_writes_nothing(mixed: Store, tmp_path: Path, command: str) -> None:
    short_blob(mixed)
    there = tmp_path / "there"
    words = {
        "export": ("export", "--all", there.with_suffix(".tar"), "--models", mixed.root),
        "import": ("import", mixed.root, "--models", there),
    }
    done = run(*words[command], "--strict")
    assert done.returncode == 4
    assert "ostore: error[integrity]:" in done.stderr
    assert not there.exists()
    assert not there.with_suffix(".tar").exists()


def test_what_goes_to_a_pipe_is_all_or_nothing(mixed: Store) -> None:
    words = [*OSTORE, "export", "--all", "-", "--models", str(mixed.root)]
    assert subprocess.run(words, check=False, capture_output=True, timeout=120).returncode == 4


def test_a_model_that_was_named_is_refused_and_not_left_out(mixed: Store, tmp_path: Path) -> None:
    done = run("export", "good1", "odd", tmp_path / "new.tar", "--models", mixed.root)
    assert (done.returncode, (tmp_path / "new.tar").exists()) == (4, False)
    assert "used by odd:again, odd:latest" in done.stderr


@pytest.mark.parametrize("command", ["verify", "export", "import", "repair"])
def test_nothing_is_told_of_the_bytes_of_a_file_that_a_link_leads_to(tmp_path: Path, command: str) -> None:
    """A person may link a blob to a file that only root may read, and have root verify the store."""
    store = Store(tmp_path / "models")
    linked(store)
    secret = bytes(len(WEIGHTS))
    store.blob_path(WEIGHTS).resolve().write_bytes(secret)
    words = {
        "verify": ("verify", "--models", store.root),
        "export": ("export", "odd", tmp_path / "new.tar", "--models", store.root),
        "import": ("import", store.root, "--models", tmp_path / "new"),
        "repair": ("repair", "--from", tmp_path / "nothing", "--models", store.root),
    }
    (tmp_path / "nothing").mkdir()
    done = run(*words[command])
    assert done.returncode == 4
    assert "a link to a file with other bytes" in done.stdout + done.stderr
    assert sha256(secret) not in done.stdout + done.stderr


@pytest.mark.parametrize("is_relative", [True, False])
def test_a_linked_blob_counts_as_there_and_is_hashed(tmp_path: Path, is_relative: bool) -> None:
    store, bundle = Store(tmp_path / "models"), tmp_path / "b.tar"
    odd_model(store)
    ostore.export(["odd"], bundle, models=store.root)
    store.model("other:latest", WEIGHTS)
    store.manifest_path(full("odd:latest")).unlink()
    blob = store.blob_path(WEIGHTS)
    target = tmp_path / "weights"
    blob.rename(target)
    blob.symlink_to(Path("../../weights") if is_relative else target)
    assert run("import", bundle, "--models", store.root).returncode == 0
    assert blob.is_symlink()
    assert run("verify", "--models", store.root).returncode == 0
    target.write_bytes(bytes(len(WEIGHTS)))
    store.manifest_path(full("odd:latest")).unlink()
    report = ostore.import_bundle(bundle, models=store.root)
    assert (report.blobs_repaired, blob.is_symlink(), blob.read_bytes()) == (1, False, WEIGHTS)
    assert target.read_bytes() == bytes(len(WEIGHTS)), "what a link leads to is somebody else's"


def test_the_exit_code_is_that_of_the_worst_that_was_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.model("good:latest", b"good")
    store.write_manifest(full("empty:latest"), b"")
    store.model("Twin:latest", b"one")
    store.model("twin:latest", b"two")
    done = run("export", "--all", tmp_path / "new.tar", "--json", "--models", store.root)
    assert done.returncode == 10
    left = {model["name"]: model["error_class"] for model in json.loads(done.stdout)["left_out"]}
    assert left == {"empty:latest": "damaged", "Twin:latest": "unsafe", "twin:latest": "unsafe"}


@pytest.mark.parametrize(
    ("there", "coming", "would_do"),
    [
        ("registry.ollama.ai/someone/custom:latest", "hf.co/Someone/model:Q4", "hf.co/someone/model:Q4"),
        ("registry.ollama.ai/library/one:Q4_K_M", "registry.ollama.ai/library/two:q4_k_m", "two:Q4_K_M"),
    ],
)
def test_a_name_that_ollama_would_mix_up_is_refused_and_the_spelling_that_would_do_is_named(
    tmp_path: Path, there: str, coming: str, would_do: str
) -> None:
    store, other = Store(tmp_path / "models"), Store(tmp_path / "other")
    store.model(there, b"there")
    other.model(coming, b"coming")
    bundle = tmp_path / "b.tar"
    ostore.export(["*"], bundle, models=other.root)
    before = tree(store.root)
    for words in (("import", bundle), ("import", bundle, "--dry-run"), ("cp", there, coming)):
        done = run(*words, "--models", store.root)
        assert done.returncode == 8, done.stderr
        assert would_do in done.stderr
    assert tree(store.root) == before
    assert run("cp", there, there.replace("one", "three"), "--models", store.root).returncode == 0


def test_with_a_model_goes_the_link_that_is_its_second_name_and_without_it_only_the_link(tmp_path: Path) -> None:
    for number, odd in enumerate(ODD_STORES["a link to the same model under another spelling"]):
        store = Store(tmp_path / f"models{number}")
        odd.make(store)
        whole = tree(store.root)
        done = run("rm", "odd:latest", "--dry-run", "--models", store.root)
        assert odd.odd.split(":")[-1].lower() in done.stdout.lower()
        assert run("rm", odd.odd, "--yes", "--models", store.root).returncode == 0
        gone = whole.keys() - tree(store.root).keys()
        assert len(gone) == 1, "the link alone"
        (link,) = gone
        (store.root / link).symlink_to("latest" if "LATEST" in link else "odd")
        assert tree(store.root) == whole
        assert run("rm", "odd:latest", "--yes", "--models", store.root).returncode == 0
        assert [path for path in store.root.rglob("*") if path.is_symlink()] == []
        assert run("verify", "--models", store.root).returncode == 0


@pytest.mark.parametrize(
    "meant",
    [
        pytest.param(lambda home: home / "x/.ollama", id="one level down"),
        pytest.param(lambda home: home / "x/.ollama/models/blobs", id="inside"),
        pytest.param(lambda home: home / "x", id="a home"),
        pytest.param(lambda home: home, id="all homes"),
    ],
)
def test_of_a_wrong_folder_the_store_nearby_is_named(tmp_path: Path, meant: Callable[[Path], Path]) -> None:
    store = Store(tmp_path / "x/.ollama/models")
    store.model("tiny:latest", b"tiny")
    folder = meant(tmp_path)
    for words in (("list", "--models", folder), ("import", folder, "--models", tmp_path / "new")):
        done = run(*words)
        assert done.returncode == 3
        assert f"there is a store in {store.root}" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_config_that_goes_meanwhile_has_no_remark(store: Store) -> None:
    place = LocalStore(store.root)
    model = place.scan(["tiny"]).models[0]
    assert model.manifest.config is not None
    (store.root / "blobs" / model.manifest.config.digest.filename).unlink()
    assert carrying._config_remark(place, model) == ""
