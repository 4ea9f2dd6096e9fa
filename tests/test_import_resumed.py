"""An interrupted import goes on inside the blob that was cut. What was staged of it is hashed again with the rest."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

import ostore
from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError
from ostore.formats.manifest import Descriptor
from ostore.formats.selection import Wanted
from ostore.formats.zstd_frame import MAGIC
from ostore.places.bundle.reader import open_bundle
from ostore.streams import bytes_at, chunks
from ostore.streams.bytes_at import nothing_held
from tests.support import OSTORE, Store, noise, tree, unmeasured
from tests.test_export_resumed import MIB, Stopping

WEIGHTS = noise(40 * MIB + 777, 5)
STAGED = 25 * MIB + 11


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("models"))
    store.model("large:latest", WEIGHTS, template=b"{{ .Prompt }}")
    return store


@pytest.fixture(scope="module", params=["b.tar.zst", "b.tar"])
def bundle(request: pytest.FixtureRequest, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("bundle") / request.param
    ostore.export(["*"], path, models=store.root)
    return path


def staged(new: Path, store: Store, suffix: str, content: bytes) -> Path:
    """What a killed import has written of the weights."""
    path = new / ".ostore/tx/99999-dead" / f"{store.blob_path(WEIGHTS).name}{suffix}"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def to_read(bundle: Path, new: Path) -> int:
    """Import, and return how many bytes of blobs were read from the bundle."""
    progress = Stopping()
    ostore.import_bundle(bundle, models=new, progress=progress)
    return next(size for label, size in progress.phases if label == "importing")


@pytest.mark.parametrize("suffix", [".part", ".begun"])
def test_what_a_killed_import_has_written_of_a_blob_is_not_read_again(
    bundle: Path, store: Store, tmp_path: Path, suffix: str
) -> None:
    staged(tmp_path / "new", store, suffix, WEIGHTS[:STAGED])
    assert to_read(bundle, tmp_path / "new") < len(WEIGHTS) - STAGED + 1000
    assert tree(tmp_path / "new") == tree(store.root)
    assert not list((tmp_path / "new").glob(".ostore/tx/*"))


@pytest.mark.parametrize(
    "spoiled",
    [bytes(STAGED), WEIGHTS[: STAGED - 1] + b"\0", WEIGHTS[:5] + bytes(STAGED), noise(100, 9)],
    ids=["zeros", "its end", "nearly all", "of something else"],
)
def test_what_a_power_cut_has_spoiled_is_read_again_by_the_same_import(
    bundle: Path, store: Store, tmp_path: Path, spoiled: bytes
) -> None:
    staged(tmp_path / "new", store, ".part", spoiled)
    ostore.import_bundle(bundle, models=tmp_path / "new")
    assert tree(tmp_path / "new") == tree(store.root)
    assert not list((tmp_path / "new").glob(".ostore/tx/*"))


def test_an_import_that_is_interrupted_keeps_what_came_of_a_blob(bundle: Path, store: Store, tmp_path: Path) -> None:
    new = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt):
        ostore.import_bundle(bundle, models=new, progress=Stopping(30 * MIB))
    (begun,) = new.glob(".ostore/tx/*/*.begun")
    size = begun.stat().st_size
    assert 10 * MIB < size < len(WEIGHTS)
    assert begun.read_bytes() == WEIGHTS[:size]
    assert to_read(bundle, new) < len(WEIGHTS) - size + 1000
    assert tree(new) == tree(store.root)


def test_after_a_damaged_copy_of_a_bundle_a_good_one_goes_on(store: Store, tmp_path: Path) -> None:
    good, bad, new = tmp_path / "b.tar.zst", tmp_path / "bad.tar.zst", tmp_path / "new"
    ostore.export(["*"], good, models=store.root)
    data = bytearray(good.read_bytes())
    # The size of the fourth frame of the weights.
    data[data.rindex(MAGIC + b"\xa0\0\0\x80\0") + 7] ^= 0xC0
    bad.write_bytes(data)
    with pytest.raises(IntegrityError, match="not as the seek table says"):
        ostore.import_bundle(bad, models=new)
    assert not (new / "manifests").exists()
    assert to_read(good, new) < 20 * MIB
    assert tree(new) == tree(store.root)


def test_a_torn_bundle_is_refused_before_anything_is_read(store: Store, tmp_path: Path) -> None:
    ostore.export(["*"], tmp_path / "b.tar.zst", models=store.root)
    whole = (tmp_path / "b.tar.zst").read_bytes()
    (tmp_path / "b.tar.zst").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="truncated"):
        ostore.import_bundle(tmp_path / "b.tar.zst", models=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("start", [1, 511, 8 * MIB - 512, 8 * MIB - 511, STAGED, len(WEIGHTS) - 1])
def test_a_bundle_in_a_file_is_read_from_any_byte_of_a_blob(
    bundle: Path, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, read_at = [0], chunks.read_at

    def counted(fd: int, size: int, offset: int) -> bytes:
        data = read_at(fd, size, offset)
        read[0] += len(data)
        return data

    with open_bundle(bundle, jobs=1) as reader:
        monkeypatch.setattr(bytes_at, "read_at", counted)
        assert reader.can_resume
        wanted = Wanted(Descriptor(Digest.of(WEIGHTS), len(WEIGHTS)), start)
        ((one, rest),) = reader.read_blobs([wanted], nothing_held)
        assert one == wanted
        assert b"".join(rest) == WEIGHTS[start:]
    # At most the head, a frame with the header of the blob, and one in which the rest begins.
    assert read[0] < len(WEIGHTS) - start + 17 * MIB + 200_000


@unmeasured
def test_an_import_that_is_killed_inside_a_blob_goes_on_there(bundle: Path, store: Store, tmp_path: Path) -> None:
    new = tmp_path / "new"
    command = [*OSTORE, "import", str(bundle), "--models", str(new), "-q"]
    with subprocess.Popen(command) as process:
        while not (part := next(iter(new.glob(".ostore/tx/*/*.part")), None)) or not part.stat().st_size:
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    sizes = [path.stat().st_size for path in new.glob(".ostore/tx/*/*.part")]
    left = max([size for size in sizes if size < len(WEIGHTS)], default=0)
    assert to_read(bundle, new) <= len(WEIGHTS) - left + 1000
    assert tree(new) == tree(store.root)
