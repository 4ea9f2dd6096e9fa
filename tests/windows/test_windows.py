"""
The program on Windows, driven from outside: it leaves what it leaves on Linux, also where it is killed.

Windows is that of Wine. README.md says what this cannot show.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import some
from tests.torture.commands import COMMANDS, NOTHING_LEFT, STEPWISE, WEIGHTS, Command, a_store, run, with_a_second_store
from tests.torture.judge import State, output_problems, problems
from tests.windows import wine
from tests.windows.killing import KILLED
from tests.windows.session import Session

# Set by `make test-windows`: `whole`, or `slice` for a part of two minutes.
ASKED = os.environ.get("OSTORE_WINDOWS")
pytestmark = pytest.mark.skipif(ASKED is None, reason="needs Windows: make test-windows")

# restore.py is for POSIX, a colon is in no name on Windows (doctor-fix renames one), and strace takes hard links away.
# What is patched to make small steps is run here only as it is. Links that Linux made are symbolic, with its paths.
# The registry that the table pulls from has a port.
ELSEWHERE = {"restore.py", "doctor-fix", "dedup-link", "link-refresh", "link-remove", "pull", "pull-bundle"}
# Links are hard ones here, and the record of their folder says so.
OTHERWISE = {"link"}
HERE = {
    command.name: command
    for command in COMMANDS
    if command.name not in ELSEWHERE and not command.always and command.words[0] != STEPWISE
}
STAGES = ("import", "rm", "gc", "move")


_sessions: list[Session] = []


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    """One program stays: without any, Windows ends, and takes long to start again. It runs what need not be alone."""
    if ASKED is None:
        yield
        return
    with wine.session(OLLAMA_MODELS="models") as session:
        _sessions.append(session)
        yield
        _sessions.clear()


def windows(folder: Path, *words: str, alone: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ostore on Windows; `alone` in a process of its own."""
    if alone:
        return wine.python("-m", "ostore", *words, folder=folder, OLLAMA_MODELS="models")
    return _sessions[0].run(wine.windows_path(folder), *words)


class Scene:
    """What a command begins with, and where it ends on Linux, or on Windows if that is not the same."""

    def __init__(self, command: Command, place: Path) -> None:
        self.command, self.origin, self.folder = command, place / "origin", place / "work"
        self.origin.mkdir()
        command.prepare(self.origin)
        self.before = State.of(self.origin)
        self.is_whole = run(self.origin, "verify").returncode == 0
        folder = self.reset()
        done = self.run() if command.name in OTHERWISE else run(folder, *command.words)
        assert done.returncode == 0, done.stderr
        self.after = State.of(self.folder)
        self.reset()

    def reset(self) -> Path:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.origin, self.folder, symlinks=True)
        return self.folder

    def run(self, *, alone: bool = False) -> subprocess.CompletedProcess[str]:
        return windows(self.folder, *self.command.words, alone=alone)

    def calls(self, log: Path) -> list[str]:
        """Return its calls that change a disk, as they are on Linux, where looking at them is quick."""
        killing = (sys.executable, "-m", "tests.windows.killing", str(log), "0", *self.command.words)
        inherited = {**os.environ, "PYTHONPATH": str(wine.ROOT), "OLLAMA_MODELS": "models", "HOME": str(self.folder)}
        subprocess.run(killing, cwd=self.folder, env=inherited, capture_output=True, check=True, timeout=300)
        return log.read_text().splitlines()

    def kill(self, log: Path, number: int) -> subprocess.CompletedProcess[str]:
        """Run it until it calls for change number `number`."""
        killing = ("-m", "tests.windows.killing", wine.windows_path(log), str(number), *self.command.words)
        log.write_text("")
        return wine.python(*killing, folder=self.folder, OLLAMA_MODELS="models")

    def judge_what_is_left(self, told: str) -> None:
        assert problems(self.folder, self.before, self.after) == [], told
        kept = [root for root in ("models", "elsewhere") if (self.folder / root / "manifests").is_dir()]
        for root in kept if self.is_whole else ():
            checked = windows(self.folder, "verify", "--models", root)
            assert checked.returncode == 0, f"{told}\n{checked.stdout}{checked.stderr}"

    def finish(self, told: str) -> None:
        """Run it again, to where an undisturbed one ends."""
        again = self.run()
        told += f"\nand then {again.returncode}: {again.stderr}"
        assert again.returncode == 0 or (again.returncode == NOTHING_LEFT and self.command.once), told
        assert output_problems(again.returncode, again.stdout, again.stderr) == [], told
        assert problems(self.folder, self.before, self.after) == [], told
        assert State.of(self.folder) == self.after, told


@pytest.mark.parametrize("name", ("export", "repair", "move") if ASKED == "slice" else sorted(HERE.keys() - OTHERWISE))
def test_a_command_leaves_on_windows_what_it_leaves_on_linux(tmp_path: Path, name: str) -> None:
    scene = Scene(HERE[name], tmp_path)
    done = scene.run(alone=ASKED == "whole")
    assert done.returncode == 0, done.stderr
    assert output_problems(0, done.stdout, done.stderr) == []
    assert State.of(scene.folder) == scene.after


@pytest.mark.parametrize("bundle", ["b.tar", "b.tar.zst"])
def test_a_bundle_has_the_same_bytes_on_windows_and_linux(tmp_path: Path, bundle: str) -> None:
    a_store(tmp_path)
    assert run(tmp_path, "export", "--all", bundle).returncode == 0
    there = tmp_path / "windows"
    there.mkdir()
    done = windows(tmp_path, "export", "--all", f"windows/{bundle}", alone=True)
    assert done.returncode == 0, done.stderr
    assert (there / bundle).read_bytes() == (tmp_path / bundle).read_bytes()


def test_looking_finds_on_windows_what_it_finds_on_linux(tmp_path: Path) -> None:
    with_a_second_store(tmp_path)
    assert run(tmp_path, "export", "--all", "b.tar.zst").returncode == 0
    for words in (("list",), ("show", "tiny"), ("verify",), ("verify", "b.tar.zst"), ("inspect", "b.tar.zst")):
        here, there = run(tmp_path, *words, "--json"), windows(tmp_path, *words, "--json")
        assert there.returncode == here.returncode == 0, (words, there.stderr)
        assert without_paths(there.stdout) == without_paths(here.stdout), words
    assert windows(tmp_path, "doctor").returncode in {0, 10}
    assert "kept more than once" in windows(tmp_path, "dedup", "other").stdout
    (tmp_path / "files").mkdir()
    (tmp_path / "files/weights.gguf").write_bytes(WEIGHTS)
    assert "weights.gguf" in windows(tmp_path, "dedup", "files").stdout
    assert windows(tmp_path, "du", "--html", "page.html").returncode == 0
    assert "tiny:latest" in (tmp_path / "page.html").read_text(encoding="utf-8")


def without_paths(report: str) -> str:
    """What both systems say alike: neither times, nor where something lies, nor how much room a disk takes for it."""
    differs = {
        "store",
        "bundle",
        "subject",
        "path",
        "modified",
        "modified_at",
        "allocated",
        "seconds",
        "because",
        "disk",
    }

    def cleaned(value: object) -> object:
        if isinstance(value, dict):
            return {name: cleaned(inside) for name, inside in value.items() if name not in differs}
        return [cleaned(inside) for inside in value] if isinstance(value, list) else value

    return json.dumps(cleaned(json.loads(report)), indent=1)


@pytest.mark.parametrize("name", STAGES if ASKED == "slice" else HERE)
def test_a_command_killed_on_windows_loses_nothing_and_goes_on(tmp_path: Path, name: str) -> None:
    scene, log = Scene(HERE[name], tmp_path), tmp_path / "log"
    calls = scene.calls(log)
    assert len(calls) > 3
    points = range(1, len(calls) + 1)
    for number in some(points, 2, name) if ASKED == "slice" else points:
        scene.reset()
        killed = scene.kill(log, number)
        told = f"{name} killed before call {number}, {log.read_text()[-200:]}: {killed.returncode} {killed.stderr}"
        # Threads do not always share the work alike, so it may have ended before. Wine itself can fail as it ends a
        # process while another thread of it asks the server of Wine for something; it says so, and exits with 1.
        expected = {KILLED, 1 if "wine client error" in killed.stderr else KILLED}
        assert killed.returncode in (expected if len(log.read_text().splitlines()) == number else {0}), told
        scene.judge_what_is_left(told)
        scene.finish(told)


@contextlib.contextmanager
def held(path: Path, share: int) -> Iterator[None]:
    """A program has this file open, and shares only this with others."""
    hold = (
        "import _winapi, sys; _winapi.CreateFile(sys.argv[1], 0x80000000, int(sys.argv[2]), 0, 3, 0, 0);"
        " print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        ["wine", str(wine.PYTHON), "-c", hold, wine.windows_path(path), str(share)],
        env=wine.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as holding:
        assert holding.stdin
        assert holding.stdout
        assert holding.stdout.readline().strip() == b"held"
        yield
        holding.stdin.close()


# winnt.h: FILE_SHARE_READ. Most programs let others read what they read, and scanners and backups let nobody.
READING, NOTHING = 1, 0
HOLDS = [(name, share) for name in (*STAGES[1:], "offload") for share in (READING, NOTHING)]


@pytest.mark.parametrize(
    ("name", "share"), [("rm", NOTHING), ("gc", READING), ("move", READING)] if ASKED == "slice" else HOLDS
)
def test_a_blob_that_a_program_has_open_stays_and_the_rest_is_done(tmp_path: Path, name: str, share: int) -> None:
    scene = Scene(HERE[name], tmp_path)
    blob, *others = [path for path in scene.before.files if "/blobs/" in path and path not in scene.after.files]
    with held(scene.folder / blob, share):
        stopped = scene.run(alone=ASKED == "whole")
        told = f"{name} with {blob} held: {stopped.returncode} {stopped.stdout}{stopped.stderr}"
        assert stopped.returncode == 6, told
        assert output_problems(6, stopped.stdout, stopped.stderr) == [], told
        assert Path(blob).name in stopped.stderr, told
        assert "another program has it open" in stopped.stderr, told
        # What cannot be read cannot be copied, and then nothing goes.
        goes = share == READING or name in {"rm", "gc"}
        assert [(scene.folder / path).exists() for path in (blob, *others)] == [True] + [not goes] * len(others), told
    scene.judge_what_is_left(told)
    scene.finish(told)


def test_nul_is_no_terminal(tmp_path: Path) -> None:
    a_store(tmp_path)
    began = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-m', 'ostore', *sys.argv[1:]], "
    told = wine.python("-c", f"{began}stdin=-3).returncode)", "rm", "tiny", folder=tmp_path, OLLAMA_MODELS="models")
    assert (told.returncode, told.stderr.count("[y/N]")) == (2, 0), told
    assert "there is no terminal" in told.stderr
    told = wine.python(
        "-c", f"{began}stdout=-3).returncode)", "export", "tiny", "-", folder=tmp_path, OLLAMA_MODELS="models"
    )
    assert told.returncode == 0, told
