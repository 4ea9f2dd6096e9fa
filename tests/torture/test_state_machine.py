"""
Do anything to a store, in any order and for days. After each step it is exactly what a plain model says.

Everything is real but the clock, because gc depends on ctime, which nobody can set, and on days, for which nobody can
wait.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import ostore
from ostore.api import gc, rm
from ostore.places.store.receiving import publication
from ostore.places.store.survey import scan
from ostore.places.store.survey.census import DiskFacts
from tests.support import TORTURE, Store
from tests.torture.belief import BROKEN, DAY, HOUR, WEEK, Belief, Cargo, Clock, Sweep, Version, blob_names, is_whole
from tests.torture.belief import versions as published
from tests.torture.damages import path_of, short

EXAMPLES, STEPS = (2500, 40) if TORTURE else (30, 25)
# The times of files are as coarse as the kernel's tick, at most 10 ms.
_TICK_SECONDS = 0.02
_Item = TypeVar("_Item")

draws = st.data()
flags = st.booleans()


class AnyHistory(RuleBasedStateMachine):
    """One store and what befalls it. `folder`, `versions` and `prepared` bundles are set by the test."""

    folder: Path
    versions: list[Version]
    prepared: list[Cargo]

    def __init__(self) -> None:
        super().__init__()
        self.place = self.folder / "one"
        self.root = self.place / "models"
        (self.root / "blobs").mkdir(parents=True)
        (self.root / "manifests").mkdir()
        self.belief = Belief()
        self.clock = Clock(time.time)
        self.cargos = list(self.prepared)
        self.kept: set[Path] = set()
        self.sees_ollama = False
        self.patches = pytest.MonkeyPatch()
        self._double_the_clock()

    def _double_the_clock(self) -> None:
        """Both ends of an age: what time it is, and what time it was when the disk says that a file was written."""
        of, clock = DiskFacts.of, self.clock

        def shown(_: type[DiskFacts], status: os.stat_result) -> DiskFacts:
            facts = of(status)
            return facts._replace(mtime=clock.shown(facts.mtime), ctime=clock.shown(facts.ctime))

        self.patches.setattr(DiskFacts, "of", classmethod(shown))
        for module in (gc, rm):
            self.patches.setattr(module, "time", SimpleNamespace(time=clock.now))
        # Whether there is a server is drawn, not looked up: other tests may run one just now.
        self.patches.setattr(gc, "sees_ollama", lambda: self.sees_ollama)
        # Nobody else writes here, so nothing is waited for.
        self.patches.setattr(publication, "_SETTLE_SECONDS", (0.0,))
        self.patches.setattr(scan, "_RETRY_SECONDS", 0.0)

    def teardown(self) -> None:
        self.patches.undo()
        shutil.rmtree(self.place)

    @initialize(draw=draws)
    def begin(self, draw: st.DataObject) -> None:
        """Some models, some orphans, a download; and then a night, so that there is something to do for everybody."""
        for version in draw.draw(st.lists(st.sampled_from(self.versions), max_size=3)):
            self._write_blobs(version, touch=False)
            self._write_manifest(version)
        orphaned, pulled = self._any(draw, self.versions), self._any(draw, self.versions)
        self._write_blobs(orphaned, touch=False)
        if draw.draw(flags):
            self._advance(2 * DAY)
        self._pull_half(pulled)
        self._advance(draw.draw(st.sampled_from((2 * HOUR, 25 * HOUR))))

    # What Ollama does.

    @rule(draw=draws)
    def create(self, draw: st.DataObject) -> None:
        version = self._any(draw, self.versions)
        self._write_blobs(version, touch=True)
        self._write_manifest(version)

    @rule(draw=draws)
    def pull_half(self, draw: st.DataObject) -> None:
        self._pull_half(self._any(draw, self.versions))

    @precondition(lambda self: any("partial" in name for name in self.belief.files))
    @rule(draw=draws)
    def pull_more(self, draw: st.DataObject) -> None:
        name = self._any(draw, sorted(name for name in self.belief.files if name.endswith("-partial")))
        self._write_file(name, self.belief.files[name] + b", and a little more")

    @rule(draw=draws)
    def pull_to_the_end(self, draw: st.DataObject) -> None:
        version = self._any(draw, self.versions)
        for name in [name for name in self.belief.files if name.partition("-partial")[0] in version.blobs]:
            if "partial" in name:
                (self.root / "blobs" / name).unlink()
                self.belief.drop([name])
        self._write_blobs(version, touch=False)
        self._write_manifest(version)

    @precondition(lambda self: any(batch for _, batch in self.belief.trash))
    @rule(draw=draws)
    def a_manifest_comes_too_late(self, draw: st.DataObject) -> None:
        """A pull had found a blob there, and gc took it just before the manifest was written."""
        kept = {name for _, batch in self.belief.trash for name in batch}
        if concerned := [version for version in self.versions if kept & version.blobs.keys()]:
            version = self._any(draw, concerned)
            self._write_blobs(version, touch=False, without=self._any(draw, sorted(kept & version.blobs.keys())))
            self._write_manifest(version)

    @precondition(lambda self: self.belief.models)
    @rule(draw=draws)
    def ollama_rm(self, draw: st.DataObject) -> None:
        name = self._any_model(draw)
        path = self.root / path_of(name)
        path.unlink()
        with contextlib.suppress(OSError):
            for folder in list(path.parents)[:3]:
                folder.rmdir()
        self._unlink_blobs(self.belief.lost_by(self.belief.models.pop(name)))

    # What a disk or a person does.

    @rule(seconds=st.sampled_from((20 * 60.0, 2 * HOUR, 25 * HOUR, 3 * DAY, WEEK + HOUR)))
    def time_passes(self, seconds: float) -> None:
        self._advance(seconds)

    @precondition(lambda self: self.belief.blobs)
    @rule(draw=draws, how=st.sampled_from(("flipped", "cut", "missing")))
    def blob_is_damaged(self, draw: st.DataObject, how: str) -> None:
        name = self._any(draw, self.belief.blobs)
        content = self.belief.files[name]
        if how == "missing" or not content:
            self._unlink_blobs({name})
        else:
            self._write_file(name, content[:-1] if how == "cut" else bytes([content[0] ^ 1]) + content[1:])

    @precondition(lambda self: self.belief.readable)
    @rule(draw=draws, raw=st.sampled_from(BROKEN))
    def manifest_is_damaged(self, draw: st.DataObject, raw: bytes) -> None:
        name = self._any(draw, sorted(self.belief.readable))
        (self.root / path_of(name)).write_bytes(raw)
        self.belief.models[name] = raw

    @precondition(lambda self: any(batch for _, batch in self.belief.trash))
    @rule(draw=draws)
    def what_is_kept_is_damaged(self, draw: st.DataObject) -> None:
        batches = [batch for _, batch in self.belief.trash if batch]
        folders = sorted({path.parent for path in (self.root / ".ostore/trash").rglob("sha256-*")})
        batch, folder = self._any(draw, list(zip(batches, folders, strict=True)))
        name = self._any(draw, sorted(batch))
        (folder / name).write_bytes(b"damaged")
        batch[name] = b"damaged"

    # What ostore does.

    @rule(draw=draws, replace=flags)
    def import_bundle(self, draw: st.DataObject, replace: bool) -> None:
        cargo = self._any(draw, self.cargos)
        others = [name for name, raw in cargo.models.items() if self.belief.readable.get(name, raw) != raw]
        began = self._moment()
        with self._refusal(ostore.UsageError if others and not replace else None):
            ostore.import_bundle(cargo.path, replace=replace, models=self.root)
            self.belief.models |= cargo.models
            self.belief.put(cargo.contents, began)

    @precondition(lambda self: self.belief.models)
    @rule(draw=draws)
    def export(self, draw: st.DataObject) -> None:
        names = draw.draw(st.lists(st.sampled_from(sorted(self.belief.models)), min_size=1, unique=True))
        chosen = {name: self.belief.models[name] for name in names}
        contents = {name: self.belief.files.get(name, b"") for name in blob_names(chosen.values())}
        path = self.place / f"{len(self.cargos)}.tar"
        damaged = not all(is_whole(name, content) for name, content in contents.items())
        refused = ostore.DamagedStoreError if set(BROKEN) & set(chosen.values()) else None
        with self._refusal(refused or (ostore.IntegrityError if damaged else None)):
            ostore.export(names, path, models=self.root)
            self.cargos.append(Cargo(path, chosen, contents))
        assert path.exists() == (path == self.cargos[-1].path)
        assert not list(self.place.glob("*.part"))

    @rule(
        grace=st.sampled_from((0.0, HOUR, DAY, 2 * DAY)),
        keep=st.sampled_from((None, HOUR, 2 * DAY)),
        partials=flags,
        without_models=flags,
        sees_ollama=flags,
    )
    def gc(self, grace: float, keep: float | None, partials: bool, without_models: bool, sees_ollama: bool) -> None:
        belief, self.sees_ollama = self.belief, sees_ollama
        # No two removals within a second: their folders in the trash are named by it.
        self._advance(2.0)
        patience = WEEK if sees_ollama else max(grace, DAY)
        foreseen = Sweep.foreseen(belief, self._times(), now=self.clock.now(), grace=grace, patience=patience)
        downloads = foreseen.downloads if partials else frozenset()
        refused = belief.is_doubtful or not (belief.readable or without_models or not belief.blobs)
        collect = functools.partial(
            ostore.gc, grace=grace, keep=keep, partials=partials, without_models=without_models, models=self.root
        )
        plan, error = None, ostore.DamagedStoreError if refused else None
        with self._refusal(error):
            plan = collect(dry_run=True)
        self.check_disk()
        belief.return_needed()
        with self._refusal(error):
            report = collect()
            assert report
            assert plan
            assert {blob.filename for blob in report.removed} == foreseen.blobs
            assert {blob.filename for blob in plan.removed} == foreseen.blobs
            assert plan.downloads == report.downloads
            taken = {name: belief.files[name] for name in foreseen.blobs}
            belief.drop(foreseen.blobs | downloads)
            if keep is not None and taken:
                belief.trash.append((self.clock.now() + keep, taken))
            belief.trash = [(until, batch) for until, batch in belief.trash if until > self.clock.now()]

    @rule()
    def gc_restore(self) -> None:
        began = self._moment()
        ostore.restore(models=self.root)
        self.belief.restore(began)

    @precondition(lambda self: self.belief.models)
    @rule(draw=draws)
    def rm(self, draw: st.DataObject) -> None:
        name = self._any_model(draw)
        self.belief.return_needed()
        plan = ostore.rm([name], dry_run=True, models=self.root)
        report = ostore.rm([name], models=self.root)
        assert plan
        assert report
        before = set(self.belief.files)
        self.belief.remove(name)
        assert {blob.filename for blob in report.removed} == before - self.belief.files.keys()
        assert {blob.filename for blob in plan.removed} <= before - self.belief.files.keys()

    @precondition(lambda self: self.belief.models)
    @rule(draw=draws, replace=flags)
    def cp(self, draw: st.DataObject, replace: bool) -> None:
        source = self._any_model(draw)
        target = self._any(draw, [*sorted({version.name for version in self.versions}), "hf.co/new/name:1"])
        raw, there = self.belief.models[source], self.belief.readable
        blobs = blob_names([raw])
        sizes = {name: len(content) for version in self.versions for name, content in version.blobs.items()}
        refused: type[Exception] | None = None
        if source not in there:
            refused = ostore.DamagedStoreError
        elif any(len(self.belief.files.get(name, b"")) != sizes[name] for name in blobs):
            refused = ostore.IntegrityError
        elif there.get(target, raw) != raw and not replace:
            refused = ostore.UsageError
        began = self._moment()
        with self._refusal(refused):
            ostore.cp(source, target, replace=replace, models=self.root)
            self.belief.models[target] = raw
            self.belief.rely(blobs, began)

    @rule(draw=draws)
    def repair(self, draw: st.DataObject) -> None:
        cargo = self._any(draw, self.cargos)
        began = self._moment()
        report = ostore.repair(sources=[cargo.path], models=self.root)
        self.belief.repair(cargo, began)
        assert (report.verdict == "whole") == (not self.belief.problems)

    # What must hold at any time.

    @invariant()
    def check_disk(self) -> None:
        """Every file outside of `.ostore` is what it must be, and so is what is kept in there."""
        files = {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in _files(self.root)
            if ".ostore" not in path.parts
        }
        blobs = {f"blobs/{name}": content for name, content in self.belief.files.items()}
        assert files == blobs | {path_of(name): raw for name, raw in self.belief.models.items()}
        own = set(_files(self.root / ".ostore"))
        trash = {path for path in own if path.name.startswith("sha256-") and "trash" in path.parts}
        kept = {path for path in own if path.parent.name == "quarantine"}
        records = {path for path in own if path.name == "kept.json"}
        assert own - trash - kept - records <= {self.root / ".ostore/lock"}
        expected = [(name, content) for _, batch in self.belief.trash for name, content in batch.items()]
        assert sorted((path.name, path.read_bytes()) for path in trash) == sorted(expected)
        assert self.kept <= kept
        self.kept = kept

    @invariant()
    def check_ages(self) -> None:
        """Nothing looks older than it is, to Ollama (by mtime) or to us, so that nothing goes too early."""
        times = self._times()
        assert {name for name, used in self.belief.used.items() if times[name][0] < used} == set()
        assert {name for name, back in self.belief.returned.items() if times[name][1] < back} == set()

    @invariant()
    def check_answers(self) -> None:
        (report,) = ostore.verify(jobs=1, models=self.root)
        assert {problem.subject for problem in report.problems} == self.belief.problems
        listed = {row.name for row in ostore.list_models(models=self.root).models}
        assert listed == {short(name) for name in self.belief.readable}

    # What these consist of.

    def _any(self, draw: st.DataObject, among: Sequence[_Item]) -> _Item:
        return draw.draw(st.sampled_from(among))

    def _any_model(self, draw: st.DataObject) -> str:
        return self._any(draw, sorted(self.belief.models))

    def _advance(self, seconds: float) -> None:
        time.sleep(_TICK_SECONDS)
        self.clock.advance(seconds)
        time.sleep(_TICK_SECONDS)

    def _moment(self) -> float:
        """No file that is written from now on looks older than that."""
        return self.clock.now() - _TICK_SECONDS

    def _refusal(self, error: type[Exception] | None) -> contextlib.AbstractContextManager[object]:
        """Within it, that error must come, or none."""
        return contextlib.nullcontext() if error is None else pytest.raises(error)

    def _times(self) -> dict[str, tuple[float, float]]:
        """Of each file in `blobs/`, on our clock: its mtime, and the later of that and its ctime."""
        found = {}
        for path in (self.root / "blobs").iterdir():
            status = path.lstat()
            mtime, ctime = self.clock.shown(status.st_mtime), self.clock.shown(status.st_ctime)
            found[path.name] = (mtime, max(mtime, ctime))
        return found

    def _write_file(self, name: str, content: bytes) -> None:
        self.belief.put({name: content}, self._moment())
        (self.root / "blobs" / name).write_bytes(content)

    def _write_blobs(self, version: Version, *, touch: bool, without: str = "") -> None:
        """As Ollama: what is there is taken for whole, and dated anew by create."""
        for name, content in version.blobs.items():
            if name not in self.belief.files and name != without:
                self._write_file(name, content)
            elif touch:
                self.belief.rely([name], self._moment())
                os.utime(self.root / "blobs" / name)

    def _pull_half(self, version: Version) -> None:
        lacking = [name for name in version.blobs if name not in self.belief.files]
        if lacking:
            self._write_blobs(version, touch=False, without=lacking[-1])
            for suffix in ("-partial", "-partial-0"):
                self._write_file(lacking[-1] + suffix, b"not all of it")

    def _write_manifest(self, version: Version) -> None:
        """As Ollama: in place, and what only the former one needed goes at once."""
        path = self.root / path_of(version.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(version.raw)
        former = self.belief.models.get(version.name, b"")
        self.belief.models[version.name] = version.raw
        self._unlink_blobs(self.belief.lost_by(former))

    def _unlink_blobs(self, names: set[str]) -> None:
        for name in names:
            (self.root / "blobs" / name).unlink()
        self.belief.drop(names)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_whatever_happens_to_a_store_in_any_order_nothing_is_lost(tmp_path: Path) -> None:
    versions = published(tmp_path / "published")
    bundles = []
    for number, chosen in enumerate((versions[::2], versions[1::2], versions[:1])):
        store = Store(tmp_path / f"source{number}")
        for version in chosen:
            store.write_manifest(version.name, version.raw)
            for content in version.blobs.values():
                store.blob(content)
        path = tmp_path / f"{number}.tar.zst"
        ostore.export(["*"], path, models=store.root)
        contents = {name: content for version in chosen for name, content in version.blobs.items()}
        bundles.append(Cargo(path, {version.name: version.raw for version in chosen}, contents))

    class Here(AnyHistory):
        folder = tmp_path

    Here.versions, Here.prepared = versions, bundles
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            # The same histories each time; a longer run has other ones besides.
            derandomize=True,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
