"""Make rows of the table of hostile inputs, also many rows from one idea."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.forge import NAME, SETTINGS, TEXT, WEIGHTS, Bundle, compressed, dumped, tar
from tests.support import Store, full

DONE, FAILED, USAGE, NOT_FOUND, INTEGRITY, TRUST = 0, 1, 2, 3, 4, 5
BUSY, NO_SPACE, UNSAFE, IO, DAMAGED, FORMAT, LIMIT = 6, 7, 8, 9, 10, 12, 13
INTERRUPTED, TERMINATED = 130, 143
MIB = 1024 * 1024

Argument = str | Path
OLD = full("old:latest")
OLD_WEIGHTS = b"the old weights " * 30


@dataclass
class World:
    """A folder of one test: a store with a model in it, canaries beside it, and what the command is to meet."""

    folder: Path
    patch: pytest.MonkeyPatch
    stdin: bytes | None = None
    umask: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    prefix: tuple[str, ...] = ()
    is_terminal: bool = False

    def __post_init__(self) -> None:
        self.store = Store(self.folder / "models")
        self.store.model("old:latest", OLD_WEIGHTS)
        self.canary = self.folder / "outside" / "canary"
        self.canary.parent.mkdir()
        self.canary.write_bytes(b"do not touch\n")
        (self.folder / "models.canary").write_bytes(b"neither this\n")

    def put(self, data: bytes, name: str = "in.tar.zst") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    @property
    def at(self) -> tuple[Argument, Argument]:
        return ("--models", self.store.root)

    def good(self, name: str = "in.tar.zst") -> Path:
        return self.put(compressed(tar(Bundle().parts())), name)


Prepare = Callable[[World], Sequence[Argument]]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    peak_bytes: int = 0


@dataclass(frozen=True)
class Row:
    """
    `codes` are the ways it may end. `says` is part of the error's line.

    `is_report`: the command may report on standard output and print no error line. `alone`: it runs in a process of its
    own, and its memory is measured. `moving` are files that the row itself changes meanwhile. A command that ends well
    changes only paths that begin with one of `changes`; import and export add what they are asked for. `check` looks
    at what else has to hold.
    """

    name: str
    prepare: Prepare
    codes: tuple[int, ...]
    says: str = ""
    is_report: bool = False
    alone: bool = False
    moving: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    check: Callable[[World, Outcome], None] | None = None


@dataclass(frozen=True)
class BundleFile:
    """A bundle file beside the store, and a command that reads it: what can be published as it is (tests/vectors)."""

    build: Callable[[], bytes]
    name: str
    options: tuple[str, ...]
    command: str

    def __call__(self, world: World) -> Sequence[Argument]:
        path = world.put(self.build(), self.name)
        return (self.command, path) if self.command == "inspect" else (self.command, path, *self.options, *world.at)


def imported(build: Callable[[], bytes], name: str = "in.tar.zst", *options: str, command: str = "import") -> Prepare:
    return BundleFile(build, name, options, command)


def piped(build: Callable[[], bytes], *options: str) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        world.stdin = build()
        return ("import", "-", *options, *world.at)

    return prepare


def file_rows(name: str, build: Callable[[], bytes], *codes: int, says: str = "", alone: bool = False) -> Iterator[Row]:
    """The same bytes as a file and through a pipe."""
    yield Row(f"{name} [file]", imported(build), codes, says, alone=alone)
    yield Row(f"{name} [pipe]", piped(build), codes, says, alone=alone)


def tar_rows(name: str, build: Callable[[], bytes], *codes: int, says: str = "", alone: bool = False) -> Iterator[Row]:
    """One tar stream: compressed as a file and through a pipe, plain, and looked at by `verify`."""
    yield from file_rows(name, lambda: compressed(build()), *codes, says=says, alone=alone)
    yield Row(f"{name} [tar]", imported(build, "in.tar"), codes, says, alone=alone)
    yield Row(f"{name} [tar pipe]", piped(build), codes, says, alone=alone)
    looked_at = imported(lambda: compressed(build()), command="verify")
    yield Row(f"{name} [verify]", looked_at, codes, is_report=True, alone=alone)


def parts_rows(name: str, change: Callable[[list[bytes]], object], *codes: int, says: str = "") -> Iterator[Row]:
    """A good bundle whose list of members was changed."""

    def build() -> bytes:
        parts = Bundle().parts()
        change(parts)
        return tar(parts)

    yield from tar_rows(name, build, *codes, says=says)


@dataclass(frozen=True)
class Lazy:
    """Bytes that are large, so they are made when they are needed."""

    build: Callable[[], bytes]


def index_rows(
    name: str,
    change: Callable[[dict[str, Any]], object] | bytes | Lazy,
    *codes: int,
    says: str = "",
    alone: bool = False,
) -> Iterator[Row]:
    """A good bundle whose index was changed, met by import and by inspect, which reads nothing else."""

    def build() -> bytes:
        if isinstance(change, bytes | Lazy):
            return compressed(tar(Bundle().parts(change if isinstance(change, bytes) else change.build())))
        index = Bundle().index()
        change(index)
        return compressed(tar(Bundle().parts(dumped(index))))

    yield Row(f"{name} [import]", imported(build), codes, says, alone=alone)
    if not alone:
        yield Row(f"{name} [inspect]", imported(build, command="inspect"), codes, says)


def manifest_rows(
    name: str,
    raw: bytes | Lazy,
    *codes: int,
    blobs: Sequence[bytes] = (SETTINGS, WEIGHTS, TEXT),
    says: str = "",
    alone: bool = False,
) -> Iterator[Row]:
    """A bundle whose manifest has these bytes, and whose index agrees with it about everything else."""

    def build() -> bytes:
        data = raw if isinstance(raw, bytes) else raw.build()
        return compressed(tar(Bundle(blobs=list(blobs), manifests=[(NAME, data, blobs)]).parts()))

    yield Row(f"{name} [bundle]", imported(build), codes, says, alone=alone)
    if not alone:
        yield Row(f"{name} [verify]", imported(build, command="verify"), codes, is_report=True)


def insert(index: int, *extra: bytes) -> Callable[[list[bytes]], None]:
    def change(parts: list[bytes]) -> None:
        parts[index:index] = extra

    return change


def replace(index: int, *others: bytes) -> Callable[[list[bytes]], None]:
    def change(parts: list[bytes]) -> None:
        parts[index : index + 1] = others

    return change


def edit(**changes: object) -> Callable[[dict[str, Any]], None]:
    """Set keys of the index."""
    return lambda index: index.update(changes)


def edit_blob(**changes: object) -> Callable[[dict[str, Any]], None]:
    """Set keys of the index's second blob, the weights."""
    return lambda index: index["blobs"][1].update(changes)


def edit_model(**changes: object) -> Callable[[dict[str, Any]], None]:
    """Set keys of the index's first model."""
    return lambda index: index["models"][0].update(changes)


def edit_file(**changes: object) -> Callable[[dict[str, Any]], None]:
    """Set keys of the index's first file."""
    return lambda index: index["files"][0].update(changes)


def packed(parts: Sequence[bytes]) -> Callable[[], bytes]:
    """A builder of the compressed bundle of these members."""
    return lambda: compressed(tar(parts))


def drop_blob_key(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda index: index["blobs"][1].pop(key)


def good_tar() -> bytes:
    return tar(Bundle().parts())


def good() -> bytes:
    return compressed(good_tar())
