"""A blob that cannot be read, or is another than its name says, while recipes are looked for: what becomes of it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

import ostore
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError
from ostore.streams.bytes_at import FileBytes
from ostore.streams.open_blobs import OpenBlobs
from tests.recipes import OLD, digest_of, two_releases, weights
from tests.support import Store, sha256, tree
from tests.support import ostore as run

BAD, FIVE = weights(seed=9), weights(seed=5)
# They have one size, so the file of one can be taken for the other.
assert len(FIVE) == len(OLD)


@pytest.fixture
def near(tmp_path: Path) -> Store:
    """Two releases, and a model that shares nothing with them."""
    store = two_releases(tmp_path / "near")
    store.model("bad:x", BAD)
    return store


@pytest.fixture
def far(tmp_path: Path) -> Store:
    store = Store(tmp_path / "far")
    store.model("tiny:old", OLD)
    return store


class Phases:
    """A progress that keeps the names of the phases, and does something when one begins."""

    def __init__(self, **acts: Callable[[], object]) -> None:
        self.seen: list[str] = []
        self._acts = acts

    def phase(self, label: str, _total_bytes: int) -> None:
        self.seen.append(label)
        self._acts.pop(label, lambda: None)()

    def begin(self, _item: str, _size: int) -> None:
        pass

    def advance(self, _item: str, _size: int) -> None:
        pass

    def end(self, _item: str) -> None:
        pass


@pytest.fixture(params=["opened", "read"])
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Makes a blob fail when its file is opened or read. No disk fails on demand, and root may open every file."""
    open_file, read_at = OpenBlobs.file, FileBytes.read_at

    def fail(data: bytes) -> None:
        def opened(self: OpenBlobs, digest: Digest) -> FileBytes:
            if digest == digest_of(data):
                raise PermissionError(errno.EACCES, "denied", str(digest))
            return open_file(self, digest)

        def read(self: FileBytes, size: int, offset: int) -> bytes:
            if sha256(data) in str(self._path):
                raise OSError(errno.EIO, "input/output error", str(self._path))
            return read_at(self, size, offset)

        if request.param == "opened":
            monkeypatch.setattr(OpenBlobs, "file", opened)
        else:
            monkeypatch.setattr(FileBytes, "read_at", read)

    return fail


@pytest.mark.parametrize("shares", [False, True])
def test_a_blob_that_cannot_be_read_leaves_out_its_models(
    near: Store, far: Store, tmp_path: Path, failing: Callable[[bytes], None], shares: bool
) -> None:
    failing(BAD)
    how = {"share_tensors": True} if shares else {"have": [far.root]}
    report = ostore.export(["*"], tmp_path / "b.tar", models=near.root, **how)
    assert [(one.name, one.error_class) for one in report.left_out] == [("bad:x", "io")]
    assert (len(report.models), report.recipes) == (2, 1)
    with pytest.raises(OSError, match=f"{sha256(BAD)}"):
        ostore.export(["bad:x", "tiny:new"], tmp_path / "c.tar", models=near.root, **how)


def spoil(store: Store) -> None:
    """Change what is new in the release that is made of the other one."""
    path = store.blob_path(OLD)
    path.write_bytes(path.read_bytes().replace(b"message", b"massage"))


def lose(store: Store) -> None:
    store.blob_path(OLD).unlink()


@pytest.mark.parametrize("act", [spoil, lose])
def test_a_blob_that_changes_after_its_recipe_was_found_leaves_out_its_models(
    near: Store, tmp_path: Path, act: Callable[[Store], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The next blob closes the file of this one, so that it is opened again after it is lost.
    monkeypatch.setattr("ostore.streams.open_blobs._MAX_OPEN", 1)
    near.model("z:z", weights(seed=3))

    def export(names: list[str], progress: Phases) -> ostore.ExportReport:
        bundle = tmp_path / "b.tar"
        return ostore.export(names, bundle, share_tensors=True, models=near.root, progress=progress)

    progress = Phases(exporting=lambda: act(near))
    report = export(["*"], progress)
    assert [one.name for one in report.left_out] == ["tiny:old"]
    assert progress.seen == ["comparing tensors", "exporting"] * 2
    (tmp_path / "b.tar").unlink()
    near.blob_path(OLD).write_bytes(OLD)
    with pytest.raises(BlobError, match=rf"blob sha256:{sha256(OLD)}.*used by tiny:old"):
        export(["tiny:new", "tiny:old", "z:z"], Phases(exporting=lambda: act(near)))


def test_a_base_is_hashed_once_before_recipes_build_on_it(near: Store, far: Store, tmp_path: Path) -> None:
    damaged = bytearray(BAD)
    damaged[-40] ^= 1
    near.blob_path(BAD).write_bytes(damaged)
    progress = Phases()
    report = ostore.export(["*"], tmp_path / "b.tar", have=[far.root], models=near.root, progress=progress)
    assert ([one.name for one in report.left_out], report.recipes, report.warnings) == (["bad:x"], 1, ())
    first = ["comparing tensors", "verifying sha256 digest", "exporting"]
    assert progress.seen == [*first, "comparing tensors", "exporting"]


def test_nothing_builds_on_a_base_that_is_damaged_here(tmp_path: Path, far: Store) -> None:
    near = Store(tmp_path / "near")
    near.model("tiny:old", OLD)
    near.model("five:latest", weights("another template", seed=5))
    near.blob_path(OLD).write_bytes(FIVE)
    done = run("export", "five", tmp_path / "b.tar", "--have", far.root, "--models", near.root)
    assert done.returncode == 0, done.stderr
    assert f"warning: nothing builds on blob sha256:{sha256(OLD)}: its bytes have another digest" in done.stderr
    assert f"ostore verify --models {near.root} shows everything that is damaged" in done.stderr
    assert "recipe" not in done.stdout
    assert run("import", tmp_path / "b.tar", "--models", far.root).returncode == 0
    assert run("verify", "--models", far.root).returncode == 0


def test_nothing_builds_on_a_base_that_cannot_be_read(
    near: Store, far: Store, tmp_path: Path, failing: Callable[[bytes], None]
) -> None:
    failing(OLD)
    report = ostore.export(["tiny:new"], tmp_path / "b.tar", have=[far.root], models=near.root)
    assert (report.models, report.recipes) == (("tiny:new",), 0)
    assert run("import", tmp_path / "b.tar", "--models", tmp_path / "other").returncode == 3
    before = tree(far.root)
    assert run("import", tmp_path / "b.tar", "--models", far.root).returncode == 0
    assert before.items() < tree(far.root).items()
