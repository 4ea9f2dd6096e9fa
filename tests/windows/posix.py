"""
What the tests need of POSIX: a pytest plugin for Windows, `-p tests.windows.posix`.

It leaves out files that are about POSIX, and skips a test that asks Python for what Windows lacks, each with a reason.
A test that fails for any other reason fails.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.windows import rpds

TESTS = Path(__file__).parents[1]
# Files and folders that are about POSIX as a whole.
LEFT_OUT = {
    "hostile/test_environment.py": "signals, limits and terminals of POSIX",
    "test_full_disk.py": "mounts disks",
    "test_kill.py": "stops programs with SIGSTOP; tests/windows has kills of its own",
    "test_memory.py": "limits the memory of a program with setrlimit",
    "test_other_disks.py": "mounts disks",
    "test_publication.py": "strace",
    "test_repo.py": "reads the repository, which says the same everywhere",
    "test_restore_script.py": "restore.py is for POSIX, and says so on Windows",
    "test_sharing.py": "mounts disks",
    "torture": "strace, loop devices and races; the power of it is from outside, and Wine is inside",
    "vectors/test_vectors.py": "compares with restore.py, which is for POSIX",
    "windows": "drives Wine from outside",
}
# What the standard library has on POSIX alone. That ostore itself asks for it is a failure.
_LACKS = re.compile(
    r"module 'os' has no attribute '(geteuid|getegid|getuid|chown|lchown|mknod|openpty|setxattr|getxattr|fork)'"
    r"|module 'signal' has no attribute '(SIGHUP|SIGKILL|SIGSTOP|SIGALRM|alarm)'"
    r"|module 'socket' has no attribute '(AF_UNIX)'"
    r"|^(symbolic links|pipes with a name)$"
    r"|No module named '(_?(?:curses|fcntl|grp|pty|pwd|resource|termios|tty))'"
)


_symlink = os.symlink


def symlink(target: str, link: str, *arguments: object, **more: Any) -> None:  # noqa: ANN401 - as os has it
    """Wine says that it has made a link, and makes none; Windows lets few people make one."""
    with contextlib.suppress(OSError):
        _symlink(target, link, **more)
    if not os.path.lexists(link):
        raise NotImplementedError("symbolic links")


def mkfifo(*arguments: object) -> None:
    """Tables of cases name it."""
    raise NotImplementedError("pipes with a name")


def pytest_configure() -> None:
    os.symlink = symlink  # type: ignore[assignment]
    os.mkfifo = mkfifo  # type: ignore[assignment]
    try:
        importlib.import_module("rpds")
    except ImportError:
        sys.modules["rpds"] = rpds


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if not collection_path.is_relative_to(TESTS):
        return None
    return True if collection_path.relative_to(TESTS).as_posix() in LEFT_OUT else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo and report.failed and (lack := lack_of(call.excinfo)):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: POSIX only: {lack}")
    return report


def lack_of(found: pytest.ExceptionInfo[BaseException]) -> str:
    """What the test asked for and Windows lacks; nothing if ostore asked for it, or if the test failed otherwise."""
    last = Path(str(found.traceback[-1].path))
    known = isinstance(found.value, (AttributeError, ImportError, NotImplementedError))
    lacks = _LACKS.search(str(found.value)) if known else None
    if lacks is None or not last.is_relative_to(TESTS):
        return ""
    return next(name for name in lacks.groups() if name)


def pytest_report_header() -> list[str]:
    return [f"left out: {name}: {why}" for name, why in LEFT_OUT.items()]
