"""A Modelfile is read as Ollama's lexer reads it, oddities included, and a mistake is told by line and column."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ostore.formats.errors import FormatError, LimitError
from ostore.formats.modelfile_reading import MAX_MODELFILE_BYTES, Modelfile, read_modelfile
from tests.torture.fuzz import modelfile_reader


def read(text: str) -> Modelfile:
    return read_modelfile(text.encode())


def system(text: str) -> str:
    return read(f"FROM a\n{text}").system


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('SYSTEM """a\r\nb"""', "a\r\nb"),
        ('SYSTEM "x" y\nTEMPLATE "z"', 'x" y\nTEMPLATE "z'),
        ('SYSTEM """a"""b\nX"""', 'a"""b\nX'),
        ('SYSTEM """\na"""', "\na"),
        ('SYSTEM """a"""   \n', "a"),
        ('SYSTEM "a" "b"', 'a" "b'),
        ('SYSTEM say "hi"', 'say "hi"'),
        ("SYSTEM 'a'", "'a'"),
        ("SYSTEM a # b", "a # b"),
        ("SYSTEM \\n", "\\n"),
        ("SYSTEM \n", ""),
        ("SYSTEM a\rTEMPLATE b", "a"),
        ("SYSTEM  \t a \t ", "a"),
        ("system a", "a"),
        ("\t  sYsTeM\ta", "a"),
        ('SYSTEM ""', ""),
        ('SYSTEM """"""', ""),
        ('SYSTEM """\n\n"""', "\n\n"),
        ('SYSTEM "a\n\n  \nb"', "a\n\n  \nb"),
        ("SYSTEM a\u00a0b\u200dc\u00add\x0be\x00f", "abcdef"),
        ('SYSTEM \u200d"a"', "a"),
        ("\u200bSYSTEM a", "a"),
        ("SYSTEM a\nSYSTEM b", "b"),
        ("SYSTEM a\nSYSTEM ", ""),
    ],
    ids=ascii,
)
def test_a_value_ends_where_ollama_ends_it(text: str, value: str) -> None:
    assert system(text) == value


def test_each_instruction_is_read() -> None:
    read_ = read(
        "# a comment\nfrom ./a.gguf\nFROM b # c\nADAPTER x\nADAPTER y\nDRAFT d\nTEMPLATE {{ .Prompt }}\nLICENSE MIT\n"
        "LICENSE Apache\nMESSAGE user hi: you\nMESSAGE assistant \nRENDERER r\nPARSER p\nREQUIRES v0.14.0\n"
        "PARAMETER stop <a>\nPARAMETER stop <b>\nPARAMETER num_ctx 1\nPARAMETER num_ctx 4096\nPARAMETER mirostat x\n"
    )
    assert [(source.text, source.line) for source in read_.sources] == [("./a.gguf", 2), ("b # c", 3)]
    assert (read_.adapter and read_.adapter.text, read_.draft and read_.draft.line) == ("y", 6)
    assert (read_.template, read_.renderer, read_.parser, read_.requires) == ("{{ .Prompt }}", "r", "p", "0.14.0")
    assert read_.licenses == ("MIT", "Apache")
    assert read_.messages == (("user", "hi: you"), ("assistant", ""))
    assert read_.parameters == {"stop": ["<a>", "<b>"], "num_ctx": 4096}
    assert (read_.ignored, read_.dropped) == (("mirostat",), False)
    assert read("FROM a\nSYSTEM b\u200d").dropped


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_a_mark_chooses_the_encoding(encoding: str) -> None:
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    assert read_modelfile(mark + "FROM a\nSYSTEM é".encode(encoding)).system == "é"


def test_what_is_no_utf_8_becomes_a_replacement() -> None:
    assert read_modelfile(b"FROM a\nSYSTEM b\xffc").system == "b\ufffdc"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Modelfile: no FROM line"),
        ("SYSTEM a", "Modelfile: no FROM line"),
        ("FROM", "line 1, column 1: expected one of FROM"),
        ("FROM a\n\n  EXEC b", "line 3, column 3: expected one of FROM"),
        ("FROM a\r\n\r\nEXEC b", "line 3, column 1"),
        ("FROM a\nFROM\nb", "line 2, column 1: expected one of FROM"),
        ("1FROM a", "got '1FROM a'"),
        ("FRÖM a", "line 1, column 1"),
        ("\u200b# a", "line 1, column 1"),
        ('FROM a\nSYSTEM """b', "line 2, column 1: SYSTEM: the quote at its start is not closed"),
        ('FROM a\nSYSTEM "b\n', "not closed"),
        ('FROM a\nSYSTEM """""', "not closed"),
        ("FROM a\nPARAMETER", "line 2"),
        ("FROM a\nPARAMETER top_k", "PARAMETER: expected a name and a value"),
        ("FROM a\nPARAMETER  temperature 1", "PARAMETER: expected one space before the name, got more"),
        ("FROM a\nPARAMETER Temperature 1", "unknown parameter 'Temperature'"),
        ("FROM a\nPARAMETER template x", "unknown parameter 'template'"),
        ("FROM a\nPARAMETER top_k 1.0", "top_k: expected an integer of 64 bits, got '1.0'"),
        ("FROM a\nPARAMETER num_ctx 1e400", "num_ctx: expected an integer"),
        ("FROM a\nPARAMETER num_ctx 9223372036854775808", "num_ctx: expected an integer"),
        ("FROM a\nPARAMETER num_ctx ", "got ''"),
        ("FROM a\nPARAMETER temperature NaN", "temperature: expected a number, at most 3.4e38"),
        ("FROM a\nPARAMETER temperature 1e39", "temperature: expected a number, at most 3.4e38"),
        ("FROM a\nPARAMETER temperature 1e400", "temperature: expected a number, at most 3.4e38"),
        ("FROM a\nPARAMETER temperature 1_0", "temperature: expected a number"),
        ("FROM a\nPARAMETER use_mmap yes", "use_mmap: expected true or false"),
        ("FROM a\nMESSAGE User hi", "MESSAGE: expected system or user or assistant, and a text"),
        ("FROM a\nMESSAGE user", "MESSAGE: expected"),
        ("FROM a\nREQUIRES next", "REQUIRES: expected a version such as 0.14.0, got 'next'"),
        ("FROM a\nREQUIRES 01.2.3", "REQUIRES"),
    ],
    ids=ascii,
)
def test_a_mistake_is_told_by_line_and_column(text: str, says: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("temperature 0.123456789", 0.12345679),
        ("temperature 0.7", 0.7),
        ("temperature 3.4028235e38", 3.4028235e38),
        ("temperature 1e-46", 0.0),
        ("temperature -.5", -0.5),
        ("temperature 16777217", 16777216.0),
        ("num_ctx +4096", 4096),
        ("seed 9223372036854775807", 9223372036854775807.0),
        ("use_mmap T", True),
        ("use_mmap 0", False),
    ],
)
def test_a_parameter_is_the_number_that_ollama_stores(text: str, value: float) -> None:
    assert [*read(f"FROM a\nPARAMETER {text}").parameters.values()] == [value]


@pytest.mark.parametrize("version", ["0.14.0", "v1", "1.2", "1.2.3-rc.1+b.2", "0.0.0-0a"])
def test_a_version_is_what_go_takes_for_one(version: str) -> None:
    assert read(f"FROM a\nREQUIRES {version}").requires == version.removeprefix("v")


def test_a_modelfile_has_a_limit_and_a_large_one_takes_no_time() -> None:
    with pytest.raises(LimitError, match="expected at most"):
        read_modelfile(bytes(MAX_MODELFILE_BYTES + 1))
    assert len(system('SYSTEM """' + "a line\n" * 500_000 + '"""')) == 3_500_000
    with pytest.raises(FormatError, match="not closed"):
        read('FROM a\nSYSTEM """' + "\n" * 1_000_000)


PIECES = st.sampled_from(
    ["FROM ", "SYSTEM ", "parameter stop ", "MESSAGE user ", '"', '"""', "\n", "\r", " ", "\t", "a", "#", "\u200d", "é"]
)


@given(st.lists(PIECES, max_size=14).map("".join))
@example('SYSTEM """"\n"""\n')
@example('SYSTEM \u200d" \n"')
def test_it_reads_what_a_lexer_reads_that_goes_character_by_character(text: str) -> None:
    text = f"FROM x\n{text}"
    try:
        slow = modelfile_reader.read_modelfile(text)
    except modelfile_reader.UnreadableError:
        with pytest.raises(FormatError):
            read(text)
        return
    fast = read(text)
    assert [source.text for source in fast.sources] == [value for word, _, value in slow if word == "from"]
    assert fast.system == next((value for word, _, value in reversed(slow) if word == "system"), "")
    assert fast.parameters.get("stop", []) == [value for word, _, value in slow if word == "parameter"]
    assert [message for _, message in fast.messages] == [value for word, _, value in slow if word == "message"]
