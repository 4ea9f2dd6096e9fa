"""Memory does not grow with what is carried: export and import of one large blob through a pipe."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

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
