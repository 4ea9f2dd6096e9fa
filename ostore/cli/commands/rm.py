"""`ostore rm`."""

from __future__ import annotations

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
from ostore.cli.text import tell

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
    from ostore.cli.asking import Asking
    from ostore.cli.exit_codes import end_with
    from ostore.cli.render import rm as render
    from ostore.cli.render.report import in_use, say_report
    from ostore.cli.stopping import GOES_ON, if_stopped

    if not dry_run:
        if_stopped(GOES_ON)
    asking: Asking[RmReport] = Asking(lambda plan: render.plan(plan, verbose=verbose), "Remove that?")
    report = remove(names, dry_run=dry_run, approve=None if yes else asking, models=models)
    if report is None:
        tell("nothing was removed")
    shown = report or asking.declined
    if shown and (report or as_json):
        say_report(
            "rm",
            shown,
            lambda: render.text(shown, verbose=verbose),
            as_json=as_json,
            quiet=quiet,
            warnings=(*render.warnings(shown), *in_use(shown.in_use)),
            done=None if shown.dry_run else lambda: render.summary(shown),
        )
        if shown.in_use:
            end_with("busy")
