"""Go's JSON is read as Go reads it, our own JSON strictly, and anything else is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats.errors import FormatError, LimitError, OstoreError, UnsafeError
from ostore.formats.json_reading import (
    GoObject,
    OutOfRange,
    read_go_json,
    read_strict_json,
    write_canonical_json,
)

QUICK = settings(max_examples=80, deadline=None, database=None)

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)

NOT_JSON = {
    "empty": b"",
    "white space": b" \n",
    "word": b"manifest",
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "NUL in front": b"\0{}",
    "cut": b'{"a":',
    "single quotes": b"{'a':1}",
    "comma at the end": b'{"a":1,}',
    "no quotes": b"{a:1}",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "line break in a string": b'"a\nb"',
    "escape that is none": rb'"\x41"',
    "plus": b'{"a":+1}',
    "leading zero": b'{"a":01}',
    "hexadecimal": b'{"a":0x10}',
    "comment": b"/* */{}",
}


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON is any value
    """What Go's reading says, as Python says it."""
    if isinstance(value, GoObject):
        return {key: plain(member) for key, member in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON.keys())
@pytest.mark.parametrize("read", [read_go_json, read_strict_json], ids=["as Go", "strictly"])
def test_anything_but_json_is_refused(read: Callable[[bytes], object], raw: bytes) -> None:
    with pytest.raises(FormatError, match=r"^not JSON: "):
        read(raw)


def test_the_place_of_what_is_no_json_is_told_in_words() -> None:
    with pytest.raises(FormatError, match=r"^not JSON: unterminated string starting at character 5$"):
        read_strict_json(b'{"a":"')


@pytest.mark.parametrize("raw", [b"[" * 200_000, b'{"a":' * 200_000], ids=["lists", "objects"])
@pytest.mark.parametrize("read", [read_go_json, read_strict_json], ids=["as Go", "strictly"])
def test_nesting_that_would_exhaust_a_stack_is_a_limit(read: Callable[[bytes], object], raw: bytes) -> None:
    with pytest.raises(LimitError):
        read(raw)


@pytest.mark.parametrize(
    ("key", "is_the_same"),
    [
        ("digest", True),
        ("DIGEST", True),
        ("dige\u017ft", True),
        ("di\u0261est", False),
        ("dige\ufb06", False),
        ("dige\ufb05", False),
        ("digest ", False),
    ],
    ids=["itself", "upper case", "long s", "script g", "ligature of s and t", "ligature of long s and t", "space"],
)
def test_keys_compare_without_case_one_character_to_one_as_in_go(key: str, is_the_same: bool) -> None:
    document, _, _ = read_go_json(json.dumps({key: 1}).encode())
    assert document.get("digest") == (1 if is_the_same else None)


def test_the_last_of_several_keys_wins_and_each_repetition_is_told() -> None:
    document, _, _ = read_go_json(b'{"size":1,"Size":2,"SIZE":3,"other":4}')
    assert document.get("size") == 3
    assert document.repeated == ("size",)


@pytest.mark.parametrize(
    ("raw", "end", "trailing"),
    [
        (b"{}", 2, 0),
        (b" \t\r\n{}\n", 6, 0),
        (b"{} \n\t", 2, 0),
        (b"{}x", 2, 1),
        (b"{}\n{}\n", 2, 2),
        (b"{}\0\0", 2, 2),
        (b'{"a":"\xc3\xa9"}\n', 10, 0),
        (b'{"a":"\xff\xfe"}!', 10, 1),
        (b"{}\xc3\xa9", 2, 2),
    ],
    ids=[
        "whole",
        "white space around",
        "white space after",
        "one byte more",
        "second document",
        "NULs",
        "two-byte character",
        "invalid UTF-8",
        "character after",
    ],
)
def test_the_end_of_the_first_value_is_told_in_bytes(raw: bytes, end: int, trailing: int) -> None:
    assert read_go_json(raw)[1:] == (end, trailing)


def test_an_integer_too_long_for_any_size_is_set_apart_as_go_does_in_a_key_it_skips() -> None:
    document, _, _ = read_go_json(b'{"big":' + b"9" * 5000 + b',"size":-9223372036854775808}')
    assert isinstance(document.get("big"), OutOfRange)
    assert document.get("size") == -(2**63)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":1}',
        b'{"b":{"a":1,"a":2}}',
        b"{}x",
        b"{}{}",
        b'"\xff"',
        b'"\xc0\xaf"',
        rb'"\ud800"',
        rb'{"\udc00":1}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":-' + b"9" * 20 + b"}",
        b'{"a":1e999}',
        b'{"a":-1e999}',
    ],
    ids=[
        "key twice",
        "key twice inside",
        "byte after it",
        "two documents",
        "invalid UTF-8",
        "overlong slash",
        "lone surrogate",
        "lone surrogate in a key",
        "5,000 digits",
        "20 digits and a sign",
        "too large",
        "too small",
    ],
)
def test_what_two_readers_could_take_in_two_ways_is_refused_by_the_strict_one(raw: bytes) -> None:
    with pytest.raises(FormatError, match=r"^not JSON: "):
        read_strict_json(raw)


def test_keys_that_differ_by_case_are_two_keys_unless_they_shall_be_one() -> None:
    assert read_strict_json(b'{"a":1,"A":2}') == {"a": 1, "A": 2}
    with pytest.raises(UnsafeError, match="key 'A' occurs twice"):
        read_strict_json(b'{"a":1,"A":2}', is_folded=True)


def test_more_values_than_any_index_has_are_a_limit_before_they_take_memory() -> None:
    with pytest.raises(LimitError, match="JSON of more than"):
        read_strict_json(b"[" + b"{}," * 700_000 + b"{}]")


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        ({"b": 1, "a": [True, None]}, b'{"a":[true,null],"b":1}\n'),
        ("\u00e9\u2028\U0001f600", rb'"\u00e9\u2028\ud83d\ude00"' + b"\n"),
        ({}, b"{}\n"),
        ("<&>/", b'"<&>/"\n'),
    ],
    ids=["sorted, no spaces", "ASCII escapes", "empty", "nothing else is escaped"],
)
def test_canonical_json_is_spelled_in_one_way(value: object, raw: bytes) -> None:
    assert write_canonical_json(value) == raw


@QUICK
@given(VALUES)
def test_canonical_json_says_what_it_was_made_of(value: object) -> None:
    raw = write_canonical_json(value)
    assert read_strict_json(raw) == value
    assert write_canonical_json(read_strict_json(raw)) == raw


@QUICK
@given(st.lists(st.tuples(TEXTS, INTEGERS), unique_by=lambda pair: pair[0], max_size=6), st.randoms())
def test_canonical_json_does_not_depend_on_the_order_of_keys(pairs: list[tuple[str, int]], random: Any) -> None:  # noqa: ANN401
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert write_canonical_json(dict(shuffled)) == write_canonical_json(dict(pairs))


@QUICK
@given(VALUES, st.sampled_from([None, 1, 4]), st.text(" \t\r\n", max_size=4), st.booleans())
def test_go_json_agrees_with_python_on_plain_documents(
    value: Any,  # noqa: ANN401
    indent: int | None,
    space: str,
    ascii_: bool,
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_)
    raw = f"{space}{text}{space}".encode()
    found, end, trailing = read_go_json(raw)
    assert raw[:end].decode() == space + text
    assert trailing == 0
    if not _has_twins(value):
        assert plain(found) == _folded(value)


@QUICK
@given(st.binary(max_size=60) | st.text('{}[]":,\\u0e1-dtfn ', max_size=60).map(str.encode))
def test_bytes_are_json_or_are_refused_and_never_anything_else(raw: bytes) -> None:
    for read in (read_go_json, read_strict_json):
        try:
            value = read(raw)
        except OstoreError:
            continue
        if read is read_strict_json and isinstance(value, float):
            assert math.isfinite(value)


def _folded(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {_fold(key): _folded(member) for key, member in value.items()}
    return [_folded(entry) for entry in value] if isinstance(value, list) else value


def _fold(key: str) -> str:
    return "".join(c if len(c.casefold()) > 1 else c.casefold() for c in key)


def _has_twins(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, dict):
        return len(set(map(_fold, value))) < len(value) or any(map(_has_twins, value.values()))
    return isinstance(value, list) and any(map(_has_twins, value))


def test_a_long_key_outside_ascii_is_not_folded() -> None:
    document, _, _ = read_go_json(('{"' + "É" * 256 + '":1,"' + "É" * 255 + '":2}').encode())
    assert list(document) == ["É" * 256, "é" * 255]
