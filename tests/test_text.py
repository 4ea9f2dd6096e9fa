"""Numbers and ages look as Ollama prints them, and no text can control the terminal."""

from __future__ import annotations

import io
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.cli.text import clean, human_age, human_bytes, human_seconds, plural, say, table

QUICK = settings(max_examples=100, deadline=None, database=None)

MINUTE, HOUR, DAY = 60, 3600, 86_400


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1001, "1.0 KB"),
        (1500, "1.5 KB"),
        (9949, "9.9 KB"),
        (9999, "10.0 KB"),
        (10_000, "10 KB"),
        (10_999, "10 KB"),
        (999_999, "999 KB"),
        (1_000_000, "1 MB"),
        (1_500_000, "1.5 MB"),
        (19_851_349, "19 MB"),
        (999_999_999, "999 MB"),
        (1_000_000_000, "1 GB"),
        (4_661_211_808, "4.7 GB"),
        (2**30, "1.1 GB"),
        (45_999_999_999, "45 GB"),
        (10**12, "1 TB"),
        (1_550_000_000_000, "1.6 TB"),
        (10**15, "1000 TB"),
        (2**63 - 1, "9223372 TB"),
    ],
)
def test_sizes_are_shown_as_ollama_shows_them(size: int, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second ago"),
        (0.999, "Less than a second ago"),
        (1, "1 second ago"),
        (1.999, "1 second ago"),
        (2, "2 seconds ago"),
        (59.999, "59 seconds ago"),
        (MINUTE, "About a minute ago"),
        (2 * MINUTE - 0.1, "About a minute ago"),
        (2 * MINUTE, "2 minutes ago"),
        (HOUR - 0.1, "59 minutes ago"),
        (HOUR, "About an hour ago"),
        (1.49 * HOUR, "About an hour ago"),
        (1.5 * HOUR, "2 hours ago"),
        (2.5 * HOUR, "3 hours ago"),
        (47.49 * HOUR, "47 hours ago"),
        (47.5 * HOUR, "2 days ago"),
        (2 * DAY, "2 days ago"),
        (3 * DAY - HOUR, "2 days ago"),
        (14 * DAY - HOUR, "13 days ago"),
        (14 * DAY, "2 weeks ago"),
        (21 * DAY - HOUR, "2 weeks ago"),
        (60 * DAY - HOUR, "8 weeks ago"),
        (60 * DAY, "2 months ago"),
        (90 * DAY - HOUR, "2 months ago"),
        (730 * DAY - HOUR, "24 months ago"),
        (730 * DAY, "2 years ago"),
        (1095 * DAY - 1, "2 years ago"),
        (1095 * DAY, "3 years ago"),
        (-1, "1 second from now"),
        (-0.5, "Less than a second from now"),
        (-1.5 * HOUR, "2 hours from now"),
        (-730 * DAY, "2 years from now"),
    ],
)
def test_ages_are_shown_as_ollama_shows_them(seconds: float, text: str) -> None:
    assert human_age(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (31.4, "31 s"), (59.6, "1 min 0 s"), (252, "4 min 12 s")],
)
def test_durations_are_shown_in_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 blobs"), (1, "1 blob"), (2, "2 blobs"), (1204, "1,204 blobs"), (-1, "-1 blobs")]
)
def test_one_is_singular_and_everything_else_is_not(count: int, text: str) -> None:
    assert plural(count, "blob") == text


HARMFUL = {
    "escape": ("\x1b[2J", "\\x1b[2J"),
    "clipboard": ("\x1b]52;c;eA==\x07", "\\x1b]52;c;eA==\\x07"),
    "link": ("\x1b]8;;https://example.org\x1b\\", "\\x1b]8;;https://example.org\\x1b\\"),
    "C1 introducer": ("\x9b2J", "\\x9b2J"),
    "C1 next line": ("a\x85b", "a\\x85b"),
    "carriage return": ("good\rbad", "good\\x0dbad"),
    "backspace": ("a\b", "a\\x08"),
    "bell": ("\a", "\\x07"),
    "tab": ("a\tb", "a\\x09b"),
    "NUL": ("a\0", "a\\x00"),
    "delete": ("\x7f", "\\x7f"),
    "form feed": ("\f", "\\x0c"),
    "right to left": ("m\u202egpj.exe", "m\\u202egpj.exe"),
    "isolate": ("\u2066", "\\u2066"),
    "zero width space": ("a\u200bb", "a\\u200bb"),
    "zero width joiner": ("a\u200db", "a\\u200db"),
    "byte order mark": ("\ufeff", "\\ufeff"),
    "soft hyphen": ("\xad", "\\xad"),
    "no-break space": ("a\xa0b", "a\\xa0b"),
    "line separator": ("\u2028", "\\u2028"),
    "tag character": ("\U000e0041", "\\U000e0041"),
    "private use": ("\ue000", "\\ue000"),
    "lone surrogate": ("\ud800", "\\ud800"),
    "byte of a file name": ("\udcff", "\\udcff"),
    "unassigned": ("\u0378", "\\u0378"),
}


@pytest.mark.parametrize(("text", "shown"), HARMFUL.values(), ids=HARMFUL.keys())
def test_what_could_command_or_fool_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert clean(text) == shown


@pytest.mark.parametrize(
    "text",
    ["", "llama3:latest", "two\nlines\n", "caf\u00e9", "\u0394\u4e2d\u6587", "\U0001f600", "a\\x1b", "e\u0301"],
    ids=["empty", "name", "lines", "accent", "scripts", "emoji", "backslash", "combining accent"],
)
def test_what_people_read_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@QUICK
@given(st.text(st.characters() | st.characters(categories=["Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"])))
def test_no_text_has_anything_but_printable_characters_and_line_breaks(text: str) -> None:
    cleaned = clean(text)
    assert all(
        unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn"}
        for character in cleaned
        if character != "\n"
    )
    assert clean(cleaned) == cleaned
    assert cleaned.count("\n") == text.count("\n")
    cleaned.encode()


@QUICK
@given(
    st.text(st.characters() | st.characters(categories=["Cc", "Cf", "Cs"])),
    st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"]),
)
def test_every_text_can_be_said_to_every_stream(text: str, encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    say(text, stream)
    stream.flush()
    assert raw.getvalue().endswith(b"\n")
    assert not set(raw.getvalue()) & (set(range(0x20)) - {0x0A})


def test_what_an_encoding_cannot_hold_is_escaped() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="")
    say("caf\u00e9 \u4e2d", stream)
    stream.seek(0)
    assert stream.read() == "caf\\xe9 \\u4e2d\n"


def test_a_terminal_without_utf_8_gets_every_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    code = "from ostore.cli.text import say; say('caf\\u00e9 \\udcff \\x1b[2J')"
    made = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONIOENCODING": "ascii:strict", "PATH": ""},
        capture_output=True,
        check=True,
    )
    assert made.stdout.splitlines() == [b"caf\\xe9 \\udcff \\x1b[2J"]


def test_columns_are_left_aligned_four_spaces_apart() -> None:
    assert table(("NAME", "ID"), [("llama3:latest", "0123456789ab"), ("x", "")]) == (
        "NAME             ID\nllama3:latest    0123456789ab\nx"
    )
    assert table(("NAME", "ID"), []) == "NAME    ID"


def test_a_cell_cannot_break_a_table() -> None:
    lines = table(("NAME", "SIZE"), [("a\x1b[2J", "1 B"), ("b", "2 B")]).splitlines()
    assert lines[1:] == ["a\\x1b[2J    1 B", "b           2 B"]
