"""Whatever a store, bundle or argument says, output is plain text, an error is one line, and no network is used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.gguf import gguf
from tests.support import LICENSE, MODEL, OSTORE, PARAMS, SYSTEM, TEMPLATE, Store, full, noise, some, terminal
from tests.torture.judge import output_problems
from tests.torture.tracing import needs_strace

SAMPLE = 1
# Title, clipboard, clear screen, carriage return, backspace, C1, right to left, zero width, a tag, a combining mark.
EVIL = "\x1b]0;evil\x07\x1b]52;c;aGk=\x07\x1b[2J\r\b\x9b2J\u202e\u200b\U000e0041a\u0301\x7f\ufeff"
# The same where a file name has to hold it, with a line break and a byte that is no UTF-8.
NAME = "e\x1b]0;vil\x07\r\u202e\x9b\nostore: error[io]: not ours\udcff"
LONG = "long " * 2000
# A store's path may not have a bracket in it, so that Ollama can use it.
PLACE, ANOTHER, FOLDER = (f"{what} {NAME.replace('[', '(')}" for what in ("store", "another", "other"))
BUNDLE, OUT = f"{NAME}.tar.zst", f"out {NAME}.tar.zst"
DELTA = f"delta {NAME}.tar.zst"
INVENTORY, LOCK, HOSTILE_LOCK = (f"{what} {NAME}" for what in ("have", "lock", "hostile"))
VOLUME = f"cut {NAME}.tar.zst.002"
WEIGHTS = f"{FOLDER}/weights {NAME}.gguf"
# What these find is told on standard output, and is no error of the command.
REPORTING = {"verify", "doctor", "repair", "dedup", "move", "export", "import", "diff"}
# What may talk to others; `s3://` in an argument will as well.
TALKING = {"pull", "push", "serve", "probe"}

Words = tuple[str, ...]
PARTS = ("modelfile", "template", "system", "parameters", "license", "manifest", "config")
FIELDS = ("model_family", "model_type", "file_type", "renderer", "parser", "requires", "remote_host", "remote_model")
# Every command, in ways that make it say a lot. One that has no line here fails a test below.
LINES: Mapping[str, tuple[Words, ...]] = {
    "list": ((), ("evil",), ("-q",), (f"*{EVIL}*",)),
    "show": (
        ("evil",),
        *(("evil", f"--{part}") for part in PARTS),
        ("_",),
        (f"evil{EVIL}",),
    ),
    "where": ((), ("-q",)),
    "inspect": ((BUNDLE,), ("-q", BUNDLE), (f"no {BUNDLE}",), (FOLDER,), (f"oci:{FOLDER}",), (f"oci:no {NAME}",)),
    "inventory": ((), ("--tensors", "--verify"), ("evil",), (f"evil{EVIL}",), ("-q",)),
    "diff": (
        (FOLDER,),
        (BUNDLE, FOLDER),
        (INVENTORY, "-q"),
        (FOLDER, LOCK),
        (HOSTILE_LOCK,),
        (f"no {INVENTORY}",),
        (FOLDER, "--exit-code"),
    ),
    "outdated": (("--against", FOLDER), ("--against", INVENTORY), ("-q", "--against", HOSTILE_LOCK), ()),
    "probe": (
        ("127.0.0.1:1",),
        (EVIL,),
        (f"http://127.0.0.1:1/{EVIL}",),
        ("evil",),
        ("127.0.0.1:1", "--model", f"evil{EVIL}"),
        ("127.0.0.1:1", "--generate", "--json"),
    ),
    "pull": (
        (f"evil{EVIL}",),
        (f"127.0.0.1:1/library/evil:{EVIL}",),
        ("127.0.0.1:1/library/evil", "--to", f"pulled {OUT}"),
        ("evil", "--limit-rate", EVIL),
        ("evil", "--ca-file", NAME),
        ("--lock", HOSTILE_LOCK),
    ),
    "push": (
        (f"evil{EVIL}",),
        ("evil", "--to", "127.0.0.1:1/library"),
        ("evil", "--to", EVIL),
        ("evil*", "--to", "127.0.0.1:1/library", "--modelpack"),
        ("evil", "--to", "127.0.0.1:1/library", "--limit-rate", EVIL),
    ),
    "sync": (
        (FOLDER, f"{OUT}/"),
        (FOLDER, f"oci:{OUT}"),
        (FOLDER, FOLDER),
        (BUNDLE, FOLDER, "--delete", "--dry-run"),
        (FOLDER, BUNDLE),
        (f"no {FOLDER}", f"{OUT}/"),
        (f"oci:{OUT}", f"{OUT}/", "--delete"),
        (f"http://127.0.0.1:1/{EVIL}", f"{OUT}/"),
        (FOLDER, "http://127.0.0.1:1/library"),
        ("http://127.0.0.1:1", f"{OUT}/", "--limit-rate", EVIL),
    ),
    "lock": (
        (),
        ("evil",),
        ("--update", LOCK),
        ("--update", HOSTILE_LOCK),
        ("--update", BUNDLE),
        ("--update", f"new {LOCK}", "-n"),
    ),
    "export": (
        ("--all", OUT),
        ("--all", OUT, "--share-tensors"),
        ("evil", f"{OUT}/", "--share-tensors"),
        ("--all", OUT, "--have", FOLDER),
        ("--all", OUT, "--have", HOSTILE_LOCK),
        (OUT, "--lock", LOCK),
        ("evil", f"{OUT}.tar"),
        ("evil", f"{OUT}/"),
        ("evil", BUNDLE),
        ("evil", f"{NAME}/", "--as", "gguf"),
        ("evil", f"{OUT}.tar", "--as", "image"),
        ("evil", BUNDLE, "--as", "image"),
        ("evil", f"{OUT}.tar", "--as", "image", "--at", EVIL),
        ("evil", f"oci:{OUT}"),
        ("evil", f"oci:{FOLDER}"),
        ("--all", OUT, "--split", "20KB", "--verify-after-write"),
        ("--all", OUT, "--split", EVIL),
        ("--all", OUT, "--split", "1MB", "--parity", EVIL),
        ("--all", "b.tar.zst", "--split", "1MB", "--to", NAME, "--to", FOLDER),
        ("--all", VOLUME, "--split", "1MB"),
    ),
    "path": (
        ("evil",),
        ("_",),
        ("evil", "--json"),
        ("evil", "--projector"),
        ("missing",),
        ("*",),
        ("evil", "--strict"),
    ),
    "link": (("*", OUT), ("evil", NAME), ("evil", BUNDLE), ("--refresh", OUT), ("evil", OUT, "--layout", EVIL)),
    "create": (
        ("new", WEIGHTS),
        (f"new{EVIL}", WEIGHTS),
        ("evil", WEIGHTS, "--replace", "--link"),
        ("new", FOLDER),
        ("new", BUNDLE),
        ("new", "-f", BUNDLE),
        ("new", f"no {WEIGHTS}"),
    ),
    "import": (
        (BUNDLE,),
        (BUNDLE, "--lock", LOCK),
        (DELTA,),
        (BUNDLE, "--lock", HOSTILE_LOCK),
        (BUNDLE, "--replace"),
        (BUNDLE, "-n"),
        (f"no {BUNDLE}",),
        (BUNDLE, "--model", NAME),
        (VOLUME,),
    ),
    "verify": (
        (),
        ("--lock", LOCK),
        (BUNDLE, "--lock", HOSTILE_LOCK),
        ("evil",),
        (BUNDLE,),
        (f"no {BUNDLE}",),
        (VOLUME,),
    ),
    "du": ((), ("evil",), ("-q",), ("--html", f"{NAME}.html"), ("--html", BUNDLE)),
    "doctor": ((), ("--fix", "--yes"), ("--fix", "-n")),
    "repair": (("--from", BUNDLE), ("--from", FOLDER), ("--from", f"no {BUNDLE}"), ("--from", PLACE, "-n")),
    "dedup": ((), (FOLDER,), (FOLDER, "-v"), ("--link", "--yes", FOLDER)),
    "gc": (
        ("--grace", "0s", "--partials", "--yes"),
        ("--dry-run", "-v"),
        ("--keep", "24h", "--grace", "0s", "--yes"),
        ("--restore",),
        ("--grace", EVIL),
    ),
    "rm": (("evil", "--yes"), ("evil", "-n", "-v"), ("*", "--yes"), (f"evil{EVIL}", "--yes"), ("evil",)),
    "cp": (("evil", "copy"), ("evil", f"copy{EVIL}"), ("evil", "_"), (f"{NAME}", "copy")),
    "move": ((ANOTHER, "--yes"), ("--offload", "evil", ANOTHER, "--yes"), ("--check", ANOTHER), (BUNDLE, "-n")),
    "help": ((), ("gc",), ("--man",), (EVIL,), (f"rm{EVIL}",)),
    "version": ((),),
    "completion": (("bash",), ("zsh",), ("fish",), ("powershell",), (EVIL,)),
}
# What nobody should type, after any command.
WRONG: tuple[Words, ...] = (
    (f"--{EVIL}",),
    (f"--models={NAME}/not/there",),
    (f"--models={BUNDLE}", "a", "b"),
    (EVIL, NAME),
    ("\udcff\udcfe",),
    ("",),
    ("x" * 10_000, LONG),
    tuple("abcdefghij"),
    ("--help",),
)


def commands() -> list[str]:
    """What the program says that it can do."""
    told = subprocess.run([*OSTORE, "--help"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^  ([a-z]+)  ", told.split("Commands:")[1], re.MULTILINE)


def of_evil_texts(folder: Path) -> Store:
    """A store in which everything is as it should be, but for what the texts say and what lies beside."""
    store = Store(folder / PLACE)
    config = store.config(
        model_families=[EVIL, LONG], capabilities=[EVIL, LONG], **{name: f"{name}{EVIL}{LONG}" for name in FIELDS}
    )
    texts = f"{EVIL}\n{LONG}\nostore: error[io]: not ours\n".encode() + b"\xff\x9b\0"
    layers = [store.layer(kind, texts) for kind in (TEMPLATE, SYSTEM, LICENSE)]
    params = json.dumps({EVIL: EVIL, "stop": [EVIL, LONG], "top_k": LONG}).encode()
    weights = store.layer(MODEL, noise(5000, 21), **{"from": f"/home/{EVIL}", "name": EVIL})
    store.add(full("evil:latest"), weights, *layers, store.layer(PARAMS, params), config=config)
    for name in ("_:_", f"{'n' * 80}:{'t' * 80}", "con:local", "evil:x-cloud"):
        store.model(name, b"odd names")
    store.model("localhost:5000/_-_/a..:1.", b"a port")
    store.blob(b"an orphan")
    blobs = store.root / "blobs"
    (blobs / NAME).write_bytes(b"a foreign file")
    (blobs / f"folder {NAME}").mkdir()
    (blobs / f"link {NAME}").symlink_to(f"to {NAME}")
    (blobs / f"sha256-{'0' * 64}-partial").write_bytes(b"a part")
    (store.root / f"beside {NAME}").write_bytes(b"something else")
    return store


def of_evil_names(folder: Path) -> Store:
    """The same store with everything wrong in it that can be: it is to be talked about, and mostly refused."""
    store = of_evil_texts(folder)
    evil = {"mediaType": EVIL, "digest": f"sha256:{EVIL}", "size": EVIL}
    for number, raw in enumerate((b"", EVIL.encode(), b"\xff\x9b", json.dumps({"layers": [evil]}).encode())):
        store.write_manifest(full(f"bad:{number}"), raw)
    unknown = store.layer(f"text/{EVIL}", b"x", urls=[EVIL])
    store.add(full("unknown:latest"), unknown, config=store.config(model_family=EVIL))
    missing = {"mediaType": MODEL, "digest": f"sha256:{'1' * 64}", "size": 5}
    store.add(full("missing:latest"), missing, config=store.config())
    dashed = {**store.layer(MODEL, b"odd names"), EVIL: EVIL, "digest": f"sha256-{'2' * 64}", "Digest": EVIL}
    store.add(full("dashed:latest"), dashed, config=store.config())
    tree = store.root / "manifests"
    for path in (f"{NAME}/a/b/c", f"a/b/c/{NAME}", f"a/{NAME}", f"{NAME}2/{NAME}/{NAME}/{NAME}/{NAME}"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(EVIL.encode())
    (tree / "a/b/c/dangling").symlink_to(f"/nowhere/{NAME}")
    (tree / f"link {NAME}").symlink_to(f"/nowhere/{NAME}")
    store.blob_path(noise(5000, 21)).write_bytes(bytes(5000))
    own = store.root / ".ostore"
    for path in (f"trash/{NAME}/{NAME}", f"tx/{NAME}/{NAME}", f"quarantine/{NAME}", NAME):
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        (own / path).write_bytes(b"of nobody")
    return store


SCENES = {"texts": of_evil_texts, "names": of_evil_names}


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A folder for each scene, with a bundle and a folder of other things beside the store."""
    made = {}
    for name, prepare in SCENES.items():
        folder = made[name] = tmp_path_factory.mktemp(name)
        of_evil_texts(folder)
        done = _run(folder, ("export", "--all", BUNDLE))
        _run(folder, ("export", "--all", VOLUME.removesuffix(".002"), "--split", "20KB"))
        # A volume that is damaged, and one that is missing, are named.
        (folder / VOLUME).write_bytes(b"damaged")
        (folder / VOLUME.replace(".002", ".001")).unlink()
        assert done.returncode == 0, done.stderr
        # Some of the digests are others.
        for words, path in ((("inventory",), INVENTORY), (("lock",), LOCK)):
            (folder / path).write_text(_run(folder, words).stdout.replace("sha256:1", "sha256:2"), "utf-8")
        digest = "sha256:" + "0" * 64
        (folder / HOSTILE_LOCK).write_text(f"# {EVIL}\n{digest}  {EVIL}/{LONG}\n", "utf-8")
        done = _run(folder, ("export", "--all", DELTA, "--have", PLACE))
        assert done.returncode == 0, done.stderr
        (folder / PLACE).rename(folder / FOLDER)
        shutil.copyfile(folder / BUNDLE, folder / FOLDER / f"{NAME}.gguf")
        (folder / FOLDER / f"{NAME}.safetensors").write_bytes(b"\x05")
        (folder / WEIGHTS).write_bytes(
            gguf({"general.architecture": EVIL, f"{EVIL}.file_type": EVIL}, {EVIL: ((32,), [1.0])})
        )
        prepare(folder)
    return made


def _run(folder: Path, words: Words, log: Path | None = None) -> subprocess.CompletedProcess[str]:
    # Whatever a command does with sockets, and nothing else, so that it is as fast as ever.
    tracer = ("strace", "-f", "--seccomp-bpf", "-e", "trace=%network", "-o", str(log)) if log else ()
    run = partial(
        subprocess.run,
        [*tracer, *OSTORE, *words],
        cwd=folder,
        # What may talk to others reaches nobody.
        env={**os.environ, "HOME": str(folder), "OLLAMA_MODELS": str(folder / PLACE), "https_proxy": "127.0.0.1:1"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
        # What is not UTF-8 must not be printed either.
        encoding="utf-8",
    )
    is_data = words[0] == "path" or any(f"--{part}" in words for part in PARTS)
    if "--json" in words or not is_data:
        return run(stdout=subprocess.PIPE)
    # A part of a model, or the path of one, goes out as it is, except to a terminal.
    with terminal() as (stdout, shown):
        done = run(stdout=stdout)
    done.stdout = b"".join(shown).decode()
    return done


def test_every_command_has_its_lines_here() -> None:
    assert sorted({*commands()} - TALKING) == sorted({*LINES} - TALKING)


@needs_strace
@pytest.mark.parametrize(
    ("command", "scene"),
    [(command, scene) for command in LINES for scene in some(list(SCENES), 1, command)],
)
def test_a_command_prints_plain_text_and_calls_nobody(
    command: str, scene: str, origins: Mapping[str, Path], tmp_path: Path
) -> None:
    plain = [*LINES[command], *WRONG]
    takes_json = "--json" in _run(tmp_path, (command, "--help")).stdout
    lines = [*plain, *((*words, "--json") for words in plain if takes_json and "--help" not in words)]
    wrong = []
    for words in some(lines, SAMPLE, f"{command} {scene}"):
        folder, log = tmp_path / "work", tmp_path / "log"
        shutil.copytree(origins[scene], folder, symlinks=True)
        done = _run(folder, (command, *words), log)
        told = f"{command} {[word[:80] for word in words]}: exit {done.returncode}"
        wrong += [f"{told}: {problem}" for problem in _problems(command, words, done)]
        wrong += [f"{told}: {call}" for call in _calls(log) if not _may_talk(command, words)]
        shutil.rmtree(folder)
    assert wrong == []


def _may_talk(command: str, words: Words) -> bool:
    names_a_registry = command == "sync" and any(word.startswith("http://") for word in words)
    return command in TALKING or names_a_registry or (command == "outdated" and "--against" not in words)


def _calls(log: Path) -> list[str]:
    """
    Every network call, except those to nscd. The C library may ask that local daemon who owns a file. Each time it may
    open one AF_UNIX socket and try to connect it, and no more.
    """
    calls = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines() if re.match(r"\d+ +\w+\(", line)]
    asked = [call for call in calls if call.startswith("connect(") and '"/var/run/nscd/socket"' in call]
    opened = [call for call in calls if call.startswith("socket(AF_UNIX, ")][: len(asked)]
    return [call for call in calls if call not in {*asked, *opened}]


def _problems(command: str, words: Words, done: subprocess.CompletedProcess[str]) -> list[str]:
    code, out, err = done.returncode, done.stdout, done.stderr
    if code == 1:
        return [f"a bug was met: {err}"]
    if "--json" in words:
        return _json_problems(command, code, out, err)
    found = output_problems(code, out, err)
    is_report = command in REPORTING and out
    return [problem for problem in found if not (is_report and problem.startswith("0 lines of errors"))]


def _json_problems(command: str, code: int, out: str, err: str) -> list[str]:
    """One document, on one of the two streams; what else is on standard error is how far it got, and warnings."""
    wrong = [problem for problem in output_problems(0, out, err) if "lines of errors" not in problem]
    documents = [line for line in err.splitlines() if line.startswith("{")]
    try:
        schemas = [json.loads(text)["schema"] for text in (*([out] if out else []), *documents)]
    except (ValueError, KeyError) as error:
        return [*wrong, f"no document: {error}: {out!r} {err!r}"]
    failed = "ostore.error/1" in schemas
    if len(schemas) != 1 or (failed == (code == 0) and command not in REPORTING):
        wrong.append(f"{schemas}: {err!r}")
    return wrong
