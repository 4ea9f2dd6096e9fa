"""What to type to restore a set of volumes, with its own names. The file lies beside the volumes, not in the bundle."""

from __future__ import annotations

from importlib import resources

from ostore.formats.shell import WINDOWS, quoted_word
from ostore.formats.volume_set import parity_name, sums_name, volume_name


def instructions(name: str, count: int, *, has_parity: bool) -> bytes:
    """Return the text for a set of `count` volumes. A line that begins with four spaces is a command for sh."""
    is_framed = name.endswith(".zst")

    def quoted(word: str) -> str:
        # A name that begins with a dash is an option to every program.
        return quoted_word(f"./{word}" if word.startswith("-") else word, "posix")

    data = resources.files("ostore.places.bundle")
    text, parity = (data.joinpath(f"RESTORE-{what}.txt").read_bytes().decode() for what in ("volumes", "parity"))
    stem = quoted(f"{name}.")
    return text.format(
        name=quoted(name),
        volumes="1 volume" if count == 1 else f"{count} volumes",
        first=quoted(volume_name(name, 1)),
        last=quoted(volume_name(name, count)),
        sums=quoted(sums_name(name)),
        repair=parity.format(parity=quoted(parity_name(name))) if has_parity else "",
        zstd=" and zstd" if is_framed else "",
        every=f"{stem}[0-9][0-9][0-9]",
        unpack="zstd -dc" if is_framed else "cat",
        windows=quoted_word(volume_name(name, 1), WINDOWS),
        windows_name=quoted_word(name, WINDOWS),
    ).encode("utf-8", "surrogateescape")
