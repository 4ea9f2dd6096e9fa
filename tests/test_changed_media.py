"""Media that are changed one after the other at a terminal. Small disks stand for sticks."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import ostore
from ostore.formats.errors import NoSpaceError
from ostore.places.bundle import volume_export
from ostore.places.bundle.volume_folders import VolumeFolder
from tests.documents import ROOT
from tests.support import Store, tree
from tests.volumes import NAME, SIZE, five_folders, five_volumes, imported, needs_par2, volumes, with_room

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("nsenter"),
    reason="needs root, to mount disks",
)
CTRL_C, CTRL_D = "Ctrl-C", "Ctrl-D"
TO_STICK = (f"stick/{NAME}", "--split", str(SIZE))
SECOND, THIRD = (f"umount stick; mount --bind {disk} stick" for disk in ("s2", "s3"))
ASKED = "volume 4: no room for 20 KB in stick; insert the next medium there, then press Enter"
AGAIN = "volume 4: needs 20 KB; insert another medium in stick, then press Enter"


class Session(NamedTuple):
    """What a person has seen, how it ended, and copies of the disks in `kept`, with what is below the mount point."""

    lines: list[str]
    code: int
    kept: Path

    def names(self, disk: str) -> list[str]:
        return sorted(path.name for path in (self.kept / disk).iterdir())


@pytest.fixture
def models(tmp_path: Path) -> Store:
    return five_volumes(tmp_path / "models")


def session(
    folder: Path, words: Sequence[str], steps: Sequence[str], *, room: str = "64k", before: str = "", after: str = ""
) -> Session:
    """
    Export at a terminal, with the disk s1 mounted at `stick`. Each step is what is typed in a shell at a question.

    `before` is typed before that, and `after` once it has ended; there, "$@" is the command.
    """
    disks = ("s1", "s2", "s3")
    for name in (*disks, "stick", "kept"):
        (folder / name).mkdir()
    plugged = "".join(f"mount -t tmpfs -o size={room} none {disk} || exit 77\n" for disk in disks)
    script = (
        f'{plugged}mount --bind s1 stick\n{before}\n"$@"\ncode=$?\n{after}\n'
        "cp -R s1 s2 s3 kept\numount stick\ncp -R stick kept\nexit $code"
    )
    command = [sys.executable, "-m", "ostore", "export", "--all", *words, "--models", "models"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300", "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    left, shown = list(steps), ""
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 65536):
            shown += piece.decode()
            if shown.endswith("press Enter "):
                _do(left.pop(0) if left else CTRL_D, process.pid, ours, folder)
    os.close(ours)
    code = process.wait(30)
    if code == 77:
        pytest.skip(f"no disks here: {shown}")
    assert left == [], shown
    return Session([line.strip() for line in shown.splitlines()], code, folder / "kept")


def _do(step: str, shell: int, terminal: int, folder: Path) -> None:
    if step == CTRL_D:
        os.write(terminal, b"\x04")
    elif step == CTRL_C:
        (program,) = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        os.kill(int(program), signal.SIGINT)
    else:
        entered = ["nsenter", "-t", str(shell), "--mount", "sh", "-ec"]
        subprocess.run([*entered, f"cd {folder}; {step}"], check=True)
        os.write(terminal, b"\n")


def assert_whole(done: Session, models: Store, folder: Path, disks: Sequence[str]) -> None:
    """The export has ended well, and what is on these disks is the store."""
    assert done.code == 0, done.lines
    places = [done.kept / disk for disk in disks]
    assert len(volumes(places)) == 5
    imported(folder, places[-1] / NAME, *places[:-1])
    assert tree(folder / "other") == tree(models.root)


@pytest.mark.parametrize(
    ("room", "parity", "asked"),
    [
        ("64k", [], "volume 4: no room for 20 KB in stick"),
        pytest.param("160k", ["--parity", "5%"], "volume 4: no room for 126 KB in stick", marks=needs_par2),
    ],
)
def test_the_next_medium_is_asked_for(models: Store, tmp_path: Path, room: str, parity: list[str], asked: str) -> None:
    done = session(tmp_path, [*TO_STICK, *parity], [SECOND], room=room)
    assert [line.partition(";")[0] for line in done.lines if "insert the next medium there" in line] == [asked]
    assert_whole(done, models, tmp_path, ["s1", "s2"])


def test_nothing_is_written_into_the_folder_where_no_medium_is_mounted(models: Store, tmp_path: Path) -> None:
    steps = ["umount stick", "rmdir stick", "mkdir stick; mount --bind s2 stick"]
    done = session(tmp_path, TO_STICK, steps)
    asked = [done.lines.index(line) for line in ("stick: no medium is mounted there", "stick: no such folder")]
    assert [done.lines[number + 1] for number in asked] == [AGAIN, AGAIN]
    assert done.names("stick") == []
    assert_whole(done, models, tmp_path, ["s1", "s2"])


def test_a_folder_that_was_never_a_mount_point_may_be_emptied(models: Store, tmp_path: Path) -> None:
    """Its disk is that of the folder above, and it stays so."""
    done = session(tmp_path, [f"s1/sub/{NAME}", "--split", str(SIZE)], ["mv s1/sub/* s2"], before="mkdir s1/sub")
    assert_whole(done, models, tmp_path, ["s2", "s1/sub"])


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        # The old set has the names that the volumes on the first medium have.
        (f"echo old | tee s2/{NAME}.001 s2/{NAME}.sha256", f"stick/{NAME}.001: exists"),
        (f"echo old > s2/{NAME}", f"stick/{NAME}: exists"),
        ("mount -o remount,ro s2", f"stick/{NAME}.parts: Read-only file system"),
        (
            f"mkdir -m 700 s2/{NAME}.parts; echo > s2/{NAME}.parts/theirs; chown -R 1234 s2/{NAME}.parts",
            f"stick/{NAME}.parts: belongs to another user",
        ),
    ],
)
def test_a_medium_that_will_not_do_is_told_and_another_one_asked_for(
    models: Store, tmp_path: Path, spoilt: str, told: str
) -> None:
    done = session(tmp_path, TO_STICK, [SECOND, THIRD], before=f"{spoilt}; cp -R s2 kept/before")
    assert [line for line in done.lines if line in {ASKED, AGAIN, told}] == [ASKED, told, AGAIN]
    assert tree(done.kept / "s2") == tree(done.kept / "before")
    assert_whole(done, models, tmp_path, ["s1", "s3"])


def test_a_medium_that_another_export_holds_is_told(
    models: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick = five_folders(tmp_path)[0]
    problems: list[str] = []
    with contextlib.ExitStack() as held:

        def change(_number: int, _needed: int, folders: Sequence[Path], problem: str) -> None:
            problems.append(problem)
            if problem:
                held.close()
                return
            folders[0].rename(tmp_path / "full")
            folders[0].mkdir()
            held.enter_context(VolumeFolder.opened(folders[0], NAME))

        with_room(monkeypatch, lambda path: 70_000 - sum(file.stat().st_size for file in path.rglob("*")))
        ostore.export(["*"], NAME, split=SIZE, to=[stick], next_medium=change, models=models.root)
    assert problems == ["", f"{stick / NAME}.parts: another export is writing there"]
    assert len(volumes([stick, tmp_path / "full"])) == 5


def test_a_medium_that_holds_no_file_of_that_size_is_told(
    models: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FAT, of which a test cannot fill 4 GiB."""
    stick = five_folders(tmp_path)[0]
    problems: list[str] = []

    def change(_number: int, _needed: int, folders: Sequence[Path], problem: str) -> None:
        problems.append(problem)
        folders[0].rename(tmp_path / f"out-{len(problems)}")
        folders[0].mkdir()

    def refuse(_fd: int, path: Path, _size: int) -> None:
        if len(problems) == 1:
            raise NoSpaceError(f"{path}: too large")

    with_room(monkeypatch, lambda path: 70_000 - sum(file.stat().st_size for file in path.rglob("*")))
    monkeypatch.setattr(volume_export, "refuse_too_large", refuse)
    ostore.export(["*"], NAME, split=SIZE, to=[stick], next_medium=change, models=models.root)
    assert problems == ["", f"{stick / NAME}.004: too large"]
    assert list((tmp_path / "out-2").iterdir()) == []
    assert len(volumes([stick, tmp_path / "out-1"])) == 5


def test_a_medium_that_stays_while_another_is_changed_keeps_its_volumes(
    models: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `replace`, only an old set is refused, not what the same export has written there."""
    first, second = five_folders(tmp_path)[:2]

    def change(_number: int, _needed: int, folders: Sequence[Path], problem: str) -> None:
        assert not problem
        folders[0].rename(tmp_path / "full")
        folders[0].mkdir()

    with_room(monkeypatch, lambda path: 49_000 - sum(file.stat().st_size for file in path.rglob("*")))
    ostore.export(["*"], NAME, split=SIZE, to=[first, second], next_medium=change, models=models.root)
    assert len(volumes([first, second, tmp_path / "full"])) == 5
    assert [path.name[-3:] for path in volumes([second])] == ["002", "004"]


def test_what_an_export_that_was_killed_has_left_on_a_medium_goes(models: Store, tmp_path: Path) -> None:
    parts = f"s2/{NAME}.parts"
    done = session(
        tmp_path, TO_STICK, [SECOND], before=f"mkdir {parts}; echo | tee {parts}/{NAME}.004 {parts}/{NAME}.009"
    )
    assert done.names("s2") == [f"{NAME}.{end}" for end in ("004", "005", "RESTORE.txt", "sha256")]
    assert_whole(done, models, tmp_path, ["s1", "s2"])


def _old(disk: str, size: int = 50_000) -> str:
    return f"head -c {size} /dev/zero > {disk}/{NAME}.007"


STAYS = f"stick: if this medium stays, the old {NAME} is removed from it first"


def removed(number: int) -> str:
    return f"ostore: warning: stick: no room for volume {number} beside the old {NAME}, which was removed"


def test_an_old_set_makes_room_if_it_is_to_be_replaced(models: Store, tmp_path: Path) -> None:
    done = session(tmp_path, [*TO_STICK, "--replace"], ["true", SECOND], before=f"{_old('s1')}; {_old('s2')}")
    told = [line for line in done.lines if line in {STAYS, ASKED, removed(1), removed(4)}]
    assert told == [STAYS, removed(1), ASKED, removed(4)]
    assert done.names("s1") == [f"{NAME}.{end}" for end in ("001", "002", "003", "sha256")]
    assert done.names("s2") == [f"{NAME}.{end}" for end in ("004", "005", "RESTORE.txt", "sha256")]
    assert_whole(done, models, tmp_path, ["s1", "s2"])


def test_an_old_set_stays_until_there_is_no_room_beside_it(models: Store, tmp_path: Path) -> None:
    """The change of media would remove it then."""
    done = session(tmp_path, [*TO_STICK, "--replace"], [SECOND], before=_old("s1", 25_000))
    assert removed(2) in done.lines
    assert STAYS not in done.lines
    assert_whole(done, models, tmp_path, ["s1", "s2"])


@pytest.mark.parametrize("words", [[], ["--replace"]])
def test_an_old_set_stays_on_a_medium_that_has_no_room_without_it_either(
    models: Store, tmp_path: Path, words: list[str]
) -> None:
    before = f"{_old('s2', 4000)}; head -c 50000 /dev/zero > s2/else"
    done = session(tmp_path, [*TO_STICK, *words], [SECOND, THIRD], before=before)
    assert done.names("s2") == ["else", f"{NAME}.007"]
    assert_whole(done, models, tmp_path, ["s1", "s3"])


def test_an_old_set_stays_on_a_first_medium_that_is_taken_out(models: Store, tmp_path: Path) -> None:
    steps = [SECOND, THIRD]
    done = session(tmp_path, [*TO_STICK, "--replace"], steps, before=_old("s1"))
    assert STAYS in done.lines
    assert done.names("s1") == [f"{NAME}.007"]
    assert_whole(done, models, tmp_path, ["s2", "s3"])


SO_FAR = (
    "what is on the media so far has its name, but the set is not whole; the same command starts from the beginning"
)


def test_after_a_change_the_same_command_starts_from_the_beginning_and_says_what_it_needs(
    models: Store, tmp_path: Path
) -> None:
    steps = [SECOND, CTRL_C, "true", SECOND, THIRD]
    after = 'umount stick; mount --bind s1 stick; "$@"; "$@" --replace; code=$?'
    done = session(tmp_path, TO_STICK, steps, room="44k", after=after)
    assert f"ostore: interrupted; {SO_FAR}, and needs --replace for these media" in done.lines
    assert f"ostore: error[usage]: stick/{NAME}.001: exists (--replace overwrites it)" in done.lines
    assert_whole(done, models, tmp_path, ["s1", "s2", "s3"])


def test_at_the_end_of_the_input_the_same_is_said(models: Store, tmp_path: Path) -> None:
    done = session(tmp_path, [*TO_STICK, "--replace"], [CTRL_D])
    assert done.lines[-1] == f"ostore: error[usage]: volume 4: no medium, and no more input ({SO_FAR} and replaces it)"
    assert models.root.exists()


def test_before_the_first_volume_there_is_nothing_to_replace(models: Store, tmp_path: Path) -> None:
    done = session(tmp_path, TO_STICK, [CTRL_C], before="head -c 60000 /dev/zero > s1/else")
    assert done.lines[-1] == "ostore: interrupted; there is no new bundle; the same command starts from the beginning"
    assert done.code == 130
    assert done.names("s1") == ["else"]
    assert models.root.exists()


@pytest.mark.parametrize(
    ("room", "to", "told"),
    [
        ("640k", ["s1", "s2"], " (1.3 MB free)"),
        ("640k", ["s1", "stick"], " (655 KB free)"),
        # It has no limit, so it tells none.
        ("0", ["s1"], ""),
    ],
)
def test_the_room_is_that_of_the_folders_of_the_volumes(
    models: Store, tmp_path: Path, room: str, to: list[str], told: str
) -> None:
    words = [NAME, "--split", str(SIZE), *(word for folder in to for word in ("--to", folder))]
    done = session(tmp_path, words, [], room=room, before="umount stick; mkdir s1/sub; mount --bind s1/sub stick")
    assert f"to export: 2 models, 70 KB -> {NAME}{told}" in done.lines
    assert done.code == 0
    assert models.root.exists()
