"""Part H, continued: volumes on media, and the parity beside them."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import ostore
from ostore.formats.digest import Digest
from ostore.formats.volume_set import write_sums
from tests.hostile.rows import DONE, FORMAT, INTEGRITY, UNSAFE, USAGE, Argument, Prepare, Row, World, good
from tests.support import Store, noise

NAME = "in.tar.zst"
_COUNT = 5
_LIST = f"{NAME}.sha256"


def volume_rows() -> Iterator[Row]:
    yield Row("H143 volumes as they should be", _cut(lambda _: None), (DONE,))
    yield Row("H143 volumes in another order", _cut(_swap), (INTEGRITY,), "under another name")
    unlisted = (INTEGRITY, FORMAT)
    yield Row("H143 volumes in another order, and no list", _cut(_swap, _unlist), unlisted, f"{NAME}")
    yield Row("H143 one volume twice", _cut(_twice), (INTEGRITY,), f"is {NAME}.002 under another name")
    yield Row("H143 one volume twice, and no list", _cut(_twice, _unlist), unlisted)
    yield Row("H143 volume of another set", _cut(_of_another_set), (INTEGRITY,), f"{NAME}.003 is damaged")
    for number in range(1, _COUNT + 1):
        lost = _without(f"{NAME}.{number:03}")
        yield Row(f"H143 volume {number} missing", _cut(lost), (INTEGRITY,), f"{NAME}.{number:03} is missing")
    yield Row("H143 all volumes missing but the list", _cut(_only_the_list), (INTEGRITY,), f"{NAME}.001 is missing")
    yield Row(
        "H143 last volume missing, and no list", _cut(_without(f"{NAME}.005"), _unlist), (INTEGRITY,), "truncated"
    )
    yield Row("H143 volumes of different sizes", _cut(_shorten, _unlist), (INTEGRITY,), "is damaged: expected")
    yield Row("H143 volume that is empty", _cut(_written(f"{NAME}.003", b"")), (INTEGRITY,), f"{NAME}.003 is damaged")
    yield Row("H143 volume of an older set beyond the list", _cut(_written(f"{NAME}.006", b"old")), (DONE,))
    yield Row("H143 list of the first volume only", _cut(_listed(1)), (DONE,))
    yield Row(
        "H143 list of the first volume only, and volume of an older set",
        _cut(_listed(1), _written(f"{NAME}.006", b"old")),
        (INTEGRITY,),
        "says nothing of",
    )
    yield Row("H143 volume of an older set, and no list", _cut(_written(f"{NAME}.006", b"old"), _unlist), unlisted)
    yield Row(
        "H143 foreign files beside volumes",
        _cut(_written("x_notes.002", b"x"), _written(f"{NAME}.001.1", b"x")),
        (DONE,),
    )
    yield Row("H143 volume that is a FIFO", _cut(_fifo), (INTEGRITY,), f"{NAME}.002 is missing")
    yield Row("H143 volume that is a folder", _cut(_folder), (INTEGRITY,), f"{NAME}.002 is missing")
    yield Row("H143 999 volumes", _in_many, (DONE,))
    for what, content in {
        "empty": b"",
        "random": noise(5000),
        "of 10 MiB": b"x" * 10 * 1024 * 1024,
        "of paths that climb": f"{'0' * 64}  ../{NAME}.001\n".encode(),
        "of false digests": write_sums(NAME, [Digest("0" * 64)] * _COUNT),
    }.items():
        # The list is a hint: the bundle itself decides.
        yield Row(f"H143 list {what}", _cut(_written(_LIST, content)), (DONE,))
    endless = write_sums(NAME, [Digest("0" * 64)] * 999)
    yield Row("H143 list of 999 volumes", _cut(_written(_LIST, endless)), (INTEGRITY,), "and 989 more")
    yield Row("H143 list that is a device", _cut(_device), (DONE,))
    yield from _parity_rows()


def _parity_rows() -> Iterator[Row]:
    for what, path in {"climbs": "../evil", "is absolute": "/tmp/evil", "is none of ours": "evil"}.items():  # noqa: S108
        yield Row(
            f"H164 parity whose path {what}", _with_parity("20%", _describing(path)), (UNSAFE,), "expected parity"
        )
    inside = _appended(packet(b"PAR 2.0\0IFSC\0\0\0\0", bytes(16) + description("../evil")))
    yield Row("H164 parity with a packet inside of a packet", _with_parity("20%", inside), (UNSAFE,), "a packet inside")
    yield Row("H165 damage within the parity", _with_parity("20%", _scratch(10)), (DONE,))
    yield Row("H165 damage beyond the parity", _with_parity("5%", _scratch(60)), (INTEGRITY,), "recovery blocks short")
    yield Row("H165 parity that is empty", _with_parity("5%", _scratch(10), _emptied), (INTEGRITY,), "no parity")
    yield Row("H165 parity that is noise", _with_parity("5%", _scratch(10), _noisy), (INTEGRITY,), "no parity")
    yield Row("H166 parity that makes other content", _exchanged, (INTEGRITY,), "makes other volumes")
    yield Row("H166 parity of a file of 8 EiB", _with_parity("5%", _huge), (INTEGRITY, 7))
    yield Row("H165 parity, and no program for it", _without_par2, (USAGE,), "par2 is not installed")


Change = Callable[[Path], object]


def _cut(*changes: Change) -> Prepare:
    """A good bundle in five volumes, changed."""

    def prepare(world: World) -> Sequence[Argument]:
        _volumes(world.folder, good(), _COUNT)
        for change in changes:
            change(world.folder)
        return ("import", world.folder / NAME, *world.at)

    return prepare


def _volumes(folder: Path, bundle: bytes, count: int) -> None:
    size = -(-len(bundle) // count)
    pieces = [bundle[start : start + size] for start in range(0, len(bundle), size)]
    for number, piece in enumerate(pieces, 1):
        (folder / f"{NAME}.{number:03}").write_bytes(piece)
    (folder / _LIST).write_bytes(write_sums(NAME, map(Digest.of, pieces)))


def _in_many(world: World) -> Sequence[Argument]:
    bundle = good()
    size = -(-len(bundle) // 999)
    _volumes(world.folder, bundle, -(-len(bundle) // size))
    return ("import", world.folder / NAME, *world.at)


def _swap(folder: Path) -> None:
    first, second = (folder / f"{NAME}.{number:03}" for number in (1, 2))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def _twice(folder: Path) -> None:
    shutil.copyfile(folder / f"{NAME}.002", folder / f"{NAME}.003")


def _of_another_set(folder: Path) -> None:
    path = folder / f"{NAME}.003"
    path.write_bytes(noise(path.stat().st_size))


def _shorten(folder: Path) -> None:
    os.truncate(folder / f"{NAME}.002", 10)


def _unlist(folder: Path) -> None:
    (folder / _LIST).unlink()


def _listed(count: int) -> Change:
    """Let the list be that of a medium that was written when so many volumes were."""

    def change(folder: Path) -> None:
        lines = (folder / _LIST).read_text().splitlines(keepends=True)
        (folder / _LIST).write_text("".join(lines[:count]))

    return change


def _only_the_list(folder: Path) -> None:
    for path in folder.glob(f"{NAME}.0*"):
        path.unlink()


def _fifo(folder: Path) -> None:
    (folder / f"{NAME}.002").unlink()
    os.mkfifo(folder / f"{NAME}.002")


def _folder(folder: Path) -> None:
    (folder / f"{NAME}.002").unlink()
    (folder / f"{NAME}.002").mkdir()


def _device(folder: Path) -> None:
    (folder / _LIST).unlink()
    (folder / _LIST).symlink_to("/dev/zero")


def _without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def _written(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def _with_parity(parity: str, *changes: Change) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        _exported(world.folder, parity, seed=1)
        for change in changes:
            change(world.folder)
        return ("import", world.folder / NAME, *world.at)

    return prepare


def _exported(folder: Path, parity: str, *, seed: int) -> None:
    store = Store(folder / "theirs")
    store.model("new:latest", noise(100_000, seed))
    ostore.export(["*"], folder / NAME, split=40_000, parity=parity, models=store.root)
    shutil.rmtree(store.root)


def _scratch(blocks: int) -> Change:
    """Damage so many blocks of 1,024 bytes, all but in the index: each has one wrong byte."""

    def change(folder: Path) -> None:
        places = [(number, offset) for number in (2, 3) for offset in range(0, 40_000, 1024)]
        for number, offset in places[:blocks]:
            path = folder / f"{NAME}.{number:03}"
            content = bytearray(path.read_bytes())
            content[min(offset, len(content) - 1)] ^= 1
            path.write_bytes(content)

    return change


def _describing(path: str) -> Change:
    return _appended(description(path))


def _appended(packet: bytes) -> Change:
    """Add a packet to the parity, and lose a volume, so that it is used."""

    def change(folder: Path) -> None:
        with (folder / f"{NAME}.par2").open("ab") as file:
            file.write(packet)
        (folder / f"{NAME}.002").unlink()

    return change


def _emptied(folder: Path) -> None:
    for path in folder.glob("*.par2"):
        path.write_bytes(b"")


def _noisy(folder: Path) -> None:
    for path in folder.glob("*.par2"):
        path.write_bytes(noise(5000))


def _huge(folder: Path) -> None:
    """Parity that would have a program make a file of 2^63 bytes in place of the volume that is lost."""
    _emptied(folder)
    main = packet(b"PAR 2.0\0Main\0\0\0\0", struct.pack("<QI", 1024, 1) + b"\1" * 16)
    (folder / f"{NAME}.par2").write_bytes(main + description(f"{NAME}.002", 2**63 - 1))
    (folder / f"{NAME}.002").unlink()


def _exchanged(world: World) -> Sequence[Argument]:
    """The volumes of one store, one of them lost, with all the parity of another store's."""
    _exported(world.folder, "5%", seed=1)
    other = world.folder / "other"
    other.mkdir()
    _exported(other, "100%", seed=2)
    for path in world.folder.glob("*.par2"):
        path.unlink()
    for path in other.glob("*.par2"):
        path.rename(world.folder / path.name)
    (world.folder / f"{NAME}.002").unlink()
    return ("import", world.folder / NAME, *world.at)


def _without_par2(world: World) -> Sequence[Argument]:
    arguments = _with_parity("20%", _scratch(10))(world)
    world.patch.setitem(__import__("sys").modules, "par2.cli", None)
    world.patch.setenv("PATH", "")
    return arguments


def description(path: str, length: int = 5) -> bytes:
    name = path.encode()
    return packet(b"PAR 2.0\0FileDesc", bytes(48) + struct.pack("<Q", length) + name + bytes(-len(name) % 4))


def packet(kind: bytes, body: bytes) -> bytes:
    hashed = bytes(16) + kind + body
    digest = hashlib.md5(hashed, usedforsecurity=False).digest()
    return b"PAR2\0PKT" + struct.pack("<Q", 32 + len(hashed)) + digest + hashed
