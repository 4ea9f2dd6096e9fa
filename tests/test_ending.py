"""How a command ends when it is stopped, cannot print or gets no memory: what it then says is true."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import ostore
from tests.support import MODEL, OSTORE, Store, full, noise, sha256, tree, unmeasured
from tests.support import ostore as run

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
GOES_ON, NOTHING = "the same command goes on from here", "nothing was changed"
# Every command that changes something, and how what it says of that begins.
CHANGES = {
    "export --all again.tar": "exported 2 models, 4 blobs, ",
    "import bundle.tar --models ./new": "imported 2 models: 4 blobs written ",
    "import bundle.tar --models ./new --json": "imported 2 models: 4 blobs written ",
    "cp tiny:q4 copy": "copied tiny:q4 to copy:latest",
    "rm tiny:q4 --yes": "freed ",
    "gc --grace 0s --yes": "reclaimed ",
    "gc --grace 0s --keep 1h --yes --json": "reclaimed ",
    "gc --restore": "the trash is empty",
    "move new --yes": "moved 2 models: 5 blobs linked ",
    "repair --from bundle.tar": "repaired 1 blob, ",
    "doctor --fix --yes": "fixed 1 of 1",
    "du --html page.html": "wrote page.html",
}


@pytest.fixture
def untidy(store: Store, tmp_path: Path) -> Store:
    """A store in which every command finds something to do, and a bundle of its models."""
    ostore.export(["*"], tmp_path / "bundle.tar", models=store.root)
    store.blob(b"an orphan")
    store.blob_path(b"Say hi!").write_bytes(b"SAY HI!")
    return store


def environment(store: Store) -> dict[str, str]:
    return {**os.environ, "OLLAMA_MODELS": str(store.root)}


@needs_full
@pytest.mark.parametrize("line", CHANGES)
def test_a_command_that_cannot_print_its_report_says_what_it_has_done(untidy: Store, tmp_path: Path, line: str) -> None:
    if line.startswith(("export", "move")):
        untidy.blob(b"Say hi!")
    if line.startswith("doctor"):
        stray = untidy.root / "manifests/registry.ollama.ai/library/tiny/no tag"
        stray.write_bytes(b"{}")
        os.utime(stray, (0, 0))
    before = tree(tmp_path, without=())
    with Path("/dev/full").open("w") as out:
        done = subprocess.run(
            [*OSTORE, *line.split()],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=environment(untidy),
            cwd=tmp_path,
        )
    last = done.stderr.splitlines()[-1]
    message = json.loads(last)["message"] if "--json" in line else last.partition("]: ")[2]
    assert (done.returncode, "error[io]" in last or json.loads(last)["class"] == "io") == (9, True), done.stderr
    assert message.startswith(f"standard output: No space left on device; this was done: {CHANGES[line]}"), message
    assert (tree(tmp_path, without=()) == before) is (line == "gc --restore")


@needs_full
def test_a_command_that_changes_nothing_says_only_that_it_cannot_print(store: Store) -> None:
    for words in (
        ["list"],
        ["verify"],
        ["rm", "tiny:q4", "-n"],
        [],
        ["gc", "-n", "--json"],
        ["import", "--help"],
        ["help"],
    ):
        with Path("/dev/full").open("w") as out:
            done = subprocess.run(
                [*OSTORE, *words], stdout=out, stderr=subprocess.PIPE, text=True, check=False, env=environment(store)
            )
        assert done.returncode == 9, words
        assert re.search(
            r"standard output: No space left on device\W*(, \"hint\": null, \"remedy_arguments\": null})?\n\Z",
            done.stderr,
        ), words


def test_a_reader_that_leaves_is_told_what_was_done_and_nothing_else(untidy: Store, tmp_path: Path) -> None:
    for words, said in (
        (["list"], ""),
        (["cp", "tiny:q4", "copy"], "standard output: Broken pipe; this was done: copied tiny:q4 to copy:latest"),
    ):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*OSTORE, *words], stdout=writing, stderr=subprocess.PIPE, text=True, check=False, env=environment(untidy)
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (9, said and f"ostore: error[io]: {said}\n")


@needs_full
def test_an_import_that_warns_to_a_full_disk_is_done(store: Store, tmp_path: Path) -> None:
    store.model("con:latest", b"no name for Windows")
    with Path("/dev/full").open("w") as errors:
        done = subprocess.run(
            [*OSTORE, "import", store.root, "--models", tmp_path / "new"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
    assert (done.returncode, "imported 3 models" in done.stdout) == (0, True)


def huge(root: Path) -> Store:
    """A store with a sparse blob of 40 GB: to hash it takes half a minute."""
    store = Store(root)
    (store.root / "blobs").mkdir(parents=True)
    promised = sha256(b"not these zeros")
    with (store.root / "blobs" / f"sha256-{promised}").open("wb") as file:
        file.truncate(40_000_000_000)
    store.add(full("huge:latest"), {"mediaType": MODEL, "digest": f"sha256:{promised}", "size": 40_000_000_000})
    return store


@pytest.mark.parametrize(
    ("line", "remark"),
    [
        ("verify", NOTHING),
        ("export --all huge.tar", "there is no new bundle"),
        ("export --all -", "the bundle is cut off; the same command starts anew"),
        ("export --all folder/", GOES_ON),
        ("import models --models ./new", GOES_ON),
        ("move new --yes", GOES_ON),
        ("repair --from other", GOES_ON),
        ("repair --from other -n", NOTHING),
    ],
)
@pytest.mark.parametrize(
    "how", [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)], ids=["SIGINT", "SIGTERM"]
)
@unmeasured
def test_a_command_that_is_stopped_says_what_is_true(
    tmp_path: Path, line: str, remark: str, how: tuple[int, str, int]
) -> None:
    number, word, code = how
    store = huge(tmp_path / "models")
    Store(tmp_path / "other").model("other:latest", b"weights")
    # What starts the tests may have told its children to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [*OSTORE, *line.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(store),
        cwd=tmp_path,
    ) as process:
        assert process.stderr
        while "40 GB" not in (shown := process.stderr.readline()):
            assert shown
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if "huge.tar" in line:
        has_come_far = (tmp_path / "huge.tar.part.state").exists()
        assert (tmp_path / "huge.tar.part").exists() == has_come_far
        remark += f" yet; {GOES_ON}" if has_come_far else "; the same command starts anew"
    assert (process.returncode, errors.splitlines()[-1]) == (code, f"ostore: {word}; {remark}")
    assert not (tmp_path / "huge.tar").exists()


def test_a_traceback_changes_no_exit_code(store: Store, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(bytes(10_000))
    for words in (["show", "nobody"], ["list", "--bogus"], ["inspect", str(tmp_path / "bad.tar")]):
        plain, debugged = (
            run(*words, "--models" if words[0] != "inspect" else "-q", *([store.root] if words[0] != "inspect" else []),
                environment=more)
            for more in ({}, {"OSTORE_DEBUG": "1"})
        )  # fmt: skip
        assert debugged.returncode == plain.returncode > 1
        assert debugged.stderr.startswith("Traceback")
        assert debugged.stderr.endswith(plain.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the memory of Linux")
@pytest.mark.parametrize("words", [["verify", "-j", "64"], ["export", "--all", "x.tar.zst", "-j", "64"]])
def test_too_little_memory_is_a_limit_and_not_a_bug(tmp_path: Path, words: list[str]) -> None:
    store = Store(tmp_path / "models")
    for number in range(40):
        store.model(f"m{number}:latest", noise(20_000, number))
    # A thread that has nothing to do takes the next task, so some tasks have to take a while.
    store.model("big:latest", noise(20_000_000))
    done = subprocess.run(
        [*OSTORE, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment(store),
        cwd=tmp_path,
        preexec_fn=no_room_for_threads(),
    )
    assert done.returncode == 13, done.stderr
    assert "error[limit]: the system gives this process no more memory or threads (" in done.stderr
    assert run(*words[:-1], "1", cwd=tmp_path, environment=environment(store)).returncode == 0


def no_room_for_threads() -> Callable[[], None]:
    import resource  # POSIX only

    # The stack of each thread counts: 8 MB, if nobody has changed that.
    limit = 60_000_000
    return partial(resource.setrlimit, resource.RLIMIT_AS, (limit, limit))
