"""Part D: what `create` is given. Modelfiles that lie, and weights whose headers do; tests/test_gguf.py has more."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ostore.places.store.receiving import draft
from ostore.streams.chunks import Chunk
from tests.gguf import ONE_LAYER, Tensor, Value, assembled, entry, gguf, info, split
from tests.hostile.rows import (
    DONE,
    FORMAT,
    INTEGRITY,
    IO,
    LIMIT,
    MIB,
    NOT_FOUND,
    USAGE,
    Argument,
    Outcome,
    Prepare,
    Row,
    World,
)
from tests.hostile.surroundings import make_odd
from tests.support import full

TENSORS: dict[str, Tensor] = {"token_embd.weight": ((32, 4), [0.5]), "output_norm.weight": ((32,), [1.0])}
TINY = gguf(ONE_LAYER, TENSORS)
FILE = "m.gguf"
ESCAPES = "\x1b]52;c;aGk=\x07\x1b[2J\r\x9b"


def creating_rows() -> Iterator[Row]:
    yield from modelfile_rows()
    yield from source_rows()
    yield from weights_rows()
    yield from failing_source_rows()


def created(raw: bytes = TINY, change: Callable[[World], object] = lambda _: None) -> Prepare:
    """A model of one file."""

    def prepare(world: World) -> Sequence[Argument]:
        world.put(raw, FILE)
        change(world)
        return ("create", "made", world.folder / FILE, *world.at)

    return prepare


def written(modelfile: bytes | Callable[[Path], object], change: Callable[[World], object] = lambda _: None) -> Prepare:
    """A model of a Modelfile beside a good file of weights, in a folder of somebody else's."""

    def prepare(world: World) -> Sequence[Argument]:
        path = world.folder / "given" / "Modelfile"
        path.parent.mkdir()
        (path.parent / FILE).write_bytes(TINY)
        if isinstance(modelfile, bytes):
            path.write_bytes(modelfile)
        else:
            modelfile(path)
        change(world)
        return ("create", "made", "-f", path, *world.at)

    return prepare


def modelfile_rows() -> Iterator[Row]:
    texts: Mapping[str, tuple[bytes, int, str]] = {
        "D77 NUL bytes": (b"FROM m.gguf\nSYSTEM a\0b", DONE, ""),
        "D77 NUL bytes in front": (b"\0\0FROM m.gguf", FORMAT, "line 1, column 1"),
        "D77 UTF-16": ("FROM m.gguf\nSYSTEM a".encode("utf-16"), DONE, ""),
        "D77 UTF-16 without a mark": ("FROM m.gguf".encode("utf-16-le"), FORMAT, "line 1, column 1"),
        "D77 no final newline": (b"FROM m.gguf", DONE, ""),
        "D77 empty": (b"", FORMAT, "no FROM line"),
        "D78 three quotes that are not closed": (b'FROM m.gguf\nSYSTEM """a\n', FORMAT, "line 2, column 1"),
        "D78 an unknown instruction": (b"FROM m.gguf\nRUN rm -rf /\n", FORMAT, "line 2, column 1"),
        "D78 num_ctx 1e400": (b"FROM m.gguf\nPARAMETER num_ctx 1e400\n", FORMAT, "line 2, column 1"),
        "D78 temperature NaN": (b"FROM m.gguf\nPARAMETER temperature NaN\n", FORMAT, "line 2, column 1"),
        "D78 escapes in an instruction": (f"FROM m.gguf\nRUN{ESCAPES} x".encode(), FORMAT, "line 2, column 1"),
        "D78 escapes in a parameter": (f"FROM m.gguf\nPARAMETER x{ESCAPES} x".encode(), FORMAT, "line 2, column 1"),
        "D79 FROM a file of secrets": (b"FROM ../outside/canary\n", FORMAT, "not a GGUF"),
        "D79 FROM /dev/zero": (b"FROM /dev/zero\n", USAGE, "a pipe or a device"),
        "D79 FROM a name with escapes": (b"FROM x\x1b]52;c;aGk=\x07\n", NOT_FOUND, "line 1"),
        "D80 ADAPTER climbs": (b"FROM m.gguf\nADAPTER ../outside/canary\n", FORMAT, "not a GGUF"),
        "D80 ADAPTER climbs to weights": (b"FROM m.gguf\nADAPTER ../given/m.gguf\n", USAGE, "says that it is a model"),
        "D81 FROM an ID that nobody has": (b"FROM m@sha256:%064d\n" % 0, NOT_FOUND, "line 1"),
    }
    for name, (text, code, says) in texts.items():
        yield Row(name, written(text), (code,), says)
    # 1 GB of which nothing is on the disk, and no more is read of it than a Modelfile may have.
    yield Row("D77 a Modelfile of 1 GB", written(lambda path: _sparse(path, 10**9)), (LIMIT,), alone=True)
    yield Row("D77 /dev/zero as a Modelfile", written(lambda path: path.symlink_to("/dev/zero")), (LIMIT,))
    long = b"FROM m.gguf\nSYSTEM " + b"long " * (6 * MIB)
    yield Row("D77 a line of 30 MiB", written(lambda path: path.write_bytes(long)), (DONE,), alone=True)
    texts_with_escapes = f'FROM m.gguf\nSYSTEM """a{ESCAPES}\nb"""\nLICENSE """{"x" * 80}\n{ESCAPES}"""\n'
    yield Row("D82 texts with escapes", written(texts_with_escapes.encode()), (DONE,), check=_keeps_what_ollama_keeps)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _keeps_what_ollama_keeps(world: World, outcome: Outcome) -> None:
    """Of a control character only the carriage return; and that something went is said."""
    raw = world.store.manifest_path(full("made:latest")).read_bytes()
    assert b"manifest" in raw
    assert b"]52;c;aGk=[2J\r" in b"".join(path.read_bytes() for path in (world.store.root / "blobs").iterdir())
    assert "characters that cannot be printed are left out" in outcome.stderr


def source_rows() -> Iterator[Row]:
    """What FROM and the command line may name in place of a regular file."""
    for kind, code in (
        ("link", FORMAT),
        ("dangling link", NOT_FOUND),
        ("FIFO", USAGE),
        ("directory", USAGE),
        ("socket", USAGE),
    ):
        change = _odd_weights(kind, FILE)
        yield Row(f"D79 a {kind} in place of weights", created(change=change), (code,))
        yield Row(f"D79 FROM a {kind}", written(b"FROM ../m.gguf", change), (code,))
    yield Row("D79 a link to itself", created(change=_loop), (IO,))
    yield Row("D79 a folder of a FIFO", written(b"FROM ../d", _odd_weights("FIFO", "d/m.gguf")), (USAGE,))
    yield Row("D79 a folder of what may be weights", written(b"FROM ../d", _odd_weights("FIFO", "d/m.bin")), (USAGE,))
    for number, part in enumerate(split(ONE_LAYER, TENSORS, {}, {})[:2]):
        lone = f"m-0000{number + 1}-of-00003.gguf"
        prepare = written(f"FROM ../{lone}".encode(), _put(lone, part))
        yield Row(f"D90 part {number + 1} of 3 alone", prepare, (USAGE,), "missing")
    yield Row("D90 the same part twice", written(b"FROM ../m-00001-of-00002.gguf", _part_twice), (USAGE,), "and so is")
    raw = struct.pack("<Q", 2**63)
    yield Row("D91 safetensors", written(b"FROM ../m.safetensors", _put("m.safetensors", raw)), (USAGE,), "convert")


def _odd_weights(kind: str, name: str) -> Callable[[World], None]:
    return lambda world: make_odd(kind, world.folder / name, world)


def _put(name: str, raw: bytes) -> Callable[[World], object]:
    return lambda world: world.put(raw, name)


def _loop(world: World) -> None:
    (world.folder / FILE).unlink()
    (world.folder / FILE).symlink_to(FILE)


def _part_twice(world: World) -> None:
    first, _ = split(ONE_LAYER, TENSORS, {})
    for number in (1, 2):
        world.put(first, f"m-0000{number}-of-00002.gguf")


def weights_rows() -> Iterator[Row]:
    key, tensor = entry("general.architecture", "llama"), info("a", (1,))
    nested = struct.pack("<Q1sI", 1, b"a", 9) + struct.pack("<IQ", 9, 1) * 10_000
    keyed: Mapping[str, Value] = {**ONE_LAYER, "tokenizer.ggml.tokens": ["<0x-1>", "<0xZZ>", ""]}
    files: Mapping[str, tuple[bytes, int]] = {
        "D83 three bytes": (b"GGU", FORMAT),
        "D83 another magic": (b"GGML" + TINY[4:], FORMAT),
        "D83 version 0": (gguf(ONE_LAYER, TENSORS, version=0), FORMAT),
        "D83 version 99": (gguf(ONE_LAYER, TENSORS, version=99), FORMAT),
        "D83 bytes of the version swapped": (TINY[:4] + TINY[4:8][::-1] + TINY[8:], LIMIT),
        "D84 2^63 keys": (assembled([key], [tensor], counts=(1, 2**63)), LIMIT),
        "D84 2^63 tensors": (assembled([key], [tensor], counts=(2**63, 1)), LIMIT),
        "D85 a text of 2^60 bytes": (assembled([struct.pack("<Q", 2**60) + b"a"], []), LIMIT),
        "D85 arrays 10,000 deep": (assembled([nested], []), LIMIT),
        "D86 a tensor past the end": (TINY[:-1], INTEGRITY),
        "D87 alignment 0": (gguf({**ONE_LAYER, "general.alignment": 0}, TENSORS), FORMAT),
        "D87 alignment 3": (gguf({**ONE_LAYER, "general.alignment": 3}, TENSORS), FORMAT),
        "D88 no elements": (assembled([key], [info("a", (0,))]), FORMAT),
        "D88 more elements than there are numbers": (assembled([key], [info("a", (2**62, 4))]), FORMAT),
        "D88 block_count is a text": (gguf({**ONE_LAYER, "llama.block_count": "1"}, TENSORS), DONE),
        "D89 a vocabulary that llama.cpp fails on": (gguf(keyed, TENSORS), DONE),
    }
    for name, (raw, code) in files.items():
        yield Row(name, created(raw), (code,))
    yield Row("D84 2^63 tensors, the memory", created(files["D84 2^63 tensors"][0]), (LIMIT,), alone=True)


def failing_source_rows() -> Iterator[Row]:
    yield Row(
        "D92 the file changes while it is hashed", created(change=_changing), (INTEGRITY,), "changed", moving=(FILE,)
    )
    yield Row("D93 the medium fails at 60 %", created(change=_failing), (IO,), FILE)


def _meanwhile(world: World, act: Callable[[], None]) -> None:
    """Let something happen when 60 % of the file are copied."""
    cut = len(TINY) * 6 // 10

    def chunks(fd: int, _limit: int) -> Iterable[Chunk]:
        yield os.read(fd, cut)
        act()
        yield os.read(fd, len(TINY))

    world.patch.setattr(draft, "clone_file", lambda *_: False)
    world.patch.setattr(draft, "read_chunks", chunks)


def _changing(world: World) -> None:
    _meanwhile(world, lambda: os.utime(world.folder / FILE, ns=(1, 1)))


def _failing(world: World) -> None:
    def fail() -> None:
        raise OSError(5, os.strerror(5))

    _meanwhile(world, fail)
