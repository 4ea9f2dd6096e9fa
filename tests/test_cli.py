"""The command line: what it prints, to which stream, and how it looks on a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostore.cli import other_words
from ostore.cli.colours import SEVERITY, painted
from ostore.cli.exit_codes import CODES
from ostore.cli.other_words import remedy_for
from ostore.cli.program import ALIASES, COMMANDS
from tests.support import MODEL, OSTORE, Store, full, noise, sha256, terminal
from tests.support import ostore as run

OLLAMAS = "a command of Ollama, not of this version of ostore: ollama {} llama3"


def test_list_prints_the_columns_of_ollama_and_what_is_unique(store: Store) -> None:
    for age, name in ((7200, "tiny:q4"), (90, "tiny:latest")):
        os.utime(store.manifest_path(full(name)), (time.time() - age, time.time() - age))
    ids = [sha256(store.manifest_path(full(name)).read_bytes())[:12] for name in ("tiny:q4", "tiny:latest")]
    done = run("list", "--models", store.root)
    assert [re.split(r" {2,}", line) for line in done.stdout.splitlines()] == [
        ["NAME", "ID", "SIZE", "MODIFIED", "UNIQUE"],
        ["tiny:latest", ids[1], "12 KB", "About a minute ago", "13 B"],
        ["tiny:q4", ids[0], "12 KB", "2 hours ago", "7 B"],
    ]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("ti", ["tiny:latest", "tiny:q4"]),
        ("TINY:Q", ["tiny:q4"]),
        ("*q4", ["tiny:q4"]),
        ("hf.co", ["hf.co/a/b:c"]),
        ("iny", []),
    ],
)
def test_list_takes_a_prefix_or_a_glob(store: Store, pattern: str, names: list[str]) -> None:
    store.model("hf.co/a/b:c", b"weights")
    done = run("list", pattern, "-q", "--models", store.root)
    assert done.returncode == 0
    assert sorted(done.stdout.split()) == names


def test_what_cannot_be_read_is_told_on_standard_error_and_the_rest_is_listed(store: Store) -> None:
    store.write_manifest(full("broken:latest"), b"{")
    done = run("list", "-q", "--models", store.root)
    assert sorted(done.stdout.split()) == ["tiny:latest", "tiny:q4"]
    done = run("list", "--models", store.root)
    assert done.returncode == 0
    assert done.stderr.startswith("ostore: warning: manifests/registry.ollama.ai/library/broken/latest: ")


def test_where_says_which_store_and_why(store: Store, tmp_path: Path) -> None:
    done = run("where", environment={"OLLAMA_MODELS": f"  \"'{store.root}'\" "})
    assert done.stdout.splitlines()[0].split() == ["store", str(store.root)]
    assert "OLLAMA_MODELS" in done.stdout
    assert run("where", "-q", "--models", tmp_path).stdout == f"{tmp_path}\n"
    document = json.loads(run("where", "--json", "--models", tmp_path / "new").stdout)
    assert (document["exists"], document["reason"]) == (False, "flag")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_fits_a_terminal_and_ends_with_examples(command: list[str]) -> None:
    done = run(*command, "--help", environment={"COLUMNS": "80"})
    assert done.returncode == 0
    assert max(len(line) for line in done.stdout.splitlines() if "ostore " not in line) <= 80
    if command:
        assert f"  ostore {command[0]}" in done.stdout.split("Examples:")[1]


def test_without_arguments_it_says_what_it_can_do() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (0, run("--help").stdout)


def test_a_file_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    (tmp_path / "letter.tar.zst").write_text("Dear Sir")
    done = run("import", tmp_path / "letter.tar.zst", "--models", tmp_path / "models")
    assert done.returncode == 12
    assert f"{tmp_path / 'letter.tar.zst'}: not a bundle" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["nosuch"], ["list", "--nosuch"], ["show"], ["verify", "-j", "many"], ["export"], ["import"]],
    ids=" ".join,
)
def test_wrong_arguments_are_one_line_and_exit_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ostore: error[usage]: ")
    assert done.stderr.count("\n") == 1


def test_an_error_can_be_had_as_json(store: Store) -> None:
    done = run("show", "nosuch", "--json", "--models", store.root)
    document = json.loads(done.stderr)
    assert (document["event"], document["class"], document["exit"]) == ("error", "not-found", 3)


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "cp1252"},
        {"TERM": "dumb", "COLUMNS": "1"},
        {"HOME": ""},
    ],
    ids=["C", "cp1252", "dumb", "no home"],
)
def test_any_surroundings_will_do(store: Store, tmp_path: Path, environment: dict[str, str]) -> None:
    store.model("full:latest", b"w", system="\u4f60\u597d \U0001f600".encode())
    for arguments in (["list"], ["show", "full"], ["export", "full", str(tmp_path / "b.tar"), "--replace"]):
        done = run(*arguments, "--models", store.root, environment=environment)
        assert done.returncode == 0, done.stderr


def test_a_json_module_beside_a_bundle_is_not_imported(store: Store, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')")
    (tmp_path / "rich.py").write_text("raise SystemExit('hijacked')")
    # A forked process would have loaded both already.
    done = run("list", "--models", store.root, cwd=tmp_path, tracer=["env"])
    assert done.returncode == 0, done.stderr
    assert "hijacked" not in done.stdout + done.stderr


def test_nothing_unprintable_reaches_a_terminal(store: Store) -> None:
    store.model("evil:latest", b"w", system=b"\x1b]52;c;aGk=\x07 \x9b31m \xe2\x80\xae", license=b"\x1b[2J\r")
    for arguments in (["show", "evil"], ["show", "evil", "--system"], ["show", "evil", "--license"]):
        with terminal() as (stdout, shown):
            subprocess.run([*OSTORE, *arguments, "--models", store.root], stdout=stdout, check=True)
        text = b"".join(shown).decode()
        assert all(character.isprintable() or character == "\n" for character in text)
        assert "\\x1b" in text
        assert text.endswith("\n")


def test_progress_is_plain_in_a_pipe_and_absent_when_not_wanted(store: Store, tmp_path: Path) -> None:
    bundle = tmp_path / "b.tar"
    done = run("export", "tiny", bundle, "--models", store.root)
    assert done.stderr == "exporting: 12 KB\n"
    for flag in ("-q", "--progress=none"):
        done = run("export", "tiny", bundle, "--replace", flag, "--models", store.root)
        assert done.stderr == ""
    assert run("export", "tiny", bundle, "--replace", "-q", "--models", store.root).stdout == ""


def screens(command: str, *, columns: int) -> Iterator[str]:
    """What a terminal shows while a command runs, the last time with its exit code."""
    # A server of its own: one that is about to end takes no session any more. A test's own folder has too long a name.
    with tempfile.TemporaryDirectory() as folder:
        tmux = ["tmux", "-S", f"{folder}/tmux"]
        start = [*tmux, "new-session", "-d", "-x", str(columns), "-y", "20", f"{command}; echo exit $?; sleep 20"]
        environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": ":".join(sys.path)}
        subprocess.run(start, env=environment, check=True)
        try:
            screen, latest = "", time.monotonic() + 100
            while "exit" not in screen:
                assert time.monotonic() < latest, screen
                capture = [*tmux, "capture-pane", "-p"]
                screen = subprocess.run(capture, capture_output=True, text=True, check=True).stdout
                yield screen
                time.sleep(0.02)
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_bars_on_a_terminal_and_questions_to_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    for number in range(3):
        store.model(f"m{number}:latest", noise(60_000_000, number))
    export = f"{' '.join(OSTORE)} export --models {store.root}"
    shown = [*screens(f"{export} --all {tmp_path}/b.tar.zst", columns=100)]
    assert any(re.search(r"exporting .*[━╸].*MB", screen) for screen in shown)
    assert shown[-1].lstrip().startswith("to export: 3 models, 180 MB -> ")
    assert re.search(r"^exported 3 models, 4 blobs, 180 MB .*in .* s -> ", shown[-1], re.MULTILINE)
    assert "exit 0" in shown[-1]
    *_, last = screens(f"{export} m0 -", columns=100)
    assert "error[usage]: standard output is a terminal" in last
    assert "exit 2" in last


def test_the_list_of_commands_says_what_each_command_says_of_itself() -> None:
    for name, summary in COMMANDS.items():
        assert summary.rstrip(".") in " ".join(run(name, "--help").stdout.split()), name


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("remove", "did you mean: ostore rm llama3"),
        ("remov", "did you mean: ostore rm llama3"),
        ("delete", "did you mean: ostore rm llama3"),
        ("save", "ostore export --help says how to write models to a file"),
        ("load", "ostore import --help says how to add the models of a file"),
        ("run", OLLAMAS.format("run")),
        ("download", "ostore pull --help says how to fetch models from registries"),
        ("upload", "ostore push --help says how to send models to registries"),
        ("verfy", "did you mean: ostore verify llama3"),
        ("Prun", "did you mean: ostore prune llama3"),
        ("llama3:8b", "ostore --help lists the commands"),
    ],
)
def test_a_word_that_is_no_command_is_answered_with_what_was_meant(word: str, hint: str) -> None:
    done = run(word, "llama3")
    assert (done.returncode, done.stderr) == (2, f"ostore: error[usage]: no command {word!r} ({hint})\n")
    assert run("help", word).stderr == done.stderr.replace(" llama3", " --help")


def test_no_word_of_others_is_answered_with_a_command_that_does_not_exist() -> None:
    words = {*other_words._SAME, *other_words._ALIKE, *other_words._OLLAMAS}
    assert not words & {*COMMANDS, *ALIASES}
    for word in words:
        for remedy in remedy_for(word, (), COMMANDS).each():
            told = [*remedy.commands, *(named.split() for named in re.findall(r"ostore \w+", remedy.after))]
            assert {command[1] for command in told if command[0] == "ostore"} <= COMMANDS.keys()
            assert told


@pytest.mark.parametrize("command", [[], ["export"], ["gc"], ["prune"], ["help"]], ids=" ".join)
def test_help_is_a_command_too(command: list[str]) -> None:
    assert run("help", *command).stdout == run(*command, "--help").stdout != ""


def test_version_is_a_command_too() -> None:
    assert run("version").stdout == run("--version").stdout != ""


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_man_renders_the_page_of_the_manual_with_every_command_and_option(tmp_path: Path) -> None:
    (tmp_path / "ostore.1").write_text(run("help", "--man").stdout)
    done = subprocess.run(
        ["man", "--warnings", "-E", "ascii", "-l", tmp_path / "ostore.1"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MANWIDTH": "1000", "MAN_KEEP_FORMATTING": ""},
    )
    assert done.stderr == ""
    shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "ostore - carry Ollama models to machines without a network, verified" in shown
    for name in COMMANDS:
        (start,) = (number for number, line in enumerate(shown) if line.startswith(f"ostore {name} [OPTIONS]"))
        part = re.split(r"\nostore [a-z]+ \[OPTIONS\]|\nEXIT STATUS", "\n".join(shown[start:]))[0]
        helped = run(name, "--help", environment={"COLUMNS": "1000"}).stdout
        options = re.findall(
            r"^  (--?[a-z].*?)(?:  |$)", helped.split("Options:")[1].split("Examples:")[0], re.MULTILINE
        )
        assert [option for option in options if option != "-h, --help" and option not in part] == []
        assert " ".join(helped.split("\n\n")[1].split()) in part
        for example in helped.split("Examples:\n")[1].splitlines():
            assert " ".join(example.split()) in part
    for code, name in ((code, name) for name, code in CODES.items()):
        assert re.search(rf"^{code} {name}\.$", "\n".join(shown), re.MULTILINE)


def test_list_of_nothing_is_one_line_that_says_where_models_are(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty/blobs").mkdir(parents=True)
    (tmp_path / "home/.ollama").mkdir(parents=True)
    done = run("list", "--models", tmp_path / "empty", environment={"HOME": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, f"no models in {tmp_path / 'empty'}\n")
    store.root.rename(tmp_path / "home/.ollama/models")
    home = {"HOME": str(tmp_path / "home")}
    done = run("list", "--models", tmp_path / "empty", environment=home)
    assert (done.returncode, done.stderr) == (
        0,
        f"no models in {tmp_path}/empty; 2 are in {tmp_path}/home/.ollama/models\n",
    )
    assert run("list", "-q", "--models", tmp_path / "empty", environment=home).stderr == ""
    assert run("list", "x", "y", environment=home).stderr == (
        f"no model in {tmp_path}/home/.ollama/models begins with x or y\n"
    )


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("modified", ["b:latest", "c:latest", "a:latest"]),
        ("name", ["a:latest", "b:latest", "c:latest"]),
        ("size", ["c:latest", "b:latest", "a:latest"]),
        ("unique", ["a:latest", "c:latest", "b:latest"]),
    ],
)
def test_list_is_sorted_as_asked(tmp_path: Path, order: str, names: list[str]) -> None:
    store = Store(tmp_path / "models")
    store.model("a:latest", noise(5000))
    store.model("b:latest", b"l" * 9000, system=b"w")
    store.model("c:latest", b"l" * 9000, system=b"w" * 100)
    for age, name in enumerate(("b:latest", "c:latest", "a:latest")):
        os.utime(store.manifest_path(full(name)), (1e9 - age, 1e9 - age))
    done = run("list", "-q", "--sort", order, "--models", store.root)
    assert done.stdout.split() == names


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_colours(command: str) -> None:
    assert "--color <auto|always|never>" in run(command, "--help").stdout


@pytest.mark.parametrize(
    ("environment", "option", "is_coloured"),
    [
        ({}, (), False),
        ({"FORCE_COLOR": "1"}, (), True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, (), False),
        ({"FORCE_COLOR": "1"}, ("--color=never",), False),
        ({"NO_COLOR": "1", "TERM": "dumb"}, ("--color=always",), True),
    ],
)
def test_what_a_reader_looks_for_is_coloured_where_colours_are_wanted(
    store: Store, environment: dict[str, str], option: tuple[str, ...], is_coloured: bool
) -> None:
    store.model("con:latest", b"odd name", system=b"PROBLEM  none\nostore: error[io]: x")
    store.write_manifest(full("empty:latest"), b"")
    for words, colour, said in (
        (("show", "nobody"), 31, "ostore: error[not-found]:"),
        (("list", "--bogus"), 31, "ostore: error[usage]:"),
        (("list",), 33, "ostore: warning:"),
        (("doctor",), 31, "PROBLEM"),
        (("verify",), 31, "1 problem"),
        (("verify", "tiny"), 32, "whole"),
    ):
        done = run(*words, *option, "--models", store.root, environment=environment)
        out = done.stdout + done.stderr
        assert (f"\x1b[{colour}m{said}\x1b[m" in out, said in out) == (is_coloured, True), words
    shown = run("show", "con", "--system", *option, "--models", store.root, environment=environment)
    assert painted("WARNING  open-to-all", SEVERITY) == "\x1b[33mWARNING\x1b[m  open-to-all"
    assert shown.stdout == "PROBLEM  none\nostore: error[io]: x"


def test_a_terminal_that_can_only_print_gets_plain_lines(store: Store) -> None:
    shown = on_terminal(store, {"TERM": "dumb"}, "verify")
    assert shown == b"verifying sha256 digest: 12 KB\n"


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_bars_fit_forty_columns(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    (store.root / "blobs").mkdir(parents=True)
    with (store.root / "blobs" / f"sha256-{sha256(b'other')}").open("wb") as file:
        file.truncate(6_000_000_000)
    store.add(full("big:latest"), {"mediaType": MODEL, "digest": f"sha256:{sha256(b'other')}", "size": 6_000_000_000})
    bar = re.compile(r"verifying sha256 digest [━╸╺]+ +[0-9]+%\n  d9298a10d1b0 ")
    command = f"env -u COLUMNS {' '.join(OSTORE)} verify --models {store.root}"
    shown: list[str] = []
    for screen in screens(command, columns=40):
        shown.append(screen)
        if bar.match(screen):
            return
    pytest.fail(f"no bar: {shown}")


def test_a_high_level_says_what_it_costs(store: Store, tmp_path: Path) -> None:
    cost = "on real weights, 19 took 250 MB of memory and 50 times as long as auto, to save 1 %"
    assert cost in " ".join(run("export", "--help").stdout.split())
    for level, said in (("19", f"--level 19: {cost}\n"), ("3", ""), ("auto", "")):
        told = run("export", "--all", tmp_path / "b.tar.zst", "--level", level, "-n", "--models", store.root)
        assert (told.returncode, told.stderr) == (0, said)


def test_a_wrong_option_names_the_help_of_its_command(store: Store) -> None:
    done = run("list", "--bogus", "--models", store.root)
    assert (done.returncode, done.stderr) == (
        2,
        "ostore: error[usage]: No such option: --bogus (ostore list --help shows how it is typed)\n",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--quantize", "q4_K_M"), "--quantize: ostore keeps weights as they are, and quantizes none (llama-quantize"),
        (("--quantize=q8_0",), "--quantize: ostore keeps weights as they are, and quantizes none (llama-quantize"),
        (("-q", "q4_K_M"), "-q: ostore keeps weights as they are, and quantizes none; -q is --quiet (llama-quantize"),
        (("--experimental",), "--experimental: ostore makes models of GGUF files only, not of safetensors (convert_hf"),
        (("-q",), "file.gguf: no such file or folder"),
        (("--bogus",), "No such option: --bogus (ostore create --help shows how it is typed)"),
    ],
    ids=" ".join,
)
def test_an_option_of_ollamas_create_is_answered(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = run("create", *words, "mine", tmp_path / "file.gguf", "--models", tmp_path / "store")
    assert done.returncode == (3 if words == ("-q",) else 2)
    assert said in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("color", "is_coloured"), [("always", True), ("auto", False), ("never", False)])
def test_an_option_about_colours_wins_over_the_environment(store: Store, color: str, is_coloured: bool) -> None:
    shown = on_terminal(store, {"NO_COLOR": "1", "TERM": "xterm-256color"}, "verify", "--color", color)
    assert (re.search(rb"\x1b\[[0-9;]*3[0-9]", shown) is not None) == is_coloured


def test_a_summary_precedes_the_progress_at_a_terminal_only(store: Store, tmp_path: Path) -> None:
    bundle, other = tmp_path / "b.tar", tmp_path / "new"
    shown = on_terminal(store, {"TERM": "xterm-256color"}, "export", "--all", str(bundle)).decode()
    summary = re.search(r"to export: 2 models, [0-9.]+ KB -> (.*) \([0-9.]+ .B free\)", shown)
    assert summary
    assert summary[1] == str(bundle)
    assert "exporting" not in shown[: summary.start()]
    assert "exporting" in shown[summary.end() :]
    shown = on_terminal(Store(other), {"TERM": "dumb"}, "import", str(bundle)).decode()
    assert re.match(r"to import: 2 models, 12 KB to write -> .*/new \([0-9.]+ .B free\)\nimporting: 12 KB\n", shown)
    again = on_terminal(Store(other), {}, "import", str(bundle), "--json")
    piped = run("import", bundle, "--models", other)
    assert b"to import" not in again
    assert (piped.returncode, "to import" in piped.stderr) == (0, False)


def test_list_takes_an_id_for_all_models_that_have_it(store: Store) -> None:
    (found,) = json.loads(run("list", "tiny:q4", "--json", "--models", store.root).stdout)["models"]
    assert run("cp", "tiny:q4", "copied", "--models", store.root).returncode == 0
    for word in (found["id"], f"sha256:{found['id'].upper()}"):
        assert run("list", word, "-q", "--models", store.root).stdout.split() == ["copied:latest", "tiny:q4"]
    # What begins a name is no ID.
    assert run("cp", "tiny", f"{found['id']}-mine", "--models", store.root).returncode == 0
    assert run("list", found["id"], "-q", "--models", store.root).stdout == f"{found['id']}-mine:latest\n"


def on_terminal(store: Store, surroundings: dict[str, str], *words: str) -> bytes:
    """What a command that ends well shows at a terminal that is its standard error."""
    command = [*OSTORE, *words, "--models", str(store.root)]
    environment = {**os.environ, **surroundings}
    with terminal() as (stderr, shown):
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=stderr, env=environment, check=True)
    return b"".join(shown)


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("out.zip", "another kind of archive"),
        ("out.tgz", "a file that is compressed in another way"),
        ("out.zst", "a zstd file that is no .tar.zst"),
        ("out.GGUF", "a file of weights"),
    ],
)
def test_a_destination_of_another_kind_is_explained(store: Store, tmp_path: Path, word: str, what: str) -> None:
    done = run("export", "--all", word, "--models", store.root, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    meant = f"bundles end in .tar.zst or .tar: {word.partition('.')[0]}.tar.zst?"
    assert f"{word}: the name of {what} ({meant})" in done.stderr
    assert list(tmp_path.iterdir()) == [store.root]
