"""
Measure ostore beside the stock tools that do the same work, in turns in one run, so that ratios hold on a busy machine.

    make bench                                  2 GB beside the checkout
    make bench ARGS='--size 500MB --where /dev/shm --json bench.json'

Every row is a pair of commands, run A B A B …; the ratio of each pair is taken, and the median and spread printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REAL_MODEL = ROOT / ".demo" / "gemma-3-270m-q4_k_m.gguf"
MODEL = "application/vnd.ollama.image.model"
CONFIG = "application/vnd.docker.container.image.v1+json"
OSTORE = (str(Path(sys.executable).with_name("ostore")),)
# Hashes files as fast as one thread can, or as all can; stock `sha256sum` is several times slower.
HASHLIB = (
    "import concurrent.futures,hashlib,os,pathlib,sys\n"
    "def one(path):\n"
    "    with open(path,'rb') as file: return hashlib.file_digest(file,'sha256').hexdigest()\n"
    "files=[p for p in pathlib.Path(sys.argv[2]).rglob('*') if p.is_file()]\n"
    "with concurrent.futures.ThreadPoolExecutor(int(sys.argv[1])) as pool: list(pool.map(one,files))\n"
)
# What `list` cannot do without: one walk, and every manifest read and parsed.
WALK = (
    "import json,os,sys\n"
    "seen=0\n"
    "for folder,_,files in os.walk(sys.argv[1]+'/manifests'):\n"
    "    for name in files:\n"
    "        with open(folder+'/'+name,'rb') as file: json.loads(file.read())\n"
    "with os.scandir(sys.argv[1]+'/blobs') as entries:\n"
    "    for entry in entries: entry.stat()\n"
)


@dataclass
class Row:
    """One comparison: the seconds of each side, round by round, and what the ratio of medians is to be."""

    name: str
    against: str
    reach: float
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


class Bench:
    """Data, commands and rows in one folder."""

    def __init__(self, folder: Path, size: int, rounds: int) -> None:
        self.folder = folder
        self.size = size
        self.rounds = rounds
        self.rows: list[Row] = []

    def compare(
        self,
        name: str,
        against: str,
        reach: float,
        ours: Callable[[], None],
        theirs: Callable[[], None],
        clean: Callable[[], None] = lambda: None,
    ) -> Row:
        row = Row(name, against, reach)
        for number in range(self.rounds + 1):
            for times, work in ((row.ours, ours), (row.theirs, theirs)):
                clean()
                os.sync()
                started = time.perf_counter()
                work()
                if number:  # the first round only warms the caches
                    times.append(time.perf_counter() - started)
        clean()
        self.rows.append(row)
        print(line(row), flush=True)
        return row


def line(row: Row) -> str:
    spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
    verdict = "reached" if row.ratio <= row.reach else "missed"
    return (
        f"{row.name:<44} {row.ratio:5.2f}x ({spread})  of {row.against:<40} reach {row.reach:.2f}: {verdict}  "
        f"[{statistics.median(row.ours):.2f} s / {statistics.median(row.theirs):.2f} s] {row.note}"
    )


def add_model(store: Path, name: str, blobs: list[tuple[str, bytes | Path]]) -> None:
    """A model of one tag; a Path is moved in, bytes are written."""
    folder = store / "blobs"
    folder.mkdir(parents=True, exist_ok=True)
    layers = []
    for media_type, content in blobs:
        if isinstance(content, Path):
            with content.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            content.rename(folder / f"sha256-{digest}")
        else:
            digest = hashlib.sha256(content).hexdigest()
            (folder / f"sha256-{digest}").write_bytes(content)
        size = (folder / f"sha256-{digest}").stat().st_size
        layers.append({"mediaType": media_type, "digest": f"sha256:{digest}", "size": size})
    manifest = {"schemaVersion": 2, "mediaType": "", "config": layers[0], "layers": layers[1:]}
    path = store / "manifests/registry.ollama.ai/library" / name / "latest"
    path.parent.mkdir(parents=True)
    path.write_bytes(json.dumps(manifest, separators=(",", ":")).encode() + b"\n")


def config(number: int) -> tuple[str, bytes]:
    return CONFIG, json.dumps({"model_format": "gguf", "model_type": f"{number}M"}).encode()


def real_blobs(store: Path, size: int, count: int) -> None:
    """`count` blobs of real quantised weights, together `size` bytes; each begins with another number."""
    data = REAL_MODEL.read_bytes()
    for number in range(count):
        path = store.parent / "building"
        left = size // count
        with path.open("wb") as file:
            file.write(number.to_bytes(8, "little"))
            left -= 8
            while left > 0:
                left -= file.write(memoryview(data)[:left])
        add_model(store, f"real{number}", [config(number), (MODEL, path)])


def small_blobs(store: Path, tags: int) -> None:
    """Many tags of six small blobs each."""
    for number in range(tags):
        blobs: list[tuple[str, bytes | Path]] = [config(number)]
        blobs += ((MODEL, f"{number} {part}".encode() * 20) for part in range(5))
        add_model(store, f"small{number}", blobs)


def shell(command: str) -> Callable[[], None]:
    def work() -> None:
        subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True, stdout=subprocess.DEVNULL)

    return work


def ostore(*arguments: str | Path) -> Callable[[], None]:
    def work() -> None:
        subprocess.run([*OSTORE, *map(str, arguments), "-q"], check=True, stdout=subprocess.DEVNULL)

    return work


def python(code: str, *arguments: str | Path) -> Callable[[], None]:
    def work() -> None:
        subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)

    return work


def remover(*paths: Path) -> Callable[[], None]:
    def work() -> None:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    return work


def carrying_rows(bench: Bench) -> None:
    """Export, import and verify of large models, as eight blobs and as one."""
    cores = len(os.sched_getaffinity(0))
    for what, count, reach in (("8 blobs", 8, 0.50), ("1 blob", 1, 0.60)):
        store, bundle, peer = bench.folder / f"store{count}", bench.folder / "b.tar.zst", bench.folder / "peer.tar.zst"
        real_blobs(store, bench.size, count)
        row = bench.compare(
            f"export, {what}", "tar | zstd -T0 -3", reach,
            ostore("export", "--all", bundle, "--models", store),
            shell(f"tar -C {store} -cf - . | zstd -q -T0 -3 -o {peer}"),
            remover(bundle, peer),
        )  # fmt: skip
        ostore("export", "--all", bundle, "--models", store)()
        shell(f"tar -C {store} -cf - . | zstd -q -T0 -3 -o {peer}")()
        row.note = f"size {bundle.stat().st_size / peer.stat().st_size:.4f}x"
        print(f"    its size: {row.note}")
        importing_rows(bench, what, bundle, peer)
        if count > 1:
            verifying_rows(bench, store, bundle, cores)
        remover(store, bundle, peer)()


def importing_rows(bench: Bench, what: str, bundle: Path, peer: Path) -> None:
    other, plain = bench.folder / "other", bench.folder / "plain"
    sums = f'cd {plain}/blobs && for f in *; do echo "${{f#sha256-}}  $f"; done | sha256sum -c --quiet'
    unpack = f"mkdir -p {plain} && tar --zstd -xf {peer} -C {plain}"
    clean = remover(other, plain)
    importing = ostore("import", bundle, "--models", other)
    bench.compare(
        f"import, {what}", "tar --zstd -x, sha256sum -c", 0.35, importing, shell(f"{unpack} && {sums}"), clean
    )
    bench.compare(f"import, {what}", "tar --zstd -x, sync", 1.0, importing, shell(f"{unpack} && sync"), clean)


def verifying_rows(bench: Bench, store: Path, bundle: Path, cores: int) -> None:
    hashing = python(HASHLIB, str(cores), store)
    plain, peer = bench.folder / "b.tar", bench.folder / "peer.tar"
    verifying = ostore("verify", "--models", store)
    bench.compare("verify", "sha256sum", 0.20, verifying, shell(f"sha256sum {store}/blobs/*"))
    bench.compare("verify", f"hashlib, {cores} threads", 1.1, verifying, hashing)
    there = ostore("import", bundle, "--models", store)
    bench.compare("import, all there", f"hashlib, {cores} threads", 1.1, there, hashing)
    trusting = ostore("import", bundle, "--trust-existing", "--models", store)
    bench.compare(
        "import, all there, --trust-existing", "ostore list", 2.0, trusting, ostore("list", "--models", store)
    )
    tar = shell(f"tar -C {store} -cf {peer} .")
    one_thread = python(HASHLIB, "1", store)
    bench.compare(
        "export to .tar", "tar, then hashlib in one thread", 0.9,
        ostore("export", "--all", plain, "--models", store), lambda: (tar(), one_thread(), None)[-1],
        remover(plain, peer),
    )  # fmt: skip


def many_rows(bench: Bench, tags: int) -> None:
    store = bench.folder / "many"
    small_blobs(store, tags)
    bench.compare(
        f"list, {tags} tags", "os.walk, json.loads", 2.0, ostore("list", "--models", store), python(WALK, store)
    )
    remover(store)()


def starting_rows(bench: Bench) -> None:
    typer = python("import typer")
    for arguments in (("--version",), ("--help",)):
        bench.compare(
            f"ostore {arguments[0]}", "python -c 'import typer'", 1.3, shell(" ".join((*OSTORE, *arguments))), typer
        )


def parse_size(text: str) -> int:
    for suffix, factor in (("GB", 10**9), ("MB", 10**6), ("GiB", 2**30), ("MiB", 2**20)):
        if text.endswith(suffix):
            return int(float(text.removesuffix(suffix)) * factor)
    return int(text)


@contextmanager
def work_folder(where: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ostore-bench-", dir=where) as name:
        yield Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", type=parse_size, default=parse_size("2GB"), help="bytes of weights, for example 500MB"
    )
    parser.add_argument("--where", type=Path, action="append", help="folder to work in; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--rows", default="", help="only rows whose group begins so: carrying, many, starting")
    parser.add_argument("--json", type=Path, dest="output")
    options = parser.parse_args()
    random.seed(1)
    if not REAL_MODEL.exists():
        sys.exit("the real model is not there yet: run `make demo` once")
    groups: dict[str, Callable[[Bench], None]] = {
        "starting": starting_rows,
        "carrying": carrying_rows,
        "many": lambda bench: many_rows(bench, options.tags),
    }
    results = {}
    print(f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    for where in options.where or [ROOT]:
        print(f"\nin {where}: {options.size / 1e9:.1f} GB, {options.rounds} rounds")
        with work_folder(where) as folder:
            bench = Bench(folder, options.size, options.rounds)
            for name, rows in groups.items():
                if name.startswith(options.rows):
                    rows(bench)
            results[str(where)] = [{**asdict(row), "ratio": row.ratio} for row in bench.rows]
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
