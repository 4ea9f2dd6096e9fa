"""The script in every bundle, called as a function: which bundle it makes of a store, and how it restores one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import backports.zstd
import pytest

from ostore.places.bundle import restore
from tests.hostile.forge import (
    NAME,
    SETTINGS,
    TEXT,
    WEIGHTS,
    Bundle,
    blob_name,
    compressed,
    document,
    dumped,
    entry,
    layer,
    manifest_name,
    tar,
)
from tests.support import CONFIG, MODEL, sha256, standard_input, tree

OTHER = dumped(document(layers=[layer(MODEL, WEIGHTS)]))
pytestmark = pytest.mark.usefixtures("_process_as_before")
needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again after a while; nobody removes anything here."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "b.tar"
    path.write_bytes(tar(Bundle().parts()))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def run(*arguments: str | Path) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = restore.main([str(argument) for argument in arguments])
    done = Done(code, out.getvalue(), err.getvalue())
    assert done.err.count("\n") == (code != 0)
    return done


def restored(bundle: Path, root: Path, *options: str) -> Done:
    return run(bundle, "--models", root, *options)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def whole() -> dict[str, str]:
    """The good bundle's model in a store, as `tree` has it."""
    files = {blob_name(data): sha256(data) for data in (SETTINGS, WEIGHTS, TEXT)}
    files[manifest_name(NAME)] = sha256(dumped(document()))
    return files | {str(parent): "folder" for path in files for parent in Path(path).parents if str(parent) != "."}


def broken_off(monkeypatch: pytest.MonkeyPatch, what: str, when: int = 1) -> None:
    """Let the disk fail at one of the steps that the script takes with its own `sync_path` or with os, from then on."""
    target, name = (os, what) if hasattr(os, what) else (restore, what)
    calls, real = [0], getattr(target, name)

    def fails(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the real one
        calls[0] += 1
        if calls[0] >= when:
            raise OSError(errno.EIO, "Input/output error")
        return real(*arguments, **options)

    monkeypatch.setattr(target, name, fails)


# ---- what becomes of models ------------------------------------------------------------------------------------------


def test_a_bundle_makes_a_store(bundle: Path, root: Path) -> None:
    done = restored(bundle, root)
    assert (done.code, done.out.splitlines()[0]) == (0, f"{NAME}: added")
    assert tree(root) == whole()
    assert names(root / ".ostore/tx") == []
    assert restored(bundle, root).out.splitlines()[0] == f"{NAME}: already there"
    assert tree(root) == whole()


def test_verifying_writes_nothing(bundle: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    assert run(bundle, "--verify-only").out.splitlines()[0] == f"{NAME}: verified"
    assert tree(tmp_path) == before


def test_another_model_of_that_name_stays_unless_it_is_to_be_replaced(bundle: Path, root: Path) -> None:
    restored(bundle, root)
    (root / manifest_name(NAME)).write_bytes(OTHER)
    before = tree(root)
    done = restored(bundle, root)
    assert (done.code, "--replace replaces it" in done.err, tree(root)) == (2, True, before)
    assert restored(bundle, root, "--replace").out.splitlines()[0] == f"{NAME}: replaced"
    assert tree(root) == whole()


@pytest.mark.parametrize("raw", [b"", b'{"schemaVersion":2,"la'])
def test_a_broken_manifest_is_mended(bundle: Path, root: Path, raw: bytes) -> None:
    restored(bundle, root)
    (root / manifest_name(NAME)).write_bytes(raw)
    assert restored(bundle, root).out.splitlines()[0] == f"{NAME}: repaired"
    assert tree(root) == whole()


def test_a_manifest_that_is_a_link_to_nothing_is_replaced(bundle: Path, root: Path) -> None:
    path = root / manifest_name(NAME)
    path.parent.mkdir(parents=True)
    path.symlink_to(root / "nowhere")
    assert restored(bundle, root).code == 0
    assert tree(root) == whole()


def test_a_name_that_differs_by_case_is_refused(bundle: Path, root: Path) -> None:
    path = root / manifest_name(NAME.replace("tiny", "Tiny"))
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    done = restored(bundle, root)
    assert (done.code, "differs only by case" in done.err) == (8, True)


@pytest.mark.parametrize("place", ["blobs", "manifests", f"manifests/{NAME.split('/', maxsplit=1)[0]}"])
def test_a_file_in_the_place_of_a_folder_is_refused(bundle: Path, root: Path, place: str) -> None:
    (root / place).parent.mkdir(parents=True)
    (root / place).write_text("a file")
    before = tree(root)
    done = restored(bundle, root)
    assert done.code in {9, 10}
    assert tree(root) == before


def test_a_fifo_in_the_place_of_a_blob_or_manifest_is_refused_at_once(bundle: Path, root: Path) -> None:
    for place in (blob_name(WEIGHTS), manifest_name(NAME)):
        shutil.rmtree(root, ignore_errors=True)
        (root / place).parent.mkdir(parents=True)
        os.mkfifo(root / place)
        done = restored(bundle, root)
        assert (done.code, "not a regular file" in done.err) == (10, True)


def test_blobs_that_are_there_are_hashed_and_damaged_ones_replaced(bundle: Path, root: Path) -> None:
    restored(bundle, root)
    (root / manifest_name(NAME)).unlink()
    (root / blob_name(WEIGHTS)).write_bytes(WEIGHTS[::-1])
    (root / blob_name(TEXT)).write_bytes(b"short")
    (root / blob_name(SETTINGS)).unlink()
    (root / blob_name(SETTINGS)).symlink_to("/etc/hostname")
    assert restored(bundle, root).code == 0
    assert tree(root) == whole()


def test_a_bundle_that_builds_upon_blobs_needs_them(tmp_path: Path, root: Path) -> None:
    parts = Bundle(blobs=[SETTINGS, TEXT])
    path = tmp_path / "delta.tar"
    path.write_bytes(tar(parts.parts(dumped(parts.index(requires=[entry(WEIGHTS)])))))
    done = restored(path, root)
    assert (done.code, sha256(WEIGHTS) in done.err, root.exists()) == (3, True, False)
    (root / "blobs").mkdir(parents=True)
    (root / blob_name(WEIGHTS)).write_bytes(WEIGHTS)
    assert restored(path, root).code == 0
    assert tree(root) == whole()


# ---- where it goes ---------------------------------------------------------------------------------------------------


def test_the_store_is_that_of_the_environment_or_of_the_home(
    bundle: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(bundle).code == 0
    assert tree(tmp_path / "home/.ollama/models") == whole()
    monkeypatch.setenv("OLLAMA_MODELS", f' "{root}" ')
    assert run(bundle).code == 0
    assert tree(root) == whole()


def test_a_store_that_cannot_be_is_refused(bundle: Path, tmp_path: Path) -> None:
    assert run(bundle, "--models", "").code == 2
    assert run(bundle, "--models", tmp_path / "no/such").code == 3
    assert run(bundle, "--models", bundle).code == 2


def test_blobs_on_another_disk_have_their_workspace_there(bundle: Path, root: Path) -> None:
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    if not memory.is_dir() or memory.stat().st_dev == bundle.stat().st_dev:
        pytest.skip("memory is no disk of its own here")
    with tempfile.TemporaryDirectory(dir=memory) as there:
        (Path(there) / "blobs").mkdir()
        root.mkdir()
        (root / "blobs").symlink_to(Path(there) / "blobs")
        assert restored(bundle, root).code == 0
        found = tree(root)
        assert names(Path(there) / ".ostore/tx") == []
        blobs = {f"blobs/{path.name}": sha256(path.read_bytes()) for path in (root / "blobs").iterdir()}
        assert blobs == {path: what for path, what in whole().items() if path.startswith("blobs/")}
        assert {path: what for path, what in found.items() if path.startswith("manifests")} == {
            path: what for path, what in whole().items() if path.startswith("manifests")
        }


@needs_root
@pytest.mark.parametrize("part", ["", "tx"])
def test_a_workspace_where_others_could_meddle_is_refused(bundle: Path, root: Path, part: str) -> None:
    restored(bundle, root)
    (root / manifest_name(NAME)).unlink()
    folder = root / ".ostore" / part
    folder.chmod(0o777)
    assert restored(bundle, root).code == 8
    folder.chmod(0o755)
    os.chown(folder, 12345, 12345)
    assert restored(bundle, root).code == 8
    shutil.rmtree(folder)
    folder.symlink_to("/tmp")  # noqa: S108 - somebody else's folder
    assert restored(bundle, root).code == 8


def test_a_workspace_on_another_disk_than_the_blobs_is_refused(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored(bundle, root)
    real = restore.nearest
    # A mount right there cannot be made by everybody.
    monkeypatch.setattr(restore, "nearest", lambda path: Path("/proc") if path.name == "blobs" else real(path))
    monkeypatch.setattr(restore.Store, "like", root.stat())
    done = restored(bundle, root)
    assert (done.code, "not on the disk of the blobs" in done.err) == (9, True)


@needs_root
def test_what_root_makes_belongs_to_the_owner_of_the_blobs(bundle: Path, root: Path) -> None:
    (root / "blobs").mkdir(parents=True)
    os.chown(root / "blobs", 12345, 12346)
    assert restored(bundle, root).code == 0
    made = [path for path in root.rglob("*") if path.name not in {"blobs", "models"}]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 12346)}
    assert {stat.S_IMODE((root / path).stat().st_mode) for path in whole() if (root / path).is_file()} == {0o644}


def test_somebody_who_is_not_root_gives_nothing_away(bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "chown", None)
    assert restored(bundle, root).code == 0


def test_too_small_a_disk_is_refused_before_anything_is_written(bundle: Path, root: Path) -> None:
    blob = restore.Blob("0" * 64, 2**60)
    with pytest.raises(restore.RestoreError, match="bytes of free space") as caught:
        restore.refuse_short_space(bundle.parent, [blob])
    assert caught.value.code == 7
    assert not root.exists()


# ---- locks, signals, and others at work ------------------------------------------------------------------------------


def test_another_ostore_that_publishes_is_waited_for_and_then_told_of(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored(bundle, root)
    (root / manifest_name(NAME)).unlink()
    monkeypatch.setattr(restore, "LOCK_SECONDS", 0.05)
    with (root / ".ostore/lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = restored(bundle, root)
    assert (done.code, "another ostore holds" in done.err) == (6, True)
    assert not (root / manifest_name(NAME)).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_nothing_is_left(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    # Under nohup, say, it is not heeded.
    signal.signal(number, signal.SIG_DFL)
    monkeypatch.setattr(restore, "check_manifest", lambda *_: os.kill(os.getpid(), number))
    done = restored(bundle, root)
    assert (done.code, done.err) == (128 + number, "restore: error: interrupted\n")
    assert tree(root, without=()) == {".ostore": "folder", ".ostore/tx": "folder"}


def test_a_signal_that_is_not_heeded_stays_so(bundle: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run(bundle, "--verify-only")
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (MemoryError(), 13),
        (RuntimeError("a fault of its own"), 1),
        (OSError(errno.ENOSPC, "No space left on device", "blobs"), 7),
        (OSError(errno.EIO, "Input/output error"), 9),
    ],
)
def test_whatever_goes_wrong_has_its_exit_code(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(restore, "check_manifest", fails)
    assert restored(bundle, root).code == code
    assert tree(root) == {}


def test_a_result_that_cannot_be_printed_does_not_look_like_success(bundle: Path, root: Path) -> None:
    command = [sys.executable, "-I", restore.__file__, str(bundle), "--models", str(root)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, "done, but the result could not be printed" in done.stderr) == (9, True)
        err = io.StringIO()
        with contextlib.redirect_stdout(full), contextlib.redirect_stderr(err):
            assert restore.main([str(bundle), "--models", str(root)]) == 9
        with contextlib.redirect_stderr(full):
            assert restore.complain(9, "nobody reads this") == 9
        # Closing tries once more to write what could not be written.
        with contextlib.suppress(OSError):
            full.close()
    assert tree(root) == whole()


def closed_at(number: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    shell = ["sh", "-c", f'exec "$@" {number}>&-', "sh", *command]
    return subprocess.run(shell, capture_output=True, text=True, check=False)


def test_a_result_does_not_look_like_success_where_standard_output_was_closed(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = closed_at(1, sys.executable, "-I", restore.__file__, bundle, "--models", root)
    assert (done.returncode, "could not be printed: Bad file descriptor" in done.stderr) == (9, True)
    assert tree(root) == whole()
    monkeypatch.setattr(sys, "stdout", None)
    with contextlib.redirect_stderr(io.StringIO()):
        assert restore.main([str(bundle), "--verify-only"]) == 9


def test_an_error_does_not_go_to_standard_output_where_standard_error_was_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = closed_at(2, sys.executable, "-I", restore.__file__, "/no/such")
    assert (done.returncode, done.stdout) == (3, "")
    monkeypatch.setattr(sys, "stderr", None)
    assert restore.main(["/no/such"]) == 3
    assert capsys.readouterr().out == ""


def test_an_error_that_cannot_be_printed_keeps_its_exit_code(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-I", restore.__file__, str(tmp_path / "no.tar")]
        assert subprocess.run(command, stdout=full, stderr=full, check=False).returncode == 3


def test_what_a_server_prunes_meanwhile_comes_back(bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: (root / blob_name(WEIGHTS)).unlink(missing_ok=True))
    monkeypatch.setattr(restore.Inbox, "_settle", _until(2, restore.Inbox._settle))
    assert restored(bundle, root).code == 0
    assert tree(root) == whole()


def _until(times: int, real: Callable[..., None]) -> Callable[..., None]:
    left = [times]

    def settled(*arguments: Any) -> None:  # noqa: ANN401 - as the real one
        left[0] -= 1
        if left[0] >= 0:
            real(*arguments)

    return settled


def test_what_is_pruned_and_has_no_second_name_ends_it(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prune(_seconds: float) -> None:
        for path in (root / "blobs").iterdir():
            path.unlink()
        for path in (root / ".ostore/tx").glob(f"*/{Path(blob_name(WEIGHTS)).name}*"):
            path.unlink()

    monkeypatch.setattr(time, "sleep", prune)
    done = restored(bundle, root)
    assert (done.code, "removed by another program" in done.err) == (10, True)
    assert tree(root) == {}


def test_a_blob_that_vanishes_after_it_was_hashed_comes_from_the_bundle(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored(bundle, root)
    (root / manifest_name(NAME)).unlink()
    real = restore.open_inbox

    def opened(*arguments: Any) -> Any:  # noqa: ANN401 - as the real one
        (root / blob_name(TEXT)).unlink()
        return real(*arguments)

    monkeypatch.setattr(restore, "open_inbox", opened)
    assert restored(bundle, root).code == 0
    assert tree(root) == whole()


# ---- disks that fail, and those that cannot everything ---------------------------------------------------------------


@pytest.mark.parametrize("what", ["replace", "fsync", "fchmod", "utime", "sync_path", "rename"])
@pytest.mark.parametrize("when", range(1, 9))
def test_a_disk_that_fails_at_any_step_leaves_the_store_as_it_was(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch, what: str, when: int
) -> None:
    restored(bundle, root)
    (root / manifest_name(NAME)).write_bytes(OTHER)
    (root / blob_name(WEIGHTS)).unlink()
    before = tree(root)
    broken_off(monkeypatch, what, when)
    done = restored(bundle, root, "--replace")
    monkeypatch.undo()
    if done.code == 0:
        assert tree(root) == whole()
    else:
        # The blob that was missing may be there: what is there names it, so it is not taken back.
        after = {path: what for path, what in tree(root).items() if path != blob_name(WEIGHTS)}
        assert (done.code, after) == (9, before)
    assert names(root / ".ostore/tx") == []
    assert restored(bundle, root, "--replace").code == 0
    assert tree(root) == whole()


def test_a_new_store_that_fails_is_gone_again(bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore.Inbox, "_settle", lambda *_: _fail())
    assert restored(bundle, root).code == 9
    assert tree(root) == {}


def _fail() -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_blob_that_somebody_has_come_to_need_is_not_taken_back(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = root / manifest_name(NAME.replace("tiny", "pulled"))

    def pulled(*_: object) -> None:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(OTHER)
        _fail()

    monkeypatch.setattr(restore.Inbox, "_settle", pulled)
    assert restored(bundle, root).code == 9
    assert {path for path in tree(root) if path.startswith("blobs/")} == {blob_name(SETTINGS), blob_name(WEIGHTS)}


def test_a_disk_without_hard_links_will_do(bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Such a disk, exFAT say, cannot be mounted by everybody; its one answer is this.
    def refused(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert restored(bundle, root).code == 0
    (root / manifest_name(NAME)).write_bytes(OTHER)
    assert restored(bundle, root, "--replace").code == 0
    assert tree(root) == whole()
    (root / manifest_name(NAME)).write_bytes(OTHER)
    monkeypatch.setattr(restore.Inbox, "_settle", lambda *_: _fail())
    assert restored(bundle, root, "--replace").code == 9
    assert (root / manifest_name(NAME)).read_bytes() == OTHER


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_cannot_sync_will_do(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    assert restored(bundle, root).code == 0
    assert tree(root) == whole()


def test_on_a_mac_what_the_drive_still_holds_is_put_on_the_disk_as_well(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def recorded(descriptor: int, command: int) -> None:
        assert command == 51  # <sys/fcntl.h> of macOS
        asked.append(os.fstat(descriptor).st_mode)

    # A double of fcntl, because no other system has that command: that it is given, not what it does.
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", recorded)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "fsync", None)
    assert restored(bundle, root).code == 0
    assert sum(map(stat.S_ISREG, asked)) >= 4  # three blobs and a manifest
    assert sum(map(stat.S_ISDIR, asked)) >= 2


def test_a_disk_without_locks_will_do(bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    assert restored(bundle, root).code == 0


def test_a_folder_that_ollama_makes_at_the_same_time_will_do(
    bundle: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.mkdir

    def made(path: Path, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as the real one
        if path.name == "library":
            real(path)
        real(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", made)
    assert restored(bundle, root).code == 0
    assert tree(root) == whole()


# ---- how the bundle comes --------------------------------------------------------------------------------------------


def test_on_windows_it_says_so_before_anything_that_windows_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(restore.__file__, run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "restore: error: needs a POSIX system; on Windows use ostore, or tar as RESTORE.txt says"
    ]


def test_what_lies_beside_it_is_not_taken_for_a_module(bundle: Path, tmp_path: Path) -> None:
    script = shutil.copy(restore.__file__, tmp_path / "restore.py")
    (tmp_path / "argparse.py").write_text("raise SystemExit(77)")
    command = [sys.executable, script, bundle, "--verify-only"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("index", "code"),
    [
        (Bundle().index(files=[{"path": f"ostore/{number}", **entry(b"")} for number in range(100_001)]), 13),
        (Bundle().index(x=[0] * 1_000_001), 13),
        (Bundle().index(**{"\u017f" * 1001: 1}), 0),
    ],
    ids=["members", "values", "a long key"],
)
def test_what_would_take_too_long_is_not_looked_at(tmp_path: Path, index: dict[str, Any], code: int) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(tar(Bundle().parts(json.dumps(index, ensure_ascii=False, separators=(",", ":")).encode())))
    assert run(path, "--verify-only").code == code


def test_wrong_words_are_one_line(bundle: Path, tmp_path: Path) -> None:
    assert run().code == 2
    assert run(bundle, "--no-such").code == 2
    assert run(tmp_path / "no.tar").code == 3
    assert run("a\0b").code == 3
    assert run(tmp_path).code == 2


@needs_zstd
@pytest.mark.parametrize("is_module", [False, True])
def test_a_compressed_bundle_is_read_by_the_program_or_the_module(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, *, is_module: bool
) -> None:
    if is_module:
        # What Python 3.14 has as compression.zstd, for older ones.
        monkeypatch.setitem(sys.modules, "compression.zstd", backports.zstd)
    path, data = tmp_path / "b.tar.zst", compressed(tar(Bundle().parts()))
    path.write_bytes(data)
    assert restored(path, root).code == 0
    assert tree(root) == whole()
    for cut in (len(data) - 1, len(data) - 40, len(data) // 2):
        path.write_bytes(data[:cut])
        assert run(path, "--verify-only").code == 4
    for place, code in ((40, 4), (60, 12)):  # of the compression, and of what it holds
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        assert run(path, "--verify-only").code == code
    with path.open("wb") as file:
        file.write(data[:-4])
        file.write(b"\0\0\0\0")
    assert run(path, "--verify-only").code == 4


def test_without_zstd_it_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.version_info >= (3, 14):
        pytest.skip("this Python has zstd itself")
    path = tmp_path / "b.tar.zst"
    path.write_bytes(compressed(tar(Bundle().parts())))
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run(path, "--verify-only")
    assert (done.code, "needs the zstd program" in done.err) == (2, True)


@needs_zstd
def test_a_bundle_may_come_on_standard_input(tmp_path: Path, bundle: Path, root: Path) -> None:
    with standard_input(os.open(bundle, os.O_RDONLY)):
        assert restored(Path("-"), root).code == 0
    assert tree(root) == whole()
    reading, writing = os.pipe()
    os.write(writing, compressed(bundle.read_bytes()))
    os.close(writing)
    with standard_input(reading):
        assert run("-", "--verify-only").code == 0
    with standard_input(os.open("/dev/null", os.O_RDONLY)):
        assert run("-", "--verify-only").code == 12
    folder = tmp_path / "folder"
    folder.mkdir()
    with standard_input(os.open(folder, os.O_RDONLY)):
        assert run("-", "--verify-only").code == 9


def test_a_terminal_is_no_bundle() -> None:
    ours, theirs = os.openpty()
    with standard_input(theirs):
        assert run("-", "--verify-only").code == 2
    os.close(ours)


@needs_zstd
def test_a_medium_that_fails_while_zstd_reads_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.tar.zst"
    path.write_bytes(compressed(tar(Bundle().parts())))

    def fails(source: restore.Source, count: int) -> bytes:
        if not source._ahead:
            raise OSError(errno.EIO, "Input/output error")
        ahead, source._ahead = source._ahead[:count], b""
        return ahead

    monkeypatch.setattr(restore.Source, "read", fails)
    assert run(path, "--verify-only").code == 9


@needs_zstd
def test_zstd_that_gives_up_early_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/zstd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec 0<&-\necho 'too much memory' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    path = tmp_path / "b.tar.zst"
    large = os.urandom(3_000_000)
    parts = Bundle(blobs=[SETTINGS, large], manifests=[(NAME, dumped(document(
        config=layer(CONFIG, SETTINGS), layers=[layer(MODEL, large)])), (SETTINGS, large))])  # fmt: skip
    path.write_bytes(compressed(tar(parts.parts())))
    assert run(path, "--verify-only").code == 13
