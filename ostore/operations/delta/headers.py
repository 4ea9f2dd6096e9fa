"""Compare the header of a file of weights with that of a base: what of it can be copied, and what is new."""

from __future__ import annotations

from ostore.formats.recipe import Step, joined

# A longer header is not compared: it would not fit into memory twice, with the table of its blocks.
MAX_COMPARED_BYTES = 32 * 1024 * 1024
# A copy takes some 25 bytes of a recipe, so shorter runs stay new.
_LEAST_RUN = 64
_BLOCK_BYTES = 64
_LARGE_BYTES, _LARGE_BLOCK_BYTES = 16 * 1024 * 1024, 256
_STRETCH = 4096


def header_steps(new: bytes, old: bytes, base: int) -> list[Step]:
    """Return the steps that make the bytes `new`. `old` are the first bytes of the base with that number."""
    block = _BLOCK_BYTES if len(old) <= _LARGE_BYTES else _LARGE_BLOCK_BYTES
    # Hashes of blocks, not blocks: they take a third of the memory. The bytes are compared before they count.
    places: dict[int, int] = {}
    for place in range(0, len(old) - block + 1, block):
        places.setdefault(hash(old[place : place + block]), place)
    steps: list[Step] = []
    done = position = shift = 0
    while position + _LEAST_RUN <= len(new):
        there = position + shift
        if there < 0 or new[position : position + _LEAST_RUN] != old[there : there + _LEAST_RUN]:
            sample = new[position : position + block]
            there = places.get(hash(sample), -1)
            if there < 0 or old[there : there + block] != sample:
                position += 1
                continue
        back = _equal_before(new, position, old, there, position - done)
        length = back + _equal_after(new, position, old, there)
        steps += [Step(position - back - done), Step(length, base, there - back)]
        done = position = position - back + length
        shift = there - back + length - position
    return list(joined([*steps, Step(len(new) - done)]))


def _equal_after(new: bytes, position: int, old: bytes, there: int) -> int:
    """Return how many bytes are equal from these places on."""
    most, count, stretch = min(len(new) - position, len(old) - there), 0, _STRETCH
    while stretch and count < most:
        size = min(stretch, most - count)
        start, begin = position + count, there + count
        if new[start : start + size] == old[begin : begin + size]:
            count += size
        else:
            stretch //= 2
    return count


def _equal_before(new: bytes, position: int, old: bytes, there: int, most: int) -> int:
    """Return how many bytes are equal before these places, at most `most`."""
    count, most = 0, min(most, there)
    while count < most and new[position - count - 1] == old[there - count - 1]:
        count += 1
    return count
