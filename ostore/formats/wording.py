"""Text for people: sizes as Ollama prints them, and text without unprintable characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_LISTED = 3
# A registry or a layout may have thousands of images beside its models.
_NOTES = 20

_UNITS = ((1000**4, "TB"), (1000**3, "GB"), (1000**2, "MB"), (1000, "KB"))


def clean(text: str) -> str:
    """
    Return a text with every unprintable character escaped, except line breaks.

    A name or a licence from a bundle must not move the cursor, change colours or write to the clipboard.
    """
    if text.isprintable() or text.replace("\n", "").isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else _escape(character) for character in text
    )


def one_line(text: str) -> str:
    """Return a text with line breaks escaped, so that it cannot fake another line of output."""
    return text.replace("\n", "\\n")


def human_bytes(size: int) -> str:
    """Return a size as Ollama prints it (format/bytes.go at fb30760): decimal units, at most one decimal."""
    for factor, unit in _UNITS:
        if size >= factor:
            value = size / factor
            return f"{value:.1f} {unit}" if value < 10 and not value.is_integer() else f"{int(value)} {unit}"  # noqa: PLR2004
    return f"{size} B"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 blob`, `2 blobs`, `1,204 blobs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:  # noqa: PLR2004
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"  # noqa: PLR2004


def listed(paths: Sequence[str]) -> str:
    """Return a few paths and how many more there are."""
    more = f" and {len(paths) - _LISTED:,} more" if len(paths) > _LISTED else ""
    return ", ".join(paths[:_LISTED]) + more


def few_notes(notes: Sequence[str]) -> Iterator[str]:
    """Yield a few notes, and how many more there are."""
    yield from notes[:_NOTES]
    if len(notes) > _NOTES:
        yield f"and {len(notes) - _NOTES:,} more notes like these"
