"""Every command judges an odd entry as the table in docs/store.md says: each cell, and its dry run."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from ostore.cli.main import run as in_process
from tests.odd_stores import ODD_STORES, OTHER_WEIGHTS, WEIGHTS, OddStore, closed_folder, manifest, odd_model
from tests.support import Store, as_user, nobody_else_writes, tree

pytestmark = nobody_else_writes
DOCUMENT = Path(__file__).parent.parent / "docs" / "store.md"
GOOD = "good:latest"
# The arguments of each column. `{odd}` is the odd model; {store}, {new} and {source} are paths.
COMMANDS: dict[str, tuple[str, ...]] = {
    "list": ("list", "--models", "{store}"),
    "show odd": ("show", "{odd}", "--models", "{store}"),
    "verify": ("verify", "--models", "{store}"),
    "doctor": ("doctor", "--models", "{store}"),
    "export odd": ("export", "{odd}", "{new}.tar", "--models", "{store}"),
    "export --all": ("export", "--all", "{new}.tar", "--models", "{store}"),
    "import DIR": ("import", "{store}", "--models", "{new}"),
    "cp odd": ("cp", "{odd}", "copied", "--models", "{store}"),
    "rm odd": ("rm", "{odd}", "--yes", "--models", "{store}"),
    "move": ("move", "{new}", "--yes", "--models", "{store}"),
    "gc": ("gc", "--yes", "--models", "{store}"),
    "du": ("du", "--models", "{store}"),
    "repair": ("repair", "--from", "{source}", "--models", "{store}"),
}
DRY = frozenset({"export odd", "export --all", "import DIR", "cp odd", "rm odd", "move", "gc", "repair"})
# What is whole goes on without the odd model.
LENIENT = frozenset({"export --all", "import DIR"})
# Only hashing tells.
UNSEEN = {("a blob that was altered", command) for command in ("export odd", "export --all", "import DIR", "move")}


class Cell(NamedTuple):
    """A cell of the document. Its `kind` is x (refused), L (left out) or empty."""

    entry: str
    command: str
    text: str

    @property
    def kind(self) -> str:
        return self.text[:1] if self.text[:1] in {"x", "L"} else ""

    @property
    def code(self) -> int:
        return int(re.findall(r"\d+", self.text)[0])


def table() -> Iterator[Cell]:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    header = next(line for line in lines if line.startswith("| entry | list"))
    columns = [cell.strip() for cell in header.strip("|").split(" | ")][1:]
    for line in lines:
        entry, *cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if len(cells) == len(columns) and entry != "entry" and not entry.startswith("-"):
            yield from (Cell(entry, column.strip(), cell) for column, cell in zip(columns, cells, strict=True))


CELLS = [
    pytest.param(cell, number, id=f"{cell.entry} {number}, {cell.command}")
    for cell in table()
    for number in range(len(ODD_STORES[cell.entry]))
    if cell.text
]


class World:
    """An odd store with a whole model beside it, and a source that has good copies of both."""

    def __init__(self, folder: Path, odd: OddStore) -> None:
        self.store = Store(folder / "models")
        self.store.model(GOOD, b"good weights " * 50, template=b"good")
        odd.make(self.store)
        self.odd = odd
        self.folder = folder
        self.source = folder / "source"

    def arguments(self, command: str) -> list[str]:
        paths = {
            "store": self.store.root,
            "new": self.folder / "new",
            "source": self.source,
            "odd": self.odd.odd or "odd",
        }
        return [word.format(**paths) for word in COMMANDS[command]]


def with_source(world: World) -> World:
    """Good copies of every model: what each row has made odd is whole here."""
    good = Store(world.source)
    good.model(GOOD, b"good weights " * 50, template=b"good")
    odd_model(good)
    good.model("two:latest", OTHER_WEIGHTS)
    good.blob(WEIGHTS)
    return world


Outcome = tuple[int, str, str]


def outcome_of(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Outcome:
    code = in_process(arguments)
    told = capsys.readouterr()
    return code, told.out, told.err


def judge(cell: Cell, world: World, outcome: Outcome, before: dict[str, str]) -> None:
    code, out, err = outcome
    command, kind = cell.command, cell.kind
    told = f"\n{out}\n{err}"
    assert code == cell.code, told
    warned = [line for line in err.splitlines() if line.startswith("ostore: warning: ")]
    if cell.text.endswith("w") or kind == "L":
        assert any(world.odd.named.lower() in line.lower() for line in warned), told
    elif not kind:
        assert warned == [], told
    if kind == "x" and command not in {"verify", "doctor", "repair"}:
        assert "error[" in err, told
        assert tree(world.store.root) == before
        # What an interrupted move has brought waits there for the next one.
        assert command == "move" or not (world.folder / "new").exists()
        assert not (world.folder / "new.tar").exists()
    if kind == "L":
        assert GOOD in out or "1 model" in out, told


@pytest.mark.parametrize(("cell", "number"), CELLS)
def test_each_cell_is_as_documented_and_its_dry_run_agrees(
    cell: Cell, number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, command = ODD_STORES[cell.entry][number], cell.command
    if odd.make is closed_folder:
        pytest.skip("root may read every folder: the next test has another user")
    world = World(tmp_path, odd)
    if command == "repair":
        with_source(world)
    before = tree(world.store.root)
    arguments = world.arguments(command)
    if command in DRY:
        dry = outcome_of([*arguments, "--dry-run"], capsys)
        assert tree(world.store.root) == before
        assert not (tmp_path / "new").exists()
        assert dry[0] == (0 if (cell.entry, command) in UNSEEN else cell.code), dry
    judge(cell, world, outcome_of(arguments, capsys), before)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="changes to another user")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_we_may_not_read_is_judged_as_documented(command: str) -> None:
    """By another user and as programs, because root may read everything."""
    entry = "a folder of manifests that we may not read"
    (cell,) = (cell for cell in table() if (cell.entry, cell.command) == (entry, command))
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        world = with_source(World(Path(name), ODD_STORES[entry][0]))
        for path in (Path(name), *Path(name).rglob("*")):
            os.chown(path, 12345, 12345, follow_symlinks=False)
        os.chown(manifest(world.store).parent, 0, 0)
        before = tree(world.store.root)
        done = as_user(12345, *world.arguments(command))
        judge(cell, world, (done.returncode, done.stdout, done.stderr), before)
        if command in {"show odd", "export odd", "cp odd", "rm odd"}:
            arguments = [GOOD if word == "odd" else word for word in world.arguments(command)]
            assert as_user(12345, *arguments).returncode == 0


def test_every_row_and_column_of_the_document_is_tested() -> None:
    assert {cell.entry for cell in table()} == set(ODD_STORES)
    assert {cell.command for cell in table()} == set(COMMANDS)
