"""Run par2, which makes and uses parity. It is a program of its own, in the extra `parity`, or on PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.errors import IntegrityError, NoSpaceError, UsageError
from ostore.formats.parity import ParityPlan
from ostore.formats.remedy import command
from ostore.streams.durable import FULL

# Its own default is half of the machine's memory.
_LEAST_MIB, _MOST_MIB, _SHARE = 64, 2048, 4
_MIB = 1024 * 1024
# Of par2 itself: what was asked for cannot be done with so few blocks.
_NOT_POSSIBLE = 2
_SHORT = re.compile(r"You need (\d+) more recovery block")
_USED = re.compile(r"(\d+) recovery blocks? will be used")
_EXCESS = re.compile(r"excess of (\d+) recovery block")


class BeyondRepairError(Exception):
    """The parity does not suffice. `short` is how many recovery blocks are lacking, or None if par2 does not say."""

    def __init__(self, short: int | None) -> None:
        super().__init__("the parity does not suffice" if short is None else f"{short} recovery blocks are lacking")
        self.short = short


@dataclass(frozen=True, slots=True)
class Mended:
    """How many recovery blocks a repair took, and how many were spare."""

    used: int
    spare: int


def refuse_without_par2() -> None:
    """Raises UsageError if there is no par2 on this machine."""
    _program()


def create_parity(folder: Path, files: Sequence[str], parity: Path, plan: ParityPlan, *, jobs: int) -> None:
    """
    Write parity for files below a folder. `parity` is its first file, and in the same folder if it is a bare name.

    Raises UsageError without the program par2, NoSpaceError, OSError.
    """
    base = ["-B", str(folder.absolute())] if parity.is_absolute() else []
    split = ["-u", f"-n{plan.files}"]
    sizes = [f"-s{plan.block_size}", f"-c{plan.recovery_blocks}"]
    done = _run(folder, "create", *sizes, *split, *_limits(jobs), *base, "-a", str(parity), "--", *files)
    if done.returncode:
        said = _last_line(done.stdout)
        if any(os.strerror(code) in done.stdout for code in FULL):
            raise NoSpaceError(f"{folder}: no room for the parity: {said}", hint="take less parity, or another disk")
        raise OSError(f"{folder}: par2 could not make parity: {said}")


def repair_with_parity(folder: Path, parity: str, *, jobs: int) -> Mended:
    """
    Make the files whole that parity in a folder describes, and that lie there or should.

    Raises BeyondRepairError if that cannot be done, UsageError if there is no par2, OSError.
    """
    done = _run(folder, "repair", *_limits(jobs), "--", parity)
    if done.returncode == _NOT_POSSIBLE:
        raise BeyondRepairError(_number(_SHORT, done.stdout))
    if done.returncode:
        raise IntegrityError(f"{folder}: par2 could not repair: {_last_line(done.stdout)}")
    return Mended(_number(_USED, done.stdout) or 0, _number(_EXCESS, done.stdout) or 0)


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # If this is interrupted, the program is ended too.
    return subprocess.run(
        [_program(), *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _program() -> str:
    try:
        from par2.cli import par2_executable  # noqa: PLC0415 - an extra
    except ImportError:
        if found := shutil.which("par2"):
            return found
        hint = command("pip", "install", "ostore[parity]", after="installs it")
        raise UsageError("the program par2 is not installed", parameter="parity", hint=hint) from None
    return str(par2_executable())


def _limits(jobs: int) -> tuple[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _SHARE if hasattr(os, "sysconf") else 0
    return f"-m{min(_MOST_MIB, max(_LEAST_MIB, memory // _MIB))}", f"-t{jobs}"


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(found[1]) if found else None


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it does not say why")
