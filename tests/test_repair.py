"""Repair repairs what verify finds, from any place that has a good copy, and touches nothing else."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

import ostore
from ostore.formats import seek_table
from ostore.places.bundle.reader import BundleReader
from ostore.places.bundle.walk import Walk
from ostore.streams import bytes_at
from ostore.streams.chunks import read_at
from ostore.streams.progress import _Silent
from tests.support import MODEL, OSTORE, Store, full, noise, sha256, tree, unmeasured
from tests.support import ostore as run

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
WEIGHTS = b"the weights " * 1000


@pytest.fixture
def bundle(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "b.tar.zst"
    ostore.export(["*"], path, models=store.root)
    return path


def repair(store: Store, *arguments: str | Path, code: int = 0) -> str:
    """Run the command; gives what it printed."""
    done = run("repair", *arguments, "--models", store.root)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def quarantined(store: Store) -> list[bytes]:
    return [path.read_bytes() for path in sorted(store.root.glob(".ostore/quarantine/*"))]


def zero(path: Path) -> None:
    """In place, so that times, owner and inode are those of a file that a disk has damaged."""
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


def as_hugging_face(folder: Path, data: bytes) -> Path:
    """A cache as huggingface_hub lays it out: the snapshot is a link to the blob."""
    blob = folder / "hub/models--someone--Model-GGUF/blobs" / sha256(data)
    snapshot = folder / "hub/models--someone--Model-GGUF/snapshots/0123/model.gguf"
    for path in (blob, snapshot):
        path.parent.mkdir(parents=True)
    blob.write_bytes(data)
    snapshot.symlink_to(Path("../../blobs") / blob.name)
    return folder / "hub"


def as_shared_hugging_face(folder: Path, data: bytes) -> Path:
    """The newer layout: the blob is a link to one that is named by its Xet hash, which is no SHA-256."""
    blob = folder / "hub/models--someone--Model-GGUF/blobs" / sha256(data)
    shared = folder / "hub/blobs/ab" / ("ab" + sha256(b"a Xet hash")[2:])
    for path in (blob, shared):
        path.parent.mkdir(parents=True)
    shared.write_bytes(data)
    blob.symlink_to(shared)
    return folder / "hub"


def as_git_lfs(folder: Path, data: bytes) -> Path:
    """Named by its digest alone, in a folder that no search for models enters."""
    oid = sha256(data)
    path = folder / "clone/.git/lfs/objects" / oid[:2] / oid[2:4] / oid
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return folder


def as_any_file(folder: Path, data: bytes) -> Path:
    """Under a name that says nothing, deeper than a search for models goes."""
    path = folder.joinpath(*"abcdefghijklmno") / "weights.bin.old"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return folder


def as_gguf_files(folder: Path, data: bytes) -> Path:
    """A folder of somebody with the file, another of the same size, and things that are no files."""
    (folder / "lmstudio/someone").mkdir(parents=True)
    (folder / "a.gguf").write_bytes(data[::-1])
    (folder / "lmstudio/someone/model.gguf").write_bytes(data)
    os.mkfifo(folder / "pipe")
    (folder / "nowhere").symlink_to("absent")
    return folder


def as_other_store(folder: Path, data: bytes) -> Path:
    Store(folder).model("other:latest", data)
    return folder


def test_a_whole_store_is_said_to_be_whole_and_nothing_is_written(store: Store, bundle: Path) -> None:
    before = tree(store.root, without=())
    assert "nothing to repair: 2 models, 4 blobs" in repair(store, "--from", bundle)
    assert tree(store.root, without=()) == before


def frames_of(bundle: Path, data: bytes) -> int:
    """The bytes that a blob's frames take up in a bundle: those from its member's header to the next member."""
    raw = bundle.read_bytes()
    size = seek_table.table_size(raw[-seek_table.FOOTER_BYTES :])
    assert size
    taken, offset, is_inside = 0, 0, False
    for span in seek_table.read_table(raw[-size:]):
        content = zstandard.ZstdDecompressor().decompress(raw[offset : offset + span.size])
        if content.startswith((b"blobs/", b"manifests/")):
            is_inside = content.startswith(f"blobs/sha256-{sha256(data)}".encode())
        taken += span.size * is_inside
        offset += span.size
    return taken


def bytes_read(log: Path, path: Path) -> int:
    """What all reads of a file returned, whichever call and thread made them; none may be mapped."""
    text = "".join(part.read_text() for part in log.parent.glob(f"{log.name}.*"))
    assert not re.search(rf"mmap\(.*<{re.escape(str(path))}>", text)
    return sum(
        int(match[1])
        for match in re.finditer(rf"p?readv?2?(?:64)?\(\d+<{re.escape(str(path))}>.* = (\d+)$", text, re.MULTILINE)
    )


@needs_strace
@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(noise(21_000_000, 5), id="does not compress"),
        pytest.param(noise(2_000_000, 5).hex().encode() * 5, id="compresses"),
        pytest.param(noise(3000, 5), id="small"),
    ],
)
def test_a_blob_zeroed_in_place_is_mended_by_reading_its_part_of_the_bundle(tmp_path: Path, weights: bytes) -> None:
    store, bundle, log = Store(tmp_path / "models"), tmp_path / "b.tar.zst", tmp_path / "log"
    for number in range(4):
        store.model(f"m{number}:latest", noise(9_000_000, number), license=f"licence {number}".encode())
    store.model("hit:latest", weights, system=b"one")
    store.model("hit:q4", weights, system=b"another")
    ostore.export(["*"], bundle, models=store.root)
    before = tree(store.root)
    zero(store.blob_path(weights))

    found = run("verify", "--models", store.root)
    assert found.returncode == 4
    assert f"sha256:{sha256(weights)}" in found.stdout
    assert "hit:latest, hit:q4" in found.stdout
    # A log for each thread, or a call would be in two parts while another thread makes one.
    tracer = ["strace", "-ff", "-y", "-e", "trace=read,pread64,readv,preadv,preadv2,mmap", "-o", str(log)]
    command = [*tracer, *OSTORE, "repair", "--from", str(bundle), "--models", str(store.root)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

    assert run("verify", "--models", store.root).returncode == 0
    assert tree(store.root) == before
    assert quarantined(store) == [bytes(len(weights))]
    share = frames_of(bundle, weights)
    assert share >= len(weights) // 4
    assert share <= bytes_read(log, bundle) <= 1.05 * share + 1024 * 1024


@pytest.mark.parametrize(
    "make",
    [as_hugging_face, as_shared_hugging_face, as_gguf_files, as_other_store, as_git_lfs, as_any_file],
)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(zero, id="zeroed"),
        pytest.param(lambda path: os.truncate(path, 100), id="short"),
        pytest.param(lambda path: path.unlink(), id="missing"),
    ],
)
def test_a_good_copy_is_found_in_every_kind_of_folder(
    store: Store, tmp_path: Path, make: Callable[[Path, bytes], Path], damage: Callable[[Path], None]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder, before = make(tmp_path / "elsewhere", WEIGHTS), tree(store.root)
    copies = tree(folder)
    damage(store.blob_path(WEIGHTS))
    assert str(folder) in repair(store, "--from", folder)
    assert (tree(store.root), tree(folder)) == (before, copies)


def test_a_name_that_is_a_xet_hash_is_not_taken_for_a_promise(store: Store, tmp_path: Path) -> None:
    """Such a file is looked at because of its size, and not noted as one that broke its word."""
    folder = as_shared_hugging_face(tmp_path / "elsewhere", b"another file".ljust(len(WEIGHTS)))
    wrong = folder / "blobs" / sha256(WEIGHTS)[:2] / sha256(WEIGHTS)
    wrong.parent.mkdir()
    wrong.write_bytes(WEIGHTS[::-1])
    zero(store.blob_path(WEIGHTS))
    report = ostore.repair(sources=[folder], models=store.root)
    assert (report.verdict, report.notes) == ("integrity", ())


@pytest.mark.parametrize("suffix", [".tar.zst", ".tar"])
def test_a_bundle_may_come_through_a_pipe(store: Store, tmp_path: Path, suffix: str) -> None:
    bundle, before = tmp_path / f"b{suffix}", tree(store.root)
    ostore.export(["*"], bundle, models=store.root)
    zero(store.blob_path(WEIGHTS))
    store.blob_path(b"Say hi!").unlink()
    store.write_manifest(full("tiny:q4"), b"")
    command = [*OSTORE, "repair", "--from", "-", "--models", str(store.root)]
    done = subprocess.run(command, input=bundle.read_bytes(), check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert tree(store.root) == before


def test_a_folder_named_like_standard_input_is_not_read_in_its_place(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "here/-").mkdir(parents=True)
    zero(store.blob_path(WEIGHTS))
    command = [*OSTORE, "repair", "--from", "-", "--models", str(store.root)]
    done = subprocess.run(
        command, input=bundle.read_bytes(), cwd=tmp_path / "here", check=False, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_bundle_is_gone_through_once_however_many_blobs_it_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bundle = Store(tmp_path / "models"), tmp_path / "b.tar"
    walks: list[BundleReader] = []
    for number in range(30):
        store.model(f"m{number}:latest", b"weights %d" % number)
    ostore.export(["*"], bundle, models=store.root)
    for number in range(30):
        zero(store.blob_path(b"weights %d" % number))
    walk = BundleReader._walk

    def counted(reader: BundleReader) -> Walk:
        walks.append(reader)
        return walk(reader)

    monkeypatch.setattr(BundleReader, "_walk", counted)
    assert ostore.repair(sources=[bundle], models=store.root).verdict == "whole"
    assert len(walks) == 1


def test_whoever_follows_the_progress_may_end_a_repair_with_an_error(store: Store, bundle: Path) -> None:
    class Leaving(_Silent):
        def phase(self, label: str, total_bytes: int) -> None:
            self.label = label

        def advance(self, item: str, size: int) -> None:
            if self.label == "repairing":
                raise TimeoutError("too long")

    zero(store.blob_path(WEIGHTS))
    with pytest.raises(TimeoutError, match="too long"):
        ostore.repair(sources=[bundle], models=store.root, progress=Leaving())


def test_a_copy_that_is_not_the_blob_is_noted_and_the_next_source_is_tried(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    cache, before = as_hugging_face(tmp_path / "cache", WEIGHTS), tree(store.root)
    zero(next(cache.rglob(sha256(WEIGHTS))))
    zero(store.blob_path(WEIGHTS))
    told = repair(store, "--from", cache, "--from", bundle)
    assert f"warning: {cache}: blob sha256:{sha256(WEIGHTS)}: its bytes have another digest" in told
    assert f"from {bundle}" in told
    assert tree(store.root) == before


def test_the_second_of_two_copies_in_one_folder_serves_where_the_first_does_not_and_is_not_read_where_it_does(
    store: Store, tmp_path: Path
) -> None:
    before = tree(store.root)
    for first, origin in ((WEIGHTS[::-1], "second"), (WEIGHTS, "first")):
        for name, data in (("first", first), ("second", WEIGHTS)):
            shutil.rmtree(tmp_path / "caches" / name, ignore_errors=True)
            as_hugging_face(tmp_path / "caches" / name, WEIGHTS)
            (copy,) = (path for path in (tmp_path / "caches" / name).rglob(sha256(WEIGHTS)) if not path.is_symlink())
            copy.write_bytes(data)
        zero(store.blob_path(WEIGHTS))
        report = ostore.repair(sources=[tmp_path / "caches"], models=store.root)
        assert (report.verdict, len(report.notes)) == ("whole", origin == "second")
        assert tree(store.root) == before


def test_a_source_whose_medium_fails_anywhere_is_noted_and_the_store_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bundle, weights = Store(tmp_path / "models"), tmp_path / "b.tar.zst", noise(20_000_000)
    store.model("large:latest", weights)
    ostore.export(["*"], bundle, models=store.root)
    whole = tree(store.root)
    zero(store.blob_path(weights))
    damaged, real = tree(store.root), read_at
    outcomes: list[str] = []
    while not outcomes or outcomes[-1] != "whole":
        calls = iter([True] * len(outcomes))

        # A double of a medium: one that fails at a place of choice cannot be had everywhere.
        def failing(fd: int, count: int, offset: int, calls: Iterator[bool] = calls) -> bytes:
            if next(calls, False):
                return bytes(real(fd, count, offset))
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(bytes_at, "read_at", failing)
        try:
            report = ostore.repair(sources=[bundle], models=store.root)
            outcomes.append(report.verdict if report.verdict == "whole" else " ".join(report.notes))
        except OSError as error:
            outcomes.append(f"not opened: {error.strerror}")
        assert tree(store.root) == (whole if outcomes[-1] == "whole" else damaged)
    # It cannot even be opened, and there is no other; then it can.
    assert outcomes[0] == "not opened: Input/output error"
    assert outcomes[-2] == f"{bundle}: Input/output error"


def test_a_model_with_something_in_the_place_of_its_blob_is_not_restored(store: Store, bundle: Path) -> None:
    store.manifest_path(full("tiny:q4")).unlink()
    blob = store.blob_path(b"Say hi!")
    blob.unlink()
    blob.mkdir()
    told = repair(store, "tiny:q4", "--from", bundle, code=10)
    assert f"blob sha256:{sha256(b'Say hi!')}: something is in its place" in told
    assert not store.manifest_path(full("tiny:q4")).exists()


def test_a_manifest_that_readers_would_understand_differently_is_not_taken_from_a_store(
    store: Store, tmp_path: Path
) -> None:
    other = Store(shutil.copytree(store.root, tmp_path / "other"))
    theirs = other.manifest_path(full("tiny:q4"))
    theirs.write_bytes(theirs.read_bytes().replace(b'"layers":', b'"layers":[],"layers":'))
    store.write_manifest(full("tiny:q4"), b"")
    before = tree(store.root)
    told = repair(store, "--from", other.root, code=10)
    assert "left: manifest-damaged" in told
    assert tree(store.root) == before


def test_a_file_of_the_right_size_that_goes_before_it_is_read_is_no_copy(store: Store, tmp_path: Path) -> None:
    class Removing(_Silent):
        def phase(self, label: str, total_bytes: int) -> None:
            if total_bytes == len(WEIGHTS):
                (tmp_path / "copies/weights").unlink(missing_ok=True)

    (tmp_path / "copies").mkdir()
    (tmp_path / "copies/weights").write_bytes(WEIGHTS)
    zero(store.blob_path(WEIGHTS))
    before = tree(store.root)
    report = ostore.repair(sources=[tmp_path / "copies"], models=store.root, progress=Removing())
    assert (report.verdict, tree(store.root)) == ("integrity", before)


@pytest.fixture
def _promised(store: Store, tmp_path: Path) -> None:
    """A model that promises a wrong size, and two sources of another with the same weights, which one has cut off."""
    other, liar = Store(tmp_path / "other"), store.manifest_path(full("tiny:latest"))
    other.model("more:latest", WEIGHTS, system=b"More!")
    ostore.export(["*"], tmp_path / "more.tar", models=other.root)
    os.truncate(other.blob_path(WEIGHTS), 5)
    liar.write_bytes(liar.read_bytes().replace(b"12000", b"5"))
    store.manifest_path(full("tiny:q4")).unlink()


@pytest.mark.usefixtures("_promised")
def test_a_model_is_not_restored_where_another_keeps_its_blob_from_having_the_right_size(
    store: Store, tmp_path: Path
) -> None:
    store.blob_path(WEIGHTS).unlink()
    before = tree(store.root)
    told = repair(store, "more", "tiny:latest", "--from", tmp_path / "other", "--from", tmp_path / "more.tar", code=4)
    assert f"blob sha256:{sha256(WEIGHTS)}: another size than the store's own models promise" in told
    assert tree(store.root) == before


@pytest.mark.usefixtures("_promised")
def test_a_promise_of_a_wrong_size_is_still_wrong_when_another_model_has_brought_the_blob(
    store: Store, tmp_path: Path
) -> None:
    zero(store.blob_path(WEIGHTS))
    sources = [tmp_path / "other", tmp_path / "more.tar"]
    report = ostore.repair(["more", "tiny:latest"], sources=sources, models=store.root)
    assert "more:latest" in {item.subject for item in report.repaired}
    assert store.blob_path(WEIGHTS).read_bytes() == WEIGHTS
    (verified,) = ostore.verify(models=store.root)
    assert report.verdict == verified.verdict
    assert [(problem.kind, problem.models) for problem in report.left] == [("blob-size", ("tiny:latest",))]
    assert [(problem.kind, problem.models) for problem in verified.problems] == [("blob-size", ("tiny:latest",))]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(WEIGHTS[::-1]),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.symlink_to("gone")),
    ],
    ids=["altered", "missing", "dangling"],
)
def test_of_two_promises_the_wrong_one_is_left_when_the_blob_has_come(
    store: Store, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    other = Store(tmp_path / "other")
    other.model("third:latest", WEIGHTS)
    store.model("third:latest", WEIGHTS)
    store.write_manifest(full("third:latest"), b"")
    liar = store.manifest_path(full("tiny:latest"))
    liar.write_bytes(liar.read_bytes().replace(b"12000", b"12001"))
    damage(store.blob_path(WEIGHTS))
    report = ostore.repair(sources=[other.root], models=store.root)
    (verified,) = ostore.verify(models=store.root)
    assert [(problem.kind, problem.models) for problem in report.left] == [("blob-size", ("tiny:latest",))]
    assert [(problem.kind, problem.models) for problem in verified.problems] == [("blob-size", ("tiny:latest",))]
    assert {item.models for item in report.repaired if item.kind == "blob"} == {("tiny:q4",)}


@pytest.mark.parametrize("damaged", [b"", b'{"schemaVersion":3,"layers":[]}'])
def test_a_manifest_in_the_coming_tree_is_not_mended_by_one_of_its_name(
    store: Store, bundle: Path, damaged: bytes
) -> None:
    path = store.manifest_path(full("tiny:q4"))
    coming = store.root / "manifests-v2" / path.relative_to(store.root / "manifests")
    coming.parent.mkdir(parents=True)
    coming.write_bytes(damaged)
    path.write_bytes(b"")
    report = ostore.repair(sources=[bundle], models=store.root)
    assert [item.subject for item in report.repaired] == ["tiny:q4"]
    (verified,) = ostore.verify(models=store.root)
    assert (report.verdict, report.left) == (verified.verdict, verified.problems) != ("whole", ())


def test_a_model_that_was_named_in_capitals_is_not_missed_when_it_has_come(store: Store, bundle: Path) -> None:
    store.manifest_path(full("tiny:q4")).unlink()
    report = ostore.repair(["TINY:Q4"], sources=[bundle], models=store.root)
    assert (report.verdict, report.left) == ("whole", ())


def test_an_odd_name_that_the_good_blob_has_replaced_is_not_left(store: Store, bundle: Path) -> None:
    path = store.blob_path(WEIGHTS)
    zero(path)
    path.rename(path.with_name(f"sha256-{sha256(WEIGHTS).upper()}"))
    report = ostore.repair(sources=[bundle], models=store.root)
    assert (report.verdict, report.left) == ("whole", ())
    assert ostore.verify(models=store.root)[0].verdict == "whole"


def test_a_damaged_bundle_still_gives_what_is_whole_in_it(tmp_path: Path) -> None:
    store, bundle = Store(tmp_path / "models"), tmp_path / "b.tar"
    for seed in (1, 2, 3):
        store.model(f"m{seed}:latest", noise(100_000, seed))
    ostore.export(["*"], bundle, models=store.root)
    raw = bundle.read_bytes()
    bundle.write_bytes(raw.replace(noise(100_000, 2)[500:600], bytes(100)))
    for seed in (1, 2, 3):
        zero(store.blob_path(noise(100_000, seed)))
    told = repair(store, "--from", bundle, code=4)
    assert told.count("repaired: blob") == 2
    assert [problem.models for problem in ostore.verify(models=store.root)[0].problems] == [("m2:latest",)]


def test_a_source_that_cannot_be_used_is_noted_and_the_next_one_tried(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.tar.zst"
    cut.write_bytes(bundle.read_bytes()[:-100])
    zero(store.blob_path(WEIGHTS))
    assert repair(store, "--from", cut, code=4).startswith(f"ostore: error[integrity]: {cut}: ")
    assert f"warning: {cut}: " in repair(store, "--from", cut, "--from", bundle)


@pytest.mark.parametrize(
    ("make", "what"), [(Path.mkdir, "a folder"), (os.mkfifo, "a pipe, socket or device")], ids=["folder", "FIFO"]
)
def test_what_no_file_is_has_to_be_moved_by_a_person_and_the_rest_is_mended(
    store: Store, bundle: Path, make: Callable[[Path], None], what: str
) -> None:
    blob = store.blob_path(WEIGHTS)
    blob.unlink()
    make(blob)
    zero(store.blob_path(b"Say hi!"))
    told = repair(store, "--from", bundle, code=10)
    assert f"blobs/{blob.name}: {what} is in its place; move it away" in told
    assert not blob.is_file()
    assert store.blob_path(b"Say hi!").read_bytes() == b"Say hi!"


def test_a_link_is_replaced_and_what_it_leads_to_left_alone(store: Store, bundle: Path, tmp_path: Path) -> None:
    target, blob, before = tmp_path / "target", store.blob_path(WEIGHTS), tree(store.root)
    blob.rename(target)
    zero(target)
    blob.symlink_to(target)
    repair(store, "--from", bundle)
    assert tree(store.root) == before
    assert target.read_bytes() == bytes(len(WEIGHTS))
    assert quarantined(store) == []


def test_a_blob_named_in_the_old_way_does_not_come_back_over_the_good_one(store: Store, bundle: Path) -> None:
    """A server that starts renames sha256:… to sha256-…, whatever is there."""
    blob, before = store.blob_path(WEIGHTS), tree(store.root)
    zero(blob)
    blob.rename(blob.with_name(blob.name.replace("-", ":")))
    repair(store, "--from", bundle)
    assert tree(store.root) == before
    assert quarantined(store) == [bytes(len(WEIGHTS))]


def test_a_file_with_a_name_elsewhere_is_left_as_it_is_there(store: Store, bundle: Path, tmp_path: Path) -> None:
    blob, elsewhere = store.blob_path(WEIGHTS), tmp_path / "elsewhere"
    elsewhere.hardlink_to(blob)
    zero(blob)
    elsewhere.chmod(0o600)
    repair(store, "--from", bundle)
    assert elsewhere.read_bytes() == bytes(len(WEIGHTS))
    assert elsewhere.stat().st_mode & 0o777 == 0o600


@needs_strace
def test_a_blob_that_the_disk_cannot_read_is_replaced(store: Store, bundle: Path, tmp_path: Path) -> None:
    blob = store.blob_path(WEIGHTS)
    inode = blob.stat().st_ino
    tracer = ["strace", "-f", "-o", str(tmp_path / "log"), "-P", str(blob), "-e", "inject=read:error=EIO"]
    command = [*tracer, *OSTORE, "repair", "--from", str(bundle), "--models", str(store.root)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert blob.stat().st_ino != inode
    assert [path.stat().st_ino for path in store.root.glob(".ostore/quarantine/*")] == [inode]


@pytest.mark.parametrize("raw", [b"", b'{"schemaVersion":2,"config":{"dig', bytes(300)], ids=["empty", "cut", "zeros"])
@pytest.mark.parametrize("is_bundle", [True, False], ids=["bundle", "store"])
def test_a_broken_manifest_is_restored_with_its_bytes(
    store: Store, bundle: Path, tmp_path: Path, raw: bytes, is_bundle: bool
) -> None:
    before = tree(store.root)
    source = bundle if is_bundle else shutil.copytree(store.root, tmp_path / "copy")
    store.write_manifest(full("tiny:q4"), raw)
    assert run("verify", "--models", store.root).returncode == 10
    assert "repaired: manifest tiny:q4" in repair(store, "--from", source)
    assert tree(store.root) == before
    assert quarantined(store) == ([raw] if raw else [])


def test_a_manifest_is_restored_only_with_all_of_its_blobs(store: Store, bundle: Path, tmp_path: Path) -> None:
    source = shutil.copytree(store.root, tmp_path / "copy")
    (source / "blobs" / store.blob_path(b"Say hi!").name).unlink()
    (source / "blobs" / store.blob_path(WEIGHTS).name).unlink()
    for data in (b"Say hi!", WEIGHTS):
        store.blob_path(data).unlink()
    store.write_manifest(full("tiny:q4"), b"")
    store.manifest_path(full("tiny:latest")).unlink()
    before = tree(store.root)
    told = repair(store, "tiny:q4", "--from", source, code=10)
    assert f"tiny:q4: blob sha256:{sha256(WEIGHTS)}: in no source named" in told
    assert tree(store.root) == before
    repair(store, "tiny:q4", "--from", source, "--from", bundle)
    assert run("verify", "--models", store.root).returncode == 0


def test_blobs_that_come_only_for_a_manifest_that_cannot_be_restored_do_not_stay(store: Store, tmp_path: Path) -> None:
    """Going by sizes the source has it all; only reading shows that one of the blobs is not what it is called."""
    source = shutil.copytree(store.root, tmp_path / "copy")
    zero(source / "blobs" / store.blob_path(b"Say hi!").name)
    for data in (b"Say hi!", WEIGHTS):
        store.blob_path(data).unlink()
    store.write_manifest(full("tiny:q4"), b"")
    store.manifest_path(full("tiny:latest")).unlink()
    before = tree(store.root)
    repair(store, "--from", source, code=10)
    assert tree(store.root) == before


def test_a_model_that_is_not_there_is_restored_if_it_is_named(store: Store, bundle: Path) -> None:
    before = tree(store.root)
    store.manifest_path(full("tiny:q4")).unlink()
    store.blob_path(b"Say hi!").unlink()
    assert "nothing to repair" in repair(store, "--from", bundle)
    assert "would repair 1 blob, 1 manifest" in repair(store, "tiny:q4", "--from", bundle, "--dry-run")
    assert "repaired: manifest tiny:q4" in repair(store, "tiny:q4", "--from", bundle)
    assert tree(store.root) == before


def test_a_different_manifest_that_is_whole_stays(store: Store, bundle: Path) -> None:
    store.model("tiny:q4", b"other weights")
    before = tree(store.root)
    assert "nothing to repair" in repair(store, "tiny:q4", "--from", bundle)
    assert tree(store.root) == before


def test_a_damaged_orphan_is_mended_with_the_size_that_the_source_knows(store: Store, bundle: Path) -> None:
    store.manifest_path(full("tiny:q4")).unlink()
    before = tree(store.root)
    store.blob_path(b"Say hi!").write_bytes(b"Say")
    assert run("verify", "--models", store.root).returncode == 4
    repair(store, "--from", bundle)
    assert tree(store.root) == before


def test_a_manifest_that_promises_another_size_does_not_keep_another_from_being_restored(
    store: Store, bundle: Path
) -> None:
    liar, before = store.manifest_path(full("tiny:latest")), tree(store.root)
    raw = liar.read_bytes().replace(b'"size":12000', b'"size":12001')
    liar.write_bytes(raw)
    store.write_manifest(full("tiny:q4"), b"")
    assert "repaired: manifest tiny:q4" in repair(store, "--from", bundle, code=4)
    assert tree(store.root) == before | {liar.relative_to(store.root).as_posix(): sha256(raw)}


def test_what_is_whole_is_not_replaced_because_a_manifest_promises_another_size(store: Store, bundle: Path) -> None:
    layer = store.layer(MODEL, WEIGHTS)
    store.add(full("liar:latest"), {**layer, "size": 5})
    before = tree(store.root, without=())
    assert "its manifests promise different sizes" in repair(store, "--from", bundle, code=4)
    assert tree(store.root, without=()) == before


def test_what_nobody_has_is_left_and_said(store: Store, bundle: Path) -> None:
    store.model("mine:latest", b"my own weights")
    store.blob_path(b"my own weights").unlink()
    (store.root / "blobs/notes.txt").write_text("stray")
    told = repair(store, "--from", bundle, code=4)
    assert f"left: blob-missing: blob sha256:{sha256(b'my own weights')}: missing; used by mine:latest" in told
    assert "repaired nothing; 1 problem left" in told
    assert repair(store, "tiny", "--from", bundle).startswith("nothing to repair: 1 model, 3 blobs")


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(store: Store, bundle: Path) -> None:
    zero(store.blob_path(WEIGHTS))
    store.write_manifest(full("tiny:q4"), b"")
    before = tree(store.root, without=())
    told = repair(store, "--from", bundle, "--dry-run")
    assert f"would repair: blob sha256:{sha256(WEIGHTS)}, 12 KB, from {bundle}" in told
    assert "would repair 1 blob, 1 manifest" in told
    assert tree(store.root, without=()) == before
    repair(store, "--from", bundle.parent, "--dry-run", "-q", code=10)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("tiny",), 2),
        (("--from", "absent.tar.zst"), 3),
        (("--from", "absent"), 3),
        (("--from", __file__), 12),
        (("--from", "-", "--from", "-"), 2),
        (("--from", "STORE"), 2),
        (("--from", "BUNDLE", "absent"), 3),
        (("--from", "BUNDLE", "absent*"), 3),
        (("--from", "BUNDLE", "../../etc/passwd"), 2),
    ],
    ids=lambda words: None if isinstance(words, int) else Path(words[-1]).name,
)
def test_what_is_mistyped_is_refused_before_anything_is_hashed(
    store: Store, bundle: Path, arguments: tuple[str, ...], code: int
) -> None:
    words = {"STORE": str(store.root), "BUNDLE": str(bundle)}
    before = tree(store.root, without=())
    told = repair(store, *(words.get(word, word) for word in arguments), code=code)
    assert told.startswith("ostore: error[")
    assert told.count("\n") == 1
    assert tree(store.root, without=()) == before


def test_a_hostile_path_does_not_reach_the_terminal(store: Store, bundle: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "a\x1b]52;c;\x07\nrepaired: all.tar.zst"
    shutil.copy(bundle, hostile)
    zero(store.blob_path(WEIGHTS))
    told = repair(store, "--from", hostile)
    assert "\x1b" not in told
    assert "\nrepaired: all" not in told


@unmeasured
def test_ctrl_c_leaves_the_store_as_it_was_and_the_same_command_finishes(tmp_path: Path) -> None:
    store, source = Store(tmp_path / "models"), Store(tmp_path / "source")
    for made in (store, source):
        made.model("large:latest", noise(60_000_000), license=b"MIT")
    whole = tree(store.root)
    for data in (noise(60_000_000), b"MIT"):
        zero(store.blob_path(data))
    before = tree(store.root)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [*OSTORE, "repair", "--from", str(source.root), "--models", str(store.root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr
        while not process.stderr.readline().startswith("repairing"):
            time.sleep(0)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 130, told
    assert tree(store.root) == before
    repair(store, "--from", source.root)
    assert tree(store.root) == whole
