"""Doctor finds each problem in a store that has it, and is silent about a store that is well."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ostore
from ostore.api import doctor
from ostore.operations.doctor.diagnosis import diagnose
from ostore.operations.doctor.finding import MEANINGS, Facts
from ostore.streams.disk import DiskState, read_disk
from tests.gguf import ONE_LAYER, Value, gguf, split
from tests.odd_stores import APPLE
from tests.support import (
    CONFIG,
    MODEL,
    OSTORE,
    SYSTEM,
    TENSOR,
    Store,
    as_user,
    costs_the_same_per_item,
    full,
    noise,
    sha256,
    tree,
)
from tests.support import ostore as run

# What depends on the machine that runs the tests, not on the store.
OF_THE_MACHINE = {"disk-volatile", "disk-limited", "disk-network", "low-space", "low-inodes", "other-store"} | {
    "server-elsewhere",
    "cloud-not-disabled",
    # tests/test_refusals.py sets OLLAMA_MODELS.
    "setting-doubtful",
}
WEIGHTS = b"the weights " * 1000
LIBRARY = "manifests/registry.ollama.ai/library"

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
Change = Callable[[Store], object]


def age(path: Path, seconds: float = 3600) -> Path:
    when = time.time() - seconds
    os.utime(path, (when, when), follow_symlinks=os.utime not in os.supports_follow_symlinks)
    return path


def put(store: Store, path: str, data: bytes = b"x", seconds: float = 3600) -> Path:
    place = store.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return age(place, seconds)


def link(store: Store, path: str, target: str | Path) -> None:
    (store.root / path).parent.mkdir(parents=True, exist_ok=True)
    (store.root / path).symlink_to(target)


def codes(report: ostore.DoctorReport) -> list[str]:
    return [finding.code for finding in report.findings if finding.code not in OF_THE_MACHINE]


def one(report: ostore.DoctorReport, code: str) -> ostore.Finding:
    (found,) = (finding for finding in report.findings if finding.code == code)
    return found


def empty(store: Store) -> None:
    age(store.write_manifest(full("empty:latest"), b""))


def stray_link(store: Store) -> None:
    link(store, f"{LIBRARY}/tiny/.link", store.manifest_path(full("tiny:q4")))
    age(store.root / f"{LIBRARY}/tiny/.link")


def stub(store: Store) -> None:
    config = store.config(remote_host="https://ollama.com", remote_model="big:480b")
    store.add(full("big:480b-cloud"), config=config)


def dashed(store: Store, spelled: Callable[[str], str] = lambda digest: digest.replace(":", "-")) -> None:
    layer = store.layer(MODEL, b"odd")
    store.add(full("dashed:latest"), {**layer, "digest": spelled(layer["digest"])})


def legacy(store: Store) -> None:
    path = store.blob_path(WEIGHTS)
    path.rename(path.with_name(path.name.replace("-", ":")))


def in_capitals(store: Store) -> None:
    path = store.blob_path(WEIGHTS)
    path.rename(path.with_name(f"sha256-{sha256(WEIGHTS).upper()}"))


def as_folder(store: Store) -> None:
    store.blob_path(WEIGHTS).unlink()
    store.blob_path(WEIGHTS).mkdir()


def elsewhere(store: Store) -> None:
    target = store.root.parent / "other-disk"
    store.blob_path(WEIGHTS).rename(target)
    store.blob_path(WEIGHTS).symlink_to(target)


def replaced_by_link(store: Store) -> None:
    store.blob_path(WEIGHTS).unlink()
    store.blob_path(WEIGHTS).symlink_to("/nowhere/blob")


def lost(name: str) -> Change:
    def lose(store: Store) -> None:
        (store.root / name).rename(store.root.parent / "kept")
        (store.root / name).symlink_to("/nowhere/at/all")

    return lose


def manifest_list(store: Store) -> None:
    document = {"schemaVersion": 2, "manifests": [{"digest": f"sha256:{'a' * 64}"}]}
    store.write_manifest(full("many:latest"), json.dumps(document).encode())


def large(keys: dict[str, Value]) -> bytes:
    """A file with weights of a size that doctor looks into."""
    return gguf(keys, {"token_embd.weight": ((256, 128), [1.0, 2.0])})


def dialect(store: Store) -> None:
    store.model("odd:latest", large({**ONE_LAYER, "general.architecture": "gptoss"}))


def in_parts(store: Store, *, given: int = 2) -> None:
    parts = split(ONE_LAYER, {"a": ((256, 128), [1.0])}, {"b": ((256, 128), [2.0])})
    layers = [store.layer(MODEL, part) for part in reversed(parts[:given])]
    store.add(full("parts:latest"), *layers, store.layer(SYSTEM, b"Say hi!"))


# Code, severity, whether --fix fixes it, what of the subject, and how a store gets it.
CASES: list[tuple[str, str, bool, str, Change]] = [
    ("manifest-empty", "problem", True, f"{LIBRARY}/empty/latest", empty),
    ("manifest-broken", "problem", False, "broken/latest", lambda s: s.write_manifest(full("broken:latest"), b"{")),
    ("manifest-stray", "problem", True, "tiny/.DS_Store", lambda s: put(s, f"{LIBRARY}/tiny/.DS_Store")),
    ("manifest-stray", "problem", True, "tiny/.link", stray_link),
    ("manifest-link-dangling", "problem", True, "tiny/gone", lambda s: link(s, f"{LIBRARY}/tiny/gone", "/nowhere")),
    ("manifest-not-file", "problem", False, "tiny/deep", lambda s: put(s, f"{LIBRARY}/tiny/deep/x")),
    ("manifest-list", "problem", False, f"blobs/sha256-{'a' * 64}", manifest_list),
    ("folder-lost", "problem", False, "manifests", lost("manifests")),
    ("folder-lost", "problem", False, "manifests/hf.co", lambda s: link(s, "manifests/hf.co", "/nowhere")),
    ("digest-spelling", "problem", True, "dashed:latest", dashed),
    ("digest-spelling", "problem", True, "dashed:latest", lambda s: dashed(s, lambda d: d[:7] + d[7:].upper())),
    ("manifest-ambiguous", "problem", False, "two:latest",
     lambda s: s.write_manifest(full("two:latest"), b'{"schemaVersion":2,"layers":null,"Layers":null}')),
    ("manifest-unfit", "problem", False, "old:latest",
     lambda s: s.write_manifest(full("old:latest"), b'{"schemaVersion":1,"layers":[]}')),
    ("name-twins", "problem", False, "Tiny:Q4", lambda s: s.model("Tiny:Q4", WEIGHTS)),
    ("part-twins", "warning", False, "tag Q4", lambda s: s.model("hf.co/a/b:Q4", WEIGHTS)),
    ("selector-tag", "warning", False, "tiny:local", lambda s: s.model("tiny:local", WEIGHTS)),
    ("selector-tag", "warning", False, "tiny:8b-Cloud", lambda s: s.model("tiny:8b-Cloud", WEIGHTS)),
    ("cloud-stub", "note", False, "big:480b-cloud", stub),
    ("manifest-foreign", "warning", False, "manifests/README", lambda s: put(s, "manifests/README")),
    ("manifest-foreign", "warning", False, "library/tag", lambda s: put(s, f"{LIBRARY}/tag")),
    ("manifest-misplaced", "problem", True, "manifests/library/new/latest",
     lambda s: put(s, "manifests/library/new/latest", s.manifest_path(full("tiny:q4")).read_bytes())),
    ("manifest-misplaced", "problem", False, "manifests/library/tiny/q4",
     lambda s: put(s, "manifests/library/tiny/q4", s.manifest_path(full("tiny:q4")).read_bytes())),
    ("side-file", "warning", False, "tiny/._q4", lambda s: put(s, f"{LIBRARY}/tiny/._q4", APPLE)),
    ("side-file", "warning", False, "manifests/._x", lambda s: put(s, "manifests/._x", APPLE)),
    ("name-alias", "warning", False, "tiny:Q4", lambda s: link(s, f"{LIBRARY}/tiny/Q4", "q4")),
    ("config-unreadable", "warning", False, "mute:latest",
     lambda s: s.add(full("mute:latest"), s.layer(MODEL, WEIGHTS), config=s.layer(CONFIG, b"no JSON"))),
    ("coming-tree", "warning", False, "manifests-v2",
     lambda s: put(s, "manifests-v2/ollama.com/library/tiny/v2", s.manifest_path(full("tiny:q4")).read_bytes())),
    ("blob-missing", "problem", False, sha256(WEIGHTS), lambda s: s.blob_path(WEIGHTS).unlink()),
    ("blob-missing", "problem", False, sha256(WEIGHTS), replaced_by_link),
    ("blob-size", "problem", False, sha256(WEIGHTS), lambda s: s.blob_path(WEIGHTS).write_bytes(b"short")),
    ("blob-not-file", "problem", False, sha256(WEIGHTS), as_folder),
    ("blob-misnamed", "problem", True, sha256(WEIGHTS).upper(), in_capitals),
    ("blob-legacy-name", "warning", True, f"blobs/sha256:{sha256(WEIGHTS)}", legacy),
    ("weights-in-parts", "warning", False, "parts:latest", in_parts),
    ("weights-in-parts", "warning", False, "parts:latest", lambda s: in_parts(s, given=1)),
    ("ollama-only", "note", False, "1 model", dialect),
    ("blob-foreign", "warning", False, "blobs/README", lambda s: put(s, "blobs/README")),
    ("blob-foreign-folder", "note", False, "blobs/backup", lambda s: put(s, "blobs/backup/x")),
    ("blob-linked", "note", False, sha256(WEIGHTS), elsewhere),
    ("blob-link-dangling", "warning", False, "b" * 64, lambda s: link(s, f"blobs/sha256-{'b' * 64}", "/nowhere")),
    ("orphans", "note", False, "1 in blobs/", lambda s: s.blob(b"orphan")),
    ("download-unfinished", "note", False, "c" * 64, lambda s: put(s, f"blobs/sha256-{'c' * 64}-partial-0")),
    ("temporary", "note", False, "blobs/sha256-123", lambda s: put(s, "blobs/sha256-123")),
    ("trash", "note", False, ".ostore/trash", lambda s: put(s, ".ostore/trash/1/x")),
    ("quarantine", "note", False, ".ostore/quarantine", lambda s: put(s, ".ostore/quarantine/x")),
    ("workspace-unsafe", "warning", False, ".ostore", lambda s: put(s, ".ostore/lock").parent.chmod(0o777)),
    ("workspace-unsafe", "warning", False, ".ostore", lambda s: link(s, ".ostore", "/nowhere")),
    ("open-to-all", "warning", False, "blobs", lambda s: (s.root / "blobs").chmod(0o777)),
    ("open-to-all", "warning", True, sha256(WEIGHTS), lambda s: s.blob_path(WEIGHTS).chmod(0o666)),
    ("open-to-all", "warning", True, "tiny/q4", lambda s: s.manifest_path(full("tiny:q4")).chmod(0o666)),
    ("odd-mode", "warning", True, sha256(WEIGHTS), lambda s: s.blob_path(WEIGHTS).chmod(0o4755)),
    ("times-ahead", "warning", False, sha256(WEIGHTS), lambda s: age(s.blob_path(WEIGHTS), -7 * 86400)),
    ("times-ahead", "warning", False, "tiny:q4", lambda s: age(s.manifest_path(full("tiny:q4")), -7 * 86400)),
]  # fmt: skip
VERDICTS = {"blob-missing": "integrity", "blob-size": "integrity"}


def test_a_store_that_is_well_has_nothing_found(store: Store, kinds: Store) -> None:
    for healthy, noted in ((store, []), (kinds, ["ollama-only"])):
        report = ostore.doctor(models=healthy.root)
        assert (codes(report), report.fixes, report.verdict) == (noted, (), "whole")


@pytest.mark.parametrize(
    ("code", "severity", "is_fixable", "subject", "change"),
    CASES,
    ids=[f"{case[0]} {number}" for number, case in enumerate(CASES)],
)
def test_what_is_odd_is_found_and_told_how_to_mend(
    store: Store, *, code: str, severity: str, is_fixable: bool, subject: str, change: Change
) -> None:
    change(store)
    report = ostore.doctor(models=store.root)
    found = one(report, code)
    assert subject in found.subject
    assert (found.severity, found.is_fixable) == (severity, is_fixable)
    assert found.meaning == MEANINGS[code]
    assert report.verdict == (VERDICTS.get(code, "damaged") if severity == "problem" else "whole")
    if code not in {"blob-linked", "coming-tree", "ollama-only"}:
        assert found.remedy
    assert found.subject in run("doctor", "--models", store.root).stdout.replace("\\n", "\n")


@pytest.mark.parametrize(("code", "subject", "change"), [case[:1] + case[3:] for case in CASES if case[2]])
def test_what_fix_mends_is_gone_afterwards_and_nothing_else_has_changed(
    store: Store, code: str, subject: str, change: Change
) -> None:
    before = tree(store.root)
    change(store)
    changed = tree(store.root)
    done = run("doctor", "--fix", "--yes", "--models", store.root)
    report = ostore.doctor(models=store.root)
    assert done.returncode == 0
    assert code not in codes(report)
    assert report.fixes == ()
    if code in {"digest-spelling", "manifest-misplaced"}:
        # The model is there now: test_fixing has the bytes.
        return
    assert _without_empty_folders(store.root) == before
    if code.startswith("manifest-"):
        added = {path: what for path, what in changed.items() if path not in before and what != "folder"}
        (kept,) = (store.root / ".ostore/quarantine").iterdir()
        assert {path: what for path, what in tree(kept).items() if what != "folder"} == added


def _without_empty_folders(root: Path) -> dict[str, str]:
    """The tree as it is once Ollama has removed its empty folders."""
    found = tree(root)
    return {
        path: what
        for path, what in found.items()
        if what != "folder" or any(other.startswith(f"{path}/") for other in found)
    }


def test_parts_of_a_split_set_are_told_and_become_one_file_as_doctor_says(store: Store) -> None:
    in_parts(store)
    assert one(ostore.doctor(models=store.root), "weights-in-parts").detail == "2 of 2 parts"
    told = run("verify", "parts", "--models", store.root)
    assert told.returncode == 0
    assert "warning: parts:latest: its weights are parts of a split set, which no version of Ollama" in told.stderr
    assert "runs in           nothing (parts of a split set)" in run("show", "parts", "--models", store.root).stdout
    for command in one(ostore.doctor(models=store.root), "weights-in-parts").remedy.commands:
        subprocess.run([*OSTORE, *command[1:]] if command[0] == "ostore" else command, check=True, capture_output=True)
    [weights] = [layer for layer in ostore.show("parts", models=store.root).layers if layer.media_type == MODEL]
    whole = gguf(ONE_LAYER, {"a": ((256, 128), [1.0]), "b": ((256, 128), [2.0])})
    assert weights.digest == f"sha256:{sha256(whole)}"
    assert "weights-in-parts" not in codes(ostore.doctor(models=store.root))


def test_one_line_names_the_models_that_run_in_ollama_only(store: Store) -> None:
    dialect(store)
    store.model("odd:other", large({**ONE_LAYER, "general.architecture": "gptoss"}), system=b"Say hi!")
    store.add(full("tensors:latest"), store.layer(TENSOR, b"t", name="a"))
    # These run everywhere, cannot be read, or are too small to be weights that anybody runs.
    store.model("plain:latest", large(ONE_LAYER))
    store.model("no-gguf:latest", noise(200_000))
    store.model("small:latest", gguf({**ONE_LAYER, "general.architecture": "gptoss"}, {}))
    store.model("away:latest", noise(200_000, 2))
    store.blob_path(noise(200_000, 2)).unlink()
    found = one(ostore.doctor(models=store.root), "ollama-only")
    assert found.models == ("odd:latest", "odd:other", "tensors:latest")
    assert (found.subject, found.detail) == ("3 models", "odd:latest, odd:other, tensors:latest")


def test_every_code_is_tested_and_documented() -> None:
    source = Path(__file__).read_text("utf-8")
    assert [code for code in MEANINGS if f'"{code}"' not in source] == []
    text = (Path(__file__).parents[1] / "docs/json.md").read_text("utf-8")
    section = text.partition("\n## ostore.doctor/1\n")[2].partition("\n| field")[0]
    listed = [word.strip("`,.") for word in section.split() if word.startswith("`") and word.endswith(("`,", "`."))]
    assert listed == list(MEANINGS)
    for meaning in MEANINGS.values():
        assert not meaning.endswith(".")
        assert meaning[0].islower() or meaning.startswith("Ollama")


def test_looking_changes_nothing_and_creates_nothing(store: Store) -> None:
    for case in CASES[:5]:
        case[4](store)
    before = {path: (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in store.root.rglob("*")}
    for options in ((), ("--fix", "-n"), ("-q",), ("--json",)):
        assert run("doctor", *options, "--models", store.root).returncode == 10
    assert {path: (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in store.root.rglob("*")} == before


def test_a_missing_blob_weighs_more_than_a_broken_manifest(store: Store) -> None:
    empty(store)
    assert run("doctor", "--models", store.root).returncode == 10
    store.blob_path(b"Say hi!").unlink()
    assert run("doctor", "--models", store.root).returncode == 4
    report = ostore.doctor(models=store.root)
    assert report.verdict == "integrity"
    assert one(report, "blob-missing").models == ("tiny:q4",)
    assert [finding.severity for finding in report.findings] == sorted(
        (finding.severity for finding in report.findings), key=("problem", "warning", "note").index
    )


def test_a_disk_of_blobs_that_is_not_mounted_is_told_before_what_follows_from_it(store: Store) -> None:
    lost("blobs")(store)
    report = ostore.doctor(models=store.root)
    assert report.findings[0].code == "folder-lost"
    assert "blob-missing" in codes(report)
    assert report.verdict == "integrity"


def test_a_missing_config_is_told_to_hide_the_model(store: Store) -> None:
    manifest = json.loads(store.manifest_path(full("tiny:q4")).read_bytes())
    (store.root / "blobs" / manifest["config"]["digest"].replace(":", "-")).unlink()
    assert "does not list the model" in one(ostore.doctor(models=store.root), "blob-missing").detail


def test_of_two_sizes_promised_for_one_blob_one_is_wrong(store: Store) -> None:
    path = store.manifest_path(full("tiny:q4"))
    path.write_bytes(path.read_bytes().replace(b'"size":%d' % len(WEIGHTS), b'"size":%d' % (len(WEIGHTS) + 1)))
    found = one(ostore.doctor(models=store.root), "blob-size")
    assert (found.subject, found.models) == (f"sha256:{sha256(WEIGHTS)}", ("tiny:q4",))
    assert found.detail == f"expected {len(WEIGHTS) + 1:,} bytes, got {len(WEIGHTS):,}"


def test_a_store_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    done = run("doctor", "--models", tmp_path / "absent")
    assert (done.returncode, done.stdout) == (3, "")


def test_a_folder_without_a_store_is_told_of_and_where_one_is(store: Store, tmp_path: Path) -> None:
    done = run("doctor", "--models", store.root.parent)
    assert done.returncode == 3
    assert f"there is a store in {store.root}" in done.stderr
    (tmp_path / "empty/blobs").mkdir(parents=True)
    assert codes(ostore.doctor(models=tmp_path / "empty")) == []


def test_blobs_without_manifests_were_not_copied_whole(store: Store) -> None:
    shutil.rmtree(store.root / "manifests")
    assert codes(ostore.doctor(models=store.root)) == ["manifests-missing", "orphans"]


@pytest.mark.parametrize("name", ["blobs", "manifests"])
def test_a_file_where_a_folder_should_be_is_a_problem(store: Store, name: str) -> None:
    shutil.rmtree(store.root / name)
    (store.root / name).write_bytes(b"")
    report = ostore.doctor(models=store.root)
    assert one(report, "folder-lost").subject == name
    assert report.verdict != "whole"
    assert "not-checked" not in codes(report)


def test_a_path_that_ollama_cannot_use_is_a_problem(tmp_path: Path) -> None:
    odd = Store(tmp_path / "models[1]")
    odd.model("tiny:latest", b"weights")
    report = ostore.doctor(models=odd.root)
    assert codes(report) == ["path-has-glob"]
    assert report.verdict == "damaged"


def test_three_hundred_of_a_kind_are_one_paragraph_and_all_in_json(store: Store) -> None:
    for number in range(300):
        put(store, f"blobs/notes-{number:03}.txt", b"12345")
    done = run("doctor", "--models", store.root)
    assert "WARNING  blob-foreign (300, 1.5 KB in total)" in done.stdout
    assert "  and 297 more (--json shows all)" in done.stdout
    assert len(done.stdout.splitlines()) < 20
    document = json.loads(run("doctor", "--json", "--models", store.root).stdout)
    assert sum(finding["code"] == "blob-foreign" for finding in document["findings"]) == 300
    assert len(run("doctor", "-q", "--models", store.root).stdout.splitlines()) >= 300


def test_quiet_says_nothing_of_a_store_that_is_well_and_of_notes(store: Store) -> None:
    store.blob(b"orphan")
    lines = run("doctor", "-q", "--models", store.root).stdout.splitlines()
    assert [line for line in lines if line.split(": ")[1] not in OF_THE_MACHINE] == []


def test_an_empty_manifest_is_repaired_before_it_is_given_up(store: Store) -> None:
    """Once it is set aside, nobody knows which model its blobs are of."""
    path = store.model("gone:latest", noise(900))
    path.write_bytes(b"")
    os.utime(path, (0, 0))
    told = run("doctor", "--models", store.root).stdout
    about = f" --models {store.root}"
    way = f"-> ostore repair --from BUNDLE{about}, or ostore doctor --fix{about} gives it up, and 1 blob with it\n"
    assert way in told


def test_a_copy_under_another_spelling_is_looked_at_before_it_goes(store: Store) -> None:
    path = store.manifest_path(full("tiny:q4"))
    shutil.copy(path, path.with_name("Q4"))
    told = run("doctor", "--models", store.root).stdout
    assert "-> look at which name your programs ask for; to keep tiny:q4: ostore rm " in told


def test_hostile_names_do_not_reach_the_terminal(store: Store) -> None:
    put(store, f"{LIBRARY}/tiny/\x1b[2Jclear\nPROBLEM  forged")
    put(store, "blobs/\x1b]0;title\x07")
    for options in ((), ("-q",), ("--fix", "-n")):
        done = run("doctor", *options, "--models", store.root)
        assert all(character.isprintable() or character == "\n" for character in done.stdout)
        assert "\nPROBLEM  forged" not in done.stdout
    assert run("doctor", "--fix", "-y", "--models", store.root).returncode == 0


def test_a_manifest_of_this_minute_is_left_to_whoever_writes_it(store: Store) -> None:
    for path in (f"{LIBRARY}/tiny/new", f"{LIBRARY}/tiny/.new.swp"):
        put(store, path, b"" if path.endswith("new") else b"x", seconds=0)
    report = ostore.doctor(models=store.root)
    assert sorted(codes(report)) == ["manifest-empty", "manifest-stray"]
    assert [finding.is_fixable for finding in report.findings if finding.severity == "problem"] == [False, False]
    assert report.fixes == ()
    remedies = {str(finding.remedy) for finding in report.findings if finding.severity == "problem"}
    assert all("too young to be fixed; in a minute: ostore doctor" in remedy for remedy in remedies)
    assert not any("--fix" in remedy for remedy in remedies)


def test_manifests_with_odd_digests_are_warned_of_and_have_their_blobs(store: Store) -> None:
    dashed(store)
    before = tree(store.root)
    done = run("doctor", "--models", store.root)
    assert done.returncode == 10
    assert tree(store.root) == before
    assert "do not `ollama create`, `rm` or `pull` this name" in done.stdout
    assert "blob-missing" not in done.stdout


def test_an_old_name_stays_while_the_new_one_is_there_as_well(store: Store) -> None:
    put(store, f"blobs/sha256:{sha256(WEIGHTS)}", b"other bytes")
    report = ostore.doctor(models=store.root)
    assert not one(report, "blob-legacy-name").is_fixable
    assert report.verdict == "whole"


def test_a_step_that_is_no_longer_due_is_not_taken(store: Store) -> None:
    empty(store)
    planned = ostore.doctor(models=store.root).fixes
    store.model("empty:latest", WEIGHTS)
    report = ostore.fix(planned, models=store.root)
    assert [step.outcome for step in report.fixes] == ["no longer due"]
    assert codes(report) == []
    forged = ostore.Fix("set-aside", f"{LIBRARY}/tiny/q4")
    assert [step.outcome for step in ostore.fix([forged], models=store.root).fixes] == ["no longer due"]
    assert not (store.root / ".ostore").exists()


def test_nothing_is_moved_through_a_link_to_another_place(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "a/b").mkdir(parents=True)
    (outside / "a/b/latest").write_bytes(b"")
    age(outside / "a/b/latest")
    link(store, "manifests/hf.co", outside)
    before = tree(outside)
    report = ostore.fix(ostore.doctor(models=store.root).fixes, models=store.root)
    assert [step.outcome for step in report.fixes] == ["Not a directory"]
    assert run("doctor", "--fix", "--yes", "--models", store.root).returncode != 0
    assert tree(outside) == before
    assert codes(report) == ["manifest-empty"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_what_was_to_be_mended_and_could_not_be_is_not_a_success(store: Store, tmp_path: Path) -> None:
    template = store.blob_path(b"{{ .Prompt }}")
    template.rename(template.with_name(template.name.replace("-", ":", 1)))
    failing: list[str | Path] = ["strace", "-f", "-o", tmp_path / "log", "-e", "inject=renameat:error=EROFS"]
    command: list[str | Path] = [*failing, *OSTORE, "doctor", "--fix", "--yes", "--models", store.root]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 9, failed.stdout
    assert "not fixed (Read-only file system)" in failed.stdout


def test_without_a_terminal_fix_needs_yes(store: Store) -> None:
    empty(store)
    before = tree(store.root, without=())
    done = run("doctor", "--fix", "--models", store.root)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes" in done.stderr
    assert tree(store.root, without=()) == before


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"n\n", 10), (b"\n", 10), (b"y\n", 0), (b"perhaps\n", 10)],
    ids=["no", "enter", "yes", "anything else"],
)
def test_on_a_terminal_fix_shows_the_plan_and_asks(store: Store, answer: bytes, code: int) -> None:
    pty = pytest.importorskip("pty")
    empty(store)
    ours, theirs = pty.openpty()
    try:
        command = [*OSTORE, "doctor", "--fix", "--models", str(store.root)]
        process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.write(ours, answer)
        out, err = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == code
    assert f"{LIBRARY}/empty/latest".encode() in err
    assert b"[y/N]" in err
    assert (b"after --fix:" in out) is (code == 0)
    assert store.manifest_path(full("empty:latest")).exists() is (code != 0)


def test_no_socket_is_opened(store: Store, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    log = tmp_path / "log"
    command: list[str | Path] = ["strace", "-f", "-e", "trace=network", "-o", log]
    command += [*OSTORE, "doctor", "--models", store.root]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    # The C library may ask a local name service about users.
    assert not [line for line in log.read_text().splitlines() if "(" in line and "AF_UNIX" not in line]


# --- permissions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def public(store: Store) -> Iterator[Store]:
    """A store in a folder that other users may enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        shutil.copytree(store.root, Path(name) / "models")
        yield Store(Path(name) / "models")


def give(root: Path, uid: int = 12345, gid: int = 12345) -> None:
    for path in (root, *root.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)


@as_root
def test_what_root_left_in_a_service_users_store_is_found_and_given_back(public: Store) -> None:
    give(public.root)
    assert codes(ostore.doctor(models=public.root)) == []
    previous = os.umask(0o077)
    try:
        public.model("rooted:latest", b"rooted", license=b"secret")
    finally:
        os.umask(previous)
    public.blob_path(b"secret").chmod(0o600)
    report = ostore.doctor(models=public.root)
    assert (set(codes(report)), report.verdict) == ({"server-cannot-read", "blob-owner"}, "damaged")
    assert run("doctor", "--fix", "--yes", "--models", public.root).returncode == 0
    assert codes(ostore.doctor(models=public.root)) == []
    for path in (public.blob_path(b"secret"), public.manifest_path(full("rooted:latest"))):
        assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o7777) == (12345, 12345, 0o644)
    assert public.manifest_path(full("rooted:latest")).parent.stat().st_mode & 0o7777 == 0o755


@as_root
def test_a_folder_that_the_server_cannot_write_to_is_found(public: Store) -> None:
    give(public.root)
    folder = public.manifest_path(full("tiny:q4")).parent
    os.chown(folder, 0, 0)
    found = one(ostore.doctor(models=public.root), "server-cannot-write")
    assert (found.subject, found.severity, found.is_fixable) == (f"{LIBRARY}/tiny", "warning", True)
    assert run("doctor", "--fix", "--yes", "--models", public.root).returncode == 0
    assert folder.stat().st_uid == 12345


@as_root
def test_a_closed_folder_above_the_store_is_a_problem(public: Store) -> None:
    give(public.root)
    public.root.parent.chmod(0o700)
    found = one(ostore.doctor(models=public.root), "parent-closed")
    assert (found.subject, found.severity, found.is_fixable) == (str(public.root.parent), "problem", False)


@as_root
def test_a_file_with_a_second_name_is_never_given_away(public: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    give(public.root)
    try:
        os.link(secret, public.root / "blobs" / f"sha256-{sha256(b'secret')}")
    except OSError:
        pytest.skip("another disk")
    assert not one(ostore.doctor(models=public.root), "server-cannot-read").is_fixable
    run("doctor", "--fix", "--yes", "--models", public.root)
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777) == (0, 0o600)


@as_root
def test_a_group_that_shares_a_store_is_not_told_that_its_files_belong_to_many(public: Store) -> None:
    give(public.root)
    for folder in (public.root, *(path for path in public.root.rglob("*") if path.is_dir())):
        folder.chmod(0o2775)
    os.chown(public.blob_path(WEIGHTS), 23456, 12345)
    assert codes(ostore.doctor(models=public.root)) == []


@as_root
@pytest.mark.parametrize(
    ("closed", "named"),
    [("", "manifests"), ("blobs", "blobs"), (LIBRARY, LIBRARY), (f"{LIBRARY}/tiny/q4", f"{LIBRARY}/tiny/q4")],
)
def test_what_a_user_may_not_read_is_named_and_is_not_called_missing(public: Store, closed: str, named: str) -> None:
    (public.root / closed).chmod(0o600)
    done = as_user(23456, "doctor", "--json", "--models", public.root)
    assert (done.returncode, done.stderr) == (9, "")
    document = json.loads(done.stdout)
    found = {finding["subject"] for finding in document["findings"] if finding["code"] == "not-checked"}
    assert named in found
    assert document["verdict"] == "io"
    assert not {finding["code"] for finding in document["findings"]} & {"blob-missing", "folder-lost", "orphans"}


@as_root
def test_a_link_that_a_user_may_not_follow_is_neither_missing_nor_set_aside(public: Store) -> None:
    hidden = public.root.parent / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "q4").write_bytes(public.manifest_path(full("tiny:q4")).read_bytes())
    public.manifest_path(full("tiny:q4")).unlink()
    public.manifest_path(full("tiny:q4")).symlink_to(hidden / "q4")
    public.blob_path(WEIGHTS).rename(hidden / "blob")
    public.blob_path(WEIGHTS).symlink_to(hidden / "blob")
    give(public.root, 23456, 23456)
    done = as_user(23456, "doctor", "--json", "--models", public.root)
    assert {finding["code"] for finding in json.loads(done.stdout)["findings"]} - OF_THE_MACHINE == {"not-checked"}
    assert done.returncode == 9


@as_root
def test_what_a_command_of_another_user_works_on_is_not_ours_to_see_and_nothing_wrong(public: Store) -> None:
    give(public.root, 23456, 23456)
    running = public.root / ".ostore/tx/1-00000000"
    running.mkdir(parents=True)
    for folder in (public.root / ".ostore", running.parent):
        os.chown(folder, 23456, 23456)
    running.chmod(0o700)
    done = as_user(23456, "doctor", "--json", "--models", public.root)
    found = [finding for finding in json.loads(done.stdout)["findings"] if finding["code"] == "not-checked"]
    assert (done.returncode, [finding["severity"] for finding in found]) == (0, ["warning"]), done.stdout


@as_root
def test_somebody_who_may_not_write_is_told_so(public: Store) -> None:
    empty(public)
    before = tree(public.root, without=())
    done = as_user(23456, "doctor", "--fix", "--yes", "--models", public.root)
    assert done.returncode == 9
    assert "Permission denied" in done.stderr
    assert tree(public.root, without=()) == before


# --- disks and machines --------------------------------------------------------------------------------------------


def mounted(script: str, *arguments: str | Path, network: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a shell script where mounts and processes are its own: another test may run a double of a server."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    apart = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", *([] if network else ["--net"])]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("unshare may not be used here")
    command = [*apart, "sh", "-ec", script, "sh", *OSTORE, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def found_by(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {finding["code"]: finding["severity"] for finding in json.loads(done.stdout)["findings"]}


def test_a_read_only_disk_is_noted_and_an_empty_folder_on_it_warned_of(store: Store) -> None:
    (store.root / "manifests/hf.co/nobody").mkdir(parents=True)
    assert codes(ostore.doctor(models=store.root)) == []
    done = _read_only(store, "doctor", "--json")
    assert done.returncode == 0, done.stderr
    assert {code: how for code, how in found_by(done).items() if code not in OF_THE_MACHINE} == {
        "read-only": "note",
        "folder-empty": "warning",
    }


def _read_only(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = f"mount --bind '{store.root}' '{store.root}'; mount -o remount,ro,bind '{store.root}'; exec \"$@\""
    return mounted(script, *arguments, "--models", store.root)


def test_on_a_read_only_disk_fix_fails_and_says_why(store: Store) -> None:
    empty(store)
    done = _read_only(store, "doctor", "--fix", "--yes")
    assert (done.returncode, done.stdout) == (9, "")
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize(
    ("options", "fill", "code"),
    [
        ("size=1m", "head -c 1020000 /dev/zero > fill", "low-space"),
        ("nr_inodes=30", "touch $(seq 40) 2>/dev/null || true", "low-inodes"),
    ],
)
def test_a_full_disk_in_memory_is_warned_of(tmp_path: Path, options: str, fill: str, code: str) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    script = f"mount -t tmpfs -o {options} none '{place}'; cd '{place}'; mkdir -p models/blobs; {fill}; exec \"$@\""
    done = mounted(script, "doctor", "--json", "--models", place / "models")
    assert done.returncode == 0, done.stderr
    assert {code: "warning", "disk-volatile": "warning"}.items() <= found_by(done).items()


@pytest.fixture
def facts(store: Store) -> Facts:
    return doctor._facts(store.root)


@pytest.mark.parametrize(
    ("filesystem", "code", "severity"),
    [("exfat", "disk-limited", "note"), ("nfs4", "disk-network", "note"), ("overlay", "disk-volatile", "warning")],
)
def test_disks_that_can_promise_less_are_told_of(facts: Facts, filesystem: str, code: str, severity: str) -> None:
    disk = DiskState(filesystem, is_read_only=False, free=10**12, size=10**12, inodes_free=0, inodes=0)
    found = {finding.code: finding.severity for finding in diagnose(dataclasses.replace(facts, disk=disk)).findings}
    assert {name: how for name, how in found.items() if name.startswith("disk-")} == {code: severity}


def test_names_are_told_of_only_on_a_disk_that_cannot_keep_them(store: Store) -> None:
    store.model("localhost:5000/library/tiny:latest", WEIGHTS)
    facts = doctor._facts(store.root)
    for filesystem, expected in (("ext4", []), ("cifs", ["name-unholdable"])):
        disk = dataclasses.replace(facts.disk, filesystem=filesystem)
        found = diagnose(dataclasses.replace(facts, disk=disk)).findings
        assert [finding.code for finding in found if finding.code == "name-unholdable"] == expected


def test_the_kind_of_a_disk_is_that_of_the_innermost_and_last_mount(tmp_path: Path) -> None:
    inner = tmp_path / "a b"
    inner.mkdir()
    escaped = str(inner).replace(" ", r"\040")
    mounts = tmp_path / "mounts"
    lines = (
        "/dev/a / ext4 rw 0 0",
        f"none {escaped} tmpfs rw 0 0",
        f"none {escaped} xfs rw 0 0",
        "x /proc proc rw 0 0",
    )
    mounts.write_text("\n".join(lines) + "\nbroken\n")
    assert read_disk(inner, mounts).filesystem == "xfs"
    assert read_disk(tmp_path, mounts).filesystem == "ext4"
    assert read_disk(tmp_path, tmp_path / "absent").filesystem == ""


def test_what_is_left_lying_for_days_is_told_of_and_what_is_being_written_is_not(facts: Facts, store: Store) -> None:
    store.root.joinpath("ollama-safetensors1").mkdir()
    put(store, ".ostore/tx/1-a/sha256-x")
    store.root.joinpath("blobs/lost+found").mkdir()
    facts = doctor._facts(store.root)
    for later, expected in ((0.0, set()), (3 * 86400.0, {"working-folder", "import-unfinished"})):
        found = diagnose(dataclasses.replace(facts, now=facts.now + later)).findings
        assert {finding.code for finding in found} - OF_THE_MACHINE == expected


def test_a_second_store_with_models_is_warned_of_and_an_empty_one_is_not(store: Store, tmp_path: Path) -> None:
    mine = Store(tmp_path / "home/.ollama/models")
    (mine.root / "manifests").mkdir(parents=True)
    (mine.root / "blobs").mkdir()

    def others(*arguments: str | Path, environment: dict[str, str]) -> list[tuple[str, str, str]]:
        done = run("doctor", "--json", *arguments, environment=environment)
        found = [finding for finding in json.loads(done.stdout)["findings"] if finding["code"] == "other-store"]
        return [
            (finding["severity"], finding["subject"], finding["detail"])
            for finding in found
            if str(tmp_path) in finding["subject"]
        ]

    in_environment = {"OLLAMA_MODELS": str(store.root)}
    assert others(environment=in_environment) == []
    mine.model("mine:latest", b"mine")
    assert others(environment=in_environment) == [("warning", str(mine.root), "1 model; home directory")]
    assert [how for how, *_ in others("--models", store.root, environment={})] == ["note"]


def serving(tmp_path: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A process that looks like `ollama serve` from outside."""
    program = tmp_path / "bin/ollama"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o755)
    process = subprocess.Popen(
        [program, "serve"], stdin=subprocess.PIPE, env={"HOME": str(tmp_path / "nobody"), **environment}
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{process.pid}/comm").read_text() != "ollama\n":
        time.sleep(0.01)
    return process


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_server_that_uses_another_store_is_warned_of_and_one_that_uses_this_is_not(
    store: Store, tmp_path: Path
) -> None:
    for models, is_elsewhere in ((store.root, False), (tmp_path / "other", True)):
        process = serving(tmp_path, OLLAMA_MODELS=f" '{models}' ")
        try:
            done = run("doctor", "--json", environment={"OLLAMA_MODELS": str(store.root)})
        finally:
            process.communicate(b"\n", timeout=10)
        found = [finding for finding in json.loads(done.stdout)["findings"] if finding["code"] == "server-elsewhere"]
        assert (f"process {process.pid}" in {finding["subject"] for finding in found}) is is_elsewhere


@as_root
def test_the_user_of_a_server_that_runs_decides_whose_the_files_should_be(public: Store, tmp_path: Path) -> None:
    give(public.root, 23456, 23456)
    process = serving(tmp_path, OLLAMA_MODELS=str(public.root))
    try:
        assert ostore.doctor(models=public.root).server == "root"
    finally:
        process.communicate(b"\n", timeout=10)
    assert ostore.doctor(models=public.root).server == "user 23456"


def test_an_offline_host_whose_ollama_is_not_told_so_is_warned(store: Store, tmp_path: Path) -> None:
    stub(store)
    program = tmp_path / "bin/ollama"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = f"PATH='{program.parent}':\"$PATH\""

    def found(setting: str = "", *, network: bool = False) -> dict[str, str]:
        script = f'export {path} {setting}; exec "$@"'
        return found_by(mounted(script, "doctor", "--json", "--models", store.root, network=network))

    offline = found()
    if "cloud-not-disabled" not in offline and "OLLAMA" in str(sorted(Path("/etc/systemd/system").glob("ollama*"))):
        pytest.skip("this machine has an Ollama of its own")
    assert (offline["cloud-not-disabled"], offline["cloud-stub"]) == ("warning", "warning")
    assert "cloud-not-disabled" not in found("OLLAMA_NO_CLOUD=1")
    assert "cloud-not-disabled" in found("OLLAMA_NO_CLOUD=0")
    settings = tmp_path / "home/.ollama/server.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"disable_ollama_cloud": true}')
    assert "cloud-not-disabled" not in found()
    settings.write_text("[")
    assert "cloud-not-disabled" in found()


def test_a_model_costs_the_same_among_many(tmp_path: Path) -> None:
    def work(count: int) -> Callable[[], object]:
        store = Store(tmp_path / str(count))
        for number in range(count):
            store.model(f"m{number // 10}:t{number % 10}", noise(100, number), template=noise(10, number))
        return lambda: ostore.doctor(models=store.root)

    assert costs_the_same_per_item(work)


def test_a_healthy_store_of_noise_has_its_size_told(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.model("tiny:latest", noise(1000))
    report = ostore.doctor(models=store.root)
    assert (report.models, report.blobs) == (1, 2)
    assert report.size == sum(path.stat().st_size for path in (store.root / "blobs").iterdir())
