"""Part A: the container, zstd and tar."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ostore.formats.name import ModelName
from ostore.formats.selection import SelectedModel
from ostore.places.bundle.reader import BundleReader
from ostore.streams.plain import MAX_PADDING_BYTES
from tests.hostile import forge
from tests.hostile.forge import (
    NAME,
    WEIGHTS,
    Bundle,
    blob_name,
    compressed,
    dumped,
    entry,
    frame,
    framed,
    header,
    large,
    manifest_name,
    member,
    octal,
    padded,
    run_length_frame,
    sealed,
    skippable,
    tar,
)
from tests.hostile.rows import (
    DONE,
    FORMAT,
    INTEGRITY,
    IO,
    LIMIT,
    MIB,
    NOT_FOUND,
    UNSAFE,
    USAGE,
    Argument,
    Lazy,
    Prepare,
    Row,
    World,
    edit,
    file_rows,
    good,
    good_tar,
    imported,
    index_rows,
    insert,
    parts_rows,
    piped,
    replace,
    tar_rows,
)
from tests.support import noise, sha256


def container_rows() -> Iterator[Row]:
    yield from file_rows("A01 empty file", lambda: b"", FORMAT, says="empty")
    yield Row("A01 empty file [tar]", imported(lambda: b"", "in.tar"), (FORMAT,))
    yield from file_rows("A02 random bytes", lambda: noise(MIB), FORMAT)
    for magic, what in ((b"\x1f\x8b\x08", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"PK\x03\x04", "zip")):
        yield from file_rows(f"A03 {what}", partial(bytes.__add__, magic, noise(2000)), FORMAT, says=what)
    yield Row("A03 plain tar by the name of a compressed one", imported(good_tar), (DONE,))
    yield Row("A03 zstd by the name of a plain tar", imported(good, "in.tar"), (DONE,))
    yield from file_rows("A03 tar of something else", lambda: tar([member("x", b"y")]), FORMAT, says="tar")
    for size in (1, 3, 5, 300, 511, 512, 513):
        yield from file_rows(f"A04 the first {size} bytes", partial(_cut, good, size), INTEGRITY, says="truncated")
    for missing in (1, 8, 9, 10, 100):
        yield from file_rows(f"A05 the last {missing} bytes missing", partial(_cut, good, -missing), INTEGRITY)
        yield from tar_rows(
            f"A05 the last {missing} bytes of the tar missing", partial(_cut, good_tar, -missing), INTEGRITY
        )
    # One whole frame and no table is what the zstd program makes of a plain bundle.
    whole = partial(_cut, lambda: sealed([(frame(good_tar()), 1)]), -25)
    yield from file_rows("A05 the seek table missing", whole, FORMAT, says="compressed anew")
    yield from file_rows("A06 a bit of a blob flipped", _flipped_blob, INTEGRITY, says=sha256(WEIGHTS))
    yield from file_rows("A07 window of 2^31", lambda: sealed([(_wide_frame(0xA8), 600)]), LIMIT, says="window")
    yield from file_rows("A07 window of 2^41", lambda: sealed([(_wide_frame(0xFF), 600)]), LIMIT, says="window")
    yield from file_rows(
        "A08 300 MB in a frame", lambda: sealed([(run_length_frame(300 * MIB), 300 * MIB)]), LIMIT, alone=True
    )
    yield from file_rows(
        "A08 100 TB in a frame", lambda: sealed([(run_length_frame(10**14, blocks=3000), 600)]), LIMIT, alone=True
    )
    yield from file_rows(
        "A08 a frame of more than it says",
        lambda: sealed([(run_length_frame(1024, blocks=60), 1024)]),
        INTEGRITY,
        alone=True,
    )
    yield from file_rows("A08 a frame that says 8 MiB and has 2 GiB", _overfull_frame, INTEGRITY, LIMIT, alone=True)
    yield from file_rows(
        "A08 1 TB of frames in a member of 480 bytes", _many_frames_in_a_member, FORMAT, LIMIT, alone=True
    )
    yield from file_rows("A08 a frame without its content size", lambda: _open_frame() + good(), FORMAT)
    yield from file_rows(
        "A09 a frame that needs a dictionary",
        lambda: sealed([(forge.MAGIC + b"\x61\x01" + b"\x10\x01\x01\0\0", 600)]),
        FORMAT,
        says="dictionary",
    )
    yield from file_rows(
        "A10 1,000,000 empty frames", lambda: sealed([(_empty_frame(), 0)] * 1_000_000)[: -8 * 10**6], LIMIT, alone=True
    )
    yield from file_rows(
        "A10 300,000 frames of one byte",
        lambda: sealed([(run_length_frame(1), 1)] * 300_000),
        LIMIT,
        FORMAT,
        alone=True,
    )
    yield from file_rows(
        "A10 300,000 frames of 128 KiB after the index", _frames_after_index, LIMIT, FORMAT, alone=True
    )
    yield from file_rows(
        "A10 a skippable frame of 4 GiB first", lambda: skippable(100, declared=2**32 - 1) + good(), LIMIT
    )
    yield from file_rows(
        "A10 a skippable frame of 4 GiB between frames", lambda: _between(skippable(0, declared=2**32 - 1)), LIMIT
    )
    yield from file_rows(
        "A10 a seek table of 4 GiB", lambda: frame(good_tar()) + skippable(100, declared=2**32 - 1, kind=14), LIMIT
    )
    yield from file_rows("A10 1,000,000 skippable frames", lambda: skippable(0) * 1_000_000 + good(), LIMIT, alone=True)
    yield from file_rows("A11 garbage after the last frame", lambda: good() + noise(100), FORMAT)
    yield from file_rows("A11 one byte after the last frame", lambda: good() + b"\0", FORMAT)
    yield from file_rows("A11 a second bundle appended", lambda: good() + good(), FORMAT)
    yield from file_rows("A11 a frame after the seek table", lambda: good() + frame(b"x"), FORMAT)
    yield from member_rows()
    yield from odd_source_rows()
    yield from fake_medium_rows()


def _cut(build: Callable[[], bytes], end: int) -> bytes:
    return build()[:end]


def _link_to(target: str, path: Path) -> None:
    path.symlink_to(target)


def _flipped_blob() -> bytes:
    stream = bytearray(good_tar())
    stream[stream.index(WEIGHTS)] ^= 1
    return compressed(bytes(stream))


def _wide_frame(window: int) -> bytes:
    """A frame of 600 zeros whose header asks for an absurd window."""
    return (
        forge.MAGIC
        + b"\xc0"
        + bytes([window])
        + (600).to_bytes(8, "little")
        + (600 << 3 | 3).to_bytes(3, "little")
        + b"\0"
    )


def _open_frame() -> bytes:
    return forge.MAGIC + b"\0\x58" + (600 << 3 | 3).to_bytes(3, "little") + b"\0"


def _empty_frame() -> bytes:
    return forge.MAGIC + b"\x20\0\x01\0\0"


def _overfull_frame() -> bytes:
    """The most blocks of the most zeros that a reader lets pass by their headers."""
    return sealed([(run_length_frame(8 * MIB, blocks=16_000), 8 * MIB)])


def _between(extra: bytes) -> bytes:
    parts = Bundle().parts()
    contents = [b"".join(parts[:2]), b"".join(parts[2:]) + forge.END]
    whole = framed(contents)
    first = len(frame(contents[0]))
    return whole[:first] + extra + whole[first:]


def _many_frames_in_a_member() -> bytes:
    """The member's data goes on, for 1 TB of zeros, after the 480 bytes that its header and the index promise."""
    parts = Bundle().parts()
    start = b"".join(parts[:4])
    bomb = run_length_frame(8 * MIB)
    return sealed([(frame(start), len(start)), *[(bomb, 8 * MIB)] * 120_000])


def _frames_after_index() -> bytes:
    start = b"".join(Bundle().parts()[:2])
    return sealed([(frame(start), len(start)), *[(run_length_frame(128 * 1024), 128 * 1024)] * 300_000])


BEFORE_BLOBS, FIRST_BLOB, WEIGHTS_MEMBER, MANIFEST_MEMBER = 2, 2, 3, 5
FORBIDDEN_PLACES = {
    "A13 climbing": "../../etc/cron.d/x",
    "A13 climbing from blobs": "blobs/../../outside/canary",
    "A14 absolute": "/root/.ssh/authorized_keys",
    "A14 drive letter": "C:\\x",
    "A14 verbatim path": "\\\\?\\C:\\x",
    "A14 share": "//srv/share/x",
    "A14 absolute into the store": "/blobs/sha256-" + "0" * 64,
    "A14 beyond ASCII": "blobs/caf\u00e9",
}


def member_rows() -> Iterator[Row]:
    yield from parts_rows(
        "A12 a bundle inside", insert(BEFORE_BLOBS, member("inner.tar.zst", good())), UNSAFE, says="not listed"
    )
    for name, path in FORBIDDEN_PLACES.items():
        yield from parts_rows(name, insert(BEFORE_BLOBS, member(path, b"x")), UNSAFE)
    yield from parts_rows("A13 climbing, after the manifests", lambda parts: parts.append(member("../x", b"x")), UNSAFE)
    yield from parts_rows("A13 a name of 101 bytes that climbs", insert(2, member("../" * 33 + "xy", b"x")), UNSAFE)
    yield from index_rows("A13 listed as a file", edit(files=[{"path": "ostore/../../x", **entry(b"")}]), UNSAFE)
    yield from link_rows()
    yield from extended_rows()
    yield from size_rows()
    yield from order_rows()
    yield from harmless_header_rows()


def link_rows() -> Iterator[Row]:
    target = b"../../outside/canary"
    yield from parts_rows(
        "A15 symbolic link", insert(2, member("x", b"", flag=b"2", link=target)), UNSAFE, says="symbolic link"
    )
    linked = member(blob_name(WEIGHTS), b"", flag=b"2", link=target)
    yield from parts_rows("A15 symbolic link in place of a blob", replace(WEIGHTS_MEMBER, linked), UNSAFE)
    yield from parts_rows(
        "A15 symbolic link, POSIX format",
        insert(2, member("x", b"", flag=b"2", link=target, magic=forge.POSIX)),
        UNSAFE,
    )
    yield from parts_rows(
        "A16 hard link", insert(2, member("x", b"", flag=b"1", link=target)), UNSAFE, says="hard link"
    )
    yield from parts_rows(
        "A16 hard link relative to the folder", insert(2, member("x", b"", flag=b"1", link=b"models.canary")), UNSAFE
    )
    yield from parts_rows(
        "A16 link target in a regular file",
        replace(WEIGHTS_MEMBER, member(blob_name(WEIGHTS), WEIGHTS, link=target)),
        UNSAFE,
    )
    through = (member("blobs", b"", flag=b"2", link=b"../outside"), member("blobs/canary", b"x"))
    yield from parts_rows("A17 through a link", insert(2, *through), UNSAFE)
    chain = [member(b"", b"", flag=b"2", link=b"/") for _ in range(50)]
    yield from parts_rows("A18 links without a name", insert(2, *chain), UNSAFE)
    kinds = {b"3": "character device", b"4": "block device", b"5": "directory", b"6": "FIFO", b"s": "socket"}
    kinds |= {
        b"S": "sparse",
        b"7": "contiguous",
        b"Z": "unknown",
        b"\0": "old regular",
        b"V": "volume label",
        b"M": "multi-volume",
        b"D": "dump directory",
        b"K": "long link",
    }
    for flag, kind in kinds.items():
        number = "A19" if flag in b"3456s" else "A20"
        yield from parts_rows(f"{number} {kind}", insert(2, member("x", b"", flag=flag)), UNSAFE)
        yield from parts_rows(
            f"{number} {kind} in place of a blob", replace(3, member(blob_name(WEIGHTS), WEIGHTS, flag=flag)), UNSAFE
        )


def extended_rows() -> Iterator[Row]:
    three_gib = header(b"././@LongLink", octal(3 * 2**30, 12), flag=b"L")
    yield from parts_rows("A21 long name of 3 GiB", insert(2, three_gib), LIMIT, says="long name")
    two_long = member(b"././@LongLink", b"x" * 101 + b"\0", flag=b"L") * 2
    yield from parts_rows("A21 two long names", insert(2, two_long), UNSAFE)
    other = member(b"././@LongLink", b"x" * 101 + b"\0", flag=b"L") + member(b"y" * 100, b"")
    yield from parts_rows("A21 a long name of another file", insert(2, other), UNSAFE)
    yield from parts_rows(
        "A21 a long name with a NUL in it", insert(2, member(b"././@LongLink", b"x\0y\0", flag=b"L")), FORMAT
    )
    cut_off = b"".join(Bundle().parts()[:2]) + header(b"././@LongLink", octal(600, 12), flag=b"L")
    yield from tar_rows("A21 a long name cut off", lambda: cut_off, INTEGRITY)
    yield from parts_rows("A22 pax header of 2^60 bytes", insert(2, header(b"x", large(2**60), flag=b"x")), LIMIT)
    for record in (
        b"path=../../x",
        b"linkpath=/etc/passwd",
        b"GNU.sparse.realsize=99999999999",
        b"size=18446744073709551616",
    ):
        line = b"%d %s\n" % (len(record) + 5, record)
        for flag, kind in ((b"x", "for a member"), (b"g", "for all")):
            extended = member("pax", line, flag=flag)
            yield from parts_rows(f"A22 {record.decode()} {kind}", insert(2, extended), UNSAFE)
    yield from parts_rows(
        "A22 a blob in the POSIX format, which has pax headers",
        replace(WEIGHTS_MEMBER, member(blob_name(WEIGHTS), WEIGHTS, magic=forge.POSIX)),
        FORMAT,
    )
    yield from parts_rows("A23 3,000 pax headers", insert(2, member("pax", b"11 path=abc\n", flag=b"x") * 3000), LIMIT)
    yield from parts_rows(
        "A23 3,000 global pax headers without data", insert(2, member("pax", b"", flag=b"g") * 3000), LIMIT
    )
    record = b"30 SCHILY.xattr.user.evil=yes\n"
    yield from parts_rows("A32 extended attribute", insert(2, member("pax", record, flag=b"x")), UNSAFE)


def size_rows() -> Iterator[Row]:
    big = member(blob_name(WEIGHTS), WEIGHTS, size=large(2**50))
    yield from parts_rows("A24 a member of 2^50 bytes", replace(3, big), INTEGRITY)
    yield from tar_rows(
        "A24 a first member of 2^50 bytes", lambda: member("ostore/bundle.json", b"{}", size=large(2**50)), LIMIT
    )
    unlisted = member("x", b"", size=large(2**62))
    yield from parts_rows("A24 an unlisted member of 2^62 bytes", insert(2, unlisted), UNSAFE)
    signed = member("ostore/bundle.json.sig", b"", size=large(2**62))
    yield from parts_rows("A24 signatures of 2^62 bytes", insert(1, signed), LIMIT)
    late = [member(manifest_name(NAME), b"", size=large(2**63 - 1))]
    yield from parts_rows(
        "A24 a member out of order of 2^63-1 bytes",
        lambda parts: parts.__setitem__(slice(2, 3), late),
        INTEGRITY,
        FORMAT,
        UNSAFE,
    )
    fields = {
        "negative": b"\xff" * 12,
        "minus one in text": b"-0000000001\0",
        "not octal": b"00000000008\0",
        "spaces": b"        740 ",
        "leading spaces": b"       0740\0",
        "twelve digits": b"000000000740",
        "base-256 past 2^63": b"\x80\0\0\xff" + b"\xff" * 8,
        "base-256 of a small number": large(480),
        "empty": bytes(12),
        "full-width digit": "00000000\uff11".encode() + b"\0",
    }
    for what, size in fields.items():
        yield from parts_rows(f"A25 size {what}", replace(3, member(blob_name(WEIGHTS), WEIGHTS, size=size)), FORMAT)
    for what, checksum in (("wrong", b"000001\0 "), ("blank", b" " * 8), ("NUL", bytes(8)), ("signed", b"-00001\0 ")):
        yield from parts_rows(
            f"A26 {what} checksum", replace(3, member(blob_name(WEIGHTS), WEIGHTS, checksum=checksum)), INTEGRITY
        )


def order_rows() -> Iterator[Row]:
    weights = member(blob_name(WEIGHTS), WEIGHTS)
    yield from parts_rows("A27 a blob twice", insert(4, weights), UNSAFE, says="twice")
    yield from parts_rows(
        "A27 a blob twice, the second different",
        insert(4, member(blob_name(WEIGHTS), WEIGHTS[::-1])),
        UNSAFE,
        says="twice",
    )
    yield from parts_rows(
        "A27 a manifest twice, the second different",
        lambda parts: parts.append(member(manifest_name(NAME), b"{}")),
        UNSAFE,
        says="twice",
    )
    yield from parts_rows("A27 the index twice", lambda parts: parts.append(parts[0]), UNSAFE, says="twice")
    yield from parts_rows(
        "A28 a member that is not listed", insert(3, member("blobs/sha256-" + "0" * 64, b"")), UNSAFE, says="not listed"
    )
    yield from parts_rows(
        "A28 a manifest that is not listed", lambda parts: parts.append(member("manifests/a/b/c/d", b"{}")), UNSAFE
    )
    for index, what in ((1, "file"), (2, "blob"), (4, "last blob"), (5, "manifest")):
        yield from parts_rows(f"A28 a listed {what} without a member", replace(index), INTEGRITY)
    yield from parts_rows("A28 nothing but the index", lambda parts: parts.__delitem__(slice(1, None)), INTEGRITY)
    yield from parts_rows(
        "A29 two blobs exchanged",
        lambda parts: parts.__setitem__(slice(2, 4), parts[3:1:-1]),
        FORMAT,
        says="out of order",
    )
    yield from parts_rows("A29 manifests before blobs", lambda parts: parts.insert(2, parts.pop()), FORMAT)
    yield from parts_rows("A29 the index last", lambda parts: parts.append(parts.pop(0)), FORMAT)
    yield from parts_rows(
        "A29 signatures after the files", insert(2, member("ostore/bundle.json.sig", b"x")), UNSAFE, FORMAT
    )
    yield from file_rows(
        "A29 out of order, then ten million members", _endless_disorder, UNSAFE, INTEGRITY, FORMAT, LIMIT, alone=True
    )
    yield from index_rows("A30 100,001 members listed", Lazy(_crowded_index), LIMIT, alone=True)
    yield from file_rows("A30 ten million members of no bytes", _endless_members, UNSAFE, LIMIT, alone=True)
    yield from tar_rows("A33 data after the end", lambda: good_tar() + padded(b"more"), FORMAT)
    yield from tar_rows("A33 a member after the end", lambda: good_tar() + member("x", b"y"), FORMAT)
    # Tools that write tar fill up their last block. In zstd there is no reason for it.
    most = bytes(MAX_PADDING_BYTES)
    yield from file_rows("A33 zeros after the end", lambda: compressed(good_tar() + bytes(8192)), FORMAT)
    for what, rest, code in (
        ("zeros after the end", bytes(8192), DONE),
        ("one zero after the end", b"\0", DONE),
        ("as many zeros as may be", most, DONE),
        ("one zero too many", most + b"\0", FORMAT),
        ("a one behind the zeros", most[:-1] + b"\1", FORMAT),
        ("a one among the zeros", bytes(4096) + b"\1" + bytes(4096), FORMAT),
    ):
        yield from plain_rows(f"A33 {what}", rest, code)
    yield from tar_rows("A33 one zero block, then data", lambda: good_tar()[:-512] + padded(b"x"), FORMAT)
    yield from tar_rows(
        "A33 the end in the middle",
        lambda: tar(Bundle().parts()[:3]) + b"".join(Bundle().parts()[3:]) + forge.END,
        FORMAT,
        INTEGRITY,
    )
    yield from parts_rows("A33 bytes in the padding", replace(3, weights[:-1] + b"x"), FORMAT)
    signature = member("ostore/bundle.json.sig", b"x")
    yield from parts_rows("A33 bytes in the padding of signatures", insert(1, signature[:-1] + b"x"), FORMAT)


def _repeated(block: bytes, times: int) -> list[tuple[bytes, int]]:
    content = block * (8 * MIB // len(block))
    return [(frame(content), len(content))] * (times * len(block) // len(content))


def _endless_disorder() -> bytes:
    """The next member never comes; a later one comes again and again. A reader that searches must stop searching."""
    parts = Bundle().parts()
    start = b"".join(parts[:2])
    return sealed([(frame(start), len(start)), *_repeated(header(manifest_name(NAME).encode(), octal(0, 12)), 10**7)])


def _endless_members() -> bytes:
    start = b"".join(Bundle().parts()[:2])
    return sealed([(frame(start), len(start)), *_repeated(header(b"x", octal(0, 12)), 10**7)])


def _crowded_index() -> bytes:
    none = entry(b"")
    files = [{"path": f"ostore/{number}", **none} for number in range(99_999)]
    return dumped(Bundle().index(files=files))


def harmless_header_rows() -> Iterator[Row]:
    name = blob_name(WEIGHTS)
    changes: dict[str, dict[str, Any]] = {
        "setuid, setgid and sticky": {"mode": b"0007777\0"},
        "no mode": {"mode": b"0000000\0"},
        "owner 12345": {"owner": b"0030071\0"},
        "mtime of 9999": {"mtime": large(253402300799)},
        "negative mtime": {"mtime": b"\xff" * 12},
        "mtime that is no number": {"mtime": b"yesterday!!\0"},
    }
    for what, fields in changes.items():
        yield from parts_rows(f"A31 {what}", replace(3, member(name, WEIGHTS, **fields)), DONE)


def plain_rows(name: str, rest: bytes, code: int) -> Iterator[Row]:
    """A plain tar with more bytes behind it, as a file and through a pipe."""
    yield Row(f"{name} [tar]", imported(lambda: good_tar() + rest, "in.tar"), (code,))
    yield Row(f"{name} [tar pipe]", piped(lambda: good_tar() + rest), (code,))


def odd_source_rows() -> Iterator[Row]:
    for command in ("import", "inspect", "verify"):
        yield Row(f"A34 a directory [{command}]", _odd_source(command, Path.mkdir), (USAGE, NOT_FOUND))
        yield Row(f"A34 a FIFO that nobody writes [{command}]", _odd_source(command, os.mkfifo), (USAGE,))
        yield Row(f"A34 a socket [{command}]", _odd_source(command, _bind), (USAGE, IO))
        yield Row(
            f"A34 a link to nowhere [{command}]", _odd_source(command, lambda path: path.symlink_to("x")), (NOT_FOUND,)
        )
        yield Row(
            f"A34 a link to itself [{command}]",
            _odd_source(command, lambda path: path.symlink_to(path)),
            (IO, NOT_FOUND),
        )
        yield Row(f"A34 nothing [{command}]", _odd_source(command, lambda _: None), (NOT_FOUND,))
        for device in ("/dev/zero", "/dev/urandom", "/dev/null"):
            links = _odd_source(command, partial(_link_to, device))
            yield Row(f"A34 {device} [{command}]", links, (USAGE,))
    yield Row("A34 endless zeros through a pipe", piped(lambda: bytes(64 * MIB)), (FORMAT,), alone=True)
    yield Row(
        "A34 an endless frame through a pipe",
        piped(lambda: forge.MAGIC + b"\xa0\0\0\x80\0" + (b"\x80\0\0" + noise(16)) * 10**6),
        (LIMIT, FORMAT, INTEGRITY),
        alone=True,
    )
    for name in (
        "-x.tar.zst",
        "a\nb.tar.zst",
        "a\x1b[31m\r\x07.tar.zst",
        "\udcff\udc9b.tar.zst",
        "caf\u00e9 \u202egpj.tar.zst",
    ):
        yield Row(f"A35 {name!a}, truncated", _named(name, lambda: good()[:-1]), (INTEGRITY,))
        yield Row(f"A35 {name!a}, absent", _named(name, None), (NOT_FOUND,))
        yield Row(f"A35 {name!a}, a directory", _named(name, lambda: b"", is_folder=True), (USAGE, NOT_FOUND))
        yield Row(f"A35 {name!a}, good", _named(name, good), (DONE,))
    yield Row(
        "A35 begins with a dash and is taken for options", lambda world: ("import", "-x.tar.zst", *world.at), (USAGE,)
    )
    changes: dict[str, Callable[[Path], object]] = {
        "appended to": _append,
        "shortened": lambda path: os.truncate(path, 10),
        "rewritten": lambda path: path.write_bytes(noise(path.stat().st_size)),
    }
    moving = ("in.tar.zst", "other")
    for what, change in changes.items():
        yield Row(f"A36 {what} during the read", _changed_while_read(change), (INTEGRITY,), moving=moving)
    yield Row("A36 replaced during the read", _changed_while_read(_swap), (DONE, INTEGRITY), moving=moving)


def fake_medium_rows() -> Iterator[Row]:
    """A stick that holds less than it says: what comes back from it of a bundle that is half as large again."""
    for name, comes_back, codes in (
        ("begins anew where it is full", _from_stick_that_begins_anew, (FORMAT,)),
        ("keeps nothing beyond its size", _from_stick_that_forgets, (INTEGRITY, FORMAT)),
    ):
        yield from file_rows(f"H144 a stick that {name}", partial(comes_back, good), *codes)
        yield Row(f"H144 a stick that {name} [tar]", imported(partial(comes_back, good_tar), "in.tar"), codes)


def _from_stick_that_begins_anew(build: Callable[[], bytes]) -> bytes:
    data = build()
    size = len(data) * 2 // 3
    return data[size:] + data[len(data) - size : size] + data[size:]


def _from_stick_that_forgets(build: Callable[[], bytes]) -> bytes:
    data = build()
    size = len(data) * 2 // 3
    return data[:size] + bytes(len(data) - size)


def _odd_source(command: str, make: Callable[[Path], object]) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        path = world.folder / "odd.tar.zst"
        make(path)
        return (command, path) if command == "inspect" else (command, path, *world.at)

    return prepare


def _bind(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)


def _named(name: str, build: Callable[[], bytes] | None, *, is_folder: bool = False) -> Prepare:
    def prepare(world: World) -> Sequence[Argument]:
        world.cwd = world.folder
        path = world.folder / name
        if is_folder:
            path.mkdir()
        elif build:
            path.write_bytes(build())
        return ("import", *world.at, "--", name)

    return prepare


def _changed_while_read(change: Callable[[Path], object]) -> Prepare:
    """The file changes after its blobs were read and before its manifests are."""

    def prepare(world: World) -> Sequence[Argument]:
        path = world.good()
        read_manifests = BundleReader.read_manifests

        def after_a_change(reader: BundleReader, models: Sequence[SelectedModel]) -> Iterator[tuple[ModelName, bytes]]:
            change(path)
            return read_manifests(reader, models)

        world.patch.setattr(BundleReader, "read_manifests", after_a_change)
        return ("import", path, *world.at)

    return prepare


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _swap(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(noise(1000))
    other.replace(path)
