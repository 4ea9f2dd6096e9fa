"""`ostore list`."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from ostore.cli.options import AsJson, Models, Quiet, examples, group
from ostore.cli.text import tell

app = group()


class Order(enum.StrEnum):
    """What the rows of a list are sorted by."""

    MODIFIED = "modified"
    NAME = "name"
    SIZE = "size"
    UNIQUE = "unique"


Sort = Annotated[
    Order, typer.Option("--sort", help="Sort by time (the newest first), name or size (the largest first).")
]


@app.command("list", epilog=examples("ostore list", "ostore list llama --sort size", "ostore list 'hf.co/*' --json"))
def list_(
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="[PATTERN]...", help="Prefixes, quoted globs or IDs.")
    ] = None,
    sort: Sort = Order.MODIFIED,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the models of a store, as `ollama list` does. UNIQUE is the bytes that no other model needs."""
    from ostore.api.list_models import list_models
    from ostore.cli.render import list as render
    from ostore.cli.render.report import say_report

    report = render.ordered(list_models(patterns or (), models=models), sort.value)
    say_report(
        "list",
        report,
        lambda: render.text(report),
        as_json=as_json,
        quiet=quiet,
        lines=(row.name for row in report.models),
        warnings=render.warnings(report),
    )
    if not report.models and not as_json and not quiet:
        tell(render.nothing(report, patterns or ()))
