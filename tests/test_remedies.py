"""Every remedy that ostore prints is carried out on the store that it was printed for, and does what it says."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import ostore
from ostore.formats.remedy import Remedy
from ostore.places.store.receiving import publication
from ostore.places.store.survey import scan
from tests.remedies.carrying import Carrying, Holding, judge
from tests.remedies.situations import Situation, later, situations
from tests.test_doctor import OF_THE_MACHINE

SITUATIONS = situations()
# Nothing is wrong after these commands have run; they are there to look again.
LOOKING = ("doctor", "where", "list")
# What a remedy says first if time has to pass.
WAITS = ("in a minute", "in a day", "in a week", "once its time is over")


@pytest.fixture(autouse=True)
def _nobody_else_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a server that may be writing would wait in vain here, a thousand times."""
    monkeypatch.setattr(publication, "_SETTLE_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(scan, "_RETRY_SECONDS", 0.0)


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


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
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
