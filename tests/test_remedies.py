"""Every remedy that ostore prints is carried out on the store that it was printed for, and does what it says."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ostore
from ostore.formats import remedy as remedies
from ostore.formats.remedy import Remedy
from ostore.formats.shell import in_order
from tests.remedies.carrying import Carrying, Holding, judge, typed
from tests.remedies.situations import Situation, situations
from tests.support import OSTORE, Store, later, nobody_else_writes, some
from tests.support import ostore as ostore_run
from tests.test_doctor import OF_THE_MACHINE, put

pytestmark = nobody_else_writes
pty = pytest.importorskip("pty")
PACKAGE = Path(ostore.__file__).parent
SITUATIONS = situations()
# Nothing is wrong after these commands have run; they are there to look again.
LOOKING = ("doctor", "where", "list")
# What a remedy says first if time has to pass.
WAITS = ("in a minute", "in a day", "in a week", "once its time is over")


def findings_of(root: Path) -> tuple[ostore.Finding, ...]:
    """What doctor finds in the store itself. A folder that is no store, or cannot be read at all, has no findings."""
    try:
        report = ostore.doctor(models=root)
    except (ostore.OstoreError, OSError):
        return ()
    return tuple(finding for finding in report.findings if finding.code not in OF_THE_MACHINE)


def ways_of(situation: Situation, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[tuple[ostore.Finding, Remedy]]:
    """Every way out that doctor prints for a situation."""
    for finding in findings_of(situation.make(folder, patch)):
        yield from ((finding, way) for way in finding.remedy.each() if way)


def copied(origin: Path, place: Path) -> None:
    subprocess.run(["rm", "-rf", place], check=True)
    subprocess.run(["cp", "-a", origin, place], check=True)


@pytest.mark.parametrize("situation", some(SITUATIONS, 150, "doctor"), ids=lambda situation: situation.name)
def test_what_doctor_prints_ends_what_it_was_printed_for_and_loses_nothing(
    situation: Situation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, origin = tmp_path / "place", tmp_path / "origin"
    place.mkdir()
    root = situation.make(place, monkeypatch)
    before, found = Holding.of(root), findings_of(root)
    subprocess.run(["cp", "-a", place, origin], check=True)
    for number, finding in enumerate(found):
        ways = [way for way in finding.remedy.each() if way.commands]
        told = []
        for way in ways:
            copied(origin, place)
            told.append(carried_out(finding, way, Carrying(root, place), before))
            if told[-1]:
                # It says that it cannot yet. A person begins with what is most severe.
                copied(origin, place)
                carrying = Carrying(root, place)
                for first in found[:number]:
                    carrying.carry_out(first.remedy)
                told[-1] = carried_out(finding, way, carrying, before)
        assert not told or not all(told), told


def carried_out(finding: ostore.Finding, way: Remedy, carrying: Carrying, before: Holding) -> str:
    """
    Carry one way out, and follow what is said then, if it only says to look again.

    Returns what the commands said if they refuse, or an empty text if the finding is gone. Raises AssertionError if
    they succeed and it is not gone, or if anything is lost.
    """
    with later(30 if any(word in way.before for word in WAITS) else 0):
        carrying.carry_out(way)
        judge(before, carrying, way)
        left = [again for again in findings_of(carrying.root) if _is_same(again, finding)]
        if left and way.commands[-1][1] in LOOKING and left[0].remedy.each()[0] != way:
            return carried_out(finding, left[0].remedy.each()[0], carrying, before)
    if left and carrying.refused:
        return f"{way}: {carrying.refused}"
    assert left == [], f"still there after {way}: {carrying.ends}"
    return ""


def _is_same(one: ostore.Finding, other: ostore.Finding) -> bool:
    # The subject of orphans is their number.
    return one.code == other.code and (one.subject == other.subject or one.code == "orphans")


def test_there_are_many_situations_and_few_remedies_that_only_a_person_can_carry_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: Counter[str] = Counter()
    for number, situation in enumerate(SITUATIONS):
        (tmp_path / f"{number}").mkdir()
        kinds.update(way.kind for _, way in ways_of(situation, tmp_path / f"{number}", monkeypatch))
    assert len(SITUATIONS) >= 150
    assert {"ostore", "ollama", "system"} <= kinds.keys()
    assert kinds["person"] <= kinds.total() / 10, kinds


# --- hints of errors -----------------------------------------------------------------------------------------------

# What people type at a store that has something odd. `odd` is the model in question.
FAILING = (
    ("export", "--all", "out/", "--strict"),
    ("export", "odd", "out.tar"),
    ("show", "odd"),
    ("cp", "odd", "copy"),
    ("gc", "--yes"),
    ("move", "DEST", "--yes"),
    ("import", "BUNDLE"),
    ("show", "nobody"),
)
OF_THE_TABLE = [situation for situation in SITUATIONS if situation.name.startswith("table: ")]


@pytest.mark.parametrize("situation", some(OF_THE_TABLE, 30, "hints"), ids=lambda situation: situation.name)
def test_what_an_error_hints_at_can_be_typed_and_loses_nothing(
    situation: Situation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, origin = tmp_path / "place", tmp_path / "origin"
    place.mkdir()
    root = situation.make(place, monkeypatch)
    before = Holding.of(root)
    subprocess.run(["cp", "-a", place, origin], check=True)
    for words in FAILING:
        copied(origin, place)
        monkeypatch.chdir(place)
        done = typed([*words, "--json", "--models", str(root)])
        told = [json.loads(line) for line in done.stderr.splitlines() if '"event": "error"' in line]
        for error in told:
            if error["remedy_arguments"]:
                assert in_order(error["remedy_arguments"], sys.platform) in error["hint"]
                carrying = Carrying(root, place)
                remedy = Remedy(tuple(map(tuple, error["remedy_arguments"])))
                carrying.carry_out(remedy)
                judge(before, carrying, remedy)
                assert all(code not in {1, 2} for _, code, _ in carrying.ends), carrying.ends


COMMAND = re.compile(
    r"(?<!`)\bostore "
    r"(completion|cp|dedup|doctor|du|export|gc|help|import|inspect|list|move|repair|rm|show|verify|where)\b"
)


def test_a_command_that_people_are_told_to_type_is_a_value_and_no_text() -> None:
    """Examples in a help, and what the code says of itself, are no remedies."""
    told = [f"{path}: {text}" for path in PACKAGE.rglob("*.py") for text in texts_of(ast.parse(path.read_text()))]
    assert [text for text in told if COMMAND.search(text)] == []


def texts_of(tree: ast.Module) -> Iterator[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    examples = [argument for call in calls if ast.unparse(call.func) == "examples" for argument in call.args]
    sentences = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in (*examples, *sentences):
            yield node.value


# --- this test itself ----------------------------------------------------------------------------------------------


DASHED, FOREIGN, SHORT = (
    "digest with a dash",
    "side file or foreign file in `blobs/` 1",
    "blob that has another size",
)
_COMMAND = remedies.command
# A situation, a finding of it, and a remedy that somebody might have written.
WRONG: dict[str, tuple[str, str, Callable[[Path, Remedy], Remedy]]] = {
    "ollama create over dashed digests": (DASHED, "digest-spelling", lambda *_: _COMMAND("ollama", "create", "odd")),
    "ollama pull over dashed digests": (DASHED, "digest-spelling", lambda *_: _COMMAND("ollama", "pull", "odd")),
    "ollama rm of dashed digests": (DASHED, "digest-spelling", lambda *_: _COMMAND("ollama", "rm", "odd")),
    "a wrong path": (FOREIGN, "blob-foreign", lambda root, _: _COMMAND("mv", "-n", root / "blobs/x", root / "x")),
    "a path that is not quoted": (
        "in an odd folder: manifest-unfit",
        "manifest-unfit",
        lambda _, right: Remedy(tuple(tuple(" ".join(words).split()) for words in right.commands)),
    ),
    "another store": (FOREIGN, "blob-foreign", lambda *_: remedies.ostore("gc", models="/nowhere")),
    "nothing at all": (FOREIGN, "blob-foreign", lambda root, _: remedies.ostore("verify", models=root)),
    "a blob that is deleted": (SHORT, "blob-size", lambda root, _: _COMMAND("sh", "-c", 'rm "$0"/blobs/*', root)),
    "a model that is deleted": (SHORT, "blob-size", lambda root, _: _COMMAND("rm", "-r", root / "manifests")),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_remedy_put_in_wrong_by_hand_is_caught(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about, code, wrong = WRONG[mistake]
    situation = next(situation for situation in SITUATIONS if about in situation.name)
    root = situation.make(tmp_path, monkeypatch)
    finding = next(finding for finding in findings_of(root) if finding.code == code)
    before = Holding.of(root)
    with pytest.raises(AssertionError):
        assert carried_out(finding, wrong(root, finding.remedy), Carrying(root, tmp_path), before) == ""


# --- as a person sees it -------------------------------------------------------------------------------------------

SHOWN = [
    situation
    for situation in SITUATIONS
    # Time has to pass for others.
    if situation.name.startswith(("odd word", "doctor, in an odd folder")) and "trash" not in situation.name
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("situation", some(SHOWN, 6, "shown"), ids=lambda situation: situation.name)
def test_the_line_that_is_printed_can_be_pasted_into_a_shell(
    situation: Situation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = situation.make(tmp_path, monkeypatch)
    before = Holding.of(root)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in (("ostore", shlex.join(OSTORE)), ("sudo", "env")):
        (programs / name).write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        (programs / name).chmod(0o755)
    shown = ostore_run("doctor", "--models", root)
    lines = [line.strip()[3:] for line in shown.stdout.splitlines() if line.strip().startswith("-> ")]
    found = findings_of(root)
    assert all(any(line == str(finding.remedy) for line in lines) for finding in found[:3] if finding.remedy)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    for finding in found:
        first = finding.remedy.each()[0]
        if first.kind in {"ostore", "system"}:
            pasted = first.text("linux").removeprefix(f"{first.before}: ").removesuffix(first.after)
            ended, said = pasted_at_a_terminal(pasted, tmp_path, environment)
            assert "syntax error" not in said
            assert "command not found" not in said
            judge(before, Carrying(root, tmp_path, ends=[((pasted,), ended, said)]), first)
    assert not {(finding.code, finding.subject) for finding in findings_of(root)} & {
        (finding.code, finding.subject) for finding in found if finding.remedy.kind in {"ostore", "system"}
    }


def pasted_at_a_terminal(line: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a line where somebody answers yes to one question. Returns the exit code and standard error."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"y\n")
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, stdin=theirs, capture_output=True, text=True, check=False
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr


def test_findings_of_a_kind_share_a_line_only_if_it_is_right_for_each(store: Store) -> None:
    for name in ("one", "two"):
        put(store, f"blobs/{name}")
    put(store, "manifests/registry.ollama.ai/library/tiny/.stray")
    put(store, "manifests/registry.ollama.ai/library/tiny/.other")
    shown = ostore_run("doctor", "--models", store.root).stdout
    assert f"mv -n {store.root}/blobs/one " in shown
    assert f"mv -n {store.root}/blobs/two " in shown
    assert shown.count("-> ostore doctor --fix") == 1
