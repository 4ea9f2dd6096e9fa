"""Every command that writes a file for a person keeps one rule: it replaces a regular file if asked, nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Store
from tests.support import ostore as run

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
# What a command writes, and the words that name the file.
WRITERS = {
    "a bundle": ("out.tar.zst", ("export", "tiny", "{}")),
    "a plain bundle": ("out.tar", ("export", "tiny", "{}")),
    "a page": ("out.html", ("du", "--html", "{}")),
}


def _link_to_file(path: Path) -> None:
    (path.parent / "theirs").write_text("theirs")
    path.symlink_to("theirs")


def _device(path: Path) -> None:
    # The numbers of /dev/full.
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))


KINDS: dict[str, Callable[[Path], None]] = {
    "a link to a file": _link_to_file,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to a folder": lambda path: path.symlink_to(path.parent),
    "a link to a device": lambda path: path.symlink_to("/dev/null"),
    "a FIFO": lambda path: os.mkfifo(path),  # noqa: PLW0108 - Windows has none
    "a device": pytest.param(_device, marks=pytest.mark.skipif(not IS_ROOT, reason="needs root")),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("name", "words"), WRITERS.values(), ids=WRITERS)
def test_replace_never_removes_what_is_no_regular_file(
    store: Store, tmp_path: Path, name: str, words: tuple[str, ...], make: Callable[[Path], None]
) -> None:
    target = tmp_path / "out" / name
    target.parent.mkdir()
    make(target)
    before = sorted((path.name, path.lstat().st_ino, path.lstat().st_mode) for path in target.parent.iterdir())
    for options in (["--replace"], []):
        done = run(*(word.format(target) for word in words), *options, "--models", store.root)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert f"{target}: not a regular file" in done.stderr
        after = sorted((path.name, path.lstat().st_ino, path.lstat().st_mode) for path in target.parent.iterdir())
        assert after == before


@pytest.mark.parametrize(("name", "words"), WRITERS.values(), ids=WRITERS)
def test_a_regular_file_is_replaced_only_when_asked(
    store: Store, tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    target = tmp_path / name
    target.write_text("mine")
    typed = [*(word.format(target) for word in words), "--models", str(store.root)]
    done = run(*typed)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ostore: error[usage]: {target}: exists (--replace overwrites it)\n"
    assert target.read_text() == "mine"
    assert run(*typed, "--replace").returncode == 0
    assert target.read_bytes() != b"mine"
