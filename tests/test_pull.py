"""`ostore pull` from a real registry: into the store, a bundle, a folder; again, and after a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.false_registry import Asked, answer, false_registry
from tests.registries import DockerRegistry, docker_registry, needs_registry
from tests.support import OSTORE, TORTURE, Store, noise, six_kinds, tree, unmeasured
from tests.support import ostore as run

pytestmark = needs_registry


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return six_kinds(tmp_path_factory.mktemp("origin") / "models")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, origin: Store) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry") / "data") as running:
        running.fill(origin)
        yield running


def pulled_bytes(store: Path, name: str) -> bytes:
    return Store(store).manifest_path(name).read_bytes()


def test_a_model_arrives_byte_for_byte_and_is_whole(tmp_path: Path, registry: DockerRegistry, origin: Store) -> None:
    store, names = tmp_path / "models", [registry.name("tiny:q4"), registry.name("sees")]
    done = run("pull", *names, "--models", store)
    assert done.returncode == 0, done.stderr
    assert f"  {names[0]}: added\n" in done.stdout
    assert "pulled 2 models: 6 blobs fetched (12 MB) in " in done.stdout
    assert "warning" not in done.stderr
    for name in names:
        there = origin.manifest_path(name.replace(registry.host, "registry.ollama.ai"))
        assert pulled_bytes(store, name) == there.read_bytes()
    assert run("verify", "--models", store).returncode == 0


def test_what_is_there_is_not_fetched_again(tmp_path: Path, registry: DockerRegistry) -> None:
    store = tmp_path / "models"
    assert run("pull", registry.name("tiny:q4"), "--models", store).returncode == 0
    before = tree(store)
    done = run("pull", registry.name("tiny:q4"), registry.name("tiny:latest"), "--models", store)
    assert "pulled 2 models: 1 blob fetched (7 B), 4 already there in " in done.stdout
    again = run("pull", registry.name("tiny:q4"), "--models", store, "--json")
    assert json.loads(again.stdout)["models"][0]["outcome"] == "already there"
    assert before.items() <= tree(store).items()


def test_a_dry_run_writes_nothing(tmp_path: Path, registry: DockerRegistry) -> None:
    (tmp_path / "models").mkdir()
    done = run("pull", registry.name("sees"), "--models", tmp_path / "models", "-n")
    assert "would pull 1 model: 3 blobs to fetch (9.1 MB) -> " in done.stdout
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("destination", ["bundle.tar.zst", "bundle.tar", "folder/"])
def test_models_go_straight_to_a_bundle_without_a_store(
    tmp_path: Path, registry: DockerRegistry, origin: Store, destination: str
) -> None:
    names = [registry.name("tiny:q4"), registry.name("tiny:latest")]
    home = {"HOME": str(tmp_path / "nobody"), "OLLAMA_MODELS": ""}
    done = run("pull", *names, "--to", destination, cwd=tmp_path, environment=home)
    assert done.returncode == 0, done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [destination.rstrip("/")]
    assert run("import", destination, "--models", tmp_path / "models", cwd=tmp_path).returncode == 0
    there = origin.manifest_path("registry.ollama.ai/library/tiny:q4").read_bytes()
    assert pulled_bytes(tmp_path / "models", names[0]) == there


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_disk_that_is_too_small_for_the_bundle_is_told_before_anything_is_fetched(
    tmp_path: Path, registry: DockerRegistry
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
    try:
        done = run("pull", registry.name("sees"), "--to", disk / "b.tar")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)
    assert done.returncode == 7, done.stderr
    assert "(choose fewer models, or another disk; " in done.stderr


def test_a_bundle_on_standard_output_has_nothing_else_there(tmp_path: Path, registry: DockerRegistry) -> None:
    command = [*OSTORE, "pull", registry.name("tiny:q4"), "--to", "-"]
    done = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    (tmp_path / "bundle.tar.zst").write_bytes(done.stdout)
    assert b"pulled 1 model" in done.stderr
    assert run("verify", "bundle.tar.zst", cwd=tmp_path).returncode == 0


def test_a_lock_takes_its_manifests_and_no_others(tmp_path: Path, registry: DockerRegistry) -> None:
    store, name = tmp_path / "models", registry.name("tiny:q4")
    assert run("pull", name, "--models", store).returncode == 0
    lock = tmp_path / "models.lock"
    lock.write_text(run("lock", "--models", store).stdout)
    assert run("pull", "--lock", lock, "--models", tmp_path / "other").returncode == 0
    assert pulled_bytes(tmp_path / "other", name) == pulled_bytes(store, name)
    digest = lock.read_text().split()[-2] if "sha256" in lock.read_text().split()[-2] else ""
    lock.write_text(lock.read_text().replace(digest, f"sha256:{'0' * 64}"))
    done = run("pull", "--lock", lock, "--models", tmp_path / "third")
    assert done.returncode == 4
    assert f"expected sha256:{'0' * 64}, got {digest}" in done.stderr
    assert not (tmp_path / "third").exists()


def test_a_digest_pins_the_manifest(tmp_path: Path, registry: DockerRegistry) -> None:
    store, name = tmp_path / "models", registry.name("tiny:q4")
    digest = json.loads(run("pull", name, "-n", "--json", "--models", tmp_path).stdout)["models"][0]["digest"]
    done = run("pull", f"{name}@{digest}", "--models", store)
    assert done.returncode == 0, done.stderr
    assert f"{name}: added" in done.stdout
    missing = run("pull", f"{name}@sha256:{'0' * 64}", "--models", store)
    assert missing.returncode == 3
    assert f"no model library/tiny@sha256:{'0' * 64}" in missing.stderr


def test_a_glob_takes_what_the_registry_lists(tmp_path: Path, registry: DockerRegistry) -> None:
    done = run("pull", f"{registry.host}/library/tiny:*", "--models", tmp_path / "models")
    assert done.returncode == 0, done.stderr
    assert run("list", "-q", "--models", tmp_path / "models").stdout.split() == [
        registry.name("tiny:latest"),
        registry.name("tiny:q4"),
    ]
    nothing = run("pull", f"{registry.host}/nobody/*", "--models", tmp_path / "models")
    assert (nothing.returncode, f"no model '{registry.host}/nobody/*'" in nothing.stderr) == (3, True)


def test_another_model_of_the_name_is_replaced_only_if_asked(tmp_path: Path, registry: DockerRegistry) -> None:
    store = Store(tmp_path / "models")
    name = registry.name("tiny:q4")
    store.model(name, b"mine")
    before = tree(store.root)
    done = run("pull", name, "--models", store.root)
    assert done.returncode == 2
    assert "--replace" in done.stderr
    assert tree(store.root) == before
    assert f"{name}: replaced" in run("pull", name, "--models", store.root, "--replace").stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "names: expected at least one model"),
        (["http://registry.example/library/x"], 2, "no address goes before it"),
        (["tiny*"], 2, "a glob needs a registry that lists what it has"),
        (["*.example/library/tiny"], 2, "a glob needs a registry"),
        (["tiny@sha256:12"], 2, "tiny: "),
        (["tiny", "--limit-rate", "fast"], 2, "--limit-rate: expected bytes a second such as 10MB or 512K, got 'fast'"),
        (["tiny", "--ca-file", "nothing.pem"], 2, "--ca-file: nothing.pem: No such file or directory"),
        (["tiny", "--to", "x.tar", "--models", "y"], 2, "two destinations"),
        (["tiny", "--to", "x.zip"], 2, "bundles end in .tar.zst or .tar"),
        (["tiny", "--insecure"], 2, "--plain-http allows that here"),
        (["127.0.0.1:1/library/tiny"], 11, "connection refused"),
        (["10.0.0.1:1/library/tiny", "--plain-http", "--limit-rate", "0"], 2, "--limit-rate: expected 1 to"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, words: list[str], code: int, says: str) -> None:
    done = run("pull", *words, cwd=tmp_path, environment={"HOME": str(tmp_path)})
    assert done.returncode == code
    told = [line for line in done.stderr.splitlines() if line.startswith("ostore: error")]
    assert len(told) == 1
    assert says in told[0]
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_rate_is_limited(tmp_path: Path, registry: DockerRegistry) -> None:
    began = time.monotonic()
    assert run("pull", registry.name("tiny:q4"), "--models", tmp_path / "m", "--limit-rate", "1500K").returncode == 0
    # 3 MB, and a quarter of a second may come at once.
    assert time.monotonic() - began > 1.5


@unmeasured
def test_after_a_kill_the_same_command_goes_on(tmp_path: Path) -> None:
    """No model is listed that is not whole, and nothing that was synced comes twice."""
    origin = Store(tmp_path / "origin")
    origin.model("large:latest", noise(40_000_000, 9), template=b"{{ .Prompt }}")
    with docker_registry(tmp_path / "registry") as registry:
        registry.fill(origin)
        name, chance = registry.name("large"), random.Random(18)
        for number in range(50 if TORTURE else 6):
            store = tmp_path / f"models{number}"
            command = [*OSTORE, "pull", name, "--models", str(store), "--limit-rate", "60MB", "--progress", "none"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.2, 1.0))
            process.send_signal(signal.SIGKILL)
            process.wait()
            listed = run("list", "-q", "--models", store)
            whole = name in listed.stdout
            assert not whole or run("verify", "--models", store).returncode == 0
            done = run("pull", name, "--models", store)
            assert done.returncode == 0, done.stderr
            assert run("verify", "--models", store).returncode == 0
            assert (
                pulled_bytes(store, name)
                == origin.manifest_path("registry.ollama.ai/library/large:latest").read_bytes()
            )


def test_what_a_registry_has_anew_is_told_with_its_size(tmp_path: Path) -> None:
    origin, store = Store(tmp_path / "origin"), tmp_path / "models"
    origin.model("tiny:latest", b"old", template=b"{{ .Prompt }}")
    origin.model("tiny:kept", b"kept", template=b"{{ .Prompt }}")
    with docker_registry(tmp_path / "registry") as registry:
        registry.fill(origin)
        names = [registry.name("tiny"), registry.name("tiny:kept")]
        assert run("pull", *names, "--models", store).returncode == 0
        Store(store).model(f"{registry.host}/library/mine:latest", b"mine")
        kept = Store(store).manifest_path(names[1])
        # As servers up to 0.12 leave it.
        kept.write_bytes(kept.read_bytes().rstrip(b"\n"))
        origin.model("tiny:latest", b"a new one", template=b"{{ .Prompt }}")
        registry.fill(origin)
        done = run("outdated", "--models", store)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0].split() == ["NAME", "HERE", "THERE", "TO", "FETCH"]
        assert done.stdout.splitlines()[1].split()[::3] == [names[0], "9"]
        assert "1 model outdated, 1 model the same, 1 model not there (at the registries of their names)" in done.stdout
        assert run("outdated", "-q", "--models", store).stdout == f"{names[0]}\n"
    gone = run("outdated", "--models", store)
    assert (gone.returncode, "connection refused" in gone.stderr) == (11, True)


def test_a_registry_that_fails_hides_no_answer_of_others(tmp_path: Path) -> None:
    origin, store = Store(tmp_path / "origin"), tmp_path / "models"
    origin.model("tiny:latest", b"old", template=b"{{ .Prompt }}")

    def refuses(_asked: Asked) -> Iterator[bytes]:
        return answer(b"{}", "403 Forbidden")

    with docker_registry(tmp_path / "registry") as registry, false_registry(refuses) as closed:
        registry.fill(origin)
        name = registry.name("tiny")
        assert run("pull", name, "--models", store).returncode == 0
        for other in ("127.0.0.1:1/library/a", "127.0.0.1:1/library/b", f"{closed.host}/library/c"):
            Store(store).model(f"{other}:latest", b"mine")
        origin.model("tiny:latest", b"a new one", template=b"{{ .Prompt }}")
        registry.fill(origin)
        done = run("outdated", "--models", store)
        document = json.loads(run("outdated", "--models", store, "--json").stdout)
        alone = run("outdated", "127.0.0.1:1/*", "--models", store)
    assert done.returncode == 11
    rows = {line.split()[0]: line.split()[2] for line in done.stdout.splitlines()[1:-1]}
    unknown = ["127.0.0.1:1/library/a:latest", "127.0.0.1:1/library/b:latest", f"{closed.host}/library/c:latest"]
    assert [rows.pop(one) for one in unknown] == ["unknown"] * 3
    assert list(rows) == [name]
    assert "1 model outdated, 0 models the same, 3 models unknown" in done.stdout
    warnings = done.stderr.splitlines()
    assert len(warnings) == 2
    assert "ostore: warning: 127.0.0.1:1: 2 models not compared: GET http://127.0.0.1:1/" in done.stderr
    assert f"ostore: warning: {closed.host}: 1 model not compared: " in done.stderr
    assert sorted(model["name"] for model in document["unanswered"]) == sorted(unknown)
    assert (document["models"][0]["name"], document["unknown"]) == (name, [])
    assert (alone.returncode, alone.stdout) == (11, "")
    assert "error[remote]: GET http://127.0.0.1:1/v2/library/a/manifests/latest: connection refused" in alone.stderr


def test_a_registry_that_does_not_answer_is_asked_for_one_model(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")

    def hangs_up(_asked: Asked) -> Iterator[bytes]:
        raise ConnectionError

    with false_registry(hangs_up) as silent:
        for name in (f"{silent.host}/library/a:latest", f"{silent.host}/library/b:latest"):
            store.model(name, b"mine")
        assert run("outdated", "--models", store.root).returncode == 11
        assert {asked.path for asked in silent.asked} == {"/v2/library/a/manifests/latest"}


@pytest.mark.parametrize("option", [["--plain-http"], ["--ca-file", "ca.pem"]])
def test_outdated_refuses_terms_of_a_network_that_it_does_not_use(tmp_path: Path, option: list[str]) -> None:
    done = run("outdated", "--against", "other.json", *option, "--models", tmp_path)
    assert done.returncode == 2
    assert f"{option[0]}: with other.json to compare with, no registry is asked" in done.stderr
