"""
Run every target of the table under atheris, one after the other, for some seconds and in its own process: `make fuzz`.

    python -m tests.torture.fuzz.run [--seconds 60] [--folder .fuzz] [TARGET…]

Each target prints one line. If an input makes a target crash, hang or use too much memory, it is left in the folder,
and the exit code is 1. Make it a case of test_findings.py.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Far more than MAX_SECONDS of attempt.py, which is of processor time: for what does not come back by itself.
_HANG_SECONDS = 15
_MEMORY_MB = 768
# The largest of the seeds is half of it.
_MAX_INPUT_BYTES = 16 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", allow_abbrev=False)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="where findings go")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    options = parser.parse_args()
    if options.one:
        return _fuzz(options.targets[0], options.targets[1:])
    from tests.torture.fuzz.targets import TARGETS

    for name in options.targets:
        if name not in TARGETS:
            parser.error(f"no target {name!r}, only {', '.join(TARGETS)}")
    options.folder.mkdir(exist_ok=True)
    # A list first: all of them run, whatever the first finds.
    return max([_watch(name, options.seconds, options.folder) for name in options.targets or TARGETS])


def _watch(name: str, seconds: int, folder: Path) -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as corpus:
        words = [sys.executable, "-m", __spec__.name, "--one", "--", name, corpus]
        words += [f"-max_total_time={seconds}", f"-timeout={_HANG_SECONDS}", f"-rss_limit_mb={_MEMORY_MB}"]
        words += [f"-max_len={_MAX_INPUT_BYTES}", f"-artifact_prefix={folder}/{name}-", "-print_final_stats=1"]
        ended = subprocess.run(words, capture_output=True, text=True, errors="backslashreplace", check=False)
    log = ended.stderr + ended.stdout
    counted = re.search(r"number_of_executed_units: (\d+)", log)
    covered = re.findall(r"\bcov: (\d+)", log)
    count = f"{int(counted[1]):>12,}" if counted else f"{'?':>12}"
    clean = f"nothing found, {covered[-1] if covered else 0} branches of ours reached"
    verdict = f"FOUND SOMETHING, see {folder}/{name}-*" if ended.returncode else clean
    print(f"{name:<12}{count} executions {time.monotonic() - started:6.0f} s  {verdict}", flush=True)
    if ended.returncode:
        (folder / f"{name}-log").write_text(log)
    return int(ended.returncode != 0)


def _fuzz(name: str, words: list[str]) -> int:
    """In a process of its own, because libFuzzer ends it."""
    import atheris

    # What is imported here is what the fuzzer sees the inside of.
    with atheris.instrument_imports(include=["ostore"]):
        from tests.torture.fuzz.attempt import attempt
        from tests.torture.fuzz.targets import TARGETS

    target = TARGETS[name]
    for seed in target.seeds():
        (Path(words[0]) / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    atheris.Setup([name, *words], lambda data: attempt(target, data) and None)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
