"""Part J: OCI image layouts, which anybody may have written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.hostile.forge import NAME, SETTINGS, TEXT, WEIGHTS, document, dumped, entry, layer
from tests.hostile.rows import (
    DAMAGED,
    FORMAT,
    INTEGRITY,
    IO,
    LIMIT,
    MIB,
    OLD_WEIGHTS,
    UNSAFE,
    Argument,
    Prepare,
    Row,
    World,
)
from tests.support import MODEL, full, sha256

MANIFEST = dumped(document())
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
# What an entry of an index may be, and how the import of it ends.
_ENTRIES: dict[str, tuple[Callable[[dict[str, Any]], object], int]] = {
    "a digest that climbs": (lambda made: made.update(digest="sha256:../../../../etc/passwd"), UNSAFE),
    "a digest in upper case": (lambda made: made.update(digest=made["digest"].upper()), UNSAFE),
    "a digest of 63 digits": (lambda made: made.update(digest=made["digest"][:-1]), UNSAFE),
    "a digest with a line break": (lambda made: made.update(digest=made["digest"] + "\n"), UNSAFE),
    "a SHA-512": (lambda made: made.update(digest="sha512:" + "0" * 128), UNSAFE),
    "no digest": (lambda made: made.pop("digest"), UNSAFE),
    "a size below 0": (lambda made: made.update(size=-1), FORMAT),
    "a size that is true": (lambda made: made.update(size=True), FORMAT),
    "a size of 2^63": (lambda made: made.update(size=2**63), FORMAT),
    "a size of 5 MiB": (lambda made: made.update(size=5 * MIB), LIMIT),
    "a size that is one less": (lambda made: made.update(size=len(MANIFEST) - 1), INTEGRITY),
    "a size that is one more": (lambda made: made.update(size=len(MANIFEST) + 1), INTEGRITY),
    "a name that climbs": (lambda made: made.update(annotations={REF_NAME: "../../../x/y:z"}), UNSAFE),
    "a name that acts on a terminal": (lambda made: made.update(annotations={REF_NAME: "\x1b]0;x\x07"}), UNSAFE),
    "a name of 1 MB": (lambda made: made.update(annotations={REF_NAME: "x" * 1_000_000}), UNSAFE),
    "a name with a password": (lambda made: made.update(annotations={REF_NAME: "https://me:secret@host/x"}), UNSAFE),
    "annotations that are a list": (lambda made: made.update(annotations=[REF_NAME]), UNSAFE),
}
# The file of a blob as something else, and how the import ends.
_ODD: dict[str, tuple[Callable[[Path, World], object], int]] = {
    "a link to the blob": (lambda path, world: path.symlink_to(world.put(WEIGHTS, "weights")), DAMAGED),
    "a link to another file": (lambda path, world: path.symlink_to(world.canary), DAMAGED),
    "a link to nothing": (lambda path, _world: path.symlink_to("nowhere"), DAMAGED),
    "a folder": (lambda path, _world: path.mkdir(), DAMAGED),
    "a FIFO": (lambda path, _world: os.mkfifo(path), DAMAGED),
    "other bytes": (lambda path, _world: path.write_bytes(bytes(len(WEIGHTS))), INTEGRITY),
    "one byte less": (lambda path, _world: path.write_bytes(WEIGHTS[:-1]), INTEGRITY),
    "one byte more": (lambda path, _world: path.write_bytes(WEIGHTS + b"x"), INTEGRITY),
    "nothing": (lambda _path, _world: None, INTEGRITY),
}


def layout_rows() -> Iterator[Row]:
    for what, (change, code) in _ENTRIES.items():
        for command in ("import", "verify"):
            is_report = command == "verify"
            codes = (DAMAGED, INTEGRITY) if is_report else (code,)
            yield Row(f"J175 layout with {what} [{command}]", _met(change, command), codes, is_report=is_report)
    yield from _index_rows()
    yield from _manifest_rows()
    for what, (make, code) in _ODD.items():
        yield Row(f"J178 layout with {what} for a blob [import]", _odd(make, "import"), (code,))
        ends = (INTEGRITY, DAMAGED, IO)
        yield Row(f"J178 layout with {what} for a blob [verify]", _odd(make, "verify"), ends, is_report=True)
    for name in ("index.json", "oci-layout"):
        yield Row(f"J179 {name} that is a link", _linked(name), (DAMAGED,))
        yield Row(f"J179 {name} that is a FIFO", _piped(name), (DAMAGED,))
    yield Row("J180 layout whose blobs are behind a link", _behind_a_link, (INTEGRITY,))
    yield Row("J181 export to a layout where index.json.part is a link", _export_over_a_link, (UNSAFE,))
    yield Row("J181 export to a layout whose blobs are behind a link", _export_behind_a_link, (IO,))
    yield Row("J181 export to a layout where a blob is a link", _export_over_a_blob, (DAMAGED,))


def _index_rows() -> Iterator[Row]:
    indexes: dict[str, tuple[bytes, int]] = {
        "no JSON": (b"\xff", FORMAT),
        "nothing": (b"", FORMAT),
        "a list": (b"[]", FORMAT),
        "a key twice": (b'{"schemaVersion":2,"manifests":[],"Manifests":[]}', UNSAFE),
        "100,000 levels": (b"[" * 100_000, LIMIT),
        "layers too (CVE-2021-41190)": (b'{"schemaVersion":2,"manifests":[],"layers":[]}', UNSAFE),
        "schemaVersion 1": (b'{"schemaVersion":1,"manifests":[]}', FORMAT),
        "NaN": (b'{"schemaVersion":NaN,"manifests":[]}', FORMAT),
        "a lone surrogate": (b'{"schemaVersion":2,"manifests":[{"mediaType":"\\ud800"}]}', FORMAT),
    }
    for what, (raw, code) in indexes.items():
        yield Row(f"J176 index with {what}", _with_index(lambda raw=raw: raw), (code,))  # type: ignore[misc]
    yield Row("J176 index of 17 MiB", _with_index(lambda: b" " * 17 * MIB), (LIMIT,), alone=True)
    yield Row("J176 index of 16 MiB of empty objects", _with_index(_of_objects), (LIMIT,), alone=True)
    yield Row("J176 index of 80,000 names of one manifest", _with_index(_of_names), (LIMIT,), alone=True)


def _manifest_rows() -> Iterator[Row]:
    children = [{"mediaType": OCI_MANIFEST, **entry(WEIGHTS)}]
    manifests: dict[str, tuple[bytes, int]] = {
        "layers and manifests (CVE-2021-41190)": (dumped(document(manifests=children)), UNSAFE),
        "manifests alone": (dumped(document(config=None, layers=None, manifests=children)), FORMAT),
        "a digest that climbs": (
            dumped(document(layers=[layer(MODEL, WEIGHTS, digest="sha256:../../etc/passwd")])),
            UNSAFE,
        ),
        "a key twice": (MANIFEST.replace(b'"layers"', b'"layers":[],"Layers"', 1), UNSAFE),
        "a blob of two sizes": (
            dumped(document(layers=[layer(MODEL, WEIGHTS), layer(MODEL, WEIGHTS, size=1)])),
            UNSAFE,
        ),
        "no JSON": (b"{", FORMAT),
    }
    for what, (raw, code) in manifests.items():
        ends = (INTEGRITY, code) if "two sizes" in what else (code,)
        yield Row(f"J177 layout whose manifest has {what}", _with_manifest(raw), ends)


def _layout(world: World, raw: bytes = MANIFEST, name: str = "layout") -> Path:
    folder = world.folder / name
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    for content in (raw, SETTINGS, WEIGHTS, TEXT):
        (blobs / sha256(content)).write_bytes(content)
    (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    _write_index(folder, [_entry(raw)])
    return folder


def _entry(raw: bytes, name: str = NAME) -> dict[str, Any]:
    return {"mediaType": OCI_MANIFEST, **entry(raw), "annotations": {REF_NAME: name}}


def _write_index(folder: Path, entries: Sequence[dict[str, Any]]) -> None:
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


def _met(change: Callable[[dict[str, Any]], object], command: str) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        folder, made = _layout(world), _entry(MANIFEST)
        change(made)
        _write_index(folder, [made])
        return (command, f"oci:{folder}", *world.at)

    return prepare


def _with_index(raw: Callable[[], bytes]) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        folder = _layout(world)
        (folder / "index.json").write_bytes(raw())
        return ("import", f"oci:{folder}", *world.at)

    return prepare


def _of_objects() -> bytes:
    return b'{"schemaVersion":2,"manifests":[' + b"{}," * 5_000_000 + b"{}]}"


def _of_names() -> bytes:
    entries = [_entry(MANIFEST, full(f"x{number}:1")) for number in range(79_000)]
    return json.dumps({"schemaVersion": 2, "manifests": entries}, separators=(",", ":")).encode()


def _with_manifest(raw: bytes) -> Prepare:
    return lambda world: ("import", f"oci:{_layout(world, raw)}", *world.at)


def _odd(make: Callable[[Path, World], object], command: str) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        folder = _layout(world)
        path = folder / "blobs/sha256" / sha256(WEIGHTS)
        path.unlink()
        make(path, world)
        return (command, f"oci:{folder}", *world.at)

    return prepare


def _linked(name: str) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        folder = _layout(world)
        (folder / name).rename(world.folder / "elsewhere")
        (folder / name).symlink_to(world.folder / "elsewhere")
        return ("import", f"oci:{folder}", *world.at)

    return prepare


def _piped(name: str) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        folder = _layout(world)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        return ("import", f"oci:{folder}", *world.at)

    return prepare


def _behind_a_link(world: World) -> Sequence[Argument]:
    folder = _layout(world)
    (folder / "blobs").rename(world.folder / "elsewhere")
    (folder / "blobs").symlink_to(world.folder / "elsewhere")
    return ("import", f"oci:{folder}", *world.at)


def _export_over_a_link(world: World) -> Sequence[Argument]:
    folder = _layout(world, name="out")
    (folder / "index.json.part").symlink_to(world.canary)
    return ("export", "old", f"oci:{folder}", *world.at)


def _export_behind_a_link(world: World) -> Sequence[Argument]:
    folder = _layout(world, name="out")
    (folder / "blobs").rename(world.folder / "elsewhere")
    (folder / "blobs").symlink_to(world.folder / "elsewhere")
    return ("export", "old", f"oci:{folder}", *world.at)


def _export_over_a_blob(world: World) -> Sequence[Argument]:
    folder = _layout(world, name="out")
    (folder / "blobs/sha256" / sha256(OLD_WEIGHTS)).symlink_to(world.canary)
    return ("export", "old", f"oci:{folder}", *world.at)
