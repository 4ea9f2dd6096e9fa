"""Part B: the index, manifests and configs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.hostile.forge import (
    NAME,
    SETTINGS,
    TEXT,
    WEIGHTS,
    Bundle,
    blob_name,
    compressed,
    digest,
    document,
    dumped,
    entry,
    large,
    layer,
    manifest_name,
    member,
    tar,
)
from tests.hostile.rows import (
    DAMAGED,
    DONE,
    FORMAT,
    INTEGRITY,
    LIMIT,
    MIB,
    NO_SPACE,
    UNSAFE,
    Argument,
    Lazy,
    Outcome,
    Prepare,
    Row,
    World,
    drop_blob_key,
    edit,
    edit_blob,
    edit_model,
    imported,
    index_rows,
    manifest_rows,
    packed,
)
from tests.support import CONFIG, MODEL, TEMPLATE, Store, full

INDEX = dumped(Bundle().index())
MANIFEST = dumped(document())
HEX = digest(WEIGHTS).removeprefix("sha256:")
ZERO = "sha256:" + "0" * 64


def document_rows() -> Iterator[Row]:
    yield from json_rows()
    yield from size_limit_rows()
    yield from digest_rows()
    yield from promise_rows()
    yield from version_rows()
    yield from stored_rows()


def json_rows() -> Iterator[Row]:
    for what, change in _NOT_JSON.items():
        yield from index_rows(f"B37 index {what}", change(INDEX), FORMAT)
        yield from manifest_rows(f"B37 manifest {what}", change(MANIFEST), FORMAT)
    for depth in (200_000, 20_000):
        for opening in (b"[", b'{"a":'):
            deep = opening * depth
            yield from index_rows(f"B38 index {depth} deep in {opening!a}", deep, LIMIT, alone=True)
            yield from manifest_rows(f"B38 manifest {depth} deep in {opening!a}", b'{"layers":' + deep, LIMIT)
    for depth in range(860, 1000, 4):
        nested = b'"needs":' + b"[" * depth + b"]" * depth + b',"version"'
        yield from index_rows(f"B38 needs {depth} deep", INDEX.replace(b'"version"', nested), FORMAT, LIMIT)
    yield from index_rows(
        "B39 index with a key twice", INDEX.replace(b'"version":1', b'"version":1,"version":1'), UNSAFE
    )
    yield from index_rows(
        "B39 index with a key in two cases", INDEX.replace(b'"version":1', b'"Version":2,"version":1'), UNSAFE
    )
    twice = {"digest": b'"digest":"%s",' % ZERO.encode(), "Digest": b'"Digest":"%s",' % ZERO.encode()}
    for what, extra in twice.items():
        yield from index_rows(
            f"B39 index entry with digest and {what}", INDEX.replace(b'"digest"', extra + b'"digest"', 1), UNSAFE
        )
        yield from manifest_rows(
            f"B39 manifest with digest and {what}", MANIFEST.replace(b'"digest"', extra + b'"digest"', 1), UNSAFE
        )
    yield from manifest_rows(
        "B39 manifest with layers twice", MANIFEST.replace(b'"layers":', b'"layer\\u017f":[],"layers":'), UNSAFE
    )
    yield from manifest_rows(
        "B39 manifest with a Kelvin sign",
        MANIFEST.replace(b'{"schemaVersion"', '{"\u212aey":1,"key":2,"schemaVersion"'.encode()),
        UNSAFE,
    )
    for literal in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000):
        name = literal[:10]
        yield from index_rows(
            f"B40 index size {name}", INDEX.replace(b'"size":480', f'"size":{literal}'.encode()), FORMAT
        )
        yield from index_rows(
            f"B40 index version {name}", INDEX.replace(b'"version":1', f'"version":{literal}'.encode()), FORMAT
        )
        yield from index_rows(
            f"B40 index unknown key {name}", INDEX.replace(b'"version"', f'"x":{literal},"version"'.encode()), FORMAT
        )
        yield from manifest_rows(
            f"B40 manifest size {name}", MANIFEST.replace(b'"size":480', f'"size":{literal}'.encode()), FORMAT
        )
        yield from manifest_rows(
            f"B40 manifest version {name}", MANIFEST.replace(b'Version":2', f'Version":{literal}'.encode()), FORMAT
        )
    yield from index_rows("B41 lone surrogate in a value", INDEX.replace(b'"ostore/0.1.0"', b'"\\ud800"'), FORMAT)
    yield from index_rows("B41 lone surrogate in a key", INDEX.replace(b'"version"', b'"\\udfff":1,"version"'), FORMAT)
    yield from index_rows("B41 lone surrogate as bytes", INDEX.replace(b"ostore/0.1.0", b"\xed\xa0\x80"), FORMAT)
    yield from index_rows("B41 surrogates in an unknown key", edit(x=["\ud83d", {"\udc00": "\udc00"}]), FORMAT)
    yield from index_rows("B41 a pair of surrogates", edit(x="\U0001f600"), DONE)
    yield from manifest_rows(
        "B41 lone surrogate in a manifest",
        dumped(document(layers=[layer(MODEL, WEIGHTS, name="\ud800")])),
        FORMAT,
        blobs=(SETTINGS, WEIGHTS),
    )
    yield from manifest_rows(
        "B41 not UTF-8 in a manifest", dumped(document(mediaType="@@")).replace(b"@@", b"\xff\xfe"), FORMAT
    )


_NOT_JSON: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "blank": lambda _: b" \n",
    "of text": lambda _: b"hello",
    "cut off": lambda raw: raw[:-3],
    "in UTF-16": lambda raw: raw.decode().encode("utf-16"),
    "with a byte order mark": lambda raw: b"\xef\xbb\xbf" + raw,
    "with a NUL first": lambda raw: b"\0" + raw,
    "with a NUL in a string": lambda raw: raw.replace(b'"', b'"\0', 1),
    "with NULs after it": lambda raw: raw + bytes(8),
    "with bytes after it": lambda raw: raw + b"x",
    "twice": lambda raw: raw + raw,
    "with a comment": lambda raw: b"/* */" + raw,
    "in single quotes": lambda raw: raw.replace(b'"', b"'"),
    "as a list": lambda raw: b"[" + raw + b"]",
    "as a string": lambda raw: json.dumps(raw.decode()).encode(),
    "as a number": lambda _: b"5",
    "as null": lambda _: b"null",
}


def size_limit_rows() -> Iterator[Row]:
    yield from index_rows("B42 index of more than 16 MiB", Lazy(lambda: INDEX + b" " * 16 * MIB), LIMIT, alone=True)
    for what, filling in _CROWDS.items():
        yield from index_rows(
            f"B42 index of 16 MiB of {what}", _filled(filling, 16 * MIB), LIMIT, FORMAT, DONE, alone=True
        )
        raw = Lazy(partial(_crowded_manifest, filling))
        yield from manifest_rows(f"B42 manifest of 4 MiB of {what}", raw, LIMIT, FORMAT, alone=True)
    yield from manifest_rows(
        "B42 manifest of more than 4 MiB", Lazy(lambda: MANIFEST + b" " * 4 * MIB), LIMIT, alone=True
    )
    yield from index_rows(
        "B42 manifest announced with 2^40 bytes", lambda index: index["models"][0]["manifest"].update(size=2**40), LIMIT
    )
    yield from index_rows(
        "B42 file announced with 2^40 bytes", lambda index: index["files"][0].update(size=2**40), LIMIT
    )
    big = b"{" + b" " * 4 * MIB + b"}"
    yield from manifest_rows(
        "B42 config of more than 4 MiB", dumped(document(config=layer(CONFIG, big))), LIMIT, blobs=(big, WEIGHTS, TEXT)
    )
    stub = dumped(document(layers=[]))
    yield from manifest_rows("B43 layers of an empty list", stub, DONE, blobs=(SETTINGS,))
    yield from manifest_rows("B43 layers of null", stub.replace(b"[]", b"null"), DONE, blobs=(SETTINGS,))
    yield from manifest_rows("B43 no layers", stub.replace(b',"layers":[]', b""), DONE, blobs=(SETTINGS,))
    yield from manifest_rows("B43 no layers and no config", b'{"schemaVersion":2}', DONE, blobs=())
    for value in (b"{}", b'"x"', b"5", b"true"):
        yield from manifest_rows(f"B43 layers of {value!a}", stub.replace(b"[]", value), FORMAT, blobs=(SETTINGS,))
    for value in (b"[5]", b"[null]", b"[[]]", b'["x"]'):
        yield from manifest_rows(f"B43 layers of {value!a}", stub.replace(b"[]", value), FORMAT, blobs=(SETTINGS,))
    yield from manifest_rows(
        "B43 1,000,000 layers",
        stub.replace(b"[]", b"[" + b"{}," * 999_999 + b"{}]"),
        LIMIT,
        blobs=(SETTINGS,),
        alone=True,
    )
    same = json.dumps(layer(MODEL, WEIGHTS)).encode()
    yield from manifest_rows(
        "B43 20,001 layers of one blob",
        stub.replace(b"[]", b"[" + (same + b",") * 20_000 + same + b"]"),
        LIMIT,
        blobs=(SETTINGS, WEIGHTS),
    )
    for key in ("models", "blobs", "requires", "files"):
        for other in _OTHERS:
            yield from index_rows(f"B43 index {key} {other!r}", edit(**{key: other}), FORMAT)
            yield from index_rows(f"B43 index {key} {[other]!r}", edit(**{key: [other]}), FORMAT, UNSAFE)
        many = Lazy(partial(_million, key))
        yield from index_rows(f"B43 index with 1,000,000 {key}", many, LIMIT, alone=True)


_OTHERS: tuple[object, ...] = ({}, "x", 5, None, True)
_CROWDS: dict[str, Callable[[int], bytes]] = {
    "objects": lambda size: b"[" + b"{}," * (size // 3 - 2) + b"{}]",
    "lists": lambda size: b"[" + b"[]," * (size // 3 - 2) + b"[]]",
    "small objects": lambda size: b"[" + b'{"a":1},' * (size // 8 - 2) + b"{}]",
    "short texts": lambda size: b"[" + '"\u0100",'.encode() * (size // 5 - 2) + b"1]",
    "keys": lambda size: b"{" + b",".join(b'"%x":1' % number for number in range(size // 10)) + b"}",
    "one long text": lambda size: b'"' + "\U0001f600".encode() + b"a" * (size - 16) + b'"',
    "one long key": lambda size: b'{"' + "\U0001f600".encode() + b"a" * (size - 16) + b'":1}',
    "one long number": lambda size: b"1." + b"3" * (size - 8),
}


def _crowded_manifest(filling: Callable[[int], bytes]) -> bytes:
    return b'{"schemaVersion":2,"layers":' + filling(4 * MIB - 40) + b"}"


def _million(key: str) -> bytes:
    return dumped(Bundle().index(**{key: [0] * 10**6}))


def _filled(filling: Callable[[int], bytes], size: int) -> Lazy:
    """A good index with one unknown key that fills it to the cap."""
    return Lazy(lambda: INDEX.rstrip()[:-1] + b',"x":' + filling(size - len(INDEX) - 16) + b"}")


BAD_DIGESTS = {
    "B44 climbing": "sha256:../../../../etc/passwd",
    "B44 climbing, of the right length": "sha256:" + ("../" * 22)[:64],
    "B44 climbing as a file name": "sha256-../../../../etc/passwd",
    "B45 63 digits": "sha256:" + HEX[:-1],
    "B45 65 digits": "sha256:" + HEX + "0",
    "B45 not hexadecimal": "sha256:" + "g" * 64,
    "B45 newline at the end": f"sha256:{HEX}\n",
    "B45 newline in place of the last": f"sha256:{HEX[:-1]}\n",
    "B45 full-width digits": "sha256:" + "\uff11" * 64,
    "B45 Arabic digits": "sha256:" + "\u0661" * 64,
    "B45 spaces": f" sha256:{HEX}",
    "B45 no algorithm": HEX,
    "B46 upper case": "sha256:" + HEX.upper(),
    "B47 dash": f"sha256-{HEX}",
    "B47 dash and upper case": f"sha256-{HEX.upper()}",
    "B48 sha512": "sha512:" + HEX * 2,
    "B48 md5": "md5:" + HEX[:32],
    "B48 algorithm in upper case": f"SHA256:{HEX}",
}


def digest_rows() -> Iterator[Row]:
    for name, text in BAD_DIGESTS.items():
        yield from index_rows(f"{name} [index blob]", edit_blob(digest=text), UNSAFE)
        yield from index_rows(f"{name} [index model]", edit_model(blobs=[text]), UNSAFE)
        yield from index_rows(f"{name} [index manifest]", edit_model(manifest={"digest": text, "size": 5}), UNSAFE)
        for place, changed in _with_digest(text).items():
            yield from manifest_rows(f"{name} [manifest {place}]", changed, UNSAFE)
    for value in ("", *_OTHERS):
        yield from index_rows(f"B48 index digest {value!r}", edit_blob(digest=value), UNSAFE, FORMAT)
        raw = _with_digest(value)["layer"]
        yield from manifest_rows(f"B48 layer digest {value!r}", raw, UNSAFE, FORMAT)
    yield from index_rows("B48 index entry without a digest", drop_blob_key("digest"), UNSAFE, FORMAT)


def _with_digest(value: object) -> dict[str, bytes]:
    return {
        "config": dumped(document(config=layer(CONFIG, SETTINGS, digest=value))),
        "layer": dumped(document(layers=[layer(MODEL, WEIGHTS, digest=value), layer(TEMPLATE, TEXT)])),
    }


def promise_rows() -> Iterator[Row]:
    sizes: tuple[object, ...] = (-1, 1.0, 1e3, "5", True, False, None, 2**63, 2**64, 10**30, [], {})
    for size in sizes:
        yield from index_rows(f"B49 index size {size!r}", edit_blob(size=size), FORMAT)
        yield from manifest_rows(f"B49 layer size {size!r}", _with_size(size), FORMAT)
        yield from manifest_rows(
            f"B49 config size {size!r}", dumped(document(config=layer(CONFIG, SETTINGS, size=size))), FORMAT
        )
    yield from index_rows("B49 index without a size", drop_blob_key("size"), FORMAT)
    for change in (-1, 1, -480):
        length = len(WEIGHTS) + change
        yield from index_rows_of_import(f"B50 index size {change:+}", edit_blob(size=length), INTEGRITY)
        yield from manifest_rows(f"B50 manifest size {change:+}", _with_size(length), INTEGRITY)
        agreed = Bundle().parts(dumped(_index_with_size(length)))
        agreed[3] = member(blob_name(WEIGHTS), (WEIGHTS + b"x")[:length])
        yield Row(f"B50 index and member size {change:+}", imported(packed(agreed)), (INTEGRITY,))
    for what, other in (("same length", WEIGHTS[::-1]), ("of another blob", OTHER), ("of zeros", bytes(len(WEIGHTS)))):
        parts = Bundle().parts()
        parts[3] = member(blob_name(WEIGHTS), other)
        yield Row(f"B51 bytes {what}", imported(packed(parts)), (INTEGRITY,), says="" if other is OTHER else HEX)
    parts = Bundle().parts()
    parts[5] = member(manifest_name(NAME), MANIFEST.replace(b"test", b"tset").replace(b"vnd", b"nvd"))
    yield Row("B51 manifest of other bytes", imported(lambda: compressed(tar(parts))), (INTEGRITY,))
    yield from index_rows(
        "B52 index with one digest and two sizes", lambda index: index["blobs"].append(entry(WEIGHTS, size=1)), UNSAFE
    )
    yield from index_rows("B52 index with a blob twice", lambda index: index["blobs"].append(entry(WEIGHTS)), UNSAFE)
    yield from index_rows("B52 index with a blob listed and required", edit(requires=[entry(WEIGHTS)]), UNSAFE)
    yield from index_rows(
        "B52 model with a blob twice", lambda index: index["models"][0]["blobs"].append(digest(TEXT)), UNSAFE
    )
    twice = [layer(MODEL, WEIGHTS), layer(TEMPLATE, TEXT), layer(TEMPLATE, WEIGHTS, size=1)]
    yield from manifest_rows("B52 manifest with one digest and two sizes", dumped(document(layers=twice)), UNSAFE)
    both = [layer(MODEL, WEIGHTS), layer(TEMPLATE, TEXT), layer(TEMPLATE, SETTINGS), layer(MODEL, WEIGHTS)]
    yield from manifest_rows("B52 config that is a layer as well", dumped(document(layers=both)), DONE)
    yield from index_rows("B52 blob that no model needs", lambda index: index["blobs"].append(entry(b"")), FORMAT)
    yield from index_rows(
        "B52 model that needs what is not listed", lambda index: index["models"][0]["blobs"].append(ZERO), FORMAT
    )
    fewer = dumped(document(layers=[layer(MODEL, WEIGHTS)]))
    yield from manifest_rows("B52 manifest that names fewer blobs than the index", fewer, INTEGRITY)
    more = dumped(document(layers=[layer(MODEL, WEIGHTS), layer(TEMPLATE, TEXT), layer(MODEL, OTHER)]))
    yield from manifest_rows("B52 manifest that names more blobs than the index", more, INTEGRITY)


OTHER = b"other bytes"


def _with_size(size: object) -> bytes:
    return dumped(document(layers=[layer(MODEL, WEIGHTS, size=size), layer(TEMPLATE, TEXT)]))


def _index_with_size(size: int) -> dict[str, Any]:
    index = Bundle().index()
    index["blobs"][1]["size"] = size
    return index


def index_rows_of_import(name: str, change: Callable[[dict[str, Any]], object], *codes: int) -> Iterator[Row]:
    """What inspect cannot know, because it reads nothing but the index."""
    yield from (row for row in index_rows(name, change, *codes) if row.name.endswith("[import]"))


def version_rows() -> Iterator[Row]:
    versions: tuple[object, ...] = (1, 3, 0, -2, "2", 2.0, True, [], None)
    for schema in versions:
        yield from manifest_rows(f"B53 schemaVersion {schema!r}", dumped(document(schemaVersion=schema)), FORMAT)
    child = {"mediaType": "x", **entry(OTHER)}
    yield from manifest_rows("B54 layers and manifests", dumped(document(manifests=[child])), UNSAFE)
    yield from manifest_rows(
        "B54 layers and 20,001 manifests", dumped(document(manifests=[child] * 20_001)), UNSAFE, LIMIT
    )
    yield from manifest_rows(
        "B54 layers and manifests in an object", dumped(document(manifests={"a": child})), UNSAFE, FORMAT
    )
    yield from manifest_rows(
        "B54 config and manifests", dumped(document(layers=None, manifests=[child])), UNSAFE, blobs=(SETTINGS,)
    )
    paths = [layer(MODEL, WEIGHTS, urls=["file:///etc/passwd", "http://169.254.169.254/"]), layer(TEMPLATE, TEXT)]
    yield from manifest_rows("B55 urls", dumped(document(layers=paths)), DONE)
    paths = [
        layer(MODEL, WEIGHTS, **{"from": "../../outside/canary"}),
        layer(TEMPLATE, TEXT, **{"from": "/etc/shadow"}),
    ]
    yield from manifest_rows("B55 from", dumped(document(layers=paths)), DONE)
    yield from manifest_rows(
        "B56 unknown mediaType", dumped(document(layers=[layer("x/y", WEIGHTS), layer("", TEXT)])), DONE
    )
    for what, media_type in (
        ("newline", "a\nb"),
        ("escape", "a\x1b[2Jb"),
        ("1 MB", "a" * 10**6),
        ("right-to-left", "a\u202eb"),
    ):
        yield from manifest_rows(
            f"B56 mediaType with {what}", dumped(document(layers=[layer(media_type, WEIGHTS), layer("", TEXT)])), UNSAFE
        )
        yield from manifest_rows(
            f"B56 mediaType of the manifest with {what}", dumped(document(mediaType=media_type)), UNSAFE
        )
    number = document(layers=[layer("", WEIGHTS, mediaType=5), layer("", TEXT)])
    yield from manifest_rows("B56 mediaType a number", dumped(number), FORMAT)
    for version in (2, 99, 10**19):
        yield from index_rows(f"B57 version {version}", edit(version=version), FORMAT, says="newer ostore")
    for schema in (0, -1, "1", 1.0, True, None, []):
        yield from index_rows(f"B57 version {schema!r}", edit(version=schema), FORMAT)
    yield from index_rows("B57 needs", edit(needs=["zzz"]), FORMAT, says="newer ostore")
    yield from index_rows("B57 needs with an escape", edit(needs=["\x1b[2J\n"]), FORMAT, says="newer ostore")
    yield from index_rows("B57 unknown keys", edit(color="red", shapes=[1, {"a": None}]), DONE)
    yield from index_rows("B57 another format", edit(format="tar"), FORMAT)
    for creator in ("\x1b]52;c;aGk=\x07", "a\nostore: warning: fake", "x" * 10**6, "a\u202eb"):
        yield from index_rows(f"B57 creator {creator[:12]!a}", edit(creator=creator), UNSAFE, DONE)
    yield from index_rows("B58 sizes of more than 2^63", _enlarged(2**62 + 2**61, 2**62), LIMIT)
    yield from index_rows_of_import("B58 sizes of more than there is room", _enlarged(2**50, 5), NO_SPACE)
    yield from index_rows_of_import("B58 sizes of almost 2^63", _enlarged(2**62, 2**61), NO_SPACE)
    plain = member(blob_name(WEIGHTS), b"", size=large(2**62))
    parts = Bundle().parts(dumped(_index_with_size(2**62)))
    for options, codes in (
        ((), (NO_SPACE,)),
        (("--model", "other"), (INTEGRITY, FORMAT, LIMIT, 3)),
        (("--dry-run",), (DONE,)),
    ):
        parts[3] = plain
        build = imported(partial(tar, parts), "in.tar", *options)
        yield Row(f"B58 a plain tar with a blob of 2^62 bytes {options}", build, codes)
    yield Row("B58 a plain tar with a blob of 2^63-600 bytes, skipped", _skipped_blob, (INTEGRITY,))


def _enlarged(first: int, second: int) -> Callable[[dict[str, Any]], None]:
    def change(index: dict[str, Any]) -> None:
        index["blobs"][1]["size"], index["blobs"][2]["size"] = first, second

    return change


def _skipped_blob(world: World) -> Sequence[Argument]:
    """Another model's blob is so large that adding up offsets leaves 63 bits."""
    second = full("second:latest")
    raw = dumped(document(layers=[layer(MODEL, OTHER)]))
    bundle = Bundle(blobs=[SETTINGS, WEIGHTS, TEXT, OTHER])
    bundle.manifests = [(second, raw, (SETTINGS, OTHER)), *bundle.manifests]
    index = bundle.index()
    index["blobs"][1]["size"] = 2**63 - 600
    parts = bundle.parts(dumped(index))
    parts[3] = member(blob_name(WEIGHTS), b"", size=large(2**63 - 600))
    return ("import", world.put(tar(parts), "in.tar"), "--model", "second", *world.at)


def stored_rows() -> Iterator[Row]:
    for what, raw in (
        ("0 bytes", b""),
        ("blank", b"\n"),
        ("half", MANIFEST[: len(MANIFEST) // 2]),
        ("zeros", bytes(500)),
    ):
        yield Row(
            f"B59 manifest of {what} in the store, verify", _with_stored(raw, "verify"), (DAMAGED,), is_report=True
        )
        yield Row(
            f"B59 manifest of {what} in the store, export",
            _with_stored(raw, "export", "tiny", "out.tar.zst"),
            (DAMAGED,),
        )
        yield Row(f"B59 manifest of {what} in the store, show", _with_stored(raw, "show", "tiny"), (DAMAGED,))
        yield Row(f"B59 manifest of {what} in the store, list", _with_stored(raw, "list"), (DONE,))
        yield Row(
            f"B59 manifest of {what} in the store, import", _with_stored(raw, "import"), (DONE,), check=_is_repaired
        )
    for what, settings in (("text", b"not JSON"), ("cut off", b'{"a":'), ("binary", bytes(range(256)))):
        raw = dumped(document(config=layer(CONFIG, settings)))
        yield from manifest_rows(f"B60 config of {what}", raw, DONE, blobs=(settings, WEIGHTS, TEXT))
        yield Row(f"B60 config of {what}, show", _shown(settings), (FORMAT,))
        yield Row(f"B60 config of {what}, list", _shown(settings, "list"), (DONE,))
    yield Row("B60 config of more than 4 MiB, show", _shown(b" " * (4 * MIB + 1)), (LIMIT,))
    yield Row("B60 config of more than 4 MiB, export", _shown(b" " * (4 * MIB + 1), "export"), (LIMIT,))
    for what, text in AMBIGUOUS.items():
        yield Row(
            f"B39 stored manifest with {what}, verify",
            _with_stored(text, "verify"),
            (DAMAGED, INTEGRITY),
            is_report=True,
        )
        yield Row(
            f"B39 stored manifest with {what}, export", _with_stored(text, "export", "tiny", "out.tar.zst"), (UNSAFE,)
        )
        yield Row(f"B39 stored manifest with {what}, list", _with_stored(text, "list"), (DONE,))


AMBIGUOUS = {
    "a key in two cases": MANIFEST.replace(b'"digest"', b'"Digest":"%s","digest"' % ZERO.encode(), 1),
    "a key twice": MANIFEST.replace(b'"size"', b'"size":5,"size"', 1),
    "a digest in dash form": MANIFEST.replace(b"sha256:", b"sha256-"),
    "a digest in upper case": MANIFEST.replace(HEX.encode(), HEX.upper().encode()),
}


def _with_stored(raw: bytes, command: str, *arguments: str) -> Prepare:
    """The good model lies in the store, but its manifest has these bytes."""

    def prepare(world: World) -> Sequence[Argument]:
        for data in (SETTINGS, WEIGHTS, TEXT):
            world.store.blob(data)
        world.store.write_manifest(NAME, raw)
        if command == "import":
            return ("import", world.good(), *world.at)
        world.cwd = world.folder
        return (command, *arguments, *world.at)

    return prepare


def _is_repaired(world: World, _outcome: Outcome) -> None:
    assert world.store.manifest_path(NAME).read_bytes() == MANIFEST


def _shown(settings: bytes, command: str = "show") -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        store: Store = world.store
        store.add(full("odd:latest"), store.layer(MODEL, WEIGHTS), config=store.layer(CONFIG, settings))
        world.cwd = world.folder
        arguments: dict[str, Sequence[Argument]] = {
            "show": ("show", "odd"),
            "list": ("list",),
            "export": ("export", "odd", Path("out.tar.zst")),
        }
        return (*arguments[command], *world.at)

    return prepare
