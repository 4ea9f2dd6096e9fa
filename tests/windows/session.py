"""
Run ostore for each line of standard input, in one process: under Wine its imports take longer than most commands.

A line is a JSON list of a folder and the arguments. The answer is one of the exit code, the output and the errors.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from ostore.cli.main import main


def answer(folder: str, *arguments: str) -> tuple[int, str, str]:
    written = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n") for _ in range(2)]
    sys.argv[1:] = arguments
    with contextlib.chdir(folder), contextlib.redirect_stdout(written[0]), contextlib.redirect_stderr(written[1]):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    for stream in written:
        stream.seek(0)
    return code, written[0].read(), written[1].read()


if __name__ == "__main__":
    # No folder of a test is in use while nothing runs.
    os.chdir(Path(sys.executable).parent)
    answers = sys.stdout
    for line in sys.stdin:
        answers.write(json.dumps(answer(*json.loads(line))) + "\n")
        answers.flush()
