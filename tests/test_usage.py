"""`ostore du` agrees with coreutils and the disk, and removing frees exactly what it announced."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import ostore
from ostore.formats.digest import Digest
from ostore.operations.usage import Tally, measure_usage
from ostore.places.store.survey.census import take_census
from ostore.places.store.survey.references import find_references
from ostore.places.store.survey.remainder import find_remainder
from tests.support import MODEL, OSTORE, Store, full, later, noise, sha256
from tests.support import ostore as run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="compares with coreutils and /proc of Linux")
needs_du = pytest.mark.skipif(shutil.which("du") is None, reason="needs du of coreutils to compare with")
needs_other_users = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def du(*paths: str | Path, options: tuple[str, ...] = ("-B1",)) -> int:
    """The total of coreutils' `du` over these paths, each file once."""
    command = ["du", "-s", "-c", *options, *map(str, paths)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(told.stdout.splitlines()[-1].split()[0])


def measured(store: Store, *names: str) -> ostore.UsageReport:
    return ostore.du(names, models=store.root)


def part(report: ostore.UsageReport, kind: str) -> ostore.UsagePart:
    return next(part for part in report.parts if part.kind == kind)


def on_disk(path: Path) -> int:
    return path.lstat().st_blocks * 512


def sparse(path: Path, size: int, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(size)
    return path


@pytest.fixture
def messy(tmp_path: Path) -> Store:
    """A store with everything in it that can be counted wrongly."""
    store = Store(tmp_path / "models")
    blobs = store.root / "blobs"
    store.model("tiny:latest", noise(300_000), template=b"{{ .Prompt }}", license=b"MIT" * 5000)
    store.model("tiny:q4", noise(300_000), template=b"{{ .Prompt }}", system=b"Say hi!")
    store.model("other:latest", noise(70_000, 2))
    sparse(blobs / f"sha256-{A}-partial", 50_000_000, noise(20_000, 3))
    (blobs / f"sha256-{A}-partial-0").write_bytes(b"{}")
    sparse(blobs / f"sha256-{B}", 9_000_000, noise(30_000, 4))
    (blobs / f"sha256-{C}").hardlink_to(store.blob_path(noise(70_000, 2)))
    (blobs / "sha256-1234").write_bytes(noise(5000, 5))
    (blobs / "README").write_bytes(noise(9000, 6))
    (blobs / "lost+found/deep").mkdir(parents=True)
    (blobs / "lost+found/deep/file").write_bytes(noise(11_000, 7))
    (blobs / "split-gguf-1").mkdir()
    (blobs / "split-gguf-1/one").hardlink_to(blobs / f"sha256-{B}")
    (blobs / "split-gguf-1/own").write_bytes(noise(6000, 8))
    (store.root / "ollama-safetensors9/sub").mkdir(parents=True)
    (store.root / "ollama-safetensors9/sub/link").symlink_to(blobs)
    for path, size in (("lock", 0), ("tx/1-a/sha256-x.part", 21_000), ("tx/1-a/m/0.json", 90), ("quarantine/q", 8000)):
        (store.root / ".ostore" / path).parent.mkdir(parents=True, exist_ok=True)
        (store.root / ".ostore" / path).write_bytes(noise(size, 9))
    (store.root / f".ostore/tx/1-a/sha256-{A}.pin").hardlink_to(store.blob_path(b"Say hi!"))
    (store.root / "manifests/.ostore-tmp/1-a").mkdir(parents=True)
    (store.root / "manifests/.ostore-tmp/1-a/000.json").write_bytes(b"{}")
    (store.root / "manifests/stray").write_bytes(b"stray")
    (store.root / "manifests/registry.ollama.ai/library/tiny/deep").mkdir()
    (store.root / "manifests/registry.ollama.ai/library/tiny/deep/er").write_bytes(b"x" * 9000)
    return store


@needs_du
def test_totals_are_those_of_du_with_hard_links_and_sparse_files_and_all(messy: Store) -> None:
    report = measured(messy)
    assert report.total.allocated == du(messy.root)
    assert report.total.allocated == sum(part.size.allocated for part in report.parts)
    assert report.not_counted == ()
    # A folder's own size is left out, as by newer coreutils; a file's is there once.
    files = {path.lstat().st_ino: path.lstat().st_size for path in messy.root.rglob("*") if not path.is_dir()}
    links = {path.lstat().st_ino: path.lstat().st_size for path in messy.root.rglob("*") if path.is_symlink()}
    assert report.total.apparent == sum({**files, **links}.values())


@needs_du
def test_every_kind_of_model_adds_up(kinds: Store) -> None:
    report = measured(kinds)
    assert report.total.allocated == du(kinds.root)
    blobs = sum(on_disk(path) for path in (kinds.root / "blobs").iterdir())
    assert report.shared.allocated + report.unique.allocated == blobs
    assert report.reclaimable.allocated == 0
    for model in report.models:
        assert model.size.allocated == model.shared.allocated + model.unique.allocated


@needs_du
def test_linked_folders_are_followed_as_du_follows_them(tmp_path: Path) -> None:
    real = Store(tmp_path / "disk")
    real.model("tiny:q4", noise(100_000))
    (tmp_path / "disk/.ostore/tx").mkdir(parents=True)
    root = tmp_path / "models"
    root.mkdir()
    (root / "blobs").symlink_to("../disk/blobs")
    (root / "manifests").symlink_to(tmp_path / "disk/manifests")
    report = ostore.du(models=root)
    expected = du(f"{root}/", f"{root}/blobs/", f"{root}/manifests/", tmp_path / "disk/.ostore")
    assert report.total.allocated == expected
    assert report.unique.allocated >= 100_000
    (tmp_path / "link").symlink_to(root)
    assert ostore.du(models=tmp_path / "link").total == report.total


@needs_du
def test_what_is_behind_a_link_among_the_manifests_is_not_counted_as_du_does_not(store: Store, tmp_path: Path) -> None:
    library = store.root / "manifests/registry.ollama.ai/library"
    (library / "tiny").rename(tmp_path / "elsewhere")
    (library / "tiny").symlink_to(tmp_path / "elsewhere")
    (library / "tag").mkdir()
    (library / "tag/linked").symlink_to(tmp_path / "elsewhere/latest")
    (library / "tag/nowhere").symlink_to("gone")
    (library / "empty").mkdir()
    report = measured(store)
    assert report.total.allocated == du(store.root)
    assert {"tiny:latest", "tag:linked"} <= {model.name for model in report.models}
    assert part(report, "manifests").files == len([*(library / "tag").iterdir(), *library.glob("other/*")])
    assert part(report, "foreign").files == 1


@needs_du
@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_stands_in_the_place_of_the_staging_folder_counts_once(store: Store, kind: str) -> None:
    path = store.root / "manifests/.ostore-tmp"
    if kind == "file":
        path.write_bytes(b"x" * 5000)
    else:
        path.symlink_to("nowhere" * 20)
    assert measured(store).total.allocated == du(store.root)


def test_a_blob_that_is_there_under_one_name_is_not_missing_for_a_link_that_leads_nowhere(
    store: Store, tmp_path: Path
) -> None:
    blob = store.blob_path(b"the weights " * 1000)
    (blob.parent / blob.name.replace("-", ":", 1)).symlink_to("nowhere")
    assert {model.missing for model in measured(store).models} == {()}
    (tmp_path / "second name").hardlink_to(blob)
    assert {model.missing for model in measured(store).models} == {()}


@needs_du
def test_what_lies_beside_a_store_is_named_and_not_counted(store: Store) -> None:
    before = measured(store).total
    (store.root / "holidays").mkdir()
    (store.root / "holidays/film").write_bytes(noise(100_000))
    (store.root / "id_ed25519").write_bytes(b"key")
    report = measured(store)
    assert report.total == before
    assert [entry.path for entry in report.not_counted] == ["holidays", "id_ed25519"]
    assert before.allocated == du(store.root, options=("-B1", "--exclude=holidays", "--exclude=id_ed25519"))


def test_each_part_is_what_it_says(messy: Store) -> None:
    report = measured(messy)
    blobs = messy.root / "blobs"
    assert {part.kind: part.files for part in report.parts} == {
        "shared": 3,  # weights, template, config
        "unique": 3,
        "mentioned": 0,
        "manifests": 3,
        "folders": 0,
        "foreign": 4,
        "orphans": 2,
        "downloads": 2,
        "temporary": 1,
        "working-folders": 3,
        "workspace": 6,
    }
    foreign = (blobs / "README", blobs / "lost+found", blobs / "lost+found/deep", blobs / "lost+found/deep/file")
    strays = (messy.root / "manifests/stray", messy.root / "manifests/registry.ollama.ai/library/tiny/deep/er")
    assert part(report, "foreign").size.allocated == sum(map(on_disk, (*foreign, *strays)))
    assert part(report, "foreign").reclaimable.allocated == 0
    # One orphan is a second name of a blob that a model needs, the other has a second name in a working folder.
    assert part(report, "orphans").size.allocated == on_disk(blobs / f"sha256-{B}")
    # There is a folder where a manifest should be, so gc takes nothing.
    assert [part(report, kind).reclaimable.allocated for kind in ("orphans", "workspace")] == [0, 0]


def test_removing_all_that_is_reclaimable_frees_what_was_said(messy: Store, tmp_path: Path) -> None:
    shutil.rmtree(messy.root / "manifests/registry.ollama.ai/library/tiny/deep")
    with later(2):
        report = measured(messy)
    assert part(report, "orphans").reclaimable == part(report, "orphans").size
    blobs, trees = messy.root / "blobs", [messy.root / "ollama-safetensors9", messy.root / "blobs/split-gguf-1"]
    space = used(messy.root)
    # The download is young: a pull may go on with it.
    for name in (f"sha256-{B}", f"sha256-{C}", "sha256-1234"):
        (blobs / name).unlink()
    for tree in trees:
        shutil.rmtree(tree)
    # gc keeps the quarantine, and counts no folders.
    for tree in (messy.root / ".ostore/tx/1-a", messy.root / "manifests/.ostore-tmp/1-a"):
        for path in [*tree.rglob("*")]:
            None if path.is_dir() else path.unlink()
    assert space - used(messy.root) == report.reclaimable.allocated
    assert measured(messy).reclaimable.allocated == 0


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
@pytest.mark.parametrize(("days", "goes"), [(6, False), (8, True)])
def test_a_download_is_reclaimable_when_gc_takes_it(store: Store, days: int, goes: bool) -> None:
    sparse(store.root / f"blobs/sha256-{A}-partial", 50_000_000, noise(20_000, 3))
    (store.root / f"blobs/sha256-{A}-partial-0").write_bytes(b"{}")
    later = ["faketime", "-f", f"+{days}d", *OSTORE]
    before = used(store.root / "blobs")
    told = subprocess.run([*later, "du", "--models", store.root], capture_output=True, text=True, check=True).stdout
    document = subprocess.run([*later, "du", "--json", "--models", store.root], capture_output=True, check=True).stdout
    reclaimable = json.loads(document)["reclaimable"]["allocated"]
    assert ("ostore gc --partials" in told.splitlines()[-1]) is goes
    assert ("reclaimable after a week of rest" in told) is not goes
    gc = [*later, "gc", "--partials", "--yes", "--models", str(store.root)]
    subprocess.run(gc, capture_output=True, check=True)
    assert before - used(store.root / "blobs") == reclaimable
    assert (reclaimable > 0) is goes


def used(root: Path) -> int:
    """Every file and folder below, each once."""
    seen = {(path.lstat().st_dev, path.lstat().st_ino): on_disk(path) for path in root.rglob("*")}
    return sum(seen.values())


def blobs_needed_only_by(store: Store, *names: str) -> Iterator[Path]:
    needed = {name: store.manifest_path(full(name)).read_text() for name in names}
    others = [store.manifest_path(name).read_text() for name in store.names if name not in {*map(full, names)}]
    for path in (store.root / "blobs").iterdir():
        digest = path.name.replace("-", ":")
        if any(digest in text for text in needed.values()) and not any(digest in text for text in others):
            yield path


@pytest.mark.parametrize(
    "names", [("tiny:q4",), ("tiny:latest",), ("tiny:q4", "tiny:latest"), ("mlx:latest",)], ids=str
)
def test_removing_models_frees_exactly_what_was_said(kinds: Store, tmp_path: Path, names: tuple[str, ...]) -> None:
    shutil.copytree(kinds.root, tmp_path / "models", copy_function=shutil.copy2)
    store = Store(tmp_path / "models", kinds.names)
    report = measured(store, *names)
    before = used(store.root / "blobs")
    for path in list(blobs_needed_only_by(store, *names)):
        path.unlink()
    assert before - used(store.root / "blobs") == report.frees.allocated > 0
    if len(names) == 1:
        assert report.models[0].frees == report.frees


def test_removing_one_of_two_tags_that_share_everything_frees_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    for name in ("tiny:latest", "tiny:q4"):
        store.model(name, noise(100_000), template=b"{{ .Prompt }}")
    report = measured(store, "tiny:q4")
    assert report.frees == report.models[0].frees == ostore.Space(0, 0)
    assert report.models[0].unique == ostore.Space(0, 0)
    said = run("du", "tiny:q4", "--models", store.root).stdout.splitlines()
    assert said[-1].startswith("removing tiny:q4 frees 0 B; other models need ")
    assert measured(store).frees.allocated == used(store.root / "blobs")


def test_a_hard_link_outside_the_store_keeps_its_bytes(store: Store, tmp_path: Path) -> None:
    store.model("own:latest", noise(500_000, 7))
    before = measured(store, "own").models[0]
    assert before.frees == before.unique
    (tmp_path / "kept").hardlink_to(store.blob_path(noise(500_000, 7)))
    after = measured(store, "own").models[0]
    assert after.unique == before.unique
    assert before.frees.allocated - after.frees.allocated == on_disk(tmp_path / "kept")
    said = run("du", "own", "--models", store.root).stdout.splitlines()[-1]
    assert "has another name on this disk (a hard link)" in said


def test_an_orphan_with_a_name_outside_the_store_is_there_and_not_reclaimable(store: Store, tmp_path: Path) -> None:
    digest = store.blob(noise(100_000, 8))
    (tmp_path / "kept").hardlink_to(store.blob_path(noise(100_000, 8)))
    report = measured(store)
    assert part(report, "orphans").size.allocated == on_disk(store.blob_path(noise(100_000, 8)))
    assert report.reclaimable.allocated == 0
    assert Digest.parse(digest) not in find_references(store.root).users


def test_two_names_of_one_file_are_one_file_and_go_together(store: Store) -> None:
    old = store.root / f"blobs/sha256:{sha256(b'the weights ' * 1000)}"
    before = measured(store)
    old.hardlink_to(store.blob_path(b"the weights " * 1000))
    report = measured(store)
    assert (report.total, report.frees) == (before.total, before.frees)


def test_two_blobs_that_are_one_file_go_when_both_of_their_models_do(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.model("a:latest", noise(50_000, 1))
    store.model("b:latest", noise(50_000, 2))
    store.blob_path(noise(50_000, 2)).unlink()
    store.blob_path(noise(50_000, 2)).hardlink_to(store.blob_path(noise(50_000, 1)))
    rows = {model.name: model for model in measured(store).models}
    assert rows["a:latest"].frees.apparent == rows["b:latest"].frees.apparent == 0
    assert measured(store, "a", "b").frees.apparent >= 50_000


def test_a_manifest_that_is_a_second_name_of_a_blob_goes_with_its_model(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    layer = store.layer(MODEL, noise(50_000))
    raw = json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()
    store.blob(raw)
    path = store.root / "manifests-v2/ollama.com/library/new/latest"
    path.parent.mkdir(parents=True)
    path.hardlink_to(store.blob_path(raw))
    (row,) = measured(store).models
    assert row.frees == row.unique == measured(store).unique
    assert row.blobs == 2


def test_a_blob_that_is_a_link_counts_as_a_link(store: Store, tmp_path: Path) -> None:
    before = measured(store, "tiny:q4").models[0]
    blob = store.blob_path(b"the weights " * 1000)
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    after = measured(store, "tiny:q4").models[0]
    assert before.size.allocated - after.size.allocated == on_disk(tmp_path / "elsewhere") - on_disk(blob)
    assert after.missing == ()
    (tmp_path / "elsewhere").unlink()
    assert measured(store, "tiny:q4").models[0].missing == (f"sha256:{sha256(b'the weights ' * 1000)}",)


def test_missing_blobs_are_named_with_every_model_that_lacks_them(store: Store) -> None:
    store.blob_path(b"the weights " * 1000).unlink()
    done = run("du", "--models", store.root)
    assert done.returncode == 0
    digest = f"sha256:{sha256(b'the weights ' * 1000)}"
    assert done.stderr.splitlines() == [
        f"ostore: warning: {name}: blob {digest}: missing" for name in ("tiny:latest", "tiny:q4")
    ]


def test_a_broken_manifest_keeps_what_it_mentions_and_stops_gc(store: Store) -> None:
    kept = store.blob(b"kept")
    store.write_manifest(full("broken:latest"), f'{{"layers":[{{"digest":"{kept}"'.encode())
    store.write_manifest(full("no name:latest"), f'["{store.blob(b"nameless")}"]'.encode())
    report = measured(store)
    assert part(report, "orphans").files == 0
    assert part(report, "mentioned").files == 1
    assert len(report.doubts) == 2
    assert "nothing yet: ostore doctor" in run("du", "--models", store.root).stdout


def test_a_manifest_that_another_model_names_as_a_blob_is_shared_by_both(store: Store) -> None:
    raw = store.manifest_path(full("tiny:q4")).read_bytes()
    store.add(full("names:latest"), store.layer("any", raw))
    shared = {group.models for group in measured(store).shared_blobs}
    assert ("names:latest", "tiny:q4") in shared
    assert measured(store, "names").models[0].missing == ()
    store.blob_path(raw).unlink()
    assert measured(store, "names").models[0].missing == (f"sha256:{sha256(raw)}",)


def test_shared_blobs_say_who_shares_them(kinds: Store) -> None:
    report = measured(kinds)
    assert sum(group.size.allocated for group in report.shared_blobs) == report.shared.allocated
    largest = report.shared_blobs[0]
    assert (largest.models, largest.size.apparent >= 3_000_000) == (("tiny:latest", "tiny:q4"), True)


def test_a_plan_is_pure_and_the_same_for_the_same_facts(messy: Store) -> None:
    references = find_references(messy.root)
    tally, models = Tally(references), references.scan.models
    census = take_census(messy.root, is_counted=tally.count)
    remainder = find_remainder(messy.root, census, references.scan)
    measure = partial(measure_usage, going=())
    first = measure(tally, census, references, remainder, models)
    whole = take_census(messy.root)
    shutil.rmtree(messy.root)
    assert measure(tally, census, references, remainder, models) == first
    # What a census keeps is added up like what a tally has taken out of it.
    assert measure(Tally(references), whole, references, remainder, models) == first
    without = replace(census, blobs=())
    assert measure(Tally(references), without, references, remainder, models).unique.allocated == 0


def test_rows_are_chosen_by_name_or_glob_and_the_largest_is_first(kinds: Store) -> None:
    rows = [model.size.allocated for model in measured(kinds).models]
    assert rows == sorted(rows, reverse=True)
    assert [model.name for model in measured(kinds, "TINY:*").models] == ["tiny:latest", "tiny:q4"]
    done = run("du", "nosuch", "--models", kinds.root)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("ostore: error[not-found]: no model 'nosuch' in ")


def test_quiet_prints_one_number_of_bytes(messy: Store) -> None:
    assert run("du", "-q", "--models", messy.root).stdout == f"{measured(messy).total.allocated}\n"
    expected = measured(messy, "tiny:*").frees.allocated
    assert run("du", "tiny:*", "-q", "--models", messy.root).stdout == f"{expected}\n"


def test_the_text_has_a_row_for_all_that_is_there(messy: Store) -> None:
    lines = run("du", "--models", messy.root).stdout.splitlines()
    words = [line.split("  ")[0] for line in lines]
    assert words[:4] == ["NAME", "tiny:latest", "tiny:q4", "other:latest"]
    # They take no room where all is in memory.
    folders = ["folders"] if messy.root.stat().st_blocks else []
    assert words[5:] == [
        "shared", "unique", "manifests", *folders, "foreign", "orphans", "partial downloads", "temporary",
        "working folders", ".ostore", "TOTAL", "RECLAIMABLE",
    ]  # fmt: skip
    # There is a folder where a manifest should be.
    assert lines[-1].endswith("says what to do about unreadable manifests")
    shutil.rmtree(messy.root / "manifests/registry.ollama.ai/library/tiny/deep")
    told = run("du", "--models", messy.root).stdout.splitlines()[-1]
    assert re.sub(".*B +", "", told).split("; ") == [
        f"ostore gc --models {messy.root}",
        "Ollama removes temporary files when it starts",
        f"ostore doctor --models {messy.root} says how to remove working folders",
    ]


def test_du_says_what_gc_frees_now(store: Store) -> None:
    """Not orphans in their grace, the quarantine, the trash in its time, or anything while gc refuses."""
    store.blob(noise(60_000, 8))
    for path in ("quarantine/odd", "tx/1-a/sha256-x.part"):
        (store.root / ".ostore" / path).parent.mkdir(parents=True)
        (store.root / ".ostore" / path).write_bytes(noise(50_000, 8))
    told = run("du", "--models", store.root).stdout
    assert "that no model needs; gc leaves some of them for now" in told
    ends = []
    for days, keep in ((0, None), (0.5, None), (2, 86_400.0), (2.5, None), (4, None)):
        with later(days):
            before, said = used(store.root / "blobs") + used(store.root / ".ostore"), measured(store).reclaimable
            dry, done = (ostore.gc(models=store.root, keep=keep, dry_run=dry_run) for dry_run in (True, False))
            assert dry
            assert done
            assert said.allocated == dry.freed + dry.trashed == done.freed + done.trashed
            ends.append((done.freed > 0, done.trashed > 0))
            freed = before - used(store.root / "blobs") - used(store.root / ".ostore")
            # The folders of the workspace come and go.
            assert abs(freed - done.freed) < 5 * 4096
    assert ends == [(True, False), (False, False), (False, True), (False, False), (True, False)]
    store.manifest_path(full("tiny:latest")).write_bytes(b"")
    store.blob(noise(60_000, 8))
    with later(9):
        assert measured(store).reclaimable.allocated == 0


def test_an_empty_store_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty/manifests").mkdir(parents=True)
    report = ostore.du(models=tmp_path / "empty")
    assert (report.models, report.unique.allocated) == ((), 0)
    assert run("du", "--models", tmp_path / "empty").returncode == 0
    assert run("du", "--models", tmp_path / "none").returncode == 3
    (tmp_path / "empty/manifests").rmdir()
    assert run("du", "--models", tmp_path / "empty").returncode == 3


def test_a_hostile_file_name_reaches_no_terminal(store: Store) -> None:
    (store.root / "evil\x1b]0;owned\x07\nostore: all is well").mkdir()
    (store.root / "manifests/registry.ollama.ai/library/tiny/\x1b[2J").write_bytes(b"{}")
    done = run("du", "--models", store.root)
    assert done.returncode == 0
    assert (done.stdout + done.stderr).replace("\n", "").isprintable()
    assert len(done.stderr.splitlines()) == 2


@needs_other_users
def test_somebody_elses_store_is_measured_and_what_is_closed_is_named(store: Store) -> None:
    closed = store.root / ".ostore/tx/1-a"
    closed.mkdir(parents=True)
    (closed / "secret").write_bytes(b"x" * 9000)
    os.chown(closed, 12345, 12345)
    closed.chmod(0o700)
    # A root that may do no more than others: the interpreter may lie where other users cannot enter.
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    command = [*powerless, *OSTORE, "du", "--models", str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[0].split()[0]) == (0, "NAME")
    assert done.stderr == f"ostore: warning: {closed}: not counted: Permission denied\n"


@needs_other_users
def test_a_folder_that_hides_what_is_in_it_is_named_and_the_rest_counts(store: Store) -> None:
    hidden = store.manifest_path(full("someone/hidden:latest")).parent
    hidden.mkdir(parents=True)
    (hidden / "latest").write_bytes(b"{}")
    os.chown(hidden, 12345, 12345)
    # Whoever may list it, and not enter, learns names and no more.
    hidden.chmod(0o744)
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    command = [*powerless, *OSTORE, "du", "--models", str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tiny:latest" in done.stdout
    assert f"{hidden.relative_to(store.root)}: not counted: Permission denied" in done.stderr


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)
def test_a_read_only_mount_is_measured(store: Store) -> None:
    script = f'mount --bind "{store.root}" "{store.root}" && mount -o remount,ro,bind "{store.root}" && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", *OSTORE, "du", "-q", "--models", str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "denied" in done.stderr or "not permitted" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert (done.returncode, done.stdout) == (0, f"{measured(store).total.allocated}\n")


def test_the_help_says_what_replace_is_about() -> None:
    done = run("du", "--help")
    assert "Let --html overwrite an existing FILE." in " ".join(done.stdout.replace("\u2502", " ").split())
