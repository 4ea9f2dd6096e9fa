"""Every reader takes any bytes. It reads them or refuses them with its own error, quickly and in little memory."""

from __future__ import annotations

import random
import time

import pytest

from tests.support import TORTURE
from tests.torture.fuzz.attempt import MAX_SECONDS, attempt, mutated
from tests.torture.fuzz.targets import TARGETS, Target

# `make fuzz` is the long form.
MUTATIONS = 100_000 if TORTURE else 400

each_target = pytest.mark.parametrize("name", TARGETS)


@each_target
def test_a_target_reads_at_least_one_of_its_seeds(name: str) -> None:
    assert True in [attempt(TARGETS[name], seed) for seed in TARGETS[name].seeds()]


@each_target
def test_mutated_input_is_read_or_refused(name: str) -> None:
    seeds, chance = TARGETS[name].seeds(), random.Random(name)
    for number in range(MUTATIONS):
        data = mutated(seeds, chance)
        try:
            attempt(TARGETS[name], data)
        except Exception as error:
            error.add_note(f"input {number} of {name}: {data!r}")
            raise


def test_a_target_that_crashes_or_dawdles_is_noticed() -> None:
    def crash(data: bytes) -> None:
        raise KeyError(data)

    def dawdle(data: bytes) -> None:
        started = time.process_time()
        while time.process_time() - started < 1.1 * MAX_SECONDS:
            pass

    with pytest.raises(KeyError):
        attempt(Target(crash, list), b"")
    with pytest.raises(TimeoutError):
        attempt(Target(dawdle, list), b"")
