"""What the process is told of the machine around it, and which store follows from that."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

UNIT = "ollama.service"
# Answers with the home folder of a user (a name or a number), or None.
HomeOf = Callable[[str], Path | None]

Reason = Literal["flag", "environment", "service", "desktop-app", "default"]


def _unknown_user(_user: str) -> Path | None:
    return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    All that discovery may know of the process and the machine.

    `platform` is `sys.platform`; `home` is Go's notion: $HOME, or %USERPROFILE% on Windows. `root` is put before every
    fixed place and every file that a unit names, so a test sees nothing of the real machine; directories that a setting
    names are taken as written. `home_of` answers with the home directory of a user (a name or a number), or None.
    """

    environ: Mapping[str, str]
    platform: str
    home: Path | None
    cwd: Path
    root: Path = Path("/")
    home_of: HomeOf = _unknown_user


@dataclass(frozen=True, slots=True)
class StoreChoice:
    """The store to use; `path` is absolute and need not exist, `detail` names the variable or file that decided."""

    path: Path
    reason: Reason
    detail: str


def status_of(path: Path) -> os.stat_result | None:
    """Ask the disk; None for whatever cannot be asked about, such as a path behind a closed directory or with a NUL."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None
