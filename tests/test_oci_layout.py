"""`oci:DIR`: an OCI image layout as a place for models, which skopeo carries on, byte for byte."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ostore.formats.errors import FormatError, LimitError, OstoreError, UnsafeError
from ostore.formats.oci_layout import MAX_INDEX_BYTES, ImageIndex, check_layout, layout_document
from ostore.streams.file_lock import try_lock
from tests.gguf import ONE_LAYER, gguf
from tests.support import Store, full, noise, sha256, six_kinds, tree
from tests.support import ostore as run
from tests.test_json import report

SKOPEO = shutil.which("skopeo")
needs_skopeo = pytest.mark.skipif(not SKOPEO, reason="needs skopeo")
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
REF_NAME = "org.opencontainers.image.ref.name"
WEIGHTS = noise(200_000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "models")
    made.model("tiny:q4", WEIGHTS, template=b"{{ .Prompt }}")
    made.model("tiny:latest", WEIGHTS, system=b"Say hi!")
    return made


def at(store: Store, *words: str | Path, code: int = 0, models: Path | None = None) -> str:
    """Run it in the folder of the store; gives both outputs."""
    environment = {"OLLAMA_MODELS": str(models or store.root)}
    done = run(*words, environment=environment, cwd=store.root.parent)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def index_of(layout: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((layout / "index.json").read_bytes())
    return loaded


def change(layout: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    index = index_of(layout)
    edit(index["manifests"])
    (layout / "index.json").write_text(json.dumps(index), "utf-8")


def blob(layout: Path, content: bytes) -> Path:
    return layout / "blobs/sha256" / sha256(content)


def skopeo(*words: str | Path, cwd: Path) -> None:
    command = ["skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests", *map(str, words)]
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=60)


def test_a_layout_has_the_manifests_of_ollama_and_every_blob_once(store: Store, tmp_path: Path) -> None:
    assert "exported 2 models, 4 blobs, 200 KB" in at(store, "export", "--all", "oci:out")
    layout = tmp_path / "out"
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    manifests = {name: store.manifest_path(name).read_bytes() for name in map(full, ("tiny:q4", "tiny:latest"))}
    assert {entry["annotations"][REF_NAME]: entry["digest"] for entry in index_of(layout)["manifests"]} == {
        name: f"sha256:{sha256(raw)}" for name, raw in manifests.items()
    }
    assert {entry["mediaType"] for entry in index_of(layout)["manifests"]} == {OCI_MANIFEST}
    expected = {sha256(path.read_bytes()) for path in (store.root / "blobs").iterdir()}
    expected |= {sha256(raw) for raw in manifests.values()}
    files = list((layout / "blobs/sha256").iterdir())
    assert {path.name for path in files} == {sha256(path.read_bytes()) for path in files} == expected
    assert {path.name for path in layout.iterdir()} == {"oci-layout", "index.json", "blobs"}


def test_every_kind_of_model_comes_back_as_it_was(tmp_path: Path) -> None:
    store = six_kinds(tmp_path / "models")
    at(store, "export", "--all", "oci:out")
    assert ": whole (oci:out)" in at(store, "verify", "oci:out")
    at(store, "import", "oci:out", models=tmp_path / "new")
    assert tree(tmp_path / "new") == tree(store.root)
    assert "7 models the same" in at(store, "diff", "oci:out")
    assert "7 models the same" in at(store, "outdated", "--against", "oci:out")
    assert "sees:latest" in at(store, "inspect", "oci:out")


def test_a_layout_is_what_the_other_side_has(store: Store) -> None:
    at(store, "export", "tiny:q4", "oci:out")
    out = at(store, "export", "--all", "delta.tar.zst", "--have", "oci:out", "--dry-run")
    assert "would export 2 models, 1 blob, 7 B (200 KB shared once); 3 blobs required there (200 KB)" in out


def test_a_layout_heals_a_store(store: Store) -> None:
    at(store, "export", "--all", "oci:out")
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    at(store, "repair", "--from", "oci:out")
    assert store.blob_path(WEIGHTS).read_bytes() == WEIGHTS


def test_what_others_have_in_the_layout_stays(store: Store, tmp_path: Path) -> None:
    at(store, "export", "tiny:q4", "oci:out")
    layout = tmp_path / "out"
    image = {"mediaType": OCI_MANIFEST, "digest": f"sha256:{'1' * 64}", "size": 7, "urls": ["x"], "more": [1.5, None]}
    change(layout, lambda entries: entries.insert(0, image))
    kept = index_of(layout)["manifests"]
    blob(layout, b"of somebody else").write_bytes(b"of somebody else")
    at(store, "export", "tiny", "oci:out")
    after = index_of(layout)["manifests"]
    assert after[:2] == kept
    assert [entry["annotations"][REF_NAME] for entry in after[2:]] == [full("tiny:latest")]
    assert blob(layout, b"of somebody else").exists()


def test_another_model_of_a_name_needs_replace(store: Store, tmp_path: Path) -> None:
    at(store, "export", "--all", "oci:out")
    before = tree(tmp_path / "out")
    store.model("tiny:q4", b"new weights")
    told = at(store, "export", "--all", "oci:out", code=2)
    assert "error[usage]: tiny:q4: another model of that name is there (--replace overwrites it)" in told
    assert tree(tmp_path / "out") == before
    at(store, "export", "--all", "oci:out", "--replace")
    assert len(index_of(tmp_path / "out")["manifests"]) == 2
    assert ": whole" in at(store, "verify", "oci:out")
    at(store, "import", "oci:out", "--model", "tiny:q4", models=tmp_path / "new")
    assert Store(tmp_path / "new").blob_path(b"new weights").exists()


def test_a_damaged_blob_of_the_layout_is_found_and_replaced(store: Store, tmp_path: Path) -> None:
    at(store, "export", "--all", "oci:out")
    blob(tmp_path / "out", WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    blob(tmp_path / "out", b"Say hi!").unlink()
    found = report("verify", "verify", f"oci:{tmp_path / 'out'}", code=4, models=store.root)["reports"][0]["problems"]
    assert {(problem["kind"], problem["subject"]) for problem in found} == {
        ("blob-altered", f"sha256:{sha256(WEIGHTS)}"),
        ("blob-missing", f"sha256:{sha256(b'Say hi!')}"),
    }
    assert "another digest" in at(store, "import", "oci:out", code=4, models=tmp_path / "new")
    at(store, "export", "--all", "oci:out")
    assert ": whole" in at(store, "verify", "oci:out")


def test_a_damaged_manifest_is_a_problem_and_leaves_only_its_model_out(store: Store, tmp_path: Path) -> None:
    at(store, "export", "--all", "oci:out")
    raw = store.manifest_path(full("tiny:q4")).read_bytes()
    blob(tmp_path / "out", raw).write_bytes(raw.replace(b"2", b"3", 1))
    found = report("verify", "verify", f"oci:{tmp_path / 'out'}", code=10, models=store.root)["reports"][0]["problems"]
    assert [(problem["kind"], problem["subject"]) for problem in found] == [("manifest-damaged", "tiny:q4")]
    told = at(store, "import", "oci:out", code=4, models=tmp_path / "new")
    assert "imported 1 model" in told
    assert "tiny:q4" in told
    assert "another digest" in at(store, "import", "oci:out", "--model", "tiny:q4", code=4, models=tmp_path / "new")


def test_a_damaged_blob_of_the_store_leaves_its_models_out_or_nothing_new(store: Store, tmp_path: Path) -> None:
    store.model("good:latest", b"good weights")
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    told = at(store, "export", "tiny", "oci:one", code=4)
    assert "used by tiny:latest, tiny:q4" in told
    assert not (tmp_path / "one/index.json").exists()
    assert "exported 1 model" in at(store, "export", "--all", "oci:all", code=4)
    assert [entry["annotations"][REF_NAME] for entry in index_of(tmp_path / "all")["manifests"]] == [
        full("good:latest")
    ]
    assert ": whole" in at(store, "verify", "oci:all")


def test_a_refusal_leaves_no_folder(store: Store, tmp_path: Path) -> None:
    before = tree(tmp_path)
    for words, code, told in (
        (("oci:no/such",), 3, "no: no such folder"),
        (("oci:models",), 2, "a folder with other files (blobs), and no OCI image layout"),
        (("oci:a:b",), 2, "a colon in the name of the folder"),
        (("oci:",), 2, "expected a folder after oci:"),
        (("oci:out", "--level", "3"), 2, "takes no level"),
        (("oci:out.tar", "--split", "1MB"), 2, "is no file"),
        (("oci:out", "--have", "models"), 2, "has to hold every blob"),
    ):
        assert told in at(store, "export", "tiny", *words, code=code)
    assert tree(tmp_path) == before


def test_a_full_disk_leaves_no_folder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ostore
    from ostore.formats.errors import NoSpaceError

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(NoSpaceError):
        ostore.export(["tiny"], f"oci:{tmp_path / 'out'}", models=store.root)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(store: Store, tmp_path: Path) -> None:
    out = at(store, "export", "--all", "oci:out", "-n")
    assert "would export 2 models" in out
    assert not (tmp_path / "out").exists()
    document = report("export", "export", "tiny", f"oci:{tmp_path / 'out'}", models=store.root)
    assert document["bundle_size"] is None


def test_what_an_interrupted_export_has_finished_is_not_written_again(store: Store, tmp_path: Path) -> None:
    at(store, "export", "--all", "oci:out")
    layout = tmp_path / "out"
    (layout / "index.json").unlink()
    blob(layout, b"Say hi!").unlink()
    (layout / f"{sha256(WEIGHTS)}.part").write_bytes(b"begun")
    inode = blob(layout, WEIGHTS).stat().st_ino
    told = at(store, "import", "oci:out", code=12, models=tmp_path / "new")
    assert "oci:out: no OCI image layout: it has no file index.json" in told
    at(store, "export", "--all", "oci:out")
    assert blob(layout, WEIGHTS).stat().st_ino == inode
    assert {path.name for path in layout.iterdir()} == {"oci-layout", "index.json", "blobs"}


def test_what_is_unfinished_is_removed_and_no_link_is_followed(store: Store, tmp_path: Path) -> None:
    at(store, "export", "tiny", "oci:out")
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "out" / f"{sha256(WEIGHTS)}.part").symlink_to(tmp_path / "theirs")
    blob(tmp_path / "out", WEIGHTS).unlink()
    at(store, "export", "tiny", "oci:out")
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert ": whole" in at(store, "verify", "oci:out")


def test_two_exports_do_not_write_at_once(store: Store, tmp_path: Path) -> None:
    at(store, "export", "tiny", "oci:out")
    fd = os.open(tmp_path / "out/index.json.part", os.O_RDWR | os.O_CREAT)
    try:
        assert try_lock(fd)
        before = tree(tmp_path / "out")
        assert "error[busy]" in at(store, "export", "--all", "oci:out", code=6)
        assert tree(tmp_path / "out") == before
    finally:
        os.close(fd)
    at(store, "export", "--all", "oci:out")
    assert ": whole" in at(store, "verify", "oci:out")


def test_what_another_program_adds_meanwhile_stays_too(store: Store, tmp_path: Path) -> None:
    """skopeo holds no lock."""
    import ostore
    from ostore.streams.progress import _Silent

    class Adding(_Silent):
        def phase(self, label: str, total_bytes: int) -> None:
            if label == "publishing":
                change(tmp_path / "out", lambda entries: entries.append({"mediaType": "x/y", "digest": "z"}))

    at(store, "export", "tiny:q4", "oci:out")
    ostore.export(["tiny"], f"oci:{tmp_path / 'out'}", models=store.root, progress=Adding())
    entries = index_of(tmp_path / "out")["manifests"]
    assert [entry["mediaType"] for entry in entries] == [OCI_MANIFEST, "x/y", OCI_MANIFEST]


def test_a_refusal_at_the_end_leaves_what_another_program_may_have_listed(store: Store, tmp_path: Path) -> None:
    """A program that holds no lock finds a blob of ours, does not write it again, and takes the name of the model."""
    import ostore
    from ostore.formats.errors import UsageError
    from ostore.streams.progress import _Silent

    raw = json.dumps(
        {**json.loads(store.manifest_path(full("tiny:latest")).read_bytes()), "by": "another program"}
    ).encode()

    class Taking(_Silent):
        def phase(self, label: str, total_bytes: int) -> None:
            if label == "publishing":
                blob(tmp_path / "out", raw).write_bytes(raw)
                entry = {"mediaType": OCI_MANIFEST, "digest": f"sha256:{sha256(raw)}", "size": len(raw)}
                change(tmp_path / "out", lambda entries: entries.append(_renamed(entry, "tiny:latest")))

    store.model("other:latest", b"other weights")
    at(store, "export", "other", "oci:out")
    with pytest.raises(UsageError, match="another model of that name"):
        ostore.export(["tiny"], f"oci:{tmp_path / 'out'}", models=store.root, progress=Taking())
    assert ": whole (oci:out)" in at(store, "verify", "oci:out")
    at(store, "import", "oci:out", "--model", "tiny", models=tmp_path / "new")


def test_an_index_that_no_reader_would_take_is_refused_before_anything_is_copied(store: Store, tmp_path: Path) -> None:
    at(store, "export", "tiny", "oci:out")
    layout = tmp_path / "out"
    before = tree(layout)
    listed = json.loads(store.manifest_path(full("tiny:latest")).read_bytes())
    for number in range(34):
        # Nobody reads the key, and it counts.
        raw = json.dumps({**listed, "more": f"{number:02}" + "x" * 1_000_000}).encode()
        store.write_manifest(full(f"big:{number}"), raw)
    for words in (("--all",), ("big:*",), ("--all", "-n")):
        told = at(store, "export", *words, "oci:out", code=13)
        assert "index.json: expected manifests of at most 33554432 bytes in all, got more (other models fit" in told
        assert tree(layout) == before
    assert "expected manifests of at most" in at(store, "export", "--all", "oci:new", code=13)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"imageLayoutVersion":"2.0.0"}', None], ids=repr)
def test_a_folder_that_no_reader_takes_for_a_layout_takes_no_models(
    store: Store, tmp_path: Path, text: str | None
) -> None:
    layout = tmp_path / "out"
    layout.mkdir()
    if text is None:
        (layout / "oci-layout").mkdir()
    else:
        (layout / "oci-layout").write_text(text)
    reading = run("inspect", "oci:out", cwd=tmp_path)
    refused = run("export", "tiny", "oci:out", "--models", store.root, cwd=tmp_path)
    assert reading.returncode == refused.returncode in {10, 12}
    assert "oci-layout: expected" in refused.stderr or "oci-layout: not JSON" in refused.stderr
    assert [path.name for path in layout.iterdir()] == ["oci-layout"]


def test_names_that_differ_only_by_case_are_not_put_side_by_side(store: Store, tmp_path: Path) -> None:
    at(store, "export", "tiny:q4", "oci:out")
    other = Store(tmp_path / "other")
    other.model("Tiny:Q4", b"another")
    told = at(store, "export", "Tiny:Q4", "oci:out", code=8, models=other.root)
    assert "differs from it only by case" in told
    change(tmp_path / "out", lambda entries: entries.append(_renamed(entries[0], full("TINY:q4"))))
    assert "differs from it only by case" in at(store, "import", "oci:out", code=8, models=tmp_path / "new")


def _renamed(entry: dict[str, Any], name: str) -> dict[str, Any]:
    return {**entry, "annotations": {REF_NAME: name}}


def test_a_name_that_is_listed_twice_has_to_mean_one_manifest(store: Store, tmp_path: Path) -> None:
    at(store, "export", "--all", "oci:out")
    layout = tmp_path / "out"
    change(layout, lambda entries: entries.append({**entries[0], "mediaType": DOCKER_MANIFEST}))
    assert "imported 2 models" in at(store, "import", "oci:out", models=tmp_path / "new")
    change(layout, lambda entries: entries.append(_renamed(entries[0], entries[1]["annotations"][REF_NAME])))
    told = at(store, "import", "oci:out", code=8, models=tmp_path / "third")
    assert "with different manifests" in told


@pytest.mark.parametrize(
    ("annotations", "code", "told"),
    [
        ({REF_NAME: "tiny"}, 0, "tiny:latest: added"),
        ({REF_NAME: "me/tiny:8b"}, 0, "me/tiny:8b: added"),
        ({REF_NAME: "8b", "io.containerd.image.name": "hf.co/me/tiny:8b"}, 0, "hf.co/me/tiny:8b: added"),
        ({REF_NAME: "latest"}, 8, "'latest': a tag alone, and no name of a model"),
        ({REF_NAME: "../../etc/passwd"}, 8, "no name of a model"),
        ({REF_NAME: "a b"}, 8, "no name of a model"),
        ({REF_NAME: 5}, 8, "a manifest without a name"),
        ({}, 8, "a manifest without a name"),
        (None, 8, "a manifest without a name"),
    ],
)
def test_names_are_those_that_a_person_typed(
    store: Store, tmp_path: Path, annotations: object, code: int, told: str
) -> None:
    at(store, "export", "tiny", "oci:out")
    change(tmp_path / "out", lambda entries: entries[0].update(annotations=annotations))
    assert told in at(store, "import", "oci:out", code=code, models=tmp_path / "new")


def test_what_is_no_model_is_a_remark(store: Store, tmp_path: Path) -> None:
    at(store, "export", "tiny", "oci:out")
    layout = tmp_path / "out"
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{'0' * 64}", "size": 1}
    raw = json.dumps({"schemaVersion": 2, "config": layer, "layers": [layer]}).encode()
    blob(layout, raw).write_bytes(raw)
    entry = {"mediaType": OCI_MANIFEST, "digest": f"sha256:{sha256(raw)}", "size": len(raw)}
    nested = {**entry, "mediaType": "application/vnd.oci.image.index.v1+json"}
    change(layout, lambda entries: entries.extend([_renamed(entry, "alpine:3"), _renamed(nested, "all:latest")]))
    told = at(store, "import", "oci:out", models=tmp_path / "new")
    assert "imported 1 model" in told
    assert "warning: alpine:3: not taken: no model, but something with layers of type" in told
    assert "warning: all:latest: not taken: a list of manifests" in told
    assert ": whole" in at(store, "verify", "oci:out")
    assert "no model, but something" in at(store, "import", "oci:out", "--model", "alpine:3", code=12)
    assert "no model 'all' in oci:out" in at(store, "import", "oci:out", "--model", "all", code=3)


def test_words_that_were_probably_meant(store: Store) -> None:
    at(store, "export", "tiny:q4", "oci:out")
    assert "here oci:out; --model tiny chooses a model" in at(store, "import", "oci:out:tiny", code=3)
    assert "did you mean tiny:q4?" in at(store, "import", "oci:out", "--model", "tiny:q5", code=3)
    assert "oci:nowhere: no such folder" in at(store, "import", "oci:nowhere", code=3)
    assert "it has no file oci-layout" in at(store, "import", "oci:models", code=12)


@needs_skopeo
def test_skopeo_carries_a_model_from_layout_to_layout_and_back(store: Store, tmp_path: Path) -> None:
    at(store, "export", "--all", "oci:out")
    for name in map(full, ("tiny:q4", "tiny:latest")):
        skopeo(f"oci:out:{name}", f"oci:carried:{name}", cwd=tmp_path)
    assert {entry["mediaType"] for entry in index_of(tmp_path / "carried")["manifests"]} == {DOCKER_MANIFEST}
    assert ": whole" in at(store, "verify", "oci:carried")
    at(store, "import", "oci:carried", models=tmp_path / "new")
    assert tree(tmp_path / "new") == tree(store.root)
    # skopeo does not read what it wrote there; an export of the same sets that right.
    at(store, "export", "--all", "oci:carried")
    skopeo(f"oci:carried:{full('tiny:q4')}", "dir:plain", cwd=tmp_path)
    assert (tmp_path / "plain" / sha256(WEIGHTS)).read_bytes() == WEIGHTS


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A real registry on this machine, empty; gives its address."""
    if not (SKOPEO and shutil.which("docker-registry")):
        pytest.skip("needs skopeo and docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    folder = json.dumps(str(tmp_path / "registry"))
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    with subprocess.Popen(
        ["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as it:
        try:
            host, _, port = address.partition(":")
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex((host, int(port))) == 0:
                        break
                time.sleep(0.05)
            yield address
        finally:
            it.kill()


def test_skopeo_brings_a_model_into_a_registry_byte_for_byte(store: Store, tmp_path: Path, registry: str) -> None:
    """Not out of it again: a registry gives the manifest the type of Docker, and skopeo refuses the layers then."""
    at(store, "export", "--all", "oci:out")
    skopeo(
        "--dest-tls-verify=false", f"oci:out:{full('tiny:q4')}", f"docker://{registry}/library/tiny:q4", cwd=tmp_path
    )
    raw = store.manifest_path(full("tiny:q4")).read_bytes()
    for path, content in (("manifests/q4", raw), (f"blobs/sha256:{sha256(WEIGHTS)}", WEIGHTS)):
        asked = http.client.HTTPConnection(registry, timeout=20)
        with contextlib.closing(asked):
            asked.request("GET", f"/v2/library/tiny/{path}", headers={"Accept": DOCKER_MANIFEST})
            assert asked.getresponse().read() == content


def test_a_clone_is_no_copy(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on btrfs and XFS; a clone of a damaged file is not taken."""
    import ostore
    from ostore.formats.errors import DigestMismatchError
    from ostore.places.oci_layout import inbox

    def clone(source: int, target: int) -> bool:
        os.write(target, os.pread(source, 10_000_000, 0))
        return True

    monkeypatch.setattr(inbox, "clone_file", clone)
    ostore.export(["tiny"], f"oci:{tmp_path / 'out'}", models=store.root)
    assert blob(tmp_path / "out", WEIGHTS).read_bytes() == WEIGHTS
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    with pytest.raises(DigestMismatchError):
        ostore.export(["tiny"], f"oci:{tmp_path / 'other'}", models=store.root)
    assert not (tmp_path / "other/index.json").exists()
    assert not blob(tmp_path / "other", WEIGHTS).exists()


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", FormatError),
        (b"[]", FormatError),
        (b"{}", FormatError),
        (b'{"schemaVersion":1,"manifests":[]}', FormatError),
        (b'{"schemaVersion":2}', FormatError),
        (b'{"schemaVersion":2,"manifests":{}}', FormatError),
        (b'{"schemaVersion":2,"manifests":[],"mediaType":["x"]}', FormatError),
        (b'{"schemaVersion":2,"manifests":[],"layers":[]}', UnsafeError),
        (b'{"schemaVersion":2,"manifests":[],"Config":{}}', UnsafeError),
        (b'{"schemaVersion":2,"manifests":[],"Manifests":[]}', UnsafeError),
        (b"[" * 100_000, LimitError),
        (b" " * (MAX_INDEX_BYTES + 1), LimitError),
    ],
)
def test_an_index_that_is_none_is_refused(raw: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error, match=r"^index\.json: "):
        ImageIndex.parse(raw)


def test_manifests_have_a_limit_together_and_each() -> None:
    entry = {"mediaType": OCI_MANIFEST, "digest": f"sha256:{'0' * 64}", "annotations": {REF_NAME: "x"}}
    many = {"schemaVersion": 2, "manifests": [{**entry, "size": 4 * 1024 * 1024}] * 9}
    with pytest.raises(LimitError, match="in all"):
        ImageIndex.parse(json.dumps(many).encode())
    (found,) = ImageIndex.parse(
        json.dumps({"schemaVersion": 2, "manifests": [{**entry, "size": 4 * 1024 * 1024 + 1}]}).encode()
    ).entries
    assert isinstance(found.problem, LimitError)


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"imageLayoutVersion":"2.0.0"}', b'{"imageLayoutVersion":1}', b"[1]"])
def test_another_version_of_layouts_is_refused(raw: bytes) -> None:
    with pytest.raises(FormatError, match=r"^oci-layout: "):
        check_layout(raw)
    check_layout(layout_document())
    check_layout(b'{"imageLayoutVersion":"1.1.0","more":1}')
    with pytest.raises(LimitError):
        check_layout(b" " * 70_000)


def test_an_index_that_no_reader_would_take_is_not_written() -> None:
    # Keys of others stay, so they count.
    index = ImageIndex({"annotations": {"of.others": "x" * MAX_INDEX_BYTES}}, ())
    with pytest.raises(LimitError, match=f"expected at most {MAX_INDEX_BYTES} bytes"):
        index.write()


def test_an_index_of_any_depth_is_written_or_refused() -> None:
    """Python reads some that it cannot write. How deep they are depends on what calls it."""
    outcomes = set[bool | str]()
    for depth in range(500, 1000):
        nested = f'{{"schemaVersion":2,"manifests":[{{"more":{"[" * depth + "]" * depth}}}]}}'.encode()
        with contextlib.suppress(LimitError):
            index = ImageIndex.parse(nested)
            try:
                outcomes.add(ImageIndex.parse(index.write()).entries == index.entries)
            except LimitError as error:
                outcomes.add(str(error))
    assert outcomes in ({True}, {True, "index.json: JSON nested too deeply"})


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "layout"),
        ("serve", "layout"),
        ("import", "layout"),
        ("inspect", "layout/"),
        ("sync", "layout", "new/"),
        ("sync", "models", "layout"),
        ("diff", "layout"),
        ("export", "tiny:q4", "new.tar", "--have", "layout"),
        ("export", "tiny:q4", "layout/"),
        ("pull", "127.0.0.1:1/library/tiny", "--to", "layout/"),
    ],
)
def test_the_folder_of_a_layout_is_no_store(store: Store, tmp_path: Path, words: tuple[str, ...]) -> None:
    at(store, "export", "--all", "oci:layout")
    before = tree(tmp_path)
    told = at(store, *words, code=2)
    assert ": an OCI image layout, and no store (as a layout, it is oci:layout)\n" in told
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("doctor", "--fix"),
        ("gc", "--yes"),
        ("verify",),
        ("import", "oci:layout"),
        ("create", "new", "tiny.gguf"),
        ("move", "new", "--yes"),
    ],
)
def test_the_folder_of_a_layout_is_no_place_for_models(store: Store, tmp_path: Path, words: tuple[str, ...]) -> None:
    at(store, "export", "--all", "oci:layout")
    (tmp_path / "tiny.gguf").write_bytes(gguf(ONE_LAYER, {"token_embd.weight": ((32, 4), [0.5])}))
    before = tree(tmp_path)
    layout = tmp_path / "layout"
    told = at(store, *words, code=2, models=layout)
    assert f"{layout}: an OCI image layout, and no store (ostore inspect oci:{layout} shows the models in it)\n" in told
    assert tree(tmp_path) == before


def test_a_store_with_a_file_of_that_name_is_a_store(store: Store) -> None:
    (store.root / "oci-layout").write_bytes(layout_document())
    assert "tiny:q4" in at(store, "list")
    assert ": whole (models)" in at(store, "verify", "models")
