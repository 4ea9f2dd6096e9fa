"""Interrupted or refused at any step, a repair leaves nothing worse; and whatever the damage, only that is touched."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import ostore
from tests.support import OSTORE, TORTURE, Store, full, noise, six_kinds, tree
from tests.support import ostore as run

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
needs_setpriv = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
WEIGHTS = b"the weights " * 1000
MUTATORS = ("mkdirat", "openat", "linkat", "renameat", "unlinkat", "fsync", "fchmod", "utimensat", "writev", "flock")
FAULTS = ("signal=KILL", "error=EIO", "error=ENOSPC")
# `make torture` takes every step, and more rounds of damage.
STEPS = 1000 if TORTURE else 3
ROUNDS = 10 if TORTURE else 2


@pytest.fixture
def bundle(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "b.tar.zst"
    ostore.export(["*"], path, models=store.root)
    return path


def damaged(root: Path, store: Store) -> Store:
    """A copy of the store with a blob zeroed, one missing, a manifest broken, and a model of its own."""
    shutil.copytree(store.root, root)
    made = Store(root)
    made.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    made.blob_path(b"Say hi!").unlink()
    made.write_manifest(full("tiny:latest"), b"half a manif")
    made.model("mine:latest", b"my own weights")
    return made


def repair_under(tracer: Sequence[str], bundle: Path, root: Path) -> subprocess.CompletedProcess[str]:
    command = [*tracer, *OSTORE, "repair", "--from", str(bundle), "--models", str(root)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def steps_of(call: str, bundle: Path, root: Path, log: Path) -> list[int]:
    """At which calls of its kind a repair touches something below `root`."""
    done = repair_under(["strace", "-f", "-y", "-o", str(log), "-e", f"trace={call}"], bundle, root)
    assert done.returncode == 0, done.stderr
    made = [line for line in log.read_text().splitlines() if re.match(rf"\d+ +{call}\(", line)]
    return [number for number, line in enumerate(made, 1) if str(root) in line]


def problems(root: Path) -> set[tuple[str, str]]:
    return {(problem.kind, problem.subject) for problem in ostore.verify(models=root)[0].problems}


@needs_strace
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", MUTATORS)
def test_a_fault_at_any_step_makes_nothing_worse_and_the_same_command_finishes(
    store: Store, bundle: Path, tmp_path: Path, call: str, fault: str
) -> None:
    log = tmp_path / "log"
    steps = steps_of(call, bundle, damaged(tmp_path / "undisturbed", store).root, log)
    assert steps
    finished = tree(tmp_path / "undisturbed")
    stride = -(-len(steps) // STEPS)
    for number in steps[FAULTS.index(fault) * stride // len(FAULTS) :: stride]:
        root = tmp_path / f"store{number}"
        before, found = tree(damaged(root, store).root), problems(root)
        tracer = ["strace", "-f", "-o", str(log), "-e", f"inject={call}:{fault}:when={number}"]
        faulty = repair_under(tracer, bundle, root)
        assert "Traceback" not in faulty.stderr
        after = tree(root)
        # Every path is as it was, or as it is going to be, or not there yet.
        for path in before.keys() | after.keys():
            assert after.get(path) in {before.get(path), finished.get(path)}, (number, path, faulty.stderr)
        # A blob without a manifest may have come; nothing is wrong that was not.
        assert problems(root) <= found, (number, faulty.stderr)
        if faulty.returncode == 0:
            assert after == finished
        assert repair_under([], bundle, root).returncode == 0
        assert tree(root) == finished
        # Nothing is left to do, and so nothing is cleared away, if only the clearing away was disturbed.
        assert len(list((root / ".ostore/tx").iterdir())) <= (after == finished)
        kept = sorted(path.read_bytes() for path in (root / ".ostore/quarantine").iterdir())
        assert kept == [bytes(len(WEIGHTS)), b"half a manif"]
        shutil.rmtree(root)


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


class Damage:
    """Random damage to a store, the same for the same seed; what it did is not told to anybody."""

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._random = random.Random(seed)
        self._blobs = sorted((store.root / "blobs").iterdir())
        self._manifests = sorted(path for path in (store.root / "manifests").rglob("*") if path.is_file())
        self._elsewhere = store.root.parent / f"elsewhere{seed}"
        self._elsewhere.mkdir()

    def do(self) -> None:
        kinds = (self.flip, self.cut, self.zero, self.swap, self.remove, self.link, self.empty, self.break_manifest)
        self._random.choice(kinds)()

    def flip(self) -> None:
        path = self._blob()
        data = bytearray(path.read_bytes())
        at = self._random.randrange(len(data))
        data[at] ^= 1 << self._random.randrange(8)
        path.write_bytes(data)

    def cut(self) -> None:
        path = self._blob()
        os.truncate(path, self._random.randrange(path.stat().st_size))

    def zero(self) -> None:
        path = self._blob()
        path.write_bytes(bytes(path.stat().st_size))

    def swap(self) -> None:
        one, other = self._blob(), self._blob()
        between = one.with_name("between")
        one.rename(between)
        other.rename(one)
        between.rename(other)

    def remove(self) -> None:
        self._blob().unlink()

    def link(self) -> None:
        path = self._blob()
        target = self._elsewhere / path.name
        path.rename(target)
        path.symlink_to(target)

    def empty(self) -> None:
        self._manifest().write_bytes(b"")

    def break_manifest(self) -> None:
        path = self._manifest()
        path.write_bytes(path.read_bytes()[: self._random.randrange(1, 60)])

    def _blob(self) -> Path:
        """One that nothing has happened to yet."""
        return self._blobs.pop(self._random.randrange(len(self._blobs)))

    def _manifest(self) -> Path:
        return self._random.choice(self._manifests)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_any_damage_is_found_and_mended_and_nothing_else_touched(tmp_path: Path, seed: int) -> None:
    store = six_kinds(tmp_path / "models")
    ostore.export(["*"], tmp_path / "b.tar.zst", models=store.root)
    store.model("mine:latest", b"my own weights")
    ours = {layer.digest for layer in ostore.show("mine", models=store.root).layers}
    mine = store.manifest_path(full("mine:latest"))
    whole = tree(store.root)
    damage = Damage(store, seed)
    for _ in range(100):
        damage.do()
    broken, elsewhere = tree(store.root), tree(tmp_path / f"elsewhere{seed}")
    inodes = {path: (store.root / path).lstat().st_ino for path, what in whole.items() if broken.get(path) == what}

    # Among the bad ones are orphans: the models that need them have lost their manifests.
    changed = {path for path in whole if broken.get(path) != whole[path]}
    found = {subject for _, subject in problems(store.root)}
    unfound = {path for path in changed if path not in found and path.replace("blobs/sha256-", "sha256:") not in found}
    report = ostore.repair(sources=[tmp_path / "b.tar.zst"], models=store.root)

    # The bundle has not the model that came after it.
    subjects = {problem.subject for problem in report.left}
    assert subjects <= {*ours, mine.relative_to(store.root).as_posix()}
    left = {subject.replace("sha256:", "blobs/sha256-") for subject in subjects}
    after = tree(store.root)
    assert {path for path in whole if after.get(path) != whole[path]} == left
    assert after.keys() <= whole.keys()
    # What verify could not know of, because no manifest spoke of it any more, came with the manifests.
    assert all(path.startswith("blobs/") and path not in broken for path in unfound)
    assert {path: (store.root / path).lstat().st_ino for path in inodes} == inodes
    assert tree(tmp_path / f"elsewhere{seed}") == elsewhere


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


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
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
