"""
A bundle in volumes: how large they are, what the files of a set are called, and the list of their digests.

The files of the set NAME are NAME.001, NAME.002 and so on, and beside them NAME.sha256, NAME.RESTORE.txt and parity,
NAME.par2 and NAME.volN+M.par2. Parity of some of the volumes is called like the first of these, NAME.001.par2 and
NAME.001.volN+M.par2. Every other file is foreign.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ostore.formats.byte_size import parse_byte_size
from ostore.formats.digest import Digest
from ostore.formats.errors import InvalidBundleError, LimitError

MAX_VOLUMES = 999
# 999 lines with the longest name that a path can have.
MAX_SUMS_BYTES = 4 * 1024 * 1024
_MIB = 1024 * 1024
# A medium also holds its file system, and the small files of the set.
_RESERVE = 16 * _MIB
# FAT32 holds files of less than 4 GiB. A DVD+R has 2,295,104 sectors of 2,048 bytes, fewer than a DVD-R; a BD-R of one
# layer has 12,219,392.
PRESETS: Mapping[str, int] = {
    "fat32": 4095 * _MIB,
    "dvd": 4_700_372_992 - _RESERVE,
    "bd25": 25_025_314_816 - _RESERVE,
}
_PART = re.compile(
    r"(.*[^/]\.tar(?:\.zst)?)\.(?:([0-9]{3})|sha256|RESTORE\.txt|(?:[0-9]{3}\.)?(?:vol[0-9]+\+[0-9]+\.)?par2)",
    re.DOTALL,
)
_PARITY = re.compile(r"(?:[0-9]{3}\.)?(?:vol[0-9]+\+[0-9]+\.)?par2")
_SUM = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)", re.DOTALL)


def parse_size(text: str) -> int:
    """
    Return the bytes of a volume, from a preset or from a number as `split -b` reads it, or with `GiB`.

    Raises UsageError.
    """
    if text.lower() in PRESETS:
        return PRESETS[text.lower()]
    return parse_byte_size(text, "split", expected=f"a size such as 4095M, 2GB or 2GiB, or {' or '.join(PRESETS)}")


def volume_name(name: str, number: int) -> str:
    """Return the file name of a volume, counted from 1. Raises LimitError from 1,000 on."""
    if number > MAX_VOLUMES:
        raise LimitError(f"{name}: expected at most {MAX_VOLUMES} volumes")
    return f"{name}.{number:03}"


def sums_name(name: str) -> str:
    """Return the name of the list of the digests of the volumes."""
    return f"{name}.sha256"


def instructions_name(name: str) -> str:
    """Return the name of the file that says how to restore the set."""
    return f"{name}.RESTORE.txt"


def parity_name(name: str) -> str:
    """Return the name of the first file of the parity of a set, or of the volumes from the one of that name on."""
    return f"{name}.par2"


def set_of(file: str) -> str | None:
    """Return the name of the bundle that a file belongs to, judged by its own name, or None for any other file."""
    found = _PART.fullmatch(file)
    return found[1] if found and found[2] != "000" else None


def number_of(name: str, file: str) -> int | None:
    """Return which volume of a set a file is, judged by its name, or None if it is none."""
    found = _PART.fullmatch(file)
    return int(found[2]) if found and found[1] == name and found[2] and found[2] != "000" else None


def is_parity(name: str, file: str) -> bool:
    """Return whether a file is parity of a set, judged by its name."""
    return file.startswith(f"{name}.") and _PARITY.fullmatch(file[len(name) + 1 :]) is not None


def least_size(total: int) -> int:
    """Return a whole number of MiB for each volume with which `total` bytes need at most 999 volumes."""
    return -(-total // (MAX_VOLUMES * _MIB))


def write_sums(name: str, digests: Iterable[Digest]) -> bytes:
    """Return the list of digests of a set: one line for each volume, as `sha256sum -c` reads it in their folder."""
    lines = (_line(digest, volume_name(name, number)) for number, digest in enumerate(digests, 1))
    return "".join(lines).encode("utf-8", "surrogateescape")


def read_sums(name: str, data: bytes) -> tuple[Digest, ...]:
    """
    Return the digests of the volumes of a set, in order, from its list.

    Raises LimitError if it is too large, InvalidBundleError if it is not what `write_sums` writes.
    """
    if len(data) > MAX_SUMS_BYTES:
        raise LimitError(f"{sums_name(name)}: expected at most {MAX_SUMS_BYTES} bytes, got {len(data)}")
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    digests: list[Digest] = []
    for number, line in enumerate(lines[:-1], 1):
        found = _SUM.fullmatch(line)
        is_next = found and number <= MAX_VOLUMES and found[1] + found[3] == _name_in_sums(volume_name(name, number))
        if found is None or not is_next:
            raise InvalidBundleError(f"{sums_name(name)}: line {number}: expected the digest of volume {number}")
        digests.append(Digest(found[2]))
    if lines[-1] or not digests:
        raise InvalidBundleError(f"{sums_name(name)}: expected a line for each volume, and a line break at the end")
    return tuple(digests)


def _line(digest: Digest, file: str) -> str:
    written = _name_in_sums(file)
    mark = "\\" if written.startswith("\\") else ""
    return f"{mark}{digest.hex}  {written[len(mark) :]}\n"


def _name_in_sums(file: str) -> str:
    """Return a name as sha256sum writes it; a backslash before it stands at the beginning of the line."""
    escaped = file.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return escaped if escaped == file else f"\\{escaped}"
