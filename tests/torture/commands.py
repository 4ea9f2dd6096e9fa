"""
The commands that write, one line each. To torture a new command, add its line to COMMANDS and nothing else.

Each command has a scene, built in an empty folder of the test, and runs there: under a tracer as the installed program,
else forked. docs/testing.md says what holds for all commands.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ostore.api.export import export
from ostore.streams.progress import _Silent
from tests.false_registry import false_registry, of_store
from tests.fork_server import MEASURED
from tests.gguf import ONE_LAYER, Tensor, gguf, split
from tests.ports import free_port
from tests.recipes import OLD, two_releases, weights
from tests.support import Store, full, noise
from tests.support import ostore as in_a_fork
from tests.torture.stepwise import FRAME_BYTES, in_small_steps

# The installed program, not `python -m`: that would look for modules in the folder it runs in.
OSTORE = str(Path(sys.executable).with_name("ostore"))
# Enough for several frames, little enough to be hashed a thousand times.
WEIGHTS, OTHER, SHARED = noise(150_000, 11), noise(90_000, 12), b"{{ .Prompt }}"
ORPHAN = noise(40_000, 13)
# Two tensors, more than a chunk of a small file.
TENSORS: tuple[dict[str, Tensor], ...] = (
    {"token_embd.weight": ((32, 800), [0.5])},
    {"output_norm.weight": ((32, 300), [1.0])},
)
SCRIPT = "restore.py"
STEPWISE = str(Path(__file__).with_name("stepwise.py"))
# Exit code of the same words again, where what they stand for is gone.
NOTHING_LEFT = 3
# Blobs that are older than any grace: ctime cannot be set, so gc is told that none is needed.
NO_GRACE = ("--grace", "0s")
# Each process that runs tests has a registry of its own.
PORT = free_port()
ORIGIN = f"127.0.0.1:{PORT}"
PULLED = tuple(f"{ORIGIN}/{name}" for name in ("library/tiny:latest", "library/tiny:q4", "someone/mine"))


@dataclass(frozen=True)
class Command:
    """
    A command, and the scene that it begins with: what is in `folder`, its working directory, when it is called.

    `once` is true of one that has nothing to do when it is called again after it ended well, so that it may say so with
    another exit code. `disk` is the file system that it needs. `always` are calls that fail all the time, as on a disk
    that lacks something: injections of strace. `clears` is false of one that leaves to others what was
    staged by one of its kind that was killed. `leaves_blobs` is true of one that leaves blobs to gc when it cannot read
    something, and has nothing to do after that. `leaves` is a model in the store that an import has nothing to do with.
    """

    name: str
    prepare: Callable[[Path], object]
    words: tuple[str, ...]
    once: bool = False
    disk: str = ""
    always: tuple[str, ...] = ()
    clears: bool = True
    leaves: str = ""
    leaves_blobs: bool = False

    @property
    def argv(self) -> list[str]:
        return _argv(self.words)


def run(folder: Path, *words: str, tracer: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run ostore in a folder, as somebody would whose home is empty."""
    if not tracer and words[0] not in {SCRIPT, STEPWISE}:
        return in_a_fork(*words, environment={"HOME": str(folder), "OLLAMA_MODELS": "models"}, cwd=folder)
    return subprocess.run(
        [*tracer, *_argv(words)],
        cwd=folder,
        env=environment(folder, is_measured=not tracer),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def environment(folder: Path, *, is_measured: bool = False) -> dict[str, str]:
    """
    That of such a command.

    Measuring opens and writes files of its own: they would be counted among the calls, and a fault would meet them.
    """
    inherited = {name: value for name, value in os.environ.items() if is_measured or name != MEASURED}
    return {**inherited, "HOME": str(folder), "OLLAMA_MODELS": "models"}


def _argv(words: tuple[str, ...]) -> list[str]:
    """The installed program; or the script of a bundle with a bare Python, as where there is no ostore."""
    if words[0] == STEPWISE:
        return [sys.executable, "-P", *words]
    return [sys.executable, "-I", "-S", *words] if words[0] == SCRIPT else [OSTORE, *words]


def undisturbed(folder: Path, *words: str) -> None:
    done = run(folder, *words)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stderr}")


def a_store(folder: Path) -> Store:
    """Two models that share a blob, one of somebody else's, an orphan."""
    store = Store(folder / "models")
    store.model("tiny:latest", WEIGHTS, template=SHARED)
    store.model("tiny:q4", OTHER, template=SHARED)
    store.model("registry.ollama.ai/someone/mine:latest", b"my own weights", system=b"keep me")
    return store


def to_export_again(folder: Path) -> None:
    """A store, and an export of all of it that was stopped in its largest blob."""
    store = a_store(folder)
    for name in ("out.tar.zst", "out.tar"):
        with in_small_steps(), contextlib.suppress(KeyboardInterrupt):
            export(["*"], folder / name, models=store.root, strict=True, jobs=1, progress=_StoppingLate())
        if not (folder / f"{name}.part.state").exists():
            raise RuntimeError("it was not stopped where it should be")


def to_export_volumes_again(folder: Path) -> None:
    """The same, in volumes."""
    store = a_store(folder)
    with in_small_steps(), contextlib.suppress(KeyboardInterrupt):
        terms = {"split": 50_000, "strict": True, "jobs": 1, "progress": _StoppingLate()}
        export(["*"], folder / "out.tar.zst", models=store.root, **terms)  # type: ignore[arg-type]
    if not (folder / "out.tar.zst.parts/out.tar.zst.state").exists():
        raise RuntimeError("it was not stopped where it should be")


class _StoppingLate(_Silent):
    """Ctrl-C, when three of five frames were read."""

    left = 3 * FRAME_BYTES

    def advance(self, item: str, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise KeyboardInterrupt


def with_orphans(folder: Path) -> Store:
    """Two orphans, and what an import left that was killed."""
    store = a_store(folder)
    store.blob(ORPHAN)
    store.blob(b"a small orphan")
    dead = store.root / ".ostore/tx/99999-dead"
    (dead / "m").mkdir(parents=True)
    (dead / f"{store.blob_path(ORPHAN).name}.part").write_bytes(ORPHAN[:1000])
    return store


def with_a_bundle(folder: Path, bundle: str = "b.tar.zst") -> Store:
    """A store, and a bundle of all of it."""
    store = a_store(folder)
    undisturbed(folder, "export", "--all", bundle)
    return store


def to_import(folder: Path, bundle: str = "b.tar.zst") -> None:
    """A bundle; a store with one model of it broken, one different, one blob there and one damaged."""
    with_a_bundle(folder, bundle)
    shutil.rmtree(folder / "models")
    mine = Store(folder / "models")
    mine.model("registry.ollama.ai/someone/mine:latest", b"my own weights", system=b"keep me")
    mine.model("tiny:q4", b"another model of that name")
    mine.write_manifest(full("tiny:latest"), b"")
    mine.blob(SHARED)
    mine.blob_path(OTHER).write_bytes(b"x" * len(OTHER))


def to_export_a_delta(folder: Path) -> None:
    """A store, an inventory of one that has half of it, and a lock."""
    a_store(folder)
    far = Store(folder / "far")
    far.model("tiny:latest", WEIGHTS, template=SHARED)
    (folder / "have.json").write_bytes(run(folder, "inventory", "--models", "far").stdout.encode())
    (folder / "models.lock").write_bytes(run(folder, "lock").stdout.encode())


def to_import_a_delta(folder: Path) -> None:
    """The delta of that, the store that has half of it, and the lock."""
    to_export_a_delta(folder)
    undisturbed(folder, "export", "--all", "d.tar.zst", "--have", "have.json")
    shutil.rmtree(folder / "models")
    (folder / "far").rename(folder / "models")


def to_update_a_lock(folder: Path) -> None:
    """A store and the lock of another time, with a remark."""
    a_store(folder)
    digest = "sha256:" + "0" * 64
    (folder / "models.lock").write_text(f"# ours\n{digest}  {full('tiny:q4')}\n{digest}  {full('gone:latest')}\n")


def to_restore(folder: Path) -> None:
    """The same for the script that is in every bundle; of a plain one, because zstd would be a second program."""
    to_import(folder, "b.tar")
    with tarfile.open(folder / "b.tar") as bundle:
        script = bundle.extractfile(f"ostore/{SCRIPT}")
        (folder / SCRIPT).write_bytes(script.read() if script else b"")


def to_import_volumes(folder: Path) -> None:
    """A bundle in three volumes, one of which must be repaired; a store like that of `to_import`."""
    to_import(folder)
    (folder / "b.tar.zst").unlink()
    rest = folder / "rest"
    rest.mkdir()
    store = Store(folder / "all")
    store.model("tiny:latest", WEIGHTS, template=SHARED)
    store.model("tiny:q4", OTHER, template=SHARED)
    volumes = ("--split", "100000", "--parity", "1volume")
    undisturbed(folder, "export", "--all", "b.tar.zst", *volumes, "--models", "all")
    shutil.rmtree(folder / "all")
    (folder / "b.tar.zst.003").rename(rest / "b.tar.zst.003")
    (folder / "b.tar.zst.002").unlink()


def to_import_anew(folder: Path) -> None:
    """A bundle, and no store yet."""
    with_a_bundle(folder)
    shutil.rmtree(folder / "models")


def to_repair(folder: Path) -> None:
    """A bundle, and a store in which one blob is missing, one damaged, one manifest broken."""
    store = with_a_bundle(folder)
    store.blob_path(OTHER).unlink()
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    store.write_manifest("registry.ollama.ai/someone/mine:latest", b"{")


def to_export_to_a_layout(folder: Path) -> None:
    """A store; a layout with one model of it, another one of a second name, an image, and one blob that is damaged."""
    store = a_store(folder)
    other = Store(folder / "other")
    other.model("tiny:latest", WEIGHTS, template=SHARED)
    other.model("tiny:q4", b"another model of that name")
    undisturbed(folder, "export", "--all", "oci:out", "--models", "other")
    shutil.rmtree(folder / "other")
    index = json.loads((folder / "out/index.json").read_bytes())
    image = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": f"sha256:{'0' * 64}", "size": 5}
    index["manifests"].append({**image, "annotations": {"org.opencontainers.image.ref.name": "alpine:3"}})
    (folder / "out/index.json").write_text(json.dumps(index))
    blob = store.blob_path(SHARED).name.removeprefix("sha256-")
    (folder / "out/blobs/sha256" / blob).write_bytes(bytes(len(SHARED)))


def to_import_a_layout(folder: Path) -> None:
    """A layout; a store with one model of it broken, one different, one blob there and one damaged."""
    a_store(folder)
    undisturbed(folder, "export", "--all", "oci:out")
    shutil.rmtree(folder / "models")
    to_import(folder)
    (folder / "b.tar.zst").unlink()


def to_sync(folder: Path) -> None:
    """A store to copy from; and one with one model of it broken, one different, one blob there and one damaged."""
    a_store(folder).root.rename(folder / "from")
    to_import(folder)
    (folder / "b.tar.zst").unlink()


def to_sync_and_delete(folder: Path) -> None:
    """A store to copy from; and one with another model, which needs a blob that is to stay."""
    a_store(folder).root.rename(folder / "from")
    Store(folder / "models").model("old:latest", OTHER, system=b"goes")


def with_trash(folder: Path) -> None:
    with_orphans(folder)
    undisturbed(folder, "gc", "--keep", "24h", "--yes", *NO_GRACE)


def to_diagnose(folder: Path) -> None:
    """What doctor mends: an empty manifest and a stray, older than it would leave alone; a name of old Ollamas."""
    store = a_store(folder)
    os.utime(store.write_manifest(full("broken:latest"), b""), (0, 0))
    old = store.blob_path(SHARED)
    old.rename(old.with_name(old.name.replace("-", ":", 1)))


def with_half_a_model(folder: Path) -> None:
    """A model whose weights are only begun, as `ollama pull` leaves it, and what is downloaded of them."""
    store = a_store(folder)
    store.model("half:latest", ORPHAN, template=SHARED)
    weights = store.blob_path(ORPHAN)
    weights.unlink()
    weights.with_name(f"{weights.name}-partial").write_bytes(ORPHAN[:1000])
    weights.with_name(f"{weights.name}-partial-0").write_bytes(b"{}")


def with_another_copy(folder: Path) -> None:
    a_store(folder)
    Store(folder / "models").model("copy:new", b"another model of that name")


def to_repair_from_a_store(folder: Path) -> None:
    a_store(folder)
    shutil.copytree(folder / "models", folder / "good")
    store = Store(folder / "models")
    store.blob_path(OTHER).unlink()
    store.blob_path(WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    store.write_manifest("registry.ollama.ai/someone/mine:latest", b"{")


def to_join(folder: Path) -> None:
    """A store that has one of the models, and another one."""
    with_orphans(folder)
    there = Store(folder / "elsewhere")
    there.model("tiny:q4", OTHER, template=SHARED)
    there.model("theirs:latest", b"their own weights")


def with_a_second_store(folder: Path) -> None:
    a_store(folder)
    Store(folder / "other").model("same:latest", WEIGHTS, system=b"another one")


def to_link_anew(folder: Path) -> None:
    """A folder of links, and a store in which one of their models has changed, one has gone and one is new."""
    store = a_store(folder)
    undisturbed(folder, "link", "*", "links", "--layout", "lmstudio")
    store.model("tiny:latest", ORPHAN, system=b"another one")
    store.manifest_path(full("tiny:q4")).unlink()
    store.model("new:latest", OTHER)


def with_a_gguf(folder: Path) -> None:
    """A store, and a model as a file beside it, with what is needed to make one of it."""
    a_store(folder)
    (folder / "m.gguf").write_bytes(
        gguf(ONE_LAYER, {name: tensor for part in TENSORS for name, tensor in part.items()})
    )
    (folder / "Modelfile").write_text("FROM m.gguf\nTEMPLATE {{ .Prompt }}\nSYSTEM hi\nPARAMETER top_k 5\n")


def with_a_split_set(folder: Path) -> None:
    """The same in two files, and no store yet."""
    for number, part in enumerate(split(ONE_LAYER, *TENSORS), 1):
        (folder / f"m-{number:05}-of-{len(TENSORS):05}.gguf").write_bytes(part)


def to_build_on(folder: Path) -> None:
    """A model to build on, and another one of the name that the new one is to have."""
    with_a_gguf(folder)
    undisturbed(folder, "create", "base")
    (folder / "Modelfile").write_text("FROM base\nSYSTEM bye\n")
    Store(folder / "models").model("made:latest", b"another model of that name")


DELTA = ("export", "--lock", "models.lock")
AGAIN_IN_VOLUMES = (STEPWISE, "export", "--all", "out.tar.zst", "--split", "50000", "--replace", "--strict")
VOLUMES = ("--split", "100000", "--verify-after-write")


def to_import_recipes(folder: Path) -> None:
    """A bundle in which one model is made of another, and a third of what the store has."""
    near = two_releases(folder / "near")
    near.model("renamed:latest", weights(prefix="model."))
    near.model("other:latest", weights(seed=1))
    near.model("others:latest", weights(prefix="x.", seed=1))
    far = Store(folder / "models")
    far.model("tiny:old", OLD)
    undisturbed(
        folder,
        "export",
        "tiny:new",
        "renamed",
        "other",
        "others",
        "b.tar.zst",
        "--share-tensors",
        "--have",
        "models",
        "--models",
        "near",
    )


def to_pull(folder: Path) -> None:
    """What an import begins with, under the names of a registry that this process runs for as long as it lasts."""
    to_import(folder)
    (folder / "b.tar.zst").unlink()
    tree = folder / "models/manifests"
    (tree / "registry.ollama.ai").rename(tree / ORIGIN)
    _run_registry()


@cache
def _run_registry() -> None:
    """Serve the models of `a_store`. It stands for real ones, with which tests/test_pull.py has to do."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    running = contextlib.ExitStack()
    running.enter_context(false_registry(of_store(a_store(folder).root), port=PORT))
    atexit.register(running.close)


# A disk that knows no hard links.
NO_LINKS = ("linkat:error=EPERM",)
COMMANDS = (
    Command("import", to_import, ("import", "b.tar.zst", "--replace")),
    Command("import-recipes", to_import_recipes, ("import", "b.tar.zst"), leaves="tiny/old"),
    Command("import-new", to_import_anew, ("import", "b.tar.zst")),
    Command("import-oci", to_import_a_layout, ("import", "oci:out", "--replace")),
    Command("import-no-links", to_import, ("import", "b.tar.zst", "--replace"), always=NO_LINKS),
    Command(
        "import-volumes", to_import_volumes, ("import", "b.tar.zst.001", "rest", "--replace"), leaves="mine/latest"
    ),
    Command("pull", to_pull, ("pull", *PULLED, "--replace", "-j", "2")),
    Command("pull-bundle", to_pull, ("pull", *PULLED, "--to", "out.tar.zst", "--replace", "-j", "2")),
    Command("sync", to_sync, ("sync", "from", "models", "--replace")),
    Command("sync-delete", to_sync_and_delete, ("sync", "from", "models", "--delete", "--yes"), leaves_blobs=True),
    Command("restore.py", to_restore, (SCRIPT, "b.tar", "--replace"), clears=False),
    Command("export", a_store, ("export", "--all", "out.tar.zst", "--replace", "--strict")),
    Command("export-tar", a_store, ("export", "--all", "out.tar", "--replace", "--strict")),
    Command("export-stepwise", a_store, (STEPWISE, "export", "--all", "out.tar.zst", "--replace", "--strict")),
    Command("export-resumed", to_export_again, (STEPWISE, "export", "--all", "out.tar.zst", "--replace", "--strict")),
    Command("export-volumes-resumed", to_export_volumes_again, AGAIN_IN_VOLUMES),
    Command("export-tar-resumed", to_export_again, (STEPWISE, "export", "--all", "out.tar", "--replace", "--strict")),
    Command("export-delta", to_export_a_delta, (*DELTA, "out.tar.zst", "--have", "have.json", "--replace")),
    Command("import-delta", to_import_a_delta, ("import", "d.tar.zst", "--lock", "models.lock")),
    Command("lock-update", to_update_a_lock, ("lock", "--update", "models.lock")),
    Command("export-volumes", a_store, ("export", "--all", "out.tar.zst", *VOLUMES, "--replace", "--strict")),
    Command("export-folder", a_store, ("export", "--all", "out/", "--replace", "--strict")),
    Command("export-oci", to_export_to_a_layout, ("export", "--all", "oci:out", "--replace", "--strict")),
    Command("export-oci-new", a_store, ("export", "--all", "oci:out", "--strict")),
    Command("export-gguf", a_store, ("export", "--all", "out/", "--as", "gguf", "--replace", "--strict")),
    Command("export-image", a_store, ("export", "--all", "out.tar", "--as", "image", "--replace", "--strict")),
    Command("link", a_store, ("link", "*", "links", "--layout", "lmstudio")),
    Command("link-refresh", to_link_anew, ("link", "--refresh", "links")),
    Command("link-remove", to_link_anew, ("link", "--remove", "links"), once=True),
    Command("gc", with_orphans, ("gc", "--yes", *NO_GRACE)),
    Command("gc-keep", with_orphans, ("gc", "--yes", "--keep", "24h", *NO_GRACE)),
    Command("gc-restore", with_trash, ("gc", "--restore"), once=True),
    Command("create", with_a_gguf, ("create", "made")),
    Command("create-link", with_a_gguf, ("create", "made", "--link")),
    Command("create-merged", with_a_split_set, ("create", "made", "m-00001-of-00002.gguf")),
    Command("create-from-model", to_build_on, ("create", "made", "--replace")),
    Command("rm", a_store, ("rm", "--yes", "tiny:latest", "*mine*"), once=True),
    Command("rm-half", with_half_a_model, ("rm", "--yes", "half"), once=True),
    Command("cp", a_store, ("cp", "tiny:latest", "copy:new")),
    Command("cp-replace", with_another_copy, ("cp", "tiny:latest", "copy:new", "--replace")),
    Command("repair", to_repair, ("repair", "--from", "b.tar.zst")),
    Command("repair-from-store", to_repair_from_a_store, ("repair", "--from", "good")),
    Command("move", with_orphans, ("move", "--yes", "elsewhere"), once=True),
    Command("move-no-links", with_orphans, ("move", "--yes", "elsewhere"), always=NO_LINKS, once=True),
    Command("move-joining", to_join, ("move", "--yes", "elsewhere"), once=True),
    Command("offload", with_orphans, ("move", "--yes", "--offload", "tiny:q4", "elsewhere"), once=True),
    Command("doctor-fix", to_diagnose, ("doctor", "--fix", "--yes")),
    Command("dedup-link", with_a_second_store, ("dedup", "--link", "--yes", "other"), disk="xfs"),
)
ON_ANY_DISK = tuple(command for command in COMMANDS if not command.disk)
