"""Whatever happens during a move, each model is whole in one of the two stores, and the same command can finish it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import ostore
from ostore.api.move import removal
from ostore.cli.render.move import check_text
from ostore.formats.errors import BusyError, IntegrityError, NoSpaceError, NotFoundError, UsageError
from ostore.host.servers import ollama_processes
from ostore.host.service_unit import environment_line, service_directives, service_environment
from ostore.operations.move import removable
from tests.support import MODEL, OSTORE, Store, full, noise, sha256, some, tree, unmeasured
from tests.support import ostore as run
from tests.test_publication import injected, strace

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
WEIGHTS = b"the weights " * 1000
MUTATORS = ("openat", "mkdirat", "linkat", "renameat", "unlinkat", "fsync", "utimensat", "writev", "fchmod", "flock")


@pytest.fixture(params=["one disk", "two disks"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder to move to, on the same disk or on another one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "one disk":
        yield folder
        return
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def move_under(tracer: list[str], source: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run("move", *options, target, "--models", source, "--yes", tracer=tracer)


def small_store(root: Path) -> Store:
    """Two models that share their weights, and a blob that nobody needs any more."""
    store = Store(root)
    store.model("tiny:latest", WEIGHTS, template=b"{{ .Prompt }}")
    store.model("tiny:q4", WEIGHTS, system=b"Say hi!")
    store.blob(b"an orphan")
    return store


def models_of(root: Path) -> dict[str, list[str]]:
    """The models of a store, and the files of their blobs."""
    found = {}
    for path in root.glob("manifests/*/*/*/*"):
        document = json.loads(path.read_bytes())
        digests = [layer["digest"] for layer in (document["config"], *document["layers"])]
        found[str(path.relative_to(root))] = [digest.replace(":", "-") for digest in digests]
    return found


def check_each_model_is_somewhere(stores: tuple[Path, Path], models: dict[str, list[str]]) -> None:
    """No store lists a model that it has not whole, and each model is whole in one of them."""
    whole = set()
    for root in stores:
        for name, blobs in models_of(root).items():
            for blob in blobs:
                assert f"sha256-{sha256((root / 'blobs' / blob).read_bytes())}" == blob, (root, name)
            whole.add(name)
    assert whole == models.keys()


def leftovers(root: Path) -> list[str]:
    return [str(path) for part in ("tx/*", "trash/*", "trash") for path in root.glob(f".ostore/{part}")]


# On one disk, tests/torture does it.
@needs_strace
@pytest.mark.parametrize("other", ["two disks"], indirect=True)
@pytest.mark.parametrize("call", MUTATORS)
def test_a_move_to_another_disk_stopped_at_any_step_leaves_every_model_whole(
    other: Path, tmp_path: Path, call: str
) -> None:
    log, stores = tmp_path / "log", (tmp_path / "from", other / "to")
    models, finished = undisturbed(log, stores)
    cases = [(step, how) for step in steps_of(log, stores, call) for how in ("signal=KILL", "error=EIO")]
    assert cases
    for step, how in some(cases, 1, call):
        stop_and_go_on(log, stores, f"{call}:{how}:when={step}", models, finished)


def undisturbed(log: Path, stores: tuple[Path, Path]) -> tuple[dict[str, list[str]], tuple[dict[str, str], ...]]:
    """Move once, and note each step; the models that there were, and both stores afterwards."""
    models = models_of(small_store(stores[0]).root)
    done = move_under(strace(log, "-e", f"trace={','.join(MUTATORS)}"), *stores)
    assert done.returncode == 0, done.stderr
    finished = tuple(tree(root) for root in stores)
    for root in stores:
        shutil.rmtree(root)
    return models, finished


def steps_of(log: Path, roots: Sequence[Path], call: str) -> list[int]:
    """Numbers of calls that touch a store, as strace counts them to inject something: each thread's by themselves."""
    counts: Counter[str] = Counter()
    steps = set()
    for line in log.read_text().splitlines():
        if match := re.match(rf"(\d+) +{call}\(", line):
            counts[match[1]] += 1
            steps |= {counts[match[1]]} if any(f"{root}/" in line or f"{root}>" in line for root in roots) else set()
    return sorted(steps)


def stop_and_go_on(
    log: Path,
    stores: tuple[Path, Path],
    injection: str,
    models: dict[str, list[str]],
    finished: tuple[dict[str, str], ...],
) -> None:
    small_store(stores[0])
    stopped = move_under(injected(log.with_suffix(".again"), injection), *stores)
    assert "Traceback" not in stopped.stderr
    # 6 where it could not look at what it was to remove: it says that this stays.
    assert stopped.returncode in {0, 6, 9, -signal.SIGKILL, 128 + signal.SIGKILL}, (injection, stopped.stderr)
    check_each_model_is_somewhere(stores, models)
    again = move_under([], *stores)
    assert again.returncode == 0, (injection, again.stderr)
    assert tuple(tree(root) for root in stores) == finished, (injection, stopped.stderr)
    # What a dead command had staged is for the next one that wants it, or for gc.
    ostore.gc(models=stores[1], without_models=True)
    assert [*leftovers(stores[0]), *leftovers(stores[1])] == [], (injection, stopped.stderr)
    for root in stores:
        shutil.rmtree(root)


def test_a_store_moves_with_every_kind_of_model_its_bytes_and_its_times(kinds: Store, other: Path) -> None:
    source, target = other.parent / "from", other / "to"
    shutil.copytree(kinds.root, source)
    for number, path in enumerate(sorted(source.glob("manifests/*/*/*/*"))):
        os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789 + number))
    times = {str(path.relative_to(source)): path.stat().st_mtime_ns for path in source.glob("manifests/*/*/*/*")}
    before = tree(source)
    report = ostore.move(target, models=source)
    assert tree(target) == before
    assert {path: (target / path).stat().st_mtime_ns for path in times} == times
    assert tree(source) == {}
    assert all(model.removed for model in report.models)
    assert (report.blobs_linked > 0) == (other.stat().st_dev == source.stat().st_dev)
    assert report.blobs_removed == report.blobs_linked + report.blobs_written
    # And back, into the folder that is still there.
    ostore.move(source, models=target)
    assert tree(source) == before
    assert {path: (source / path).stat().st_mtime_ns for path in times} == times


def test_on_one_disk_files_are_linked_and_not_copied(store: Store, tmp_path: Path) -> None:
    inodes = {path.name: path.stat().st_ino for path in (store.root / "blobs").iterdir()}
    ostore.move(tmp_path / "to", models=store.root)
    assert {path.name: path.stat().st_ino for path in (tmp_path / "to/blobs").iterdir()} == inodes


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_copied_because_a_link_would_have_to_change_hands(
    store: Store, tmp_path: Path
) -> None:
    inodes = {path.name: path.stat().st_ino for path in (store.root / "blobs").iterdir()}
    theirs = store.blob_path(WEIGHTS)
    os.chown(theirs, 12_345, 12_345)
    report = ostore.move(tmp_path / "to", models=store.root)
    changed = [path for path in (tmp_path / "to/blobs").iterdir() if path.stat().st_ino != inodes[path.name]]
    assert [(path.name, path.stat().st_uid) for path in changed] == [(theirs.name, 0)]
    assert (report.blobs_written, report.removed) == (1, True)


def test_a_blob_with_its_old_name_moves_and_gets_the_new_one(store: Store, tmp_path: Path) -> None:
    """Ollama before 0.1.30 wrote a colon where a hyphen is now."""
    now = store.blob_path(WEIGHTS)
    old = now.rename(now.with_name(now.name.replace("-", ":")))
    report = ostore.move(tmp_path / "to", models=store.root)
    assert report.removed
    assert not old.exists()
    assert (tmp_path / "to/blobs" / now.name).read_bytes() == WEIGHTS


def test_a_move_that_is_interrupted_while_it_hashes_goes_on_when_called_again(store: Store, tmp_path: Path) -> None:
    before = tree(store.root)

    class Interrupted:
        def phase(self, label: str, total_bytes: int) -> None: ...
        def begin(self, item: str, size: int) -> None: ...
        def end(self, item: str) -> None: ...
        def advance(self, item: str, size: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ostore.move(tmp_path / "to", models=store.root, progress=Interrupted())
    assert tree(store.root) == before
    assert ostore.move(tmp_path / "to", models=store.root).removed
    assert tree(tmp_path / "to") == before


def test_a_store_of_more_blobs_than_a_process_may_have_files_open_moves(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    for number in range(100):
        store.model(f"m{number}:latest", b"%d" % number)
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *OSTORE]
    done = subprocess.run(
        [*limited, "move", tmp_path / "to", "--yes", "--models", store.root], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "to/blobs").iterdir())) >= 100


@pytest.mark.parametrize("trust", [False, True])
def test_a_blob_that_is_linked_is_hashed_unless_told_otherwise(store: Store, tmp_path: Path, trust: bool) -> None:
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    before = tree(store.root)
    options = ["--trust-existing"] if trust else []
    done = run("move", tmp_path / "to", *options, "--yes", "--models", store.root)
    if trust:
        assert done.returncode == 0
        assert tree(tmp_path / "to") == before
    else:
        assert done.returncode == 4
        assert "used by tiny:latest, tiny:q4" in done.stderr
        assert (tree(store.root), (tmp_path / "to/manifests").exists()) == (before, False)


def test_models_are_offloaded_and_come_back_as_they_were(kinds: Store, other: Path) -> None:
    source, target = other.parent / "from", other / "to"
    shutil.copytree(kinds.root, source)
    before = tree(source)
    report = ostore.move(target, ["tiny:q4", "sees"], models=source)
    assert [model.name for model in report.models] == ["sees:latest", "tiny:q4"]
    assert [model.name for model in ostore.list_models(models=target).models] == ["sees:latest", "tiny:q4"]
    # What tiny:latest needs as well is in both now.
    assert ostore.verify(models=source)[0].verdict == ostore.verify(models=target)[0].verdict == "whole"
    assert len({model.name for model in ostore.list_models(models=source).models}) == 5
    again = ostore.move(target, ["tiny:q4", "sees"], models=source)
    assert (again.models, again.blobs_removed) == ((), 0)
    ostore.move(source, ["*"], models=target)
    assert tree(source) == before
    with pytest.raises(NotFoundError, match="absent"):
        ostore.move(target, ["tiny:q4", "absent"], models=source)
    assert tree(source) == before


@needs_strace
def test_an_offload_killed_while_blobs_leave_is_finished_by_the_same_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    offload = ["--offload", "tiny*"]
    small_store(tmp_path / "undisturbed")
    move_under(strace(log, "-e", "trace=renameat"), tmp_path / "undisturbed", tmp_path / "done", *offload)
    steps = steps_of(log, [tmp_path / "undisturbed"], "renameat")
    # Two manifests, then the blobs.
    assert len(steps) == 6
    for step in steps[2:]:
        source, target = tmp_path / f"from{step}", tmp_path / f"to{step}"
        small_store(source)
        killed = move_under(injected(log, f"renameat:signal=KILL:when={step}"), source, target, *offload)
        assert killed.returncode != 0
        assert move_under([], source, target, *offload).returncode == 0
        assert (tree(source), tree(target)) == (tree(tmp_path / "undisturbed"), tree(tmp_path / "done"))
        assert leftovers(source) == []


@as_root
@pytest.mark.parametrize("is_there", [False, True])
def test_the_new_store_belongs_to_whom_the_old_one_belongs(store: Store, other: Path, is_there: bool) -> None:
    target = other / "to"
    for path in (store.root, *store.root.rglob("*")):
        os.chown(path, 12345, 12346)
    for folder in (store.root, store.root / "blobs"):
        folder.chmod(0o2775)
    store.write_manifest(full("later:latest"), next(store.root.glob("manifests/*/*/*/*")).read_bytes())
    os.chown(store.manifest_path(full("later:latest")), 0, 0)
    # One that somebody pulled as root: the server could neither touch nor remove it.
    os.chown(store.blob_path(WEIGHTS), 0, 0)
    if is_there:
        (target / "lost+found").mkdir(parents=True)
    ostore.move(target, models=store.root)
    for path in (target, *target.rglob("*")):
        status = path.stat()
        if path.name != "lost+found":
            assert (status.st_uid, status.st_gid) == (12345, 12346), path
    assert oct((target / "blobs").stat().st_mode) == oct(0o42775)
    assert oct(target.stat().st_mode) == oct(0o42775)


@as_root
@needs_strace
@pytest.mark.parametrize("call", ["mkdirat", "fchown", "fchmod"])
def test_what_was_made_but_not_given_away_is_given_away_later(store: Store, tmp_path: Path, call: str) -> None:
    """Killed between the two, a move would leave folders that the server cannot enter."""
    for path in (store.root, *store.root.rglob("*")):
        os.chown(path, 12345, 12346)
    shutil.copytree(store.root, tmp_path / "kept", copy_function=shutil.copy2)
    log, target = tmp_path / "log", tmp_path / "to"
    assert move_under(strace(log, "-e", f"trace={call}"), store.root, target).returncode == 0
    steps = [*steps_of(log, [target], call), *([1] if call == "mkdirat" else [])]
    for step in some(sorted({*steps}), 2, call):
        shutil.rmtree(target)
        shutil.rmtree(store.root)
        shutil.copytree(tmp_path / "kept", store.root)
        for path in (store.root, *store.root.rglob("*")):
            os.chown(path, 12345, 12346)
        killed = move_under(injected(log, f"{call}:signal=KILL:when={step}"), store.root, target)
        assert killed.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
        target.mkdir(exist_ok=True)
        assert move_under([], store.root, target).returncode == 0
        for path in (target, *target.rglob("*")):
            status = path.stat()
            assert (status.st_uid, status.st_gid) == (12345, 12346), (step, path)
            assert status.st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), (step, path)


@as_root
def test_a_folder_that_the_server_may_not_pass_is_told_of(store: Store, tmp_path: Path) -> None:
    for path in (store.root, *store.root.rglob("*")):
        os.chown(path, 12345, 12346)
    (tmp_path / "private").mkdir(mode=0o700)
    # What lies above the test's own folder may be closed as well.
    report = ostore.move(tmp_path / "private/to", models=store.root, dry_run=True)
    assert [warning for warning in report.warnings if "may not pass" in warning] != []


@as_root
def test_a_disk_that_is_too_small_is_told_before_anything_is_written(store: Store, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    store.model("large:latest", noise(3_000_000))
    before = tree(store.root)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        done = run("move", disk / "to", "--yes", "--models", store.root)
        assert done.returncode == 7, done.stderr
        assert (tree(store.root), list(disk.iterdir())) == (before, [])
        with pytest.raises(NoSpaceError):
            ostore.move(disk / "to", models=store.root)
    finally:
        subprocess.run(["umount", disk], check=True)


def broken(store: Store) -> None:
    store.write_manifest(full("half:latest"), b'{"schemaVersion"')


def dashed(store: Store) -> None:
    layer = store.layer(MODEL, b"odd")
    store.add(full("dashed:latest"), {**layer, "digest": layer["digest"].replace(":", "-")})


def of_tomorrow(store: Store) -> None:
    path = store.root / "manifests-v2/ollama.com/library/tiny/v2"
    path.parent.mkdir(parents=True)
    path.write_bytes(store.manifest_path(full("tiny:q4")).read_bytes())


def listing(store: Store) -> None:
    child = store.blob(store.manifest_path(full("tiny:q4")).read_bytes())
    store.write_manifest(
        full("list:latest"), json.dumps({"schemaVersion": 2, "manifests": [{"digest": child}]}).encode()
    )


def stray_tag(store: Store) -> None:
    (store.root / "manifests/registry.ollama.ai/library/tiny/.DS_Store").write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "code"), [(broken, 10), (dashed, 8), (of_tomorrow, 12), (listing, 12), (stray_tag, 10)]
)
def test_a_store_with_a_model_that_nobody_can_carry_does_not_move_without_it(
    store: Store, tmp_path: Path, spoil: Callable[[Store], None], code: int
) -> None:
    spoil(store)
    before = tree(store.root)
    done = run("move", tmp_path / "to", "--yes", "--models", store.root)
    assert done.returncode == code, done.stderr
    assert (tree(store.root), (tmp_path / "to").exists()) == (before, False)


def test_what_is_no_model_stays_and_is_told_of(store: Store, tmp_path: Path) -> None:
    stays = {
        "blobs/README": b"not Ollama's",
        f"blobs/sha256-{'1' * 64}-partial": b"half",
        f"blobs/sha256-{'1' * 64}-partial-0": b"{}",
        "blobs/sha256-123": b"an upload",
        f"blobs/sha256-{'2' * 64}": b"damaged",
        ".ostore/quarantine/manifest-1": b"broken once",
        "manifests/notes.txt": b"at no place of a manifest",
        "ollama-safetensors-1/model.gguf": b"being converted",
    }
    for path, data in stays.items():
        (store.root / path).parent.mkdir(parents=True, exist_ok=True)
        (store.root / path).write_bytes(data)
    store.blob(b"young, and of a pull that is under way, perhaps")
    report = ostore.move(tmp_path / "to", models=store.root)
    young = store.blob_path(b"young, and of a pull that is under way, perhaps")
    shown = {path.removesuffix("/model.gguf") for path in stays}
    assert {entry.path for entry in report.left} == {*shown, f"blobs/{young.name}"}
    assert {path: (store.root / path).read_bytes() for path in stays} == stays
    assert young.exists()
    assert (tmp_path / "to/blobs" / young.name).exists()
    assert ostore.list_models(models=store.root).models == ()


def test_an_orphan_goes_along(store: Store, other: Path) -> None:
    store.blob(b"an orphan")
    report = ostore.move(other / "to", models=store.root)
    assert Store(other / "to").blob_path(b"an orphan").read_bytes() == b"an orphan"
    assert (report.left, tree(store.root)) == ((), {})


def test_a_store_joins_another_and_harms_nothing_there(store: Store, tmp_path: Path) -> None:
    there = Store(tmp_path / "there")
    there.model("mine:latest", b"my own weights", system=b"keep me")
    there.model("tiny:q4", b"another model of that name")
    before = tree(there.root), tree(store.root)
    done = run("move", there.root, "--yes", "--models", store.root)
    assert done.returncode == 2, done.stderr
    assert "ostore cp" in done.stderr
    assert (tree(there.root), tree(store.root)) == before
    there.manifest_path(full("tiny:q4")).unlink()
    ostore.move(there.root, models=store.root)
    after = tree(there.root)
    kept = [path for path in before[0] if not path.endswith("tiny/q4")]
    assert {path: after[path] for path in kept} == {path: before[0][path] for path in kept}
    assert ostore.verify(["mine", "tiny", "tiny:q4"], models=there.root)[0].verdict == "whole"


def test_a_store_does_not_move_into_itself(store: Store, tmp_path: Path) -> None:
    before = tree(store.root)
    linked, twin = tmp_path / "linked", tmp_path / "twin"
    linked.symlink_to(store.root)
    twin.mkdir()
    (twin / "blobs").symlink_to(store.root / "blobs")
    for target in (store.root, linked, twin, store.root / "new", store.root / "blobs", tmp_path, store.root.parent):
        done = run("move", target, "--yes", "--models", store.root)
        assert done.returncode == 2, (target, done.stderr)
    assert tree(store.root) == before


@as_root
def test_a_store_mounted_in_two_places_is_one(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    subprocess.run(["mount", "--bind", store.root, tmp_path / "mounted"], check=True)
    try:
        with pytest.raises(UsageError, match="itself"):
            ostore.move(tmp_path / "mounted", models=store.root)
    finally:
        subprocess.run(["umount", tmp_path / "mounted"], check=True)


def test_a_manifest_that_is_a_link_to_the_old_one_is_not_taken_for_a_copy(store: Store, tmp_path: Path) -> None:
    path = Store(tmp_path / "to").manifest_path(full("tiny:q4"))
    path.parent.mkdir(parents=True)
    path.symlink_to(store.manifest_path(full("tiny:q4")))
    done = run("move", tmp_path / "to", "--yes", "--models", store.root)
    assert (done.returncode, "tiny:q4: still in the old store" in done.stdout) == (6, True), done.stderr
    assert [model.name for model in ostore.list_models(models=store.root).models] == ["tiny:q4"]
    assert ostore.verify(["tiny:q4"], models=store.root)[0].verdict == "whole"


def test_what_changes_before_it_is_removed_stays(store: Store, tmp_path: Path) -> None:
    there = Store(tmp_path / "to")
    store.model("third:latest", b"third")

    def meddle(report: ostore.MoveReport) -> bool:
        assert not report.removed
        store.model("tiny:q4", b"pulled anew")
        there.blob_path(b"third").unlink()
        return True

    report = ostore.move(there.root, models=store.root, approve=meddle)
    assert {model.name for model in report.models if not model.removed} == {"tiny:q4", "third:latest"}
    assert ostore.verify(["tiny:q4", "third"], models=store.root)[0].verdict == "whole"
    assert [model.name for model in ostore.list_models(models=store.root).models if model.name == "tiny:latest"] == []


def test_a_manifest_that_changes_after_it_was_compared_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pulled = store.manifest_path(full("tiny:q4")), b'{"schemaVersion":2}'

    def planned(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - those of `removable`
        path.write_bytes(pulled)
        return removable(*arguments, **options)

    monkeypatch.setattr(removal, "removable", planned)
    with pytest.raises(UsageError, match="has just changed"):
        ostore.move(tmp_path / "to", models=store.root)
    assert path.read_bytes() == pulled


def test_a_manifest_that_goes_there_or_comes_to_another_place_here_stays_here(store: Store, tmp_path: Path) -> None:
    there, q4 = Store(tmp_path / "to"), full("tiny:q4")
    coming = (
        store.root / "manifests-v2" / store.manifest_path(full("tiny:latest")).relative_to(store.root / "manifests")
    )

    def meddle(_report: ostore.MoveReport) -> bool:
        there.manifest_path(q4).unlink()
        coming.parent.mkdir(parents=True)
        coming.write_bytes(store.manifest_path(full("tiny:latest")).read_bytes())
        return True

    ostore.move(there.root, models=store.root, approve=meddle)
    assert store.manifest_path(q4).exists()
    assert coming.exists()
    assert not store.manifest_path(full("tiny:latest")).exists()
    assert ostore.verify(models=store.root)[0].verdict == "whole"


def test_a_model_that_comes_while_the_others_leave_keeps_its_blobs(store: Store, tmp_path: Path) -> None:
    def pull(_report: ostore.MoveReport) -> bool:
        store.model("late:latest", WEIGHTS)
        return True

    report = ostore.move(tmp_path / "to", models=store.root, approve=pull)
    assert all(model.removed for model in report.models)
    assert [model.name for model in ostore.list_models(models=store.root).models] == ["late:latest"]
    assert ostore.verify(models=store.root)[0].verdict == "whole"


@as_root
def test_a_disk_that_does_not_give_back_what_it_was_given_is_found_out(store: Store, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    before = tree(store.root)

    class Spoiling:
        def phase(self, label: str, total_bytes: int) -> None:
            if label == "reading back":
                (staged,) = disk.glob(f"to/.ostore/tx/*/{store.blob_path(WEIGHTS).name}")
                staged.write_bytes(bytes(len(WEIGHTS)))

        def begin(self, item: str, size: int) -> None: ...
        def advance(self, item: str, size: int) -> None: ...
        def end(self, item: str) -> None: ...

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    try:
        with pytest.raises(IntegrityError, match="read back from"):
            ostore.move(disk / "to", models=store.root, progress=Spoiling())
        assert tree(store.root) == before
        assert not (disk / "to/manifests").exists()
        assert [model.removed for model in ostore.move(disk / "to", models=store.root).models] == [True, True]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_without_a_terminal_and_a_yes_nothing_is_done(store: Store, tmp_path: Path) -> None:
    before = tree(store.root)
    done = run("move", tmp_path / "to", "--models", store.root)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert (tree(store.root, without=()), (tmp_path / "to").exists()) == (before, False)


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        ("from/inside", 2, "one is inside the other"),
        ("from", 2, "is the store itself"),
        ("file", 2, "not a folder"),
        ("absent/to", 3, "no such folder"),
        ("to*", 2, "Ollama cannot use a store"),
    ],
)
def test_what_is_wrong_with_dest_is_said_before_anybody_is_to_be_asked(
    tmp_path: Path, place: str, code: int, said: str
) -> None:
    """Without a terminal the question cannot be put; but that is not what has to be mended first."""
    Store(tmp_path / "from").model("tiny:latest", b"weights")
    (tmp_path / "file").write_bytes(b"mine")
    before = tree(tmp_path, without=())
    done = run("move", tmp_path / place, "--models", tmp_path / "from")
    assert (done.returncode, said in done.stderr, "terminal" in done.stderr) == (code, True, False), done.stderr
    assert tree(tmp_path, without=()) == before


@as_root
def test_a_disk_that_is_too_small_is_refused_before_anybody_is_asked_or_anything_hashed(
    store: Store, tmp_path: Path
) -> None:
    store.model("large:latest", noise(3_000_000))
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    try:
        for options in ((), ("--yes",)):
            done = run("move", disk / "to", *options, "--models", store.root)
            assert (done.returncode, "bytes of free space" in done.stderr) == (7, True), done.stderr
        assert list(disk.iterdir()) == []
        # What an interrupted move has staged is on its way, and takes up the room that it needs.
        staged = disk / "to/.ostore/tx/1-00000000"
        (disk / "to/blobs").mkdir(parents=True)
        staged.mkdir(parents=True, mode=0o700)
        (staged / store.blob_path(WEIGHTS).name).write_bytes(bytes(1_500_000))
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        assert ostore.move(disk / "to", models=store.root).removed
    finally:
        subprocess.run(["umount", disk], check=True)


def test_who_comes_second_to_a_store_that_is_being_moved_is_told_that_it_was_busy(store: Store, tmp_path: Path) -> None:
    class Overtaken:
        """Lets another move do all of it, once this one has seen what there is."""

        def __init__(self) -> None:
            self.others: list[ostore.MoveReport] = []

        def phase(self, label: str, total_bytes: int) -> None:
            if not self.others:
                self.others.append(ostore.move(tmp_path / "first", models=store.root))

        def begin(self, item: str, size: int) -> None: ...
        def advance(self, item: str, size: int) -> None: ...
        def end(self, item: str) -> None: ...

    before, overtaken = tree(store.root), Overtaken()
    with pytest.raises(BusyError, match="another command has just moved or removed it"):
        ostore.move(tmp_path / "second", models=store.root, progress=overtaken)
    assert [report.removed for report in overtaken.others] == [True]
    assert tree(tmp_path / "first") == before
    assert not (tmp_path / "second/manifests").exists()


def test_where_there_is_nothing_to_move_nothing_is_said_to_be_in_both(tmp_path: Path) -> None:
    (tmp_path / "from/blobs").mkdir(parents=True)
    done = run("move", tmp_path / "to", "--yes", "--models", tmp_path / "from")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"nothing to move from {tmp_path / 'from'}"), (
        done.stderr
    )
    assert "is still in" not in done.stdout
    # There is no store there that Ollama could find.
    assert ("to make Ollama use it" in done.stdout, (tmp_path / "to").exists()) == (False, False)


def test_a_dry_run_says_what_would_be_and_writes_nothing(store: Store, tmp_path: Path) -> None:
    before = tree(store.root)
    report = ostore.move(tmp_path / "to", models=store.root, dry_run=True)
    done = run("move", "--offload", "tiny:q4", tmp_path / "to", "-n", "--models", store.root)
    assert (done.returncode, "would move 1 model: 3 blobs linked" in done.stdout) == (0, True)
    assert [model.outcome for model in report.models] == ["added", "added"]
    assert (report.blobs_linked, report.removed) == (4, False)
    assert (tree(store.root, without=()), (tmp_path / "to").exists()) == (before, False)


@pytest.mark.parametrize(("answer", "is_left"), [("n", True), ("", True), ("y", False)])
def test_the_old_store_is_cleared_only_after_a_yes(store: Store, tmp_path: Path, answer: str, is_left: bool) -> None:
    import pty  # POSIX only

    before = tree(store.root)
    terminal, theirs = pty.openpty()
    command = [*OSTORE, "move", str(tmp_path / "to"), "--models", str(store.root), "--color", "never"]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        os.write(terminal, f"{answer}\n".encode())
        out, errors = process.communicate(timeout=60)
    os.close(terminal)
    os.close(theirs)
    assert process.returncode == 0, errors
    assert "Remove them from the old store? [y/N]" in errors
    assert tree(tmp_path / "to") == before
    assert tree(store.root) == (before if is_left else {})
    assert ("is still in" in out) == is_left
    assert f"ostore move --check {tmp_path}/to" in out


@unmeasured
def test_ctrl_c_leaves_the_old_store_whole_and_says_that_it_can_go_on(tmp_path: Path) -> None:
    """A sparse blob of 40 GB takes half a minute to hash; nobody who wants to stop should wait for that."""
    store = Store(tmp_path / "from")
    (store.root / "blobs").mkdir(parents=True)
    promised = sha256(b"not these zeros")
    with (store.root / "blobs" / f"sha256-{promised}").open("wb") as file:
        file.truncate(40_000_000_000)
    store.add(full("huge:latest"), {"mediaType": MODEL, "digest": f"sha256:{promised}", "size": 40_000_000_000})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [*OSTORE, "move", str(tmp_path / "to"), "--yes", "--models", str(store.root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("verifying sha256 digest: 40 GB")
        time.sleep(0.5)
        stopped = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        waited = time.monotonic() - stopped
    assert (process.returncode, waited < 10) == (130, True)
    assert errors == "ostore: interrupted; the same command goes on from here\n"
    assert [model.name for model in ostore.list_models(models=store.root).models] == ["huge:latest"]
    assert list((tmp_path / "to").glob("manifests/*/*/*/*")) == []


@as_root
def test_a_store_on_a_read_only_disk_is_told_before_anything_is_copied(store: Store, tmp_path: Path) -> None:
    subprocess.run(["mount", "--bind", store.root, store.root], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", store.root], check=True)
    try:
        done = run("move", tmp_path / "to", "--yes", "--models", store.root)
        assert (done.returncode, "Read-only" in done.stderr, (tmp_path / "to").exists()) == (9, True, False)
        assert run("move", tmp_path / "to", "-n", "--models", store.root).returncode == 0
    finally:
        subprocess.run(["umount", store.root], check=True)


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_somebody_who_may_not_change_the_old_store_copies_nothing(store: Store) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        shutil.copytree(store.root, folder / "from")
        before = tree(folder / "from", without=())
        done = subprocess.run(
            [
                "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
                *OSTORE, "move", folder / "to", "--yes", "--models", folder / "from",
            ],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if "No module named" in done.stderr or "can't open" in done.stderr:
            pytest.skip("the interpreter cannot be run as another user")
        assert done.returncode == 9, done.stderr
        assert re.fullmatch(r"ostore: error\[io\]: .*Permission denied \(.*sudo .*\)\n", done.stderr)
        assert (tree(folder / "from", without=()), (folder / "to").exists()) == (before, False)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["a", "b"], 2),
        (["--offload", "b"], 2),
        (["--offload", "absent", "to"], 3),
        (["--offload", "../../etc/passwd", "to"], 2),
        (["x*y"], 2),
        (["absent/to"], 3),
        ([""], 2),
        ([], 2),
    ],
    ids=str,
)
def test_a_request_that_makes_no_sense_is_refused(
    store: Store, tmp_path: Path, arguments: list[str], code: int
) -> None:
    done = run("move", *arguments, "--yes", "--models", store.root, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models"]


def test_a_file_is_no_place_to_move_to(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    done = run("move", tmp_path / "file", "--yes", "--models", store.root)
    assert (done.returncode, (tmp_path / "file").read_bytes()) == (2, b"mine")


def test_a_hostile_path_reaches_no_terminal(store: Store, tmp_path: Path) -> None:
    evil = tmp_path / "a\x1b]0;pwned\x07\nstore"
    (store.root / "blobs/\x1b[31mred\n").write_bytes(b"x")
    done = run("move", evil, "--yes", "--models", store.root)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "\\x1b[31mred\\n" in done.stdout


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process called ollama that was started with the store."""
    program = tmp_path / "bin/ollama"
    program.parent.mkdir()
    shutil.copy(shutil.which("sleep") or "sleep", program)
    with subprocess.Popen([program, "60"], env={"OLLAMA_MODELS": f'"{store.root}"'}, cwd=tmp_path) as process:
        while not any(found.pid == process.pid for found in ollama_processes()):
            time.sleep(0.01)
        yield process
        process.kill()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_store_that_a_running_ollama_uses_does_not_move(
    store: Store, tmp_path: Path, server: subprocess.Popen[bytes]
) -> None:
    before = tree(store.root)
    for option in ("--yes", "--dry-run"):
        done = run("move", tmp_path / "to", option, "--models", store.root)
        assert done.returncode == 6
        assert f"an ollama server uses this store (process {server.pid}); nothing was moved" in done.stderr
    assert (tree(store.root), (tmp_path / "to").exists()) == (before, False)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_beside_a_running_ollama_models_can_go_and_what_it_may_be_working_on_stays(
    store: Store, tmp_path: Path, server: subprocess.Popen[bytes]
) -> None:
    store.blob(b"young")
    report = ostore.move(tmp_path / "to", ["tiny:q4"], models=store.root)
    assert [model.name for model in report.models] == ["tiny:q4"]
    assert store.blob_path(b"young").exists()
    (found,) = [one for one in ostore.check_move(tmp_path / "to").settings if one.detail == str(server.pid)]
    assert (found.who, found.store, found.agrees) == ("process", str(store.root), False)
    checked = run("move", "--check", tmp_path / "to", environment={"OLLAMA_MODELS": str(tmp_path / "to")})
    assert checked.returncode == 3
    assert f"stop the running ollama (process {server.pid})" in checked.stdout


def test_a_check_says_whether_ollama_uses_the_new_store(store: Store, tmp_path: Path) -> None:
    other = {"OLLAMA_MODELS": str(tmp_path / "other")}
    here = {"OLLAMA_MODELS": f"'{store.root}'"}
    for path in (store.root, Path(store.root.name)):
        done = run("move", "--check", path, "--json", environment=here, cwd=store.root.parent)
        found = json.loads(done.stdout)
        assert found["settings"][0]["agrees"]
        # An ollama of somebody else may be running here, with a store of its own.
        assert found["agrees"] == all(setting["agrees"] for setting in found["settings"])
        assert (done.returncode == 0) == found["agrees"]
    assert run("move", "--check", "", environment=here).returncode == 2
    told = run("move", "--check", store.root, environment=other)
    assert told.returncode == 3
    assert f"export OLLAMA_MODELS={store.root}" in told.stdout
    document = json.loads(run("move", "--check", store.root, "--json", environment=other).stdout)
    assert document["settings"][0] == {
        "who": "environment",
        "store": str(tmp_path / "other"),
        "detail": "OLLAMA_MODELS",
        "agrees": False,
    }


@pytest.mark.parametrize(
    "path", ["/data/models", "/data/my models", '/a "b"\\c', "/50%/h%h", "/ä/€", "/tab\tnew\nline"]
)
def test_the_line_to_write_into_a_unit_means_what_it_says(tmp_path: Path, path: str) -> None:
    unit = tmp_path / "etc/systemd/system/ollama.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(f"[Service]\nUser=ollama\n{environment_line('OLLAMA_MODELS', path)}\n", "utf-8")
    assert service_environment(service_directives(tmp_path), tmp_path)["OLLAMA_MODELS"].text == path


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        ("/usr/lib/systemd/system/ollama.service", "write into /etc/systemd/system/ollama.service.d/models.conf:"),
        ("/etc/systemd/system/ollama.service.d/a.conf", "in /etc/systemd/system/ollama.service.d/a.conf, below"),
        ("/etc/default/ollama", "in /etc/default/ollama: OLLAMA_MODELS='/data/my models'"),
    ],
)
def test_a_service_is_told_where_the_store_is_in_the_file_that_counts(detail: str, told: str) -> None:
    setting = ostore.StoreSetting("service", "/usr/share/ollama/.ollama/models", detail, agrees=False)
    text = check_text(ostore.MoveCheckReport("/data/my models", agrees=False, settings=(setting,)))
    assert told in text
    assert ('Environment="OLLAMA_MODELS=/data/my models"' in text) == detail.endswith((".service", ".conf"))
    assert "sudo systemctl daemon-reload && sudo systemctl restart ollama.service" in text
    assert "ostore move --check '/data/my models'" in text


def test_nothing_is_to_be_typed_where_ollama_looks_already() -> None:
    setting = ostore.StoreSetting("service", "/data/models", "/etc/default/ollama", agrees=True)
    text = check_text(ostore.MoveCheckReport("/data/models", agrees=True, settings=(setting,)))
    assert text.splitlines()[-1] == "/data/models is the store that Ollama uses"


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_a_member_of_the_group_moves_models_of_a_shared_store(store: Store) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        shutil.copytree(store.root, folder / "shared")
        before = tree(folder / "shared")
        for path in (folder / "shared", *(folder / "shared").rglob("*")):
            os.chown(path, 12345, 12346)
            path.chmod(0o2775 if path.is_dir() else 0o644)

        def moved(*arguments: str | Path) -> None:
            done = subprocess.run(
                ["setpriv", "--reuid=12347", "--regid=12347", "--groups=12346", *OSTORE, "move", *arguments, "--yes"],
                check=False, capture_output=True, text=True,
            )  # fmt: skip
            if "No module named" in done.stderr or "can't open" in done.stderr:
                pytest.skip("the interpreter cannot be run as another user")
            assert done.returncode == 0, done.stderr

        moved("--offload", "*", folder / "mine", "--models", folder / "shared")
        assert tree(folder / "mine") == before
        assert tree(folder / "shared") == {"blobs": "folder", "manifests": "folder"}
        moved("--offload", "*", folder / "shared", "--models", folder / "mine")
        assert tree(folder / "shared") == before
        assert {path.stat().st_gid for path in (folder / "shared/blobs").iterdir()} == {12346}


def test_two_moves_in_opposite_directions_lose_nothing(tmp_path: Path) -> None:
    for attempt in range(3):
        stores = tmp_path / f"one{attempt}", tmp_path / f"other{attempt}"
        models = models_of(small_store(stores[0]).root)
        shutil.copytree(stores[0], stores[1])
        running = [
            subprocess.Popen(
                [*OSTORE, "move", there, "--yes", "--models", here], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for here, there in (stores, stores[::-1])
        ]
        for process in running:
            _, errors = process.communicate(timeout=100)
            # Whoever comes second may find that what it was about to rely on is on its way back.
            assert b"Traceback" not in errors
            assert b"a bug" not in errors
        check_each_model_is_somewhere(stores, models)
