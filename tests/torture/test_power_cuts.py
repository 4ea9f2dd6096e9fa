"""Let the power fail at the calls of every command that writes, and right after its end, on ext4 and on XFS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import TORTURE, some
from tests.torture.commands import NOTHING_LEFT, ON_ANY_DISK, Command, run
from tests.torture.disks import KINDS, Disk, mounted_disk
from tests.torture.judge import State, problems
from tests.torture.tracing import MUTATING, called, injecting, needs_strace, points, recording

# `make torture` cuts at every call, `make test` here and there.
SOME = {"import", "offload"}
SAMPLE = 1

pytestmark = needs_strace


@dataclass(frozen=True)
class Scene:
    """A command's beginning on a disk, its end, and the points between at which the power may fail."""

    command: Command
    disk: Disk
    origin: Path
    before: State
    after: State
    points: Sequence[tuple[str, int]]

    def cut_at(self, call: str, number: int) -> None:
        """Stop the command before that call and cut the power; then let it begin again."""
        self.disk.fill(self.origin)
        stopped = run(
            self.disk.folder,
            *self.command.words,
            tracer=injecting(f"{call}:signal=KILL:when={number}", *self.command.always),
        )
        self.disk.cut()
        told = f"{self.command.name} on {self.disk.kind}, {call} {number}: exit {stopped.returncode}"
        assert problems(self.disk.folder, self.before, self.after) == [], told
        if stopped.returncode == 0:
            # Threads have not always the same share of the work.
            self.assert_done(told)
        again = run(self.disk.folder, *self.command.words)
        assert again.returncode == 0 or (self.command.once and again.returncode == NOTHING_LEFT), (
            f"{told}\nand then {again.returncode}: {again.stderr}"
        )
        assert State.of(self.disk.folder) == self.after, f"{told}\nand then {again.returncode}: {again.stderr}"

    def assert_done(self, told: str) -> None:
        left = State.of(self.disk.folder)
        assert left == self.after, told
        assert left.contents >= self.before.contents & self.after.contents, told


@pytest.fixture(scope="module", params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with mounted_disk(request.param, tmp_path_factory.mktemp(request.param)) as disk:
        yield disk


@pytest.fixture(scope="module", params=[c for c in ON_ANY_DISK if TORTURE or c.name in SOME], ids=lambda c: c.name)
def scene(request: pytest.FixtureRequest, disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    command: Command = request.param
    place = tmp_path_factory.mktemp(command.name)
    origin, log = place / "origin", place / "log"
    origin.mkdir()
    command.prepare(origin)
    disk.fill(origin)
    done = run(disk.folder, *command.words, tracer=recording(log, injections=command.always))
    assert done.returncode == 0, done.stderr
    taken = called(command.always)
    found = [point for point in points(log, disk.folder) if point[0] in MUTATING and point[0] not in taken]
    return Scene(command, disk, origin, State.of(origin), State.of(disk.folder), found)


def test_what_a_command_says_is_done_outlives_a_power_cut(scene: Scene) -> None:
    scene.disk.fill(scene.origin)
    done = run(scene.disk.folder, *scene.command.words)
    scene.disk.cut()
    assert done.returncode == 0, done.stderr
    scene.assert_done(f"{scene.command.name} on {scene.disk.kind}, when it had ended")


def test_a_command_whose_power_is_cut_loses_nothing_and_goes_on(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    assert scene.points
    chosen = some(scene.points, SAMPLE, f"{scene.command.name} {scene.disk.kind}")
    record_property("cuts", len(chosen))
    for call, number in chosen:
        scene.cut_at(call, number)
