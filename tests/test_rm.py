"""Removing and copying models: what the plan says is what happens, and nothing shared is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import ostore
from tests.support import MODEL, OSTORE, Store, full, noise, sha256, tree
from tests.support import ostore as run
from tests.test_gc import ORPHAN, batches, on_terminal, orphan, under
from tests.test_import import as_root, as_user, public_path
from tests.test_publication import injected, meanwhile, needs_strace, strace

__all__ = ["public_path"]
WEIGHTS = b"the weights " * 1000


def rm(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("rm", "--yes", *arguments, "--models", store.root)


def used(root: Path) -> int:
    """Bytes that blobs take up, each file once."""
    files = {path.stat().st_ino: path.stat().st_blocks * 512 for path in (root / "blobs").iterdir()}
    return sum(files.values())


def test_it_frees_exactly_what_the_plan_said(kinds: Store, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    shutil.copytree(kinds.root, store.root)
    sparse = store.blob_path(b"weights " * 100_000)
    sparse.write_bytes(b"")
    os.truncate(sparse, 800_000)
    os.link(store.blob_path(b"odd weights"), tmp_path / "elsewhere")
    for name in ("tiny:q4", "someone/custom", "odd", "mlx", "tiny:latest"):
        planned = ostore.rm([name], dry_run=True, models=store.root)
        before = used(store.root)
        done = ostore.rm([name], models=store.root)
        assert planned
        assert done
        assert planned.freed == done.freed
        # What has a name elsewhere leaves the store, and its space stays taken.
        assert before - used(store.root) == done.freed + (4096 if name == "odd" else 0)
        assert {blob.digest for blob in planned.removed} == {blob.digest for blob in done.removed}


def test_small_blobs_that_stay_are_one_line_and_a_hard_link_explains_what_is_not_freed(
    store: Store, tmp_path: Path
) -> None:
    for name in ("big:q4", "big:q8"):
        store.model(name, noise(4_000_000), template=b"{{ .Prompt }}", license=name.encode() * 500_000)
    done = rm(store, "big:q4", "-n")
    assert re.fullmatch(
        r"  would remove big:q4\n"
        r"  stays [0-9a-f]{12}  4.0 MB: shared with big:q8\n"
        r"  2 small blobs stay, 8.2 KB: shared with other models \(-v shows them\)\n"
        r"would free 3.0 MB: 1 model, 1 blob\n",
        done.stdout,
    )
    assert rm(store, "big:q4", "-n", "-v").stdout.count("  stays ") == 3
    (tmp_path / "kept").hardlink_to(store.blob_path(b"big:q4" * 500_000))
    assert (
        "  3.0 MB would stay on the disk: under another name there (a hard link)\nwould free 0 B: 1 model, 1 blob\n"
        in (rm(store, "big:q4", "-n").stdout)
    )
    assert "  3.0 MB stays on the disk: under another name there (a hard link)\n" in rm(store, "big:q4").stdout


def test_what_others_share_stays_and_is_told(store: Store) -> None:
    store.add(full("twin:latest"), raw=store.manifest_path(full("tiny:q4")).read_bytes())
    before = tree(store.root)
    done = rm(store, "tiny:q4")
    assert done.returncode == 0, done.stderr
    assert f"stays {sha256(WEIGHTS)[:12]}  12 KB: shared with tiny:latest, twin:latest" in done.stdout
    assert done.stdout.splitlines()[-1] == "freed 0 B: 1 model, 0 blobs"
    gone = "manifests/registry.ollama.ai/library/tiny/q4"
    assert tree(store.root) == {name: what for name, what in before.items() if name != gone}
    assert batches(store) == []


def test_folders_that_are_empty_by_then_go_and_manifests_itself_stays(store: Store) -> None:
    store.model("hf.co/somebody/else:Q4", b"weights")
    assert rm(store, "hf.co/somebody/else:q4").returncode == 0
    assert [path.name for path in (store.root / "manifests").iterdir()] == ["registry.ollama.ai"]
    assert rm(store, "tiny:*").returncode == 0
    assert tree(store.root) == {"blobs": "folder", "manifests": "folder"}
    assert run("list", "-q", "--models", store.root).stdout == ""


def test_several_names_and_globs_in_any_case(store: Store) -> None:
    store.model("other:latest", b"other")
    store.model("third:latest", b"third")
    done = rm(store, "TINY*", "Other")
    assert done.stdout.splitlines()[:3] == ["  removed other:latest", "  removed tiny:latest", "  removed tiny:q4"]
    assert run("list", "-q", "--models", store.root).stdout == "third:latest\n"


@pytest.mark.parametrize("words", [["absent"], ["tiny", "absent"], ["tiny", "absent*"]], ids=" ".join)
def test_one_unknown_name_and_nothing_goes(store: Store, words: list[str]) -> None:
    before = tree(store.root)
    done = rm(store, *words)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert tree(store.root, without=()) == before


def test_of_twins_that_differ_by_case_only_the_one_that_is_spelled_goes(store: Store) -> None:
    store.model("Tiny:latest", b"another")
    assert rm(store, "TINY").returncode == 2
    assert rm(store, "Tiny").returncode == 0
    assert run("list", "-q", "--models", store.root).stdout.split() == ["tiny:latest", "tiny:q4"]


def test_while_another_manifest_is_broken_the_model_goes_and_its_blobs_stay(store: Store) -> None:
    store.write_manifest(full("broken:latest"), b"{")
    blobs = set((store.root / "blobs").iterdir())
    done = rm(store, "tiny:q4")
    assert done.returncode == 0, done.stderr
    assert "every blob stays, because a manifest that cannot be read may need it: manifests/" in done.stderr
    assert set((store.root / "blobs").iterdir()) == blobs
    assert not store.manifest_path(full("tiny:q4")).exists()
    gone = rm(store, "broken")
    assert gone.returncode == 0, gone.stderr
    assert ostore.verify(models=store.root)[0].verdict == "whole"
    report = ostore.gc(grace=0, models=store.root)
    assert report
    assert [blob.digest for blob in report.removed] == [f"sha256:{sha256(b'Say hi!')}"]


@pytest.mark.parametrize("broken", [b"", b"{", b"\x00" * 900])
def test_a_broken_model_can_be_removed(store: Store, broken: bytes) -> None:
    before = tree(store.root)
    store.write_manifest(full("broken:latest"), broken)
    assert rm(store, "broken").returncode == 0
    assert tree(store.root) == before


@pytest.mark.parametrize("words", [["odd"], ["*"], ["tiny:q4", "odd"], ["odd", "--dry-run"]], ids=" ".join)
def test_a_folder_by_the_name_of_a_tag_stays_with_all_that_is_in_it(store: Store, words: list[str]) -> None:
    folder = store.manifest_path(full("odd:latest"))
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_bytes(b"mine")
    before = tree(store.root)
    refused = rm(store, *words)
    assert refused.returncode == 10
    assert "odd/latest: expected a manifest, got a folder or a device" in refused.stderr
    assert tree(store.root) == before


def test_a_tag_that_is_a_link_goes_and_what_it_leads_to_only_if_nobody_else_needs_it(store: Store) -> None:
    target = store.blob(store.manifest_path(full("tiny:q4")).read_bytes()).replace(":", "-")
    link = store.root / "manifests-v2/ollama.com/library/tiny/q4"
    link.parent.mkdir(parents=True)
    link.symlink_to(Path("../../../../blobs") / target)
    assert rm(store, "tiny:q4").returncode == 0
    assert not (store.root / "blobs" / target).exists()
    assert not link.is_symlink()
    assert not link.parent.exists()
    assert run("list", "-q", "--models", store.root).stdout == "tiny:latest\n"
    assert ostore.verify(models=store.root)[0].verdict == "whole"


def test_young_blobs_go_with_their_model_and_orphans_are_left_to_gc(store: Store) -> None:
    path = orphan(store)
    assert rm(store, "tiny*").returncode == 0
    assert list((store.root / "blobs").iterdir()) == [path]


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("n\n", False)])
def test_it_shows_the_plan_and_asks(store: Store, answer: str, goes: bool) -> None:
    done = on_terminal(lambda _: answer, "rm", "tiny:q4", "--models", store.root)
    assert done.returncode == 0
    assert "would free 4.1 KB: 1 model, 1 blob" in done.stderr
    assert store.manifest_path(full("tiny:q4")).exists() is not goes


def test_without_a_terminal_it_asks_for_yes(store: Store) -> None:
    before = tree(store.root)
    done = run("rm", "tiny", "--models", store.root)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert tree(store.root, without=()) == before


def test_a_model_that_changed_after_it_was_shown_stays(store: Store) -> None:
    def change(_: object) -> str:
        store.model("tiny:q4", b"other weights")
        return "y\n"

    done = on_terminal(change, "rm", "tiny:q4", "--models", store.root)
    assert done.returncode == 2, done.stderr
    assert "changed since the plan was shown" in done.stderr
    assert ostore.verify(models=store.root)[0].models == 2


@needs_strace
def test_a_blob_that_a_new_model_needs_meanwhile_comes_back(store: Store, tmp_path: Path) -> None:
    path = store.blob_path(b"Say hi!")
    tag = store.manifest_path(full("pulled:latest"))
    layer = {"mediaType": MODEL, "digest": f"sha256:{sha256(b'Say hi!')}", "size": 7}
    manifest = json.dumps({"schemaVersion": 2, "config": store.config(), "layers": [layer]})

    def pull() -> bool:
        if path.exists():
            return False
        tag.parent.mkdir(parents=True, exist_ok=True)
        tag.write_text(manifest)
        return True

    thread = meanwhile(pull)
    slow = injected(tmp_path / "log", "renameat:delay_exit=500000:when=2")
    done = under(slow, "rm", "tiny:q4", "--yes", "--models", store.root)
    thread.join()
    assert done.returncode == 0, done.stderr
    assert "needed again while rm ran" in done.stdout
    assert ostore.verify(models=store.root)[0].verdict == "whole"


@as_root
def test_a_service_user_removes_what_root_copied(public_path: Path) -> None:
    store = Store(public_path / "models")
    store.model("tiny:latest", b"weights")
    for path in [store.root, *store.root.rglob("*")]:
        os.chown(path, 12345, 12346)
    assert run("cp", "tiny", "copy", "--models", store.root).returncode == 0
    for path in [store.root, *store.root.rglob("*")]:
        assert (path.lstat().st_uid, path.lstat().st_gid) == (12345, 12346), path
    done = under(as_user(12345, 12346), "rm", "tiny", "copy", "--yes", "--models", store.root)
    assert done.returncode == 0, done.stderr
    done = under(as_user(23456), "rm", "tiny", "--yes", "--models", store.root)
    assert done.returncode == 3


@as_root
def test_who_may_not_write_removes_nothing(public_path: Path) -> None:
    store = Store(public_path / "models")
    store.model("tiny:latest", b"weights")
    before = tree(store.root, without=())
    for command in (["rm", "tiny", "--yes"], ["cp", "tiny", "new"]):
        done = under(as_user(12345), *command, "--models", store.root)
        assert (done.returncode, done.stderr.count("\n")) == (9, 1), done.stderr
    assert tree(store.root, without=()) == before


@as_root
def test_manifests_may_be_on_a_disk_of_their_own(store: Store, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        shutil.copytree(store.root / "manifests", disk / "manifests")
        shutil.rmtree(store.root / "manifests")
        (store.root / "manifests").symlink_to(disk / "manifests")
        assert run("cp", "tiny:q4", "copy", "--models", store.root).returncode == 0
        done = rm(store, "tiny:latest", "tiny:q4")
        assert done.returncode == 0, done.stderr
        assert run("list", "-q", "--models", store.root).stdout == "copy:latest\n"
        assert ostore.verify(models=store.root)[0].verdict == "whole"
        assert batches(store) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_link_on_the_way_to_a_manifest_is_not_followed(store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(store.root / "manifests/registry.ollama.ai", elsewhere)
    shutil.rmtree(store.root / "manifests/registry.ollama.ai")
    (store.root / "manifests/registry.ollama.ai").symlink_to(elsewhere)
    before = tree(elsewhere)
    assert rm(store, "tiny").returncode == 8
    assert tree(elsewhere) == before
    assert ostore.verify(models=store.root)[0].verdict == "whole"


def cp(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("cp", *arguments, "--models", store.root)


def test_a_copy_has_the_same_bytes_and_no_blob_is_written(kinds: Store, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    shutil.copytree(kinds.root, store.root)
    before = {path.name: path.stat().st_ino for path in (store.root / "blobs").iterdir()}
    for source in ("tiny:q4", "odd", "mlx", "sees"):
        done = cp(store, source.upper(), f"copies/{source}")
        assert done.returncode == 0, done.stderr
        path, _, tag = f"{source}:latest".partition(":")
        original = store.root / "manifests/registry.ollama.ai/library" / path / tag.split(":")[0]
        copy = store.root / "manifests/registry.ollama.ai/copies" / path / tag.split(":")[0]
        assert copy.read_bytes() == original.read_bytes()
    assert {path.name: path.stat().st_ino for path in (store.root / "blobs").iterdir()} == before
    assert list((store.root / ".ostore/tx").iterdir()) == []


def test_the_same_copy_again_is_already_there_and_another_needs_replace(store: Store) -> None:
    assert cp(store, "tiny", "copy").stdout == "copied tiny:latest to copy:latest\n"
    assert cp(store, "tiny", "copy").stdout == "copy:latest is already there, and the same as tiny:latest\n"
    before = tree(store.root)
    refused = cp(store, "tiny:q4", "copy")
    assert (refused.returncode, "--replace" in refused.stderr) == (2, True)
    assert tree(store.root) == before
    assert cp(store, "tiny:q4", "copy", "--replace").stdout == "copied tiny:q4 to copy:latest (replaced)\n"
    assert ostore.verify(models=store.root)[0].verdict == "whole"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["tiny:q4", "TINY:latest"], 8),
        (["tiny", "../../x"], 2),
        (["absent", "x"], 3),
        (["tiny*", "x"], 2),
        (["tiny", "x*"], 2),
        (["tiny"], 2),
        (["tiny", "a", "b"], 2),
    ],
    ids=str,
)
def test_a_copy_that_cannot_be_is_refused_in_one_line(store: Store, arguments: list[str], code: int) -> None:
    before = tree(store.root, without=())
    done = cp(store, *arguments)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (code, 1, "")
    assert tree(store.root, without=()) == before


@pytest.mark.parametrize("damage", ["missing", "short", "long"])
def test_a_model_whose_blobs_are_not_all_there_is_not_copied(store: Store, damage: str) -> None:
    path = store.blob_path(b"Say hi!")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"Say hi!"[:3] if damage == "short" else b"Say hi! and more")
    before = tree(store.root)
    done = cp(store, "tiny:q4", "copy")
    assert done.returncode == 4, done.stderr
    assert sha256(b"Say hi!") in done.stderr
    assert tree(store.root) == before


def test_a_copy_that_would_be_is_only_told(store: Store) -> None:
    before = tree(store.root, without=())
    assert cp(store, "tiny", "copy", "-n").stdout == "would copy tiny:latest to copy:latest\n"
    assert tree(store.root, without=()) == before


def test_a_tag_that_ollama_takes_for_a_source_is_warned_of(store: Store) -> None:
    done = cp(store, "tiny", "copy:cloud")
    assert (done.returncode, done.stderr.startswith("ostore: warning: copy:cloud: ")) == (0, True)


def test_a_library_call_asks_nobody(store: Store) -> None:
    assert ORPHAN
    report = ostore.rm(["tiny:q4"], models=store.root)
    assert report
    assert (report.models, report.dry_run) == (("tiny:q4",), False)
    copied = ostore.cp("tiny", "copy", models=store.root)
    assert (copied.outcome, copied.destination) == ("added", "copy:latest")
    assert ostore.rm(["copy"], approve=lambda plan: not plan.dry_run, models=store.root) is None
    assert subprocess.run([*OSTORE, "--version"], check=True, capture_output=True).stdout


@needs_strace
def test_the_disk_is_not_asked_about_blobs_of_other_models(store: Store, tmp_path: Path) -> None:
    """Of tens of thousands that takes most of the time."""
    store.model("another:latest", b"weights of another", system=b"and its words")
    log = tmp_path / "log"
    done = under(strace(log), "rm", "tiny:q4", "-n", "--models", store.root)
    assert done.returncode == 0, done.stderr
    asked = log.read_text()
    assert store.blob_path(WEIGHTS).name in asked, "a blob that may go, or stay for another model, is looked at"
    for data in (b"weights of another", b"and its words"):
        # Where the names are read, strace shows none.
        assert store.blob_path(data).name not in asked
