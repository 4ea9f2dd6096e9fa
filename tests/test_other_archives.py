"""What other programs have packed is known by its bytes, and the command that the refusal offers works as typed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ostore
from ostore.formats import zstd_frame
from ostore.formats.errors import FormatError, OstoreError
from ostore.places.bundle import foreign
from tests.support import OSTORE, Store, noise
from tests.support import ostore as run

# Each: how a file is made in a folder with a store `s` and the bundles b.tar and b.tar.zst; part of the message.
ARCHIVES = {
    "zstd of a bundle": ("zstd -q b.tar -o x.tar.zst", "a bundle that zstd has compressed anew"),
    "zstd without a checksum": ("zstd -q --no-check b.tar -o x.tar.zst", "a bundle that zstd has compressed anew"),
    "zstd of a pipe": ("zstd -qc < b.tar > x.tar.zst", "a bundle that zstd has compressed anew"),
    "zstd of a large bundle": ("zstd -q --no-check large.tar -o x.tar.zst", "a bundle that zstd has compressed anew"),
    "zstd of a compressed bundle": ("zstd -q b.tar.zst -o x.zst", "a bundle that zstd has compressed anew"),
    "pzstd of a bundle": ("pzstd -q b.tar -o x.tar.zst", "a bundle that zstd has compressed anew"),
    "gzip of a bundle": ("gzip -c b.tar > x.tar.gz", "a bundle that gzip has compressed anew"),
    "gzip of a compressed bundle": ("gzip -c b.tar.zst > x.gz", "a bundle that gzip has compressed anew"),
    "xz of a bundle": ("xz -c b.tar > x.tar.xz", "a bundle that xz has compressed anew"),
    "bzip2 of a bundle": ("bzip2 -c b.tar > x.tar.bz2", "a bundle that bzip2 has compressed anew"),
    "tar of a store": ("tar -C s -cf x.tar blobs manifests", "a tar of a store"),
    "tar of a folder": ("tar -cf x.tar s", "a tar of a store"),
    "tar --zstd": ("tar -C s --zstd -cf x.tar.zst blobs manifests", "a tar of a store"),
    "tgz": ("tar -czf x.tgz s", "a tar of a store"),
    "tgz of the folder itself": ("tar -C s -czf x.tgz .", "a tar of a store"),
    "zip": ("cd s && zip -qr ../x.zip .", "a zip archive"),
    "zip of a folder": ("zip -qr x.zip s", "a zip archive"),
    "zip of a bundle": ("zip -q x.zip b.tar.zst", "a zip archive of a bundle"),
    "a name with spaces": ("zstd -qc b.tar > 'x y.tar.zst'", "a bundle that zstd has compressed anew"),
}
PROGRAMS = ("zstd", "pzstd", "xz", "bzip2", "zip", "unzip")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    store = Store(folder / "s")
    store.model("tiny:latest", noise(20_000))
    ostore.export(["tiny"], folder / "b.tar", models=store.root)
    ostore.export(["tiny"], folder / "b.tar.zst", models=store.root)
    Store(folder / "l").model("tiny:latest", noise(20_000), template=bytes(9_000_000))
    ostore.export(["tiny"], folder / "large.tar", models=folder / "l")
    (folder / "bin").mkdir()
    script = folder / "bin" / "ostore"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m ostore "$@"\n')
    script.chmod(0o755)
    return folder


def _typed(command: str, folder: Path, models: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "OLLAMA_MODELS": str(models)}
    return subprocess.run(
        ["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("make", "what"), ARCHIVES.values(), ids=ARCHIVES)
def test_what_another_program_packed_is_named_and_the_offered_command_imports_it(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: str, what: str
) -> None:
    if missing := [program for program in PROGRAMS if program in make and not shutil.which(program)]:
        pytest.skip(f"needs {missing[0]}")
    for left in [*packed.glob("x*")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    assert _typed(make, packed, tmp_path).returncode == 0
    (name,) = (path.name for path in packed.glob("x*"))
    monkeypatch.chdir(packed)
    with pytest.raises(FormatError, match=what) as caught:
        ostore.import_bundle(name, models=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert caught.value.hint
    done = _typed(str(caught.value.hint), packed, tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert [model.name for model in ostore.list_models(models=tmp_path / "new").models] == ["tiny:latest"]


@pytest.mark.parametrize(("source", "name"), [("b.tar", "x.tar.zst"), ("b.tar.zst", "x.tar"), ("b.tar", "x")])
def test_a_bundle_is_known_by_its_bytes_whatever_its_name_says(
    packed: Path, tmp_path: Path, source: str, name: str
) -> None:
    shutil.copy(packed / source, tmp_path / name)
    assert run("import", tmp_path / name, "--models", tmp_path / "new").returncode == 0


def test_a_part_of_a_bundle_says_how_to_read_all_parts(packed: Path, tmp_path: Path) -> None:
    for what in ("split -b 9000 {} b.tar.zst.", "split -b 9000 -d -a 3 {} b.tar.zst.part"):
        subprocess.run(["sh", "-ec", what.format(packed / "b.tar.zst")], cwd=tmp_path, check=True)
        first, second, *_ = sorted(tmp_path.glob("b.tar.zst.*"))
        for part in (first, second):
            with pytest.raises(OstoreError) as caught:
                ostore.inspect(part)
            lead, _, command = str(caught.value.hint).partition(": ")
            assert lead == "if it is one of several parts"
            shutil.rmtree(packed / "new", ignore_errors=True)
            done = _typed(command, packed, packed / "new")
            assert done.returncode == 0, done.stderr
        for part in tmp_path.glob("b.tar.zst.*"):
            part.unlink()


def test_a_bundle_of_ours_that_was_cut_off_is_called_truncated(packed: Path, tmp_path: Path) -> None:
    whole = (packed / "b.tar.zst").read_bytes()
    for size in range(1, len(whole), 997):
        (tmp_path / "x.tar.zst").write_bytes(whole[:size])
        with pytest.raises(ostore.IntegrityError):
            ostore.inspect(tmp_path / "x.tar.zst")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GGUF" + bytes(600), "a GGUF file"),
        (b"<!DOCTYPE html><html>" + b" " * 600, "a web page"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "a 7z archive"),
        (b"Rar!\x1a\x07\x01\0" + bytes(600), "a rar archive"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X        ", "a side file of macOS"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a pointer of Git LFS, without the file itself"),
        (bytes(600), "there are zeros where a bundle begins (the copy may have been cut off; copy the file again)"),
        (b"\x13n\xb8&\xf4" * 200, "nor anything else that is known: it begins with 13 6e b8 26 f4 13 6e b8 (if its"),
        (b"", "an empty file (the copy may have been cut off; copy the file again)"),
    ],
)
def test_other_files_are_named(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "x.tar.zst").write_bytes(data)
    done = run("import", "x.tar.zst", "--models", tmp_path / "new", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (12, 1)
    assert says in done.stderr


def test_a_pipe_in_a_hint_leads_to_the_store_that_was_named(packed: Path, tmp_path: Path) -> None:
    subprocess.run(["gzip", "-k", packed / "b.tar"], check=True)
    done = run("import", packed / "b.tar.gz", "--models", tmp_path / "new")
    line = f"gzip -dc {packed}/b.tar.gz | ostore import - --models {tmp_path}/new"
    assert (done.returncode, done.stderr.endswith(f"({line})\n")) == (12, True), done.stderr
    with (packed / "b.tar.gz").open("rb") as piped:
        command = [*OSTORE, "import", "-", "--models", str(tmp_path / "new")]
        done = subprocess.run(command, stdin=piped, capture_output=True, text=True, check=False)
    assert done.stderr.endswith("(put gzip -dc in the pipe, before this command)\n")
    done = run("import", packed / "b.tar.gz", "--models", tmp_path / "new", "--json")
    assert json.loads(done.stderr)["remedy_arguments"] == [["sh", "-c", line]]


@pytest.mark.usefixtures("_process_as_before")
@pytest.mark.parametrize("size", [1, 9216, 1024 * 1024])
def test_a_padded_tar_is_read_by_ostore_and_by_the_script_in_it(packed: Path, tmp_path: Path, size: int) -> None:
    from ostore.places.bundle import restore

    padded = tmp_path / "b.tar"
    padded.write_bytes((packed / "b.tar").read_bytes() + bytes(size))
    assert [report.verdict for report in ostore.verify([padded])] == ["whole"]
    assert restore.main([str(padded), "--verify-only"]) == 0
    padded.write_bytes(padded.read_bytes() + b"\1")
    with pytest.raises(FormatError, match="bytes after the end"):
        ostore.verify([padded])
    assert restore.main([str(padded), "--verify-only"]) == 12


def test_a_file_that_age_has_encrypted_is_decrypted_in_a_pipe() -> None:
    told = foreign.explained(FormatError("x"), b"age-encryption.org/v1\n", Path("/media/a b.age"))
    assert str(told.hint) == "age -d '/media/a b.age' | ostore import -"
    assert "age -d" in str(foreign.explained(FormatError("x"), b"age-encryption.org/v1\n", None).hint)


def test_an_unfinished_bundle_says_so() -> None:
    told = foreign.explained(FormatError("x"), b"", Path("b.tar.zst.part"))
    assert str(told.hint) == "an export has not finished it; run that export again, and it goes on from there"


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
