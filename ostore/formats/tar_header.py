"""
The tar headers of a bundle. ostore writes them in one fixed way and reads them strictly.

Format: GNU (GNU tar manual, "Basic Tar Format"). Blocks have 512 bytes and numbers are octal. A size of 8 GiB or more
is in base-256. An entry of type `L` comes before a member whose name is longer than 100 bytes.

ostore does not use Python's `tarfile` on untrusted input. `tarfile` supports much more, and its history of filter
bypasses and hangs (CVE-2007-4559, CVE-2025-4517, CVE-2026-11972) comes from that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ostore.formats.errors import FormatError, IntegrityError, InvalidBundleError, LimitError, UnsafeError

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
# A manifest path has at most 9 + 1 + 350 + 3 * 81 bytes. All other names in a bundle are shorter than 100 bytes.
MAX_LONG_NAME_BYTES = 1024

REGULAR = b"0"
_FOLDER = b"5"
LONG_NAME = b"L"
_EXTENDED = (b"x", b"g")
_TYPES = {
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"5": "directory",
    b"6": "FIFO",
    b"7": "contiguous file",
    b"S": "sparse file",
    b"x": "extended header",
    b"g": "extended header",
}
_LONG_NAME_MARK = b"././@LongLink"
_MAGIC = b"ustar  \0"
_MAX_OCTAL_SIZE = 8**11 - 1
_OCTAL_SIZE = re.compile(rb"[0-7]{11}\0")
_BASE_256 = 0x80
_NAME_BYTES = 100


@dataclass(frozen=True, slots=True)
class TarHeader:
    """One header block: its name (cut at 100 bytes if it is longer), size in bytes, and type flag."""

    name: str
    size: int
    type_flag: bytes

    @property
    def is_extended(self) -> bool:
        """True for a pax header. A bundle never has one."""
        return self.type_flag in _EXTENDED

    @property
    def kind(self) -> str:
        """The type in words, for a message."""
        return _TYPES.get(self.type_flag, f"type {self.type_flag!r}")


def padding(size: int) -> int:
    """Return the number of zero bytes that fill the last block of a member of `size` bytes."""
    return -size % BLOCK


def member_header(name: str, size: int) -> bytes:
    """Return all that comes before a member's data: one block, or more for a name of more than 100 bytes."""
    return _header(name, size, REGULAR)


def folder_header(name: str) -> bytes:
    """Return the header of a folder, as a layer of an image has it. `name` ends in a slash."""
    return _header(name, 0, _FOLDER)


def member_length(name: str, size: int) -> int:
    """Return the number of bytes that a member takes in the stream, with its header and padding."""
    return len(member_header(name, 0)) + size + padding(size)


def parse_header(block: bytes) -> TarHeader:
    """
    Read one header block of 512 bytes. Ignores mode, owner and times: a published file does not get these.

    Raises IntegrityError for a bad checksum, FormatError for a bad size, name field or magic, and UnsafeError for a
    name outside ASCII or a type, link or extension that is not allowed in a bundle.
    """
    if not _has_good_checksum(block):
        raise IntegrityError("tar header: bad checksum")
    header = TarHeader(_name(block[:_NAME_BYTES]), _size(block[124:136]), block[156:157])
    if block[257:265] != _MAGIC:
        if header.type_flag in _TYPES:
            raise UnsafeError(f"member {header.name!r}: a {header.kind} has no place in a bundle")
        raise InvalidBundleError(f"tar header: expected GNU format, got {block[257:265]!r}")
    if header.type_flag == REGULAR and (any(block[157:257]) or any(block[345:])):
        raise UnsafeError(f"member {header.name!r}: a link target or an extension in the header of a regular file")
    return header


def parse_long_name(data: bytes) -> str:
    """Read the name in an entry of type `L`. Raises FormatError, LimitError or UnsafeError."""
    if len(data) > MAX_LONG_NAME_BYTES:
        raise LimitError(f"long name: expected at most {MAX_LONG_NAME_BYTES} bytes, got {len(data)}")
    if data[-1:] != b"\0" or b"\0" in data[:-1]:
        raise InvalidBundleError("long name: expected one NUL, at its end")
    return _text(data[:-1])


def _header(name: str, size: int, type_flag: bytes) -> bytes:
    encoded = name.encode("ascii")
    if len(encoded) <= _NAME_BYTES:
        return _block(encoded, size, type_flag)
    long_name = encoded + b"\0"
    return (
        _block(_LONG_NAME_MARK, len(long_name), LONG_NAME)
        + long_name
        + bytes(padding(len(long_name)))
        + _block(encoded[:_NAME_BYTES], size, type_flag)
    )


def _block(name: bytes, size: int, type_flag: bytes) -> bytes:
    number = b"%011o\0" % size if size <= _MAX_OCTAL_SIZE else bytes([_BASE_256]) + size.to_bytes(11, "big")
    zero = b"0000000\0"
    mode = b"0000755\0" if type_flag == _FOLDER else b"0000644\0"
    parts = (name.ljust(_NAME_BYTES, b"\0"), mode, zero, zero, number, b"%011o\0" % 0, b" " * 8, type_flag)
    block = (b"".join(parts).ljust(257, b"\0") + _MAGIC).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _has_good_checksum(block: bytes) -> bool:
    field = block[148:156]
    return re.fullmatch(rb"[0-7]{6}\0 ", field) is not None and int(field[:6], 8) == (
        sum(block) - sum(field) + 8 * ord(" ")
    )


def _size(field: bytes) -> int:
    if _OCTAL_SIZE.fullmatch(field):
        return int(field[:11], 8)
    if field[0] == _BASE_256:
        size = int.from_bytes(field[1:], "big")
        if _MAX_OCTAL_SIZE < size < 2**63:
            return size
    raise FormatError(f"tar header: invalid size field {field!r}")


def _name(field: bytes) -> str:
    name, _, rest = field.partition(b"\0")
    if any(rest):
        raise InvalidBundleError("tar header: bytes after the end of a name")
    return _text(name)


def _text(name: bytes) -> str:
    if not name.isascii():
        raise UnsafeError(f"member {name!r:.120}: expected ASCII")
    return name.decode("ascii")
