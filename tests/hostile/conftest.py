"""Give each row a folder, in memory if possible, because there are thousands and most of them sync."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = "/dev/shm"  # noqa: S108 - only if everybody's folder in memory is there


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In place of pytest's own, which looks through all the folders it made before whenever it makes one."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="hostile-", dir=place, ignore_cleanup_errors=True) as name:
        yield Path(name)
