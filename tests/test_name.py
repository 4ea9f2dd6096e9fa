"""Names are read, shown and compared as in Ollama, and only names that Ollama can store are accepted."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats.errors import InvalidNameError
from ostore.formats.name import ModelName, choose, is_glob, matches_listing, windows_problem

QUICK = settings(max_examples=100, deadline=None, database=None)

FIRST = string.ascii_letters + string.digits + "_"


def part(more: str, longest: int = 79) -> st.SearchStrategy[str]:
    rest = st.text(st.sampled_from(FIRST + more), max_size=longest)
    return st.builds("".join, st.tuples(st.sampled_from(FIRST), rest))


NAMES = st.builds(ModelName, part(".:-", 254), part("-"), part(".-"), part(".-"))


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("llama3", "registry.ollama.ai/library/llama3:latest"),
        ("llama3:8b", "registry.ollama.ai/library/llama3:8b"),
        ("someone/custom", "registry.ollama.ai/someone/custom:latest"),
        ("localhost:5000/library/x", "localhost:5000/library/x:latest"),
        ("localhost:5000/library/x:q4", "localhost:5000/library/x:q4"),
        ("hf.co/u/r:Q4_K_M", "hf.co/u/r:Q4_K_M"),
        ("_a/_b/_c:_d", "_a/_b/_c:_d"),
        ("Llama3:Latest", "registry.ollama.ai/library/Llama3:Latest"),
        ("m.:t.", "registry.ollama.ai/library/m.:t."),
        ("m" * 80, f"registry.ollama.ai/library/{'m' * 80}:latest"),
        ("CON", "registry.ollama.ai/library/CON:latest"),
    ],
    ids=[
        "model",
        "model and tag",
        "namespace",
        "port",
        "port and tag",
        "Hugging Face",
        "underscores",
        "mixed case",
        "dots at the end",
        "80 characters",
        "device",
    ],
)
def test_absent_parts_get_the_defaults_and_the_rest_is_kept_as_written(text: str, full: str) -> None:
    assert ModelName.parse(text).full == full


REFUSED = {
    "empty": "",
    "two parts with a port": "localhost:5000/x",
    "five parts": "a/b/c/d",
    "no model": "library/",
    "no namespace": "host//model",
    "no host": "/library/model",
    "no tag": "n/m:",
    "only a tag": ":latest",
    "two tags": "m:a:b",
    "dots": "..",
    "dot": ".",
    "dots as a namespace": "../m",
    "dots as a tag": "m:..",
    "slash in the tag": "m:a/b",
    "leading dash": "-rf",
    "leading dot": ".hidden",
    "namespace with a dot": "a.b/c",
    "81 characters": "m" * 81,
    "tag of 81 characters": "m:" + "t" * 81,
    "host of 256 characters": "h" * 256 + "/n/m",
    "host of 351 characters": "h" * 351 + "/n/m",
    "missing marker": "!MISSING!",
    "backslash": "a\\b",
    "NUL": "a\0b",
    "percent": "%2e%2e%2fx",
    "overlong dots": "..%c0%af",
    "newline at the end": "llama3\n",
    "newline in the tag": "llama3:latest\n",
    "space": "llama 3",
    "trailing space": "llama3 ",
    "short name of Windows": "MANIFE~1",
    "decomposed accent": "cafe\u0301",
    "composed accent": "caf\u00e9",
    "dotless i": "m\u0131stral",
    "Kelvin sign": "\u212awen",
    "Cyrillic host": "\u043ellama.ai/n/m",
    "right to left": "m\u202egpj",
    "zero width": "m\u200bx",
    "escape": "m\x1b[2J",
    "C1": "m\x9b2J",
    "carriage return": "m\rx",
    "surrogate": "m\udc80",
    "IPv6": "[::1]:5000/n/m",
    "IPv6 alone": "[::1]",
    "scheme": "http://host/n/m",
    "digest": "m@sha256:" + "0" * 64,
    "stream": "m:t:$DATA",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_text_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError, match=r"^name: "):
        ModelName.parse(text)


def test_a_password_is_not_echoed() -> None:
    with pytest.raises(InvalidNameError) as caught:
        ModelName.parse("https://me:geheim@example.org/n/m")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("llama3", "llama3:latest"),
        ("REGISTRY.ollama.ai/Library/x", "x:latest"),
        ("someone/x:q4", "someone/x:q4"),
        ("hf.co/u/r:Q4_K_M", "hf.co/u/r:Q4_K_M"),
        ("other.host/library/x", "other.host/library/x:latest"),
    ],
    ids=["default host and namespace", "in other case", "namespace", "other host", "default namespace of other host"],
)
def test_the_short_form_is_the_one_that_ollama_list_prints(text: str, short: str) -> None:
    assert str(ModelName.parse(text)) == short


def test_names_that_ollama_takes_for_one_fold_to_one() -> None:
    assert ModelName.parse("Llama3:Q4").folded == ModelName.parse("llama3:q4").folded
    assert ModelName.parse("Llama3") != ModelName.parse("llama3")


@pytest.mark.parametrize(
    "text", ["llama3", "library/llama3:latest", 5, None], ids=["model", "no host", "number", "null"]
)
def test_an_index_must_spell_a_name_in_full(text: object) -> None:
    with pytest.raises(InvalidNameError):
        ModelName.parse_full(text)


@pytest.mark.parametrize(
    ("tag", "is_selector"),
    [("cloud", True), ("LOCAL", True), ("20b-cloud", True), ("20b-Cloud", True), ("cloudy", False), ("latest", False)],
)
def test_a_tag_that_ollama_takes_for_a_source_is_known(tag: str, is_selector: bool) -> None:
    assert ModelName.parse(f"m:{tag}").is_selector is is_selector


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("localhost:5000/library/x", "colon"),
        ("m.", "ends with a dot"),
        ("m:t.", "ends with a dot"),
        ("con", "device name"),
        ("n/nul.txt", "device name"),
        ("COM1/x", "device name"),
        ("m:LPT9", "device name"),
        ("aux/x/m", "device name"),
    ],
)
def test_a_name_that_windows_cannot_hold_is_told_why(text: str, problem: str) -> None:
    found = ModelName.parse(text).windows_problem()
    assert found is not None
    assert problem in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [("a:b", "colon"), ("a ", "blank"), ("a.", "dot"), ("nul", "device"), ("a\\b", "character"), ("a?", "character")],
)
def test_a_part_of_a_path_that_windows_cannot_hold_is_told_why(text: str, problem: str) -> None:
    assert problem in (windows_problem(text) or "")


@pytest.mark.parametrize("text", ["llama3:8b", "console:latest", "com10/x", "hf.co/u/r.gguf:Q4_K_M"])
def test_a_name_that_windows_can_hold_has_no_problem(text: str) -> None:
    assert ModelName.parse(text).windows_problem() is None


ALL = [ModelName.parse(text) for text in ("hf.co/u/Big:Q4", "llama3:8b", "llama3:latest", "someone/llama3:latest")]


@pytest.mark.parametrize(
    ("patterns", "chosen", "unused"),
    [
        (["llama3"], ["llama3:latest"], []),
        (["LLAMA3:8B"], ["llama3:8b"], []),
        (["llama3*"], ["llama3:8b", "llama3:latest"], []),
        (["registry.ollama.ai/*"], ["llama3:8b", "llama3:latest", "someone/llama3:latest"], []),
        (["hf.co/u/big:q?"], ["hf.co/u/Big:Q4"], []),
        (["someone/llama3", "llama3:8b"], ["llama3:8b", "someone/llama3:latest"], []),
        (["llama3", "llama3*"], ["llama3:8b", "llama3:latest"], []),
        (["absent", "llama3", "no*"], ["llama3:latest"], ["absent", "no*"]),
        ([], [], []),
    ],
    ids=["name", "case", "glob", "full form", "question mark", "order of the store", "overlap", "unused", "nothing"],
)
def test_words_stand_for_names_and_those_that_stand_for_none_are_told(
    patterns: list[str], chosen: list[str], unused: list[str]
) -> None:
    names, left = choose(ALL, patterns)
    assert list(map(str, names)) == chosen
    assert left == unused


def test_a_word_that_is_no_name_is_refused_even_where_nothing_is() -> None:
    with pytest.raises(InvalidNameError):
        choose([], ["../../etc/passwd"])


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [("llama", 2), ("LLAMA3:8", 1), ("some", 1), ("registry.ollama.ai", 0), ("*llama3*", 3), ("", 4), ("../..", 0)],
)
def test_a_listing_shows_names_by_prefix_of_the_short_form_or_by_glob(pattern: str, shown: int) -> None:
    assert sum(matches_listing(pattern, name) for name in ALL) == shown


def test_only_a_star_or_a_question_mark_makes_a_glob() -> None:
    assert is_glob("a*")
    assert is_glob("a?")
    assert not is_glob("a[b]")


@QUICK
@given(NAMES)
def test_every_name_survives_its_short_and_its_full_form(name: ModelName) -> None:
    assert ModelName.parse_full(name.full) == name
    assert ModelName.parse(str(name)).folded == name.folded
    assert "/".join(name.parts).count("/") == 3


@QUICK
@given(st.text(st.characters() | st.sampled_from("/:.-_@[]"), max_size=120))
def test_text_is_a_name_or_is_refused_and_never_anything_else(text: str) -> None:
    try:
        name = ModelName.parse(text)
    except InvalidNameError:
        return
    assert text in {str(name), name.full} or name.full.endswith((text, f"{text}:latest"))
    assert all(piece not in {"", ".", ".."} and not set(piece) & set("/\\\0") for piece in name.parts)
