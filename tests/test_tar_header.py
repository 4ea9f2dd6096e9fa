"""Headers have the same bytes as those of GNU tar, every tar reads them, and nothing but such a header is read."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats.bundle_index import blob_path, manifest_path
from ostore.formats.digest import Digest
from ostore.formats.errors import FormatError, IntegrityError, InvalidBundleError, LimitError, OstoreError, UnsafeError
from ostore.formats.name import ModelName
from ostore.formats.tar_header import (
    BLOCK,
    END_OF_ARCHIVE,
    LONG_NAME,
    MAX_LONG_NAME_BYTES,
    REGULAR,
    TarHeader,
    member_header,
    member_length,
    padding,
    parse_header,
    parse_long_name,
)

QUICK = settings(max_examples=80, deadline=None, database=None)

GIB = 1024**3
SIZES = {
    "nothing": 0,
    "one byte": 1,
    "one block": 512,
    "below 8 GiB": 8 * GIB - 1,
    "8 GiB": 8 * GIB,
    "8 GiB and a byte": 8 * GIB + 1,
    "a terabyte": 10**12,
    "2^63-1": 2**63 - 1,
}
LONG = f"manifests/hf.co/{'n' * 40}/{'m' * 60}/Q4_K_M"
NAMES = {
    "index": "ostore/bundle.json",
    "blob": blob_path(Digest.of(b"")),
    "99 bytes": "n" * 99,
    "100 bytes": "n" * 100,
    "101 bytes": "n" * 101,
    "long manifest": LONG,
    "longest manifest": manifest_path(ModelName("h" * 255, "n" * 80, "m" * 80, "t" * 80)),
}
TARS = [
    pytest.param(program, marks=pytest.mark.skipif(shutil.which(program) is None, reason=f"no {program} here"))
    for program in ("tar", "bsdtar")
]


def python_header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def archive(*members: tuple[str, bytes]) -> bytes:
    parts = [member_header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members]
    return b"".join(parts) + END_OF_ARCHIVE


def sealed(block: bytes) -> bytes:
    """The block with the checksum that its other bytes ask for."""
    total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def with_bytes(place: int, data: bytes, *, size: int = 5) -> bytes:
    block = member_header("blobs/x", size)
    return sealed(block[:place] + data + block[place + len(data) :])


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("name", [name for name in NAMES.values() if len(name) <= 100])
def test_a_header_is_what_python_writes_in_gnu_format(name: str, size: int) -> None:
    assert member_header(name, size) == python_header(name, size)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_header_is_what_gnu_tar_writes(tmp_path: Path, name: str) -> None:
    tar = shutil.which("tar")
    if not tar or b"GNU tar" not in subprocess.run([tar, "--version"], capture_output=True, check=False).stdout:
        pytest.skip("tar is not GNU tar")
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 700)
    choices = ("--format=gnu", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--mode=0644")
    made = subprocess.run(["tar", *choices, "-cf", "-", name], capture_output=True, check=True, cwd=tmp_path).stdout
    expected = archive((name, b"x" * 700))
    assert made[: len(expected)] == expected
    assert not any(made[len(expected) :])


@pytest.mark.parametrize("program", TARS)
def test_every_tar_lists_and_extracts_what_we_write(tmp_path: Path, program: str) -> None:
    members = [(name, name.encode() * 20) for name in NAMES.values()]
    (tmp_path / "a.tar").write_bytes(archive(*members))
    listing = subprocess.run([program, "-tvf", "a.tar"], capture_output=True, check=True, cwd=tmp_path, text=True)
    assert listing.stderr == ""
    lines = listing.stdout.splitlines()
    assert [line.split()[-1] for line in lines] == [name for name, _ in members]
    assert all(line.startswith("-rw-r--r--") and "1970" in line for line in lines)
    (tmp_path / "out").mkdir()
    subprocess.run([program, "-xmof", "../a.tar"], check=True, cwd=tmp_path / "out")
    assert all((tmp_path / "out" / name).read_bytes() == data for name, data in members)


@pytest.mark.parametrize("program", TARS)
@pytest.mark.parametrize("size", [8 * GIB - 1, 8 * GIB, 5 * 10**12], ids=["below 8 GiB", "8 GiB", "5 TB"])
def test_every_tar_reads_a_size_past_8_gib(tmp_path: Path, program: str, size: int) -> None:
    sparse = tmp_path / "a.tar"
    header = member_header("blobs/large", size)
    with sparse.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size + padding(size) + len(END_OF_ARCHIVE))
    listing = subprocess.run([program, "-tvf", sparse.name], capture_output=True, check=True, cwd=tmp_path, text=True)
    assert str(size) in listing.stdout.split()
    assert sparse.stat().st_size == member_length("blobs/large", size) + len(END_OF_ARCHIVE)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_header_is_read_as_written(name: str, size: int) -> None:
    header = member_header(name, size)
    assert parse_header(header[-BLOCK:]) == TarHeader(name[:100], size, REGULAR)
    assert member_length(name, size) == len(header) + size + -size % 512
    if len(header) > BLOCK:
        entry = parse_header(header[:BLOCK])
        assert (entry.type_flag, entry.size) == (LONG_NAME, len(name) + 1)
        assert parse_long_name(header[BLOCK : BLOCK + entry.size]) == name


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_pythons_own_reader_takes_our_archives(name: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive((name, b"data")))) as tar:
        member = tar.next()
        assert member is not None
        assert (member.name, member.size, member.mode, member.uid, member.mtime) == (name, 4, 0o644, 0, 0)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.DIRTYPE, "directory"),
        (tarfile.FIFOTYPE, "FIFO"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.CONTTYPE, "contiguous file"),
        (tarfile.GNUTYPE_SPARSE, "sparse file"),
        (b"Z", "type b'Z'"),
    ],
)
def test_the_kind_of_a_member_is_told_in_words(kind: bytes, words: str) -> None:
    header = parse_header(with_bytes(156, kind))
    assert header.kind == words
    assert header.type_flag != REGULAR
    assert not header.is_extended


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE], ids=["for one member", "for all"])
def test_a_pax_header_is_known_as_one(kind: bytes) -> None:
    assert parse_header(with_bytes(156, kind)).is_extended


def test_a_link_of_another_format_is_refused_as_a_link() -> None:
    member = tarfile.TarInfo("blobs/x")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(UnsafeError, match="a symbolic link has no place in a bundle"):
        parse_header(member.tobuf(tarfile.USTAR_FORMAT))


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (b"\xff" * BLOCK, IntegrityError),
        (bytes(BLOCK), IntegrityError),
        (member_header("a", 1)[:-1] + b"x", IntegrityError),
        (member_header("a", 1)[:148] + b"0000000 " + member_header("a", 1)[156:], IntegrityError),
        (tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT), InvalidBundleError),
        (with_bytes(257, bytes(8)), InvalidBundleError),
        (with_bytes(0, b"a\0b"), InvalidBundleError),
        (with_bytes(0, b"\xc3\xa9"), UnsafeError),
        (with_bytes(157, b"/etc/passwd"), UnsafeError),
        (with_bytes(345, b"prefix"), UnsafeError),
        (with_bytes(511, b"x"), UnsafeError),
        (with_bytes(124, b"00000000008\0"), FormatError),
        (with_bytes(124, b"          5\0"), FormatError),
        (with_bytes(124, b"00000000005 "), FormatError),
        (with_bytes(124, b"000000000005"), FormatError),
        (with_bytes(124, b"5\0" + bytes(10)), FormatError),
        (with_bytes(124, b"-0000000005\0"), FormatError),
        (with_bytes(124, b"\xff" * 12), FormatError),
        (with_bytes(124, b"\x80" + (5).to_bytes(11, "big")), FormatError),
        (with_bytes(124, b"\x80" + (8 * GIB - 1).to_bytes(11, "big")), FormatError),
        (with_bytes(124, b"\x80" + (2**63).to_bytes(11, "big")), FormatError),
        (with_bytes(124, b"\x81" + bytes(11)), FormatError),
    ],
    ids=[
        "noise",
        "zeros",
        "last byte changed",
        "another checksum",
        "ustar",
        "no magic",
        "bytes after the name",
        "name not ASCII",
        "link target",
        "prefix",
        "last byte set, checksum right",
        "size not octal",
        "size with spaces",
        "size that ends with a space",
        "size without an end",
        "short size",
        "size with a sign",
        "negative size",
        "small size in base-256",
        "octal size in base-256",
        "size of 2^63",
        "size past 96 bits",
    ],
)
def test_any_other_block_is_refused(block: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error):
        parse_header(block)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", InvalidBundleError),
        (b"name", InvalidBundleError),
        (b"na\0me\0", InvalidBundleError),
        (b"name\0\0", InvalidBundleError),
        (b"n\xc3\xa9\0", UnsafeError),
        (b"n" * MAX_LONG_NAME_BYTES + b"\0", LimitError),
    ],
    ids=["empty", "no NUL", "NUL inside", "two NULs", "not ASCII", "too long"],
)
def test_a_long_name_ends_with_its_only_nul(data: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error):
        parse_long_name(data)


@QUICK
@given(st.integers(0, BLOCK - 1), st.integers(1, 255), st.sampled_from([1, 8 * GIB]))
def test_no_byte_of_a_header_can_change_unnoticed(place: int, change: int, size: int) -> None:
    block = bytearray(member_header("blobs/sha256-x", size))
    block[place] ^= change
    with pytest.raises(OstoreError):
        parse_header(bytes(block))


@QUICK
@given(st.integers(0, BLOCK - 1), st.binary(min_size=1, max_size=12), st.sampled_from([bytes, sealed]))
def test_a_block_is_a_header_or_is_refused_and_never_anything_else(
    place: int, data: bytes, finish: Callable[[bytes], bytes]
) -> None:
    block = member_header("blobs/sha256-x", 5)
    try:
        header = parse_header(finish((block[:place] + data + block[place + len(data) :])[:BLOCK].ljust(BLOCK, b"\0")))
    except OstoreError:
        return
    assert 0 <= header.size < 2**63
    assert len(header.name) <= 100
