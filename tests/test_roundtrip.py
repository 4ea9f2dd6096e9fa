"""The main job: models of every kind leave one store and arrive in another, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import indexed_zstd
import pytest
import pyzstd
import zstandard

import ostore
from tests.support import OSTORE, Store, noise, tree
from tests.support import ostore as run

needs = {tool: pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed") for tool in (
    "zstd", "tar", "bsdtar", "busybox", "sha256sum",
)}  # fmt: skip


@pytest.fixture(scope="module", params=["NAME.tar.zst", "NAME.tar"])
def bundle(request: pytest.FixtureRequest, kinds: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("bundle") / request.param
    ostore.export(["*"], path, models=kinds.root)
    return path


def tar_stream(bundle: Path) -> bytes:
    data = bundle.read_bytes()
    if bundle.suffix == ".tar":
        return data
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read()


def test_every_kind_of_model_arrives_byte_for_byte_with_an_empty_path(kinds: Store, tmp_path: Path) -> None:
    bundle, nowhere = tmp_path / "all.tar.zst", {"PATH": str(tmp_path / "empty")}
    done = run("export", "--all", bundle, "--models", kinds.root, environment=nowhere)
    assert done.returncode == 0, done.stderr
    done = run("import", bundle, "--models", tmp_path / "other", environment=nowhere)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "other") == tree(kinds.root)


def test_a_bundle_holds_each_digest_once_and_manifests_last(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "stream.tar").write_bytes(tar_stream(bundle))
    with tarfile.open(tmp_path / "stream.tar") as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names[:4] == ["ostore/bundle.json", "ostore/SHA256SUMS", "ostore/RESTORE.txt", "ostore/restore.py"]
    assert max(Counter(names).values()) == 1
    folders = [name.split("/")[0] for name in names]
    assert folders == sorted(folders, key=["ostore", "blobs", "manifests"].index)
    assert {(member.mode, member.uid, member.gid, member.mtime, member.uname) for member in members} == {
        (0o644, 0, 0, 0, "")
    }


def test_the_same_models_give_the_same_bytes_whatever_the_threads(kinds: Store, tmp_path: Path) -> None:
    bundles = []
    for jobs in (1, 2, 4):
        path = tmp_path / f"{jobs}.tar.zst"
        ostore.export(["sees", "tiny:*"] if jobs == 2 else ["tiny:*", "sees"], path, models=kinds.root, jobs=jobs)
        bundles.append(path.read_bytes())
    assert bundles[0] == bundles[1] == bundles[2]


@pytest.mark.parametrize("level", ["1", "3", "19"])
def test_every_level_gives_a_bundle_that_verifies(kinds: Store, tmp_path: Path, level: str) -> None:
    bundle = tmp_path / "b.tar.zst"
    ostore.export(["someone/custom", "tiny"], bundle, level=int(level), models=kinds.root)
    assert ostore.verify([bundle])[0].verdict == "whole"


def test_a_bundle_goes_through_a_pipe(kinds: Store, tmp_path: Path) -> None:
    writing = [*OSTORE, "export", "--all", "-", "--models", str(kinds.root)]
    with subprocess.Popen(writing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as exported:
        reading = [*OSTORE, "import", "-", "--models", str(tmp_path / "other")]
        done = subprocess.run(reading, stdin=exported.stdout, check=False, capture_output=True, text=True)
    assert (done.returncode, exported.returncode) == (0, 0), done.stderr
    assert tree(tmp_path / "other") == tree(kinds.root)


def test_a_plain_bundle_goes_through_a_pipe(kinds: Store, tmp_path: Path) -> None:
    ostore.export(["*"], tmp_path / "b.tar", models=kinds.root)
    with (tmp_path / "b.tar").open("rb") as piped:
        done = subprocess.run(
            [*OSTORE, "import", "-", "--models", tmp_path / "other"],
            stdin=piped, check=False, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "other") == tree(kinds.root)


@pytest.mark.parametrize(
    "tar",
    [
        pytest.param("tar", marks=[needs["tar"], needs["zstd"], needs["sha256sum"]]),
        pytest.param("bsdtar", marks=[needs["bsdtar"], needs["zstd"], needs["sha256sum"]]),
        pytest.param("busybox tar", marks=[needs["busybox"], needs["sha256sum"]]),
    ],
)
def test_the_lines_of_restore_txt_restore_a_whole_store(tar: str, bundle: Path, kinds: Store, tmp_path: Path) -> None:
    lines = restore_lines(kinds, tmp_path)
    start = next(number for number, line in enumerate(lines) if line.startswith("mkdir"))
    kind = bundle.name.removeprefix("NAME")
    steps = [line for line in lines[start:] if "# a bundle named" not in line or line.endswith(f"named {kind}")]
    (tmp_path / "bin").mkdir()
    program, _, applet = tar.partition(" ")
    (tmp_path / "bin" / "tar").write_text(f'#!/bin/sh\nexec {shutil.which(program)} {applet} "$@"\n')
    (tmp_path / "bin" / "tar").chmod(0o755)
    done = run_lines(steps, bundle, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == len(tree_files(kinds.root))
    assert ostore.verify(models=tmp_path / "other")[0].verdict == "whole"
    assert {path: what for path, what in tree(tmp_path / "other").items() if not path.startswith("ostore")} == tree(
        kinds.root
    )


@needs["zstd"]
def test_the_restore_script_of_a_bundle_imports_with_a_bare_python(bundle: Path, kinds: Store, tmp_path: Path) -> None:
    lines = restore_lines(kinds, tmp_path)
    kind = bundle.name.removeprefix("NAME")
    steps = [line for line in lines if "restore.py >" in line and line.endswith(f"named {kind}")]
    steps += [line for line in lines if line.startswith("python3 restore.py")]
    assert len(steps) == 2
    (tmp_path / "bin").mkdir()
    # -S -I: nothing of any site-packages, nothing of the environment.
    (tmp_path / "bin" / "python3").write_text(f'#!/bin/sh\nexec {os.path.realpath("/proc/self/exe")} -S -I "$@"\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    done = run_lines(steps, bundle, tmp_path)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "other") == tree(kinds.root)


def test_the_seek_table_serves_other_readers(kinds: Store, tmp_path: Path) -> None:
    bundle = tmp_path / "b.tar.zst"
    ostore.export(["sees", "someone/custom"], bundle, models=kinds.root)
    whole = tar_stream(bundle)
    offsets = [0, 512, 1_000_000, 8_400_000, len(whole) - 1024]
    with pyzstd.SeekableZstdFile(bundle, "r") as reader:
        for offset in offsets:
            reader.seek(offset)
            assert reader.read(700) == whole[offset : offset + 700]
    indexed = indexed_zstd.IndexedZstdFile(str(bundle))
    for offset in offsets:
        indexed.seek(offset)
        assert indexed.read(700) == whole[offset : offset + 700]


@needs["zstd"]
def test_zstd_lists_the_frames_of_a_bundle(kinds: Store, tmp_path: Path) -> None:
    bundle = tmp_path / "b.tar.zst"
    ostore.export(["sees"], bundle, models=kinds.root)
    listing = subprocess.run(["zstd", "-lv", bundle], check=True, capture_output=True, text=True).stdout
    # The head, the config, 9 MB of weights in two frames, the projector, the end.
    assert "# Zstandard Frames: 6" in listing
    assert "# Skippable Frames: 1" in listing
    subprocess.run(["zstd", "-tq", bundle], check=True)


def test_one_model_of_many_is_read_without_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    for number in range(20):
        store.model(f"m{number}:latest", noise(1_000_000, 50 + number))
    bundle = tmp_path / "b.tar.zst"
    ostore.export(["*"], bundle, models=store.root)
    trace = tmp_path / "trace"
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=pread64", "-o", trace, *OSTORE,
         "import", bundle, "--model", "m7", "--models", tmp_path / "other"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read = sum(
        int(line.rpartition("= ")[2])
        for line in trace.read_text().splitlines()
        if "pread64" in line and '"(\\265/' in line
    )
    assert read < 1.05 * 1_000_000 + 100_000
    assert [path.name for path in (tmp_path / "other/manifests/registry.ollama.ai/library").iterdir()] == ["m7"]


def restore_lines(kinds: Store, tmp_path: Path) -> list[str]:
    """The commands of RESTORE.txt as a bundle carries them, in order."""
    bundle = tmp_path / "some.tar"
    ostore.export(["tiny"], bundle, models=kinds.root)
    with tarfile.open(bundle) as archive:
        member = archive.extractfile("ostore/RESTORE.txt")
        assert member is not None
        text = member.read().decode()
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def run_lines(lines: list[str], bundle: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "BUNDLE": str(bundle),
        "OLLAMA_MODELS": str(tmp_path / "other"),
    }
    script = "\n".join(["set -e", *lines])
    return subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )


def tree_files(root: Path) -> list[str]:
    return [path for path, what in tree(root).items() if what != "folder"]


def test_names_are_looked_up_without_regard_to_case(kinds: Store, tmp_path: Path) -> None:
    report = ostore.export(["TINY:Q4"], tmp_path / "b.tar.zst", models=kinds.root)
    assert report.models == ("tiny:q4",)
    assert ostore.inspect(tmp_path / "b.tar.zst").models[0].name == "tiny:q4"


def test_a_folder_is_a_bundle_too(kinds: Store, tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    ostore.export(["*"], f"{tmp_path / 'usb'}/", models=kinds.root)
    assert tree(tmp_path / "usb") == tree(kinds.root)
    ostore.import_bundle(tmp_path / "usb", models=tmp_path / "other")
    assert tree(tmp_path / "other") == tree(kinds.root)


def test_a_name_of_more_than_100_bytes_survives(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.model(f"hf.co/{'u' * 80}/{'m' * 80}:{'t' * 80}", b"weights")
    ostore.export(["*"], tmp_path / "b.tar.zst", models=store.root)
    ostore.import_bundle(tmp_path / "b.tar.zst", models=tmp_path / "other")
    assert tree(tmp_path / "other") == tree(store.root)
