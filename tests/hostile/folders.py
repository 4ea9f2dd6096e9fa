"""Records of folders of links, which anybody may have written: nothing outside the folder is touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.hostile.rows import DONE, FORMAT, LIMIT, NOT_FOUND, UNSAFE, Argument, Prepare, Row, World
from tests.support import sha256

_CANARY = b"do not touch\n"


def folder_rows() -> Iterator[Row]:
    for what, path in {
        "climbs": "../outside/canary",
        "climbs from below": "a/../../outside/canary",
        "is absolute": "/etc/hosts",
        "is the record": ".ostore-links.json",
        "has an escape": "\x1b]52;c;aGk=\x07.gguf",
        "is of Windows": "C:\\x",
        "is empty": "",
    }.items():
        for option in ("--remove", "--refresh"):
            yield Row(f"G171 record whose path {what} [{option}]", _met(_with_path(path), option), (UNSAFE,))
    yield Row(
        "G171 record of a file in a folder that is a link", _met(_behind_a_link, "--remove"), (DONE,), changes=("out",)
    )
    yield Row("G172 record that is no JSON", _met(lambda _: b"\xff", "--remove"), (FORMAT,))
    yield Row("G172 record with a key twice", _met(lambda _: b'{"schema":1,"schema":2}', "--remove"), (FORMAT,))
    yield Row("G172 record 100,000 deep", _met(lambda _: b"[" * 100_000, "--remove"), (LIMIT,))
    yield Row("G172 record of 17 MiB", _met(lambda _: b" " * 17 * 1024 * 1024, "--remove"), (LIMIT,), alone=True)
    yield Row("G173 record of a store that is nowhere", _met(_of_store("/no/such/store"), "--refresh"), (NOT_FOUND,))
    yield Row("G173 record of a store that is relative", _met(_of_store("models"), "--refresh"), (UNSAFE,))
    yield Row("G174 record that is a link to a record", _linked, (UNSAFE,))


def _met(raw: Callable[[World], bytes], option: str) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        target = world.folder / "out"
        target.mkdir()
        (target / ".ostore-links.json").write_bytes(raw(world))
        return ("link", option, target)

    return prepare


def _with_path(path: str) -> Callable[[World], bytes]:
    return lambda world: _record(world, path=path)


def _of_store(store: str) -> Callable[[World], bytes]:
    return lambda world: _record(world, store=store)


def _behind_a_link(world: World) -> bytes:
    (world.folder / "out/a").symlink_to(world.canary.parent)
    return _record(world, path="a/canary")


def _linked(world: World) -> Sequence[Argument]:
    target = world.folder / "out"
    target.mkdir()
    (world.folder / "record").write_bytes(_record(world))
    (target / ".ostore-links.json").symlink_to(world.folder / "record")
    return ("link", "--remove", target)


def _record(world: World, *, path: str = "x.gguf", store: str = "") -> bytes:
    """A record that says that a file with the bytes of the canary is ours."""
    file: dict[str, Any] = {"path": path, "kind": "text", "digest": f"sha256:{sha256(_CANARY)}"}
    file |= {"size": len(_CANARY), "mark": 0}
    model = {"name": "registry.ollama.ai/library/x:latest", "store": store or str(world.store.root), "files": [file]}
    return json.dumps({"schema": "ostore.links/1", "layout": "files", "models": [model]}).encode()
