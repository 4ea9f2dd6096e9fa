"""Blobs that share tensors travel as recipes, and come out whole, or the command says what is missing."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import ostore
from ostore.api.addresses import opened_bundle
from ostore.formats.bundle_index import BundleIndex
from ostore.formats.errors import BasisMissingError, BlobError, NoSpaceError, UsageError
from ostore.formats.selection import Wanted
from ostore.places.bundle import restore
from ostore.streams.bytes_at import nothing_held
from tests.gguf import ONE_LAYER, Tensor, gguf
from tests.hostile.recipes import MADE, Forged
from tests.hostile.rows import OLD_WEIGHTS
from tests.recipes import NEW, OLD, TEMPLATE, delta, digest_of, two_releases, weights
from tests.support import MODEL, OSTORE, Store, noise, tree
from tests.support import ostore as run

RENAMED = weights(prefix="model.")
ALIGNED = weights(alignment=64)
pytestmark = pytest.mark.usefixtures("_process_as_before")


@pytest.fixture
def near(tmp_path: Path) -> Store:
    """A store with a model, its re-release and two more of the same tensors."""
    store = two_releases(tmp_path / "near")
    store.model("renamed:latest", RENAMED)
    store.model("aligned:latest", ALIGNED)
    return store


@pytest.fixture
def far(tmp_path: Path) -> Store:
    """A store with the first release."""
    store = Store(tmp_path / "far")
    store.model("tiny:old", OLD, template=b"{{ .Prompt }}")
    return store


@pytest.fixture(params=["b.tar", "b.tar.zst"])
def shared(near: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A bundle of all of them."""
    path = tmp_path / str(request.param)
    done = run("export", "--all", path, "--share-tensors", "--models", near.root)
    assert done.returncode == 0, done.stderr
    return path


def index_of(bundle: Path) -> BundleIndex:
    with opened_bundle(bundle, jobs=1) as reader:
        return reader.index


def piped(bundle: Path, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    with bundle.open("rb") as pipe:
        return subprocess.run([*OSTORE, "import", "-", *words], stdin=pipe, capture_output=True, check=False)


def verdict(store: Path) -> str:
    return ostore.verify(models=store)[0].verdict


class Done(NamedTuple):
    returncode: int
    stderr: str


def restored(bundle: Path, store: Path, *words: str) -> Done:
    """Run the script that is in every bundle, in this process."""
    told = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        return Done(restore.main([str(bundle), "--models", str(store), *words]), told.getvalue())


def test_tensors_that_models_share_are_stored_once(near: Store, tmp_path: Path) -> None:
    report = ostore.export(["*"], tmp_path / "b.tar", share_tensors=True, models=near.root)
    assert (report.blobs, report.recipes) == (6, 3)
    assert report.recipe_size < 3 * 2000
    assert report.bundle_size
    assert report.bundle_size < len(OLD) + 120_000
    again = ostore.export(["*"], tmp_path / "again.tar", share_tensors=True, models=near.root)
    assert again.recipe_size == report.recipe_size
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_shared_bundle_is_imported_whole(near: Store, shared: Path, tmp_path: Path) -> None:
    done = run("import", shared, "--models", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "other") == tree(near.root)


def test_a_shared_bundle_is_imported_from_a_pipe(near: Store, tmp_path: Path) -> None:
    ostore.export(["*"], tmp_path / "b.tar.zst", share_tensors=True, models=near.root)
    done = piped(tmp_path / "b.tar.zst", "--models", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "other") == tree(near.root)


def test_one_model_of_a_shared_bundle_is_made_of_what_is_in_the_file(shared: Path, tmp_path: Path) -> None:
    done = run("import", shared, "--model", "renamed", "--models", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    weights = [path for path in (tmp_path / "other/blobs").iterdir() if path.stat().st_size > len(OLD) // 2]
    assert [path.name for path in weights] == [digest_of(RENAMED).filename]
    assert verdict(tmp_path / "other") == "whole"


def test_from_a_pipe_it_is_refused_if_its_basis_is_passed_over(shared: Path, far: Store, tmp_path: Path) -> None:
    words = ("--model", "renamed", "--models")
    bases = {digest for made in index_of(shared).selection.recipes for digest in made.bases}
    done = piped(shared, *words, tmp_path / "other")
    assert (done.returncode, len(bases)) == (3, 1)
    assert str(bases.pop()) in done.stderr.decode()
    assert not (tmp_path / "other").exists()
    everything = piped(shared, "--models", far.root)
    assert everything.returncode == 0, everything.stderr
    # Now the basis is in the store.
    run("rm", "--yes", "renamed", "--models", far.root)
    assert piped(shared, *words, far.root).returncode == 0
    assert verdict(far.root) == "whole"


def test_a_delta_makes_a_re_release_of_what_is_there(near: Store, far: Store, tmp_path: Path) -> None:
    bundle = delta(near, tmp_path / "d.tar.zst")
    [made] = index_of(bundle).selection.recipes
    assert (made.blob.digest, made.bases) == (digest_of(NEW), (digest_of(OLD),))
    assert made.stored.size < 300
    assert run("inspect", bundle).stdout.count("makes 1 blob of parts of others; requires 1 blob on the target") == 1
    done = run("import", bundle, "--models", far.root)
    assert done.returncode == 0, done.stderr
    assert far.blob_path(NEW).read_bytes() == NEW
    assert verdict(far.root) == "whole"
    assert not list((far.root / ".ostore/tx").iterdir())


def test_a_delta_is_refused_before_a_byte_is_written_if_its_basis_is_missing(near: Store, tmp_path: Path) -> None:
    bundle = delta(near, tmp_path / "d.tar.zst")
    other = Store(tmp_path / "other")
    other.model("mine:latest", b"other weights")
    before = tree(other.root, without=())
    for words in (("import", bundle), ("import", bundle, "--trust-existing")):
        done = run(*words, "--models", other.root)
        assert done.returncode == 3, done.stderr
        assert str(digest_of(OLD)) in done.stderr
    assert restored(bundle, other.root).returncode == 3
    assert tree(other.root) == {path: what for path, what in before.items() if not path.startswith(".ostore")}


def test_a_delta_that_is_there_already_needs_no_basis(near: Store, far: Store, tmp_path: Path) -> None:
    bundle = delta(near, tmp_path / "d.tar.zst")
    assert run("import", bundle, "--models", far.root).returncode == 0
    far.manifest_path("registry.ollama.ai/library/tiny:old").unlink()
    far.blob_path(OLD).unlink()
    done = run("import", bundle, "--models", far.root, "--json")
    assert done.returncode == 0, done.stderr
    assert [model["outcome"] for model in json.loads(done.stdout)["imports"][0]["models"]] == ["already there"]
    assert restored(bundle, far.root).returncode == 0


@pytest.mark.parametrize("at", [0.1, 0.9], ids=["a copied byte", "the header"])
def test_a_damaged_basis_is_named(near: Store, far: Store, tmp_path: Path, at: float) -> None:
    bundle = delta(near, tmp_path / "d.tar.zst")
    damaged = bytearray(OLD)
    damaged[int(len(OLD) * at)] ^= 1
    far.blob_path(OLD).write_bytes(damaged)
    before = tree(far.root)
    done = run("import", bundle, "--models", far.root)
    assert done.returncode == 4
    assert f"blob {digest_of(OLD)} in the store is damaged" in done.stderr
    script = restored(bundle, far.root)
    assert script.returncode == 4
    assert f"{digest_of(OLD)} in the store is damaged" in script.stderr
    assert tree(far.root) == before


def test_a_basis_that_a_model_of_the_bundle_needs_is_hashed_first(near: Store, far: Store, tmp_path: Path) -> None:
    near.model("both:latest", OLD, system=b"hi")
    bundle = delta(near, tmp_path / "d.tar.zst", ("tiny:new",))
    far.blob_path(OLD).write_bytes(bytes(len(OLD)))
    assert run("import", bundle, "--models", far.root).returncode == 4


def test_a_recipe_with_other_new_bytes_is_refused(near: Store, far: Store, tmp_path: Path) -> None:
    bundle = delta(near, tmp_path / "d.tar")
    [made] = index_of(bundle).selection.recipes
    content = bytearray(bundle.read_bytes())
    start = content.index(b'{"steps":')
    content[start + made.stored.size - 1] ^= 1
    bundle.write_bytes(content)
    done = run("import", bundle, "--models", far.root)
    assert done.returncode == 4
    assert f"recipe for {digest_of(NEW)}" in done.stderr
    assert restored(bundle, far.root).returncode == 4
    assert not far.blob_path(NEW).exists()


def test_the_script_says_whether_the_recipe_or_a_base_is_wrong(tmp_path: Path) -> None:
    bundle, store, other = tmp_path / "b.tar", Store(tmp_path / "far"), noise(len(OLD_WEIGHTS), 9)
    store.blob(OLD_WEIGHTS)
    bundle.write_bytes(Forged(made=MADE[:-1] + b"!").built())
    done = restored(bundle, store.root)
    assert (done.returncode, "it makes other bytes" in done.stderr) == (4, True)
    bases = (OLD_WEIGHTS, other)
    bundle.write_bytes(Forged(made=MADE[:-1] + b"!", bases=bases, requires=bases).built())
    store.blob(other)
    store.blob_path(other).write_bytes(bytes(len(other)))
    done = restored(bundle, store.root)
    assert (done.returncode, f"{digest_of(other)} in the store is damaged" in done.stderr) == (4, True)


def test_the_script_restores_what_models_share(near: Store, shared: Path, tmp_path: Path) -> None:
    done = restored(shared, tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "other") == tree(near.root)
    assert restored(shared, tmp_path / "other").returncode == 0


def test_the_script_does_that_with_a_bare_python(near: Store, tmp_path: Path) -> None:
    bundle = delta(near, tmp_path / "d.tar")
    Store(tmp_path / "other").model("tiny:old", OLD)
    done = subprocess.run(
        [sys.executable, "-I", "-S", restore.__file__, bundle, "--models", tmp_path / "other"], check=False
    )
    assert done.returncode == 0
    assert Store(tmp_path / "other").blob_path(NEW).read_bytes() == NEW


def test_the_script_makes_a_re_release_of_what_is_there(near: Store, far: Store, tmp_path: Path) -> None:
    bundle = delta(near, tmp_path / "d.tar")
    assert restored(bundle, far.root, "--verify-only").returncode == 0
    done = restored(bundle, far.root)
    assert done.returncode == 0, done.stderr
    assert far.blob_path(NEW).read_bytes() == NEW
    assert verdict(far.root) == "whole"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs GNU tar and sha256sum")
def test_tar_lists_no_model_that_it_cannot_make(near: Store, tmp_path: Path) -> None:
    bundle = delta(near, tmp_path / "d.tar")
    (tmp_path / "empty").mkdir()
    subprocess.run(["tar", "-xmof", bundle, "-C", tmp_path / "empty"], check=True)
    assert run("list", "-q", "--models", tmp_path / "empty").stdout == ""
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "ostore/SHA256SUMS"], cwd=tmp_path / "empty", check=False)
    assert sums.returncode == 0
    assert "tar alone cannot" in (tmp_path / "empty/ostore/RESTORE.txt").read_text()


def test_verify_hashes_what_it_can(near: Store, far: Store, shared: Path, tmp_path: Path) -> None:
    whole = run("verify", shared, "--models", tmp_path)
    assert (whole.returncode, "6 blobs" in whole.stdout, "warning" in whole.stderr) == (0, True, False)
    bundle = delta(near, tmp_path / "d.tar")
    elsewhere = run("verify", bundle, "--models", tmp_path)
    assert (elsewhere.returncode, "2 blobs" in elsewhere.stdout) == (0, True)
    assert "needs 1 blob elsewhere" in elsewhere.stderr
    assert "1 blob not checked" in elsewhere.stderr
    here = run("verify", bundle, "--models", far.root)
    assert (here.returncode, "3 blobs" in here.stdout, "warning" in here.stderr) == (0, True, False)
    far.blob_path(OLD).write_bytes(bytes(len(OLD)))
    damaged = run("verify", bundle, "--models", far.root)
    assert (damaged.returncode, "1 blob not checked" in damaged.stderr) == (0, True)
    for done in (elsewhere, damaged):
        assert "whole, but 1 blob not checked" in done.stdout


def test_verify_excuses_no_recipe_that_is_wrong_itself(near: Store, far: Store, tmp_path: Path) -> None:
    """A damaged basis says nothing of the recipe as it is stored."""
    bundle = delta(near, tmp_path / "d.tar")
    [made] = index_of(bundle).selection.recipes
    content = bytearray(bundle.read_bytes())
    content[content.index(b'{"steps":') + made.stored.size - 1] ^= 1
    bundle.write_bytes(content)
    far.blob_path(OLD).write_bytes(bytes(len(OLD)))
    for models in (far.root, tmp_path):
        done = run("verify", bundle, "--models", models)
        assert (done.returncode, "not checked" in done.stdout) == (4, False)
        assert f"recipe for {digest_of(NEW)}: its bytes have another digest" in done.stdout
        assert str(made.stored.digest) not in done.stdout


def test_verify_looks_for_damage_below_the_bases(far: Store, tmp_path: Path) -> None:
    """A recipe on top of a recipe whose basis is damaged in the store."""
    files = [gguf_of(1, 2), gguf_of(2, 3), gguf_of(3, 4)]
    store = Store(tmp_path / "models")
    for number, data in enumerate(files):
        store.model(f"m:{number}", data)
    far.model("m:0", files[0])
    bundle = tmp_path / "b.tar"
    ostore.export(["m:1", "m:2"], bundle, have=[far.root], share_tensors=True, models=store.root)
    assert len(index_of(bundle).selection.recipes) == 2
    assert run("verify", bundle, "--models", far.root).returncode == 0
    far.blob_path(files[0]).write_bytes(bytes(len(files[0])))
    damaged = run("verify", bundle, "--models", far.root)
    assert (damaged.returncode, "whole, but 2 blobs not checked" in damaged.stdout) == (0, True)


def test_a_basis_that_is_nowhere_comes_with_what_to_type(near: Store, tmp_path: Path) -> None:
    with opened_bundle(delta(near, tmp_path / "d.tar"), jobs=1) as reader:
        [made] = reader.index.selection.recipes
        [(_, chunks)] = reader.read_blobs([Wanted(made.blob)], nothing_held)
        with pytest.raises(BasisMissingError, match=str(digest_of(OLD))) as raised:
            list(chunks)
    assert "ostore export tiny:new missing.tar.zst" in str(raised.value.hint)


def test_verify_finds_a_recipe_that_is_damaged(near: Store, far: Store, tmp_path: Path) -> None:
    bundle = delta(near, tmp_path / "d.tar")
    content = bundle.read_bytes()
    start = content.index(b'{"steps":')
    bundle.write_bytes(content[:start] + b'{"stepz":' + content[start + 9 :])
    for models in (far.root, tmp_path):
        done = run("verify", bundle, "--models", models)
        assert done.returncode in {4, 12}, done.stdout


def test_a_folder_and_plain_files_have_their_blobs_whole(near: Store, tmp_path: Path) -> None:
    for more in ((), ("--as", "gguf")):
        done = run("export", "--all", f"{tmp_path}/out/", "--share-tensors", *more, "--models", near.root)
        assert done.returncode == 2
        assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError):
        ostore.export(["*"], f"{tmp_path}/out/", share_tensors=True, models=near.root)


def test_a_damaged_blob_ends_the_export_or_leaves_its_models_out(near: Store, tmp_path: Path) -> None:
    damaged = bytearray(NEW)
    damaged[-40] ^= 1
    near.blob_path(NEW).write_bytes(damaged)
    with pytest.raises(BlobError, match="tiny:new"):
        ostore.export(["tiny:old", "tiny:new"], tmp_path / "b.tar", share_tensors=True, models=near.root)
    assert not list(tmp_path.glob("b.tar*"))
    report = ostore.export(["*"], tmp_path / "b.tar", share_tensors=True, models=near.root)
    assert ([one.name for one in report.left_out], report.recipes) == (["tiny:new"], 2)
    assert run("import", tmp_path / "b.tar", "--models", tmp_path / "other").returncode == 0


def test_repair_takes_what_a_file_makes_of_itself(near: Store, shared: Path) -> None:
    near.blob_path(RENAMED).write_bytes(bytes(len(RENAMED)))
    done = run("repair", "--from", shared, "--models", near.root)
    assert done.returncode == 0, done.stderr
    assert near.blob_path(RENAMED).read_bytes() == RENAMED


def test_repair_names_what_takes_a_blob_that_needs_a_basis(near: Store, far: Store, tmp_path: Path) -> None:
    bundle = delta(near, tmp_path / "d.tar")
    near.blob_path(NEW).write_bytes(bytes(len(NEW)))
    done = run("repair", "--from", bundle, "--models", near.root)
    assert done.returncode == 4, done.stderr
    assert f"ostore import {bundle} --model tiny:new" in done.stdout
    told = json.loads(run("repair", "--from", bundle, "--json", "--models", near.root).stdout)
    [[_, *words]] = told["remedy_arguments"]
    assert run(*words).returncode == 0
    assert near.blob_path(NEW).read_bytes() == NEW
    near.blob_path(b"{{ .Prompt }}").unlink()
    assert "->" not in run("repair", "--from", far.root, "--models", near.root).stdout


def test_models_without_common_tensors_travel_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    for seed in (1, 2):
        store.model(f"m:{seed}", weights(seed=seed))
    store.model("m:3", noise(100_000))
    ostore.export(["*"], tmp_path / "plain.tar", models=store.root)
    report = ostore.export(["*"], tmp_path / "shared.tar", share_tensors=True, models=store.root)
    assert report.recipes == 0
    assert (tmp_path / "shared.tar").read_bytes() == (tmp_path / "plain.tar").read_bytes()


def test_a_long_line_of_releases_is_no_tower(tmp_path: Path) -> None:
    """Each has the tensors of all others, so that all but one are made of that one."""
    store = Store(tmp_path / "models")
    for number in range(12):
        store.model(f"tiny:{number}", weights(TEMPLATE + str(number)))
    report = ostore.export(["*"], tmp_path / "b.tar", share_tensors=True, models=store.root)
    assert report.recipes == 11
    assert {made.bases for made in index_of(tmp_path / "b.tar").selection.recipes} == {
        (digest_of(weights(TEMPLATE + "0")),)
    }


def built_on(store: Store, bundle: Path, *have: Path, names: tuple[str, ...] = ("tiny:new",)) -> int:
    """Export a delta for whoever has these; the number of bytes of its recipes."""
    report = ostore.export(names, bundle, have=have, models=store.root, replace=True)
    assert (report.blobs, report.recipes, report.required) == (1, 1, 3)
    return report.recipe_size


def test_a_delta_builds_on_whatever_says_what_the_target_has(near: Store, far: Store, tmp_path: Path) -> None:
    """The bytes of the basis are in the near store, in an earlier bundle, or in the other store itself."""
    have, tensors, old = tmp_path / "have.json", tmp_path / "tensors.json", tmp_path / "old.tar.zst"
    have.write_bytes(ostore.inventory(models=far.root).document)
    tensors.write_bytes(ostore.inventory(tensors=True, models=far.root).document)
    ostore.export(["tiny:old"], old, models=near.root)
    small = built_on(near, tmp_path / "d.tar", have)
    assert small < 300
    assert built_on(near, tmp_path / "d.tar", tensors) == small
    # Now the near store has lost the basis.
    near.manifest_path("registry.ollama.ai/library/tiny:old").unlink()
    near.blob_path(OLD).unlink()
    assert built_on(near, tmp_path / "d.tar", old) == small
    assert built_on(near, tmp_path / "d.tar", far.root) == small
    assert small < built_on(near, tmp_path / "d.tar", tensors) < 3000
    assert ostore.import_bundle(tmp_path / "d.tar", models=far.root).blobs_written == 1
    assert far.blob_path(NEW).read_bytes() == NEW
    report = ostore.export(["tiny:new"], tmp_path / "d.tar", have=[have], models=near.root, replace=True)
    assert report.recipes == 0


def test_a_delta_builds_on_what_an_earlier_delta_made(near: Store, far: Store, tmp_path: Path) -> None:
    first, second = tmp_path / "first.tar.zst", tmp_path / "second.tar"
    ostore.export(["tiny:new"], first, have=[far.root], models=near.root)
    near.manifest_path("registry.ollama.ai/library/tiny:new").unlink()
    newest = weights(TEMPLATE + "the newest")
    near.model("tiny:newest", newest)
    ostore.export(["tiny:newest"], second, have=[first], models=near.root)
    assert {base for made in index_of(second).selection.recipes for base in made.bases} & {
        digest_of(NEW),
        digest_of(OLD),
    }
    assert ostore.import_bundle(first, models=far.root).blobs_written == 1
    assert ostore.import_bundle(second, models=far.root).blobs_written == 1
    assert far.blob_path(newest).read_bytes() == newest


def test_a_basis_whose_bytes_are_nowhere_is_required_from_the_bundle_that_has_it(near: Store, tmp_path: Path) -> None:
    """An earlier delta has only a recipe of it, and what that is made of is not here either."""
    first = delta(near, tmp_path / "first.tar")
    other = Store(tmp_path / "other")
    other.model("tiny:newest", weights(TEMPLATE + "the newest"))
    report = ostore.export(["*"], tmp_path / "second.tar", have=[first], models=other.root)
    assert report.recipes == 0


@pytest.mark.parametrize("name", ["t.tar", "t.tar.zst"])
def test_a_recipe_on_top_of_a_recipe_is_made_from_the_file_alone(tmp_path: Path, name: str) -> None:
    """The first has two tensors, the second these and others, the third those others."""
    files = [gguf_of(1, 2), gguf_of(2, 3), gguf_of(3, 4)]
    store = Store(tmp_path / "models")
    for number, data in enumerate(files):
        store.model(f"m:{number}", data)
    ostore.export(["*"], tmp_path / name, share_tensors=True, models=store.root)
    recipes = index_of(tmp_path / name).selection.recipes
    assert [made.bases for made in recipes] == [(digest_of(files[0]),), (digest_of(files[1]),)]
    done = run("import", tmp_path / name, "--model", "m:2", "--models", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert Store(tmp_path / "other").blob_path(files[2]).read_bytes() == files[2]
    assert run("import", tmp_path / name, "--models", tmp_path / "all").returncode == 0
    assert verdict(tmp_path / "all") == "whole"
    assert restored(tmp_path / name, tmp_path / "script").returncode == 0
    assert tree(tmp_path / "script") == tree(tmp_path / "all")
    assert run("verify", tmp_path / name, "--models", tmp_path).returncode == 0


def gguf_of(*seeds: int) -> bytes:
    """A file with a tensor for each seed."""
    tensors: dict[str, Tensor] = {
        f"blk.{seed}.weight": ((20_000,), [byte / 7 for byte in noise(20_000, seed)]) for seed in seeds
    }
    return gguf({**ONE_LAYER, "general.name": f"{seeds}"}, tensors)


def test_the_tower_of_recipes_ends_where_readers_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostore.operations.delta.planning.MAX_DEPTH", 1)
    store = Store(tmp_path / "models")
    for number in range(3):
        store.model(f"m:{number}", gguf_of(number, number + 1))
    report = ostore.export(["*"], tmp_path / "b.tar", share_tensors=True, models=store.root)
    assert report.recipes == 1


def test_more_blobs_than_files_that_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostore.streams.open_blobs._MAX_OPEN", 2)
    store = Store(tmp_path / "models")
    for number in range(5):
        store.model(f"m:{number}", gguf_of(number, 9))
    report = ostore.export(["*"], tmp_path / "b.tar", share_tensors=True, models=store.root)
    assert report.recipes == 4
    assert run("import", tmp_path / "b.tar", "--models", tmp_path / "other").returncode == 0
    assert tree(tmp_path / "other") == tree(store.root)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("is_delta", [True, False], ids=["of the store", "of what was written"])
def test_more_bases_than_files_that_a_process_may_open(tmp_path: Path, is_delta: bool) -> None:
    store = Store(tmp_path / "models")
    count = 80
    for model in ("old", "new"):
        files = [gguf({**ONE_LAYER, "general.name": model}, {f"blk.{n}.weight": tensor(n)}) for n in range(count)]
        store.add(f"registry.ollama.ai/library/{model}:latest", *(store.layer(MODEL, data) for data in files))
    other = tmp_path / "other"
    if is_delta:
        ostore.export(["old"], tmp_path / "old.tar", models=store.root)
        ostore.import_bundle(tmp_path / "old.tar", models=other)
        report = ostore.export(["new"], tmp_path / "b.tar", have=[other], models=store.root)
    else:
        report = ostore.export(["*"], tmp_path / "b.tar", share_tensors=True, models=store.root)
    assert report.recipes == count
    for words in (("verify", tmp_path / "b.tar"), ("import", tmp_path / "b.tar")):
        limited: list[str | Path] = [
            "bash",
            "-c",
            'ulimit -n 70 && exec "$@"',
            "bash",
            *OSTORE,
            *words,
            "--models",
            other,
        ]
        done = subprocess.run(limited, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert verdict(other) == "whole"


def tensor(seed: int) -> Tensor:
    return (3000,), [byte / 7 for byte in noise(3000, seed)]


def test_a_delta_needs_room_for_what_it_stores_only(
    near: Store, far: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has room for the recipe, and none for the blob."""
    whole = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: whole._replace(free=100_000))
    told: list[object] = []
    report = ostore.export(
        ["tiny:new"],
        tmp_path / "d.tar",
        have=[far.root],
        models=near.root,
        before=told.append,
    )
    assert (report.recipes, len(told)) == (1, 1)
    with pytest.raises(NoSpaceError):
        ostore.export(["tiny:new"], tmp_path / "whole.tar", models=near.root, before=told.append)
