"""
Write the hostile bundles of the tests into a folder, for other programs: `make vectors TO=FOLDER`.

    python -m tests.vectors.write FOLDER [NUMBER…]      A, A08 or C6 for some of them

README.md explains them. They come from the one table that the tests run, tests/hostile/corpus.py.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.cli import exit_codes
from tests.hostile.corpus import ROWS
from tests.hostile.rows import BundleFile, Row
from tests.support import sha256

SCHEMA = "ostore.vectors/1"
_CLASSES = {0: "", **{code: name for name, code in exit_codes.CODES.items()}}
# What a test adds to a row's name: how it hands the bundle over.
_WAY = re.compile(r" \[(file|import|bundle|tar)\]$")


@dataclass(frozen=True)
class Vector:
    """A bundle for other programs, the row of the table that it comes from, and its file name."""

    row: Row
    bundle: BundleFile
    file: str

    @property
    def entry(self) -> dict[str, object]:
        number, _, why = _WAY.sub("", self.row.name).partition(" ")
        classes = [_CLASSES[code] for code in self.row.codes if code]
        return {"file": self.file, "codes": list(self.row.codes), "classes": classes, "number": number, "why": why}


def vectors(numbers: Sequence[str] = ()) -> Iterator[Vector]:
    """Every row of the table that is a bundle alone, whatever store it meets; or those whose number begins so."""
    for row in ROWS:
        bundle = row.prepare
        if isinstance(bundle, BundleFile) and bundle.command == "import" and not bundle.options:
            ending = bundle.name.removeprefix("in")
            slug = re.sub(r"[^a-z0-9]+", "-", ascii(_WAY.sub("", row.name)).lower()).strip("-")
            if not numbers or row.name.startswith(tuple(numbers)):
                yield Vector(row, bundle, f"{slug[:80].rstrip('-')}-{sha256(row.name.encode())[:8]}{ending}")


def write(folder: Path, numbers: Sequence[str] = ()) -> int:
    """Returns how many bundles there are now."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for vector in vectors(numbers):
        data = vector.bundle.build()
        (folder / vector.file).write_bytes(data)
        entries.append({**vector.entry, "sha256": sha256(data), "size": len(data)})
    document = {"schema": SCHEMA, "vectors": entries}
    (folder / "index.json").write_text(json.dumps(document, indent=1) + "\n")
    return len(entries)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make vectors", allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("numbers", nargs="*", metavar="NUMBER")
    options = parser.parse_args()
    count = write(options.folder, options.numbers)
    print(f"wrote {count} bundles and index.json to {options.folder}")
    return 0 if count else 2


if __name__ == "__main__":
    sys.exit(main())
