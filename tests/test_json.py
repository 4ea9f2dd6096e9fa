"""Every document of `--json` matches its schema, and every schema matches the fields of its report."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import typing
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import ostore
from ostore.cli.exit_codes import CODES
from ostore.formats.outcome import Outcome
from ostore.host.surroundings import Reason
from ostore.operations.gc import BlobReason
from ostore.operations.removal import StayReason
from ostore.operations.usage import UsageKind
from ostore.operations.verify import ProblemKind
from ostore.places.store.removing.untrash import UntrashOutcome
from tests.gguf import Value, gguf, talking_gguf
from tests.support import MODEL, OSTORE, Store, full, noise, sha256
from tests.support import ostore as run

# What each document holds below its `schema`: the fields of a report, or lists of reports under one key.
REPORTS: dict[str, type | dict[str, type]] = {
    "list": ostore.ListReport,
    "show": ostore.ShownModel,
    "where": ostore.WhereReport,
    "export": ostore.ExportReport,
    "import": {"imports": ostore.ImportReport},
    "inspect": ostore.InspectReport,
    "verify": {"reports": ostore.VerifyReport},
    "diff": ostore.DiffReport,
    "outdated": ostore.OutdatedReport,
    "probe": ostore.ProbeReport,
    "pull": ostore.PullReport,
    "push": ostore.PushReport,
    "sync": ostore.SyncReport,
    "dedup": ostore.DedupReport,
    "repair": ostore.RepairReport,
    "du": ostore.UsageReport,
    "doctor": ostore.DoctorReport,
    "move": ostore.MoveReport,
    "move-check": ostore.MoveCheckReport,
    "gc": ostore.GcReport,
    "restore": ostore.RestoreReport,
    "rm": ostore.RmReport,
    "serve": ostore.ServeReport,
    "cp": ostore.CpReport,
    "create": ostore.CreateReport,
    "path": ostore.PathReport,
    "link": ostore.LinkReport,
    "export-gguf": ostore.GgufExportReport,
    "export-image": ostore.ImageExportReport,
}
DRAFT = "https://json-schema.org/draft/2020-12/schema"


@functools.cache
def schema(name: str) -> dict[str, Any]:
    text = resources.files("ostore.cli").joinpath("schemas", f"{name}.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def checked(name: str, text: str) -> dict[str, Any]:
    """The one document that this text is, once its schema has passed it."""
    document: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator(schema(name)).validate(document)
    return document


def report(name: str, *arguments: str | Path, code: int = 0, models: Path) -> dict[str, Any]:
    """Run a command with --json; its document comes back checked, and nothing else was on standard output."""
    done = run(*arguments, "--json", environment={"OLLAMA_MODELS": str(models)})
    assert (done.returncode, done.stderr) == (code, "")
    document = checked(name, done.stdout)
    assert document["schema"] == f"ostore.{name}/1"
    return document


def piped(*arguments: str, stdin: bytes, models: Path) -> subprocess.CompletedProcess[bytes]:
    command = [*OSTORE, *arguments, "--json", "--models", str(models)]
    return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=120)


@pytest.fixture
def bundle(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "bundle.tar.zst"
    ostore.export(["*"], path, models=store.root)
    return path


def test_list(store: Store) -> None:
    stub = store.config(remote_host="https://ollama.com", remote_model="big:480b")
    store.add(full("big:480b-cloud"), config=stub)
    store.write_manifest(full("empty:latest"), b"")
    (store.root / "manifests/registry.ollama.ai/library/tiny/.DS_Store").write_bytes(b"stray")

    document = report("list", "list", models=store.root)

    assert {model["name"]: model["size"] is None for model in document["models"]} == {
        "big:480b-cloud": True,
        "tiny:latest": False,
        "tiny:q4": False,
    }
    assert sorted(Path(entry["path"]).name for entry in document["unreadable"]) == [".DS_Store", "latest"]


def test_list_of_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    document = report("list", "list", models=tmp_path)
    assert (document["models"], document["unreadable"], document["elsewhere"]) == ([], [], [])


def test_list_of_an_empty_store_says_where_models_are(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/.ollama").mkdir(parents=True)
    store.root.rename(tmp_path / "home/.ollama/models")
    (tmp_path / "empty/blobs").mkdir(parents=True)
    document = report("list", "list", models=tmp_path / "empty")
    assert document["elsewhere"] == [{"path": str(tmp_path / "home/.ollama/models"), "models": 2}]


def test_show(store: Store) -> None:
    store.model(
        "chatty:latest",
        noise(2000),
        template=b"{{ .Prompt }}",
        system=b"Say hi!",
        params=b'{"num_ctx":4096,"stop":["a","b"],"temperature":0.7,"use_mmap":true}\n',
        license=b"MIT",
    )

    document = report("show", "show", "chatty", models=store.root)

    assert [(entry["key"], entry["value"]) for entry in document["parameters"]] == [
        ("num_ctx", 4096),
        ("stop", "a"),
        ("stop", "b"),
        ("temperature", 0.7),
        ("use_mmap", True),
    ]


@pytest.mark.parametrize("name", ["mlx", "odd", "sees", "hf.co/bartowski/*"])
def test_show_every_kind_of_model(kinds: Store, name: str) -> None:
    assert report("show", "show", name, models=kinds.root)["layers"]


def test_show_of_headers(store: Store) -> None:
    keys: dict[str, Value] = {"general.architecture": "llama", "odd": float("nan"), "words": ["a", "b"], "yes": True}
    store.add(full("real:latest"), store.layer(MODEL, gguf(keys, {"t": ((2, 3), [1.0])})))
    document = report("show", "show", "real", models=store.root)
    [weights] = document["weights"]
    assert (document["runs_in"], document["capabilities"]) == ("Ollama, llama.cpp", ["completion"])
    assert weights["metadata"][1:] == [
        {"key": "odd", "type": "f32", "value": "nan", "count": None},
        {"key": "words", "type": "string", "value": None, "count": 2},
        {"key": "yes", "type": "bool", "value": True, "count": None},
    ]
    assert (weights["tensors"], weights["parameter_count"]) == ([{"name": "t", "type": "F32", "shape": [2, 3]}], 6)


def test_where_with_and_without_a_store(store: Store, tmp_path: Path) -> None:
    there = report("where", "where", models=store.root)
    absent = report("where", "where", models=tmp_path / "absent")
    assert (there["exists"], there["reason"], absent["exists"], absent["free"]) == (True, "environment", False, None)


@pytest.mark.parametrize(("options", "has_file"), [((), True), (("--dry-run",), False)])
def test_export(store: Store, tmp_path: Path, options: tuple[str, ...], has_file: bool) -> None:
    target = tmp_path / "bundle.tar.zst"
    document = report("export", "export", "--all", target, *options, models=store.root)
    assert document["bundle_size"] == (target.stat().st_size if has_file else None)
    assert document["dry_run"] is not has_file


def test_export_into_a_folder(store: Store, tmp_path: Path) -> None:
    document = report("export", "export", "tiny:q4", f"{tmp_path}/other/", models=store.root)
    assert (document["bundle_size"], document["models"]) == (None, ["tiny:q4"])


def test_a_bundle_on_standard_output_has_its_document_on_standard_error(store: Store) -> None:
    done = piped("export", "--all", "-", stdin=b"", models=store.root)
    assert checked("export", done.stderr.decode())["destination"] == "-"
    assert done.stdout.startswith(b"\x28\xb5\x2f\xfd")


def test_import_says_what_became_of_every_model(store: Store, bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "other"

    def outcomes(*options: str) -> dict[str, str]:
        (document,) = report("import", "import", bundle, *options, models=target)["imports"]
        return {model["name"]: model["outcome"] for model in document["models"]}

    assert outcomes("--dry-run") == {"tiny:latest": "added", "tiny:q4": "added"}
    assert outcomes() == {"tiny:latest": "added", "tiny:q4": "added"}
    Store(target).manifest_path(full("tiny:q4")).write_bytes(b"")
    Store(target).model("tiny:latest", b"another model")
    assert outcomes("--replace") == {"tiny:latest": "replaced", "tiny:q4": "repaired"}
    assert outcomes() == {"tiny:latest": "already there", "tiny:q4": "already there"}


def test_import_of_two_sources_is_one_document(store: Store, bundle: Path, tmp_path: Path) -> None:
    document = report("import", "import", bundle, store.root, models=tmp_path / "other")
    assert [entry["source"] for entry in document["imports"]] == [str(bundle), str(store.root)]
    assert [entry["blobs_written"] > 0 for entry in document["imports"]] == [True, False]


@pytest.mark.parametrize(("options", "removed"), [((), True), (("--dry-run",), False)])
def test_move(store: Store, tmp_path: Path, options: tuple[str, ...], removed: bool) -> None:
    (store.root / "blobs/notes.txt").write_bytes(b"stray")
    document = report("move", "move", tmp_path / "to", "--yes", *options, models=store.root)
    assert (document["removed"], document["dry_run"]) == (removed, not removed)
    assert [model["removed"] for model in document["models"]] == [removed, removed]
    assert [entry["path"] for entry in document["left"]] == ["blobs/notes.txt"]


def test_move_check(store: Store, tmp_path: Path) -> None:
    done = run("move", "--check", tmp_path, "--json", environment={"OLLAMA_MODELS": str(store.root)})
    document = checked("move-check", done.stdout)
    assert (done.returncode, document["agrees"], document["settings"][0]["who"]) == (3, False, "environment")


def test_inspect(bundle: Path, tmp_path: Path) -> None:
    document = report("inspect", "inspect", bundle, models=tmp_path)
    assert document["bundle_size"] == bundle.stat().st_size
    assert [model["name"] for model in document["models"]] == ["tiny:latest", "tiny:q4"]


def test_inspect_and_list_agree_on_the_size_of_a_model(kinds: Store, tmp_path: Path) -> None:
    ostore.export(["*"], tmp_path / "all.tar", models=kinds.root)
    listed, inspected = (
        {model["name"]: model["size"] for model in document["models"]}
        for document in (
            report("list", "list", models=kinds.root),
            report("inspect", "inspect", tmp_path / "all.tar", models=kinds.root),
        )
    )
    assert listed == inspected


def test_inspect_of_a_pipe(bundle: Path) -> None:
    command = [*OSTORE, "inspect", "-", "--json"]
    done = subprocess.run(command, input=bundle.read_bytes(), capture_output=True, check=True, timeout=120)
    assert checked("inspect", done.stdout.decode())["bundle_size"] is None


def test_verify_of_a_store_and_a_bundle_that_are_whole(store: Store, bundle: Path) -> None:
    document = report("verify", "verify", "tiny:q4", bundle, models=store.root)
    assert [entry["subject"] for entry in document["reports"]] == [str(store.root), str(bundle)]
    assert [entry["problems"] for entry in document["reports"]] == [[], []]


def test_verify_of_a_store_with_one_of_each_problem(store: Store) -> None:
    store.model("gone:latest", b"gone")
    store.blob_path(b"gone").unlink()
    store.model("short:latest", b"short")
    store.blob_path(b"short").write_bytes(b"s")
    store.model("bad:latest", b"bad")
    store.blob_path(b"bad").write_bytes(b"BAD")
    store.model("folder:latest", b"folder")
    store.blob_path(b"folder").unlink()
    store.blob_path(b"folder").mkdir()
    store.write_manifest(full("empty:latest"), b"")
    layer = store.layer(MODEL, b"odd")
    store.add(full("dashed:latest"), {**layer, "digest": layer["digest"].replace(":", "-")})
    store.write_manifest(full("unfit:latest"), b'{"schemaVersion":1}')
    twice = store.manifest_path(full("gone:latest")).read_bytes().replace(b"{", b'{"mediaType":"twice",', 1)
    store.write_manifest(full("twice:latest"), twice)
    misplaced = store.root / "manifests/library/tiny/latest"
    misplaced.parent.mkdir(parents=True)
    misplaced.write_bytes(store.manifest_path(full("tiny:q4")).read_bytes())
    store.blob(b"misnamed")
    store.blob_path(b"misnamed").rename(store.root / "blobs" / sha256(b"misnamed"))

    document = report("verify", "verify", code=CODES["integrity"], models=store.root)

    found = {problem["kind"] for problem in document["reports"][0]["problems"]}
    # The kinds that are left take a disk that fails, another user, a lock or volumes.
    unreadable = {"blob-unreadable", "manifest-unreadable", "folder-unreadable"}
    assert found == set(typing.get_args(ProblemKind)) - unreadable - {
        "lock-missing",
        "lock-different",
        "volume-damaged",
    }


@pytest.mark.parametrize(("options", "is_repaired"), [((), True), (("--dry-run",), False)])
def test_repair(store: Store, bundle: Path, options: tuple[str, ...], is_repaired: bool) -> None:
    store.blob_path(b"Say hi!").write_bytes(b"SAY HI!")
    store.write_manifest(full("tiny:latest"), b"half")
    document = report("repair", "repair", "--from", bundle, *options, models=store.root)
    assert [(item["kind"], item["models"]) for item in document["repaired"]] == [
        ("blob", ["tiny:q4"]),
        ("manifest", ["tiny:latest"]),
    ]
    assert (document["dry_run"], len(document["quarantine"])) == (not is_repaired, 2 * is_repaired)


def test_du_with_one_of_everything(store: Store) -> None:
    store.model("gone:latest", b"gone")
    store.blob_path(b"gone").unlink()
    store.write_manifest(full("empty:latest"), b"")
    store.blob(b"orphan")
    (store.root / "blobs/notes.txt").write_bytes(b"stray")
    (store.root / "beside").mkdir()

    document = report("du", "du", models=store.root)

    assert {model["name"]: len(model["missing"]) for model in document["models"]} == {
        "gone:latest": 1,
        "tiny:latest": 0,
        "tiny:q4": 0,
    }
    assert [(entry["path"]) for entry in (*document["doubts"], *document["not_counted"])] == [
        "manifests/registry.ollama.ai/library/empty/latest",
        "beside",
    ]
    assert document["shared_blobs"][0]["models"] == ["tiny:latest", "tiny:q4"]


def test_gc_and_what_brings_back_what_it_kept(store: Store) -> None:
    lost = store.blob(b"an orphan")
    document = report("gc", "gc", "--yes", "--grace", "0s", "--keep", "1h", "--verbose", models=store.root)
    assert [(blob["digest"], blob["reason"]) for blob in document["removed"]] == [(lost, "orphan")]
    assert [blob["reason"] for blob in document["kept"]] == ["needed"] * document["needed"]
    assert (document["freed"], document["kept_until"][-1], document["download_since"]) == (0, "Z", None)
    restored = report("restore", "gc", "--restore", models=store.root)
    assert [(blob["digest"], blob["outcome"]) for blob in restored["blobs"]] == [(lost, "restored")]
    assert report("gc", "gc", "-n", models=store.root)["kept_until"] is None


def test_rm(store: Store) -> None:
    document = report("rm", "rm", "tiny:q4", "--yes", models=store.root)
    assert (document["models"], len(document["removed"]), document["doubt"]) == (["tiny:q4"], 1, None)
    assert {blob["reason"] for blob in document["stayed"]} == {"shared"}
    assert document["stayed"][0]["models"] == ["tiny:latest"]
    assert document["linked"] == 0


def test_cp(store: Store) -> None:
    assert report("cp", "cp", "tiny:q4", "copy", models=store.root)["outcome"] == "added"
    assert report("cp", "cp", "tiny:q4", "copy", models=store.root)["outcome"] == "already there"


def test_create(store: Store, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(talking_gguf())
    document = report("create", "create", "mine", tmp_path / "m.gguf", models=store.root)
    assert [layer["size"] for layer in document["layers"]] == [len(talking_gguf())]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("rm", "absent", "--yes"), "not-found"),
        (("gc", "--grace", "soon"), "usage"),
        (("show", "absent"), "not-found"),
        (("du", "absent"), "not-found"),
        (("inspect", "absent.tar.zst"), "not-found"),
        (("export", "tiny", "neither-file-nor-folder"), "usage"),
        (("import",), "usage"),
        (("list", "--no-such-option"), "usage"),
        (("show", "../../etc/passwd"), "usage"),
    ],
)
def test_an_error_is_one_line_of_json_on_standard_error(
    store: Store, arguments: tuple[str, ...], expected: str
) -> None:
    done = run(*arguments, "--json", environment={"OLLAMA_MODELS": str(store.root)})
    document = checked("error", done.stderr)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert (document["class"], document["exit"], done.returncode) == (expected, CODES[expected], CODES[expected])


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_progress_is_one_line_of_json_for_each_step_on_standard_error(store: Store, options: tuple[str, ...]) -> None:
    done = run("verify", "--progress", "json", *options, environment={"OLLAMA_MODELS": str(store.root)})
    steps = [checked("progress", line) for line in done.stderr.splitlines()]
    assert [(step["phase"], step["done"] == step["total"]) for step in steps] == [
        ("verifying sha256 digest", False),
        ("verifying sha256 digest", True),
    ]
    assert bool(options) is done.stdout.startswith("{")
    assert run("verify", "--progress", "json", "-q", "--models", store.root).stderr == ""


def test_fields_of_tomorrow_pass_and_missing_ones_do_not(store: Store) -> None:
    document = report("list", "list", models=store.root)
    jsonschema.validate({**document, "of_tomorrow": 1}, schema("list"))
    del document["models"][0]["unique_size"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema("list"))


@pytest.mark.parametrize("name", [*REPORTS, "error", "progress"])
def test_a_schema_is_one_and_forbids_no_further_fields(name: str) -> None:
    assert schema(name)["$schema"] == DRAFT
    jsonschema.Draft202012Validator.check_schema(schema(name))
    assert "additionalProperties" not in json.dumps(schema(name))


@pytest.mark.parametrize("name", REPORTS)
def test_a_schema_has_exactly_the_fields_of_the_report_all_of_them_required(name: str) -> None:
    assert set(schema_fields(schema(name))) == {"schema", *report_fields(name)}


def test_choices_in_the_schemas_are_those_in_the_code() -> None:
    imported = schema("import")["properties"]["imports"]["items"]["properties"]["models"]["items"]["properties"]
    problem = schema("verify")["properties"]["reports"]["items"]["properties"]["problems"]["items"]["properties"]
    left = schema("repair")["properties"]["left"]["items"]["properties"]
    assert left["kind"]["enum"] == problem["kind"]["enum"]
    collected, removed = schema("gc")["properties"], schema("rm")["properties"]
    restored = schema("restore")["properties"]["blobs"]["items"]["properties"]
    for part in ("removed", "kept"):
        assert collected[part]["items"]["properties"]["reason"]["enum"] == list(BlobReason)
    for part in ("removed", "stayed"):
        assert removed[part]["items"]["properties"]["reason"]["enum"] == ["", *StayReason]
    assert restored["outcome"]["enum"] == list(UntrashOutcome)
    assert schema("cp")["properties"]["outcome"]["enum"] == list(Outcome)
    assert imported["outcome"]["enum"] == [outcome.value for outcome in Outcome]
    assert set(problem["kind"]["enum"]) == set(typing.get_args(ProblemKind))
    assert schema("du")["properties"]["parts"]["items"]["properties"]["kind"]["enum"] == list(
        typing.get_args(UsageKind)
    )
    assert set(schema("where")["properties"]["reason"]["enum"]) == set(typing.get_args(Reason))
    assert set(schema("error")["properties"]["class"]["enum"]) == set(CODES)


def test_every_schema_is_tested() -> None:
    found = {Path(entry.name).stem for entry in resources.files("ostore.cli").joinpath("schemas").iterdir()}
    assert found == {*REPORTS, "error", "progress"}


def schema_fields(part: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths such as `models[].name`; every one must be required where it stands."""
    assert part["required"] == list(part["properties"])
    for key, value in part["properties"].items():
        yield f"{path}{key}"
        if value.get("items", {}).get("type") == "object":
            yield from schema_fields(value["items"], f"{path}{key}[].")
        elif "properties" in value:
            yield from schema_fields(value, f"{path}{key}.")


def report_fields(name: str) -> Iterator[str]:
    """The same paths, from the dataclasses."""
    reports = REPORTS[name]
    if isinstance(reports, type):
        yield from _fields(reports, "")
    else:
        for key, kind in reports.items():
            yield key
            yield from _fields(kind, f"{key}[].")


def _fields(kind: type, path: str) -> Iterator[str]:
    for name, hint in typing.get_type_hints(kind).items():
        yield f"{path}{name}"
        item = (typing.get_args(hint) or (None,))[0]
        if typing.get_args(hint) == (item, type(None)):
            hint, item = item, None  # noqa: PLW2901 - null, or as below
        if hint is ostore.Remedy:
            yield f"{path}{name}_arguments"
        elif _is_record(hint):
            yield from _fields(hint, f"{path}{name}.")
        elif _is_record(item):
            yield from _fields(item, f"{path}{name}[].")


def _is_record(kind: object) -> bool:
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"))
