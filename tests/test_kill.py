"""A killed import leaves only whole models, and the same command finishes it without repeating work."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import ostore
from tests.support import OSTORE, TORTURE, Store, full, noise, sha256, tree, unmeasured

BATCHES = 4 if TORTURE else 2
KILLS = 50 if TORTURE else 1
WEIGHTS = [noise(5_000_000, seed) for seed in range(12)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of six models and 13 blobs, 60 MB."""
    folder: Path = tmp_path_factory.mktemp("source")
    store = Store(folder / "models")
    for number in range(0, 12, 2):
        layers = [store.layer("application/vnd.ollama.image.model", WEIGHTS[number + part]) for part in (0, 1)]
        store.add(full(f"m{number}:latest"), *layers)
    ostore.export(["*"], folder / "b.tar.zst", models=store.root)
    return folder / "b.tar.zst"


def command(source: Path, root: Path) -> list[str]:
    return [*OSTORE, "import", str(source), "--json", "--models", str(root)]


def fresh_store(root: Path) -> dict[str, str]:
    """A store with a model of its own, one blob of the bundle damaged and one there; gives its tree."""
    store = Store(root)
    store.model("mine:latest", b"my own weights", system=b"keep me")
    store.blob(WEIGHTS[3])
    store.blob_path(WEIGHTS[5]).write_bytes(bytes(5_000_000))
    return tree(root)


def is_whole(path: str, digest: str) -> bool:
    return path.startswith("blobs/sha256-") and path.removeprefix("blobs/sha256-") == digest


@pytest.mark.parametrize("batch", range(BATCHES))
def test_an_import_killed_at_a_random_moment_resumes(source: Path, tmp_path: Path, batch: int) -> None:
    fresh_store(tmp_path / "undisturbed")
    with subprocess.Popen(command(source, tmp_path / "undisturbed"), stdout=subprocess.DEVNULL) as process:
        started = when_it_begins(tmp_path / "undisturbed")
        assert process.wait() == 0
        duration = time.monotonic() - started
    finished = tree(tmp_path / "undisturbed")
    moments = random.Random(batch)
    killed = tries = 0
    while killed < KILLS:
        tries += 1
        assert tries < 10 * KILLS, "an import ends before it can be killed"
        root = tmp_path / f"store{tries}"
        before = fresh_store(root)
        with subprocess.Popen(command(source, root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            when_it_begins(root)
            time.sleep(moments.uniform(0, duration))
            process.send_signal(signal.SIGKILL)
        if process.returncode == -signal.SIGKILL:
            killed += 1
        else:
            # It was quicker than the undisturbed one, which a neighbour may have slowed down.
            duration /= 2
        check_killed(root, before)
        check_resumed(source, root, finished)
        shutil.rmtree(root)


def when_it_begins(root: Path) -> float:
    """Wait for the first thing that an import writes."""
    while not (root / ".ostore" / "tx").exists():
        time.sleep(0.002)
    return time.monotonic()


def check_killed(root: Path, before: dict[str, str]) -> None:
    """Every model listed is complete, everything that was there is as it was, every new blob is what its name says."""
    after = tree(root)
    for path, what in before.items():
        assert after[path] == what or is_whole(path, after[path]), path
    for path in after.keys() - before.keys():
        assert after[path] == "folder" or path.startswith("manifests/") or is_whole(path, after[path]), path
    report = ostore.verify(models=root)[0]
    broken = {problem.subject for problem in report.problems if problem.models}
    assert not broken, report.problems
    assert {problem.subject for problem in report.problems} <= {f"sha256:{sha256(WEIGHTS[5])}"}


def check_resumed(source: Path, root: Path, finished: dict[str, str]) -> None:
    """The same command ends as if nothing had happened, and writes no blob that was staged whole."""
    staged = {path.name for path in root.glob(".ostore/tx/*/sha256-*") if "." not in path.name}
    placed = {path.name for path in root.glob("blobs/sha256-*") if path.name == f"sha256-{sha256(path.read_bytes())}"}
    done = subprocess.run(command(source, root), check=True, capture_output=True, text=True)
    report = json.loads(done.stdout)["imports"][0]
    assert tree(root) == finished
    assert list((root / ".ostore/tx").iterdir()) == []
    there = (staged | placed) & {path.removeprefix("blobs/") for path in finished}
    assert report["blobs_written"] == 13 - len(there & {f"sha256-{digest}" for digest in blobs_of_bundle(source)})


def blobs_of_bundle(source: Path) -> set[str]:
    store = source.parent / "models" / "blobs"
    return {path.name.removeprefix("sha256-") for path in store.iterdir()}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@unmeasured
def test_an_interrupted_import_says_so_and_can_go_on(source: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "store"
    before = fresh_store(root)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Where a shell started the tests in the background, SIGINT is ignored, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*OSTORE, "import", "-", "--models", root], stdin=os.open(pipe, os.O_RDWR), stderr=subprocess.PIPE, text=True
    )
    with pipe.open("wb") as feed:
        feed.write(source.read_bytes()[:25_000_000])
        feed.flush()
    time.sleep(1.0)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=20)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[name]
    assert errors.splitlines()[-1].startswith("ostore: ")
    assert "Traceback" not in errors
    check_killed(root, before)
    assert {path for path in tree(root) if path.startswith("manifests")} == {
        path for path in before if path.startswith("manifests")
    }
    assert len(list(root.glob(".ostore/tx/*/sha256-*"))) > 0
    subprocess.run(command(source, root), check=True, capture_output=True)


def test_a_killed_export_leaves_no_bundle_and_the_next_one_takes_over(source: Path, tmp_path: Path) -> None:
    store = source.parent / "models"
    target = tmp_path / "b.tar.zst"
    for delay in (0.15, 0.2, 0.25, 0.3):
        with subprocess.Popen(
            [*OSTORE, "export", "--all", target, "--models", store], stdout=subprocess.DEVNULL
        ) as process:
            time.sleep(delay)
            process.kill()
        if target.exists():
            assert ostore.verify([target])[0].verdict == "whole"
            target.unlink()
    ostore.export(["*"], target, models=store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.zst"]
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("arguments", [["verify"], ["import"]], ids=" ".join)
@unmeasured
def test_ctrl_c_while_hashing_does_not_wait_for_the_blob(tmp_path: Path, arguments: list[str]) -> None:
    """A sparse blob of 40 GB takes half a minute to hash; nobody who wants to stop should wait for that."""
    store = Store(tmp_path / "store")
    (store.root / "blobs").mkdir(parents=True)
    promised = sha256(b"not these zeros")
    with (store.root / "blobs" / f"sha256-{promised}").open("wb") as file:
        file.truncate(40_000_000_000)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{promised}", "size": 40_000_000_000}
    store.add(full("huge:latest"), layer)
    if arguments == ["import"]:
        arguments = ["import", str(tmp_path / "source")]
        shutil.copytree(store.root / "manifests", tmp_path / "source" / "manifests")
        (tmp_path / "source" / "blobs").mkdir()
        for path in (store.root / "blobs").iterdir():
            with (tmp_path / "source" / "blobs" / path.name).open("wb") as file:
                file.truncate(path.stat().st_size)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [*OSTORE, *arguments, "--models", str(store.root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("verifying sha256 digest: 40 GB")
        time.sleep(0.5)
        stopped = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        waited = time.monotonic() - stopped
    assert process.returncode == 130
    assert waited < 10
