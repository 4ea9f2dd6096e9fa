"""
Compute the rectangles of a treemap. The area of a cell stands for its bytes, each colour has one region, and small
items share a cell.

This module only computes. The page decides on looks and wording.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import squarify

from ostore.formats.wording import human_bytes, plural

# Areas. Items below the first share one cell. If fewer than _FEW remain, as with many models of one size, the _MANY
# largest are drawn down to the second. Nobody can see or click a smaller cell.
_SMALL, _SMALLEST = 1200, 300
_FEW, _MANY = 12, 40
# In units of the picture, which are pixels at full size. The width of a character is that of a wide bold font.
_CHARACTER, _LINE, _MARGIN, _GAP = 8.3, 17.0, 7.0, 2.0
_LEAST_CHARACTERS, _MOST_LINES = 5, 4
_PIECE = re.compile(r"[^:/\-_ ]*[:/\-_ ]*")


@dataclass(frozen=True, slots=True)
class Item:
    """What a cell stands for. `size` is in bytes, `target` the id of a place that says more, `detail` a second line."""

    label: str
    size: int
    target: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Region:
    """
    All items of one colour. Small items share one cell: `rest` is the noun for them, `target` the id of their table.
    If `rest` is empty, small items are not joined.
    """

    kind: str
    items: Sequence[Item]
    rest: str
    target: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A rectangle and the text that fits into it: lines of the label, then lines that matter less."""

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
    """Place every region, largest first, and the items in it. Leaves out items that are too small to draw."""
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
    """Return the items of a region, largest first, with the small ones joined into one."""
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
    """Return the lines of a name. If it does not fit, keep what follows the last slash, which tells it from others."""
    lines = _broken(text, characters, room)
    return _broken(text.rpartition("/")[2], characters, room) if lines[-1].endswith("…") else lines


def _broken(text: str, characters: int, room: int) -> list[str]:
    """Break a name into lines after a separator. A name that does not fit ends in an ellipsis."""
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
