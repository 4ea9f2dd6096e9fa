"""
Run the program in processes forked from one that has loaded it, because the tests start it some thousand times.

Loading Python, typer and ostore costs several times what most commands do. What is forked is a process like any other:
its own descriptors, surroundings, folder, signals, end and exit code. A test of how the program loads, or one that
traces, stops or kills it, starts it with OSTORE of support.py.

Run as a program, this file is the server. Its standard input is a socket. Each message there brings the descriptors of
one process: its three standard streams, the request, and a pipe that gets its number and later how it ended.
"""

from __future__ import annotations

import atexit
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
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

MEASURED = "COVERAGE_PROCESS_CONFIG"
# What is read when a command runs. Any other variable may change how Python or a library loads.
READ_LATE = {MEASURED, "COLUMNS", "HOME", "OLLAMA_MODELS", "OSTORE_DEBUG", "PATH", "PYTEST_CURRENT_TEST"}
# Only Windows has what these load.
ELSEWHERE = {"ostore.host.toolhelp", "ostore.streams.windows"}


def run(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path | None, timeout: float
) -> subprocess.CompletedProcess[str] | None:
    """Run it and capture what it prints. None: in these surroundings it might load otherwise than the server did."""
    if sys.platform != "linux" or _read_early(environment) != (server := _server()).surroundings:
        return None
    os.umask(umask := os.umask(0o022))
    request = json.dumps([arguments, dict(environment), os.fspath(Path.cwd() / (folder or "")), umask])
    status, printed, errors = server.fork(request.encode(), timeout)
    return subprocess.CompletedProcess(["ostore", *arguments], status, _text(printed), _text(errors))


def _read_early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in READ_LATE}


def _text(printed: bytes) -> str:
    return printed.decode().replace("\r\n", "\n").replace("\r", "\n")


@functools.cache
def _server() -> _Server:
    return _Server()


class _Server:
    """The server, as the process of the tests sees it. It ends with that process, because its socket does."""

    def __init__(self) -> None:
        self.surroundings = _read_early(os.environ)
        self._socket, theirs = socket.socketpair()
        with theirs:
            # Its output is a pipe, as that of the processes will be: Python asks what it is only once.
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__],
                env={name: value for name, value in os.environ.items() if name != MEASURED},
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._socket.close()
        self._process.communicate()

    def fork(self, request: bytes, timeout: float) -> tuple[int, bytes, bytes]:
        """Gives the exit code, or the number of a signal below zero, and what was printed."""
        pipes = [os.pipe() for _ in range(3)]
        streams = [0, pipes[0][1], pipes[1][1]]
        with tempfile.TemporaryFile() as file:
            file.write(request)
            file.flush()
            socket.send_fds(self._socket, [b"."], [*streams, file.fileno(), pipes[2][1]])
        for _, theirs in pipes:
            os.close(theirs)
        printed, errors, answer = _read_all([ours for ours, _ in pipes], timeout)
        return int(answer.split()[1]), printed, errors


def _read_all(pipes: Sequence[int], timeout: float) -> list[bytes]:
    """All that comes out of the pipes, which are closed. The last one brings the number of the process first."""
    deadline = time.monotonic() + timeout
    read = {pipe: bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(deadline - time.monotonic()):
                piece = os.read(key.fd, 65_536)
                read[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
                    os.close(key.fd)
            if time.monotonic() > deadline:
                os.kill(int(read[pipes[-1]].split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired("ostore", timeout)
    return [bytes(read[pipe]) for pipe in pipes]


def _serve() -> None:
    """Fork what is asked for. Returns in each new process, and ends in the server when its socket does."""
    control = socket.socket(fileno=os.dup(0))
    running: dict[int, int] = {}

    def tell_ends(*_: object) -> None:
        while running:
            number, status = os.waitpid(-1, os.WNOHANG)
            if not number:
                return
            answer = running.pop(number)
            os.write(answer, b"%d" % os.waitstatus_to_exitcode(status))
            os.close(answer)

    signal.signal(signal.SIGCHLD, tell_ends)
    # Ctrl-C ends the tests, and they end this.
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
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
            control.detach()
            _become(descriptors)
            return
        running[number] = descriptors.pop()
        os.write(running[number], b"%d\n" % number)
        for descriptor in descriptors:
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _become(descriptors: Sequence[int]) -> None:
    """Take on what a new process has of its own."""
    *streams, request, _ = descriptors
    os.lseek(request, 0, os.SEEK_SET)
    with os.fdopen(request, "rb") as file:
        arguments, environment, folder, umask = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, max(descriptors) + 1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.umask(umask)
    sys.argv = ["ostore", *arguments]


def _load() -> None:
    """Load all that a command may load."""
    import ostore

    for module in pkgutil.walk_packages(ostore.__path__, "ostore."):
        if module.name not in ELSEWHERE:
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
        if measuring:
            measuring.stop()
            measuring.save()
        # To take apart what was loaded costs more than most commands, and nobody would see it.
        os._exit(int(end.code or 0))


if __name__ == "__main__":
    _main()
