"""Parts G and H: the store's own state, the disk, the terminal, signals and the environment."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.export_state import ExportState
from ostore.formats.selection import Selection, Wanted
from ostore.formats.zstd_frame import FrameSpan
from ostore.places.bundle.encoding import Encoding
from ostore.places.bundle.inbox import bundle_head
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.places.store.survey import scan
from ostore.streams import bytes_at, durable, writing
from ostore.streams.bytes_at import Held
from ostore.streams.chunks import Chunk, read_at
from tests.hostile.documents import MANIFEST
from tests.hostile.forge import NAME, SETTINGS, TEXT, WEIGHTS, blob_name, compressed, dumped
from tests.hostile.rows import (
    DAMAGED,
    DONE,
    FORMAT,
    INTEGRITY,
    IO,
    NO_SPACE,
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
    good_tar,
)
from tests.support import LICENSE, SYSTEM, TEMPLATE, full

STRANGER = 12345
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def surrounding_rows() -> Iterator[Row]:
    yield from odd_blob_rows()
    yield from odd_manifest_rows()
    yield from workspace_rows()
    yield from unfinished_rows()
    yield from change_rows()
    yield from where_rows()
    yield from failing_disk_rows()
    yield from text_rows()


def meeting(*arguments: Argument, change: Callable[[World], object]) -> Prepare:
    """A command that meets a store (or its surroundings) that was changed before."""

    def prepare(world: World) -> Sequence[Argument]:
        world.cwd = world.folder
        change(world)
        if arguments[0] == "import":
            world.good()
        return (*arguments, *world.at)

    return prepare


EXPORT = ("export", "old", "out.tar.zst")
IMPORT = ("import", "in.tar.zst")
UNFINISHED = ("out.tar.zst.part", "out.tar.zst.part.state")


def odd_blob_rows() -> Iterator[Row]:
    """Something that is not a file has the name of a blob that the old model, or the new one, needs."""
    for kind in ("link", "dangling link", "link to the store's own blob", "FIFO", "directory", "socket", "device"):
        if kind == "device" and not IS_ROOT:
            continue
        # What a link leads to is hashed. Where it leads to no file, the blob is missing.
        broken = (INTEGRITY,) if "link" in kind else (DAMAGED,)
        for data, which in ((OLD_WEIGHTS, "old"), (WEIGHTS, "new")):
            place = put_odd(kind, data)
            if which == "new":
                # A link is replaced and what it leads to left alone; what else there is somebody has to look at.
                codes = (DAMAGED, DONE) if "link" in kind else (DAMAGED,)
                yield Row(f"G124 {kind} in place of a blob, import", meeting(*IMPORT, change=place), codes)
                continue
            yield Row(f"G124 {kind} in place of a blob, export", meeting(*EXPORT, change=place), broken)
            yield Row(
                f"G124 {kind} in place of a blob, verify", meeting("verify", change=place), broken, is_report=True
            )
            yield Row(f"G124 {kind} in place of a blob, list", meeting("list", change=place), (DONE,))
    for kind in ("link", "FIFO", "directory"):
        yield Row(
            f"G124 {kind} in place of a config, show",
            meeting("show", "odd", change=_put_odd_config(kind)),
            (INTEGRITY, DAMAGED),
        )
        yield Row(f"G124 {kind} in place of a config, list", meeting("list", change=_put_odd_config(kind)), (DONE,))
    for damage, data in {"altered": WEIGHTS[::-1], "short": WEIGHTS[:5], "long": WEIGHTS + b"x", "empty": b""}.items():
        put = _put_blob(data)
        yield Row(
            f"G131 {damage} blob is repaired by an import", meeting(*IMPORT, change=put), (DONE,), check=_is_repaired
        )
        yield Row(
            f"G130 {damage} blob with a second link is replaced, not written to",
            meeting(*IMPORT, change=_put_linked(data)),
            (DONE,),
            check=_is_repaired,
        )
    altered = meeting("verify", change=lambda world: _keep_times(world.store.blob_path(OLD_WEIGHTS), OLD_WEIGHTS[::-1]))
    yield Row("G131 altered blob whose times were put back", altered, (INTEGRITY,), is_report=True)
    yield Row(
        "G131 altered blob is not exported",
        meeting(*EXPORT, change=lambda world: _keep_times(world.store.blob_path(OLD_WEIGHTS), OLD_WEIGHTS[::-1])),
        (INTEGRITY,),
    )


def make_odd(kind: str, path: Path, world: World) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(world.canary)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "link to the store's own blob":
        path.symlink_to(world.store.blob_path(OLD_WEIGHTS).name)
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def put_odd(kind: str, data: bytes) -> Callable[[World], None]:
    return lambda world: make_odd(kind, world.store.blob_path(data), world)


def _put_odd_config(kind: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.store.add(full("odd:latest"), config=world.store.config(odd=True))
        config = next(path for path in (world.store.root / "blobs").iterdir() if b"odd" in path.read_bytes())
        make_odd(kind, config, world)

    return change


def _put_blob(data: bytes) -> Callable[[World], object]:
    return lambda world: world.store.blob_path(WEIGHTS).write_bytes(data)


def _put_linked(data: bytes) -> Callable[[World], None]:
    """The file has a second name outside of the store: writing to it would change what is there."""

    def change(world: World) -> None:
        outside = world.canary.with_name("linked")
        outside.write_bytes(data)
        world.store.blob_path(WEIGHTS).hardlink_to(outside)

    return change


def _is_repaired(world: World, _outcome: Outcome) -> None:
    assert world.store.blob_path(WEIGHTS).read_bytes() == WEIGHTS


def _keep_times(path: Path, data: bytes) -> None:
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def odd_manifest_rows() -> Iterator[Row]:
    for kind in ("dangling link", "FIFO", "directory", "socket"):
        put = put_odd_manifest(kind)
        yield Row(
            f"G125 {kind} at manifest depth, verify",
            meeting("verify", change=put),
            (DAMAGED,),
            is_report=True,
            check=_names_it,
        )
        yield Row(f"G125 {kind} at manifest depth, list", meeting("list", change=put), (DONE,), check=_names_it)
        yield Row(
            f"G125 {kind} at manifest depth, export of all",
            meeting("export", "--all", "--strict", "out.tar.zst", change=put),
            (DAMAGED,),
        )
        yield Row(f"G125 {kind} at manifest depth, export of another", meeting(*EXPORT, change=put), (DONE,))
        codes = (DONE,) if kind == "dangling link" else (UNSAFE, DAMAGED)
        yield Row(f"G125 {kind} at manifest depth, import", meeting(*IMPORT, change=put), codes)
    strays = {
        "file at depth 1": "manifests/stray",
        "file at depth 3": "manifests/a/b/stray",
        "file at depth 5": "manifests/a/b/c/d/stray",
        "no name at depth 4": "manifests/a/b/.c/d",
        "newline at depth 4": "manifests/a/b/c/d\nostore: error[trust]: fake",
        "escapes at depth 4": "manifests/a/b/c/\x1b[2J\x07",
        "not UTF-8 at depth 4": "manifests/a/b/c/\udcff\udcfe",
        "odd name in blobs": "blobs/stray\n\x1b[2J",
    }
    for what, path in strays.items():
        put = put_stray(path)
        is_doubt = "depth 4" in what or "depth 5" in what
        codes = (DAMAGED,) if is_doubt else (DONE,)
        yield Row(f"G126 {what}, verify", meeting("verify", change=put), codes, is_report=True)
        yield Row(f"G126 {what}, list", meeting("list", change=put), (DONE,), check=_one_line_a_warning)
        yield Row(f"G126 {what}, import", meeting(*IMPORT, change=put), (DONE,))
        yield Row(f"G126 {what}, export", meeting(*EXPORT, change=put), (DONE,))
    yield Row(
        "G137 manifest that is finished meanwhile",
        meeting("verify", change=_finish_soon),
        (DONE, DAMAGED),
        is_report=True,
        moving=(f"models/manifests/{NAME.replace(':', '/')}",),
    )


def put_odd_manifest(kind: str) -> Callable[[World], None]:
    return lambda world: make_odd(kind, world.store.manifest_path(NAME), world)


def _names_it(_world: World, outcome: Outcome) -> None:
    assert "tiny/latest" in outcome.stdout + outcome.stderr


def _one_line_a_warning(_world: World, outcome: Outcome) -> None:
    assert all(line.startswith("ostore: warning: ") for line in outcome.stderr.splitlines())


def put_stray(path: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        stray = world.store.root / path
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(b"stray\n")

    return change


def _finish_soon(world: World) -> None:
    """A server writes manifests in place; this one is half written when the command begins."""
    for data in (SETTINGS, WEIGHTS, TEXT):
        world.store.blob(data)
    path = world.store.write_manifest(NAME, MANIFEST[:50])
    # Without it, the command would look again at once, before the thread has written.
    world.patch.setattr(scan, "_RETRY_SECONDS", 0.1)

    def finish() -> None:
        time.sleep(0.1)
        path.write_bytes(MANIFEST)

    threading.Thread(target=finish).start()


def spoiled_workspaces() -> dict[str, Callable[[Path, World], object]]:
    """What somebody may have put in the place of `.ostore`, or made of it."""
    changes: dict[str, Callable[[Path, World], object]] = {
        "a link": lambda path, world: path.symlink_to(world.canary.parent),
        "a dangling link": lambda path, _: path.symlink_to("nowhere"),
        "a file": lambda path, _: path.write_bytes(b""),
        "a FIFO": lambda path, _: os.mkfifo(path),
        "world-writable": _make_open,
    }
    if IS_ROOT:
        changes["a stranger's"] = _make_foreign
    return changes


def unfinished_states() -> dict[str, Callable[[World], object]]:
    """What somebody may have put beside an unfinished bundle, to have its bytes taken for ours."""

    def put(make: Callable[[Path, World], object]) -> Callable[[World], object]:
        def change(world: World) -> None:
            world.put(b"x" * 100_000, "out.tar.zst.part")
            make(world.folder / "out.tar.zst.part.state", world)

        return change

    def written(world: World, **more: object) -> bytes:
        """One that fits in all but the named; whoever can read the store can make it."""
        selection = LocalStore(world.store.root).select(["old"])
        head = bundle_head(selection)
        fields = {
            "made_by": Encoding(is_plain=False, level=None, jobs=1).made_by,
            "offset": len(head),
            "spans": (FrameSpan(500, len(head)),),
            "cut": None,
        }
        return ExportState(Digest.of(head), **{**fields, **more}).write()  # type: ignore[arg-type]

    huge = {"offset": 2**62, "spans": (), "cut": None}
    return {
        "a link": put(lambda path, world: path.symlink_to(world.canary)),
        "a FIFO": put(lambda path, _: os.mkfifo(path)),
        "a folder": put(lambda path, _: path.mkdir()),
        "zeros": put(lambda path, _: path.write_bytes(bytes(1000))),
        "a hole of 200 MB": put(lambda path, _: _make_hole(path)),
        "of a bundle that begins otherwise": put(lambda path, world: path.write_bytes(written(world))),
        "of a plain bundle": put(lambda path, world: path.write_bytes(written(world, spans=()))),
        "of a bundle that ends nowhere": put(lambda path, world: path.write_bytes(written(world, **huge))),
    }


def unfinished_rows() -> Iterator[Row]:
    for what, change in unfinished_states().items():
        # A folder in the place of the file is nobody's to remove.
        codes = IO if what == "a folder" else DONE
        name = f"G130 the state of an unfinished bundle is {what}"
        yield Row(name, meeting(*EXPORT, change=change), (codes,), moving=UNFINISHED)


def _make_hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200_000_000)


def workspace_rows() -> Iterator[Row]:
    changes = spoiled_workspaces()
    for what, make in changes.items():
        prepare = meeting(*IMPORT, change=partial(put_workspace, make))
        yield Row(f"G128 .ostore is {what}", prepare, (UNSAFE,), says=".ostore")
        reading = meeting(*EXPORT, change=partial(put_workspace, make))
        yield Row(f"G128 .ostore is {what}, which no reader minds", reading, (DONE,))
    for what, make in changes.items():
        if "writable" not in what and "stranger" not in what:
            prepare = meeting(*IMPORT, change=partial(put_lock, make))
            codes = (DONE,) if what == "a file" else (UNSAFE, DAMAGED) if what == "a FIFO" else (UNSAFE,)
            yield Row(f"G129 the lock is {what}", prepare, codes)
    yield Row(
        "G129 the part file is a link",
        meeting(*EXPORT, change=lambda world: (world.folder / "out.tar.zst.part").symlink_to(world.canary)),
        (UNSAFE,),
    )
    yield Row(
        "G129 the part file is a FIFO",
        meeting(*EXPORT, change=lambda world: os.mkfifo(world.folder / "out.tar.zst.part")),
        (UNSAFE, DAMAGED, IO),
    )
    yield Row(
        "G129 the destination is a folder",
        meeting(*EXPORT, change=lambda world: (world.folder / "out.tar.zst").mkdir()),
        (USAGE,),
    )
    yield Row(
        "G129 the destination is there",
        meeting(*EXPORT, change=lambda world: (world.folder / "out.tar.zst").write_bytes(b"mine")),
        (USAGE,),
    )
    yield Row(
        "G129 the destination is a link to what is there",
        meeting(*EXPORT, change=lambda world: (world.folder / "out.tar.zst").symlink_to(world.canary)),
        (USAGE,),
    )
    yield Row(
        "G129 the destination's folder is not there",
        meeting("export", "old", "no/out.tar.zst", change=lambda _: None),
        (NOT_FOUND, IO),
    )
    for umask in (0o000, 0o077):
        yield Row(
            f"G140 umask {umask:03o}",
            meeting(*IMPORT, change=partial(_set_umask, umask)),
            (DONE,),
            check=_has_modes,
        )
    if IS_ROOT:
        yield Row("G140 root in a user's store", meeting(*IMPORT, change=_give_away), (DONE,), check=_is_given)
        for what, mode, path in (
            ("store", 0o555, "models"),
            ("blobs", 0o555, "models/blobs"),
            ("store", 0o000, "models"),
        ):
            prepare = _without_rights(IMPORT, path, mode)
            yield Row(
                f"G140 {what} of mode {mode:o} without rights, import", prepare, (IO, NOT_FOUND, USAGE), alone=True
            )
        for path in ("models/blobs", f"models/{blob_name(OLD_WEIGHTS)}", f"models/manifests/{OLD.replace(':', '/')}"):
            yield Row(
                f"G140 {path[:22]} unreadable without rights, export",
                _without_rights(EXPORT, path, 0),
                (IO, DAMAGED),
                alone=True,
            )
            yield Row(
                f"G140 {path[:22]} unreadable without rights, verify",
                _without_rights(("verify",), path, 0),
                (IO, DAMAGED),
                is_report=True,
                alone=True,
            )
        yield Row("G140 unreadable bundle without rights", _without_rights(IMPORT, "in.tar.zst", 0), (IO,), alone=True)
        yield Row(
            "G140 unwritable destination without rights",
            _without_rights(("export", "old", "outside/o.tar.zst"), "outside", 0o555),
            (IO,),
            alone=True,
        )


def put_workspace(make: Callable[[Path, World], object], world: World) -> None:
    make(world.store.root / ".ostore", world)


def _set_umask(umask: int, world: World) -> None:
    world.umask = umask


def _make_open(path: Path, _world: World) -> None:
    path.mkdir()
    path.chmod(0o777)


def _make_foreign(path: Path, _world: World) -> None:
    path.mkdir()
    os.chown(path, STRANGER, STRANGER)


def put_lock(make: Callable[[Path, World], object], world: World) -> None:
    folder = world.store.root / ".ostore"
    folder.mkdir()
    make(folder / "lock", world)


def _has_modes(world: World, _outcome: Outcome) -> None:
    assert stat.S_IMODE(world.store.manifest_path(NAME).stat().st_mode) == 0o644
    assert stat.S_IMODE(world.store.manifest_path(NAME).parent.stat().st_mode) == stat.S_IMODE(
        (world.store.root / "blobs").stat().st_mode
    )
    assert stat.S_IMODE((world.store.root / ".ostore" / "lock").stat().st_mode) == 0o644


def _give_away(world: World) -> None:
    for path in (world.store.root, *world.store.root.rglob("*")):
        os.chown(path, STRANGER, STRANGER)


def _is_given(world: World, _outcome: Outcome) -> None:
    for path in (world.store.root, *world.store.root.rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (STRANGER, STRANGER), path


def _without_rights(arguments: Sequence[Argument], path: str, mode: int) -> Prepare:
    """As root, but bound by modes like everybody else."""

    def change(world: World) -> None:
        if arguments[0] == "import":
            world.good()
        (world.folder / path).chmod(mode)
        world.prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
        world.cwd = world.folder

    def prepare(world: World) -> Sequence[Argument]:
        change(world)
        return (*arguments, *world.at)

    return prepare


def change_rows() -> Iterator[Row]:
    """Something is removed or altered after a command has decided what to do."""
    taken = (f"models/{blob_name(OLD_WEIGHTS)}",)
    gone = meeting(*EXPORT, change=_before_blobs(lambda world: world.store.blob_path(OLD_WEIGHTS).unlink()))
    yield Row("G136 a blob is removed during its export", gone, (INTEGRITY,), moving=taken)
    cut = meeting(*EXPORT, change=_before_blobs(lambda world: os.truncate(world.store.blob_path(OLD_WEIGHTS), 3)))
    yield Row("G136 a blob is cut during its export", cut, (INTEGRITY,), moving=taken)
    linked = meeting(
        *EXPORT, change=_before_blobs(lambda world: make_odd("link", world.store.blob_path(OLD_WEIGHTS), world))
    )
    yield Row("G127 a blob becomes a link during its export", linked, (DAMAGED, INTEGRITY), moving=taken)
    yield Row(
        "G127 a manifest becomes a folder during an import",
        meeting(*IMPORT, change=_tag_taken),
        (UNSAFE, DAMAGED),
        moving=(f"models/manifests/{NAME.replace(':', '/')}", *_FOLDERS),
    )


_FOLDERS = ("models/manifests/registry.ollama.ai/library/tiny",)


def _before_blobs(change: Callable[[World], object]) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        read_blobs = LocalStore.read_blobs

        def after_a_change(
            store: LocalStore, wanted: Sequence[Wanted], held: Held
        ) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
            change(world)
            return read_blobs(store, wanted, held)

        world.patch.setattr(LocalStore, "read_blobs", after_a_change)

    return prepare


def _tag_taken(world: World) -> None:
    outcomes = StoreSink._outcomes

    def compared(sink: StoreSink, selection: Selection) -> object:
        found = outcomes(sink, selection)
        world.store.manifest_path(NAME).mkdir(parents=True, exist_ok=True)
        return found

    world.patch.setattr(StoreSink, "_outcomes", compared)


def where_rows() -> Iterator[Row]:
    places = {
        "does not exist": ("nowhere", (NOT_FOUND,)),
        "a file": ("models.canary", (USAGE,)),
        "below a file": ("models.canary/x", (NOT_FOUND, USAGE)),
        "a tilde, which nobody expands": ("~/models", (NOT_FOUND,)),
        "a dangling link": ("dangling", (NOT_FOUND,)),
        "with a pattern's characters": ("mod[e]ls*", (USAGE,)),
        "with a newline": ("no\nwhere", (NOT_FOUND,)),
        "with escapes": ("no\x1b\x07\x9bwhere", (NOT_FOUND,)),
        "not UTF-8": ("no\udcffwhere", (NOT_FOUND,)),
        "far too long": ("x" * 5000, (IO, NOT_FOUND, USAGE)),
    }
    commands = (("list",), ("verify",), ("show", "old"), EXPORT)
    for what, (text, codes) in places.items():
        for arguments in commands:
            yield Row(f"G141 OLLAMA_MODELS is {what} [{arguments[0]}]", _placed(text, *arguments), codes)
    for what, text in (
        ("relative", "models"),
        ("with a slash at its end", "models/"),
        ("with dots", "./outside/../models"),
    ):
        yield Row(f"G141 OLLAMA_MODELS is {what}", _placed(text, "list"), (DONE,), check=_lists_old)
    yield Row("G141 OLLAMA_MODELS is empty", _placed("", "list"), (NOT_FOUND,))
    yield Row(
        "G141 a parent that is not there, import",
        lambda world: ("import", world.good(), "--models", world.folder / "a" / "b"),
        (NOT_FOUND,),
    )
    yield Row("G141 a file, import", lambda world: ("import", world.good(), "--models", world.canary), (USAGE,))
    yield Row("G141 a dangling link, import", _into_dangling_link, (NOT_FOUND, USAGE, IO, UNSAFE, DAMAGED))
    yield Row(
        "G141 a refused bundle makes no store",
        lambda world: ("import", world.put(compressed(good_tar() + bytes(512))), "--models", world.folder / "new"),
        (FORMAT,),
    )


def _placed(text: str, *arguments: Argument) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        world.cwd = world.folder
        (world.folder / "dangling").symlink_to("nowhere")
        world.environment["OLLAMA_MODELS"] = text
        world.environment["HOME"] = str(world.folder / "home")
        return arguments

    return prepare


def _lists_old(_world: World, outcome: Outcome) -> None:
    assert "old:latest" in outcome.stdout


def _into_dangling_link(world: World) -> Sequence[Argument]:
    link = world.folder / "dangling"
    link.symlink_to("nowhere/deep")
    return ("import", world.good(), "--models", link)


def failing_disk_rows() -> Iterator[Row]:
    """The disk fails a call; the rest of the calls are tried by the fault injection tests."""
    for number, codes in (
        (errno.EIO, (IO,)),
        (errno.ENOSPC, (NO_SPACE,)),
        (errno.EDQUOT, (NO_SPACE,)),
        (errno.EROFS, (IO,)),
        (errno.EFBIG, (NO_SPACE,)),
        (errno.EMFILE, (IO,)),
    ):
        for module, call in ((writing, "write_all"), (durable, "sync_file")):
            name = f"H146 {call} fails with {errno.errorcode[number]}"
            yield Row(f"{name}, import", meeting(*IMPORT, change=_failing(module, call, number)), codes)
    yield Row(
        "H145 the medium is removed during the read",
        meeting(*IMPORT, change=_medium_removed),
        (IO,),
    )
    yield Row(
        "H145 the medium is removed during the write",
        meeting(*EXPORT, change=_failing(writing, "write_all", errno.EIO)),
        (IO,),
    )
    yield Row(
        "H146 the disk is full during an export",
        meeting(*EXPORT, change=_failing(writing, "write_all", errno.ENOSPC)),
        (NO_SPACE,),
    )


def _failing(module: object, call: str, number: int) -> Callable[[World], None]:
    def fail(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    return lambda world: world.patch.setattr(module, call, fail)


def _medium_removed(world: World) -> None:
    """Once the bundle's seek table is read, and before any frame is."""
    calls = iter(("first block", "footer", "table"))

    def fail(fd: int, size: int, offset: int) -> bytes:
        if next(calls, None):
            return read_at(fd, size, offset)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    world.patch.setattr(bytes_at, "read_at", fail)


def text_rows() -> Iterator[Row]:
    """What a model's texts hold is shown, but no terminal acts on it."""
    evil = b"\x1b]52;c;aGk=\x07\x1b[2J\r\x08\x9b\xff\xe2\x80\xae a\xcc\x81\n\0end"
    for part in (
        "--template",
        "--system",
        "--license",
        "--modelfile",
        "--config",
        "--manifest",
        "--parameters",
        "--json",
    ):
        yield Row(
            f"C72 escapes in texts, show {part}",
            meeting("show", "evil", part, change=lambda world: _put_evil(world, evil)),
            # Its parameters have a key that would bring a line of its own.
            (FORMAT,) if part == "--modelfile" else (DONE,),
        )
    yield Row(
        "C72 escapes in texts, show --modelfile without that key",
        meeting("show", "evil", "--modelfile", change=lambda world: _put_evil(world, evil, key="stop")),
        (DONE,),
    )
    yield Row(
        "C72 escapes in texts, show", meeting("show", "evil", change=lambda world: _put_evil(world, evil)), (DONE,)
    )
    yield Row("C72 escapes in texts, list", meeting("list", change=lambda world: _put_evil(world, evil)), (DONE,))


def _put_evil(world: World, text: bytes, key: str = "a\x1b\nb") -> None:
    world.is_terminal = True
    store = world.store
    shown = text.decode("utf-8", "replace")
    layers = [store.layer(kind, text) for kind in (TEMPLATE, SYSTEM, LICENSE)]
    layers.append(store.layer("application/vnd.ollama.image.params", dumped({key: [shown]})))
    config = store.config(model_family=shown, capabilities=[shown], requires=shown)
    store.add(full("evil:latest"), *layers, config=config)
