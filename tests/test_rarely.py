"""What a store or a file is only for a moment, or on few machines, is met here on purpose."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

import ostore
from ostore.formats import zstd_frame
from ostore.formats.errors import FormatError, NotFoundError
from ostore.formats.unreadable import ClosedFolder
from ostore.host.discovery import doubts_of_setting, find_store, other_stores
from ostore.places.bundle import foreign
from ostore.places.store import carrying
from ostore.places.store import store as module
from ostore.places.store.removing.full_disk import _is_unchanged
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.census import FoundEntry, take_census
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.streams.durable import Directory
from tests.support import Store, later, noise, sha256
from tests.test_discovery import machine

AGE = b"age-encryption.org/v1\n"


def test_a_file_that_age_has_encrypted_is_decrypted_in_a_pipe() -> None:
    told = foreign.explained(FormatError("x"), AGE, Path("/media/a b.age"))
    assert str(told.hint) == "age -d '/media/a b.age' | ostore import -"
    assert "age -d" in str(foreign.explained(FormatError("x"), AGE, None).hint)


def test_an_unfinished_bundle_says_so() -> None:
    told = foreign.explained(FormatError("x"), b"", Path("b.tar.zst.part"))
    assert str(told.hint) == "an export has not finished it; run that export again"


def test_a_damaged_frame_of_ours_stays_ours(store: Store, tmp_path: Path) -> None:
    store.model("big:latest", noise(50_000))
    ostore.export(["*"], tmp_path / "b.tar.zst", models=store.root)
    data = (tmp_path / "b.tar.zst").read_bytes()
    span = zstd_frame.measure_frame(data)
    assert span is not None
    frame = bytearray(data[: span.size])
    assert foreign._is_ours(bytes(frame))
    frame[-10] ^= 0xFF
    assert foreign._is_ours(bytes(frame))


def test_a_config_that_goes_meanwhile_has_no_remark(store: Store) -> None:
    place = LocalStore(store.root)
    model = place.scan(["tiny"]).models[0]
    assert model.manifest.config is not None
    (store.root / "blobs" / model.manifest.config.digest.filename).unlink()
    assert carrying._config_remark(place, model) == ""


def test_a_link_on_a_full_disk_is_compared_by_its_own_status(store: Store) -> None:
    (store.root / "blobs" / f"sha256-{sha256(b'link')}").symlink_to("/nowhere")
    (link,) = [blob for blob in take_census(store.root).blobs if blob.digest.hex == sha256(b"link")]
    found = FoundEntry(link.filename, link.facts)
    with Directory.open(store.root / "blobs") as blobs, contextlib.ExitStack() as opened:
        assert _is_unchanged(blobs, found, float("inf"), opened)
        (store.root / "blobs" / link.filename).unlink()
        assert not _is_unchanged(blobs, found, float("inf"), opened)


def test_a_link_comes_back_from_the_trash_as_it_was(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"linked")
    link = store.root / "blobs" / f"sha256-{sha256(b'linked')}"
    link.symlink_to(tmp_path / "elsewhere")
    with later(2):
        ostore.gc(grace=0, keep=1e9, models=store.root)
        assert not link.is_symlink()
        ostore.restore(models=store.root)
    assert link.readlink() == tmp_path / "elsewhere"


def test_on_windows_no_store_is_looked_for_where_linux_has_them(tmp_path: Path) -> None:
    found = machine(tmp_path, platform="win32")
    assert other_stores(found, find_store(found, None)) == ()


def test_a_sweep_without_blobs_has_nothing_to_put_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "models/manifests").mkdir(parents=True)
    with LocalStore(tmp_path / "models").sweeping() as sweep:
        sweep._sync_blobs()
    assert not (tmp_path / "models/blobs").exists()


def test_nothing_is_doubtful_about_a_setting_that_is_empty() -> None:
    assert doubts_of_setting("", "linux") == ()


def test_a_folder_that_cannot_have_the_model_is_not_why_it_is_absent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.root / "manifests/hf.co").mkdir()
    tree = find_manifests(store.root)
    closed = PermissionError(13, "Permission denied", "hf.co")
    tree.closed.append(ClosedFolder("manifests/hf.co", "Permission denied", closed))
    monkeypatch.setattr(module, "find_manifests", lambda _root: tree)
    assert isinstance(LocalStore(store.root).no_model("nobody"), NotFoundError)
    assert LocalStore(store.root).no_model("hf.co/x/y:z") is closed
