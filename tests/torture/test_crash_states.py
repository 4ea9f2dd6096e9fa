"""
Let the power fail after any call of every command that writes, on a file system that promises only POSIX.

In no state that such a disk may have is anything lost, and what a command reported as done is there.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import TORTURE
from tests.torture.commands import NOTHING_LEFT, ON_ANY_DISK, Command, run
from tests.torture.crash_model import Crash, Disk
from tests.torture.crash_trace import Call, calls, recording
from tests.torture.judge import State, wrongs
from tests.torture.tracing import needs_strace

# `make torture` looks at all commands, and at states that differ in one thing more from what is likely.
DEVIATIONS = 3 if TORTURE else 2
SOME = {"import", "export", "export-oci-new", "gc-restore", "rm", "repair"}
# From this many states of each command, the command is also run again.
REAL = 40 if TORTURE else 1

pytestmark = needs_strace


@dataclass(frozen=True)
class Recorded:
    """A command that ran to its end: the disks that it may have run on, its calls, where it began and ended."""

    command: Command
    folder: Path
    disk: Disk
    unsynced: Disk
    calls: Sequence[Call]
    before: State
    after: State
    left: Crash


@pytest.fixture(scope="module", params=[c for c in ON_ANY_DISK if TORTURE or c.name in SOME], ids=lambda c: c.name)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    command: Command = request.param
    place = tmp_path_factory.mktemp(command.name)
    folder, log = place / "work", place / "log"
    folder.mkdir()
    command.prepare(folder)
    disk, unsynced, before = Disk(folder), Disk(folder, is_synced=False), State.of(folder)
    done = run(folder, *command.words, tracer=recording(log, command.always))
    assert done.returncode == 0, done.stderr
    made = list(calls(log, folder))
    log.unlink()
    return Recorded(command, folder, disk, unsynced, made, before, State.of(folder), Disk(folder).seen())


@dataclass(frozen=True)
class Crashes:
    """Every state that any moment may leave, each once; and what of them may be found after the command has ended."""

    states: Sequence[Crash]
    last: Sequence[Crash]


@pytest.fixture(scope="module")
def crashes(recorded: Recorded) -> Crashes:
    found: dict[frozenset[tuple[str, str]], Crash] = {}
    for call in recorded.calls:
        if recorded.disk.follow(call):
            found.update((crash.key, crash) for crash in recorded.disk.crashes(DEVIATIONS))
    return Crashes(tuple(found.values()), tuple(recorded.disk.crashes(DEVIATIONS)))


def state(disk: Disk, crash: Crash) -> State:
    files = crash.files
    return State.made_of(files, lambda path: disk.contents[files[path]])


def test_the_model_agrees_with_the_disk_when_nothing_fails(recorded: Recorded, crashes: Crashes) -> None:
    assert crashes.states
    assert recorded.disk.seen().key == recorded.left.key


def test_nothing_is_lost_in_any_state_that_a_power_cut_can_leave(
    recorded: Recorded, crashes: Crashes, record_property: Callable[[str, object], None]
) -> None:
    record_property("states", len(crashes.states))
    for crash in crashes.states:
        assert wrongs(state(recorded.disk, crash), recorded.before, recorded.after) == [], crash.files


def test_what_a_command_says_is_done_outlives_a_power_cut(recorded: Recorded, crashes: Crashes) -> None:
    for crash in crashes.last:
        left = state(recorded.disk, crash)
        assert left == recorded.after, crash.files
        assert left.contents >= recorded.after.contents, crash.files


def test_a_model_that_was_taken_in_outlives_a_power_cut_even_if_what_it_stands_on_was_never_synced(
    recorded: Recorded,
) -> None:
    """Ollama syncs nothing that it writes."""
    disk, after = recorded.unsynced, recorded.after
    for call in recorded.calls:
        disk.follow(call)
    command = recorded.command

    def is_vouched_for(path: str) -> bool:
        # An import vouches also for its models that it finds there.
        is_here = path.startswith("models/") and not (command.leaves and path.endswith(command.leaves))
        is_imported = command.words[0] == "import" and is_here
        return "/manifests/" in path and (is_imported or recorded.before.files.get(path) != after.files[path])

    new = set(filter(is_vouched_for, after.files))
    for crash in disk.crashes(1):
        left = state(disk, crash)
        assert {path: left.files.get(path) for path in new} == {path: after.files[path] for path in new}, crash.files
        assert [model for model, _ in left.broken if model in new] == [], crash.files


def test_a_command_goes_on_from_what_a_power_cut_left(recorded: Recorded, crashes: Crashes) -> None:
    choices, folder = random.Random(recorded.command.name), recorded.folder
    for crash in choices.sample(crashes.states, min(REAL, len(crashes.states))):
        # In the same place: some files say where they are.
        shutil.rmtree(folder)
        folder.mkdir()
        crash.write(folder, recorded.disk.contents)
        again = run(folder, *recorded.command.words)
        assert again.returncode == 0 or (recorded.command.once and again.returncode == NOTHING_LEFT), (
            f"{crash.files}\n{again.stderr}"
        )
        assert State.of(folder) == recorded.after, f"{crash.files}\n{again.stderr}"
