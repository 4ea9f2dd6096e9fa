"""Parts A, B, C, G and H again, for the commands that look after a store, such as gc, rm, dedup and move."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ostore.streams import space
from tests.hostile import forge
from tests.hostile.documents import AMBIGUOUS, MANIFEST
from tests.hostile.forge import NAME, SETTINGS, TEXT, WEIGHTS, Bundle, compressed, digest, frame, member, tar
from tests.hostile.names import TWINS, UNHOLDABLE
from tests.hostile.rows import (
    DAMAGED,
    DONE,
    FORMAT,
    INTEGRITY,
    IO,
    LIMIT,
    MIB,
    NOT_FOUND,
    OLD,
    OLD_WEIGHTS,
    UNSAFE,
    USAGE,
    Argument,
    Outcome,
    Prepare,
    Row,
    World,
    good,
    good_tar,
)
from tests.hostile.surroundings import (
    make_odd,
    meeting,
    put_lock,
    put_odd,
    put_odd_manifest,
    put_stray,
    put_workspace,
    spoiled_workspaces,
)
from tests.support import noise

ORPHAN = b"what no model needs " * 30
GC = ("gc", "--yes", "--grace", "0s")
RM = ("rm", "old", "--yes")
CP = ("cp", "old", "copy")
MOVE = ("move", "elsewhere", "--yes")
FIX = ("doctor", "--fix", "--yes")
WRITING = {"gc": GC, "rm": RM, "cp": CP, "move": MOVE}


def upkeep_rows() -> Iterator[Row]:
    yield from sweeping_rows()
    yield from odd_store_rows()
    yield from workspace_rows()
    yield from copying_rows()
    yield from repairing_rows()
    yield from sharing_rows()
    yield from moving_rows()
    yield from where_rows()


def _orphaned(change: Callable[[World], object]) -> Callable[[World], None]:
    """A store with a blob that gc would take, if it may."""

    def prepare(world: World) -> None:
        world.store.blob(ORPHAN)
        change(world)

    return prepare


def _nothing(_world: World) -> None:
    pass


def _whole(raw: bytes) -> Callable[[World], None]:
    """The good model's blobs, and a manifest of these bytes."""

    def change(world: World) -> None:
        for data in (SETTINGS, WEIGHTS, TEXT):
            world.store.blob(data)
        world.store.write_manifest(NAME, raw)

    return change


def sweeping_rows() -> Iterator[Row]:
    """Gc keeps what it cannot be sure of."""
    broken = {"0 bytes": b"", "half": MANIFEST[:150], "zeros": bytes(500), "a list": b"[]", "too much": b" " * 5 * MIB}
    for what, raw in broken.items():
        yield Row(f"B59 manifest of {what} in the store, gc", meeting(*GC, change=_orphaned(_whole(raw))), (DAMAGED,))
    for what, raw in AMBIGUOUS.items():
        yield Row(f"B39 stored manifest with {what}, gc", meeting(*GC, change=_whole(raw)), (DONE,))
    escaped = MANIFEST.replace(b"sha256:", b"sha\\u003256:")
    yield Row("B44 digests written as escapes, gc", meeting(*GC, change=_whole(escaped)), (DONE,))
    yield Row("G133 a young blob, gc", meeting("gc", "--yes", change=_orphaned(_nothing)), (DONE,))
    for what, seconds in (("in ten years", 315_000_000), ("in 2554", 18_400_000_000)):
        future = _orphaned(partial(_set_time, seconds))
        yield Row(f"G138 a blob of a time {what}, gc", meeting(*GC[:2], change=future), (DONE,))
    ages = ("-1h", "1e99h", "nan", "infd", "5 parsecs", "", "h", "\u0661h", "9" * 400 + "d", "24h\n", "\x1b[2J")
    for age in ages:
        for option in ("--grace", "--keep"):
            yield Row(
                f"H151 gc {option} {age[:8]!a}",
                meeting("gc", f"{option}={age}", "--yes", change=_orphaned(_nothing)),
                (USAGE,),
            )
    gone = meeting(*GC, change=_orphaned(lambda world: world.store.manifest_path(OLD).unlink()))
    yield Row("G137 no manifest at all, gc", gone, (DAMAGED,))


def _set_time(seconds: float, world: World) -> None:
    when = time.time() + seconds
    os.utime(world.store.blob_path(ORPHAN), (when, when))


KINDS = ("link", "dangling link", "link to the store's own blob", "FIFO", "directory", "socket")
STRAYS = {
    "file at depth 1": "manifests/stray",
    "file at depth 3": "manifests/a/b/stray",
    "file at depth 5": "manifests/a/b/c/d/stray",
    "no name at depth 4": "manifests/a/b/.c/d",
    "newline at depth 4": "manifests/a/b/c/d\nostore: error[trust]: fake",
    "not UTF-8 at depth 4": "manifests/a/b/c/\udcff\udcfe",
    "odd name in blobs": "blobs/stray\n\x1b[2J",
}
# What each command may take away of the old model, or put beside it, when it ends well.
BLOBS = "models/blobs/"
TREE = "models/manifests/"
TINY = "models/manifests/registry.ollama.ai/library/tiny"
OLD_BLOB = forge.blob_name(OLD_WEIGHTS)


def odd_store_rows() -> Iterator[Row]:
    """Links, pipes and stray names where blobs and manifests ought to be: nothing outside is touched or waited for."""
    for kind in KINDS:
        yield from _odd_blob_rows(kind)
        yield from _odd_tag_rows(kind)
    for what, path in STRAYS.items():
        stray = put_stray(path)
        # One at depth 5 makes a folder of what is at depth 4.
        codes = (DAMAGED,) if "depth 4" in what or "depth 5" in what else (DONE,)
        yield Row(f"G126 {what}, gc", meeting(*GC, change=_orphaned(stray)), codes, changes=(BLOBS,))
        # While what a manifest needs is in doubt, the model goes and its blobs stay.
        lost = (TREE,) if codes == (DAMAGED,) else (TREE, BLOBS)
        yield Row(f"G126 {what}, rm", meeting(*RM, change=stray), (DONE,), changes=lost, check=_still_there(path))
        yield from _looked_at(f"G126 {what}", stray)
    for what, raw in {"0 bytes": b"", "half": MANIFEST[:150], "escapes": b"\x1b[2J\x07\x9b"}.items():
        put = _whole(raw)
        removed = meeting("rm", "tiny", "--yes", change=put)
        yield Row(f"B59 manifest of {what} in the store, rm", removed, (DONE,), changes=(TINY,))
        yield Row(f"B59 manifest of {what} in the store, cp", meeting("cp", "tiny", "x", change=put), (DAMAGED,))
        yield from _looked_at(f"B59 manifest of {what} in the store", put)


def _odd_blob_rows(kind: str) -> Iterator[Row]:
    needed, unneeded = put_odd(kind, OLD_WEIGHTS), put_odd(kind, ORPHAN)
    removed, moved = meeting(*RM, change=needed), meeting(*MOVE, change=needed)
    # A link goes like a blob, and what it leads to stays.
    is_link = "link" in kind
    broken = (INTEGRITY,) if is_link else (DAMAGED,)
    stays = None if is_link else _still_there(OLD_BLOB)
    yield Row(f"G124 {kind} in place of a blob, rm", removed, (DONE,), changes=(BLOBS, TREE), check=stays)
    gone = (BLOBS,) if is_link else ()
    yield Row(f"G124 {kind} by the name of an orphan, gc", meeting(*GC, change=unneeded), (DONE,), changes=gone)
    yield Row(f"G124 {kind} in place of a blob, cp", meeting(*CP, change=needed), broken)
    # What was copied and verified before waits there for another try.
    yield Row(f"G124 {kind} in place of a blob, move", moved, broken, moving=("elsewhere",), check=_lists_nothing)
    yield from _looked_at(f"G124 {kind} in place of a blob", needed)


def _odd_tag_rows(kind: str) -> Iterator[Row]:
    put = put_odd_manifest(kind)
    name = f"G125 {kind} at manifest depth"
    # A link, wherever it leads, can be removed and replaced without touching anything but itself.
    is_link = "link" in kind
    removed = (DONE,) if is_link else (DAMAGED,)
    onto = meeting("cp", "old", "tiny", change=put)
    yield Row(f"{name}, cp onto it", onto, (DONE,) if is_link else (UNSAFE,), changes=(TINY,))
    yield Row(f"{name}, rm", meeting("rm", "tiny", "--yes", change=put), removed, changes=(TINY,))
    yield Row(f"{name}, rm of all", meeting("rm", "*", "--yes", change=put), removed, changes=(TREE, BLOBS))
    yield Row(f"{name}, gc", meeting(*GC, change=_orphaned(put)), (DAMAGED,))
    yield Row(f"{name}, move", meeting(*MOVE, change=put), (DAMAGED,))
    yield from _looked_at(name, put)


def _still_there(path: str) -> Callable[[World, Outcome], None]:
    def check(world: World, _outcome: Outcome) -> None:
        assert os.path.lexists(world.store.root / path)

    return check


def _lists_nothing(world: World, _outcome: Outcome) -> None:
    assert not (world.folder / "elsewhere" / "manifests").exists()


def _looked_at(name: str, change: Callable[[World], object]) -> Iterator[Row]:
    """Rows for the commands that change nothing, and for `doctor --fix`, which loses nothing."""
    yield Row(f"{name}, du", meeting("du", change=change), (DONE, DAMAGED), is_report=True)
    yield Row(f"{name}, doctor", meeting("doctor", change=change), (DONE, DAMAGED, INTEGRITY), is_report=True)
    fixed = meeting(*FIX, change=change)
    # A link that leads nowhere is what it may remove.
    lost = (TINY,) if "dangling link at" in name or "own blob at" in name else ()
    yield Row(f"{name}, doctor --fix", fixed, (DONE, DAMAGED, INTEGRITY), is_report=True, changes=lost)


def workspace_rows() -> Iterator[Row]:
    for what, make in spoiled_workspaces().items():
        for command, words in WRITING.items():
            met = meeting(*words, change=_orphaned(partial(put_workspace, make)))
            yield Row(f"G128 .ostore is {what}, {command}", met, (UNSAFE,), says=".ostore")
        for command in ("du", "doctor"):
            met = meeting(command, change=partial(put_workspace, make))
            yield Row(f"G128 .ostore is {what}, {command}", met, (DONE, DAMAGED), is_report=True)
        if "link" in what:
            for command, words in WRITING.items():
                met = meeting(*words, change=_orphaned(partial(put_lock, make)))
                yield Row(f"G129 the lock is {what}, {command}", met, (UNSAFE,))


def copying_rows() -> Iterator[Row]:
    for what, raw in AMBIGUOUS.items():
        yield Row(f"B39 stored manifest with {what}, cp", meeting("cp", "tiny", "x", change=_whole(raw)), (UNSAFE,))
    yield Row("C68 cp to another case of its own name", meeting("cp", "old", "OLD", change=_nothing), (UNSAFE,))
    other = meeting("cp", "old", "TINY", "--replace", change=_whole(MANIFEST))
    yield Row("C68 cp to another case of a name in the store", other, (UNSAFE,), says="case")
    for command, words in {
        "rm": ("rm", "llama3", "--yes"),
        "cp": ("cp", "LLAMA3", "x"),
        "du": ("du", "llama3"),
    }.items():
        twins = meeting(*words, change=_put_twins)
        yield Row(
            f"C68 two cases of a name in the store, {command}", twins, (UNSAFE, USAGE, DONE), changes=(TREE, BLOBS)
        )
    for what, name in UNHOLDABLE.items():
        yield Row(
            f"{what} on a disk of Windows, cp", meeting("cp", "old", name, change=_no_colons), (UNSAFE,), says="Windows"
        )
    host, namespace, model, _ = forge.manifest_name(NAME).split("/")[1:]
    for kind in ("file", "link"):
        for way in ((host, "other"), (host, namespace, model)):
            prepare = meeting(
                "cp", "old", "other/x" if "other" in way else "tiny", change=partial(_in_the_way, kind, way)
            )
            yield Row(f"C74 a {kind} in place of {way[-1]}, cp", prepare, (UNSAFE, DAMAGED))


def _put_twins(world: World) -> None:
    for name in TWINS:
        world.store.model(name, WEIGHTS)


def _no_colons(world: World) -> None:
    world.patch.setattr(space, "_holds_colons", lambda _directory: False)


def _in_the_way(kind: str, parts: Sequence[str], world: World) -> None:
    path = world.store.root.joinpath("manifests", *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_bytes(b"in the way\n")
    else:
        path.symlink_to(world.canary.parent)


def repairing_rows() -> Iterator[Row]:
    """The good model lacks its weights; what is told of as their source holds none, or others."""
    bundles: dict[str, Callable[[], bytes]] = {
        "A01 empty file": lambda: b"",
        "A02 random bytes": lambda: noise(MIB),
        "A04 the first 513 bytes": lambda: good()[:513],
        "A05 the last byte missing": lambda: good()[:-1],
        "A06 a bit of the blob flipped": lambda: compressed(good_tar().replace(WEIGHTS, WEIGHTS[:-1] + b"!", 1)),
        "A08 300 MB in a frame": lambda: forge.sealed([(forge.run_length_frame(300 * MIB), 300 * MIB)]),
        "A11 garbage after the last frame": lambda: good() + noise(100),
        "A13 climbing": partial(_with_member, member("../../outside/canary", b"x")),
        "A15 symbolic link": partial(_with_member, member("x", b"", flag=b"2", link=b"../outside/canary")),
        "A27 a blob twice": partial(_with_member, member(forge.blob_name(SETTINGS), SETTINGS)),
        "A33 a frame after the table": lambda: good() + frame(b"x"),
        "B38 index 20000 deep": lambda: compressed(tar(Bundle().parts(b"[" * 20_000))),
        "B44 a climbing digest": lambda: compressed(tar(Bundle().parts(_climbing()))),
    }
    for what, build in bundles.items():
        yield Row(
            f"{what} as a source of repair",
            _repaired(partial(_put_bundle, build)),
            (INTEGRITY, FORMAT, UNSAFE, LIMIT),
            is_report=True,
            check=_lacks_weights,
        )
    sources: dict[str, Callable[[World], Path]] = {
        "a FIFO": lambda world: _made(os.mkfifo, world.folder / "source"),
        "a link to nowhere": lambda world: _made(lambda path: path.symlink_to("x"), world.folder / "source"),
        "nothing": lambda world: world.folder / "source",
        "/dev/zero": lambda _: Path("/dev/zero"),
        "an empty folder": lambda world: _made(Path.mkdir, world.folder / "source"),
    }
    for what, make in sources.items():
        yield Row(
            f"A34 {what} as a source of repair", _repaired(make), (INTEGRITY, USAGE, NOT_FOUND, FORMAT), is_report=True
        )
    for kind in ("other bytes", "link", "dangling link", "FIFO", "directory", "socket"):
        yield Row(
            f"G124 {kind} by the name of the blob in a source of repair",
            _repaired(partial(_odd_source, kind)),
            (INTEGRITY,),
            is_report=True,
            check=_lacks_weights,
        )


def _made(make: Callable[[Path], object], path: Path) -> Path:
    make(path)
    return path


def _put_bundle(build: Callable[[], bytes], world: World) -> Path:
    return world.put(build())


def _with_member(extra: bytes) -> bytes:
    parts = Bundle().parts()
    parts.insert(2, extra)
    return compressed(tar(parts))


def _climbing() -> bytes:
    index = Bundle().index()
    index["blobs"][1]["digest"] = "sha256:../../../../outside/canary"
    return forge.dumped(index)


def _repaired(source: Callable[[World], Path]) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        _whole(MANIFEST)(world)
        world.store.blob_path(WEIGHTS).unlink()
        return ("repair", "--from", source(world), *world.at)

    return prepare


def _odd_source(kind: str, world: World) -> Path:
    place = world.folder / "source" / "blobs" / digest(WEIGHTS).replace(":", "-")
    if kind == "other bytes":
        place.parent.mkdir(parents=True)
        place.write_bytes(WEIGHTS[::-1])
    else:
        make_odd(kind, place, world)
    (world.folder / "source" / "manifests").mkdir()
    return world.folder / "source"


def _lacks_weights(world: World, _outcome: Outcome) -> None:
    assert not world.store.blob_path(WEIGHTS).exists()


def sharing_rows() -> Iterator[Row]:
    for kind in ("other bytes", "link", "dangling link", "FIFO", "directory", "socket"):
        prepare = _shared(partial(_odd_copy, kind))
        yield Row(f"G124 {kind} by the name of a blob, dedup", prepare, (DONE, INTEGRITY), is_report=True)
    places: dict[str, Callable[[World], Path]] = {
        "a file": lambda world: world.canary,
        "a FIFO": lambda world: _made(os.mkfifo, world.folder / "source"),
        "nothing": lambda world: world.folder / "source",
        "a link to itself": lambda world: _made(lambda path: path.symlink_to(path), world.folder / "source"),
        "a link to the folder above": lambda world: _made(_loop, world.folder / "source"),
    }
    for what, make in places.items():
        yield Row(f"A34 dedup of {what}", _shared(make), (DONE, USAGE, NOT_FOUND, IO), is_report=True)


def _loop(path: Path) -> None:
    path.mkdir()
    (path / "again").symlink_to(path.parent)
    (path / "x.gguf").symlink_to("x.gguf")


def _odd_copy(kind: str, world: World) -> Path:
    place = world.folder / "source" / "blobs" / digest(OLD_WEIGHTS).replace(":", "-")
    if kind == "other bytes":
        place.parent.mkdir(parents=True)
        place.write_bytes(OLD_WEIGHTS[::-1])
    else:
        make_odd(kind, place, world)
    (world.folder / "source" / "manifests").mkdir()
    return world.folder / "source"


def _shared(source: Callable[[World], Path]) -> Prepare:
    return lambda world: ("dedup", source(world), *world.at)


def moving_rows() -> Iterator[Row]:
    places: dict[str, Callable[[World], object]] = {
        "a file": lambda world: world.put(b"mine", "elsewhere"),
        "a FIFO": lambda world: os.mkfifo(world.folder / "elsewhere"),
        "a dangling link": lambda world: (world.folder / "elsewhere").symlink_to("nowhere/deep"),
        "the store itself, by a link": lambda world: (world.folder / "elsewhere").symlink_to("models"),
        "inside of the store, by a link": lambda world: (world.folder / "elsewhere").symlink_to("models/blobs"),
    }
    for what, make in places.items():
        codes = (NOT_FOUND,) if what == "a dangling link" else (USAGE,)
        yield Row(f"G141 move to {what}", meeting(*MOVE, change=make), codes)
    for what, dest in (
        ("the store", "models"),
        ("inside of the store", "models/x"),
        ("a parent that is not there", "a/b"),
    ):
        yield Row(f"G141 move to {what}", meeting("move", dest, "--yes", change=_nothing), (USAGE, NOT_FOUND, UNSAFE))
    for dest in ("", "x" * 5000, "mod[e]ls*"):
        yield Row(f"G141 move to {dest[:9]!a}", meeting("move", dest, "--yes", change=_nothing), (USAGE, NOT_FOUND, IO))
    beside = meeting(*MOVE, change=lambda world: _filled(world.folder / "elsewhere"))
    both = ("models", "elsewhere/")
    yield Row("G141 move to a folder of somebody's files", beside, (DONE,), changes=both, check=_is_kept)
    altered = meeting(*MOVE, change=lambda world: world.store.blob_path(OLD_WEIGHTS).write_bytes(OLD_WEIGHTS[::-1]))
    moving = ("elsewhere",)
    yield Row("G131 move of a store with an altered blob", altered, (INTEGRITY,), moving=moving, check=_lists_nothing)
    missing = meeting(*MOVE, change=lambda world: world.store.blob_path(OLD_WEIGHTS).unlink())
    yield Row("G136 move of a store that lacks a blob", missing, (INTEGRITY,), moving=moving, check=_lists_nothing)


def _filled(path: Path) -> None:
    (path / "papers").mkdir(parents=True)
    (path / "papers" / "thesis.txt").write_bytes(b"mine")


def _is_kept(world: World, _outcome: Outcome) -> None:
    assert (world.folder / "elsewhere" / "papers" / "thesis.txt").read_bytes() == b"mine"


def where_rows() -> Iterator[Row]:
    places = {
        "does not exist": ("nowhere", (NOT_FOUND,)),
        "a file": ("models.canary", (USAGE,)),
        "with escapes": ("no\x1b\x07\x9bwhere", (NOT_FOUND,)),
        "not UTF-8": ("no\udcffwhere", (NOT_FOUND,)),
    }
    commands = {
        **WRITING,
        "du": ("du",),
        "doctor": ("doctor",),
        "dedup": ("dedup",),
        "repair": ("repair", "--from", "in.tar.zst"),
    }
    for what, (place, codes) in places.items():
        for command, words in commands.items():
            yield Row(f"G141 the store is {what}, {command}", _placed(place, *words), codes)


def _placed(place: str, *arguments: Argument) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        world.cwd = world.folder
        world.good()
        world.environment["OLLAMA_MODELS"] = place
        world.environment["HOME"] = str(world.folder / "home")
        return arguments

    return prepare
