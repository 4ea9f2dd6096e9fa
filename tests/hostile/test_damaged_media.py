"""
Damage bundles of the sizes that people carry, with any flipped bit and any cut, and a large bundle too.

A command takes milliseconds, so half a million flips cannot all go through `import`. All go through the reader that
import uses. Those that the reader accepts, and some others, also go through the command.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import ostore
from ostore.cli.main import run
from ostore.formats.errors import OstoreError, TruncatedError
from ostore.formats.selection import Wanted
from ostore.places.bundle import reader as bundle_reader
from ostore.places.bundle.reader import BundleReader, open_bundle, open_piped_bundle
from ostore.streams.bytes_at import FileBytes, PipeBytes, nothing_held
from ostore.streams.verified import verified
from tests.hostile.rows import DONE
from tests.hostile.test_bit_flips import REFUSED, assert_refused_or_identical, attempt, clear, flipped
from tests.support import TORTURE, Store, noise, some

PARTS = 16
MIB = 1024 * 1024
BIG_BYTES = (200 if TORTURE else 9) * MIB
BIG_FLIPS = 1000 if TORTURE else 12


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An exported bundle of about 64 KiB, most of it bytes that do not compress."""
    path = tmp_path_factory.mktemp("medium")
    store = Store(path / "models")
    store.model("tiny:latest", noise(20_000), template=b"{{ .Prompt }}", license=b"MIT " * 300)
    store.model("tiny:q4", noise(24_500, 2), system=b"Say hi!")
    ostore.export(["*"], path / "b.tar.zst", models=store.root)
    data = (path / "b.tar.zst").read_bytes()
    assert 60_000 < len(data) < 72_000
    return data


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle of several frames, on a disk and not in memory; blobs of the sizes that models have."""
    path = tmp_path_factory.mktemp("big")
    store = Store(path / "models")
    store.model("large:latest", noise(BIG_BYTES * 3 // 4), projector=noise(BIG_BYTES // 8, 2), license=b"MIT " * 300)
    store.model("small:latest", noise(BIG_BYTES // 8, 3), template=b"{{ .Prompt }}")
    ostore.export(["*"], path / "b.tar.zst", models=store.root)
    for blob in (store.root / "blobs").iterdir():
        blob.unlink()
    yield path / "b.tar.zst"
    (path / "b.tar.zst").unlink()


def everything(reader: BundleReader) -> str:
    """Read as import does, to the last byte; the digest of all that it would publish."""
    found = hashlib.sha256()
    selection = reader.select([])
    for wanted, chunks in reader.read_blobs([Wanted(blob) for blob in selection.blobs], nothing_held):
        for chunk in verified(chunks, wanted.blob):
            found.update(chunk)
    for name, raw in reader.read_manifests(selection.models):
        found.update(name.full.encode() + raw)
    return found.hexdigest()


def read(path: Path) -> str:
    with open_bundle(path, jobs=1) as reader:
        return everything(reader)


def read_piped(data: bytes) -> str:
    fd = os.memfd_create("bundle")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        with open_piped_bundle(PipeBytes(fd), jobs=1) as reader:
            return everything(reader)
    finally:
        os.close(fd)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_bit_of_a_bundle_of_64_kib_flipped_is_refused_or_harmless(
    tmp_path: Path, medium: bytes, part: int
) -> None:
    code, _, good = attempt(tmp_path, medium)
    assert code == DONE
    clear(tmp_path)
    path = tmp_path / "b.tar.zst"
    path.write_bytes(medium)
    content = read(path)
    bits = range(part, 8 * len(medium), PARTS)
    for number, bit in enumerate(some(bits, 60, part)):
        data = flipped(medium, bit)
        path.write_bytes(data)
        try:
            assert read(path) == content, bit
        except OstoreError:
            is_read = False
        else:
            is_read = True
        if is_read or number % 50 == 0:
            code = assert_refused_or_identical(tmp_path, data, good, "b.tar.zst", bit)
            assert (code == DONE) == is_read, bit


@pytest.mark.parametrize("part", range(PARTS))
def test_a_bundle_of_64_kib_cut_at_any_byte_is_refused_as_truncated(tmp_path: Path, medium: bytes, part: int) -> None:
    path = tmp_path / "b.tar.zst"
    cuts = range(1 + part, len(medium), PARTS)
    for cut in some(cuts, 20, part):
        path.write_bytes(medium[:cut])
        with pytest.raises(TruncatedError, match=f"truncated at byte {cut}$"):
            read(path)
        with pytest.raises(TruncatedError):
            read_piped(medium[:cut])


def verdict(path: Path) -> int:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return run(["verify", str(path), "--progress=none", "-j1"])


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0] ^ 1 << bit % 8
        file.seek(bit // 8)
        file.write(bytes([byte]))


def test_random_bits_of_a_large_bundle_flipped_are_found(big: Path) -> None:
    assert verdict(big) == DONE
    content = read(big)
    size = 8 * big.stat().st_size
    for bit in random.Random(7).sample(range(size), BIG_FLIPS):
        flip(big, bit)
        code = verdict(big)
        assert code in {DONE, *REFUSED}, bit
        if code == DONE:
            assert read(big) == content, bit
        flip(big, bit)
    assert verdict(big) == DONE


def test_a_flipped_bit_of_a_large_bundle_leaves_no_model_in_a_store(big: Path) -> None:
    store = big.parent / "new"
    for bit in random.Random(8).sample(range(8 * big.stat().st_size), 8 if TORTURE else 2):
        flip(big, bit)
        assert taken(big, store) in REFUSED, bit
        flip(big, bit)
        assert not [path for path in (store / "manifests").rglob("*") if path.is_file()]
        # A second try would find there what was whole, and not read it again.
        shutil.rmtree(store)
    assert taken(big, store) == DONE
    assert run(["verify", "--models", str(store), "--progress=none", "-q"]) == DONE
    shutil.rmtree(store)


def taken(bundle: Path, store: Path) -> int:
    return run(["import", str(bundle), "--models", str(store), "--progress=none", "-q"])


class FirstBytes(FileBytes):
    """A file as if it had been cut."""

    def __init__(self, fd: int, path: Path, length: int) -> None:
        super().__init__(fd, path)
        self._length = length

    @property
    def size(self) -> int:
        return self._length

    def read_at(self, size: int, offset: int) -> bytes:
        return super().read_at(min(size, max(0, self._length - offset)), offset)


def test_a_large_bundle_cut_at_any_512_bytes_is_refused(big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cut bundle ends in a seek table, which is checked first. Some are also read, to learn where they were cut."""
    cuts = range(512, big.stat().st_size, 512)
    explained = set(random.Random(9).sample(cuts, 200 if TORTURE else 10))
    with big.open("rb") as file, monkeypatch.context() as patch:
        patch.setattr(bundle_reader, "_explain_end", lambda source: None)
        for cut in cuts:
            with pytest.raises(ostore.IntegrityError, match="seek table"):
                bundle_reader._read_seek_table(FirstBytes(file.fileno(), big, cut))
    short = big.with_name("short.tar.zst")
    shutil.copyfile(big, short)
    for cut in sorted(explained, reverse=True):
        os.truncate(short, cut)
        with pytest.raises(TruncatedError, match=f"truncated at byte {cut}$"):
            read(short)
    short.unlink()
