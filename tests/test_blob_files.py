"""A blob is found under whatever name it lies, and what changes or cannot be read meanwhile has its own error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import ostore
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobMissingError, DamagedStoreError, DigestMismatchError, InUseError, class_of
from ostore.formats.manifest import MAX_MANIFEST_BYTES
from ostore.formats.name import meant_by
from ostore.places.store.fixing import Fix, fix_store
from ostore.places.store.survey.blob_files import BlobFiles
from ostore.places.store.survey.strays import StrayKind, is_side_file_at, judge_strays
from ostore.streams.progress import SILENT
from tests.odd_stores import APPLE
from tests.support import CONFIG, MODEL, Store, as_user, full, sha256

WEIGHTS = b"the weights"
DIGEST = Digest(sha256(WEIGHTS))
posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="links and users of POSIX")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="changes to another user")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "models")
    made.model("tiny:latest", WEIGHTS)
    return made


def give(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)


def test_of_several_names_that_of_ollama_counts_then_its_older_ones(store: Store) -> None:
    blob = store.blob_path(WEIGHTS)
    for name in (DIGEST.hex, f"sha256_{DIGEST.hex}", f"sha256-{DIGEST.hex.upper()}"):
        shutil.copyfile(blob, blob.with_name(name))
    assert BlobFiles(store.root).find(DIGEST) == (blob.name, False, os.lstat(blob))
    blob.unlink()
    found = BlobFiles(store.root).find(DIGEST)
    assert (found.filename, found.is_misspelled) == (f"sha256-{DIGEST.hex.upper()}", True) if found else False


def test_a_blob_that_goes_while_it_is_looked_for_is_missing(store: Store) -> None:
    blob = store.blob_path(WEIGHTS)
    odd = blob.rename(blob.with_name(DIGEST.hex))
    files = BlobFiles(store.root)
    assert files.size_of(DIGEST) == len(WEIGHTS)
    odd.unlink()
    assert files.find(DIGEST) is None
    shutil.rmtree(store.root / "blobs")
    assert BlobFiles(store.root).find(DIGEST) is None
    with pytest.raises(BlobMissingError, match="missing"), BlobFiles(store.root).opened(DIGEST):
        pass


@posix
def test_a_blob_that_goes_or_becomes_a_link_between_two_looks_has_its_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, blob = BlobFiles(store.root), store.blob_path(WEIGHTS)
    found = files.find(DIGEST)
    # Only the moment is made up: the blob was found as a file before it changed.
    monkeypatch.setattr(files, "find", lambda _digest: found)
    blob.unlink()
    with pytest.raises(BlobMissingError), files.opened(DIGEST):
        pass
    blob.symlink_to("nowhere")
    with pytest.raises(DamagedStoreError), files.opened(DIGEST):
        pass


@posix
def test_a_link_whose_file_becomes_a_pipe_is_neither_read_nor_waited_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, blob = BlobFiles(store.root), store.blob_path(WEIGHTS)
    target = blob.rename(tmp_path / "weights")
    blob.symlink_to(target)
    status = target.stat()
    target.unlink()
    os.mkfifo(target)
    # Only the moment is made up: the pipe takes the place of the file between two looks.
    monkeypatch.setattr(files, "_target", lambda _filename: status)
    with pytest.raises(DamagedStoreError, match="expected a link to a regular file"), files.opened(DIGEST):
        pass
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(DamagedStoreError):
        BlobFiles(store.root).read_small(DIGEST, 10)


def test_of_a_file_the_error_names_the_digest(store: Store) -> None:
    with pytest.raises(DigestMismatchError, match="its own"), BlobFiles(store.root).opened(DIGEST):
        raise DigestMismatchError("its own", digest=str(DIGEST))


def test_a_small_blob_may_be_large(store: Store) -> None:
    data = bytes(200_000)
    digest = Digest.parse(store.blob(data))
    assert BlobFiles(store.root).read_small(digest, 1_000_000) == data
    assert BlobFiles(store.root).read_small(digest, 100_000) == data[:100_000]
    assert BlobFiles(store.root).read_small(digest, 100) == data[:100]


@posix
def test_strays_are_judged_by_what_is_in_them(store: Store, tmp_path: Path) -> None:
    folder = store.root / "manifests"
    (folder / "huge").write_bytes(b"x" * (MAX_MANIFEST_BYTES + 10) + b"sha256:" + b"a" * 64)
    (folder / "._x").write_bytes(APPLE)
    (folder / "notes").write_bytes(b"notes")
    (folder / "lost").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    (folder / "circle").symlink_to("circle")
    kinds = {stray.path: stray.kind for stray in judge_strays(store.root, [
        "manifests/huge", "manifests/._x", "manifests/notes", "manifests/lost", "manifests/pipe", "manifests/circle",
        "manifests/gone",
    ])}  # fmt: skip
    assert kinds == {
        "manifests/huge": StrayKind.FOREIGN,
        "manifests/._x": StrayKind.SIDE_FILE,
        "manifests/notes": StrayKind.FOREIGN,
        "manifests/lost": StrayKind.FOREIGN,
        "manifests/pipe": StrayKind.FOREIGN,
        "manifests/circle": StrayKind.FOREIGN,
    }
    assert not is_side_file_at(str(tmp_path / "._gone"))


def test_a_stray_that_is_too_large_for_a_manifest_still_keeps_the_digests_at_its_beginning(store: Store) -> None:
    path = store.root / "manifests/large"
    path.write_bytes(b"sha256:" + b"a" * 64 + b"x" * (MAX_MANIFEST_BYTES + 10))
    (stray,) = judge_strays(store.root, ["manifests/large"])
    assert stray.mentioned == {Digest("a" * 64)}


@as_root
def test_what_a_user_may_not_read_is_left_out_and_named(public: Store) -> None:
    give(public.root)
    public.blob_path(WEIGHTS).chmod(0)
    os.chown(public.blob_path(WEIGHTS), 0, 0)
    there = public.root.parent / "new"
    there.mkdir()
    there.chmod(0o777)
    done = as_user(12345, "export", "--all", there / "b.tar", "--models", public.root)
    assert done.returncode == 9
    assert "ostore: warning: tiny:latest: left out: Permission denied" in done.stderr
    assert "exported 1 model" in done.stdout


@as_root
def test_a_link_into_a_folder_that_a_user_may_not_enter_is_not_called_missing(public: Store) -> None:
    hidden = public.root.parent / "hidden"
    hidden.mkdir()
    blob = public.blob_path(WEIGHTS)
    blob.rename(hidden / "weights")
    blob.symlink_to(hidden / "weights")
    give(public.root)
    hidden.chmod(0o700)
    for words in (("verify",), ("export", "tiny", "-n", "b.tar")):
        done = as_user(12345, *words, "--models", public.root)
        assert done.returncode == 9, done.stderr
    stray = public.root / "manifests/library"
    stray.write_bytes(b"sha256:" + b"a" * 64)
    stray.chmod(0)
    done = as_user(12345, "gc", "--yes", "--models", public.root)
    assert done.returncode == 10
    assert "manifests/library: cannot be read" in done.stderr


@as_root
def test_a_manifest_that_a_user_may_not_read_is_an_error_of_the_medium(public: Store) -> None:
    give(public.root)
    path = public.manifest_path(full("tiny:latest"))
    os.chown(path, 0, 0)
    path.chmod(0o600)
    assert as_user(12345, "verify", "--models", public.root).returncode == 9
    assert as_user(12345, "show", "tiny", "--models", public.root).returncode in {9, 10}
    done = as_user(12345, "list", "--models", public.root)
    assert done.returncode == 0
    assert "Permission denied" in done.stderr
    (public.root / "manifests").chmod(0)
    os.chown(public.root / "manifests", 0, 0)
    assert as_user(12345, "list", "--models", public.root).returncode == 9


@as_root
def test_a_store_that_a_user_may_not_enter_is_no_missing_store(public: Store) -> None:
    public.root.chmod(0o700)
    done = as_user(12345, "list", "--models", public.root)
    assert done.returncode == 9


def test_a_step_of_a_fix_is_not_taken_if_the_store_has_changed(store: Store) -> None:
    path = store.manifest_path(full("tiny:latest"))
    right = path.read_bytes()
    relative = path.relative_to(store.root).as_posix()

    def outcome(fix: Fix) -> str:
        return fix_store(store.root, [fix])[0].outcome

    assert "more is wrong" in outcome(Fix("respell", relative))
    path.write_bytes(right.replace(b"sha256:", b"sha256-").replace(b'"layers"', b'"layers":null,"Layers"'))
    assert "more is wrong" in outcome(Fix("respell", relative))
    path.write_bytes(b"")
    assert "empty" in outcome(Fix("respell", relative))
    path.unlink()
    assert "No such file" in outcome(Fix("respell", relative))
    path.write_bytes(right)
    misplaced = store.root / "manifests/library/tiny/latest"
    misplaced.parent.mkdir(parents=True)
    misplaced.write_bytes(right)
    step = Fix("place", "manifests/library/tiny/latest", relative)
    assert outcome(step) == "a manifest of that name is there by now"
    path.unlink()
    misplaced.write_bytes(b"no manifest")
    assert "not JSON" in outcome(step)
    misplaced.write_bytes(right)
    assert outcome(step) == "fixed"
    assert path.read_bytes() == right
    blob = store.blob_path(WEIGHTS)
    shutil.copyfile(blob, blob.with_name(DIGEST.hex))
    assert "is there by now" in outcome(Fix("rename", f"blobs/{DIGEST.hex}", f"blobs/{blob.name}"))


def test_a_small_blob_under_another_name_is_read_too(store: Store) -> None:
    blob = store.blob_path(WEIGHTS)
    blob.rename(blob.with_name(DIGEST.hex))
    assert BlobFiles(store.root).read_small(DIGEST, 3) == WEIGHTS[:3]


def test_a_manifest_that_changes_while_its_blobs_are_hashed_stays(store: Store) -> None:
    path = store.manifest_path(full("tiny:latest"))
    right = path.read_bytes()
    path.write_bytes(right.replace(b"sha256:", b"sha256-"))

    class Meanwhile:
        def phase(self, label: str, total_bytes: int) -> None:
            assert label, total_bytes
            path.write_bytes(b"another")

        def begin(self, item: str, size: int) -> None:
            SILENT.begin(item, size)

        advance = begin

        def end(self, item: str) -> None:
            SILENT.end(item)

    (step,) = fix_store(store.root, [Fix("respell", path.relative_to(store.root).as_posix())], Meanwhile())
    assert (step.outcome, path.read_bytes()) == ("changed meanwhile", b"another")


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("x", "latest"), "x:latest"),
        (("library", "x", "latest"), "x:latest"),
        (("me", "x", "latest"), "me/x:latest"),
        (("hf.co", "x", "latest"), "hf.co/library/x:latest"),
        (("latest",), None),
        (("a", "b", "c", "d"), None),
        (("x", "no tag"), None),
    ],
)
def test_of_a_misplaced_manifest_the_parts_that_names_leave_out_are_added(
    parts: tuple[str, ...], name: str | None
) -> None:
    meant = meant_by(parts)
    assert (str(meant) if meant else None) == name


def test_what_an_open_file_on_windows_ends_with_is_busy() -> None:
    assert class_of(InUseError("C:/blob")) == "busy"
    assert isinstance(InUseError("C:/blob"), PermissionError)


def test_odd_configs_are_carried_and_only_what_is_known_of_them_is_said(store: Store, tmp_path: Path) -> None:
    store.add(full("nan:latest"), config=store.layer(CONFIG, b'{"remote_host":NaN}'))
    store.add(full("bare:latest"), store.layer(MODEL, WEIGHTS), config={"mediaType": CONFIG, "digest": "", "size": 0})
    report = ostore.export(["*"], tmp_path / "b.tar", models=store.root)
    told = ("nan:latest: its config is not JSON, so no server lists the model",)
    assert (len(report.models), report.left_out, report.warnings) == (3, (), told)


def test_a_folder_in_the_place_of_a_blob_leaves_its_model_out(store: Store, tmp_path: Path) -> None:
    store.model("other:latest", b"other")
    store.blob_path(WEIGHTS).unlink()
    store.blob_path(WEIGHTS).mkdir()
    report = ostore.export(["*"], tmp_path / "b.tar", models=store.root)
    assert [(model.name, model.error_class) for model in report.left_out] == [("tiny:latest", "damaged")]


@posix
def test_of_several_second_names_the_one_that_was_spelled_goes(store: Store) -> None:
    folder = store.manifest_path(full("tiny:latest")).parent.parent
    for name in ("TINY", "Tiny", "other"):
        (folder / name).symlink_to("tiny")
    (store.manifest_path(full("tiny:latest")).parent / "q4").write_bytes(
        store.manifest_path(full("tiny:latest")).read_bytes()
    )
    with pytest.raises(ostore.UnsafeError):
        ostore.rm(["Tiny"], models=store.root)
    (folder / "tiny/q4").unlink()
    assert ostore.rm(["Tiny"], models=store.root)
    assert not (folder / "Tiny").is_symlink()
    assert (folder / "TINY").is_symlink()
    report = ostore.rm(["tiny:latest"], models=store.root)
    assert report
    assert not any(path.is_symlink() for path in folder.parent.rglob("*"))


def test_a_name_that_is_nowhere_is_told_from_one_that_is_misplaced(store: Store) -> None:
    raw = store.manifest_path(full("tiny:latest")).read_bytes()
    for path in ("manifests/library/a/latest", "manifests/library/b/latest"):
        (store.root / path).parent.mkdir(parents=True)
        (store.root / path).write_bytes(raw)
    with pytest.raises(ostore.NotFoundError, match="its manifest is at manifests/library/b/latest"):
        ostore.show("b", models=store.root)
    with pytest.raises(ostore.NotFoundError, match="no model 'c'"):
        ostore.show("c", models=store.root)
    with pytest.raises(ostore.NotFoundError, match="no model"):
        ostore.export(["c*"], "b.tar", models=store.root)
