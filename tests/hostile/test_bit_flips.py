"""If a bundle is cut or any bit is flipped, it is refused, or gives exactly the store that it gave before."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pytest
import typer

from ostore.cli.main import run
from ostore.cli.program import app
from ostore.places.store.receiving import publication
from tests.hostile.forge import Bundle, compressed, tar
from tests.hostile.rows import DONE, FORMAT, INTEGRITY, LIMIT, NO_SPACE, NOT_FOUND, UNSAFE
from tests.support import Store, some, tree

COMMAND = typer.main.get_command(app)
# The last is for a name in the index that became another; everything else is a refusal of the bundle itself.
REFUSED = {INTEGRITY, FORMAT, LIMIT, UNSAFE, NO_SPACE, NOT_FOUND}
# `make torture` takes every one, `make test` so many.
SAMPLE = 1000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "_SETTLE_SECONDS", (0.0,))
    monkeypatch.setattr(typer.main, "get_command", lambda _app: COMMAND)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A bundle as export makes it, about 20 kB."""
    path = tmp_path_factory.mktemp("exported")
    store = Store(path / "models")
    store.model("tiny:latest", b"the weights " * 40, template=b"{{ .Prompt }}")
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(["export", "--all", str(path / "b.tar.zst"), "--models", str(store.root), "--progress=none"]) == DONE
    return (path / "b.tar.zst").read_bytes()


def attempt(folder: Path, data: bytes, name: str = "b.tar.zst") -> tuple[int, str, dict[str, str]]:
    """Import into a new store: exit code, standard error, and what is in the folder then, the bundle left out."""
    path = folder / name
    path.write_bytes(data)
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = run(["import", str(path), "--models", str(folder / "models"), "--progress=none", "-j1"])
    found = tree(folder)
    del found[name]
    return code, err.getvalue(), found


def clear(folder: Path) -> None:
    for base, folders, files in os.walk(folder, topdown=False):
        for name in files:
            (Path(base) / name).unlink()
        for name in folders:
            (Path(base) / name).rmdir()


def assert_refused(code: int, error: str, found: dict[str, str], what: object) -> None:
    assert code in REFUSED, (what, code, error)
    assert error.startswith("ostore: error["), (what, error)
    assert error.count("\n") == 1, (what, error)
    assert all(character.isprintable() for character in error[:-1]), (what, error)
    # What was whole may wait below .ostore for another try.
    assert found.keys() <= {"models"}, (what, found)


def assert_refused_or_identical(folder: Path, data: bytes, good: dict[str, str], name: str, what: object) -> int:
    code, error, found = attempt(folder, data, name)
    if code == DONE:
        assert found == good, what
    else:
        assert_refused(code, error, found, what)
    clear(folder)
    return code


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_bundle_cut_anywhere_is_refused_as_truncated(tmp_path: Path, exported: bytes) -> None:
    cuts = {*range(512, len(exported), 512), *range(len(exported) - 4096, len(exported))}
    for cut in some(sorted(cuts), 300, "bundle"):
        code, error, found = attempt(tmp_path, exported[:cut])
        assert code == INTEGRITY, (cut, error)
        assert f"truncated at byte {cut}" in error
        assert found == {}
    assert attempt(tmp_path, exported)[0] == DONE


def test_a_plain_tar_cut_anywhere_is_refused_as_truncated(tmp_path: Path) -> None:
    stream = tar(Bundle().parts())
    cuts = {*range(512, len(stream), 512), *range(len(stream) - 600, len(stream))}
    for cut in some(sorted(cuts), 300, "tar"):
        code, error, found = attempt(tmp_path, stream[:cut], "b.tar")
        assert code == INTEGRITY, (cut, error)
        assert found.keys() <= {"models"}
        clear(tmp_path)


def test_any_bit_of_an_exported_bundle_flipped_is_refused_or_harmless(tmp_path: Path, exported: bytes) -> None:
    code, _, good = attempt(tmp_path, exported)
    assert code == DONE
    clear(tmp_path)
    for bit in some(range(8 * len(exported)), SAMPLE, "exported"):
        assert_refused_or_identical(tmp_path, flipped(exported, bit), good, "b.tar.zst", bit)


def test_every_bit_of_the_headers_of_frames_and_of_the_table_flipped_is_refused_but_for_one_without_meaning(
    tmp_path: Path, exported: bytes
) -> None:
    code, _, good = attempt(tmp_path, exported)
    assert code == DONE
    clear(tmp_path)
    starts = [at for at in range(len(exported)) if exported.startswith(b"\x28\xb5\x2f\xfd", at)]
    area = [at for start in starts for at in range(start, start + 13)]
    area += range(exported.rindex(b"\x5e\x2a\x4d\x18"), len(exported))
    # Unused_bit of the Frame_Header_Descriptor, RFC 8878, 3.1.1.1.1: a decoder ignores it.
    unused = {8 * (start + 4) + 4 for start in starts}
    for bit in (8 * at + number for at in area for number in range(8)):
        code = assert_refused_or_identical(tmp_path, flipped(exported, bit), good, "b.tar.zst", bit)
        assert (code == DONE) is (bit in unused), bit


@pytest.mark.parametrize("member", [0, 2, 5], ids=["index", "blob", "manifest"])
def test_any_bit_of_a_tar_header_flipped_is_refused_or_harmless(tmp_path: Path, member: int) -> None:
    """In a plain tar every bit is in reach; in a compressed one the decoder hides most."""
    parts = Bundle().parts()
    stream = tar(parts)
    code, _, good = attempt(tmp_path, stream, "b.tar")
    assert code == DONE
    clear(tmp_path)
    start = 8 * sum(map(len, parts[:member]))
    for bit in some(range(start, start + 8 * 512), SAMPLE // 4, member):
        assert assert_refused_or_identical(tmp_path, flipped(stream, bit), good, "b.tar", bit) != DONE


def test_any_bit_of_an_index_flipped_is_refused_or_harmless(tmp_path: Path) -> None:
    parts = Bundle().parts()
    stream = tar(parts)
    code, _, good = attempt(tmp_path, stream, "b.tar")
    assert code == DONE
    clear(tmp_path)
    for bit in some(range(8 * 512, 8 * len(parts[0])), SAMPLE // 2, "index"):
        assert_refused_or_identical(tmp_path, flipped(stream, bit), good, "b.tar", bit)


def test_the_compressed_form_of_the_same_parts_is_read_too(tmp_path: Path) -> None:
    assert attempt(tmp_path, compressed(tar(Bundle().parts())))[0] == DONE
