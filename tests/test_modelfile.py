"""A rendered Modelfile says what the model says, in a form that Ollama's reader accepts."""

from __future__ import annotations

import pytest

from ostore.formats.errors import FormatError
from ostore.formats.modelfile import parameter_text, render_modelfile
from tests.torture.fuzz.modelfile_reader import read_modelfile


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7, "0.7"),
        (1e-7, "0.0000001"),
        (1e-6, "0.000001"),
        (2.5e-5, "0.000025"),
        (4096.0, "4096"),
        (1e21, "1" + "0" * 21),
        (-0.5, "-0.5"),
        (10, "10"),
        (True, "true"),
        ("USER:", "USER:"),
        ("", ""),
    ],
    ids=str,
)
def test_a_number_is_spelled_without_an_exponent(value: object, text: str) -> None:
    assert parameter_text(value) == text


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("{{ .Prompt }}", "{{ .Prompt }}"),
        ("a # b", "a # b"),
        ('say "hi"', 'say "hi"'),
        ('"quoted"', '""""quoted""""'),
        ("two\nlines", '"""two\nlines"""'),
        (" space in front", '""" space in front"""'),
        ("newline at the end\n", '"""newline at the end\n"""'),
    ],
    ids=["plain", "number sign", "quotes inside", "quotes around", "lines", "space", "newline"],
)
def test_only_text_that_needs_quotes_gets_them(text: str, spelled: str) -> None:
    assert render_modelfile("x:latest", [], [("SYSTEM", text)], [], []).endswith(f"\nSYSTEM {spelled}\n")


def test_a_text_that_would_end_too_early_is_refused() -> None:
    with pytest.raises(FormatError, match="three quotes"):
        render_modelfile("x:latest", [], [("SYSTEM", 'a """\nb')], [], [])


def test_instructions_come_in_one_order_and_empty_texts_are_left_out() -> None:
    rendered = render_modelfile(
        "x:latest",
        [("FROM", "/blobs/a"), ("ADAPTER", "/blobs/b")],
        [("TEMPLATE", "{{ .Prompt }}"), ("SYSTEM", "")],
        [("stop", "USER:"), ("temperature", 0.5)],
        [("user", "hello"), ("assistant", "hi\nyou")],
    )
    assert rendered == (
        "# Made by ostore. To build on this model, put this in place of the FROM line below:\n"
        "# FROM x:latest\n"
        "\n"
        "FROM /blobs/a\n"
        "ADAPTER /blobs/b\n"
        "TEMPLATE {{ .Prompt }}\n"
        "PARAMETER stop USER:\n"
        "PARAMETER temperature 0.5\n"
        "MESSAGE user hello\n"
        'MESSAGE assistant """hi\nyou"""\n'
    )


@pytest.mark.parametrize(
    "text",
    [
        "a\rFROM /etc/passwd",
        '\u200d"a',
        '"',
        '""',
        '"""',
        'a"""',
        '"\nb',
        " a\t",
        "\x00",
        "a\r\nb",
        "\x85a",
        "\u00a0a\u2028b",
    ],
    ids=ascii,
)
def test_ollamas_reader_takes_back_what_it_can_print(text: str) -> None:
    rendered = render_modelfile("x:latest", [("FROM", text)], [("SYSTEM", text)], [("stop", text)], [("user", text)])
    shown = "".join(character for character in text if character.isprintable() or character in "\t\r\n")
    assert read_modelfile(rendered) == [
        ("from", "", shown),
        ("system", "", shown),
        ("parameter", "stop", shown),
        ("message", "user", shown),
    ]


@pytest.mark.parametrize(
    ("texts", "parameters", "messages"),
    [
        (['a"""\nb'], [], []),
        (['a""" \rb'], [], []),
        (['a"""\u200d\nb'], [], []),
        ([], [("a b", 1)], []),
        ([], [("a\nFROM /etc/passwd\nPARAMETER b", 1)], []),
        ([], [("", 1)], []),
        ([], [("\u0661", 1)], []),
        ([], [], [("user\nADAPTER /etc/passwd\nMESSAGE user", "hi")]),
        ([], [], [("User", "hi")]),
        ([], [], [("", "hi")]),
    ],
    ids=ascii,
)
def test_what_ollamas_reader_could_not_take_back_is_refused(
    texts: list[str], parameters: list[tuple[str, object]], messages: list[tuple[str, str]]
) -> None:
    with pytest.raises(FormatError, match="cannot be written in a Modelfile"):
        render_modelfile("x:latest", [], [("SYSTEM", text) for text in texts], parameters, messages)
