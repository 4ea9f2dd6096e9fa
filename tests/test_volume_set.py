"""The names, sizes and list of digests of a set of volumes. Whatever is not exactly ours is foreign."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostore.formats.digest import Digest
from ostore.formats.errors import InvalidBundleError, LimitError, OstoreError, UsageError
from ostore.formats.manifest import Descriptor
from ostore.formats.selection import Selection
from ostore.formats.volume_set import (
    MAX_SUMS_BYTES,
    MAX_VOLUMES,
    PRESETS,
    is_parity,
    least_size,
    number_of,
    parse_size,
    read_sums,
    set_of,
    volume_name,
    write_sums,
)
from ostore.places.bundle.volume_instructions import instructions

NAME = "x.tar.zst"
SUMS = [Digest.of(bytes([number])) for number in range(3)]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("700000000", 700_000_000),
        ("4095M", 4095 * 1024**2),
        ("2g", 2 * 1024**3),
        ("2GB", 2 * 1000**3),
        ("2GiB", 2 * 1024**3),
        ("1kb", 1000),
        ("1T", 1024**4),
        ("fat32", 4095 * 1024**2),
        ("DVD", 4_683_595_776),
        ("bd25", 25_008_537_600),
    ],
)
def test_a_size_is_read_as_split_reads_it(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_the_presets_fit_on_what_they_are_called_after() -> None:
    assert PRESETS["fat32"] < 2**32 - 1
    assert PRESETS["dvd"] + 16 * 1024**2 == 2_295_104 * 2048
    assert PRESETS["bd25"] + 16 * 1024**2 == 12_219_392 * 2048


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5G", "G", "B", "1B", "1iB", "1 G", "fat", "9" * 20, "9223372036854775807K", "\u0661"]
)
def test_any_other_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="split: expected"):
        parse_size(text)


@pytest.mark.parametrize(
    ("file", "owner", "number"),
    [
        (f"{NAME}.001", NAME, 1),
        (f"{NAME}.999", NAME, 999),
        ("x.tar.010", "x.tar", 10),
        ("a\n b.tar.zst.002", "a\n b.tar.zst", 2),
        ("y.tar.zst.001.tar.zst.002", "y.tar.zst.001.tar.zst", 2),
        (f"{NAME}.sha256", NAME, None),
        (f"{NAME}.RESTORE.txt", NAME, None),
        (f"{NAME}.par2", NAME, None),
        (f"{NAME}.vol003+12.par2", NAME, None),
        (f"{NAME}.003.par2", NAME, None),
        (f"{NAME}.003.vol00+1.par2", NAME, None),
    ],
)
def test_a_file_of_a_set_is_known_by_its_name(file: str, owner: str, number: int | None) -> None:
    assert set_of(file) == owner
    assert number_of(owner, file) == number
    assert is_parity(owner, file) == file.endswith(".par2")
    assert number_of("other.tar.zst", file) is None
    assert not is_parity("other.tar.zst", file)


@pytest.mark.parametrize(
    "file",
    [
        NAME,
        f"{NAME}.000",
        f"{NAME}.01",
        f"{NAME}.0001",
        f"{NAME}.001.1",
        f"{NAME}.001.part",
        f"{NAME}.00\u0661",
        f"{NAME}.notes",
        f"{NAME}.restore.txt",
        f"{NAME}.vol+.par2",
        f"{NAME}.001\n",
        "x_notes.002",
        ".tar.zst.001",
        "x.zip.001",
        "",
    ],
)
def test_any_other_file_is_foreign(file: str) -> None:
    assert set_of(file) is None
    assert number_of(NAME, file) is None


def test_there_are_at_most_999_volumes() -> None:
    assert volume_name(NAME, MAX_VOLUMES) == f"{NAME}.999"
    with pytest.raises(LimitError, match="at most 999 volumes"):
        volume_name(NAME, MAX_VOLUMES + 1)
    assert least_size(999 * 1024**2) == 1
    assert least_size(999 * 1024**2 + 1) == 2


@pytest.mark.parametrize("name", [NAME, "a b.tar", "back\\slash.tar.zst", "line\nbreak\r.tar.zst", "\udcff.tar.zst"])
def test_the_digests_are_what_sha256sum_reads(tmp_path: Path, name: str) -> None:
    raw = write_sums(name, SUMS)
    assert read_sums(name, raw) == tuple(SUMS)
    for number in range(3):
        (tmp_path / volume_name(name, number + 1)).write_bytes(bytes([number]))
    (tmp_path / "sums").write_bytes(raw)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--quiet", "-c", "sums"], cwd=tmp_path, check=True)


LINE = write_sums(NAME, SUMS[:1])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        LINE[:-1],
        LINE * 2,
        LINE.upper(),
        b"\\" + LINE,
        LINE.replace(b".001", b".002"),
        LINE.replace(b"x", b"../x"),
        LINE.replace(b"\n", b"\r\n"),
        LINE.replace(b"  ", b" "),
        LINE + b"\n",
        write_sums("y.tar.zst", SUMS),
        b"\0" * 100,
    ],
)
def test_a_list_that_is_not_of_this_set_says_nothing(raw: bytes) -> None:
    with pytest.raises(InvalidBundleError, match=r"x\.tar\.zst\.sha256"):
        read_sums(NAME, raw)


def test_a_list_has_limits() -> None:
    assert len(read_sums(NAME, write_sums(NAME, SUMS * 333))) == 999
    thousand = write_sums(NAME, SUMS * 333) + LINE.replace(b".001", b".1000")
    with pytest.raises(InvalidBundleError):
        read_sums(NAME, thousand)
    with pytest.raises(LimitError):
        read_sums(NAME, bytes(MAX_SUMS_BYTES + 1))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        digests = read_sums(NAME, raw)
    except OstoreError:
        return
    assert write_sums(NAME, digests) == raw.replace(b" *", b"  ")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.zst"])
def test_the_instructions_are_about_this_set(name: str) -> None:
    parity = ["x.tar.001.par2", "x.tar.003.par2"] if name == "x.tar" else []
    text = instructions(name, 3, Selection((), ()), parity).decode()
    assert ("zstd" in text.replace(name, "")) == name.endswith(".zst")
    assert [line.split()[2] for line in text.splitlines() if line.startswith("    par2 repair ")] == parity
    assert ("par2" in text) == bool(parity)
    assert f"in 3 volumes: {name}.001 to {name}.003" in text
    delta = instructions(name, 1, Selection((), (), (Descriptor(Digest("0" * 64), 1),)), []).decode()
    assert "in 1 volume: " in delta
    assert all(len(line) <= 120 for line in (*text.splitlines(), *delta.splitlines()))
