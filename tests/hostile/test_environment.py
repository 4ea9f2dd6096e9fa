"""Run the command as a process in hostile surroundings: nothing is half done, and there is no traceback."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.hostile.forge import NAME, WEIGHTS, Bundle, blob_name, compressed, dumped, large, member, tar
from tests.hostile.rows import DONE, FAILED, INTERRUPTED, IO, NO_SPACE, TERMINATED, USAGE, World
from tests.support import OSTORE, full, noise, tree, unmeasured

GOOD = compressed(tar(Bundle().parts()))
SCRIPT = Path(sys.executable).with_name("ostore")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    made.good()
    return made


def command(
    world: World,
    *arguments: str,
    env: dict[str, str] | None = None,
    limit: tuple[int, int] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run it on the world's store; `limit` is a resource and how much of it there is."""
    return subprocess.run(
        [*OSTORE, arguments[0], "--models", str(world.store.root), *arguments[1:]],
        capture_output=True,
        check=False,
        timeout=60,
        cwd=world.folder,
        env=env,
        preexec_fn=(lambda: resource.setrlimit(limit[0], (limit[1], limit[1]))) if limit else None,
    )


def assert_decent(stderr: bytes) -> None:
    assert b"Traceback" not in stderr
    assert b"Exception ignored" not in stderr


def has_model(world: World) -> bool:
    return world.store.manifest_path(NAME).is_file()


@pytest.mark.parametrize(
    "line",
    [
        "{ostore} list --models models >/dev/full",
        "{ostore} import in.tar.zst --models models >/dev/full",
        "{ostore} export old out.tar.zst --models models >/dev/full",
        "{ostore} export old - --models models >/dev/full",
        "{ostore} inspect in.tar.zst >/dev/full",
        "{ostore} list --models models >&-",
        "{ostore} import in.tar.zst --models models >&-",
        "{ostore} export old - --models models >&-",
        "{ostore} export old - --models models >&- 2>&- <&-",
        "{ostore} import - --models models <&-",
        "{ostore} import nothing.tar.zst --models models 2>/dev/full",
        "{ostore} import nothing.tar.zst --models models 2>&-",
    ],
)
def test_h149_an_output_that_takes_nothing_is_an_error_without_a_traceback(world: World, line: str) -> None:
    ended = _shell(world, line)
    assert ended.returncode not in {DONE, FAILED}
    assert_decent(ended.stderr)
    assert tree(world.store.root).keys() >= {"blobs", "manifests"}
    assert command(world, "verify").returncode == DONE


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-", "2>/dev/full"])
def test_h149_a_stream_that_nobody_needs_may_be_closed(world: World, closed: str) -> None:
    ended = _shell(world, f"{{ostore}} import in.tar.zst --models models {closed}")
    assert ended.returncode == DONE or "full" in closed
    assert command(world, "verify").returncode == DONE
    piped = _shell(world, f"{{ostore}} export old - --models models {closed} > out.tar.zst")
    if piped.returncode == DONE:
        assert command(world, "verify", "out.tar.zst").returncode == DONE


def test_h149_a_reader_that_leaves_ends_the_command(world: World) -> None:
    world.store.model("large:latest", noise(3_000_000))
    for line in ("{ostore} list --models models | head -c 1", "{ostore} export large - --models models | head -c 1"):
        ended = _shell(world, line)
        assert_decent(ended.stderr)
        assert b"error[failed]" not in ended.stderr


def _shell(world: World, line: str) -> subprocess.CompletedProcess[bytes]:
    text = line.replace("{ostore}", " ".join(OSTORE))
    return subprocess.run(["sh", "-c", text], capture_output=True, check=False, timeout=60, cwd=world.folder)


LIMITS = {
    "64 open files": (resource.RLIMIT_NOFILE, 64, {DONE, IO}),
    "12 open files": (resource.RLIMIT_NOFILE, 12, {DONE, IO}),
    "512 MiB of addresses": (resource.RLIMIT_AS, 512 * 1024 * 1024, {DONE}),
    "files of 100 bytes": (resource.RLIMIT_FSIZE, 100, {NO_SPACE}),
    "files of 0 bytes": (resource.RLIMIT_FSIZE, 0, {NO_SPACE}),
}


@unmeasured
@pytest.mark.parametrize("limit", LIMITS)
def test_h147_a_limit_of_the_process_is_told_in_one_line(world: World, limit: str) -> None:
    kind, value, codes = LIMITS[limit]
    before = tree(world.folder)
    ended = command(world, "import", "in.tar.zst", "--progress=none", "-j1", limit=(kind, value))
    assert ended.returncode in codes, ended.stderr
    assert_decent(ended.stderr)
    if ended.returncode != DONE:
        assert ended.stderr.startswith(b"ostore: error[")
        assert ended.stderr.count(b"\n") == 1
        assert tree(world.folder) == before
    assert command(world, "import", "in.tar.zst").returncode == DONE


def test_h148_a_disk_that_cannot_hold_a_file_so_large_is_found_out_before_anything_is_read(world: World) -> None:
    size = 5_000_000_000
    if shutil.disk_usage(world.folder).free < 2 * size:
        pytest.skip("needs room")
    index = Bundle().index()
    index["blobs"][1]["size"] = size
    parts = Bundle().parts(dumped(index))
    parts[3] = member(blob_name(WEIGHTS), b"", size=large(size))
    world.put(tar(parts), "large.tar")
    before = tree(world.folder)
    ended = command(world, "import", "large.tar", "--progress=none", limit=(resource.RLIMIT_FSIZE, 2**32 - 1))
    assert ended.returncode == NO_SPACE, ended.stderr
    assert b"cannot hold a file of" in ended.stderr
    assert tree(world.folder) == before


@unmeasured
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_h150_a_signal_while_a_bundle_comes_in_publishes_nothing(world: World, number: int, times: int) -> None:
    before = tree(world.folder)
    words = [*OSTORE, "import", "-", "--models", str(world.store.root), "--progress=none"]
    # Where a shell started the tests in the background, SIGINT is ignored, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(GOOD[: len(GOOD) // 2])
        process.stdin.flush()
        # It is at work once it has taken what there is.
        while any(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4))) and process.poll() is None:
            time.sleep(0.05)
        for _ in range(times):
            process.send_signal(number)
        # Keep the pipe open until the command has ended: the end of a cut bundle would end the command as well.
        process.wait(timeout=30)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode in {INTERRUPTED if number == signal.SIGINT else TERMINATED, -number}, stderr
    assert_decent(stderr)
    assert tree(world.folder) == before
    assert command(world, "import", "in.tar.zst").returncode == DONE
    assert has_model(world)


SURROUNDINGS: dict[str, dict[str, str | None]] = {
    "LANG=C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "no HOME": {"HOME": None},
    "no PATH": {"PATH": None},
    "dumb terminal": {"TERM": "dumb"},
    "one column": {"COLUMNS": "1", "LINES": "1"},
    "columns that are no number": {"COLUMNS": "x\n"},
    "forced colour": {"FORCE_COLOR": "1"},
    "a temporary folder that is not there": {"TMPDIR": "/nowhere"},
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_h151_odd_surroundings_do_not_matter(world: World, name: str) -> None:
    environment = {**os.environ, **{key: value for key, value in SURROUNDINGS[name].items() if value is not None}}
    for key in (key for key, value in SURROUNDINGS[name].items() if value is None):
        environment.pop(key, None)
    world.store.model("evil:latest", b"w", system="\u00e9\u202e\u4e2d\x1b[2J".encode())
    for arguments in (("import", "in.tar.zst"), ("show", "evil")):
        ended = command(world, *arguments, env=environment)
        assert ended.returncode == DONE, ended.stderr
        # Only our own words have a colour, and only where somebody asks for it.
        plain = re.sub(rb"\x1b\[3[123]m(whole|ostore: [a-z]+:)\x1b\[m", rb"\1", ended.stdout + ended.stderr)
        assert b"\x1b" not in (plain if "FORCE_COLOR" in environment else ended.stdout + ended.stderr)
        assert_decent(ended.stderr)
    ended = command(world, "show", "caf\u00e9\u202e", env=environment)
    assert ended.returncode not in {DONE, FAILED}
    assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize("words", [OSTORE, (str(SCRIPT),)], ids=["python -m", "script"])
def test_h152_python_files_beside_a_bundle_are_not_imported(world: World, words: Sequence[str]) -> None:
    if words == (str(SCRIPT),) and not SCRIPT.exists():
        pytest.skip("the script is not installed")
    for module in ("json", "zstandard", "typer", "rich", "hashlib", "stat", "ostore_plugin", "platformdirs"):
        (world.folder / f"{module}.py").write_text("raise SystemExit('imported from here')\n")
    ended = subprocess.run(
        [*words, "import", "in.tar.zst", "--models", str(world.store.root)],
        capture_output=True,
        check=False,
        timeout=60,
        cwd=world.folder,
    )
    assert ended.returncode == DONE, ended.stderr
    assert not (world.folder / "__pycache__").exists()


def test_g135_two_imports_of_one_bundle_at_once_both_succeed(world: World) -> None:
    words = [*OSTORE, "import", "in.tar.zst", "--models", str(world.store.root)]
    several = [
        subprocess.Popen(words, cwd=world.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    for process in several:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == DONE, stderr
    assert command(world, "verify").returncode == DONE
    assert list((world.store.root / ".ostore" / "tx").iterdir()) == []


def test_c75_a_password_in_a_source_is_not_a_crash(world: World) -> None:
    ended = command(world, "import", "https://user:hunter2@host/b.tar.zst")
    assert ended.returncode == USAGE
    assert b"hunter2" not in ended.stdout + ended.stderr
    assert full("old:latest") in world.store.names
