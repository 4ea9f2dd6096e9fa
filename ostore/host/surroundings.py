"""The facts about the process and the machine that decide which store to use, and the choice that follows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

UNIT = "ollama.service"
# Returns the home folder of a user (a name or a number), or None.
HomeOf = Callable[[str], Path | None]

Reason = Literal["flag", "environment", "service", "desktop-app", "default"]


def _unknown_user(_user: str) -> Path | None:
    return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    All that discovery may know of the process and the machine.

    `platform` is `sys.platform`. `home` is what Go uses: $HOME, or %USERPROFILE% on Windows. `root` goes before every
    fixed path and every file that a unit names, so a test does not see the real machine. A directory that a setting
    names is used as written.
    """

    environ: Mapping[str, str]
    platform: str
    home: Path | None
    cwd: Path
    root: Path = Path("/")
    home_of: HomeOf = _unknown_user


@dataclass(frozen=True, slots=True)
class StoreChoice:
    """The store to use. `path` is absolute and need not exist. `detail` names the variable or file that decided."""

    path: Path
    reason: Reason
    detail: str


def status_of(path: Path) -> os.stat_result | None:
    """Return the status of a file, or None if it is absent, behind a closed directory, or its path has a NUL."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None
