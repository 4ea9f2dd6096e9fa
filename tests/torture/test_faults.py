"""Kill every command that writes at each call that touches its files, or fail the call: nothing is lost, it goes on."""

from __future__ import annotations

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

from tests.support import TORTURE, some
from tests.torture.commands import COMMANDS, NOTHING_LEFT, SCRIPT, STEPWISE, Command, environment, run
from tests.torture.disks import mounted_disk
from tests.torture.judge import State, output_problems, problems
from tests.torture.tracing import MUTATING, READING, called, injecting, needs_strace, points, recording, was_met

# `make torture` takes every fault at every point, `make test` some at one.
SAMPLE = 1
SOME = {"killed", "EIO", "full from then on"}
KILLED = {-signal.SIGKILL, 128 + signal.SIGKILL}
# Other exit codes of a command that met an error: 0 it finished all the same, 4 integrity, 6 busy, 10 doubt.
FAILED = {0, 4, 6, 10}
# What happens to a call, and the exit code of what then goes wrong for that reason.
FAULTS = {
    "killed": ("signal=KILL", 0),
    "EIO": ("error=EIO", 9),
    "EIO from then on": ("error=EIO", 9),
    "full": ("error=ENOSPC", 7),
    "full from then on": ("error=ENOSPC", 7),
    "over quota": ("error=EDQUOT", 7),
    "read-only from then on": ("error=EROFS", 9),
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

    def attempt(self, *injections: str, code: int = 9, leaves_be: bool = False) -> bool:
        """
        Let the command run into something, look at what it leaves, and let it go on; gives whether it ran into it.

        It may not: strace counts by thread, and threads do not always share the work alike.
        """
        self.reset()
        log = self.folder.with_name("injected")
        stopped = self.run(injecting(*injections, *self.command.always, log=log))
        self.judge(stopped, str(injections), code, leaves_be=leaves_be)
        return was_met(log, injections)

    def points_after(self, failing: str) -> Sequence[tuple[str, int]]:
        """The calls by which the command changes something once that one has failed."""
        self.reset()
        log = self.folder.with_name("failed")
        self.run(recording(log, MUTATING, (failing, *self.command.always)))
        taken = called(self.command.always)
        return [point for point in points(log, self.folder, after=failing) if point[0] not in taken]

    def run(self, tracer: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        always = injecting(*self.command.always) if self.command.always else ()
        return run(self.folder, *self.command.words, tracer=tuple(tracer or always))

    def judge(
        self, stopped: subprocess.CompletedProcess[str], what: str, fault: int, *, leaves_be: bool = False
    ) -> None:
        """
        Check what a stopped run left, then run the command again. `fault` is the exit code that the fault asks for.

        With `leaves_be`, the command may do less than its task, because it could not read something.
        """
        code = stopped.returncode
        told = f"{self.command.name} {what}: exit {code}: {stopped.stderr}"
        if not has_begun(stopped):
            assert State.of(self.folder) == self.before, told
            return
        assert problems(self.folder, self.before, self.after) == [], told
        if code not in KILLED:
            # A report of what could not be done is no error, and 9 whatever the disk refused: docs/exit-codes.md.
            is_report = code == 9 and "error[" not in stopped.stderr
            is_done = code == NOTHING_LEFT and self.command.once
            assert code in {fault, *FAILED} or is_report or is_done, told
            # Where no more write succeeds, standard error has none either; the exit code has to say it alone.
            is_mute = stopped.stderr == "" and re.search(r"'write:\S+\+'", what)
            # Python itself may print this: it checks first whether the file that it is to run is an archive.
            is_of_python = "Failed checking if argv[0]" in stopped.stderr
            assert is_mute or is_of_python or output_problems(code, stopped.stdout, stopped.stderr) == [], told
        if code == 0 and not leaves_be:
            assert State.of(self.folder) == self.after, told
        again = self.run()
        told += f"\nand then {again.returncode}: {again.stderr}"
        assert again.returncode == 0 or (again.returncode == NOTHING_LEFT and self.command.once), told
        assert output_problems(again.returncode, again.stdout, again.stderr) == [], told
        assert problems(self.folder, self.before, self.after) == [], told
        if leaves_be and (again.returncode == NOTHING_LEFT or self.command.leaves_blobs):
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
    done = run(folder, *command.words, tracer=recording(log, (*MUTATING, *READING), command.always))
    assert done.returncode == 0, done.stderr
    # Of one call strace knows one fault.
    taken = called(command.always)
    everything = [point for point in points(log, folder, reading=True) if point[0] not in taken]
    mutating = [point for point in points(log, folder) if point[0] in MUTATING and point[0] not in taken]
    reading = [point for point in everything if point[0] not in MUTATING or point not in mutating]
    return Scene(command, origin, folder, State.of(origin), State.of(folder), len(half_done(folder)), mutating, reading)


def has_begun(stopped: subprocess.CompletedProcess[str]) -> bool:
    """
    Whether the program itself met the fault, and not the loader before it.

    strace counts by thread: call number N of a later thread is also number N of the first, which loads the program.
    """
    # The last where a script could not be read to its end.
    unloaded = ("loading shared libraries", "Fatal Python error", "can't open file", "SyntaxError: ")
    return not any(words in stopped.stderr for words in unloaded)


def half_done(folder: Path) -> list[Path]:
    """What is staged, and removals that are to be finished: nothing that Ollama sees, and nothing that should stay."""
    return [*folder.rglob("*.part"), *folder.rglob("*.part.state"), *folder.rglob(".ostore/trash/*/plan.json")]


def assert_most(met: Sequence[bool]) -> None:
    """A proof in which nothing has happened proves nothing."""
    assert sum(met) >= len(met) * 0.8 - 1, f"{sum(met)} of {len(met)} faults were met"


@needs_strace
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if TORTURE or fault in SOME])
def test_a_command_stopped_where_it_writes_loses_nothing_and_goes_on(scene: Scene, fault: str) -> None:
    (what, code), onwards = FAULTS[fault], "+" if fault.endswith("from then on") else ""
    chosen = some(scene.mutating, SAMPLE, f"{scene.command.name} {fault}")
    assert chosen
    assert_most([scene.attempt(f"{call}:{what}:when={number}{onwards}", code=code) for call, number in chosen])


@needs_strace
def test_a_command_that_cannot_read_loses_nothing_and_goes_on(scene: Scene) -> None:
    chosen = some(scene.reading, SAMPLE, f"{scene.command.name} reading")
    assert_most([scene.attempt(f"{call}:error=EIO:when={number}", leaves_be=True) for call, number in chosen])


@needs_strace
def test_a_command_that_fails_and_is_killed_while_it_takes_back_what_it_did_loses_nothing(scene: Scene) -> None:
    choices = random.Random(f"{scene.command.name} double")
    count = 40 if TORTURE else SAMPLE
    met: list[bool] = []
    for call, number in choices.sample(list(scene.mutating), min(count, len(scene.mutating))):
        failing = f"{call}:error=EIO:when={number}"
        afterwards = [point for point in scene.points_after(failing) if point[0] != call]
        for other, later in choices.sample(afterwards, min(5 if TORTURE else 1, len(afterwards))):
            met.append(scene.attempt(failing, f"{other}:signal=KILL:when={later}"))
    assert_most(met)


@needs_strace
def test_a_command_that_is_killed_and_killed_again_while_it_goes_on_loses_nothing(scene: Scene) -> None:
    choices = random.Random(f"{scene.command.name} again")
    met: list[bool] = []
    for _ in range(150 if TORTURE else SAMPLE):
        scene.reset()
        first, then = (f"{call}:signal=KILL:when={number}" for call, number in choices.choices(scene.mutating, k=2))
        met.append(scene.run(injecting(first, *scene.command.always)).returncode in KILLED)
        # Less is left to be done than before, so it may end without a second one.
        scene.judge(scene.run(injecting(then, *scene.command.always)), f"{first}, and then {then}", 0)
    assert_most(met)


def test_every_command_is_in_the_table_or_writes_nothing_that_anybody_lacks_later(tmp_path: Path) -> None:
    # A page of `du` is another each time; tests/test_usage_page.py has it.
    harmless = {"list", "show", "path", "where", "inspect", "verify", "du", "inventory", "diff", "outdated", "serve"}
    harmless |= {"completion", "help", "version", "probe"}
    # A push writes a state of its own alone, and what it cannot write is sent anew; tests/test_push.py kills it.
    harmless |= {"push"}
    told = run(tmp_path, "--help").stdout.partition("Commands:")[2]
    assert {line.split()[0] for line in told.splitlines() if line.startswith("  ") and line[2] != " "} == {
        *harmless,
        *(command.words[0] for command in COMMANDS if command.words[0] not in {SCRIPT, STEPWISE}),
    }


def test_a_command_whose_writes_are_cut_short_loses_nothing_and_goes_on(scene: Scene) -> None:
    sizes = [200, 4096, 40_000, 100_000, 140_000]
    for size in some(sizes, SAMPLE, scene.command.name):
        scene.reset()
        command = subprocess.run(
            [*injecting(*scene.command.always), *scene.command.argv] if scene.command.always else scene.command.argv,
            cwd=scene.folder,
            env=environment(scene.folder),
            # A file can grow no further than that: the call that would writes a part, the next one fails.
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),  # noqa: B023
            capture_output=True,
            text=True,
            check=False,
        )
        scene.judge(command, f"files of at most {size} bytes", 7)
