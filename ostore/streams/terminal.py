"""Tell a terminal from NUL: the C library of Windows counts both among the devices of characters."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":  # pragma: no cover - Windows
    from ostore.streams import windows


def is_terminal(fd: int) -> bool:
    """Whether a person reads or types at the other end of a descriptor; no, if it is closed."""
    if sys.platform == "win32":  # pragma: no cover - Windows
        return os.isatty(fd) and windows.is_console(fd)
    return os.isatty(fd)
