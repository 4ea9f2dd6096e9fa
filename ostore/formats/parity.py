"""
How much parity a set of volumes gets. PAR2 cuts every volume into blocks and adds recovery blocks. Each of these can
take the place of any one block.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ostore.formats.errors import UsageError

# The number of par2 itself: a block is then small enough to mend a scratch, and recovery takes no longer than reading.
_BLOCKS = 2000
_LEAST_BLOCK = 1024
# A recovery block has a header, and a file repeats what describes the set; both as par2cmdline writes them.
_HEADER_BYTES = 68
_SUM_BYTES = 20
_DESCRIPTION_BYTES = 1024
_COPIES = 17
# par2cmdline writes at most so many recovery files.
_MAX_FILES = 31
# A smaller file needs no limit: every medium holds it.
_ANY_MEDIUM = 16 * 1024 * 1024
# Its files are called like the bundle, and then .vol1000+1000.par2. A name has at most 255 bytes.
_MAX_NAME_BYTES = 237
# Its patterns for files, what it takes for the end of a folder's name, and what it writes in another way.
_UNFIT = re.compile(r"[*?\\\x00-\x1f\x7f]")
_WISH = re.compile(r"([0-9]{1,3})%?|([0-9]{1,3})volumes?")


@dataclass(frozen=True, slots=True)
class ParityWish:
    """What a person asks for: a percentage of the blocks, or enough to replace so many whole volumes."""

    percent: int = 0
    volumes: int = 0


@dataclass(frozen=True, slots=True)
class ParityPlan:
    """
    `blocks` of `block_size` bytes in the volumes, `recovery_blocks` beside them, spread over `files` files. All files,
    with the small one that describes the others, have at most `size` bytes.
    """

    block_size: int
    blocks: int
    recovery_blocks: int
    files: int
    size: int


def parse_parity(text: str) -> ParityWish:
    """Read `5%`, `5`, `1volume` or `2volumes`. Raises UsageError."""
    found = _WISH.fullmatch(text)
    percent, volumes = (int(found[1] or 0), int(found[2] or 0)) if found else (0, 0)
    if not 1 <= percent + volumes <= (100 if percent else 999):
        raise UsageError(
            f"expected 1% to 100%, or 1volume, 2volumes and so on for whole ones, got {text!r}", parameter="parity"
        )
    return ParityWish(percent, volumes)


def refuse_unfit(name: str) -> None:
    """Raises UsageError if par2 cannot make parity for the volumes of a bundle of this name, or cannot repair them."""
    if found := _UNFIT.search(name):
        raise UsageError(
            f"{name!r}: par2 cannot take a name with {found[0]!r}", parameter="parity", hint="choose another name"
        )
    size = len(name.encode("utf-8", "surrogateescape"))
    if size > _MAX_NAME_BYTES:
        raise UsageError(f"expected a name of at most {_MAX_NAME_BYTES} bytes, got {size}", parameter="parity")


def least_parity(wish: ParityWish, total: int, split: int, folders: int) -> int:
    """Return the bytes that the parity for `total` bytes, cut into volumes of `split` bytes, is not smaller than."""
    if wish.percent:
        return total * wish.percent // 100
    lost = min(wish.volumes * split, total)
    return lost * folders // (folders - wish.volumes) if folders > wish.volumes else lost


def plan_parity(wish: ParityWish, sizes: Sequence[int], split: int, folders: int) -> ParityPlan:
    """
    Return how par2 has to be told to fulfil a wish for volumes of these sizes, which lie in so many folders.

    If there are several folders, the recovery files are spread over them, and whole volumes can be replaced even if
    what lay beside them is lost too. Raises UsageError if that needs more files than par2 writes.
    """
    block = max(_LEAST_BLOCK, -(-sum(sizes) // _BLOCKS))
    block += -block % 4
    counts = [-(-size // block) for size in sizes]
    wanted = -(-sum(counts) * wish.percent // 100)
    if wish.volumes:
        if wish.volumes >= len(sizes) > 1 or (folders > 1 and wish.volumes >= folders):
            raise UsageError(
                f"{wish.volumes} whole volumes cannot be replaced: there are {len(sizes)}", parameter="parity"
            )
        wanted = min(wish.volumes * max(counts), sum(counts))
        if folders > 1:
            wanted = -(-wanted * folders // (folders - wish.volumes))
    described = _SUM_BYTES * sum(counts) + _DESCRIPTION_BYTES * len(sizes)
    step = folders if folders <= _MAX_FILES else 1
    for files in range(step, _MAX_FILES + 1, step):
        each = -(-wanted // files)
        size = each * (block + _HEADER_BYTES) + _COPIES * described
        if size <= max(split, _ANY_MEDIUM):
            # Each folder gets as much as any other.
            recovery, used = each * files if files > 1 else wanted, min(files, wanted)
            return ParityPlan(block, sum(counts), recovery, used, size * used + described)
    raise UsageError(
        f"{wanted} recovery blocks do not fit into {_MAX_FILES} files of at most {split} bytes",
        parameter="parity",
        hint="take less parity, or larger volumes",
    )
