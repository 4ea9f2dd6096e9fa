"""Every hostile input ends as documented: one line, the right code, nothing changed, in bounded time and memory."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from ostore.cli import exit_codes
from ostore.cli.main import run
from ostore.cli.program import app
from tests.fork_server import MEASURED
from tests.hostile.corpus import ROWS
from tests.hostile.rows import DONE, Argument, Outcome, Row, World
from tests.support import nobody_else_writes, sha256, some, standard_input, tree
from tests.torture.judge import output_problems

pytestmark = nobody_else_writes
CLASSES = {code: name for name, code in exit_codes.CODES.items()}
# Made once: building it takes longer than most refusals.
COMMAND = typer.main.get_command(app)
# What is measured takes two to three times as long.
MAX_SECONDS = 30.0 if MEASURED in os.environ or os.name == "nt" else 10.0
MAX_BYTES = 256 * 1024 * 1024
# After a refusal with one of these codes, nothing of the input is kept for another try.
HOPELESS = {5, 7, 8, 12, 13}
# Runs the program, then prints its peak memory. rusage would not do: a child begins with the peak of its parent.
# Windows does not tell it there.
SHIM = (
    "import re, sys\n"
    "from ostore.cli.main import run\n"
    "code = run(sys.argv[1:])\n"
    "status = 'VmHWM: 0' if sys.platform == 'win32' else open('/proc/self/status').read()\n"
    "sys.stdout.write('\\n' + re.search(r'VmHWM:\\s+(\\d+)', status)[1])\n"
    "sys.stdout.flush()\n"
    "sys.exit(code)\n"
)


# Each of these costs as much as fifty others. The rows that drop rights run alone too, but for no memory.
MEASURING = [row.name for row in ROWS if row.alone and "without rights" not in row.name]
LEFT_OUT = {*MEASURING} - {*some(MEASURING, 20, "memory")}


@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in LEFT_OUT], ids=lambda row: row.name)
def test_a_hostile_input_ends_as_documented(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    arguments = list(row.prepare(world))
    before = tree(tmp_path)
    started = time.monotonic()
    outcome = _run_alone(world, arguments) if row.alone else _run_here(world, arguments)
    assert time.monotonic() - started < MAX_SECONDS
    assert outcome.peak_bytes < MAX_BYTES
    assert outcome.code in row.codes, outcome
    _check_words(row, outcome)
    _check_world(row, world, before, outcome.code, str(arguments[0]))
    if row.check:
        row.check(world, outcome)


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def _check_words(row: Row, outcome: Outcome) -> None:
    found = output_problems(outcome.code, outcome.stdout, outcome.stderr)
    # A report tells on standard output what it found, and then there may be no line of an error.
    assert [problem for problem in found if not (row.is_report and problem.startswith("0 lines"))] == []
    lines = outcome.stderr.splitlines()
    errors = [line for line in lines if line.startswith("ostore: error[")]
    if outcome.code in {130, 143}:
        assert len(lines) == 1
        assert lines[0].startswith(("ostore: interrupted", "ostore: terminated"))
    elif outcome.code == DONE or (row.is_report and not errors):
        assert not errors
    else:
        assert errors == lines[-1:], outcome
        assert errors[0].startswith(f"ostore: error[{CLASSES[outcome.code]}]: ")
        assert row.says in errors[0]
        assert all(line.startswith("ostore: warning: ") for line in lines[:-1])


def _check_world(row: Row, world: World, before: dict[str, str], code: int, command: str) -> None:
    after = tree(world.folder)
    for name in row.moving:
        before.pop(name, None)
        after.pop(name, None)
    if code == DONE and command in {"import", "export", "create"}:
        _check_gain(world, before, after)
    elif code == DONE and row.changes:
        differing = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        assert all(path.startswith(row.changes) for path in differing), differing
    else:
        assert after == before
    if code in HOPELESS:
        assert _left_over(world.store.root) == []


def _check_gain(world: World, before: dict[str, str], after: dict[str, str]) -> None:
    """Nothing went; what came is a blob that is what it is called, a manifest, or the file that was asked for."""
    prefix = world.store.root.name
    kept = {path: what for path, what in after.items() if path in before}
    changed = {path for path, what in before.items() if kept.get(path) != what}
    assert all(path.startswith(f"{prefix}/") for path in changed)
    for path in after.keys() - before.keys() | changed:
        place = world.folder / path
        if after[path] != "folder" and path.startswith(f"{prefix}/blobs/"):
            assert place.name == f"sha256-{after[path]}"
            assert os.name == "nt" or stat.S_IMODE(place.stat().st_mode) == 0o644
            assert abs(place.stat().st_mtime - time.time()) < 60
        elif not path.startswith(f"{prefix}/"):
            assert path.startswith("out")


def _left_over(store: Path) -> list[str]:
    transactions = store / ".ostore" / "tx"
    return [str(path) for path in transactions.rglob("*")] if transactions.is_dir() else []


def _run_here(world: World, arguments: list[Argument]) -> Outcome:
    """The command in this process: what `main` does but for signals."""
    written, told = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(raw, encoding="utf-8", newline="\n", write_through=True) for raw in (written, told))
    world.patch.setattr(out, "isatty", lambda: world.is_terminal)
    for key, value in world.environment.items():
        world.patch.setenv(key, value)
    world.patch.setattr(typer.main, "get_command", lambda _app: COMMAND)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(world.cwd or world.folder))
        if world.stdin is not None:
            stack.enter_context(_standard_input(world.stdin))
        if world.umask is not None:
            stack.callback(os.umask, os.umask(world.umask))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        code = run([*map(str, arguments), *_silence(arguments)])
    return Outcome(code, written.getvalue().decode(), told.getvalue().decode())


def _silence(arguments: list[Argument]) -> list[str]:
    """Progress would stand among the lines of errors."""
    has_progress = arguments[0] in {"import", "export", "create", "verify", "gc", "repair", "dedup", "move"}
    has_progress = has_progress and "--" not in arguments
    return ["--progress=none"] if has_progress and "--progress=none" not in arguments else []


@contextlib.contextmanager
def _standard_input(data: bytes) -> Iterator[None]:
    """A pipe, and somebody who writes to it until nobody reads."""
    reading, writing = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with standard_input(reading):
            yield
    finally:
        writer.join()


def _run_alone(world: World, arguments: list[Argument]) -> Outcome:
    """The command in a process of its own, and the most memory it had."""
    ended = subprocess.run(
        [*world.prefix, sys.executable, "-c", SHIM, *map(str, arguments), *_silence(arguments)],
        input=world.stdin or b"",
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, **world.environment},
        cwd=world.cwd or world.folder,
    )
    out, err = (told.decode().replace(os.linesep, "\n") for told in (ended.stdout, ended.stderr))
    stdout, _, peak = out.rpartition("\n")
    return Outcome(ended.returncode, stdout, err, int(peak or 0) * 1024)


def test_tree_sees_what_a_hostile_input_might_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    before = tree(tmp_path)
    world.canary.write_bytes(b"touched\n")
    assert tree(tmp_path) != before
    assert before["outside/canary"] == sha256(b"do not touch\n")
