"""In real stores, gc removes only what no model needs, and gives a reason for each blob."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ostore
from ostore.places.store.workspace import Workspace
from ostore.streams.durable import Directory
from tests.support import CONFIG, MODEL, OSTORE, Store, full, later, sha256, tree, unmeasured
from tests.support import ostore as run
from tests.test_import import as_root, as_user, public_path
from tests.test_publication import injected, meanwhile, needs_strace

__all__ = ["public_path"]
ORPHAN = b"an orphan " * 1000
DAY = 86_400


def orphan(store: Store, data: bytes = ORPHAN) -> Path:
    store.blob(data)
    return store.blob_path(data)


def gc(store: Store, *options: str) -> subprocess.CompletedProcess[str]:
    return run("gc", "--grace", "0s", "--yes", *options, "--models", store.root)


def under(tracer: list[str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(*arguments, tracer=tracer)


def on_terminal(
    answer: Callable[[subprocess.Popen[str]], str], *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run it with a terminal as standard input, and answer once it has asked."""
    import pty  # POSIX only

    ours, theirs = pty.openpty()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [*OSTORE, *map(str, arguments)], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr
            asked = ""
            while "[y/N]" not in asked:
                character = process.stderr.read(1)
                assert character, asked
                asked += character
            os.write(ours, answer(process).encode())
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    os.close(ours)
    os.close(theirs)
    return subprocess.CompletedProcess(process.args, process.returncode, out, asked + err)


def batches(store: Store) -> list[Path]:
    return sorted(store.root.glob(".ostore/trash/*"))


@pytest.fixture
def everything(store: Store) -> Store:
    """A store with one of everything that gc has to tell apart."""
    store.write_manifest(full("broken:latest"), b"{")
    v2 = {"config": store.layer(CONFIG, b"a v2 config"), "layers": [store.layer(MODEL, b"v2 weights")]}
    target = store.blob(json.dumps(v2).encode()).replace(":", "-")
    link = store.root / "manifests-v2/ollama.com/library/link/latest"
    link.parent.mkdir(parents=True)
    link.symlink_to(Path("../../../../blobs") / target)
    child = json.dumps({"layers": [store.layer(MODEL, b"weights of a child")]}).encode()
    listed = {"manifests": [{"mediaType": "any", "digest": store.blob(child), "size": len(child)}]}
    store.write_manifest(full("list:latest"), json.dumps(listed).encode())
    ahead = time.time() + 3 * DAY
    for name in ("-partial", "-partial-0"):
        part = store.root / "blobs" / f"sha256-{sha256(b'not all here yet')}{name}"
        part.write_bytes(b"not all")
        os.utime(part, (ahead, ahead))
    os.utime(orphan(store, b"a young orphan"), (ahead, ahead))
    orphan(store)
    return store


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_the_one_true_orphan_goes_and_comes_back_bit_exact(everything: Store) -> None:
    later, models = ["faketime", "-f", "+3d"], ("--models", everything.root)
    before = tree(everything.root)

    refused = under(later, "gc", "--keep", "24h", "--yes", *models)
    assert refused.returncode == 10, refused.stderr
    assert "manifests/registry.ollama.ai/library/broken/latest: manifest: not JSON" in refused.stderr
    assert tree(everything.root) == before

    everything.model("broken:latest", b"now whole")
    before = tree(everything.root)
    done = under(later, "gc", "--keep", "24h", "--yes", "--verbose", *models)
    assert done.returncode == 0, done.stderr
    after = tree(everything.root)
    path = f"blobs/{everything.blob_path(ORPHAN).name}"
    assert after == {name: what for name, what in before.items() if name != path}
    assert "a download seems to be running" in done.stdout

    back = under(later, "gc", "--restore", *models)
    assert back.returncode == 0, back.stderr
    assert tree(everything.root) == before
    assert everything.blob_path(ORPHAN).read_bytes() == ORPHAN
    assert batches(everything) == []


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_what_is_kept_goes_when_its_time_is_over(store: Store) -> None:
    models = ("--models", store.root)
    orphan(store)
    assert gc(store, "--keep", "2h").returncode == 0
    assert len(batches(store)) == 1
    early, late = (under(["faketime", "-f", age], "gc", "--yes", *models) for age in ("+1h", "+3h"))
    assert early.stdout.startswith("nothing to reclaim")
    assert "2 expired files in the trash" in late.stdout
    assert batches(store) == []
    assert "the trash is empty" in run("gc", "--restore", *models).stdout


def test_the_space_is_free_when_it_ends_and_it_says_how_much(store: Store) -> None:
    path = orphan(store)
    allocated = path.stat().st_blocks * 512
    before = tree(store.root)
    report = ostore.gc(grace=0, models=store.root)
    assert report
    assert [(blob.digest, blob.reason) for blob in report.removed] == [(f"sha256:{sha256(ORPHAN)}", "orphan")]
    assert (report.freed, report.needed, report.dry_run) == (allocated, 4, False)
    assert tree(store.root) == {name: what for name, what in before.items() if name != f"blobs/{path.name}"}
    assert sorted(entry.name for entry in (store.root / ".ostore").iterdir()) == ["lock", "tx"]
    again = gc(store)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "nothing to reclaim: 4 blobs in use")


def test_a_dry_run_says_the_same_and_does_nothing(store: Store) -> None:
    orphan(store)
    before = tree(store.root, without=())
    planned = run("gc", "-n", "--grace", "0s", "--models", store.root)
    assert tree(store.root, without=()) == before
    done = gc(store)
    as_done = planned.stdout.replace("would remove", "removed").replace("would reclaim", "reclaimed")
    assert re.sub(r"last changed .*", "", as_done) == re.sub(r"last changed .*", "", done.stdout)


def test_it_says_of_every_blob_why_it_stays(store: Store) -> None:
    orphan(store)
    done = run("gc", "-n", "-v", "--models", store.root)
    assert done.stdout.count("needed by") == 4
    assert "needed by tiny:latest, tiny:q4" in done.stdout
    assert "no model needs it, but it is too young; last changed " in done.stdout
    assert "nothing to reclaim: 4 blobs in use, 1 orphan kept" in done.stdout


@pytest.mark.parametrize(
    "name", ["README", "sha256-123456", "COPY99", "sha256-" + "a" * 64 + ".tmp", "sha256-abc", "SHA256-" + "a" * 64]
)
def test_what_is_not_named_like_a_blob_stays(store: Store, name: str) -> None:
    path = store.root / "blobs" / name
    path.write_bytes(b"somebody's")
    assert gc(store, "--partials").returncode == 0
    assert path.read_bytes() == b"somebody's"


def test_folders_and_pipes_named_like_blobs_stay_and_of_a_link_the_file(store: Store, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    blobs = store.root / "blobs"
    link = blobs / f"sha256-{'a' * 64}"
    link.symlink_to(precious)
    os.utime(link, (0, 0), follow_symlinks=False)
    (blobs / f"sha256-{'b' * 64}").mkdir()
    os.mkfifo(blobs / f"sha256-{'c' * 64}")
    before = tree(store.root)
    done = gc(store)
    assert done.returncode == 0, done.stderr
    assert precious.read_bytes() == b"precious"
    assert before.keys() - tree(store.root).keys() == {f"blobs/{link.name}"}


@pytest.mark.parametrize("form", ["sha256:{}", "sha256-{}"])
def test_old_spellings_go_if_they_are_orphans_and_stay_if_they_are_needed(store: Store, form: str) -> None:
    """Ollama renames the one when it starts, and prunes both like any other name."""
    needed, lost = sha256(b"{{ .Prompt }}"), sha256(ORPHAN)
    if form == "sha256-{}":
        needed, lost = needed.upper(), lost.upper()
    blobs = store.root / "blobs"
    (blobs / form.format(needed)).write_bytes(b"{{ .Prompt }}")
    (blobs / form.format(lost)).write_bytes(ORPHAN)
    assert gc(store, "--keep", "1h").returncode == 0
    assert (blobs / form.format(needed)).exists()
    assert not (blobs / form.format(lost)).exists()
    assert run("gc", "--restore", "--models", store.root).returncode == 0
    assert (blobs / form.format(lost)).read_bytes() == ORPHAN


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_given_up_downloads_go_only_when_asked(store: Store) -> None:
    blobs = store.root / "blobs"
    old, grown = sha256(b"old"), sha256(b"grown")
    for name in (f"sha256-{old}-partial", f"sha256-{old}-partial-0", f"sha256-{grown}-partial"):
        (blobs / name).write_bytes(b"part")
    ahead = time.time() + 8 * DAY
    (blobs / f"sha256-{grown}-partial-0").write_bytes(b"part")
    os.utime(blobs / f"sha256-{grown}-partial-0", (ahead, ahead))
    before = tree(store.root)
    later = ["faketime", "-f", "+8d"]
    assert under(later, "gc", "--yes", "--models", store.root).returncode == 0
    assert tree(store.root) == before
    done = under(later, "gc", "--yes", "--partials", "--keep", "1d", "--models", store.root)
    assert "1 partial download" in done.stdout
    assert tree(store.root) == {name: what for name, what in before.items() if old not in name}
    assert batches(store) == [], "only blobs are kept"


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_it_says_until_when_a_download_stays_and_takes_it_at_the_age_that_is_given(store: Store) -> None:
    lost = sha256(b"lost")
    for name in (f"sha256-{lost}-partial", f"sha256-{lost}-partial-0"):
        (store.root / "blobs" / name).write_bytes(b"part")
    later = ["faketime", "-f", "+2h"]
    due = r"after 20\d\d-\d\d-\d\d \d\d:\d\d UTC"
    for options, said in (
        ((), rf"stays: 1 partial download, .*; ollama pull goes on with it; --partials takes it {due}"),
        (("--partials",), rf"stays: 1 partial download, .*; it goes {due} \(--partials-grace\)"),
        (("--partials-grace", "3h"), rf"stays: 1 partial download, .*; it goes {due} \(--partials-grace\)"),
    ):
        assert re.search(said, under(later, "gc", "--yes", *options, "--models", store.root).stdout), options
    abandoned = under(["faketime", "-f", "+8d"], "gc", "--yes", "--models", store.root)
    assert f"8.2 KB; ostore gc --partials --models {store.root} takes it now" in abandoned.stdout
    assert list(store.root.glob("blobs/*-partial*")) != []
    done = under(later, "gc", "--yes", "--partials-grace", "1h", "--models", store.root)
    assert "1 partial download" in done.stdout
    assert "seems to be running" not in done.stdout
    assert list(store.root.glob("blobs/*-partial*")) == []


def test_it_says_until_when_young_orphans_stay(store: Store) -> None:
    orphan(store)
    assert re.search(
        r"stays: 1 young orphan, .* KB; it goes after 20.* UTC \(--grace\)",
        run("gc", "-n", "--models", store.root).stdout,
    )


@pytest.mark.parametrize("command", [["gc", "--grace", "0s"], ["rm", "tiny:q4"]], ids=lambda words: words[0])
def test_a_no_is_a_document_that_says_that_nothing_was_done(store: Store, command: list[str]) -> None:
    orphan(store)
    before = tree(store.root)
    done = on_terminal(lambda _: "n\n", *command, "--json", "--models", store.root)
    assert (done.returncode, tree(store.root)) == (0, before)
    assert done.stderr.endswith("nothing was removed\n")
    document = json.loads(done.stdout)
    assert (document["schema"], document["dry_run"]) == (f"ostore.{command[0]}/1", True)


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="needs /proc")
def test_a_server_in_sight_is_told_of_and_a_resting_download_may_go_on(store: Store, tmp_path: Path) -> None:
    server = tmp_path / "ollama"
    shutil.copy(shutil.which("sleep") or "sleep", server)
    with subprocess.Popen([server, "60"]) as process:
        try:
            report = ostore.gc(dry_run=True, models=store.root)
            done = run("gc", "-n", "--models", store.root)
        finally:
            process.kill()
    assert report
    assert report.sees_ollama
    assert "Ollama is running and takes no lock" in done.stdout


def test_a_short_grace_is_told_of(store: Store) -> None:
    assert "with a grace of 30 min" in run("gc", "-n", "--grace", "30m", "--models", store.root).stdout
    assert "with a grace" not in run("gc", "-n", "--grace", "1h", "--models", store.root).stdout


@pytest.mark.parametrize("text", ["1", "h", "-1h", "1.5h", "1w", "", "24 h", "9999999s"])
def test_times_are_said_with_their_unit(store: Store, text: str) -> None:
    done = run("gc", f"--grace={text}", "--models", store.root)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "90s, 30m, 24h or 7d" in done.stderr


def test_nothing_goes_while_a_manifest_is_in_doubt(store: Store) -> None:
    path = orphan(store)
    stray = store.manifest_path(full("tiny:latest")).with_name("\x1b[31m\nred")
    stray.write_bytes(b"{}")
    done = gc(store)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (10, "", 1)
    assert "\\x1b[31m\\nred" in done.stderr
    assert path.exists()


def test_blobs_without_models_are_taken_for_a_disk_that_is_not_mounted(store: Store) -> None:
    shutil.rmtree(store.root / "manifests")
    before = tree(store.root)
    done = gc(store)
    assert (done.returncode, "--without-models" in done.stderr) == (10, True)
    (store.root / "manifests").mkdir()
    assert gc(store).returncode == 10
    (store.root / "manifests").rmdir()
    assert tree(store.root) == before
    assert gc(store, "--without-models").returncode == 0
    assert list((store.root / "blobs").iterdir()) == []


def test_no_store_is_made(tmp_path: Path) -> None:
    for command in (["gc"], ["gc", "--restore"], ["rm", "x"], ["cp", "x", "y"]):
        assert run(*command, "--models", tmp_path / "absent").returncode == 3
    assert not (tmp_path / "absent").exists()


def test_without_a_terminal_it_asks_for_yes_and_does_nothing(store: Store) -> None:
    path = orphan(store)
    done = run("gc", "--grace", "0s", "--models", store.root)
    assert (done.returncode, done.stdout, path.exists()) == (2, "", True)
    assert "--yes" in done.stderr
    path.unlink()
    assert run("gc", "--grace", "0s", "--models", store.root).returncode == 0, "there is nothing to ask for"


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_it_shows_the_plan_and_asks(store: Store, answer: str, goes: bool) -> None:
    path = orphan(store)
    done = on_terminal(lambda _: answer, "gc", "--grace", "0s", "--models", store.root)
    assert done.returncode == 0
    assert "would remove" in done.stderr
    assert done.stdout.startswith("  removed") if goes else done.stderr.endswith("nothing was removed\n")
    assert path.exists() is not goes


@unmeasured
def test_ctrl_c_at_the_question_removes_nothing(store: Store) -> None:
    path = orphan(store)

    def interrupt(process: subprocess.Popen[str]) -> str:
        process.send_signal(signal.SIGINT)
        return ""

    done = on_terminal(interrupt, "gc", "--grace", "0s", "--models", store.root)
    assert (done.returncode, path.exists()) == (130, True)
    assert done.stderr.endswith("ostore: interrupted; nothing was changed\n")


def test_nothing_goes_that_was_not_in_the_plan_or_is_needed_by_the_time_of_the_answer(store: Store) -> None:
    orphan(store)
    orphan(store, b"another orphan")

    def change_and_agree(_: object) -> str:
        store.model("adopted:latest", ORPHAN)
        orphan(store, b"a third one")
        return "y\n"

    assert on_terminal(change_and_agree, "gc", "--grace", "0s", "--models", store.root).returncode == 0
    assert store.blob_path(ORPHAN).exists()
    assert store.blob_path(b"a third one").exists()
    assert not store.blob_path(b"another orphan").exists()
    assert ostore.verify(models=store.root)[0].verdict == "whole"


@needs_strace
def test_a_pull_without_locks_that_needs_an_orphan_between_the_two_looks_gets_it(store: Store, tmp_path: Path) -> None:
    path = orphan(store)
    layer = {"mediaType": MODEL, "digest": f"sha256:{sha256(ORPHAN)}", "size": len(ORPHAN)}
    manifest = {"schemaVersion": 2, "config": store.config(), "layers": [layer]}
    tag = store.manifest_path(full("pulled:latest"))

    def pull() -> bool:
        if path.exists():
            return False
        tag.parent.mkdir(parents=True, exist_ok=True)
        tag.write_text(json.dumps(manifest))
        return True

    thread = meanwhile(pull)
    slow = injected(tmp_path / "log", "renameat:delay_exit=500000:when=1")
    done = under(slow, "gc", "--grace", "0s", "--yes", "-v", "--models", store.root)
    thread.join()
    assert tag.exists()
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == ORPHAN
    assert "used, replaced or needed again while gc ran" in done.stdout
    assert ostore.verify(models=store.root)[0].verdict == "whole"
    assert batches(store) == []


@needs_strace
def test_a_pull_that_loads_the_orphan_again_meanwhile_is_not_overwritten(store: Store, tmp_path: Path) -> None:
    path = orphan(store)
    tag = store.manifest_path(full("pulled:latest"))
    loaded: list[int] = []

    def pull() -> bool:
        if path.exists():
            return False
        path.write_bytes(ORPHAN)
        loaded.append(path.stat().st_ino)
        tag.parent.mkdir(parents=True, exist_ok=True)
        tag.write_text(json.dumps({"layers": [{"digest": f"sha256:{sha256(ORPHAN)}", "size": len(ORPHAN)}]}))
        return True

    thread = meanwhile(pull)
    slow = injected(tmp_path / "log", "renameat:delay_exit=500000:when=1")
    done = under(slow, "gc", "--grace", "0s", "--yes", "--models", store.root)
    thread.join()
    assert done.returncode == 0, done.stderr
    assert loaded == [path.stat().st_ino]


@needs_strace
def test_a_manifest_that_breaks_meanwhile_brings_everything_back(store: Store, tmp_path: Path) -> None:
    path = orphan(store)
    before = tree(store.root)

    def spoil() -> bool:
        if not path.exists():
            store.write_manifest(full("broken:latest"), b"{")
        return not path.exists()

    thread = meanwhile(spoil)
    slow = injected(tmp_path / "log", "renameat:delay_exit=500000:when=1")
    done = under(slow, "gc", "--grace", "0s", "--yes", "--models", store.root)
    thread.join()
    assert done.returncode == 10, done.stderr
    shutil.rmtree(store.manifest_path(full("broken:latest")).parent)
    assert tree(store.root) == before
    assert batches(store) == []


@needs_strace
def test_a_blob_that_is_used_right_before_it_goes_stays(store: Store, tmp_path: Path) -> None:
    path = orphan(store)
    time.sleep(1.1)

    def use() -> bool:
        if not batches(store):
            return False
        path.touch()
        return True

    thread = meanwhile(use)
    slow = injected(tmp_path / "log", "fsync:delay_exit=300000")
    done = under(slow, "gc", "--grace", "1s", "--yes", "--models", store.root)
    thread.join()
    assert done.returncode == 0, done.stderr
    assert path.exists()


def test_what_the_trash_keeps_and_a_model_needs_again_is_back_before_anything_else(store: Store) -> None:
    """A pull had found it, and referred to it only after gc had ended."""
    orphan(store)
    orphan(store, b"another orphan")
    assert gc(store, "--keep", "1h").returncode == 0
    store.add(full("late:latest"), {"mediaType": MODEL, "digest": f"sha256:{sha256(ORPHAN)}", "size": len(ORPHAN)})
    assert ostore.verify(models=store.root)[0].verdict == "integrity"
    assert run("gc", "--yes", "--models", store.root).returncode == 0
    assert ostore.verify(models=store.root)[0].verdict == "whole"
    (batch,) = batches(store)
    assert not store.blob_path(b"another orphan").exists()
    (batch / "kept.json").write_bytes(b"not ours any more")
    assert run("gc", "--yes", "--models", store.root).returncode == 0
    assert store.blob_path(b"another orphan").exists(), "nobody knows what was to become of it"


def test_what_somebody_else_put_into_the_trash_is_left_alone(store: Store) -> None:
    foreign = store.root / ".ostore/trash/mine"
    foreign.mkdir(parents=True)
    (foreign / store.blob_path(ORPHAN).name).write_bytes(b"mine")
    assert gc(store).returncode == 0
    assert run("gc", "--restore", "--models", store.root).stdout == "the trash is empty\n"
    assert [path.read_bytes() for path in foreign.iterdir()] == [b"mine"]


@needs_strace
@pytest.mark.parametrize("error", ["ENOLCK", "EBADF"])
@pytest.mark.parametrize("arguments", [["gc", "--grace", "0s"], ["rm", "tiny:q4"]], ids=" ".join)
def test_where_locks_exclude_nobody_nothing_is_removed(
    store: Store, tmp_path: Path, error: str, arguments: list[str]
) -> None:
    orphan(store)
    before = tree(store.root)
    done = under(injected(tmp_path / "log", f"flock:error={error}"), *arguments, "--yes", "--models", store.root)
    assert done.returncode == 9, done.stderr
    assert "locks do not keep others out" in done.stderr
    assert tree(store.root) == before


def test_what_a_killed_import_left_goes_and_what_a_running_one_holds_stays(store: Store, tmp_path: Path) -> None:
    path = orphan(store)
    with Directory.open(store.root) as root, Workspace.open(root).transaction() as running:
        blobs = Directory.open(store.root / "blobs")
        assert blobs.link(path.name, running, f"{path.name}.pin")
        blobs.close()
        dead = store.root / ".ostore/tx/99999-dead"
        (dead / "m").mkdir(parents=True)
        for name in ("m/000000.json", f"sha256-{sha256(b'x')}.part", f"sha256-{sha256(b'y')}"):
            (dead / name).write_bytes(bytes(5000))
        done = gc(store, "-v")
        assert done.returncode == 0, done.stderr
        assert "a running command holds it" in done.stdout
        assert "reclaimed 24 KB: 3 files of interrupted commands" in done.stdout
        assert (path.exists(), dead.exists(), running.lstat(f"{path.name}.pin") is not None) == (True, False, True)
        running.unlink(f"{path.name}.pin")
    assert gc(store).returncode == 0
    assert not path.exists()


def test_restore_ends_what_another_began_that_had_given_a_blob_its_name_and_not_yet_taken_the_other(
    store: Store,
) -> None:
    path = orphan(store)
    assert gc(store, "--keep", "1d").returncode == 0
    (batch,) = batches(store)
    path.hardlink_to(batch / path.name)
    done = run("gc", "--restore", "--models", store.root, "--progress", "none")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == ORPHAN
    assert batches(store) == []


def test_restore_overwrites_nothing_and_leaves_what_is_damaged(store: Store) -> None:
    good, bad, there = b"good " * 100, b"bad " * 100, b"there " * 100
    for data in (good, bad, there):
        orphan(store, data)
    assert gc(store, "--keep", "1d").returncode == 0
    (batch,) = batches(store)
    (batch / store.blob_path(bad).name).write_bytes(bytes(400))
    store.blob_path(there).write_bytes(b"somebody else's")
    done = run("gc", "--restore", "--models", store.root, "--progress", "none")
    assert done.returncode == 4, done.stderr
    assert sorted(line.split(": ")[1] for line in done.stdout.splitlines()[:3]) == [
        "already there",
        "damaged",
        "restored",
    ]
    assert store.blob_path(good).read_bytes() == good
    assert store.blob_path(there).read_bytes() == b"somebody else's"
    assert not store.blob_path(bad).exists()
    assert sorted(path.name for path in batch.iterdir()) == sorted(
        [store.blob_path(bad).name, store.blob_path(there).name, "kept.json"]
    )


@pytest.mark.parametrize("option", ["--partials", "--keep=1h", "--without-models"])
def test_restore_takes_no_option_for_removing(store: Store, option: str) -> None:
    assert run("gc", "--restore", option, "--models", store.root).returncode == 2


@as_root
def test_what_root_makes_in_a_store_of_a_service_belongs_to_the_service(public_path: Path) -> None:
    store = Store(public_path / "models")
    store.model("tiny:latest", b"weights")
    orphan(store)
    for path in [store.root, *store.root.rglob("*")]:
        os.chown(path, 12345, 12346)
    done = gc(store, "--keep", "1h")
    assert done.returncode == 0, done.stderr
    for path in [store.root, *store.root.rglob("*")]:
        assert (path.lstat().st_uid, path.lstat().st_gid) == (12345, 12346), path
    restored = under(as_user(12345, 12346), "gc", "--restore", "--models", store.root)
    assert restored.returncode == 0, restored.stderr
    removed = under(as_user(12345, 12346), "gc", "--yes", "--grace", "0s", "--models", store.root)
    assert (removed.returncode, store.blob_path(ORPHAN).exists()) == (0, False), removed.stderr


@as_root
def test_a_member_of_the_group_collects_and_restores_in_a_shared_store(public_path: Path) -> None:
    store = Store(public_path / "models")
    store.model("tiny:latest", b"weights")
    orphan(store)
    for path in [store.root, *store.root.rglob("*")]:
        os.chown(path, 12345, 12346)
        if path.is_dir():
            path.chmod(0o2775)
    member = as_user(23456, 12346)
    done = under(member, "gc", "--yes", "--grace", "0s", "--keep", "1h", "--models", store.root)
    assert (done.returncode, store.blob_path(ORPHAN).exists()) == (0, False), done.stderr
    done = under(member, "gc", "--restore", "--models", store.root)
    assert done.returncode == 0, done.stderr
    assert store.blob_path(ORPHAN).read_bytes() == ORPHAN


@as_root
def test_who_may_not_write_is_told_so_and_may_still_look(public_path: Path) -> None:
    store = Store(public_path / "models")
    store.model("tiny:latest", b"weights")
    orphan(store)
    before = tree(store.root, without=())
    stranger = as_user(12345)
    done = under(stranger, "gc", "-n", "--grace", "0s", "--models", store.root)
    assert (done.returncode, "would reclaim" in done.stdout) == (0, True), done.stderr
    done = under(stranger, "gc", "--yes", "--grace", "0s", "--models", store.root)
    assert (done.returncode, done.stderr.count("\n")) == (9, 1)
    assert tree(store.root, without=()) == before


@pytest.fixture
def read_only(store: Store, tmp_path: Path) -> Iterator[Path]:
    """The store on a mount that cannot be written."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    folder = tmp_path / "read-only"
    folder.mkdir()
    orphan(store)
    mounted = subprocess.run(["mount", "--bind", "-o", "ro", store.root, folder], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no bind mount here: {mounted.stderr!r}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_on_a_read_only_mount_it_says_what_would_go(read_only: Path) -> None:
    for command in (["gc", "--grace", "0s"], ["rm", "tiny:q4"], ["cp", "tiny:q4", "new"]):
        planned = run(*command, "-n", "--models", read_only)
        assert planned.returncode == 0, planned.stderr
        options = () if command[0] == "cp" else ("--yes",)
        done = run(*command, *options, "--models", read_only)
        assert (done.returncode, "Read-only file system" in done.stderr) == (9, True), done.stderr


def test_two_at_once_end_as_one_after_the_other(store: Store) -> None:
    for number in range(200):
        orphan(store, b"orphan %d" % number)
    command = [*OSTORE, "gc", "--grace", "0s", "--yes", "--json", "--models", str(store.root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    reports = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum(len(report["removed"]) for report in reports) == 200
    assert len(list((store.root / "blobs").iterdir())) == 4


def test_it_opens_no_socket(store: Store, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    orphan(store)
    log = tmp_path / "log"
    assert under(["strace", "-f", "-e", "trace=socket", "-o", str(log)], "gc", "-n", "--models", store.root).stdout
    assert "socket(" not in log.read_text()


@unmeasured
def test_an_interrupt_is_one_line(store: Store, tmp_path: Path) -> None:
    """The lock is held by another, so it waits; Ctrl-C ends that."""
    orphan(store)
    with Directory.open(store.root) as root, Workspace.open(root).locked():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command = [*OSTORE, "gc", "--grace", "0s", "--yes", "--models", str(store.root)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(1.5 if sys.gettrace() is None else 5)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (130, 1)
    assert store.blob_path(ORPHAN).exists()


@needs_strace
def test_where_no_folder_can_be_made_orphans_go_all_the_same_but_are_not_kept(store: Store, tmp_path: Path) -> None:
    """Real disks that are full: test_full_disk.py."""
    before = tree(store.root)
    orphan(store)
    kept = tree(store.root)
    full_disk = injected(tmp_path / "log", "mkdirat:error=ENOSPC", "mkdir:error=ENOSPC")
    done = under(full_disk, "gc", "--grace", "0s", "--yes", "--keep", "1h", "--models", store.root)
    assert (done.returncode, "free some 100 KB" in done.stderr) == (7, True), done.stderr
    assert tree(store.root) == kept
    done = under(full_disk, "gc", "--grace", "0s", "--yes", "--models", store.root)
    assert (done.returncode, tree(store.root)) == (0, before), done.stderr


def test_a_link_comes_back_from_the_trash_as_it_was(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"linked")
    link = store.root / "blobs" / f"sha256-{sha256(b'linked')}"
    link.symlink_to(tmp_path / "elsewhere")
    with later(2):
        ostore.gc(grace=0, keep=1e9, models=store.root)
        assert not link.is_symlink()
        ostore.restore(models=store.root)
    assert link.readlink() == tmp_path / "elsewhere"
