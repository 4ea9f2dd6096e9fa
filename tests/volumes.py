"""What tests of volumes and of their parity share."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ostore.places.bundle import volume_export
from ostore.streams import disks
from tests.support import Store, noise
from tests.support import ostore as run

SIZE = 20_000
NAME = "x.tar.zst"
needs_par2 = pytest.mark.skipif(
    shutil.which("par2") is None and importlib.util.find_spec("par2") is None, reason="par2 is not installed"
)


def volumes(media: Sequence[Path]) -> list[Path]:
    """The volumes in these folders, by number."""
    return sorted((path for folder in media for path in folder.glob("*.[0-9][0-9][0-9]")), key=lambda path: path.name)


def with_room(monkeypatch: pytest.MonkeyPatch, room_at: Callable[[Path], int]) -> None:
    """Let each disk say how much room it has. One of a given size, which others fill, cannot be made everywhere."""
    for module in (volume_export, disks):
        monkeypatch.setattr(module, "room_at", room_at)


def five_volumes(root: Path) -> Store:
    """A store whose bundle is some 93 kB: five volumes of SIZE."""
    store = Store(root)
    store.model("tiny:latest", noise(50_000), template=b"{{ .Prompt }}")
    store.model("other:q4", noise(20_000, 2), license=b"MIT")
    return store


def five_folders(place: Path) -> list[Path]:
    """Empty folders that stand for media."""
    folders = [place / name for name in "abcde"]
    for folder in folders:
        folder.mkdir()
    return folders


def imported(tmp_path: Path, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Import into the store `other` there; `code` is how that should end."""
    done = run("import", *words, "--models", tmp_path / "other")
    assert done.returncode == code, done.stderr
    return done
