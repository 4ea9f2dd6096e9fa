"""The disk keeps equal bytes once: on real btrfs and XFS, and on disks that cannot."""

from __future__ import annotations

import errno
import os
import pty
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ostore
from ostore.cli.exit_codes import CODES
from ostore.streams.extents import share_extents
from tests.gguf import ONE_LAYER, gguf
from tests.support import OSTORE, Store, noise, sha256, tree, unmeasured
from tests.support import ostore as run
from tests.test_foreign_caches import cached_repository, put
from tests.test_json import report

# Not whole blocks, and more than one stretch of 16 MiB.
WEIGHTS = noise(36_000_123)
MAKERS = {"btrfs": ["mkfs.btrfs", "-q", "-f"], "xfs": ["mkfs.xfs", "-q", "-f"], "ext4": ["mkfs.ext4", "-q", "-F"]}
SOMEBODY = 12_345
MODEL = gguf(ONE_LAYER, {"token_embd.weight": ((32, 65_536), [0.5, 1.5])})

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount disks")


@contextmanager
def disk(folder: Path, kind: str, *options: str) -> Iterator[Path]:
    """A file system of its own on a loop device."""
    (name, *flags) = MAKERS[kind]
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    image = folder / f"{kind}.image"
    mounted = folder / kind
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(400 * 1024 * 1024)
    subprocess.run([name, *flags, *options, image], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", image, mounted], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no {kind} here: {done.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=True)
        image.unlink()


@contextmanager
def ram_disk(folder: Path) -> Iterator[Path]:
    mounted = folder / "ram"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", mounted], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.fixture(params=["btrfs", "xfs"])
def sharing_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path, request.param) as mounted:
        yield mounted


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path, "btrfs") as mounted:
        yield mounted


def kept_twice(folder: Path) -> tuple[Store, Path, Path]:
    """A store, a cache of the Hub with the same model, and the file of it there."""
    store, cache = Store(folder / "models"), folder / "hub"
    store.model("big:latest", WEIGHTS, license=b"MIT")
    repository = cached_repository(cache, "org/repo", {"q4.gguf": WEIGHTS})
    return store, cache, repository / "blobs" / sha256(WEIGHTS)


def used(folder: Path) -> int:
    """Bytes in use, as `df` says, once the disk has settled."""
    subprocess.run(["sync", "-f", folder], check=True)
    done = subprocess.run(["df", "-B1", "--output=used", folder], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def facts(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return (status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size,
            status.st_mtime_ns, status.st_ctime_ns)  # fmt: skip


def test_sharing_gives_the_space_back_and_changes_nothing_that_can_be_seen(sharing_disk: Path) -> None:
    store, cache, file = kept_twice(sharing_disk)
    os.chown(file, 1234, 2345)
    file.chmod(0o440)
    files = (file, store.blob_path(WEIGHTS))
    before, before_facts, before_tree = used(sharing_disk), [*map(facts, files)], tree(sharing_disk)
    document = report("dedup", "dedup", cache, "--link", "--yes", models=store.root)
    assert before - used(sharing_disk) > 0.9 * len(WEIGHTS)
    assert [*map(facts, files)] == before_facts
    assert tree(sharing_disk) == before_tree
    assert (document["linked_size"], document["dry_run"]) == (len(WEIGHTS), False)
    assert run("verify", "--models", store.root).returncode == 0


def test_what_is_shared_already_is_known_and_neither_read_nor_shared_again(sharing_disk: Path, tmp_path: Path) -> None:
    store, cache, _ = kept_twice(sharing_disk)
    put(sharing_disk / "g/unnamed.gguf", WEIGHTS)
    first = report("dedup", "dedup", cache, sharing_disk / "g", "--link", "--yes", models=store.root)
    assert (first["hashed"], first["linked_size"]) == (1, 2 * len(WEIGHTS))
    again = report("dedup", "dedup", cache, sharing_disk / "g", "--link", "--yes", models=store.root)
    assert (again["hashed"], again["gain"], again["linked_size"]) == (0, 0, 0)
    assert again["shared_size"] == again["copied_size"] == 2 * len(WEIGHTS)


@pytest.mark.parametrize("offset", [0, 17_000_000, len(WEIGHTS) - 1], ids=["first", "middle", "last"])
def test_a_copy_with_a_changed_byte_is_left_alone_and_told(sharing_disk: Path, offset: int) -> None:
    store, cache, file = kept_twice(sharing_disk)
    changed = bytearray(WEIGHTS)
    changed[offset] ^= 1
    file.write_bytes(changed)
    before = facts(file)
    done = run("dedup", cache, "--link", "--yes", "--models", store.root)
    assert done.returncode == CODES["integrity"]
    assert "NOT the same bytes" in done.stdout
    assert "1 file with other bytes" in done.stdout
    assert (file.read_bytes(), store.blob_path(WEIGHTS).read_bytes()) == (bytes(changed), WEIGHTS)
    assert facts(file) == before


def test_a_plan_and_a_dry_run_change_nothing(btrfs: Path) -> None:
    store, cache, _ = kept_twice(btrfs)
    before = used(btrfs)
    for arguments in ((), ("--link", "--dry-run"), ("--link", "-n", "--yes")):
        document = report("dedup", "dedup", cache, *arguments, models=store.root)
        assert (document["dry_run"], document["gain"], document["linked_size"]) == (True, len(WEIGHTS), 0)
    assert used(btrfs) == before


def test_a_subvolume_is_the_same_disk(btrfs: Path) -> None:
    subprocess.run(["btrfs", "subvolume", "create", btrfs / "sub"], check=True, capture_output=True)
    store, _, _ = kept_twice(btrfs)
    copy = put(btrfs / "sub/q4.gguf", WEIGHTS)
    assert copy.stat().st_dev != store.root.stat().st_dev
    before = used(btrfs)
    ostore.dedup([btrfs / "sub"], share=True, models=store.root)
    assert before - used(btrfs) > 0.9 * len(WEIGHTS)


def test_two_other_stores_share_what_this_one_has_not(btrfs: Path) -> None:
    for name in ("one", "two"):
        Store(btrfs / name).model("x:latest", WEIGHTS)
    Store(btrfs / "models").model("y:latest", b"small")
    before = used(btrfs)
    ostore.dedup([btrfs / "one", btrfs / "two"], share=True, models=btrfs / "models")
    assert before - used(btrfs) > 0.9 * len(WEIGHTS)


@pytest.mark.parametrize(("kind", "options"), [("ext4", ()), ("xfs", ("-m", "reflink=0"))], ids=["ext4", "old XFS"])
def test_a_disk_that_cannot_share_is_said_to(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    with disk(tmp_path, kind, *options) as mounted:
        store, cache, file = kept_twice(mounted)
        before = facts(file)
        assert run("dedup", cache, "--models", store.root).returncode == 0
        done = run("dedup", cache, "--link", "--yes", "--models", store.root)
        assert done.returncode == CODES["usage"]
        assert "this disk cannot share; btrfs can, and XFS with reflink=1" in done.stderr
        assert facts(file) == before


def test_a_ram_disk_cannot_share(tmp_path: Path) -> None:
    with ram_disk(tmp_path) as mounted:
        Store(mounted / "models").model("x:latest", noise(9000))
        put(mounted / "g/x.gguf", noise(9000))
        (blob,) = ostore.dedup([mounted / "g"], models=mounted / "models").duplicates
        assert [copy.state for copy in blob.copies] == ["unsupported"]


def test_a_copy_on_another_disk_is_said_to_be_there(btrfs: Path, tmp_path: Path) -> None:
    store, cache, _ = kept_twice(btrfs)
    with disk(tmp_path, "xfs") as other:
        away = put(other / "away.gguf", WEIGHTS)
        done = run("dedup", other, "--link", "--yes", "--models", store.root)
        assert (done.returncode, "on another disk" in done.stderr) == (CODES["usage"], True)
        # What can be shared is, whatever else cannot.
        found = ostore.dedup([other, cache], share=True, models=store.root)
        assert {copy.path == str(away): copy.state for copy in found.duplicates[0].copies} == {
            True: "other-disk",
            False: "linked",
        }


def as_user(user: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run as another user who may read everything: pytest's folders, and maybe the interpreter's, are closed to him."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    becoming = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *reading]
    return subprocess.run([*becoming, *OSTORE, *command], capture_output=True, text=True, check=False)


def test_the_owner_of_a_copy_shares_it_with_a_store_that_he_may_only_read(sharing_disk: Path) -> None:
    store, cache, file = kept_twice(sharing_disk)
    for path in (cache, *cache.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)
    file.chmod(0o444)
    before = used(sharing_disk)
    done = as_user(SOMEBODY, "dedup", cache, "--link", "--yes", "--models", store.root)
    assert done.returncode == 0, done.stderr
    assert before - used(sharing_disk) > 0.9 * len(WEIGHTS)


def test_somebody_else_may_not_and_is_told_who_may(sharing_disk: Path) -> None:
    store, cache, _ = kept_twice(sharing_disk)
    before = used(sharing_disk)
    done = as_user(SOMEBODY, "dedup", cache, "--link", "--yes", "--models", store.root)
    assert done.returncode == CODES["io"]
    assert "failed: only its owner or root may" in done.stdout
    assert abs(used(sharing_disk) - before) < 100_000


def test_on_a_read_only_mount_it_looks_and_does_not_link(btrfs: Path) -> None:
    store, cache, _ = kept_twice(btrfs)
    subprocess.run(["mount", "-o", "remount,ro", btrfs], check=True)
    assert run("dedup", cache, "--models", store.root).returncode == 0
    done = run("dedup", cache, "--link", "--yes", "--models", store.root)
    assert done.returncode == CODES["io"]
    assert f"failed: {os.strerror(errno.EROFS)}" in done.stdout


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [("y", "shared now"), ("n", "can be shared"), ("", "can be shared"), ("perhaps", "can be shared")],
)
def test_it_asks_on_a_terminal_and_only_yes_means_yes(btrfs: Path, answer: str, outcome: str) -> None:
    store, cache, _ = kept_twice(btrfs)
    main, side = pty.openpty()
    os.write(main, f"{answer}\n".encode())
    command = [*OSTORE, "dedup", str(cache), "--link", "--models", str(store.root)]
    done = subprocess.run(command, stdin=side, capture_output=True, text=True, check=False)
    os.close(main)
    os.close(side)
    assert done.returncode == 0, done.stderr
    assert f"would share {len(WEIGHTS) // 10**6} MB of 1 file" in done.stderr
    assert "[y/N]" in done.stderr
    assert outcome in done.stdout


@unmeasured
def test_interrupted_it_leaves_whole_files_and_goes_on_from_there(btrfs: Path) -> None:
    store, cache, file = kept_twice(btrfs)
    command = [*OSTORE, "dedup", str(cache), "--link", "--yes", "--models", str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # comparing and sharing
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert process.returncode in {0, 130}
    assert (file.read_bytes(), store.blob_path(WEIGHTS).read_bytes()) == (WEIGHTS, WEIGHTS)
    assert run(*command[len(OSTORE) :]).returncode == 0
    assert ostore.dedup([cache], models=store.root).gain == 0


def test_a_file_exchanged_after_it_was_found_is_not_touched(btrfs: Path) -> None:
    store, cache, file = kept_twice(btrfs)

    def exchange(_plan: ostore.DedupReport) -> bool:
        file.unlink()
        file.write_bytes(WEIGHTS)
        return True

    found = ostore.dedup([cache], share=True, agree=exchange, models=store.root)
    (copy,) = found.duplicates[0].copies
    assert (copy.state, copy.detail, found.verdict) == ("failed", "another file by now", "io")


def test_asking_whether_a_disk_can_share_shares_nothing(btrfs: Path) -> None:
    one, other = (put(btrfs / name, noise(100_000)) for name in ("one", "other"))
    before = used(btrfs)
    with one.open("rb") as source, other.open("rb") as target:
        assert share_extents(source.fileno(), target.fileno(), 0, 0) == 0
        assert used(btrfs) == before
        assert share_extents(source.fileno(), target.fileno(), 0, 100_000) == 100_000


def test_a_model_made_of_a_file_takes_no_room_and_is_no_second_name_of_it(sharing_disk: Path) -> None:
    file = put(sharing_disk / "g/m.gguf", MODEL)
    store = Store(sharing_disk / "models")
    before, before_facts = used(sharing_disk), facts(file)[:7]
    document = report("create", "create", "m", file, models=store.root)
    assert document["size_copied"] == 0
    assert used(sharing_disk) - before < 0.1 * len(MODEL)
    assert (facts(file)[:7], file.read_bytes()) == (before_facts, MODEL)
    blob = store.blob_path(MODEL)
    assert (blob.read_bytes(), blob.stat().st_mode & 0o777) == (MODEL, 0o644)
    with file.open("r+b") as written:
        written.write(b"changed")
    assert run("verify", "--models", store.root).returncode == 0


@pytest.mark.parametrize("kind", ["ext4", "tmpfs", "another disk"])
def test_a_model_made_of_a_file_is_a_copy_where_the_disk_shares_nothing(tmp_path: Path, kind: str) -> None:
    with disk(tmp_path, "ext4") if kind == "ext4" else ram_disk(tmp_path) as mounted:
        file = put((tmp_path if kind == "another disk" else mounted) / "g/m.gguf", MODEL)
        before = used(mounted)
        document = report("create", "create", "m", file, models=mounted / "models")
        assert document["size_copied"] == len(MODEL)
        assert used(mounted) - before >= len(MODEL)
        blob = Store(mounted / "models").blob_path(MODEL)
        assert (blob.read_bytes(), blob.samefile(file)) == (MODEL, False)
