"""
Predict what a store looks like after each of many steps, without ostore: a plain model to compare a real store with.

It keeps the bytes of every file, and knows of each command what it takes, leaves, brings back and refuses. Only ages
come from the disk, as for every program.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import MODEL, TEMPLATE, Store, full, sha256

HOUR, DAY = 3600.0, 86_400.0
WEEK = 7 * DAY
# Nobody can read the first, nor the second.
BROKEN = (b"", b"{")


@dataclass
class Clock:
    """
    A clock that can be put forward, and what the times of real files are on it: those that they had when written.

    `leaps` are the moments, in real time, at which it was put forward, and how far it was ahead from then on.
    """

    real: Callable[[], float]
    leaps: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])

    def now(self) -> float:
        return self.shown(self.real())

    def shown(self, real: float) -> float:
        """What it showed at a moment of real time."""
        return real + self.leaps[bisect_right(self.leaps, (real, float("inf"))) - 1][1]

    def advance(self, seconds: float) -> None:
        """The caller has to wait longer than the times of files are coarse, before a file is written."""
        self.leaps.append((self.real(), self.leaps[-1][1] + seconds))


@dataclass(frozen=True)
class Version:
    """A model as somebody publishes it: its name, its manifest, and the bytes of its blobs in the order of these."""

    name: str
    raw: bytes
    blobs: dict[str, bytes]


@dataclass(frozen=True)
class Cargo:
    """What is in a bundle."""

    path: Path
    models: dict[str, bytes]
    contents: dict[str, bytes]


def versions(folder: Path) -> list[Version]:
    """Two of each of four names; most share a blob with others, one shares all of its blobs."""
    made = []
    for number, (name, weights, template) in enumerate((
        ("a:latest", b"weights one", b"template"),
        ("a:latest", b"weights two", b"template"),
        ("b:latest", b"weights one", b"template"),
        ("b:latest", b"weights three", b"another template"),
        ("someone/c:v1", b"weights one", b"another template"),
        ("someone/c:v1", b"weights four", b"template of its own"),
        ("hf.co/d/e:Q4", b"weights five", b"template"),
        ("hf.co/d/e:Q4", b"weights five", b"template"),
    )):  # fmt: skip
        store = Store(folder / f"{number}")
        spelled = f"registry.ollama.ai/{name}" if name.count("/") == 1 else full(name)
        layers = [store.layer(MODEL, weights * 500), store.layer(TEMPLATE, template)]
        path = store.add(spelled, *layers, config=store.config(model_type=f"{weights!r} {number}"))
        blobs = {f"sha256-{digest}": store.root / "blobs" / f"sha256-{digest}" for digest in needs(path.read_bytes())}
        made.append(Version(spelled, path.read_bytes(), {name: blob.read_bytes() for name, blob in blobs.items()}))
    return made


def needs(raw: bytes) -> list[str]:
    """The hex digests that a manifest names; none for one that nobody can read."""
    if raw in BROKEN:
        return []
    document = json.loads(raw)
    return [layer["digest"].removeprefix("sha256:") for layer in (document["config"], *document["layers"])]


def blob_names(raws: Iterable[bytes]) -> set[str]:
    return {f"sha256-{digest}" for raw in raws for digest in needs(raw)}


def is_whole(filename: str, content: bytes | None) -> bool:
    return content is not None and filename == f"sha256-{sha256(content)}"


@dataclass
class Belief:
    """
    The bytes of all files: `models` by name, `files` of `blobs/` by file name, and `trash` by the time that it is kept.

    `used` says when a blob was last written or relied upon: its mtime must not be older. `returned` says when a blob
    came back from the trash: its newest time must not be older.
    """

    models: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    trash: list[tuple[float, dict[str, bytes]]] = field(default_factory=list)
    used: dict[str, float] = field(default_factory=dict)
    returned: dict[str, float] = field(default_factory=dict)

    @property
    def readable(self) -> dict[str, bytes]:
        return {name: raw for name, raw in self.models.items() if raw not in BROKEN}

    @property
    def is_doubtful(self) -> bool:
        return len(self.readable) < len(self.models)

    @property
    def needed(self) -> set[str]:
        return blob_names(self.models.values())

    @property
    def blobs(self) -> list[str]:
        """Those files that are whole by their names, partial ones left out."""
        return sorted(name for name in self.files if "partial" not in name)

    @property
    def problems(self) -> set[str]:
        """What verify has to say."""
        bad = {name for name in self.needed | set(self.blobs) if not is_whole(name, self.files.get(name))}
        broken = {name.rpartition(":") for name in self.models.keys() - self.readable.keys()}
        return {name.replace("-", ":") for name in bad} | {f"manifests/{path}/{tag}" for path, _, tag in broken}

    def put(self, contents: dict[str, bytes], now: float) -> None:
        """Blobs that are there from now on, whole."""
        self.files |= contents
        self.used |= dict.fromkeys(contents, now)

    def rely(self, names: Iterable[str], now: float) -> None:
        self.used |= dict.fromkeys(names, now)

    def drop(self, names: Collection[str]) -> None:
        for name in names:
            self.files.pop(name, None)
            self.used.pop(name, None)
            self.returned.pop(name, None)

    def lost_by(self, raw: bytes) -> set[str]:
        """The blobs of a manifest that is gone, of which none that is left has need."""
        return blob_names([raw]) & self.files.keys() - self.needed

    def return_needed(self) -> None:
        """What removing commands begin with: what lies in the trash and a model misses comes back."""
        for _, batch in self.trash:
            for name in sorted(batch.keys() & self.needed - self.files.keys()):
                self.files[name] = batch.pop(name)

    def remove(self, name: str) -> None:
        """`ostore rm`: the blobs that no other model needs go, unless the manifest of another one cannot be read."""
        raw = self.models.pop(name)
        if not self.is_doubtful:
            self.drop(self.lost_by(raw))

    def restore(self, now: float) -> None:
        """`ostore gc --restore`: what is whole comes back, over nothing."""
        for _, batch in self.trash:
            back = {
                name: content for name, content in batch.items() if is_whole(name, content) and name not in self.files
            }
            self.files |= back
            self.returned |= dict.fromkeys(back, now)
            for name in back:
                del batch[name]

    def repair(self, cargo: Cargo, now: float) -> None:
        """`ostore repair`: what verify complains of, as far as the bundle has it; broken models with all they need."""
        known = blob_names(self.readable.values()) | set(self.blobs)
        bad = {name for name in known if not is_whole(name, self.files.get(name))}
        back = {name: raw for name, raw in cargo.models.items() if name in self.models.keys() - self.readable.keys()}
        self.models |= back
        wanted = bad | blob_names(back.values())
        self.put({name: content for name, content in cargo.contents.items() if name in wanted}, now)


@dataclass(frozen=True)
class Sweep:
    """What `ostore gc` takes: orphans, and the files of downloads that nobody goes on with."""

    blobs: frozenset[str]
    downloads: frozenset[str]

    @classmethod
    def foreseen(
        cls, belief: Belief, times: dict[str, tuple[float, float]], *, now: float, grace: float, patience: float
    ) -> Sweep:
        """
        `times` are the mtime and the newest time of each file; `patience` how long a download seems to be alive.

        While one is, what is younger than the grace before it began stays too: it may belong to it.
        """
        groups: dict[str, list[str]] = {}
        for name in belief.files.keys() - set(belief.blobs):
            groups.setdefault(name.partition("-partial")[0], []).append(name)
        youngest = {group: max(times[name][1] for name in names) for group, names in groups.items()}
        began = [
            times[name][0] for group, names in groups.items() if now - youngest[group] < patience for name in names
        ]
        oldest = min(began, default=now) - grace
        return cls(
            frozenset(name for name in belief.blobs if name not in belief.needed and times[name][1] <= oldest),
            frozenset(name for group, names in groups.items() if youngest[group] <= now - WEEK for name in names),
        )
