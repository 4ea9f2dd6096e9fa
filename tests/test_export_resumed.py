"""An interrupted export goes on where it was: the same command ends with the bytes of one that nobody disturbed."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import ostore
from ostore.formats.digest import Digest
from ostore.formats.errors import DigestMismatchError, IntegrityError, NoSpaceError
from ostore.formats.export_state import CutBlob, ExportState
from ostore.formats.selection import Wanted
from ostore.formats.zstd_frame import FrameSpan
from ostore.places.bundle import journal
from ostore.places.store.store import LocalStore
from ostore.streams.bytes_at import Held
from ostore.streams.chunks import Chunk
from ostore.streams.durable import Directory
from ostore.streams.progress import _Silent
from tests.support import MODEL, TORTURE, Store, full, noise, unmeasured

MIB = 1024 * 1024
# Two blobs of several frames, one of a single frame, and one whose last frame ends where its member does.
BLOBS = [noise(20 * MIB, 1), noise(30 * MIB, 2), noise(3 * MIB, 3), noise(16 * MIB - 512, 4)]
KINDS = pytest.mark.parametrize("name", ["b.tar.zst", "b.tar"])
KILLS = 50 if TORTURE else 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("models")).root


def make_store(root: Path) -> Store:
    store = Store(root)
    store.add(full("large:latest"), *(store.layer(MODEL, data) for data in BLOBS))
    store.model("small:latest", b"weights " * 1000)
    return store


@pytest.fixture(scope="module")
def undisturbed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """The bytes of a bundle of that kind."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for name in ("b.tar.zst", "b.tar"):
        ostore.export(["*"], folder / name, models=models)
    return lambda name: (folder / name).read_bytes()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Note the state after each frame, so that little needs to be written for it."""
    monkeypatch.setattr(journal, "EVERY_BYTES", 1)


class Stopping(_Silent):
    """Ctrl-C, or what else stops it, when so many bytes were read. It notes the phases, and the bytes of the last."""

    def __init__(self, after: float = float("inf"), error: Callable[[], BaseException] = KeyboardInterrupt) -> None:
        self.left, self.error, self.phases = after, error, list[tuple[str, int]]()

    def phase(self, label: str, total_bytes: int) -> None:
        self.phases.append((label, total_bytes))

    def advance(self, item: str, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise self.error()


def stopped(target: Path, models: Path, after: int, *, jobs: int = 2, words: tuple[str, ...] = ("*",)) -> None:
    with pytest.raises(KeyboardInterrupt):
        ostore.export(words, target, models=models, jobs=jobs, progress=Stopping(after))


def gone_on(
    target: Path, models: Path, *, words: tuple[str, ...] = ("*",), level: int | None = None, **more: int
) -> list[tuple[str, int]]:
    """Export to the end, and return the phases."""
    progress, jobs, replace = Stopping(), more.get("jobs"), bool(more.get("replace"))
    ostore.export(words, target, models=models, progress=progress, level=level, jobs=jobs, replace=replace)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return progress.phases


def state_of(target: Path) -> ExportState:
    return ExportState.parse(target.with_name(f"{target.name}.part.state").read_bytes())


@KINDS
@pytest.mark.parametrize("after", [10, 20, 35, 45, 52, 60])
def test_an_export_that_was_stopped_goes_on_and_has_the_same_bytes(
    name: str, after: int, models: Path, undisturbed: Callable[[str], bytes], tmp_path: Path
) -> None:
    target = tmp_path / name
    stopped(target, models, after * MIB, jobs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.part", f"{name}.part.state"]
    state = state_of(target)
    assert (tmp_path / f"{name}.part").read_bytes()[: state.size] == undisturbed(name)[: state.size]
    (before, size), (_, to_read) = gone_on(target, models, jobs=4)
    assert (before, size) == ("written before", state.size)
    # Of the archive, what is not written, and of the blob that was cut all.
    left = LocalStore(models).select(["*"]).size - state.offset
    assert left - MIB < to_read - (state.cut.size if state.cut else 0) <= left + 100_000
    assert target.read_bytes() == undisturbed(name)


@KINDS
def test_an_export_that_is_stopped_again_and_again_comes_to_its_end(
    name: str, models: Path, undisturbed: Callable[[str], bytes], tmp_path: Path
) -> None:
    """If it gets further than it was: a blob that was cut is read from its start."""
    target, offset = tmp_path / name, 0
    for after in (25, 50, 40):
        stopped(target, models, after * MIB, jobs=1)
        assert state_of(target).offset > offset
        offset = state_of(target).offset
    gone_on(target, models)
    assert target.read_bytes() == undisturbed(name)


def test_what_is_finished_before_an_interruption_is_in_the_report(models: Path, tmp_path: Path) -> None:
    stopped(tmp_path / "b.tar", models, 60 * MIB)
    report = ostore.export(["*"], tmp_path / "b.tar", models=models)
    assert report.resumed_size >= 50 * MIB
    assert ostore.verify([tmp_path / "b.tar"])[0].verdict == "whole"


def test_many_small_blobs_are_gone_on_with_between_them(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.add(full("many:latest"), *(store.layer(MODEL, noise(5000 + n, n)) for n in range(300)))
    (tmp_path / "out").mkdir()
    ostore.export(["*"], tmp_path / "whole.tar.zst", models=store.root)
    target = tmp_path / "out/b.tar.zst"
    stopped(target, store.root, 1_000_000)
    assert state_of(target).cut is None
    assert state_of(target).offset > 900_000
    (_, size), (_, to_read) = gone_on(target, store.root)
    assert size + to_read < 1_700_000
    assert target.read_bytes() == (tmp_path / "whole.tar.zst").read_bytes()


def test_an_export_that_is_finished_replaces_the_bundle_that_is_there(
    models: Path, undisturbed: Callable[[str], bytes], tmp_path: Path
) -> None:
    target = tmp_path / "b.tar"
    target.write_bytes(b"of last week")
    with pytest.raises(KeyboardInterrupt):
        ostore.export(["*"], target, models=models, replace=True, progress=Stopping(30 * MIB))
    assert target.read_bytes() == b"of last week"
    phases = gone_on(target, models, replace=True)
    assert phases[0][0] == "written before"
    assert target.read_bytes() == undisturbed("b.tar")


def test_before_the_first_note_nothing_is_left(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "EVERY_BYTES", 256 * MIB)
    stopped(tmp_path / "b.tar", models, 60 * MIB)
    assert list(tmp_path.iterdir()) == []


def other_models(target: Path, _store: Store) -> dict[str, Any]:
    return {"words": ("large",)}


def other_level(target: Path, _store: Store) -> dict[str, Any]:
    return {"level": 3}


def another_library(target: Path, _store: Store) -> dict[str, Any]:
    changed(target, made_by="level auto, zstandard 0.1, zstd (1, 0, 0)")
    return {}


def changed(target: Path, **fields: object) -> None:
    state = state_of(target)
    said = {name: getattr(state, name) for name in ("head", "made_by", "offset", "spans", "cut", "volumes")}
    target.with_name(f"{target.name}.part.state").write_bytes(ExportState(**{**said, **fields}).write())


def spoil(target: Path, change: Callable[[bytearray], object], suffix: str = ".part") -> dict[str, Any]:
    path = target.with_name(target.name + suffix)
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return {}


def no_cut(target: Path, _store: Store) -> dict[str, Any]:
    assert state_of(target).cut
    changed(target, cut=None)
    return {}


def other_cut(target: Path, _store: Store) -> dict[str, Any]:
    cut = state_of(target).cut
    assert cut
    changed(target, cut=CutBlob(cut.size - 1, cut.digest))
    return {}


def past_the_end(target: Path, _store: Store) -> dict[str, Any]:
    more = (FrameSpan(1, 8 * MIB),) * 20
    state = state_of(target)
    changed(target, offset=state.offset + 160 * MIB, spans=state.spans + more, cut=None)
    return {}


def fewer_frames(target: Path, _store: Store) -> dict[str, Any]:
    """A state that agrees with itself, but ends where no export stops."""
    state = state_of(target)
    spans = state.spans[:1]
    changed(target, spans=spans, offset=spans[0].content_size + 1 - 1, cut=CutBlob(1, Digest.of(b"x")))
    return {}


MODELS, PROGRAM, DAMAGED = "the models differ", "the level or the program differs", "the unfinished bundle is damaged"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other_models, MODELS),
        (other_level, PROGRAM),
        (another_library, PROGRAM),
        (no_cut, DAMAGED),
        (other_cut, DAMAGED),
        (past_the_end, DAMAGED),
        (fewer_frames, DAMAGED),
        pytest.param(lambda target, _: spoil(target, lambda data: data.__delitem__(slice(-MIB, None))) and {}, DAMAGED),
        pytest.param(lambda target, _: spoil(target, lambda data: data.__setitem__(100, data[100] ^ 1)), DAMAGED),
        pytest.param(lambda target, _: spoil(target, bytearray.clear, ".part.state"), DAMAGED),
        pytest.param(
            lambda target, _: spoil(target, lambda data: data.__setitem__(10, data[10] ^ 1), ".part.state"), DAMAGED
        ),
    ],
)
def test_what_does_not_fit_is_said_and_begun_from_the_start(
    change: Callable[[Path, Store], dict[str, Any]], why: str, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    target = tmp_path / "out/b.tar.zst"
    stopped(target, models, 45 * MIB)
    options = {"words": ("*",), **change(target, Store(models))}
    phases = gone_on(target, models, **options)
    assert phases[0] == (f"starting from the beginning because {why}", 0)
    ostore.export(options.pop("words"), tmp_path / "whole.tar.zst", models=models, **options)
    assert target.read_bytes() == (tmp_path / "whole.tar.zst").read_bytes()


def test_a_state_without_its_bundle_is_nothing_to_speak_of(
    models: Path, undisturbed: Callable[[str], bytes], tmp_path: Path
) -> None:
    stopped(tmp_path / "b.tar", models, 45 * MIB)
    (tmp_path / "b.tar.part").unlink()
    ((label, _),) = gone_on(tmp_path / "b.tar", models)
    assert label == "exporting"
    assert (tmp_path / "b.tar").read_bytes() == undisturbed("b.tar")


def test_a_state_that_the_disk_does_not_show_is_not_taken_for_none(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may show it again later, beside a bundle with other bytes."""
    stopped(tmp_path / "b.tar", models, 45 * MIB)
    lstat = Directory.lstat

    def failing(directory: Directory, name: str) -> os.stat_result | None:
        if name.endswith(".state"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return lstat(directory, name)

    monkeypatch.setattr(Directory, "lstat", failing)
    with pytest.raises(OSError, match="Errno 5"):
        ostore.export(["*"], tmp_path / "b.tar", models=models)


def test_frames_that_never_reached_the_disk_are_noticed(models: Path, tmp_path: Path) -> None:
    """A disk that lies about its syncs."""
    target = tmp_path / "b.tar.zst"
    stopped(target, models, 45 * MIB)
    size, part = state_of(target).size, tmp_path / "b.tar.zst.part"
    os.truncate(part, size - 3 * MIB)
    os.truncate(part, size)
    spans = state_of(target).spans
    with part.open("r+b") as file:
        file.seek(size - spans[-1].size)
        file.write(bytes(100))
    phases = gone_on(target, models)
    assert phases[0] == (f"starting from the beginning because {DAMAGED}", 0)


RUNNING = (
    "import sys\n"
    "from ostore.places.bundle import journal\n"
    "journal.EVERY_BYTES = 1\n"
    "from ostore.cli.main import main\n"
    "sys.exit(main())\n"
)


@KINDS
@unmeasured
def test_an_export_that_is_killed_at_any_moment_goes_on(
    name: str, models: Path, undisturbed: Callable[[str], bytes], tmp_path: Path
) -> None:
    """Killed, half of the time killed again while it goes on, and then left alone."""
    target, state = tmp_path / name, tmp_path / f"{name}.part.state"
    command = [sys.executable, "-c", RUNNING, "export", "--all", str(target), "--models", str(models), "-q"]
    moments, has_gone_on, took = random.Random(name), 0, seconds(command, tmp_path / f"{name}.part")
    target.unlink()
    tries = 0
    while tries < KILLS or not has_gone_on:
        tries += 1
        assert tries < 10 * KILLS, "no kill left anything to go on with"
        for _ in range(moments.choice((1, 2))):
            if killed(command, tmp_path / f"{name}.part", moments.uniform(0, took)):
                has_gone_on += state.exists() and not target.exists()
            else:
                # It was quicker than the first one, which a neighbour may have slowed down.
                took /= 2
            if target.exists():
                break
        if not target.exists():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert not state.exists()
        assert target.read_bytes() == undisturbed(name)
        # What it is killed in after it has the name is no loss.
        assert {path.name for path in tmp_path.iterdir()} <= {name, state.name}
        for path in tmp_path.iterdir():
            path.unlink()


def killed(command: list[str], sign: Path, after: float) -> bool:
    """Kill a command so many seconds after the first sign of its work; whether it had not ended before."""
    with subprocess.Popen(command) as process:
        while not sign.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(after)
        process.kill()
    return process.returncode != 0


def seconds(command: list[str], sign: Path) -> float:
    """How long a command works, from the first sign of that."""
    with subprocess.Popen(command) as process:
        while not sign.exists() and process.poll() is None:
            time.sleep(0.001)
        started = time.monotonic()
        assert process.wait() == 0
        return time.monotonic() - started


@KINDS
def test_an_export_that_met_a_damaged_blob_goes_on_when_it_is_repaired(name: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "models")
    (tmp_path / "out").mkdir()
    target, blob = tmp_path / "out" / name, store.blob_path(BLOBS[1])
    blob.write_bytes(BLOBS[1][:-1] + b"x")
    with pytest.raises(DigestMismatchError):
        ostore.export(["large", "small"], target, models=store.root)
    # It ends before that blob, of which nothing is proved.
    assert state_of(target).cut is None
    blob.write_bytes(BLOBS[1])
    assert gone_on(target, store.root, words=("large", "small"))[0][0] == "written before"
    ostore.export(["large", "small"], tmp_path / name, models=store.root)
    assert target.read_bytes() == (tmp_path / name).read_bytes()


def test_nothing_is_left_if_the_first_blob_is_damaged(tmp_path: Path) -> None:
    store = make_store(tmp_path / "models")
    config = LocalStore(store.root).select(["large"]).blobs[0]
    (store.root / "blobs" / config.digest.filename).write_bytes(bytes(config.size))
    (tmp_path / "out").mkdir()
    with pytest.raises(DigestMismatchError):
        ostore.export(["large"], tmp_path / "out/b.tar", models=store.root)
    assert list((tmp_path / "out").iterdir()) == []


@KINDS
def test_what_was_read_of_a_blob_while_it_was_damaged_gets_into_no_bundle(name: str, tmp_path: Path) -> None:
    """Its frames are on the disk, and its digest is proved of other bytes later."""
    store = make_store(tmp_path / "models")
    (tmp_path / "out").mkdir()
    target, blob = tmp_path / "out" / name, store.blob_path(BLOBS[1])
    blob.write_bytes(b"x" + BLOBS[1][1:])
    stopped(target, store.root, 45 * MIB)
    cut = state_of(target).cut
    assert cut
    assert cut.digest == Digest.of((b"x" + BLOBS[1][1:])[: cut.size])
    blob.write_bytes(BLOBS[1])
    with pytest.raises(IntegrityError, match="not those that the interrupted export has read") as caught:
        ostore.export(["*"], target, models=store.root)
    assert "the same command" in str(caught.value.hint)
    assert state_of(target).cut is None
    assert gone_on(target, store.root)[0][0] == "written before"
    ostore.export(["*"], tmp_path / name, models=store.root)
    assert target.read_bytes() == (tmp_path / name).read_bytes()


def test_a_model_that_is_left_out_on_the_way_is_in_no_bundle(tmp_path: Path) -> None:
    """A second selection begins anew, and nobody is told of an interrupted export: there was none."""
    store = make_store(tmp_path / "models")
    (tmp_path / "out").mkdir()
    store.blob_path(BLOBS[3]).write_bytes(bytes(len(BLOBS[3])))
    progress = Stopping()
    report = ostore.export(["*"], tmp_path / "out/b.tar.zst", models=store.root, progress=progress)
    assert [left.name for left in report.left_out] == ["large:latest"]
    assert {label for label, _ in progress.phases} == {"exporting"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.tar.zst"]
    assert ostore.verify([tmp_path / "out/b.tar.zst"])[0].verdict == "whole"


def one_is_damaged(root: Path) -> tuple[Store, Path, bytes]:
    """A store with a damaged blob that comes first, its file, and its bytes as they should be."""
    store, content = make_store(root), noise(2 * MIB, 77)
    store.model("damaged:latest", content)
    path = store.blob_path(content)
    path.write_bytes(content[:5] + b"x" + content[6:])
    assert path.read_bytes() != content
    return store, path, content


SPLITS = pytest.mark.parametrize("split", [None, 9 * MIB])


@SPLITS
def test_an_export_that_has_left_a_model_out_goes_on_without_it(tmp_path: Path, split: int | None) -> None:
    store, _, _ = one_is_damaged(tmp_path / "models")
    (tmp_path / "out").mkdir()
    target, progresses = tmp_path / "out/b.tar.zst", [Stopping(30 * MIB), Stopping(20 * MIB), Stopping()]
    for progress in progresses[:2]:
        with pytest.raises(KeyboardInterrupt):
            ostore.export(["*"], target, models=store.root, jobs=1, progress=progress, split=split)
    report = ostore.export(["*"], target, models=store.root, jobs=1, progress=progresses[2], split=split)
    sizes = [dict(progress.phases).get("written before", 0) for progress in progresses]
    assert not any(label.startswith("starting") for progress in progresses for label, _ in progress.phases)
    assert progresses[2].phases[0] == ("verifying what was damaged", 2 * MIB)
    assert 0 == sizes[0] < sizes[1] <= sizes[2]
    assert [left.name for left in report.left_out] == ["damaged:latest"]
    assert "its bytes have another digest" in report.left_out[0].reason
    assert len(report.models) == 2
    assert ostore.verify([target])[0].verdict == "whole"


@SPLITS
def test_when_what_was_damaged_is_whole_all_is_begun_anew(tmp_path: Path, split: int | None) -> None:
    store, path, content = one_is_damaged(tmp_path / "models")
    (tmp_path / "out").mkdir()
    target, progress = tmp_path / "out/b.tar.zst", Stopping()
    with pytest.raises(KeyboardInterrupt):
        ostore.export(["*"], target, models=store.root, jobs=1, progress=Stopping(30 * MIB), split=split)
    path.write_bytes(content)
    report = ostore.export(["*"], target, models=store.root, progress=progress, split=split)
    assert [label for label, _ in progress.phases][:2] == [
        "verifying what was damaged",
        "starting from the beginning because the models differ",
    ]
    assert (len(report.models), report.left_out) == (3, ())


@pytest.mark.parametrize(
    ("number", "stays"), [(errno.EIO, True), (errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EFBIG, False)]
)
def test_what_a_disk_refused_decides_whether_anything_stays(
    number: int, stays: bool, models: Path, tmp_path: Path
) -> None:
    progress = Stopping(45 * MIB, lambda: OSError(number, os.strerror(number)))
    with pytest.raises((OSError, NoSpaceError)):
        ostore.export(["*"], tmp_path / "b.tar", models=models, progress=progress)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == (["b.tar.part", "b.tar.part.state"] if stays else [])


def test_a_store_that_cannot_be_read_leaves_what_is_written(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_blobs = LocalStore.read_blobs

    def broken(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        yield next(chunks)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def failing(store: LocalStore, wanted: Sequence[Wanted], held: Held) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """As from a disk with a bad sector in the third blob."""
        for number, (one, chunks) in enumerate(read_blobs(store, wanted, held)):
            yield one, broken(chunks) if number == 2 else chunks

    monkeypatch.setattr(LocalStore, "read_blobs", failing)
    with pytest.raises(OSError, match="Errno 5"):
        ostore.export(["*"], tmp_path / "b.tar", models=models, strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.part", "b.tar.part.state"]


@pytest.mark.parametrize("length", [240, 244, 246])
def test_a_name_that_leaves_no_room_for_that_of_the_state_is_exported_all_the_same(
    length: int, models: Path, undisturbed: Callable[[str], bytes], tmp_path: Path
) -> None:
    target = tmp_path / f"{'n' * length}.tar"
    ostore.export(["*"], target, models=models)
    assert target.read_bytes() == undisturbed("b.tar")
    target.unlink()
    stopped(target, models, 45 * MIB)
    assert list(tmp_path.iterdir()) == []
