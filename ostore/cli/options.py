"""Options that mean the same in every command, and the settings of a command."""

from __future__ import annotations

import enum
import os
import re
from pathlib import Path
from typing import Annotated

import typer


def group() -> typer.Typer:
    """An app for one command; `program` joins them."""
    return typer.Typer(
        add_completion=False, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
    )


class ProgressMode(enum.StrEnum):
    """How to show progress."""

    AUTO = "auto"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


class ColorMode(enum.StrEnum):
    """When to use colours."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def _folder(text: str) -> Path:
    return Path(_not_empty(text))


def _not_empty(text: str) -> str:
    from ostore.formats.errors import UsageError

    if not text:
        # An unset variable in a script. The path would mean the working folder.
        raise UsageError("--models: empty; expected a folder")
    return text


_MODELS_HELP = "Folder of the store. Default: OLLAMA_MODELS, then where Ollama looks (see `ostore where`)."
Models = Annotated[Path | None, typer.Option("--models", metavar="DIR", parser=_folder, help=_MODELS_HELP)]
# As it was typed: a path forgets that "./x" is no bare word.
ModelsText = Annotated[str | None, typer.Option("--models", metavar="DIR", parser=_not_empty, help=_MODELS_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document (docs/json.md).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No summary, no progress; lists print one name per line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show what would happen; change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Number of threads. Default: one per processor.")
]
ShowProgress = Annotated[
    ProgressMode, typer.Option("--progress", help="How to show progress on standard error (json: docs/json.md).")
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Overwrite an existing file, or a different model of the same name.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Write nothing unless every model can be taken. Default: leave out the others.")
]
LockOption = Annotated[
    str | None,
    typer.Option("--lock", metavar="FILE", help="Accept exactly the manifests of this lock file (`ostore lock`)."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every blob.")]
Connections = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Number of connections. Default: 32.")
]
LimitRate = Annotated[
    str | None,
    typer.Option("--limit-rate", metavar="RATE", help="Bytes a second of all connections together, such as 10MB."),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="FILE", help="Certificates of authorities to trust beside those of the system."),
]
PlainHttp = Annotated[
    bool, typer.Option("--plain-http", help="No TLS, also to other machines. Only for a network that you trust.")
]


def examples(*lines: str) -> str:
    """The examples at the end of a command's help; \\b keeps typer from joining the lines. Windows has no sudo."""
    shown = (re.sub(r"^sudo (-u \w+ )?", "", line) if os.name == "nt" else line for line in lines)
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in shown)))
