"""What `make test` takes of the faults that `make torture` puts into every command."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.support import TORTURE, some

OTHERS = 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of all tests, run for each command the one that kills it, and another, not the same for each."""
    if TORTURE or [Path(argument).name for argument in config.args] != ["tests"]:
        return
    by_command: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
        if item.path.name == "test_faults.py" and "scene" in parameters and parameters.get("fault") != "killed":
            by_command[parameters["scene"].name].append(item)
    left: list[pytest.Item] = []
    for command, others in by_command.items():
        taken = some(sorted(item.name for item in others), OTHERS, command)
        left += [item for item in others if item.name not in taken]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)
