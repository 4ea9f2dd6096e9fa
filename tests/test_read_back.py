"""With --verify-after-write, a medium that does not keep what is written is found before anything gets its name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ostore
from ostore.cli.exit_codes import CODES
from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError, UsageError
from ostore.places.bundle import journal
from ostore.places.bundle.read_back import refuse_other_blobs
from ostore.streams.read_back import BytesPastCache, opened_past_cache, refuse_other_bytes
from ostore.streams.volumes import WrittenFile
from tests import fake_stick
from tests.support import Store, noise
from tests.support import ostore as run
from tests.test_export_resumed import BLOBS, Stopping, make_store

MIB = 1024 * 1024
NAME = "x.tar.zst"
SPLIT = ("--split", "1M")


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    """A stick of 1 GiB, as it says, and of 2 MiB in truth."""
    folder = tmp_path / "stick"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root and FUSE")
    try:
        with fake_stick.plugged_in(folder, 2 * MIB):
            yield folder
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")


@pytest.fixture
def models(tmp_path: Path) -> Store:
    store = Store(tmp_path / "models")
    store.model("large:latest", noise(3 * MIB))
    store.model("small:latest", noise(MIB, 2))
    return store


def export(store: Store, *words: str | Path) -> tuple[int, str]:
    done = run("export", *words, "--models", store.root)
    return done.returncode, done.stderr


@pytest.mark.parametrize("more", [(), SPLIT])
def test_a_stick_that_is_smaller_than_it_says_is_found(stick: Path, models: Store, more: tuple[str, ...]) -> None:
    code, said = export(models, "large", stick / NAME, *more, "--verify-after-write")
    assert (code, "its medium does not give back what was written" in said) == (CODES["integrity"], True), said
    assert "holds less than it says" in said
    assert list(stick.iterdir()) == []


def test_what_fits_on_it_passes(stick: Path, models: Store) -> None:
    assert export(models, "small", stick / NAME, "--verify-after-write")[0] == 0
    assert run("verify", stick / NAME).returncode == 0


def test_without_it_nobody_would_know(stick: Path, models: Store) -> None:
    """Else the test above would prove nothing: the system takes all bytes, and gives them back from its memory."""
    assert export(models, "large", stick / NAME, *SPLIT)[0] == 0
    before = [path.read_bytes() for path in sorted(stick.glob(f"{NAME}.0*"))]
    for path in stick.glob(f"{NAME}.0*"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    after = [path.read_bytes() for path in sorted(stick.glob(f"{NAME}.0*"))]
    assert len(before) == len(after) == 4
    assert before != after


@pytest.mark.parametrize("more", [(), SPLIT])
def test_a_good_disk_passes_and_the_report_says_so(models: Store, tmp_path: Path, more: tuple[str, ...]) -> None:
    report = ostore.export(
        ["*"], tmp_path / NAME, models=models.root, verify_after_write=True, split=more[1] if more else None
    )
    assert report.read_back
    assert not ostore.export(["*"], tmp_path / "y.tar", models=models.root).read_back


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 8 * MIB, 8 * MIB + 5])
def test_a_file_of_any_size_is_read_whole(tmp_path: Path, size: int) -> None:
    path, content = tmp_path / "file", noise(size)
    path.write_bytes(content)
    seen: list[int] = []
    refuse_other_bytes(path, WrittenFile(size, Digest.of(content)), advance=seen.append)
    assert sum(seen) == size
    with pytest.raises(IntegrityError, match=f"expected {Digest.of(b'x')} of 1 bytes, got sha256:"):
        refuse_other_bytes(path, WrittenFile(1, Digest.of(b"x")))


@pytest.mark.parametrize("destination", ["out/", "-"])
def test_only_a_bundle_file_can_be_read_back(models: Store, tmp_path: Path, destination: str) -> None:
    with pytest.raises(UsageError, match=r"verify-after-write: .* is no file"):
        ostore.export(["*"], destination, models=models.root, verify_after_write=True)


def begun(store: Store, target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Begin an export, and return its unfinished file, which has the first 20 MiB."""
    monkeypatch.setattr(journal, "EVERY_BYTES", 1)
    with pytest.raises(KeyboardInterrupt):
        ostore.export(["*"], target, models=store.root, progress=Stopping(45 * MIB), jobs=1)
    return target.with_name(f"{target.name}.part")


@pytest.mark.parametrize("name", [NAME, "x.tar"])
def test_what_an_earlier_command_has_written_is_read_back_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """All of it comes past the cache, as what is written at once does."""
    read = set[int]()
    read_at = BytesPastCache.read_at

    def seen(file: BytesPastCache, size: int, offset: int) -> bytes:
        read.update(range(offset // MIB, (offset + size) // MIB + 1))
        return read_at(file, size, offset)

    monkeypatch.setattr(BytesPastCache, "read_at", seen)
    models, target, progress = make_store(tmp_path / "models"), tmp_path / name, Stopping()
    begun(models, target, monkeypatch)
    report = ostore.export(["*"], target, models=models.root, verify_after_write=True, progress=progress)
    assert report.read_back
    assert [label for label, _ in progress.phases] == ["written before", "exporting", "reading back"]
    assert read >= set(range(69))


@pytest.mark.parametrize("name", [NAME, "x.tar"])
def test_a_blob_of_an_earlier_command_that_is_damaged_since_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    models = make_store(tmp_path / "models")
    part = begun(models, tmp_path / name, monkeypatch)
    content = bytearray(part.read_bytes())
    content[content.index(BLOBS[0][:100]) + MIB] ^= 1
    part.write_bytes(content)
    with pytest.raises(IntegrityError, match="its medium does not give back what was written"):
        ostore.export(["*"], tmp_path / name, models=models.root, verify_after_write=True)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_bundle_that_begins_with_other_bytes_is_not_what_was_written(models: Store, tmp_path: Path) -> None:
    ostore.export(["*"], tmp_path / NAME, models=models.root)
    with pytest.raises(IntegrityError, match="its first bytes are others"):
        refuse_other_blobs(tmp_path / NAME, b"other", jobs=1)


@pytest.mark.parametrize("size", [0, 1, 4096, 10_000])
def test_any_bytes_can_be_read_past_the_cache(tmp_path: Path, size: int) -> None:
    path, content = tmp_path / "file", noise(size)
    path.write_bytes(content)
    with opened_past_cache(path) as fd:
        file = BytesPastCache(fd, path)
        for offset in (0, 1, 4095, 4096, 8191, 9999, 10_000, 20_000):
            for wanted in (0, 1, 4096, 4097, 20_000):
                assert file.read_at(wanted, offset) == content[offset : offset + wanted]
        file.refuse_changes()
