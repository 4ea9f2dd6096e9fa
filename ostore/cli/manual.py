"""The page of the manual, ostore(1), in the language of man: made from typer's description of the commands."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import typer

from ostore.cli.exit_codes import CODES, INTERRUPTED, TERMINATED
from ostore.cli.program import COMMANDS
from ostore.cli.program import app as program
from ostore.formats.version import VERSION

_ENVIRONMENT = {
    "OLLAMA_MODELS": "The folder of the store.",
    "NO_COLOR": "If it is not empty: no colours.",
    "FORCE_COLOR": "If it is not empty: colours also where there is no terminal.",
    "OSTORE_DEBUG": "If it is not empty: an error shows its traceback.",
}


def page() -> str:
    """Return the whole page."""
    commands = typer.main.get_group(program)
    summary = (commands.help or "").split(".")[0]
    return "\n".join(
        (
            f'.TH OSTORE 1 "" "ostore {VERSION}" "User Commands"',
            *_section("NAME", rf"ostore \- {_escaped(summary[0].lower() + summary[1:])}"),
            *_section(
                "SYNOPSIS", r"\fBostore\fR \fICOMMAND\fR [\fIOPTION\fR]...", ".br", r"\fBostore\fR help \fICOMMAND\fR"
            ),
            *_section("DESCRIPTION", _escaped(commands.help or "")),
            *_section("COMMANDS"),
            *(line for name in COMMANDS for line in _command(name, commands.commands[name])),
            *_section("EXIT STATUS"),
            *_items({"0": "Done, and on the disk.", **{str(code): f"{name}." for name, code in CODES.items()}}),
            *_items({f"{INTERRUPTED}, {TERMINATED}": "Stopped by Ctrl-C, or by SIGTERM or SIGHUP."}),
            *_section("ENVIRONMENT"),
            *_items(_ENVIRONMENT),
        )
    )


def _command(name: str, command: Any) -> Iterator[str]:  # noqa: ANN401 - typer has no public name for a command
    context = typer.Context(command, info_name=name)
    # typer puts an argument that is needed into braces.
    usage = re.sub("[{}]", "", " ".join(command.collect_usage_pieces(context)))
    yield rf".SS \fBostore {_escaped(name)}\fR {_escaped(usage)}"
    for number, paragraph in enumerate(re.split(r"\n\s*\n", command.help or "")):
        yield from (*([".PP"] if number else []), _escaped(" ".join(paragraph.split())))
    records = (parameter.get_help_record(context) for parameter in command.params)
    yield from _items(dict(record for record in records if record))
    _, *examples = (command.epilog or "").removeprefix("\b\n").splitlines()
    if examples:
        yield from (".PP", ".nf", *map(_escaped, textwrap.dedent("\n".join(examples)).splitlines()), ".fi")


def _section(title: str, *lines: str) -> Iterator[str]:
    yield f".SH {title}"
    yield from lines


def _items(items: dict[str, str]) -> Iterator[str]:
    for item, meaning in items.items():
        yield from (".TP", rf"\fB{_escaped(item)}\fR", _escaped(" ".join(meaning.split())))


def _escaped(text: str) -> str:
    """Return a text of one or no line so that man prints it as it is."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    return rf"\&{text}" if text.startswith(".") else text
