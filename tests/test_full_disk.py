"""On a disk full to the last byte, gc makes room, which is when people need it, and harms nothing else."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import ostore
from ostore.formats.errors import NoSpaceError
from ostore.places.store.removing import full_disk
from ostore.places.store.removing.full_disk import FullDisk
from ostore.places.store.survey.census import FoundEntry, take_census
from ostore.streams.durable import Directory
from tests.support import MODEL, OSTORE, Store, full, noise, sha256, tree
from tests.test_gc import batches, on_terminal, orphan, under
from tests.test_import import as_user, public_path

__all__ = ["public_path"]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(tool) is None for tool in ("mkfs.ext4", "mkfs.xfs", "setpriv")),
    reason="needs root, e2fsprogs, xfsprogs and setpriv",
)
SIZES = {"ext4": 32, "xfs": 320, "tmpfs": 16}
USER = 12345
LARGE = noise(300_000, 7)


@contextlib.contextmanager
def mounted(kind: str, image: Path, folder: Path) -> Iterator[Path]:
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZES[kind]}m", "tmpfs", str(folder)]
    else:
        with image.open("wb") as file:
            file.truncate(SIZES[kind] << 20)
        subprocess.run([f"mkfs.{kind}", "-q", image], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(image), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount {kind} here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def disk(request: pytest.FixtureRequest, public_path: Path) -> Iterator[Path]:
    """An empty disk of its own that any user may write to."""
    folder = public_path / "disk"
    folder.mkdir()
    with mounted(getattr(request, "param", "ext4"), public_path / "image", folder) as path:
        path.chmod(0o777)
        yield path


each_disk = pytest.mark.parametrize("disk", list(SIZES), indirect=True)


def fill(disk: Path, runner: list[str]) -> None:
    """Leave no room for a block, nor for a folder, to whoever `runner` is."""
    # A disk in memory counts folders apart from its bytes, and has a great many of them.
    script = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "fd = os.open('filler', os.O_WRONLY | os.O_CREAT)\n"
        "def grow():\n"
        "    for size in (1 << 24, 1 << 16, 4096):\n"
        "        try:\n"
        "            while True: os.posix_fallocate(fd, os.fstat(fd).st_size, size)\n"
        "        except OSError: pass\n"
        "try:\n"
        "    grow()\n"
        "    for number in range(200): os.mkdir(f'full-{os.getpid()}-{number}')\n"
        "except OSError: pass\n"
        "grow()\n"
    )
    # Allocation in advance is given back by the sync; then there is a little room again.
    for _ in range(2):
        subprocess.run([*runner, OSTORE[0], "-c", script, disk], check=True)
        subprocess.run(["sync", "-f", disk], check=True)


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> list[str]:
    return [] if getattr(request, "param", "a user") == "root" else as_user(USER)


each_runner = pytest.mark.parametrize("runner", ["a user", "root"], indirect=True)


def store_on(disk: Path, runner: list[str]) -> Store:
    store = Store(disk / "models")
    store.model("tiny:latest", b"weights " * 100, template=b"{{ .Prompt }}")
    for path in [store.root, *store.root.rglob("*")] if runner else ():
        os.chown(path, USER, USER)
    return store


def own(store: Store, runner: list[str]) -> None:
    for path in (store.root / "blobs").iterdir() if runner else ():
        os.chown(path, USER, USER)


def gc(store: Store, runner: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    return under(runner, "gc", "--grace", "0s", "--yes", *options, "--models", store.root)


@each_disk
@each_runner
def test_gc_makes_room_on_a_full_disk_and_says_all_that_went(disk: Path, runner: list[str]) -> None:
    store = store_on(disk, runner)
    before = tree(store.root)
    gone = [orphan(store, data) for data in (LARGE, b"a small one " * 400, b"another " * 600)]
    own(store, runner)
    fill(disk, runner)
    done = gc(store, runner, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert sorted(blob["filename"] for blob in report["removed"]) == sorted(path.name for path in gone)
    assert report["freed"] == sum(blob["allocated"] for blob in report["removed"])
    assert tree(store.root) == before
    assert batches(store) == []
    assert ostore.verify(models=store.root)[0].verdict == "whole"


@each_disk
def test_what_needs_a_record_ends_with_7_and_names_gc_if_that_helps(disk: Path, runner: list[str]) -> None:
    store = store_on(disk, runner)
    orphan(store, LARGE)
    own(store, runner)
    fill(disk, runner)
    before = tree(store.root)
    hints = []
    for command in (["gc", "--keep", "1h", "--grace", "0s"], ["rm", "tiny"]):
        done = under(runner, *command, "--yes", "--models", store.root)
        assert done.returncode == 7, done.stderr
        hints.append(done.stderr)
    assert tree(store.root) == before
    assert batches(store) == []
    # To one that looks as young as this, gc without --grace would not help.
    assert all("free some 100 KB" in hint for hint in hints)
    ahead = [] if shutil.which("faketime") is None else ["faketime", "-f", "+3d"]
    if ahead:
        done = under([*ahead, *runner], "rm", "tiny", "--yes", "--models", store.root)
        assert (done.returncode, f"(ostore gc --models {store.root} makes room first" in done.stderr) == (7, True), (
            done.stderr
        )


def test_without_an_orphan_gc_on_a_full_disk_has_nothing_to_do(disk: Path, runner: list[str]) -> None:
    store = store_on(disk, runner)
    fill(disk, runner)
    before = tree(store.root)
    done = gc(store, runner)
    assert (done.returncode, tree(store.root)) == (0, before), done.stderr
    assert "nothing to reclaim" in done.stdout


@each_disk
def test_a_single_small_orphan_goes_although_its_room_is_not_enough_for_the_record(
    disk: Path, runner: list[str]
) -> None:
    store = store_on(disk, runner)
    before = tree(store.root)
    path = orphan(store, b"x")
    own(store, runner)
    fill(disk, runner)
    done = gc(store, runner)
    assert (done.returncode, path.exists()) == (0, False), done.stderr
    assert "1 orphan" in done.stdout
    assert tree(store.root) == before


def test_nothing_goes_on_a_full_disk_while_a_manifest_is_in_doubt(disk: Path, runner: list[str]) -> None:
    store = store_on(disk, runner)
    orphan(store, LARGE)
    store.write_manifest(full("broken:latest"), b"{")
    own(store, runner)
    fill(disk, runner)
    before = tree(store.root)
    assert gc(store, runner).returncode == 10
    assert tree(store.root) == before


def test_what_a_model_came_to_need_before_the_answer_stays_on_a_full_disk(disk: Path) -> None:
    store = store_on(disk, [])
    needed, other = orphan(store, LARGE), orphan(store, b"another orphan " * 400)
    # Written over in place once the plan is shown: for that a full disk has room.
    layer = {"mediaType": MODEL, "digest": f"sha256:{sha256(LARGE)}", "size": len(LARGE)}
    late = store.add(full("late:latest"), store.layer(MODEL, b"weights of its own"))
    document = json.loads(late.read_text())
    document["layers"] = [layer]
    fill(disk, [])

    def pull_and_agree(_: object) -> str:
        late.write_text(json.dumps(document, separators=(",", ":")) + "\n")
        return "y\n"

    done = on_terminal(pull_and_agree, "gc", "--grace", "0s", "--models", store.root)
    assert done.returncode == 0, done.stderr
    assert (needed.exists(), other.exists()) == (True, False)
    assert ostore.verify(models=store.root)[0].verdict == "whole"


def test_a_young_orphan_stays_on_a_full_disk(disk: Path) -> None:
    store = store_on(disk, [])
    old = orphan(store, b"old " * 2000)
    time.sleep(2.1)
    young = orphan(store, LARGE)
    fill(disk, [])
    # However long gc takes to start.
    os.utime(young, times=(time.time() + 3600,) * 2)
    done = under([], "gc", "--grace", "2s", "--yes", "--models", store.root)
    assert (done.returncode, old.exists(), young.exists()) == (0, False, True), done.stderr


@pytest.mark.parametrize("number", [1, 2])
def test_what_changes_right_before_it_is_to_go_stays_on_a_full_disk(
    disk: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = store_on(disk, [])
    orphans = [orphan(store, data) for data in (LARGE, b"another orphan " * 400)[:number]]
    fill(disk, [])
    real = FullDisk.remove

    def late(room: FullDisk, files: Sequence[FoundEntry], *, latest: float) -> bool:
        later = time.time() + 1
        os.utime(orphans[0], (later, later))
        return real(room, files, latest=latest)

    monkeypatch.setattr(FullDisk, "remove", late)
    if number == 1:
        with pytest.raises(NoSpaceError):
            ostore.gc(models=store.root, grace=0)
    else:
        report = ostore.gc(models=store.root, grace=0)
        assert report is not None
        assert [blob.digest.replace(":", "-") for blob in report.removed] == [orphans[1].name]
    assert [path.exists() for path in orphans] == [True, False][:number]


def test_where_not_even_leftovers_can_be_cleared_an_orphan_makes_room(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_on(disk, [])
    dead = store.root / ".ostore/tx/1-00000000"
    dead.mkdir(parents=True, mode=0o700)
    (dead / "blob.part").write_bytes(b"x" * 5000)
    path = orphan(store, LARGE)
    fill(disk, [])

    def full_too(*_arguments: object) -> None:
        monkeypatch.undo()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # A double: some disks need room for it, none that a test can have.
    monkeypatch.setattr(full_disk, "clear_leftovers", full_too)
    report = ostore.gc(models=store.root, grace=0)
    assert report is not None
    assert (path.exists(), dead.exists(), len(report.removed)) == (False, False, 1)


def test_what_a_killed_import_left_makes_room_too(disk: Path, runner: list[str]) -> None:
    store = store_on(disk, runner)
    dead = store.root / ".ostore/tx/1-00000000"
    dead.mkdir(parents=True, mode=0o700)
    (dead / f"sha256-{sha256(LARGE)}.part").write_bytes(LARGE)
    orphan(store, b"x")
    for path in [*store.root.rglob("*")] if runner else ():
        os.chown(path, USER, USER)
    fill(disk, runner)
    done = gc(store, runner, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["leftovers"], len(report["removed"])) == (1, 1)
    assert report["freed"] >= len(LARGE)
    assert not dead.exists()


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_a_given_up_download_makes_room_too(disk: Path, runner: list[str]) -> None:
    store = store_on(disk, runner)
    part = store.root / "blobs" / f"sha256-{sha256(LARGE)}-partial"
    part.write_bytes(LARGE)
    part.with_name(f"{part.name}-0").write_text("{}")
    own(store, runner)
    fill(disk, runner)
    later = [*runner, "faketime", "-f", "+8d"]
    assert under(later, "gc", "--yes", "--models", store.root).returncode == 0
    assert part.exists()
    done = under(later, "gc", "--partials", "--yes", "--json", "--models", store.root)
    assert done.returncode == 0, done.stderr
    assert [download["files"] for download in json.loads(done.stdout)["downloads"]] == [2]
    assert sorted(path.name for path in part.parent.iterdir() if "partial" in path.name) == []


@each_disk
@each_runner
def test_the_disk_of_these_tests_is_full(disk: Path, runner: list[str]) -> None:
    store_on(disk, runner)
    fill(disk, runner)
    script = "import os, sys; os.chdir(sys.argv[1]); os.mkdir('m'); open('f', 'xb', 0).write(b'x' * 50)"
    done = subprocess.run(
        [*runner, OSTORE[0], "-c", script, disk / "models"], check=False, capture_output=True, text=True
    )
    assert os.strerror(errno.ENOSPC) in done.stderr


def test_a_link_on_a_full_disk_is_compared_by_its_own_status(store: Store) -> None:
    (store.root / "blobs" / f"sha256-{sha256(b'link')}").symlink_to("/nowhere")
    (link,) = [blob for blob in take_census(store.root).blobs if blob.digest.hex == sha256(b"link")]
    found = FoundEntry(link.filename, link.facts)
    with Directory.open(store.root / "blobs") as blobs, contextlib.ExitStack() as opened:
        assert full_disk._is_unchanged(blobs, found, float("inf"), opened)
        (store.root / "blobs" / link.filename).unlink()
        assert not full_disk._is_unchanged(blobs, found, float("inf"), opened)
