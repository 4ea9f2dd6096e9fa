"""Repair on odd disks, among files of other users and in read-only folders: it repairs what it may, and no more."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

import ostore
from ostore.formats.manifest import Descriptor
from ostore.places.store.receiving import pinning
from ostore.places.store.receiving.publication import Publication
from ostore.streams.durable import Directory
from ostore.streams.progress import Progress
from tests.support import OSTORE, Store, full, noise, tree
from tests.support import ostore as run

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
needs_setpriv = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
WEIGHTS = b"the weights " * 1000


@pytest.fixture
def bundle(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "b.tar.zst"
    ostore.export(["*"], path, models=store.root)
    return path


def repair_under(tracer: Sequence[str], bundle: Path, root: Path) -> subprocess.CompletedProcess[str]:
    command = [*tracer, *OSTORE, "repair", "--from", str(bundle), "--models", str(root)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@needs_strace
def test_a_disk_without_hard_links_keeps_the_damaged_file_all_the_same(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    whole = tree(store.root)
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    tracer = ["strace", "-f", "-o", str(tmp_path / "log"), "-e", "inject=linkat:error=EPERM"]
    done = repair_under(tracer, bundle, store.root)
    assert done.returncode == 0, done.stderr
    assert tree(store.root) == whole
    assert [path.read_bytes() for path in store.root.glob(".ostore/quarantine/*")] == [bytes(len(WEIGHTS))]


@needs_strace
def test_a_damaged_file_comes_back_if_the_good_one_cannot_take_its_place(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    before, log = tree(store.root), tmp_path / "log"
    tracer = ["strace", "-f", "-y", "-o", str(log), "-e", "trace=renameat,linkat", "-e", "inject=linkat:error=EPERM"]
    assert repair_under([*tracer], bundle, store.root).returncode == 0
    renames = [line for line in log.read_text().splitlines() if " renameat(" in line]
    number = 1 + next(number for number, line in enumerate(renames) if "quarantine" in line)
    shutil.rmtree(store.root / ".ostore")
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    # The rename after it is the one into blobs/.
    done = repair_under([*tracer, "-e", f"inject=renameat:error=EIO:when={number + 1}"], bundle, store.root)
    assert done.returncode == 9, done.stderr
    assert tree(store.root) == before
    assert list(store.root.glob(".ostore/quarantine/*")) == []


@pytest.mark.parametrize(("step", "is_replaced"), [("_place_blob", False), ("_settle", True)])
def test_of_a_damaged_file_a_copy_is_kept_only_if_it_was_replaced(
    step: str, is_replaced: bool, store: Store, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, damaged = tree(store.root), bytes(len(WEIGHTS))
    store.blob_path(WEIGHTS).write_bytes(damaged)
    before = tree(store.root)

    def fails(*_: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    # A double of a disk that fails between two steps; programs under strace are not measured.
    monkeypatch.setattr(Publication, step, fails)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        ostore.repair(models=store.root, sources=[bundle])
    assert tree(store.root) == (whole if is_replaced else before)
    kept = [path.read_bytes() for path in store.root.glob(".ostore/quarantine/*")]
    assert kept == [damaged] * is_replaced


def test_a_blob_that_cannot_be_read_any_more_is_replaced_with_the_manifest_that_needs_it(
    store: Store, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, weights = tree(store.root), store.blob_path(WEIGHTS)
    store.write_manifest(full("tiny:q4"), b"{")
    inode, is_sound = weights.stat().st_ino, pinning.is_sound

    def failing(where: Directory, name: str, blob: Descriptor, progress: Progress, *, follows: bool) -> bool:
        if blob.digest.filename == weights.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return is_sound(where, name, blob, progress, follows=follows)

    # A double of a disk that fails once it has been read whole: one that fails at a call of choice fails at the first.
    monkeypatch.setattr(pinning, "is_sound", failing)
    report = ostore.repair(models=store.root, sources=[bundle])
    assert report.verdict == "whole"
    assert tree(store.root) == before
    assert weights.stat().st_ino != inode


def service_store(root: Path) -> Store:
    """A store of a service's user, whose group may write there."""
    store = Store(root)
    store.model("tiny:latest", WEIGHTS, license=b"MIT")
    for path in (root, *root.rglob("*")):
        os.chown(path, 12345, 12346)
        path.chmod(0o2775 if path.is_dir() else 0o644)
    return store


def owners(root: Path) -> set[tuple[int, int, int]]:
    found = {path: path.lstat() for path in root.rglob("*")}
    return {(status.st_uid, status.st_gid, status.st_mode & 0o777) for status in found.values()}


@needs_setpriv
def test_root_leaves_a_store_that_its_owner_can_use(tmp_path: Path) -> None:
    store = service_store(tmp_path / "models")
    ostore.export(["*"], tmp_path / "b.tar", models=store.root)
    for data in (WEIGHTS, b"MIT"):
        path = store.blob_path(data)
        path.unlink()
        # As somebody who copied it there as root left it.
        path.write_bytes(bytes(len(data)))
        path.chmod(0o600)
    store.manifest_path(full("tiny:latest")).write_bytes(b"half")
    command = [*OSTORE, "repair", "--from", str(tmp_path / "b.tar"), "--models", str(store.root)]
    done = subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", *command],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(store.root.glob(".ostore/quarantine/*"))) == 3
    assert owners(store.root) == {(12345, 12346, 0o775), (12345, 12346, 0o644)}


def as_user(*command: str, groups: str = "--clear-groups") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["setpriv", "--reuid=23456", "--regid=23456", groups, *command],
        check=False, capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    if "No module named" in done.stderr or "can't open" in done.stderr:
        pytest.skip("the interpreter cannot be run as another user")
    return done


@needs_setpriv
def test_a_member_of_the_group_mends_a_shared_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The kernel lets nobody give a second name to a file of somebody else (fs.protected_hardlinks)."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        store = service_store(Path(name) / "models")
        ostore.export(["*"], Path(name) / "b.tar", models=store.root)
        whole = tree(store.root)
        for data in (WEIGHTS, b"MIT"):
            with store.blob_path(data).open("r+b") as file:
                file.write(bytes(len(data)))
        store.manifest_path(full("tiny:latest")).write_bytes(b"half")
        command = [*OSTORE, "repair", "--from", f"{name}/b.tar", "--models", str(store.root)]
        refused = as_user(*command)
        assert refused.returncode == 9, refused.stderr
        assert re.search(r"^ostore: error\[io\]: .*Permission denied", refused.stderr, re.MULTILINE)
        done = as_user(*command, groups="--groups=12346")
        assert done.returncode == 0, done.stdout + done.stderr
        assert tree(store.root) == whole
        assert len(list(store.root.glob(".ostore/quarantine/*"))) == 3
        assert {(gid, mode) for _, gid, mode in owners(store.root)} == {(12346, 0o775), (12346, 0o644)}


@needs_setpriv
def test_a_file_that_may_not_be_read_is_not_taken_for_a_damaged_one() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        store = service_store(Path(name) / "models")
        ostore.export(["*"], Path(name) / "b.tar", models=store.root)
        store.blob_path(WEIGHTS).chmod(0o600)
        before = tree(store.root)
        command = [*OSTORE, "repair", "--from", f"{name}/b.tar", "--models", str(store.root)]
        done = as_user(*command, groups="--groups=12346")
        assert done.returncode == 9, done.stdout + done.stderr
        assert "may not be read, so nobody knows what it is" in done.stdout
        assert tree(store.root) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_store_on_a_disk_that_is_read_only_is_one_line_and_nothing_if_it_is_whole(store: Store, bundle: Path) -> None:
    store.model("large:latest", noise(3000))
    subprocess.run(["mount", "--bind", store.root, store.root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", store.root], check=True)
        assert run("repair", "--from", bundle, "--models", store.root).returncode == 0
        subprocess.run(["mount", "-o", "remount,bind,rw", store.root], check=True)
        store.blob_path(WEIGHTS).write_bytes(b"damaged")
        subprocess.run(["mount", "-o", "remount,bind,ro", store.root], check=True)
        done = run("repair", "--from", bundle, "--models", store.root, "--progress", "none")
        assert done.returncode == 9
        assert re.fullmatch(r"ostore: error\[io\]: .*Read-only file system\n", done.stderr)
    finally:
        subprocess.run(["umount", store.root], check=True)
