"""`ostore rm`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ostore.cli.options import (
    AsJson,
    DryRun,
    Models,
    Quiet,
    Verbose,
    Yes,
    examples,
    group,
)
from ostore.cli.text import say

if TYPE_CHECKING:
    from ostore.api.rm import RmReport

app = group()


@app.command(epilog=examples("ostore rm llama3", "ostore rm mistral:7b 'gemma3*' --yes", "ostore rm llama3 --dry-run"))
def rm(
    names: Annotated[list[str], typer.Argument(metavar="MODEL...", show_default=False)],
    yes: Yes = False,
    dry_run: DryRun = False,
    models: Models = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """
    Remove models, and the blobs that only they need.

    MODEL is a name or a quoted glob. It shows what is freed and what stays because other models share it, and asks.
    """
    from ostore.api.rm import rm as remove
    from ostore.cli.asking import agreed
    from ostore.cli.render import rm as render
    from ostore.cli.render.report import say_report, say_warnings

    def approve(plan: RmReport) -> bool:
        say_warnings(render.warnings(plan))
        return agreed(render.text(plan, verbose=verbose), "Remove that?")

    report = remove(names, dry_run=dry_run, approve=None if yes else approve, models=models)
    if report is None:
        say("nothing was removed", sys.stderr)
    else:
        say_report(
            "rm",
            report,
            lambda: render.text(report, verbose=verbose),
            as_json=as_json,
            quiet=quiet,
            warnings=render.warnings(report),
        )
