"""Completion on TAB in real shells: what is offered, and that a store in any state causes no errors or delays."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ostore.cli.commands.completion import Shell
from ostore.cli.completion import complete
from ostore.cli.program import COMMANDS
from tests.support import OSTORE, Store
from tests.support import ostore as run

HF = "hf.co/someone/Model-GGUF:Q4_K_M"
PORT = "localhost:5000/library/own:latest"
SCRIPTS = Path(__file__).resolve().parents[1] / "ostore" / "cli" / "shells"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture
def named(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store that OLLAMA_MODELS names: two short names, one of another host, one with two colons."""
    store.model(HF, b"weights")
    store.model(PORT, b"weights")
    monkeypatch.setenv("OLLAMA_MODELS", str(store.root))
    return store


@pytest.fixture
def surroundings(named: Store, tmp_path: Path) -> dict[str, str]:
    """Where a shell finds `ostore`, and beside it a bundle and a folder."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ostore"
    program.write_text(f'#!/bin/sh\nexec {" ".join(OSTORE)} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "here" / "folder").mkdir(parents=True)
    (tmp_path / "here" / "bundle one.tar").touch()
    (tmp_path / "home").mkdir()
    return {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TERM": "xterm", "ZDOTDIR": str(tmp_path)}


def offered(line: str) -> tuple[str, list[str]]:
    """Which paths, and which words, are offered at the end of a line; blanks part its words."""
    *before, word = line.split(" ")
    paths, candidates = complete(before, word)
    return paths, [text for text, _ in candidates]


@pytest.mark.parametrize(
    ("line", "paths", "words"),
    [
        ("sh", "none", ["show"]),
        ("--v", "none", ["--version"]),
        ("nosuch ", "none", []),
        ("show ", "none", [HF, PORT, "tiny:latest", "tiny:q4"]),
        ("show tiny:q", "none", ["tiny:q4"]),
        ("show registry.ollama.ai/library/tiny:q", "none", ["registry.ollama.ai/library/tiny:q4"]),
        ("show localhost:5", "none", [PORT]),
        ("show tiny:q4 ", "none", []),
        ("show --manifest tiny:q", "none", ["tiny:q4"]),
        ("list tiny:q4 ti", "none", ["tiny:latest", "tiny:q4"]),
        ("verify tiny:q", "files", ["tiny:q4"]),
        ("export tiny:q4 hf", "files", [HF]),
        ("export --all x.tar --have ", "files", []),
        ("export --lock ", "files", []),
        ("import x.tar --lock=", "files", []),
        ("inventory tiny:q", "none", ["tiny:q4"]),
        ("diff ", "files", []),
        ("diff a.json ", "files", []),
        ("outdated tiny:q", "none", ["tiny:q4"]),
        ("outdated --against ", "files", []),
        ("probe ", "none", []),
        ("probe --model tiny:q", "none", ["tiny:q4"]),
        ("lock tiny:q", "none", ["tiny:q4"]),
        ("lock --update ", "files", []),
        ("import ", "files", []),
        ("inspect ", "files", []),
        ("inspect a.tar.001 ", "folders", []),
        ("where ", "none", []),
        ("import - --rep", "none", ["--replace"]),
        ("import -- --rep", "files", []),
        ("import --model ", "none", []),
        ("export --jobs ", "none", []),
        ("export --progress p", "none", ["plain"]),
        ("export --split ", "none", ["fat32", "dvd", "bd25"]),
        ("export --split=d", "none", ["--split=dvd"]),
        ("export --parity ", "none", ["1volume", "2volumes"]),
        ("export --level ", "none", ["auto"]),
        ("export --to ", "folders", []),
        ("export --progress=p", "none", ["--progress=plain"]),
        ("export --all=", "none", []),
        ("export --nosuch=", "none", []),
        ("verify -j 4 tiny:q", "files", ["tiny:q4"]),
        ("verify -j4 tiny:q", "files", ["tiny:q4"]),
        ("list --models ", "folders", []),
        ("list --models=", "folders", []),
        ("help exp", "none", ["export"]),
        ("list --sort ", "none", ["modified", "name", "size", "unique"]),
        ("where --color=n", "none", ["--color=never"]),
        ("gc --partials-", "none", ["--partials-grace"]),
        ("completion ", "none", ["bash", "zsh", "fish", "powershell"]),
    ],
)
def test_what_fits_is_offered(named: Store, line: str, paths: str, words: list[str]) -> None:
    assert offered(line) == (paths, words)


def test_every_command_is_offered_with_what_it_does() -> None:
    assert complete([], "") == ("none", list(COMMANDS.items()))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_its_help_is_offered_and_no_other(command: str) -> None:
    options = run(command, "--help", environment={"COLUMNS": "200"}).stdout.split("Options:")[1].split("Examples:")[0]
    spelled = re.findall(r"^  (-.*?)(?:  |$)", options, re.MULTILINE)
    assert set(offered(f"{command} -")[1]) == set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", "\n".join(spelled)))


@pytest.mark.parametrize("typed", ["{0}", "~/other", "$OTHER", "${OTHER}"])
def test_the_store_that_was_typed_wins(
    named: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    other = tmp_path / "home" / "other"
    Store(other).model("elsewhere:latest", b"weights")
    monkeypatch.setenv("OTHER", str(other))
    typed = typed.format(other) if "{0}" in typed else typed
    assert offered(f"show --models {typed} ")[1] == ["elsewhere:latest"]
    assert offered(f"show --models={typed} ")[1] == ["elsewhere:latest"]


def test_only_names_that_ollama_would_take_are_offered(named: Store) -> None:
    library = named.root / "manifests" / "registry.ollama.ai" / "library"
    hostile = ["$(touch pwned)", "`id`", "a b", "-rf", "x;y", "x\nfull", "x\ty", "\x1b[2J", "'", '"', "\\", "é", "*"]
    for name in hostile:
        (library / name).mkdir()
        (library / name / "latest").touch()
        (library / "tiny" / name).touch()
    assert offered("show ")[1] == [HF, PORT, "tiny:latest", "tiny:q4"]


def test_a_name_in_both_trees_is_offered_once(named: Store) -> None:
    coming = named.root / "manifests-v2" / "ollama.com" / "library" / "tiny"
    coming.mkdir(parents=True)
    (coming / "q4").touch()
    assert offered("show tiny:q")[1] == ["tiny:q4"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_no_manifest_is_opened(named: Store) -> None:
    # Opening it for reading would wait for a writer.
    os.mkfifo(named.root / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "fifo")
    assert run("_complete", "=tiny:f", "show").stdout == "none\ntiny:fifo\n"


def broken_stores(root: Path) -> Iterator[tuple[str, Path]]:
    yield "missing", root / "missing"
    yield "a glob", root / "a*b"
    (root / "file").touch()
    yield "a file", root / "file"
    (root / "no-folder").mkdir()
    (root / "no-folder" / "manifests").touch()
    yield "manifests is a file", root / "no-folder"
    (root / "loop").mkdir()
    (root / "loop" / "manifests").symlink_to("manifests")
    yield "manifests is a loop", root / "loop"
    yield "a name too long", root / ("x" * 300)
    yield "a ~ of nobody", Path("~no-such-person/models")


def test_a_missing_or_broken_store_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    for what, path in broken_stores(tmp_path):
        done = run("_complete", "=", "verify", "--models", path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "files\n", ""), what


@needs("setpriv")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to have less power")
def test_a_store_that_may_not_be_read_offers_nothing_and_says_nothing(named: Store) -> None:
    closed = named.root / "manifests"
    os.chown(closed, 12345, 12345)
    closed.chmod(0o700)
    # A root that may do no more than others: the interpreter may lie where other users cannot enter.
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    done = subprocess.run([*powerless, *OSTORE, "_complete", "=", "show"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "none\n", "")


@pytest.mark.parametrize("shell", Shell)
def test_the_script_of_each_shell_is_printed_as_it_is(shell: Shell) -> None:
    done = run("completion", shell.value)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (SCRIPTS / f"ostore.{shell.value}").read_text("utf-8")
    assert "ostore _complete" in done.stdout


@pytest.mark.parametrize("shell", [["tcsh"], []], ids=["unknown", "none"])
def test_a_shell_without_a_script_is_told_the_choices(shell: list[str]) -> None:
    done = run("completion", *shell)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.search(r"bash\W+zsh\W+fish\W+powershell", done.stderr)


BASH = """
source <(ostore completion bash)
COMP_LINE=$1 COMP_POINT=$2
shift 2
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
compopt() { printf 'paths %s\\n' "$2"; }
_ostore ostore
printf '<%s>\\n' "${COMPREPLY[@]}"
"""


# The words as bash breaks them: at : and = too. What is offered replaces the last of them.
@needs("bash")
@pytest.mark.parametrize(
    ("words", "offers"),
    [
        (["ostore", " sh"], ["<show>"]),
        (["ostore", " show", " tin"], ["<tiny:latest>", "<tiny:q4>"]),
        (["ostore", " show", " tiny", ":"], ["<latest>", "<q4>"]),
        (["ostore", "  show", "  tiny", ":", "q"], ["<q4>"]),
        (["ostore", " show", " localhost", ":", "5000/library/own", ":", "l"], ["<latest>"]),
        (["ostore", " show", ' "tiny:q'], ["<tiny:q4>"]),
        (["ostore", " show", " --models", "=", "/nowhere", " ti"], ["<>"]),
        (["ostore", " export", " --progress", "=", "p"], ["<plain>"]),
        (["ostore", " export", " --progress", "="], ["<auto>", "<plain>", "<json>", "<none>"]),
        (["ostore", " list", " --models", "="], ["paths dirnames", "<>"]),
        (["ostore", " verify", " ./"], ["paths default", "<>"]),
        (["ostore", " show", " $(touch pwned)", " --models", ' "$(touch pwned)"', " ti"], ["<>"]),
    ],
    ids=lambda value: "".join(value) if value[0] == "ostore" else None,
)
def test_bash_puts_its_broken_words_together(
    surroundings: dict[str, str], tmp_path: Path, words: list[str], offers: list[str]
) -> None:
    line = "".join(words)
    broken = [word.lstrip(" ") for word in words]
    # What stands behind the cursor is no part of the word.
    for rest in ("", "rest more"):
        told = subprocess.run(
            ["bash", "--norc", "-c", BASH, "bash", line + rest, str(len(line)), *broken[:-1], broken[-1] + rest[:4]],
            env=surroundings,
            cwd=tmp_path / "here",
            capture_output=True,
            text=True,
            check=True,
        )
        assert (told.stdout.splitlines(), told.stderr) == (offers, "")
    assert not list(tmp_path.rglob("pwned"))


class Terminal:
    """A shell at a pseudo-terminal, and what it has shown."""

    def __init__(self, master: int) -> None:
        self._master = master

    def type(self, keys: str, *, until: str) -> str:
        """Type, and wait until the screen has something; gives all that came."""
        os.write(self._master, keys.encode())
        shown, deadline = "", time.monotonic() + 30
        while not re.search(until, shown):
            assert time.monotonic() < deadline, f"{until!r} never came: {shown!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                shown += os.read(self._master, 65536).decode(errors="replace")
        return shown


@contextmanager
def terminal(command: list[str], environment: dict[str, str], cwd: Path) -> Iterator[Terminal]:
    import pty
    import termios

    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 200))
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=cwd
    ) as shell:
        os.close(slave)
        try:
            yield Terminal(master)
        finally:
            # The shell sees its terminal go, and leaves.
            os.close(master)
            shell.wait(timeout=30)


# A command that shows which words it got: what was typed in front of a line that TAB has completed.
SHOW_WORDS = "\x01printf '{%s}' \r"


@needs("setsid")
@pytest.mark.parametrize(
    ("shell", "set_up"),
    [
        pytest.param(["bash", "--norc", "--noprofile", "-i"], "", marks=needs("bash"), id="bash"),
        pytest.param(
            ["zsh", "-f", "-i"], "bindkey -e; autoload -Uz compinit; compinit -u -D; ", marks=needs("zsh"), id="zsh"
        ),
    ],
)
def test_tab_completes_at_a_terminal(
    surroundings: dict[str, str], tmp_path: Path, shell: list[str], set_up: str
) -> None:
    with terminal(shell, surroundings, tmp_path / "here") as at:
        at.type(f"{set_up}source <(ostore completion {shell[0]}); echo re''ady\r", until="ready")
        for typed, shown, words in (
            ("ostore sho\t", "show", ["show"]),
            ("ostore show tiny:q\t", "tiny:q4", ["show", "tiny:q4"]),
            ("ostore show ti\tq\t", "q4", ["show", "tiny:q4"]),
            ("ostore show localhost:5000/\t", "latest", ["show", PORT]),
            ("ostore export --progress=p\t", "plain", ["export", "--progress=plain"]),
            # zsh takes the slash back when the line ends there.
            ("ostore list --models fo\t", "folder", ["list", "--models", "folder/?"]),
            ("ostore list --models=fo\t", "folder", ["list", "--models=folder/?"]),
            ("ostore inspect bun\t", "tar", ["inspect", "bundle one.tar"]),
        ):
            at.type(typed, until=shown)
            at.type(SHOW_WORDS, until="".join(rf"\{{{word}\}}" for word in ("ostore", *words)))
        # What is offered where more than one fits; bash shows it at the third TAB, without what is there already.
        at.type("ostore show ti\t\t\t", until="(?s)latest.*q4")


@needs("fish")
@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("ostore sho", ["show\tShow a model's details."]),
        ("ostore show ti", ["tiny:latest", "tiny:q4"]),
        ("ostore show tiny:q", ["tiny:q4"]),
        ("ostore show localhost:5", [PORT]),
        ("ostore export --progress=p", ["--progress=plain"]),
        ("ostore list --models fo", ["folder/"]),
        ("ostore list --models=fo", ["--models=folder/"]),
        ("ostore list --models /nowhere ti", []),
        ("ostore inspect bun", ["bundle one.tar"]),
        ("ostore where ", []),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_fish_completes(surroundings: dict[str, str], tmp_path: Path, line: str, offers: list[str]) -> None:
    told = subprocess.run(
        ["fish", "--no-config", "-c", f"ostore completion fish | source; complete -C '{line}'"],
        env=surroundings,
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        check=True,
    )
    assert (told.stdout.splitlines(), told.stderr) == (offers, "")
