"""Two JSON readers: one reads what Ollama wrote, as Go's encoding/json does; a strict one reads what ostore wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from ostore.formats.errors import FormatError, LimitError, UnsafeError

# A 64-bit integer has at most 19 digits and a sign, so a longer literal cannot be a size. Python's int() refuses
# thousands of digits anyway.
_MAX_INTEGER_CHARACTERS = 20
_WHITESPACE = " \t\r\n"
# Longer keys outside ASCII are not folded: ostore looks up no key of that length, and folding takes memory.
_MAX_KEY_CHARACTERS = 255
# The reader counts commas and opening brackets: a document has at most one value more than that. A full index has one
# of them in 33 bytes. 16 MiB of `{},` would take half a gigabyte of memory before a parser could count the values.
_MAX_VALUES = 600_000
_SURROGATE = re.compile("[\ud800-\udfff]")
# The keys of every manifest, already folded. A store of 10,000 models has 220,000 of these keys.
_OUR_KEYS = {key: key.lower() for key in ("schemaVersion", "mediaType", "config", "layers", "digest", "size", "from")}


class OutOfRange:
    """An integer literal too long for 64 bits. It is legal under a key that nobody reads, and an error as a size."""

    def __repr__(self) -> str:
        return "a number out of range"


class Mixed:
    """Values of several types under equal keys. Go refuses one of them, unless nobody reads the key."""

    def __repr__(self) -> str:
        return "values of several types"


class GoObject(dict[str, Any]):
    """
    A JSON object as Go reads it into a structure: the case of keys does not matter, and of several equal keys the last
    wins. But null changes nothing, except that it empties a list, and objects and lists are merged.

    The keys are in lower case here. `repeated` names the keys that occur more than once.
    """

    repeated: tuple[str, ...] = ()


def read_go_json(raw: bytes) -> tuple[Any, int, int]:
    """
    Read the first JSON value as Go's decoder does. Objects become GoObject, and invalid UTF-8 is allowed.

    Returns the value, the byte offset of its end, and the number of bytes after it, without white space at either end.

    Raises FormatError when the bytes do not begin with a JSON value, and LimitError when it is nested too deeply.
    """
    # surrogateescape maps every byte to text and back, so the end offset is exact.
    text = raw.decode("utf-8", "surrogateescape")
    start = len(text) - len(text.lstrip(_WHITESPACE))
    try:
        value, end = _GO_DECODER.raw_decode(text, start)
    except RecursionError:
        raise LimitError("JSON nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"not JSON: {_reason(error)}") from None
    end_offset = end if text.isascii() else len(text[:end].encode("utf-8", "surrogateescape"))
    return value, end_offset, len(raw[end_offset:].strip(_WHITESPACE.encode()))


def is_go_object(raw: bytes) -> bool:
    """Return whether the first value that `read_go_json` reads is an object or null, without making it."""
    try:
        value, _ = _PLAIN_DECODER.raw_decode(raw.decode("utf-8", "replace").lstrip(_WHITESPACE))
    except (ValueError, RecursionError):
        return False
    return value is None or isinstance(value, dict)


def read_strict_json(raw: bytes, *, is_folded: bool = False) -> Any:  # noqa: ANN401 - the caller is the parser
    """
    Read one JSON document: UTF-8 without a byte order mark, no key twice, no lone surrogate, nothing after it.

    Raises FormatError for any other bytes, and LimitError when the document has too many values or is nested too
    deeply. With `is_folded`, keys that differ only by case count as equal, and a repeated key raises UnsafeError.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _MAX_VALUES:
        raise LimitError(f"JSON of more than {_MAX_VALUES} values")
    try:
        value = (_FOLDED_DECODER if is_folded else _STRICT_DECODER).decode(raw.decode("utf-8"))
    except RecursionError:
        raise LimitError("JSON nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"not JSON: {_reason(error)}") from None
    # A lone surrogate comes from an escape. It cannot be written as UTF-8.
    if _has_surrogate(value):
        raise FormatError("not JSON: a lone surrogate")
    return value


def write_canonical_json(value: object) -> bytes:
    """
    Write JSON with sorted keys, no spaces, ASCII escapes and one newline. Equal values give equal bytes.

    Raises LimitError when the value is nested too deeply. Python may have read it nevertheless.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    except RecursionError:
        raise LimitError("JSON nested too deeply") from None
    return text.encode("ascii") + b"\n"


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        # Some of Python's messages end with the word already.
        return f"{error.msg[:1].lower()}{error.msg[1:].removesuffix(' at')} at character {error.pos}"
    return str(error)[:200]


def _go_object(pairs: list[tuple[str, Any]]) -> GoObject:
    members = GoObject([(_OUR_KEYS.get(key) or _fold(key), value) for key, value in pairs])
    return members if len(members) == len(pairs) else _merged(pairs)


def _merged(pairs: Iterable[tuple[str, Any]]) -> GoObject:
    """Make an object of pairs in which keys occur twice. Go decodes each value into what the one before has left."""
    members, repeated = GoObject(), dict[str, None]()
    for key, value in ((_fold(key), value) for key, value in pairs):
        if key in members:
            repeated[key] = None
        members[key] = _onto(members.get(key), value)
    members.repeated = tuple(repeated)
    return members


def _onto(old: Any, new: Any) -> Any:  # noqa: ANN401 - JSON is any value
    """Return what Go has after it decoded both values. Costs no more than `new` is long: there may be many of them."""
    if old is None or new is None:
        return new if old is None else None if isinstance(old, list) else old
    if type(old) is not type(new):
        return Mixed()
    if isinstance(new, list):
        return [*map(_onto, old, new), *new[len(old) :]]
    if isinstance(new, GoObject):
        for key, value in new.items():
            old[key] = _onto(old.get(key), value)
        old.repeated = old.repeated or new.repeated
        return old
    return new


def _fold(key: str) -> str:
    """Fold a key as Go does, one character to one. The long s becomes an s; the ligature of f and i stays."""
    if key.isascii():
        return key.lower()
    if len(key) > _MAX_KEY_CHARACTERS:
        return key
    return "".join(folded if len(folded := character.casefold()) == 1 else character for character in key)


def _strict_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key occurs twice")
    return members


def _folded_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = set()
    for key, _ in pairs:
        if _fold(key) in seen:
            raise UnsafeError(f"JSON: key {key!r:.40} occurs twice")
        seen.add(_fold(key))
    return dict(pairs)


def _has_surrogate(value: object) -> bool:
    pending = [value]
    while pending:
        entry = pending.pop()
        if isinstance(entry, dict):
            pending += (*entry.keys(), *entry.values())
        elif isinstance(entry, list):
            pending += entry
        elif isinstance(entry, str) and not entry.isascii() and _SURROGATE.search(entry):
            return True
    return False


def _integer(literal: str) -> int | OutOfRange:
    return int(literal) if len(literal) <= _MAX_INTEGER_CHARACTERS else OutOfRange()


def _no_integer(_: str) -> int:
    """Python's int() refuses thousands of digits, and here nobody asks for the number."""
    return 0


def _strict_integer(literal: str) -> int:
    if len(literal) > _MAX_INTEGER_CHARACTERS:
        raise ValueError("an integer of more than 64 bits")
    return int(literal)


def _strict_float(literal: str) -> float:
    value = float(literal)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number out of range")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_GO_DECODER = json.JSONDecoder(object_pairs_hook=_go_object, parse_int=_integer, parse_constant=_no_constant)
_PLAIN_DECODER = json.JSONDecoder(parse_int=_no_integer, parse_constant=_no_constant)
_STRICT_DECODER = json.JSONDecoder(
    object_pairs_hook=_strict_object, parse_int=_strict_integer, parse_float=_strict_float, parse_constant=_no_constant
)
_FOLDED_DECODER = json.JSONDecoder(
    object_pairs_hook=_folded_object, parse_int=_strict_integer, parse_float=_strict_float, parse_constant=_no_constant
)
