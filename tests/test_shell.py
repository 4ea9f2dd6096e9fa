"""Commands are written so that the shell of the person gives the program the very words."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys

import pytest
import typer

from ostore.cli.program import app
from ostore.formats.remedy import ROOT, WITHOUT_STORE, Remedy, command, ostore, person, pipe
from ostore.formats.shell import WINDOWS, in_order, native, quoted
from tests.remedies.situations import ODD_WORDS

ECHO = (sys.executable, "-c", "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_posix_shell_gives_back_every_word() -> None:
    line = quoted((*ECHO, *ODD_WORDS), "linux")
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], check=True, capture_output=True)
    assert [word.decode("utf-8", "surrogateescape") for word in done.stdout.split(b"\0")] == list(ODD_WORDS)


def test_words_without_control_characters_are_quoted_for_every_posix_shell() -> None:
    words = tuple(word for word in ODD_WORDS if word.isprintable())
    assert shlex.split(quoted(words, "darwin")) == list(words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("ostore", "rm", "llama3:8b"), "ostore rm llama3:8b"),
        (("ostore", "list", "--models", r"D:\models"), r"ostore list --models D:\models"),
        (("ostore", "list", "--models", r"C:\Users\Ann Lee\it's"), r"ostore list --models 'C:\Users\Ann Lee\it''s'"),
        (("ostore", "list", "\u2019$x`@(y);"), "ostore list '\u2019\u2019$x`@(y);'"),
        ((r"C:\Program Files\ostore.exe", "list"), r"& 'C:\Program Files\ostore.exe' list"),
    ],
)
def test_powershell_gets_single_quotes_and_no_backslashes(words: tuple[str, ...], line: str) -> None:
    assert quoted(words, WINDOWS) == line


def test_a_command_runs_only_after_the_one_before_has_succeeded() -> None:
    steps = (("a", "1"), ("b", "2"), ("c", "3"))
    assert in_order(steps, "linux") == "a 1 && b 2 && c 3"
    assert in_order(steps, WINDOWS) == "a 1; if ($?) { b 2; if ($?) { c 3 } }"


def test_files_are_moved_by_powershell_with_its_own_commands() -> None:
    assert native(("mv", "-n", "a", "b"), WINDOWS) == ("Move-Item", "-LiteralPath", "a", "-Destination", "b")
    assert native(("mkdir", "-p", "a"), WINDOWS) == ("New-Item", "-ItemType", "Directory", "-Force", "-Path", "a")
    assert native(("rm", "-r", "a"), WINDOWS) == ("Remove-Item", "-Recurse", "-LiteralPath", "a")
    linked = ("New-Item", "-ItemType", "SymbolicLink", "-Target", "a", "-Path", "b")
    assert native(("ln", "-s", "a", "b"), WINDOWS) == linked
    assert native(("rm", "a"), WINDOWS) == ("Remove-Item", "-LiteralPath", "a")
    for words in (("mv", "-n", "a", "b"), ("ostore", "rm", "a")):
        assert native(words, "linux") == words


def test_a_remedy_says_what_to_look_at_first_and_what_else_would_do() -> None:
    remedy = command("rm", "a b", before="look at it first").otherwise(ostore("gc", models="/x", after="does it too"))
    assert str(remedy) == "look at it first: rm 'a b', or ostore gc --models /x does it too"
    assert [way.kind for way in remedy.each()] == ["system", "ostore"]
    assert not Remedy()


def test_a_pipe_is_typed_as_one_and_its_arguments_are_those_of_a_shell() -> None:
    remedy = pipe(("gzip", "-dc", "a b"), ("ostore", "import", "-"), before="if it is whole")
    assert str(remedy) == "if it is whole: gzip -dc 'a b' | ostore import -"
    assert remedy.arguments("linux") == (("sh", "-c", "gzip -dc 'a b' | ostore import -"),)
    assert str(remedy.about("/x")) == "if it is whole: gzip -dc 'a b' | ostore import - --models /x"
    assert remedy.kind == "system"


def test_windows_runs_a_pipe_in_cmd_which_leaves_the_bytes_as_they_are() -> None:
    remedy = pipe(("gzip", "-dc", r"C:\a b"), ("ostore", "import", "-"))
    assert remedy.text(WINDOWS) == r"""cmd /c 'gzip -dc "C:\a b" | ostore import -'"""
    assert remedy.arguments(WINDOWS) == (("cmd", "/c", r'gzip -dc "C:\a b" | ostore import -'),)


def test_sudo_is_said_to_those_who_need_it() -> None:
    remedy = command("chmod", "o-w", "/x", user=ROOT)
    assert remedy.text("linux") == "sudo chmod o-w /x"
    assert remedy.text("linux", is_root=True) == "chmod o-w /x"
    assert ostore("gc", user=ROOT).text(WINDOWS) == "as an administrator: ostore gc"
    other = ostore("rm", "tiny", user="ollama")
    assert other.text("linux", is_root=True) == "sudo -u ollama ostore rm tiny"
    assert other.arguments("linux") == (("sudo", "-u", "ollama", "ostore", "rm", "tiny"),)


def test_a_remedy_is_about_a_store_unless_it_names_one() -> None:
    remedy = ostore("gc").otherwise(ostore("list", models="/y"), ostore("where"), person("ask"))
    assert str(remedy.about("/x")) == "ostore gc --models /x, or ostore list --models /y, or ostore where, or ask"
    assert ostore("list", "--help").about("/x") == ostore("list", "--help")
    assert ostore("inspect", "oci:y").about("/x") == ostore("inspect", "oci:y")


def test_a_remedy_has_no_option_that_its_command_lacks() -> None:
    commands = vars(typer.main.get_command(app))["commands"]
    takes_none = {
        name for name, one in commands.items() if not any("--models" in parameter.opts for parameter in one.params)
    }
    assert takes_none | {"where"} == WITHOUT_STORE
