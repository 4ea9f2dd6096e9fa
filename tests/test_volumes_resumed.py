"""An interrupted export in volumes goes on in the volume that was cut, and ends with the same set."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import ostore
from ostore.api.export import goes_on
from ostore.formats.digest import Digest
from ostore.formats.export_state import ExportState
from ostore.places.bundle import journal
from ostore.places.bundle.volume_folders import VolumeFolder
from ostore.streams.file_lock import try_lock
from tests.support import TORTURE, tree, unmeasured
from tests.test_export_resumed import BLOBS, MIB, RUNNING, Stopping, killed, make_store, seconds

SIZE = 9 * MIB
NAME = "b.tar.zst"
KILLS = 50 if TORTURE else 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("models")).root


@pytest.fixture(scope="module")
def undisturbed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    export(models, folder)
    return folder


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "EVERY_BYTES", 1)


def media(folder: Path) -> list[Path]:
    return [folder / "a", folder / "b"]


def export(models: Path, folder: Path, after: float = float("inf"), *, split: int = SIZE) -> list[tuple[str, int]]:
    for medium in media(folder):
        medium.mkdir(exist_ok=True)
    progress = Stopping(after)
    ostore.export(["*"], NAME, models=models, split=split, to=media(folder), progress=progress, jobs=1)
    return progress.phases


def empty(folder: Path) -> None:
    for medium in media(folder):
        subprocess.run(["rm", "-rf", medium], check=True)
        medium.mkdir()


def stopped(models: Path, folder: Path, after: int) -> ExportState:
    with pytest.raises(KeyboardInterrupt):
        export(models, folder, after)
    assert not list(folder.glob(f"*/{NAME}.0*"))
    return ExportState.parse((folder / f"a/{NAME}.parts/{NAME}.state").read_bytes())


@pytest.mark.parametrize("after", [12, 30, 45, 60])
def test_a_set_that_was_stopped_goes_on_and_is_the_same(
    after: int, models: Path, undisturbed: Path, tmp_path: Path
) -> None:
    state = stopped(models, tmp_path, after * MIB)
    assert len(state.volumes) == state.size // SIZE
    phases = export(models, tmp_path)
    assert phases[0] == ("written before", state.size)
    assert tree(tmp_path) == tree(undisturbed)


def test_the_report_says_what_of_a_set_was_finished_before(models: Path, tmp_path: Path) -> None:
    stopped(models, tmp_path, 60 * MIB)
    report = ostore.export(["*"], NAME, models=models, split=SIZE, to=media(tmp_path))
    assert report.resumed_size >= len(BLOBS[0])
    assert report.bundle_size == sum(volume.size for volume in report.volumes)


def test_a_set_that_was_stopped_where_a_volume_ends_goes_on(models: Path, tmp_path: Path) -> None:
    size = stopped(models, tmp_path, 30 * MIB).size
    empty(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        export(models, tmp_path, 30 * MIB, split=size)
    assert export(models, tmp_path, split=size)[0] == ("written before", size)
    assert ostore.verify([media(tmp_path)[0] / NAME, *media(tmp_path)])[0].verdict == "whole"


@unmeasured
def test_a_set_that_is_killed_at_any_moment_goes_on(models: Path, undisturbed: Path, tmp_path: Path) -> None:
    to = [word for medium in media(tmp_path) for word in ("--to", str(medium))]
    command = [sys.executable, "-c", RUNNING, "export", "--all", NAME, "--models", str(models), "-q"]
    command += ["--split", str(SIZE), *to]
    moments, has_gone_on, sign = random.Random(NAME), 0, tmp_path / f"a/{NAME}.parts/{NAME}.001"
    empty(tmp_path)
    took = seconds(command, sign)
    tries = 0
    while tries < KILLS or not has_gone_on:
        tries += 1
        assert tries < 10 * KILLS, "no kill left anything to go on with"
        empty(tmp_path)
        for _ in range(moments.choice((1, 2))):
            if not killed(command, sign, moments.uniform(0, took)):
                took /= 2
                break
            has_gone_on += (tmp_path / f"a/{NAME}.parts/{NAME}.state").exists()
        done = subprocess.run([*command, "--replace"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert tree(tmp_path) == tree(undisturbed)


def test_what_of_a_set_does_not_fit_is_begun_from_the_start(models: Path, undisturbed: Path, tmp_path: Path) -> None:
    stopped(models, tmp_path, 45 * MIB)
    assert export(models, tmp_path, split=SIZE + 4096)[0][0].endswith("the level or the program differs")
    for medium in media(tmp_path):
        subprocess.run(["rm", "-rf", medium], check=True)
    state = stopped(models, tmp_path, 45 * MIB)
    changed = ExportState(state.head, state.made_by, state.offset, state.spans, state.cut, (Digest.of(b"x"),) * 9)
    (tmp_path / f"a/{NAME}.parts/{NAME}.state").write_bytes(changed.write())
    assert export(models, tmp_path)[0][0].endswith("the unfinished bundle is damaged")
    assert tree(tmp_path) == tree(undisturbed)


def test_a_set_without_one_of_its_volumes_is_begun_from_the_start(
    models: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """A medium was taken out, or another one put in."""
    stopped(models, tmp_path, 45 * MIB)
    (tmp_path / f"b/{NAME}.parts/{NAME}.002").unlink()
    assert export(models, tmp_path)[0][0].endswith("the unfinished bundle is damaged")
    assert tree(tmp_path) == tree(undisturbed)


def test_a_set_keeps_what_it_has_before_a_damaged_blob_but_not_on_a_full_disk(
    undisturbed: Path, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "models")
    store.blob_path(BLOBS[1]).write_bytes(bytes(len(BLOBS[1])))
    (tmp_path / "out").mkdir()
    for medium in media(tmp_path / "out"):
        medium.mkdir()
    words, terms = ["large", "small"], {"split": SIZE, "to": media(tmp_path / "out")}
    with pytest.raises(ostore.DigestMismatchError):
        ostore.export(words, NAME, models=store.root, **terms)  # type: ignore[arg-type]
    assert (tmp_path / f"out/a/{NAME}.parts/{NAME}.state").exists()
    store.blob_path(BLOBS[1]).write_bytes(BLOBS[1])
    full = Stopping(45 * MIB, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(OSError, match="28"):
        ostore.export(words, NAME, models=store.root, progress=full, **terms)  # type: ignore[arg-type]
    assert [list(medium.iterdir()) for medium in media(tmp_path / "out")] == [[], []]
    export(store.root, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(undisturbed)


def test_a_set_goes_on_with_its_folders_in_another_order(models: Path, tmp_path: Path) -> None:
    """The state is in the folder that was the first one then."""
    state = stopped(models, tmp_path, 30 * MIB)
    progress, to = Stopping(), media(tmp_path)[::-1]
    assert all(goes_on(NAME, folders) for folders in (to, media(tmp_path)))
    assert not goes_on(NAME, to[:1])
    ostore.export(["*"], NAME, models=models, split=SIZE, to=to, progress=progress)
    assert progress.phases[0] == ("written before", state.size)
    assert not list(tmp_path.rglob(f"{NAME}.parts"))
    assert ostore.verify([to[0] / NAME, *to])[0].verdict == "whole"


def test_of_two_states_nobody_knows_which_is_true(models: Path, undisturbed: Path, tmp_path: Path) -> None:
    stopped(models, tmp_path, 30 * MIB)
    first, second = (medium / f"{NAME}.parts" for medium in media(tmp_path))
    (second / f"{NAME}.state").write_bytes((first / f"{NAME}.state").read_bytes())
    (second / f"{NAME}.state.part").write_bytes(b"")
    assert export(models, tmp_path)[0][0].endswith("the unfinished bundle is damaged")
    assert tree(tmp_path) == tree(undisturbed)


def unfinished(models: Path, folder: Path, *, split: int | None) -> set[str]:
    with pytest.raises(KeyboardInterrupt):
        ostore.export(["*"], folder / NAME, models=models, split=split, progress=Stopping(30 * MIB))
    return {path.name for path in folder.iterdir()}


def test_what_an_export_to_one_file_has_left_goes_with_the_volumes(models: Path, tmp_path: Path) -> None:
    assert unfinished(models, tmp_path, split=None) == {f"{NAME}.part", f"{NAME}.part.state"}
    assert goes_on(tmp_path / NAME)
    assert not goes_on(tmp_path / NAME, [tmp_path])
    ostore.export(["*"], tmp_path / NAME, models=models, split=40 * MIB)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{NAME}.{end}" for end in ("001", "002", "RESTORE.txt", "sha256")
    ]


def test_volumes_that_an_export_has_left_go_with_the_file(models: Path, tmp_path: Path) -> None:
    assert unfinished(models, tmp_path, split=SIZE) == {f"{NAME}.parts"}
    assert goes_on(tmp_path / NAME, [tmp_path])
    assert not goes_on(tmp_path / NAME)
    ostore.export(["*"], tmp_path / NAME, models=models)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_what_another_export_is_writing_stays(models: Path, tmp_path: Path) -> None:
    """The lock is that of an export to the other kind that runs meanwhile."""
    unfinished(models, tmp_path, split=None)
    fd = os.open(tmp_path / f"{NAME}.part", os.O_RDWR)
    try:
        assert try_lock(fd)
        ostore.export(["*"], tmp_path / NAME, models=models, split="fat32")
        assert (tmp_path / f"{NAME}.part.state").exists()
    finally:
        os.close(fd)
    with VolumeFolder.opened(tmp_path, NAME) as held:
        os.close(held.begin(f"{NAME}.001"))
        (tmp_path / f"{NAME}.part").unlink()
        ostore.export(["*"], tmp_path / NAME, models=models, replace=True)
        assert held.waiting_files() == [f"{NAME}.001"]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("name", [NAME, f"{NAME}.003"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_appears_meanwhile_is_refused_and_the_set_goes_on_from_what_it_has(
    models: Path, undisturbed: Path, tmp_path: Path, name: str, *, replace: bool
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for medium in media(folder):
        medium.mkdir()
    foreign = media(folder)[1] / name

    class Appearing(Stopping):
        def advance(self, item: str, size: int) -> None:
            super().advance(item, size)
            foreign.write_bytes(b"foreign")

    terms = {"split": SIZE, "to": media(folder), "models": models, "jobs": 1}
    if replace:
        ostore.export(["*"], NAME, progress=Appearing(), replace=True, **terms)  # type: ignore[arg-type]
    else:
        with pytest.raises(ostore.UsageError, match=f"{name}: exists"):
            ostore.export(["*"], NAME, progress=Appearing(), **terms)  # type: ignore[arg-type]
        assert foreign.read_bytes() == b"foreign"
        assert [path.name for medium in media(folder) for path in medium.iterdir() if path != foreign] == [
            f"{NAME}.parts"
        ] * 2
        foreign.unlink()
        assert export(models, folder)[0][0] == "written before"
    assert tree(folder) == tree(undisturbed)
