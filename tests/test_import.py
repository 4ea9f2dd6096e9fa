"""Import trusts existing blobs only after hashing them, harms nothing else, and gives everything the right owner."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ostore
from ostore.streams import space
from ostore.streams.durable import Directory
from tests.support import OSTORE, SYSTEM, Store, full, noise, sha256, tree
from tests.support import ostore as run

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
SECOND_DISK = Path("/dev/shm")  # noqa: S108 - tests make a folder of their own there
WEIGHTS = b"the weights " * 1000


@pytest.fixture
def bundle(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "b.tar.zst"
    ostore.export(["*"], path, models=store.root)
    return path


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A folder that other users may enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def as_user(user: int, *groups: int) -> list[str]:
    """
    Run as another user. The interpreter may lie in a home that this user cannot enter, so reading is allowed
    everywhere; writing is not, and that is what these tests are about.
    """
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    joined = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ["setpriv", f"--reuid={user}", f"--regid={user}", joined, *reading]


def outcomes(report: ostore.ImportReport) -> dict[str, str]:
    return {model.name: model.outcome for model in report.models}


def test_a_second_import_finds_everything_there_and_changes_nothing(bundle: Path, store: Store) -> None:
    before = {path: (path.stat().st_ino, path.stat().st_size) for path in store.root.rglob("*")}
    report = ostore.import_bundle(bundle, models=store.root)
    assert set(outcomes(report).values()) == {"already there"}
    assert (report.blobs_written, report.blobs_present) == (0, 4)
    after = {path: (path.stat().st_ino, path.stat().st_size) for path in store.root.rglob("*")}
    assert {path: after[path] for path in before if path != store.root} == {
        path: what for path, what in before.items() if path != store.root
    }


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(bytes(len(WEIGHTS))), id="zeroed"),
        pytest.param(lambda path: path.write_bytes(WEIGHTS[:-1]), id="one byte short"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), id="a link"),
    ],
)
def test_a_damaged_blob_is_healed(bundle: Path, store: Store, damage: object) -> None:
    whole = tree(store.root)
    assert callable(damage)
    damage(store.blob_path(WEIGHTS))
    assert tree(store.root) != whole
    report = ostore.import_bundle(bundle, models=store.root)
    assert (report.blobs_written, report.blobs_present) == (1, 3)
    assert tree(store.root) == whole


def test_trust_existing_looks_at_sizes_only(bundle: Path, store: Store) -> None:
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    report = ostore.import_bundle(bundle, trust_existing=True, models=store.root)
    assert (report.blobs_written, report.blobs_present) == (0, 4)


def test_a_different_tag_is_refused_and_no_model_is_written(bundle: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.model("tiny:q4", b"something else")
    before = tree(other.root)
    with pytest.raises(ostore.UsageError, match="tiny:q4"):
        ostore.import_bundle(bundle, models=other.root)
    assert tree(other.root) == before


def test_replace_overwrites_a_tag_and_leaves_its_old_blobs(bundle: Path, store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.model("tiny:q4", b"something else")
    report = ostore.import_bundle(bundle, replace=True, models=other.root)
    assert outcomes(report) == {"tiny:latest": "added", "tiny:q4": "replaced"}
    assert other.blob_path(b"something else").exists()
    assert set(tree(store.root).items()) <= set(tree(other.root).items())


@pytest.mark.parametrize(
    "broken", [b"", b"{", b'{"layers":[{"digest":"sha256:12"}]}'], ids=["empty", "half", "bad digest"]
)
def test_a_broken_manifest_is_mended_and_its_bytes_kept(bundle: Path, store: Store, broken: bytes) -> None:
    whole = tree(store.root)
    store.manifest_path(full("tiny:q4")).write_bytes(broken)
    report = ostore.import_bundle(bundle, models=store.root)
    assert outcomes(report)["tiny:q4"] == "repaired"
    assert tree(store.root) == whole
    kept = [path.read_bytes() for path in (store.root / ".ostore").glob("quarantine/*")]
    assert kept == ([broken] if broken else [])


def test_a_name_that_differs_only_by_case_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.model("Tiny:q4", b"something else")
    before = tree(other.root)
    for names, strict in ((["tiny:q4"], False), ([], True)):
        with pytest.raises(ostore.UnsafeError, match="differ only by case"):
            ostore.import_bundle(bundle, names, strict=strict, models=other.root)
        assert tree(other.root) == before


def test_of_a_bundle_only_the_names_that_clash_are_left_out(store: Store, tmp_path: Path) -> None:
    """One neighbour costs a line, and the exit code: the others are imported."""
    store.model("fine:latest", b"fine weights")
    ostore.export(["*"], tmp_path / "b.tar", models=store.root)
    other = Store(tmp_path / "other")
    other.model("Tiny:q4", b"something else")
    done = run("import", tmp_path / "b.tar", "--models", other.root)
    assert done.returncode == 8
    assert "  fine:latest: added\n" in done.stdout
    told = [line for line in done.stderr.splitlines() if "left out" in line]
    assert [line.split(": ")[2] for line in told] == ["tiny:latest", "tiny:q4"]
    assert told[1].endswith(f"tiny:q4 and Tiny:q4 in {other.root} differ only by case")
    assert {model.name for model in ostore.list_models(models=other.root).models} == {"fine:latest", "Tiny:q4"}


def test_a_model_whose_folder_is_a_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.model("else:latest", b"something else")
    (other.root / "manifests/registry.ollama.ai/library/tiny").write_text("in the way")
    before = tree(other.root)
    with pytest.raises(ostore.UnsafeError, match="in the way"):
        ostore.import_bundle(bundle, models=other.root)
    assert tree(other.root) == before


def test_fresh_files_have_fresh_times(bundle: Path, store: Store, tmp_path: Path) -> None:
    """Ollama's prune goes by the mtime of blobs that no manifest names yet."""
    long_ago = time.time() - 1_000_000
    for path in (tmp_path / "models").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    store.manifest_path(full("tiny:q4")).unlink()
    ostore.import_bundle(bundle, models=store.root)
    ages = {time.time() - path.stat().st_mtime for path in (store.root / "blobs").iterdir()}
    assert max(ages) < 100


def test_an_unmounted_disk_is_not_taken_for_a_new_store(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ostore.NotFoundError, match="mounted"):
        ostore.import_bundle(bundle, models=tmp_path / "mnt" / "models")
    assert not (tmp_path / "mnt").exists()


def test_the_default_store_is_made_with_its_parents(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    done = run("import", bundle, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home/.ollama/models/manifests/registry.ollama.ai/library/tiny/q4").is_file()


def test_a_refused_import_leaves_no_store_behind(bundle: Path, tmp_path: Path) -> None:
    data = bytearray(bundle.read_bytes())
    data[-200] ^= 1
    bad = tmp_path / "bad.tar.zst"
    bad.write_bytes(data)
    assert run("import", bad, "--models", tmp_path / "fresh").returncode in {4, 12}
    assert not (tmp_path / "fresh" / "manifests").exists()


def test_links_for_blobs_and_manifests_are_followed(bundle: Path, store: Store, tmp_path: Path) -> None:
    """People put blobs on a large disk and a link in its place."""
    big, root = tmp_path / "big" / "blobs", tmp_path / "other"
    big.mkdir(parents=True)
    root.mkdir()
    (root / "blobs").symlink_to(big)
    ostore.import_bundle(bundle, models=root)
    assert {path.name for path in big.iterdir()} == {path.name for path in (store.root / "blobs").iterdir()}
    assert (tmp_path / "big" / ".ostore").is_dir()
    assert not (root / ".ostore").exists()


@pytest.mark.skipif(not SECOND_DISK.is_mount(), reason="needs a second disk")
def test_manifests_on_another_disk_than_blobs(bundle: Path, store: Store, tmp_path: Path) -> None:
    big = SECOND_DISK / f"ostore-test-{os.getpid()}"
    (big / "blobs").mkdir(parents=True)
    try:
        root = tmp_path / "other"
        root.mkdir()
        (root / "blobs").symlink_to(big / "blobs")
        ostore.import_bundle(bundle, models=root)
        assert tree(root / "manifests") == tree(store.root / "manifests")
        assert tree(big / "blobs") == tree(store.root / "blobs")
    finally:
        shutil.rmtree(big)


def test_a_dangling_blobs_link_is_damage_not_an_empty_store(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    root.mkdir()
    (root / "blobs").symlink_to(tmp_path / "unmounted")
    done = run("import", bundle, "--models", root)
    assert done.returncode == 10, done.stderr
    assert not (tmp_path / "unmounted").exists()


@as_root
def test_root_with_umask_077_leaves_a_model_its_owner_can_use_and_delete(bundle: Path, public_path: Path) -> None:
    other = Store(public_path / "other")
    other.model("else:latest", b"something else")
    for path in [other.root, *other.root.rglob("*")]:
        os.chown(path, 12345, 12346)
    command = f"umask 077; exec {' '.join(OSTORE)} import {bundle} --models {other.root}"
    done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for path in [other.root, *other.root.rglob("*")]:
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (12345, 12346), path
    blobs = other.root / "blobs"
    as_owner = ["setpriv", "--reuid=12345", "--regid=12346", "--clear-groups"]
    read = subprocess.run([*as_owner, "cat", *blobs.iterdir()], check=True, capture_output=True)
    assert WEIGHTS in read.stdout
    tag = other.manifest_path(full("tiny:q4"))
    subprocess.run([*as_owner, "rm", tag], check=True)
    subprocess.run([*as_owner, "rm", "-r", blobs], check=True)


@as_root
def test_a_member_of_the_group_imports_into_a_shared_store(bundle: Path, public_path: Path) -> None:
    other = Store(public_path / "other")
    other.model("else:latest", b"something else")
    for path in [other.root, *other.root.rglob("*")]:
        os.chown(path, 12345, 12346)
        if path.is_dir():
            path.chmod(0o2775)
    bundle = bundle.rename(public_path / bundle.name)
    done = subprocess.run(
        [*as_user(23456, 12346), *OSTORE, "import", bundle, "--models", other.root],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    folder = other.manifest_path(full("tiny:q4")).parent
    assert folder.stat().st_gid == 12346
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2775
    assert other.manifest_path(full("tiny:q4")).stat().st_gid == 12346
    assert stat.S_IMODE(other.manifest_path(full("tiny:q4")).stat().st_mode) == 0o644


@as_root
def test_a_store_that_may_only_be_read_can_be_listed_verified_and_exported(public_path: Path) -> None:
    store = Store(public_path / "models")
    store.model("tiny:latest", WEIGHTS)
    (public_path / "out").mkdir()
    os.chown(public_path / "out", 12345, 12345)
    before = tree(store.root, without=())
    for arguments in (
        ["list"],
        ["verify"],
        ["show", "tiny"],
        ["where"],
        ["export", "--all", f"{public_path}/out/b.tar"],
    ):
        done = subprocess.run(
            [*as_user(12345), *OSTORE, *arguments, "--models", store.root],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert tree(store.root, without=()) == before


@as_root
def test_a_store_that_may_not_be_written_is_an_io_error(bundle: Path, public_path: Path) -> None:
    other = Store(public_path / "other")
    other.model("else:latest", b"something else")
    bundle = bundle.rename(public_path / bundle.name)
    done = subprocess.run(
        [*as_user(12345), *OSTORE, "import", bundle, "--models", other.root],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 9
    assert done.stderr.startswith("ostore: error[io]: ")
    assert done.stderr.count("\n") == 1


def test_short_space_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.model("big:latest", noise(4_000_000))
    ostore.export(["big"], tmp_path / "b.tar.zst", models=store.root)
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root to mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
    try:
        for command in (
            ("import", tmp_path / "b.tar.zst", "--models", disk / "models"),
            ("export", "big", disk / "c.tar", "--models", store.root),
            ("export", "--all", disk / "c.tar.zst", "--models", store.root),
            ("export", "big", f"{disk / 'plain'}/", "--models", store.root),
        ):
            done = run(*command)
            assert (done.returncode, done.stdout) == (7, ""), done.stderr
            # What shrinks may fit.
            assert "bytes of free space" in done.stderr or command[2] == disk / "c.tar.zst"
            assert ".ostore" not in done.stderr
            assert list(disk.iterdir()) == []
        dry = run("export", "big", disk / "c.tar", "-n", "--models", store.root)
        assert (dry.returncode, "bytes of free space" in dry.stderr) == (7, True)
        # What a dead export has left is taken over, so its room is free.
        (disk / "d.tar.part").write_bytes(noise(2_900_000))
        store.model("small:latest", noise(1_500_000))
        assert run("export", "small", disk / "d.tar", "--models", store.root).returncode == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_size_limit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for FAT32, whose limit of 4 GiB needs a disk of that size."""
    store = Store(tmp_path / "models")
    weights = noise(1_000_000)
    store.model("big:latest", weights)
    ostore.export(["big"], tmp_path / "b.tar.zst", models=store.root)
    command = f"ulimit -f 500; exec {' '.join(OSTORE)} import {tmp_path / 'b.tar.zst'} --models {tmp_path / 'other'}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("times", range(3))
def test_two_imports_at_once_end_as_one_after_the_other(bundle: Path, store: Store, tmp_path: Path, times: int) -> None:
    command = [*OSTORE, "import", str(bundle), "--models", str(tmp_path / "other")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3 + times)]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * len(running), errors
    assert tree(tmp_path / "other") == tree(store.root)
    assert list((tmp_path / "other/.ostore/tx").iterdir()) == []


def test_dry_run_writes_nothing(bundle: Path, tmp_path: Path) -> None:
    report = ostore.import_bundle(bundle, dry_run=True, models=tmp_path / "other")
    assert (report.blobs_written, outcomes(report)) == (4, {"tiny:latest": "added", "tiny:q4": "added"})
    assert not (tmp_path / "other").exists()


def test_a_blob_that_a_server_removes_while_publishing_is_put_back(store: Store, bundle: Path, tmp_path: Path) -> None:
    """An Ollama before 0.21 prunes, at its start, every blob that no manifest names yet."""
    prune = (
        "import pathlib,sys,time\n"
        "blobs = pathlib.Path(sys.argv[1])\n"
        "end = time.monotonic() + 20\n"
        "seen = False\n"
        "print(flush=True)\n"
        "while time.monotonic() < end and not seen:\n"
        "    for path in blobs.glob('sha256-*') if blobs.exists() else ():\n"
        "        path.unlink(missing_ok=True); seen = True\n"
    )
    other = tmp_path / "other"
    (other / "blobs").mkdir(parents=True)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", prune, other / "blobs"], stdout=subprocess.PIPE) as pruner:
            assert pruner.stdout
            pruner.stdout.readline()
            done = run("import", bundle, "--models", other)
        assert done.returncode == 0, done.stderr
        assert tree(other) == tree(store.root)
        shutil.rmtree(other / "manifests")
        shutil.rmtree(other / "blobs")
        (other / "blobs").mkdir()


@pytest.mark.parametrize("standing", [b"a damaged blob", None])
def test_on_a_disk_without_hard_links_a_failure_takes_back_no_blob_but_those_that_were_placed(
    store: Store, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standing: bytes | None
) -> None:
    other, weights = tmp_path / "other", store.blob_path(b"the weights " * 1000)
    (other / "blobs").mkdir(parents=True)
    if standing:
        (other / "blobs" / weights.name).write_bytes(standing)
    before, rename = tree(other), Directory.rename

    def failing(folder: Directory, name: str, into: Directory, new: str) -> None:
        if into.path.name == "blobs" and new == weights.name:
            if standing is None:
                # Of a pull that is faster than we are.
                (other / "blobs" / new).write_bytes(weights.read_bytes())
            raise OSError(errno.EIO, "Input/output error")
        rename(folder, name, into, new)

    monkeypatch.setattr(Directory, "link", lambda *_arguments: False)
    monkeypatch.setattr(Directory, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        ostore.import_bundle(bundle, models=other)
    pulled = {} if standing else {f"blobs/{weights.name}": sha256(weights.read_bytes())}
    assert {path: what for path, what in tree(other).items() if what != "folder"} == {
        path: what for path, what in (before | pulled).items() if what != "folder"
    }


def test_layers_are_kept_as_data(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.add(
        full("odd:latest"), store.layer(SYSTEM, b"hi", **{"from": "/etc/shadow", "urls": ["http://127.0.0.1:1/"]})
    )
    ostore.export(["odd"], tmp_path / "b.tar", models=store.root)
    ostore.import_bundle(tmp_path / "b.tar", models=tmp_path / "other")
    assert tree(tmp_path / "other") == tree(store.root)
    assert sha256(b"hi") in str(tree(tmp_path / "other"))


def delta(store: Store, path: Path) -> None:
    """A bundle of tiny:q4 that leaves its weights out."""
    basis = Store(path.with_name("basis"))
    basis.model("mine:latest", WEIGHTS)
    ostore.export(["tiny:q4"], path, have=[basis.root], models=store.root)


def test_a_delta_bundle_builds_on_blobs_that_are_there(store: Store, tmp_path: Path) -> None:
    delta(store, tmp_path / "delta.tar")
    other = Store(tmp_path / "other")
    other.model("mine:latest", WEIGHTS)
    report = ostore.import_bundle(tmp_path / "delta.tar", models=other.root)
    assert (report.blobs_written, outcomes(report)) == (1, {"tiny:q4": "added"})
    assert ostore.verify(models=other.root)[0].verdict == "whole"


@pytest.mark.parametrize("is_there", [False, True], ids=["missing", "damaged"])
def test_a_delta_bundle_without_what_it_builds_on_is_refused(store: Store, tmp_path: Path, is_there: bool) -> None:
    delta(store, tmp_path / "delta.tar")
    other = Store(tmp_path / "other")
    other.model("mine:latest", b"other weights")
    if is_there:
        other.blob(WEIGHTS)
        other.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    before = tree(other.root)
    done = run("import", tmp_path / "delta.tar", "--models", other.root)
    assert done.returncode == 3, done.stderr
    assert f"sha256:{sha256(WEIGHTS)}" in done.stderr
    assert tree(other.root) == before


def test_of_several_sources_none_is_imported_if_one_cannot_be_opened(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tar.zst").write_bytes(b"bad")
    done = run("import", bundle, tmp_path / "bad.tar.zst", "--json", "--models", tmp_path / "other")
    assert (done.returncode, done.stdout, json.loads(done.stderr)["class"]) == (12, "", "format")
    assert not (tmp_path / "other").exists()


def test_of_several_sources_those_before_a_damaged_one_are_imported_and_told(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    ostore.export(["*"], tmp_path / "bad.tar", models=store.root)
    damaged = bytearray((tmp_path / "bad.tar").read_bytes())
    damaged[damaged.index(b"This bundle contains")] ^= 1
    (tmp_path / "bad.tar").write_bytes(damaged)
    done = run("import", bundle, tmp_path / "bad.tar", "--json", "--models", tmp_path / "other")
    assert done.returncode == 4
    assert [entry["source"] for entry in json.loads(done.stdout)["imports"]] == [str(bundle)]
    assert json.loads(done.stderr)["class"] == "integrity"


def test_hashing_again_what_was_finished_before_is_told_as_such(tmp_path: Path) -> None:
    store = Store(tmp_path / "from")
    store.model("tiny:q4", noise(300_000))
    ostore.export(["tiny:q4"], tmp_path / "b.tar", models=store.root)
    staged = tmp_path / "to/.ostore/tx/1-0000"
    staged.mkdir(parents=True)
    (tmp_path / "to/blobs").mkdir()
    shutil.copy(store.blob_path(noise(300_000)), staged)
    done = run("import", tmp_path / "b.tar", "--progress", "plain", "--models", tmp_path / "to")
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, "verifying sha256 digest: 300 KB"), done.stderr


@pytest.mark.parametrize("others", [2, 5])
def test_a_name_that_the_disk_cannot_hold_is_refused_with_the_way_to_import_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    store = Store(tmp_path / "from")
    store.model("localhost:5000/me/tiny:latest", WEIGHTS)
    for number in range(others):
        store.model(f"m{number}:latest", WEIGHTS)
    ostore.export(["*"], tmp_path / "b.tar", models=store.root)
    monkeypatch.setattr(space, "_holds_colons", lambda _directory: False)
    with pytest.raises(ostore.InvalidNameError, match="me/tiny:latest: 'localhost:5000' has a") as caught:
        ostore.import_bundle(tmp_path / "b.tar", models=tmp_path / "to")
    chosen = {2: "--model m0:latest --model m1:latest", 5: "--model NAME, or a glob, as often as needed,"}[others]
    assert caught.value.hint == f"{chosen} imports the others"
    assert not (tmp_path / "to").exists()
    ostore.import_bundle(tmp_path / "b.tar", ["m*"], models=tmp_path / "to")
    assert {model.name for model in ostore.list_models(models=tmp_path / "to").models} == {
        f"m{number}:latest" for number in range(others)
    }


def test_a_single_name_that_the_disk_cannot_hold_leaves_no_others_to_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "from")
    store.model("nul:latest", WEIGHTS)
    ostore.export(["*"], tmp_path / "b.tar", models=store.root)
    monkeypatch.setattr(space, "_holds_colons", lambda _directory: False)
    with pytest.raises(ostore.InvalidNameError, match="nul:latest: 'nul' is a device name") as caught:
        ostore.import_bundle(tmp_path / "b.tar", models=tmp_path / "to")
    assert "--model" not in str(caught.value.hint)
