"""Every command that writes, killed or failing at every call that touches its files: nothing is lost, it goes on."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import TORTURE, unmeasured
from tests.torture.commands import COMMANDS, Command, run
from tests.torture.disks import mounted_disk
from tests.torture.judge import State, output_problems, problems
from tests.torture.tracing import MUTATING, READING, injecting, needs_strace, points, recording

# `make torture` takes every point, `make test` some of each.
SAMPLE = 2
KILLED = {-signal.SIGKILL, 128 + signal.SIGKILL}
# Where a command may end that met an error of the system: integrity, busy, no space, input or output, doubt.
FAILED = {0, 4, 6, 7, 9, 10}
# The same words again, and what they stand for is gone.
NOTHING_LEFT = 3
FAULTS = {
    "killed": "signal=KILL",
    "EIO": "error=EIO",
    "full": "error=ENOSPC",
    "full from then on": "error=ENOSPC",
    "over quota": "error=EDQUOT",
    "read-only from then on": "error=EROFS",
}


@dataclass(frozen=True)
class Scene:
    """A command's beginning and its end, and the points between at which it can be stopped."""

    command: Command
    origin: Path
    folder: Path
    before: State
    after: State
    half_done: int
    mutating: Sequence[tuple[str, int]]
    reading: Sequence[tuple[str, int]]

    def reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.origin, self.folder, symlinks=True)

    def attempt(self, *injections: str, leaves_be: bool = False) -> None:
        """Let the command run into something, look at what it leaves, and let it go on."""
        self.reset()
        stopped = run(self.folder, *self.command.words, tracer=injecting(*injections))
        self.judge(stopped, str(injections), leaves_be=leaves_be)

    def judge(self, stopped: subprocess.CompletedProcess[str], what: str, *, leaves_be: bool = False) -> None:
        """`leaves_be` of a command that may do less than it was to do, because it could not read something."""
        code = stopped.returncode
        told = f"{self.command.name} {what}: exit {code}: {stopped.stderr}"
        if not has_begun(stopped):
            assert State.of(self.folder) == self.before, told
            return
        assert problems(self.folder, self.before, self.after) == [], told
        if code not in KILLED:
            assert code in FAILED or (code == NOTHING_LEFT and self.command.once), told
            # Where no more write succeeds, standard error has none either; the exit code has to say it alone.
            is_mute = stopped.stderr == "" and re.search(r"'write:\S+\+'", what)
            assert is_mute or output_problems(code, stopped.stdout, stopped.stderr) == [], told
        if code == 0 and not leaves_be:
            assert State.of(self.folder) == self.after, told
        again = run(self.folder, *self.command.words)
        told += f"\nand then {again.returncode}: {again.stderr}"
        assert again.returncode == 0 or (again.returncode == NOTHING_LEFT and self.command.once), told
        assert output_problems(again.returncode, again.stdout, again.stderr) == [], told
        assert problems(self.folder, self.before, self.after) == [], told
        if leaves_be and again.returncode == NOTHING_LEFT:
            # What it left be is nobody's now, and gc has it.
            return
        assert State.of(self.folder) == self.after, told
        if self.command.clears and not self.command.once:
            assert len(half_done(self.folder)) <= self.half_done, told


@pytest.fixture(scope="module", params=COMMANDS, ids=lambda command: command.name)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    command: Command = request.param
    place = tmp_path_factory.mktemp(command.name)
    if not command.disk:
        yield recorded(command, place)
        return
    with mounted_disk(command.disk, place) as disk:
        yield recorded(command, disk.mounted)


def recorded(command: Command, place: Path) -> Scene:
    """Run a command to its end, and note its calls."""
    origin, folder, log = place / "origin", place / "work", place / "log"
    origin.mkdir()
    command.prepare(origin)
    shutil.copytree(origin, folder, symlinks=True)
    done = run(folder, *command.words, tracer=recording(log, (*MUTATING, *READING)))
    assert done.returncode == 0, done.stderr
    everything = points(log, folder, reading=True)
    mutating = [point for point in points(log, folder) if point[0] in MUTATING]
    reading = [point for point in everything if point[0] not in MUTATING or point not in mutating]
    return Scene(command, origin, folder, State.of(origin), State.of(folder), len(half_done(folder)), mutating, reading)


def has_begun(stopped: subprocess.CompletedProcess[str]) -> bool:
    """
    Whether the program met the fault, and not what loads it.

    strace counts by thread, so the number of a call in one of ours is also that of a call long before in the first one.
    """
    # The last where a script could not be read to its end.
    unloaded = ("loading shared libraries", "Fatal Python error", "can't open file", "SyntaxError: ")
    return not any(words in stopped.stderr for words in unloaded)


def half_done(folder: Path) -> list[Path]:
    """What is staged, and removings that are to be finished: nothing that Ollama sees, and nothing that should stay."""
    return [*folder.rglob("*.part"), *folder.rglob(".ostore/trash/*/plan.json")]


def disturbed(fault: str) -> list[pytest.MarkDecorator]:
    """What is measured would be written where nothing can be any more."""
    return [unmeasured] if fault.endswith("from then on") else []


def some(cases: Sequence[tuple[str, int]], seed: str, count: int = SAMPLE) -> Sequence[tuple[str, int]]:
    return cases if TORTURE else random.Random(seed).sample(list(cases), min(count, len(cases)))


@needs_strace
@pytest.mark.parametrize("fault", [pytest.param(name, marks=disturbed(name)) for name in FAULTS])
def test_a_command_stopped_where_it_writes_loses_nothing_and_goes_on(scene: Scene, fault: str) -> None:
    assert scene.mutating
    onwards = "+" if fault.endswith("from then on") else ""
    for call, number in some(scene.mutating, f"{scene.command.name} {fault}"):
        scene.attempt(f"{call}:{FAULTS[fault]}:when={number}{onwards}")


@needs_strace
def test_a_command_that_cannot_read_loses_nothing_and_goes_on(scene: Scene) -> None:
    for call, number in some(scene.reading, f"{scene.command.name} reading"):
        scene.attempt(f"{call}:error=EIO:when={number}", leaves_be=True)


@needs_strace
def test_a_command_that_fails_and_is_killed_while_it_takes_back_what_it_did_loses_nothing(scene: Scene) -> None:
    choices = random.Random(f"{scene.command.name} double")
    for _ in range(200 if TORTURE else SAMPLE):
        (first, number), (second, later) = choices.choice(scene.mutating), choices.choice(scene.mutating)
        if first != second:
            scene.attempt(f"{first}:error=EIO:when={number}", f"{second}:signal=KILL:when={later}+")


@needs_strace
def test_a_command_that_is_killed_and_killed_again_while_it_goes_on_loses_nothing(scene: Scene) -> None:
    choices = random.Random(f"{scene.command.name} again")
    for _ in range(150 if TORTURE else SAMPLE):
        scene.reset()
        first, then = (f"{call}:signal=KILL:when={number}" for call, number in choices.choices(scene.mutating, k=2))
        run(scene.folder, *scene.command.words, tracer=injecting(first))
        scene.judge(run(scene.folder, *scene.command.words, tracer=injecting(then)), f"{first}, and then {then}")


@unmeasured
def test_a_command_whose_writes_are_cut_short_loses_nothing_and_goes_on(scene: Scene) -> None:
    sizes = [200, 4096, 40_000, 100_000, 140_000]
    for size in sizes if TORTURE else random.Random(scene.command.name).sample(sizes, 1):
        scene.reset()
        command = subprocess.run(
            scene.command.argv,
            cwd=scene.folder,
            env={**os.environ, "HOME": str(scene.folder), "OLLAMA_MODELS": "models"},
            # A file can grow no further than that: the call that would writes a part, the next one fails.
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),  # noqa: B023
            capture_output=True,
            text=True,
            check=False,
        )
        scene.judge(command, f"files of at most {size} bytes")
