"""The tutorial and the how-to pages are true: each is typed on a machine like the one that it is about."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme

import ostore
from tests.documents import (
    HOW_TO,
    ROOT,
    TUTORIAL,
    Step,
    blocks,
    name_of,
    path_with_ostore,
    steps_in,
    type_all,
)
from tests.gguf import talking_gguf
from tests.machine import type_there
from tests.probing import SERVERS, Serve, cannot_run_models
from tests.registries import docker_registry, needs_registry
from tests.support import MODEL, PARAMS, TEMPLATE, Store, full, noise, sha256

OLLAMA = os.environ.get("OSTORE_TEST_OLLAMA") or shutil.which("ollama")
# A folder with a wheel of ostore. scripts/release_check.sh has just built it, and has an index for the others.
WHEELS = os.environ.get("OSTORE_TEST_WHEELS")
# Lines of the tutorial that are not typed everywhere: how they begin, whether they are typed, and why not.
NOT_EVERYWHERE = {
    "ollama pull ": (False, "needs Ollama's registry; the store of the test has the model"),
    "ollama ": (OLLAMA, "needs a real Ollama"),
    "python3 -m venv ": (WHEELS, "scripts/release_check.sh installs, from an index"),
    "source ": (WHEELS, "the same"),
    "pip ": (WHEELS, "the same"),
}
# Starts a server and waits for it, then what follows; a machine without a network first learns to reach itself.
SERVED = """
ip link set lo up 2>/dev/null
ollama serve >/dev/null 2>&1 & trap "kill $!" EXIT
for _ in $(seq 100); do ollama list >/dev/null 2>&1 && break; sleep 0.1; done
"$@"
"""


def typed_here(part: str) -> list[Step]:
    def is_typed(line: str) -> bool:
        return all(typed for begin, (typed, _) in NOT_EVERYWHERE.items() if line.startswith(begin))

    return [step for step in steps_in(part) if is_typed(step.line)]


def surroundings(home: Path) -> dict[str, str]:
    """A home of its own, where Ollama ran once, and on PATH what the tutorial expects there."""
    programs = home.parent / f"{home.name}-bin"
    programs.mkdir()
    (home / ".ollama").mkdir(parents=True)
    if OLLAMA:
        (programs / "ollama").symlink_to(OLLAMA)
    if WHEELS:
        (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', "utf-8")
        (programs / "python3").chmod(0o755)
    path = os.environ["PATH"] if WHEELS else path_with_ostore()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        # What pip installed is what runs.
        **{name: said for name, said in os.environ.items() if name != "PYTHONPATH" or not WHEELS},
        "HOME": str(home),
        # A machine that runs the tests may have a service, which would decide.
        "OLLAMA_MODELS": str(home / ".ollama/models"),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "PATH": f"{programs}:{path}",
    }


def type_side(steps: list[Step], home: Path, environment: Mapping[str, str], stick: Path, *inside: str) -> None:
    places = {"/media/usb": str(stick), "/home/you": str(home)}
    served = ["bash", "-c", SERVED, "bash"] if OLLAMA else []
    type_all(steps, folder=home, environment=environment, inside=[*inside, *served], places=places)


def fill(models: Path) -> None:
    """The model of the tutorial. It talks."""
    store = Store(models)
    texts = {TEMPLATE: b"{{ .Prompt }}", PARAMS: b'{"num_predict":3}\n'}
    layers = [store.layer(MODEL, talking_gguf()), *(store.layer(kind, data) for kind, data in texts.items())]
    store.add(full("gemma3:270m"), *layers, config=store.config(model_family="llama", model_families=["llama"]))


def test_the_tutorial_carries_a_model_to_a_host_without_a_network(tmp_path: Path) -> None:
    on_the_laptop, on_the_host = map(typed_here, TUTORIAL.read_text("utf-8").split("\n## On the host\n"))
    laptop, stick, host = tmp_path / "laptop", tmp_path / "stick", tmp_path / "host"
    stick.mkdir()
    environment = surroundings(laptop)
    fill(laptop / ".ollama/models")
    type_side(on_the_laptop, laptop, environment, stick)
    assert {path.name for path in stick.iterdir()} == {"gemma3.tar.zst", *(["wheelhouse"] if WHEELS else [])}

    apart = ["unshare", "--net"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("the laptop was fine; a host without a network needs root and unshare")
    # What pip is told on this machine is not known there.
    environment = {name: said for name, said in surroundings(host).items() if not name.startswith("PIP_")}
    type_side(on_the_host, host, environment, stick, *apart)
    assert talking_gguf() in [path.read_bytes() for path in (host / ".ollama/models/blobs").iterdir()]
    assert (host / "ostore/bin/ostore").exists() == bool(WHEELS)


def test_only_lines_that_a_reason_names_are_not_typed() -> None:
    lines = [step.line for step in steps_in(TUTORIAL.read_text("utf-8"))]
    assert [begin for begin in NOT_EVERYWHERE if not any(line.startswith(begin) for line in lines)] == []


# What each page finds, in shell. tests/machine.py has the functions, and the rest of the machine.
SITUATIONS = {
    "another-disk": "service",
    "broken-store": "store_of alice broken; cp given/models.tar.zst alice",
    "container-images": "store_of alice models",
    "dvd": "store_of alice models; chown alice: /media/usb",
    "fat": """
store_of alice models; head -c 64M /dev/zero >disk; mkfs.vfat disk >said
fusefat -o rw+,allow_other disk /media/usb >said 2>&1
""",
    "full-disk": """
mount -t tmpfs -o size=1400k none alice/.ollama
store_of alice full; cp given/large.tar.zst alice/models.tar.zst
# What the store holds is old by then.
export AT_ANOTHER_TIME="faketime -f +9d"
""",
    "hugging-face-cache": "store_of alice other; cp -r given/hugging-face/. alice",
    "lan-mirror": "store_of alice models; cp given/models.tar.zst /media/usb",
    "mac-stick": "cp -r given/from-mac/. /media/usb",
    "other-programs": "mkdir -p alice/.ollama; cp -r given/talking alice/.ollama/models; chown alice: /media/usb",
    "own-gguf": "cp given/mine.gguf alice; chown alice: /media/usb",
    "service": "service; cp given/models.tar.zst alice; cp -r given/other alice/backup",
    "shared-workstation": "service; store_of bob of-bob; cp given/models.tar.zst alice",
    "two-places": "store_of alice models; chown alice: /media/usb",
    "windows-to-linux": """
cp given/llama3.tar.zst /media/usb; cp -r given/from-windows /media/usb/models; chown -R alice: /media/usb
""",
}
# Pages about two machines, each with a test of its own.
OF_TWO_SIDES = {"diode", "monthly-update"}
# Pages with a server: a registry, or an Ollama.
OF_SERVERS = {"probe", "registries", "straight-to-a-stick"}
# Stand for the programs of a diode: what was sent waits in a file, which the test cuts.
DIODE = {"diode-send": 'cat >"$DIODE"', "diode-receive": 'cat "$DIODE"'}
SIDE_FILES = {".DS_Store": b"\0\0\0\1Bud1", "._": b"\0\5\x16\7\0\2\0\0"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores and bundles that situations are made of."""
    folder = tmp_path_factory.mktemp("given")
    sizes = {
        "llama3:latest": 300_000,
        "gemma3:270m": 200_000,
        "mistral:7b": 100_000,
        "qwen3:4b": 50_000,
        "qwen3:8b": 500_000,
    }

    def store(name: str, *models: str) -> Store:
        made = Store(folder / name)
        for model in models:
            made.model(model, noise(sizes[model], sizes[model]), template=b"{{ .Prompt }}", license=b"MIT")
        return made

    three = ("llama3:latest", "gemma3:270m", "mistral:7b")
    models, large = store("models", *three), store("large", "qwen3:8b")
    store("other", "qwen3:4b")
    store("of-bob", *three[1:], "qwen3:4b")
    for name, names, kept in (("models", ["*"], models), ("llama3", ["llama3"], models), ("large", ["*"], large)):
        ostore.export(names, folder / f"{name}.tar.zst", models=kept.root)

    broken = store("broken", *three)
    with broken.blob_path(noise(300_000, 300_000)).open("r+b") as file:
        file.write(b"altered")
    broken.blob_path(noise(200_000, 200_000)).unlink()
    broken.manifest_path(full("mistral:7b")).write_bytes(b"")
    (broken.root / "blobs/notes.txt").write_bytes(b"notes")

    talking = Store(folder / "talking")
    for name in ("llama3:latest", "gemma3:270m"):
        # So that each has weights of its own.
        talking.model(name, talking_gguf() + bytes(32 * len(name)), license=b"MIT")

    (folder / "mine.gguf").write_bytes(talking_gguf())
    cache = folder / "hugging-face/.cache/huggingface/hub/models--me--tiny-GGUF"
    for part in ("blobs", "snapshots/1"):
        (cache / part).mkdir(parents=True)
    (cache / "blobs" / sha256(talking_gguf())).write_bytes(talking_gguf())
    (cache / "snapshots/1/tiny.gguf").symlink_to(f"../../blobs/{sha256(talking_gguf())}")

    full_disk = store("full", *three)
    full_disk.blob(noise(300_000, 1))
    partial = full_disk.blob_path(noise(150_000, 2))
    partial.with_name(f"{partial.name}-partial").write_bytes(noise(150_000, 2))

    windows = store("from-windows", *three)
    manifest = windows.manifest_path(full("mistral:7b"))
    manifest.write_bytes(manifest.read_bytes().replace(b"sha256:", b"sha256-"))
    samba, shouted = (windows.blob_path(noise(size, size)) for size in (300_000, 200_000))
    samba.rename(samba.with_name(samba.name.replace("-", "_")))
    shouted.rename(shouted.with_name(f"sha256-{shouted.name[7:].upper()}"))

    mac = store("from-mac/models", *three).root.parent
    shutil.copy(folder / "models.tar.zst", mac)
    for path in [path for path in mac.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(SIDE_FILES["._"])
        path.with_name(".DS_Store").write_bytes(SIDE_FILES[".DS_Store"])
    return folder


def test_every_page_has_its_situation() -> None:
    assert [page.stem for page in HOW_TO] == sorted({*SITUATIONS, *OF_TWO_SIDES, *OF_SERVERS})


@pytest.mark.parametrize("page", [page for page in HOW_TO if page.stem in SITUATIONS], ids=name_of)
def test_a_how_to_page_holds(page: Path, given: Path) -> None:
    type_there(steps_in(page.read_text("utf-8")), given=given, situation=SITUATIONS[page.stem])


class Sides:
    """Two machines and a stick. The parts of a page say in their heading on which one they are typed."""

    def __init__(self, page: str, folder: Path, programs: Mapping[str, str] | None = None) -> None:
        text = (ROOT / f"docs/how-to/{page}.md").read_text("utf-8")
        self.parts = [part for part in text.split("\n## ") if steps_in(part)]
        self.near, self.far = (Store(folder / side / ".ollama/models") for side in ("Near", "Far"))
        self.stick, self.stream = folder / "stick", folder / "stream"
        self._folder = folder
        for path in (self.stick, folder / "bin", self.near.root, self.far.root):
            path.mkdir(parents=True)
        (self.far.root / "blobs").mkdir()
        for name, line in (programs or {}).items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n", "utf-8")
            (folder / "bin" / name).chmod(0o755)

    def type_part(self, number: int) -> None:
        part = self.parts[number]
        home = self._folder / part.split()[1]
        environment = {
            **os.environ,
            "HOME": str(home),
            "OLLAMA_MODELS": str(home / ".ollama/models"),
            "PATH": f"{self._folder / 'bin'}:{path_with_ostore()}",
            "DIODE": str(self.stream),
        }
        type_all(steps_in(part), folder=home, environment=environment, places={"/media/usb": str(self.stick)})


def test_a_months_cycle_is_typed_twice(tmp_path: Path) -> None:
    sides = Sides("monthly-update", tmp_path)
    written = []
    for month in range(2):
        for number, name in enumerate(("llama3:latest", "gemma3:270m", "mistral:7b")):
            # Two of them have a new version in the second month.
            sides.near.model(name, noise(200_000, number + 10 * (month and number)), license=b"MIT")
        for number in range(3):
            sides.type_part(number)
        written.append((sides.stick / "delta.tar.zst").stat().st_size)
        assert ostore.diff(sides.near.root, sides.far.root).models == ()
    assert written[0] > 600_000
    assert 400_000 < written[1] < 500_000
    assert len(sides.parts) == 3


def test_what_a_diode_cut_off_is_sent_again(tmp_path: Path) -> None:
    sides = Sides("diode", tmp_path, DIODE)
    for name, size in (("gemma3:270m", 200_000), ("llama3:latest", 300_000)):
        sides.near.model(name, noise(size, size), license=b"MIT")
    sides.type_part(0)
    sides.stream.write_bytes(sides.stream.read_bytes()[:300_000])
    sides.type_part(1)
    shutil.copy(tmp_path / "Far/resend.lock", sides.stick)
    sides.type_part(2)
    sides.type_part(3)
    assert ostore.diff(sides.near.root, sides.far.root).models == ()
    assert len(sides.parts) == 4


@needs_registry
@pytest.mark.skipif(not shutil.which("skopeo") or not shutil.which("htpasswd"), reason="needs skopeo and htpasswd")
def test_a_registry_with_a_private_authority_and_logins(given: Path, tmp_path: Path) -> None:
    home, certs = tmp_path / "home", tmp_path / "home/certs"
    certs.mkdir(parents=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(certs / "ca.crt")
    issued = authority.issue_cert("127.0.0.1")
    tls = (tmp_path / "registry.crt", tmp_path / "registry.key")
    issued.cert_chain_pems[0].write_to_path(tls[0])
    issued.private_key_pem.write_to_path(tls[1])
    (home / "password").write_text("hush")
    passwords = subprocess.run(["htpasswd", "-nbB", "alice", "hush"], check=True, capture_output=True).stdout
    (tmp_path / "htpasswd").write_bytes(passwords)
    shutil.copytree(given / "models", home / ".ollama/models")
    environment = {
        **os.environ,
        "HOME": str(home),
        "OLLAMA_MODELS": str(home / ".ollama/models"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "PATH": path_with_ostore(),
    }
    (tmp_path / "run").mkdir(mode=0o700)
    with docker_registry(tmp_path / "registry", htpasswd=tmp_path / "htpasswd", tls=tls) as registry:
        page = (ROOT / "docs/how-to/registries.md").read_text("utf-8")
        type_all(steps_in(page), folder=home, environment=environment, places={"harbor.lan": registry.host})
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            report = ostore.push(["llama3"], to=f"{registry.host}/models", ca_file=certs / "ca.crt", modelpack=True)
    assert report.blobs_sent == 0


@needs_registry
def test_models_go_from_a_registry_straight_to_a_stick(given: Path, tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    environment = {**os.environ, "HOME": str(tmp_path), "OLLAMA_MODELS": "models", "PATH": path_with_ostore()}
    with docker_registry(tmp_path / "registry") as registry:
        registry.fill(Store(given / "models"))
        page = (ROOT / "docs/how-to/straight-to-a-stick.md").read_text("utf-8")
        (tmp_path / "models").mkdir()
        type_all(steps_in(page), folder=tmp_path, environment=environment, places={"registry.ollama.ai": registry.host})


@pytest.mark.parametrize("server", SERVERS)
def test_a_running_ollama_is_asked_after_an_import(server: Serve, tmp_path: Path) -> None:
    fill(tmp_path / "near")
    ostore.export(["*"], tmp_path / "models.tar.zst", models=tmp_path / "near")
    (tmp_path / "models/blobs").mkdir(parents=True)
    if cannot_run_models(server):
        pytest.skip("no llama-server beside this Ollama")
    with server(tmp_path / "models", tmp_path / "home") as url:
        environment = {**os.environ, "OLLAMA_HOST": url, "OLLAMA_MODELS": str(tmp_path / "models")}
        environment["PATH"] = path_with_ostore()
        steps = steps_in((ROOT / "docs/how-to/probe.md").read_text("utf-8"))
        type_all(steps, folder=tmp_path, environment=environment, places={"/media/usb": str(tmp_path)})


def test_what_powershell_starts_of_ours_runs(given: Path, tmp_path: Path) -> None:
    shown = [block.text for page in HOW_TO for block in blocks(page) if block.language == "powershell"]
    lines = [line for text in shown for line in text.splitlines() if line.startswith("ostore ")]
    assert len(lines) == 3
    environment = {**os.environ, "PATH": path_with_ostore(), "OLLAMA_MODELS": str(given / "models")}
    steps = [Step(line, 0, ()) for line in lines]
    type_all(steps, folder=tmp_path, environment=environment, places={"E:\\": f"{tmp_path}/"})


@pytest.mark.parametrize("document", [TUTORIAL, *HOW_TO], ids=name_of)
def test_a_guide_can_be_read_on_a_console_of_80_columns(document: Path) -> None:
    lines = document.read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > 79 and not line.startswith("$ ")] == []
