"""
A removal looks again at each file before it takes it. What has changed since the plan stays, or comes back.

Other programs change a store between two of our calls. Here a test step makes that change right before the second call.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ostore
from ostore.api import rm
from ostore.cli.main import run
from ostore.formats.errors import DamagedStoreError, InUseError, UsageError
from ostore.places.store.receiving import sink
from ostore.places.store.removing import sweep as sweep_module
from ostore.places.store.removing import untrash
from ostore.places.store.removing.full_disk import FullDisk
from ostore.places.store.removing.sweep import Sweep
from ostore.places.store.removing.untrash import _find_kept
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.batches import BatchRecord
from ostore.places.store.survey.census import FoundEntry, StoredBlob, UnfinishedDownload, facts_of, take_census
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.places.store.survey.scan import stand
from ostore.places.store.survey.survey import Survey, survey
from ostore.places.store.workspace import Workspace
from ostore.streams.durable import Directory
from ostore.streams.progress import SILENT
from tests.support import Store, full, sha256, tree

ORPHAN = b"an orphan " * 100
OTHER = b"another file"
MANIFEST = "registry.ollama.ai/library/tiny/q4"


@contextlib.contextmanager
def sweeping(root: Path) -> Iterator[Sweep]:
    with (
        Directory.open(root) as directory,
        contextlib.closing(Workspace.open(directory)) as place,
        place.locked(),
        Sweep.opened(directory, place) as sweep,
    ):
        yield sweep


@pytest.fixture
def orphan(store: Store) -> StoredBlob:
    store.blob(ORPHAN)
    return planned(store)


def planned(store: Store) -> StoredBlob:
    return next(blob for blob in take_census(store.root).blobs if blob.digest.hex == sha256(ORPHAN))


def before_the(
    monkeypatch: pytest.MonkeyPatch, method: str, act: Callable[[], object], *, when: Callable[[str], bool]
) -> None:
    """Let something happen once, right before a call of `Directory` about a name."""
    original = getattr(Directory, method)
    done: list[str] = []

    def acting(self: Directory, name: str, *arguments: object) -> object:
        if when(name) and not done:
            done.append(name)
            act()
        return original(self, name, *arguments)

    monkeypatch.setattr(Directory, method, acting)


def is_blob(name: str) -> bool:
    return name.startswith("sha256-")


def replace(path: Path, content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)


def as_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def hold(monkeypatch: pytest.MonkeyPatch, path: Path, *methods: str) -> None:
    """Let `Directory` answer as on Windows where another program has this file open."""

    def held(original: Callable[..., object]) -> Callable[..., object]:
        def call(self: Directory, name: str, *arguments: object, **more: object) -> object:
            if self.path / name == path:
                raise InUseError(str(path))
            return original(self, name, *arguments, **more)

        return call

    for method in methods:
        monkeypatch.setattr(Directory, method, held(getattr(Directory, method)))


@pytest.mark.parametrize("method", ["rename", "open_file"])
@pytest.mark.parametrize("words", ["gc --grace 0s", "rm only", "move {}", "move --offload only {}"])
def test_a_blob_that_another_program_has_open_is_named_and_the_same_command_takes_it_later(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, method: str
) -> None:
    if words.startswith("gc"):
        store.blob(ORPHAN)
        store.blob(OTHER)
    else:
        store.model("only:latest", ORPHAN, template=OTHER)
    stays, goes = store.blob_path(ORPHAN), store.blob_path(OTHER)
    command = [*words.format(store.root.with_name("elsewhere")).split(), "--yes", "--models", str(store.root)]
    with monkeypatch.context() as opened:
        hold(opened, stays, method)
        assert run(command) == 6
    assert f"blobs/{stays.name}: stays, because another program has it open" in capsys.readouterr().err
    assert (stays.exists(), goes.exists()) == (True, False)
    assert run(command) == 0
    assert not stays.exists()
    assert [path for path in tree(store.root) if path.startswith(".ostore/trash")] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Path.unlink, "gone meanwhile"),
        (lambda path: replace(path, OTHER), "replaced meanwhile"),
        (as_link, "cannot be opened: not a file"),
        (os.utime, "used meanwhile"),
    ],
    ids=["gone", "replaced", "a link", "used"],
)
def test_a_blob_that_changed_after_the_plan_stays_as_it_is(
    store: Store, orphan: StoredBlob, change: Callable[[Path], object], reason: str
) -> None:
    change(store.blob_path(ORPHAN))
    before = tree(store.root)
    latest = orphan.facts.newest - 1 if reason == "used meanwhile" else None
    with sweeping(store.root) as sweep:
        swept = sweep.remove(BatchRecord(), now=0.0, blobs=[orphan], latest=latest)
    assert swept.stayed == {orphan.filename: reason}
    assert tree(store.root) == before


def test_a_blob_replaced_right_before_it_moves_comes_back(
    store: Store, orphan: StoredBlob, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.blob_path(ORPHAN)
    before_the(monkeypatch, "rename", lambda: replace(path, OTHER), when=is_blob)
    with sweeping(store.root) as sweep:
        swept = sweep.remove(BatchRecord(), now=0.0, blobs=[orphan])
    assert swept.stayed == {orphan.filename: "replaced meanwhile"}
    assert path.read_bytes() == OTHER


@pytest.mark.parametrize("is_there", [False, True], ids=["free", "taken"])
def test_what_is_needed_again_comes_back_without_hard_links_and_over_nothing(
    store: Store, orphan: StoredBlob, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    def come() -> None:
        store.model("late:latest", ORPHAN)
        if not is_there:
            store.blob_path(ORPHAN).unlink()

    monkeypatch.setattr(Directory, "link", lambda *arguments: False)
    marks = Sweep._second_mark

    def marking(self: Sweep, batch: object) -> object:
        come()
        return marks(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Sweep, "_second_mark", marking)
    with sweeping(store.root) as sweep:
        swept = sweep.remove(BatchRecord(), now=0.0, blobs=[orphan])
    assert store.blob_path(ORPHAN).read_bytes() == ORPHAN
    assert (store.blob_path(ORPHAN).stat().st_ino == orphan.facts.inode) is not is_there
    assert bool(swept.stayed) is not is_there


def test_a_manifest_that_went_by_itself_is_no_error(store: Store) -> None:
    entry = next(entry for entry in find_manifests(store.root).entries if entry.relative.endswith(MANIFEST))
    doomed = stand(entry)
    store.manifest_path(full("tiny:q4")).unlink()
    before = tree(store.root)
    with sweeping(store.root) as sweep:
        sweep.remove(BatchRecord(("x",)), now=0.0, manifests=[doomed])
    assert tree(store.root) == before


@pytest.mark.parametrize("change", [lambda path: replace(path, OTHER), as_link], ids=["another", "a link"])
def test_a_manifest_that_is_another_by_now_stays(store: Store, change: Callable[[Path], object]) -> None:
    entry = next(entry for entry in find_manifests(store.root).entries if entry.relative.endswith(MANIFEST))
    doomed = stand(entry)
    change(store.manifest_path(full("tiny:q4")))
    before = tree(store.root)
    with sweeping(store.root) as sweep, pytest.raises(UsageError, match="has just changed"):
        sweep.remove(BatchRecord(("x",)), now=0.0, manifests=[doomed])
    assert tree(store.root) == before


@pytest.mark.parametrize("has_links", [True, False], ids=["hard links", "none"])
def test_a_manifest_rewritten_right_before_it_moves_comes_back(
    store: Store, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    path = store.manifest_path(full("tiny:q4"))
    if not has_links:
        monkeypatch.setattr(Directory, "link", lambda *arguments: False)
    before_the(monkeypatch, "rename", lambda: path.write_bytes(OTHER), when=lambda name: name == "q4")
    with pytest.raises(UsageError, match="has just changed"):
        ostore.rm(["tiny:q4"], models=store.root)
    assert path.read_bytes() == OTHER


def test_a_manifest_rewritten_before_the_store_is_looked_at_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was chosen is what had the name when it was chosen. A pull may end while the plan is made."""
    path = store.manifest_path(full("tiny:q4"))

    def pulled(root: Path) -> Survey:
        path.write_bytes(OTHER)
        return survey(root)

    monkeypatch.setattr(rm, "survey", pulled)
    with pytest.raises(UsageError, match="has just changed"):
        ostore.rm(["tiny:q4"], models=store.root)
    assert path.read_bytes() == OTHER


def test_a_disk_that_refuses_the_move_of_a_manifest_is_told_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> None:
        raise OSError(5, os.strerror(5))

    before = tree(store.root)
    before_the(monkeypatch, "rename", failing, when=lambda name: name == "q4")
    with pytest.raises(OSError, match="Errno 5"):
        ostore.rm(["tiny:q4"], models=store.root)
    assert tree(store.root) == before


def test_a_download_that_goes_on_after_the_plan_stays_whole(store: Store) -> None:
    digest = planned_download(store)
    files = tuple(FoundEntry(path.name, facts_of(path)) for path in sorted((store.root / "blobs").glob("*-partial*")))
    download = UnfinishedDownload(digest.digest, files)
    before = tree(store.root)
    latest = download.newest - 1
    with sweeping(store.root) as sweep:
        swept = sweep.remove(BatchRecord(), now=0.0, downloads=[download], latest_download=latest)
    assert set(swept.stayed.values()) == {"is being loaded again"}
    assert tree(store.root) == before


def planned_download(store: Store) -> StoredBlob:
    store.blob(ORPHAN)
    blob = planned(store)
    for suffix in ("-partial", "-partial-0"):
        (store.root / "blobs" / (blob.filename + suffix)).write_bytes(b"part")
    return blob


def test_parts_of_downloads_are_not_kept_in_the_trash(store: Store) -> None:
    blob = planned_download(store)
    download = take_census(store.root).downloads[0]
    with sweeping(store.root) as sweep:
        sweep.remove(BatchRecord(expires=1e12), now=0.0, blobs=[blob], downloads=[download])
    (batch,) = (store.root / ".ostore/trash").iterdir()
    assert sorted(path.name for path in batch.iterdir()) == ["kept.json", blob.filename]


def test_a_plan_for_a_folder_that_is_not_there_is_a_mistake_of_the_caller(store: Store, tmp_path: Path) -> None:
    blob = planned_download(store)
    (tmp_path / "empty").mkdir()
    with sweeping(tmp_path / "empty") as sweep, pytest.raises(RuntimeError, match="not there"):
        sweep.remove(BatchRecord(), now=0.0, blobs=[blob])


def test_what_a_running_command_has_staged_beside_the_manifests_stays(store: Store) -> None:
    """`manifests/` is on a disk of its own then; of commands that have ended nothing stays."""
    staging = store.root / "manifests/.ostore-tmp"
    with (
        Directory.open(store.root) as root,
        contextlib.closing(Workspace.open(root)) as place,
        place.transaction() as running,
    ):
        for name in (running.path.name, "1-ended"):
            (staging / name).mkdir(parents=True)
            (staging / name / "live").touch()
        with sweeping(store.root) as sweep:
            sweep.clear_leftovers()
        assert [path.name for path in staging.iterdir()] == [running.path.name]


@pytest.mark.parametrize(
    "raw", [b"{}", b'{"blobs":1,"expires":null,"models":[]}', b"[]"], ids=["empty", "type", "list"]
)
def test_a_record_that_is_not_ours_is_refused(raw: bytes) -> None:
    with pytest.raises(DamagedStoreError, match="not ours"):
        BatchRecord.parse(raw)


def test_a_disk_that_fails_at_the_second_look_gets_everything_back(
    store: Store, orphan: StoredBlob, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(store.root)

    def failing(root: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(root))

    monkeypatch.setattr(sweep_module, "find_references", failing)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        ostore.gc(grace=0, models=store.root)
    assert tree(store.root) == before


def test_a_store_whose_blobs_folder_has_gone_gets_it_back_with_what_was_in_the_trash(
    store: Store, orphan: StoredBlob
) -> None:
    ostore.gc(grace=0, keep=3600, models=store.root)
    (store.root / "blobs").rename(store.root.parent / "gone")
    ostore.restore(models=store.root)
    assert [path.name for path in (store.root / "blobs").iterdir()] == [orphan.filename]


def test_what_stands_in_the_trash_in_the_place_of_a_blob_is_not_restored(store: Store, orphan: StoredBlob) -> None:
    """Somebody who may write there exchanges it between the two looks."""
    ostore.gc(grace=0, keep=3600, models=store.root)
    (kept,) = _find_kept(store.root)
    path = store.root / ".ostore/trash" / kept.batch / kept.filename
    path.rename(path.with_name("elsewhere"))
    path.write_bytes(ORPHAN)
    assert not untrash._is_sound(store.root, kept, SILENT)
    path.unlink()
    path.symlink_to("elsewhere")
    assert not untrash._is_sound(store.root, kept, SILENT)


def test_room_is_made_only_by_what_is_as_it_was_planned(
    store: Store, orphan: StoredBlob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned_entry = FoundEntry(orphan.filename, orphan.facts)
    latest = orphan.facts.newest + 1
    with FullDisk.opened(store.root) as room:
        with monkeypatch.context() as opened:
            hold(opened, store.blob_path(ORPHAN), "unlink")
            assert not room.remove([planned_entry], latest=latest)
        assert not room.remove([planned_entry], latest=orphan.facts.newest - 10)
        assert not room.remove([FoundEntry(f"sha256-{'f' * 64}", orphan.facts)], latest=latest)
        assert room.remove([planned_entry], latest=latest)
    assert not (store.root / "blobs" / orphan.filename).exists()
    (tmp_path / "empty").mkdir()
    with FullDisk.opened(tmp_path / "empty") as room:
        assert not room.remove([planned_entry], latest=latest)


def test_a_disk_that_fails_otherwise_than_by_being_full_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Workspace, "locked", failing)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), FullDisk.opened(store.root):
        pass


def test_a_file_is_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with Directory.open(tmp_path) as folder:
        assert [sink._is_empty_folder(folder, name) for name in ("file", "folder")] == [False, True]


def test_a_sweep_without_blobs_has_nothing_to_put_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "models/manifests").mkdir(parents=True)
    with LocalStore(tmp_path / "models").sweeping() as sweep:
        sweep._sync_blobs()
    assert not (tmp_path / "models/blobs").exists()
