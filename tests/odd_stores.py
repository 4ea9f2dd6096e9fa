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
ODD = "odd"
WEIGHTS = noise(40_000, 77)
OTHER_WEIGHTS = noise(30_000, 78)
APPLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "


@dataclass(frozen=True)
class OddStore:
    """
    `make` puts the odd entry into a store; it takes another name and other weights. `odd` is the model in question, as
    a person types it, or empty. `named` is a word that a warning about it contains. `is_posix` marks what Windows
    cannot hold.
    """

    make: Callable[..., object]
    odd: str = ""
    named: str = ""
    is_posix: bool = False


def odd_model(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> Path:
    """Add the whole model that a row then changes."""
    layers = store.layer(MODEL, weights), store.layer(TEMPLATE, b"{{ .Prompt }}")
    return store.add(full(f"{name}:latest"), *layers, config=store.config(model_type="7.7M", named=name))


def aged(path: Path, days: float = 30) -> Path:
    """Make an entry old enough for every grace."""
    now = path.lstat().st_mtime - days * DAY
    # Windows dates no links, and the tests make none there.
    os.utime(path, (now, now), follow_symlinks=os.name == "nt")
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


def number_of(name: str) -> int:
    """The digits of a file that Ollama numbers."""
    return int(sha256(name.encode())[:4], 16)


def manifest(store: Store, name: str = ODD) -> Path:
    return store.manifest_path(full(f"{name}:latest"))


def _config_of(store: Store, name: str = ODD) -> Path:
    digest: str = json.loads(manifest(store, name).read_bytes())["config"]["digest"]
    return store.root / "blobs" / digest.replace(":", "-")


def linked(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    blob = store.blob_path(weights)
    target = elsewhere(store, f"{name}.gguf")
    shutil.move(blob, target)
    blob.symlink_to(target)


def linked_nowhere(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    blob = store.blob_path(weights)
    blob.unlink()
    blob.symlink_to(elsewhere(store, "gone.gguf"))


def linked_to_folder(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    blob = store.blob_path(weights)
    blob.unlink()
    blob.symlink_to(elsewhere(store, "x").parent)


def side_file(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    put(store, f"{manifest(store, name).parent.relative_to(store.root).as_posix()}/._latest", APPLE)
    put(store, "manifests/.DS_Store", b"\x00\x00\x00\x01Bud1\x00\x00")
    put(
        store,
        f"{manifest(store, name).parent.relative_to(store.root).as_posix()}/.DS_Store",
        b"\x00\x00\x00\x01Bud1\x00",
    )


def side_blob(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    put(store, f"blobs/._sha256-{sha256(weights)}", APPLE)


def foreign_blob(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    put(store, f"blobs/{name}-README.txt", b"these are the blobs of the group\n")


def closed_folder(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    manifest(store, name).parent.chmod(0)


def misplaced(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    target = store.root / "manifests" / "library" / name / "latest"
    target.parent.mkdir(parents=True)
    shutil.move(manifest(store, name), target)
    manifest(store, name).parent.rmdir()


def twins(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    store.model(f"{name.capitalize()}:latest", OTHER_WEIGHTS)


def part_twins(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    store.model(f"registry.ollama.ai/{name}/one:latest", weights)
    store.model(f"registry.ollama.ai/{name.capitalize()}/two:latest", OTHER_WEIGHTS)


def alias_of_tag(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    path = odd_model(store, name, weights)
    (path.parent / "LATEST").symlink_to("latest")


def alias_of_folder(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    path = odd_model(store, name, weights)
    (path.parent.parent / name.upper()).symlink_to(name)


def _respelled(spelled: Callable[[str], str]) -> Callable[..., None]:
    def make(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
        odd_model(store, name, weights)
        blob = store.blob_path(weights)
        blob.rename(blob.with_name(spelled(sha256(weights))))

    return make


def _respelled_manifest(spelled: Callable[[str], str]) -> Callable[..., None]:
    def make(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
        path = odd_model(store, name, weights)
        document = json.loads(path.read_bytes())
        for part in (document["config"], *document["layers"]):
            part["digest"] = spelled(part["digest"])
        path.write_bytes(json.dumps(document, separators=(",", ":")).encode() + b"\n")

    return make


def empty_manifest(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights).write_bytes(b"")


def cut_manifest(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    path = odd_model(store, name, weights)
    path.write_bytes(path.read_bytes()[:150])


def manifest_linked_nowhere(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    path = odd_model(store, name, weights)
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def download(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    digits = sha256(f"still coming {name}".encode())
    aged(put(store, f"blobs/sha256-{digits}-partial", b"half"), 0.1)
    aged(put(store, f"blobs/sha256-{digits}-partial-0", b"{}"), 0.1)


def numbered_download(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    aged(put(store, f"blobs/sha256-123456{number_of(name)}-partial", b"half"), 0.1)


def temporary(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    aged(put(store, f"blobs/sha256-1234567{number_of(name)}", b"half"))


def only_in_v2(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    path = odd_model(store, name, weights)
    target = store.root / "manifests-v2" / path.relative_to(store.root / "manifests")
    target.parent.mkdir(parents=True)
    shutil.move(path, target)
    path.parent.rmdir()


def cloud_stub(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    config = store.config(model_format="", remote_host="https://ollama.com:443", remote_model=name)
    store.add(full(f"{name}:latest"), config=config)


def no_config(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    _config_of(store, name).unlink()


def cut_config(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    path = _config_of(store, name)
    path.write_bytes(path.read_bytes()[:20])


def config_without_json(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    store.add(
        full(f"{name}:latest"), store.layer(MODEL, weights), config=store.layer(CONFIG, b"this is no JSON document\n")
    )


def missing_blob(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    store.blob_path(weights).unlink()


def short_blob(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    path = store.blob_path(weights)
    path.write_bytes(path.read_bytes()[:1000])


def altered_blob(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    odd_model(store, name, weights)
    path = store.blob_path(weights)
    path.write_bytes(b"X" + path.read_bytes()[1:])


def orphan(store: Store, name: str = ODD, weights: bytes = WEIGHTS) -> None:
    store.blob(weights)
    aged(store.blob_path(weights))


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
