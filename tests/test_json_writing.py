"""JSON is written byte for byte as Go writes it: the digests of blobs rest on it."""

from __future__ import annotations

import math

import pytest

from ostore.formats.json_writing import sorted_keys, write_go_json


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7, "0.7"),
        (1e-7, "1e-7"),
        (1.5e-10, "1.5e-10"),
        (1e-6, "0.000001"),
        (0.00001234, "0.00001234"),
        (4096.0, "4096"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (5e-324, "5e-324"),
        (123456789012345680000.0, "123456789012345680000"),
        (float(2**63), "9223372036854776000"),
        (-0.0, "-0"),
        (0.0, "0"),
        (10, "10"),
        (True, "true"),
        (None, "null"),
        ([], "[]"),
        ({"b": 1, "a": [1, "x"]}, '{"b":1,"a":[1,"x"]}'),
        ("<|end|> & \"'/\\", '"\\u003c|end|\\u003e \\u0026 \\"\'/\\\\"'),
        ("\b\f\n\r\t\x00\x1f\x7f", '"\\b\\f\\n\\r\\t\\u0000\\u001f\x7f"'),
        ("é\u2028\u2029\ud800", '"é\\u2028\\u2029\\ufffd"'),
    ],
    ids=ascii,
)
def test_a_value_is_written_as_go_writes_it(value: object, text: str) -> None:
    assert write_go_json(value) == text.encode() + b"\n"


def test_a_map_is_sorted_by_the_bytes_of_its_keys() -> None:
    assert list(sorted_keys({"b": 1, "é": 2, "B": 3, "a": 4})) == ["B", "a", "b", "é"]


@pytest.mark.parametrize("value", [math.nan, math.inf, b"", {1}])
def test_what_is_no_json_is_an_error(value: object) -> None:
    with pytest.raises(TypeError, match="not JSON"):
        write_go_json(value)
