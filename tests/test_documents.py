"""What the documents say is true: commands and examples run, tables agree with the program, links resolve."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import ostore
from ostore.cli import exit_codes
from ostore.formats import (
    bundle_index,
    inventory,
    json_reading,
    lock_file,
    manifest,
    recipe,
    seek_table,
    tar_header,
    volume_set,
    zstd_frame,
)
from ostore.formats.bundle_index import BundleIndex
from ostore.formats.errors import class_of
from ostore.formats.recipe import Recipe
from ostore.operations.verify import ProblemKind
from ostore.places.bundle import walk
from ostore.streams import document as carried
from ostore.streams import recipe as following
from tests.documents import (
    DOCUMENTS,
    HOW_TO,
    ROOT,
    TUTORIAL,
    blocks,
    having,
    name_of,
    path_with_ostore,
    steps_in,
    type_all,
)
from tests.gguf import talking_gguf
from tests.support import LICENSE, MODEL, PARAMS, SYSTEM, TEMPLATE, Store, full, noise
from tests.test_json import REPORTS, report_fields, schema

_AS_ROOT = "installs for every user of this machine"
_CONTAINERS = "needs a daemon, or a registry"
_LLAMA = "needs llama.cpp; test_llama.py runs one"
_MIRROR = "needs a network of several machines; test_serve.py has the servers and clients"
_WINDOWS = "is PowerShell, which only Windows has"
# Lines in ```sh and ```powershell blocks do not run here: each one, and why. What PowerShell starts of ours does run.
NOT_RUN = {
    "pip install ostore": "installs a published package",
    "pip download ostore --dest wheelhouse": "needs a package index",
    "pip install --no-index --find-links wheelhouse ostore": "needs the folder that the line before it makes",
    "sudo python3 -m venv /opt/ostore": _AS_ROOT,
    "sudo /opt/ostore/bin/pip install --no-index --find-links wheelhouse ostore": _AS_ROOT,
    "sudo ln -s /opt/ostore/bin/ostore /usr/local/bin/ostore": _AS_ROOT,
    "ssh other-host ostore export llama3 - | ostore repair llama3 --from -": "needs another host",
    "rm ~/.ollama/models/blobs/sha256-DIGEST": "is for a digest that a person fills in",
    "ollama pull llama3": "needs Ollama's registry",
    "ostore pull llama3 qwen3:8b --to models.tar.zst": "needs Ollama's registry",
    "ostore push llama3 --to harbor.example.com/models": "needs a registry; the page about them has one",
    "ostore sync http://mirror.lan:11435 /srv/models": "needs a registry; tests/test_sync.py has one",
    "ostore sync /srv/models https://harbor.lan/models --ca-file lan.pem": "the same",
    "ostore probe 127.0.0.1:8080": "needs an Ollama there",
    "ostore probe gpu.lan": "needs another host",
    "ostore probe https://ollama.example.org": "needs another host",
    "sudo ostore import ~/.ollama/models --models /usr/share/ollama/.ollama/models": _AS_ROOT,
    "py -m venv $HOME\\ostore": _WINDOWS,
    "& $HOME\\ostore\\Scripts\\Activate.ps1": _WINDOWS,
    '$linux = "--only-binary", ":all:", "--platform", "manylinux2014_x86_64"': _WINDOWS,
    "pip download ostore --dest E:\\wheelhouse @linux --python-version 3.12": _WINDOWS,
    "robocopy $HOME\\.ollama\\models E:\\models /E": _WINDOWS,
    "ostore create llava ./llava.gguf ./mmproj.gguf": "needs such files",
    "ostore create llava ./llava-folder": "needs such files",
    "ostore create big ./big-00001-of-00003.gguf": "needs such files",
    "docker load -i models.tar": _CONTAINERS,
    "podman load -i models.tar": _CONTAINERS,
    "skopeo copy --preserve-digests \\": _CONTAINERS,
    "    oci-archive:models.tar docker://registry.example/models:1": _CONTAINERS,
    "    oci:layout:registry.ollama.ai/library/llama3:latest \\": _CONTAINERS,
    "    docker://registry.example/library/llama3:latest": _CONTAINERS,
    'llama-server -m "$(ostore path llama3)"': _LLAMA,
    'llama-mtmd-cli -m llava.gguf --mmproj "$(ostore path llava --projector)"': _LLAMA,
    "llama-server --models-dir models": _LLAMA,
    "ollama pull --insecure mirror.lan:11435/library/llama3": _MIRROR,
    "ollama cp mirror.lan:11435/library/llama3 llama3": _MIRROR,
    "sudo ostore serve --listen :80 --host registry.ollama.ai": _MIRROR,
    "echo '192.168.1.5 registry.ollama.ai' | sudo tee -a /etc/hosts": _MIRROR,
    "ollama pull --insecure llama3": _MIRROR,
    "docker build -t ostore-serve .": _MIRROR,
    "docker run -p 11435:11435 -v /srv/models:/models:ro ostore-serve": _MIRROR,
    "make check": ".ci/run does it",
    "make demo": "takes a model of 253 MB; .ci/run does it",
    "make test": "is this",
}
# The commands of a guide run in a place of its own: test_guides.py.
WITHOUT_GUIDES = [document for document in DOCUMENTS if document not in {TUTORIAL, *HOW_TO}]
# Documents that are no reports, and their sections.
EVENTS = {"error": "\n## Errors\n", "progress": "\n## Progress\n"}
LANGUAGES = {"console", "dockerfile", "ini", "json", "powershell", "python", "sh"}
# Programs that commands in documents use besides ostore; a document whose programs are missing is skipped.
PROGRAMS = {"bash", "gzip", "sha256sum", "tar", "zstd"}

LIMITS = {
    "index": bundle_index.MAX_INDEX_BYTES,
    "signatures": walk.MAX_SIGNATURE_BYTES,
    "a file of group 3": bundle_index.MAX_FILE_BYTES,
    "a manifest": manifest.MAX_MANIFEST_BYTES,
    "layers in a manifest": manifest.MAX_LAYERS,
    "members of groups 3 to 5": bundle_index.MAX_MEMBERS,
    "the line of a recipe": recipe.MAX_HEAD_BYTES,
    "steps of a recipe": recipe.MAX_STEPS,
    "bases of a recipe": recipe.MAX_BASES,
    "recipes on top of each other": recipe.MAX_DEPTH,
    "steps of nested recipes": following.MAX_NESTED_STEPS,
    "short reads of nested recipes": following.MAX_SHORT_READS,
    "`creator`": bundle_index._MAX_CREATOR_CHARACTERS,
    "a member's name, with its zero byte": tar_header.MAX_LONG_NAME_BYTES,
    "a blob, and all blobs together": bundle_index._MAX_TOTAL,
    "a frame's content": zstd_frame.MAX_FRAME_CONTENT,
    "a frame's window": zstd_frame.MAX_WINDOW,
    "a frame in the file": zstd_frame.MAX_FRAME_BYTES,
    "blocks in a frame": zstd_frame._MAX_BLOCKS,
    "frames": seek_table.MAX_FRAMES,
    "volumes of a set": volume_set.MAX_VOLUMES,
    "the list of digests of a set": volume_set.MAX_SUMS_BYTES,
}


def rows(document: str, columns: int) -> Iterator[list[str]]:
    """The cells of every table row with so many columns, heads and rules left out."""
    for line in (ROOT / document).read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == columns and set(line) - set("|- "):
            yield cells


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that documents talk about."""
    made = Store(tmp_path_factory.mktemp("documents") / "models")
    for name, weights, family in (
        ("llama3:latest", noise(300_000, 1), "llama"),
        ("llama3:8b", noise(300_000, 1), "llama"),
        ("gemma3:270m", talking_gguf() + noise(100_000, 2), "gemma3"),
        ("mistral:7b", noise(100_000, 3), "llama"),
    ):
        made.add(
            full(name),
            made.layer(MODEL, weights),
            made.layer(TEMPLATE, b"{{ .System }} {{ .Prompt }}"),
            made.layer(SYSTEM, f"You are {name}.".encode()),
            made.layer(PARAMS, b'{"stop":["\\u003c|end|\\u003e"],"temperature":0.6}\n'),
            made.layer(LICENSE, b"MIT"),
            config=made.config(model_family=family),
        )
    return made.root


@pytest.fixture
def surroundings(made: Path, tmp_path: Path) -> tuple[Path, Mapping[str, str]]:
    """An empty folder to work in, and the environment: a store of its own, and `ostore` on PATH."""
    models, work = tmp_path / "models", tmp_path / "work"
    shutil.copytree(made, models)
    work.mkdir()
    return work, {**os.environ, "PATH": path_with_ostore(), "OLLAMA_MODELS": str(models)}


@pytest.mark.parametrize("document", having("console", WITHOUT_GUIDES), ids=name_of)
def test_commands_run(document: Path, surroundings: tuple[Path, Mapping[str, str]]) -> None:
    work, environment = surroundings
    steps = steps_in(document.read_text("utf-8"))
    used = PROGRAMS & {"bash", *re.findall(r"\w+", " ".join(step.line for step in steps))}
    if missing := sorted(program for program in used if shutil.which(program) is None):
        pytest.skip(f"not installed: {', '.join(missing)}")
    type_all(steps, folder=work, environment=environment)


@pytest.mark.parametrize("document", having("python"), ids=name_of)
def test_python_examples_run(document: Path, surroundings: tuple[Path, Mapping[str, str]]) -> None:
    work, environment = surroundings
    program = "\n".join(block.text for block in blocks(document) if block.language == "python")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_lines_that_do_not_run_are_known() -> None:
    shown = [block for document in DOCUMENTS for block in blocks(document) if block.language in {"sh", "powershell"}]
    lines = {(block.language, line) for block in shown for line in block.text.splitlines()}
    assert {line for language, line in lines if language == "sh" or not line.startswith("ostore ")} == NOT_RUN.keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_blocks_are_of_a_kind_that_is_tested(document: Path) -> None:
    assert {block.language for block in blocks(document)} <= LANGUAGES
    assert document.read_text("utf-8").count("```") == 2 * len(blocks(document))
    for block in blocks(document):
        if block.language == "console":
            assert block.steps
        if block.language == "json":
            json.loads(block.text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", document.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), target
        assert linked.resolve().is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(document: Path) -> set[str]:
    """What a heading is called in an address: lower case, spaces as hyphens, other signs left out."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_document_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    linked = [path for path in DOCUMENTS if path.parent in {ROOT / "docs", ROOT / "docs/how-to"}]
    assert [name_of(path) for path in linked if f"({name_of(path)})" not in readme] == []


def test_exit_codes_are_those_of_the_program() -> None:
    listed = {int(code): name for code, name, *_ in rows("docs/exit-codes.md", 4) if code.isdecimal()}
    assert listed == {
        0: "",
        **{code: name for name, code in exit_codes.CODES.items()},
        exit_codes.INTERRUPTED: "",
        exit_codes.TERMINATED: "",
    }


def test_the_kinds_of_problems_in_the_json_document_are_those_of_verify() -> None:
    text = (ROOT / "docs/json.md").read_text("utf-8")
    (row,) = re.findall(r"^\| `reports\[\]\.problems\[\]\.kind` .*$", text, re.MULTILINE)
    assert re.findall(r"`([a-z-]+)`", row) == list(typing.get_args(ProblemKind))


@pytest.mark.parametrize("name", [*REPORTS, *EVENTS])
def test_json_fields_are_those_of_the_reports(name: str) -> None:
    text = (ROOT / "docs/json.md").read_text("utf-8")
    section = text.partition(EVENTS.get(name, f"\n## ostore.{name}/1\n"))[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    expected = [*schema(name)["properties"]] if name in EVENTS else ["schema", *report_fields(name)]
    assert listed == expected


def test_every_public_name_is_in_the_api_document() -> None:
    text = (ROOT / "docs/api.md").read_text("utf-8")
    assert [name for name in ostore.__all__ if re.search(rf"`(ostore\.)?{name}\b", text) is None] == []


def test_signatures_in_the_api_document_are_those_of_the_functions() -> None:
    listed = re.findall(r"^## `(.+)`$", (ROOT / "docs/api.md").read_text("utf-8"), re.MULTILINE)
    functions = [name for name in ostore.__all__ if inspect.isfunction(getattr(ostore, name))]
    assert sorted(listed) == sorted(f"{name}({parameters(name)})" for name in functions)


def parameters(function: str) -> str:
    parts: list[str] = []
    for parameter in inspect.signature(getattr(ostore, function)).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = (
            "…" if parameter.name == "progress" or inspect.isfunction(parameter.default) else repr(parameter.default)
        )
        parts.append(parameter.name if parameter.default is parameter.empty else f"{parameter.name}={default}")
    return ", ".join(parts)


def test_exceptions_in_the_api_document_have_the_exit_codes_it_says() -> None:
    listed = {
        name: int(code)
        for first, when, code in rows("docs/api.md", 3)
        if code.isdecimal()
        for name in re.findall(r"\w+Error", first + when)
    }
    errors = {name for name in ostore.__all__ if name.endswith("Error")} - {"OstoreError"}
    classes = {name: getattr(ostore, name) for name in errors}
    assert listed == {name: exit_codes.CODES[class_of(kind.__new__(kind))] for name, kind in classes.items()}


def test_limits_of_the_format_are_those_of_the_program() -> None:
    listed = {}
    for what, number in rows("docs/bundle.md", 2):
        if match := re.match(r"[0-9,]+", number):
            listed[what] = int(match[0].replace(",", ""))
    assert listed == LIMITS


def test_limits_of_what_is_carried_back_are_those_of_the_program() -> None:
    listed = {
        what: int(match[0].replace(",", ""))
        for what, number in rows("docs/delta.md", 2)
        if (match := re.match(r"[0-9,]+", number))
    }
    assert listed == {
        "an inventory, also unpacked": inventory.MAX_INVENTORY_BYTES,
        "models and blobs together": bundle_index.MAX_MEMBERS,
        "tensors in all blobs together": inventory.MAX_TENSORS,
        "values in the document": json_reading._MAX_VALUES,
        "a manifest": manifest.MAX_MANIFEST_BYTES,
        "a zstd frame's window": carried._MAX_WINDOW,
    }
    assert f"{lock_file.MAX_LOCK_BYTES:,} bytes" in (ROOT / "docs/delta.md").read_text("utf-8")


def test_the_example_inventory_and_the_example_lock_are_some() -> None:
    (example,) = (block for block in blocks(ROOT / "docs/delta.md") if block.language == "json")
    found = inventory.Inventory.parse(example.text.encode())
    fields = re.findall(r"^\| `([^|]+)` \|", (ROOT / "docs/delta.md").read_text("utf-8"), re.MULTILINE)
    named = {name for field in fields for name in field.split("`, `")}
    assert {"format", "version", "models[].blobs", "blobs[].staged", "blobs[].tensors.header"} <= named
    assert json.loads(found.write()).keys() == json.loads(example.text).keys()
    text = (ROOT / "docs/delta.md").read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ") and "sha256:" in line]
    (lock,) = [line for line in lines if line.startswith("sha256:")]
    assert len(lock_file.LockFile.parse(lock.encode()).models) == 1


def test_the_example_index_is_one() -> None:
    example = json_of_the_format()[0]
    index = BundleIndex.parse(example.encode())
    assert json.loads(index.write()) == json.loads(example)


def test_the_example_recipe_is_one() -> None:
    _, entry, line = json_of_the_format()
    made = bundle_index._recipe(json.loads(entry))
    recipe = Recipe.parse(line.encode(), made, [made.blob.size])
    assert recipe.write().decode() == line


def json_of_the_format() -> list[str]:
    return [block.text for block in blocks(ROOT / "docs/bundle.md") if block.language == "json"]


def test_the_file_pattern_of_the_format_is_that_of_the_program() -> None:
    assert f"`{bundle_index._FILE_PATH.pattern}`" in (ROOT / "docs/bundle.md").read_text("utf-8")


def test_tests_that_documents_name_exist() -> None:
    named = {name for document in DOCUMENTS for name in re.findall(r"`(tests/[^`]+)`", document.read_text("utf-8"))}
    assert named
    for name in named:
        path, _, function = name.partition("::")
        assert (ROOT / path).exists(), name
        assert not function or f"\ndef {function}(" in (ROOT / path).read_text("utf-8"), name


def test_source_files_that_design_documents_name_exist() -> None:
    for document in (ROOT / "docs/design.md", *sorted((ROOT / "docs/adr").iterdir())):
        for name in re.findall(r"`((?:cli|operations|places|streams|formats)/[a-z_/.]*)`", document.read_text("utf-8")):
            path = ROOT / "ostore" / name
            # Some name a function in a module: operations/transfer.copy.
            assert path.exists() or path.with_suffix(".py").exists(), name


@pytest.mark.parametrize("record", sorted((ROOT / "docs/adr").glob("*.md")), ids=name_of)
def test_a_record_is_short_and_has_its_parts(record: Path) -> None:
    text = record.read_text("utf-8")
    assert len(text.splitlines()) <= 40
    assert re.match(rf"# {int(record.name[:4])}\. .+\n\nDate: \d{{4}}-\d\d-\d\d\nStatus: accepted\n\n## ", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Options", "Outcome", "What it costs"]
