"""The published vectors are the tested ones, and the second reader, restore.py, agrees on them."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import time
from pathlib import Path

import pytest

from ostore.places.bundle import restore
from tests.hostile.corpus import ROWS
from tests.hostile.rows import DONE, BundleFile
from tests.support import TORTURE, sha256
from tests.vectors.write import SCHEMA, Vector, vectors, write

VECTORS = list(vectors())
# Those that take a second or more are for `make torture`.
CHOSEN = [vector for vector in VECTORS if TORTURE or not vector.row.alone]
# It does not look at texts of a manifest that decide nothing.
LET_PASS = (
    "B41 lone surrogate in a manifest",
    "B41 not UTF-8 in a manifest",
    "B42 config of more than 4 MiB",
    "B43 20,001 layers of one blob",
    "B56 mediaType",
    "B57 creator",
    # With --verify-only it has no store, so it makes nothing of the bases there.
    "B99 recipe that makes 48 MB of 480 bytes",
    "B101 recipe whose base is missing",
    "B102 recipe that makes other bytes",
)


def test_every_bundle_of_the_table_is_published_with_what_the_test_expects_of_it(tmp_path: Path) -> None:
    rows = [row for row in ROWS if isinstance(row.prepare, BundleFile) and row.prepare.command == "import"]
    optional = {row.name for row in rows if isinstance(row.prepare, BundleFile) and row.prepare.options}
    assert [vector.row for vector in VECTORS] == [row for row in rows if row.name not in optional]
    assert len(VECTORS) > 700
    assert len({vector.file for vector in VECTORS}) == len(VECTORS)
    for vector in VECTORS:
        assert vector.entry["codes"] == list(vector.row.codes)
        assert vector.file.isascii()


def test_the_files_and_their_index_are_written(tmp_path: Path) -> None:
    count = write(tmp_path / "new" / "vectors", ["A13", "C72"])
    index = json.loads((tmp_path / "new" / "vectors" / "index.json").read_bytes())
    assert index["schema"] == SCHEMA
    assert len(index["vectors"]) == count > 5
    assert {path.name for path in (tmp_path / "new" / "vectors").iterdir()} == {
        "index.json",
        *(entry["file"] for entry in index["vectors"]),
    }
    for entry in index["vectors"]:
        data = (tmp_path / "new" / "vectors" / entry["file"]).read_bytes()
        assert (entry["sha256"], entry["size"]) == (sha256(data), len(data))
        assert set(entry) == {"file", "codes", "classes", "number", "why", "sha256", "size"}
        assert entry["number"] in {"A13", "C72"}
        assert entry["codes"] == [8]
        assert entry["classes"] == ["unsafe"]


def test_a_vector_is_made_the_same_twice() -> None:
    for vector in VECTORS[::40]:
        assert vector.bundle.build() == vector.bundle.build()


@pytest.mark.skipif(
    shutil.which("zstd") is None and sys.version_info < (3, 14), reason="needs zstd, the program or the module"
)
@pytest.mark.usefixtures("_process_as_before")
@pytest.mark.parametrize("vector", CHOSEN, ids=lambda vector: vector.file)
def test_the_script_of_a_bundle_refuses_them_too(vector: Vector, tmp_path: Path) -> None:
    path = tmp_path / vector.file
    path.write_bytes(vector.bundle.build())
    told = io.StringIO()
    started = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        code = restore.main([str(path), "--verify-only"])
    assert time.monotonic() - started < 10
    assert told.getvalue().count("\n") == (code != DONE)
    assert told.getvalue().isascii()
    # 1 is what it says of a fault of its own.
    assert code != 1
    if vector.row.codes == (DONE,):
        assert code == DONE, told.getvalue()
    elif DONE not in vector.row.codes and not vector.row.name.startswith(LET_PASS):
        assert code != DONE
