"""Verify finds everything wrong, names the models that suffer, and does not report what Ollama leaves behind."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import ostore
from tests.support import Store, full, noise, sha256
from tests.support import ostore as run

WEIGHTS = b"the weights " * 1000


def fifo_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def problems(root: Path) -> set[tuple[str, str]]:
    return {(problem.kind, problem.subject) for problem in ostore.verify(models=root)[0].problems}


def test_a_whole_store_is_called_whole(store: Store) -> None:
    report = ostore.verify(models=store.root)[0]
    assert (report.verdict, report.models, report.blobs, report.problems) == ("whole", 2, 4, ())


def test_what_a_running_server_leaves_about_is_no_problem(store: Store) -> None:
    digest = sha256(b"coming")
    for name in (
        f"sha256-{digest}-partial",
        f"sha256-{digest}-partial-0",
        f"sha256-{digest}.tmp",
        "sha256-4058237",
        "Q4_K_M123",
    ):
        (store.root / "blobs" / name).write_bytes(b"unfinished")
    (store.root / "ollama-safetensors123").mkdir()
    assert problems(store.root) == set()


@pytest.mark.parametrize(
    ("damage", "kind", "code"),
    [
        pytest.param(lambda path: path.write_bytes(bytes(len(WEIGHTS))), "blob-altered", 4, id="zeroed"),
        pytest.param(lambda path: path.write_bytes(WEIGHTS[1:]), "blob-size", 4, id="short"),
        pytest.param(lambda path: path.write_bytes(WEIGHTS + b"x"), "blob-size", 4, id="long"),
        pytest.param(lambda path: path.unlink(), "blob-missing", 4, id="missing"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "blob-not-regular", 10, id="a folder"),
        pytest.param(fifo_instead, "blob-not-regular", 10, id="a FIFO"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "blob-missing", 4, id="a link"),
    ],
)
def test_a_bad_blob_is_found_with_every_model_that_uses_it(store: Store, damage: object, kind: str, code: int) -> None:
    store.model("other:latest", b"other weights")
    assert callable(damage)
    damage(store.blob_path(WEIGHTS))
    report = ostore.verify(models=store.root)[0]
    found = next(problem for problem in report.problems if problem.subject == f"sha256:{sha256(WEIGHTS)}")
    assert (found.kind, found.models) == (kind, ("tiny:latest", "tiny:q4"))
    done = run("verify", "--models", store.root)
    assert done.returncode == code
    assert "tiny:latest, tiny:q4" in done.stdout
    assert run("verify", "other", "--models", store.root).returncode == 0


def test_every_problem_is_reported_not_the_first(store: Store) -> None:
    store.model("one:latest", noise(1000, 7))
    store.model("two:latest", noise(1000, 8))
    orphan = store.blob(noise(1000, 9))
    for seed in (7, 8, 9):
        store.blob_path(noise(1000, seed)).write_bytes(bytes(1000))
    library = store.root / "manifests/registry.ollama.ai/library"
    store.write_manifest(full("empty:latest"), b"")
    (library / "tiny" / ".DS_Store").write_bytes(b"finder")
    (library / "tiny" / "dangling").symlink_to("nowhere")
    (library / "README").write_text("stray")
    (store.root / "blobs" / "README").write_text("stray")
    (store.root / "blobs" / sha256(b"elsewhere")).write_bytes(b"elsewhere")
    upper = (
        store.manifest_path(full("tiny:q4"))
        .read_bytes()
        .replace(sha256(WEIGHTS).encode(), sha256(WEIGHTS).upper().encode())
    )
    store.write_manifest(full("upper:latest"), upper)
    assert problems(store.root) == {
        ("blob-altered", f"sha256:{sha256(noise(1000, 7))}"),
        ("blob-altered", f"sha256:{sha256(noise(1000, 8))}"),
        ("blob-altered", orphan),
        ("manifest-damaged", "manifests/registry.ollama.ai/library/empty/latest"),
        ("manifest-damaged", "manifests/registry.ollama.ai/library/tiny/.DS_Store"),
        ("manifest-damaged", "manifests/registry.ollama.ai/library/tiny/dangling"),
        ("blob-misnamed", f"blobs/{sha256(b'elsewhere')}"),
        ("digest-spelling", "upper:latest"),
    }
    told = run("verify", "--models", store.root).stderr
    assert "library/README: not a place where a manifest can be" in told
    assert "blobs/README: not a file of Ollama" in told


@pytest.mark.parametrize("data", [WEIGHTS, b"an orphan"], ids=["needed", "orphan"])
def test_a_blob_named_in_capitals_is_no_blob_to_ollama(store: Store, data: bytes) -> None:
    store.blob(data)
    path = store.blob_path(data)
    capitals = path.rename(path.with_name(f"sha256-{sha256(data).upper()}"))
    assert problems(store.root) == {("blob-misnamed", f"blobs/{capitals.name}")}
    assert run("verify", "--models", store.root).returncode == 10


def test_a_blob_named_as_before_ollama_0_1_30_is_whole(store: Store) -> None:
    path = store.blob_path(WEIGHTS)
    path.rename(path.with_name(f"sha256:{sha256(WEIGHTS)}"))
    assert problems(store.root) == set()


def test_damage_to_names_and_manifests_alone_is_exit_10(store: Store) -> None:
    store.write_manifest(full("empty:latest"), b"")
    done = run("verify", "--models", store.root)
    assert done.returncode == 10
    assert "manifest-damaged" in done.stdout


def test_every_damaged_blob_of_a_bundle_is_reported(store: Store, tmp_path: Path) -> None:
    store.model("big:latest", noise(3_000_000))
    bundle = tmp_path / "b.tar.zst"
    ostore.export(["*"], bundle, models=store.root)
    data = bytearray(bundle.read_bytes())
    at = bytes(data).index(noise(3_000_000)[1000:1100])
    data[at] ^= 1
    bundle.write_bytes(data)
    report = ostore.verify([bundle])[0]
    assert [(problem.subject, problem.models) for problem in report.problems] == [
        (f"sha256:{sha256(noise(3_000_000))}", ("big:latest",))
    ]
    assert run("verify", bundle).returncode == 4


def test_it_ends_with_what_to_type_next(store: Store, tmp_path: Path) -> None:
    good = tmp_path / "good.tar"
    ostore.export(["*"], good, models=store.root)
    assert "->" not in run("verify", good).stdout
    (store.root / "manifests/registry.ollama.ai/library/odd name").mkdir()
    (store.root / "manifests/registry.ollama.ai/library/odd name/x").write_bytes(b"{}")
    told = run("verify", "--models", store.root).stdout
    assert told.endswith(f"  -> ostore doctor --models {store.root} says what to do\n")
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    told = run("verify", store.root).stdout
    assert told.endswith(f"  -> if you have good copies: ostore repair --from BUNDLE --models {store.root}\n")
    good.write_bytes(good.read_bytes().replace(WEIGHTS, bytes(len(WEIGHTS))))
    assert run("verify", good).stdout.endswith("  -> copy the bundle again, or export it again\n")


def test_several_subjects_give_a_report_each_and_the_worst_code(store: Store, tmp_path: Path) -> None:
    ostore.export(["tiny"], tmp_path / "b.tar", models=store.root)
    store.write_manifest(full("empty:latest"), b"")
    done = run("verify", "tiny:q4", tmp_path / "b.tar", "--models", store.root)
    assert done.returncode == 0
    assert done.stdout.count("whole") == 2


def test_a_manifest_half_written_for_a_moment_is_read_again(store: Store) -> None:
    """A server rewrites manifests in place; what does not parse now may parse 50 ms later."""
    path = store.manifest_path(full("tiny:q4"))
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    writer = threading.Timer(0.07, path.write_bytes, [whole])
    writer.start()
    report = ostore.verify(models=store.root)[0]
    writer.join()
    assert report.verdict == "whole"


def test_a_manifest_that_could_not_be_exported_is_a_problem(store: Store) -> None:
    path = store.manifest_path(full("tiny:q4"))
    path.write_bytes(path.read_bytes().replace(b'"schemaVersion":2', b'"schemaVersion":1'))
    assert problems(store.root) == {("manifest-unfit", "tiny:q4")}
    notes = {row.name: row.note for row in ostore.list_models(models=store.root).models}
    assert notes["tiny:q4"].startswith("cannot be exported: ")
