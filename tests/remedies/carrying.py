"""Carry a remedy out as a person would, and judge what it did to the store, without asking ostore about bytes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import ostore
from ostore.api import addresses  # noqa: F401 - now, because it would keep the replacement below for good
from ostore.cli.main import run
from ostore.formats.remedy import Remedy
from ostore.streams import terminal
from tests.remedies.ollama_double import OllamaDouble

PLACES = ("blobs", "manifests", "manifests-v2", ".ostore/quarantine", ".ostore/trash")


@dataclass
class Done:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def typed(arguments: Sequence[str]) -> Done:
    """Run ostore in this process, at a terminal where somebody answers yes."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "stdin", io.StringIO("y\n" * 10))
        patch.setattr(terminal, "is_terminal", lambda fd: fd == 0)
        code = run(list(arguments))
    return Done(code, out.getvalue(), err.getvalue())


@dataclass
class Carrying:
    """One store, the folder where a person types, and what the remedies' own dry runs said would be deleted."""

    root: Path
    folder: Path
    listed: set[str] = field(default_factory=set)
    ends: list[tuple[tuple[str, ...], int, str]] = field(default_factory=list)
    refused: str = ""

    def carry_out(self, remedy: Remedy) -> None:
        """Type every command of one way out. A test that lets time pass does so before."""
        for arguments in remedy.arguments("linux", is_root=True):
            words = arguments[arguments.index("ostore") :] if arguments[0] == "sudo" else arguments
            code, said = self._type(tuple(words))
            self.ends.append((tuple(words), code, said))
            self.refused = said or f"{words} ended with {code}" if code else ""
            if code:
                return

    def _type(self, words: tuple[str, ...]) -> tuple[int, str]:
        program, *arguments = words
        with contextlib.chdir(self.folder):
            if program == "ollama":
                return OllamaDouble(self.root, self.folder / "BUNDLE").run(arguments), ""
            if program == "ostore":
                self._ask_first(arguments)
                done = typed(arguments)
                return done.code, done.stderr
            ended = subprocess.run(words, check=False, capture_output=True, text=True)
            return ended.returncode, ended.stderr

    def _ask_first(self, arguments: list[str]) -> None:
        """Note what the dry run of a command that deletes lists."""
        if arguments[0] not in {"gc", "rm"} or "--restore" in arguments:
            return
        plan = json.loads(typed([*arguments, "--dry-run", "--json"]).stdout or "{}")
        self.listed |= {blob["digest"][7:] for blob in plan.get("removed", ())}
        self.listed |= {f"partial {download['digest'][7:]}" for download in plan.get("downloads", ())}
        names = plan.get("models", ())
        self.listed |= {f"model {name}" for name in names}
        if plan.get("leftovers") or plan.get("expired"):
            self.listed.add(".ostore")


@dataclass(frozen=True)
class Holding:
    """What a store holds: the hash of each file's bytes where blobs and manifests are, and where each lies."""

    where: dict[str, list[str]]
    problems: frozenset[tuple[str, str]]
    whole: dict[str, str]

    @classmethod
    def of(cls, root: Path) -> Holding:
        where: dict[str, list[str]] = {}
        for path in (path for path in _files(root) if not _is_side_file(path)):
            where.setdefault(_hash(path), []).append(path.relative_to(root).as_posix())
        problems, whole = _verified(root)
        return cls(where, problems, whole)


def _files(root: Path) -> Iterator[Path]:
    for place in PLACES:
        for folder, _, names in os.walk(root / place):
            # Beside its blobs, the trash has notes of its own.
            blobs = [name for name in names if place != ".ostore/trash" or name.startswith("sha256-")]
            yield from (path for name in blobs if (path := Path(folder) / name).is_file() and not path.is_symlink())


def _is_side_file(path: Path) -> bool:
    """What an operating system left is neither a blob nor a manifest."""
    begin = path.read_bytes()[:8]
    return (path.name.startswith("._") and begin[:4] == b"\0\5\x16\7") or begin == b"\0\0\0\1Bud1"


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _verified(root: Path) -> tuple[frozenset[tuple[str, str]], dict[str, str]]:
    try:
        (report,) = ostore.verify(models=root, jobs=1)
    except (ostore.OstoreError, OSError) as error:
        return frozenset({(type(error).__name__, "")}), {}
    problems = frozenset((problem.kind, problem.subject) for problem in report.problems)
    damaged = {name for problem in report.problems for name in (problem.subject, *problem.models)}
    rows = ostore.list_models(models=root).models
    return problems, {row.name: row.digest for row in rows if row.name not in damaged}


def everywhere(folder: Path) -> set[str]:
    """The hash of every file in a folder and below, also of what was set aside."""
    return {
        _hash(path)
        for place, _, names in os.walk(folder)
        for name in names
        if (path := Path(place) / name).is_file() and not path.is_symlink() and "BUNDLE" not in path.parts
    }


def judge(before: Holding, carrying: Carrying, remedy: Remedy) -> None:
    """Raises AssertionError if a byte has gone that no dry run had listed, or if `verify` is worse than before."""
    told = f"{remedy} {carrying.ends}"
    root = carrying.root
    if not root.exists():
        # It was renamed, as `mv` names it.
        root = Path(remedy.commands[0][-1]) / root.relative_to(remedy.commands[0][-2])
    left = everywhere(carrying.folder)
    for digest, paths in before.where.items():
        if digest not in left:
            assert all(_is_listed(path, digest, carrying, remedy) for path in paths), f"{paths} gone by {told}"
    after = Holding.of(root)
    assert after.problems <= before.problems, f"{set(after.problems - before.problems)} by {told}"
    if not any(line.startswith("model ") for line in carrying.listed):
        gone = {
            name
            for name, digest in before.whole.items()
            if name not in after.whole and digest not in after.whole.values()
        }
        assert not gone, f"{gone} gone by {told}"


def _is_listed(path: str, digest: str, carrying: Carrying, remedy: Remedy) -> bool:
    name = path.rpartition("/")[2]
    if path.startswith(".ostore/"):
        # A person was told to look at it first, or when its time is over.
        return bool(remedy.before) or ".ostore" in carrying.listed
    if path.startswith("manifests"):
        return any(line.startswith("model ") for line in carrying.listed)
    # A damaged blob is listed by its name.
    return digest in carrying.listed or name[7:71] in carrying.listed or f"partial {name[7:71]}" in carrying.listed
