"""Doctor takes its steps even if the store has changed since, and leaves out those that are no longer due."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ostore
from ostore.places.store.fixing import Action, Fix, fix_store
from ostore.streams import durable
from tests.support import Store, full, sha256, tree
from tests.support import ostore as run
from tests.torture.disks import mounted_disk

LIBRARY = "manifests/registry.ollama.ai/library"
EMPTY = f"{LIBRARY}/tiny/empty"
OLD, NEW = f"sha256:{sha256(b'old')}", f"sha256-{sha256(b'old')}"


def taken(store: Store, action: Action, path: str) -> str:
    """Why the step was not taken; the store is as it was then."""
    before = tree(store.root)
    (step,) = fix_store(store.root, [Fix(action, path)])
    assert (step.outcome == "fixed") == (tree(store.root) != before)
    return step.outcome


def test_a_step_that_is_due_is_taken_and_what_is_set_aside_is_kept(store: Store) -> None:
    (store.root / EMPTY).touch()
    (store.root / "blobs" / OLD).write_bytes(b"old")
    done = fix_store(store.root, [Fix("set-aside", EMPTY), Fix("rename", f"blobs/{OLD}")])
    assert [step.outcome for step in done] == ["fixed", "fixed"]
    assert (store.root / done[0].target).read_bytes() == b""
    assert (store.root / "blobs" / NEW).read_bytes() == b"old"
    assert not (store.root / "blobs" / OLD).exists()
    assert not (store.root / EMPTY).exists()


def test_one_step_that_fails_does_not_keep_the_others_from_it(store: Store) -> None:
    (store.root / EMPTY).touch()
    done = fix_store(store.root, [Fix("set-aside", f"{LIBRARY}/no/such"), Fix("set-aside", EMPTY)])
    assert [step.outcome for step in done] == ["No such file or directory", "fixed"]


def folder(path: Path) -> None:
    path.mkdir()


def manifest(path: Path) -> None:
    path.write_bytes(b"{}")


def good_link(path: Path) -> None:
    path.symlink_to(path.with_name("latest"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _path: None, "gone meanwhile"),
        (folder, "changed meanwhile"),
        (os.mkfifo, "changed meanwhile"),
        (manifest, "changed meanwhile"),
        (good_link, "the link has a target, or cannot be followed"),
    ],
    ids=["nothing", "folder", "pipe", "manifest", "link"],
)
def test_what_is_no_longer_odd_is_not_set_aside(store: Store, change: Callable[[Path], None], why: str) -> None:
    change(store.root / EMPTY)
    assert taken(store, "set-aside", EMPTY) == why


def test_what_is_under_no_name_is_set_aside_with_whatever_it_holds(store: Store) -> None:
    stray = store.root / f"{LIBRARY}/tiny/a b"
    stray.write_bytes(b"notes")
    (step,) = fix_store(store.root, [Fix("set-aside", f"{LIBRARY}/tiny/a b")])
    assert (step.outcome, (store.root / step.target).read_bytes()) == ("fixed", b"notes")


@pytest.mark.parametrize("place", ["notes/a", ".ostore/trash", "../models/blobs/x", "/etc/passwd"])
@pytest.mark.parametrize("action", ["set-aside", "give"])
def test_a_place_that_is_not_of_the_store_is_not_mended(store: Store, place: str, action: Action) -> None:
    assert taken(store, action, place) == "not a place that ostore fixes"


def test_a_blob_gets_no_name_that_another_file_has(store: Store) -> None:
    (store.root / "blobs" / OLD).write_bytes(b"old")
    (store.root / "blobs" / NEW).write_bytes(b"another")
    assert taken(store, "rename", f"blobs/{OLD}") == "a blob of the new name is there by now"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_file_with_a_second_name_is_not_given_away(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    for path in (store.root, *store.root.rglob("*")):
        os.chown(path, 12345, 12345)
    os.link(secret, store.root / "blobs" / NEW)
    assert taken(store, "give", f"blobs/{NEW}") == "the file has a second name elsewhere"
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777) == (0, 0o600)
    secret.unlink()
    (step,) = fix_store(store.root, [Fix("give", f"blobs/{NEW}")])
    assert step.outcome == "fixed"
    assert ((store.root / "blobs" / NEW).stat().st_uid, (store.root / "blobs" / NEW).stat().st_mode & 0o777) == (
        12345,
        0o644,
    )


def test_whoever_may_not_give_is_told_who_may(store: Store) -> None:
    assert taken(store, "give", "blobs/" + store.blob_path(b"{{ .Prompt }}").name) == (
        "only root or its owner may do that"
    )


def test_where_folders_have_no_handles_none_is_given_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "HAS_DIRECTORY_HANDLES", False)
    assert taken(store, "give", f"{LIBRARY}/tiny") == "only root or its owner may do that"


def test_a_link_to_a_disk_that_does_not_answer_is_neither_missing_nor_set_aside(store: Store, tmp_path: Path) -> None:
    with mounted_disk("xfs", tmp_path) as disk:
        weights, model = store.blob_path(b"the weights " * 1000), store.manifest_path(full("tiny:q4"))
        for path in (weights, model):
            shutil.move(path, disk.mounted / path.name)
            path.symlink_to(disk.mounted / path.name)
        (store.root / "manifests/hf.co").symlink_to(disk.mounted)
        disk.stop()
        found = {finding.subject: finding for finding in ostore.doctor(models=store.root).findings}
        assert found[f"{LIBRARY}/tiny/q4"].code == "not-checked"
        assert found[f"blobs/{weights.name}"].code == "not-checked"
        assert found["manifests/hf.co"].code == "not-checked"
        assert not {finding.code for finding in found.values()} & {"blob-missing", "manifest-link-dangling"}
        assert taken(store, "set-aside", f"{LIBRARY}/tiny/q4") == ("the link has a target, or cannot be followed")


@pytest.mark.parametrize("spelled", [lambda text: text.replace(b"sha256:", b"sha256-"), lambda text: text.upper()])
@pytest.mark.parametrize("command", ["doctor", "repair"])
def test_digests_are_written_right_and_nothing_else_of_the_manifest(
    tmp_path: Path, spelled: Callable[[bytes], bytes], command: str
) -> None:
    store = Store(tmp_path / "models")
    path = store.model("tiny:latest", b"weights", template=b"{{ .Prompt }}")
    right = path.read_bytes().replace(b"{", b'{ "from" : "/x/sha256-ABC" ,\t', 1)
    wrong = re.sub(rb"sha256:[0-9a-f]{64}", lambda found: spelled(found[0]).replace(b"SHA256", b"sha256"), right)
    assert wrong != right
    path.write_bytes(wrong)
    (tmp_path / "nothing").mkdir()
    words: dict[str, tuple[str | Path, ...]] = {
        "doctor": ("doctor", "--fix", "--yes"),
        "repair": ("repair", "--from", tmp_path / "nothing"),
    }
    assert run(*words[command], "--dry-run", "--models", store.root).returncode in {0, 10}
    assert path.read_bytes() == wrong
    done = run(*words[command], "--models", store.root)
    assert done.returncode == 0, done.stderr
    assert "ID" in done.stdout
    assert path.read_bytes() == right
    (kept,) = (path for path in (store.root / ".ostore/quarantine").rglob("latest"))
    assert kept.read_bytes() == wrong
    assert run("verify", "--models", store.root).returncode == 0


def test_digests_stay_as_they_are_while_a_blob_is_not_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    path = store.model("tiny:latest", b"weights")
    wrong = path.read_bytes().replace(b"sha256:", b"sha256-")
    path.write_bytes(wrong)
    store.blob_path(b"weights").write_bytes(b"WEIGHTS")
    done = run("doctor", "--fix", "--yes", "--models", store.root)
    assert done.returncode == 10
    assert "its bytes have another digest" in done.stdout
    assert path.read_bytes() == wrong


def test_a_misplaced_manifest_is_put_in_its_place_but_never_over_another(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    path = store.model("tiny:latest", b"weights")
    raw = path.read_bytes()
    wrong = store.root / "manifests/library/tiny/latest"
    wrong.parent.mkdir(parents=True)
    path.rename(wrong)
    store.model("other:latest", b"other")
    assert run("gc", "--grace", "0s", "--yes", "--models", store.root).returncode == 0
    assert store.blob_path(b"weights").exists()
    assert run("doctor", "--fix", "--yes", "--models", store.root).returncode == 0
    assert (path.read_bytes(), wrong.exists()) == (raw, False)
    path.rename(wrong)
    store.model("tiny:latest", b"another")
    assert run("doctor", "--fix", "--yes", "--models", store.root).returncode == 10
    assert wrong.read_bytes() == raw
