"""`ostore sync` between stores, bundles, OCI image layouts and registries: what is missing comes, nothing else goes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

import ostore
from tests.false_registry import Answers, Asked, answer, false_registry, of_store
from tests.ports import free_port
from tests.registries import DockerRegistry, docker_registry, needs_registry
from tests.serving import posix, serving
from tests.support import OSTORE, Store, as_user, full, noise, sha256, six_kinds, tree
from tests.support import ostore as run

no_colons_there = pytest.mark.skipif(os.name == "nt", reason="the host of a name has a port, which no path can have")


IMAGE_LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{'a' * 64}", "size": 5}


@pytest.fixture
def near(tmp_path: Path) -> Store:
    """Three models, two of which share weights."""
    store = Store(tmp_path / "near")
    store.model("big:latest", noise(2_000_000), template=b"{{ .Prompt }}")
    store.model("big:small", noise(2_000_000), system=b"Say hi!")
    store.model("registry.ollama.ai/me/own:v1", noise(500_000, 2), template=b"{{ .Prompt }}")
    return store


@pytest.fixture
def far(tmp_path: Path) -> Store:
    """A store with one of the models, and one that the other side lacks. It shares its template."""
    store = Store(tmp_path / "far")
    store.model("big:latest", noise(2_000_000), template=b"{{ .Prompt }}")
    store.model("old:latest", b"old weights" * 10_000, template=b"{{ .Prompt }}")
    return store


def synced(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = run("sync", *words)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def document(*words: str | Path, code: int = 0) -> dict[str, object]:
    found: dict[str, object] = json.loads(synced(*words, "--json", code=code).stdout)
    return found


def listing(root: Path, *repositories: tuple[str, Sequence[str]]) -> Answers:
    """What a registry answers that has the models of a store, and lists these repositories with these tags."""
    honest, tags_of = of_store(root), dict(repositories)

    def answers(asked: Asked) -> Iterable[bytes]:
        if "_catalog" in asked.path:
            return answer(json.dumps({"repositories": [name for name, _ in repositories]}).encode())
        name, lists, _ = asked.path.removeprefix("/v2/").partition("/tags/list")
        return answer(json.dumps({"tags": tags_of[name]}).encode()) if lists else honest(asked)

    return answers


def models_of(root: Path) -> dict[str, bytes]:
    trees = root / "manifests"
    return {str(path.relative_to(trees)): path.read_bytes() for path in sorted(trees.glob("*/*/*/*"))}


def is_whole(root: Path) -> bool:
    return run("verify", "--models", root).returncode == 0


def test_only_what_is_missing_is_copied(near: Store, far: Store) -> None:
    done = synced(near.root, far.root)
    assert "  big:small: added\n  me/own:v1: added\n" in done.stdout
    assert "copied 2 models: 2 blobs written (500 KB), 3 already there, 1 model the same in " in done.stdout
    assert models_of(near.root).items() <= models_of(far.root).items()
    assert "registry.ollama.ai/library/old/latest" in models_of(far.root)
    assert is_whole(far.root)


def test_where_nothing_is_missing_nothing_is_written(near: Store, tmp_path: Path) -> None:
    synced(near.root, f"{tmp_path}/copy/")
    before = tree(tmp_path, without=())
    done = synced(near.root, tmp_path / "copy")
    assert done.stdout == f"nothing to copy: 3 models the same -> {tmp_path}/copy\n"
    assert tree(tmp_path, without=()) == before


def test_a_dry_run_changes_nothing(near: Store, far: Store, tmp_path: Path) -> None:
    before = tree(tmp_path, without=())
    done = synced(near.root, far.root, "--delete", "-n")
    assert "would copy 2 models" in done.stdout
    assert "would remove old:latest" in done.stdout
    synced(near.root, f"oci:{tmp_path}/layout", "-n")
    assert tree(tmp_path, without=()) == before


@pytest.mark.parametrize("between", ["b.tar.zst", "oci:layout", "folder/"])
def test_every_kind_of_place_passes_models_on(between: str, near: Store, tmp_path: Path) -> None:
    if between.endswith(".zst"):
        assert run("export", "--all", between, "--models", near.root, cwd=tmp_path).returncode == 0
    else:
        assert run("sync", near.root, between, cwd=tmp_path).returncode == 0
    assert run("sync", between, "end/", cwd=tmp_path).returncode == 0
    assert models_of(tmp_path / "end") == models_of(near.root)
    assert is_whole(tmp_path / "end")


def test_what_became_incomplete_is_mended(near: Store, far: Store) -> None:
    synced(near.root, far.root)
    far.blob_path(noise(500_000, 2)).unlink()
    far.write_manifest(full("big:small"), b"")
    report = document(near.root, far.root)
    assert report["models"] == [
        {"name": "big:small", "target": "big:small", "outcome": "repaired"},
        {"name": "me/own:v1", "target": "me/own:v1", "outcome": "already there"},
    ]
    assert is_whole(far.root)


def test_another_model_of_the_name_needs_replace(near: Store, far: Store, tmp_path: Path) -> None:
    far.model("big:latest", b"another one")
    before = tree(tmp_path, without=())
    done = synced(near.root, far.root, code=2)
    assert done.stderr.splitlines()[-1] == (
        "ostore: error[usage]: big:latest: another model of this name there (--replace overwrites what differs)"
    )
    assert tree(tmp_path, without=()) == before
    assert "  big:latest: replaced\n" in synced(near.root, far.root, "--replace").stdout
    assert models_of(near.root).items() <= models_of(far.root).items()


def test_a_manifest_that_a_server_wrote_anew_is_the_same_model(near: Store, far: Store) -> None:
    path = far.manifest_path(full("big:latest"))
    path.write_bytes(path.read_bytes().rstrip())
    assert document(near.root, far.root)["same"] == 1
    # With a blob that is gone, it is as good as another one.
    far.blob_path(noise(2_000_000)).unlink()
    assert "big:latest: another model" in synced(near.root, far.root, code=2).stderr
    synced(near.root, far.root, "--replace")
    assert is_whole(far.root)


def test_delete_removes_what_the_source_lacks_and_no_blob_of_others(near: Store, far: Store) -> None:
    done = synced(near.root, far.root, "--delete", "--yes")
    assert "  removed old:latest\n" in done.stdout
    assert models_of(far.root) == models_of(near.root)
    assert not far.blob_path(b"old weights" * 10_000).exists()
    assert is_whole(far.root)
    assert document(near.root, far.root, "--delete", "--yes")["removed"] is None


def test_a_blob_that_a_new_model_needs_stays(near: Store, tmp_path: Path) -> None:
    far = Store(tmp_path / "far")
    far.model("old:latest", noise(500_000, 2))
    foreseen = document(near.root, far.root, "--delete", "--dry-run")
    report = document(near.root, far.root, "--delete", "--yes")
    assert report["removed"]["models"] == ["old:latest"]  # type: ignore[index]
    assert {**report["removed"], "dry_run": True} == foreseen["removed"]  # type: ignore[dict-item]
    assert far.blob_path(noise(500_000, 2)).exists()
    assert is_whole(far.root)


@posix
def test_delete_asks_at_a_terminal_and_refuses_without_one(near: Store, far: Store, tmp_path: Path) -> None:
    before = tree(tmp_path, without=())
    assert "add --yes to confirm" in synced(near.root, far.root, "--delete", code=2).stderr
    command = [*OSTORE, "sync", str(near.root), str(far.root), "--delete"]
    ours, theirs = os.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as asking:
        os.close(theirs)
        shown = b""
        # It ends with an OSError if the program does.
        while b"[y/N] " not in shown:
            shown += os.read(ours, 65536)
        os.write(ours, b"n\n")
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                shown += piece
    os.close(ours)
    assert b"would remove old:latest" in shown
    assert b"nothing was copied or removed" in shown
    assert asking.returncode == 0
    assert tree(tmp_path, without=()) == before


def test_nothing_goes_without_approval(near: Store, far: Store, tmp_path: Path) -> None:
    before = tree(tmp_path, without=())

    def refuse(plan: ostore.SyncReport) -> bool:
        assert plan.removed
        assert plan.removed.models == ("old:latest",)
        return False

    assert ostore.sync(near.root, far.root, delete=True, approve=refuse) is None
    assert tree(tmp_path, without=()) == before
    assert ostore.sync(near.root, far.root, delete=True, approve=lambda _plan: True)
    assert models_of(far.root) == models_of(near.root)


def test_a_source_that_cannot_be_read_whole_deletes_nothing(near: Store, far: Store) -> None:
    near.write_manifest(full("old:latest"), b"{")
    before = models_of(far.root)
    assert (
        "while that is so, nothing can be deleted" in synced(near.root, far.root, "--delete", "--yes", code=10).stderr
    )
    assert models_of(far.root) == before
    # The others can be copied all the same.
    assert "old:latest: left out: " in synced(near.root, far.root, code=10).stderr
    assert before.items() < models_of(far.root).items()


def test_a_damaged_blob_leaves_its_model_out_and_deletes_nothing(near: Store, far: Store) -> None:
    near.blob_path(noise(500_000, 2)).write_bytes(bytes(500_000))
    done = synced(near.root, far.root, "--delete", "--yes", code=4)
    assert "nothing was removed, because me/own:v1 could not be copied" in done.stderr
    assert set(models_of(far.root)) == {f"registry.ollama.ai/library/{name}" for name in BIG_AND_OLD}
    assert is_whole(far.root)


BIG_AND_OLD = ("big/latest", "big/small", "old/latest")


@posix
@pytest.mark.skipif(os.name == "posix" and os.getuid() != 0, reason="root gives the folder to somebody else")
@pytest.mark.parametrize("side", ["models", "far"])
def test_a_folder_that_is_closed_deletes_nothing(side: str, public: Store) -> None:
    far = Store(public.root.parent / "far")
    far.model("old:latest", b"old")
    Store(public.root.parent / side).model("registry.ollama.ai/shut/model:latest", b"shut")
    for path in (public.root.parent, *public.root.parent.rglob("*")):
        os.chown(path, 12345, 12345)
    closed = public.root.parent / side / "manifests/registry.ollama.ai/shut"
    closed.chmod(0o700)
    os.chown(closed, 0, 0)
    before = models_of(far.root)
    done = as_user(12345, "sync", public.root, far.root, "--delete", "--yes")
    assert (done.returncode, f"{closed}: Permission denied" in done.stderr) == (9, True), done.stderr
    assert models_of(far.root) == before
    os.chown(closed, 12345, 12345)
    assert as_user(12345, "sync", public.root, far.root, "--delete", "--yes").returncode == 0


def test_what_the_source_has_and_cannot_carry_is_not_deleted(near: Store, far: Store) -> None:
    """Such as a model in the tree of a version to come."""
    coming = near.root / "manifests-v2/ollama.com/library/old/latest"
    coming.parent.mkdir(parents=True)
    coming.write_bytes(near.manifest_path(full("big:latest")).read_bytes())
    before = models_of(far.root)
    synced(near.root, far.root, "--delete", "--yes", code=12)
    assert models_of(far.root) == before


@posix
@pytest.mark.parametrize("target", ["/nonexistent/mount", "hf.co"])
def test_a_folder_behind_a_link_that_leads_nowhere_deletes_nothing(near: Store, far: Store, target: str) -> None:
    far.model("hf.co/me/own:v1", b"mine")
    (near.root / "manifests/hf.co").symlink_to(target)
    before = models_of(far.root)
    done = synced(near.root, far.root, "--delete", "--yes", code=10)
    assert (
        "manifests/hf.co: not a place where a manifest can be; while that is so, nothing can be deleted" in done.stderr
    )
    assert models_of(far.root) == before
    (near.root / "manifests/hf.co").unlink()
    (near.root / "manifests/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    synced(near.root, far.root, "--delete", "--yes")


@posix
def test_a_model_that_is_a_link_to_one_that_goes_deletes_nothing(near: Store, far: Store) -> None:
    path = far.manifest_path(full("big:latest"))
    path.unlink()
    path.symlink_to("../old/latest")
    before = models_of(far.root)
    done = synced(near.root, far.root, "--replace", "--delete", "--yes", code=8)
    assert "big:latest: in " in done.stderr
    assert "only a link to a model that the source lacks, so it would go too" in done.stderr
    assert models_of(far.root) == before


def test_the_same_blobs_in_other_roles_are_another_model(near: Store, far: Store) -> None:
    near.model("roles:latest", noise(100), template=b"text")
    far.model("roles:latest", noise(100), system=b"text")
    assert "roles:latest: another model of this name there" in synced(near.root, far.root, code=2).stderr
    assert "  roles:latest: replaced\n" in synced(near.root, far.root, "--replace").stdout


@needs_registry
def test_a_delta_needs_a_store(registry: DockerRegistry, near: Store, far: Store, tmp_path: Path) -> None:
    bundle = tmp_path / "delta.tar.zst"
    assert run("export", "--all", bundle, "--have", far.root, "--models", near.root).returncode == 0
    done = synced(bundle, f"http://{registry.host}", code=2)
    assert "a registry has to hold every blob (import it into a store, and send the models from there)" in done.stderr
    synced(bundle, far.root)
    assert models_of(near.root).items() <= models_of(far.root).items()


def test_an_image_in_a_layout_is_not_nothing(near: Store, far: Store, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    synced(near.root, f"oci:{layout}")
    index = json.loads((layout / "index.json").read_bytes())
    image = {**index["manifests"][0], "mediaType": "application/vnd.oci.image.index.v1+json"}
    image["annotations"] = {"org.opencontainers.image.ref.name": full("old:latest")}
    (layout / "index.json").write_text(json.dumps({**index, "manifests": [*index["manifests"], image]}))
    synced(f"oci:{layout}", far.root, "--delete", "--yes")
    assert "registry.ollama.ai/library/old/latest" in models_of(far.root)


@pytest.mark.parametrize(("what", "code"), [("nothing", 3), ("blobs alone", 10), ("manifests alone", 4)])
def test_an_empty_source_deletes_nothing(what: str, code: int, near: Store, far: Store) -> None:
    if what != "blobs alone":
        shutil.rmtree(near.root / "blobs")
    if what != "manifests alone":
        shutil.rmtree(near.root / "manifests")
    before = tree(far.root, without=())
    synced(near.root, far.root, "--delete", "--yes", code=code)
    assert tree(far.root, without=()) == before


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["near", "new"], 2, "new: no such folder (new/ makes a store there)"),
        (["near", "none/new/"], 3, "none: no such folder"),
        (["near", "far/blobs/../notes.txt"], 2, "notes.txt: a file; expected a folder"),
        (["near", "far", "--limit-rate", "10MB"], 2, "--limit-rate: neither place is a registry"),
        (["near", "far", "--ca-file", "ca.pem"], 2, "--ca-file: neither place is a registry"),
        (["near", "b.tar.zst"], 2, "b.tar.zst: a bundle, which is written once and never added to"),
        (["near", "-"], 2, "-: a bundle"),
        (["near", "oci:"], 2, "a folder after oci:"),
        (["near", "near/"], 2, "both the source and the destination"),
        (["near", "s3://bucket"], 2, "expected a folder, oci:DIR, or a registry"),
        (["near", "near/manifests/"], 2, "a folder in the source"),
        (["near", "http:/me:hush@h.example"], 2, "expected the address of a registry"),
        (["near", " http://me:hush@h.example"], 2, "expected the address of a registry"),
        (["near", "https://h.example:99999"], 2, "expected the address of a registry"),
        (["near", "oci:out", "--delete"], 2, "--delete: oci:out: no store"),
        (["none", "far"], 3, "none: no such store or bundle"),
        (["near", "https://me:hush@h.example/x"], 2, "expected the address of a registry"),
        (["https://h.example/a/b", "far"], 2, "expected the address of a registry"),
        (["near", "http://127.0.0.1:1"], 11, "connection refused"),
        (["https://127.0.0.1:1", "far"], 11, "connection refused"),
        (["near", ""], 2, "got an empty word"),
    ],
)
@pytest.mark.usefixtures("near", "far")
def test_what_cannot_be_done_is_one_line(tmp_path: Path, words: list[str], code: int, says: str) -> None:
    (tmp_path / "far/notes.txt").write_bytes(b"notes")
    before = tree(tmp_path, without=())
    done = run("sync", *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("ostore: error")]
    assert says in told
    assert "hush" not in done.stderr
    assert tree(tmp_path, without=()) == before


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return six_kinds(tmp_path_factory.mktemp("origin") / "models")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path / "registry") as running:
        yield running


@needs_registry
def test_a_registry_is_filled_and_read_back(registry: DockerRegistry, near: Store, tmp_path: Path) -> None:
    url = f"http://{registry.host}"
    done = synced(near.root, url)
    assert f"  me/own:v1 -> {registry.host}/me/own:v1: added\n" in done.stdout
    assert synced(near.root, url).stdout == f"nothing to copy: 3 models the same -> {url}\n"
    # Named after the registry, as `pull` names them.
    synced(url, f"{tmp_path}/back/")
    here = {name.partition("/")[2]: raw for name, raw in models_of(near.root).items()}
    assert {name.partition("/")[2]: raw for name, raw in models_of(tmp_path / "back").items()} == here
    assert is_whole(tmp_path / "back")


@needs_registry
def test_a_namespace_of_a_registry_takes_them_all(registry: DockerRegistry, near: Store, tmp_path: Path) -> None:
    synced(near.root, f"http://{registry.host}/flat")
    synced(f"http://{registry.host}/flat/", f"oci:{tmp_path}/layout")
    listed = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    assert sorted(entry["annotations"]["org.opencontainers.image.ref.name"] for entry in listed) == [
        f"{registry.host}/flat/{name}" for name in ("big:latest", "big:small", "own:v1")
    ]
    done = synced(f"http://{registry.host}/nobody", f"{tmp_path}/none/", code=3)
    assert "not every registry lists what it has: ostore pull NAME takes one by name" in done.stderr


@needs_registry
def test_of_a_registry_delete_removes_only_its_own(registry: DockerRegistry, near: Store, tmp_path: Path) -> None:
    far = Store(tmp_path / "far")
    far.model("mine:latest", b"mine")
    far.model(f"{registry.host}/me/gone:latest", b"gone")
    far.model(f"{registry.host}/you/gone:latest", b"gone")
    synced(near.root, f"http://{registry.host}")
    synced(f"http://{registry.host}/me", far.root, "--delete", "--yes")
    assert set(models_of(far.root)) == {
        f"{registry.host}/me/own/v1",
        f"{registry.host}/you/gone/latest",
        "registry.ollama.ai/library/mine/latest",
    }
    synced(f"http://{registry.host}", far.root, "--delete", "--yes")
    assert "registry.ollama.ai/library/mine/latest" in models_of(far.root)
    assert f"{registry.host}/you/gone/latest" not in models_of(far.root)


@posix
@needs_registry
def test_a_mirror_goes_to_another_registry(registry: DockerRegistry, near: Store, tmp_path: Path) -> None:
    url = f"http://{registry.host}"
    with serving(near.root, tmp_path) as mirror:
        assert f"-> {registry.host}/me/own:v1: added" in synced(mirror.url, url).stdout
        assert document(mirror.url, url)["same"] == 3
    near.model("big:latest", b"another one", template=b"{{ .Prompt }}")
    with serving(near.root, tmp_path) as mirror:
        assert "big:latest: another model of this name" in synced(mirror.url, url, code=2).stderr
        assert "big:latest: replaced" in synced(mirror.url, url, "--replace").stdout


@posix
@pytest.mark.parametrize("damage", ["no manifest", "a blob is gone", "a blob is damaged"])
def test_what_is_damaged_in_a_mirror_is_not_deleted(damage: str, near: Store, tmp_path: Path) -> None:
    port = free_port()
    with serving(near.root, tmp_path, listen=f"127.0.0.1:{port}") as mirror:
        synced(mirror.url, f"{tmp_path}/copy/")
    own = noise(500_000, 2)
    if damage == "no manifest":
        near.write_manifest("registry.ollama.ai/me/own:v1", b"{")
    elif damage == "a blob is gone":
        near.blob_path(own).unlink()
    else:
        near.blob_path(own).write_bytes(bytes(len(own)))
    before = models_of(tmp_path / "copy")
    with serving(near.root, tmp_path, listen=f"127.0.0.1:{port}") as mirror:
        done = synced(mirror.url, tmp_path / "copy", "--delete", "--yes", code=11)
    assert "the model is damaged here" in done.stderr
    assert models_of(tmp_path / "copy") == before


@needs_registry
def test_a_model_that_a_registry_has_written_anew_is_the_same(registry: DockerRegistry, near: Store) -> None:
    path = near.manifest_path(full("big:latest"))
    raw = path.read_bytes()
    path.write_bytes(raw.rstrip())
    synced(near.root, f"http://{registry.host}")
    path.write_bytes(raw)
    assert document(near.root, f"http://{registry.host}")["same"] == 3


@no_colons_there
def test_images_beside_models_are_passed_over(near: Store, tmp_path: Path) -> None:
    near.add("registry.ollama.ai/me/image:latest", IMAGE_LAYER)
    near.write_manifest("registry.ollama.ai/me/bad:latest", b"<html>")
    beside = [("me/own", ["v1"]), ("me/image", ["latest"]), ("me/bad", ["latest"]), ("a/b/c", ["latest"])]
    with false_registry(listing(near.root, ("library/big", ["latest", "small"]), *beside)) as registry:
        done = synced(f"http://{registry.host}", f"{tmp_path}/copy/", code=12)
        assert "copied 3 models" in done.stdout
        assert f"not taken: {registry.host}/me/image:latest: no model, but something with layers" in done.stderr
        assert f"{registry.host}/me/bad:latest: left out: " in done.stderr
        assert is_whole(tmp_path / "copy")
        before = tree(tmp_path / "copy", without=())
        # What is listed and cannot be read may be any of those that are there.
        synced(f"http://{registry.host}", tmp_path / "copy", "--delete", "--yes", code=12)
        assert tree(tmp_path / "copy", without=()) == before
        # A glob of `pull` reads the same list.
        pulled = run("pull", f"{registry.host}/*/*", "--models", tmp_path / "pulled")
        assert (pulled.returncode, "pulled 3 models" in pulled.stdout) == (12, True), pulled.stderr
        named = run("pull", f"{registry.host}/me/image", "--models", tmp_path / "pulled")
        assert (named.returncode, "me/image:latest: no model" in named.stderr) == (12, True), named.stderr


@no_colons_there
def test_names_that_differ_only_by_case_are_left_out(near: Store, tmp_path: Path) -> None:
    near.model("big:LATEST", b"twin")
    with false_registry(listing(near.root, ("library/big", ["latest", "LATEST", "small"]))) as registry:
        done = synced(f"http://{registry.host}", f"{tmp_path}/copy/", code=8)
    assert done.stderr.count("a name that differs from it only by case is listed too") == 2
    assert "copied 1 model" in done.stdout


@no_colons_there
def test_a_short_list_is_no_reason_to_delete(near: Store, tmp_path: Path) -> None:
    """What a registry does not list, or lists without its tags, or what is an image by now, it is asked for."""
    lists = listing(near.root, ("library/big", ["latest", "small", "v1"]), ("me/own", ["v1"]), ("me/hidden", []))
    failing = False

    def answers(asked: Asked) -> Iterable[bytes]:
        if "me/hidden/tags" in asked.path:
            return answer(b"", "404 Not Found")
        if failing and "gone" in asked.path:
            return answer(b"", "403 Forbidden")
        return lists(asked)

    def names(host: str) -> list[str]:
        return [f"{host}/me/{model}:latest" for model in ("hidden", "unlisted", "image", "gone")]

    near.model("registry.ollama.ai/me/hidden:latest", b"hidden")
    near.model("registry.ollama.ai/me/unlisted:latest", b"unlisted")
    near.add("registry.ollama.ai/me/image:latest", IMAGE_LAYER)
    near.model("big:v1", b"v1")
    with false_registry(answers) as registry:
        far = Store(tmp_path / "far")
        for name in names(registry.host):
            far.model(name, b"theirs once")
        failing = True
        before = models_of(far.root)
        synced(f"http://{registry.host}", far.root, "--delete", "--yes", code=11)
        assert models_of(far.root) == before
        failing = False
        done = synced(f"http://{registry.host}", far.root, "--delete", "--yes")
        assert done.stdout.count("  removed ") == 1
        there = models_of(far.root)
        assert [name.replace(":latest", "/latest") in there for name in names(registry.host)] == [True] * 3 + [False]


@no_colons_there
def test_a_list_of_images_alone_is_no_model(near: Store, tmp_path: Path) -> None:
    near.add("registry.ollama.ai/me/image:latest", IMAGE_LAYER)
    with false_registry(listing(near.root, ("me/image", ["latest"]))) as registry:
        synced(f"http://{registry.host}", f"{tmp_path}/copy/", code=3)
        for where in (["--models", f"{tmp_path}/copy"], ["--to", f"{tmp_path}/b.tar.zst"]):
            done = run("pull", f"{registry.host}/me/*", *where)
            assert (done.returncode, f"no model matches {registry.host}/me/*" in done.stderr) == (3, True), done.stderr
            assert "no model, but something with layers" in done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["near"]


@no_colons_there
def test_a_name_that_is_listed_twice_is_one(near: Store, tmp_path: Path) -> None:
    near.model("big:latest-modelpack", b"no package, whatever its name says")
    twice = ("library/big", ["latest", "latest", "latest-modelpack"])
    with false_registry(listing(near.root, twice, twice)) as registry:
        assert "copied 2 models" in synced(f"http://{registry.host}", f"{tmp_path}/copy/").stdout


def test_of_many_images_a_few_are_named(near: Store, tmp_path: Path) -> None:
    tags = [f"v{number}" for number in range(25)]
    for tag in tags:
        near.add(f"registry.ollama.ai/me/image:{tag}", IMAGE_LAYER)
    with false_registry(listing(near.root, ("me/image", tags), ("me/own", ["v1"]))) as registry:
        done = synced(f"http://{registry.host}", f"oci:{tmp_path}/copy")
    assert done.stderr.count("not taken: ") == 20
    assert "and 5 more notes like these" in done.stderr


def test_two_sizes_for_one_blob_leave_a_model_out(near: Store, tmp_path: Path) -> None:
    raw = near.manifest_path(full("big:latest")).read_bytes()
    near.write_manifest(full("big:lies"), raw.replace(b'"size":2000000', b'"size":2000001'))
    with false_registry(listing(near.root, ("library/big", ["latest", "lies", "small"]))) as registry:
        done = synced(f"http://{registry.host}", f"oci:{tmp_path}/copy", code=8)
    assert "big:lies: left out: " in done.stderr
    assert "copied 2 models" in done.stdout


@no_colons_there
def test_manifests_that_are_too_large_together_are_refused_as_a_whole(near: Store, tmp_path: Path) -> None:
    raw = near.manifest_path(full("big:latest")).read_bytes()
    tags = [f"v{number}" for number in range(9)]
    for tag in tags:
        near.write_manifest(full(f"big:{tag}"), raw.replace(b"{", b'{"note":"' + b"x" * 4_000_000 + b'",', 1))
    with false_registry(listing(near.root, ("library/big", ["latest", *tags]))) as registry:
        far = Store(tmp_path / "far")
        far.model(f"{registry.host}/library/big:own", b"its own")
        before = tree(far.root)
        for options in ((), ("--delete", "--yes")):
            done = synced(f"http://{registry.host}", far.root, *options, code=13)
            assert "manifests of more than 33554432 bytes in all" in done.stderr
        assert tree(far.root) == before
        named = run("pull", f"{registry.host}/library/big:v1", "--models", far.root)
        assert named.returncode == 0, named.stderr


def test_an_empty_folder_becomes_a_layout(near: Store, tmp_path: Path) -> None:
    (tmp_path / "layout").mkdir()
    assert "copied 3 models" in synced(near.root, f"oci:{tmp_path}/layout").stdout


@needs_registry
def test_a_repository_that_lost_a_blob_is_mended(registry: DockerRegistry, near: Store, tmp_path: Path) -> None:
    synced(near.root, f"http://{registry.host}")
    link = f"_layers/sha256/{sha256(noise(2_000_000))}"
    (lost,) = registry.root.glob(f"docker/registry/v2/repositories/library/big/{link}")
    shutil.rmtree(lost)
    done = synced(near.root, f"http://{registry.host}")
    assert done.stdout.count(": repaired\n") == 2
    assert document(near.root, f"http://{registry.host}")["same"] == 3
    synced(f"http://{registry.host}", f"{tmp_path}/back/")


@needs_registry
def test_who_types_https_for_a_registry_without_it_is_told(registry: DockerRegistry, near: Store) -> None:
    done = synced(near.root, f"https://{registry.host}", code=11)
    assert "(if it speaks plain http: --plain-http, or an address with http://)" in done.stderr
    synced(near.root, f"http://{registry.host}")


def test_the_terms_of_the_network_hold(near: Store, tmp_path: Path) -> None:
    """What is typed before the host counts, also for this machine."""
    with false_registry(of_store(near.root)) as registry:
        done = synced(f"https://{registry.host}", f"{tmp_path}/copy/", code=11)
        assert "no TLS" in done.stderr, done.stderr
    done = synced("http://127.0.0.1:1", f"{tmp_path}/copy/", "--limit-rate", "0", code=2)
    assert "--limit-rate: expected 1 to" in done.stderr
    done = synced(near.root, "https://127.0.0.1:1", "--ca-file", tmp_path / "none.pem", code=2)
    assert "none.pem" in done.stderr


@needs_registry
def test_every_kind_of_model_survives_the_way(registry: DockerRegistry, origin: Store, tmp_path: Path) -> None:
    small = Store(tmp_path / "small")
    shutil.copytree(origin.root, small.root)
    shutil.rmtree(small.root / "manifests/hf.co")
    synced(small.root, f"http://{registry.host}")
    synced(f"http://{registry.host}", f"{tmp_path}/back/")
    assert sorted(models_of(tmp_path / "back").values()) == sorted(models_of(small.root).values())
    assert is_whole(tmp_path / "back")


def test_what_others_change_meanwhile_is_not_removed(near: Store, far: Store) -> None:
    def change(_report: ostore.SyncReport) -> None:
        far.model("old:latest", b"a new one")

    with pytest.raises(ostore.BusyError, match="nothing was removed; 2 models copied"):
        ostore.sync(near.root, far.root, delete=True, before=change)
    assert "registry.ollama.ai/library/old/latest" in models_of(far.root)
    assert "registry.ollama.ai/me/own/v1" in models_of(far.root)
    assert is_whole(far.root)


def test_what_others_remove_meanwhile_is_told(near: Store, far: Store) -> None:
    def remove(_report: ostore.SyncReport) -> None:
        far.manifest_path(full("old:latest")).unlink()

    with pytest.raises(ostore.BusyError, match=r"no model '.*old:latest' in .*; 2 models copied"):
        ostore.sync(near.root, far.root, delete=True, before=remove)
    assert models_of(far.root) == models_of(near.root)


@posix
def test_a_removal_that_was_killed_is_finished_by_the_same_command(near: Store, far: Store, tmp_path: Path) -> None:
    """Killed after the manifest went, when nobody lists the model any more."""
    words = [*OSTORE, "sync", str(near.root), str(far.root), "--delete", "--yes", "-q"]
    assert run("sync", near.root, far.root).returncode == 0
    manifest, weights = far.manifest_path(full("old:latest")), far.blob_path(b"old weights" * 10_000)
    for _ in range(50):
        kept = tmp_path / "kept"
        shutil.copytree(far.root, kept, symlinks=True)
        with subprocess.Popen(words) as killed:
            while killed.poll() is None and manifest.exists():
                pass
            killed.kill()
        if weights.exists():
            break
        shutil.rmtree(far.root)
        kept.rename(far.root)
    synced(near.root, far.root, "--delete", "--yes")
    assert not weights.exists()
    assert is_whole(far.root)
