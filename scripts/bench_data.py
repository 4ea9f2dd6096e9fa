"""Make stores for `scripts/bench.py`: real weights many times over, and the two extremes of how weights shrink."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from ostore.streams.extents import clone_file

REAL_MODEL = Path(__file__).resolve().parent.parent / ".demo" / "gemma-3-270m-q4_k_m.gguf"
MODEL = "application/vnd.ollama.image.model"
CONFIG = "application/vnd.docker.container.image.v1+json"
_PIECE = 8 * 1024 * 1024


def real_store(store: Path, size: int, count: int) -> None:
    """Make `count` models of quantised weights, together `size` bytes. Each blob begins with another number."""
    for number in range(count):
        add_model(store, f"real{number}", [config(number), (MODEL, real_weights(number, size // count))])


def real_weights(number: int, size: int) -> Iterator[bytes]:
    yield number.to_bytes(8, "little")
    yield from _repeated(REAL_MODEL.read_bytes(), size - 8)


def noise(number: int, size: int) -> Iterator[bytes]:
    """Yield bytes that do not shrink at all, like encrypted or compressed weights."""
    yield number.to_bytes(8, "little")
    yield from _repeated(random.Random(number).randbytes(_PIECE * 4), size - 8)


def bfloat16(number: int, size: int) -> Iterator[bytes]:
    """Yield weights as they are trained: normal numbers whose upper byte has few common values."""
    source = random.Random(number)
    values = [struct.pack("<f", source.gauss(0, 0.02))[2:] for _ in range(_PIECE // 2)]
    yield number.to_bytes(8, "little")
    yield from _repeated(b"".join(values), size - 8)


def small_store(store: Path, tags: int) -> None:
    """Make many tags of six small blobs each, none of them shared."""
    for number in range(tags):
        layers = ((MODEL, [f"{number} {part}".encode() * 20]) for part in range(5))
        add_model(store, f"small{number}", [config(number), *layers])


def config(number: int) -> tuple[str, Iterable[bytes]]:
    return CONFIG, [json.dumps({"model_format": "gguf", "model_type": f"{number}M"}).encode()]


def add_model(store: Path, name: str, blobs: list[tuple[str, Iterable[bytes] | int]]) -> str:
    """Make a model of one tag. A number stands for a blob of so many zeros. Return the digits of the last digest."""
    folder = store / "blobs"
    folder.mkdir(parents=True, exist_ok=True)
    layers, digest = [], ""
    for media_type, content in blobs:
        building = folder / "building"
        digest, size = _write_hole(building, content) if isinstance(content, int) else _write(building, content)
        building.rename(folder / f"sha256-{digest}")
        layers.append({"mediaType": media_type, "digest": f"sha256:{digest}", "size": size})
    manifest = {"schemaVersion": 2, "mediaType": "", "config": layers[0], "layers": layers[1:]}
    path = store / "manifests/registry.ollama.ai/library" / name / "latest"
    path.parent.mkdir(parents=True)
    path.write_bytes(json.dumps(manifest, separators=(",", ":")).encode() + b"\n")
    return digest


def gguf_file(path: Path, size: int) -> None:
    """Write a GGUF of `size` bytes: the real model, and more of its bytes after its last tensor."""
    with path.open("wb") as file:
        for piece in _repeated(REAL_MODEL.read_bytes(), size):
            file.write(piece)


def gguf_model(store: Path, name: str, size: int) -> None:
    """Make a model of one tag whose weights are the header of the real model and a hole. Its digest is made up."""
    add_model(store, name, [config(0), (MODEL, [b"stands in"])])
    manifest = store / "manifests/registry.ollama.ai/library" / name / "latest"
    document = json.loads(manifest.read_bytes())
    [layer] = document["layers"]
    with (store / "blobs" / layer["digest"].replace(":", "-")).open("wb") as file, REAL_MODEL.open("rb") as real:
        file.write(real.read(_PIECE))
        file.truncate(size)
    layer["size"] = size
    manifest.write_bytes(json.dumps(document, separators=(",", ":")).encode() + b"\n")


def can_clone(folder: Path) -> bool:
    """Whether the disk of a folder can make a file that shares the bytes of another."""
    (folder / "one").write_bytes(bytes(8192))
    with (folder / "one").open("rb") as one, (folder / "two").open("wb") as two:
        is_able = clone_file(one.fileno(), two.fileno())
    for name in ("one", "two"):
        (folder / name).unlink()
    return is_able


def _write(path: Path, pieces: Iterable[bytes]) -> tuple[str, int]:
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            hasher.update(piece)
            size += file.write(piece)
    return hasher.hexdigest(), size


def _write_hole(path: Path, size: int) -> tuple[str, int]:
    with path.open("wb") as file:
        file.truncate(size)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), size


def _repeated(data: bytes, size: int) -> Iterator[bytes]:
    view = memoryview(data)
    while size > 0:
        for start in range(0, min(len(data), size), _PIECE):
            yield bytes(view[start : min(start + _PIECE, size)])
        size -= len(data)
