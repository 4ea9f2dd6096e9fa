"""
Stores with one odd entry beside a whole model, one for each row of the table in docs/store.md.

Tests of the table, of remedies and of many odd entries together build them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support import CONFIG, MODEL, TEMPLATE, Store, full, noise, sha256

DAY = 86_400
WEIGHTS = noise(40_000, 77)
OTHER_WEIGHTS = noise(30_000, 78)
APPLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "


@dataclass(frozen=True)
class OddStore:
    """
    `make` puts the odd entry into a store. `odd` is the model in question, as a person types it, or empty.

    `named` is a word that a warning about it contains. `is_posix` marks what Windows cannot hold.
    """

    make: Callable[[Store], object]
    odd: str = ""
    named: str = ""
    is_posix: bool = False


def odd_model(store: Store, name: str = "odd", weights: bytes = WEIGHTS) -> Path:
    """Add the whole model that a row then changes."""
    layers = store.layer(MODEL, weights), store.layer(TEMPLATE, b"{{ .Prompt }}")
    return store.add(full(f"{name}:latest"), *layers, config=store.config(model_type="7.7M"))


def aged(path: Path, days: float = 30) -> Path:
    """Make an entry old enough for every grace."""
    now = path.lstat().st_mtime - days * DAY
    os.utime(path, (now, now), follow_symlinks=False)
    return path


def elsewhere(store: Store, name: str) -> Path:
    """A path outside the store, on the same disk."""
    folder = store.root.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    return folder / name


def put(store: Store, path: str, data: bytes) -> Path:
    """Write a file of the store by its path."""
    target = store.root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return target


def manifest(store: Store, name: str = "odd") -> Path:
    return store.manifest_path(full(f"{name}:latest"))


def _config_of(store: Store, name: str = "odd") -> Path:
    digest: str = json.loads(manifest(store, name).read_bytes())["config"]["digest"]
    return store.root / "blobs" / digest.replace(":", "-")


def linked(store: Store) -> None:
    odd_model(store)
    blob = store.blob_path(WEIGHTS)
    target = elsewhere(store, "weights.gguf")
    shutil.move(blob, target)
    blob.symlink_to(target)


def linked_nowhere(store: Store) -> None:
    odd_model(store)
    blob = store.blob_path(WEIGHTS)
    blob.unlink()
    blob.symlink_to(elsewhere(store, "gone.gguf"))


def linked_to_folder(store: Store) -> None:
    odd_model(store)
    blob = store.blob_path(WEIGHTS)
    blob.unlink()
    blob.symlink_to(elsewhere(store, "x").parent)


def side_file(store: Store) -> None:
    odd_model(store)
    put(store, f"{manifest(store).parent.relative_to(store.root).as_posix()}/._latest", APPLE)
    put(store, "manifests/.DS_Store", b"\x00\x00\x00\x01Bud1\x00\x00")
    put(store, f"{manifest(store).parent.relative_to(store.root).as_posix()}/.DS_Store", b"\x00\x00\x00\x01Bud1\x00")


def side_blob(store: Store) -> None:
    odd_model(store)
    put(store, f"blobs/._sha256-{sha256(WEIGHTS)}", APPLE)


def foreign_blob(store: Store) -> None:
    odd_model(store)
    put(store, "blobs/README.txt", b"these are the blobs of the group\n")


def closed_folder(store: Store) -> None:
    odd_model(store)
    manifest(store).parent.chmod(0)


def misplaced(store: Store) -> None:
    odd_model(store)
    target = store.root / "manifests" / "library" / "odd" / "latest"
    target.parent.mkdir(parents=True)
    shutil.move(manifest(store), target)
    manifest(store).parent.rmdir()


def twins(store: Store) -> None:
    odd_model(store)
    store.model("Odd:latest", OTHER_WEIGHTS)


def part_twins(store: Store) -> None:
    store.model("registry.ollama.ai/odd/one:latest", WEIGHTS)
    store.model("registry.ollama.ai/Odd/two:latest", OTHER_WEIGHTS)


def alias_of_tag(store: Store) -> None:
    path = odd_model(store)
    (path.parent / "LATEST").symlink_to("latest")


def alias_of_folder(store: Store) -> None:
    path = odd_model(store)
    (path.parent.parent / "ODD").symlink_to("odd")


def _respelled(spelled: Callable[[str], str]) -> Callable[[Store], None]:
    def make(store: Store) -> None:
        odd_model(store)
        blob = store.blob_path(WEIGHTS)
        blob.rename(blob.with_name(spelled(sha256(WEIGHTS))))

    return make


def _respelled_manifest(spelled: Callable[[str], str]) -> Callable[[Store], None]:
    def make(store: Store) -> None:
        path = odd_model(store)
        document = json.loads(path.read_bytes())
        for part in (document["config"], *document["layers"]):
            part["digest"] = spelled(part["digest"])
        path.write_bytes(json.dumps(document, separators=(",", ":")).encode() + b"\n")

    return make


def empty_manifest(store: Store) -> None:
    odd_model(store).write_bytes(b"")


def cut_manifest(store: Store) -> None:
    path = odd_model(store)
    path.write_bytes(path.read_bytes()[:150])


def manifest_linked_nowhere(store: Store) -> None:
    path = odd_model(store)
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def download(store: Store) -> None:
    digits = sha256(b"still coming")
    aged(put(store, f"blobs/sha256-{digits}-partial", b"half"), 0.1)
    aged(put(store, f"blobs/sha256-{digits}-partial-0", b"{}"), 0.1)


def numbered_download(store: Store) -> None:
    odd_model(store)
    aged(put(store, "blobs/sha256-123456-partial", b"half"), 0.1)


def temporary(store: Store) -> None:
    odd_model(store)
    aged(put(store, "blobs/sha256-1234567", b"half"))


def only_in_v2(store: Store) -> None:
    path = odd_model(store)
    target = store.root / "manifests-v2" / path.relative_to(store.root / "manifests")
    target.parent.mkdir(parents=True)
    shutil.move(path, target)
    path.parent.rmdir()


def cloud_stub(store: Store) -> None:
    config = store.config(model_format="", remote_host="https://ollama.com:443", remote_model="odd")
    store.add(full("odd:latest"), config=config)


def no_config(store: Store) -> None:
    odd_model(store)
    _config_of(store).unlink()


def cut_config(store: Store) -> None:
    odd_model(store)
    path = _config_of(store)
    path.write_bytes(path.read_bytes()[:20])


def config_without_json(store: Store) -> None:
    store.add(
        full("odd:latest"), store.layer(MODEL, WEIGHTS), config=store.layer(CONFIG, b"this is no JSON document\n")
    )


def missing_blob(store: Store) -> None:
    odd_model(store)
    store.blob_path(WEIGHTS).unlink()


def short_blob(store: Store) -> None:
    odd_model(store)
    path = store.blob_path(WEIGHTS)
    path.write_bytes(path.read_bytes()[:1000])


def altered_blob(store: Store) -> None:
    odd_model(store)
    path = store.blob_path(WEIGHTS)
    path.write_bytes(b"X" + path.read_bytes()[1:])


def orphan(store: Store) -> None:
    store.blob(WEIGHTS)
    aged(store.blob_path(WEIGHTS))


def only_blobs(store: Store) -> None:
    shutil.rmtree(store.root / "manifests")


def no_store(store: Store) -> None:
    shutil.rmtree(store.root / "manifests")
    shutil.rmtree(store.root / "blobs")


def _dashed(digest: str) -> str:
    return digest.replace(":", "-")


def _capitals(digest: str) -> str:
    return f"sha256:{digest.removeprefix('sha256:').upper()}"


# By the first column of the table in docs/store.md. A row may have several stores.
ODD_STORES: dict[str, tuple[OddStore, ...]] = {
    "a blob is a link to a file": (OddStore(linked, "odd", "link", is_posix=True),),
    "a blob is a link to nowhere or to no file": (
        OddStore(linked_nowhere, "odd", "link", is_posix=True),
        OddStore(linked_to_folder, "odd", "link", is_posix=True),
    ),
    "a side file among the manifests": (OddStore(side_file, "odd", "side file"),),
    "a side file or foreign file in `blobs/`": (
        OddStore(side_blob, "odd", "._sha256-"),
        OddStore(foreign_blob, "odd", "README.txt"),
    ),
    "a folder of manifests that we may not read": (OddStore(closed_folder, "odd", "odd", is_posix=True),),
    "a manifest where none can be": (OddStore(misplaced, "odd", "manifests/library/odd/latest"),),
    "two names that differ only by case": (OddStore(twins, "odd", "odd:latest", is_posix=True),),
    "two spellings of a part of names": (OddStore(part_twins, "odd/one", "odd", is_posix=True),),
    "a link to the same model under another spelling": (
        OddStore(alias_of_tag, "odd:LATEST", "LATEST", is_posix=True),
        OddStore(alias_of_folder, "ODD", "ODD", is_posix=True),
    ),
    "a blob named `sha256:…`": (
        OddStore(_respelled(lambda digits: f"sha256:{digits}"), "odd", "sha256:", is_posix=True),
    ),
    "a blob named in capitals": (OddStore(_respelled(lambda digits: f"sha256-{digits.upper()}"), "odd", "sha256-"),),
    "a blob named `sha256_…`, by its digits or with another colon": (
        OddStore(_respelled(lambda digits: f"sha256_{digits}"), "odd", "sha256_"),
        OddStore(_respelled(lambda digits: digits), "odd", sha256(WEIGHTS)),
        OddStore(_respelled(lambda digits: f"sha256\uf03a{digits}"), "odd", "sha256"),
    ),
    "a digest with a dash or in capitals in a manifest": (
        OddStore(_respelled_manifest(_dashed), "odd", "odd:latest"),
        OddStore(_respelled_manifest(_capitals), "odd", "odd:latest"),
    ),
    "a manifest that is empty, cut or a link to nowhere": (
        OddStore(empty_manifest, "odd", "odd"),
        OddStore(cut_manifest, "odd", "odd"),
        OddStore(manifest_linked_nowhere, "odd", "odd", is_posix=True),
    ),
    "a partial download": (OddStore(download, "", "partial"),),
    "`sha256-<number>-partial`, as Ollama 0.1.34 leaves it": (OddStore(numbered_download, "odd", "partial"),),
    "another temporary file of Ollama": (OddStore(temporary, "odd", "1234567"),),
    "a model in `manifests-v2/` only": (OddStore(only_in_v2, "odd", "odd:latest"),),
    "a cloud stub": (OddStore(cloud_stub, "odd", "odd:latest"),),
    "a config that is missing": (OddStore(no_config, "odd", "odd:latest"),),
    "a config that is cut": (OddStore(cut_config, "odd", "odd:latest"),),
    "a config that is whole, but no JSON": (OddStore(config_without_json, "odd", "odd:latest"),),
    "a blob that is missing": (OddStore(missing_blob, "odd", "odd:latest"),),
    "a blob that has another size": (OddStore(short_blob, "odd", "odd:latest"),),
    "a blob that was altered": (OddStore(altered_blob, "odd", "odd:latest"),),
    "a blob that no model needs": (OddStore(orphan),),
    "`blobs/` with blobs, but no `manifests/`": (OddStore(only_blobs, "", "manifests/"),),
    "neither `blobs/` nor `manifests/`": (OddStore(no_store),),
}
