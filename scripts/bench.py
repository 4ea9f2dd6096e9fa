"""
Compare ostore with the stock tools that do the same work. Both run in turns, so ratios hold on a busy machine.

    make bench                                  2 GB beside the checkout, and in memory where there is room
    make bench ARGS='--size 500MB --where /dev/shm --json bench.json'
    make bench ARGS='--against ../other'        this checkout beside another one

Every row is a pair of commands, run A B A B, each after the disk is synced. A row prints the median and the spread of
the ratios of all pairs. Rows of bytes and memory compare figures of the same two sides.
"""

from __future__ import annotations

import argparse
import compileall
import functools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import bench_against
import bench_data as data
import bench_delta as delta
import bench_pull
import bench_serve
from gguf_variants import write_variant

from ostore.formats.export_state import ExportState

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
OSTORE = str(BIN / "ostore")
PEER = str(BIN / "ollamazip")
# Hashes files as fast as a number of threads can. Stock `sha256sum` is several times slower.
HASHLIB = (
    "import concurrent.futures,hashlib,os,pathlib,sys\n"
    "def one(path):\n"
    "    with open(path,'rb') as file: return hashlib.file_digest(file,'sha256').hexdigest()\n"
    "files=[p for p in pathlib.Path(sys.argv[2]).rglob('*') if p.is_file()]\n"
    "with concurrent.futures.ThreadPoolExecutor(int(sys.argv[1])) as pool: list(pool.map(one,files))\n"
)
HASHLIB_OF_ONE = (
    "import hashlib,sys\nwith open(sys.argv[1],'rb') as file: hashlib.file_digest(file,'sha256').hexdigest()\n"
)
# The least work to list a store: one walk, and every manifest read and parsed.
WALK = (
    "import json,os,sys\n"
    "def walk(folder):\n"
    "    with os.scandir(folder) as entries:\n"
    "        for entry in entries:\n"
    "            if entry.is_dir(): walk(entry.path)\n"
    "            else:\n"
    "                with open(entry.path,'rb') as file: json.loads(file.read())\n"
    "walk(sys.argv[1]+'/manifests')\n"
    "with os.scandir(sys.argv[1]+'/blobs') as entries:\n"
    "    for entry in entries: entry.stat()\n"
)
# Runs a command from a small process, because a child begins with the peak of its parent.
PEAK = (
    "import resource,subprocess,sys\n"
    "subprocess.run(sys.argv[1:],check=True,stdout=subprocess.DEVNULL)\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss*1024)\n"
)
# Read the header of a GGUF and print the processor time of that alone: whoever reads headers has started long ago.
OUR_HEADER = (
    "import sys,time\n"
    "from pathlib import Path\n"
    "from ostore.formats.gguf import read_gguf\n"
    "from ostore.streams.bytes_at import FileBytes\n"
    "started=time.process_time()\n"
    "with open(sys.argv[1],'rb') as file:\n"
    "    source=FileBytes(file.fileno(),Path(sys.argv[1]))\n"
    "    read_gguf(source.read_at,source.size,'')\n"
    "print(time.process_time()-started)\n"
)
THEIR_HEADER = (
    "import sys,time\n"
    "from gguf import GGUFReader\n"
    "started=time.process_time()\n"
    "GGUFReader(sys.argv[1])\n"
    "print(time.process_time()-started)\n"
)
MEBIBYTE = 1024 * 1024


@dataclass
class Row:
    """
    One comparison: the figures of each side, round by round.

    `reach` is the most that the median of the ratios may be, or None.
    """

    name: str
    against: str
    reach: float | None
    unit: str = "s"
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        spread = f"({min(self.ratios):.2f} to {max(self.ratios):.2f})"
        verdict = "" if self.reach is None else "reached" if self.ratio <= self.reach else "MISSED"
        reach = "" if self.reach is None else f"{self.reach:.2f}"
        figures = f"{statistics.median(self.ours):.2f} / {statistics.median(self.theirs):.2f} {self.unit}"
        return (
            f"{self.name:<40} {self.ratio:6.3f}x {spread:<16} of {self.against:<34} {reach:>5} {verdict:<8}"
            f"{figures:<20} {self.note}"
        ).rstrip()


@dataclass
class Bench:
    """The folder to work in, the options, and the rows so far."""

    folder: Path
    size: int
    rounds: int
    tags: int
    large: int
    rows: list[Row] = field(default_factory=list)

    def compare(
        self,
        name: str,
        against: str,
        reach: float | None,
        ours: Callable[[], object],
        theirs: Callable[[], object],
        clean: Callable[[], object] = lambda: None,
    ) -> Row:
        """Time both sides in turns. The first round only warms the caches."""
        row = Row(name, against, reach)
        for number in range(self.rounds + 1):
            for times, work in ((row.ours, ours), (row.theirs, theirs)):
                clean()
                os.sync()
                started = time.perf_counter()
                work()
                if number:
                    times.append(time.perf_counter() - started)
        clean()
        return self.add(row)

    def figures(self, name: str, against: str, reach: float | None, unit: str, ours: float, theirs: float) -> Row:
        """Add a row of two figures that do not vary."""
        return self.add(Row(name, against, reach, unit, [ours], [theirs]))

    def add(self, row: Row) -> Row:
        self.rows.append(row)
        print(row, flush=True)
        return row


def run(*command: str | Path) -> Callable[[], None]:
    def work() -> None:
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)

    return work


def shell(command: str) -> Callable[[], None]:
    return run("bash", "-o", "pipefail", "-c", command)


def ostore(*arguments: str | Path) -> Callable[[], None]:
    return run(OSTORE, *arguments, "-q")


def python(code: str, *arguments: str | Path) -> Callable[[], None]:
    return run(sys.executable, "-c", code, *arguments)


def both(*works: Callable[[], object]) -> Callable[[], None]:
    def work() -> None:
        for part in works:
            part()

    return work


def remover(*paths: Path) -> Callable[[], None]:
    def work() -> None:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    return work


def peak(*command: str | Path) -> float:
    """Run a command and return its peak memory in MiB."""
    told = subprocess.run([sys.executable, "-c", PEAK, *map(str, command)], check=True, capture_output=True, text=True)
    return int(told.stdout) / MEBIBYTE


def usual_peak(bench: Bench, command: tuple[str | Path, ...], clean: Callable[[], object] = lambda: None) -> float:
    peaks = []
    for _ in range(bench.rounds):
        peaks.append(peak(*command))
        clean()
    return statistics.median(peaks)


def starting_rows(bench: Bench) -> None:
    """Compare the time that every command needs to start."""
    typer = python("import typer")
    for name, ours in (
        ("ostore --version", run(OSTORE, "--version")),
        ("ostore --help", run(OSTORE, "--help")),
        ("completing a command", run(OSTORE, "_complete", "=ex")),
        ("completing a model", run(OSTORE, "_complete", "=r", "show", "--models", str(bench.folder))),
    ):
        bench.compare(name, "python -c 'import typer'", 1.3, ours, typer)


def carrying_rows(bench: Bench) -> None:
    """Compare export, import and verify of quantised weights, as eight blobs and as one."""
    for what, count, reach in (("8 blobs", 8, 0.50), ("1 blob", 1, 0.60)):
        store, bundle, peer = bench.folder / "store", bench.folder / "b.tar.zst", bench.folder / "peer.tar.zst"
        data.real_store(store, bench.size, count)
        exporting_rows(bench, what, reach, store, bundle, peer)
        importing_rows(bench, what, bundle, peer)
        if count > 1:
            verifying_rows(bench, store, bundle)
        remover(store, bundle, peer)()


def exporting_rows(bench: Bench, what: str, reach: float | None, store: Path, bundle: Path, peer: Path) -> None:
    ours = ostore("export", "--all", bundle, "--models", store)
    stock = f"tar -C {store} -cf - . | zstd -q -T0 -3 -o {peer}"
    clean = remover(bundle, peer)
    bench.compare(f"export, {what}", "tar | zstd -T0 -3", reach, ours, shell(stock), clean)
    bench.compare(f"export, {what}", "tar | zstd -T0 -3, sync", None, ours, shell(f"{stock} && sync {peer}"), clean)
    both(ours, shell(stock))()
    limit = None if reach is None else 1.01
    sizes = (bundle.stat().st_size / 1e6, peer.stat().st_size / 1e6)
    bench.figures(f"size of the bundle, {what}", "tar | zstd -T0 -3", limit, "MB", *sizes)


def importing_rows(bench: Bench, what: str, bundle: Path, peer: Path) -> None:
    other, plain = bench.folder / "other", bench.folder / "plain"
    sums = f'cd {plain}/blobs && for f in *; do echo "${{f#sha256-}}  $f"; done | sha256sum -c --quiet'
    unpack = f"mkdir -p {plain} && tar --zstd -xf {peer} -C {plain}"
    clean = remover(other, plain)
    ours = ostore("import", bundle, "--models", other)
    bench.compare(f"import, {what}", "tar --zstd -x, sha256sum -c", 0.35, ours, shell(f"{unpack} && {sums}"), clean)
    bench.compare(f"import, {what}", "tar --zstd -x, sync", 1.0, ours, shell(f"{unpack} && sync"), clean)


def verifying_rows(bench: Bench, store: Path, bundle: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    hashing, with_cores = python(HASHLIB, str(cores), store), f"hashlib, {cores} threads"
    verifying = ostore("verify", "--models", store)
    bench.compare("verify", "sha256sum", 0.20, verifying, shell(f"sha256sum {store}/blobs/*"))
    bench.compare("verify", with_cores, 1.1, verifying, hashing)
    bench.compare("import, all there", with_cores, 1.1, ostore("import", bundle, "--models", store), hashing)
    bench.compare(
        "import, all there, --trust-existing", "ostore list", 2.0,
        ostore("import", bundle, "--trust-existing", "--models", store), ostore("list", "--models", store),
    )  # fmt: skip
    plain, peer = bench.folder / "b.tar", bench.folder / "peer.tar"
    bench.compare(
        "export to .tar", "tar, then hashlib in one thread", 0.9,
        ostore("export", "--all", plain, "--models", store),
        both(shell(f"tar -C {store} -cf {peer} ."), python(HASHLIB, "1", store)),
        remover(plain, peer),
    )  # fmt: skip


def extreme_rows(bench: Bench) -> None:
    """Compare export and import of a blob that does not shrink, and of one that shrinks well."""
    store, bundle, peer = bench.folder / "store", bench.folder / "b.tar.zst", bench.folder / "peer.tar.zst"
    for what, make in (("incompressible", data.noise), ("bfloat16", data.bfloat16)):
        data.add_model(store, "extreme", [data.config(0), (data.MODEL, make(1, bench.size))])
        exporting_rows(bench, what, None, store, bundle, peer)
        importing_rows(bench, what, bundle, peer)
        remover(store, bundle, peer)()


def volume_rows(bench: Bench) -> None:
    """Compare a bundle in ten volumes with one in a file, and parity with the program that makes it."""
    store, bundle, folder = bench.folder / "store", bench.folder / "b.tar.zst", bench.folder / "volumes"
    data.add_model(store, "one", [data.config(0), (data.MODEL, data.noise(1, bench.size))])
    volumes, other = folder / "b.tar.zst", bench.folder / "other"
    clean = both(remover(bundle, folder, other), functools.partial(os.makedirs, folder))
    ours = ("export", "one", volumes, "--models", store, "--split", str(-(-bench.size // 10)))
    whole = ostore("export", "one", bundle, "--models", store)
    bench.compare("export, in 10 volumes", "ostore export", 1.05, ostore(*ours), whole, clean)
    both(clean, ostore(*ours), whole)()
    taking, from_whole = (ostore("import", one, "--models", other) for one in (volumes, bundle))
    bench.compare("import, of 10 volumes", "ostore import", 1.05, taking, from_whole, remover(other))
    both(clean, ostore(*ours, "--parity", "5%", "--replace"))()
    block = -(-bench.size // 2000 // 4) * 4
    stock = f"cd {folder} && {par2()} create -q -q -s{block} -c100 -u -n1 -m2048 -a peer.par2 b.tar.zst.0??"
    row = Row("parity of 5 %, less the export without", "par2cmdline-turbo", 1.1)
    for _ in range(bench.rounds):
        times = []
        for work in (ostore(*ours, "--replace"), ostore(*ours, "--replace", "--parity", "5%"), shell(stock)):
            os.sync()
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
            shell(f"rm -f {folder}/peer*")()
        row.ours.append(times[1] - times[0])
        row.theirs.append(times[2])
    bench.add(row)
    remover(store, bundle, folder)()


def par2() -> str:
    """Return the program of the extra `parity`."""
    return subprocess.run(
        [sys.executable, "-c", "import par2.cli; print(par2.cli.par2_executable())"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip


def bytes_read(log: str, path: Path) -> int:
    """Return the bytes read from one file, by a log of strace. A call may take two lines there, begun and resumed."""
    total, begun = 0, set()
    for line in log.splitlines():
        process, _, call = line.partition(" ")
        if f"<{path}>" in call and "unfinished" in call:
            begun.add(process)
        elif f"<{path}>" in call or ("resumed" in call and process in begun):
            begun.discard(process)
            total += int(call.rpartition("= ")[2])
    return total


def picking_rows(bench: Bench) -> None:
    """Compare the bytes read from a bundle to import one model of fifty."""
    store, other, log = bench.folder / "store", bench.folder / "other", bench.folder / "log"
    bundle, alone = bench.folder / "b.tar.zst", bench.folder / "alone.tar.zst"
    data.real_store(store, bench.size, 50)
    both(
        ostore("export", "--all", bundle, "--models", store),
        ostore("export", "real25", alone, "--models", store),
        run("strace", "-f", "-yy", "-o", log, "-e", "trace=read,pread64", OSTORE,
            "import", bundle, "--model", "real25", "--models", other, "-q"),
    )()  # fmt: skip
    read = bytes_read(log.read_text(), bundle)
    bench.figures(
        "import of one model of 50, bytes read", "a bundle of that model alone", 1.05, "MB",
        read / 1e6, alone.stat().st_size / 1e6,
    )  # fmt: skip
    remover(store, other, bundle, alone, log)()


def resuming_rows(bench: Bench) -> None:
    """Compare the rest of an export that was killed at nine tenths with a whole one, of ten blobs and of one."""
    store, bundle = bench.folder / "store", bench.folder / "b.tar.zst"
    for what, count, reach in (("10 blobs", 10, 0.3), ("1 blob", 1, 1.0)):
        data.real_store(store, bench.size, count)
        exporting, clean = ostore("export", "--all", bundle, "--models", store), remover(bundle)
        row, written, whole = Row(f"export killed at 90 %, its rest, {what}", "a whole export", reach), 0, 0
        for _ in range(bench.rounds):
            row.theirs.append(timed(exporting))
            whole = bundle.stat().st_size
            clean()
            written = max(written, whole - killed_export(store, bundle, whole * 9 // 10))
            row.ours.append(timed(exporting))
            clean()
        bench.add(row)
        limit = whole / 10 + 256 * MEBIBYTE
        bench.figures(f"its bytes written, {what}", "a tenth, and 256 MiB", 1.0, "MB", written / 1e6, limit / 1e6)
        remover(store)()


def timed(work: Callable[[], object]) -> float:
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def killed_export(store: Path, bundle: Path, size: int) -> int:
    """Kill an export once its file has that size. Return the bytes that the next one need not write."""
    part = bundle.with_name(f"{bundle.name}.part")
    with subprocess.Popen([OSTORE, "export", "--all", bundle, "--models", store, "-q"]) as process:
        while not part.exists() or part.stat().st_size < size:
            time.sleep(0.001)
        process.kill()
    return ExportState.parse(part.with_name(f"{part.name}.state").read_bytes()).size


def peer_rows(bench: Bench) -> None:
    """Compare ostore with the closest peer, which packs one model into each file and verifies only if told."""
    store, ours, theirs = bench.folder / "store", bench.folder / "b.tar.zst", bench.folder / "b.ollamazip"
    other, plain = bench.folder / "other", bench.folder / "plain"
    data.real_store(store, bench.size, 1)
    exporting = ostore("export", "real0", ours, "--models", store)
    packing = run("env", f"OLLAMA_MODELS={store}", PEER, "pack", "real0:latest", "-o", theirs)
    bench.compare("export", "ollamazip pack", 1.0, exporting, packing, remover(ours, theirs))
    both(exporting, packing)()
    importing = ostore("import", ours, "--models", other)
    unpacking = run("env", f"OLLAMA_MODELS={plain}", PEER, "unpack", theirs)
    clean = both(remover(other, plain), functools.partial(os.makedirs, plain / "blobs"))
    bench.compare("import", "ollamazip unpack, unverified", 1.0, importing, unpacking, clean)
    remover(store, ours, theirs, other, plain)()


def header_rows(bench: Bench) -> None:
    """Compare how long the header of the real model takes: 6.5 MB, with 262,144 tokens."""
    row = Row("header of Gemma, processor time", "PyPI gguf", 0.01)
    for _ in range(bench.rounds):
        row.ours.append(printed(OUR_HEADER, data.REAL_MODEL))
        row.theirs.append(printed(THEIR_HEADER, data.REAL_MODEL))
    bench.add(row)
    bench.figures("header of Gemma, processor time", "0.1 s", 1.0, "s", statistics.median(row.ours), 0.1)


def creating_rows(bench: Bench) -> None:
    """Compare making a model of a file with the least work for it, and a change of one parameter with nothing."""
    source, store, copied = bench.folder / "m.gguf", bench.folder / "store", bench.folder / "copy"
    data.gguf_file(source, bench.size)
    creating, clean = ostore("create", "m", source, "--models", store), remover(store, copied)
    hashing = python(HASHLIB, "1", bench.folder)
    if data.can_clone(bench.folder):
        before = both(clean, drop_caches)
        bench.compare("create, cloned, nothing cached", "hashlib in one thread", 1.15, creating, hashing, before)
        free = shutil.disk_usage(bench.folder).free
        both(clean, creating, os.sync)()
        taken = max(0, free - shutil.disk_usage(bench.folder).free)
        bench.figures("create, cloned, room on the disk", "1 MB", 1.0, "MB", taken / 1e6, 1)
    else:
        stock = both(shell(f"cp {source} {copied} && sync {copied}"), python(HASHLIB, "1", bench.folder))
        bench.compare("create, copied", "cp, sync, hashlib of that", 0.75, creating, stock, clean)
    remover(source, store)()
    # Its weights are a hole, and nobody reads them.
    data.gguf_model(store, "large", bench.large)
    changing = ostore("create", "changed", "-f", bench.folder / "Modelfile", "--replace", "--models", store)
    times = []
    for number in range(bench.rounds):
        (bench.folder / "Modelfile").write_text(f"FROM large\nPARAMETER top_k {number}\n")
        started = time.perf_counter()
        changing()
        times.append(time.perf_counter() - started)
    took = statistics.median(times)
    bench.figures(f"create, a parameter of {bench.large / 1e9:.0f} GB", "0.5 s", 1.0, "s", took, 0.5)
    remover(store)()


def drop_caches() -> None:
    """Let the next reader go to the disk. Only root may do this."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def printed(code: str, argument: Path) -> float:
    """Run a program that prints a number."""
    command = [sys.executable, "-c", code, str(argument)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def many_rows(bench: Bench) -> None:
    """Compare the time and memory of commands that look at a whole store of many tags."""
    store, nothing = bench.folder / "many", bench.folder / "nothing"
    nothing.mkdir()
    data.small_store(store, bench.tags)
    walking = python(WALK, store)
    for what, arguments in (
        ("list", ("list",)),
        ("du", ("du",)),
        ("doctor", ("doctor",)),
        ("gc, the plan", ("gc", "--dry-run")),
        ("rm, the plan", ("rm", "--dry-run", "small1")),
        ("rm of a ninth, the plan", ("rm", "--dry-run", "small1*")),
        ("cp, the plan", ("cp", "--dry-run", "small1", "copy")),
        ("repair, the plan", ("repair", "--dry-run", "small1", "--from", nothing)),
        ("export, the plan", ("export", "--dry-run", "--all", bench.folder / "all.tar.zst")),
        ("move, the plan", ("move", "--dry-run", bench.folder / "moved")),
    ):
        name = f"{what}, {bench.tags} tags"
        bench.compare(name, "scandir, json.loads", 2.0, ostore(*arguments, "--models", store), walking)
        memory = peak(OSTORE, *arguments, "--models", store, "-q")
        bench.figures(f"{name}, memory", "150 MiB", 1.0, "MiB", memory, 150)
    remover(store)()


def memory_rows(bench: Bench) -> None:
    """Compare peak memory for a small and a large blob. Buffers of 8 MiB may overlap or not, depending on timing."""
    # The blob itself is a hole, but an import writes all of its bytes.
    if shutil.disk_usage(bench.folder).free < 1.1 * bench.large:
        print(f"memory: no room here for {bench.large / 1e9:.0f} GB")
        return
    store, bundle, other = bench.folder / "store", bench.folder / "b.tar.zst", bench.folder / "other"
    peaks: dict[str, list[float]] = {"export": [], "import": [], "verify": []}
    for size in (10**9, bench.large):
        data.add_model(store, "zeros", [data.config(0), (data.MODEL, size)])
        exporting = (OSTORE, "export", "zeros", bundle, "--replace", "--models", store, "-q")
        peaks["export"].append(usual_peak(bench, exporting))
        peaks["verify"].append(usual_peak(bench, (OSTORE, "verify", "--models", store, "-q")))
        remover(store)()
        peaks["import"].append(usual_peak(bench, (OSTORE, "import", bundle, "--models", other, "-q"), remover(other)))
        remover(bundle)()
    for name, (small, large) in peaks.items():
        bench.figures(f"{name}, memory, {bench.large / 1e9:.0f} GB", "128 MiB", 1.0, "MiB", large, 128)
        bench.figures(f"{name}, memory, growth from 1 GB", "8 MiB", 1.0, "MiB", large - small, 8)


def delta_rows(bench: Bench) -> None:
    """Compare the recipes of a re-release with patches of zstd, of the whole blob, byte by byte."""
    near, far, have = bench.folder / "near", bench.folder / "far", bench.folder / "have.json"
    old, new, bundle = bench.folder / "old.gguf", bench.folder / "new.gguf", bench.folder / "d.tar"
    delta.write_base(old)
    delta.add_weights(far, "old", old)
    shutil.copytree(far, near)
    have.write_bytes(subprocess.run([OSTORE, "inventory", "--models", far], check=True, capture_output=True).stdout)
    for what, reach, write in delta.VARIANTS:
        write(old, new)
        delta.add_weights(near, "new", new)
        for path in (bundle, bundle.with_suffix(".tar.zst")):
            ostore("export", "new", path, "--have", have, "--replace", "--models", near)()
        stored, packed = delta.recipe_in(bundle)
        patch = delta.best_patch(old, new, bench.folder / "patch.zst")
        row = f"recipe: {what}"
        bench.figures(
            row, "zstd --patch-from, best of -1 to -9", reach, "B", packed, patch
        ).note = f"{stored} B in .tar"
        beside = bundle.with_suffix(".tar.zst").stat().st_size - packed
        bench.figures(f"bundle less the {row}", "24 kB", 1.0, "kB", beside / 1e3, 24)
        shutil.rmtree(near / "manifests/registry.ollama.ai/library/new")
    remover(near, far, old, new, bundle, bundle.with_suffix(".tar.zst"))()
    large_delta_rows(bench, near, far)
    sharing_rows(bench)


def large_delta_rows(bench: Bench, near: Path, far: Path) -> None:
    """The same of a large file, and what it takes to make and to follow the recipe."""
    old, new, bundle = bench.folder / "old.gguf", bench.folder / "new.gguf", bench.folder / "d.tar"
    copies = max(1, bench.large // data.REAL_MODEL.stat().st_size)
    size = f"{copies * data.REAL_MODEL.stat().st_size / 1e9:.0f} GB"
    delta.write_large(old, copies)
    write_variant(old, new, template=lambda text: text + "\n")
    delta.add_weights(far, "old", old)
    delta.add_weights(near, "new", new)
    exporting = (OSTORE, "export", "new", bundle, "--have", far, "--replace", "--models", near, "-q")
    bench.figures(f"delta export, memory, {size}", "128 MiB", 1.0, "MiB", usual_peak(bench, exporting), 128)
    bench.figures(f"recipe: another template, {size}", "1 kB", 1.0, "B", delta.recipe_in(bundle)[0], 1000)
    importing = (OSTORE, "import", bundle, "--models", far, "-q")
    gone = [far / "manifests/registry.ollama.ai/library/new"]
    gone += [far / "blobs" / path.name for path in (near / "blobs").iterdir() if path.stat().st_size > MEBIBYTE]
    bench.figures(
        f"delta import, memory, {size}", "128 MiB", 1.0, "MiB", usual_peak(bench, importing, remover(*gone)), 128
    )
    copied = bench.folder / "copied"
    copying = both(shell(f"cp {new} {copied} && sync {copied}"), python(HASHLIB_OF_ONE, copied))
    clean = remover(copied, *gone)
    bench.compare(f"delta import, {size}", "cp, sync, hashlib of that", 1.1, run(*importing), copying, clean)
    remover(old, new, near, far, bundle)()


def sharing_rows(bench: Bench) -> None:
    """Compare a bundle of three quantizations with the sum of them."""
    store, bundle = bench.folder / "store", bench.folder / "b.tar"
    files = [list(delta.quantized(body)) for body in (delta.Q4_K, delta.Q5_K, delta.Q6_K)]
    for number, tensors in enumerate(files):
        data.add_model(store, f"quantized{number}", [data.config(number), (data.MODEL, delta.quantized_file(tensors))])
    ostore("export", "--all", bundle, "--share-tensors", "--models", store)()
    whole = sum(path.stat().st_size for path in (store / "blobs").iterdir())
    shared = delta.shared_bytes(files)
    row = bench.figures(
        "Q4_K_M, Q5_K_M, Q6_K, --share-tensors", "their sum less what they share", 1.01, "MB",
        bundle.stat().st_size / 1e6, (whole - shared) / 1e6,
    )  # fmt: skip
    row.note = f"{shared / whole:.1%} of {whole / 1e6:.0f} MB are shared"
    remover(store, bundle)()


def serving_rows(bench: Bench) -> None:
    """Compare the server with nginx, and bundles with a store."""
    for row in bench_serve.rows(bench.folder, bench.rounds):
        bench.rows.append(Row(row.name, row.against, row.reach, row.unit, row.ours, row.theirs, row.note))
        print(bench.rows[-1], flush=True)


def pulling_rows(bench: Bench) -> None:
    """Compare pulls with what other programs take to fetch and hash the same bytes."""
    bench_pull.rows(bench, peak)


GROUPS: dict[str, Callable[[Bench], None]] = {
    "starting": starting_rows,
    "carrying": carrying_rows,
    "extreme": extreme_rows,
    "volumes": volume_rows,
    "picking": picking_rows,
    "resuming": resuming_rows,
    "peer": peer_rows,
    "header": header_rows,
    "creating": creating_rows,
    "delta": delta_rows,
    "many": many_rows,
    "memory": memory_rows,
    "pulling": pulling_rows,
    "serving": serving_rows,
}


def parse_size(text: str) -> int:
    for suffix, factor in (("GB", 10**9), ("MB", 10**6), ("GiB", 2**30), ("MiB", 2**20)):
        if text.endswith(suffix):
            return int(float(text.removesuffix(suffix)) * factor)
    return int(text)


@contextmanager
def work_folder(where: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ostore-bench-", dir=where) as name:
        yield Path(name)


def places(size: int) -> list[Path]:
    """Return the folders to work in: the checkout, and memory if a row takes less than half of it."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 8 * size
    return [*([memory] if roomy else []), ROOT]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default="2GB", help="bytes of weights, for example 500MB")
    parser.add_argument("--where", type=Path, action="append", metavar="DIR", help="folder to work in; may be repeated")
    parser.add_argument("--json", type=Path, dest="output", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--large", type=parse_size, default="8GB", help="bytes of the blob of the memory rows")
    parser.add_argument("--rows", default="", help="all if none are named: " + ", ".join(GROUPS))
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT",
        help="compare with another checkout of ostore; its rows: " + ", ".join(bench_against.ROWS),
    )  # fmt: skip
    options = parser.parse_args()
    known = bench_against.ROWS if options.against else tuple(GROUPS)
    chosen = options.rows.split(",") if options.rows else [*known]
    if unknown := {*chosen} - {*known}:
        parser.error(f"--rows: no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if not data.REAL_MODEL.exists():
        sys.exit("the real model is not there yet: run `make demo` once")
    # Compile as pip does. Else every start compiles again where writing bytecode is switched off.
    compileall.compile_dir(ROOT / "ostore", quiet=1)
    results = {}
    print(f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    for where in options.where or places(options.size):
        print(f"\nin {where}: {options.size / 1e9:.1f} GB, {options.rounds} rounds")
        with work_folder(where) as folder:
            rows: Sequence[Row | bench_against.Row]
            if options.against:
                other = bench_against.Bench(options.against, folder, options.size, options.rounds, options.tags)
                rows = other.compare(chosen)
            else:
                bench = Bench(folder, options.size, options.rounds, options.tags, options.large)
                for group in chosen:
                    GROUPS[group](bench)
                rows = bench.rows
            results[str(where)] = [{**asdict(row), "ratio": row.ratio} for row in rows]
    if options.output:
        options.output.write_text(json.dumps(results, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
