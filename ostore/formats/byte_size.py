"""Sizes as people type them."""

from __future__ import annotations

import re

from ostore.formats.errors import UsageError

MAX_SIZE = 2**63 - 1
_SIZE = re.compile(r"([0-9]{1,19})([KMGT]?)(B|iB|)", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_byte_size(text: str, parameter: str, *, expected: str) -> int:
    """
    Return a number of bytes, as `split -b` of coreutils reads it: K and KiB are 1,024, KB is 1,000.

    `expected` is for the message. Raises UsageError.
    """
    found = _SIZE.fullmatch(text)
    if found is None or (found[3] and not found[2]):
        raise UsageError(f"expected {expected}, got {text!r}", parameter=parameter)
    unit: int = (1000 if found[3].upper() == "B" else 1024) ** _POWERS[found[2].upper()]
    size = int(found[1]) * unit
    if not 1 <= size <= MAX_SIZE:
        raise UsageError(f"expected 1 to {MAX_SIZE} bytes, got {text!r}", parameter=parameter)
    return size
