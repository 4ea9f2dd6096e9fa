"""What the other side has, as a file: inventories, differences, deltas of whole blobs, and streams that break off."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

import ostore
from ostore.api.basis import opened_basis
from ostore.formats.digest import Digest
from ostore.formats.inventory import Inventory
from ostore.formats.lock_file import LockFile
from ostore.formats.store_layout import TRANSACTIONS
from ostore.places.store.store import LocalStore
from ostore.streams.file_lock import try_lock
from tests.gguf import ONE_LAYER, gguf
from tests.support import MODEL, OSTORE, TENSOR, TORTURE, Store, full, noise, sha256, tree
from tests.support import ostore as run

OLD, NEW, SHARED = noise(120_000, 1), noise(90_000, 2), b"{{ .Prompt }}"


@pytest.fixture
def near(tmp_path: Path) -> Store:
    made = Store(tmp_path / "near")
    made.model("kept:latest", OLD, template=SHARED)
    made.model("new:latest", NEW, template=SHARED)
    return made


@pytest.fixture
def far(tmp_path: Path) -> Store:
    made = Store(tmp_path / "far")
    made.model("kept:latest", OLD, template=SHARED)
    made.model("own:latest", noise(1000, 3))
    return made


def of(data: bytes) -> str:
    return f"sha256:{sha256(data)}"


def listed(store: Store, *options: str) -> Inventory:
    done = run("inventory", *options, "--models", store.root)
    assert done.returncode == 0, done.stderr
    return Inventory.parse(done.stdout.encode())


def have(store: Store, path: Path) -> Path:
    path.write_bytes(ostore.inventory(models=store.root).document)
    return path


def lock_of(store: Store, path: Path) -> Path:
    path.write_bytes(ostore.lock(models=store.root).document)
    return path


def digest_of(store: Store, name: str) -> str:
    return of(store.manifest_path(full(name)).read_bytes())


def delta_of(near: Store, far: Store, folder: Path) -> Path:
    ostore.export(["*"], folder / "delta.tar.zst", have=[have(far, folder / "have.json")], models=near.root)
    return folder / "delta.tar.zst"


class TestInventory:
    def test_it_lists_what_is_there(self, far: Store) -> None:
        found = listed(far)
        assert [model.name.full for model in found.models] == [full("kept:latest"), full("own:latest")]
        assert found.models[0].manifest.digest == Digest.parse(digest_of(far, "kept:latest"))
        assert found.sizes[Digest.parse(of(OLD))] == len(OLD)
        assert {blob.digest for blob in found.blobs} == {digest for model in found.models for digest in model.blobs}

    def test_the_summary_is_not_in_the_way(self, far: Store) -> None:
        done = run("inventory", "--models", far.root)
        assert done.stdout.encode() == ostore.inventory(models=far.root).document
        assert "listed 2 models, 4 blobs, 121 KB" in done.stderr
        assert run("inventory", "-q", "--models", far.root).stderr == ""

    def test_names_choose_models(self, far: Store) -> None:
        assert [str(model.name) for model in listed(far, "own").models] == ["own:latest"]
        assert run("inventory", "nobody", "--models", far.root).returncode == 3

    def test_what_is_missing_or_short_is_not_listed(self, far: Store) -> None:
        far.blob_path(OLD).unlink()
        far.blob_path(SHARED).write_bytes(b"{{")
        done = run("inventory", "--models", far.root)
        found = Inventory.parse(done.stdout.encode())
        assert not {Digest.parse(of(OLD)), Digest.parse(of(SHARED))} & found.sizes.keys()
        assert "warning: kept:latest: 2 of its blobs are missing or damaged" in done.stderr
        # It is still a name that the store has.
        assert len(found.models) == 2

    def test_only_hashing_finds_what_is_damaged(self, far: Store) -> None:
        far.blob_path(OLD).write_bytes(bytes(len(OLD)))
        assert Digest.parse(of(OLD)) in listed(far).sizes
        done = run("inventory", "--verify", "--models", far.root)
        assert Digest.parse(of(OLD)) not in Inventory.parse(done.stdout.encode()).sizes
        assert "kept:latest: 1 of its blobs is missing or damaged" in done.stderr

    def test_it_changes_nothing(self, far: Store) -> None:
        before = tree(far.root, without=())
        listed(far, "--verify", "--tensors")
        assert tree(far.root, without=()) == before

    def test_tensors_are_listed_with_their_digests(self, far: Store) -> None:
        weights = gguf(ONE_LAYER, {"a": ((32, 800), [0.5]), "b": ((32, 300), [1.0])})
        far.model("g:latest", weights)
        header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        safetensors = len(header).to_bytes(8, "little") + header + b"12345678"
        far.add(full("mlx:latest"), far.layer(TENSOR, safetensors, name="x"))
        far.add(full("odd:latest"), far.layer(TENSOR, b"no such thing", name="y"))
        found = {blob.digest: blob.tensors for blob in listed(far, "--tensors", "--verify").blobs}
        for data in (weights, safetensors):
            inside = found.pop(Digest.of(data))
            assert inside
            assert inside.header.digest == Digest.of(data[: inside.header.size])
            assert all(digest == Digest.of(data[at : at + length]) for at, length, digest in inside.tensors)
            assert sum(tensor.length for tensor in inside.tensors) + inside.header.size == len(data)
        assert set(found.values()) == {None}
        assert listed(far, "--tensors").write() == listed(far, "--tensors", "--verify").write()

    @pytest.mark.parametrize("stretch", [7, 100, 1000])
    def test_it_does_not_matter_where_a_read_ends(
        self, far: Store, monkeypatch: pytest.MonkeyPatch, stretch: int
    ) -> None:
        # Tensors of no whole number of 32 bytes, so that there is padding between them.
        far.model("g:latest", gguf(ONE_LAYER, {"a": ((9, 3), [0.5]), "b": ((33,), [1.0]), "c": ((1,), [2.0])}))
        whole = ostore.inventory(tensors=True, models=far.root).document
        assert whole.count(b'"offset"') == 3
        monkeypatch.setattr("ostore.operations.inventory._STRETCH_BYTES", stretch)
        assert ostore.inventory(tensors=True, verify=True, models=far.root).document == whole

    def test_a_blob_that_goes_meanwhile_is_not_there(self, far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        # As if a server had removed it after the names were looked at.
        monkeypatch.setattr(LocalStore, "holds", lambda _store, _blob: True)
        far.blob_path(OLD).unlink()
        report = ostore.inventory(verify=True, models=far.root)
        assert Digest.of(OLD) not in Inventory.parse(report.document).sizes

    def test_tensors_that_share_bytes_are_listed_once(self, far: Store) -> None:
        weights = bytearray(gguf(ONE_LAYER, {"a": ((32, 8), [0.5]), "b": ((32, 8), [1.0])}))
        # The offset of the second one, in its last place before the data.
        place = weights.rindex((32 * 8 * 4).to_bytes(8, "little"))
        weights[place : place + 8] = bytes(8)
        far.model("g:latest", bytes(weights))
        [tensors] = [blob.tensors.tensors for blob in listed(far, "--tensors").blobs if blob.tensors]
        assert [tensor.length for tensor in tensors] == [32 * 8 * 4]

    def test_names_that_differ_by_case_and_unclear_manifests_are_told(self, far: Store) -> None:
        far.model("Own:latest", b"other")
        far.write_manifest(full("twice:latest"), b'{"schemaVersion":2,"schemaVersion":2,"config":null,"layers":[]}')
        far.write_manifest(full("broken:latest"), b"{")
        done = run("inventory", "--models", far.root)
        assert [str(model.name) for model in Inventory.parse(done.stdout.encode()).models] == ["kept:latest"]
        for told in ("Own:latest, own:latest: not listed", "twice:latest: not listed", "broken/latest: not listed"):
            assert told in done.stderr

    def test_what_an_interrupted_import_has_finished_counts(self, near: Store, far: Store, tmp_path: Path) -> None:
        staged = far.root / ".ostore" / TRANSACTIONS / "1-dead"
        staged.mkdir(parents=True)
        (staged / near.blob_path(NEW).name).write_bytes(NEW)
        (staged / f"{near.blob_path(OLD).name}.part").write_bytes(b"half")
        found = {blob.digest: blob for blob in listed(far).blobs}
        assert found[Digest.of(NEW)].is_staged
        assert not found[Digest.of(OLD)].is_staged
        assert "(1 of an interrupted import)" in run("inventory", "--models", far.root).stderr
        assert Digest.of(NEW) not in listed(far, "own").sizes

        delta = delta_of(near, far, tmp_path)
        assert run("import", delta, "-n", "--models", far.root).returncode == 0
        done = run("import", delta, "--models", far.root)
        assert done.returncode == 0, done.stderr
        assert far.blob_path(NEW).read_bytes() == NEW

    @pytest.mark.parametrize("command", ["inventory", "lock"])
    def test_it_is_data_and_has_no_other_form(self, far: Store, command: str) -> None:
        done = run(command, "--json", "--models", far.root)
        assert (done.returncode, done.stdout) == (2, "")
        assert "already" in json.loads(done.stderr)["message"]

    def test_more_than_a_reader_takes_is_refused(self, far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ostore.formats.inventory.MAX_MEMBERS", 3)
        for tensors, hint in ((True, "list fewer models or leave out tensors"), (False, "list fewer models")):
            with pytest.raises(ostore.LimitError) as caught:
                ostore.inventory(tensors=tensors, models=far.root)
            assert caught.value.hint == hint


FORMS: dict[str, Callable[[Store, Path], Path]] = {
    "inventory": lambda store, folder: have(store, folder / "x"),
    "inventory as zstd": lambda store, folder: packed(have(store, folder / "x")),
    "inventory from PowerShell": lambda store, folder: widened(have(store, folder / "x")),
    "bundle": lambda store, folder: bundled(store, folder / "x.tar.zst"),
    "plain bundle": lambda store, folder: bundled(store, folder / "x.tar"),
    "store": lambda store, _: store.root,
}


def packed(path: Path) -> Path:
    path.write_bytes(zstandard.compress(path.read_bytes()))
    return path


def widened(path: Path) -> Path:
    path.write_bytes(path.read_text("ascii").replace("\n", "\r\n").encode("utf-16"))
    return path


def bundled(store: Store, path: Path) -> Path:
    ostore.export(["*"], path, replace=True, models=store.root)
    return path


class TestDiff:
    @pytest.mark.parametrize("form", FORMS)
    def test_it_says_what_the_other_side_lacks(self, near: Store, far: Store, tmp_path: Path, form: str) -> None:
        report = ostore.diff(near.root, FORMS[form](far, tmp_path))
        assert [(model.name, model.difference, model.size) for model in report.models] == [
            ("new:latest", "missing", len(NEW)),
            ("own:latest", "extra", 0),
        ]
        assert ([blob.digest for blob in report.lacking], report.size, report.same) == ([of(NEW)], len(NEW), 1)
        back = ostore.diff(FORMS[form](far, tmp_path), near.root)
        assert [(model.name, model.difference) for model in back.models] == [
            ("new:latest", "extra"),
            ("own:latest", "missing"),
        ]

    def test_the_text_has_names_digests_and_bytes(self, near: Store, far: Store, tmp_path: Path) -> None:
        far.model("new:latest", b"another one")
        far.blob_path(OLD).unlink()
        path = have(far, tmp_path / "have.json")
        done = run("diff", path, "--models", near.root)
        lines = [line.split() for line in done.stdout.splitlines()]
        assert lines[1:4] == [
            ["kept:latest", "incomplete", *[digest_of(near, "kept:latest")[7:19]] * 2, "120", "KB"],
            [
                "new:latest",
                "different",
                digest_of(near, "new:latest")[7:19],
                digest_of(far, "new:latest")[7:19],
                "90",
                "KB",
            ],
            ["own:latest", "not", "in", "A", "-", digest_of(far, "own:latest")[7:19], "-"],
        ]
        assert f"3 models differ, 0 models the same; 2 blobs, 210 KB to carry ({near.root} -> {path})" in done.stdout
        assert run("diff", "-q", path, "--models", near.root).stdout == "kept:latest\nnew:latest\n"

    def test_a_bundle_in_volumes_is_named_like_any_other(self, near: Store, far: Store, tmp_path: Path) -> None:
        name = tmp_path / "x.tar.zst"
        ostore.export(["*"], name, split=100_000, models=far.root)
        expected = run("diff", near.root, far.root, "-q").stdout
        for word in (name, f"{name}.001", f"{name}.sha256"):
            assert run("diff", near.root, word, "-q").stdout == expected
            assert run("outdated", "--against", word, "--models", near.root).returncode in {0, 10}
            delta = tmp_path / "delta.tar"
            done = run("export", "--all", delta, "--have", word, "--replace", "--models", near.root)
            assert "required there" in done.stdout

    def test_exit_codes(self, near: Store, far: Store) -> None:
        assert run("diff", near.root, far.root).returncode == 0
        assert run("diff", near.root, far.root, "--exit-code").returncode == 10
        done = run("diff", near.root, near.root, "--exit-code")
        assert (done.returncode, done.stdout.split(" (")[0]) == (0, "no difference: 2 models the same")
        assert run("diff", near.root, far.root, near.root).returncode == 2
        assert run("diff", "--models", near.root).returncode == 2

    def test_blobs_that_neither_side_has_are_counted(self, near: Store, far: Store) -> None:
        near.blob_path(NEW).unlink()
        done = run("diff", near.root, far.root)
        assert "0 B and 1 blob that A lacks" in done.stdout

    def test_a_lock_is_compared_by_names_and_resolved_where_that_can_be(
        self, near: Store, far: Store, tmp_path: Path
    ) -> None:
        lock = lock_of(near, tmp_path / "models.lock")
        known = ostore.diff(lock, far.root, models=near.root)
        assert (known.size, known.warnings) == (len(NEW), ())
        unknown = ostore.diff(lock, far.root, models=far.root)
        assert [(model.name, model.size) for model in unknown.models] == [("new:latest", None), ("own:latest", 0)]
        told = f"{lock}: the store lacks 1 of its manifests, so nothing tells which blobs they name"
        assert unknown.warnings == (told,)
        assert "?" in run("diff", lock, far.root, "--models", far.root).stdout
        # There need not be a store on this side.
        assert ostore.diff(lock, far.root, models=tmp_path / "none").size == 0
        assert ostore.diff(lock, lock, models=tmp_path / "none").models == ()

    def test_standard_input_is_an_inventory_or_a_lock(self, near: Store, far: Store, tmp_path: Path) -> None:
        with have(far, tmp_path / "have.json").open("rb") as file:
            done = subprocess.run(
                [*OSTORE, "diff", "-", "-q", "--models", near.root], stdin=file, capture_output=True, check=True
            )
        assert done.stdout == b"new:latest\n"

    @pytest.mark.parametrize(
        ("make", "code", "says"),
        [
            (lambda path: None, 3, "no such file; expected an inventory, a bundle, a lock or the folder of a store"),
            (lambda path: path.mkdir(), 3, "no store"),
            (lambda path: path.write_bytes(b""), 12, "an empty file"),
            (lambda path: path.write_bytes(b"GGUF\3\0\0\0"), 12, "looks like a GGUF file"),
            (lambda path: path.write_bytes(b'{"models":[]}'), 12, "x: inventory: expected format"),
            (lambda path: path.write_bytes(b"sha256:1 x"), 8, "x: lock: line 1: "),
            # Windows has no pipes with a name.
            (getattr(os, "mkfifo", Path.mkdir), 2 if hasattr(os, "mkfifo") else 3, "no"),
        ],
        ids=["nothing", "folder", "empty", "weights", "other JSON", "other text", "pipe"],
    )
    def test_what_says_nothing_is_named(
        self, near: Store, tmp_path: Path, make: Callable[[Path], object], code: int, says: str
    ) -> None:
        make(tmp_path / "x")
        done = run("diff", tmp_path / "x", "--models", near.root)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr

    def test_bytes_of_blobs_come_from_the_near_store_first(self, near: Store, far: Store, tmp_path: Path) -> None:
        store = LocalStore(near.root)
        with opened_basis(far.root, near=store, jobs=1) as basis:
            for data in (OLD, noise(1000, 3)):
                held = basis.bytes_of(Digest.of(data))
                assert held
                assert held.read_at(len(data), 0) == data
            assert basis.bytes_of(Digest.of(b"nowhere")) is None
        with opened_basis(have(far, tmp_path / "have.json"), near=store, jobs=1) as basis:
            assert basis.bytes_of(Digest.of(noise(1000, 3))) is None
            assert basis.bytes_of(Digest.of(OLD))


def test_an_inventory_that_is_cut_off_is_no_bundle(near: Store, far: Store, tmp_path: Path) -> None:
    path = have(far, tmp_path / "have.json")
    packer = zstandard.ZstdCompressor(write_checksum=True)
    path.write_bytes(packer.compress(path.read_bytes())[:-20])
    done = run("diff", path, "--models", near.root)
    assert (done.returncode, "the frame is cut off" in done.stderr) == (4, True), done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "export kept |",
        "export kept x.tar --have |",
        "export kept x.tar --split 1M --to |",
        "export x.tar --lock |",
        "verify --lock |",
        "verify |",
        "diff |",
        "diff | .",
        "outdated --against |",
        "import |",
        "import . |",
        "import . --lock |",
        "lock --update |",
        "repair --from |",
    ],
)
def test_an_empty_word_is_no_place(near: Store, tmp_path: Path, line: str) -> None:
    words = ["" if word == "|" else word for word in line.split()]
    done = run(*words, "--models", near.root, cwd=tmp_path)
    assert (done.returncode, "expected" in done.stderr) == (2, True), done.stderr
    assert "got an empty word" in done.stderr


class TestOutdated:
    def test_only_other_manifests_of_the_same_name_are_outdated(self, near: Store, far: Store, tmp_path: Path) -> None:
        far.model("new:latest", b"another one")
        path = have(near, tmp_path / "have.json")
        report = ostore.outdated(against=path, models=far.root)
        assert report.models == (
            ostore.OutdatedModel("new:latest", digest_of(far, "new:latest"), digest_of(near, "new:latest")),
        )
        assert (report.current, report.unknown) == (1, ("own:latest",))
        done = run("outdated", "--against", path, "--models", far.root)
        assert f"1 model outdated, 1 model the same, 1 model not there ({path})" in done.stdout
        assert run("outdated", "-q", "--against", path, "--models", far.root).stdout == "new:latest\n"
        assert ostore.outdated(["kept"], against=near.root, models=far.root).current == 1


class TestDelta:
    @pytest.mark.parametrize("form", FORMS)
    def test_what_the_other_side_has_is_left_out(self, near: Store, far: Store, tmp_path: Path, form: str) -> None:
        delta = tmp_path / "delta.tar.zst"
        done = run("export", "--all", delta, "--have", FORMS[form](far, tmp_path), "--models", near.root)
        assert "1 blob, 90 KB" in done.stdout
        assert "; 3 blobs required there (120 KB)" in done.stdout
        would, did = (run("import", delta, *words, "--models", far.root).stdout for words in (("-n",), ()))
        assert "1 blob written (90 KB), 3 already there" in would
        assert "1 blob written (90 KB), 3 already there" in did
        assert far.blob_path(NEW).read_bytes() == NEW
        assert ostore.verify(models=far.root)[0].verdict == "whole"

    def test_several_say_what_is_there(self, near: Store, far: Store, tmp_path: Path) -> None:
        third = Store(tmp_path / "third")
        third.model("x:latest", NEW)
        report = ostore.export(["*"], tmp_path / "d.tar", have=[far.root, third.root], models=near.root)
        assert (report.blobs, report.required, report.required_size) == (0, 4, near_size(near))

    def test_over_a_store_without_the_basis_nothing_is_written(self, near: Store, far: Store, tmp_path: Path) -> None:
        delta = delta_of(near, far, tmp_path)
        done = run("import", delta, "--models", tmp_path / "empty")
        assert done.returncode == 3
        assert not (tmp_path / "empty").exists()
        assert of(OLD) in done.stderr
        told = "on the side that made the bundle: ostore export kept:latest new:latest missing.tar.zst"
        assert told in done.stderr
        assert run("import", delta, "-n", "--models", tmp_path / "empty").returncode == 3

    def test_a_damaged_basis_is_refused_before_anything_is_written(
        self, near: Store, far: Store, tmp_path: Path
    ) -> None:
        delta = delta_of(near, far, tmp_path)
        far.blob_path(OLD).write_bytes(bytes(len(OLD)))
        before = tree(far.root)
        done = run("import", delta, "--models", far.root)
        assert (done.returncode, of(OLD) in done.stderr, tree(far.root)) == (3, True, before)
        assert "whose files in the store are damaged" in done.stderr
        assert "does not have" not in done.stderr
        assert run("import", delta, "--trust-existing", "--models", far.root).returncode == 0

    def test_what_it_says_of_a_damaged_basis_ends_with_a_whole_one(
        self, near: Store, far: Store, tmp_path: Path
    ) -> None:
        delta = delta_of(near, far, tmp_path)
        far.blob_path(OLD).write_bytes(bytes(len(OLD)))
        refused = run("import", delta, "--json", "--models", far.root)
        [[_, *words]] = json.loads(refused.stderr)["remedy_arguments"]
        (tmp_path / "whole.json").write_text(run(*words).stdout)
        again = ("--have", tmp_path / "whole.json", "--models", near.root)
        assert run("export", "--all", delta, "--replace", *again).returncode == 0
        assert run("import", delta, "--models", far.root).returncode == 0
        assert ostore.verify(models=far.root)[0].verdict == "whole"

    def test_a_document_has_every_digest_and_a_line_a_few(self, tmp_path: Path) -> None:
        near = Store(tmp_path / "near")
        for number in range(12):
            near.model(f"m{number}:latest", noise(100, number))
        delta = tmp_path / "delta.tar"
        ostore.export(["*"], delta, have=[near.root], models=near.root)
        done = run("import", delta, "--json", "--models", tmp_path / "empty")
        document = json.loads(done.stderr)
        assert len(document["digests"]) == 13
        assert document["message"].count("sha256:") == 3
        assert document["remedy_arguments"] == [["ostore", "export", "--all", "missing.tar.zst"]]

    def test_the_command_it_names_brings_the_rest(
        self, near: Store, far: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        delta = delta_of(near, far, tmp_path)
        refused = run("import", delta, "--json", "--models", tmp_path / "empty")
        [[_, *words]] = json.loads(refused.stderr)["remedy_arguments"]
        monkeypatch.setenv("OLLAMA_MODELS", str(near.root))
        assert run(*words, cwd=tmp_path).returncode == 0
        done = run("import", tmp_path / "missing.tar.zst", "--models", tmp_path / "empty")
        assert "imported 2 models" in done.stdout

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)], ids=str)
    def test_deltas_have_no_order(self, far: Store, tmp_path: Path, order: tuple[int, ...]) -> None:
        near, basis = Store(tmp_path / "near"), have(far, tmp_path / "have.json")
        for number in range(3):
            near.model(f"m{number}:latest", noise(1000, 50 + number), template=SHARED)
            ostore.export([f"m{number}"], tmp_path / f"{number}.tar", have=[basis], models=near.root)
        # More than the basis does no harm.
        far.model("more:latest", b"more")
        for number in order:
            assert run("import", tmp_path / f"{number}.tar", "--models", far.root).returncode == 0
        assert {model.difference for model in ostore.diff(near.root, far.root).models} == {"extra"}

    def test_a_folder_and_plain_files_are_whole(self, near: Store, far: Store, tmp_path: Path) -> None:
        for words in ((f"{tmp_path}/out/",), (f"{tmp_path}/out/", "--as", "gguf")):
            done = run("export", "--all", *words, "--have", far.root, "--models", near.root)
            assert done.returncode == 2, done.stderr
        assert not (tmp_path / "out").exists()

    def test_a_lock_says_what_is_there_as_far_as_this_side_knows(self, near: Store, far: Store, tmp_path: Path) -> None:
        lock = lock_of(far, tmp_path / "far.lock")
        done = run("export", "--all", tmp_path / "d.tar", "--have", lock, "--models", near.root)
        assert done.returncode == 3
        assert f"own:latest ({digest_of(far, 'own:latest')})" in done.stderr
        lock.write_bytes(b"".join(line for line in lock.read_bytes().splitlines(keepends=True) if b"kept" in line))
        done = run("export", "--all", tmp_path / "d.tar", "--have", lock, "--models", near.root)
        assert "1 blob, 90 KB" in done.stdout


def near_size(store: Store) -> int:
    return sum(path.stat().st_size for path in (store.root / "blobs").iterdir())


class TestLock:
    def test_it_is_printed(self, near: Store) -> None:
        lines = [f"{digest_of(near, name)}  {full(name)}\n" for name in ("kept:latest", "new:latest")]
        assert run("lock", "--models", near.root).stdout == "".join(lines)
        assert run("lock", "new", "--models", near.root).stdout == lines[1]
        assert run("lock", "nobody", "--models", near.root).returncode == 3

    def test_an_update_shows_the_change_and_keeps_remarks(self, near: Store, tmp_path: Path) -> None:
        lock = tmp_path / "models.lock"
        done = run("lock", "--update", lock, "--models", near.root)
        assert done.stdout.splitlines()[-1] == f"{lock}: 2 added; 2 models"
        old = digest_of(near, "new:latest")
        lock.write_text(f"# ours\n{lock.read_text()}")
        near.model("new:latest", b"another version")
        near.model("third:latest", b"third")
        near.manifest_path(full("kept:latest")).unlink()
        before = lock.read_bytes()
        dry = run("lock", "--update", lock, "-n", "--models", near.root)
        assert lock.read_bytes() == before
        assert "would be 1 added, 1 changed, 1 removed" in dry.stdout
        done = run("lock", "--update", lock, "--models", near.root)
        assert done.stdout.splitlines()[1:3] == [
            f"-{old}  {full('new:latest')}",
            f"+{digest_of(near, 'new:latest')}  {full('new:latest')}",
        ]
        assert done.stdout.splitlines()[-1] == f"{lock}: 1 added, 1 changed, 1 removed; 2 models"
        assert lock.read_text().startswith("# ours\n")
        again = run("lock", "--update", lock, "--models", near.root)
        assert again.stdout == f"{lock}: nothing changed; 2 models\n"
        assert run("lock", "-q", "--update", lock, "--models", near.root).stdout == ""

    def test_an_update_of_one_model_leaves_the_others(self, near: Store, tmp_path: Path) -> None:
        lock = lock_of(near, tmp_path / "models.lock")
        near.model("new:latest", b"another version")
        near.manifest_path(full("kept:latest")).unlink()
        run("lock", "new", "--update", lock, "--models", near.root)
        assert len(LockFile.parse(lock.read_bytes()).models) == 2
        assert digest_of(near, "new:latest") in lock.read_text()

    @pytest.mark.parametrize("content", [b"", b"# nothing yet\n"], ids=["empty", "remarks"])
    def test_one_without_a_line_locks_nothing(self, near: Store, tmp_path: Path, content: bytes) -> None:
        lock = tmp_path / "models.lock"
        lock.write_bytes(content)
        for line in ("verify", "export x.tar", f"import {near.root}", f"import {near.root} none"):
            done = run(*line.split(), "--lock", lock, "--models", near.root, cwd=tmp_path)
            assert (done.returncode, "got none" in done.stderr) == (12, True), done.stderr
        for line in ("diff", "outdated --against", "export --all x.tar --have"):
            assert run(*line.split(), lock, "--models", near.root, cwd=tmp_path).returncode == 12
        assert not (tmp_path / "x.tar").exists()
        # To begin one like that is fine.
        assert run("lock", "--update", lock, "--models", near.root).returncode == 0
        assert lock.read_bytes() == content + ostore.lock(models=near.root).document

    def test_an_update_needs_a_file(self, near: Store, tmp_path: Path) -> None:
        done = run("lock", "--update", "-", "--models", near.root, cwd=tmp_path)
        assert (done.returncode, "expected a file" in done.stderr) == (2, True)
        assert not (tmp_path / "-").exists()

    def test_what_is_no_lock_is_left_alone(self, near: Store, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_bytes(b"notes\n")
        (tmp_path / "link").symlink_to("notes.txt")
        for name, code in (("notes.txt", 12), ("link", 2), (".", 2), ("none/x", 3)):
            assert run("lock", "--update", tmp_path / name, "--models", near.root).returncode == code
        assert (tmp_path / "notes.txt").read_bytes() == b"notes\n"
        assert run("lock", "-n", "--models", near.root).returncode == 2

    def test_what_a_killed_update_has_left_is_taken_over(self, near: Store, tmp_path: Path) -> None:
        lock, part = tmp_path / "models.lock", tmp_path / ".models.lock.part"
        part.write_bytes(b"much more than a lock " * 1000)
        ostore.lock(update=lock, models=near.root)
        assert lock.read_bytes() == ostore.lock(models=near.root).document
        lock.unlink()
        # One with a second name may be somebody's file.
        part.write_bytes(b"mine")
        (tmp_path / "mine").hardlink_to(part)
        ostore.lock(update=lock, models=near.root)
        assert ((tmp_path / "mine").read_bytes(), part.exists()) == (b"mine", False)

    def test_two_updates_at_once_do_not_mix(self, near: Store, tmp_path: Path) -> None:
        lock, part = tmp_path / "models.lock", tmp_path / ".models.lock.part"
        with part.open("wb") as file:
            assert try_lock(file.fileno())
            done = run("lock", "--update", lock, "--models", near.root)
        assert (done.returncode, lock.exists()) == (6, False)

    def test_a_manifest_that_cannot_be_read_loses_no_line(self, near: Store, tmp_path: Path) -> None:
        lock = lock_of(near, tmp_path / "models.lock")
        before = lock.read_bytes()
        near.manifest_path(full("new:latest")).write_bytes(b"")
        done = run("lock", "--update", lock, "--models", near.root)
        assert (done.returncode, lock.read_bytes()) == (10, before)
        assert run("lock", "kept", "--update", lock, "--models", near.root).returncode == 0

    def test_export_takes_the_models_of_the_lock(self, near: Store, tmp_path: Path) -> None:
        lock = tmp_path / "models.lock"
        lock.write_bytes(ostore.lock(["new"], models=near.root).document)
        bundle = tmp_path / "b.tar"
        assert "exported 1 model" in run("export", "--lock", lock, bundle, "--models", near.root).stdout
        done = run("export", "kept", bundle, "--replace", "--lock", lock, "--models", near.root)
        assert (done.returncode, "has no line for kept:latest" in done.stderr) == (3, True)
        assert run("export", "--all", bundle, "--lock", lock, "--models", near.root).returncode == 3
        assert run("export", "new", bundle, "--replace", "--lock", lock, "--models", near.root).returncode == 0
        assert run("export", bundle, "--models", near.root).returncode == 2

    def test_export_refuses_what_is_not_that_of_the_lock(self, near: Store, tmp_path: Path) -> None:
        lock = lock_of(near, tmp_path / "models.lock")
        old = digest_of(near, "new:latest")
        near.model("new:latest", b"another version")
        done = run("export", "--lock", lock, tmp_path / "b.tar", "--models", near.root)
        assert done.returncode == 4
        assert f"new:latest: expected {old}, got {digest_of(near, 'new:latest')}" in done.stderr
        near.manifest_path(full("new:latest")).unlink()
        done = run("export", "--lock", lock, tmp_path / "b.tar", "--models", near.root)
        assert (done.returncode, f"new:latest ({old})" in done.stderr) == (3, True)
        assert not (tmp_path / "b.tar").exists()

    def test_import_takes_exactly_the_models_of_the_lock(self, near: Store, far: Store, tmp_path: Path) -> None:
        bundle = bundled(near, tmp_path / "b.tar.zst")
        lock = tmp_path / "models.lock"
        lock.write_bytes(ostore.lock(["new"], models=near.root).document)
        empty = tmp_path / "empty"
        done = run("import", bundle, "--lock", lock, "--models", empty)
        assert "imported 1 model" in done.stdout
        assert f"warning: kept:latest: not taken: no line in {lock}" in done.stderr
        # What the source does not have may be there already.
        ostore.export(["kept"], tmp_path / "kept.tar", models=near.root)
        whole = lock_of(near, tmp_path / "whole.lock")
        assert run("import", tmp_path / "kept.tar", "--lock", whole, "--models", empty).returncode == 0
        other = lock_of(far, tmp_path / "far.lock")
        done = run("import", bundle, "--lock", other, "--models", tmp_path / "none")
        assert (done.returncode, f"own:latest ({digest_of(far, 'own:latest')})" in done.stderr) == (3, True)
        assert not (tmp_path / "none").exists()
        assert run("import", bundle, "--lock", lock, "--model", "kept", "--models", empty).returncode == 3

    def test_import_refuses_another_manifest(self, near: Store, tmp_path: Path) -> None:
        lock = lock_of(near, tmp_path / "models.lock")
        near.model("new:latest", b"another version")
        bundle = bundled(near, tmp_path / "b.tar.zst")
        done = run("import", bundle, "--lock", lock, "--models", tmp_path / "none")
        assert (done.returncode, "new:latest: expected" in done.stderr) == (4, True)
        assert not (tmp_path / "none").exists()

    def test_of_several_sources_the_lock_holds_for_all(self, near: Store, tmp_path: Path) -> None:
        lock = lock_of(near, tmp_path / "models.lock")
        parts = []
        for name in ("kept", "new"):
            ostore.export([name], tmp_path / f"{name}.tar", models=near.root)
            parts.append(tmp_path / f"{name}.tar")
        empty = tmp_path / "empty"
        assert run("import", *parts, "--lock", lock, "--models", empty).returncode == 0
        assert ostore.diff(near.root, empty).models == ()
        assert run("import", *parts[:1] * 2, "--lock", lock, "--models", tmp_path / "none").returncode == 3
        assert run("import", parts[0], "-", "--lock", lock, "--models", empty).returncode == 2
        done = run("import", *parts, "--model", "new", "--lock", lock, "--models", tmp_path / "one")
        assert "imported 1 model" in done.stdout

    def test_volumes_in_several_folders_are_held_against_it(self, near: Store, tmp_path: Path) -> None:
        lock = lock_of(near, tmp_path / "models.lock")
        near.model("new:latest", b"another version")
        media = [tmp_path / "a", tmp_path / "b"]
        for folder in media:
            folder.mkdir()
        ostore.export(["*"], "x.tar.zst", split=100_000, to=media, models=near.root)
        volumes, target = [media[0] / "x.tar.zst.001", media[1] / "x.tar.zst.002"], tmp_path / "none"
        for words in ([volumes[0], media[1]], volumes, [media[0] / "x.tar.zst", *media]):
            done = run("import", *words, "--lock", lock, "--models", target)
            assert (done.returncode, "new:latest: expected" in done.stderr) == (4, True), words
            absent = run("import", *words, "--lock", tmp_path / "absent", "--models", target)
            assert (absent.returncode, "absent: no such file" in absent.stderr) == (3, True), absent.stderr
        assert not target.exists()
        # As a variable that is not set leaves it.
        assert run("import", volumes[0], "", "--models", target).returncode == 2
        done = run("import", volumes[0], media[1], "--lock", lock, "--model", "kept", "--models", target)
        assert "imported 1 model" in done.stdout

    def test_one_volume_cannot_be_held_against_it(self, near: Store, tmp_path: Path) -> None:
        lock, bundle = lock_of(near, tmp_path / "models.lock"), tmp_path / "x.tar.zst"
        ostore.export(["*"], bundle, split=100_000, models=near.root)
        for words in ([f"{bundle}.001"], ["kept", f"{bundle}.001"]):
            done = run("verify", *words, "--lock", lock, "--models", near.root)
            assert (done.returncode, done.stdout) == (2, "")
            assert f"(ostore verify --lock {lock} {bundle} " in done.stderr
        assert run("verify", "--lock", lock, bundle, "--models", near.root).returncode == 0

    def test_verify_holds_a_store_and_a_bundle_against_it(self, near: Store, far: Store, tmp_path: Path) -> None:
        lock, bundle = lock_of(near, tmp_path / "models.lock"), bundled(near, tmp_path / "b.tar.zst")
        assert run("verify", "--lock", lock, "--models", near.root).returncode == 0
        assert run("verify", bundle, near.root, "--lock", lock, "--models", near.root).returncode == 0
        done = run("verify", "--lock", lock, "--models", far.root)
        assert done.returncode == 3
        assert f"lock-missing: new:latest: expected {digest_of(near, 'new:latest')} ({lock})" in done.stdout
        # Only the models of the lock are hashed.
        assert "verified 1 model, 3 blobs" in done.stdout
        old = digest_of(near, "new:latest")
        far.model("new:latest", b"another version")
        done = run("verify", "--lock", lock, "--models", far.root)
        assert done.returncode == 4
        assert f"expected {old} ({lock}), got {digest_of(far, 'new:latest')}" in done.stdout
        assert run("verify", "kept", "--lock", lock, "--models", far.root).returncode == 0
        other = bundled(far, tmp_path / "far.tar.zst")
        assert run("verify", other, "--lock", lock, "--models", far.root).returncode == 4
        (tmp_path / "none/manifests").mkdir(parents=True)
        assert run("verify", "--lock", lock, "--models", tmp_path / "none").returncode == 3

    def test_a_manifest_of_the_lock_that_is_broken_is_not_that_manifest(self, near: Store, tmp_path: Path) -> None:
        lock = lock_of(near, tmp_path / "models.lock")
        near.manifest_path(full("new:latest")).write_bytes(b"{")
        done = run("verify", "--lock", lock, "--models", near.root)
        assert (done.returncode, "manifest-damaged" in done.stdout, "lock-different" in done.stdout) == (4, True, True)

    def test_a_lock_on_standard_input(self, near: Store, tmp_path: Path) -> None:
        with lock_of(near, tmp_path / "models.lock").open("rb") as file:
            command = [*OSTORE, "verify", "--lock", "-", "--models", str(near.root)]
            assert subprocess.run(command, stdin=file, check=False, capture_output=True).returncode == 0


# Where the stream is cut: 30 places for `make torture`.
CUTS = 30 if TORTURE else 8


@pytest.mark.parametrize("seed", range(CUTS))
def test_a_stream_that_is_cut_off_is_finished_by_the_next(tmp_path: Path, seed: int) -> None:
    near, far = Store(tmp_path / "near"), tmp_path / "far"
    for number in range(4):
        near.add(
            full(f"m{number}:latest"),
            near.layer(MODEL, noise(40_000, number)),
            near.layer(MODEL, noise(30_000, number // 2)),
            config=near.config(model_type=str(number)),
        )
    stream = subprocess.run(
        [*OSTORE, "export", "--all", "-", "--models", near.root], capture_output=True, check=True
    ).stdout
    cut = random.Random(seed).randrange(len(stream))
    first = piped(stream[:cut], far)
    assert first.returncode in {4, 12}, first.stderr
    assert not list((far / "manifests").rglob("*")) if far.exists() else True

    lines = first.stdout.decode().splitlines()
    if first.stdout:
        lock = LockFile.parse(first.stdout)
        assert [model.digest for model in lock.models] == [
            Digest.parse(digest_of(near, f"m{number}:latest")) for number in range(4)
        ]
        staged = {path.name for path in far.rglob("sha256-*")}
        lacking = {line.removeprefix("# lacks sha256:") for line in lines if line.startswith("# lacks ")}
        assert {f"sha256-{digits}" for digits in lacking} | staged == {
            path.name for path in (near.root / "blobs").iterdir()
        }
        assert not {f"sha256-{digits}" for digits in lacking} & staged

    second = piped(stream, far)
    assert second.returncode == 0, second.stderr
    assert ostore.diff(near.root, far).models == ()
    assert ostore.verify(models=far)[0].verdict == "whole"


def piped(stream: bytes, models: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [*OSTORE, "import", "-", "--models", str(models), *options]
    return subprocess.run(command, input=stream, capture_output=True, check=False, timeout=120)


def test_finished_blobs_of_a_cut_stream_are_not_asked_for(near: Store, tmp_path: Path) -> None:
    stream = subprocess.run(
        [*OSTORE, "export", "--all", "-", "--models", near.root], capture_output=True, check=True
    ).stdout
    # Weights do not shrink, so their bytes are in the stream.
    done = piped(stream[: stream.index(NEW[:100]) + 100], tmp_path / "far")
    assert f"# lacks {of(NEW)}" in done.stdout.decode()
    assert of(OLD) not in done.stdout.decode()
    assert b"resumed" in piped(stream, tmp_path / "far").stdout


def test_a_new_store_whose_first_stream_was_cut_off_is_a_store(near: Store, tmp_path: Path) -> None:
    stream = subprocess.run(
        [*OSTORE, "export", "--all", "-", "--models", near.root], capture_output=True, check=True
    ).stdout
    new = tmp_path / "new"
    done = piped(stream[: stream.index(NEW[:100]) + 100], new, "--json")
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["lacking"] == [of(NEW)]
    assert told["resend"] == [
        {"name": full(name), "digest": digest_of(near, name)} for name in ("kept:latest", "new:latest")
    ]
    # Ollama sees nothing of it.
    assert [path.name for path in new.iterdir()] == [".ostore"]
    staged = json.loads(run("inventory", "--models", new).stdout)["blobs"]
    assert (of(OLD), True) in {(blob["digest"], blob["staged"]) for blob in staged}
    assert run("doctor", "--models", new).returncode == 0
    assert run("gc", "--yes", "--models", new).returncode == 0
    assert json.loads(run("inventory", "--models", new).stdout)["blobs"] == []
