"""One process holds a lock at a time, and a dead one holds none."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostore.formats.errors import BusyError
from ostore.streams.file_lock import try_lock, wait_lock

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system")

HOLD = """
import os, sys, time
from ostore.streams.file_lock import try_lock
assert try_lock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644))
print("held", flush=True)
time.sleep(60)
"""
TRY = """
import os, sys
from ostore.streams.file_lock import try_lock
print(try_lock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)))
"""


@contextlib.contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock when this yields."""
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def test_two_processes_exclude_each_other(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holder(lock), opened(lock) as fd:
        assert not try_lock(fd)
    with opened(lock) as fd:
        assert try_lock(fd)
        tried = subprocess.run([sys.executable, "-c", TRY, lock], capture_output=True, text=True, check=True)
        assert tried.stdout == "False\n"


@posix_only
def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holder(lock) as process, opened(lock) as fd:
        assert not try_lock(fd)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert try_lock(fd)


def test_two_opens_of_one_file_exclude_each_other_within_a_process(tmp_path: Path) -> None:
    with opened(tmp_path / "lock") as first, opened(tmp_path / "lock") as second:
        assert try_lock(first)
        assert not try_lock(second)
    with opened(tmp_path / "lock") as third:
        assert try_lock(third)


@posix_only
def test_who_holds_a_lock_may_take_it_again(tmp_path: Path) -> None:
    with opened(tmp_path / "lock") as fd:
        assert try_lock(fd)
        assert try_lock(fd)


@posix_only
def test_a_lock_can_be_taken_by_who_may_only_read(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"")
    fd = os.open(tmp_path / "lock", os.O_RDONLY)
    assert try_lock(fd)
    os.close(fd)


def test_who_waits_too_long_is_told_for_what(tmp_path: Path) -> None:
    with holder(tmp_path / "lock"), opened(tmp_path / "lock") as fd:
        start = time.monotonic()
        with pytest.raises(BusyError, match=r"^the store: another ostore has held the lock for 0 s$"):
            wait_lock(fd, "the store", 0.2)
        assert 0.2 <= time.monotonic() - start < 5


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    with holder(tmp_path / "lock") as process, opened(tmp_path / "lock") as fd:
        timer = threading.Timer(0.2, process.kill)
        timer.start()
        wait_lock(fd, "the store", 30)
        timer.join()
        with opened(tmp_path / "lock") as other:
            assert not try_lock(other)


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="needs Linux")
def test_where_there_are_no_locks_everybody_gets_through(tmp_path: Path) -> None:
    # A handle for the path alone answers EBADF, as NFS does for a directory.
    first, second = (os.open(tmp_path, os.O_PATH) for _ in range(2))
    assert try_lock(first)
    assert try_lock(second)
    os.close(first)
    os.close(second)
