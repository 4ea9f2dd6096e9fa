"""Publishing takes back its work after an error, harms no files of others, and has synced what it reports as done."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

import ostore
from ostore.places.store.receiving.publication import Publication
from tests.support import OSTORE, Store, full, noise, some, tree
from tests.support import ostore as run
from tests.torture.tracing import injecting

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
WEIGHTS = b"the weights " * 1000
UNREADABLE = b"neither JSON nor for everybody"
MUTATORS = ("mkdirat", "openat", "linkat", "renameat", "unlinkat", "fsync", "fchmod", "utimensat", "writev", "flock")


@pytest.fixture
def bundle(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "b.tar.zst"
    ostore.export(["*"], path, models=store.root)
    return path


def strace(log: Path, *options: str) -> list[str]:
    return ["strace", "-f", "-y", "--seccomp-bpf", "-o", str(log), *options]


def injected(log: Path, *injections: str) -> list[str]:
    return [*injecting(*injections, log=log)]


def import_under(tracer: Sequence[str], bundle: Path, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run("import", bundle, "--models", root, *options, tracer=tracer)


def calls(log: Path, root: Path, *, without: str | None = None) -> list[tuple[str, int]]:
    """Which calls, by name and number among its kind, touched something below `root`."""
    counts: dict[str, int] = {}
    seen = []
    for line in log.read_text().splitlines():
        match = re.match(r"\d+ +(\w+)\(", line)
        if match:
            name = match[1]
            counts[name] = counts.get(name, 0) + 1
            if str(root) in line and (without is None or without not in line):
                seen.append((name, counts[name]))
    return seen


def mixed_store(root: Path) -> Store:
    """A store of somebody with one model of the bundle broken, one different, one blob there and one damaged."""
    mine = Store(root)
    mine.model("mine:latest", b"my own weights", system=b"keep me")
    mine.write_manifest(full("tiny:q4"), b"")
    mine.model("tiny:latest", b"another model of that name")
    mine.blob(b"{{ .Prompt }}")
    return mine


def meanwhile(act: Callable[[], bool], seconds: float = 20.0) -> threading.Thread:
    """Try something again and again, beside the test, until it says that it is done."""

    def keep_trying() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if act():
                    return
            except OSError:
                pass
            time.sleep(0.0005)

    thread = threading.Thread(target=keep_trying)
    thread.start()
    return thread


def remove_every_name(root: Path, data: bytes) -> None:
    """Take a blob away for good, as only somebody who may write in the workspace can."""
    name = Store(root).blob_path(data).name
    for path in [root / "blobs" / name, *root.glob(f".ostore/tx/*/{name}*")]:
        path.unlink(missing_ok=True)


@needs_strace
@pytest.mark.parametrize("call", MUTATORS)
def test_an_error_at_any_step_takes_everything_back(bundle: Path, tmp_path: Path, call: str) -> None:
    log = tmp_path / "log"
    mixed_store(tmp_path / "undisturbed")
    done = import_under(strace(log, "-e", f"trace={call}"), bundle, tmp_path / "undisturbed", "--replace")
    assert done.returncode == 0, done.stderr
    finished = tree(tmp_path / "undisturbed")
    steps = [number for name, number in calls(log, tmp_path / "undisturbed") if name == call]
    assert steps
    for number in some(steps, 1, call):
        root = tmp_path / f"store{number}"
        mixed_store(root)
        before = tree(root)
        failed = import_under(injected(log, f"{call}:error=EIO:when={number}"), bundle, root, "--replace")
        assert "Traceback" not in failed.stderr
        assert tree(root) == (finished if failed.returncode == 0 else before), (number, failed.stderr)
        assert failed.returncode in {0, 9}, failed.stderr
        assert import_under([], bundle, root, "--replace").returncode == 0
        assert tree(root) == finished
        assert list((root / ".ostore/tx").iterdir()) == []
        shutil.rmtree(root)


@needs_strace
def test_a_folder_that_cannot_be_made_leaves_an_empty_store_empty(bundle: Path, tmp_path: Path) -> None:
    root, log = tmp_path / "other", tmp_path / "log"
    root.mkdir()
    assert import_under(strace(log, "-e", "trace=mkdirat"), bundle, root).returncode == 0
    for name, number in some(calls(log, root), 2, "mkdirat"):
        shutil.rmtree(root)
        root.mkdir()
        assert import_under(injected(log, f"{name}:error=EDQUOT:when={number}"), bundle, root).returncode == 7
        assert tree(root) == {}


@needs_strace
def test_cleaning_up_is_not_the_outcome(bundle: Path, tmp_path: Path) -> None:
    """The last thing an import does is to remove its folder in the workspace; by then the models are there."""
    root, log = tmp_path / "other", tmp_path / "log"
    assert import_under(strace(log, "-e", "trace=unlinkat"), bundle, root).returncode == 0
    name, number = calls(log, root)[-1]
    shutil.rmtree(root)
    done = import_under(injected(log, f"{name}:error=EIO:when={number}"), bundle, root)
    assert done.returncode == 0, done.stderr


@needs_strace
def test_what_goes_wrong_while_taking_back_does_not_hide_why(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(number: int) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Publication, "_settle", lambda *_: fails(errno.EIO))
    monkeypatch.setattr(Publication, "_take_back_blobs", lambda *_: fails(errno.EROFS))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        ostore.import_bundle(bundle, models=tmp_path / "other")


def test_a_blob_that_a_model_of_somebody_needs_by_now_is_not_taken_back(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Store(tmp_path / "other")

    def create_and_fail(*_: object) -> NoReturn:
        other.model("mine:latest", WEIGHTS)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Publication, "_settle", create_and_fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        ostore.import_bundle(bundle, models=other.root)
    assert [model.name for model in ostore.list_models(models=other.root).models] == ["mine:latest"]
    assert ostore.verify(models=other.root)[0].verdict == "whole"
    assert len(list((other.root / "blobs").iterdir())) == 2


def test_no_blob_is_taken_back_while_a_folder_of_manifests_cannot_be_read(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`os.scandir` is a double: root reads every folder, and this one is to close during the import."""
    other, scandir = Store(tmp_path / "other"), os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("library/mine"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    def create_and_fail(*_: object) -> NoReturn:
        other.model("mine:latest", WEIGHTS)
        monkeypatch.setattr(os, "scandir", refusing)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Publication, "_settle", create_and_fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        ostore.import_bundle(bundle, models=other.root)
    monkeypatch.setattr(os, "scandir", scandir)
    assert ostore.verify(models=other.root)[0].verdict == "whole"


def test_an_export_that_fails_says_why_and_not_what_went_wrong_after(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = subprocess.run(
        [
            *injected(log, "fsync:error=ENOSPC", "unlinkat:error=EIO"),
            *OSTORE, "export", "--all", tmp_path / "b.tar", "--models", store.root,
        ],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr


@needs_strace
@pytest.mark.parametrize("error", ["ENOLCK", "EBADF"])
def test_a_disk_without_locks_takes_models_all_the_same(bundle: Path, store: Store, tmp_path: Path, error: str) -> None:
    """NFS answers EBADF for a directory: it locks only what is open for writing."""
    other = Store(tmp_path / "other")
    other.blob(WEIGHTS)
    done = import_under(injected(tmp_path / "log", f"flock:error={error}"), bundle, other.root)
    assert done.returncode == 0, done.stderr
    assert tree(other.root) == tree(store.root)


@needs_strace
def test_what_was_there_already_is_put_on_the_disk_as_well(bundle: Path, store: Store, tmp_path: Path) -> None:
    """Ollama syncs nothing; "done" must not rest on what a power cut takes away."""
    log = tmp_path / "log"
    store.manifest_path(full("tiny:q4")).unlink()
    assert import_under(strace(log, "-e", "trace=fsync"), bundle, store.root).returncode == 0
    synced = set(re.findall(r"fsync\(\d+<([^>]*)>", log.read_text()))
    names = [*(path.name for path in (store.root / "blobs").iterdir()), "blobs", "tiny", "latest"]
    assert [name for name in names if not any(path.endswith((f"/{name}", f"/{name}.pin")) for path in synced)] == []


@needs_strace
@pytest.mark.parametrize("call", ["fchmod", pytest.param("fchown", marks=as_root)])
def test_a_folder_that_was_made_but_not_given_away_is_given_away_later(bundle: Path, tmp_path: Path, call: str) -> None:
    """Killed between the two, an import would leave a folder that the server cannot enter."""
    owner = (12345, 12346) if call == "fchown" else (os.geteuid(), os.getegid())
    log = tmp_path / "log"
    root = tmp_path / "other"

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        for folder in (root, root / "blobs"):
            folder.mkdir()
            os.chown(folder, *owner)

    fresh()
    assert import_under(strace(log, "-e", f"trace={call}"), bundle, root).returncode == 0
    for name, number in some(calls(log, root, without=".part"), 2, call):
        fresh()
        killed = import_under(injected(log, f"{name}:signal=KILL:when={number}"), bundle, root)
        assert killed.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
        assert import_under([], bundle, root).returncode == 0
        for path in root.rglob("*"):
            status = path.stat()
            assert (status.st_uid, status.st_gid) == owner, path
            assert status.st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


@needs_strace
@pytest.mark.parametrize("call", ["linkat", "utimensat"])
def test_a_blob_exchanged_while_it_is_pinned_is_not_relied_upon(
    bundle: Path, store: Store, tmp_path: Path, call: str
) -> None:
    other, finished = Store(tmp_path / "other"), tree(store.root)
    other.blob(WEIGHTS)
    blob, forged = other.blob_path(WEIGHTS), tmp_path / "forged"
    forged.write_bytes(bytes(len(WEIGHTS)))

    def exchange() -> bool:
        if not any(other.root.glob(".ostore/tx/*/m")):
            return False
        time.sleep(0.5)
        forged.replace(blob)
        return True

    thread = meanwhile(exchange)
    done = import_under(injected(tmp_path / "log", f"{call}:delay_enter=1500000:when=1"), bundle, other.root)
    thread.join()
    assert done.returncode == 0, done.stderr
    assert tree(other.root) == finished


@needs_strace
def test_a_model_that_comes_while_blobs_are_placed_is_not_overwritten(bundle: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.model("mine:latest", b"my own weights")
    before = tree(other.root)
    path = other.manifest_path(full("tiny:q4"))
    path.parent.mkdir(parents=True)

    def pull() -> bool:
        if other.blob_path(WEIGHTS).exists():
            path.write_bytes(b'{"schemaVersion":2,"layers":[]}')
            return True
        return False

    thread = meanwhile(pull)
    done = import_under(injected(tmp_path / "log", "fsync:delay_enter=100000"), bundle, other.root)
    thread.join()
    assert done.returncode == 2, done.stderr
    assert path.read_bytes() == b'{"schemaVersion":2,"layers":[]}'
    after = tree(other.root)
    assert {name for name in after if name.startswith("blobs/")} == {
        name for name in before if name.startswith("blobs/")
    }


def test_a_model_that_somebody_put_over_ours_is_not_taken_back(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    tag = Store(root).manifest_path(full("tiny:q4"))

    def overwrite_and_spoil() -> bool:
        if not tag.stat().st_size:
            return False
        tag.unlink()
        tag.write_bytes(b'{"schemaVersion":2,"layers":[]}')
        remove_every_name(root, WEIGHTS)
        return True

    thread = meanwhile(overwrite_and_spoil)
    done = import_under([], bundle, root)
    thread.join()
    assert done.returncode == 10, done.stderr
    assert tag.read_bytes() == b'{"schemaVersion":2,"layers":[]}'
    assert [path.name for path in tag.parent.iterdir()] == ["q4"]


def test_taking_back_removes_nothing_outside_of_the_store(bundle: Path, tmp_path: Path) -> None:
    """A member of the store's group may exchange a folder for a link while root takes back what it did."""
    root, elsewhere = tmp_path / "other", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "q4").write_bytes(b"not ours")
    (elsewhere / "latest").write_bytes(b"not ours")
    folder = Store(root).manifest_path(full("tiny:q4")).parent

    def lead_astray() -> bool:
        if not (folder / "q4").exists():
            return False
        folder.rename(tmp_path / "moved")
        folder.symlink_to(elsewhere)
        remove_every_name(root, WEIGHTS)
        return True

    thread = meanwhile(lead_astray)
    done = import_under([], bundle, root)
    thread.join()
    assert done.returncode == 10, done.stderr
    assert sorted(path.name for path in elsewhere.iterdir()) == ["latest", "q4"]


def test_no_file_that_a_link_leads_to_is_copied_where_others_can_read_it(bundle: Path, tmp_path: Path) -> None:
    other, secret = Store(tmp_path / "other"), tmp_path / "secret"
    secret.write_bytes(UNREADABLE)
    tag = other.manifest_path(full("tiny:q4"))
    tag.parent.mkdir(parents=True)
    tag.symlink_to(secret)
    assert ostore.import_bundle(bundle, models=other.root).models[1].outcome == "repaired"
    assert not tag.is_symlink()
    assert secret.read_bytes() == UNREADABLE
    copies = [path for path in other.root.rglob("*") if path.is_file() and path.read_bytes() == UNREADABLE]
    assert copies == []


def test_a_broken_manifest_is_kept_aside(bundle: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.write_manifest(full("tiny:q4"), b"half a manif")
    ostore.import_bundle(bundle, models=other.root)
    kept = list((other.root / ".ostore/quarantine").iterdir())
    assert [path.read_bytes() for path in kept] == [b"half a manif"]


def test_a_manifest_too_large_for_us_is_not_taken_for_a_broken_one(bundle: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    document = {"schemaVersion": 2, "layers": [], "annotations": {"long": "x" * 5_000_000}}
    path = other.write_manifest(full("tiny:q4"), json.dumps(document).encode())
    before = tree(other.root)
    with pytest.raises(ostore.UsageError, match="another model"):
        ostore.import_bundle(bundle, models=other.root)
    assert tree(other.root) == before
    ostore.import_bundle(bundle, models=other.root, replace=True)
    assert path.stat().st_size < 5_000_000


@dataclass(frozen=True)
class Meddler:
    """Somebody who does something as soon as an import begins with one part of its work."""

    label: str
    meddle: Callable[[], object]

    def phase(self, label: str, total_bytes: int) -> None:
        if label == self.label:
            self.meddle()

    def begin(self, item: str, size: int) -> None: ...
    def advance(self, item: str, size: int) -> None: ...
    def end(self, item: str) -> None: ...


def test_a_bundle_that_changes_while_it_is_read_publishes_nothing(bundle: Path, tmp_path: Path) -> None:
    with bundle.open("ab", buffering=0) as file:
        somebody = Meddler("importing", lambda: file.write(b"more"))
        with pytest.raises(ostore.IntegrityError, match="changed"):
            ostore.import_bundle(bundle, models=tmp_path / "other", progress=somebody)
    assert not (tmp_path / "other/manifests").exists()


def test_a_blob_that_goes_before_it_is_looked_at_comes_from_the_bundle(
    bundle: Path, store: Store, tmp_path: Path
) -> None:
    other = Store(tmp_path / "other")
    other.blob(WEIGHTS)
    somebody = Meddler("verifying sha256 digest", other.blob_path(WEIGHTS).unlink)
    assert ostore.import_bundle(bundle, models=other.root, progress=somebody).blobs_written == 4
    assert tree(other.root) == tree(store.root)


def test_what_a_dead_command_left_never_stops_the_next_one(bundle: Path, store: Store, tmp_path: Path) -> None:
    dead = tmp_path / "other/.ostore/tx/1-dead"
    (dead / "a folder").mkdir(parents=True)
    (dead / store.blob_path(WEIGHTS).name).mkdir()
    (dead / store.blob_path(b"{{ .Prompt }}").name).symlink_to("/etc/passwd")
    (dead / "m").write_text("not a folder")
    assert ostore.import_bundle(bundle, models=tmp_path / "other").blobs_written == 4
    assert tree(tmp_path / "other") == tree(store.root)


@needs_strace
def test_a_staged_blob_that_cannot_be_read_is_fetched_again(bundle: Path, store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    staged = other.root / ".ostore/tx/1-dead" / store.blob_path(WEIGHTS).name
    staged.parent.mkdir(parents=True)
    staged.write_bytes(WEIGHTS)
    tracer = strace(tmp_path / "log", "-P", str(staged), "-e", "trace=read", "-e", "inject=read:error=EIO")
    done = import_under(tracer, bundle, other.root)
    assert done.returncode == 0, done.stderr
    assert tree(other.root) == tree(store.root)


@needs_strace
def test_a_manifest_that_the_disk_cannot_read_is_not_replaced(bundle: Path, tmp_path: Path) -> None:
    other = mixed_store(tmp_path / "other")
    before = tree(other.root)
    manifest = other.root / "manifests/registry.ollama.ai/library/tiny/latest"
    tracer = strace(
        tmp_path / "log", "-P", str(manifest), "-e", "trace=read,pread64", "-e", "inject=read,pread64:error=EIO"
    )
    done = import_under(tracer, bundle, other.root, "--replace")
    assert (done.returncode, tree(other.root)) == (9, before), done.stderr


@as_root
def test_a_disk_that_does_not_say_how_large_it_is_takes_models(bundle: Path, store: Store, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=0", "tmpfs", disk], check=True)
    try:
        ostore.import_bundle(bundle, models=disk / "models")
        assert tree(disk / "models") == tree(store.root)
    finally:
        subprocess.run(["umount", disk], check=True)


@as_root
def test_manifests_staged_on_their_own_disk_survive_a_server_and_leave_nothing(store: Store, tmp_path: Path) -> None:
    """Ollama removes empty folders below `manifests/` when it starts; a killed import cleans nothing up."""
    root, bundle = tmp_path / "other", tmp_path / "large.tar"
    store.model("large:latest", noise(30_000_000))
    ostore.export(["*"], bundle, models=store.root)
    (root / "manifests").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "manifests"], check=True)
    try:
        (root / "manifests/.ostore-tmp/1-dead").mkdir(parents=True)
        (root / "manifests/.ostore-tmp/1-dead/000000.json").write_text("staged")
        removed: list[bool] = []

        def prune() -> bool:
            staging = next(iter((root / "manifests/.ostore-tmp").glob("*-????????")), None)
            if staging is None:
                return False
            time.sleep(0.2)
            try:
                staging.rmdir()
            except OSError:
                removed.append(False)
            else:
                removed.append(True)
            return True

        read_end, write_end = os.pipe()
        thread = meanwhile(prune)
        command = [*OSTORE, "import", "-", "--models", str(root)]
        with subprocess.Popen(command, stdin=read_end, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            os.close(read_end)
            data = bundle.read_bytes()
            with os.fdopen(write_end, "wb") as feed:
                feed.write(data[:20_000_000])
                thread.join()
                feed.write(data[20_000_000:])
            errors = process.communicate(timeout=20)[1]
        assert (process.returncode, removed) == (0, [False]), errors
        assert tree(root / "manifests", without=()) == tree(store.root / "manifests")
    finally:
        subprocess.run(["umount", root / "manifests"], check=True)


def test_a_log_on_a_full_disk_does_not_stop_an_import(bundle: Path, store: Store, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as log:
        subprocess.run(
            [*OSTORE, "import", str(bundle), "--models", str(tmp_path / "other")],
            check=False, stderr=log, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    assert tree(tmp_path / "other") == tree(store.root)


@as_root
def test_a_part_of_somebody_else_is_not_written_into(store: Store, tmp_path: Path) -> None:
    """Whoever owns it, or has it open or by another name, could change the bundle afterwards."""
    part, precious = tmp_path / "b.tar.part", tmp_path / "precious"
    precious.write_bytes(b"precious")
    part.hardlink_to(precious)
    ostore.export(["*"], tmp_path / "b.tar", models=store.root)
    assert precious.read_bytes() == b"precious"
    part.write_bytes(b"planted")
    os.chown(part, 12345, 12345)
    ostore.export(["*"], tmp_path / "b.tar", models=store.root, replace=True)
    assert (tmp_path / "b.tar").stat().st_uid == os.geteuid()


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
@pytest.mark.parametrize("closed", [".", "manifests"])
def test_a_store_that_may_not_be_read_gets_one_line_and_a_hint(closed: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        store = Store(Path(name) / "models")
        store.model("tiny:latest", WEIGHTS)
        (store.root / closed).chmod(0o700)
        for command in (["list"], ["verify"], ["export", "--all", "-"]):
            done = subprocess.run(
                [
                    "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
                    *OSTORE, *command, "--models", store.root,
                ],
                check=False, capture_output=True, text=True,
            )  # fmt: skip
            if "No module named" in done.stderr or "can't open" in done.stderr:
                pytest.skip("the interpreter cannot be run as another user")
            assert done.returncode == 9, done.stderr
            assert re.fullmatch(r"ostore: error\[io\]: .*Permission denied \(.*sudo .*\)\n", done.stderr)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_failed_imports_leave_no_file_open(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "blobs").mkdir(parents=True)
    (other / "manifests").symlink_to(tmp_path / "unmounted")
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    for _ in range(20):
        with pytest.raises(ostore.DamagedStoreError):
            ostore.import_bundle(bundle, models=other)
    assert len(list(open_files.iterdir())) <= before


def test_a_store_path_may_end_in_a_slash_or_hold_a_newline(bundle: Path, store: Store, tmp_path: Path) -> None:
    root = tmp_path / "a\nstore"
    done = run("import", bundle, "--models", f"{root}/")
    assert done.returncode == 0, done.stderr
    assert tree(root) == tree(store.root)
    missing = run("list", "--models", f"{root}/missing")
    assert (missing.returncode, missing.stderr.count("\n")) == (3, 1)
