"""Write JSON byte for byte as Go's encoding/json does, because the digest of a params layer or config rests on it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal

# encoding/json escapes these: control characters, quotes, what HTML reads, and two line ends of JavaScript.
_ESCAPED = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Outside these, Go writes a float with an exponent.
_SMALLEST, _LARGEST = 1e-6, 1e21


def write_go_json(value: object) -> bytes:
    """
    Write a value as Go's encoder does, with one newline. Integers are written in full.

    The keys of a dictionary are in the order that they have: Go writes a struct in the order of its fields, and a map
    sorted; see `sorted_keys`. Raises TypeError for what is no JSON.
    """
    return (_written(value) + "\n").encode()


def sorted_keys(members: Mapping[str, object]) -> dict[str, object]:
    """Return a mapping in the order in which Go writes a map: by the bytes of the keys."""
    return {key: members[key] for key in sorted(members, key=lambda key: key.encode("utf-8", "surrogatepass"))}


def _written(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'"{_ESCAPED.sub(_escape, value)}"'
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_written(str(key))}:{_written(member)}" for key, member in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    raise TypeError(f"not JSON: {value!r:.40}")


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    if "\ud800" <= character <= "\udfff":
        return "\\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"


def _number(value: float) -> str:
    """The shortest digits that give the same float; an exponent only where a plain number would be long."""
    if not math.isfinite(value):
        raise TypeError(f"not JSON: {value!r}")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    if _SMALLEST <= abs(value) < _LARGEST:
        plain = format(Decimal(repr(value)), "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    # Python pads both exponents to two digits, Go only a positive one.
    return repr(value).replace("e-0", "e-")
