"""
Run the program in processes forked from one that has loaded it, because the tests start it some thousand times.

Loading Python, typer and ostore costs several times what most commands do. What is forked has descriptors,
surroundings, a folder, a umask, signals and an exit code of its own. It differs from a started process in three ways:
every module is loaded, `__main__.py` has not run, and what was loaded is not taken apart at the end. A test about one
of these, or one that traces, stops or kills the program, starts it with OSTORE of support.py.

Run as a program, this file is the server. Its standard input is a socket. Each message there brings the descriptors of
one process: its three standard streams, the request, and a pipe that gets its number and later how it ended.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

# Tells a Python that it is to measure what it covers: tests/measuring.py.
MEASURED = "COVERAGE_PROCESS_CONFIG"
# Variables that are read only when a command runs. Any other may change how Python or a library loads.
READ_LATE = {
    MEASURED,
    "COLUMNS",
    "HOME",
    "OLLAMA_HOST",
    "OLLAMA_MODELS",
    "OSTORE_DEBUG",
    "PATH",
    "PYTEST_CURRENT_TEST",
    "USERPROFILE",
}
# conftest.py takes these from every test.
TAKEN_AWAY = {"FORCE_COLOR", "NO_COLOR"}
# Only Windows has what these load.
WINDOWS_ONLY = {"ostore.host.toolhelp", "ostore.streams.windows"}


def run(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path | None, timeout: float
) -> subprocess.CompletedProcess[str] | None:
    """
    Run it and capture what it prints. None: with these variables it might load otherwise than the server did.

    Raises FileNotFoundError if the folder is absent, TimeoutExpired.
    """
    if sys.platform != "linux" or read_early(environment) != (server := _server()).surroundings:
        return None
    place = Path.cwd() / (folder or "")
    place.stat()
    status, printed, errors = server.fork(arguments, environment, place, timeout)
    return subprocess.CompletedProcess(["ostore", *arguments], status, _text(printed), _text(errors))


def read_early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in READ_LATE}


def _text(printed: bytes) -> str:
    """As `text=True` has it."""
    return printed.decode().replace("\r\n", "\n").replace("\r", "\n")


@functools.cache
def _server() -> _Server:
    return _Server()


class _Server:
    """The server, as the process of the tests sees it. It ends with that process, because its socket does."""

    def __init__(self) -> None:
        started = {name: value for name, value in os.environ.items() if name not in {MEASURED, *TAKEN_AWAY}}
        self.surroundings = read_early(started)
        self._asking = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            # Its output is a pipe, as that of the processes will be: Python asks what it is only once. Its folder must
            # be in nobody's way.
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                env=started,
                cwd="/",
            )
        if not self._socket.recv(1):
            raise RuntimeError(f"the fork server has ended with {self._process.wait()}; standard error says why")
        atexit.register(self._end)

    def _end(self) -> None:
        self._socket.close()
        self._process.communicate()

    def fork(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float
    ) -> tuple[int, bytes, bytes]:
        """Gives the exit code, or the number of a signal below zero, and what was printed."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as passed:
            pipes = [(_owned(ours, end), _owned(passed, other)) for end, other in (os.pipe() for _ in range(3))]
            reading, writing = zip(*pipes, strict=True)
            file = passed.enter_context(tempfile.TemporaryFile())
            with self._asking:
                os.umask(umask := os.umask(0o022))
                file.write(json.dumps([arguments, dict(environment), os.fspath(folder), umask]).encode())
                file.flush()
                printed, errors, answer = writing
                socket.send_fds(self._socket, [b"."], [0, printed, errors, file.fileno(), answer])
            passed.close()
            told = _read_all(reading, ["ostore", *arguments], timeout)
        number, _, status = told[2].partition(b"\n")
        if not status:
            raise RuntimeError(f"the fork server has ended before its process {number!r}; standard error says why")
        return int(status), told[0], told[1]


def _owned(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _read_all(pipes: Sequence[int], command: Sequence[str], timeout: float) -> list[bytes]:
    """All that comes out of the pipes. The last one brings the number of the process, and a line later how it ended."""
    deadline = time.monotonic() + timeout
    read = {pipe: bytearray() for pipe in pipes}
    output, errors, answer = read.values()
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(deadline - time.monotonic()):
                piece = os.read(key.fd, 65_536)
                read[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
            if time.monotonic() > deadline:
                if answer.endswith(b"\n"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(answer), signal.SIGKILL)
                raise subprocess.TimeoutExpired(command, timeout, bytes(output), bytes(errors))
    return [bytes(told) for told in read.values()]


def _serve() -> None:
    """Fork what is asked for. Returns in each new process, and ends in the server when its socket does."""
    control = socket.socket(fileno=os.dup(0))
    running: dict[int, int] = {}

    def tell_ends(*_: object) -> None:
        while running:
            number, status = os.waitpid(-1, os.WNOHANG)
            if not number:
                return
            _tell(running[number], b"%d" % os.waitstatus_to_exitcode(status))
            os.close(running.pop(number))

    signal.signal(signal.SIGCHLD, tell_ends)
    # Ctrl-C ends the tests, and they end this.
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    control.send(b".")
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 5)
        if not descriptors:
            sys.exit()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        number = os.fork()
        if not number:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, interrupted)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            control.close()
            # The pipe of a process that runs meanwhile would not end with it.
            for answer in running.values():
                os.close(answer)
            _become(descriptors)
            return
        running[number] = descriptors.pop()
        _tell(running[number], b"%d\n" % number)
        for descriptor in descriptors:
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _tell(answer: int, what: bytes) -> None:
    # Whoever asked has gone if it took too long.
    with contextlib.suppress(BrokenPipeError):
        os.write(answer, what)


def _become(descriptors: Sequence[int]) -> None:
    """Take on what a new process has of its own."""
    *streams, request, answer = descriptors
    os.close(answer)
    os.lseek(request, 0, os.SEEK_SET)
    with os.fdopen(request, "rb") as file:
        arguments, environment, folder, umask = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.umask(umask)
    sys.argv = ["ostore", *arguments]


def _load() -> None:
    """Load all that a command may load."""
    import ostore

    for module in pkgutil.walk_packages(ostore.__path__, "ostore."):
        if module.name not in WINDOWS_ONLY:
            importlib.import_module(module.name)
    importlib.import_module("typer.rich_utils")


def _main() -> NoReturn:
    _load()
    _serve()
    measuring = None
    if MEASURED in os.environ:
        import coverage

        measuring = coverage.process_startup()
    from ostore.cli.main import main

    try:
        main()
    except SystemExit as end:
        # What Python does at its end, but for the modules: to take them apart costs more than most commands.
        threading._shutdown()  # type: ignore[attr-defined]
        if measuring:
            measuring.stop()
            measuring.save()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(end.code or 0))


if __name__ == "__main__":
    _main()
