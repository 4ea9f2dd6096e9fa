"""An inbox refuses what its caller fails to deliver, and continues when other programs interfere."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path

import pytest

import ostore
from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError, UnsafeError, UsageError
from ostore.formats.manifest import Descriptor
from ostore.formats.selection import Wanted
from ostore.places.store.receiving import inbox, linking, pinning, publication, staging
from ostore.places.store.receiving.publication import Publication
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.streams.durable import Directory
from ostore.streams.progress import SILENT
from tests.support import Store, full, tree
from tests.test_sweep import before_the, is_blob

WEIGHTS = b"the weights " * 1000


@pytest.fixture
def bundle(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "b.tar.zst"
    ostore.export(["*"], path, models=store.root)
    return path


def sink(root: Path) -> StoreSink:
    return StoreSink(LocalStore(root), replace=False, trust_existing=False, make_parents=False, jobs=1)


def begin(root: Path, transaction: str, weights: Path, size: int) -> Path:
    """What an interrupted command has received of a blob."""
    begun = root / ".ostore/tx" / transaction / f"{weights.name}.begun"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(WEIGHTS[:size])
    return begun


def test_a_manifest_that_was_not_announced_is_refused(store: Store, tmp_path: Path) -> None:
    source = LocalStore(store.root)
    selection = source.select(["tiny:q4"])
    with (
        pytest.raises(IntegrityError, match="not the one that was announced"),
        sink(tmp_path / "new").receive(selection) as taking,
    ):
        taking.write_manifest(selection.models[0].name, b"{}")


def test_a_blob_that_begins_where_nothing_is_staged_is_refused(store: Store, tmp_path: Path) -> None:
    selection = LocalStore(store.root).select(["tiny:q4"])
    with (
        pytest.raises(RuntimeError, match="0 bytes are staged, but the source begins at 5"),
        sink(tmp_path / "new").receive(selection) as taking,
    ):
        taking.write_blob(Wanted(selection.blobs[0], 5), [])


def test_the_first_part_of_a_blob_that_is_not_wanted_stays_for_another_import(bundle: Path, tmp_path: Path) -> None:
    begun = begin(tmp_path / "new", "1-ended", Path(Digest.of(b"another").filename), 100)
    ostore.import_bundle(bundle, models=tmp_path / "new")
    assert begun.stat().st_size == 100


def test_the_first_part_of_a_blob_is_not_taken_over_if_the_file_has_another_name(store: Store, tmp_path: Path) -> None:
    """Whoever may create files in `.ostore` must not make root write to a file of root."""
    precious = tmp_path / "precious"
    begun = begin(tmp_path / "new", "1-ended", store.blob_path(WEIGHTS), 100)
    os.link(begun, precious)
    with contextlib.suppress(RuntimeError), sink(tmp_path / "new").receive(LocalStore(store.root).select([])) as taking:
        assert {wanted.start for wanted in taking.missing} == {0}
    assert precious.read_bytes() == WEIGHTS[:100]


def test_of_several_beginnings_the_longest_is_taken_over(store: Store, tmp_path: Path) -> None:
    root, weights = tmp_path / "new", store.blob_path(WEIGHTS)
    for transaction, size in (("1-ended", 100), ("2-ended", 300), ("3-ended", 200), ("4-ended", len(WEIGHTS))):
        begin(root, transaction, weights, size)
    selection = LocalStore(store.root).select(["tiny:q4"])
    with contextlib.suppress(RuntimeError), sink(root).receive(selection) as taking:
        assert {wanted.start for wanted in taking.missing} == {0, 300}
    assert [path.stat().st_size for path in root.glob(".ostore/tx/*/*.begun")] == [300]


def test_a_beginning_that_becomes_another_file_while_it_is_taken_over_is_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(WEIGHTS[:100])
    begun = begin(tmp_path / "new", "1-ended", store.blob_path(WEIGHTS), 100)

    def swap() -> None:
        begun.unlink()
        os.link(precious, begun)

    before_the(monkeypatch, "rename", swap, when=lambda name: name == begun.name)
    ostore.import_bundle(store.root, models=tmp_path / "new")
    assert precious.read_bytes() == WEIGHTS[:100]
    assert not begun.exists()


def test_a_blob_that_a_killed_command_was_writing_is_of_no_use_and_no_harm(store: Store, tmp_path: Path) -> None:
    part = tmp_path / "new/.ostore/tx/1-ended" / f"{store.blob_path(WEIGHTS).name}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(WEIGHTS) // 2))
    report = ostore.import_bundle(store.root, models=tmp_path / "new")
    assert (report.blobs_resumed, tree(tmp_path / "new")) == (0, tree(store.root))
    assert not part.parent.exists()


def test_nothing_is_published_if_something_was_not_delivered(store: Store, tmp_path: Path) -> None:
    selection = LocalStore(store.root).select(["tiny:q4"])
    with pytest.raises(RuntimeError, match="not delivered"), sink(tmp_path / "new").receive(selection):
        pass
    assert not (tmp_path / "new/manifests").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_disk_that_syncs_no_more_leaves_no_file_open(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(fd: int, *_: object) -> None:
        os.close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(inbox, "finish_file", failing)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="Errno 5"):
        ostore.import_bundle(bundle, models=tmp_path / "new")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not (tmp_path / "new/manifests").exists()


def test_a_blob_that_goes_right_before_it_is_pinned_is_fetched(
    store: Store, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(store.root)
    before_the(
        monkeypatch, "link", store.blob_path(WEIGHTS).unlink, when=lambda name: name == store.blob_path(WEIGHTS).name
    )
    assert ostore.import_bundle(bundle, models=store.root).blobs_written == 1
    assert tree(store.root) == before


def test_a_server_that_removes_a_folder_just_made_is_outlasted(
    bundle: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "new"
    folder = root / "manifests/registry.ollama.ai/library/tiny"
    before_the(monkeypatch, "rename", folder.rmdir, when=lambda name: name.endswith(".json"))
    ostore.import_bundle(bundle, models=root)
    assert tree(root) == tree(store.root)


def test_a_server_that_removes_it_again_and_again_is_an_error_and_nothing_is_there(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "new"
    rename = Directory.rename

    def removing(self: Directory, name: str, target: Directory, target_name: str) -> None:
        if name.endswith(".json"):
            target.path.rmdir()
        rename(self, name, target, target_name)

    monkeypatch.setattr(Directory, "rename", removing)
    with pytest.raises(FileNotFoundError):
        ostore.import_bundle(bundle, models=root)
    assert not [path for path in root.rglob("*") if path.is_file() and ".ostore" not in path.parts]


def test_a_link_where_the_folder_of_a_model_should_be_is_in_the_way(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "new"
    (tmp_path / "elsewhere").mkdir()
    (root / "manifests/registry.ollama.ai").mkdir(parents=True)
    (root / "manifests/registry.ollama.ai/library").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeError, match="in the way"):
        ostore.import_bundle(bundle, models=root)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not list(root.glob("blobs/*"))


@pytest.mark.parametrize("fails", [False, True], ids=["replaced", "taken back"])
def test_a_manifest_is_replaced_without_hard_links_or_as_it_was(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    mine = Store(tmp_path / "mine")
    mine.model("tiny:q4", b"other weights")
    raw = mine.manifest_path(full("tiny:q4")).read_bytes()
    monkeypatch.setattr(Directory, "link", lambda *arguments: False)
    if fails:

        def failing(*arguments: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(Publication, "_settle", failing)
        with pytest.raises(OSError, match="Errno 5"):
            ostore.import_bundle(bundle, replace=True, models=mine.root)
    else:
        ostore.import_bundle(bundle, replace=True, models=mine.root)
    assert (mine.manifest_path(full("tiny:q4")).read_bytes() == raw) is fails


def test_a_manifest_that_was_being_written_when_we_looked_is_nobodys_to_replace(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Store(tmp_path / "mine")
    raw = mine.model("tiny:q4", b"other weights").read_bytes()
    mine.manifest_path(full("tiny:q4")).write_bytes(raw[:50])
    place = Publication._place_blobs

    def writing(self: Publication, *arguments: object) -> None:
        mine.manifest_path(full("tiny:q4")).write_bytes(raw)
        place(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Publication, "_place_blobs", writing)
    with pytest.raises(UsageError, match="has just stored"):
        ostore.import_bundle(bundle, models=mine.root)
    assert mine.manifest_path(full("tiny:q4")).read_bytes() == raw
    assert not mine.manifest_path(full("tiny:latest")).exists()


def test_a_damaged_blob_that_goes_right_before_it_is_kept_aside_is_mended(
    store: Store, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, path = tree(store.root), store.blob_path(WEIGHTS)
    path.write_bytes(bytes(len(WEIGHTS)))
    monkeypatch.setattr(publication, "_SETTLE_SECONDS", (0.0,))
    keep = Publication._keep_aside

    def removing(self: Publication, blobs: Directory, standing: str, *arguments: object) -> object:
        before_the(monkeypatch, "link", path.unlink, when=is_blob)
        return keep(self, blobs, standing, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Publication, "_keep_aside", removing)
    report = ostore.repair(sources=[bundle], models=store.root)
    assert (report.verdict, report.quarantine) == ("whole", ())
    assert tree(store.root) == before


def test_what_a_running_import_has_staged_beside_the_manifests_stays(
    bundle: Path, store: Store, tmp_path: Path
) -> None:
    """Two commands whose `manifests/` is on another disk than their blobs: what has ended is cleared, no more."""
    selection = LocalStore(store.root).select(["tiny:q4"])
    with contextlib.suppress(RuntimeError), sink(tmp_path / "new").receive(selection) as taking:
        running, apart = taking._transaction.path.name, tmp_path / "apart"
        for name in (running, "1-ended"):
            (apart / name).mkdir(parents=True)
        with Directory.open(apart) as folder:
            staging._clear_abandoned(folder, taking._workspace)
        assert [path.name for path in apart.iterdir()] == [running]


def test_a_folder_that_another_command_has_just_removed_gives_nothing_to_link(store: Store, tmp_path: Path) -> None:
    old, selection = LocalStore(store.root), LocalStore(store.root).select(["tiny:q4"])
    with (
        contextlib.suppress(RuntimeError),
        StoreSink(LocalStore(tmp_path / "new"), predecessor=old).receive(selection) as taking,
    ):
        taking.take_files(lambda blob: tmp_path / "gone" / blob.digest.filename)
        assert {wanted.blob for wanted in taking.missing} == set(selection.blobs)


def test_a_file_of_another_store_that_is_gone_or_on_another_disk_is_copied_not_linked(tmp_path: Path) -> None:
    """Where one disk is mounted twice, the system refuses to link although its number is the same."""
    (tmp_path / "a").write_bytes(b"x")
    with Directory.open(tmp_path) as folder:
        assert linking.linked(folder, "absent", folder, "b") is False
        assert linking.linked(folder, "a", folder, "b") is True
        with pytest.raises(FileExistsError):
            linking.linked(folder, "a", folder, "b")


def test_two_mounts_of_one_disk_are_two_disks_to_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **fields: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refused)
    with Directory.open(tmp_path) as folder:
        assert linking.linked(folder, "a", folder, "b") is False


@pytest.mark.parametrize("there", [None, b"short"], ids=["absent", "another size"])
def test_what_the_store_before_lacks_is_not_linked(
    store: Store, bundle: Path, tmp_path: Path, there: bytes | None
) -> None:
    selection = LocalStore(store.root).select(["tiny:q4"])
    (tmp_path / "former").mkdir()
    former = tmp_path / "former" / store.blob_path(WEIGHTS).name
    if there:
        former.write_bytes(there)
    new = StoreSink(LocalStore(tmp_path / "new"), predecessor=LocalStore(store.root))
    with contextlib.suppress(RuntimeError), new.receive(selection) as taking:
        before = taking.missing
        taking.take_files(lambda _blob: former)
        assert taking.missing == before


def test_a_staged_blob_that_goes_right_before_it_is_hashed_is_fetched_again(tmp_path: Path) -> None:
    with Directory.open(tmp_path) as folder:
        assert not pinning.is_sound(folder, "absent", Descriptor(Digest.of(b"x"), 1), SILENT)


def test_blobs_on_a_disk_of_their_own_need_a_workspace_there(bundle: Path, tmp_path: Path) -> None:
    """`.ostore` has to be beside them on one disk, and the folder above is on another."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    blobs = tmp_path / "mounted/blobs"
    blobs.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", blobs], check=False, capture_output=True).returncode:
        pytest.skip("no mount here")
    try:
        with pytest.raises(OSError, match="the folder above blobs is on another disk"):
            ostore.import_bundle(bundle, models=blobs.parent)
        assert [path.name for path in blobs.parent.iterdir()] == ["blobs"]
    finally:
        subprocess.run(["umount", blobs], check=True)
