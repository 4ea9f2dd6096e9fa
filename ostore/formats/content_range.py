"""The `Content-Range` and `Content-Length` of an answer (RFC 9110, sections 14.4 and 8.6)."""

from __future__ import annotations

import re

# No number of more digits is the size of anything.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")

_CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")


def parse_content_length(text: str) -> int | None:
    """Return the number of bytes; None for another text."""
    return int(text) if _CONTENT_LENGTH.fullmatch(text) else None


def parse_content_range(text: str) -> tuple[int, int, int | None] | None:
    """Return the first byte, the byte after the last one, and the whole size if it is told; None for another text."""
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None:
        return None
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    is_whole = first <= last and (total is None or last < total)
    return (first, last + 1, total) if is_whole else None
