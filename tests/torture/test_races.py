"""Run several commands and doubles of Ollama in one store at once: at every instant, what is listed is whole."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import OSTORE, TORTURE, Store, noise
from tests.torture.commands import NO_GRACE, ORPHAN, OTHER, SHARED, WEIGHTS, a_store, run, undisturbed, with_a_gguf
from tests.torture.judge import State, output_problems
from tests.torture.tracing import needs_strace

# `make torture` runs every race often, `make test` some of them once.
RUNS = 28 if TORTURE else 1
HERE = Path(__file__).parent
PLAIN = (sys.executable, "-I", "-S")
# What is slowed down, so that others come in between: by at most so many milliseconds, at every call.
SLOW = {"renameat": 60, "linkat": 40, "unlinkat": 40, "fsync": 30, "flock": 200, "mkdirat": 40, "getdents64": 4}
# How long after the last manifest an import looks for blobs that went: docs/threats.md, step 12.
SETTLING = 0.3
# What an import makes before it looks at the store's blobs.
STAGING = "models/.ostore/tx/*"
TINY, TINY_Q4 = (f"registry.ollama.ai/library/tiny/{tag}" for tag in ("latest", "q4"))
COPY, MINE = "registry.ollama.ai/library/copy/new", "registry.ollama.ai/someone/mine/latest"
NAMES = (TINY, TINY_Q4, COPY, MINE)


@dataclass(frozen=True)
class Racer:
    """
    Somebody who takes part: ostore, or a double with a longest pause.

    An `endless` one goes on to the end. One that waits `until` there is such a file begins soon afterwards, others
    when they like. `slow` are calls that always take their time.
    """

    words: tuple[str, ...]
    codes: frozenset[int] = frozenset({0})
    longest: float | None = None
    endless: bool = False
    until: str | None = None
    slow: frozenset[str] = frozenset()

    @property
    def is_ours(self) -> bool:
        return self.longest is None

    def argv(self, chance: random.Random) -> list[str]:
        if self.longest is not None:
            return [
                *PLAIN,
                str(HERE / "emulators.py"),
                self.words[0],
                str(chance.random()),
                str(self.longest),
                *self.words[1:],
            ]
        return [*_slowed(chance, self.slow), *OSTORE, *self.words]

    def delay(self, chance: random.Random) -> float:
        """When it begins, in seconds; a double has begun at once, ostore takes a while to get where it matters."""
        if self.until:
            return chance.uniform(0, 0.2)
        return chance.uniform(0, 0.3) if self.is_ours else chance.uniform(0.1, 0.7)


def _slowed(chance: random.Random, always: frozenset[str]) -> tuple[str, ...]:
    """Words before a command that let some of its calls take their time; none, now and then."""
    slow = sorted(always.union(chance.sample(sorted(SLOW), chance.randrange(4))))
    if not slow:
        return ()
    words = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={','.join(slow)}"]
    for call in slow:
        words += ["-e", f"inject={call}:delay_enter={chance.randrange(1000 * SLOW[call])}"]
    return tuple(words)


@dataclass(frozen=True)
class Ended:
    """How somebody came out of a race, and when."""

    code: int
    out: str
    err: str
    time: float

    @property
    def steps(self) -> list[dict[str, Any]]:
        """What a double told of itself."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Run:
    """A race that is over: where, who came out how, what the watcher saw, what is there now."""

    folder: Path
    ended: Sequence[Ended]
    seen: Sequence[Mapping[str, Any]]
    state: State

    def lists(self, name: str) -> bool:
        return f"models/manifests/{name}" in self.state.files

    def has(self, data: bytes) -> bool:
        return (Store(self.folder / "models").blob_path(data)).exists()

    def lost(self, digest: str) -> list[float]:
        """When doubles removed a blob."""
        steps = [step for ended in self.ended if ended.out.startswith('{"time"') for step in ended.steps]
        return [step["time"] for step in steps if step["did"] == "removed" and step["what"] == digest]


Check = Callable[[Run], list[str]]


def nothing_more(_: Run) -> list[str]:
    return []


def nothing_is_broken(run_: Run) -> list[str]:
    """The rule: at no instant was anything listed that is not whole, and nothing is now."""
    return [*map(str, run_.seen), *map(str, run_.state.broken)]


@dataclass(frozen=True)
class Race:
    """
    Who races in which scene. `check` finds what is wrong beyond the general checks. `whole` replaces the rule that no
    model is ever seen broken. `in_place` are manifests that a double writes in place: half of one is no fault.
    Files of the scene are at least `age` seconds old.
    """

    name: str
    prepare: Callable[[Path], object]
    racers: tuple[Racer, ...]
    check: Check = nothing_more
    whole: Check = nothing_is_broken
    in_place: tuple[str, ...] = ()
    age: float = 0.0
    keeps_trash: bool = False
    names: tuple[str, ...] = field(default=NAMES)


def _names(run_: Run) -> set[str]:
    return {name for name in NAMES if run_.lists(name)}


def lists(*names: str) -> Check:
    """Exactly these models are there afterwards, and that of somebody else."""
    return lambda run_: [] if _names(run_) == {*names, MINE} else [f"listed: {sorted(_names(run_))}"]


def lists_at_least(*names: str) -> Check:
    return lambda run_: [] if _names(run_) >= {*names, MINE} else [f"listed: {sorted(_names(run_))}"]


# The scenes ------------------------------------------------------------------


def bundles_and_half_a_store(folder: Path) -> None:
    """
    Bundles of two models that share a blob, one each and one of both, and one with another model of the first name.

    Then the store without them: of their blobs one is there, one damaged, one missing; and two that nobody needs.
    """
    store = a_store(folder)
    undisturbed(folder, "export", "tiny:latest", "tiny:q4", "both.tar.zst")
    undisturbed(folder, "export", "tiny:latest", "latest.tar.zst")
    undisturbed(folder, "export", "tiny:q4", "q4.tar.zst")
    store.model("tiny:latest", b"another model of that name" * 2000, template=SHARED)
    undisturbed(folder, "export", "tiny:latest", "other.tar.zst")
    shutil.copytree(folder / "models", folder / "registry")
    shutil.rmtree(folder / "models")
    mine = Store(folder / "models")
    mine.model("registry.ollama.ai/someone/mine:latest", b"my own weights", system=b"keep me")
    mine.blob(SHARED)
    mine.blob(ORPHAN)
    mine.blob(WEIGHTS)
    mine.blob_path(OTHER).write_bytes(b"x" * len(OTHER))
    mine.blob_path(b"another orphan").write_bytes(b"another orphan")


def the_same_with_one_model(folder: Path) -> None:
    """The same store, but that one model is there, with a blob that the other needs as well."""
    bundles_and_half_a_store(folder)
    mine = Store(folder / "models")
    mine.model("tiny:latest", WEIGHTS, template=SHARED)


def the_same_but_old(folder: Path) -> None:
    """The same store, its orphans older than any grace by the time that Ollama looks at."""
    bundles_and_half_a_store(folder)
    for path in (folder / "models" / "blobs").iterdir():
        os.utime(path, (0, 0))


def a_store_and_a_registry(folder: Path) -> None:
    """Two models, orphans, and a place that has another model of the second name, some of whose blobs are orphans."""
    store = a_store(folder)
    there = Store(folder / "registry")
    there.model("copy:new", ORPHAN, template=SHARED, system=noise(130_000, 15), license=b"an orphan that is needed")
    store.blob(ORPHAN)
    store.blob(b"an orphan that is needed")
    store.blob(b"an orphan that nobody needs")


def a_store_to_build_on(folder: Path) -> None:
    """A file of weights and orphans; the first model is made of that file, and a Modelfile builds on it."""
    with_a_gguf(folder)
    undisturbed(folder, "create", "tiny:latest", "m.gguf", "--replace")
    (folder / "Modelfile").write_text("FROM tiny:latest\nSYSTEM bye\n")


# What is promised besides ----------------------------------------------------


def deduplicated(run_: Run) -> list[str]:
    """Both imports succeeded, and the store is that of one."""
    return lists(TINY, TINY_Q4)(run_)


def at_least_one_won(run_: Run) -> list[str]:
    return [] if any(ended.code == 0 for ended in run_.ended) else ["nobody got anything done"]


def the_bundle_is_whole_or_absent(run_: Run) -> list[str]:
    """An export of all goes on without the model that went meanwhile, and says so by its code."""
    if not (run_.folder / "out.tar.zst").exists():
        return [] if run_.ended[0].code else ["no bundle although it succeeded"]
    proved = run(run_.folder, "verify", "out.tar.zst")
    return [proved.stdout + proved.stderr] if proved.returncode else []


def a_folder_is_whole(run_: Run) -> list[str]:
    """An export to a folder that failed leaves no model there; one that did not, whole ones."""
    there = [path for path in run_.state.files if path.startswith("out/manifests/")]
    if run_.ended[0].code == 0:
        return [] if f"out/manifests/{MINE}" in there else ["a model is missing"]
    return [str(there)] if there else []


def a_copy_is_whole_or_absent(run_: Run) -> list[str]:
    return [] if run_.lists(COPY) == (run_.ended[0].code == 0) else ["the copy and the exit code differ"]


def an_import_won(run_: Run) -> list[str]:
    """Whatever a server did meanwhile, an import that succeeded is there, and one that failed is not."""
    code = run_.ended[0].code
    return lists(*((TINY, TINY_Q4) if code == 0 else ()))(run_)


def broken_only_by_what_came_later(run_: Run) -> list[str]:
    """
    What a server without grace may do: take a blob while its manifest appears. It is put back, as long as the import
    looks; afterwards nobody does.
    """
    wrong = []
    for found in run_.seen:
        # A while for whoever tells of it, and for whoever hears that the command has ended.
        during = found["kind"] == "not whole" and found["last"] < run_.ended[0].time + 0.05
        if not (during and run_.lost(found["blob"])) and not _went_late(run_, found["what"], found["blob"]):
            wrong.append(str(found))
    for path, blob in run_.state.broken:
        if not _went_late(run_, path.removeprefix("models/manifests/"), f"sha256:{blob}"):
            wrong.append(f"{path}: {blob} was not put back")
    return wrong


def _went_late(run_: Run, name: str, digest: str) -> bool:
    """Whether a double removed a blob only after the last look of the import: a rename sets the time of status."""
    try:
        published = (run_.folder / "models" / "manifests" / name).stat().st_ctime
    except FileNotFoundError:
        return False
    return any(when > published + SETTLING for when in run_.lost(digest))


def kept_blobs_come_back(run_: Run) -> list[str]:
    """
    What a pull refers to before gc has taken the last blob goes back by itself, because then gc looks again. What it
    refers to later gc may have taken: `--keep` has it, and `--restore` brings it back.
    """
    taken = [path.stat().st_ctime for path in (run_.folder / "models/.ostore/trash").glob("*/sha256-*")]
    pulled = [step["time"] for step in run_.ended[1].steps if step["did"] == "manifest"]
    late = [f"gc did not look again: {broken}" for broken in run_.state.broken if pulled[0] < max(taken)]
    again = run(run_.folder, "gc", "--restore")
    after = State.of(run_.folder)
    wrong = [f"restore: {again.returncode}: {again.stderr}"] if again.returncode not in {0, 3} else []
    wrong += late
    wrong += [f"not restored: {broken}" for broken in after.broken]
    wrong += [] if run_.has(b"an orphan that nobody needs") or again.returncode == 0 else ["an orphan is lost"]
    return wrong


def seen_broken_only_if_pulled(run_: Run) -> list[str]:
    """Nobody but the model that is being pulled is ever broken; that one is looked at afterwards."""
    return [str(found) for found in run_.seen if found["what"] != COPY]


def the_old_went_and_the_pulled_stayed(run_: Run) -> list[str]:
    wrong = lists(TINY, TINY_Q4, COPY)(run_)
    if run_.ended[0].code == 0 and run_.has(b"an orphan that nobody needs"):
        wrong.append("an orphan was not removed")
    return wrong


IMPORT = Racer(("import", "both.tar.zst", "--replace"))
CREATE = Racer(("create", "copy:new", "m.gguf"))
GC = Racer(("gc", "--yes", *NO_GRACE))
RM = Racer(("rm", "--yes", "tiny:latest"))
# Exit codes beside a removal: 2 the model has changed, 3 it is gone, 4 or 10 one of its blobs is gone.
MEANWHILE = frozenset({0, 2, 3, 4, 10})
EARLIER = frozenset({0, 2, 3})

RACES = (
    Race("import-import", bundles_and_half_a_store, (IMPORT, IMPORT), deduplicated),
    Race(
        "import-of-another",
        bundles_and_half_a_store,
        (Racer(("import", "latest.tar.zst", "--replace")), Racer(("import", "other.tar.zst", "--replace"))),
        lists(TINY),
    ),
    Race(
        "import-of-another-without-replace",
        bundles_and_half_a_store,
        (
            Racer(("import", "latest.tar.zst"), frozenset({0, 2})),
            Racer(("import", "other.tar.zst"), frozenset({0, 2})),
        ),
        lambda run_: [*at_least_one_won(run_), *lists(TINY)(run_)],
    ),
    Race("import-gc", bundles_and_half_a_store, (IMPORT, GC), lists(TINY, TINY_Q4)),
    Race("import-gc-gc", bundles_and_half_a_store, (IMPORT, GC, GC), lists(TINY, TINY_Q4)),
    Race(
        "import-rm-of-what-it-shares",
        the_same_with_one_model,
        (Racer(("import", "q4.tar.zst")), RM),
        lists(TINY_Q4),
    ),
    Race(
        "import-rm-of-the-same",
        the_same_with_one_model,
        (IMPORT, Racer(RM.words, EARLIER)),
        lists_at_least(TINY_Q4),
    ),
    Race(
        "export-rm", a_store, (Racer(("export", "--all", "out.tar.zst"), MEANWHILE), RM), the_bundle_is_whole_or_absent
    ),
    Race("export-to-a-folder-rm", a_store, (Racer(("export", "--all", "out/"), MEANWHILE), RM), a_folder_is_whole),
    Race("cp-rm", a_store, (Racer(("cp", "tiny:latest", "copy:new"), MEANWHILE), RM), a_copy_is_whole_or_absent),
    Race("create-create", a_store_to_build_on, (CREATE, CREATE), lists(TINY, TINY_Q4, COPY)),
    Race("create-gc-gc", a_store_to_build_on, (CREATE, GC, GC), lists(TINY, TINY_Q4, COPY)),
    Race("create-rm-of-the-same-weights", a_store_to_build_on, (CREATE, RM), lists(TINY_Q4, COPY)),
    Race(
        "create-from-model-rm",
        a_store_to_build_on,
        (Racer(("create", "copy:new"), MEANWHILE), RM),
        a_copy_is_whole_or_absent,
    ),
    Race(
        "rm-rm",
        a_store,
        (Racer(RM.words, EARLIER), Racer(RM.words, EARLIER), Racer(("rm", "--yes", "tiny:q4"))),
        lambda run_: [*at_least_one_won(run_), *lists()(run_)],
    ),
    Race(
        "gc-pull",
        a_store_and_a_registry,
        (
            # 10: it has looked three times at a manifest that somebody was writing.
            Racer(("gc", "--yes", "--grace", "2s"), frozenset({0, 10})),
            Racer(("pull", "models", "registry", COPY), longest=0.03),
        ),
        the_old_went_and_the_pulled_stayed,
        # What gc has found to be an orphan, and the pull to be there, goes: see the next one.
        seen_broken_only_if_pulled,
        in_place=(COPY,),
        age=2.1,
    ),
    Race(
        "gc-keep-pull",
        a_store_and_a_registry,
        (
            Racer(("gc", "--yes", "--keep", "24h", *NO_GRACE), frozenset({0, 10}), slow=frozenset({"renameat"})),
            # It may find that what it has just loaded is gone.
            Racer(("pull", "models", "registry", COPY), frozenset({0, 1}), longest=0.03),
        ),
        kept_blobs_come_back,
        seen_broken_only_if_pulled,
        in_place=(COPY,),
        keeps_trash=True,
    ),
    Race(
        "import-prune-without-grace",
        bundles_and_half_a_store,
        (Racer(IMPORT.words, frozenset({0, 10})), Racer(("prune", "models", "0"), longest=0.1, endless=True)),
        an_import_won,
        broken_only_by_what_came_later,
    ),
    Race(
        "import-prune",
        bundles_and_half_a_store,
        (IMPORT, Racer(("prune", "models", "3600"), longest=0.03, endless=True)),
        lists(TINY, TINY_Q4),
    ),
    Race(
        "import-prune-of-old-orphans",
        the_same_but_old,
        (IMPORT, Racer(("prune", "models", "3600"), longest=0.03, endless=True)),
        lists(TINY, TINY_Q4),
    ),
    Race(
        "import-ollama-rm",
        the_same_with_one_model,
        (
            Racer(("import", "q4.tar.zst"), frozenset({0, 10})),
            Racer(("rm", "models", TINY), longest=0.05, until=STAGING),
        ),
        lambda run_: lists(*((TINY_Q4,) if run_.ended[0].code == 0 else ()))(run_),
        broken_only_by_what_came_later,
    ),
    Race(
        "import-pull",
        bundles_and_half_a_store,
        (
            # 2: the pulled model came between the last look at its name and the renaming.
            Racer(IMPORT.words, frozenset({0, 2})),
            Racer(("pull", "models", "registry", TINY), frozenset({0, 1}), longest=0.03),
        ),
        lambda run_: lists(*((TINY, TINY_Q4) if run_.ended[0].code == 0 else (TINY,)))(run_),
        in_place=(TINY,),
    ),
)


SOME = {
    "import-gc",
    "import-rm-of-what-it-shares",
    "export-rm",
    "gc-keep-pull",
    "import-prune-without-grace",
    "import-ollama-rm",
}


@pytest.fixture(params=[race for race in RACES if TORTURE or race.name in SOME], ids=lambda race: race.name)
def race(request: pytest.FixtureRequest) -> Race:
    chosen: Race = request.param
    return chosen


@needs_strace
def test_whoever_races_nothing_that_is_listed_is_broken(race: Race, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    race.prepare(origin)
    folders = [tmp_path / str(number) for number in range(RUNS)]
    for folder in folders:
        shutil.copytree(origin, folder)
    time.sleep(race.age)
    wrong = []
    for number, folder in enumerate(folders):
        wrong += [
            f"run {number}: {problem}" for problem in _problems(race, folder, random.Random(f"{race.name} {number}"))
        ]
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)


def _problems(race: Race, folder: Path, chance: random.Random) -> Iterator[str]:
    before = State.of(folder)
    run_ = _run(race, folder, chance)
    for racer, ended in zip(race.racers, run_.ended, strict=True):
        if ended.code not in racer.codes:
            yield f"{racer.words}: exit {ended.code}: {ended.err}"
        if racer.is_ours:
            yield from (f"{racer.words}: {problem}" for problem in output_problems(ended.code, ended.out, ended.err))
    yield from race.whole(run_)
    yield from race.check(run_)
    yield from _harm(before, run_)
    if all(ended.code == 0 for ended in run_.ended):
        # What a failed import had finished waits for the next one.
        yield from map(str, _leftovers(race, folder))


def _harm(before: State, run_: Run) -> Iterator[str]:
    """Somebody else's model is as it was; no blob has other bytes than its name says that had not before."""
    mine = f"models/manifests/{MINE}"
    if run_.state.files.get(mine) != before.files[mine]:
        yield "the model of somebody else was changed"
    for path, content in run_.state.files.items():
        name = path.rpartition("/")[2]
        if path.startswith("models/blobs/") and name != f"sha256-{content}" and before.files.get(path) != content:
            yield f"{path}: its bytes are not what it is named"


def _leftovers(race: Race, folder: Path) -> Iterator[Path]:
    own = folder / "models" / ".ostore"
    yield from own.glob("tx/*")
    if not race.keeps_trash:
        yield from own.glob("trash/*")


def _run(race: Race, folder: Path, chance: random.Random) -> Run:
    names = [json.dumps(paths) for paths in (race.names, race.in_place)]
    with _piped([*PLAIN, str(HERE / "watcher.py"), "models", *names], folder) as watcher:
        assert watcher.stdout
        watcher.stdout.readline()
        with ThreadPoolExecutor(len(race.racers)) as pool:
            starts = [(racer, racer.argv(chance), racer.delay(chance)) for racer in race.racers]
            over = [pool.submit(_take_part, *start, folder) for start in starts if not start[0].endless]
            endless = [_piped(argv, folder) for racer, argv, _ in starts if racer.endless]
            ended = [one.result() for one in over]
        ended += [_end(process) for process in endless]
        saw = json.loads(_end(watcher).out)
    assert saw["looks"] > 1
    return Run(folder, ended, saw["seen"], State.of(folder))


def _piped(argv: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "HOME": str(folder), "OLLAMA_MODELS": "models"}
    return subprocess.Popen(
        argv,
        cwd=folder,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _take_part(racer: Racer, argv: Sequence[str], delay: float, folder: Path) -> Ended:
    latest = time.monotonic() + 3
    while racer.until and time.monotonic() < latest and not any(folder.glob(racer.until)):
        time.sleep(0.005)
    time.sleep(delay)
    return _end(_piped(argv, folder))


def _end(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, err, time.time())
