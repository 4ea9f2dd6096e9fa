"""The command line: what it prints, to which stream, and how it looks on a terminal and in a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ostore.cli.program import COMMANDS
from tests.support import OSTORE, Store, full, noise, sha256
from tests.support import ostore as run


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


def test_show_prints_one_part_as_it_is(store: Store) -> None:
    store.model(
        "full:latest", b"w", template=b"{{ .Prompt }}\n", system=b"Be\nkind", params=b'{"top_k":10,"stop":["a","b"]}\n'
    )
    parts = {
        "--template": "{{ .Prompt }}\n",
        "--system": "Be\nkind\n",
        "--parameters": f'{"stop":<30} "a"\n{"stop":<30} "b"\n{"top_k":<30} 10\n',
        "--manifest": store.manifest_path(full("full:latest")).read_text(),
    }
    for flag, text in parts.items():
        assert run("show", "full", flag, "--models", store.root).stdout == text
    config = json.loads(run("show", "full", "--config", "--models", store.root).stdout)
    assert config["file_type"] == "Q4_K_M"
    modelfile = run("show", "full", "--modelfile", "--models", store.root).stdout
    assert 'SYSTEM """Be\nkind"""' in modelfile
    assert "PARAMETER stop a\nPARAMETER stop b\nPARAMETER top_k 10" in modelfile
    assert f"FROM {store.blob_path(b'w')}" in modelfile
    summary = run("show", "full", "--models", store.root).stdout
    for word in ("full:latest", "Q4_K_M", "1.5M", "Be", "top_k", "image.template"):
        assert word in summary


def test_a_modelfile_is_no_json_and_whoever_asks_for_both_is_told(store: Store) -> None:
    done = run("show", "tiny", "--modelfile", "--json", "--models", store.root)
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["class"] == "usage"


def test_show_of_what_is_not_there(store: Store) -> None:
    done = run("show", "nosuch", "--models", store.root)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


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
    done = run("list", "--models", store.root, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "hijacked" not in done.stdout + done.stderr


def test_nothing_unprintable_reaches_a_terminal(store: Store) -> None:
    store.model("evil:latest", b"w", system=b"\x1b]52;c;aGk=\x07 \x9b31m \xe2\x80\xae", license=b"\x1b[2J\r")
    for arguments in (["show", "evil"], ["show", "evil", "--system"], ["show", "evil", "--license"]):
        done = subprocess.run([*OSTORE, *arguments, "--models", store.root], capture_output=True, check=True)
        text = done.stdout.decode()
        assert all(character.isprintable() or character == "\n" for character in text)
        assert "\\x1b" in text


def test_progress_is_plain_in_a_pipe_and_absent_when_not_wanted(store: Store, tmp_path: Path) -> None:
    bundle = tmp_path / "b.tar"
    done = run("export", "tiny", bundle, "--models", store.root)
    assert done.stderr == "exporting: 12 KB\n"
    for flag in ("-q", "--progress=none"):
        done = run("export", "tiny", bundle, "--replace", flag, "--models", store.root)
        assert done.stderr == ""
    assert run("export", "tiny", bundle, "--replace", "-q", "--models", store.root).stdout == ""


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_bars_on_a_terminal_and_questions_to_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    for number in range(3):
        store.model(f"m{number}:latest", noise(60_000_000, number))
    session = f"ostore-test-{os.getpid()}"
    command = f"{' '.join(OSTORE)} export --all {tmp_path}/b.tar.zst --models {store.root}; echo exit $?; sleep 20"
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run(
        ["tmux", "new-session", "-d", "-s", session, "-x", "100", "-y", "20", command], env=environment, check=True
    )
    try:
        screens: list[str] = []
        while not screens or "exit" not in screens[-1]:
            shown = subprocess.run(
                ["tmux", "capture-pane", "-p", "-t", session], capture_output=True, text=True, check=True
            )
            screens.append(shown.stdout)
            time.sleep(0.02)
            assert len(screens) < 2000
        assert any(re.search(r"exporting .*[━╸].*MB", screen) for screen in screens)
        assert re.match(r"exported 3 models, 4 blobs, 180 MB .* in .* s -> ", screens[-1].lstrip())
        assert "exit 0" in screens[-1]
    finally:
        subprocess.run(["tmux", "kill-session", "-t", session], check=False)
    refused = f"{' '.join(OSTORE)} export m0 - --models {store.root}; echo exit $?; sleep 20"
    subprocess.run(
        ["tmux", "new-session", "-d", "-s", session, "-x", "100", "-y", "20", refused], env=environment, check=True
    )
    try:
        screen = ""
        for _ in range(300):
            shown = subprocess.run(
                ["tmux", "capture-pane", "-p", "-t", session], capture_output=True, text=True, check=True
            )
            screen = shown.stdout
            if "exit" in screen:
                break
            time.sleep(0.05)
        assert "error[usage]: standard output is a terminal" in screen
        assert "exit 2" in screen
    finally:
        subprocess.run(["tmux", "kill-session", "-t", session], check=False)


def test_the_list_of_commands_says_what_each_command_says_of_itself() -> None:
    for name, summary in COMMANDS.items():
        assert summary.rstrip(".") in " ".join(run(name, "--help").stdout.split()), name


def test_a_wrong_option_names_the_help_of_its_command(store: Store) -> None:
    done = run("list", "--bogus", "--models", store.root)
    assert (done.returncode, done.stderr) == (
        2,
        "ostore: error[usage]: No such option: --bogus (see ostore list --help)\n",
    )


@pytest.mark.parametrize(("color", "is_coloured"), [("always", True), ("auto", False), ("never", False)])
def test_an_option_about_colours_wins_over_the_environment(store: Store, color: str, is_coloured: bool) -> None:
    import pty  # POSIX only

    terminal, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        # A terminal whose other end is closed fails to read.
        with contextlib.suppress(OSError):
            while piece := os.read(terminal, 65536):
                shown.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    command = [*OSTORE, "verify", "--color", color, "--models", str(store.root)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment, check=False)
    os.close(theirs)
    reader.join()
    os.close(terminal)
    assert (done.returncode, re.search(rb"\x1b\[[0-9;]*3[0-9]", b"".join(shown)) is not None) == (0, is_coloured)


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
    assert f"'{word}': the name of {what}; expected a destination as the last argument (FILE.tar.zst" in done.stderr
    assert list(tmp_path.iterdir()) == [store.root]
