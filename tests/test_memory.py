"""A large blob needs no more memory than a small one, and one more model in a store needs little."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from ostore.cli.main import run
from tests.support import MODEL, OSTORE, TORTURE, Store, full

# `make torture` sets it to 8.
GIGABYTES = 8 if TORTURE else 1
LIMIT_BYTES = 128 * 1024 * 1024
# Runs a command and prints the peak memory of it and its children, so that each side is measured alone.
MEASURE = (
    "import resource,subprocess,sys\n"
    "code = subprocess.call(sys.argv[2:])\n"
    "open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024))\n"
    "sys.exit(code)\n"
)


def sparse_store(root: Path, size: int) -> Store:
    """A store whose one blob is zeros and takes no room."""
    store = Store(root)
    (root / "blobs").mkdir(parents=True)
    hasher, block = hashlib.sha256(), bytes(1 << 24)
    for start in range(0, size, len(block)):
        hasher.update(memoryview(block)[: size - start])
    with (root / "blobs" / f"sha256-{hasher.hexdigest()}").open("wb") as file:
        file.truncate(size)
    store.add(full("big:latest"), {"mediaType": MODEL, "digest": f"sha256:{hasher.hexdigest()}", "size": size})
    return store


def test_a_large_blob_goes_through_a_pipe_in_little_memory(tmp_path: Path) -> None:
    store = sparse_store(tmp_path / "models", GIGABYTES * 1_000_000_000 + 1)

    def measured(side: str, *command: str | Path) -> list[str]:
        return [sys.executable, "-c", MEASURE, str(tmp_path / side), *OSTORE, *map(str, command)]

    exporting = measured("export", "export", "big", "-", "--models", store.root)
    importing = measured("import", "import", "-", "--models", tmp_path / "other")
    with subprocess.Popen(exporting, stdout=subprocess.PIPE) as sender:
        subprocess.run(importing, stdin=sender.stdout, check=True, stdout=subprocess.DEVNULL)
    assert sender.returncode == 0
    for side in ("export", "import"):
        assert int((tmp_path / side).read_text()) <= LIMIT_BYTES, side
    subprocess.run(measured("verify", "verify", "--models", tmp_path / "other"), check=True, stdout=subprocess.DEVNULL)
    assert int((tmp_path / "verify").read_text()) <= LIMIT_BYTES


def many_models(root: Path, count: int) -> Store:
    """Models as a store has many of: each shares its weights with others, and has a config of its own."""
    store = Store(root)
    weights = [store.layer(MODEL, b"weights %d" % number) for number in range(5)]
    for number in range(count):
        config = store.config(model_type=f"{number}M")
        store.add(full(f"model{number // 20}:tag-{number}"), *weights, config=config)
    return store


def peak_of(command: list[str], store: Store) -> int:
    """The most bytes that Python objects took while a command ran in this process."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        tracemalloc.start()
        try:
            assert run([*command, "--models", str(store.root)]) == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


# A hundred thousand models in 256 MiB, of which Python and the modules take 40.
MODEL_BYTES = (256 - 40) * 1024 * 1024 // 100_000


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """One with five hundred models more than the other."""
    folder = tmp_path_factory.mktemp("stores")
    return many_models(folder / "few", 100), many_models(folder / "many", 600)


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["verify", "--jobs", "1", "--quiet"]], ids=" ".join)
def test_a_model_more_costs_little_memory(command: list[str], stores: tuple[Store, Store]) -> None:
    few, many = stores
    # What is loaded and kept once does not count.
    peak_of(command, few)
    assert (peak_of(command, many) - peak_of(command, few)) / 500 <= MODEL_BYTES


def test_a_broken_manifest_is_not_kept_however_large_it_is(tmp_path: Path) -> None:
    store = many_models(tmp_path / "models", 5)
    whole = peak_of(["list"], store)
    for number in range(10):
        broken = store.write_manifest(full(f"broken:{number}"), b"")
        os.truncate(broken, 4_000_000)
    assert peak_of(["list"], store) <= whole + 10_000_000
