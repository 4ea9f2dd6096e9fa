"""Read the documents, and type their commands as a person would. `test_documents` and `test_guides` share it."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "docs/tutorial.md"
HOW_TO = sorted((ROOT / "docs/how-to").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Stands between what two commands print. No text of ours has it.
_MARK = "\x1e"
_PROGRESS = re.compile(
    r"^(asking the (registry|server)|copying|exporting|importing|making parity|publishing|pulling|pulling manifests|"
    r"pushing|reading back|removing|repairing|repairing volumes|taking in weights|waiting for a word of model .+|"
    r"verifying sha256 "
    r"digest)(: .*)?\n",
    re.MULTILINE,
)
# What is not the same twice, or not for every reader.
_MASKS = (
    (r"\b[0-9a-f]{12,64}\b", "ID"),
    (r"\b[0-9]+(\.[0-9]+)? [kKMGT]?B\b", "SIZE"),
    (r"\b[0-9]+\.[0-9]+ s\b", "TIME"),
    (r"(Less than a second|About a minute|[0-9]+ \w+) ago", "AGE"),
    (r" +", " "),
)


@dataclass(frozen=True)
class Step:
    """A command, the exit code that a comment `# exit N` announces, and what it prints, if the document shows it."""

    line: str
    code: int
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str

    @property
    def steps(self) -> list[Step]:
        """What is typed: `$ ` begins a command, and the lines after it are what it prints."""
        assert self.text.startswith("$ ")
        typed = [piece.splitlines() for piece in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]]
        parts = [(line.partition("# exit "), shown) for line, *shown in typed]
        return [Step(line.rstrip(), int(code or 0), tuple(shown)) for (line, _, code), shown in parts]


def blocks_in(text: str) -> tuple[Block, ...]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return tuple(Block(*block) for block in found)


@functools.cache
def blocks(document: Path) -> tuple[Block, ...]:
    return blocks_in(document.read_text("utf-8"))


def steps_in(text: str) -> list[Step]:
    return [step for block in blocks_in(text) if block.language == "console" for step in block.steps]


def having(language: str, documents: Sequence[Path] = DOCUMENTS) -> list[Path]:
    return [document for document in documents if any(block.language == language for block in blocks(document))]


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def path_with_ostore() -> str:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    assert shutil.which("ostore", path=path), f"{sys.executable}: ostore is not installed beside it"
    return path


def type_all(
    steps: Sequence[Step],
    *,
    folder: Path,
    environment: Mapping[str, str],
    inside: Sequence[str | Path] = (),
    places: Mapping[str, str] | None = None,
) -> None:
    """
    Type commands into one shell, and compare how each ends, and what it prints, with the document.

    `inside` is a command that starts the shell somewhere else. `places` are paths of the document, and what stands for
    each of them here. Lines of progress do not count: they are gone from a terminal when a command ends.
    """
    for named, here in (places or {}).items():
        steps = [
            Step(step.line.replace(named, here), step.code, tuple(line.replace(named, here) for line in step.shown))
            for step in steps
        ]
    script = "exec 2>&1\n" + "".join(f"{step.line}\nprintf '{_MARK}%d{_MARK}' $?\n" for step in steps)
    done = subprocess.run(
        [*inside, "bash", "-o", "pipefail", "-c", script],
        cwd=folder,
        # Else lines come in another order than on a terminal.
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    printed = done.stdout.split(_MARK)
    assert len(printed) == 2 * len(steps) + 1, done.stdout + done.stderr
    for step, text, code in zip(steps, printed[::2], printed[1::2], strict=False):
        said = _PROGRESS.sub("", text)
        assert int(code) == step.code, f"$ {step.line}\n{said}"
        assert "Traceback" not in said
        assert not step.shown or _is_as_shown(step.shown, said), f"$ {step.line}\n{said}"


def _is_as_shown(shown: Sequence[str], printed: str) -> bool:
    """Whether this was printed. `…` stands for anything in a line, or alone for any lines."""
    lines = (re.escape(_masked(line)).replace("…", ".*") + "\n" for line in shown)
    pattern = "".join("(?:.*\n)*?" if line == ".*\n" else line for line in lines)
    return re.fullmatch(pattern, "".join(f"{_masked(line)}\n" for line in printed.splitlines())) is not None


def _masked(line: str) -> str:
    for pattern, name in _MASKS:
        line = re.sub(pattern, name, line)
    return line.rstrip()
