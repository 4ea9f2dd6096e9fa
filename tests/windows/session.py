"""
Run ostore for one command after the other, in one process: under Wine, to start it takes longer than most commands do.

A line of its standard input is a JSON list of a folder, an environment and the arguments; without an environment, that
of the process holds. The answer is a line with the exit code, the output and the errors.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

LIMIT_SECONDS = 300


class Session:
    """Such a process, as those who ask it see it. It ends with the `with` block, or with whoever started it."""

    def __init__(self, python: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [*python, "-m", "tests.windows.session"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.__exit__(None, None, None)

    def run(
        self, folder: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder. Raises TimeoutExpired; this cannot be used after that."""
        assert self._process.stdin
        assert self._process.stdout
        request = json.dumps([folder, environment and dict(environment), *arguments])
        print(request, file=self._process.stdin, flush=True)
        late = threading.Timer(LIMIT_SECONDS, self._process.kill)
        late.start()
        try:
            answer = self._process.stdout.readline()
        finally:
            late.cancel()
        if not answer:
            raise subprocess.TimeoutExpired(arguments, LIMIT_SECONDS)
        return subprocess.CompletedProcess(arguments, *json.loads(answer))


def _answer(folder: str, environment: Mapping[str, str] | None, *arguments: str) -> tuple[int, str, str]:
    from ostore.cli.main import main

    written = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n") for _ in range(2)]
    sys.argv[1:] = arguments
    found, code = dict(os.environ), 0
    if environment is not None:
        _set_environment(environment)
    with contextlib.chdir(folder), contextlib.redirect_stdout(written[0]), contextlib.redirect_stderr(written[1]):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    _set_environment(found)
    for stream in written:
        stream.seek(0)
    return code, written[0].read(), written[1].read()


def _set_environment(environment: Mapping[str, str]) -> None:
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)


if __name__ == "__main__":
    # No folder of a test is in use while nothing runs.
    os.chdir(Path(sys.executable).parent)
    answers = sys.stdout
    for line in sys.stdin:
        answers.write(json.dumps(_answer(*json.loads(line))) + "\n")
        answers.flush()
