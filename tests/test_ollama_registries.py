"""
A real Ollama and registries: what it pushes we pull, what we push it pulls, and it takes our server for its registry.

Runs if `ollama` is on PATH or OSTORE_TEST_OLLAMA names one, or several with ':' between.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.gguf import talking_gguf
from tests.registries import docker_registry, needs_registry
from tests.serving import ollama_server, ollamas, serving
from tests.support import MODEL, OSTORE, TEMPLATE, Store, full
from tests.support import ostore as run

pytestmark = [
    pytest.mark.skipif(not ollamas(), reason="needs an ollama on PATH, or OSTORE_TEST_OLLAMA=/path/to/ollama"),
    pytest.mark.parametrize("program", ollamas(), ids=str),
]
# In a network and with names of its own. Nothing outside sees any of it.
APART = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c"]
UNDER_THE_REAL_NAME = """
ip link set lo up && printf '127.0.0.1 localhost registry.ollama.ai\\n' >"$HOSTS" && mount --bind "$HOSTS" /etc/hosts
{ostore} serve "$SERVED" --listen :80 --host registry.ollama.ai >"$HOSTS.log" 2>&1 & mirror=$!
"$OLLAMA" serve >"$HOSTS.ollama" 2>&1 & server=$!
for _ in $(seq 100); do "$OLLAMA" list >/dev/null 2>&1 && break; sleep 0.1; done
for _ in $(seq 100); do curl -sf http://registry.ollama.ai/v2/ >/dev/null && break; sleep 0.1; done
"$OLLAMA" pull --insecure talks; code=$?
kill $mirror $server; wait; exit $code
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One small model that a real Ollama can run."""
    made = Store(tmp_path / "served")
    layers = [made.layer(MODEL, talking_gguf()), made.layer(TEMPLATE, b"{{ .Prompt }}")]
    made.add(full("talks:latest"), *layers, config=made.config(model_family="llama", model_families=["llama"]))
    return made


def ask(program: Path, surroundings: Mapping[str, str], *words: str) -> None:
    done = subprocess.run([program, *words], env=surroundings, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def is_whole(root: Path) -> bool:
    return run("verify", "--models", root).returncode == 0


def bytes_of(root: Path, name: str) -> bytes:
    return Store(root).manifest_path(name).read_bytes()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with docker_registry(tmp_path / "registry") as running:
        yield running.host


@needs_registry
def test_what_it_pushes_we_pull_and_what_we_push_it_pulls(
    program: Path, store: Store, registry: str, tmp_path: Path
) -> None:
    theirs, ours, mine = f"{registry}/theirs/talks", f"{registry}/ours/talks", tmp_path / "mine"
    with ollama_server(program, tmp_path) as surroundings:
        models = Path(surroundings["OLLAMA_MODELS"])
        assert run("sync", store.root, f"{models}/").returncode == 0
        ask(program, surroundings, "cp", "talks", theirs)
        ask(program, surroundings, "push", "--insecure", theirs)
        done = run("pull", theirs, "--models", mine)
        assert done.returncode == 0, done.stderr
        # Up to 0.12 it sends its manifest without the final newline.
        assert bytes_of(mine, f"{theirs}:latest").rstrip() == bytes_of(models, f"{theirs}:latest").rstrip()

        assert run("push", "talks", "--to", f"{registry}/ours", "--models", store.root).returncode == 0
        ask(program, surroundings, "pull", "--insecure", ours)
        assert run("sync", f"http://{registry}/ours", f"{mine}/").returncode == 0
        with serving(mine, tmp_path) as mirror:
            ask(program, surroundings, "pull", "--insecure", f"{mirror.host}/ours/talks")
            through = bytes_of(models, f"{mirror.host}/ours/talks:latest")
        assert through.rstrip() == bytes_of(store.root, full("talks:latest")).rstrip()
        assert is_whole(models)
    assert is_whole(mine)


def test_it_takes_a_mirror_on_port_80_for_its_own_registry(program: Path, store: Store, tmp_path: Path) -> None:
    if not shutil.which("curl") or subprocess.run([*APART, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs curl, root and unshare")
    models = tmp_path / "models"
    surroundings = {
        **os.environ,
        "HOME": str(tmp_path),
        "OLLAMA_MODELS": str(models),
        "OLLAMA_HOST": "127.0.0.1:11434",
        "OLLAMA": str(program),
        "SERVED": str(store.root),
        "HOSTS": str(tmp_path / "hosts"),
    }
    script = UNDER_THE_REAL_NAME.format(ostore=" ".join(OSTORE))
    done = subprocess.run([*APART, script], env=surroundings, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert bytes_of(models, full("talks:latest")).rstrip() == bytes_of(store.root, full("talks:latest")).rstrip()
    assert is_whole(models)
