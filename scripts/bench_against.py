"""
Compare this checkout with another one: `scripts/bench.py --against CHECKOUT`. Both run in turns, in the same Python.

A ratio below 1 means that this checkout takes less. Time is wall-clock time. Work is processor time, which varies less
on a busy machine. Memory is the peak in MiB.
"""

from __future__ import annotations

import compileall
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import bench_data as data

HERE = Path(__file__).resolve().parent.parent
# Starts a command from a small process, because a child begins with the peak of its parent.
TIMED = (
    "import os,sys,time\n"
    "quiet=(os.POSIX_SPAWN_OPEN,1,os.devnull,os.O_WRONLY,0)\n"
    "started=time.perf_counter()\n"
    "child=os.posix_spawn(sys.argv[1],sys.argv[1:],os.environ,file_actions=[quiet])\n"
    "_,status,usage=os.wait4(child,0)\n"
    "print(time.perf_counter()-started,usage.ru_utime+usage.ru_stime,usage.ru_maxrss/1024)\n"
    "sys.exit(os.waitstatus_to_exitcode(status))\n"
)
# The commands that look at a whole store of many tags.
LOOKING = {"list": ("list",), "du": ("du",), "doctor": ("doctor",), "gc": ("gc", "--dry-run"), "verify": ("verify",)}
CARRYING = {"export", "import"}
ROWS = ("starting", *LOOKING, *sorted(CARRYING))
HEAD = f"{'':<22} {'ratio of time':<22} {'of work':>7} {'here':>10} {'memory here / there':>23}"


@dataclass(frozen=True)
class Task:
    """A command to run, and what it makes, which must be gone before the next run."""

    name: str
    words: tuple[str | Path, ...]
    made: Path | None = None


@dataclass
class Side:
    """The figures of one checkout, round by round: seconds, seconds of the processors, and peak memory in MiB."""

    checkout: Path
    seconds: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)

    def run(self, task: Task, *, is_counted: bool) -> None:
        remove(task.made)
        os.sync()
        told = python(self.checkout, "-c", TIMED, sys.executable, "-P", "-m", "ostore", *task.words)
        if is_counted:
            for figures, text in zip((self.seconds, self.work, self.peaks), told.split(), strict=True):
                figures.append(float(text))


@dataclass
class Row:
    """A row of the table."""

    name: str
    here: Side
    there: Side

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.here.seconds, self.there.seconds, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        ratio = f"{self.ratio:.3f} [{min(self.ratios):.3f}..{max(self.ratios):.3f}]"
        work = statistics.median(ours / theirs for ours, theirs in zip(self.here.work, self.there.work, strict=True))
        seconds = statistics.median(self.here.seconds)
        memory = " / ".join(f"{statistics.median(side.peaks):.1f}" for side in (self.here, self.there))
        return f"{self.name:<22} {ratio:<22} {work:>7.3f} {seconds:>8.2f} s {memory:>19} MiB"


@dataclass(frozen=True)
class Bench:
    """The other checkout, a folder to work in, and the options."""

    there: Path
    folder: Path
    size: int
    rounds: int
    tags: int

    def compare(self, names: list[str]) -> list[Row]:
        """Print each row when it is done, and return all of them. `names` are from ROWS."""
        for checkout in (HERE, self.there):
            refuse_another(checkout)
            # Else every start compiles again where writing bytecode is switched off.
            compileall.compile_dir(checkout / "ostore", quiet=1)
        print(HEAD)
        rows = []
        for task in self.tasks({*names}):
            rows.append(self.compared(task))
            print(rows[-1], flush=True)
        return rows

    def tasks(self, names: set[str]) -> Iterator[Task]:
        """Yield the tasks. Make what a task needs before it, and remove that after the last task that needs it."""
        if "starting" in names:
            yield Task("--version", ("--version",))
        if names & LOOKING.keys():
            store = self.folder / "many"
            data.small_store(store, self.tags)
            for name, words in LOOKING.items():
                if name in names:
                    yield Task(f"{name}, {self.tags} tags", (*words, "--models", store, "-q"))
            remove(store)
        if names & CARRYING:
            # Quantised weights in eight blobs.
            store, bundle, other = (self.folder / name for name in ("store", "b.tar.zst", "other"))
            data.real_store(store, self.size, 8)
            exporting = ("export", "--all", bundle, "--models", store, "-q")
            if "export" in names:
                yield Task(f"export, {self.size / 1e9:g} GB", exporting, bundle)
            # The other checkout is usually the older one, and both can read what it writes.
            python(self.there, "-P", "-m", "ostore", *exporting)
            remove(store)
            if "import" in names:
                yield Task(f"import, {self.size / 1e9:g} GB", ("import", bundle, "--models", other, "-q"), other)
            remove(bundle)

    def compared(self, task: Task) -> Row:
        """Run both sides in turns. The first round only warms the caches."""
        row = Row(task.name, Side(HERE), Side(self.there))
        for number in range(self.rounds + 1):
            for side in (row.here, row.there):
                side.run(task, is_counted=number > 0)
        remove(task.made)
        return row


def refuse_another(checkout: Path) -> None:
    """Exit if Python finds ostore elsewhere, for example an installed one, because then nothing would be compared."""
    told = Path(python(checkout, "-P", "-c", "import ostore; print(ostore.__file__)").strip())
    if told.resolve().parent != (checkout / "ostore").resolve():
        sys.exit(f"{checkout} is no checkout of ostore: Python finds it in {told.parent}")


def python(checkout: Path, *words: str | Path) -> str:
    """Run Python so that it looks into this checkout first, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout


def remove(path: Path | None) -> None:
    if path is not None:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
