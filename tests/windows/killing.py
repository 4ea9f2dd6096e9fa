"""
Run ostore and end it before its call number N that changes a disk: `python -m tests.windows.killing LOG N ARGUMENTS`.

Windows has no strace. What `Directory` can change is patched instead, in a process of its own: it ends at once, with
nothing closed or undone, as one that is killed. LOG gets a line for each call. No call has the number 0.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ostore.cli.main import main
from ostore.streams.durable import Directory

KILLED = 137
CHANGES = ("create", "give", "link", "make_child", "open_or_create", "rename", "rmdir", "sync", "touch", "unlink")


def watched(name: str, log: Path, last: int, alone: threading.Lock) -> Callable[..., Any]:
    change = getattr(Directory, name)

    def call(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - passes on whatever it is
        with alone, log.open("a") as lines:
            lines.write(f"{name} {arguments[0].path} {arguments[1:]}\n")
            lines.flush()
            if len(log.read_text().splitlines()) == last:
                os._exit(KILLED)
        return change(*arguments, **more)

    return call


if __name__ == "__main__":
    _, told, number, *sys.argv[1:] = sys.argv
    one = threading.Lock()
    for method in CHANGES:
        setattr(Directory, method, watched(method, Path(told), int(number), one))
    main()
