"""Bundles that leave out blobs which the target has: where their manifests are, and every way to restore them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from ostore.formats.digest import Digest
from ostore.operations.transfer import copy
from ostore.places.bundle.writer import BundleFile
from ostore.places.store.store import LocalStore
from ostore.streams.progress import SILENT
from tests.support import Store, noise, sha256, tree
from tests.support import ostore as run

WEIGHTS = noise(300_000, 71)
MEMBER = "ostore/manifests/registry.ollama.ai/library/tiny/new"
needs_tar = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs GNU tar and sha256sum")


@pytest.fixture(params=["b.tar", "b.tar.zst"])
def delta(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Two models: `tiny:new` needs weights that are left out, `whole` needs nothing else."""
    store = Store(tmp_path / "models")
    store.model("tiny:old", WEIGHTS)
    store.model("tiny:new", WEIGHTS, template=b"{{ .Prompt }}")
    store.model("whole:latest", noise(50_000, 72), template=b"{{ .Prompt }}")
    local = LocalStore(store.root)
    selection = local.select(["tiny:new", "whole"])
    known = Digest.parse(f"sha256:{sha256(WEIGHTS)}")
    left_out = tuple(blob for blob in selection.blobs if blob.digest == known)
    held = tuple(blob for blob in selection.blobs if blob.digest != known)
    path = tmp_path / str(request.param)
    sink = BundleFile(path, level=None, jobs=2, replace=False)
    copy(local, sink, replace(selection, blobs=held, requires=left_out), phase="exporting", progress=SILENT)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Store:
    """A store that has the weights already."""
    store = Store(tmp_path / "target")
    store.model("tiny:old", WEIGHTS)
    return store


def unpacked(delta: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    archive = delta.read_bytes()
    if delta.suffix == ".zst":
        archive = subprocess.run(["zstd", "-dc", delta], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-xmof", "-", "-C", folder], input=archive, check=True)


def instructions(folder: Path) -> list[str]:
    lines = (folder / "ostore/RESTORE.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.startswith("    ")]


@needs_tar
def test_tar_lists_no_model_that_needs_blobs_from_elsewhere(delta: Path, tmp_path: Path) -> None:
    unpacked(delta, tmp_path / "empty")
    listed = run("list", "--models", tmp_path / "empty", "-q")
    assert (listed.returncode, listed.stdout) == (0, "whole:latest\n")
    assert (tmp_path / "empty" / MEMBER).is_file()


@needs_tar
@pytest.mark.parametrize("has_basis", [True, False])
def test_the_commands_in_the_bundle_publish_only_what_is_whole(
    delta: Path, target: Store, has_basis: bool, tmp_path: Path
) -> None:
    unpacked(delta, tmp_path / "look")
    tar = [line for line in instructions(tmp_path / "look") if line.startswith(("tar -xmof", "zstd -dc", "cd "))]
    lines = [line for line in tar if "restore.py" not in line and line.startswith(("cd", _unpacker(delta)))]
    if not has_basis:
        target.blob_path(WEIGHTS).unlink()
    done = subprocess.run(
        ["sh", "-ec", "\n".join(lines)],
        env={"PATH": os.environ["PATH"], "BUNDLE": str(delta), "OLLAMA_MODELS": str(target.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is has_basis, done.stderr
    assert target.manifest_path("registry.ollama.ai/library/tiny:new").exists() is has_basis
    assert (target.root / "ostore").exists() is not has_basis
    if has_basis:
        assert run("verify", "--models", target.root).returncode == 0


@pytest.mark.parametrize("has_basis", [True, False])
@pytest.mark.parametrize("program", ["ostore", "restore.py"])
def test_each_importer_asks_for_the_basis_first(delta: Path, target: Store, program: str, has_basis: bool) -> None:
    if not has_basis:
        target.blob_path(WEIGHTS).unlink()
    before = tree(target.root)
    if program == "ostore":
        done = run("import", delta, "--models", target.root)
    else:
        script = Path(__file__).parent.parent / "ostore/places/bundle/restore.py"
        argv = [sys.executable, "-I", str(script), str(delta), "--models", str(target.root)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if has_basis else 3), done.stderr
    if has_basis:
        assert run("verify", "--models", target.root).returncode == 0
        assert target.manifest_path("registry.ollama.ai/library/tiny:new").exists()
    else:
        assert tree(target.root) == before
        assert f"sha256:{sha256(WEIGHTS)}" in done.stderr


def test_the_sums_name_what_the_store_must_have(delta: Path) -> None:
    if delta.suffix == ".tar":
        with tarfile.open(delta) as archive:
            member = archive.extractfile("ostore/SHA256SUMS")
            assert member is not None
            lines = member.read().decode().splitlines()
            names = archive.getnames()
        assert f"{sha256(WEIGHTS)}  blobs/sha256-{sha256(WEIGHTS)}" in lines
        assert f"blobs/sha256-{sha256(WEIGHTS)}" not in names
        assert (
            [line.split("  ")[1] for line in lines][-2:]
            == names[-2:]
            == [
                MEMBER,
                "manifests/registry.ollama.ai/library/whole/latest",
            ]
        )
    assert run("verify", delta).returncode == 0


def _unpacker(delta: Path) -> str:
    return "zstd" if delta.suffix == ".zst" else "tar"
