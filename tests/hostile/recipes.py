"""Part B, recipes: what a hostile bundle can say of how a blob is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from tests.hostile.forge import (
    NAME,
    SETTINGS,
    TEXT,
    Bundle,
    blob_name,
    compressed,
    digest,
    document,
    dumped,
    entry,
    layer,
    member,
    tar,
)
from tests.hostile.rows import (
    DONE,
    FORMAT,
    INTEGRITY,
    LIMIT,
    NO_SPACE,
    NOT_FOUND,
    OLD_WEIGHTS,
    UNSAFE,
    Row,
    file_rows,
    imported,
)
from tests.support import MODEL, noise

NEW = b"some new bytes"
FRAME_BYTES = 8 * 1024 * 1024
# The store of each row has the old weights, and this is what the good recipe makes of them.
MADE = OLD_WEIGHTS[100:300] + NEW + OLD_WEIGHTS[:50]
STEPS: tuple[object, ...] = (["copy", 0, 100, 200], ["new", len(NEW)], ["copy", 0, 0, 50])


def head(*steps: object) -> bytes:
    return dumped({"steps": steps})


@dataclass(frozen=True)
class Forged:
    """A bundle with one model, whose weights are made by recipes; consistent, until something is changed."""

    stored: bytes = head(*STEPS) + NEW
    made: bytes = MADE
    bases: Sequence[bytes] = (OLD_WEIGHTS,)
    requires: Sequence[bytes] = (OLD_WEIGHTS,)

    def entry(self, **changes: object) -> dict[str, Any]:
        return {
            **entry(self.made),
            "bases": [digest(base) for base in self.bases],
            "stored": entry(self.stored),
            **changes,
        }

    def built(self, recipes: object = None, **changes: object) -> bytes:
        """The tar stream. `changes` are keys of the index."""
        raw = dumped(document(layers=[layer(MODEL, self.made)]))
        bundle = Bundle(blobs=[SETTINGS], manifests=[(NAME, raw, (SETTINGS, self.made))])
        index = bundle.index(
            needs=["recipes"],
            requires=[entry(blob) for blob in self.requires],
            recipes=[self.entry()] if recipes is None else recipes,
        )
        parts = bundle.parts(dumped({**index, **changes}))
        parts.insert(-1, member(f"recipes/{blob_name(self.made).removeprefix('blobs/')}", self.stored))
        return tar(parts)


def rows_of(
    name: str, forged: Forged, *codes: int, says: str = "", alone: bool = False, **changes: object
) -> Iterator[Row]:
    yield from file_rows(name, lambda: compressed(forged.built(**changes)), *codes, says=says, alone=alone)
    looked_at = imported(lambda: compressed(forged.built(**changes)), command="verify")
    yield Row(f"{name} [verify]", looked_at, codes, is_report=True, alone=alone)


def step_rows() -> Iterator[Row]:
    """Heads of recipes. What the index says of them is true."""
    heads: tuple[tuple[str, bytes, int], ...] = (
        ("B80 recipe with a range outside its base", head(["copy", 0, 300, 200], *STEPS[1:]), UNSAFE),
        ("B81 recipe with a base that is not there", head(["copy", 1, 100, 200], *STEPS[1:]), UNSAFE),
        ("B82 recipe with a base below 0", head(["copy", -1, 100, 200], *STEPS[1:]), UNSAFE),
        ("B83 recipe with an offset below 0", head(["copy", 0, -100, 200], *STEPS[1:]), UNSAFE),
        ("B84 recipe with a length below 0", head(["copy", 0, 100, -200], *STEPS[1:]), FORMAT),
        ("B85 recipe with an empty step", head(["copy", 0, 100, 0], *STEPS), FORMAT),
        ("B86 recipe with an offset of 2^64", head(["copy", 0, 2**64, 200], *STEPS[1:]), UNSAFE),
        ("B87 recipe with a length of a thousand digits", head(["new", 0]).replace(b"0", b"9" * 1000), FORMAT),
        ("B88 recipe with a step of another kind", head(["fill", 200], *STEPS[1:]), FORMAT),
        ("B89 recipe that makes less", head(*STEPS[:2]), FORMAT),
        ("B90 recipe that makes more", head(*STEPS, STEPS[0]), FORMAT),
        ("B91 recipe that takes more new bytes than there are", head(["new", 200], *STEPS[1:]), FORMAT),
        ("B92 recipe with steps twice", b'{"steps":[],"STEPS":[]}\n', UNSAFE),
        ("B93 recipe that is no JSON", b"{\n", FORMAT),
        ("B94 recipe that is nested", b'{"steps":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", LIMIT),
        ("B95 recipe without a head", NEW, FORMAT),
    )
    for name, content, code in heads:
        yield from rows_of(name, Forged(stored=content + NEW), code, says="recipe for")
    many = head(*[["copy", 0, 0, 1]] * 100_001)
    yield from rows_of("B96 recipe of 100,001 steps", Forged(stored=many, made=b"t" * 100_001), LIMIT, alone=True)
    millions = b'{"steps":[' + b'["new",1],' * 1_000_000 + b'["new",1]]}\n'
    yield from rows_of(
        "B97 recipe of a million steps", Forged(stored=millions, made=noise(8_000_000)), LIMIT, alone=True
    )
    blank = b" " * (5 * 1024 * 1024) + head(*STEPS) + NEW
    yield from rows_of(
        "B98 recipe with a head of 5 MiB", Forged(stored=blank, made=noise(2_000_000)), LIMIT, alone=True
    )
    bomb = head(*[["copy", 0, 0, len(OLD_WEIGHTS)]] * 100_000)
    yield from rows_of(
        "B99 recipe that makes 48 MB of 480 bytes",
        Forged(stored=bomb, made=OLD_WEIGHTS * 99_999 + noise(480)),
        INTEGRITY,
        alone=True,
    )


def index_rows() -> Iterator[Row]:
    """What the index says of recipes."""
    good = Forged()
    yield from rows_of("B100 recipe as it should be", good, DONE)
    yield from rows_of(
        "B101 recipe whose base is missing", Forged(bases=(noise(480),), requires=(noise(480),)), NOT_FOUND, DONE
    )
    yield from rows_of("B102 recipe that makes other bytes", Forged(made=MADE[:-1] + b"!"), INTEGRITY)
    yield from rows_of("B103 recipe without a base", Forged(bases=(), requires=()), LIMIT)
    yield from rows_of("B104 recipe with a base twice", Forged(bases=(OLD_WEIGHTS,) * 2), UNSAFE)
    yield from rows_of("B105 recipe with 65 bases", Forged(bases=[bytes([number]) for number in range(65)]), LIMIT)
    yield from rows_of("B106 recipe that builds on itself", Forged(bases=(MADE,), requires=()), FORMAT)
    yield from rows_of("B107 recipe that builds on nothing listed", Forged(requires=()), FORMAT)
    yield from rows_of("B108 recipes that are not needed", good, FORMAT, needs=[])
    yield from rows_of("B109 recipes and more that is needed", good, FORMAT, says="newer", needs=["recipes", "spells"])
    yield from rows_of("B110 recipe for a blob that is there", good, UNSAFE, blobs=[entry(SETTINGS), entry(MADE)])
    yield from rows_of(
        "B111 recipe for a blob that is required", good, UNSAFE, requires=[entry(OLD_WEIGHTS), entry(MADE)]
    )
    yield from rows_of(
        "B112 recipe that is stored in more", good, LIMIT, recipes=[good.entry(stored=entry(NEW, size=2**40))]
    )
    yield from rows_of("B113 recipe that is stored in nothing", good, LIMIT, recipes=[good.entry(stored=entry(b""))])
    yield from rows_of(
        "B114 recipe with another digest",
        good,
        INTEGRITY,
        recipes=[good.entry(stored=entry(NEW, size=len(good.stored)))],
    )
    yield from rows_of(
        "B115 recipe that makes 2^62 bytes", good, NO_SPACE, FORMAT, INTEGRITY, LIMIT, recipes=[good.entry(size=2**62)]
    )
    yield from rows_of("B116 recipes that are no list", good, FORMAT, recipes={})
    yield from rows_of("B117 recipe that is no object", good, FORMAT, recipes=[[]])
    yield from rows_of(
        "B118 recipe with a base that is no digest", good, UNSAFE, recipes=[good.entry(bases=["../../x"])]
    )
    circle = [{**good.entry(), "bases": [digest(TEXT)]}, {**good.entry(), **entry(TEXT), "bases": [digest(MADE)]}]
    yield from rows_of("B119 recipes that build on each other", good, FORMAT, recipes=circle)
    yield from rows_of("B120 recipes on top of each other", good, LIMIT, FORMAT, recipes=_tower(10))
    yield from rows_of("B121 a hundred thousand recipes", good, LIMIT, FORMAT, alone=True, recipes=_tower(100_001))


def _tower(height: int) -> list[dict[str, Any]]:
    """Each is made of the one before."""
    digests = [digest(OLD_WEIGHTS), *(f"sha256:{number:064x}" for number in range(height))]
    stored = entry(NEW)
    return [{"digest": above, "size": 400, "bases": [below], "stored": stored} for below, above in pairwise(digests)]


def member_rows() -> Iterator[Row]:
    """Where the recipe is in the archive."""
    name = f"recipes/{blob_name(MADE).removeprefix('blobs/')}"
    stored = Forged().stored
    changes = (
        ("B122 recipe that is missing", lambda parts: parts.pop(-2), INTEGRITY),
        ("B123 recipe before the blobs", lambda parts: parts.insert(2, parts.pop(-2)), FORMAT),
        ("B124 recipe after the manifest", lambda parts: parts.append(parts.pop(-2)), FORMAT),
        ("B125 recipe twice", lambda parts: parts.insert(-1, member(name, stored)), UNSAFE),
        ("B126 recipe among the blobs", lambda parts: parts.__setitem__(-2, member(blob_name(MADE), stored)), UNSAFE),
        (
            "B127 manifest where tar shows it",
            lambda parts: parts.__setitem__(-1, parts[-1].replace(b"ostore/", b"", 1)),
            UNSAFE,
            INTEGRITY,
        ),
    )
    for what, change, *codes in changes:
        yield from file_rows(what, partial(_changed, change), *codes)


def _changed(change: Callable[[list[bytes]], object]) -> bytes:
    parts = _parts()
    change(parts)
    return compressed(tar(parts))


def _parts() -> list[bytes]:
    forged = Forged()
    raw = dumped(document(layers=[layer(MODEL, MADE)]))
    bundle = Bundle(blobs=[SETTINGS], manifests=[(NAME, raw, (SETTINGS, MADE))])
    index = bundle.index(needs=["recipes"], requires=[entry(OLD_WEIGHTS)], recipes=[forged.entry()])
    parts = bundle.parts(dumped(index))
    parts.insert(-1, member(f"recipes/{blob_name(MADE).removeprefix('blobs/')}", forged.stored))
    return parts


@dataclass(frozen=True)
class Floor:
    """One recipe of a tower: what it makes, of which bases, and how it is stored."""

    made: dict[str, Any]
    bases: Sequence[dict[str, Any]]
    stored: bytes


def tower(whole: Sequence[bytes], floors: Sequence[Floor]) -> bytes:
    """The tar stream of a bundle that needs nothing, with recipes on top of each other."""
    entries = [*map(entry, whole), *(floor.made for floor in floors)]
    raw = dumped(document(layers=[{"mediaType": MODEL, **one} for one in entries]))
    bundle = Bundle(blobs=[SETTINGS, *whole], manifests=[(NAME, raw, (SETTINGS, *whole, NEW))])
    recipes = [
        {**floor.made, "bases": [base["digest"] for base in floor.bases], "stored": entry(floor.stored)}
        for floor in floors
    ]
    index = bundle.index(needs=["recipes"], recipes=recipes)
    index["models"][0]["blobs"][-1:] = [floor.made["digest"] for floor in floors]
    parts = bundle.parts(dumped(index))
    names = ["recipes/" + floor.made["digest"].replace(":", "-") for floor in floors]
    parts[-1:-1] = [member(name, floor.stored) for name, floor in zip(names, floors, strict=True)]
    return tar(parts)


def widest() -> bytes:
    """64 recipes on each of 8 floors, each of them on all of the floor below. A naive reader opens 64^8."""
    below = whole = [bytes([number]) * 8 for number in range(64)]
    floors = []
    for floor in range(8):
        news = [b"%04d%04d" % (floor, number) for number in range(64)]
        made = [blob[:4] + new for blob, new in zip(below, news, strict=True)]
        bases = [*map(entry, below)]
        floors += [
            Floor(entry(blob), [*bases[number:], *bases[:number]], head(["copy", 0, 0, 4], ["new", 8]) + new)
            for number, (blob, new) in enumerate(zip(made, news, strict=True))
        ]
        below = made
    return tower(whole, floors)


def longest() -> bytes:
    """Three floors of as many steps as there can be, of a byte each."""
    below = whole = noise(100_000)
    floors = []
    for _ in range(3):
        made = below[1:] + below[:1]
        steps = [["copy", 0, number, 1] for number in range(1, 100_000)]
        floors.append(Floor(entry(made), [entry(below)], head(*steps, ["copy", 0, 0, 1])))
        below = made
    return tower([whole], floors)


def multiplied() -> bytes:
    """A blob of 50 kB made byte by byte, and one of 5 GB, which is a hundred thousand times that one."""
    whole = noise(50_000)
    first = Floor(entry(whole[::-1]), [entry(whole)], head(*[["copy", 0, at, 1] for at in reversed(range(50_000))]))
    again = head(*[["copy", 0, 0, 50_000]] * 100_000)
    return tower([whole], [first, Floor(entry(TEXT, size=50_000 * 100_000), [first.made], again)])


def scattered() -> bytes:
    """A blob of which each byte is in another frame than the one before."""
    whole = bytes(7 * FRAME_BYTES)
    steps = [["copy", 0, number % 7 * FRAME_BYTES, 1] for number in range(100_000)]
    return tower([whole], [Floor(entry(bytes(100_000)), [entry(whole)], head(*steps))])


def tower_rows() -> Iterator[Row]:
    """Recipes that multiply the work. To import them costs less: each is made of files that were made before it."""
    yield from file_rows("B128 recipes, as many as can be on top of each other", lambda: compressed(widest()), DONE)
    for name, build, code, says in (
        ("B129 the same recipes", widest, DONE, ""),
        ("B130 recipes on top of each other of 100,000 steps each", longest, LIMIT, "steps in the recipes"),
        ("B131 recipe that takes 5 GB from another one", multiplied, LIMIT, "short ranges of each other"),
        ("B132 recipe that jumps about in the file", scattered, LIMIT, "all over the file"),
    ):
        verified = imported(partial(_compressed, build), command="verify")
        yield Row(f"{name} [verify]", verified, (code,), says, is_report=not says, alone=build is not widest)


def _compressed(build: Callable[[], bytes]) -> bytes:
    return compressed(build())


def recipe_rows() -> Iterator[Row]:
    yield from step_rows()
    yield from index_rows()
    yield from member_rows()
    yield from tower_rows()
