"""The rows of `scripts/bench.py` about deltas inside blobs: what a re-release takes, and what quantizations share."""

from __future__ import annotations

import random
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import bench_data as data
from gguf_variants import write_variant

from ostore.formats.gguf import GgufTensor

# Like that of a real model: some kilobytes, of which a re-release changes a word.
TEMPLATE = "{% for message in messages %}{{ message.role + message.content }}{% endfor %}\n" * 20
KEY = "tokenizer.chat_template"
# Type numbers of GGUF, and the bytes of 256 weights.
F32, Q4_K, Q5_K, Q6_K = 0, 12, 13, 14
BYTES = {F32: 1024, Q4_K: 144, Q5_K: 176, Q6_K: 210}
LAYERS, NORM = 32, 512
_PIECE = 8 * 1024 * 1024


class Shaped(NamedTuple):
    """A tensor of a quantized model."""

    name: str
    kind: int
    weights: int

    @property
    def size(self) -> int:
        return self.weights // 256 * BYTES[self.kind]


def shuffled(tensors: Sequence[GgufTensor]) -> Sequence[GgufTensor]:
    return random.Random(1).sample(tensors, len(tensors))


# What a re-release changes, how much of the best of `zstd --patch-from` its recipe may have, and how it is made.
VARIANTS: tuple[tuple[str, float, Callable[[Path, Path], None]], ...] = (
    ("another template", 0.03, lambda old, new: write_variant(old, new, template=lambda text: text + "\n")),
    ("tensors in another order", 0.4, lambda old, new: write_variant(old, new, order=shuffled)),
    ("tensors renamed", 0.2, lambda old, new: write_variant(old, new, rename=lambda name: f"model.{name}")),
    ("a key added", 0.03, lambda old, new: write_variant(old, new, added=[("general.note", "a note")])),
    ("alignment 64", 0.03, lambda old, new: write_variant(old, new, alignment=64)),
)


def write_base(path: Path) -> None:
    """Write the real model with a template in its header."""
    write_variant(data.REAL_MODEL, path, added=[(KEY, TEMPLATE)])


def add_weights(store: Path, name: str, path: Path) -> None:
    """Make a model of a file."""
    data.add_model(store, name, [data.config(0), (data.MODEL, pieces(path))])


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def best_patch(old: Path, new: Path, patch: Path) -> int:
    """Return the size of the smallest patch of zstd's faster levels."""
    sizes = []
    for level in range(1, 10):
        words = ("zstd", f"-{level}", "--long=28", f"--patch-from={old}", new, "-o", patch, "-f", "-q")
        subprocess.run([str(word) for word in words], check=True)
        sizes.append(patch.stat().st_size)
    return min(sizes)


def recipe_in(bundle: Path) -> tuple[int, int]:
    """Return the bytes of the only recipe of a plain bundle, as they are and as zstd frame of level 1."""
    with tarfile.open(bundle) as archive:
        [member] = [member for member in archive if member.name.startswith("recipes/")]
        file = archive.extractfile(member)
        content = file.read() if file else b""
    packed = subprocess.run(["zstd", "-1", "-q", "--no-check"], input=content, check=True, capture_output=True).stdout
    return len(content), len(packed)


def write_large(path: Path, copies: int) -> None:
    """Write a file with the tensors of the real model that many times, and one template."""

    def again(tensors: Sequence[GgufTensor]) -> Sequence[GgufTensor]:
        return [tensor for _ in range(copies) for tensor in tensors]

    numbers = iter(range(copies * 100_000))
    write_variant(
        data.REAL_MODEL, path, added=[(KEY, TEMPLATE)], order=again, rename=lambda name: f"{next(numbers)}.{name}"
    )


def quantized(body: int) -> Iterator[Shaped]:
    """
    Yield the tensors of an 8B model as llama.cpp quantizes them, each dimension an eighth: Q4_K_M, Q5_K_M or Q6_K.

    What needs more bits gets six of them in all three, and is the same then.
    """
    yield Shaped("token_embd.weight", body, NORM * 16_032)
    for layer in range(LAYERS):
        is_more = layer < LAYERS // 8 or layer >= 7 * LAYERS // 8 or (layer - LAYERS // 8) % 3 == 2  # noqa: PLR2004
        more = Q6_K if is_more else body
        yield Shaped(f"blk.{layer}.attn_norm.weight", F32, NORM)
        for name, kind, columns in (("q", body, NORM), ("k", body, NORM // 4), ("v", more, NORM // 4)):
            yield Shaped(f"blk.{layer}.attn_{name}.weight", kind, NORM * columns)
        yield Shaped(f"blk.{layer}.attn_output.weight", body, NORM * NORM)
        for name, kind in (("gate", body), ("up", body), ("down", more)):
            yield Shaped(f"blk.{layer}.ffn_{name}.weight", kind, NORM * 1792)
        yield Shaped(f"blk.{layer}.ffn_norm.weight", F32, NORM)
    yield Shaped("output_norm.weight", F32, NORM)
    yield Shaped("output.weight", Q6_K, NORM * 16_032)


def quantized_file(tensors: Iterable[Shaped]) -> Iterator[bytes]:
    """Yield a GGUF. Tensors of one name and type have the same bytes in each file."""
    tensors = list(tensors)
    infos, position = [], 0
    for tensor in tensors:
        name = tensor.name.encode()
        infos.append(
            struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, tensor.weights, tensor.kind, position)
        )
        position += tensor.size + -tensor.size % 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 0) + b"".join(infos)
    yield head + bytes(-len(head) % 32)
    for tensor in tensors:
        yield random.Random(f"{tensor.name} {tensor.kind}").randbytes(tensor.size) + bytes(-tensor.size % 32)


def shared_bytes(files: Sequence[Sequence[Shaped]]) -> int:
    """Return how many bytes of tensors are in a file before."""
    seen: set[Shaped] = set()
    shared = 0
    for tensors in files:
        shared += sum(tensor.size for tensor in tensors if tensor in seen)
        seen.update(tensors)
    return shared
