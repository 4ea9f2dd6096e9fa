"""The proofs catch mistakes: each seeded mistake in a copy of the source makes them fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ostore
from tests.support import TORTURE, unmeasured
from tests.torture.bugs import BUGS, Bug
from tests.torture.tracing import needs_strace

ROOT = Path(__file__).resolve().parents[2]
# Quick ones, of two kinds.
SOME = {"a digest may be any text of that length", "rm takes blobs that others share"}
NO_TEST_FAILED, A_TEST_FAILED, TOO_LATE = 0, 1, 124
PATIENCE = 150


@unmeasured
@needs_strace
@pytest.mark.parametrize(
    "bug", [bug for bug in BUGS if TORTURE or bug.name in SOME], ids=lambda bug: bug.name.replace(" ", "-")
)
def test_a_mistake_in_the_protocol_is_caught(bug: Bug, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(Path(ostore.__file__).parent, source / "ostore", ignore=shutil.ignore_patterns("__pycache__"))
    bug.patch(source / "ostore")
    assert run_tests(source, tmp_path, bug.caught_by) == A_TEST_FAILED


@needs_strace
@pytest.mark.skipif(not TORTURE, reason="takes minutes; `make torture` does it")
@pytest.mark.parametrize("words", sorted({bug.caught_by for bug in BUGS}), ids=" ".join)
def test_without_a_mistake_nothing_is_caught(words: tuple[str, ...], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(Path(ostore.__file__).parent, source / "ostore", ignore=shutil.ignore_patterns("__pycache__"))
    # The slice tells whether it is the copy that fails; whole, they pass beside this one.
    assert run_tests(source, tmp_path, words, whole=False) == NO_TEST_FAILED


def run_tests(source: Path, place: Path, words: tuple[str, ...], *, whole: bool = True) -> int:
    """Run some tests, with the copy in place of the installed source; pytest's exit code."""
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}", "OSTORE_TORTURE": "1" if whole else ""}
    command = ["timeout", str(PATIENCE), sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:xdist"]
    command += ["-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}"]
    # The project's own setting would have the source as it is come first.
    command += ["-o", f"pythonpath={source} {ROOT}", f"--basetemp={place / 'tests'}"]
    command += [str(ROOT / word) if word.startswith("tests/") else word for word in words]
    # So would the working directory, where `python -m ostore` is called.
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in {NO_TEST_FAILED, A_TEST_FAILED, TOO_LATE}, done.stdout + done.stderr
    return done.returncode


def test_there_are_enough_mistakes_and_each_can_still_be_made(tmp_path: Path) -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20
    for number, bug in enumerate(BUGS):
        source = tmp_path / str(number)
        (source / bug.path).parent.mkdir(parents=True)
        shutil.copy(Path(ostore.__file__).parent / bug.path, source / bug.path)
        bug.patch(source)


def test_the_copy_is_what_is_tested(tmp_path: Path) -> None:
    shutil.copytree(Path(ostore.__file__).parent, tmp_path / "ostore")
    (tmp_path / "ostore" / "formats" / "version.py").write_text('VERSION = "the copy"\n')
    forked = "import os; from tests.fork_server import run; print(run(['--version'], os.environ, None, 60).stdout)"
    started = str(Path(sys.executable).with_name("ostore"))
    for words in ([started, "--version"], [sys.executable, "-P", "-c", forked]):
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        told = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        assert "the copy" in told.stdout
