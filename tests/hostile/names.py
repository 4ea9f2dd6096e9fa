"""Part C: names and paths, in a bundle and on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ostore.streams import space
from tests.hostile.forge import (
    NAME,
    SETTINGS,
    TEXT,
    WEIGHTS,
    Bundle,
    compressed,
    document,
    dumped,
    layer,
    manifest_name,
    member,
    tar,
)
from tests.hostile.rows import (
    DAMAGED,
    DONE,
    IO,
    UNSAFE,
    USAGE,
    Argument,
    Outcome,
    Prepare,
    Row,
    World,
    edit_file,
    edit_model,
    imported,
    index_rows,
    packed,
)
from tests.support import MODEL, full

# Of each: what stands in the index, in full. What a person would type for it follows from it.
BAD_NAMES = {
    "C61 climbing host": "../library/x:y",
    "C61 climbing namespace": "registry.ollama.ai/../x:y",
    "C61 climbing model": "registry.ollama.ai/library/..:y",
    "C61 climbing tag": "registry.ollama.ai/library/x:..",
    "C61 dot": "registry.ollama.ai/./x:y",
    "C61 empty": "",
    "C61 empty host": "/library/x:y",
    "C61 empty namespace": "registry.ollama.ai//x:y",
    "C61 empty model": "registry.ollama.ai/library/:y",
    "C61 empty tag": "registry.ollama.ai/library/x:",
    "C61 missing part": "registry.ollama.ai/library/!MISSING!:y",
    "C61 five parts": "a/b/c/d:e",
    "C62 part of 81 characters": f"registry.ollama.ai/library/{'x' * 81}:y",
    "C62 tag of 81 characters": f"registry.ollama.ai/library/x:{'y' * 81}",
    "C62 namespace of 81 characters": f"registry.ollama.ai/{'n' * 81}/x:y",
    "C62 host of 351 characters": f"{'h' * 351}/library/x:y",
    "C62 host of 100,000 characters": f"{'h' * 100_000}/library/x:y",
    "C63 leading dash": "registry.ollama.ai/library/-rf:y",
    "C63 leading dot": "registry.ollama.ai/library/.x:y",
    "C63 leading dash in the tag": "registry.ollama.ai/library/x:-y",
    "C63 leading dot in the host": ".ostore/library/x:y",
    "C64 backslash": "registry.ollama.ai/library/a\\b:y",
    "C64 NUL": "registry.ollama.ai/library/a\0b:y",
    "C64 encoded climbing": "registry.ollama.ai/library/%2e%2e%2fx:y",
    "C64 overlong climbing": "registry.ollama.ai/library/..%c0%afx:y",
    "C64 newline": "registry.ollama.ai/library/x:y\n",
    "C65 superscript device": "registry.ollama.ai/library/COM\u00b9:y",
    "C65 console": "registry.ollama.ai/library/CONIN$:y",
    "C66 trailing space": "registry.ollama.ai/library/x :y",
    "C66 short look-alike": "registry.ollama.ai/library/MANIFE~1:y",
    "C67 stream": "registry.ollama.ai/library/x:y:$DATA",
    "C67 colon in the model": "registry.ollama.ai/library/x:z:y",
    "C69 composed": "registry.ollama.ai/library/caf\u00e9:y",
    "C69 decomposed": "registry.ollama.ai/library/cafe\u0301:y",
    "C69 dotless i": "registry.ollama.ai/l\u0131brary/x:y",
    "C69 Kelvin sign": "registry.ollama.ai/library/\u212ax:y",
    "C69 full-width digits": "registry.ollama.ai/library/x\uff11:y",
    "C70 Cyrillic host": "registry.\u043ellama.ai/library/x:y",
    "C71 right-to-left override": "registry.ollama.ai/library/x\u202ey:z",
    "C71 zero-width": "registry.ollama.ai/library/x\u200by:z",
    "C71 tag characters": "registry.ollama.ai/library/x\U000e0041:z",
    "C72 escape": "registry.ollama.ai/library/\x1b[31mx:y",
    "C72 clipboard": "registry.ollama.ai/library/\x1b]52;c;aGk=\x07:y",
    "C72 hyperlink": "registry.ollama.ai/library/\x1b]8;;http://x\x1b\\y:z",
    "C72 carriage return": "registry.ollama.ai/library/x\r\x08:y",
    "C72 C1": "registry.ollama.ai/library/x\x9b2J:y",
    "C73 host of 256 characters": f"{'h' * 256}/library/x:y",
    "C75 password": "user:hunter2@host/library/x:y",
    "C75 scheme": "http://host/library/x:y",
    "C75 scheme and password": "https://user:hunter2@host/library/x:y",
    "C76 IPv6": "[::1]:5000/library/x:y",
    "C76 IPv6 with a zone": "[fe80::1%25eth0]/library/x:y",
}
# Ollama's grammar allows them; disks of Windows do not hold them.
UNHOLDABLE = {
    "C65 CON": "registry.ollama.ai/library/CON:y",
    "C65 nul.txt": "registry.ollama.ai/library/nul.txt:y",
    "C65 COM1 as a tag": "registry.ollama.ai/library/x:COM1",
    "C65 LPT9 as a namespace": "registry.ollama.ai/LPT9/x:y",
    "C65 AUX as a host": "AUX/library/x:y",
    "C66 trailing dot": "registry.ollama.ai/library/x.:y",
    "C67 port": "localhost:5000/library/x:y",
}
TWINS = (full("Llama3:latest"), full("llama3:latest"))


def name_rows() -> Iterator[Row]:
    for what, name in BAD_NAMES.items():
        says = "" if "password" in what else "name"
        yield from (_quiet(row) for row in index_rows(what, edit_model(name=name), UNSAFE, says=says))
        yield from typed_rows(what, name)
    others: tuple[object, ...] = (None, 5, True, [], {}, ["x"])
    for value in others:
        yield from index_rows(f"C61 name {value!r}", edit_model(name=value), UNSAFE)
    short = {"C61 default host left out": "library/x:y", "C61 short": "x:y", "C61 tag left out": full("x")}
    for what, name in short.items():
        yield from index_rows(what, edit_model(name=name), UNSAFE)
    yield from file_path_rows()
    yield from unholdable_rows()
    yield from collision_rows()
    yield from way_rows()


def typed_rows(what: str, name: str) -> Iterator[Row]:
    """What was left out of a name is completed, so an empty part or name is typed otherwise than it is listed."""
    commands: dict[str, Sequence[Argument]] = {
        "show": ("show", "--", name),
        "verify": ("verify", "--", name),
        "export": ("export", "--", name, "out.tar.zst"),
        "rm": ("rm", "--yes", "--", name),
        "cp": ("cp", "--", name, "copy"),
        "cp to it": ("cp", "--", "old", name),
        "du": ("du", "--", name),
        "repair": ("repair", "--from", ".", "--", name),
        "move": ("move", "--yes", "--offload", "--", name, "elsewhere"),
    }
    for command, arguments in commands.items():
        yield _quiet(Row(f"{what} [{command}]", _typed(*arguments), (USAGE,)))
    yield _quiet(Row(f"{what} [import --model]", _picked(name), (USAGE,)))
    yield _quiet(Row(f"{what} [list]", _typed("list", "--", name), (DONE,)))


def _typed(*arguments: Argument) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        world.cwd = world.folder
        return (arguments[0], *world.at, *arguments[1:])

    return prepare


def _picked(name: str) -> Prepare:
    return lambda world: ("import", world.good(), f"--model={name}", *world.at)


def _quiet(row: Row) -> Row:
    """No password is echoed."""

    def check(_world: World, outcome: Outcome) -> None:
        assert "hunter2" not in outcome.stderr + outcome.stdout

    return Row(row.name, row.prepare, row.codes, row.says, check=check)


def file_path_rows() -> Iterator[Row]:
    for path in (
        "../x",
        "ostore/../x",
        "ostore/",
        "/etc/passwd",
        "blobs/x",
        "ostore/bundle.json",
        "ostore/a/b",
        "ostore/.x",
    ):
        yield from index_rows(f"C61 file path {path!a}", edit_file(path=path), UNSAFE)
    others: tuple[object, ...] = (
        "ostore/bundle.json.sig",
        "ostore/x\n",
        "ostore/\x1b[2J",
        "ostore/" + "x" * 5000,
        5,
        None,
        [],
        "",
    )
    for other in others:
        yield from index_rows(f"C61 file path {other!a:.40}", edit_file(path=other), UNSAFE)
    yield from index_rows("C61 file path twice", lambda i: i["files"].append(i["files"][0]), UNSAFE)


def _bundle(*names: str) -> bytes:
    raw = dumped(document())
    return compressed(tar(Bundle(manifests=[(name, raw, (SETTINGS, WEIGHTS, TEXT)) for name in names]).parts()))


def unholdable_rows() -> Iterator[Row]:
    for what, name in UNHOLDABLE.items():
        yield Row(f"{what} on this disk", imported(partial(_bundle, name)), (DONE,))
        yield Row(f"{what} on a disk of Windows", _on_windows_disk(name), (UNSAFE,), says="Windows")
        warned = imported(partial(_bundle, name), command="inspect")
        yield Row(f"{what} inspected", warned, (DONE,), check=_warns)


def _on_windows_disk(name: str) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        world.patch.setattr(space, "_holds_colons", lambda _directory: False)
        return ("import", world.put(_bundle(name)), *world.at)

    return prepare


def _warns(_world: World, outcome: Outcome) -> None:
    assert outcome.stderr.startswith("ostore: warning: ")


def collision_rows() -> Iterator[Row]:
    for command in ("import", "inspect"):
        yield Row(
            f"C68 two cases of a name in a bundle [{command}]",
            imported(lambda: _bundle(*TWINS), command=command),
            (UNSAFE,),
            says="case",
        )
        yield Row(
            f"C68 a name twice in a bundle [{command}]",
            imported(lambda: _bundle(NAME, NAME), command=command),
            (UNSAFE,),
            says="twice",
        )
    yield Row(
        "C68 another case of a name in the store",
        # It is the store that makes it hostile.
        lambda world: ("import", world.put(_bundle(full("OLD:latest"))), *world.at),
        (UNSAFE,),
        says="case",
    )
    yield Row(
        "C68 another case of a tag in the store",
        imported(lambda: _bundle(full("old:LATEST")), "in.tar.zst", "--replace"),
        (UNSAFE,),
    )
    yield Row("C68 two cases of a name in the store", _twins_in_store, (DONE,), changes=("out.tar.zst",))


def _twins_in_store(world: World) -> Sequence[Argument]:
    for name in TWINS:
        world.store.model(name, WEIGHTS)
    world.cwd = world.folder
    return ("export", "--all", "out.tar.zst", *world.at)


def way_rows() -> Iterator[Row]:
    """Something else stands where a part of the model's path has to be."""
    host, namespace, model, tag = manifest_name(NAME).split("/")[1:]
    for way in ((host,), (host, namespace), (host, namespace, model)):
        yield Row(f"C74 a file in place of {way[-1]}", _in_the_way(*way, kind="file"), (UNSAFE, DAMAGED))
        yield Row(f"C74 a link in place of {way[-1]}", _in_the_way(*way, kind="link"), (UNSAFE, DAMAGED))
    yield Row(
        "C74 a folder in place of the tag", _in_the_way(host, namespace, model, tag, kind="folder"), (UNSAFE, DAMAGED)
    )
    yield Row("C74 a file in place of manifests", _in_the_way(kind="file"), (UNSAFE, DAMAGED, IO))
    yield Row("C74 a file in place of blobs", _blobs_is_a_file, (UNSAFE, DAMAGED, IO))
    long = full("x" * 80 + ":" + "y" * 80)
    yield Row(
        "C73 the longest name there is",
        imported(lambda: _bundle(long, f"{'h' * 255}/{'n' * 80}/{'m' * 80}:t")),
        (DONE,),
    )
    raw = dumped(document(layers=[layer(MODEL, b"")]))
    empty = Bundle(blobs=[SETTINGS, b""], manifests=[(NAME, raw, (SETTINGS, b""))])
    yield Row("C73 a blob of no bytes", imported(lambda: compressed(tar(empty.parts()))), (DONE,))
    parts = Bundle().parts()
    parts[5] = member(manifest_name(full("other:latest")), dumped(document()))
    yield Row("C61 a manifest by another name than listed", imported(packed(parts)), (UNSAFE,))


def _in_the_way(*parts: str, kind: str) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        path = world.store.root.joinpath("manifests", *parts)
        if path.exists():
            path.rename(world.folder / "moved")
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            path.write_bytes(b"in the way\n")
        elif kind == "link":
            path.symlink_to(world.canary.parent)
        else:
            path.mkdir()
        return ("import", world.good(), *world.at)

    return prepare


def _blobs_is_a_file(world: World) -> Sequence[Argument]:
    (world.store.root / "blobs").rename(world.folder / "moved")
    (world.store.root / "blobs").write_bytes(b"in the way\n")
    return ("import", world.good(), *world.at)
