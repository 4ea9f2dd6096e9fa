"""Stores on disks unlike ext4: without hard links, owners, case or colons."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ostore
from tests.support import Store, tree
from tests.support import ostore as run

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount.exfat-fuse") is None or shutil.which("mkfs.exfat") is None,
    reason="needs root, exfat-fuse and exfatprogs",
)


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    image, folder = tmp_path / "image", tmp_path / "exfat"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    attached = subprocess.run(["losetup", "-f", "--show", image], check=False, capture_output=True, text=True)
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        mounted = subprocess.run(["mount.exfat-fuse", device, folder], check=False, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no FUSE here: {mounted.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_a_store_on_exfat_takes_models_without_hard_links(kinds: Store, exfat: Path, tmp_path: Path) -> None:
    ostore.export(["*"], tmp_path / "b.tar.zst", models=kinds.root)
    ostore.import_bundle(tmp_path / "b.tar.zst", models=exfat / "models")
    assert tree(exfat / "models") == tree(kinds.root)
    again = ostore.import_bundle(tmp_path / "b.tar.zst", models=exfat / "models")
    assert again.blobs_written == 0
    (exfat / "models/blobs" / next(iter((kinds.root / "blobs").iterdir())).name).write_bytes(b"damaged")
    assert ostore.import_bundle(tmp_path / "b.tar.zst", models=exfat / "models").blobs_repaired == 1
    assert tree(exfat / "models") == tree(kinds.root)


def test_a_blob_is_mended_on_exfat_and_the_damaged_one_kept_without_hard_links(
    kinds: Store, exfat: Path, tmp_path: Path
) -> None:
    ostore.export(["*"], tmp_path / "b.tar.zst", models=kinds.root)
    ostore.import_bundle(tmp_path / "b.tar.zst", models=exfat / "models")
    largest = max((kinds.root / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    (exfat / "models/blobs" / largest.name).write_bytes(b"damaged")
    assert ostore.repair(sources=[tmp_path / "b.tar.zst"], models=exfat / "models").verdict == "whole"
    assert tree(exfat / "models") == tree(kinds.root)
    assert [path.read_bytes() for path in (exfat / "models/.ostore/quarantine").iterdir()] == [b"damaged"]


@pytest.mark.parametrize("name", ["localhost:5000/library/x:v1", "con:latest", "aux.gguf:latest", "dot.:latest"])
def test_a_name_that_the_disk_cannot_hold_is_refused_before_anything_is_written(
    exfat: Path, tmp_path: Path, name: str
) -> None:
    store = Store(tmp_path / "models")
    store.model(name, b"weights")
    ostore.export(["*"], tmp_path / "b.tar.zst", models=store.root)
    done = run("import", tmp_path / "b.tar.zst", "--models", exfat / "models")
    assert done.returncode == 8, done.stderr
    assert not (exfat / "models" / "manifests").exists()
    # On this disk it is a name like any other.
    assert run("import", tmp_path / "b.tar.zst", "--models", tmp_path / "other").returncode == 0


def test_a_bundle_can_be_written_to_exfat(kinds: Store, exfat: Path) -> None:
    ostore.export(["*"], exfat / "b.tar.zst", models=kinds.root)
    assert ostore.verify([exfat / "b.tar.zst"])[0].verdict == "whole"


def test_doctor_knows_what_the_disk_cannot_do_and_asks_for_none_of_it(kinds: Store, exfat: Path) -> None:
    ostore.import_bundle(kinds.root, models=exfat / "models")
    found = {finding.code for finding in ostore.doctor(models=exfat / "models").findings}
    assert "disk-limited" in found
    assert found <= {"disk-limited", "low-space", "other-store", "ollama-only"}


def test_a_store_moves_to_exfat_and_back(kinds: Store, exfat: Path, tmp_path: Path) -> None:
    before = tree(kinds.root)
    shutil.copytree(kinds.root, tmp_path / "models")
    ostore.move(exfat / "models", models=tmp_path / "models")
    assert (tree(tmp_path / "models"), tree(exfat / "models")) == ({}, before)
    ostore.move(tmp_path / "models", ["tiny*"], models=exfat / "models")
    ostore.move(tmp_path / "models", models=exfat / "models")
    assert (tree(tmp_path / "models"), tree(exfat / "models")) == (before, {})
