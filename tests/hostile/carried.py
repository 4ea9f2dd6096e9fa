"""Part I: what is carried back, inventories and locks, as a basis and as what is to be accepted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import zstandard

from tests.hostile.rows import (
    DONE,
    FORMAT,
    INTEGRITY,
    LIMIT,
    MIB,
    NOT_FOUND,
    OLD,
    OLD_WEIGHTS,
    UNSAFE,
    Argument,
    Lazy,
    Prepare,
    Row,
    World,
)
from tests.support import sha256

ESCAPES = "\x1b]52;c;aGk=\x07\x1b[2J\r\x9b"
ZERO = "sha256:" + "0" * 64
BLOB = f"sha256:{sha256(OLD_WEIGHTS)}"
BIG = 2**63 - 1
# What takes a basis, with the file in the place of None.
TAKING: dict[str, tuple[str | None, ...]] = {
    "export": ("export", "old", "out.tar.zst", "--have", None),
    "diff": ("diff", None),
    "outdated": ("outdated", "--against", None),
}
HOLDING: dict[str, tuple[str | None, ...]] = {
    "export": ("export", "out.tar.zst", "--lock", None),
    "import": ("import", "in.tar.zst", "--lock", None),
    "verify": ("verify", "--lock", None),
    "update": ("lock", "--update", None),
}


def carried_rows() -> Iterator[Row]:
    yield from inventory_rows()
    yield from size_rows()
    yield from lock_rows()


def given(words: Sequence[str | None], build: Callable[[], bytes], name: str = "given") -> Prepare:
    """A command that is given a file."""

    def prepare(world: World) -> Sequence[Argument]:
        world.cwd = world.folder
        world.good()
        path = world.put(build(), name)
        return (*(path if word is None else word for word in words), *world.at)

    return prepare


def inventory() -> dict[str, Any]:
    """A good one: it has the weights of the old model, and says what is in them."""
    inside = {
        "header": {"digest": ZERO, "size": 10},
        "tensors": [{"offset": 10, "length": 20, "digest": ZERO}, {"offset": 30, "length": 40, "digest": ZERO}],
    }
    return {
        "format": "ostore-inventory",
        "version": 1,
        "models": [{"name": OLD, "manifest": {"digest": ZERO, "size": 300}, "blobs": [BLOB]}],
        "blobs": [{"digest": BLOB, "size": len(OLD_WEIGHTS), "tensors": inside}],
    }


def taken(name: str, build: Callable[[], bytes], *codes: int, alone: bool = False) -> Iterator[Row]:
    """The same file as each command takes it, and through `diff` as one zstd frame."""
    for command, words in TAKING.items():
        yield Row(f"I160 {name}, {command}", given(words, build), codes, alone=alone, is_report=DONE in codes)
        if alone:
            return
    yield Row(
        f"I160 {name}, packed",
        given(TAKING["diff"], lambda: zstandard.compress(build())),
        codes,
        is_report=DONE in codes,
    )


def changed_rows(name: str, change: Callable[[dict[str, Any]], object], *codes: int) -> Iterator[Row]:
    def build() -> bytes:
        document = inventory()
        change(document)
        return json.dumps(document).encode()

    yield from taken(f"inventory with {name}", build, *codes)


def inventory_rows() -> Iterator[Row]:
    yield from changed_rows("nothing wrong", lambda _: None, DONE)
    for what, (change, code) in WRONG.items():
        yield from changed_rows(what, change, code)
    twice = json.dumps(inventory()).replace('"version"', '"Version": 2, "version"').encode()
    yield from taken("inventory with a key in two cases", lambda: twice, UNSAFE)
    for what, raw in {"nothing": b"{", "a list": b'{"a":[]}', "text": b"{nobody}", "more": b"{}{}"}.items():
        yield from taken(f"inventory of {what}", partial(bytes, raw), FORMAT)


def _model(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["models"][0]
    return found


def _blob(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["blobs"][0]
    return found


def _tensors(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _blob(document)["tensors"]["tensors"]
    return found


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], int]] = {
    "a name of a terminal": (lambda one: _model(one).update(name=f"a/b/{ESCAPES}:d"), UNSAFE),
    "a name that climbs": (lambda one: _model(one).update(name="../../../etc:x"), UNSAFE),
    "a name twice": (lambda one: one["models"].append(_model(one)), UNSAFE),
    "a name in two cases": (lambda one: one["models"].append({**_model(one), "name": OLD.upper()}), UNSAFE),
    "a digest of a terminal": (lambda one: _blob(one).update(digest=ESCAPES), UNSAFE),
    "a digest that climbs": (lambda one: _model(one).update(blobs=["sha256:../../../../x"]), UNSAFE),
    "a blob twice": (lambda one: one["blobs"].append(_blob(one)), UNSAFE),
    "a size below 0": (lambda one: _blob(one).update(size=-1), FORMAT),
    "a size of a terminal": (lambda one: _blob(one).update(size=ESCAPES), FORMAT),
    "a size of 2^64": (lambda one: _blob(one).update(size=2**64), FORMAT),
    "sizes that add up": (lambda one: one["blobs"].extend({"digest": ZERO[:-1] + c, "size": BIG} for c in "12"), LIMIT),
    "a tensor outside": (lambda one: _tensors(one)[1].update(length=BIG), UNSAFE),
    "a tensor far outside": (lambda one: _tensors(one)[1].update(offset=BIG, length=BIG), UNSAFE),
    "tensors that overlap": (lambda one: _tensors(one)[0].update(length=21), UNSAFE),
    "tensors in another order": (lambda one: _tensors(one).reverse(), UNSAFE),
    "a tensor in the header": (lambda one: _tensors(one)[0].update(offset=0), UNSAFE),
    "a tensor of nothing": (lambda one: _tensors(one)[0].update(length=0), FORMAT),
    "a header outside": (lambda one: _blob(one)["tensors"]["header"].update(size=BIG), UNSAFE),
    "a format of a terminal": (lambda one: one.update(format=ESCAPES), FORMAT),
    "a later version": (lambda one: one.update(version=2), FORMAT),
    "needs of a terminal": (lambda one: one.update(needs=[ESCAPES]), FORMAT),
    "a manifest that is too large": (lambda one: _model(one)["manifest"].update(size=5 * MIB), LIMIT),
}


def _many(what: str) -> bytes:
    names = ({"name": f"a/b/c:{n}", "manifest": {"digest": ZERO, "size": 1}} for n in range(100_001))
    digests = ({"digest": f"sha256:{n:064x}", "size": 1} for n in range(100_001))
    entries = list(names if what == "models" else digests)
    return json.dumps({"format": "ostore-inventory", "version": 1, what: entries}).encode()


def _many_tensors() -> bytes:
    document = inventory()
    _blob(document)["size"] = BIG
    tensors = [{"offset": 10 + number, "length": 1, "digest": ZERO} for number in range(100_001)]
    _blob(document)["tensors"]["tensors"] = tensors
    return json.dumps(document, separators=(",", ":")).encode()


def size_rows() -> Iterator[Row]:
    """Counts and lengths: each is refused before it takes memory."""
    large = {
        "models": Lazy(lambda: _many("models")),
        "blobs": Lazy(lambda: _many("blobs")),
        "tensors": Lazy(_many_tensors),
        "values": Lazy(lambda: b'{"a":[' + b"{}," * 5_000_000 + b"{}]}"),
        "blanks": Lazy(lambda: b"{" + b" " * 17 * MIB),
        "depth": Lazy(lambda: b'{"a":' * 200_000),
        "a bomb": Lazy(lambda: zstandard.compress(b"{" + b" " * 1024 * MIB)),
        "a line": Lazy(lambda: b"#" * 17 * MIB),
        "many lines": Lazy(lambda: b"\n".join(b"%s  a/b/c:%d" % (ZERO.encode(), n) for n in range(100_001))),
    }
    for what, content in large.items():
        yield from taken(f"a file of too many {what}", content.build, LIMIT, alone=True)
    for what, content in list(large.items())[-2:]:
        yield Row(f"I162 lock of {what}", given(HOLDING["verify"], content.build), (LIMIT,), alone=True)


def lock_rows() -> Iterator[Row]:
    line = f"{ZERO}  {OLD}\n"
    for command, words in HOLDING.items():
        for what, text in {
            "a name of a terminal": f"{ZERO}  a/b/\x1b[2J\x9b:d\n",
            "a name that climbs": f"{ZERO}  ../../../etc:x\n",
            "a digest that climbs": f"sha256:../../../x  {OLD}\n",
            "a name twice": line * 2,
            "a name in two cases": line + line.replace("old", "OLD"),
        }.items():
            yield Row(f"I161 lock with {what}, {command}", given(words, text.encode), (UNSAFE,), "lock: line ")
        for what, raw in {
            "text of a terminal": ESCAPES.encode(),
            "bytes": b"\xff\xfe\xff",
            "no UTF-8": b"# \xff\n",
            "a bundle": b"ostore/bundle.json\0",
            "half a frame": zstandard.compress(line.encode())[:-3],
        }.items():
            codes = (INTEGRITY,) if what == "half a frame" else (FORMAT,)
            yield Row(f"I161 lock of {what}, {command}", given(words, partial(bytes, raw)), codes)
    remarked = f"# {ESCAPES}\n{line}".encode()
    yield Row("I161 remarks of a terminal", given(HOLDING["update"], lambda: remarked), (DONE,), changes=("given",))
    yield Row("I161 a lock of another manifest", given(HOLDING["export"], line.encode), (INTEGRITY,), "expected")
    absent = f"{ZERO}  a/b/c:d\n".encode
    yield Row("I161 a lock of no model", given(HOLDING["import"], absent), (NOT_FOUND,), "a/b/c:d")
