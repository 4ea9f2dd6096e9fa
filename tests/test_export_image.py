"""`ostore export --as image`: one tar that docker, podman, skopeo and umoci take, and that unpacks to a whole store."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import ostore
from ostore.formats.errors import NoSpaceError, UsageError
from ostore.formats.manifest import Manifest
from ostore.formats.name import ModelName
from ostore.formats.oci_image import ImagePlan, parse_at
from ostore.formats.selection import Selection
from ostore.streams.file_lock import try_lock
from tests.support import OSTORE, TENSOR, Store, full, noise, sha256, six_kinds, tree
from tests.support import ostore as run
from tests.test_json import report

needs_tools = pytest.mark.skipif(
    not (shutil.which("skopeo") and shutil.which("umoci")), reason="needs skopeo and umoci"
)
WEIGHTS = noise(2_000_000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "models")
    made.model("tiny:q4", WEIGHTS, template=b"{{ .Prompt }}")
    made.model("tiny:latest", WEIGHTS, system=b"Say hi!")
    made.model("other:latest", noise(70_000, 2), template=b"{{ .Prompt }}")
    return made


def export(store: Store, *words: str | Path, code: int = 0) -> str:
    done = run("export", *words, "--as", "image", environment={"OLLAMA_MODELS": str(store.root)}, cwd=store.root.parent)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def read(image: Path) -> dict[str, bytes]:
    """Every file of an image by its path."""
    with tarfile.open(image) as archive:
        folders = [member for member in archive if member.isdir()]
        # Without them, skopeo wants to be root.
        assert [(folder.name, folder.mode) for folder in folders] == [("blobs", 0o755), ("blobs/sha256", 0o755)]
        members = [member for member in archive if not member.isdir()]
        assert len({member.name for member in members}) == len(members)
        assert {(member.uid, member.gid, member.mtime, member.isreg()) for member in members} == {(0, 0, 0, True)}
        return {member.name: (archive.extractfile(member) or io.BytesIO()).read() for member in members}


def layers_of(files: dict[str, bytes]) -> list[str]:
    ((entry),) = json.loads(files["manifest.json"])
    paths: list[str] = entry["Layers"]
    return [Path(path).name for path in paths]


def unpacked(files: dict[str, bytes], folder: Path) -> Path:
    """The layers of an image, one over the other, as tar unpacks them."""
    folder.mkdir()
    for layer in layers_of(files):
        command = ["tar", "-x", "--no-same-owner", "-C", str(folder)]
        subprocess.run(command, input=files[f"blobs/sha256/{layer}"], check=True)
    return folder


def test_an_image_is_a_layout_and_an_archive_of_docker_at_once(store: Store, tmp_path: Path) -> None:
    out = export(store, "tiny:q4", "image.tar")
    assert "exported 1 model, 2 layers, 2.0 MB as image localhost/tiny:q4 in" in out
    files = read(tmp_path / "image.tar")
    for path, content in files.items():
        if path.startswith("blobs/"):
            assert Path(path).name == hashlib.sha256(content).hexdigest()
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (listed,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(files[f"blobs/sha256/{listed['digest'].removeprefix('sha256:')}"])
    (docker,) = json.loads(files["manifest.json"])
    config = json.loads(files[docker["Config"]])
    assert docker["RepoTags"] == [listed["annotations"]["io.containerd.image.name"]] == ["localhost/tiny:q4"]
    assert docker["Config"] == f"blobs/sha256/{manifest['config']['digest'].removeprefix('sha256:')}"
    digests = [layer["digest"] for layer in manifest["layers"]]
    assert digests == [f"sha256:{name}" for name in layers_of(files)] == config["rootfs"]["diff_ids"]
    assert [layer["size"] for layer in manifest["layers"]] == [
        len(files[f"blobs/sha256/{name}"]) for name in layers_of(files)
    ]
    assert (config["os"], config["architecture"], len(config["history"])) == ("linux", "amd64", 2)
    assert config["config"]["Labels"]["org.opencontainers.image.title"] == "tiny:q4"
    assert {*files} == {
        "oci-layout",
        "index.json",
        "manifest.json",
        docker["Config"],
        *docker["Layers"],
        f"blobs/sha256/{listed['digest'].removeprefix('sha256:')}",
    }


@pytest.mark.parametrize("at", ["/models", "/", "/usr/share/ollama/.ollama/models/"])
def test_unpacked_it_is_the_store(tmp_path: Path, at: str) -> None:
    store = six_kinds(tmp_path / "models")
    export(store, "--all", "image.tar", "--at", at)
    root = unpacked(read(tmp_path / "image.tar"), tmp_path / "root") / at.strip("/")
    assert tree(root) == tree(store.root)
    modes = {path.is_dir(): path.stat().st_mode & 0o7777 for path in root.rglob("*")}
    assert modes == {True: 0o755, False: 0o644}
    assert ": whole" in run("verify", "--models", root).stdout


def test_images_share_layers_as_models_share_blobs(store: Store, tmp_path: Path) -> None:
    export(store, "tiny:q4", "one.tar")
    export(store, "tiny:latest", "other", "two.tar")
    one, two = (layers_of(read(tmp_path / name)) for name in ("one.tar", "two.tar"))
    assert (len(one), len(two)) == (2, 3)
    shared = {*one} & {*two}
    assert len(shared) == 1
    with tarfile.open(fileobj=io.BytesIO(read(tmp_path / "one.tar")[f"blobs/sha256/{shared.pop()}"])) as layer:
        assert layer.getnames() == ["models", "models/blobs", f"models/blobs/sha256-{sha256(WEIGHTS)}"]


def test_the_same_models_give_the_same_bytes(store: Store, tmp_path: Path) -> None:
    export(store, "--all", "one.tar")
    copy = Store(tmp_path / "copy")
    shutil.copytree(store.root, copy.root)
    export(copy, "tiny:q4", "tiny", "other", "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_a_damaged_blob_leaves_no_file(store: Store, tmp_path: Path) -> None:
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    assert "used by tiny:latest, tiny:q4" in export(store, "tiny", "image.tar", code=4)
    assert {path.name for path in tmp_path.iterdir()} == {"models"}
    out = export(store, "--all", "image.tar", code=4)
    assert "exported 1 model" in out
    assert json.loads(read(tmp_path / "image.tar")["manifest.json"])[0]["RepoTags"] == ["localhost/other:latest"]
    assert (
        ": whole" in run("verify", "--models", unpacked(read(tmp_path / "image.tar"), tmp_path / "x") / "models").stdout
    )
    export(store, "--all", "strict.tar", "--strict", code=4)
    assert not (tmp_path / "strict.tar").exists()


def test_a_file_that_exists_is_replaced_only_when_asked(store: Store, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"mine")
    assert "image.tar: exists (--replace overwrites it)" in export(store, "tiny", "image.tar", code=2)
    assert (tmp_path / "image.tar").read_bytes() == b"mine"
    export(store, "tiny", "image.tar", "--replace")
    assert read(tmp_path / "image.tar")
    assert {path.name for path in tmp_path.iterdir()} == {"models", "image.tar"}


def test_two_exports_do_not_write_one_file(store: Store, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "image.tar.part", os.O_RDWR | os.O_CREAT)
    try:
        assert try_lock(fd)
        assert "error[busy]" in export(store, "tiny", "image.tar", code=6)
    finally:
        os.close(fd)
    # What a command that was killed has left is taken over.
    export(store, "tiny", "image.tar")
    assert not (tmp_path / "image.tar.part").exists()


def test_a_full_disk_is_told_before_anything_is_written(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    for dry_run in (True, False):
        with pytest.raises(NoSpaceError, match="bytes of free space"):
            ostore.export_image(["tiny"], tmp_path / "image.tar", models=store.root, dry_run=dry_run)
    assert {path.name for path in tmp_path.iterdir()} == {"models"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("image.tar.zst",), "name FILE.tar: layers are not compressed"),
        (("image",), "expected the file of an image (name FILE.tar)"),
        (("image/",), "expected the file of an image (name FILE.tar)"),
        (("-",), "-: expected the file of an image (write FILE.tar; skopeo"),
        (("oci:image",), "skopeo copy oci-archive:FILE.tar oci:image then makes a layout of it"),
        (("image.tar", "--level", "3"), "--level: only a bundle can have it, not an image"),
        (("image.tar", "--have", "x"), "--have: only a bundle can have it, not an image"),
        (("image.tar", "--split", "1MB"), "--split: only a bundle can have it, not an image"),
        (("image.tar", "--at", "models"), "--at: expected a folder in the image, as /models is, got 'models'"),
        (("image.tar", "--at", ""), "--at: expected a folder in the image"),
    ],
)
def test_what_no_image_can_be_is_told(store: Store, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    assert told in export(store, "tiny", *words, code=2)
    assert {path.name for path in tmp_path.iterdir()} == {"models"}


def test_at_is_about_images(store: Store) -> None:
    done = run("export", "tiny", "x.tar", "--at", "/x", "--models", store.root)
    assert (done.returncode, done.stderr) == (
        2,
        "ostore: error[usage]: --at: only an image can have it (--as image makes one)\n",
    )


def carried_out(told: str, folder: Path) -> None:
    """Type the commands of a hint, as far as they go."""
    (folder / "bin").mkdir()
    (folder / "bin/ostore").write_text(f'#!/bin/sh\nexec {shlex.join(OSTORE)} "$@"\n')
    (folder / "bin/ostore").chmod(0o755)
    line = told.rpartition(" (")[2].partition(" takes the store")[0]
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


@needs_tools
@pytest.mark.parametrize("packed", ["as it is", "by gzip"])
def test_an_image_is_no_bundle_and_the_message_says_how_it_becomes_one(
    store: Store, tmp_path: Path, packed: str
) -> None:
    export(store, "tiny:q4", "image.tar")
    image = tmp_path / "image.tar"
    if packed == "by gzip":
        image.write_bytes(gzip.compress(image.read_bytes()))
    target = tmp_path / "target"
    target.mkdir()
    done = run("import", "image.tar", "--models", target, cwd=tmp_path)
    assert (done.returncode, done.stderr[:53]) == (12, "ostore: error[format]: image.tar: a container image (")
    carried_out(done.stderr, tmp_path)
    assert tree(target) == tree(tmp_path / "image-unpacked/rootfs/models")
    assert report("list", "list", models=target)["models"][0]["name"] == "tiny:q4"


@needs_tools
def test_an_image_in_a_layout_is_no_model_and_the_message_says_how_it_becomes_one(store: Store, tmp_path: Path) -> None:
    export(store, "tiny:q4", "image.tar")
    (tmp_path / "target").mkdir()
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", "image.tar", "-C", "unpacked"], cwd=tmp_path, check=True)
    done = run("import", "oci:unpacked", "--models", tmp_path / "target", cwd=tmp_path)
    what = "ostore: error[not-found]: no models in oci:unpacked, but a container image ("
    assert (done.returncode, done.stderr[: len(what)]) == (3, what)
    carried_out(done.stderr, tmp_path)
    assert report("list", "list", models=tmp_path / "target")["models"][0]["name"] == "tiny:q4"


def test_a_layout_in_a_tar_is_no_image(store: Store, tmp_path: Path) -> None:
    at = ("--models", store.root)
    assert run("export", "tiny:q4", "oci:layout", *at, cwd=tmp_path).returncode == 0
    for names in ((".",), ("oci-layout", "index.json", "blobs")):
        subprocess.run(["tar", "-C", "layout", "-cf", "layout.tar", *names], cwd=tmp_path, check=True)
        told = run("import", "layout.tar", *at, cwd=tmp_path).stderr
        assert "layout.tar: a tar of an OCI image layout (mkdir layout-unpacked && " in told
        assert "&& ostore import oci:layout-unpacked --models" in told
    with (tmp_path / "layout.tar").open("rb") as piped:
        done = subprocess.run([*OSTORE, "import", "-", *map(str, at)], stdin=piped, stderr=-1, text=True, check=False)
    assert "a tar of an OCI image layout (unpack it into a folder, and import the folder)" in done.stderr


def test_the_document_says_what_the_image_is(store: Store, tmp_path: Path) -> None:
    image = tmp_path / "image.tar"
    words = ("export", "tiny", "other", image, "--as", "image", "--at", "/m")
    planned = report("export-image", *words, "-n", models=store.root)
    assert not image.exists()
    done = report("export-image", *words, models=store.root)
    assert done == {**planned, "dry_run": False, "image_size": image.stat().st_size}
    assert (done["layers"], done["at"], done["image"]) == (3, "/m", "localhost/models:latest")


def test_progress_has_all_bytes_of_the_blobs(store: Store) -> None:
    assert "exporting: 2.0 MB\n" in export(store, "tiny", "image.tar", "--progress", "plain")


@pytest.mark.parametrize("text", ["models", "", "/..", "/a/../b", "/.wh.x", "/a b", "/\u00e4", "/" + "x" * 201, "/a\n"])
def test_a_folder_of_an_image_is_a_plain_path(text: str) -> None:
    with pytest.raises(UsageError):
        parse_at(text)
    assert (parse_at("//a//b/"), parse_at("/")) == ("/a/b", "/")


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("llama3", "localhost/llama3:latest"),
        ("Llama3.1:8B-Q4_K_M", "localhost/llama3.1:8B-Q4_K_M"),
        ("me/mine", "localhost/me/mine:latest"),
        ("hf.co/Org/Repo-GGUF:Q4", "localhost/hf.co/org/repo-gguf:Q4"),
        ("host:5000/library/m", "localhost/host-5000/library/m:latest"),
        ("_x__y_-z_:1", "localhost/x__y-z:1"),
    ],
)
def test_an_image_is_called_like_its_model(name: str, reference: str) -> None:
    raw = json.dumps({"schemaVersion": 2, "layers": []}).encode()
    assert ImagePlan(Selection.of([(ModelName.parse(name), Manifest.parse(raw))]), "/").reference == reference


def test_of_many_blobs_the_largest_have_layers_and_docker_takes_them(tmp_path: Path) -> None:
    """Docker takes 125 layers, and a model of tensors has a thousand blobs."""
    store = Store(tmp_path / "models")
    tensors = [store.layer(TENSOR, noise(66_000 + number, number), name=f"t{number}") for number in range(120)]
    store.add(full("mlx:latest"), *tensors)
    assert "101 layers" in export(store, "mlx", "image.tar")
    files = read(tmp_path / "image.tar")
    assert sha256(noise(66_119, 119)) in files[f"blobs/sha256/{layers_of(files)[-2]}"].decode("latin-1")
    assert tree(unpacked(files, tmp_path / "root") / "models") == tree(store.root)


@needs_tools
def test_skopeo_and_umoci_take_it_and_it_unpacks_to_a_whole_store(store: Store, tmp_path: Path) -> None:
    def call(*words: str) -> None:
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=60)

    export(store, "tiny:q4", "one.tar")
    export(store, "tiny:latest", "other", "two.tar")
    copy = ("skopeo", "--insecure-policy", "copy", "-q")
    call(*copy, "--preserve-digests", "oci-archive:one.tar", "oci:layout:one")
    first = {path.name for path in (tmp_path / "layout/blobs/sha256").iterdir()}
    call(*copy, "--preserve-digests", "oci-archive:two.tar", "oci:layout:two")
    second = {path.name for path in (tmp_path / "layout/blobs/sha256").iterdir()} - first
    # Its config, its manifest and two layers: that of the weights is there.
    assert len(second) == 4
    call(*copy, "docker-archive:one.tar:localhost/tiny:q4", "oci:again:one")
    for layout, tag, models in (("layout", "one", 1), ("layout", "two", 2), ("again", "one", 1)):
        bundle = f"{layout}-{tag}"
        rootless = () if os.geteuid() == 0 else ("--rootless",)
        call("umoci", "unpack", *rootless, "--image", f"{layout}:{tag}", bundle)
        root = tmp_path / bundle / "rootfs/models"
        document = report("verify", "verify", models=root)
        assert (document["reports"][0]["models"], document["reports"][0]["verdict"]) == (models, "whole")
        assert {path.stat().st_uid for path in root.rglob("*")} == {os.geteuid()}


def test_labels_name_some_models_of_many(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    for number in range(30):
        store.model(f"m{number:02}:latest", b"weights", params=b"{}")
    export(store, "--all", "image.tar")
    files = read(tmp_path / "image.tar")
    config: dict[str, Any] = json.loads(files[json.loads(files["manifest.json"])[0]["Config"]])
    title = config["config"]["Labels"]["org.opencontainers.image.title"]
    assert title.startswith("m00:latest, m01:latest")
    assert title.endswith(" and 10 more")
    assert config["history"][0]["comment"] == "manifests, and blobs of less than 64 KiB"


def test_an_image_from_a_pipe_is_named_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.model("tiny:latest", b"weights")
    assert run("export", "tiny", tmp_path / "image.tar", "--as", "image", "--models", store.root).returncode == 0
    with (tmp_path / "image.tar").open("rb") as pipe:
        done = subprocess.run([*OSTORE, "inspect", "-"], stdin=pipe, capture_output=True, text=True, check=False)
    assert done.returncode == 12
    assert done.stderr == "ostore: error[format]: a container image (write it to a file, and name that)\n"
