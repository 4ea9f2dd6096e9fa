"""Options that mean the same in every command, and how a group of commands is made."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


def group() -> typer.Typer:
    """A group of commands; `main` shows them all as one program."""
    return typer.Typer(
        add_completion=False, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
    )


class ProgressMode(enum.StrEnum):
    """When and how progress is shown."""

    AUTO = "auto"
    PLAIN = "plain"
    NONE = "none"


class ColorMode(enum.StrEnum):
    """When colours are used."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


Models = Annotated[
    Path | None,
    typer.Option(
        "--models",
        metavar="DIR",
        # A folder that may not be read is no mistake in the arguments; `where` has something to say of it.
        readable=False,
        help="The store's folder; else OLLAMA_MODELS, else as `ostore where` says.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document (docs/json.md).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result; for lists, one name a line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Threads; default: one a processor.")
]
ShowProgress = Annotated[ProgressMode, typer.Option("--progress", help="Progress on standard error.")]
Color = Annotated[ColorMode, typer.Option("--color", help="Colours; NO_COLOR and FORCE_COLOR count as well.")]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite what is there and different.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show everything.")]


def examples(*lines: str) -> str:
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
