"""A reader takes only what is asked for from a bundle, and only what the bundle's index lists, in order."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

import ostore
from ostore.formats.selection import Wanted
from ostore.places.bundle.reader import open_bundle
from ostore.streams import bytes_at
from ostore.streams.bytes_at import nothing_held
from ostore.streams.chunks import read_at
from tests.hostile.forge import Bundle, compressed, framed, member, tar
from tests.support import OSTORE, Store, noise


@pytest.fixture
def bundle(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "b.tar.zst"
    ostore.export(["*"], path, models=store.root)
    return path


@pytest.mark.parametrize("is_piped", [False, True], ids=["file", "pipe"])
def test_of_several_models_only_the_chosen_one_is_taken(bundle: Path, tmp_path: Path, is_piped: bool) -> None:
    source, content = ("-", bundle.read_bytes()) if is_piped else (str(bundle), b"")
    command = [*OSTORE, "import", source, "--model", "tiny:q4", "--models", str(tmp_path / "new")]
    done = subprocess.run(command, input=content, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [row.name for row in ostore.list_models(models=tmp_path / "new").models] == ["tiny:q4"]
    assert ostore.verify(models=tmp_path / "new")[0].blobs == 3


def test_signatures_of_a_later_ostore_are_passed_over(tmp_path: Path) -> None:
    parts = Bundle().parts()
    parts.insert(1, member("ostore/bundle.json.sig", b"a signature\n"))
    (tmp_path / "b.tar.zst").write_bytes(compressed(tar(parts)))
    assert [model.name for model in ostore.import_bundle(tmp_path / "b.tar.zst", models=tmp_path / "new").models] == [
        "tiny:latest"
    ]


def test_a_stream_that_is_used_after_the_next_one_is_a_mistake_of_the_caller(bundle: Path) -> None:
    with open_bundle(bundle, jobs=1) as reader:
        selection = reader.select(())
        streams = reader.read_blobs([Wanted(blob) for blob in selection.blobs], nothing_held)
        _, first = next(streams)
        _, second = next(streams)
        assert next(second)
        with pytest.raises(RuntimeError, match="after the next one"):
            next(first)


@pytest.mark.parametrize("name", ["b.tar.zst", "b.tar"])
def test_an_error_of_the_medium_names_the_bundle(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """And not the file that was being written from it."""
    path = tmp_path / name
    store.model("large:latest", noise(2_000_000))
    ostore.export(["*"], path, models=store.root)

    def failing(fd: int, size: int, offset: int) -> bytes:
        # Among the weights only.
        if size >= 1_000_000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_at(fd, size, offset)

    monkeypatch.setattr(bytes_at, "read_at", failing)
    with pytest.raises(OSError, match="Input/output error") as raised:
        ostore.import_bundle(path, models=tmp_path / "new")
    assert raised.value.filename == str(path)


@pytest.mark.parametrize("length", [0, 9, 17])
def test_a_file_whose_end_points_at_no_table_is_refused(tmp_path: Path, length: int) -> None:
    """The last bytes say how long the table is; where that leads, something else begins."""
    raw = framed([tar(Bundle().parts())])
    path = tmp_path / "b.tar.zst"
    path.write_bytes(raw[: -9 - length] + bytes(length) + (3).to_bytes(4, "little") + raw[-5:])
    with pytest.raises((ostore.IntegrityError, ostore.FormatError)):
        ostore.import_bundle(path, models=tmp_path / "new")
    assert not (tmp_path / "new").exists()
