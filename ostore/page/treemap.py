"""
Where the rectangles of a treemap lie: each as large as its bytes, one region a colour, small ones together.

Pure arithmetic; how it looks and what it says to whom is for the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import squarify

from ostore.formats.wording import human_bytes, plural

# Areas. Below the first, cells go together into one; if that leaves next to none, as with many models of one size, the
# largest are drawn down to the second. Below that nothing can be seen or hit.
_SMALL, _SMALLEST = 1200, 300
_FEW, _MANY = 12, 40
# In units of the picture, which are pixels at its full size. A character is as wide as in a broad and bold font.
_CHARACTER, _LINE, _MARGIN, _GAP = 8.3, 17.0, 7.0, 2.0
_LEAST_CHARACTERS, _MOST_LINES = 5, 4
_PIECE = re.compile(r"[^:/\-_ ]*[:/\-_ ]*")


@dataclass(frozen=True, slots=True)
class Item:
    """What a cell stands for: `size` is bytes, `target` the id of what says more, `detail` a second line."""

    label: str
    size: int
    target: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Region:
    """
    All of one colour. Of small items many go together: `rest` is their noun, `target` where they are listed; without
    a noun each stays by itself.
    """

    kind: str
    items: Sequence[Item]
    rest: str
    target: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A rectangle, and what of its text fits into it: lines of the label, then of what is less important."""

    kind: str
    item: Item
    x: float
    y: float
    width: float
    height: float
    label: tuple[str, ...]
    more: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Treemap:
    """The cells of a picture, and the items that are too small to draw."""

    width: int
    height: int
    cells: tuple[Cell, ...]
    too_small: tuple[Item, ...]


_Box = tuple[float, float, float, float]


def lay_out(regions: Sequence[Region], width: int, height: int) -> Treemap:
    """Place every region, the largest first, and every item in it."""
    bytes_a_unit = sum(item.size for region in regions for item in region.items) / (width * height)
    grouped = [(region.kind, _grouped(region, bytes_a_unit)) for region in regions]
    least = bytes_a_unit * _SMALLEST
    drawn = [(kind, [item for item in items if item.size >= least]) for kind, items in grouped]
    visible = sorted((pair for pair in drawn if pair[1]), key=lambda pair: -_size(pair[1]))
    too_small = tuple(item for _, items in grouped for item in items if item.size < least)
    boxes = _boxes([_size(items) for _, items in visible], (0, 0, width, height))
    cells = [
        _cell(kind, item, place)
        for (kind, items), box in zip(visible, boxes, strict=True)
        for item, place in zip(items, _boxes([item.size for item in items], box), strict=True)
    ]
    return Treemap(width, height, tuple(cells), too_small)


def _size(items: Sequence[Item]) -> int:
    return sum(item.size for item in items)


def _grouped(region: Region, bytes_a_unit: float) -> list[Item]:
    """The items of a region, largest first, the small ones as one."""
    items = sorted((item for item in region.items if item.size), key=lambda item: -item.size)
    large = [item for item in items if item.size >= bytes_a_unit * _SMALL]
    if len(large) < _FEW:
        large = [item for item in items[:_MANY] if item.size >= bytes_a_unit * _SMALLEST]
    small = items[len(large) :]
    if len(small) < 2 or not region.rest:  # noqa: PLR2004 - one alone keeps its name
        return items
    label = plural(len(small), f"{'smaller ' if large else ''}{region.rest}")
    return sorted([*large, Item(label, _size(small), region.target)], key=lambda item: -item.size)


def _boxes(sizes: Sequence[int], box: _Box) -> list[_Box]:
    x, y, width, height = box
    if not sizes:
        return []
    places = squarify.squarify(squarify.normalize_sizes(list(sizes), width, height), x, y, width, height)
    return [(place["x"], place["y"], place["dx"], place["dy"]) for place in places]


def _cell(kind: str, item: Item, box: _Box) -> Cell:
    x, y, width, height = box
    width, height = max(width - _GAP, 1), max(height - _GAP, 1)
    characters, room = int((width - 2 * _MARGIN) / _CHARACTER), int((height - _MARGIN) / _LINE)
    is_labelled = characters >= _LEAST_CHARACTERS and room >= 1
    label = _label(item.label, characters, min(_MOST_LINES, max(1, room - 1))) if is_labelled else []
    more = [text for text in (human_bytes(item.size), item.detail) if text and len(text) <= characters]
    shown = more[: room - len(label)] if is_labelled else []
    return Cell(kind, item, x + _GAP / 2, y + _GAP / 2, width, height, tuple(label), tuple(shown))


def _label(text: str, characters: int, room: int) -> list[str]:
    """As much of a name as there is room for: what tells it from others is at its end."""
    lines = _broken(text, characters, room)
    return _broken(text.rpartition("/")[2], characters, room) if lines[-1].endswith("…") else lines


def _broken(text: str, characters: int, room: int) -> list[str]:
    """Lines broken where names have joints; what does not fit ends in an ellipsis."""
    lines = [""]
    for piece in _PIECE.findall(text):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > characters:
            lines.append("")
        lines[-1] += piece
    shown = [line.strip() for line in lines][:room]
    for number, line in enumerate(shown):
        is_cut = len(line) > characters or (number == room - 1 and len(lines) > room)
        if is_cut:
            return [*shown[:number], f"{line[: characters - 1]}…"]
    return shown
