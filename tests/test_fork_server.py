"""A forked process of the tests does what one that was started does."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests import fork_server
from tests.support import OSTORE, Store, standard_input

fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, every process is started")
LINES = (
    "--version",
    "list --json",
    "show tiny",
    "show --modelfile tiny:q4",
    "verify",
    "show other",
    "shw",
    "rm tiny",
    "",
)


def forked(words: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    done = fork_server.run(words, {**os.environ, **variables}, folder, 60)
    assert done
    return done


@pytest.mark.parametrize("line", LINES)
def test_it_prints_and_ends_as_the_program_does(store: Store, tmp_path: Path, line: str) -> None:
    there = {"OLLAMA_MODELS": str(store.root), "COLUMNS": "90"}
    started = subprocess.run(
        [*OSTORE, *line.split()],
        cwd=tmp_path,
        env={**os.environ, **there},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    done = forked(line.split(), tmp_path, **there)
    # How long it took differs.
    outputs = [re.sub(r" in [0-9.]+ s", "", one.stdout) for one in (done, started)]
    assert outputs[0] == outputs[1]
    assert (done.returncode, done.stderr) == (started.returncode, started.stderr)


def test_it_has_a_folder_a_umask_and_descriptors_of_its_own(store: Store, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        done = forked(["du", "--html", "page.html", "--models", str(store.root)], tmp_path)
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600
    again = forked(["du", "--html", "again.html", "--models", str(store.root)], tmp_path)
    assert again.returncode == 0, again.stderr
    assert stat.S_IMODE((tmp_path / "again.html").stat().st_mode) == 0o666 & ~before


def test_what_changes_how_the_program_loads_is_not_forked(tmp_path: Path) -> None:
    for name in ("LANG", "PYTHONUTF8", "TMPDIR", "FORCE_COLOR", "LD_PRELOAD"):
        assert fork_server.run(["--version"], {**os.environ, name: "x"}, tmp_path, 60) is None


def test_one_that_takes_too_long_is_killed(store: Store, tmp_path: Path) -> None:
    assert forked(["--version"], tmp_path).returncode == 0
    reading, writing = os.pipe()
    with standard_input(reading), pytest.raises(subprocess.TimeoutExpired):
        fork_server.run(["import", "-", "--models", str(store.root)], os.environ, tmp_path, 1)
    latest = time.monotonic() + 60
    with contextlib.suppress(BrokenPipeError):
        # It would take this, and wait for more.
        while os.write(writing, b"x"):
            assert time.monotonic() < latest
            time.sleep(0.05)
    os.close(writing)
    assert forked(["--version"], tmp_path).returncode == 0


class Reading:
    """A process that reads from a pipe of its own until `end`."""

    def __init__(self, store: Store) -> None:
        words = ["import", "-", "--models", str(store.root)]
        reading, self._writing = os.pipe()
        self.thread = threading.Thread(target=forked, args=(words, store.root))
        with standard_input(reading):
            self.thread.start()
            os.write(self._writing, b"x")
            # It has its descriptors once it has taken this.
            while any(fcntl.ioctl(self._writing, termios.FIONREAD, bytes(4))):
                time.sleep(0.01)

    def end(self) -> None:
        os.close(self._writing)
        self.thread.join(30)
        assert not self.thread.is_alive()


def test_one_that_ends_is_told_while_others_run(store: Store) -> None:
    first, second = Reading(store), Reading(store)
    first.end()
    # It gets the numbers that the first one's descriptors had, and must not keep those of the second.
    third = Reading(store)
    second.end()
    third.end()
