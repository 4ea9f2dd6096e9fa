"""Make stores and models for tests: real files in a folder of the test, as Ollama lays them out."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests import fork_server
from tests.windows.session import Session

MODEL = "application/vnd.ollama.image.model"
ADAPTER = "application/vnd.ollama.image.adapter"
PROJECTOR = "application/vnd.ollama.image.projector"
TEMPLATE = "application/vnd.ollama.image.template"
SYSTEM = "application/vnd.ollama.image.system"
MESSAGES = "application/vnd.ollama.image.messages"
PARAMS = "application/vnd.ollama.image.params"
LICENSE = "application/vnd.ollama.image.license"
TENSOR = "application/vnd.ollama.image.tensor"
CONFIG = "application/vnd.docker.container.image.v1+json"

# `make torture` asks for everything, `make test` for a slice of it.
TORTURE = os.environ.get("OSTORE_TORTURE") == "1"
# Measuring loads modules and writes files of its own. The programs that such a test starts are not measured.
unmeasured = pytest.mark.usefixtures("_unmeasured")
# What waits for a server that may be writing would wait in vain, a thousand times.
nobody_else_writes = pytest.mark.usefixtures("_nobody_else_writes")
OSTORE = (sys.executable, "-m", "ostore")
T = TypeVar("T")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def some(items: Sequence[T], count: int, seed: object) -> Sequence[T]:
    """All of them for `make torture`; for `make test` so many, the same for the same seed."""
    return items if TORTURE else random.Random(str(seed)).sample(items, min(count, len(items)))


@dataclass
class Store:
    """A store in a test's folder."""

    root: Path
    names: list[str] = field(default_factory=list)

    def blob(self, data: bytes) -> str:
        """Put a blob there; gives its digest text."""
        path = self.root / "blobs" / f"sha256-{sha256(data)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644)
        return f"sha256:{sha256(data)}"

    def blob_path(self, data: bytes) -> Path:
        return self.root / "blobs" / f"sha256-{sha256(data)}"

    def layer(self, media_type: str, data: bytes, **more: object) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": self.blob(data), "size": len(data), **more}

    def config(self, **fields: object) -> dict[str, Any]:
        document = {
            "model_format": "gguf",
            "model_family": "test",
            "model_families": ["test"],
            "model_type": "1.5M",
            "file_type": "Q4_K_M",
            "architecture": "amd64",
            "os": "linux",
            **fields,
        }
        return self.layer(CONFIG, json.dumps(document, separators=(",", ":")).encode() + b"\n")

    def manifest_path(self, name: str) -> Path:
        """`name` in full: host/namespace/model:tag."""
        path, _, tag = name.rpartition(":")
        return self.root / "manifests" / path / tag

    def write_manifest(self, name: str, raw: bytes) -> Path:
        path = self.manifest_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        self.names.append(name)
        return path

    def add(self, name: str, *layers: dict[str, Any], config: dict[str, Any] | None = None, raw: bytes = b"") -> Path:
        """A model as the server's create writes it: compact JSON and a newline."""
        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": config or self.config(),
            "layers": list(layers),
        }
        return self.write_manifest(name, raw or json.dumps(document, separators=(",", ":")).encode() + b"\n")

    def model(self, name: str, weights: bytes, **texts: bytes) -> Path:
        """A model of weights and small text layers."""
        types = {"template": TEMPLATE, "system": SYSTEM, "params": PARAMS, "license": LICENSE, "projector": PROJECTOR}
        layers = [self.layer(MODEL, weights)]
        layers += (self.layer(types[kind], text) for kind, text in texts.items())
        return self.add(full(name), *layers)


def full(name: str) -> str:
    """`tiny:q4` as `registry.ollama.ai/library/tiny:q4`."""
    return name if name.count("/") == 2 else f"registry.ollama.ai/library/{name}"


def six_kinds(root: Path) -> Store:
    """Two tags that share weights, a namespaced one, one from hf.co, a projector, 300 tensors, an oddly spaced one."""
    store = Store(root)
    store.model("tiny:q4", noise(3_000_000), template=b"{{ .Prompt }}", license=b"MIT")
    store.model("tiny:latest", noise(3_000_000), template=b"{{ .Prompt }}", system=b"Say hi!")
    store.model(
        "registry.ollama.ai/someone/custom:latest",
        b"weights " * 100_000,
        params=b'{"stop":["\\u003c|end|\\u003e"],"top_k":10}\n',
    )
    store.model(f"hf.co/bartowski/{'Long-Model-Name-' * 4}GGUF:Q4_K_M", noise(20_000, 2))
    store.model("sees:latest", noise(9_000_000, 3), projector=noise(100_000, 4))
    tensors = [store.layer(TENSOR, noise(700, 1000 + n), name=f"model.layers.{n}.weight") for n in range(300)]
    store.add(full("mlx:latest"), *tensors, config=store.config(model_format="safetensors", model_families=None))
    store.write_manifest(full("odd:latest"), odd_manifest(store))
    return store


def odd_manifest(store: Store) -> bytes:
    """What a registry may have sent: pretty-printed, other key order, unknown keys, no newline."""
    config, layer = store.config(model_type="odd"), store.layer(MODEL, b"odd weights", urls=["https://example.org"])
    document = {
        "layers": [layer],
        "annotations": {"a": "\u00e9"},
        "config": config,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "schemaVersion": 2,
    }
    return json.dumps(document, indent=3, ensure_ascii=False).encode()


def tree(root: Path, *, without: tuple[str, ...] = (".ostore",)) -> dict[str, str]:
    """Every path below a folder and what it is; for comparing before and after."""
    seen: dict[str, str] = {}
    # A LongPath of Windows writes itself otherwise.
    root = Path(os.fspath(root))
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in without]
        base = Path(folder)
        for name in folders:
            path = base / name
            seen[path.relative_to(root).as_posix()] = f"link {path.readlink()}" if path.is_symlink() else "folder"
        for name in files:
            path = base / name
            relative = path.relative_to(root).as_posix()
            if path.is_symlink():
                seen[relative] = f"link {path.readlink()}"
            elif path.is_file():
                seen[relative] = sha256(path.read_bytes())
            else:
                seen[relative] = "special"
    return seen


@contextlib.contextmanager
def standard_input(descriptor: int) -> Iterator[None]:
    """This in place of standard input; it is closed."""
    kept = os.dup(0)
    os.dup2(descriptor, 0)
    os.close(descriptor)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def costs_the_same_per_item(work: Callable[[int], Callable[[], object]]) -> bool:
    """
    Whether the third hundred of items costs what the second hundred cost.

    `work(count)` makes so many items and returns what is to be done with them. The cost is the number of functions that
    this calls: the same on every machine, however busy it is. The first hundred also pays what is paid once.
    """
    one, two, three = (_calls(work(count)) for count in (100, 200, 300))
    return three - two < 1.1 * (two - one)


def _calls(work: Callable[[], object]) -> int:
    count = 0

    def counted(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, list[bytes]]]:
    """A terminal: the descriptor that a program gets, and what it printed, which is whole after the block."""
    # Windows has neither.
    import pty
    import tty

    ours, theirs = pty.openpty()
    # Else a line break would come back as two characters.
    tty.setraw(theirs)
    shown: list[bytes] = []

    def read() -> None:
        # A terminal whose other end is closed fails to read.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                shown.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield theirs, shown
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)


def ostore(
    *arguments: str | Path,
    environment: dict[str, str] | None = None,
    cwd: Path | None = None,
    tracer: Sequence[str | Path] = (),
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, under a tracer if one is given; output captured as text."""
    words, surroundings = [*map(str, arguments)], {**os.environ, **(environment or {})}
    done = None if tracer else _run_in_what_is_loaded(words, surroundings, cwd)
    return done or subprocess.run(
        [*tracer, *OSTORE, *words], capture_output=True, text=True, check=False, timeout=120, env=surroundings, cwd=cwd
    )


def _run_in_what_is_loaded(
    words: Sequence[str], surroundings: Mapping[str, str], cwd: Path | None
) -> subprocess.CompletedProcess[str] | None:
    """Run the command where Python and ostore are loaded already. None: with these variables that may be wrong."""
    if os.name != "nt":
        return fork_server.run(words, surroundings, cwd, 120)
    # A completion ends its process at once.
    if words[:1] == ["_complete"] or fork_server.read_early(surroundings) != fork_server.read_early(os.environ):
        return None
    try:
        return _session().run(os.fspath(cwd or Path.cwd()), *words, environment=surroundings)
    except subprocess.TimeoutExpired:
        _session.cache_clear()
        raise


@functools.cache
def _session() -> Session:
    return Session([sys.executable], os.environ)


@contextlib.contextmanager
def later(days: float) -> Iterator[None]:
    """Let time pass for whatever runs in this process. A file's own times cannot all be set back."""
    when = time.time() + days * 86_400
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: when)
        yield


def as_user(uid: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run without any power of root; the interpreter may lie where this user cannot enter, then there is no test."""
    entered = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    if subprocess.run([*entered, sys.executable, "-c", "import ostore"], check=False, capture_output=True).returncode:
        pytest.skip("another user cannot run this interpreter")
    return subprocess.run([*entered, *OSTORE, *command], check=False, capture_output=True, text=True, timeout=120)
