"""`ostore path`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import AsJson, Models, examples, group
from ostore.cli.text import one_line, say, say_data

if TYPE_CHECKING:
    from ostore.cli.render.path import Part

app = group()

Strict = Annotated[
    bool, typer.Option("--strict", help="Exit with 10 and print nothing if only Ollama loads the weights.")
]


@app.command(
    epilog=examples(
        'llama-server -m "$(ostore path llama3)"',
        "ostore path llava --projector",
        "ostore path llama3 --json",
    )
)
def path(
    model: Annotated[str, typer.Argument(metavar="MODEL", show_default=False)],
    projector: Annotated[bool, typer.Option("--projector", help="Print the path of the projector.")] = False,
    adapter: Annotated[bool, typer.Option("--adapter", help="Print the path of the adapter.")] = False,
    strict: Strict = False,
    models: Models = None,
    as_json: AsJson = False,
) -> None:
    """
    Print the path of a model's weights, and nothing else.

    The file is a blob of the store: read it, and do not change or remove it. If only Ollama loads it, a warning says so
    on standard error. --json has all files of the model.
    """
    from ostore.api.path import path as find
    from ostore.cli.render import path as render
    from ostore.cli.render.report import say_document, say_warnings
    from ostore.formats.errors import UsageError

    if projector and adapter:
        raise UsageError("choose only one of --projector and --adapter")
    part: Part = "projector" if projector else "adapter" if adapter else "model"
    report = find(model, strict=strict, models=models)
    if as_json:
        say_document("path", report)
        return
    for found in render.paths(report, part):
        # A program gets it byte for byte. On a terminal, a line break in it must not begin another line.
        if sys.stdout is not None and sys.stdout.isatty():
            say(one_line(found))
        else:
            say_data(os.fsencode(found) + b"\n")
    say_warnings(report.warnings)
