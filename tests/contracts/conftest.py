"""What the contract suites have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.places import RUNNING


@pytest.fixture(autouse=True)
def _servers_end() -> Iterator[None]:
    """No server that a test has started runs after it."""
    yield
    RUNNING.close()
